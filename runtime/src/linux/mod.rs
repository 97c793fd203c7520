//! Linux as an x86_64 program sees it: system calls.
//!
//! | file | what it owns |
//! |---|---|
//! | [`table`], [`rows`] | one row per call: number, argument kinds, how it is answered |
//! | [`names`] | names of flags, for `--strace` |
//! | [`strace`] | printing calls |
//! | [`raw`] | host kernel entry that no signal slips past |
//! | [`user`] | guest memory: bad addresses are EFAULT |
//! | [`path`], [`procfs`] | file names that mean something else for the guest |
//! | the rest | the calls themselves, by family |
//!
//! A guest pointer that needs no rewriting goes to the host kernel as it is, so the kernel's EFAULT is the guest's. Two
//! things stand in the way and are settled here once for all calls: pointers above the guest's 47 bits are made to lead nowhere, and pages that the
//! runtime itself write-protected are opened before the call.
//!
//! Calls that the host takes as they are ([`table::DIRECT`]) are made by the syscall thunk, in translated code, with the same two things looked at; they
//! come here when one of them stands in the way, when a signal does, or for `--strace`.

use std::sync::atomic::Ordering;

use crate::state::gpr;
use crate::thread::{Thread, pending};

pub mod errno;
mod exec;
mod files;
mod ipc;
mod mem;
mod misc;
pub mod names;
pub mod path;
mod poll;
pub mod process;
pub mod procfs;
pub mod raw;
pub mod rows;
mod signals;
mod stat;
pub mod strace;
pub mod table;
mod time;
pub mod user;

use errno::{Answer, Errno};
use table::{Arg, How, Row};

/// Length of the SYSCALL instruction: how far RIP goes back to make a call again.
const SYSCALL_LEN: u64 = 2;

/// Connects the dispatcher to [`syscall`] and names the process after its program, as the kernel would have (fs/exec.c,
/// begin_new_exec). After [`crate::config::set`].
pub fn start() {
    use std::os::unix::ffi::OsStrExt;
    // A trace sees every call.
    let direct = if crate::config::get().strace { &crate::thread::NO_CALLS } else { &table::DIRECT };
    crate::thread::set_syscalls(syscall, direct);
    // Where the kernel started the program it has done so.
    if let Some(name) = crate::config::get().program.file_name().filter(|_| !crate::binfmt::started()) {
        const TASK_COMM_LEN: usize = 16;
        let mut comm = [0u8; TASK_COMM_LEN];
        for (c, b) in comm[..TASK_COMM_LEN - 1].iter_mut().zip(name.as_bytes()) {
            *c = *b;
        }
        let _ = quick(libc::SYS_prctl, [libc::PR_SET_NAME as u64, comm.as_ptr() as u64, 0, 0, 0, 0]);
    }
}

/// Answers the system call a thread has just executed SYSCALL for: number in RAX, arguments in RDI RSI RDX R10 R8 R9, RIP past
/// the instruction. The result, or a negated errno, goes to RAX. When a signal must be delivered first, RIP goes back to the
/// instruction and RAX stays, so that the call is made again afterwards.
pub fn syscall(t: &mut Thread) {
    t.signal.waiting = None;
    let g = &t.cpu.gpr;
    let number = g[gpr::RAX];
    let args = [g[gpr::RDI], g[gpr::RSI], g[gpr::RDX], g[gpr::R10], g[gpr::R8], g[gpr::R9]];
    let row = table::row(number);
    let tracing = crate::config::get().strace;
    if tracing {
        strace::before(t, row, &args);
    }
    let answer = match row {
        Some(row) => run(t, row, args),
        None => Err(Errno::ENOSYS),
    };
    if tracing {
        strace::after(t, number, row, &args, answer);
    }
    match answer {
        Ok(v) => t.cpu.gpr[gpr::RAX] = v as u64,
        Err(Errno::RESTART) => t.cpu.rip = t.cpu.rip.wrapping_sub(SYSCALL_LEN),
        Err(e) => t.cpu.gpr[gpr::RAX] = -i64::from(e.0) as u64,
    }
}

