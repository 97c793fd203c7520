//! A guest thread: its record, how it starts and ends, and the loop that runs it.
//!
//! One guest thread is one host thread. The record is pinned in memory for the thread's whole life: translated code reaches its
//! [`CpuState`] through a register, signal handlers reach it through [`current`]. The loop is the only place where translated
//! code is entered; whatever ends a run (a system call, a trap, a fault, a signal) is handled here between two guest instructions.
//! This file must not know what any system call does or how code is translated.

use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::abi::{CALL_MORE, CALLS_BITS};
use crate::code::{self, Found, Gate};
use crate::engine::{ExitReason, TranslateError, Trap};
use crate::enter::{self, fp, shadow::Shadow};
use crate::memory;
use crate::signal::ThreadSignals;
use crate::signal::host::{self, AltStack, HostSignals, SyncFault};
use crate::state::{CpuState, Eflags, gpr};

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

/// Guest threads alive in this process, those about to start included.
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// The records of all threads between `adopt` and `end`.
static THREADS: Mutex<Vec<Record>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Record(*const Thread);
// SAFETY: other threads use only the atomics of a record, and its `tid` and `tgid`, which do not change while `inside` is set.
unsafe impl Send for Record {}

/// The calls that are made without leaving translated code (see [`CALLS_BITS`]).
pub type Calls = [u32; 1 << CALLS_BITS];
/// None are.
pub static NO_CALLS: Calls = [CALL_MORE; 1 << CALLS_BITS];
static SYSCALL: OnceLock<(fn(&mut Thread), &'static Calls)> = OnceLock::new();

/// Names the function that carries out system calls, and those that need none of it; the first call wins. The function finds number and arguments in
/// the registers, `rip` at the next instruction, RCX and R11 set as SYSCALL sets them, and puts the result in RAX.
pub fn set_syscalls(f: fn(&mut Thread), direct: &'static Calls) {
    let _ = SYSCALL.set((f, direct));
}

fn threads() -> MutexGuard<'static, Vec<Record>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// The runtime's locks, all of them, so that a new process finds them free. Nothing may be allocated while they are held.
pub(crate) struct Locks {
    _still: crate::alloc::ForkGuard,
    _store: crate::store::ForkGuard,
    _code: code::ForkGuard,
    _memory: memory::ForkGuard,
    list: MutexGuard<'static, Vec<Record>>,
    _flushing: code::FlushGuard,
}

impl Locks {
    pub(crate) fn take() -> Locks {
        let flushing = code::flush_guard();
        let list = threads();
        let memory = memory::fork_guard();
        let code = code::fork_guard();
        let store = crate::store::fork_guard();
        let still = crate::alloc::fork_guard();
        Locks { _still: still, _store: store, _code: code, _memory: memory, list, _flushing: flushing }
    }
}

/// Forks through `raw` (which returns as fork(2) does, or a negated errno), with the runtime's locks held across it. In the child, `me` is
/// the only thread, with its new id.
pub fn fork(me: &mut Thread, raw: impl FnOnce() -> i64) -> i64 {
    let mut locks = Locks::take();
    let r = raw();
    if r == 0 {
        me.tid = current_tid();
        me.host.tgid = process_id();
        COUNT.store(1, Ordering::Relaxed);
        locks.list.retain(|t| std::ptr::eq(t.0, me));
    }
    drop(locks);
    if r == 0 {
        code::forked();
    }
    r
}

/// Waits until no other thread is in translated code; `Gate` keeps them from coming back.
pub(crate) fn stop_others(me: &Thread) {
    let list = threads();
    let mut rounds = 0u32;
    loop {
        let mut inside = false;
        for t in list.iter().filter(|t| !std::ptr::eq(t.0, me)) {
            // SAFETY: a listed record is alive; see `Record`.
            let (in_code, tgid, tid) =
                unsafe { ((*t.0).host.inside.load(Ordering::SeqCst), (*t.0).host.tgid, (*t.0).tid) };
            if in_code {
                inside = true;
                // Again now and then: the first may have come just before the thread went in.
                if rounds.is_multiple_of(64) {
                    host::kick(tgid, tid);
                }
            }
        }
        if !inside {
            return;
        }
        rounds += 1;
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
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

fn process_id() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { libc::getpid() }
}

/// The calling host thread's id. Not by libc's gettid: Rust's library refers to that weakly, so a static program need not have it, and the linker then
/// makes the call a NOP.
pub(crate) fn current_tid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// What `spawn` hands to the new host thread.
struct Start<'a> {
    child: Box<Thread>,
    started: &'a mut (dyn FnMut(&mut Thread) + Send),
    mask: u64,
    /// 0 until the child has its id and `started` has run.
    tid: *const AtomicU32,
}

/// Starts `child` on a host thread of its own. `started` runs on the new thread, with `tid` set and before its first guest
/// instruction (CLONE_CHILD_SETTID, CLONE_PARENT_SETTID). Returns when that is done, with the child's thread id; an error is an errno.
pub fn spawn(child: Box<Thread>, started: &mut (dyn FnMut(&mut Thread) + Send)) -> Result<i32, i32> {
    code::set_ordered();
    let tid = AtomicU32::new(0);
    // The new thread moves the record out: it is not dropped here.
    let mut start = ManuallyDrop::new(Start { child, started, mask: signals_off(), tid: &raw const tid });
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
        let e = libc::pthread_create(id.as_mut_ptr(), attr.as_ptr(), host_thread, (&raw mut *start).cast());
        libc::pthread_attr_destroy(attr.as_mut_ptr());
        e
    };
    if error != 0 {
        drop(ManuallyDrop::into_inner(start));
        COUNT.fetch_sub(1, Ordering::Relaxed);
        signals_set(mask);
        return Err(error);
    }
    while tid.load(Ordering::Acquire) == 0 {
        futex_wait(&tid, 0);
    }
    signals_set(mask);
    Ok(tid.load(Ordering::Relaxed) as i32)
}

