//! The way into translated code and the ways out of it: the assembly between the dispatcher and translated code.
//!
//! [`enter`] loads every pinned register from [`CpuState`] and jumps; each exit thunk stores them back and returns from that
//! call. The runtime writes the thunks' addresses into `CpuState`, so translated code does not depend on where they are. What register
//! holds what is [`crate::abi`]'s to say; why code left is the dispatcher's to read.

pub mod fp;
pub mod shadow;

#[cfg(target_arch = "aarch64")]
mod aarch64;

use crate::state::CpuState;

/// Ranges of host addresses a signal handler must tell apart (see `signal::host`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `enter`, after the look at `pending`: nothing was run yet, the run may be given up by going to [`leave`].
    Entering,
    /// In a helper thunk, after the look at `pending`: the thread is about to return to translated code.
    HelperOut,
    /// In the syscall thunk, with a host call about to be made: nothing was done yet, it may be given up by going to [`call_again`].
    Calling,
    /// In the syscall thunk, after the host call: to be sent to [`call_leave`] instead of back to translated code.
    Called,
    /// Anywhere else.
    Elsewhere,
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use super::aarch64::*;
    use super::*;

    fn within(pc: u64, from: unsafe extern "C" fn(), to: unsafe extern "C" fn()) -> bool {
        pc >= from as *const () as u64 && pc < to as *const () as u64
    }

    pub fn place(pc: u64) -> Place {
        // First what is asked for by signals that threads send themselves.
        if within(pc, xrun_call_done, xrun_call_end) {
            Place::Called
        } else if within(pc, xrun_call, xrun_call_done) {
            Place::Calling
        } else if within(pc, xrun_window, xrun_window_end) {
            Place::Entering
        } else if within(pc, xrun_out, xrun_out_end) || within(pc, xrun_pure_out, xrun_pure_out_end) {
            Place::HelperOut
        } else {
            Place::Elsewhere
        }
    }

    pub fn leave() -> u64 {
        xrun_leave as *const () as u64
    }

    pub fn window() -> u64 {
        xrun_window as *const () as u64
    }

    pub fn call_again() -> u64 {
        xrun_syscall_again as *const () as u64
    }

    pub fn call_leave() -> u64 {
        xrun_call_leave as *const () as u64
    }

    pub fn never() -> u64 {
        xrun_never as *const () as u64
    }

    pub fn thunks() -> [u64; 16] {
        let mut t = [xrun_stale as *const () as u64; 16];
        for (i, f) in [
            xrun_direct as unsafe extern "C" fn(),
            xrun_indirect,
            xrun_syscall,
            xrun_trap,
            xrun_helper,
            xrun_helper_pure,
            xrun_stale,
            xrun_return_miss,
        ]
        .into_iter()
        .enumerate()
        {
            t[i] = f as *const () as u64;
        }
        t
    }

    pub unsafe fn enter(cpu: *mut CpuState, host_pc: u64) {
        // SAFETY: the caller vouches for both arguments.
        unsafe { xrun_enter(cpu, host_pc) }
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod imp {
    use super::*;

    pub fn place(_pc: u64) -> Place {
        Place::Elsewhere
    }
    pub fn leave() -> u64 {
        0
    }
    pub fn window() -> u64 {
        0
    }
    pub fn call_again() -> u64 {
        0
    }
    pub fn call_leave() -> u64 {
        0
    }
    pub fn never() -> u64 {
        0
    }
    pub fn thunks() -> [u64; 16] {
        [0; 16]
    }
    pub unsafe fn enter(_cpu: *mut CpuState, _host_pc: u64) {
        eprintln!("xrun: translated code runs on AArch64 hosts only");
        std::process::abort()
    }
}

/// Which part of the assembly `pc` is in.
pub fn place(pc: u64) -> Place {
    imp::place(pc)
}

/// Where a handler sends a thread to make its [`enter`] call return with the state as `CpuState` has it. x28 must be the state pointer and
/// sp its `host_sp`.
pub fn leave() -> u64 {
    imp::leave()
}

/// Where a handler sends a thread to go on with the state as `CpuState` has it, at the host address in x1, unless something is pending. x28 and sp as for
/// [`leave`].
pub fn window() -> u64 {
    imp::window()
}

/// Where a handler sends a thread that is in [`Place::Calling`]: the call is left to the dispatcher.
pub fn call_again() -> u64 {
    imp::call_again()
}

/// Where a handler sends a thread that is in [`Place::Called`]: it leaves with the call's result.
pub fn call_leave() -> u64 {
    imp::call_leave()
}

/// Host address for the bottom entry of a shadow stack: a return there goes to the dispatcher as an indirect jump to
/// [`crate::code::NEVER`].
pub fn never() -> u64 {
    imp::never()
}

/// The addresses for [`CpuState::thunks`].
pub fn thunks() -> [u64; 16] {
    imp::thunks()
}

/// Runs translated code at `host_pc` until it leaves. Returns at once with `exit_reason` 0 if `pending` is not zero.
///
/// # Safety
/// `cpu` is the first field of a live [`crate::thread::Thread`] that belongs to the calling thread, set up by `Thread::adopt`; `host_pc` is an
/// entry or landing of code in the cache.
pub unsafe fn enter(cpu: *mut CpuState, host_pc: u64) {
    // SAFETY: as this function demands.
    unsafe { imp::enter(cpu, host_pc) }
}
