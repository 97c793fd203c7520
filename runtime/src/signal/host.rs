//! The host's side of signals: what the host handler does with a signal, by where the interrupted host pc is.
//!
//! The handler itself delivers nothing to the guest: a synchronous fault of guest code is turned into exact guest state and reported to
//! the dispatcher; an asynchronous signal is queued, and a thread in translated code is made to leave it at the next guest
//! instruction boundary. This file must not know the guest's signal numbers' dispositions or frames.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

/// A synchronous signal in x86 terms: what siginfo says, and what sigcontext says of the exception behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncFault {
    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub signo: i32,
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// The x86 exception vector (SDM vol. 3, table 6-1).
    pub trapno: u64,
    /// Its error code: for #PF bit 0 protection, 1 write, 2 user, 4 instruction fetch.
    pub err: u64,
    /// The faulting address of #PF; else what the last one left is not known and this is 0.
    pub cr2: u64,
}

/// A thread's host-side signal state, written by the handler on that thread.
///
/// At most one asynchronous signal is queued: taking it, the handler blocks all others in the mask that the interrupted code
/// resumes with, so they stay with the kernel, in its order, until the guest has a frame for the first.
#[derive(Default)]
pub struct HostSignals {
    queued: AtomicBool,
    info: UnsafeCell<Option<libc::siginfo_t>>,
}

impl std::fmt::Debug for HostSignals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostSignals").field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl HostSignals {
    /// The queued asynchronous signal; the queue is empty afterwards. Only for the thread itself, outside its handler.
    pub fn take(&mut self) -> Option<libc::siginfo_t> {
        if !self.queued.swap(false, Ordering::Acquire) {
            return None;
        }
        // SAFETY: the handler writes `info` only while `queued` is clear, and everything asynchronous is blocked since.
        unsafe { (*self.info.get()).take() }
    }
}

/// Ends the process by `signal`, as its default action would.
pub fn die(signal: i32) -> ! {
    let mut set = MaybeUninit::uninit();
    // SAFETY: all calls are given valid arguments; the signal's default action ends the process, and abort does if it does not.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::raise(signal);
        libc::abort()
    }
}
