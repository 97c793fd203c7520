//! Add, subtract, multiply and compare where nothing is special: two normal numbers, a normal result, rounding to nearest at full precision with the
//! precision exception masked. Everything else goes to the helper, before anything has changed.
//!
//! Each routine is emitted once for a region, behind its code, and called with BL. They take the numbers in ([`A`], [`AE`]) and ([`M`], [`E`]) and
//! say in [`DONE`] whether they did what they are for. Arithmetic puts the result at the address in [`TO`] and the flags into the status word; a
//! comparison leaves in x0 what [`Helper::X87CompareFlags`](xrun_runtime::helpers::Helper::X87CompareFlags) returns.

use super::{CONTROL, E, M, REGS, S, SIGN_EXP, STATUS};
use crate::emit::{Addr, Cond, Label, Sz, X, ZR};
use crate::isa::cx::{Cx, LINK};
use xrun_runtime::helpers::f80::{BIAS, sw};
use xrun_runtime::state::nzcv;

/// Address of the register that gets the result, as [`Cx::faddr`] makes it.
pub(super) const TO: X = X(0);
/// Afterwards: not zero if the operation was done.
pub(super) const DONE: X = X(1);
/// The first operand.
pub(super) const A: X = X(2);
pub(super) const AE: X = X(3);

/// NZCV of the guest.
const KEPT: X = X(1);
const EXP: X = X(4);
/// Bits below the result's significand.
const LOW: X = X(7);
const T6: X = X(6);

const INTEGER: u64 = 1 << 63;

/// Which routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fast {
    Add,
    Mul,
    Compare,
}

