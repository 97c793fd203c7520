//! One guest thread as the runtime sees it. A guest thread is a host thread, so host thread-local storage, the host's
//! tid, robust list and signal mask are the guest's own.
//!
//! This file holds the record only: who fills its fields is said at each of them. It must not know how code is run.

use crate::state::CpuState;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicU32;

/// A guest thread's record. It never moves once it runs: `cpu.thread` and the thread-local pointer lead to it.
#[derive(Debug)]
#[repr(C)]
pub struct Thread {
    pub cpu: CpuState,
    /// Not zero when the dispatcher should look for something to do (a signal to deliver, a request to stop) before
    /// the guest goes on. Host signal handlers set it; a blocking system call is not entered while it is set.
    pub pending: AtomicU32,
    /// The host's thread id, which is the guest's.
    pub tid: i32,
    /// Set by the `exit` system call: the dispatcher leaves its loop with this status when it sees it.
    pub exit: Option<i32>,
    /// Where to store 0 and wake a futex when the thread is gone (`set_tid_address`, CLONE_CHILD_CLEARTID); 0 for nowhere.
    pub clear_child_tid: u64,
    /// Head of the guest's robust futex list, 0 for none.
    pub robust_list: u64,
    /// This is the child of a vfork: it runs in its parent's memory, on a borrowed host thread, and must leave by the kernel's
    /// `exit` or `execve` alone.
    pub vfork_child: bool,
}

impl Thread {
    /// A thread that starts with `cpu`'s registers. The caller sets `tid` when it differs from the calling thread's.
    pub fn new(cpu: CpuState) -> Box<Thread> {
        let mut t = Box::new(Thread {
            cpu,
            pending: AtomicU32::new(0),
            tid: current_tid(),
            exit: None,
            clear_child_tid: 0,
            robust_list: 0,
            vfork_child: false,
        });
        t.cpu.thread = (&raw const *t) as u64;
        t
    }
}

fn current_tid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

thread_local! {
    static CURRENT: Cell<*mut Thread> = const { Cell::new(ptr::null_mut()) };
}

/// The record of the guest thread this host thread runs; null on a thread that runs none. Safe in a signal handler.
pub fn current() -> *mut Thread {
    CURRENT.get()
}

/// Makes `thread` what [`current`] returns on this host thread; returns what it was.
pub fn set_current(thread: *mut Thread) -> *mut Thread {
    CURRENT.replace(thread)
}
