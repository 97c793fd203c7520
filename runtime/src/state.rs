//! The guest CPU as it lies in memory, one per guest thread.
//!
//! Translated code keeps most of this in host registers (see [`crate::abi`]) and addresses the rest through a
//! pinned pointer. Everything here is plain data at fixed offsets: the translator emits loads and stores by
//! `offset_of!`, helpers read and write fields. This file must not know how code is emitted or what a system call is.

use bitflags::bitflags;

/// Index of a general register in x86 encoding order (Intel SDM vol. 2, 2.1.5).
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// Selectors of Linux's segments for 64-bit programs (arch/x86/include/asm/segment.h), and the numbers of the registers.
pub mod segment {
    pub const USER_CS: u16 = 0x33;
    pub const USER_DS: u16 = 0x2b;
    /// The code segment of 32-bit programs.
    pub const USER32_CS: u16 = 0x23;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}

bitflags! {
    /// EFLAGS bits a user program can see (SDM vol. 1, 3.4.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Eflags: u32 {
        const CF = 1 << 0;
        const ONE = 1 << 1;
        const PF = 1 << 2;
        const AF = 1 << 4;
        const ZF = 1 << 6;
        const SF = 1 << 7;
        const TF = 1 << 8;
        const IF = 1 << 9;
        const DF = 1 << 10;
        const OF = 1 << 11;
        const NT = 1 << 14;
        const RF = 1 << 16;
        const AC = 1 << 18;
        const ID = 1 << 21;
        /// The six flags arithmetic writes.
        const STATUS = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11;
    }
}

/// Bits of the host's NZCV register, where they hold the guest's SF, ZF, CF, OF.
pub mod nzcv {
    pub const N: u32 = 1 << 31;
    pub const Z: u32 = 1 << 30;
    pub const C: u32 = 1 << 29;
    pub const V: u32 = 1 << 28;
}

/// One x87 register: 80 bits in a 16-byte slot, as FXSAVE lays it out (SDM vol. 1, 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, zerocopy::FromBytes, zerocopy::Immutable)]
#[repr(C, align(16))]
pub struct X87Reg {
    /// Explicit integer bit and fraction. An MMX register is this field.
    pub mantissa: u64,
    /// Sign (bit 15) and biased exponent. MMX writes set it to 0xffff.
    pub sign_exp: u16,
    pub pad: [u16; 3],
}

/// The x87 unit. Registers are stored by *physical* number: ST(i) is `regs[(top + i) & 7]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct X87 {
    pub regs: [X87Reg; 8],
    /// Control word (SDM vol. 1, 8.1.5).
    pub control: u16,
    /// Status word without the TOP field, which lives in `top`.
    pub status: u16,
    /// One bit per physical register: 1 = in use (the inverse of "empty"; full tags are derived on demand).
    pub in_use: u8,
    /// TOP, 0..=7.
    pub top: u8,
    pub opcode: u16,
    pub pad: [u8; 8],
    pub last_ip: u64,
    pub last_dp: u64,
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            regs: [X87Reg::default(); 8],
            control: 0x37f,
            status: 0,
            in_use: 0,
            top: 0,
            opcode: 0,
            pad: [0; 8],
            last_ip: 0,
            last_dp: 0,
        }
    }
}

/// A helper's address as translated code calls it. The meaning of the arguments is the helper's own.
pub type HelperFn = unsafe extern "C" fn(cpu: *mut CpuState, a: u64, b: u64, c: u64) -> u64;

/// All of a guest thread's registers, and what translated code needs at hand.
///
/// Invariant: while translated code runs, fields mirrored in host registers are stale; the exit and helper
/// thunks store them back, so Rust code always sees the whole truth.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct CpuState {
    pub gpr: [u64; 16],
    /// Guest instruction pointer; valid whenever translated code is not running.
    pub rip: u64,
    /// SF ZF CF OF at the places of the host's NZCV; C is CF itself (never inverted) here.
    pub nzcv: u64,
    /// PF is the even parity of the low byte of this.
    pub pf: u64,
    /// AF is bit 4 of `pf ^ af`.
    pub af: u64,
    /// Added to rsi/rdi per element unit by string instructions: 1, or -1 when EFLAGS.DF is set.
    pub df: i64,
    /// EFLAGS bits other than the status flags and DF: TF, AC, ID, NT (and IF, ONE, always set).
    pub other_flags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// MXCSR as the guest last wrote it, control bits current; sticky flags are merged with the host's FPSR on read.
    pub mxcsr: u32,
    /// The exceptions `mxcsr` does not mask, as bits of the host's FPSR.
    pub unmasked: u32,
    /// Where an exit thunk stores why translated code ended (see [`crate::engine::ExitReason`]).
    pub exit_reason: u64,
    pub exit_arg: u64,
    /// First slot of the shared indirect-branch table; a signal handler points it at an all-miss table to stop the thread.
    pub lookup: u64,
    /// Top of the shadow stack (grows down; entries of {guest return address, host return address}).
    pub shadow: u64,
    /// Addresses of runtime thunks, indexed by [`crate::abi::Thunk`].
    pub thunks: [u64; 16],
    /// Address of the table of helpers, indexed by [`crate::helpers::Helper`].
    pub helpers: u64,
    /// Address of the table of calls that the syscall thunk makes itself (see [`crate::abi::CALLS_BITS`]).
    pub calls: u64,
    /// The host stack pointer while translated code runs.
    pub host_sp: u64,
    /// Host FPCR while Rust runs / while guest code runs.
    pub host_fpcr: u64,
    pub guest_fpcr: u64,
    /// Host FPSR as guest code left it: the sticky exception flags not yet merged into `mxcsr`.
    pub guest_fpsr: u64,
    /// While a helper runs: the host address it returns to. Else 0.
    pub helper_return: u64,
    /// The runtime's per-thread record.
    pub thread: u64,
    /// Spill space for lowering that runs out of scratch registers.
    pub spill: [u64; 8],
    /// XMM0-15 (low 128 bits).
    pub xmm: [u128; 16],
    /// Upper halves of YMM0-15, as far as `upper_live` says. Read and written through [`CpuState::upper`] and [`CpuState::set_upper`].
    pub ymm_hi: [u128; 16],
    /// Bit n: the upper half of YMM n is `ymm_hi[n]`; else it is zero, whatever is there. So VZEROUPPER, which every function that uses
    /// YMM registers ends with, is one store, and no bits at all is what XSAVE calls the initial state (SDM vol. 1, 13.6).
    pub upper_live: u64,
    pub x87: X87,
    /// What the destination of an instruction held that may raise an unmasked SSE exception.
    pub saved: u128,
    /// Counts down whenever code is entered that checks its guest bytes; at 0 it goes to the dispatcher (see [`crate::code::checked`]).
    pub checks: u64,
    /// ES CS SS DS FS GS, by their number in encodings. Only what a program can read back of them: bases are above.
    pub selectors: [u16; 6],
}

