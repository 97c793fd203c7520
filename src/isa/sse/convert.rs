//! Conversions between floating point and integers, and between precisions (SDM vol. 2, CVT*).
//!
//! Out of range and NaN give x86 the "integer indefinite", only the sign bit set (SDM vol. 1, table 4-1), where AArch64 saturates and turns
//! NaN into 0; negative saturation agrees. With FEAT_FRINTTS one rounding instruction makes all such inputs the most negative value.

use super::{Width, scalar, unary};
use crate::emit::fp::{Fp, Shape};
use crate::emit::simd::Ar;
use crate::emit::{Cond, Sz, V, X, ZR};
use crate::isa::Lowered;
use crate::isa::cx::{Cx, sz};
use crate::rows;
use iced_x86::{Instruction, OpKind};

use Fp::{D, S};
use Shape::{Packed, Scalar};

rows! { "sse convert";
    Cvtsi2ss | Vcvtsi2ss => |cx, i| from_int(cx, i, S),
    Cvtsi2sd | Vcvtsi2sd => |cx, i| from_int(cx, i, D),
    Cvtss2si | Vcvtss2si => |cx, i| to_int(cx, i, S, false),
    Cvtsd2si | Vcvtsd2si => |cx, i| to_int(cx, i, D, false),
    Cvttss2si | Vcvttss2si => |cx, i| to_int(cx, i, S, true),
    Cvttsd2si | Vcvttsd2si => |cx, i| to_int(cx, i, D, true),
    Cvtss2sd | Vcvtss2sd => |cx, i| precision(cx, i, S),
    Cvtsd2ss | Vcvtsd2ss => |cx, i| precision(cx, i, D),
    Cvtps2pd | Vcvtps2pd => |cx, i| singles_to_doubles(cx, i),
    Cvtpd2ps | Vcvtpd2ps => |cx, i| doubles_to_singles(cx, i),
    Cvtdq2ps | Vcvtdq2ps => |cx, i| unary(cx, i, |cx, d, n| cx.m.scvtf_v(S, d, n)),
    Cvtdq2pd | Vcvtdq2pd => |cx, i| ints_to_doubles(cx, i),
    Cvtps2dq | Vcvtps2dq => |cx, i| unary(cx, i, |cx, d, n| singles_to_ints(cx, d, n, false)),
    Cvttps2dq | Vcvttps2dq => |cx, i| unary(cx, i, |cx, d, n| singles_to_ints(cx, d, n, true)),
    Cvtpd2dq | Vcvtpd2dq => |cx, i| doubles_to_int_lanes(cx, i, false),
    Cvttpd2dq | Vcvttpd2dq => |cx, i| doubles_to_int_lanes(cx, i, true),
}

fn from_int(cx: &mut Cx<'_>, i: &Instruction, fp: Fp) -> Lowered {
    let vex = u32::from(Width::of(i) != Width::Legacy);
    let (d, a) = (cx.vreg(i, 0)?, cx.vreg(i, vex)?);
    let (x, bytes) = cx.int_src(i, 1 + vex)?;
    if cx.host.afp && d == a {
        cx.m.scvtf(fp, d, sz(bytes), x);
        return Ok(());
    }
    let r = cx.vtmp();
    cx.m.scvtf(fp, r, sz(bytes), x);
    cx.merge_into(fp, d, a, r);
    Ok(())
}

fn precision(cx: &mut Cx<'_>, i: &Instruction, from: Fp) -> Lowered {
    scalar(cx, i, if from == S { D } else { S }, |cx, r, n| cx.m.fcvt(from, r, n))
}

/// Lanes twice as wide, or half: conversions whose source and destination differ in size. `whole` does all of a 128-bit one; of a 256-bit one it does the
/// lower half, and `high(cx, d, n)` the upper.
fn resized(
    cx: &mut Cx<'_>,
    i: &Instruction,
    whole: impl Fn(&mut Cx<'_>, V, V),
    high: impl Fn(&mut Cx<'_>, V, V),
) -> Lowered {
    if Width::of(i) != Width::Vex256 {
        return unary(cx, i, whole);
    }
    let d = cx.vreg(i, 0)?;
    if i.op0_register().is_ymm() {
        // Widening: the upper half comes from the upper lanes of one register.
        let n = cx.vsrc(i, 1)?;
        let to = i.op0_register().number();
        let up = cx.upper_target(to);
        cx.with_vtmps(|cx| high(cx, up, n));
        cx.with_vtmps(|cx| whole(cx, d, n));
        cx.set_upper(to, up);
        return Ok(());
    }
    // Narrowing: both halves go to one register, the second above the first.
    let [lo, hi] = cx.vsrc_halves(i, 1)?;
    let (x, y) = (cx.vtmp(), cx.vtmp());
    cx.with_vtmps(|cx| whole(cx, x, lo));
    cx.with_vtmps(|cx| high(cx, y, hi));
    cx.m.zip1(Ar::D2, d, x, y);
    Ok(())
}

fn singles_to_doubles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    resized(cx, i, |cx, d, n| cx.m.fcvtl(d, n), |cx, d, n| cx.m.fcvtl2(d, n))
}

fn doubles_to_singles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    resized(cx, i, |cx, d, n| cx.m.fcvtn(d, n), |cx, d, n| cx.m.fcvtn(d, n))
}

