//! Floating-point arithmetic on XMM registers (SDM vol. 2): ADD SUB MUL DIV SQRT MIN MAX, horizontal and alternating forms, dot
//! products, ROUND.
//!
//! AArch64 rounds and signals as x86 does, but picks NaNs otherwise: x86 returns the first operand that is a NaN, quieted, and its
//! own default NaN is negative (SDM vol. 1, 4.8.3.5 and table 4-7); AArch64 prefers signalling NaNs, and its default NaN is positive
//! (Arm ARM, FPProcessNaNs). Both differ only where the result is a NaN, so results are tested for that, two words a scalar result,
//! and one routine per region sets them right. With FEAT_AFP, FPCR.AH asks for x86's rules and nothing is tested.

use super::{binary, scalar, unary};
use crate::emit::fp::{Fp, Shape};
use crate::emit::simd::Ar;
use crate::emit::{Cond, Label, Masm, Sz, V, X};
use crate::isa::cx::{Cx, LINK};
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, Mnemonic};

use Fp::{D, S};
use Shape::{Packed, Scalar};

rows! { "sse float";
    Addss | Addsd | Addps | Addpd | Vaddss | Vaddsd | Vaddps | Vaddpd
    | Subss | Subsd | Subps | Subpd | Vsubss | Vsubsd | Vsubps | Vsubpd
    | Mulss | Mulsd | Mulps | Mulpd | Vmulss | Vmulsd | Vmulps | Vmulpd
    | Divss | Divsd | Divps | Divpd | Vdivss | Vdivsd | Vdivps | Vdivpd => |cx, i| arith(cx, i),
    Sqrtss | Vsqrtss => |cx, i| sqrt(cx, i, Scalar, S),
    Sqrtsd | Vsqrtsd => |cx, i| sqrt(cx, i, Scalar, D),
    Sqrtps | Vsqrtps => |cx, i| sqrt(cx, i, Packed, S),
    Sqrtpd | Vsqrtpd => |cx, i| sqrt(cx, i, Packed, D),
    Minss | Minsd | Minps | Minpd | Vminss | Vminsd | Vminps | Vminpd
    | Maxss | Maxsd | Maxps | Maxpd | Vmaxss | Vmaxsd | Vmaxps | Vmaxpd => |cx, i| min_max(cx, i),
    Haddps | Vhaddps => |cx, i| horizontal(cx, i, S, Masm::fadd),
    Haddpd | Vhaddpd => |cx, i| horizontal(cx, i, D, Masm::fadd),
    Hsubps | Vhsubps => |cx, i| horizontal(cx, i, S, Masm::fsub),
    Hsubpd | Vhsubpd => |cx, i| horizontal(cx, i, D, Masm::fsub),
    Addsubps | Vaddsubps => |cx, i| alternate(cx, i, S),
    Addsubpd | Vaddsubpd => |cx, i| alternate(cx, i, D),
    Dpps | Vdpps => |cx, i| dot(cx, i, S),
    Dppd | Vdppd => |cx, i| dot(cx, i, D),
    Roundss | Vroundss => |cx, i| round(cx, i, Scalar, S),
    Roundsd | Vroundsd => |cx, i| round(cx, i, Scalar, D),
    Roundps | Vroundps => |cx, i| round(cx, i, Packed, S),
    Roundpd | Vroundpd => |cx, i| round(cx, i, Packed, D),
}

pub type FpOp = fn(&mut Masm, Shape, Fp, V, V, V);

/// What plain arithmetic does.
pub fn arithmetic(m: Mnemonic) -> Option<(FpOp, Shape, Fp)> {
    use Mnemonic::*;
    Some(match m {
        Addss | Vaddss => (Masm::fadd, Scalar, S),
        Addsd | Vaddsd => (Masm::fadd, Scalar, D),
        Addps | Vaddps => (Masm::fadd, Packed, S),
        Addpd | Vaddpd => (Masm::fadd, Packed, D),
        Subss | Vsubss => (Masm::fsub, Scalar, S),
        Subsd | Vsubsd => (Masm::fsub, Scalar, D),
        Subps | Vsubps => (Masm::fsub, Packed, S),
        Subpd | Vsubpd => (Masm::fsub, Packed, D),
        Mulss | Vmulss => (Masm::fmul, Scalar, S),
        Mulsd | Vmulsd => (Masm::fmul, Scalar, D),
        Mulps | Vmulps => (Masm::fmul, Packed, S),
        Mulpd | Vmulpd => (Masm::fmul, Packed, D),
        Divss | Vdivss => (Masm::fdiv, Scalar, S),
        Divsd | Vdivsd => (Masm::fdiv, Scalar, D),
        Divps | Vdivps => (Masm::fdiv, Packed, S),
        Divpd | Vdivpd => (Masm::fdiv, Packed, D),
        _ => return None,
    })
}

