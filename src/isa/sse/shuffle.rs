//! Rearranging lanes of XMM registers (SDM vol. 2): PSHUF*, SHUF*, UNPCK*, PUNPCK*, PACK*, PALIGNR, PMOVSX and PMOVZX, BLEND*.
//!
//! Constant shuffles take the one AArch64 instruction that does them when there is one, else one lane insert, else a table look-up with
//! its indices from the literal pool: two words.

use super::lanes::lanewise;
use super::{Width, apart, binary, halves, unary};
use crate::emit::simd::Ar;
use crate::emit::{Masm, V};
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::rows;
use iced_x86::Instruction;

rows! { "sse shuffle";
    Pshufd | Vpshufd => |cx, i| pshufd(cx, i),
    Pshuflw | Vpshuflw => |cx, i| pshufw(cx, i, 0),
    Pshufhw | Vpshufhw => |cx, i| pshufw(cx, i, 4),
    Pshufb | Vpshufb => |cx, i| binary(cx, i, pshufb),
    Shufps | Vshufps => |cx, i| shufps(cx, i),
    Shufpd | Vshufpd => |cx, i| shufpd(cx, i),
    Unpcklps | Vunpcklps | Unpckhps | Vunpckhps | Unpcklpd | Vunpcklpd | Unpckhpd | Vunpckhpd |
        Punpcklbw | Vpunpcklbw | Punpcklwd | Vpunpcklwd | Punpckldq | Vpunpckldq | Punpcklqdq | Vpunpcklqdq |
        Punpckhbw | Vpunpckhbw | Punpckhwd | Vpunpckhwd | Punpckhdq | Vpunpckhdq | Punpckhqdq | Vpunpckhqdq => |cx, i| lanewise(cx, i),
    Packsswb | Vpacksswb => |cx, i| pack(cx, i, Masm::sqxtn, 0),
    Packssdw | Vpackssdw => |cx, i| pack(cx, i, Masm::sqxtn, 1),
    Packuswb | Vpackuswb => |cx, i| pack(cx, i, Masm::sqxtun, 0),
    Packusdw | Vpackusdw => |cx, i| pack(cx, i, Masm::sqxtun, 1),
    Palignr | Vpalignr => |cx, i| palignr(cx, i),
    Pmovsxbw | Vpmovsxbw => |cx, i| extend(cx, i, Masm::sshll, 0, 1),
    Pmovsxbd | Vpmovsxbd => |cx, i| extend(cx, i, Masm::sshll, 0, 2),
    Pmovsxbq | Vpmovsxbq => |cx, i| extend(cx, i, Masm::sshll, 0, 3),
    Pmovsxwd | Vpmovsxwd => |cx, i| extend(cx, i, Masm::sshll, 1, 2),
    Pmovsxwq | Vpmovsxwq => |cx, i| extend(cx, i, Masm::sshll, 1, 3),
    Pmovsxdq | Vpmovsxdq => |cx, i| extend(cx, i, Masm::sshll, 2, 3),
    Pmovzxbw | Vpmovzxbw => |cx, i| extend(cx, i, Masm::ushll, 0, 1),
    Pmovzxbd | Vpmovzxbd => |cx, i| extend(cx, i, Masm::ushll, 0, 2),
    Pmovzxbq | Vpmovzxbq => |cx, i| extend(cx, i, Masm::ushll, 0, 3),
    Pmovzxwd | Vpmovzxwd => |cx, i| extend(cx, i, Masm::ushll, 1, 2),
    Pmovzxwq | Vpmovzxwq => |cx, i| extend(cx, i, Masm::ushll, 1, 3),
    Pmovzxdq | Vpmovzxdq => |cx, i| extend(cx, i, Masm::ushll, 2, 3),
    Blendps | Vblendps | Vpblendd => |cx, i| blend(cx, i, 2),
    Blendpd | Vblendpd => |cx, i| blend(cx, i, 3),
    Pblendw | Vpblendw => |cx, i| blend(cx, i, 1),
    Blendvps | Vblendvps => |cx, i| blendv(cx, i, Ar::S4),
    Blendvpd | Vblendvpd => |cx, i| blendv(cx, i, Ar::D2),
    Pblendvb | Vpblendvb => |cx, i| blendv(cx, i, Ar::B16),
}