extern "C" fn host_thread(arg: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` passes a `Start` that stays valid until `tid` is set below; the box is moved out exactly once and the
    // remaining fields need no drop.
    let Start { child: mut thread, started, mask, tid } = unsafe { arg.cast::<Start>().read() };
    let stack = thread.adopt();
    started(&mut thread);
    let id = thread.tid as u32;
    // SAFETY: the spawner keeps the word alive until it reads a value other than 0 from it. The wake may find it gone, which
    // the kernel reports or ignores: a private futex wake has no effect but to wake.
    unsafe {
        (*tid).store(id, Ordering::Release);
        libc::syscall(libc::SYS_futex, tid, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }
    signals_set(mask);
    let code = thread.run();
    crate::linux::process::thread_gone(&mut thread, code);
    drop((thread, stack));
    std::ptr::null_mut()
}

/// Once per process, before the first guest instruction: the host's signal handlers, the code cache, and who hears of changes of memory.
/// The error is an errno.
pub fn prepare() -> Result<(), i32> {
    code::init()?;
    memory::set_hooks(memory::Hooks { invalidate: code::invalidate, ordered: code::set_ordered });
    host::install()
}

/// Runs `thread` as the process's first guest thread, on the calling host thread; calls [`prepare`] first. `code` is what was mapped of files to be
/// executed.
pub fn run_first(mut thread: Box<Thread>, code: Vec<crate::image::MappedCode>) -> ! {
    if let Err(e) = prepare() {
        eprintln!("xrun: the host denies memory or signals: {}", std::io::Error::from_raw_os_error(e));
        std::process::exit(126)
    }
    for m in code {
        crate::store::mapped(std::os::fd::AsRawFd::as_raw_fd(&m.file), m.guest, m.offset);
    }
    let mask = signals_off();
    let stack = thread.adopt();
    signals_set(mask);
    let code = thread.run();
    crate::linux::process::thread_gone(&mut thread, code);
    drop((thread, stack));
    exit_host_thread(code)
}

/// Runs `thread` on the calling host thread until it ends; returns its exit code. For hosts of guest code other than a process of its own.
pub fn run_here(thread: &mut Thread) -> i32 {
    let mask = signals_off();
    let stack = thread.adopt();
    signals_set(mask);
    let code = thread.run();
    drop(stack);
    signals_set(mask);
    code
}

fn exit_host_thread(code: i32) -> ! {
    loop {
        // SAFETY: exit ends this host thread only; nothing on its stack is needed any more. When it was the last one, the
        // process ends with `code`.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

/// Waits while `word` is `value`, or less long.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32) {
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is valid; no timeout is passed.
    unsafe { libc::syscall(libc::SYS_futex, word, op, value, std::ptr::null::<libc::timespec>()) };
}

/// Wakes all who wait for `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is valid.
    unsafe { libc::syscall(libc::SYS_futex, word, op, i32::MAX) };
}

