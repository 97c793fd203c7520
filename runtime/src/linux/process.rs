//! Processes and threads: fork, vfork, clone, how they end, and their limits.
//!
//! A guest thread is a host thread of the C library's, so that Rust and its allocator work in it; a guest fork is the C library's fork for the
//! same reason. A vfork child is a real one: it runs in its parent's memory, on a host stack of its own, with the
//! parent's thread-local storage, which nobody else uses while the parent waits in the kernel.

use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::{Answer, Errno};
use super::{answer_of, kernel, quick, raw, signal_waits, user};
use crate::code::Gate;
use crate::state::gpr;
use crate::store;
use crate::thread::{self, Thread};

const CSIGNAL: u64 = 0xff;
const VM: u64 = libc::CLONE_VM as u64;
const FS: u64 = libc::CLONE_FS as u64;
const FILES: u64 = libc::CLONE_FILES as u64;
const SIGHAND: u64 = libc::CLONE_SIGHAND as u64;
const PIDFD: u64 = libc::CLONE_PIDFD as u64;
const VFORK: u64 = libc::CLONE_VFORK as u64;
const THREAD: u64 = libc::CLONE_THREAD as u64;
const SYSVSEM: u64 = libc::CLONE_SYSVSEM as u64;
const SETTLS: u64 = libc::CLONE_SETTLS as u64;
const PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CHILD_CLEARTID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
const CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
/// Ignored by every kernel of the last twenty years.
const IGNORED: u64 = (libc::CLONE_DETACHED | libc::CLONE_UNTRACED) as u64;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// struct clone_args (linux/sched.h), the same on all machines.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    /// Lowest address of the new stack.
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

impl CloneArgs {
    /// RSP of the child, 0 for its parent's.
    fn rsp(&self) -> u64 {
        self.stack.wrapping_add(self.stack_size)
    }
}

pub fn fork(t: &mut Thread, _: [u64; 6]) -> Answer {
    start(t, CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() })
}

pub fn vfork(t: &mut Thread, _: [u64; 6]) -> Answer {
    start(t, CloneArgs { flags: VM | VFORK, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() })
}

/// x86_64's order: flags, stack, parent_tid, child_tid, tls.
pub fn clone(t: &mut Thread, a: [u64; 6]) -> Answer {
    let flags = a[0] & 0xffff_ffff & !CSIGNAL;
    if flags & PIDFD != 0 && flags & PARENT_SETTID != 0 {
        return Err(Errno::EINVAL);
    }
    let args = CloneArgs {
        flags,
        pidfd: a[2],
        child_tid: a[3],
        parent_tid: a[2],
        exit_signal: a[0] & CSIGNAL,
        stack: a[1],
        tls: a[4],
        ..CloneArgs::default()
    };
    start(t, args)
}

pub fn clone3(t: &mut Thread, a: [u64; 6]) -> Answer {
    const FIRST_VERSION: usize = 64;
    let size = a[1] as usize;
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno(libc::E2BIG));
    }
    let mut bytes = user::read_vec(a[0], size)?;
    let known = size_of::<CloneArgs>();
    if bytes.iter().skip(known).any(|&b| b != 0) {
        return Err(Errno(libc::E2BIG));
    }
    bytes.resize(known, 0);
    let args = CloneArgs::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    let bad_stack = (args.stack == 0) != (args.stack_size == 0);
    if bad_stack || args.flags & CSIGNAL != 0 || args.exit_signal & !CSIGNAL != 0 {
        return Err(Errno::EINVAL);
    }
    start(t, args)
}

