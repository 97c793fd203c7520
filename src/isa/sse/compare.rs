//! Floating-point comparisons (SDM vol. 2): CMPPS to CMPSD with their eight predicates, COMISS to UCOMISD.

use super::{Width, binary};
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
    Cmpps | Vcmpps => |cx, i| compare(cx, i, Packed, S),
    Cmppd | Vcmppd => |cx, i| compare(cx, i, Packed, D),
    Cmpss | Vcmpss => |cx, i| compare(cx, i, Scalar, S),
    Cmpsd | Vcmpsd => |cx, i| cmpsd(cx, i),
    Comiss | Vcomiss => |cx, i| flags(cx, i, S, true),
    Comisd | Vcomisd => |cx, i| flags(cx, i, D, true),
    Ucomiss | Vucomiss => |cx, i| flags(cx, i, S, false),
    Ucomisd | Vucomisd => |cx, i| flags(cx, i, D, false),
}

/// CMPSD names two instructions: the double compare and the string compare.
fn cmpsd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.is_string_instruction() {
        return crate::isa::string::cmpsd(cx, i);
    }
    compare(cx, i, Scalar, D)
}

/// What a predicate asks before it is negated. The second operand is compared with the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Neither is a NaN.
    Ordered,
    /// Neither is a NaN, and they differ.
    Differ,
    Nothing,
}

/// Predicates 0-15 (SDM vol. 2, CMPPD, table 3-1): what is asked, whether the answer is negated, whether quiet NaNs signal. 16-31 ask the same and signal the
/// other way round.
const PREDICATES: [(Ask, bool, bool); 16] = {
    use Ask::*;
    [
        (Equal, false, false),
        (Less, false, true),
        (LessEqual, false, true),
        (Ordered, true, false),
        (Equal, true, false),
        (Less, true, true),
        (LessEqual, true, true),
        (Ordered, false, false),
        (Differ, true, false),
        (GreaterEqual, true, true),
        (Greater, true, true),
        (Nothing, false, false),
        (Differ, false, false),
        (GreaterEqual, false, true),
        (Greater, false, true),
        (Nothing, true, false),
    ]
};

/// A mask by predicate: imm8[2:0], with VEX imm8[4:0]. FCMGT and FCMGE signal quiet NaNs, FCMEQ does not; where x86 wants it the other way
/// round, one is added whose result nobody reads, or the NaNs are taken out first.
fn compare(cx: &mut Cx<'_>, i: &Instruction, shape: Shape, fp: Fp) -> Lowered {
    let mask = if Width::of(i) == Width::Legacy { 7 } else { 31 };
    let predicate = cx.imm8(i) & mask;
    let (ask, negated, signals) = PREDICATES[usize::from(predicate & 15)];
    let signals = signals != (predicate & 16 != 0);
    binary(cx, i, |cx, d, a, b| {
        let direct = shape == Packed;
        let r = if direct { d } else { cx.vtmp() };
        let by_order = matches!(ask, Ask::Less | Ask::LessEqual | Ask::Greater | Ask::GreaterEqual);
        let (mut x, mut y) = (a, b);
        if by_order && !signals {
            let (t, u, o) = (cx.vtmp(), cx.vtmp(), cx.vtmp());
            ordered(cx, shape, fp, o, a, b);
            cx.m.and_v(t, a, o);
            cx.m.and_v(u, b, o);
            (x, y) = (t, u);
            // Both are zero where they were NaNs, which would be "or equal".
            let r = match ask {
                Ask::LessEqual | Ask::GreaterEqual => t,
                _ => r,
            };
            by(cx, ask, shape, fp, r, x, y);
            if r == t {
                cx.m.and_v(r, r, o);
            }
            if r == t && direct {
                cx.m.mov_v(d, r);
            }
            return mask_out(cx, fp, [d, a], if direct { d } else { r }, negated, direct);
        }
        if !by_order && signals {
            let t = cx.vtmp();
            cx.m.fcmgt(shape, fp, t, a, b);
        }
        match ask {
            Ask::Equal => cx.m.fcmeq(shape, fp, r, x, y),
            Ask::Ordered => ordered(cx, shape, fp, r, x, y),
            Ask::Differ => {
                let (t, o) = (cx.vtmp(), cx.vtmp());
                cx.m.fcmeq(shape, fp, t, x, y);
                ordered(cx, shape, fp, o, x, y);
                cx.m.bic_v(r, o, t);
            }
            Ask::Nothing => {
                if !signals {
                    let t = cx.vtmp();
                    cx.m.fcmeq(shape, fp, t, x, y);
                }
                cx.m.zero_v(r);
            }
            _ => by(cx, ask, shape, fp, r, x, y),
        }
        mask_out(cx, fp, [d, a], r, negated, direct);
    })
}

fn by(cx: &mut Cx<'_>, ask: Ask, shape: Shape, fp: Fp, r: V, a: V, b: V) {
    match ask {
        Ask::Less => cx.m.fcmgt(shape, fp, r, b, a),
        Ask::LessEqual => cx.m.fcmge(shape, fp, r, b, a),
        Ask::Greater => cx.m.fcmgt(shape, fp, r, a, b),
        _ => cx.m.fcmge(shape, fp, r, a, b),
    }
}

/// The mask in `r`, negated if asked, goes to `d`; the other lanes of a scalar come from `a`.
fn mask_out(cx: &mut Cx<'_>, fp: Fp, [d, a]: [V; 2], r: V, negated: bool, direct: bool) {
    if negated {
        cx.m.not_v(Ar::B16, r, r);
    }
    if !direct {
        cx.merge_into(fp, d, a, r);
    }
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