/// The byte indices of a shuffle of lanes of 2^`size` bytes: `lanes[k]` is the source of lane k.
fn byte_indices(size: u32, lanes: &[u32]) -> u128 {
    let bytes = 1 << size;
    let mut v = 0;
    for (k, &from) in lanes.iter().enumerate() {
        for b in 0..bytes {
            v |= u128::from(from * bytes + b) << (8 * (k as u32 * bytes + b));
        }
    }
    v
}

/// The lanes an 8-bit shuffle control picks, two bits each.
pub fn picks(imm: u8) -> [u32; 4] {
    std::array::from_fn(|k| u32::from(imm) >> (2 * k) & 3)
}

/// `d` = 32-bit lanes of `n` picked by `imm`.
pub fn shuffle_s(cx: &mut Cx<'_>, d: V, n: V, imm: u8) {
    let p = picks(imm);
    if one_word(&mut cx.m, d, n, imm) {
        return;
    }
    if d == n {
        let mut off = (0..4).filter(|&k| p[k as usize] != k);
        if let (Some(k), None) = (off.next(), off.next()) {
            return cx.m.ins(2, d, k, n, p[k as usize]);
        }
    }
    let t = cx.vtmp();
    cx.m.ldr_q_literal(t, byte_indices(2, &p));
    cx.m.tbl(d, n, t);
}

/// The shuffles of four lanes that one instruction does.
fn one_word(m: &mut Masm, d: V, n: V, imm: u8) -> bool {
    match imm {
        0xe4 => {
            if d != n {
                m.mov_v(d, n);
            }
        }
        0x00 => m.dup(Ar::S4, d, n, 0),
        0x55 => m.dup(Ar::S4, d, n, 1),
        0xaa => m.dup(Ar::S4, d, n, 2),
        0xff => m.dup(Ar::S4, d, n, 3),
        0x44 => m.dup(Ar::D2, d, n, 0),
        0xee => m.dup(Ar::D2, d, n, 1),
        0x39 => m.ext(d, n, n, 4),
        0x4e => m.ext(d, n, n, 8),
        0x93 => m.ext(d, n, n, 12),
        0x50 => m.zip1(Ar::S4, d, n, n),
        0xfa => m.zip2(Ar::S4, d, n, n),
        0x88 => m.uzp1(Ar::S4, d, n, n),
        0xdd => m.uzp2(Ar::S4, d, n, n),
        0xa0 => m.trn1(Ar::S4, d, n, n),
        0xf5 => m.trn2(Ar::S4, d, n, n),
        0xb1 => m.rev64(Ar::S4, d, n),
        _ => return false,
    }
    true
}

fn pshufd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = cx.imm8(i);
    unary(cx, i, |cx, d, n| shuffle_s(cx, d, n, imm))
}

/// PSHUFLW (`base` 0) and PSHUFHW (4): four words of one half, the other half copied.
fn pshufw(cx: &mut Cx<'_>, i: &Instruction, base: u32) -> Lowered {
    let p = picks(cx.imm8(i));
    let lanes: [u32; 8] = std::array::from_fn(|k| if k as u32 & 4 == base { base + p[k & 3] } else { k as u32 });
    unary(cx, i, |cx, d, n| {
        let mut off = (0..8).filter(|&k| lanes[k as usize] != k);
        match (off.next(), off.next()) {
            (None, _) if d == n => {}
            (None, _) => cx.m.mov_v(d, n),
            (Some(k), None) if d == n => cx.m.ins(1, d, k, n, lanes[k as usize]),
            _ => {
                let t = cx.vtmp();
                cx.m.ldr_q_literal(t, byte_indices(1, &lanes));
                cx.m.tbl(d, n, t);
            }
        }
    })
}

/// PSHUFB: bit 7 of an index clears the byte, bits 3-0 pick. TBL clears past 15, so bits 6-4 are masked off.
fn pshufb(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let t = cx.vtmp();
    cx.m.movi_bytes(t, 0x8f);
    cx.m.and_v(t, t, b);
    cx.m.tbl(d, a, t);
}

