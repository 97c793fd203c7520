//! Packed integer arithmetic, logic, compares and shifts on XMM registers (SDM vol. 2; SSE2, SSSE3, SSE4.1, SSE4.2), PTEST, and the
//! bitwise operations that name floating-point types (ANDPS and the like).

use super::lanes::{self, LaneOp, Shift, lanewise};
use super::{Width, binary, halves, idiom, unary, unary_halves};
use crate::emit::simd::Ar;
use crate::emit::{Masm, Sz, V, ZR};
use crate::guest::Flags;
use crate::isa::cx::{AfFrom, Cx};
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::FlagForm;

rows! { "sse integer";
    Paddb | Vpaddb | Paddw | Vpaddw | Paddd | Vpaddd | Paddq | Vpaddq | Paddsb | Vpaddsb | Paddsw | Vpaddsw |
        Paddusb | Vpaddusb | Paddusw | Vpaddusw | Psubsb | Vpsubsb | Psubsw | Vpsubsw | Psubusb | Vpsubusb |
        Psubusw | Vpsubusw | Pavgb | Vpavgb | Pavgw | Vpavgw | Pminub | Vpminub | Pminuw | Vpminuw |
        Pminud | Vpminud | Pminsb | Vpminsb | Pminsw | Vpminsw | Pminsd | Vpminsd | Pmaxub | Vpmaxub |
        Pmaxuw | Vpmaxuw | Pmaxud | Vpmaxud | Pmaxsb | Vpmaxsb | Pmaxsw | Vpmaxsw | Pmaxsd | Vpmaxsd |
        Pcmpgtb | Vpcmpgtb | Pcmpgtw | Vpcmpgtw | Pcmpgtd | Vpcmpgtd | Pcmpgtq | Vpcmpgtq | Pmullw | Vpmullw |
        Pmulld | Vpmulld | Phaddw | Vphaddw | Phaddd | Vphaddd => |cx, i| lanewise(cx, i),
    Psubb | Vpsubb | Psubw | Vpsubw | Psubd | Vpsubd | Psubq | Vpsubq => |cx, i| zeroing(cx, i),
    Pcmpeqb | Vpcmpeqb | Pcmpeqw | Vpcmpeqw | Pcmpeqd | Vpcmpeqd | Pcmpeqq | Vpcmpeqq => |cx, i| equal(cx, i),
    Phaddsw | Vphaddsw => |cx, i| pairwise(cx, i, Masm::sqadd, Ar::H8),
    Phsubw | Vphsubw => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::H8),
    Phsubd | Vphsubd => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::S4),
    Phsubsw | Vphsubsw => |cx, i| pairwise(cx, i, Masm::sqsub, Ar::H8),
    Pabsb | Vpabsb => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::B16, d, n)),
    Pabsw | Vpabsw => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::H8, d, n)),
    Pabsd | Vpabsd => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::S4, d, n)),
    Psignb | Vpsignb => |cx, i| sign(cx, i, Ar::B16),
    Psignw | Vpsignw => |cx, i| sign(cx, i, Ar::H8),
    Psignd | Vpsignd => |cx, i| sign(cx, i, Ar::S4),
    Pmulhw | Vpmulhw => |cx, i| mul_high(cx, i, Masm::smull_v),
    Pmulhuw | Vpmulhuw => |cx, i| mul_high(cx, i, Masm::umull_v),
    Pmulhrsw | Vpmulhrsw => |cx, i| binary(cx, i, mulhrs),
    Pmuludq | Vpmuludq => |cx, i| mul_even(cx, i, Masm::umull_v),
    Pmuldq | Vpmuldq => |cx, i| mul_even(cx, i, Masm::smull_v),
    Pmaddwd | Vpmaddwd => |cx, i| binary(cx, i, maddwd),
    Pmaddubsw | Vpmaddubsw => |cx, i| binary(cx, i, maddubsw),
    Psadbw | Vpsadbw => |cx, i| binary(cx, i, sadbw),
    Mpsadbw | Vmpsadbw => |cx, i| mpsadbw(cx, i),
    Phminposuw | Vphminposuw => |cx, i| unary(cx, i, minpos),
    Pand | Vpand | Andps | Vandps | Andpd | Vandpd | Por | Vpor | Orps | Vorps | Orpd | Vorpd | Pandn | Vpandn |
        Andnps | Vandnps | Andnpd | Vandnpd => |cx, i| bitwise(cx, i),
    Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => |cx, i| xor(cx, i),
    Ptest | Vptest => |cx, i| ptest(cx, i),
    Psllw | Vpsllw | Pslld | Vpslld | Psllq | Vpsllq | Psrlw | Vpsrlw | Psrld | Vpsrld | Psrlq | Vpsrlq |
        Psraw | Vpsraw | Psrad | Vpsrad => |cx, i| shift(cx, i),
    Pslldq | Vpslldq => |cx, i| shift_bytes(cx, i, Shift::Left),
    Psrldq | Vpsrldq => |cx, i| shift_bytes(cx, i, Shift::Right),
}

