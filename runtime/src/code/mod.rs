//! The code cache: one per process, shared by its threads. Finds or makes the host code of a guest address, chains it, and throws it away
//! when the guest changes the bytes it was made from.
//!
//! | file | what it is |
//! |---|---|
//! | `adopted` | regions that came from a file |
//! | `arena` | the memory, the lookup table, instruction cache maintenance |
//! | `branch` | the instructions that are patched |
//! | `checked` | code on pages that are written all the time |
//! | `region` | one region's tables |
//! | `unaligned` | ordered accesses that met an unaligned address |
//! | `cache` | all tables and their changes |
//!
//! Locks: one mutex guards the tables and all patches. It is held for short times only, never while translating, never while calling
//! `memory` (which calls [`invalidate`] under its own lock) or waiting for a thread; a signal handler may take it when it interrupted translated
//! code, which never holds it.
//!
//! Emptying the cache needs all threads out of translated code: [`flush`] raises a flag, interrupts them, and waits. A thread says that it is
//! inside with [`Gate`]; one that comes while the flag is up waits in front of it.

pub mod adopted;
pub mod arena;
pub mod branch;
pub mod cache;
pub mod checked;
pub mod region;
pub mod unaligned;

use crate::engine::{Extent, FlagForm, GuestCode, Ordering, Request, TranslateError};
use crate::enter::fp;
use crate::store::image::Image;
use crate::thread::{self, Thread};
pub use arena::NEVER;
use arena::{Arena, probe};
use cache::{Cache, Next};
pub use cache::{Mended, Stats, Stop, Trapped};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering as Mem};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);
static PLACES: OnceLock<Places> = OnceLock::new();
static ORDERED: AtomicBool = AtomicBool::new(false);
static TRAPPING: AtomicBool = AtomicBool::new(false);
/// Advances when the cache is emptied, under its lock: host addresses and regions from before are void.
static EPOCH: AtomicU64 = AtomicU64::new(1);
/// Guest instructions that made an unaligned access that must be ordered or atomic. Never many: each costs a signal and a translation.
static UNALIGNED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
/// Pages (numbers of 4 KiB) with code that were written, and how often.
static WRITTEN: Mutex<BTreeMap<u64, u32>> = Mutex::new(BTreeMap::new());
/// How many of them were written [`TOO_OFTEN`].
static CHECKED: AtomicU32 = AtomicU32::new(0);
/// From so many writes on, code on a page is checked at each entry, and the page is not watched any more.
const TOO_OFTEN: u32 = 24;
/// Instead of a count: a checked page whose code changed of late.
const CHANGED: u32 = TOO_OFTEN + 1;
/// Instead of a count: a page that is not checked any more.
const ALWAYS_WATCHED: u32 = u32::MAX;
/// Not 0 while [`flush`] wants all threads out.
static STOPPING: AtomicU32 = AtomicU32::new(0);
/// Held by the thread that empties the cache.
static FLUSHING: Mutex<()> = Mutex::new(());

/// Where the arena's parts are; fixed once made.
#[derive(Clone, Debug)]
pub struct Places {
    pub lookup: u64,
    pub all_miss: u64,
    pub code: Range<u64>,
}

/// A host entry address, and the epoch in which it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub host: u64,
    pub epoch: u64,
}

fn lock() -> MutexGuard<'static, Option<Cache>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the cache if there is none yet. Halves its size until the host grants it; the error is an errno.
pub fn init() -> Result<&'static Places, i32> {
    if let Some(p) = PLACES.get() {
        return Ok(p);
    }
    let mut guard = lock();
    if guard.is_none() {
        let mut size = arena::SIZE;
        let arena = loop {
            match Arena::new(size) {
                Ok(a) => break a,
                Err(e) if size <= 4 << 20 => return Err(e),
                Err(_) => size /= 2,
            }
        };
        let places = Places { lookup: arena.lookup(), all_miss: arena.all_miss(), code: arena.range() };
        let _ = PLACES.set(places);
        *guard = Some(Cache::new(arena));
    }
    drop(guard);
    PLACES.get().ok_or(libc::ENOMEM)
}

/// Where the arena is; `None` before [`init`]. Takes no lock.
pub fn places() -> Option<&'static Places> {
    PLACES.get()
}

/// Whether host address `pc` is in the arena. Takes no lock.
pub fn contains(pc: u64) -> bool {
    PLACES.get().is_some_and(|p| p.code.contains(&pc))
}

