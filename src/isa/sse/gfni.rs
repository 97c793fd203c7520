//! GFNI (SDM vol. 2): arithmetic on bytes as polynomials over two elements, modulo x^8 + x^4 + x^3 + x + 1.
//!
//! A bit matrix is applied row by row: bit i of the result is the parity of the row ANDed with the byte, which CNT leaves in its lowest bit. Inverses
//! come from AES's substitution, which is an inverse and an affine map; the map is undone.

use super::binary;
use crate::emit::V;
use crate::emit::simd::Ar;
use crate::isa::cx::Cx;
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::Instruction;

rows! { "gfni";
    Gf2p8mulb | Vgf2p8mulb => |cx, i| binary(cx, i, multiply),
    Gf2p8affineqb | Vgf2p8affineqb => |cx, i| affine_row(cx, i, false),
    Gf2p8affineinvqb | Vgf2p8affineinvqb => |cx, i| affine_row(cx, i, true),
}

fn affine_row(cx: &mut Cx<'_>, i: &Instruction, invert: bool) -> Lowered {
    if invert && !cx.host.aes {
        return Err(Decline::Unsupported("the host CPU has no AES instructions"));
    }
    let add = cx.imm8(i);
    binary(cx, i, |cx, d, x, matrix| {
        let mut x = x;
        if invert {
            let t = cx.vtmp();
            inverse(cx, t, x);
            x = t;
        }
        affine(cx, d, x, matrix, add);
    })
}

/// `d = a * b`. The product's high part is folded back twice: x^8 is x^4 + x^3 + x + 1 (0x1b), and what is left over after the first time is short
/// enough for a product that stays in a byte.
fn multiply(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let (lo, hi, high, fold, t) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
    cx.m.movi_bytes(fold, 0x1b);
    cx.m.pmull_b(Ar::B8, lo, a, b);
    cx.m.pmull_b(Ar::B16, hi, a, b);
    cx.m.uzp2(Ar::B16, high, lo, hi);
    cx.m.uzp1(Ar::B16, d, lo, hi);
    cx.m.pmull_b(Ar::B8, lo, high, fold);
    cx.m.pmull_b(Ar::B16, hi, high, fold);
    cx.m.uzp1(Ar::B16, t, lo, hi);
    cx.m.uzp2(Ar::B16, high, lo, hi);
    cx.m.eor_v(d, d, t);
    cx.m.pmul(Ar::B16, t, high, fold);
    cx.m.eor_v(d, d, t);
}

/// `d = matrix * x + add`, the matrix of each 64-bit lane with the row of bit 7 first.
fn affine(cx: &mut Cx<'_>, d: V, x: V, matrix: V, add: u8) {
    let (index, one, row, r) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
    cx.m.ldr_q_literal(index, u128::from_le_bytes([7, 7, 7, 7, 7, 7, 7, 7, 15, 15, 15, 15, 15, 15, 15, 15]));
    cx.m.movi_bytes(one, 1);
    for bit in 0..8 {
        if bit > 0 {
            cx.m.sub_v(Ar::B16, index, index, one);
        }
        let to = if bit == 0 { r } else { row };
        cx.m.tbl(to, matrix, index);
        cx.m.and_v(to, to, x);
        cx.m.cnt(Ar::B16, to, to);
        if bit > 0 {
            cx.m.sli(Ar::B16, r, row, bit);
        }
    }
    if add == 0 {
        return cx.m.mov_v(d, r);
    }
    cx.m.movi_bytes(row, add);
    cx.m.eor_v(d, r, row);
}

/// `d = 1 / x`, and 0 for 0. AES: S(x) = A(1 / x) + 0x63; a round with a key of zero also shifts rows, which a table look-up undoes.
fn inverse(cx: &mut Cx<'_>, d: V, x: V) {
    let (zero, t) = (cx.vtmp(), cx.vtmp());
    cx.m.zero_v(zero);
    if d != x {
        cx.m.mov_v(d, x);
    }
    cx.m.aes_round(false, d, zero);
    // Byte n of the round's result is from byte SHIFT[n]; this is the way back.
    cx.m.ldr_q_literal(t, u128::from_le_bytes([0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3]));
    cx.m.tbl(d, d, t);
    cx.m.ldr_q_literal(t, u128::from(UNDO) << 64 | u128::from(UNDO));
    affine(cx, d, d, t, 5);
}

/// The matrix of AES's inverse affine map: bit i of the result is bits i + 2, i + 5 and i + 7 (FIPS 197, 5.3.2).
const UNDO: u64 = {
    let mut m = 0;
    let mut bit = 0;
    while bit < 8 {
        let row = 1 << ((bit + 2) % 8) | 1 << ((bit + 5) % 8) | 1 << ((bit + 7) % 8);
        m |= row << (8 * (7 - bit));
        bit += 1;
    }
    m
};
