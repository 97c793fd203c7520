//! Floating point, comparisons, conversions (SDM vol. 2, the VEX forms of SSE's; F16C).

use crate::emit::fp::{Fp, Shape};
use crate::emit::{Masm, Sz, V, X};
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::convert::*;
use crate::isa::sse::float::*;
use crate::isa::sse::{Width, compare::*, control, unary};
use crate::rows;
use iced_x86::{Instruction, OpKind};

use Fp::{D, S};
use Shape::{Packed, Scalar};

rows! { "avx float";
    Vaddss => |cx, i| arith(cx, i, Masm::fadd, Scalar, S),
    Vaddsd => |cx, i| arith(cx, i, Masm::fadd, Scalar, D),
    Vaddps => |cx, i| arith(cx, i, Masm::fadd, Packed, S),
    Vaddpd => |cx, i| arith(cx, i, Masm::fadd, Packed, D),
    Vsubss => |cx, i| arith(cx, i, Masm::fsub, Scalar, S),
    Vsubsd => |cx, i| arith(cx, i, Masm::fsub, Scalar, D),
    Vsubps => |cx, i| arith(cx, i, Masm::fsub, Packed, S),
    Vsubpd => |cx, i| arith(cx, i, Masm::fsub, Packed, D),
    Vmulss => |cx, i| arith(cx, i, Masm::fmul, Scalar, S),
    Vmulsd => |cx, i| arith(cx, i, Masm::fmul, Scalar, D),
    Vmulps => |cx, i| arith(cx, i, Masm::fmul, Packed, S),
    Vmulpd => |cx, i| arith(cx, i, Masm::fmul, Packed, D),
    Vdivss => |cx, i| arith(cx, i, Masm::fdiv, Scalar, S),
    Vdivsd => |cx, i| arith(cx, i, Masm::fdiv, Scalar, D),
    Vdivps => |cx, i| arith(cx, i, Masm::fdiv, Packed, S),
    Vdivpd => |cx, i| arith(cx, i, Masm::fdiv, Packed, D),
    Vsqrtss => |cx, i| sqrt(cx, i, Scalar, S),
    Vsqrtsd => |cx, i| sqrt(cx, i, Scalar, D),
    Vsqrtps => |cx, i| sqrt(cx, i, Packed, S),
    Vsqrtpd => |cx, i| sqrt(cx, i, Packed, D),
    Vminss => |cx, i| min_max(cx, i, Scalar, S, false),
    Vminsd => |cx, i| min_max(cx, i, Scalar, D, false),
    Vminps => |cx, i| min_max(cx, i, Packed, S, false),
    Vminpd => |cx, i| min_max(cx, i, Packed, D, false),
    Vmaxss => |cx, i| min_max(cx, i, Scalar, S, true),
    Vmaxsd => |cx, i| min_max(cx, i, Scalar, D, true),
    Vmaxps => |cx, i| min_max(cx, i, Packed, S, true),
    Vmaxpd => |cx, i| min_max(cx, i, Packed, D, true),
    Vhaddps => |cx, i| horizontal(cx, i, S, Masm::fadd),
    Vhaddpd => |cx, i| horizontal(cx, i, D, Masm::fadd),
    Vhsubps => |cx, i| horizontal(cx, i, S, Masm::fsub),
    Vhsubpd => |cx, i| horizontal(cx, i, D, Masm::fsub),
    Vaddsubps => |cx, i| alternate(cx, i, S),
    Vaddsubpd => |cx, i| alternate(cx, i, D),
    Vdpps => |cx, i| dot(cx, i, S),
    Vdppd => |cx, i| dot(cx, i, D),
    Vroundss => |cx, i| round(cx, i, Scalar, S),
    Vroundsd => |cx, i| round(cx, i, Scalar, D),
    Vroundps => |cx, i| round(cx, i, Packed, S),
    Vroundpd => |cx, i| round(cx, i, Packed, D),
    Vcmpps => |cx, i| compare(cx, i, Packed, S),
    Vcmppd => |cx, i| compare(cx, i, Packed, D),
    Vcmpss => |cx, i| compare(cx, i, Scalar, S),
    Vcmpsd => |cx, i| compare(cx, i, Scalar, D),
    Vcomiss => |cx, i| flags(cx, i, S, true),
    Vcomisd => |cx, i| flags(cx, i, D, true),
    Vucomiss => |cx, i| flags(cx, i, S, false),
    Vucomisd => |cx, i| flags(cx, i, D, false),
    Vcvtsi2ss => |cx, i| from_int(cx, i, S),
    Vcvtsi2sd => |cx, i| from_int(cx, i, D),
    Vcvtss2si => |cx, i| to_int(cx, i, S, false),
    Vcvtsd2si => |cx, i| to_int(cx, i, D, false),
    Vcvttss2si => |cx, i| to_int(cx, i, S, true),
    Vcvttsd2si => |cx, i| to_int(cx, i, D, true),
    Vcvtss2sd => |cx, i| precision(cx, i, S),
    Vcvtsd2ss => |cx, i| precision(cx, i, D),
    Vcvtps2pd => |cx, i| singles_to_doubles(cx, i),
    Vcvtpd2ps => |cx, i| doubles_to_singles(cx, i),
    Vcvtdq2ps => |cx, i| unary(cx, i, |cx, d, n| cx.m.scvtf_v(S, d, n)),
    Vcvtdq2pd => |cx, i| ints_to_doubles(cx, i),
    Vcvtps2dq => |cx, i| unary(cx, i, |cx, d, n| singles_to_ints(cx, d, n, false)),
    Vcvttps2dq => |cx, i| unary(cx, i, |cx, d, n| singles_to_ints(cx, d, n, true)),
    Vcvtpd2dq => |cx, i| doubles_to_int_lanes(cx, i, false),
    Vcvttpd2dq => |cx, i| doubles_to_int_lanes(cx, i, true),
    Vcvtph2ps => |cx, i| halves_to_singles(cx, i),
    Vcvtps2ph => |cx, i| singles_to_halves(cx, i),
    Vrcpss => |cx, i| control::estimate(cx, i, false, 0),
    Vrcpps => |cx, i| control::estimate(cx, i, true, 0),
    Vrsqrtss => |cx, i| control::estimate(cx, i, false, 1),
    Vrsqrtps => |cx, i| control::estimate(cx, i, true, 1),
    Vldmxcsr => |cx, i| control::ldmxcsr(cx, i),
    Vstmxcsr => |cx, i| control::stmxcsr(cx, i),
}