/// See [`Found::epoch`].
pub fn epoch() -> u64 {
    EPOCH.load(Mem::SeqCst)
}

fn with<R>(f: impl FnOnce(&mut Cache) -> R) -> Option<R> {
    lock().as_mut().map(f)
}

/// Counters, and bytes of code in the cache.
pub fn stats() -> (Stats, usize) {
    with(|c| (c.stats, c.arena.used())).unwrap_or_default()
}

/// Host code for guest address `pc`: from the lookup table, else from the tables, else translated now. Fills the lookup slot.
pub fn find(thread: &Thread, pc: u64) -> Result<Found, TranslateError> {
    let epoch = epoch();
    if let Some(p) = PLACES.get()
        && let Some((_, host)) = probe(p.lookup, pc)
    {
        return Ok(Found { host, epoch });
    }
    let known = with(|c| {
        let host = c.entry(pc)?;
        c.remember(pc, host);
        Some(host)
    });
    match known.flatten() {
        Some(host) => Ok(Found { host, epoch }),
        None => translate(thread, pc, Extent::Cold),
    }
}

/// Code for exactly the one instruction at `pc`, known to nobody else.
pub fn single(thread: &Thread, pc: u64) -> Result<Found, TranslateError> {
    translate(thread, pc, Extent::Single)
}

/// Code for `pc`, which an exit leads to whose stub's data is at host address `data`; afterwards that exit leads there directly.
pub fn follow(thread: &Thread, data: u64, pc: u64) -> Result<Found, TranslateError> {
    let from = thread.host.epoch();
    let found = match with(|c| (from == epoch()).then(|| c.follow(data, pc))).flatten() {
        Some(Next::Known(host)) => return Ok(Found { host, epoch: from }),
        Some(Next::Loop) => translate(thread, pc, Extent::Loop)?,
        // A loop must come to be in one region, else its rounds are not seen.
        Some(Next::Unknown { back }) => {
            translate_from(thread, pc, Extent::Cold, Watched { whole: back, ..Watched::default() })?
        }
        None => find(thread, pc)?,
    };
    with(|c| {
        if from == epoch() {
            c.link(data);
        }
    });
    Ok(found)
}

/// Guest code for a translation that runs once, at once: its page is not watched, because the instruction may be one that writes to it.
struct Unwatched;

impl GuestCode for Unwatched {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let mut got = 0;
        while got < buf.len() {
            let at = addr.wrapping_add(got as u64);
            if !crate::memory::prot_at(at).is_some_and(|p| p.contains(crate::memory::vmas::Prot::EXEC)) {
                break;
            }
            let n = (buf.len() - got).min(4096 - (at % 4096) as usize);
            let read = crate::memory::access::read_some(at, &mut buf[got..got + n]);
            got += read;
            if read < n {
                break;
            }
        }
        got
    }

    fn is_vdso(&self, addr: u64) -> bool {
        crate::memory::Code.is_vdso(addr)
    }
}

fn translate(thread: &Thread, pc: u64, extent: Extent) -> Result<Found, TranslateError> {
    translate_from(thread, pc, extent, Watched::default())
}

fn translate_from(thread: &Thread, pc: u64, extent: Extent, mut watched: Watched) -> Result<Found, TranslateError> {
    let Some(engine) = crate::engine::installed() else { return Err(TranslateError::Fetch(pc)) };
    // Code that other threads rewrite all the time is still translated at some point; it is then good for one run only.
    const TRIES: u32 = 16;
    let mut tries = 0;
    loop {
        tries += 1;
        let generation = crate::memory::generation();
        watched.unwatched.get_mut().clear();
        let ordering = if ORDERED.load(Mem::Relaxed) { Ordering::Tso } else { Ordering::Plain };
        let single = extent == Extent::Single;
        let make = |ordering| {
            let fp_traps = TRAPPING.load(Mem::Relaxed);
            let request = Request { pc, ordering, extent, fp_traps, flushes: fp::some_thread_flushes() };
            if single { engine.translate(request, &Unwatched) } else { engine.translate(request, &watched) }
        };
        let mut t = make(ordering)?;
        if has_unaligned(&t.depends) {
            t = make(Ordering::Fenced)?;
        }
        if t.words.is_empty() {
            return Err(TranslateError::Fetch(pc));
        }
        let mut listed = !single && tries < TRIES;
        let unwatched = watched.unwatched.get_mut();
        if listed && !unwatched.is_empty() {
            let bytes = parts(unwatched, &t.depends);
            listed = checked::add_check(&mut t, &bytes);
        }
        let found = with(|c| {
            if listed {
                if crate::memory::generation() != generation {
                    return Err(());
                }
                if let Some(host) = c.entry(pc)
                    && extent != Extent::Loop
                {
                    return Ok(Some(Found { host, epoch: epoch() }));
                }
            }
            let host = c.publish(&t, listed, extent);
            if let (Some(host), true) = (host, listed) {
                c.remember(pc, host);
            }
            Ok(host.map(|host| Found { host, epoch: epoch() }))
        });
        match found {
            Some(Ok(Some(found))) => {
                engine.recycle(t);
                return Ok(found);
            }
            Some(Ok(None)) => flush(thread),
            Some(Err(())) => {}
            None => return Err(TranslateError::Fetch(pc)),
        }
    }
}

