//! Which host register holds what while translated code runs: the contract between the translator's emitter and the
//! runtime's thunks, as constants. Register choice is proven consistent by the assertions at the end.
//!
//! | host | guest |
//! |---|---|
//! | x19-x27, x29, x12-x17 | the sixteen general registers ([`GPR`]) |
//! | x28 | pointer to [`crate::state::CpuState`] |
//! | x18 | shadow stack pointer |
//! | x10, x11 | PF and AF sources ([`crate::state::CpuState::pf`], `af`) |
//! | NZCV | SF ZF CF OF; at every region boundary C is CF itself |
//! | x0-x9, x30 | scratch |
//! | v16-v31 | XMM0-15 |
//! | v0-v15 | scratch (v8-v15 are not preserved either: the entry thunk saves their low halves) |
//! | FPCR | the guest's rounding mode and FTZ, from MXCSR |
//! | sp | the host stack; translated code never moves it |

/// Host x-register of each guest general register, by x86 number. Registers the System V ABI uses most sit in
/// callee-saved host registers.
pub const GPR: [u8; 16] = [
    19, // rax
    20, // rcx
    21, // rdx
    22, // rbx
    23, // rsp
    24, // rbp
    25, // rsi
    26, // rdi
    27, // r8
    29, // r9
    12, // r10
    13, // r11
    14, // r12
    15, // r13
    16, // r14
    17, // r15
];
pub const STATE: u8 = 28;
pub const SHADOW: u8 = 18;
pub const PF: u8 = 10;
pub const AF: u8 = 11;
pub const LINK: u8 = 30;
/// Scratch registers a lowering may allocate.
pub const SCRATCH: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/// v-register of XMM n.
pub const fn xmm(n: u8) -> u8 {
    16 + n
}
/// Scratch v-registers a lowering may allocate.
pub const VSCRATCH: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Set in the u64 before an entry, and in the guest address of a shadow-stack entry, when the code there may read flags. Such a place
/// matches no indirect branch at first; the branch then brings all flags to canonical form and tries again with this bit.
/// Where the runtime compares guest addresses of shadow-stack entries it ignores this bit.
pub const WANTS_FLAGS: u64 = 1 << 63;

/// Log2 of the number of u32 slots in the indirect-branch lookup table, indexed by the low bits of the guest address.
/// A slot is the byte offset of the host entry from the table's own base; the u64 before the base never matches.
pub const LOOKUP_BITS: u32 = 16;

/// Log2 of the number of u32 words in the table of system calls, indexed by number, that the syscall thunk makes without leaving to the
/// dispatcher. Bits 0-15 are the host's number; what has at most three arguments and no pointer among them is no more than that.
pub const CALLS_BITS: u32 = 9;
/// There is more to it. Alone: it is not made by the thunk.
pub const CALL_MORE: u32 = 1 << 31;
/// It is.
pub const CALL_DIRECT: u32 = 1 << 30;
/// It has more than three arguments.
pub const CALL_LONG: u32 = 1 << 29;
/// Some of them are pointers: argument n, if bit 16 + n is set.
pub const CALL_POINTERS: u32 = 1 << 28;
/// In place of all this: rt_sigreturn, which the thunk carries out itself.
pub const CALL_SIGRETURN: u32 = 1 << 27;

/// Runtime entry points translated code reaches by `ldr x8, [x28, #thunks + 8*n]; blr x8` (or `br`).
/// All but the helpers, and most system calls, end the run: they store all pinned registers to `CpuState` and return to the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Thunk {
    /// A direct exit not yet chained. `blr` from an exit stub: x30 points at the stub's data, a u64 guest target.
    /// The dispatcher sets `rip` from it and may patch the jump that led to the stub.
    Direct = 0,
    /// An indirect branch that missed the lookup. x0 = guest target.
    Indirect = 1,
    /// SYSCALL. x0 = guest address of the next instruction, all flags as at a region boundary; `blr` with a landing for that instruction after it.
    /// A call that the host takes as it is comes back there, with only RAX, RCX, R11 and x0-x9 changed; rt_sigreturn goes on where it leads; any other
    /// ends the run.
    Syscall = 2,
    /// An instruction the guest may not execute or that traps. x0 = its guest address, x1 = [`crate::engine::Trap`].
    Trap = 3,
    /// Calls a helper and comes back. x9 = [`crate::helpers::Helper`] index, x0-x2 = arguments a, b, c;
    /// the result comes back in x0. Everything pinned, NZCV included, is stored to `CpuState` before and
    /// loaded after, so a helper may read and write any guest register. x1-x9, v0-v15 are clobbered.
    /// A helper that must raise a fault sets `exit_reason`; the thunk then leaves to the dispatcher instead of returning.
    Helper = 4,
    /// A fast helper: as `Helper`, but only registers the AAPCS64 lets a callee clobber are saved around it, and guest
    /// registers in `CpuState` are stale: it may use its arguments only.
    HelperPure = 5,
    /// The check in front of code on a written page found it changed, or counted down: x0 = guest address to resume at, x1 = whether the code writes memory.
    Stale = 6,
    /// RET whose shadow-stack entry did not match. x0 = guest target.
    ReturnMiss = 7,
}

const _: () = {
    let mut seen = 0u32;
    let mut i = 0;
    while i < 16 {
        assert!(seen & (1 << GPR[i]) == 0);
        seen |= 1 << GPR[i];
        i += 1;
    }
    let fixed = [STATE, SHADOW, PF, AF, LINK];
    let mut i = 0;
    while i < fixed.len() {
        assert!(seen & (1 << fixed[i]) == 0);
        seen |= 1 << fixed[i];
        i += 1;
    }
    let mut i = 0;
    while i < SCRATCH.len() {
        assert!(seen & (1 << SCRATCH[i]) == 0);
        seen |= 1 << SCRATCH[i];
        i += 1;
    }
    assert!(seen == 0x7fff_ffff);
};
