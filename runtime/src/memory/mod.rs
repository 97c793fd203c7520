//! The guest's address space, process-wide: one [`Space`] behind a lock, and what follows from a change of it.
//!
//! Guest addresses are host addresses; the guest sees 47 bits. The functions named like system calls take the guest's
//! arguments and return what the x86_64 kernel would: a value, or a negative errno.
//!
//! Lock order: the memory lock is held while `Hooks::invalidate` is called, which takes the code cache's; nobody takes them the other way round.
//! It is not taken by signal handlers except through [`on_fault`], which runs only for faults in code that does not hold it: nothing in
//! here touches guest memory under the lock except through [`access`].
//!
//! How translations stay true: [`fetch`] watches a page (write-protects it on the host if the guest may write to it)
//! *before* it reads it. Whatever changes it later first advances [`generation`], then calls `Hooks::invalidate`, and only then lets go of the page:
//! a thread that finds it writable finds its old code gone. A translator that reads `generation` before its first fetch and checks it
//! again under the lock that its invalidation takes never publishes stale code.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub mod access;
pub mod host;
mod maps;
pub mod space;
pub mod vmas;

use host::{Errno, PAGE};
pub use maps::maps_text;
pub use space::PROTECTED;
use space::{Effects, Space};
use vmas::Prot;

/// Who is told about changes.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Translations made from these guest bytes are void. Called with the memory lock held, from any thread, also from the
    /// host's fault handler.
    pub invalidate: fn(Range<u64>),
    /// From now on others can watch the order of this process's memory accesses. Called once.
    pub ordered: fn(),
}

static SPACE: Mutex<Space> = Mutex::new(Space::new());
static GENERATION: AtomicU64 = AtomicU64::new(0);
static HOOKS: OnceLock<Hooks> = OnceLock::new();
static ORDERED: OnceLock<()> = OnceLock::new();

/// Names who is told; the first call wins. Before it there must be no translations.
pub fn set_hooks(hooks: Hooks) {
    let _ = HOOKS.set(hooks);
}

/// Changes whenever bytes that translations were made from may have changed. See the module's docs.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

fn lock() -> MutexGuard<'static, Space> {
    SPACE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change<R>(f: impl FnOnce(&mut Space, &mut Effects) -> R) -> R {
    let mut fx = Effects::default();
    let mut space = lock();
    let r = f(&mut space, &mut fx);
    drop(space);
    if let Some(hooks) = HOOKS.get().filter(|_| fx.shared) {
        ORDERED.get_or_init(|| (hooks.ordered)());
    }
    r
}

/// Translations that depend on `range` are void, before anything happens to its bytes or to their protection.
fn void(range: Range<u64>) {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    if let Some(hooks) = HOOKS.get() {
        (hooks.invalidate)(range);
    }
}

fn returned(r: Result<u64, Errno>) -> i64 {
    match r {
        Ok(v) => v as i64,
        Err(e) => -i64::from(e),
    }
}

fn done(r: Result<(), Errno>) -> i64 {
    returned(r.map(|()| 0))
}