impl Cx<'_> {
    /// The region's routine for `op`.
    pub(super) fn fast_routine(&mut self, op: Fast) -> Label {
        if let Some(l) = self.x87_routines[op as usize] {
            return l;
        }
        let l = self.cold(move |cx| {
            let fail = cx.m.label();
            cx.m.mrs_nzcv(KEPT);
            cx.fast_operands(fail);
            match op {
                Fast::Add => cx.fast_add(fail),
                Fast::Mul => cx.fast_mul(),
                Fast::Compare => cx.fast_compare(),
            }
            if op != Fast::Compare {
                cx.fast_round(fail);
            }
            cx.m.msr_nzcv(KEPT);
            cx.m.movz(Sz::W, DONE, 1, 0);
            cx.m.ret(LINK);
            cx.m.bind(fail);
            cx.m.msr_nzcv(KEPT);
            cx.m.mov(Sz::X, DONE, ZR);
            cx.m.ret(LINK);
        });
        self.x87_routines[op as usize] = Some(l);
        l
    }

    /// [`EXP`] and x6 = the exponents; both numbers are normal.
    fn fast_operands(&mut self, fail: Label) {
        self.m.and(Sz::X, LOW, A, M);
        self.m.tbz(LOW, 63, fail);
        for (d, e) in [(EXP, AE), (T6, E)] {
            self.m.and_imm(Sz::W, d, e, 0x7fff);
            // 0 and 0x7fff, plus one, have none of these bits.
            self.m.add_imm(Sz::W, LOW, d, 1);
            self.m.and_imm(Sz::W, LOW, LOW, 0x7ffe);
            self.m.cbz(Sz::W, LOW, fail);
        }
    }

    /// [`A`]:[`LOW`] = the sum, top bit set, [`EXP`] its exponent, bit 15 of [`AE`] its sign.
    fn fast_add(&mut self, fail: Label) {
        let (ordered, minus, done) = (self.m.label(), self.m.label(), self.m.label());
        self.m.subs(Sz::W, LOW, EXP, T6);
        self.m.b_cond(Cond::Ge, ordered);
        // The larger exponent first.
        for (a, b) in [(A, M), (AE, E)] {
            self.m.mov(Sz::X, S, a);
            self.m.mov(Sz::X, a, b);
            self.m.mov(Sz::X, b, S);
        }
        self.m.mov(Sz::W, EXP, T6);
        self.m.neg(Sz::W, LOW, LOW);
        self.m.bind(ordered);
        self.m.lsr(Sz::W, S, LOW, 6);
        self.m.cbnz(Sz::W, S, fail);
        // x6:LOW = the smaller one, shifted.
        self.m.lsrv(Sz::X, T6, M, LOW);
        self.m.lsl(Sz::X, M, M, 1);
        self.m.mvn(Sz::W, LOW, LOW);
        self.m.lslv(Sz::X, LOW, M, LOW);
        self.m.eor(Sz::W, S, AE, E);
        self.m.tbnz(S, 15, minus);
        self.m.adds(Sz::X, A, A, T6);
        self.m.b_cond(Cond::Cc, done);
        // Carried: one to the right; what falls out stays known in the lowest bit.
        self.m.ubfx(Sz::X, S, LOW, 0, 1);
        self.m.orr_lsr(Sz::X, LOW, S, LOW, 1);
        self.m.orr_lsl(Sz::X, LOW, LOW, A, 63);
        self.m.lsr(Sz::X, A, A, 1);
        self.m.orr_imm(Sz::X, A, A, INTEGER);
        self.m.add_imm(Sz::W, EXP, EXP, 1);
        self.m.b(done);
        self.m.bind(minus);
        let positive = self.m.label();
        self.m.subs(Sz::X, LOW, ZR, LOW);
        self.m.sbcs(Sz::X, A, A, T6);
        self.m.b_cond(Cond::Cs, positive);
        // Only with equal exponents: nothing below.
        self.m.neg(Sz::X, A, A);
        self.m.eor_imm(Sz::W, AE, AE, 0x8000);
        self.m.bind(positive);
        // Zero has a sign of its own, and little is left of numbers that differ in their last bits: not here.
        self.m.cbz(Sz::X, A, fail);
        self.m.clz(Sz::X, S, A);
        self.m.cbz(Sz::X, S, done);
        self.m.lslv(Sz::X, A, A, S);
        self.m.sub(Sz::W, EXP, EXP, S);
        self.m.neg(Sz::W, T6, S);
        self.m.lsrv(Sz::X, T6, LOW, T6);
        self.m.orr(Sz::X, A, A, T6);
        self.m.lslv(Sz::X, LOW, LOW, S);
        self.m.bind(done);
    }

    /// As [`Cx::fast_add`] leaves it: the product.
    fn fast_mul(&mut self) {
        let done = self.m.label();
        self.m.eor(Sz::W, AE, AE, E);
        self.m.add(Sz::W, EXP, EXP, T6);
        self.m.mul(Sz::X, LOW, A, M);
        self.m.umulh(A, A, M);
        self.m.mov_imm(T6, (BIAS - 1) as u64);
        self.m.sub(Sz::W, EXP, EXP, T6);
        self.m.tbnz(A, 63, done);
        self.m.extr(Sz::X, A, A, LOW, 63);
        self.m.lsl(Sz::X, LOW, LOW, 1);
        self.m.sub_imm(Sz::W, EXP, EXP, 1);
        self.m.bind(done);
    }

    /// Rounds to nearest, ties to even, and commits; returns. Every change of the unit is here.
    fn fast_round(&mut self, fail: Label) {
        let exact = self.m.label();
        // Normal, and still so if rounding carries.
        self.m.sub_imm(Sz::W, S, EXP, 1);
        self.m.mov_imm(T6, 0x7ffd);
        self.m.subs(Sz::W, ZR, S, T6);
        self.m.b_cond(Cond::Cs, fail);
        // RC = nearest, PC = full: bits 11-8.
        self.m.ldr(2, M, CONTROL);
        self.m.ubfx(Sz::W, T6, M, 8, 4);
        self.m.eor_imm(Sz::W, T6, T6, 3);
        self.m.cbnz(Sz::W, T6, fail);
        self.m.ldr(2, S, STATUS);
        self.m.and_imm(Sz::W, S, S, u64::from(!u32::from(sw::C1)));
        self.m.cbz(Sz::X, LOW, exact);
        self.m.tbz(M, sw::PE.trailing_zeros(), fail);
        self.m.orr_imm(Sz::W, S, S, sw::PE.into());
        // Carries out when it is more than half, or half and the last bit is set.
        self.m.orr_imm(Sz::X, M, ZR, INTEGER - 1);
        self.m.ubfx(Sz::X, T6, A, 0, 1);
        self.m.add(Sz::X, M, M, T6);
        self.m.adds(Sz::X, ZR, LOW, M);
        self.m.b_cond(Cond::Cc, exact);
        self.m.orr_imm(Sz::W, S, S, sw::C1.into());
        self.m.adds_imm(Sz::X, A, A, 1);
        self.m.b_cond(Cond::Cc, exact);
        self.m.mov_imm(A, INTEGER);
        self.m.add_imm(Sz::W, EXP, EXP, 1);
        self.m.bind(exact);
        self.m.and_imm(Sz::W, AE, AE, 0x8000);
        self.m.orr(Sz::W, AE, AE, EXP);
        self.m.str(8, A, Addr::Off(TO, REGS));
        self.m.str(2, AE, Addr::Off(TO, SIGN_EXP));
        self.m.str(2, S, STATUS);
    }

    fn fast_compare(&mut self) {
        let (differ, minus, have, done) = (self.m.label(), self.m.label(), self.m.label(), self.m.label());
        self.m.eor(Sz::W, S, AE, E);
        self.m.tbnz(S, 15, differ);
        self.m.tbnz(AE, 15, minus);
        self.m.subs(Sz::W, ZR, EXP, T6);
        self.m.b_cond(Cond::Ne, have);
        self.m.subs(Sz::X, ZR, A, M);
        self.m.b(have);
        self.m.bind(minus);
        self.m.subs(Sz::W, ZR, T6, EXP);
        self.m.b_cond(Cond::Ne, have);
        self.m.subs(Sz::X, ZR, M, A);
        self.m.bind(have);
        self.m.mov_imm(T6, nzcv::C.into());
        self.m.csel(Sz::X, X(0), T6, ZR, Cond::Cc);
        self.m.mov_imm(T6, nzcv::Z.into());
        self.m.csel(Sz::X, X(0), T6, X(0), Cond::Eq);
        self.m.b(done);
        self.m.bind(differ);
        self.m.ubfx(Sz::X, X(0), AE, 15, 1);
        self.m.lsl(Sz::X, X(0), X(0), nzcv::C.trailing_zeros());
        self.m.bind(done);
    }
}