/// The checks the kernel makes of every clone (kernel/fork.c, copy_process), then the kind of child that is meant.
fn start(t: &mut Thread, args: CloneArgs) -> Answer {
    let f = args.flags & !IGNORED;
    if f & THREAD != 0 && f & SIGHAND == 0 || f & SIGHAND != 0 && f & VM == 0 {
        return Err(Errno::EINVAL);
    }
    if f & CLEAR_SIGHAND != 0 && f & SIGHAND != 0 {
        return Err(Errno::EINVAL);
    }
    if f & SETTLS != 0 && args.tls >= user::TASK_SIZE {
        return Err(Errno(libc::EPERM));
    }
    if signal_waits(t) {
        return Err(Errno::RESTART);
    }
    if f & THREAD != 0 {
        new_thread(t, &args, f)
    } else if f & VM == 0 {
        new_process(t, &args, f)
    } else if f & VFORK != 0 && f & SIGHAND == 0 {
        vforked(t, &args, f)
    } else {
        // A process that shares memory with a running parent would need thread-local storage that the C library gives to
        // threads only.
        Err(Errno::EINVAL)
    }
}

/// What every kind of child starts with: the parent's registers, 0 as its result, its own stack and FS base if asked.
fn child_registers(child: &mut Thread, args: &CloneArgs) {
    child.cpu.gpr[gpr::RAX] = 0;
    if args.rsp() != 0 {
        child.cpu.gpr[gpr::RSP] = args.rsp();
    }
    if args.flags & SETTLS != 0 {
        child.cpu.fs_base = args.tls;
    }
}

fn new_thread(t: &mut Thread, args: &CloneArgs, f: u64) -> Answer {
    if f & (PIDFD | INTO_CGROUP) != 0 || args.set_tid_size != 0 {
        return Err(Errno::EINVAL);
    }
    let mut child = t.child();
    child_registers(&mut child, args);
    let mut started = |child: &mut Thread| {
        // A host thread shares all of these; what the guest does not want shared is taken apart.
        let apart = (FS | FILES | SYSVSEM) & !f;
        if apart != 0 {
            let _ = quick(libc::SYS_unshare, [apart, 0, 0, 0, 0, 0]);
        }
        if f & CHILD_CLEARTID != 0 {
            child.clear_child_tid = args.child_tid;
        }
        // As in the kernel, a bad address here is nobody's error.
        if f & PARENT_SETTID != 0 {
            let _ = user::write(args.parent_tid, &child.tid);
        }
        if f & CHILD_SETTID != 0 {
            let _ = user::write(args.child_tid, &child.tid);
        }
    };
    thread::spawn(child, &mut started).map(i64::from).map_err(Errno)
}

/// Keeps signals out and process-wide tables whole while memory is copied.
struct Quiet(u64);

impl Quiet {
    fn new() -> Quiet {
        Quiet(thread::signals_off())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        thread::signals_set(self.0);
    }
}

fn new_process(t: &mut Thread, args: &CloneArgs, f: u64) -> Answer {
    let quiet = Quiet::new();
    // A signal already recorded belongs to the parent alone, so it must be delivered first.
    if signal_waits(t) {
        return Err(Errno::RESTART);
    }
    let handled_here = SETTLS | PARENT_SETTID | CHILD_SETTID | CHILD_CLEARTID;
    let rest = f & !handled_here;
    let plain = rest == 0 && args.exit_signal == libc::SIGCHLD as u64 && args.set_tid_size == 0;
    let table = t.signal.table.clone();
    let host_fork = || {
        if plain {
            // SAFETY: the child goes on in this same function; the runtime's locks are held by this thread in both processes.
            match unsafe { libc::fork() } {
                -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN)),
                pid => i64::from(pid),
            }
        } else {
            let host = CloneArgs { flags: rest & !CLEAR_SIGHAND, stack: 0, stack_size: 0, tls: 0, ..*args };
            raw_fork(&host)
        }
    };
    // Once here rather than once in each child.
    store::save();
    let pid = table.held(|| thread::fork(t, host_fork));
    let pid = answer_of(pid)?;
    if pid != 0 {
        if f & PARENT_SETTID != 0 {
            let _ = user::write(args.parent_tid, &(pid as i32));
        }
        drop(quiet);
        return Ok(pid);
    }
    t.robust_list = 0;
    t.signal.forked(f & CLEAR_SIGHAND != 0);
    t.clear_child_tid = if f & CHILD_CLEARTID != 0 { args.child_tid } else { 0 };
    t.vfork_child = false;
    child_registers(t, args);
    if f & CHILD_SETTID != 0 {
        let _ = user::write(args.child_tid, &t.tid);
    }
    drop(quiet);
    Ok(0)
}