/// Blocks every host signal but the synchronous ones; returns the mask before.
pub(crate) fn signals_off() -> u64 {
    signals(host::host_mask(!0))
}

/// Sets the host signal mask.
pub(crate) fn signals_set(mask: u64) {
    signals(mask);
}

/// Not through libc, which keeps signals 32 and 33 to itself.
fn signals(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: both sets are 8 bytes, as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, 8) };
    old
}

#[cfg(target_arch = "aarch64")]
fn host_fpcr() -> u64 {
    let v: u64;
    // SAFETY: reads a register user code may read.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

#[cfg(not(target_arch = "aarch64"))]
fn host_fpcr() -> u64 {
    0
}

fn out_of_memory(what: &str) -> ! {
    eprintln!("xrun: no memory for {what}");
    std::process::abort()
}

impl Thread {
    /// Makes this the calling host thread's guest thread: fills in what translated code and the signal handler need. The stack returned is to
    /// be kept until the thread has ended.
    fn adopt(&mut self) -> AltStack {
        let Ok(stack) = AltStack::new() else { out_of_memory("a signal stack") };
        self.enlist();
        self.settle();
        stack
    }

    /// Fills in what translated code needs and lists the record.
    pub(crate) fn enlist(&mut self) {
        let Ok(places) = code::init() else { out_of_memory("translated code") };
        let Ok(shadow) = Shadow::new() else { out_of_memory("a shadow stack") };
        self.host.epoch = code::epoch();
        let cpu = &mut self.cpu;
        cpu.lookup = places.lookup;
        cpu.shadow = shadow.base();
        cpu.thunks = enter::thunks();
        cpu.helpers = crate::helpers::TABLE.as_ptr() as u64;
        cpu.calls = SYSCALL.get().map_or(&NO_CALLS, |s| s.1).as_ptr() as u64;
        cpu.host_fpcr = host_fpcr();
        fp::set_mxcsr(cpu, cpu.mxcsr);
        cpu.helper_return = 0;
        self.host.shadow = shadow;
        self.cpu.thread = &raw const *self as u64;
        threads().push(Record(self));
    }

    /// Makes this the guest thread of the calling host thread, whose id it takes.
    pub(crate) fn settle(&mut self) {
        self.tid = current_tid();
        self.host.tgid = process_id();
        set_current(self);
    }

    /// Undoes [`Thread::enlist`].
    pub(crate) fn unlist(&self) {
        threads().retain(|t| !std::ptr::eq(t.0, self));
    }

    /// The last guest instruction was run.
    fn end(&mut self) {
        let _ = signals_off();
        set_current(std::ptr::null_mut());
        self.unlist();
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }

    /// Runs guest code until the thread ends; returns its exit code.
    pub fn run(&mut self) -> i32 {
        let mut next: Option<Found> = None;
        loop {
            if let Some(code) = self.exit {
                self.end();
                return code;
            }
            if self.pending.load(Ordering::Relaxed) != 0 {
                let bits = self.pending.swap(0, Ordering::Acquire);
                self.host.resume(&mut self.cpu);
                if bits & pending::SIGNAL != 0 {
                    crate::signal::deliver_pending(self);
                }
                next = None;
                continue;
            }
            let alone = self.is_stepping();
            let found = match next.take() {
                Some(f) if !alone => Ok(f),
                _ if alone => code::single(self, self.cpu.rip),
                _ => code::find(self, self.cpu.rip),
            };
            match found {
                Ok(f) => next = self.go(f, alone),
                Err(e) => self.cannot_fetch(e),
            }
        }
    }

    /// Whether instructions are to be run one at a time.
    pub(crate) fn is_stepping(&self) -> bool {
        self.host.step != 0 || self.cpu.other_flags & u64::from(Eflags::TF.bits()) != 0
    }

    /// Enters translated code and handles how it ended. Returns where to go on, if that is known without looking.
    fn go(&mut self, at: Found, alone: bool) -> Option<Found> {
        if fp::is_special(&self.cpu) {
            if self.cpu.unmasked != 0 && code::set_trapping(self) {
                return None;
            }
            if fp::flushes(&self.cpu) && fp::set_flushing() {
                code::flush(self);
                return None;
            }
        }
        if !Gate::enter(self, at.epoch) {
            return None;
        }
        if self.host.epoch != at.epoch {
            self.host.epoch = at.epoch;
            self.cpu.shadow = self.host.shadow.base();
        }
        // TF counts as it was before the instruction (SDM vol. 3, 17.3.1.4).
        let stepping = alone && self.cpu.other_flags & u64::from(Eflags::TF.bits()) != 0;
        // SAFETY: the record is this thread's and adopted; `at` is of the current epoch, which cannot end while `inside` is set.
        unsafe { enter::enter(&raw mut self.cpu, at.host) };
        Gate::leave(self);
        if self.cpu.exit_reason == 0 {
            return None;
        }
        if alone {
            self.host.step = self.host.step.saturating_sub(1);
        }
        let rip = self.cpu.rip;
        let next = match self.cpu.exit_reason {
            r if r == ExitReason::Direct as u64 => {
                if alone {
                    None
                } else {
                    match code::follow(self, self.cpu.exit_arg, rip) {
                        Ok(f) => Some(f),
                        Err(e) => {
                            self.cannot_fetch(e);
                            None
                        }
                    }
                }
            }
            r if r == ExitReason::ReturnMiss as u64 => {
                let (top, host) = self.host.shadow.resync(self.cpu.shadow, rip);
                self.cpu.shadow = top;
                host.map(|host| Found { host, epoch: self.host.epoch })
            }
            r if r == ExitReason::Syscall as u64 => {
                self.cpu.gpr[gpr::RCX] = rip;
                self.cpu.gpr[gpr::R11] = u64::from(self.cpu.eflags().bits());
                match SYSCALL.get() {
                    Some((f, _)) => f(self),
                    None => self.cpu.gpr[gpr::RAX] = -i64::from(libc::ENOSYS) as u64,
                }
                None
            }
            r if r == ExitReason::Trap as u64 => {
                self.host.step = 0;
                self.trap(Trap::from_raw(self.cpu.exit_arg), self.cpu.exit_arg >> 32);
                return None;
            }
            r if r == ExitReason::Fault as u64 => {
                self.host.step = 0;
                let fault = self.host.fault;
                crate::signal::deliver_sync(self, &fault);
                return None;
            }
            r if r == ExitReason::Stale as u64 => {
                if self.cpu.checks == 0 {
                    self.cpu.checks = code::checked::ROUNDS;
                    code::watch_again();
                } else {
                    code::changed(rip, self.cpu.exit_arg != 0);
                }
                None
            }
            // Indirect, Resume: found by `rip`.
            _ => None,
        };
        // SYSCALL puts TF away, and coming back it is one instruction late.
        if stepping && self.cpu.exit_reason != ExitReason::Syscall as u64 {
            self.trap(Trap::SingleStep, 0);
        }
        next
    }

    /// Raises what the kernel makes of `trap` (arch/x86/kernel/traps.c). When a helper raised it, `rip` is still that of the last exit
    /// and is taken from the call site.
    fn trap(&mut self, trap: Trap, err: u64) {
        let back = std::mem::take(&mut self.cpu.helper_return);
        if back != 0
            && let Some((rip, _)) = code::guest_at((back & !3) - 4)
        {
            self.cpu.rip = rip;
        }
        const SI_KERNEL: i32 = 0x80;
        const ILL_ILLOPN: i32 = 2;
        const FPE_INTDIV: i32 = 1;
        const TRAP_BRKPT: i32 = 1;
        const TRAP_TRACE: i32 = 2;
        const BUS_ADRALN: i32 = 1;
        let rip = self.cpu.rip;
        let (signo, code, addr, trapno) = match trap {
            Trap::DivideError => (libc::SIGFPE, FPE_INTDIV, rip, 0),
            Trap::SingleStep => (libc::SIGTRAP, TRAP_TRACE, rip, 1),
            Trap::DebugBreak => (libc::SIGTRAP, TRAP_BRKPT, rip, 1),
            Trap::Breakpoint => (libc::SIGTRAP, SI_KERNEL, 0, 3),
            Trap::Overflow => (libc::SIGSEGV, SI_KERNEL, 0, 4),
            Trap::Undefined => (libc::SIGILL, ILL_ILLOPN, rip, 6),
            Trap::Unsupported => {
                crate::signal::host::unsupported(rip);
                (libc::SIGILL, ILL_ILLOPN, rip, 6)
            }
            Trap::GeneralProtection | Trap::SoftInt => (libc::SIGSEGV, SI_KERNEL, 0, 13),
            Trap::X87 => (libc::SIGFPE, fpe_code(!self.cpu.x87.control & self.cpu.x87.status), rip, 16),
            Trap::AlignmentCheck => (libc::SIGBUS, BUS_ADRALN, 0, 17),
            Trap::Simd => {
                self.cpu.mxcsr |= fp::flags_of(self.cpu.guest_fpsr);
                (libc::SIGFPE, fpe_code((!(self.cpu.mxcsr >> 7) & self.cpu.mxcsr) as u16), rip, 19)
            }
        };
        let fault = SyncFault { signo, code, addr, trapno, err, cr2: 0 };
        crate::signal::deliver_sync(self, &fault);
    }

    /// #PF on instruction fetch.
    fn cannot_fetch(&mut self, e: TranslateError) {
        let TranslateError::Fetch(addr) = e;
        const SEGV_MAPERR: i32 = 1;
        const SEGV_ACCERR: i32 = 2;
        let mapped = memory::prot_at(addr).is_some();
        let code = if mapped { SEGV_ACCERR } else { SEGV_MAPERR };
        let err = 4 | 16 | u64::from(mapped);
        let fault = SyncFault { signo: libc::SIGSEGV, code, addr, trapno: 14, err, cr2: addr };
        crate::signal::deliver_sync(self, &fault);
    }
}

/// The `si_code` of the highest-priority exception in `flags` (IE, DE, ZE, OE, UE, PE from bit 0).
fn fpe_code(flags: u16) -> i32 {
    const FPE_FLTDIV: i32 = 3;
    const FPE_FLTOVF: i32 = 4;
    const FPE_FLTUND: i32 = 5;
    const FPE_FLTRES: i32 = 6;
    const FPE_FLTINV: i32 = 7;
    match flags & 0x3f {
        f if f & 1 != 0 => FPE_FLTINV,
        f if f & 4 != 0 => FPE_FLTDIV,
        f if f & 8 != 0 => FPE_FLTOVF,
        f if f & 0x12 != 0 => FPE_FLTUND,
        f if f & 0x20 != 0 => FPE_FLTRES,
        _ => 0,
    }
}