/// What a MIN or MAX picks: `true` is the larger one.
pub fn pick(m: Mnemonic) -> Option<(Shape, Fp, bool)> {
    use Mnemonic::*;
    Some(match m {
        Minss | Vminss => (Scalar, S, false),
        Minsd | Vminsd => (Scalar, D, false),
        Minps | Vminps => (Packed, S, false),
        Minpd | Vminpd => (Packed, D, false),
        Maxss | Vmaxss => (Scalar, S, true),
        Maxsd | Vmaxsd => (Scalar, D, true),
        Maxps | Vmaxps => (Packed, S, true),
        Maxpd | Vmaxpd => (Packed, D, true),
        _ => return None,
    })
}

fn lanes(fp: Fp) -> Ar {
    match fp {
        S => Ar::S4,
        D => Ar::D2,
    }
}

impl Cx<'_> {
    /// Writes lane 0 of `r` to lane 0 of `d`, keeping the others.
    pub fn merge(&mut self, fp: Fp, d: V, r: V) {
        self.m.ins(fp.size(), d, 0, r, 0);
    }

    /// A branch to `to` when lane 0 (or any lane) of `r`, which is no signalling NaN, is a NaN: two words for a scalar when NZCV is free.
    fn branch_if_nan(&mut self, shape: Shape, fp: Fp, r: V, to: Label) {
        self.keep_free_of_fixing();
        let mut r = r;
        if shape == Packed && self.host.afp {
            // FPCR.AH takes away FMAX's way with NaNs.
            let x = self.tmp();
            self.m.fcmeq(Packed, fp, FIX_T, r, r);
            self.m.not_v(Ar::B16, FIX_T, FIX_T);
            self.m.umaxp(Ar::S4, FIX_T, FIX_T, FIX_T);
            self.m.fmov_to_x(x, FIX_T);
            return self.m.cbnz(Sz::X, x, to);
        }
        if shape == Packed {
            match fp {
                S => self.m.fmaxv_s4(FIX_T, r),
                D => self.m.fmaxp_d2(FIX_T, r),
            }
            r = FIX_T;
        }
        if self.nzcv_free() {
            self.m.fcmp(fp, r, r, false);
            self.m.b_cond(Cond::Vs, to);
        } else {
            let x = self.tmp();
            self.m.fcmeq(Scalar, fp, FIX_T, r, r);
            self.m.fmov_to_x(x, FIX_T);
            self.m.cbz(Sz::X, x, to);
        }
    }

    /// After `r = a op b` in a scratch register: makes a NaN result the one x86 gives. Nothing with FEAT_AFP.
    pub fn fix_nan(&mut self, shape: Shape, fp: Fp, r: V, a: V, b: V) {
        if !self.host.afp {
            self.fix_nan_always(shape, fp, r, a, b);
        }
    }

    fn fix_nan_always(&mut self, shape: Shape, fp: Fp, r: V, a: V, b: V) {
        let back = self.m.label();
        let routine = self.nan_routine(shape, fp, false);
        let cold = self.cold(move |cx| {
            cx.fix_with(routine, r, a, b, None);
            cx.m.b(back);
        });
        self.branch_if_nan(shape, fp, r, cold);
        self.m.bind(back);
    }

    /// After `r` = a product of `x` and `y` and `z` on top, in a register that is none of them: makes a NaN result the one x86 gives. `before` is what
    /// FPSR was, where the invalid flag must be right too (see [`crate::isa::avx::fma`]).
    pub fn fix_nan_fused(&mut self, shape: Shape, fp: Fp, r: V, [x, y, z]: [V; 3], before: Option<X>) {
        let back = self.m.label();
        let routine = self.nan_routine(shape, fp, true);
        let cold = self.cold(move |cx| {
            if let Some(before) = before {
                cx.m.mrs_fpsr(LINK);
                cx.m.bfi(Sz::X, LINK, before, 0, 1);
                cx.m.msr_fpsr(LINK);
            }
            // Raises it again for signalling NaNs, as it compares the operands.
            cx.fix_with(routine, r, x, y, Some(z));
            if before.is_some() {
                cx.invalid_without_nan(shape, fp, r, [x, y, z]);
            }
            cx.m.b(back);
        });
        self.branch_if_nan(shape, fp, r, cold);
        self.m.bind(back);
    }

    /// Raises the invalid flag if a lane of `r` is a NaN though no operand's is.
    fn invalid_without_nan(&mut self, shape: Shape, fp: Fp, r: V, operands: [V; 3]) {
        let (seen, t, x) = (FIX_A, FIX_T, self.tmp());
        self.m.fcmeq(shape, fp, t, r, r);
        self.m.not_v(Ar::B16, seen, t);
        for n in operands {
            self.m.fcmeq(shape, fp, t, n, n);
            self.m.and_v(seen, seen, t);
        }
        if shape == Packed {
            self.m.umaxp(Ar::S4, seen, seen, seen);
        }
        let size = if shape == Scalar && fp == S { Sz::W } else { Sz::X };
        self.m.fmov_to_x(x, seen);
        let none = self.m.label();
        self.m.cbz(size, x, none);
        self.m.mrs_fpsr(x);
        self.m.orr_imm(Sz::W, x, x, 1);
        self.m.msr_fpsr(x);
        self.m.bind(none);
    }

    /// `r` = what x86 makes of `a op b`, or of `a * b + c`, given AArch64's result in `r`.
    pub fn fix_with(&mut self, routine: Label, r: V, a: V, b: V, c: Option<V>) {
        if let Some(c) = c {
            self.m.mov_v(FIX_C, c);
        }
        self.m.mov_v(FIX_A, a);
        self.m.mov_v(FIX_B, b);
        self.m.mov_v(FIX_R, r);
        self.m.bl(routine);
        self.m.mov_v(r, FIX_R);
    }

    /// The region's routine that turns [`FIX_R`] into what x86 makes of [`FIX_A`] and [`FIX_B`], emitted once, behind the code.
    /// `fused`: of three operands, [`FIX_C`] being the last.
    pub fn nan_routine(&mut self, shape: Shape, fp: Fp, fused: bool) -> Label {
        let which = usize::from(fused) * 4 + usize::from(shape == Packed) * 2 + usize::from(fp == D);
        if let Some(l) = self.nan_routines[which] {
            return l;
        }
        let l = self.cold(move |cx| {
            let (t, u, ar) = (FIX_U, FIX_T, lanes(fp));
            // The default NaN: sign, exponent and quiet bit.
            cx.m.movi_bytes(t, 0xff);
            cx.m.shl_v(ar, t, t, if fp == S { 22 } else { 51 });
            cx.m.fcmeq(shape, fp, u, FIX_R, FIX_R);
            cx.m.bsl(u, FIX_R, t);
            // ORing exponent and quiet bit into a NaN quiets it.
            cx.m.shl_v(ar, t, t, 1);
            cx.m.ushr(ar, t, t, 1);
            let operands = [FIX_C, FIX_B, FIX_A];
            for n in operands.into_iter().skip(usize::from(!fused)) {
                cx.m.fcmeq(shape, fp, FIX_R, n, n);
                cx.m.orr_v(n, n, t);
                cx.m.bsl(FIX_R, u, n);
                cx.m.mov_v(u, FIX_R);
            }
            cx.m.ret(LINK);
        });
        self.nan_routines[which] = Some(l);
        l
    }
}

