//! The host's side of signals: what is kept per thread, and how a thread in translated code is made to stop. The handler itself, which
//! reads host registers, is [`super::handler`].
//!
//! The handler delivers nothing to the guest: a synchronous fault of guest code is turned into exact guest state and reported to
//! the dispatcher; an asynchronous signal is queued, and a thread in translated code is made to leave it at the next guest
//! instruction boundary. This file must not know the guest's signal numbers' dispositions or frames.

use crate::code;
use crate::enter::shadow::Shadow;
use crate::linux::raw;
use crate::state::CpuState;
use crate::thread::current_tid;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// How a thread was told to stop, to be undone when it has.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    epoch: u64,
    place: Option<code::Stop>,
    top: u64,
    entry: (u64, u64),
}

/// Asynchronous signals queued at most. All but the synchronous kinds are blocked once one is queued, so more than
/// one comes only when somebody sends SIGSEGV and its like by kill(2).
const QUEUE: usize = 8;

/// A thread's host-side state, written by the handler on that thread.
///
/// Taking an asynchronous signal, the handler blocks all others in the mask that the interrupted code
/// resumes with, so they stay with the kernel, in its order, until the guest has a frame for the first.
#[derive(Debug)]
pub struct HostSignals {
    queue: UnsafeCell<[MaybeUninit<libc::siginfo_t>; QUEUE]>,
    head: AtomicUsize,
    tail: AtomicUsize,
    /// In translated code or a helper: host addresses in the cache must stay.
    pub(crate) inside: AtomicBool,
    /// The cache epoch that the shadow stack's host addresses are of.
    pub(crate) epoch: u64,
    /// The fault behind `ExitReason::Fault`.
    pub(crate) fault: SyncFault,
    /// How many instructions to run alone: one that changes the code it lies in, or those among which a fault is to be found again.
    pub(crate) step: u32,
    pub(crate) shadow: Shadow,
    pub(crate) tgid: i32,
    stopped: Option<Stopped>,
    /// The unaligned exclusive load whose store is still to come.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub(crate) exclusive: super::split::Exclusive,
}

impl Default for HostSignals {
    fn default() -> Self {
        HostSignals {
            queue: UnsafeCell::new([MaybeUninit::uninit(); QUEUE]),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            inside: AtomicBool::new(false),
            epoch: 0,
            fault: SyncFault::default(),
            step: 0,
            shadow: Shadow::default(),
            tgid: 0,
            stopped: None,
            exclusive: super::split::Exclusive::default(),
        }
    }
}

impl HostSignals {
    /// The oldest queued asynchronous signal, removed. Only for the thread itself, outside its handler.
    pub fn take(&mut self) -> Option<libc::siginfo_t> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the slots between tail and head were written by handlers that have ended; others do not write them.
        let info = unsafe { (*self.queue.get())[tail % QUEUE].assume_init() };
        self.tail.store(tail + 1, Ordering::Release);
        Some(info)
    }

    /// Queues a signal; drops it when the queue is full. Only for the handler on the owning thread.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub(crate) fn put(&self, info: &libc::siginfo_t) {
        let (head, tail) = (&self.head, self.tail.load(Ordering::Relaxed));
        // In one step, because a handler can be interrupted by the handler of a signal like SIGSEGV that was sent.
        let next = |h| (h - tail < QUEUE).then_some(h + 1);
        if let Ok(head) = head.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            // SAFETY: the slot is free and now this call's alone; it is read when no handler runs.
            unsafe { (*self.queue.get())[head % QUEUE].write(*info) };
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes the thread, whose host pc is `pc` in the cache and whose shadow stack pointer is `top`, come to the dispatcher at its next guest
    /// instruction boundary: its direct exits lead to their stubs, its lookups miss, its next return mismatches.
    pub(crate) fn stop(&mut self, cpu: &mut CpuState, pc: u64, top: u64) {
        if self.stopped.is_some() {
            return;
        }
        let Some(places) = code::places() else { return };
        let place = code::stop_at(pc);
        cpu.lookup = places.all_miss;
        let entry = self.shadow.get(top).unwrap_or((code::NEVER, crate::enter::never()));
        self.shadow.put(top, code::NEVER, crate::enter::never());
        self.stopped = Some(Stopped { epoch: code::epoch(), place, top, entry });
    }

    /// Guest code will return to `to` without having been called from there: what a CALL would have put on the shadow stack, if there is code for
    /// `to`. Only in the dispatcher.
    pub(crate) fn expect_return(&self, cpu: &mut CpuState, to: u64) {
        let Some(places) = code::places() else { return };
        if self.epoch == code::epoch()
            && let Some((guest, host)) = code::arena::probe(places.lookup, to)
        {
            self.shadow.push(&mut cpu.shadow, guest, host);
        }
    }

    /// Undoes [`HostSignals::stop`]; the thread is in the dispatcher. Links come back as exits are taken.
    pub(crate) fn resume(&mut self, cpu: &mut CpuState) {
        let Some(s) = self.stopped.take() else { return };
        if let Some(places) = code::places() {
            cpu.lookup = places.lookup;
        }
        if s.epoch != code::epoch() {
            return;
        }
        if self.shadow.get(s.top) == Some((code::NEVER, crate::enter::never())) {
            self.shadow.put(s.top, s.entry.0, s.entry.1);
        }
        if let Some(place) = s.place {
            code::stopped(place, s.epoch);
        }
    }
}

