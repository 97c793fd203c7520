//! What the guest wants done with each signal, and how the host is told: ignored and default ones are the host kernel's to
//! carry out, caught ones come to the runtime's handler. Who is told when, not how a frame looks.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::host::{self, SYNCHRONOUS};

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

/// Flags of struct sigaction; x86_64 and AArch64 agree, but for RESTORER, which only x86_64 has.
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
    /// What the kernel keeps of the flags it is given (asm-generic/signal-defs.h, UAPI_SA_FLAGS, and RESTORER).
    pub const KNOWN: u64 = 0xdc00_0807 | RESTORER;
}

/// The kernel's struct sigaction on x86_64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Action {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

/// Signal numbers are 1 to this.
pub const LAST: i32 = 64;

/// A set of signals: bit n-1 for signal n, as the kernel has it.
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals that nobody can catch or block.
pub const UNBLOCKABLE: u64 = bit(libc::SIGKILL) | bit(libc::SIGSTOP);

/// What a signal does without a handler (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default_ {
    Terminate,
    Stop,
    Ignore,
}

pub const fn default_of(signal: i32) -> Default_ {
    match signal {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Default_::Ignore,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Default_::Stop,
        _ => Default_::Terminate,
    }
}

/// The dispositions of one process, shared by its threads. A vfork child has its own.
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held by who changes something.
    changing: Mutex<()>,
    slots: [Slot; LAST as usize],
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { changing: Mutex::default(), slots: std::array::from_fn(|_| Slot::default()) }
    }
}

/// One disposition, read without a lock: what is read counts if `version` was even before and the same after.
#[derive(Debug, Default)]
struct Slot {
    version: AtomicU64,
    /// The fields of [`Action`], in order.
    words: [AtomicU64; 4],
}

impl Slot {
    fn get(&self) -> Action {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let [handler, flags, restorer, mask] = self.words.each_ref().map(|w| w.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if version & 1 == 0 && version == self.version.load(Ordering::Relaxed) {
                return Action { handler, flags, restorer, mask };
            }
            std::hint::spin_loop();
        }
    }

    /// Only with the lock held.
    fn set(&self, a: Action) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (to, v) in self.words.iter().zip([a.handler, a.flags, a.restorer, a.mask]) {
            to.store(v, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, signal: i32) -> &Slot {
        &self.0.slots[signal as usize - 1]
    }

    /// A table of its own with the same dispositions.
    pub fn copy(&self) -> Table {
        let new = Table::default();
        let _guard = self.lock();
        for (to, from) in new.0.slots.iter().zip(&self.0.slots) {
            to.set(from.get());
        }
        new
    }

    /// What is to be done with `signal`; takes the handler away again where SA_RESETHAND says so.
    pub fn take(&self, signal: i32) -> Action {
        let once = |a: &Action| a.handler > SIG_IGN && a.flags & sa::RESETHAND != 0;
        let a = self.get(signal);
        if !once(&a) {
            return a;
        }
        let _guard = self.lock();
        let a = self.get(signal);
        if once(&a) {
            let reset = Action { handler: SIG_DFL, ..a };
            self.slot(signal).set(reset);
            let _ = tell_host(signal, &reset);
        }
        a
    }

    /// Takes no lock; not for a signal handler that interrupted a change by its own thread.
    pub fn get(&self, signal: i32) -> Action {
        self.slot(signal).get()
    }

    /// Changes a disposition, here and on the host; returns the one before. The error is an errno.
    pub fn set(&self, signal: i32, new: Action) -> Result<Action, i32> {
        let _guard = self.lock();
        tell_host(signal, &new)?;
        let old = self.get(signal);
        self.slot(signal).set(new);
        Ok(old)
    }

    /// Without telling the host.
    pub fn note(&self, signal: i32, new: Action) {
        let _guard = self.lock();
        self.slot(signal).set(new);
    }

    /// Runs `f` with nobody else changing the table: for fork, whose child could never unlock it otherwise.
    pub fn held<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.lock();
        f()
    }
}

/// Faults of guest code come as these signals, so the runtime always handles them; so it does the one it uses itself.
pub fn always_handled(signal: i32) -> bool {
    SYNCHRONOUS.contains(&signal) || signal == host::KICK
}

fn tell_host(signal: i32, a: &Action) -> Result<(), i32> {
    let action = match a.handler {
        _ if always_handled(signal) => {
            host::Action::Handle { restart: a.handler <= SIG_IGN || a.flags & sa::RESTART != 0 }
        }
        SIG_DFL => host::Action::Default,
        SIG_IGN => host::Action::Ignore,
        _ => host::Action::Handle { restart: a.flags & sa::RESTART != 0 },
    };
    host::set_action(signal, action, a.flags & (sa::NOCLDSTOP | sa::NOCLDWAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vfork_childs_changes_stay_its_own() {
        let parent = Table::default();
        let thread = parent.clone();
        let child = parent.copy();
        let caught = Action { handler: 0x1234, flags: sa::RESTORER, restorer: 5, mask: 6 };
        child.note(libc::SIGUSR1, caught);
        assert_eq!(parent.get(libc::SIGUSR1), Action::default());
        thread.note(libc::SIGUSR2, caught);
        assert_eq!(parent.get(libc::SIGUSR2), caught);
    }
}
