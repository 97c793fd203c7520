//! x87 (SDM vol. 1, chapter 8; vol. 2): exact to 80 bits and every flag.
//!
//! The unit lives in `CpuState::x87`, registers by physical number. Loads, stores and moves that need no rounding are emitted inline; addition and
//! multiplication of normal numbers are routines of the region ([`fast`]); other arithmetic, and every case with a stack fault, a NaN or a
//! denormal, calls a pure helper (`xrun_runtime::helpers::x87`). Helpers look at nothing of the guest but
//! the unit, so memory operands are loaded before the call and results stored after it, by the same ordered accesses as everywhere.
//!
//! Inline code uses the fixed scratch registers below and x30, so that computing addresses has x0 to x4.

use super::cx::{Cx, LINK, STATE};
use crate::emit::{Addr, Label, Sz, X};
use iced_x86::{Instruction, MemorySize, OpKind};
use std::mem::offset_of;
use xrun_runtime::engine::Trap;
use xrun_runtime::helpers::Helper;
use xrun_runtime::helpers::f80::sw;
use xrun_runtime::helpers::x87::ops::Format;
use xrun_runtime::helpers::x87::{STORE_ABANDONED, STORE_COMMIT, STORE_HIGH};
use xrun_runtime::state::{CpuState, X87, X87Reg};

pub mod arith;
pub mod control;
mod fast;
pub mod moves;

/// The status word.
const S: X = X(5);
/// `in_use`.
const U: X = X(6);
/// TOP.
const T: X = X(7);
/// A significand, or raw operand bits.
const M: X = X(8);
/// A sign and exponent.
const E: X = X(9);
/// A raw operand kept for a helper.
const RAW: X = X(4);

const fn unit(field: usize) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, x87) + field) as i32)
}

const STATUS: Addr = unit(offset_of!(X87, status));
const CONTROL: Addr = unit(offset_of!(X87, control));
const IN_USE: Addr = unit(offset_of!(X87, in_use));
const TOP: Addr = unit(offset_of!(X87, top));
const REGS: i32 = (offset_of!(CpuState, x87) + offset_of!(X87, regs)) as i32;
const SIGN_EXP: i32 = REGS + offset_of!(X87Reg, sign_exp) as i32;

const fn spill(n: usize) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, spill) + 8 * n) as i32)
}

/// Index of the ST register that is operand `n`, 0 where there is none.
fn st(i: &Instruction, n: u32) -> u32 {
    if i.op_count() > n && i.op_kind(n) == OpKind::Register && i.op_register(n).is_st() {
        i.op_register(n).number() as u32
    } else {
        0
    }
}

fn is_memory(i: &Instruction) -> bool {
    i.op_count() > 0 && i.op0_kind() == OpKind::Memory
}

/// How the memory operand holds its number, and the bytes it takes.
fn format(i: &Instruction) -> (Format, u32) {
    match i.memory_size() {
        MemorySize::Float32 => (Format::F32, 4),
        MemorySize::Float64 => (Format::F64, 8),
        MemorySize::Int16 => (Format::I16, 2),
        MemorySize::Int32 => (Format::I32, 4),
        MemorySize::Int64 => (Format::I64, 8),
        MemorySize::Bcd => (Format::Bcd, 10),
        _ => (Format::F80, 10),
    }
}

