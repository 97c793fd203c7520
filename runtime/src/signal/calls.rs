//! The system calls about signals. Sending (kill and its like) is the host kernel's as it is; what a thread does with signals
//! is kept here, because the host must never block what the runtime needs.

use crate::code::arena::probe;
use crate::engine::ExitReason;
use crate::enter::fp;
use crate::linux::errno::{Answer, Errno};
use crate::linux::raw;
use crate::memory::access::{self, BadAddress};
use crate::state::{CpuState, gpr};
use crate::thread::{Thread, pending};

use super::frame::{self, StackT};
use super::host;
use super::table::{Action, LAST, UNBLOCKABLE, bit, sa};
use super::{ALT_DISABLE, Features};

/// Least size of an alternate stack on x86_64.
const MINSIGSTKSZ: u64 = 2048;
const SS_ONSTACK: i32 = 1;
const SS_AUTODISARM: i32 = 1 << 31;

fn set_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn result(r: i64) -> Answer {
    match raw::errno(r) {
        Some(e) => Err(Errno(e)),
        None if r == raw::INTERRUPTED => Err(Errno::RESTART),
        None => Ok(r),
    }
}

/// A recorded signal is delivered before the mask or a disposition changes under it.
fn first_deliver(t: &Thread) -> Result<(), Errno> {
    let waiting = t.pending.load(std::sync::atomic::Ordering::Relaxed) & pending::SIGNAL != 0;
    if waiting { Err(Errno::RESTART) } else { Ok(()) }
}

/// rt_sigaction(signal, new, old, size)
pub fn rt_sigaction(t: &mut Thread, a: [u64; 6]) -> Answer {
    set_size(a[3])?;
    let signal = a[0] as i32;
    let new = if a[1] == 0 { None } else { Some(access::get::<Action>(a[1])?) };
    if !(1..=LAST).contains(&signal) || new.is_some() && bit(signal) & UNBLOCKABLE != 0 {
        return Err(Errno::EINVAL);
    }
    let old = match new {
        Some(mut new) => {
            first_deliver(t)?;
            new.flags &= sa::KNOWN;
            new.mask &= !UNBLOCKABLE;
            t.signal.table.set(signal, new).map_err(Errno)?
        }
        None => t.signal.table.get(signal),
    };
    if a[2] != 0 {
        access::put(a[2], &old)?;
    }
    Ok(0)
}

/// rt_sigprocmask(how, new, old, size)
pub fn rt_sigprocmask(t: &mut Thread, a: [u64; 6]) -> Answer {
    set_size(a[3])?;
    let old = t.signal.mask;
    if a[1] != 0 {
        let new: u64 = access::get(a[1])?;
        let mask = match a[0] as i32 {
            libc::SIG_BLOCK => old | new,
            libc::SIG_UNBLOCK => old & !new,
            libc::SIG_SETMASK => new,
            _ => return Err(Errno::EINVAL),
        };
        first_deliver(t)?;
        t.set_signal_mask(mask);
    }
    if a[2] != 0 {
        access::put(a[2], &old)?;
    }
    Ok(0)
}

/// rt_sigpending(set, size)
pub fn rt_sigpending(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[1] > 8 {
        return Err(Errno::EINVAL);
    }
    first_deliver(t)?;
    let mut set = 0u64;
    // SAFETY: the kernel writes 8 bytes to a live word.
    result(unsafe { raw::syscall(libc::SYS_rt_sigpending, [&raw mut set as u64, 8, 0, 0, 0, 0]) })?;
    for info in &t.signal.held {
        set |= bit(super::signal_of(info));
    }
    access::write(a[0], &(set & t.signal.mask).to_le_bytes()[..a[1] as usize])?;
    Ok(0)
}

/// rt_sigsuspend(mask, size)
pub fn rt_sigsuspend(t: &mut Thread, a: [u64; 6]) -> Answer {
    set_size(a[1])?;
    let mask = access::get::<u64>(a[0])? & !UNBLOCKABLE;
    if t.signal.held.iter().any(|i| mask & bit(super::signal_of(i)) == 0) {
        t.signal.waiting = Some(mask);
        t.attend(pending::SIGNAL);
        return Err(Errno(libc::EINTR));
    }
    let host = host::host_mask(mask);
    // SAFETY: the kernel reads 8 bytes of a live word.
    let r = unsafe {
        raw::syscall_interruptible(&t.pending, libc::SYS_rt_sigsuspend, [&raw const host as u64, 8, 0, 0, 0, 0])
    };
    let r = result(r);
    if r != Err(Errno::RESTART) {
        t.signal.waiting = Some(mask);
    }
    r
}

