//! Vector and floating-point instructions (Arm ARM, C7.2), one method each.

use super::{Masm, V, X};
use dynasmrt::{DynasmApi, dynasm};

impl Masm {
    /// Copies a whole vector register.
    pub fn mov_v(&mut self, d: V, n: V) {
        dynasm!(self.a; .arch aarch64; mov V(d.0).b16, V(n.0).b16)
    }

    /// 64 bits of a general register to the low half, upper half zero.
    pub fn fmov_from_x(&mut self, d: V, n: X) {
        dynasm!(self.a; .arch aarch64; fmov D(d.0), X(n.0))
    }
}