/// Guest code as a translation reads it: what it read is watched, but for the pages that are checked.
#[derive(Default)]
struct Watched {
    /// What is translated already is translated again where it belongs to the region.
    whole: bool,
    /// What was read from such pages, at which address; each byte once, however often it is asked for.
    unwatched: RefCell<Vec<(u64, Vec<u8>)>>,
}

impl Watched {
    /// Reads from a checked page; `buf` does not go on to another one.
    fn fetch_unwatched(&self, at: u64, buf: &mut [u8]) -> usize {
        let mut known = self.unwatched.borrow_mut();
        let mut limit = buf.len();
        for (start, bytes) in known.iter() {
            if (*start..*start + bytes.len() as u64).contains(&at) {
                let from = &bytes[(at - start) as usize..];
                let n = from.len().min(limit);
                buf[..n].copy_from_slice(&from[..n]);
                return n;
            }
            if *start > at {
                limit = limit.min((start - at) as usize);
            }
        }
        let n = Unwatched.fetch(at, &mut buf[..limit]);
        if n != 0 {
            known.push((at, buf[..n].to_vec()));
        }
        n
    }
}

/// What of `ranges` is in `pieces` (addresses and bytes), as pieces again.
fn parts<'a>(pieces: &'a [(u64, Vec<u8>)], ranges: &[Range<u64>]) -> Vec<(u64, &'a [u8])> {
    let mut all = Vec::new();
    for r in ranges {
        for (start, bytes) in pieces {
            let (from, to) = (r.start.max(*start), r.end.min(start + bytes.len() as u64));
            if from < to {
                all.push((from, &bytes[(from - start) as usize..(to - start) as usize]));
            }
        }
    }
    all
}

impl GuestCode for Watched {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        if CHECKED.load(Mem::Relaxed) == 0 {
            return crate::memory::Code.fetch(addr, buf);
        }
        let mut got = 0;
        while got < buf.len() {
            let at = addr.wrapping_add(got as u64);
            let n = (buf.len() - got).min(4096 - (at % 4096) as usize);
            let part = &mut buf[got..got + n];
            let checked = is_checked(at);
            let read = if checked { self.fetch_unwatched(at, part) } else { crate::memory::Code.fetch(at, part) };
            got += read;
            if read == 0 || read < n && !checked {
                break;
            }
        }
        got
    }

    fn is_translated(&self, addr: u64) -> bool {
        !self.whole && PLACES.get().is_some_and(|p| probe(p.lookup, addr).is_some())
    }

    fn is_vdso(&self, addr: u64) -> bool {
        crate::memory::Code.is_vdso(addr)
    }
}

fn written() -> MutexGuard<'static, BTreeMap<u64, u32>> {
    WRITTEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A write to a watched page at `addr` faulted. Only for the fault handler that interrupted translated code or a helper.
pub fn note_write(addr: u64) {
    let mut written = written();
    let n = written.entry(addr >> 12).or_insert(0);
    if *n < TOO_OFTEN {
        *n += 1;
        if *n == TOO_OFTEN {
            CHECKED.fetch_add(1, Mem::Relaxed);
        }
    }
}

