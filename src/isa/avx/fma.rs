//! Fused multiplication and addition (SDM vol. 2, VFMADD and its like): one rounding, in three orders of operands.
//!
//! AArch64 rounds as x86 does. A NaN result is the first operand that is one, of multiplicand, multiplier and addend (SDM vol. 1, table 14-17); AArch64's
//! order is another, with FEAT_AFP too, so results are tested everywhere (see [`crate::isa::sse::float`]).
//!
//! Of infinity times zero plus a quiet NaN both make that NaN, but AArch64 as of an invalid operation (Arm ARM, FPMulAdd; SDM vol. 1, 14.5.2 says it is
//! none). The test finds such a result, but not whether FPSR's invalid flag was set before; to know that FPSR would have to be read before each
//! operation, which is done only in code made while an exception is unmasked. In other code MXCSR.IE may be set where x86 does not set it.

use crate::emit::fp::{Fp, Shape};
use crate::emit::{Masm, V, X};
use crate::isa::cx::Cx;
use crate::isa::sse::ternary;
use crate::isa::{Decline, Lowered, Row};
use iced_x86::{Instruction, Mnemonic};

use Fp::{D, S};
use Shape::{Packed, Scalar};

/// What each does, of which of its operands.
type Fused = (Mnemonic, Kind, Order, Shape, Fp);

#[rustfmt::skip]
const FUSED: [Fused; 60] = {
    use Mnemonic::*;
    [
        (Vfmadd132ps, ADD, F132, Packed, S), (Vfmadd132pd, ADD, F132, Packed, D),
        (Vfmadd132ss, ADD, F132, Scalar, S), (Vfmadd132sd, ADD, F132, Scalar, D),
        (Vfmadd213ps, ADD, F213, Packed, S), (Vfmadd213pd, ADD, F213, Packed, D),
        (Vfmadd213ss, ADD, F213, Scalar, S), (Vfmadd213sd, ADD, F213, Scalar, D),
        (Vfmadd231ps, ADD, F231, Packed, S), (Vfmadd231pd, ADD, F231, Packed, D),
        (Vfmadd231ss, ADD, F231, Scalar, S), (Vfmadd231sd, ADD, F231, Scalar, D),
        (Vfmsub132ps, SUB, F132, Packed, S), (Vfmsub132pd, SUB, F132, Packed, D),
        (Vfmsub132ss, SUB, F132, Scalar, S), (Vfmsub132sd, SUB, F132, Scalar, D),
        (Vfmsub213ps, SUB, F213, Packed, S), (Vfmsub213pd, SUB, F213, Packed, D),
        (Vfmsub213ss, SUB, F213, Scalar, S), (Vfmsub213sd, SUB, F213, Scalar, D),
        (Vfmsub231ps, SUB, F231, Packed, S), (Vfmsub231pd, SUB, F231, Packed, D),
        (Vfmsub231ss, SUB, F231, Scalar, S), (Vfmsub231sd, SUB, F231, Scalar, D),
        (Vfnmadd132ps, NEGATED_ADD, F132, Packed, S), (Vfnmadd132pd, NEGATED_ADD, F132, Packed, D),
        (Vfnmadd132ss, NEGATED_ADD, F132, Scalar, S), (Vfnmadd132sd, NEGATED_ADD, F132, Scalar, D),
        (Vfnmadd213ps, NEGATED_ADD, F213, Packed, S), (Vfnmadd213pd, NEGATED_ADD, F213, Packed, D),
        (Vfnmadd213ss, NEGATED_ADD, F213, Scalar, S), (Vfnmadd213sd, NEGATED_ADD, F213, Scalar, D),
        (Vfnmadd231ps, NEGATED_ADD, F231, Packed, S), (Vfnmadd231pd, NEGATED_ADD, F231, Packed, D),
        (Vfnmadd231ss, NEGATED_ADD, F231, Scalar, S), (Vfnmadd231sd, NEGATED_ADD, F231, Scalar, D),
        (Vfnmsub132ps, NEGATED_SUB, F132, Packed, S), (Vfnmsub132pd, NEGATED_SUB, F132, Packed, D),
        (Vfnmsub132ss, NEGATED_SUB, F132, Scalar, S), (Vfnmsub132sd, NEGATED_SUB, F132, Scalar, D),
        (Vfnmsub213ps, NEGATED_SUB, F213, Packed, S), (Vfnmsub213pd, NEGATED_SUB, F213, Packed, D),
        (Vfnmsub213ss, NEGATED_SUB, F213, Scalar, S), (Vfnmsub213sd, NEGATED_SUB, F213, Scalar, D),
        (Vfnmsub231ps, NEGATED_SUB, F231, Packed, S), (Vfnmsub231pd, NEGATED_SUB, F231, Packed, D),
        (Vfnmsub231ss, NEGATED_SUB, F231, Scalar, S), (Vfnmsub231sd, NEGATED_SUB, F231, Scalar, D),
        (Vfmaddsub132ps, ADD_SUB, F132, Packed, S), (Vfmaddsub132pd, ADD_SUB, F132, Packed, D),
        (Vfmaddsub213ps, ADD_SUB, F213, Packed, S), (Vfmaddsub213pd, ADD_SUB, F213, Packed, D),
        (Vfmaddsub231ps, ADD_SUB, F231, Packed, S), (Vfmaddsub231pd, ADD_SUB, F231, Packed, D),
        (Vfmsubadd132ps, SUB_ADD, F132, Packed, S), (Vfmsubadd132pd, SUB_ADD, F132, Packed, D),
        (Vfmsubadd213ps, SUB_ADD, F213, Packed, S), (Vfmsubadd213pd, SUB_ADD, F213, Packed, D),
        (Vfmsubadd231ps, SUB_ADD, F231, Packed, S), (Vfmsubadd231pd, SUB_ADD, F231, Packed, D),
    ]
};