/// As [`lanewise`], and zero when both operands are one register.
fn zeroing(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if idiom(cx, i, |cx, d| cx.m.zero_v(d))? {
        return Ok(());
    }
    lanewise(cx, i)
}

/// PCMPEQ; of one register with itself it is how x86 says all ones.
fn equal(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if idiom(cx, i, |cx, d| cx.m.movi_bytes(d, 0xff))? {
        return Ok(());
    }
    lanewise(cx, i)
}

fn bitwise(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (op, swapped) = lanes::bits(i.mnemonic()).ok_or(Decline::Undefined)?;
    binary(cx, i, |cx, d, a, b| match (a == b && d == a, swapped) {
        (_, true) => op(&mut cx.m, d, b, a),
        (true, false) => {}
        (false, false) => op(&mut cx.m, d, a, b),
    })
}

fn xor(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if idiom(cx, i, |cx, d| cx.m.zero_v(d))? {
        return Ok(());
    }
    bitwise(cx, i)
}

/// Even lanes against odd lanes of both operands.
fn pairwise(cx: &mut Cx<'_>, i: &Instruction, op: LaneOp, ar: Ar) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (even, odd) = (cx.vtmp(), cx.vtmp());
        cx.m.uzp1(ar, even, a, b);
        cx.m.uzp2(ar, odd, a, b);
        op(&mut cx.m, ar, d, even, odd);
    })
}

/// PSIGN: times -1, 0 or 1. The factor is (b > 0 ? 0 : -(b < 0)) made of the two compare masks' difference.
fn sign(cx: &mut Cx<'_>, i: &Instruction, ar: Ar) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (neg, pos) = (cx.vtmp(), cx.vtmp());
        cx.m.cmlt_zero(ar, neg, b);
        cx.m.cmgt_zero(ar, pos, b);
        cx.m.sub_v(ar, neg, neg, pos);
        cx.m.mul_v(ar, d, a, neg);
    })
}

/// High halves of the 16-bit products.
fn mul_high(cx: &mut Cx<'_>, i: &Instruction, mull: LaneOp) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (lo, hi) = (cx.vtmp(), cx.vtmp());
        mull(&mut cx.m, Ar::H4, lo, a, b);
        mull(&mut cx.m, Ar::H8, hi, a, b);
        cx.m.uzp2(Ar::H8, d, lo, hi);
    })
}

/// ((a * b >> 14) + 1) >> 1, which is a rounding shift by 15. SQRDMULH would saturate -32768 * -32768, this must not.
fn mulhrs(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let (lo, hi) = (cx.vtmp(), cx.vtmp());
    cx.m.smull_v(Ar::H4, lo, a, b);
    cx.m.smull_v(Ar::H8, hi, a, b);
    cx.m.rshrn(Ar::H4, d, lo, 15);
    cx.m.rshrn(Ar::H8, d, hi, 15);
}

/// Products of lanes 0 and 2.
fn mul_even(cx: &mut Cx<'_>, i: &Instruction, mull: LaneOp) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (x, y) = (cx.vtmp(), cx.vtmp());
        cx.m.xtn(Ar::S2, x, a);
        if a == b {
            return mull(&mut cx.m, Ar::S2, d, x, x);
        }
        cx.m.xtn(Ar::S2, y, b);
        mull(&mut cx.m, Ar::S2, d, x, y);
    })
}

fn maddwd(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let (lo, hi) = (cx.vtmp(), cx.vtmp());
    cx.m.smull_v(Ar::H4, lo, a, b);
    cx.m.smull_v(Ar::H8, hi, a, b);
    cx.m.addp_v(Ar::S4, d, lo, hi);
}

/// Unsigned bytes of `a` times signed bytes of `b`, as two scratch registers of 16-bit lanes, which each product fits; and two more that are free again.
pub fn byte_products(cx: &mut Cx<'_>, a: V, b: V) -> ([V; 2], [V; 2]) {
    let (al, ah, bl, bh) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
    cx.m.ushll(Ar::B8, al, a, 0);
    cx.m.sshll(Ar::B8, bl, b, 0);
    cx.m.ushll(Ar::B16, ah, a, 0);
    cx.m.sshll(Ar::B16, bh, b, 0);
    cx.m.mul_v(Ar::H8, al, al, bl);
    cx.m.mul_v(Ar::H8, ah, ah, bh);
    ([al, ah], [bl, bh])
}