fn ints_to_doubles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let convert = |ar: Ar| {
        move |cx: &mut Cx<'_>, d: V, n: V| {
            cx.m.sshll(ar, d, n, 0);
            cx.m.scvtf_v(D, d, d);
        }
    };
    resized(cx, i, convert(Ar::S2), convert(Ar::S4))
}

fn doubles_to_int_lanes(cx: &mut Cx<'_>, i: &Instruction, truncate: bool) -> Lowered {
    let convert = |cx: &mut Cx<'_>, d: V, n: V| doubles_to_ints(cx, d, n, truncate);
    resized(cx, i, convert, convert)
}

/// To a general register, toward zero or as MXCSR says.
fn to_int(cx: &mut Cx<'_>, i: &Instruction, fp: Fp, truncate: bool) -> Lowered {
    let p = cx.place(i, 0)?;
    let n = match i.op1_kind() {
        OpKind::Memory => cx.vsrc(i, 1)?,
        _ => cx.vreg(i, 1)?,
    };
    let size = sz(p.bytes());
    let d = cx.target(p);
    to_int_reg(cx, size, d, fp, n, truncate);
    cx.set(p, d);
    Ok(())
}

/// Lane 0 of `n` to an integer. With FEAT_FRINTTS two words, else four or five: AArch64's result needs mending only when it is
/// the largest integer or came from a NaN.
fn to_int_reg(cx: &mut Cx<'_>, size: Sz, d: X, fp: Fp, n: V, truncate: bool) {
    let r = cx.vtmp();
    if cx.host.frint {
        match (size, truncate) {
            (Sz::W, true) => cx.m.frint32z(Scalar, fp, r, n),
            (Sz::W, false) => cx.m.frint32x(Scalar, fp, r, n),
            (Sz::X, true) => cx.m.frint64z(Scalar, fp, r, n),
            (Sz::X, false) => cx.m.frint64x(Scalar, fp, r, n),
        }
        return cx.m.fcvtzs(size, d, fp, r);
    }
    // Out of range is "invalid" alone, not "inexact" as well: a double that is to be 32 bits may be both.
    let late = !truncate && fp == D && size == Sz::W;
    let exact = n;
    let mut n = n;
    if !truncate {
        if late {
            cx.m.frinti(Scalar, fp, r, n);
        } else {
            cx.m.frintx(Scalar, fp, r, n);
        }
        n = r;
    }
    let (back, good) = (cx.m.label(), cx.m.label());
    let free = cx.nzcv_free();
    let cold = cx.cold(move |cx| {
        // Largest: overflow, unless it is a 32-bit result that really is 2^31 - 1. NaN: always. Without the flags also 0 and -1 come here.
        let (x, lim, t) = (X(9), cx.vtmp(), cx.vtmp());
        let indefinite = 1u64 << (size.bits() - 1);
        let limit = match fp {
            S => u64::from(if size == Sz::W { 2f32.powi(31) } else { 2f32.powi(63) }.to_bits()),
            D => if size == Sz::W { 2f64.powi(31) } else { 2f64.powi(63) }.to_bits(),
        };
        cx.m.mov_imm(x, limit);
        cx.m.fmov_from_x(lim, x);
        // All ones when below the limit; a NaN has signalled already.
        cx.m.fcmgt(Scalar, fp, t, lim, n);
        cx.m.fmov_to_x(x, t);
        cx.m.cbnz(Sz::W, x, good);
        cx.m.mov_imm(d, indefinite);
        cx.m.b(back);
    });
    cx.m.fcvtzs(size, d, fp, n);
    if free {
        // Adding 1 overflows from the largest alone; else V says "unordered".
        cx.m.adds_imm(size, ZR, d, 1);
        cx.m.fccmp(fp, n, n, 1, Cond::Vc);
        cx.m.b_cond(Cond::Vs, cold);
    } else {
        let t = cx.tmp();
        cx.m.add_imm(size, t, d, 1);
        cx.m.and_imm(size, t, t, if size == Sz::W { 0x7fff_fffe } else { 0x7fff_ffff_ffff_fffe });
        cx.m.cbz(size, t, cold);
    }
    cx.m.bind(good);
    if late {
        // Inexact only where it is in range.
        let mut exact = exact;
        if cx.fp_traps {
            let (x, below, t) = (cx.tmp(), cx.vtmp(), cx.vtmp());
            cx.m.movz(Sz::X, x, 0x41e0, 3);
            cx.m.dup_x(Ar::D2, below, x);
            cx.m.fcmgt(Packed, D, below, below, n);
            exact = inexact_in_range(cx, t, below, exact, n);
        }
        cx.m.fcvtzs(Sz::W, ZR, D, exact);
    }
    cx.m.bind(back);
}