// The scratch registers that testing and fixing use; rows with floating-point results take no more than the other ten.
/// The first of them.
pub const FIX_FIRST: u8 = 10;
const FIX_C: V = V(FIX_FIRST);
pub const FIX_T: V = V(11);
pub const FIX_U: V = V(12);
const FIX_R: V = V(13);
const FIX_A: V = V(14);
const FIX_B: V = V(15);

fn arith(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (op, shape, fp) = arithmetic(i.mnemonic()).ok_or(Decline::Unsupported("no row"))?;
    binary(cx, i, |cx, d, a, b| {
        if cx.host.afp {
            // FPCR.NEP keeps the other lanes of the first source.
            return op(&mut cx.m, shape, fp, d, a, b);
        }
        let r = result(cx, shape, fp, d, [a, b]);
        op(&mut cx.m, shape, fp, r, a, b);
        cx.fix_nan(shape, fp, r, a, b);
        finish(cx, shape, fp, d, a, r);
    })
}

/// Where to compute a result for `d` that may have to be mended from `sources`: `d` itself if it is none of them.
fn result(cx: &mut Cx<'_>, shape: Shape, fp: Fp, d: V, sources: [V; 2]) -> V {
    let direct = !sources.contains(&d) && (shape == Packed || fp == D);
    if direct { d } else { cx.vtmp() }
}

