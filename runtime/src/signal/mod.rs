//! Signals as the guest sees them.
//!
//! | file | |
//! |---|---|
//! | [`host`], [`handler`] | the host's side: handlers, classification of an interrupted host pc, the queue |
//! | [`a64`] | which host instructions write |
//! | [`table`] | dispositions |
//! | [`frame`] | the x86_64 stack frame of a handler, there and back |
//! | [`calls`] | the system calls |
//! | [`crash`] | the line that says how a guest died |
//!
//! The host kernel keeps pending signals: the host's mask is the guest's, but for the few signals the runtime must always receive
//! ([`host::host_mask`]); of those, what the guest blocks is held here. A signal the guest leaves at its default or ignores has that
//! disposition on the host as well, so the kernel acts on it, core dump, stop and child reaping included. A caught one comes to the host
//! handler, which queues it; here it gets its frame, between two guest instructions.

pub mod a64;
pub mod calls;
pub mod crash;
pub mod frame;
pub mod handler;
pub mod host;
pub mod split;
pub mod table;

use crate::memory;
use crate::state::gpr;
use crate::thread::{Thread, pending};
pub use frame::Features;
use frame::{Call, SigInfo, StackT};
use host::SyncFault;
use table::{Action, Default_, LAST, SIG_DFL, SIG_IGN, Table, UNBLOCKABLE, bit, sa};

const ALT_DISABLE: i32 = 2;
const ALT_AUTODISARM: i32 = 1 << 31;
const SI_KERNEL: i32 = 0x80;

/// A guest thread's own signal state.
#[derive(Clone, Debug)]
pub struct ThreadSignals {
    /// Blocked signals.
    pub mask: u64,
    /// The alternate stack; of size 0 when there is none.
    pub altstack: StackT,
    /// What is done with each signal; shared with the process's other threads.
    pub table: Table,
    /// Signals the guest blocks but the host must not: pending here.
    pub held: Vec<SigInfo>,
    /// The mask of the waiting call that has just ended: it decides what is delivered now, and the old one comes back after.
    pub waiting: Option<u64>,
    /// The last fault, for sigcontext.
    last: (u64, u64, u64),
    /// Where the register state of a frame is put together.
    math: frame::Math,
}

impl Default for ThreadSignals {
    fn default() -> ThreadSignals {
        ThreadSignals {
            mask: 0,
            altstack: StackT { flags: ALT_DISABLE, ..StackT::default() },
            table: Table::default(),
            held: Vec::new(),
            waiting: None,
            last: (0, 0, 0),
            math: frame::Math::default(),
        }
    }
}

impl ThreadSignals {
    /// What execve left: the host's mask, and the signals it ignores.
    pub fn inherited() -> ThreadSignals {
        let s = ThreadSignals { mask: host::mask() & !UNBLOCKABLE, ..ThreadSignals::default() };
        for signal in 1..=LAST {
            if host::handler_of(signal) == SIG_IGN {
                s.table.note(signal, Action { handler: SIG_IGN, ..Action::default() });
            }
        }
        s
    }

    /// The state a thread made by clone(2) starts with: the mask and the shared dispositions.
    pub fn child(&self) -> ThreadSignals {
        ThreadSignals { mask: self.mask, table: self.table.clone(), ..ThreadSignals::default() }
    }

    /// The state a vfork child starts with: as a forked one's, with dispositions of its own although memory is shared.
    pub fn vforked(&self) -> ThreadSignals {
        ThreadSignals { mask: self.mask, altstack: self.altstack, table: self.table.copy(), ..ThreadSignals::default() }
    }

    /// Called in a forked process: nothing is pending, and with CLONE_CLEAR_SIGHAND nothing is caught.
    pub fn forked(&mut self, clear_handlers: bool) {
        self.held.clear();
        if clear_handlers {
            for signal in 1..=LAST {
                if self.table.get(signal).handler > SIG_IGN {
                    let _ = self.table.set(signal, Action::default());
                }
            }
        }
    }