/// The check in front of the code for `pc` found other bytes. If the code, which `writes`, may have written them itself its pages are watched again for good,
/// because a check sees a change only at the next entry, but x86 at the next instruction.
pub fn changed(pc: u64, writes: bool) {
    let mut written = written();
    let mut note = |page| {
        let n = written.entry(page).or_insert(0);
        let checked = (TOO_OFTEN..=CHANGED).contains(n);
        if writes {
            *n = ALWAYS_WATCHED;
            CHECKED.fetch_sub(u32::from(checked), Mem::Relaxed);
        } else if checked {
            *n = CHANGED;
        }
    };
    // Others made from these bytes have checks of their own.
    with(|c| c.forget(pc, &mut note));
}

/// Watches the pages again whose code was checked since the last time and did not change.
pub fn watch_again() {
    let mut still = Vec::new();
    for (page, n) in written().iter_mut() {
        match *n {
            CHANGED => *n = TOO_OFTEN,
            TOO_OFTEN => {
                *n = 0;
                still.push(*page);
            }
            _ => {}
        }
    }
    for page in still {
        CHECKED.fetch_sub(1, Mem::Relaxed);
        invalidate(page << 12..(page + 1) << 12);
    }
}

/// Whether code on the page of `addr` is checked at each entry.
pub fn is_checked(addr: u64) -> bool {
    CHECKED.load(Mem::Relaxed) != 0
        && written().get(&(addr >> 12)).is_some_and(|n| (TOO_OFTEN..ALWAYS_WATCHED).contains(n))
}

/// Code made from any byte of `range` is not started any more; threads inside it leave at their next exit. Called after the bytes
/// or their protection changed, also in a fault handler.
pub fn invalidate(range: Range<u64>) {
    with(|c| c.invalidate(&range));
}

fn unaligned() -> MutexGuard<'static, BTreeSet<u64>> {
    UNALIGNED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_unaligned(made_from: &[Range<u64>]) -> bool {
    let set = unaligned();
    !set.is_empty() && made_from.iter().any(|r| set.range(r.clone()).next().is_some())
}

/// The guest instruction at `rip` made an unaligned access the host does not take: its region is made anew with [`Ordering::Fenced`]. Only for the
/// fault handler that interrupted translated code. False when that was done before and the region is alive: it does not help.
pub fn note_unaligned(rip: u64, host_pc: u64) -> bool {
    let new = unaligned().insert(rip);
    if !new && !is_dead(host_pc) {
        return false;
    }
    invalidate(rip..rip + 1);
    true
}

/// From now on translated code orders memory accesses as x86 does. Only while no other thread runs guest code.
pub fn set_ordered() {
    if ORDERED.load(Mem::SeqCst) {
        return;
    }
    crate::store::save();
    ORDERED.store(true, Mem::SeqCst);
    if with(|c| c.stats.regions + c.stats.adopted) > Some(0) {
        let current = thread::current();
        // SAFETY: the record of the calling thread is alive while it runs; only shared access is made of it.
        match unsafe { current.as_ref() } {
            Some(t) => flush(t),
            None => empty(),
        }
    }
}

/// The memory order that code is made for now; `None` while there is more to it, so that code is for this process alone.
pub fn regime() -> Option<Ordering> {
    let plain = !TRAPPING.load(Mem::Relaxed) && !fp::some_thread_flushes();
    plain.then(|| if ORDERED.load(Mem::Relaxed) { Ordering::Tso } else { Ordering::Plain })
}

/// Takes the regions of an image that was checked against guest memory as it was in `generation`, and is for `ordering`. False when either is
/// not so any more, or there is no space.
pub fn adopt(image: Image, fd: i32, generation: u64, ordering: Ordering) -> bool {
    with(|c| still(generation, ordering) && c.adopt(image, fd)).unwrap_or(false)
}

/// Whether guest code is as it was in `generation`, and translated for `ordering`. Under the lock, both stay so.
fn still(generation: u64, ordering: Ordering) -> bool {
    crate::memory::generation() == generation && regime() == Some(ordering)
}

/// See [`Cache::made`].
pub fn made(since: usize, guest: &Range<u64>) -> (usize, usize) {
    with(|c| c.made(since, guest)).unwrap_or_default()
}

/// See [`Cache::image`]; `theirs` was checked against guest memory as it was in `generation`. `None` also where that, or `ordering`, is not so any more.
pub fn image(
    key: [u64; 2],
    guest: &Range<u64>,
    theirs: Option<&Image>,
    generation: u64,
    ordering: Ordering,
) -> Option<Vec<u8>> {
    let written = written().keys().copied().collect();
    let read = |r: Range<u64>, buf: &mut [u8]| crate::memory::access::read_some(r.start, buf) == buf.len();
    with(|c| still(generation, ordering).then(|| c.image(key, guest, theirs, &written, read))).flatten().flatten()
}