/// Puts a result where it belongs; the other lanes of a scalar come from `a`.
fn finish(cx: &mut Cx<'_>, shape: Shape, fp: Fp, d: V, a: V, r: V) {
    match shape {
        Scalar if r == d => cx.m.ins(3, d, 1, a, 1),
        Scalar => cx.merge_into(fp, d, a, r),
        Packed if r != d => cx.m.mov_v(d, r),
        Packed => {}
    }
}

fn sqrt(cx: &mut Cx<'_>, i: &Instruction, shape: Shape, fp: Fp) -> Lowered {
    if shape == Scalar {
        return scalar(cx, i, fp, |cx, r, n| {
            cx.m.fsqrt(Scalar, fp, r, n);
            cx.fix_nan(Scalar, fp, r, n, n);
        });
    }
    unary(cx, i, |cx, d, n| {
        if cx.host.afp {
            return cx.m.fsqrt(Packed, fp, d, n);
        }
        let r = result(cx, Packed, fp, d, [n, n]);
        cx.m.fsqrt(Packed, fp, r, n);
        cx.fix_nan(Packed, fp, r, n, n);
        finish(cx, Packed, fp, d, n, r);
    })
}

impl Cx<'_> {
    /// After `r` = an operand that a comparison picked: a denormal becomes zero, with its sign, if denormals are zeros. A NaN stays as it is, which
    /// it would by no
    /// operation that flushes, so the comparison with zero is used, which does.
    pub fn flush(&mut self, shape: Shape, fp: Fp, r: V) {
        if !self.flushes || self.host.afp {
            return;
        }
        self.keep_free_of_fixing();
        self.m.zero_v(FIX_U);
        self.m.fcmeq(shape, fp, FIX_T, r, FIX_U);
        self.m.ushr(lanes(fp), FIX_T, FIX_T, 1);
        self.m.bic_v(r, r, FIX_T);
    }
}

/// MIN and MAX: the second operand unless the first compares less (greater); so for equal zeros and for any NaN, which also signals.
fn min_max(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (shape, fp, max) = pick(i.mnemonic()).ok_or(Decline::Unsupported("no row"))?;
    binary(cx, i, |cx, d, a, b| {
        if cx.host.afp {
            return if max { cx.m.fmax(shape, fp, d, a, b) } else { cx.m.fmin(shape, fp, d, a, b) };
        }
        let t = if shape == Packed && d != a && d != b { d } else { cx.vtmp() };
        let (x, y) = if max { (a, b) } else { (b, a) };
        cx.m.fcmgt(shape, fp, t, x, y);
        if shape == Scalar {
            cx.m.bsl(t, a, b);
            cx.flush(Scalar, fp, t);
            return cx.merge_into(fp, d, a, t);
        }
        match d {
            _ if d == a => cx.m.bif(d, b, t),
            _ if d == b => cx.m.bit(d, a, t),
            _ => cx.m.bsl(d, a, b),
        }
        cx.flush(Packed, fp, d);
    })
}

/// HADD, HSUB: even lanes with odd lanes of both operands. The even lane is the first operand where NaNs are chosen.
fn horizontal(cx: &mut Cx<'_>, i: &Instruction, fp: Fp, op: FpOp) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (x, y, r) = (cx.vtmp(), cx.vtmp(), cx.vtmp());
        cx.m.uzp1(lanes(fp), x, a, b);
        cx.m.uzp2(lanes(fp), y, a, b);
        if cx.host.afp {
            return op(&mut cx.m, Packed, fp, d, x, y);
        }
        op(&mut cx.m, Packed, fp, r, x, y);
        cx.fix_nan(Packed, fp, r, x, y);
        cx.m.mov_v(d, r);
    })
}