/// The family's rows.
pub const ROWS: &[Row] = &{
    let mut rows = [Row { mnemonic: FUSED[0].0, family: "fma", lower: fused }; FUSED.len()];
    let mut n = 0;
    while n < FUSED.len() {
        rows[n].mnemonic = FUSED[n].0;
        n += 1;
    }
    rows
};

fn operation(m: Mnemonic) -> Option<Fused> {
    // All of them are between these two.
    let near = (Mnemonic::Vfmadd132pd..=Mnemonic::Vfnmsub231ss).contains(&m);
    near.then(|| FUSED.iter().find(|f| f.0 == m).copied())?
}

/// What becomes of the signs.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The product is negated.
    product: bool,
    addend: Addend,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Addend {
    Added,
    Subtracted,
    /// In even lanes, added in odd ones.
    SubtractedEven,
    SubtractedOdd,
}

const fn kind(product: bool, addend: Addend) -> Kind {
    Kind { product, addend }
}
const ADD: Kind = kind(false, Addend::Added);
const SUB: Kind = kind(false, Addend::Subtracted);
const NEGATED_ADD: Kind = kind(true, Addend::Added);
const NEGATED_SUB: Kind = kind(true, Addend::Subtracted);
const ADD_SUB: Kind = kind(false, Addend::SubtractedEven);
const SUB_ADD: Kind = kind(false, Addend::SubtractedOdd);

/// Which operands are multiplicand, multiplier and addend.
pub type Order = [usize; 3];
const F132: Order = [0, 2, 1];
const F213: Order = [1, 0, 2];
const F231: Order = [1, 2, 0];

fn fused(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (_, kind, order, shape, fp) = operation(i.mnemonic()).ok_or(Decline::Unsupported("no row"))?;
    if shape == Packed {
        return ternary(cx, i, |cx, d, from| packed(cx, kind, order, fp, d, from));
    }
    let d = cx.vreg(i, 0)?;
    let from = [d, cx.vreg(i, 1)?, cx.vsrc(i, 2)?];
    let [x, y, z] = order.map(|k| from[k]);
    let r = cx.vtmp();
    let before = before(cx);
    kind.scalar(&mut cx.m, fp, r, [x, y, z]);
    cx.fix_nan_fused(Scalar, fp, r, [x, y, z], before);
    cx.merge(fp, d, r);
    Ok(())
}

/// FPSR before the operation, where it has to be known.
fn before(cx: &mut Cx<'_>) -> Option<X> {
    cx.fp_traps.then(|| {
        let x = cx.tmp();
        cx.m.mrs_fpsr(x);
        x
    })
}

impl Kind {
    /// Lane 0 of `d`, from multiplicand, multiplier and addend.
    pub fn scalar(self, m: &mut Masm, fp: Fp, d: V, [x, y, z]: [V; 3]) {
        m.fmadd(self.product, self.addend == Addend::Subtracted, fp, d, x, y, z);
    }
}

/// What a scalar instruction of this family does, and to which of its operands.
pub fn scalar(m: Mnemonic) -> Option<(Kind, Order, Fp)> {
    operation(m).filter(|f| f.3 == Scalar).map(|(_, kind, order, _, fp)| (kind, order, fp))
}

fn packed(cx: &mut Cx<'_>, kind: Kind, order: Order, fp: Fp, d: V, from: [V; 3]) {
    let [x, y, z] = order.map(|k| from[k]);
    let r = if from.contains(&d) { cx.vtmp() } else { d };
    match kind.addend {
        Addend::Added => cx.m.mov_v(r, z),
        Addend::Subtracted => cx.m.fneg_v(fp, r, z),
        even_or_odd => {
            let sign: u128 = match fp {
                S => 1 << 31 | 1 << 95,
                D => 1 << 63,
            };
            let odd = if even_or_odd == Addend::SubtractedOdd { 8 << fp.size() } else { 0 };
            cx.m.ldr_q_literal(r, sign << odd);
            cx.m.eor_v(r, r, z);
        }
    }
    let before = before(cx);
    if kind.product {
        cx.m.fmls(fp, r, x, y);
    } else {
        cx.m.fmla(fp, r, x, y);
    }
    cx.fix_nan_fused(Packed, fp, r, [x, y, z], before);
    if r != d {
        cx.m.mov_v(d, r);
    }
}
