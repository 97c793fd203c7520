//! AES-NI and PCLMULQDQ (SDM vol. 2). AArch64's AESE and AESD add the round key before the round, x86 after it: they get a key of zero,
//! and the real one is XORed in at the end.

use super::{binary, unary};
use crate::emit::simd::Ar;
use crate::emit::{Sz, V};
use crate::isa::cx::Cx;
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::Instruction;

rows! { "crypto";
    Aesenc | Vaesenc => |cx, i| round(cx, i, false, false),
    Aesenclast | Vaesenclast => |cx, i| round(cx, i, false, true),
    Aesdec | Vaesdec => |cx, i| round(cx, i, true, false),
    Aesdeclast | Vaesdeclast => |cx, i| round(cx, i, true, true),
    Aesimc | Vaesimc => |cx, i| imc(cx, i),
    Aeskeygenassist | Vaeskeygenassist => |cx, i| key_assist(cx, i),
    Pclmulqdq | Vpclmulqdq => |cx, i| clmul(cx, i),
}

const NO_AES: Decline = Decline::Unsupported("the host CPU has no AES instructions");

fn round(cx: &mut Cx<'_>, i: &Instruction, decrypt: bool, last: bool) -> Lowered {
    if !cx.host.aes {
        return Err(NO_AES);
    }
    binary(cx, i, |cx, d, a, key| {
        let (zero, t) = (cx.vtmp(), cx.vtmp());
        let r = if key == a || key == d { t } else { d };
        if r != a {
            cx.m.mov_v(r, a);
        }
        cx.m.zero_v(zero);
        cx.m.aes_round(decrypt, r, zero);
        if !last {
            cx.m.aes_mix(decrypt, r, r);
        }
        cx.m.eor_v(d, r, key);
    })
}

fn imc(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if !cx.host.aes {
        return Err(NO_AES);
    }
    unary(cx, i, |cx, d, n| cx.m.aes_mix(true, d, n))
}

/// Substitutes the bytes of words 1 and 3, each also rotated and added to the round constant. AESE shifts rows as well: the look-up takes the bytes
/// from where they went.
fn key_assist(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if !cx.host.aes {
        return Err(NO_AES);
    }
    let rcon = cx.imm8(i);
    unary(cx, i, |cx, d, n| {
        let (t, u): (V, V) = (cx.vtmp(), cx.vtmp());
        cx.m.zero_v(t);
        cx.m.aes_round(false, t, n);
        cx.m.ldr_q_literal(u, u128::from_le_bytes([4, 1, 14, 11, 1, 14, 11, 4, 12, 9, 6, 3, 9, 6, 3, 12]));
        cx.m.tbl(d, t, u);
        if rcon != 0 {
            let x = cx.tmp();
            cx.m.movz(Sz::X, x, u16::from(rcon), 2);
            cx.m.dup_x(Ar::D2, t, x);
            cx.m.eor_v(d, d, t);
        }
    })
}

/// PCLMULQDQ: imm8 bit 0 picks the half of the first operand, bit 4 that of the second.
fn clmul(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if !cx.host.pmull {
        return Err(Decline::Unsupported("the host CPU has no PMULL"));
    }
    let imm = cx.imm8(i);
    binary(cx, i, |cx, d, a, b| match (imm & 1 != 0, imm & 16 != 0) {
        (false, false) => cx.m.pmull_d(false, d, a, b),
        (true, true) => cx.m.pmull_d(true, d, a, b),
        (high, _) => {
            let t = cx.vtmp();
            let (x, y) = if high { (a, b) } else { (b, a) };
            cx.m.mov_from_lane(3, t, x, 1);
            cx.m.pmull_d(false, d, t, y);
        }
    })
}