/// Called by the helper thunks when `pending` is not zero: the thread is about to return to translated code.
///
/// # Safety
/// `cpu` is the calling thread's, in a helper thunk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xrun_helper_pending(cpu: *mut CpuState) {
    // SAFETY: `cpu` is the first field of the thread's record; the thunk holds no reference into it. A signal handler that
    // interrupts this only queues.
    let t = unsafe { &mut *cpu.cast::<crate::thread::Thread>() };
    let (pc, top) = (t.cpu.helper_return & !3, t.cpu.shadow);
    t.host.stop(&mut t.cpu, pc, top);
}

/// The signal that interrupts a thread for the runtime's own purposes. The guest may use it too: ours carries [`KICK_VALUE`].
pub const KICK: i32 = 60;
/// `si_value` of our own [`KICK`].
pub const KICK_VALUE: u64 = 0x7872_756e_6b69_636b;

/// Interrupts the host thread `tid` of process `tgid`.
pub fn kick(tgid: i32, tid: i32) {
    #[repr(C)]
    struct Queued {
        signo: i32,
        errno: i32,
        code: i32,
        pad: i32,
        pid: i32,
        uid: u32,
        value: u64,
        rest: [u64; 12],
    }
    let info = Queued {
        signo: KICK,
        errno: 0,
        code: -1,
        pad: 0,
        // SAFETY: getpid and getuid have no arguments and cannot fail.
        pid: unsafe { libc::getpid() },
        // SAFETY: as above.
        uid: unsafe { libc::getuid() },
        value: KICK_VALUE,
        rest: [0; 12],
    };
    // SAFETY: `info` has the kernel's 128-byte siginfo layout for a queued signal (si_code SI_QUEUE).
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, tgid, tid, KICK, &raw const info) };
}

/// Makes a signal that was taken from the kernel pending again for this thread; to be called while the host blocks it. False when
/// the kernel does not have it.
pub fn put_back(info: &[u64; 16]) -> bool {
    let signal = info[0] as i32;
    // SAFETY: `info` is a whole siginfo, as the kernel gave it.
    let r = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), current_tid(), signal, info.as_ptr()) };
    r == 0
}

/// Says that the instruction at `rip` is known but not implemented.
pub fn unsupported(rip: u64) {
    let mut bytes = [0u8; 15];
    // The last ones may lie on a page that is not there.
    let (here, next) = bytes.split_at_mut(15.min(4096 - (rip % 4096) as usize));
    let n = match crate::memory::access::read_some(rip, here) {
        n if n == here.len() => n + crate::memory::access::read_some(rip + n as u64, next),
        n => n,
    };
    let hex: String = bytes[..n].iter().map(|b| format!(" {b:02x}")).collect();
    eprintln!("xrun: unsupported instruction at {rip:#x}:{hex}");
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

/// The signals that guest code itself raises: never blocked on the host.
pub const SYNCHRONOUS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE];