/// In `d`, doubles that signal as the conversion of `exact`, rounded to `rounded`, to 32 bits must: cut to an integer, `exact` may be in range though it
/// is not when rounded, which is "invalid" alone. `below` is all ones where `rounded` is below 2^31. Only an unmasked exception can make the
/// difference more than a sticky bit set too often, so it is left out of other code.
fn inexact_in_range(cx: &mut Cx<'_>, d: V, below: V, exact: V, rounded: V) -> V {
    let kept = cx.tmp;
    let x = cx.tmp();
    cx.m.movz(Sz::X, x, 0xc1e0, 3);
    cx.m.dup_x(Ar::D2, d, x);
    cx.tmp = kept;
    cx.m.fcmge(Packed, D, d, rounded, d);
    cx.m.and_v(d, d, below);
    cx.m.bsl(d, exact, rounded);
    d
}

/// Four singles to four 32-bit integers.
pub fn singles_to_ints(cx: &mut Cx<'_>, d: V, n: V, truncate: bool) {
    let r = cx.vtmp();
    if cx.host.frint {
        if truncate {
            cx.m.frint32z(Packed, S, r, n);
        } else {
            cx.m.frint32x(Packed, S, r, n);
        }
        return cx.m.fcvtzs_v(S, d, r);
    }
    let mut n = n;
    if !truncate {
        cx.m.frintx(Packed, S, r, n);
        n = r;
    }
    // Below 2^31 (0x4f000000) AArch64's result is right; elsewhere the indefinite value.
    let (ok, indefinite) = (cx.vtmp(), cx.vtmp());
    cx.m.movi_s(ok, 0x4f, 3);
    cx.m.fcmgt(Packed, S, ok, ok, n);
    cx.m.fcvtzs_v(S, d, n);
    cx.m.movi_s(indefinite, 0x80, 3);
    cx.m.bif(d, indefinite, ok);
}

/// Two doubles to two 32-bit integers in the low half, upper half zero. The conversions are scalar ones, because only those signal at 32 bits.
pub fn doubles_to_ints(cx: &mut Cx<'_>, d: V, n: V, truncate: bool) {
    let r = cx.vtmp();
    if cx.host.frint {
        if truncate {
            cx.m.frint32z(Packed, D, r, n);
        } else {
            cx.m.frint32x(Packed, D, r, n);
        }
        cx.m.fcvtzs_v(D, r, r);
        return cx.m.xtn(Ar::S2, d, r);
    }
    let exact = n;
    let mut n = n;
    if !truncate {
        cx.m.frinti(Packed, D, r, n);
        n = r;
    }
    let (ok, t) = (cx.vtmp(), cx.vtmp());
    let (lo, hi) = (cx.tmp(), cx.tmp());
    cx.m.movz(Sz::X, lo, 0x41e0, 3);
    cx.m.dup_x(Ar::D2, ok, lo);
    cx.m.fcmgt(Packed, D, ok, ok, n);
    cx.m.mov_from_lane(3, t, n, 1);
    cx.m.fcvtzs(Sz::W, lo, D, n);
    cx.m.fcvtzs(Sz::W, hi, D, t);
    if !truncate {
        // Signals "inexact" for what is in range only.
        let exact = if cx.fp_traps { inexact_in_range(cx, t, ok, exact, n) } else { exact };
        cx.m.fcvtzs(Sz::W, ZR, D, exact);
        cx.m.mov_from_lane(3, t, exact, 1);
        cx.m.fcvtzs(Sz::W, ZR, D, t);
    }
    cx.m.orr_lsl(Sz::X, lo, lo, hi, 32);
    cx.m.xtn(Ar::S2, ok, ok);
    cx.m.movi_s(t, 0x80, 3);
    cx.m.fmov_from_x(d, lo);
    // Both masks' upper halves are zero here, so that of the result must be cleared again.
    cx.m.bif(d, t, ok);
    cx.m.mov_low(d, d);
}
