//! Permutations (SDM vol. 2, VPERM*).

use crate::emit::V;
use crate::emit::simd::Ar;
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::shuffle::{low_high, picks, shuffle_s};
use crate::isa::sse::{binary, unary, unary_halves};
use crate::rows;
use iced_x86::{Instruction, OpKind};

rows! { "avx shuffle";
    Vpermilps => |cx, i| permute_singles(cx, i),
    Vpermilpd => |cx, i| permute_doubles(cx, i),
    Vperm2f128 => |cx, i| permute_halves(cx, i),
    Vperm2i128 => |cx, i| permute_halves(cx, i),
    Vpermq => |cx, i| permute_quads(cx, i),
    Vpermpd => |cx, i| permute_quads(cx, i),
    Vpermd => |cx, i| permute_all(cx, i),
    Vpermps => |cx, i| permute_all(cx, i),
}

/// Byte indices for 32-bit lanes, of the lane numbers in the low bits of `from` that `mask` has: times 4, in each byte, plus the byte's own number.
fn lane_indices(cx: &mut Cx<'_>, from: V, mask: u8) -> V {
    let (t, u) = (cx.vtmp(), cx.vtmp());
    cx.m.movi_s(t, mask, 0);
    cx.m.and_v(t, t, from);
    cx.m.movi_bytes(u, 4);
    cx.m.mul_v(Ar::S4, t, t, u);
    cx.m.ldr_q_literal(u, 0x0302_0100_0302_0100_0302_0100_0302_0100);
    cx.m.add_v(Ar::S4, t, t, u);
    t
}

/// VPERMILPS: inside each 128 bits, by an immediate or by lane numbers.
fn permute_singles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.op2_kind() == OpKind::Immediate8 {
        let imm = cx.imm8(i);
        return unary(cx, i, |cx, d, n| shuffle_s(cx, d, n, imm));
    }
    binary(cx, i, |cx, d, a, b| {
        let t = lane_indices(cx, b, 3);
        cx.m.tbl(d, a, t);
    })
}

/// VPERMILPD: by an immediate, or by bit 1 of each lane.
fn permute_doubles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.op2_kind() == OpKind::Immediate8 {
        let imm = cx.imm8(i);
        return unary_halves(cx, i, 1, |cx, half, d, n| match imm >> (2 * half) & 3 {
            0 => cx.m.dup(Ar::D2, d, n, 0),
            1 => cx.m.ext(d, n, n, 8),
            2 if d == n => {}
            2 => cx.m.mov_v(d, n),
            _ => cx.m.dup(Ar::D2, d, n, 1),
        });
    }
    binary(cx, i, |cx, d, a, b| {
        let (t, lo, hi) = (cx.vtmp(), cx.vtmp(), cx.vtmp());
        cx.m.shl_v(Ar::D2, t, b, 62);
        cx.m.cmlt_zero(Ar::D2, t, t);
        cx.m.dup(Ar::D2, lo, a, 0);
        cx.m.dup(Ar::D2, hi, a, 1);
        cx.m.bsl(t, hi, lo);
        cx.m.mov_v(d, t);
    })
}

/// VPERM2F128: each half is any of the four of the sources, or zero.
fn permute_halves(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = usize::from(cx.imm8(i));
    let d = cx.vreg(i, 0)?;
    let to = i.op0_register().number();
    let a = cx.vsrc_halves(i, 1)?;
    let b = cx.vsrc_halves(i, 2)?;
    let from = [a[0], a[1], b[0], b[1]];
    let pick = |cx: &mut Cx<'_>, imm: usize| {
        let t = cx.vtmp();
        if imm & 8 != 0 {
            cx.m.zero_v(t);
        } else {
            cx.m.mov_v(t, from[imm & 3]);
        }
        t
    };
    // The lower half waits: it may come from the upper half about to be written.
    let lo = pick(cx, imm);
    if imm & 0x80 != 0 {
        cx.zero_upper(to);
    } else {
        cx.set_upper(to, from[imm >> 4 & 3]);
    }
    cx.m.mov_v(d, lo);
    Ok(())
}

/// VPERMQ, VPERMPD: each 64 bits are any of the source's.
fn permute_quads(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let p = picks(cx.imm8(i));
    let d = cx.vreg(i, 0)?;
    let to = i.op0_register().number();
    let from = cx.vsrc_halves(i, 1)?;
    let (lo, hi) = (cx.vtmp(), cx.vtmp());
    for (t, p, q) in [(lo, p[0], p[1]), (hi, p[2], p[3])] {
        let (x, y) = (from[p as usize >> 1], from[q as usize >> 1]);
        match (p & 1, q & 1) {
            (0, 0) => cx.m.zip1(Ar::D2, t, x, y),
            (1, 1) => cx.m.zip2(Ar::D2, t, x, y),
            (1, 0) => cx.m.ext(t, x, y, 8),
            _ if x == y => cx.m.mov_v(t, x),
            _ => low_high(cx, t, x, y),
        }
    }
    cx.set_upper(to, hi);
    cx.m.mov_v(d, lo);
    Ok(())
}

/// VPERMD, VPERMPS: each 32 bits of the last operand by the lane numbers in the first source.
fn permute_all(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let to = i.op0_register().number();
    let index = cx.vsrc_halves(i, 1)?;
    let (x, y) = cx.vtmp_pair();
    if i.op2_kind() == OpKind::Memory {
        cx.load_halves(i, x, y);
    } else {
        let from = cx.vsrc_halves(i, 2)?;
        cx.m.mov_v(x, from[0]);
        cx.m.mov_v(y, from[1]);
    }
    let lo = lane_indices(cx, index[0], 7);
    let hi = lane_indices(cx, index[1], 7);
    cx.m.tbl2(d, x, lo);
    cx.m.tbl2(hi, x, hi);
    cx.set_upper(to, hi);
    Ok(())
}