/// SHUFPS: two lanes of the destination, then two of the source.
fn shufps(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = cx.imm8(i);
    let p = picks(imm);
    binary(cx, i, |cx, d, a, b| {
        if a == b {
            return shuffle_s(cx, d, a, imm);
        }
        match imm {
            0x88 => return cx.m.uzp1(Ar::S4, d, a, b),
            0xdd => return cx.m.uzp2(Ar::S4, d, a, b),
            0x44 => return cx.m.zip1(Ar::D2, d, a, b),
            0xee => return cx.m.zip2(Ar::D2, d, a, b),
            0x4e => return cx.m.ext(d, a, b, 8),
            0xe4 => return low_high(cx, d, a, b),
            _ => {}
        }
        let t = cx.vtmp();
        let (x, x_high) = pair(cx, a, p[0], p[1], t);
        let t = cx.vtmp();
        let (y, y_high) = pair(cx, b, p[2], p[3], t);
        match (x_high, y_high) {
            (0, 0) => cx.m.zip1(Ar::D2, d, x, y),
            (1, 1) => cx.m.zip2(Ar::D2, d, x, y),
            (1, 0) => cx.m.ext(d, x, y, 8),
            _ => low_high(cx, d, x, y),
        }
    })
}

/// A register with lanes `p` and `q` of `n` side by side, and which half they are in. At most two words into `t`.
fn pair(cx: &mut Cx<'_>, n: V, p: u32, q: u32, t: V) -> (V, u32) {
    let half = match (p, q) {
        (0, 1) => return (n, 0),
        (2, 3) => return (n, 1),
        (0, 0) | (1, 1) => {
            cx.m.zip1(Ar::S4, t, n, n);
            p
        }
        (2, 2) | (3, 3) => {
            cx.m.zip2(Ar::S4, t, n, n);
            p - 2
        }
        (0, 2) => {
            cx.m.uzp1(Ar::S4, t, n, n);
            0
        }
        (1, 3) => {
            cx.m.uzp2(Ar::S4, t, n, n);
            0
        }
        (1, 0) | (3, 2) => {
            cx.m.rev64(Ar::S4, t, n);
            u32::from(p == 3)
        }
        (1, 2) | (3, 0) => {
            cx.m.ext(t, n, n, 4);
            u32::from(p == 3)
        }
        _ => {
            cx.m.dup(Ar::S4, t, n, p);
            cx.m.ins(2, t, 1, n, q);
            0
        }
    };
    (t, half)
}

/// `d` = the low half of `a` below the high half of `b`.
pub fn low_high(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    if d == b {
        if a != b {
            cx.m.ins(3, d, 0, a, 0);
        }
        return;
    }
    if d != a {
        cx.m.mov_v(d, a);
    }
    cx.m.ins(3, d, 1, b, 1);
}

fn shufpd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = cx.imm8(i);
    halves(cx, i, |cx, half, d, a, b| match imm >> (2 * half) & 3 {
        0 => cx.m.zip1(Ar::D2, d, a, b),
        1 => cx.m.ext(d, a, b, 8),
        2 => low_high(cx, d, a, b),
        _ => cx.m.zip2(Ar::D2, d, a, b),
    })
}

/// Narrows the destination, then the source, with saturation. `size` is the result lanes'.
fn pack(cx: &mut Cx<'_>, i: &Instruction, op: fn(&mut Masm, Ar, V, V), size: u8) -> Lowered {
    let low = [Ar::B8, Ar::H4][usize::from(size)];
    apart(cx, i, |cx, d, a, b| {
        op(&mut cx.m, low, d, a);
        if a == b {
            cx.m.dup(Ar::D2, d, d, 0);
        } else {
            op(&mut cx.m, Ar::full(size), d, b);
        }
    })
}

/// PALIGNR: destination above source, shifted right by bytes.
fn palignr(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let by = u32::from(cx.imm8(i));
    binary(cx, i, |cx, d, a, b| match by {
        0 if d == b => {}
        0 => cx.m.mov_v(d, b),
        1..16 => cx.m.ext(d, b, a, by),
        16 if d == a => {}
        16 => cx.m.mov_v(d, a),
        17..32 => {
            let z = cx.vtmp();
            cx.m.zero_v(z);
            cx.m.ext(d, a, z, by - 16);
        }
        _ => cx.m.zero_v(d),
    })
}