/// VCVTPH2PS.
fn halves_to_singles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let n = cx.vsrc(i, 1)?;
    if Width::of(i) == Width::Vex256 {
        let to = i.op0_register().number();
        let high = cx.upper_target(to);
        cx.m.fcvtl_half(true, high, n);
        cx.m.fcvtl_half(false, d, n);
        cx.set_upper(to, high);
    } else {
        cx.m.fcvtl_half(false, d, n);
    }
    Ok(())
}

/// FPCR.RMode, bits 23-22, for the rounding controls of x86: nearest, down, up, toward zero.
const RMODE: [u32; 4] = [0, 2, 1, 3];

/// VCVTPS2PH: imm8[2] asks for MXCSR's rounding, else imm8[1:0] says which, and FPCR is set for the one instruction or two.
fn singles_to_halves(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = cx.imm8(i);
    let wide = i.op1_register().is_ymm();
    let sources = if wide { cx.vsrc_halves(i, 1)?.to_vec() } else { vec![cx.vreg(i, 1)?] };
    let to =
        if i.op0_kind() == OpKind::Memory { Err(cx.addr(i, if wide { 16 } else { 8 })) } else { Ok(cx.vreg(i, 0)?) };
    let (kept, t) = (cx.tmp(), cx.tmp());
    if imm & 4 == 0 {
        set_rounding(cx, kept, t, RMODE[usize::from(imm & 3)]);
    }
    let results: Vec<V> = sources
        .into_iter()
        .map(|s| {
            let r = cx.vtmp();
            cx.m.fcvtn_half(r, s);
            r
        })
        .collect();
    if imm & 4 == 0 {
        cx.m.msr_fpcr(kept);
    }
    let mut r = results[0];
    if let [lo, hi] = results[..] {
        use crate::emit::simd::Ar;
        cx.m.zip1(Ar::D2, lo, lo, hi);
        r = lo;
    }
    match to {
        Ok(d) => cx.m.mov_v(d, r),
        Err(at) => cx.store_v(if wide { 16 } else { 8 }, r, at),
    }
    Ok(())
}

/// Sets FPCR's rounding mode; what it was is in `kept`.
fn set_rounding(cx: &mut Cx<'_>, kept: X, t: X, mode: u32) {
    let m = cx.tmp();
    cx.m.mrs_fpcr(kept);
    cx.m.movz(Sz::W, m, mode as u16, 0);
    cx.m.mov(Sz::X, t, kept);
    cx.m.bfi(Sz::X, t, m, 22, 2);
    cx.m.msr_fpcr(t);
}