/// Holds the memory lock over fork, so that the child finds a consistent map. Both processes drop it.
pub struct ForkGuard(#[allow(dead_code)] MutexGuard<'static, Space>);

/// To be held by the thread that calls fork, from before to after.
pub fn fork_guard() -> ForkGuard {
    ForkGuard(lock())
}

/// mmap(2) of the guest.
pub fn mmap(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64) -> i64 {
    let file = flags & (libc::MAP_ANONYMOUS | libc::MAP_SHARED) == 0 && prot & libc::PROT_WRITE == 0;
    let free = flags & (libc::MAP_FIXED | host::MAP_FIXED_NOREPLACE | space::MAP_32BIT) == 0;
    let hint =
        if file && free && addr == 0 && off == 0 { crate::store::place(fd, lock().end).unwrap_or(0) } else { addr };
    let at = returned(change(|s, fx| s.mmap(fx, hint, len, prot, flags, fd, off)));
    if file && at > 0 && prot & libc::PROT_EXEC != 0 {
        let at = at as u64;
        crate::store::mapped(fd, at..space::page_up(at + len).unwrap_or(at), off);
    }
    at
}

/// munmap(2) of the guest. Memory that is not the guest's is left alone, as if nothing were there.
pub fn munmap(addr: u64, len: u64) -> i64 {
    done(change(|s, fx| s.munmap(fx, addr, len)))
}

/// mprotect(2) of the guest.
pub fn mprotect(addr: u64, len: u64, prot: i32) -> i64 {
    if prot & libc::PROT_WRITE != 0 {
        crate::store::may_change(addr..addr.saturating_add(len));
    }
    done(change(|s, fx| s.mprotect(fx, addr, len, prot)))
}

/// mremap(2) of the guest; `new` counts with MREMAP_FIXED only.
pub fn mremap(old: u64, old_len: u64, new_len: u64, flags: i32, new: u64) -> i64 {
    returned(change(|s, fx| s.mremap(fx, old, old_len, new_len, flags, new)))
}

/// brk(2) as the kernel has it: the break after the call, moved or not.
pub fn brk(to: u64) -> i64 {
    change(|s, fx| s.set_brk(fx, to)) as i64
}

/// madvise(2) of the guest.
pub fn madvise(addr: u64, len: u64, advice: i32) -> i64 {
    done(change(|s, fx| s.madvise(fx, addr, len, advice)))
}

/// shmat(2) of the guest.
pub fn shmat(id: i32, addr: u64, flags: i32) -> i64 {
    returned(change(|s, fx| s.shmat(fx, id, addr, flags)))
}

/// shmdt(2) of the guest.
pub fn shmdt(addr: u64) -> i64 {
    done(change(|s, fx| s.shmdt(fx, addr)))
}

/// Whether every byte of the range is mapped for the guest (mincore, msync, mlock answer ENOMEM when not).
pub fn is_mapped(addr: u64, len: u64) -> bool {
    match addr.checked_add(len) {
        Some(end) => lock().vmas.covers(addr & !(PAGE - 1)..end),
        None => false,
    }
}

/// The guest's rights at `addr`; `None` where nothing is mapped (SEGV_MAPERR rather than SEGV_ACCERR).
pub fn prot_at(addr: u64) -> Option<Prot> {
    lock().vmas.at(addr).map(|(_, v)| v.prot)
}

/// READ_IMPLIES_EXEC of personality(2).
pub fn set_read_implies_exec(on: bool) {
    lock().read_implies_exec = on;
}

/// Reads guest code into `buf` and watches the pages it came from. Returns the number of bytes read: fewer than asked
/// when they end at a page that is not executable, not mapped, or past the end of its file.
pub fn fetch(addr: u64, buf: &mut [u8]) -> usize {
    let mut space = lock();
    let mut got = 0;
    while got < buf.len() {
        let at = addr.wrapping_add(got as u64);
        if at >= space.end || !space.watch(at & !(PAGE - 1)) {
            break;
        }
        let n = (buf.len() - got).min((PAGE - at % PAGE) as usize);
        if access::read_some(at, &mut buf[got..got + n]) != n {
            break;
        }
        got += n;
    }
    got
}

/// The guest's memory as the translator reads it.
#[derive(Clone, Copy, Debug)]
pub struct Code;

impl crate::engine::GuestCode for Code {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        fetch(addr, buf)
    }

    fn is_vdso(&self, addr: u64) -> bool {
        lock().vmas.at(addr).is_some_and(|(_, v)| v.kind == vmas::Kind::Vdso)
    }
}

/// Watches every executable page of `range`, for bytes that were not read through [`fetch`].
pub fn protect_code(range: Range<u64>) {
    let mut space = lock();
    let mut page = range.start & !(PAGE - 1);
    while page < range.end {
        space.watch(page);
        page += PAGE;
    }
}

/// What to do about a host fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest's own: raise SIGSEGV in it.
    NotOurs,
    /// Put right; run the faulting instruction again.
    Retry,
}

/// SIGSEGV at guest address `addr`: a write to a watched page, or a touch just below a growing mapping. Takes the
/// memory lock, so ask [`access::resume`] first and do not call this for reads from there.
pub fn on_fault(addr: u64) -> Fault {
    if change(|s, fx| s.fault(addr, fx)) {
        RACED.store(0, Ordering::Relaxed);
        Fault::Retry
    } else if raced(addr) {
        Fault::Retry
    } else {
        Fault::NotOurs
    }
}

/// Faults in a row at places that looked right already.
static RACED: AtomicU64 = AtomicU64::new(0);

/// Two threads can fault on one page at once, and the second finds it already writable: it is told to try again, but
/// not for ever.
fn raced(addr: u64) -> bool {
    prot_at(addr).is_some_and(|p| p.contains(Prot::WRITE)) && RACED.fetch_add(1, Ordering::Relaxed) < 256
}

/// Gives the kernel write access to all of `range`. True when something changed. Needed only once there is something [`PROTECTED`].
pub fn unprotect_for_kernel(range: Range<u64>) -> bool {
    change(|s, fx| s.release_writable(range, fx))
}

/// For the loader: registers a mapping made by other means.
pub(crate) fn with_space<R>(f: impl FnOnce(&mut Space) -> R) -> R {
    f(&mut lock())
}