fn run(t: &mut Thread, row: &Row, mut args: [u64; 6]) -> Answer {
    let mut pointers = row.pointers;
    while pointers != 0 {
        let i = pointers.trailing_zeros() as usize;
        if args[i] >= user::TASK_SIZE {
            // The host's user space may be larger. Nobody's memory, and as far from alignment as it was: the kernel says EFAULT where it comes to it.
            args[i] |= !0xfff;
        }
        pointers &= pointers - 1;
    }
    let watched = || crate::memory::PROTECTED.load(Ordering::Relaxed);
    // Before the call: one that has taken something (a child's end, a message) cannot be made again.
    if watched() {
        open_for_kernel(row, &args);
    }
    let answer = answer(t, row, args);
    // A page may be watched anew while a call waits.
    if answer == Err(Errno::EFAULT) && watched() && open_for_kernel(row, &args) {
        return self::answer(t, row, args);
    }
    answer
}

#[inline]
fn answer(t: &mut Thread, row: &Row, args: [u64; 6]) -> Answer {
    match row.how {
        How::Pass(nr) => kernel(t, nr, args),
        How::Call(f) | How::Partial(f, _) => f(t, args),
        How::Missing(_) | How::NotInLinux => Err(Errno::ENOSYS),
    }
}

/// Makes a host call on the guest's behalf. A signal that arrives before or during it gives [`Errno::RESTART`] or EINTR, as
/// the kernel decides.
fn kernel(t: &Thread, nr: i64, args: [u64; 6]) -> Answer {
    // SAFETY: pointers are the guest's, below its address limit and so not to memory of Rust's, or to a handler's own live
    // structures.
    let answer = answer_of(unsafe { raw::syscall_interruptible(&t.pending, nr, args) });
    // Interrupted by the runtime for its own purposes: the guest must not see that.
    if answer == Err(Errno(libc::EINTR)) {
        let why = t.pending.load(Ordering::Relaxed);
        if why != 0 && why & pending::SIGNAL == 0 {
            return Err(Errno::RESTART);
        }
    }
    answer
}

/// Makes a host call that cannot block.
fn quick(nr: i64, args: [u64; 6]) -> Answer {
    // SAFETY: as in `kernel`.
    answer_of(unsafe { raw::syscall(nr, args) })
}

fn answer_of(r: i64) -> Answer {
    match raw::errno(r) {
        None if r == raw::INTERRUPTED => Err(Errno::RESTART),
        None => Ok(r),
        // ERESTARTNOINTR and its like never leave the kernel.
        Some(e) => Err(Errno(e)),
    }
}

/// Gives the kernel write access to what the call may write, where the runtime had taken it away to watch translated code. True when
/// something changed.
fn open_for_kernel(row: &Row, args: &[u64; 6]) -> bool {
    /// What a structure of unknown size is taken to span.
    const STRUCT: u64 = 4096;
    let mut changed = false;
    let mut open = |addr: u64, len: u64| {
        if addr != 0 && addr < user::TASK_SIZE && len != 0 {
            changed |= crate::memory::unprotect_for_kernel(addr..addr.saturating_add(len));
        }
    };
    for (i, arg) in row.args.iter().enumerate() {
        match *arg {
            Arg::Out(n) => open(args[i], args[n as usize].min(i32::MAX as u64)),
            Arg::IovOut(n) => {
                for k in 0..args[n as usize].min(libc::UIO_MAXIOV as u64) {
                    let Ok([base, len]) = user::read::<[u64; 2]>(args[i].wrapping_add(k * 16)) else {
                        break;
                    };
                    open(base, len.min(i32::MAX as u64));
                }
            }
            Arg::Msg => {
                // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
                if let Ok(m) = user::read::<[u64; 7]>(args[i]) {
                    open(args[i], 56);
                    open(m[0], m[1] & 0xffff_ffff);
                    open(m[4], m[5]);
                    for k in 0..m[3].min(libc::UIO_MAXIOV as u64) {
                        let Ok([base, len]) = user::read::<[u64; 2]>(m[2].wrapping_add(k * 16)) else {
                            break;
                        };
                        open(base, len.min(i32::MAX as u64));
                    }
                }
            }
            Arg::Ptr => open(args[i], STRUCT),
            Arg::StatOut => open(args[i], 144),
            // What is left of the time, where a call says so.
            Arg::Ts | Arg::Tv => open(args[i], 16),
            Arg::FdPair => open(args[i], 8),
            Arg::Wstatus => open(args[i], 4),
            // ioctl, prctl and their like: a pointer or not.
            Arg::Hex if args[i] > STRUCT => open(args[i], STRUCT),
            _ => {}
        }
    }
    changed
}

/// Whether a signal waits to be delivered: a handler made of several host calls asks between them.
fn signal_waits(t: &Thread) -> bool {
    t.pending.load(Ordering::Relaxed) != 0
}
