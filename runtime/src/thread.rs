//! A guest thread: its record, how it starts and ends, and the loop that runs it.
//!
//! One guest thread is one host thread. The record is pinned in memory for the thread's whole life: translated code reaches its
//! [`CpuState`] through a register, signal handlers reach it through [`current`]. The loop is the only place where translated
//! code is entered; whatever ends a run (a system call, a trap, a fault, a signal) is handled here between two guest instructions.
//! This file must not know what any system call does or how code is translated.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::signal::ThreadSignals;
use crate::signal::host::HostSignals;
use crate::state::CpuState;

/// A guest thread's record. It never moves once it runs: `cpu.thread` and the thread-local pointer lead to it.
///
/// The owner (the thread itself) reads and writes all fields; signal handlers on the same thread touch `host`, `pending` and,
/// while translated code is interrupted, `cpu`.
#[derive(Debug)]
#[repr(C)]
pub struct Thread {
    /// The guest's registers; the whole truth whenever translated code is not running. First: assembly reaches `pending` through
    /// the same pointer.
    pub cpu: CpuState,
    /// Bits of [`pending`]: not zero when the dispatcher should look for something to do before the guest goes on. Host
    /// signal handlers set it; a blocking system call is not entered while it is set.
    pub pending: AtomicU32,
    /// The host's thread id, which is the guest's. 0 until the thread has started.
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
    /// The guest's signal state: mask, alternate stack, and so on.
    pub signal: ThreadSignals,
    /// The host's side of signals: the queued one, the alternate stack the handler runs on.
    pub host: HostSignals,
}

/// Bits of [`Thread::pending`]: what a thread must look at before it runs another guest instruction.
pub mod pending {
    /// A guest signal may be deliverable.
    pub const SIGNAL: u32 = 1;
    /// The code cache is being emptied.
    pub const FLUSH: u32 = 2;
}

thread_local! {
    static CURRENT: Cell<*mut Thread> = const { Cell::new(std::ptr::null_mut()) };
}

/// Guest threads alive in this process.
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Host stack of a guest thread: helpers, system calls and the translator run on it.
const STACK: usize = 1 << 20;

/// The record of the guest thread this host thread runs; null on a thread that runs none. Safe in a signal handler.
pub fn current() -> *mut Thread {
    CURRENT.get()
}

/// Makes `thread` what [`current`] returns on this host thread; returns what it was.
pub fn set_current(thread: *mut Thread) -> *mut Thread {
    CURRENT.replace(thread)
}

/// How many guest threads this process has.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// After fork: the child has one thread.
pub fn forked() {
    COUNT.store(1, Ordering::Relaxed);
}

impl Thread {
    /// A thread that starts with `cpu`'s registers, not yet running on any host thread.
    pub fn new(cpu: CpuState) -> Box<Thread> {
        let mut t = Box::new(Thread {
            cpu,
            pending: AtomicU32::new(0),
            tid: current_tid(),
            exit: None,
            clear_child_tid: 0,
            robust_list: 0,
            vfork_child: false,
            signal: ThreadSignals::default(),
            host: HostSignals::default(),
        });
        t.cpu.thread = (&raw const *t) as u64;
        t
    }

    /// A new thread as clone(2) makes it: this one's registers and signal mask, nothing else. The caller sets RAX, RSP and the like.
    pub fn child(&self) -> Box<Thread> {
        let mut t = Thread::new(self.cpu.clone());
        t.signal = self.signal.child();
        t
    }

    /// Sets [`pending`] bits: the thread looks at them before it runs another guest instruction. Async-signal-safe; does
    /// not by itself stop translated code (the host signal handler does that).
    pub fn attend(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::Relaxed);
    }
}

fn current_tid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// What `spawn` hands to the new host thread.
struct Start<'a> {
    child: Box<Thread>,
    started: &'a mut (dyn FnMut(&mut Thread) + Send),
    mask: libc::sigset_t,
    /// 0 until the child has its id and `started` has run.
    tid: *const AtomicU32,
}