/// Sums of two products, which saturate.
fn maddubsw(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let ([lo, hi], [even, odd]) = byte_products(cx, a, b);
    cx.m.uzp1(Ar::H8, even, lo, hi);
    cx.m.uzp2(Ar::H8, odd, lo, hi);
    cx.m.sqadd(Ar::H8, d, even, odd);
}

fn sadbw(cx: &mut Cx<'_>, d: V, a: V, b: V) {
    let t = cx.vtmp();
    cx.m.uabd(Ar::B16, t, a, b);
    cx.m.uaddlp(Ar::B16, t, t);
    cx.m.uaddlp(Ar::H8, t, t);
    cx.m.uaddlp(Ar::S4, d, t);
}

/// MPSADBW: eight sums of four absolute differences; imm8[1:0] picks the four bytes of `b`, imm8[2] where in `a` the windows start; imm8[5:3] do
/// for the upper half.
fn mpsadbw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let both = u32::from(cx.imm8(i));
    halves(cx, i, |cx, half, d, a, b| {
        let imm = both >> (3 * half);
        let (sum, x, y) = (cx.vtmp(), cx.vtmp(), cx.vtmp());
        for j in 0..4 {
            let from = (imm >> 2 & 1) * 4 + j;
            cx.m.dup(Ar::B8, y, b, (imm & 3) * 4 + j);
            let w = if from == 0 { a } else { x };
            if from != 0 {
                cx.m.ext(x, a, a, from);
            }
            if j == 0 {
                cx.m.uabdl(Ar::B8, sum, w, y);
            } else {
                cx.m.uabal(Ar::B8, sum, w, y);
            }
        }
        cx.m.mov_v(d, sum);
    })
}

/// PHMINPOSUW: value above index in 32 bits, so that one unsigned minimum finds the smallest value and its first place.
fn minpos(cx: &mut Cx<'_>, d: V, n: V) {
    let (lo, hi) = (cx.vtmp(), cx.vtmp());
    cx.m.ldr_q_literal(hi, 0x0007_0006_0005_0004_0003_0002_0001_0000);
    cx.m.zip1(Ar::H8, lo, hi, n);
    cx.m.zip2(Ar::H8, hi, hi, n);
    cx.m.umin(Ar::S4, lo, lo, hi);
    cx.m.uminv(Ar::S4, lo, lo);
    cx.m.rev32(Ar::H4, d, lo);
}

/// PTEST: ZF = (d & s) == 0, CF = (s & ~d) == 0, the others 0.
fn ptest(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    test(cx, i, |_, _, v| v)
}

/// PTEST of what `of(cx, t, v)`, which may use `t`, makes of each vector tested.
pub fn test(cx: &mut Cx<'_>, i: &Instruction, of: impl Fn(&mut Cx<'_>, V, V) -> V) -> Lowered {
    let same = i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
    let pairs: Vec<(V, V)> = if Width::of(i) == Width::Vex256 {
        let a = cx.vsrc_halves(i, 0)?;
        let b = if same { a } else { cx.vsrc_halves(i, 1)? };
        a.into_iter().zip(b).collect()
    } else {
        vec![(cx.vreg(i, 0)?, cx.vsrc(i, 1)?)]
    };
    let live = cx.live();
    let (t, u) = (cx.vtmp(), cx.vtmp());
    let (x, y) = (cx.tmp(), cx.tmp());
    // What is left of all the pairs' ANDs (or, `not`, of the second ones without the first), ORed together; in `to` or where it was.
    let gather = |cx: &mut Cx<'_>, to: V, not: bool| {
        let mut all = to;
        for (k, &(a, b)) in pairs.iter().enumerate() {
            let r = if k == 0 { to } else { cx.vtmp() };
            let both = if a == b && !not { a } else { r };
            if not {
                cx.m.bic_v(r, b, a);
            } else if a != b {
                cx.m.and_v(r, a, b);
            }
            let kept = of(cx, r, both);
            if k == 0 {
                all = kept;
            } else {
                cx.m.orr_v(to, all, kept);
                all = to;
            }
        }
        all
    };
    if !live.contains(Flags::C) {
        let both = gather(cx, t, false);
        cx.m.umaxp(Ar::S4, t, both, both);
        cx.m.fmov_to_x(x, t);
        if live.contains(Flags::S) {
            nzcv_from(cx, Some(x), None);
        } else {
            cx.m.ands(Sz::X, ZR, x, x);
        }
        cx.set_form(FlagForm::Direct);
        cx.set_pa_zero();
        return Ok(());
    }
    let (both, not) = (gather(cx, t, false), gather(cx, u, true));
    cx.m.umaxp(Ar::S4, t, both, not);
    cx.m.umov(3, y, t, 1);
    if !live.contains(Flags::Z) {
        // 0 - y has no borrow only when y is 0; C is then CF itself.
        cx.m.subs(Sz::X, ZR, ZR, y);
        if live.intersects(Flags::S | Flags::O) {
            nzcv_from(cx, None, Some(y));
        }
    } else {
        cx.m.fmov_to_x(x, t);
        nzcv_from(cx, Some(x), Some(y));
    }
    cx.set_form(FlagForm::Direct);
    cx.set_pa_zero();
    Ok(())
}

