//! Floating-point comparisons (SDM vol. 2): CMPPS to CMPSD with their eight predicates, COMISS to UCOMISD.

use super::binary;
use crate::emit::fp::{Fp, Shape};
use crate::emit::simd::Ar;
use crate::emit::{Masm, V};
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::rows;
use iced_x86::Instruction;
use xrun_runtime::engine::FlagForm;

use Fp::{D, S};
use Shape::{Packed, Scalar};

rows! { "sse compare";
    Cmpps => |cx, i| compare(cx, i, Packed, S),
    Cmppd => |cx, i| compare(cx, i, Packed, D),
    Cmpss => |cx, i| compare(cx, i, Scalar, S),
    Cmpsd => |cx, i| cmpsd(cx, i),
    Comiss => |cx, i| flags(cx, i, S, true),
    Comisd => |cx, i| flags(cx, i, D, true),
    Ucomiss => |cx, i| flags(cx, i, S, false),
    Ucomisd => |cx, i| flags(cx, i, D, false),
}

/// CMPSD names two instructions: the double compare and the string compare.
fn cmpsd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.is_string_instruction() {
        return crate::isa::string::cmpsd(cx, i);
    }
    compare(cx, i, Scalar, D)
}

/// A mask by predicate imm8[2:0]: EQ LT LE UNORD and their negations. LT and LE signal quiet NaNs, the others do not; FCMGT, FCMGE and FCMEQ do the same.
fn compare(cx: &mut Cx<'_>, i: &Instruction, shape: Shape, fp: Fp) -> Lowered {
    let predicate = cx.imm8(i, 2) & 7;
    binary(cx, i, |cx, d, a, b| {
        let direct = shape == Packed;
        let r = if direct { d } else { cx.vtmp() };
        match predicate & 3 {
            0 => cx.m.fcmeq(shape, fp, r, a, b),
            1 => cx.m.fcmgt(shape, fp, r, b, a),
            2 => cx.m.fcmge(shape, fp, r, b, a),
            _ => ordered(cx, shape, fp, r, a, b),
        }
        // Predicate 3 is "unordered", 7 its negation.
        if (predicate & 4 != 0) != (predicate & 3 == 3) {
            cx.m.not_v(Ar::B16, r, r);
        }
        if !direct {
            cx.merge(fp, d, r);
        }
    })
}

/// All ones where neither is a NaN.
fn ordered(cx: &mut Cx<'_>, shape: Shape, fp: Fp, r: V, a: V, b: V) {
    if a == b {
        return cx.m.fcmeq(shape, fp, r, a, a);
    }
    if cx.host.afp {
        let t = cx.vtmp();
        cx.m.fcmeq(shape, fp, t, b, b);
        cx.m.fcmeq(shape, fp, r, a, a);
        return cx.m.and_v(r, r, t);
    }
    // FMAX is a NaN when either is, and signals just the signalling ones.
    Masm::fmax(&mut cx.m, shape, fp, r, a, b);
    cx.m.fcmeq(shape, fp, r, r, r);
}

/// ZF, PF and CF of the comparison; COMIS signals quiet NaNs, UCOMIS does not.
fn flags(cx: &mut Cx<'_>, i: &Instruction, fp: Fp, signals: bool) -> Lowered {
    let a = cx.vreg(i, 0)?;
    let b = cx.vsrc(i, 1)?;
    cx.m.fcmp(fp, a, b, signals);
    cx.set_form(FlagForm::FloatCompare);
    cx.pa_in_nzcv();
    Ok(())
}