/// `mask` (bit n-1 for signal n) without the signals that must stay open on the host.
pub const fn host_mask(mask: u64) -> u64 {
    let mut open = 1u64 << (KICK - 1);
    let mut i = 0;
    while i < SYNCHRONOUS.len() {
        open |= 1 << (SYNCHRONOUS[i] - 1);
        i += 1;
    }
    mask & !open
}

/// The kernel's struct sigaction (asm-generic/signal.h; x86_64 has the same order).
#[derive(Default)]
#[repr(C)]
struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Sets what the host does with `signal`: run the runtime's handler, ignore, or the default action; `flags` are added (those about
/// child processes). The error is an errno.
pub fn set_action(signal: i32, action: Action, flags: u64) -> Result<(), i32> {
    let more = flags;
    let (handler, flags) = match action {
        Action::Handle { restart } => {
            let restart = if restart { libc::SA_RESTART as u64 } else { 0 };
            // A fault's address as the program gave it: its top byte would be hidden, which AArch64 ignores and x86 does not.
            const SA_EXPOSE_TAGBITS: u64 = 0x800;
            (super::handler::address(), libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | SA_EXPOSE_TAGBITS | restart)
        }
        Action::Ignore => (libc::SIG_IGN as u64, 0),
        Action::Default => (libc::SIG_DFL as u64, 0),
    };
    // The handler of an asynchronous signal writes to guest memory, which may fault.
    let mask = if SYNCHRONOUS.contains(&signal) { !0 } else { host_mask(!0) | 1 << (KICK - 1) };
    let a = KernelAction { handler, flags: flags | more, restorer: 0, mask };
    // SAFETY: the structure is the kernel's; the handler is async-signal-safe by its own contract. Not through libc, which keeps
    // signals 32 and 33 to itself.
    let r = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const a, std::ptr::null_mut::<u8>(), 8) };
    if r == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)) }
}

/// The host's handler address for `signal`, or SIG_DFL or SIG_IGN.
pub fn handler_of(signal: i32) -> u64 {
    let mut a = KernelAction::default();
    // SAFETY: the kernel fills a live structure of its own layout.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::null::<u8>(), &raw mut a, 8) };
    a.handler
}

/// The calling thread's host mask.
pub fn mask() -> u64 {
    let mut old = 0u64;
    // SAFETY: the kernel fills a live word of the size given.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, std::ptr::null::<u8>(), &raw mut old, 8) };
    old
}

/// Sets the calling thread's host mask, as [`host_mask`] makes it.
pub fn set_mask(mask: u64) {
    // SAFETY: the kernel reads a live word of the size given. Not through libc, which keeps signals 32 and 33 to itself.
    unsafe { raw::syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, &raw const mask as u64, 0, 8, 0, 0]) };
}

/// Stops the process by `signal`, whose default action that is; returns when it was continued.
pub fn stop(signal: i32) {
    let _ = set_action(signal, Action::Default, 0);
    let kept = mask();
    // SAFETY: signals this thread.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), current_tid(), signal) };
    set_mask(kept & !(1 << (signal - 1)));
    set_mask(kept);
}

/// See [`set_action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The runtime's handler. `restart`: the kernel restarts calls it interrupts, where SA_RESTART says so (signal(7)).
    Handle {
        restart: bool,
    },
    Ignore,
    Default,
}

/// Installs the handler for everything the runtime itself needs. Once per process, before guest code runs.
pub fn install() -> Result<(), i32> {
    for s in [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGILL, libc::SIGFPE, KICK] {
        set_action(s, Action::Handle { restart: true }, 0)?;
    }
    Ok(())
}

/// The alternate stack the handler of this host thread runs on.
#[derive(Debug)]
pub struct AltStack(u64);

const ALT: u64 = 128 << 10;

impl AltStack {
    /// Maps it and tells the kernel; the error is an errno.
    pub fn new() -> Result<AltStack, i32> {
        use crate::memory::host;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let at = host::mmap(0, ALT, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
        let s = AltStack(at);
        s.set(0);
        Ok(s)
    }

    fn set(&self, flags: i32) {
        let stack = libc::stack_t { ss_sp: self.0 as *mut _, ss_flags: flags, ss_size: ALT as usize };
        // SAFETY: the mapping is this object's own and stays until the kernel was told to forget it.
        unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        self.set(libc::SS_DISABLE);
        let _ = crate::memory::host::munmap(self.0, ALT);
    }
}