/// A fork the C library has no form for (namespaces, another exit signal, a pidfd). The C library's own locks
/// are not taken, so another thread that holds one would leave it locked in the child.
fn raw_fork(args: &CloneArgs) -> i64 {
    if args.flags > 0xffff_ffff || args.set_tid_size != 0 {
        let size = size_of::<CloneArgs>() as u64;
        // SAFETY: the structure is live; with no new stack the child goes on here.
        return unsafe { raw::syscall(libc::SYS_clone3, [(&raw const *args) as u64, size, 0, 0, 0, 0]) };
    }
    // Both machines have flags, stack, parent_tid first; the others are not used here.
    // SAFETY: as above; a pidfd is written to the guest's memory, which the kernel checks.
    unsafe { raw::syscall(libc::SYS_clone, [args.flags | args.exit_signal, 0, args.pidfd, 0, 0, 0]) }
}

/// Host stack of a vfork child.
const CHILD_STACK: usize = 1 << 20;

/// What the child of a vfork needs from its parent's frame, which stays as it is until the child is gone.
struct Vforked {
    child: Box<Thread>,
    mask: u64,
    child_tid: Option<u64>,
    clear_handlers: bool,
    /// Released by the child. An emulator may make a vfork a fork; the child then has a copy of them, taken in the middle of whatever other
    /// threads did but for these.
    locks: ManuallyDrop<thread::Locks>,
    released: AtomicBool,
}

extern "C" fn vfork_child(arg: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `vforked` passes a `Vforked` that lives until this process has ended or become another program.
    let v = unsafe { &mut *arg.cast::<Vforked>() };
    v.released.store(true, Ordering::Relaxed);
    // SAFETY: here alone, and in the parent only where this store is not seen.
    unsafe { ManuallyDrop::drop(&mut v.locks) };
    v.child.settle();
    v.child.signal.forked(v.clear_handlers);
    if let Some(at) = v.child_tid {
        let _ = user::write(at, &v.child.tid);
    }
    thread::signals_set(v.mask);
    v.child.run()
}

fn vforked(t: &mut Thread, args: &CloneArgs, f: u64) -> Answer {
    if f & INTO_CGROUP != 0 || args.set_tid_size != 0 {
        return Err(Errno::EINVAL);
    }
    let mut child = t.child();
    child.signal = t.signal.vforked();
    child_registers(&mut child, args);
    child.vfork_child = true;
    child.enlist();
    if f & CHILD_CLEARTID != 0 {
        child.clear_child_tid = args.child_tid;
    }
    let quiet = Quiet::new();
    if signal_waits(t) {
        child.unlist();
        return Err(Errno::RESTART);
    }
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping, of no consequence to any other.
    let stack =
        unsafe { libc::mmap(std::ptr::null_mut(), CHILD_STACK, libc::PROT_READ | libc::PROT_WRITE, anon, -1, 0) };
    if stack == libc::MAP_FAILED {
        child.unlist();
        return Err(Errno(libc::ENOMEM));
    }
    let mut start = Vforked {
        child,
        mask: quiet.0,
        child_tid: (f & CHILD_SETTID != 0).then_some(args.child_tid),
        clear_handlers: f & CLEAR_SIGHAND != 0,
        locks: ManuallyDrop::new(thread::Locks::take()),
        released: AtomicBool::new(false),
    };
    let host_flags = f & !(SETTLS | PARENT_SETTID | CHILD_SETTID | CHILD_CLEARTID | CLEAR_SIGHAND);
    let host_flags = host_flags as i32 | args.exit_signal as i32;
    let mut pidfd = 0i32;
    // SAFETY: the child runs on `stack`, which is unmapped only after CLONE_VFORK says that it no longer runs here. It shares this
    // thread's thread-local storage, unused meanwhile.
    let pid = unsafe {
        let top = stack.cast::<u8>().add(CHILD_STACK).cast();
        libc::clone(vfork_child, top, host_flags, (&raw mut start).cast(), &raw mut pidfd)
    };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
    if !start.released.load(Ordering::Relaxed) {
        // SAFETY: no child has released them, or only its own copy.
        unsafe { ManuallyDrop::drop(&mut start.locks) };
    }
    thread::set_current(t);
    // SAFETY: the child is gone from it.
    unsafe { libc::munmap(stack, CHILD_STACK) };
    // Killed inside translated code, it would be waited for by whoever wants all threads out.
    Gate::leave(&start.child);
    start.child.unlist();
    drop(start);
    if pid < 0 {
        return Err(Errno(error));
    }
    if f & PIDFD != 0 {
        let _ = user::write(args.pidfd, &pidfd);
    }
    if f & PARENT_SETTID != 0 {
        let _ = user::write(args.parent_tid, &pid);
    }
    Ok(i64::from(pid))
}