    /// Whether `sp` lies on the alternate stack (one that disarms itself is never in use).
    pub fn on_altstack(&self, sp: u64) -> bool {
        let s = &self.altstack;
        s.flags & ALT_AUTODISARM == 0 && sp > s.sp && sp - s.sp <= s.size
    }
}

/// Number of a siginfo's signal.
fn signal_of(info: &SigInfo) -> i32 {
    info[0] as i32
}

fn info_of(host: &libc::siginfo_t) -> &SigInfo {
    // SAFETY: both are 128 bytes of plain data, all of them initialised by the kernel, with the same alignment.
    unsafe { &*(&raw const *host).cast() }
}
const _: () = {
    assert!(size_of::<libc::siginfo_t>() == size_of::<SigInfo>());
    assert!(align_of::<libc::siginfo_t>() == align_of::<SigInfo>());
};

impl Thread {
    /// Sets the guest's signal mask, and the host's with it.
    pub fn set_signal_mask(&mut self, mask: u64) {
        self.signal.mask = mask & !UNBLOCKABLE;
        host::set_mask(host::host_mask(self.signal.mask));
        if self.signal.held.iter().any(|i| self.signal.mask & bit(signal_of(i)) == 0) {
            self.attend(pending::SIGNAL);
        }
    }
}

/// Makes `cpu` enter the handler of `action`. False when there is no room for the frame.
fn enter_handler(t: &mut Thread, action: &Action, info: &SigInfo) -> bool {
    let signal = signal_of(info);
    // The kernel demands a restorer on x86_64 and has none of its own.
    if action.flags & sa::RESTORER == 0 {
        return false;
    }
    let features = Features::of_engine();
    let sp = t.cpu.gpr[gpr::RSP];
    let alt = t.signal.altstack;
    let on = t.signal.on_altstack(sp);
    let switch = action.flags & sa::ONSTACK != 0 && alt.size != 0 && !on;
    let blocked = t.signal.waiting.take().unwrap_or(t.signal.mask);
    let (trapno, err, cr2) = t.signal.last;
    let call = Call {
        signal,
        handler: action.handler,
        restorer: action.restorer,
        info,
        altstack: alt,
        switch_to: switch.then(|| alt.sp.wrapping_add(alt.size)),
        mask: t.signal.mask,
        trapno,
        err,
        cr2,
    };
    let place = frame::place(&t.cpu, &call, features);
    let at = place.0;
    let fits = !(on || switch) || at > alt.sp && at - alt.sp <= alt.size;
    if !fits
        || at >= memory::space::TASK_SIZE
        || frame::push(&mut t.cpu, &mut t.signal.math, &call, features, place).is_err()
    {
        return false;
    }
    t.host.expect_return(&mut t.cpu, action.restorer);
    if alt.flags & ALT_AUTODISARM != 0 {
        t.signal.altstack = StackT { flags: ALT_DISABLE, ..StackT::default() };
    }
    let own = if action.flags & sa::NODEFER != 0 { 0 } else { bit(signal) };
    t.signal.mask = (blocked | action.mask | own) & !UNBLOCKABLE;
    true
}

/// For the host's handler, which found the guest at an instruction boundary with nothing pending: makes `cpu` enter the guest's handler of a signal. False, with
/// nothing changed, when there is more to it than that.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
pub(crate) fn deliver_at_once(t: &mut Thread, info: &libc::siginfo_t) -> bool {
    let signal = info.si_signo;
    // Guest memory is written, and a fault of that would find those blocked.
    if table::always_handled(signal) || t.signal.mask & bit(signal) != 0 || t.signal.waiting.is_some() {
        return false;
    }
    let action = t.signal.table.get(signal);
    action.handler > SIG_IGN && action.flags & sa::RESETHAND == 0 && enter_handler(t, &action, info_of(info))
}

