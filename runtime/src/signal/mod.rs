//! Signals as the guest sees them. The host's side (handlers, classification of an interrupted host pc) is [`host`].

pub mod handler;
pub mod host;

use crate::thread::Thread;

/// A guest thread's own signal state.
#[derive(Clone, Debug, Default)]
pub struct ThreadSignals {}

impl ThreadSignals {
    /// The state a thread made by clone(2) starts with.
    pub fn child(&self) -> ThreadSignals {
        self.clone()
    }
}

/// Delivers a synchronous signal: `thread.cpu` is the exact guest state at the faulting instruction (or after it, for a trap).
/// Sets up the handler's frame in `cpu`, or ends the process by that signal.
pub fn deliver_sync(thread: &mut Thread, fault: &host::SyncFault) {
    let _ = thread;
    host::die(fault.signo)
}

/// Delivers what is deliverable at a guest instruction boundary; called when `Thread::pending` had `SIGNAL` set. The queued
/// asynchronous host signal, if there is one, is [`host::HostSignals::take`]; after a frame was made for it, the host mask must be set
/// to the guest's again (the handler blocked everything asynchronous when it queued it).
pub fn deliver_pending(thread: &mut Thread) {
    if let Some(info) = thread.host.take() {
        host::die(info.si_signo)
    }
}

/// A signal was queued while runtime code at host `pc` ran: the place to give up a system call that was about to be entered.
pub fn interrupt_call(pc: &mut u64) {
    if let Some(to) = crate::linux::raw::abort_pc(*pc) {
        *pc = to;
    }
}