/// exit(2): this thread only. The dispatcher leaves its loop; [`thread_gone`] follows.
pub fn exit(t: &mut Thread, a: [u64; 6]) -> Answer {
    if t.vfork_child {
        exit_now(libc::SYS_exit, a[0]);
    }
    t.exit = Some(a[0] as i32);
    Ok(0)
}

pub fn exit_group(t: &mut Thread, a: [u64; 6]) -> Answer {
    if !t.vfork_child {
        store::end();
    }
    exit_now(libc::SYS_exit_group, a[0])
}

fn exit_now(nr: i64, code: u64) -> ! {
    loop {
        let _ = quick(nr, [code, 0, 0, 0, 0, 0]);
    }
}

/// What the kernel does for a thread's memory when it ends, done here because the host thread still has work after the
/// guest's: robust futexes are released, then `clear_child_tid` is cleared and woken. Nothing of the guest's memory is used after.
/// When the thread is the process's first, its exit is the process's and this does not return.
pub fn thread_gone(t: &mut Thread, code: i32) {
    if t.robust_list != 0 {
        release_robust(t.robust_list, t.tid);
        // Nothing for the kernel to walk: the guest may free that memory as soon as it sees this thread gone.
        let _ = quick(libc::SYS_set_robust_list, [0, 24, 0, 0, 0, 0]);
    }
    if t.clear_child_tid != 0 && user::write(t.clear_child_tid, &0u32).is_ok() {
        let _ = quick(libc::SYS_futex, [t.clear_child_tid, libc::FUTEX_WAKE as u64, 1, 0, 0, 0]);
    }
    let leader = quick(libc::SYS_getpid, [0; 6]) == Ok(i64::from(t.tid));
    if leader {
        store::end();
        exit_now(libc::SYS_exit, code as u32 as u64);
    }
}

/// Walks a robust list as exit_robust_list does (kernel/futex/core.c): every futex on it that this thread owns is marked.
fn release_robust(head: u64, tid: i32) {
    const LIMIT: usize = 2048;
    // struct robust_list_head { next, futex_offset, list_op_pending }; bit 0 of a pointer marks a PI futex.
    let Ok([first, offset, pending]) = user::read::<[u64; 3]>(head) else { return };
    let futex = |entry: u64| (entry & !1).wrapping_add(offset);
    let mut entry = first;
    for _ in 0..LIMIT {
        if entry & !1 == head {
            break;
        }
        let next = user::read::<u64>(entry & !1);
        if entry & !1 != pending & !1 {
            owner_died(futex(entry), tid, entry & 1 != 0, false);
        }
        match next {
            Ok(n) => entry = n,
            Err(_) => break,
        }
    }
    if pending & !1 != 0 {
        owner_died(futex(pending), tid, pending & 1 != 0, true);
    }
}