/// PMOVSX, PMOVZX: doubles the low lanes from 2^`from` to 2^`to` bytes, one word a step.
fn extend(cx: &mut Cx<'_>, i: &Instruction, op: fn(&mut Masm, Ar, V, V, u32), from: u32, to: u32) -> Lowered {
    const LOW: [Ar; 3] = [Ar::B8, Ar::H4, Ar::S2];
    if Width::of(i) == Width::Vex256 {
        // All but the last step are those of 128 bits; that one doubles either half.
        let d = cx.vreg(i, 0)?;
        let mut s = cx.vsrc(i, 1)?;
        for size in from..to - 1 {
            let t = cx.vtmp();
            op(&mut cx.m, LOW[size as usize], t, s, 0);
            s = t;
        }
        let n = i.op0_register().number();
        let high = cx.upper_target(n);
        op(&mut cx.m, Ar::full(to as u8 - 1), high, s, 0);
        op(&mut cx.m, LOW[to as usize - 1], d, s, 0);
        cx.set_upper(n, high);
        return Ok(());
    }
    unary(cx, i, |cx, d, n| {
        let mut s = n;
        for size in from..to {
            op(&mut cx.m, LOW[size as usize], d, s, 0);
            s = d;
        }
    })
}

/// BLENDPS, BLENDPD, PBLENDW: lanes whose bit is set come from the second source. The halves of a YMM register have bits of their own where there are
/// enough.
fn blend(cx: &mut Cx<'_>, i: &Instruction, size: u32) -> Lowered {
    let count = 16 >> size;
    let bits = u32::from(cx.imm8(i));
    halves(cx, i, |cx, half, d, a, b| {
        let all = (1 << count) - 1;
        let imm = bits >> (half * count % 8) & all;
        // The lanes that do not come from what is in `d` to begin with.
        let (base, b, imm) = if d == b { (b, a, !imm & all) } else { (a, b, imm) };
        if imm == all {
            if d != b {
                cx.m.mov_v(d, b);
            }
            return;
        }
        if d != base {
            cx.m.mov_v(d, base);
        }
        if d == b || imm == 0 {
            return;
        }
        let (bits, bytes): (u32, u32) = (imm.count_ones(), 1 << size);
        if bits == 1 {
            let k = imm.trailing_zeros();
            return cx.m.ins(size, d, k, b, k);
        }
        // A mask of whole bytes: one half, one MOVI, or the pool.
        let mut mask = 0u128;
        for k in (0..count).filter(|k| imm & (1 << k) != 0) {
            mask |= ((1u128 << (8 * bytes)) - 1) << (8 * bytes * k);
        }
        for half in 0..2 {
            if mask == u128::from(u64::MAX) << (64 * half) {
                return cx.m.ins(3, d, half, b, half);
            }
        }
        let t = cx.vtmp();
        if mask as u64 == (mask >> 64) as u64 {
            let byte_bits = (0..8).filter(|k| mask >> (8 * k) & 1 != 0).fold(0u8, |v, k| v | 1 << k);
            cx.m.movi_d(t, byte_bits);
        } else {
            cx.m.ldr_q_literal(t, mask);
        }
        cx.m.bit(d, b, t);
    })
}

/// BLENDV: lanes whose sign in the mask is set come from the second source. The mask is XMM0, with VEX the last operand.
fn blendv(cx: &mut Cx<'_>, i: &Instruction, ar: Ar) -> Lowered {
    let mask = match Width::of(i) {
        Width::Legacy => [V(xrun_runtime::abi::xmm(0)); 2],
        Width::Vex128 => [cx.vreg(i, 3)?; 2],
        Width::Vex256 => cx.vsrc_halves(i, 3)?,
    };
    halves(cx, i, |cx, half, d, a, b| pick_by_sign(cx, ar, d, [a, b], mask[half as usize]))
}

/// `d` = lanes of the second where the sign in `mask` is set, else of the first.
fn pick_by_sign(cx: &mut Cx<'_>, ar: Ar, d: V, from: [V; 2], mask: V) {
    let [a, b] = from;
    let t = if d == a || d == b { cx.vtmp() } else { d };
    cx.m.cmlt_zero(ar, t, mask);
    if d == a {
        cx.m.bit(d, b, t);
    } else if d == b {
        cx.m.bif(d, a, t);
    } else {
        cx.m.bsl(d, b, a);
    }
}