/// Starts `child` on a host thread of its own. `started` runs on the new thread, with `tid` set and before its first guest
/// instruction (CLONE_CHILD_SETTID, CLONE_PARENT_SETTID). Returns when that is done, with the child's thread id; an error is an errno.
pub fn spawn(child: Box<Thread>, started: &mut (dyn FnMut(&mut Thread) + Send)) -> Result<i32, i32> {
    let tid = AtomicU32::new(0);
    let mut start = Start { child, started, mask: signals_off(), tid: &raw const tid };
    let mask = start.mask;
    COUNT.fetch_add(1, Ordering::Relaxed);
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut id = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: `attr` is initialised before use and destroyed after; `start` outlives the child's use of it, because this
    // function returns only after `tid` was set, the child's last access to either.
    let error = unsafe {
        libc::pthread_attr_init(attr.as_mut_ptr());
        libc::pthread_attr_setstacksize(attr.as_mut_ptr(), STACK);
        libc::pthread_attr_setdetachstate(attr.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        let e = libc::pthread_create(id.as_mut_ptr(), attr.as_ptr(), host_thread, (&raw mut start).cast());
        libc::pthread_attr_destroy(attr.as_mut_ptr());
        e
    };
    if error != 0 {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        signals_set(&mask);
        return Err(error);
    }
    while tid.load(Ordering::Acquire) == 0 {
        futex(&tid, libc::FUTEX_WAIT, 0);
    }
    signals_set(&mask);
    Ok(tid.load(Ordering::Relaxed) as i32)
}

extern "C" fn host_thread(arg: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` passes a `Start` that stays valid until `tid` is set below; the box is moved out exactly once and the
    // remaining fields need no drop.
    let Start { child: mut thread, started, mask, tid } = unsafe { arg.cast::<Start>().read() };
    thread.adopt();
    started(&mut thread);
    let id = thread.tid as u32;
    // SAFETY: the spawner keeps the word alive until it reads a value other than 0 from it. The wake may find it gone, which
    // the kernel reports or ignores: a private futex wake has no effect but to wake.
    unsafe {
        (*tid).store(id, Ordering::Release);
        libc::syscall(libc::SYS_futex, tid, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }
    signals_set(&mask);
    thread.run();
    std::ptr::null_mut()
}

/// Runs `thread` as the process's first guest thread, on the calling host thread.
pub fn run_first(mut thread: Box<Thread>) -> ! {
    let mask = signals_off();
    thread.adopt();
    signals_set(&mask);
    let code = thread.run();
    drop(thread);
    exit_host_thread(code)
}

fn exit_host_thread(code: i32) -> ! {
    loop {
        // SAFETY: exit ends this host thread only; nothing on its stack is needed any more. When it was the last one, the
        // process ends with `code`.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

fn futex(word: &AtomicU32, op: i32, value: u32) {
    // SAFETY: `word` is valid; no timeout is passed.
    unsafe {
        libc::syscall(libc::SYS_futex, word, op | libc::FUTEX_PRIVATE_FLAG, value, std::ptr::null::<libc::timespec>())
    };
}

/// Blocks every host signal; returns the mask before.
pub(crate) fn signals_off() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: both sets are valid to write; sigfillset initialises `all` before it is read, pthread_sigmask `old`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}

/// Sets the host signal mask.
pub(crate) fn signals_set(mask: &libc::sigset_t) {
    // SAFETY: `mask` is an initialised set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

impl Thread {
    /// Makes this the calling host thread's guest thread.
    fn adopt(&mut self) {
        self.tid = current_tid();
        set_current(self);
    }

    /// Runs guest code until the thread ends; returns its exit code.
    pub fn run(&mut self) -> i32 {
        loop {
            if let Some(code) = self.exit {
                set_current(std::ptr::null_mut());
                COUNT.fetch_sub(1, Ordering::Relaxed);
                return code;
            }
            if self.pending.swap(0, Ordering::Acquire) & pending::SIGNAL != 0 {
                crate::signal::deliver_pending(self);
            }
        }
    }
}