/// ADDSUB: even lanes subtract. Flipping the sign of their second operand turns that into an addition with the same flags; a NaN among them comes
/// out with the wrong sign and is set right from the operand as it was.
fn alternate(cx: &mut Cx<'_>, i: &Instruction, fp: Fp) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (t, r) = (cx.vtmp(), cx.vtmp());
        let x = cx.tmp();
        match fp {
            S => {
                cx.m.movz(Sz::X, x, 0x8000, 1);
                cx.m.dup_x(Ar::D2, t, x);
            }
            D => {
                cx.m.movz(Sz::X, x, 0x8000, 3);
                cx.m.fmov_from_x(t, x);
            }
        }
        cx.m.eor_v(t, t, b);
        cx.m.fadd(Packed, fp, r, a, t);
        cx.fix_nan_always(Packed, fp, r, a, b);
        cx.m.mov_v(d, r);
    })
}

/// DPPS, DPPD: products of the lanes imm8[7:4] picks, zero for the others; their sum, in pairs, to the lanes imm8[3:0] picks, zero to the others.
/// Makers differ in which of several NaNs comes out; this is what Intel's CPUs do: each lane adds the one beside it, that one first, then the lane
/// of the other half, its own first.
fn dot(cx: &mut Cx<'_>, i: &Instruction, fp: Fp) -> Lowered {
    let imm = u32::from(cx.imm8(i));
    let count = if fp == S { 4 } else { 2 };
    let mask = |bits: u32| -> u128 {
        let width = 8u32 << fp.size();
        (0..count).filter(|k| bits & (1 << k) != 0).fold(0, |m, k| m | ((1u128 << width) - 1) << (width * k))
    };
    binary(cx, i, |cx, d, a, b| {
        let (select, place) = (mask(imm >> 4), mask(imm & 15));
        let (x, mut y, mut p, t) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
        // Lanes left out become 0 * 0: no exception, and plus zero.
        if select != u128::MAX {
            cx.m.ldr_q_literal(t, select);
            cx.m.and_v(x, a, t);
            cx.m.and_v(y, b, t);
            cx.m.fmul(Packed, fp, p, x, y);
            cx.fix_nan(Packed, fp, p, x, y);
        } else {
            cx.m.fmul(Packed, fp, p, a, b);
            cx.fix_nan(Packed, fp, p, a, b);
        }
        if fp == S {
            cx.m.rev64(Ar::S4, x, p);
            cx.m.fadd(Packed, fp, y, x, p);
            cx.fix_nan(Packed, fp, y, x, p);
            std::mem::swap(&mut p, &mut y);
        }
        cx.m.ext(x, p, p, 8);
        cx.m.fadd(Packed, fp, y, p, x);
        cx.fix_nan(Packed, fp, y, p, x);
        p = y;
        if place == u128::MAX {
            cx.m.mov_v(d, p);
        } else {
            cx.m.ldr_q_literal(t, place);
            cx.m.and_v(d, p, t);
        }
    })
}

/// ROUND: imm8[2] asks for MXCSR's rounding, else imm8[1:0] says which; imm8[3] keeps the precision exception quiet.
fn round(cx: &mut Cx<'_>, i: &Instruction, shape: Shape, fp: Fp) -> Lowered {
    let imm = cx.imm8(i);
    let quiet = imm & 8 != 0;
    let lane = |cx: &mut Cx<'_>, r: V, n: V| {
        if imm & 4 == 0 && !quiet {
            // Of these only FRINTX signals, in whatever mode.
            let t = cx.vtmp();
            cx.m.frintx(shape, fp, t, n);
        }
        match imm & 7 {
            0 => cx.m.frintn(shape, fp, r, n),
            1 => cx.m.frintm(shape, fp, r, n),
            2 => cx.m.frintp(shape, fp, r, n),
            3 => cx.m.frintz(shape, fp, r, n),
            _ if quiet => cx.m.frinti(shape, fp, r, n),
            _ => cx.m.frintx(shape, fp, r, n),
        }
    };
    match shape {
        Packed => unary(cx, i, lane),
        Scalar => scalar(cx, i, fp, lane),
    }
}