impl Cx<'_> {
    /// What every waiting instruction does first: #MF if an unmasked exception is pending. The status word is in [`S`] afterwards.
    fn fwait(&mut self) {
        let trap = self.trap_label(Trap::X87);
        self.m.ldr(2, S, STATUS);
        self.m.tbnz(S, sw::ES.trailing_zeros(), trap);
    }

    /// Loads TOP and `in_use`.
    fn fstack(&mut self) {
        self.m.ldr(1, T, TOP);
        self.m.ldr(1, U, IN_USE);
    }

    /// Bit i of x30 = ST(i) is in use; only bit 0 if `first`.
    fn frotate(&mut self, first: bool) {
        if first {
            self.m.lsrv(Sz::W, LINK, U, T);
        } else {
            self.m.orr_lsl(Sz::W, LINK, U, U, 8);
            self.m.lsrv(Sz::W, LINK, LINK, T);
        }
    }

    /// `d` = address in the state such that ST(i) is at [`REGS`] and [`SIGN_EXP`] from it.
    fn faddr(&mut self, d: X, i: u32) {
        if i == 0 {
            self.m.add_lsl(Sz::X, d, STATE, T, 4);
        } else {
            self.m.add_imm(Sz::W, d, T, i);
            self.m.and_imm(Sz::W, d, d, 7);
            self.m.add_lsl(Sz::X, d, STATE, d, 4);
        }
    }

    /// Writes back [`S`] with C1 clear: the instruction raised nothing.
    fn fclean(&mut self) {
        self.m.and_imm(Sz::W, S, S, u64::from(!u32::from(sw::C1)));
        self.m.str(2, S, STATUS);
    }

    /// Pushes [`M`], [`E`], with [`T`] and [`U`] loaded; to `full` if ST(7) is in use, with nothing done.
    fn fpush(&mut self, full: Label) {
        self.m.sub_imm(Sz::W, T, T, 1);
        self.m.and_imm(Sz::W, T, T, 7);
        self.m.movz(Sz::W, LINK, 1, 0);
        self.m.lslv(Sz::W, LINK, LINK, T);
        self.m.and(Sz::W, X(0), U, LINK);
        self.m.cbnz(Sz::W, X(0), full);
        self.m.orr(Sz::W, U, U, LINK);
        self.m.str(1, U, IN_USE);
        self.m.str(1, T, TOP);
        self.faddr(X(0), 0);
        self.m.str(8, M, Addr::Off(X(0), REGS));
        self.m.str(2, E, Addr::Off(X(0), SIGN_EXP));
        self.fclean();
    }

    /// Pops, with [`T`] and [`U`] loaded.
    fn fpop(&mut self) {
        self.m.movz(Sz::W, LINK, 1, 0);
        self.m.lslv(Sz::W, LINK, LINK, T);
        self.m.bic(Sz::W, U, U, LINK);
        self.m.str(1, U, IN_USE);
        self.m.add_imm(Sz::W, T, T, 1);
        self.m.and_imm(Sz::W, T, T, 7);
        self.m.str(1, T, TOP);
    }

    /// A pure helper with constant first argument.
    fn fcall(&mut self, h: Helper, a: u64) {
        self.m.mov_imm(X(0), a);
        self.call_pure(h);
    }

    /// As [`Cx::fcall`], out of line: returns where to branch to; it comes back to `done`.
    fn fcall_cold(&mut self, h: Helper, a: u64, done: Label) -> Label {
        self.cold(move |cx| {
            cx.fcall(h, a);
            cx.m.b(done);
        })
    }

    /// Loads the memory operand's first bytes into `d` and, of ten, the last two into [`E`].
    fn fload(&mut self, i: &Instruction, bytes: u32, d: X) {
        let at = self.addr(i, bytes.min(8));
        if bytes <= 8 {
            return self.load(bytes, d, at);
        }
        let next = self.fnext(at);
        self.load(8, d, at);
        self.load(2, E, next);
    }

    /// The address eight bytes on, for an access of two.
    fn fnext(&mut self, at: Addr) -> Addr {
        match at {
            Addr::Off(n, off) if crate::emit::int::fits_offset(2, i64::from(off) + 8) => Addr::Off(n, off + 8),
            at => {
                let n = self.addr_reg(at);
                let t = self.tmp();
                self.m.add_imm(Sz::X, t, n, 8);
                Addr::Off(t, 0)
            }
        }
    }

    /// Stores `bytes` of [`M`] and [`E`] to the memory operand; takes x0 to x4.
    fn fstore(&mut self, i: &Instruction, bytes: u32) {
        let at = self.addr(i, bytes.min(8));
        if bytes > 8 {
            // The high part first: the access that crosses into another page, if one does, faults before anything is written.
            let next = self.fnext(at);
            self.store(2, E, next);
        }
        self.store(bytes.min(8), M, at);
    }

    /// Any store, by the helper: converts, stores, then changes the unit.
    fn fstore_helper(&mut self, i: &Instruction, chop: bool, pop: bool) {
        let (f, bytes) = format(i);
        self.fcall(Helper::X87Store, f as u64 | u64::from(chop) << 4);
        self.m.mov(Sz::X, M, X(0));
        self.m.ldr(4, S, spill(STORE_COMMIT));
        if bytes > 8 {
            self.m.ldr(2, E, spill(STORE_HIGH));
        }
        let abandoned = self.m.label();
        self.m.tbnz(S, STORE_ABANDONED.trailing_zeros(), abandoned);
        self.fstore(i, bytes);
        if pop {
            self.fstack();
            self.fpop();
        }
        self.m.bind(abandoned);
        self.m.str(2, S, STATUS);
    }
}