/// From now on translated code looks for unmasked SSE exceptions. False when it did already.
pub fn set_trapping(thread: &Thread) -> bool {
    let first = !TRAPPING.swap(true, Mem::SeqCst);
    if first {
        flush(thread);
    }
    first
}

/// Empties the cache: waits until no other thread is in translated code, and makes them all find their way anew. The caller is not in
/// translated code nor in a helper.
pub fn flush(thread: &Thread) {
    let before = epoch();
    let _one = flush_guard();
    // Somebody else may have emptied it while this thread waited.
    if epoch() == before {
        STOPPING.store(1, Mem::SeqCst);
        thread::stop_others(thread);
        empty();
        crate::store::adopt_again();
        STOPPING.store(0, Mem::SeqCst);
        thread::futex_wake(&STOPPING);
    }
}

fn empty() {
    with(|c| {
        c.reset();
        EPOCH.fetch_add(1, Mem::SeqCst)
    });
}

/// A thread's way past a running [`flush`].
pub struct Gate;

impl Gate {
    /// Says that `thread` is about to enter translated code it found in `epoch`. False: the code is gone (and the flag is down), find it again.
    pub fn enter(thread: &Thread, epoch: u64) -> bool {
        thread.host.inside.store(true, Mem::SeqCst);
        if STOPPING.load(Mem::SeqCst) == 0 && EPOCH.load(Mem::SeqCst) == epoch {
            return true;
        }
        Gate::leave(thread);
        while STOPPING.load(Mem::SeqCst) != 0 {
            thread::futex_wait(&STOPPING, 1);
        }
        false
    }

    pub fn leave(thread: &Thread) {
        thread.host.inside.store(false, Mem::Release);
    }
}

/// The guest instruction that host address `pc` is part of, and how to read its flags.
pub fn guest_at(pc: u64) -> Option<(u64, FlagForm)> {
    with(|c| c.region_at(pc)?.1.guest_at(pc))?
}

/// Whether a fault at host address `pc` is to be found again by single instructions (see [`crate::engine::Mark`]).
pub fn replays(pc: u64) -> bool {
    with(|c| Some(c.region_at(pc)?.1.replays(pc))).flatten().unwrap_or(false)
}

/// The guest address that an entry or landing at host address `pc` stands for.
pub fn point_at(pc: u64) -> Option<u64> {
    with(|c| c.region_at(pc)?.1.point_at(pc))?
}

/// Whether the region host address `pc` is in was invalidated.
pub fn is_dead(pc: u64) -> bool {
    with(|c| c.is_dead(pc)).unwrap_or(false)
}

/// See [`Cache::mend`].
pub fn mend(pc: u64) -> Mended {
    with(|c| c.mend(pc)).unwrap_or(Mended::No)
}

/// See [`Cache::trapped`].
pub fn trapped(pc: u64) -> Trapped {
    with(|c| c.trapped(pc)).unwrap_or(Trapped::Again)
}

/// See [`Cache::stop_at`].
pub fn stop_at(pc: u64) -> Option<Stop> {
    with(|c| c.stop_at(pc))?
}

/// See [`Cache::stopped`]. Nothing is left of a stop from before the cache was emptied.
pub fn stopped(stop: Stop, epoch: u64) {
    with(|c| {
        if self::epoch() == epoch {
            c.stopped(stop);
        }
    });
}

/// In a forked child, whose one thread is in no translated code: nobody is left to be stopped.
pub fn forked() {
    with(|c| c.forked());
}

/// Keeps others from emptying the cache.
pub struct FlushGuard(#[allow(dead_code)] MutexGuard<'static, ()>);

/// See [`FlushGuard`]. Before any other lock: emptying the cache waits for threads that may need those.
pub fn flush_guard() -> FlushGuard {
    FlushGuard(FLUSHING.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Holds the cache's other locks across fork, so that the child gets them free.
pub struct ForkGuard {
    _unaligned: MutexGuard<'static, BTreeSet<u64>>,
    _written: MutexGuard<'static, BTreeMap<u64, u32>>,
    _cache: MutexGuard<'static, Option<Cache>>,
}

/// See [`ForkGuard`]. After the memory lock.
pub fn fork_guard() -> ForkGuard {
    ForkGuard { _unaligned: unaligned(), _written: written(), _cache: lock() }
}