/// rt_sigtimedwait(set, info, timeout, size)
pub fn rt_sigtimedwait(t: &mut Thread, a: [u64; 6]) -> Answer {
    set_size(a[3])?;
    let set: u64 = access::get(a[0])?;
    if let Some(i) = t.signal.held.iter().position(|i| set & bit(super::signal_of(i)) != 0) {
        let info = t.signal.held.remove(i);
        if a[1] != 0 {
            access::put(a[1], &info)?;
        }
        return Ok(i64::from(super::signal_of(&info)));
    }
    // SAFETY: pointers are the guest's, with the host's layouts.
    result(unsafe { raw::syscall_interruptible(&t.pending, libc::SYS_rt_sigtimedwait, a) })
}

/// signalfd(fd, mask, size): signalfd4 without flags.
pub fn signalfd(t: &mut Thread, a: [u64; 6]) -> Answer {
    // SAFETY: the mask is the guest's.
    result(unsafe { raw::syscall_interruptible(&t.pending, libc::SYS_signalfd4, [a[0], a[1], a[2], 0, 0, 0]) })
}

/// sigaltstack(new, old)
pub fn sigaltstack(t: &mut Thread, a: [u64; 6]) -> Answer {
    let sp = t.cpu.gpr[gpr::RSP];
    let new = if a[0] == 0 { None } else { Some(access::get::<StackT>(a[0])?) };
    let on = t.signal.on_altstack(sp);
    let current = t.signal.altstack;
    let mode = if current.size == 0 {
        ALT_DISABLE
    } else if on {
        SS_ONSTACK
    } else {
        0
    };
    let old = StackT { flags: mode | current.flags & SS_AUTODISARM, ..current };
    if let Some(new) = new {
        if on {
            return Err(Errno(libc::EPERM));
        }
        t.signal.altstack = match new.flags & !SS_AUTODISARM {
            ALT_DISABLE => StackT { sp: 0, size: 0, flags: new.flags, pad: 0 },
            0 | SS_ONSTACK if new.size < MINSIGSTKSZ => return Err(Errno(libc::ENOMEM)),
            0 | SS_ONSTACK => StackT { pad: 0, ..new },
            _ => return Err(Errno::EINVAL),
        };
    }
    if a[1] != 0 {
        access::put(a[1], &old)?;
    }
    Ok(0)
}

/// rt_sigreturn(): RSP is just above the frame's return address.
pub fn rt_sigreturn(t: &mut Thread, _: [u64; 6]) -> Answer {
    if let Err(bad) = restore(t) {
        super::force(t, libc::SIGSEGV, bad.0);
    }
    Ok(t.cpu.gpr[gpr::RAX] as i64)
}

/// What rt_sigreturn does. On an error nothing has changed.
fn restore(t: &mut Thread) -> Result<(), BadAddress> {
    let r = frame::pop(&mut t.cpu, Features::of_engine())?;
    if r.mask & !UNBLOCKABLE != t.signal.mask {
        t.set_signal_mask(r.mask);
    }
    // As sigaltstack, but a stack in use is left alone and a bad one is no error.
    let sp = t.cpu.gpr[gpr::RSP];
    if !t.signal.on_altstack(sp) {
        let s = r.altstack;
        match s.flags & !SS_AUTODISARM {
            ALT_DISABLE => t.signal.altstack = StackT { sp: 0, size: 0, flags: s.flags, pad: 0 },
            0 | SS_ONSTACK if s.size >= MINSIGSTKSZ => t.signal.altstack = StackT { pad: 0, ..s },
            _ => {}
        }
    }
    Ok(())
}

/// rt_sigreturn as the syscall thunk calls it, with RIP at the next instruction and everything else stored: the host address to go on at, or 0 to leave to the
/// dispatcher with the reason that this sets.
///
/// # Safety
/// `cpu` is the calling thread's, in the syscall thunk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xrun_sigreturn(cpu: *mut CpuState) -> u64 {
    // SAFETY: `cpu` is the first field of the thread's record; the thunk holds no reference into it. A signal handler that
    // interrupts this only queues.
    let t = unsafe { &mut *cpu.cast::<Thread>() };
    // What is bad about a frame the dispatcher's call finds out again, and raises.
    let reason = if t.is_stepping() || restore(t).is_err() {
        ExitReason::Syscall
    } else {
        let found = if t.is_stepping() || fp::is_special(&t.cpu) { None } else { probe(t.cpu.lookup, t.cpu.rip) };
        if let Some((_, host)) = found {
            return host;
        }
        ExitReason::Resume
    };
    t.cpu.exit_reason = reason as u64;
    0
}