impl Default for CpuState {
    fn default() -> Self {
        Self {
            gpr: [0; 16],
            rip: 0,
            nzcv: 0,
            pf: 1,
            af: 0,
            df: 1,
            other_flags: u64::from((Eflags::ONE | Eflags::IF).bits()),
            fs_base: 0,
            gs_base: 0,
            mxcsr: 0x1f80,
            unmasked: 0,
            exit_reason: 0,
            exit_arg: 0,
            lookup: 0,
            shadow: 0,
            thunks: [0; 16],
            helpers: 0,
            calls: 0,
            host_sp: 0,
            host_fpcr: 0,
            guest_fpcr: 0,
            guest_fpsr: 0,
            helper_return: 0,
            thread: 0,
            spill: [0; 8],
            xmm: [0; 16],
            ymm_hi: [0; 16],
            upper_live: 0,
            x87: X87::default(),
            saved: 0,
            checks: crate::code::checked::ROUNDS,
            selectors: [0, segment::USER_CS, segment::USER_DS, 0, 0, 0],
        }
    }
}

impl CpuState {
    /// The upper half of YMM `n`.
    pub fn upper(&self, n: usize) -> u128 {
        if self.upper_live >> n & 1 != 0 { self.ymm_hi[n] } else { 0 }
    }

    /// Sets the upper half of YMM `n`.
    pub fn set_upper(&mut self, n: usize, v: u128) {
        self.ymm_hi[n] = v;
        self.upper_live = self.upper_live & !(1 << n) | u64::from(v != 0) << n;
    }

    /// The upper halves of all YMM registers.
    pub fn uppers(&self) -> [u128; 16] {
        std::array::from_fn(|n| self.upper(n))
    }

    /// Sets the upper halves of all YMM registers.
    pub fn set_uppers(&mut self, all: [u128; 16]) {
        for (n, v) in all.into_iter().enumerate() {
            self.set_upper(n, v);
        }
    }

    /// EFLAGS as PUSHF or a signal frame shows them.
    pub fn eflags(&self) -> Eflags {
        let mut f = Eflags::from_bits_truncate(self.other_flags as u32) | Eflags::ONE | Eflags::IF;
        let n = self.nzcv as u32;
        f.set(Eflags::SF, n & nzcv::N != 0);
        f.set(Eflags::ZF, n & nzcv::Z != 0);
        f.set(Eflags::CF, n & nzcv::C != 0);
        f.set(Eflags::OF, n & nzcv::V != 0);
        f.set(Eflags::PF, (self.pf as u8).count_ones().is_multiple_of(2));
        f.set(Eflags::AF, (self.pf ^ self.af) & 0x10 != 0);
        f.set(Eflags::DF, self.df < 0);
        f
    }

    /// Sets every flag a user program may set with POPF (SDM vol. 2, POPF, CPL 3): status, TF, DF, NT, AC, ID.
    pub fn set_eflags(&mut self, f: Eflags) {
        let mut n = 0;
        for (bit, host) in [(Eflags::SF, nzcv::N), (Eflags::ZF, nzcv::Z), (Eflags::CF, nzcv::C), (Eflags::OF, nzcv::V)]
        {
            if f.contains(bit) {
                n |= host;
            }
        }
        self.nzcv = u64::from(n);
        self.pf = u64::from(!f.contains(Eflags::PF));
        self.af = self.pf ^ if f.contains(Eflags::AF) { 0x10 } else { 0 };
        self.df = if f.contains(Eflags::DF) { -1 } else { 1 };
        let other = f & (Eflags::TF | Eflags::NT | Eflags::AC | Eflags::ID) | Eflags::ONE | Eflags::IF;
        self.other_flags = u64::from(other.bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eflags_round_trip() {
        let mut c = CpuState::default();
        let all = Eflags::STATUS | Eflags::DF | Eflags::AC | Eflags::ID;
        for bits in 0..(1u32 << 22) {
            let f = Eflags::from_bits_retain(bits) & all;
            if f.bits() != bits {
                continue;
            }
            c.set_eflags(f);
            assert_eq!(c.eflags(), f | Eflags::ONE | Eflags::IF);
        }
    }
}