/// NZCV = Z if `z` is zero, C if `c` is zero, nothing else.
fn nzcv_from(cx: &mut Cx<'_>, z: Option<crate::emit::X>, c: Option<crate::emit::X>) {
    use crate::emit::Cond;
    let r = cx.tmp();
    cx.m.movz(Sz::W, r, 0, 0);
    for (x, bit) in [(z, 30), (c, 29)] {
        if let Some(x) = x {
            let t = cx.tmp();
            cx.m.subs_imm(Sz::X, ZR, x, 0);
            cx.m.cset(t, Cond::Eq);
            cx.m.orr_lsl(Sz::W, r, r, t, bit);
        }
    }
    cx.m.msr_nzcv(r);
}

impl Cx<'_> {
    /// Says that this instruction sets PF and AF to 0.
    pub fn set_pa_zero(&mut self) {
        if self.live().intersects(Flags::P | Flags::A) {
            // An odd number of ones in PF's source.
            self.m.movz(Sz::W, crate::isa::cx::PF, 1, 0);
        }
        self.set_pa(crate::isa::cx::PF, AfFrom::Const(0));
    }
}

/// The operand a shift changes: its first one in legacy encodings, else the one after.
fn shifted(i: &Instruction) -> u32 {
    u32::from(Width::of(i) != Width::Legacy)
}

/// Shifts of lanes; a count past the lane gives zero, or the sign for arithmetic shifts. A count from a register or memory is its low 64 bits.
fn shift(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (kind, ar) = lanes::shift(i.mnemonic()).ok_or(Decline::Undefined)?;
    let bits = ar.lane_bits();
    let from = shifted(i);
    if i.op_kind(from + 1) == OpKind::Immediate8 {
        let by = u32::from(cx.imm8(i));
        return unary_halves(cx, i, from, |cx, _, d, n| match kind {
            _ if by == 0 && d == n => {}
            _ if by == 0 => cx.m.mov_v(d, n),
            Shift::Arithmetic => cx.m.sshr(ar, d, n, by.min(bits)),
            _ if by >= bits => cx.m.zero_v(d),
            Shift::Left => cx.m.shl_v(ar, d, n, by),
            Shift::Right => cx.m.ushr(ar, d, n, by),
        });
    }
    // USHL and SSHL take a signed byte per lane: saturate the count to 127, where every lane is past its width.
    let n = match i.op_kind(from + 1) {
        OpKind::Memory => cx.vsrc(i, from + 1)?,
        _ => cx.vreg(i, from + 1)?,
    };
    let (c, lim) = (cx.vtmp(), cx.vtmp());
    cx.m.uqxtn(Ar::S2, c, n);
    cx.m.movi_s(lim, 127, 0);
    cx.m.umin(Ar::S4, c, c, lim);
    // Only the low byte of each lane counts, so 32-bit copies serve 64-bit lanes.
    cx.m.dup(if ar == Ar::H8 { Ar::H8 } else { Ar::S4 }, c, c, 0);
    if kind != Shift::Left {
        cx.m.neg_v(ar, c, c);
    }
    unary_halves(cx, i, from, |cx, _, d, n| match kind {
        Shift::Arithmetic => cx.m.sshl(ar, d, n, c),
        _ => cx.m.ushl(ar, d, n, c),
    })
}

/// PSLLDQ, PSRLDQ: each 128 bits by bytes.
fn shift_bytes(cx: &mut Cx<'_>, i: &Instruction, kind: Shift) -> Lowered {
    let by = u32::from(cx.imm8(i));
    unary_halves(cx, i, shifted(i), |cx, _, d, n| match (kind, by) {
        (_, 0) if d == n => {}
        (_, 0) => cx.m.mov_v(d, n),
        (_, 16..) => cx.m.zero_v(d),
        (Shift::Left, _) => {
            let z = cx.vtmp();
            cx.m.zero_v(z);
            cx.m.ext(d, z, n, 16 - by);
        }
        (_, 8) => cx.m.mov_from_lane(3, d, n, 1),
        _ => {
            let z = cx.vtmp();
            cx.m.zero_v(z);
            cx.m.ext(d, n, z, by);
        }
    })
}