/// What the kernel would do at its default: nothing, stop, or end the process.
fn act_by_default(signal: i32) {
    match table::default_of(signal) {
        Default_::Ignore => {}
        Default_::Stop => host::stop(signal),
        Default_::Terminate => {
            crate::store::end();
            host::die(signal)
        }
    }
}

/// Delivers a synchronous signal: `thread.cpu` is the exact guest state at the faulting instruction (or after it, for a trap).
/// Sets up the handler's frame in `cpu`, or ends the process by that signal.
pub fn deliver_sync(thread: &mut Thread, fault: &SyncFault) {
    let mut fault = *fault;
    if fault.signo == libc::SIGSEGV && fault.trapno == 14 {
        // The host's word on whether something is mapped counts xrun's own memory too.
        const SEGV_MAPERR: i32 = 1;
        const SEGV_ACCERR: i32 = 2;
        let mapped = memory::prot_at(fault.addr).is_some();
        fault.code = if mapped { SEGV_ACCERR } else { SEGV_MAPERR };
        if !mapped {
            fault.err &= !1;
        }
    }
    thread.signal.last = (fault.trapno, fault.err, fault.cr2);
    thread.signal.waiting = None;
    let action = thread.signal.table.take(fault.signo);
    let blocked = thread.signal.mask & bit(fault.signo) != 0;
    if blocked || action.handler == SIG_DFL || action.handler == SIG_IGN {
        crash::report(thread, &fault);
        host::die(fault.signo);
    }
    let mut info = SigInfo::default();
    info[0] = fault.signo as u32 as u64;
    info[1] = fault.code as u32 as u64;
    info[2] = fault.addr;
    if enter_handler(thread, &action, &info) {
        host::set_mask(host::host_mask(thread.signal.mask));
    } else if fault.signo == libc::SIGSEGV {
        crash::report(thread, &fault);
        host::die(libc::SIGSEGV);
    } else {
        force(thread, libc::SIGSEGV, 0);
    }
}

/// Raises `signal` in the guest as the kernel does when a frame cannot be written or read (force_sig): with SI_KERNEL, and deadly
/// if it is blocked or not caught.
pub fn force(thread: &mut Thread, signal: i32, addr: u64) {
    let (trapno, err, _) = thread.signal.last;
    deliver_sync(thread, &SyncFault { signo: signal, code: SI_KERNEL, addr, trapno: trapno.min(13), err, cr2: addr });
}

/// Delivers what is deliverable at a guest instruction boundary; called when `Thread::pending` had `SIGNAL` set. The host handler blocked
/// everything asynchronous when it queued a signal; this ends with the host's mask as the guest has it.
pub fn deliver_pending(thread: &mut Thread) {
    loop {
        let blocked = thread.signal.waiting.unwrap_or(thread.signal.mask);
        let free = thread.signal.held.iter().position(|i| blocked & bit(signal_of(i)) == 0);
        let info = match free {
            Some(i) => thread.signal.held.remove(i),
            None => match thread.host.take() {
                Some(i) => *info_of(&i),
                None => break,
            },
        };
        let signal = signal_of(&info);
        if blocked & bit(signal) != 0 && (table::always_handled(signal) || thread.signal.waiting.is_none()) {
            // Back to the kernel, whose mask is about to block it too: there it outlives execve.
            if table::always_handled(signal) || !host::put_back(&info) {
                thread.signal.held.push(info);
            }
            continue;
        }
        let action = thread.signal.table.take(signal);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => act_by_default(signal),
            _ if enter_handler(thread, &action, &info) => {}
            _ if signal == libc::SIGSEGV => host::die(signal),
            _ => force(thread, libc::SIGSEGV, 0),
        }
    }
    thread.signal.waiting = None;
    host::set_mask(host::host_mask(thread.signal.mask));
}

/// A signal was queued while runtime code at host `pc` ran: the place to give up a system call that was about to be entered.
pub fn interrupt_call(pc: &mut u64) {
    if let Some(to) = crate::linux::raw::abort_pc(*pc) {
        *pc = to;
    }
}