fn owner_died(addr: u64, tid: i32, pi: bool, pending: bool) {
    let Ok(mut word) = user::read::<u32>(addr) else { return };
    if !addr.is_multiple_of(4) {
        return;
    }
    let wake = || {
        let _ = quick(libc::SYS_futex, [addr, libc::FUTEX_WAKE as u64, 1, 0, 0, 0]);
    };
    // An unlock that was interrupted between the store and the wake.
    if pending && !pi && word & libc::FUTEX_TID_MASK == 0 {
        return wake();
    }
    while word & libc::FUTEX_TID_MASK == tid as u32 {
        let dead = word & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED;
        // SAFETY: the word was readable just now, is aligned, and is shared with other threads as a futex is: by atomic
        // accesses. A thread that unmaps it meanwhile would race with a native exit as well; the fault then is the guest's.
        let futex = unsafe { &*(addr as *const AtomicU32) };
        match futex.compare_exchange(word, dead, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {
                if word & libc::FUTEX_WAITERS != 0 && !pi {
                    wake();
                }
                return;
            }
            Err(now) => word = now,
        }
    }
}

/// The host's C library has no use for a robust list of its own, so the kernel's slot for it is the guest's.
pub fn set_robust_list(t: &mut Thread, a: [u64; 6]) -> Answer {
    match kernel(t, libc::SYS_set_robust_list, a) {
        // Emulators without it: a thread that ends releases its list itself, a process that is killed does not.
        Ok(_) | Err(Errno::ENOSYS) if a[1] == 24 => {
            t.robust_list = a[0];
            Ok(0)
        }
        Err(Errno::ENOSYS) => Err(Errno::EINVAL),
        other => other,
    }
}

pub fn set_tid_address(t: &mut Thread, a: [u64; 6]) -> Answer {
    t.clear_child_tid = a[0];
    Ok(i64::from(t.tid))
}

pub fn getpgrp(t: &mut Thread, _: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_getpgid, [0; 6])
}

/// Limits on memory that hold for the guest's own: setting them on this process would starve the runtime.
static MEMORY_LIMITS: Mutex<[Option<[u64; 2]>; 2]> = Mutex::new([None; 2]);

fn memory_limit(resource: u64) -> Option<usize> {
    match resource as u32 {
        x if x == libc::RLIMIT_AS => Some(0),
        x if x == libc::RLIMIT_DATA => Some(1),
        _ => None,
    }
}

pub fn prlimit64(t: &mut Thread, a: [u64; 6]) -> Answer {
    let own = a[0] as i32 == 0 || a[0] as i32 == std::process::id() as i32;
    let Some(i) = memory_limit(a[1]).filter(|_| own) else {
        return kernel(t, libc::SYS_prlimit64, a);
    };
    let mut now = [0u64; 2];
    kernel(t, libc::SYS_prlimit64, [0, a[1], 0, now.as_mut_ptr() as u64, 0, 0])?;
    let mut limits = MEMORY_LIMITS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let old = limits[i].unwrap_or(now);
    if a[2] != 0 {
        let new = user::read::<[u64; 2]>(a[2])?;
        if new[0] > new[1] {
            return Err(Errno::EINVAL);
        }
        if new[1] > old[1] {
            return Err(Errno(libc::EPERM));
        }
        limits[i] = Some(new);
    }
    user::write_opt(a[3], &old)?;
    Ok(0)
}

pub fn getrlimit(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[1] == 0 {
        return Err(Errno::EFAULT);
    }
    prlimit64(t, [0, a[0], 0, a[1], 0, 0])
}

pub fn setrlimit(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[1] == 0 {
        return Err(Errno::EFAULT);
    }
    prlimit64(t, [0, a[0], a[1], 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_args_layout() {
        assert_eq!(size_of::<CloneArgs>(), size_of::<libc::clone_args>());
    }
}
