//! The tables of the code cache and every change to them: publication, linking, invalidation. Pure bookkeeping plus patches to the arena;
//! the lock around it, and the threads, are the parent module's.
//!
//! Invariants: a live region's entries and links lead only to live regions; a lookup slot leads only to a live region; space of dead
//! regions is not reused before [`Cache::reset`].

use super::adopted::{ADOPTED, Images};
use super::arena::Arena;
use super::branch;
use super::region::{Link, NONE, Point, Region, RegionId};
use super::unaligned;
use crate::engine::{Entry, Extent, Mark, Translation};
use crate::store::image::{Image, Piece, build};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Addresses need no protection against chosen collisions: one multiplication spreads them.
#[derive(Clone, Copy, Default)]
pub struct AddrHasher(u64);

impl Hasher for AddrHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        // 2^64 / golden ratio. hashbrown takes the bucket from the low bits and the tag from the high ones.
        let h = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = h ^ h >> 32;
    }
}

pub type AddrBuild = BuildHasherDefault<AddrHasher>;
type AddrMap<V> = HashMap<u64, V, AddrBuild>;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub regions: u64,
    pub words: u64,
    /// Regions that came from files; not among `regions`.
    pub adopted: u64,
    pub links: u64,
    pub invalidated: u64,
    pub flushes: u64,
}

/// What was done to stop a thread (see [`Cache::stop_at`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    region: RegionId,
    tail: Option<u64>,
}

/// A register branch replaced by a trap while threads are being stopped.
#[derive(Clone, Copy, Debug)]
struct Tail {
    at: u64,
    word: u32,
    users: u32,
}

/// How often control goes round a loop before it is translated anew in one piece: that costs what some hundred rounds in small regions do, and many loops
/// of a short run end before.
const ROUNDS: u32 = 6;

/// See the file's head.
pub struct Cache {
    pub arena: Arena,
    /// Made by this process, in order of address.
    regions: Vec<Region>,
    images: Images,
    /// Guest address of an entry -> its host address and region.
    entries: AddrMap<(u64, RegionId)>,
    /// Guest page number -> regions made from it, but for those in `unsorted`.
    pages: AddrMap<Vec<RegionId>>,
    /// (Page, region) of the latest: most code is never written, so nobody may ask.
    unsorted: Vec<(u64, RegionId)>,
    tails: Vec<Tail>,
    /// The region that was asked for last: an exit is followed and then linked.
    recent: RegionId,
    pub stats: Stats,
}

/// What a host address in the arena is, when a thread trapped or faulted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trapped {
    /// An entry or landing of a dead region: continue at this guest address.
    Dead(u64),
    /// A replaced register branch: the host register with its target.
    Tail(u32),
    /// The word is no trap (any more): run it again.
    Again,
}

/// What became of an access that was not aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// Run it again.
    Yes,
    /// It is not of a form that can be mended.
    No,
    /// There is no space.
    Full,
}

/// See [`Cache::follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To the entry at this host address.
    Known(u64),
    /// It was not translated yet. `back`: the exit goes back from further on, so there may be a loop.
    Unknown { back: bool },
    /// It is the head of a loop, and worth a region that holds all of it.
    Loop,
}

impl Cache {
    pub fn new(arena: Arena) -> Cache {
        Cache {
            arena,
            regions: Vec::new(),
            images: Images::default(),
            entries: AddrMap::default(),
            pages: AddrMap::default(),
            unsorted: Vec::new(),
            tails: Vec::new(),
            recent: 0,
            stats: Stats::default(),
        }
    }

    /// Host address of the entry for `guest`.
    pub fn entry(&self, guest: u64) -> Option<u64> {
        self.known(guest).map(|e| e.0)
    }

    /// The entry for `guest`: its host address and region. What this process made goes before what came from a file.
    fn known(&self, guest: u64) -> Option<(u64, RegionId)> {
        self.entries.get(&guest).copied().or_else(|| self.images.entry(guest))
    }

    /// The tables of a region.
    fn at(&mut self, id: RegionId) -> &mut Region {
        if id & ADOPTED == 0 { &mut self.regions[id as usize] } else { self.images.region(id) }
    }

    /// The region host address `pc` is in.
    pub fn region_at(&mut self, pc: u64) -> Option<(RegionId, &Region)> {
        let id = self.id_at(pc)?;
        Some((id, self.at(id)))
    }

    fn id_at(&mut self, pc: u64) -> Option<RegionId> {
        if self.regions.get(self.recent as usize).is_some_and(|r| r.contains(pc)) {
            return Some(self.recent);
        }
        if let Some(id) = self.images.region_at(pc) {
            return Some(id);
        }
        let i = self.regions.partition_point(|r| r.start <= pc).checked_sub(1)?;
        self.recent = i as RegionId;
        self.regions[i].contains(pc).then_some(self.recent)
    }

    /// Copies `t` into the arena and makes its entries known; returns its own entry's host address, `None` when there is no space. With
    /// `listed` false nothing leads to it but the returned address (a single step).
    /// A region of [`Extent::Loop`] takes the place of the one that was known for its entry.
    pub fn publish(&mut self, t: &Translation, listed: bool, extent: Extent) -> Option<u64> {
        let start = self.arena.take(t.words.len())?;
        self.arena.copy(start, &t.words);
        super::arena::sync(start, 4 * t.words.len());
        let id = self.regions.len() as RegionId;
        let region = Region::new(start, id, t, extent);
        if listed {
            if let Some((_, old)) = self.known(region.entries[0].guest) {
                self.retire(old);
            }
            for (i, e) in region.entries.iter().enumerate() {
                let at = (start + u64::from(e.offset), id);
                if i == 0 {
                    self.entries.insert(e.guest, at);
                } else {
                    self.entries.entry(e.guest).or_insert(at);
                }
            }
        }
        let new = &mut self.unsorted;
        region.each_page(|page| new.push((page, id)));
        self.recent = id;
        let host = start + u64::from(region.entries.first().map_or(0, |e| e.offset));
        self.stats.regions += 1;
        self.stats.words += t.words.len() as u64;
        self.regions.push(region);
        Some(host)
    }

    /// Fills the lookup slot of `guest`, whose entry is at `host`.
    pub fn remember(&self, guest: u64, host: u64) {
        let offset = (host - self.arena.lookup()) as u32;
        self.arena.slot(guest).store(offset, Ordering::Release);
    }

    /// Where control goes that left by the stub whose data is at host address `data`, to guest address `pc`. What is known is linked.
    pub fn follow(&mut self, data: u64, pc: u64) -> Next {
        let Some(id) = self.id_at(data) else {
            return self.entry(pc).map_or(Next::Unknown { back: false }, Next::Known);
        };
        let from =
            if id & ADOPTED == 0 { Some(self.regions[id as usize].entries[0].guest) } else { self.images.start(id) };
        let back = from.is_some_and(|from| goes_back(from, pc));
        match self.known(pc) {
            None => Next::Unknown { back },
            // Not linked yet, so that the next round is seen.
            Some((host, region)) if back && self.at(region).extent == Extent::Cold => {
                let rounds = &mut self.at(region).rounds;
                *rounds += 1;
                if *rounds < ROUNDS { Next::Known(host) } else { Next::Loop }
            }
            Some((host, _)) => {
                self.link_from(id, data);
                Next::Known(host)
            }
        }
    }

    /// Links the exits of the stub whose data is at host address `data` to the entry of their target, if the region is alive and the entry
    /// exists.
    pub fn link(&mut self, data: u64) {
        if let Some((id, _)) = self.region_at(data) {
            self.link_from(id, data);
        }
    }

    fn link_from(&mut self, id: RegionId, data: u64) {
        let region = self.at(id);
        // Another thread may be on its way to the exit that this one has come out of.
        if !region.alive || region.stopping > 0 {
            return;
        }
        let offset = (data - region.start) as u32;
        let mut stub = None;
        for l in &*region.links {
            if l.stub < offset && Some(l.stub) > stub {
                stub = Some(l.stub);
            }
        }
        for i in 0..self.at(id).links.len() {
            let l = self.at(id).links[i];
            if Some(l.stub) == stub {
                self.link_one(id, i, l);
            }
        }
    }

    fn link_one(&mut self, id: RegionId, i: usize, l: Link) {
        let start = self.at(id).start;
        let (host, to) = if l.inside != NONE {
            (start + u64::from(l.inside), id)
        } else {
            match self.known(l.target) {
                Some(e) => e,
                None => return,
            }
        };
        if l.to == to && l.saved == 0 && l.inside == NONE {
            // Already linked by another thread; writing it again is harmless but costs cache maintenance on every core.
            let site = start + u64::from(l.site);
            if branch::retarget(self.arena.read(site), (host as i64 - site as i64) >> 2) == Some(self.arena.read(site))
            {
                return;
            }
        }
        let site = start + u64::from(l.site);
        let word = self.arena.read(site);
        let mut saved = l.saved;
        if let Some(word) = branch::retarget(word, (host as i64 - site as i64) >> 2) {
            self.arena.patch(site, word);
        } else {
            let stub = start + u64::from(l.stub);
            let Some(jump) = branch::b((host as i64 - stub as i64) >> 2) else { return };
            let first = self.arena.read(stub);
            // Another exit with the same stub may have replaced it already.
            if first != jump {
                saved = first;
                self.arena.patch(stub, jump);
            }
        }
        self.stats.links += 1;
        let link = &mut self.at(id).links[i];
        link.to = to;
        link.saved = saved;
        if to != id {
            self.at(to).incoming.push((id, i as u32));
        }
    }

    /// Points a link back at its stub.
    fn unlink(&mut self, id: RegionId, i: usize) {
        let region = self.at(id);
        let l = region.links[i];
        let (site, stub) = (region.start + u64::from(l.site), region.start + u64::from(l.stub));
        if l.saved != 0 {
            self.arena.patch(stub, l.saved);
        }
        let word = self.arena.read(site);
        match branch::retarget(word, (stub as i64 - site as i64) >> 2) {
            Some(w) if w != word => self.arena.patch(site, w),
            _ => {}
        }
        let l = &mut self.at(id).links[i];
        l.saved = 0;
        l.to = NONE;
    }

    fn unlink_all(&mut self, id: RegionId) {
        for i in 0..self.at(id).links.len() {
            if self.at(id).links[i].to != NONE {
                self.unlink(id, i);
            }
        }
    }

    /// Makes sure that no code made from a byte of `range` is started any more, and that threads in such code leave it soon. True if there
    /// was any.
    pub fn invalidate(&mut self, range: &Range<u64>) -> bool {
        if range.start >= range.end {
            return false;
        }
        self.sort();
        let pages = range.start >> 12..=(range.end - 1) >> 12;
        let mut dead = Vec::new();
        // A large munmap covers more pages than there are regions.
        if pages.end() - pages.start() < self.pages.len() as u64 {
            for page in pages {
                if let Some(ids) = self.pages.get(&page) {
                    dead.extend_from_slice(ids);
                }
            }
        } else {
            for (page, ids) in &self.pages {
                if pages.contains(page) {
                    dead.extend_from_slice(ids);
                }
            }
        }
        dead.sort_unstable();
        dead.dedup();
        dead.retain(|id| self.regions[*id as usize].depends_on(range));
        dead.extend(self.images.made_from(range));
        for id in &dead {
            self.kill(*id);
        }
        !dead.is_empty()
    }

    /// Kills the region that is entered for `guest`; calls `page` with the number of each page it was made from.
    pub fn forget(&mut self, guest: u64, page: &mut dyn FnMut(u64)) {
        if let Some((_, id)) = self.known(guest) {
            self.sort();
            self.at(id).each_page(page);
            self.kill(id);
        }
    }

    fn sort(&mut self) {
        for (page, id) in self.unsorted.drain(..) {
            self.pages.entry(page).or_default().push(id);
        }
    }

    /// A better region for the same entry exists: links that lead to this one are to be found anew. It stays valid for threads and return
    /// addresses that lead into it.
    fn retire(&mut self, id: RegionId) {
        for (from, i) in std::mem::take(&mut self.at(id).incoming) {
            if self.at(from).links[i as usize].to == id {
                self.unlink(from, i as usize);
            }
        }
    }

    fn kill(&mut self, id: RegionId) {
        self.retire(id);
        self.unlink_all(id);
        let region = if id & ADOPTED == 0 { &mut self.regions[id as usize] } else { self.images.region(id) };
        region.alive = false;
        let start = region.start;
        for p in &*region.entries {
            let host = start + u64::from(p.offset);
            if self.entries.get(&p.guest).is_some_and(|e| e.1 == id) {
                self.entries.remove(&p.guest);
            }
            let slot = self.arena.slot(p.guest);
            if slot.load(Ordering::Relaxed) == (host - self.arena.lookup()) as u32 {
                self.arena.empty(p.guest);
            }
        }
        for Point { offset, .. } in region.entries.iter().chain(&*region.landings) {
            self.arena.patch(start + u64::from(*offset), branch::DEAD);
        }
        let pages = &mut self.pages;
        region.each_page(|page| {
            if let Some(ids) = pages.get_mut(&page) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    pages.remove(&page);
                }
            }
        });
        self.stats.invalidated += 1;
    }

    /// Makes a thread whose host pc is `pc` leave translated code at its next guest instruction boundary, provided its lookups miss and
    /// its next return mismatches: every exit of the region leads to its stub, and a register branch that may have read its target already
    /// becomes a trap. What it returns is to be given to [`Cache::stopped`] when the thread is out.
    pub fn stop_at(&mut self, pc: u64) -> Option<Stop> {
        let pc = self.home(pc);
        let (id, region) = self.region_at(pc)?;
        let end = region.start + u64::from(region.bytes);
        self.unlink_all(id);
        self.at(id).stopping += 1;
        Some(Stop { region: id, tail: self.trap_tail(pc, end) })
    }

    /// Makes the register branch that straight code from `pc` comes to a trap, if there is one.
    fn trap_tail(&mut self, pc: u64, end: u64) -> Option<u64> {
        // Lookup and return sequences are straight but for the branch to their miss path, and shorter than this.
        let mut at = pc;
        for _ in 0..16 {
            if at >= end {
                break;
            }
            if let Some(t) = self.tails.iter_mut().find(|t| t.at == at) {
                t.users += 1;
                return Some(at);
            }
            let word = self.arena.read(at);
            if branch::is_thunk_call(self.arena.read(at - 4), word) {
                // A helper: what follows it reads its targets afresh. Any other thunk: the thread leaves.
                break;
            }
            if branch::register_target(word).is_some() {
                self.tails.push(Tail { at, word, users: 1 });
                self.arena.patch(at, branch::TAIL);
                return Some(at);
            }
            if branch::ends_straight_line(word) {
                break;
            }
            at += 4;
        }
        None
    }

    /// Where a thread at host address `pc` is in a region that guest code was translated to: `pc` itself, or where its stub goes back to.
    fn home(&mut self, pc: u64) -> u64 {
        self.region_at(pc).and_then(|(_, r)| r.back).unwrap_or(pc)
    }

    /// Whether the region host address `pc` is in, or in a stub of, must not be entered any more.
    pub fn is_dead(&mut self, pc: u64) -> bool {
        let home = self.home(pc);
        self.region_at(home).is_some_and(|(_, r)| !r.alive)
    }

    /// The ordered access at host address `pc` met an address that is not aligned: replaces it by a jump to code that bears this. Other threads
    /// may run the word meanwhile; every core there is fetches a word whole, so they see the old one and fault too, or the jump.
    pub fn mend(&mut self, pc: u64) -> Mended {
        let word = self.arena.read(pc);
        let Some((guest, flags)) = self.region_at(pc).and_then(|(_, r)| r.guest_at(pc)) else { return Mended::No };
        if unaligned::stub(word, pc, pc).is_none() {
            // Another thread was first: the jump is there.
            return if branch::ends_straight_line(word) { Mended::Yes } else { Mended::No };
        }
        let t = Translation {
            entries: vec![Entry { guest, word: 0 }],
            marks: vec![Mark { word: 0, guest, flags, replay: self.region_at(pc).is_some_and(|(_, r)| r.replays(pc)) }],
            ..Translation::default()
        };
        let Some(at) = self.arena.take(3) else { return Mended::Full };
        let jump = branch::b((at as i64 - pc as i64) >> 2);
        let (Some(words), Some(jump)) = (unaligned::stub(word, at, pc + 4), jump) else { return Mended::No };
        self.arena.copy(at, &words);
        super::arena::sync(at, 4 * words.len());
        let id = self.regions.len() as RegionId;
        let mut region = Region::new(at, id, &Translation { words: words.to_vec(), ..t }, Extent::Single);
        region.back = Some(pc + 4);
        self.regions.push(region);
        if let Some(id) = self.id_at(pc) {
            self.at(id).mended = true;
        }
        self.arena.patch(pc, jump);
        Mended::Yes
    }

    /// A thread that [`Cache::stop_at`] was called for is out of translated code.
    pub fn stopped(&mut self, stop: Stop) {
        self.at(stop.region).stopping -= 1;
        let Some(i) = self.tails.iter().position(|t| Some(t.at) == stop.tail) else { return };
        self.tails[i].users -= 1;
        if self.tails[i].users == 0 {
            let t = self.tails.swap_remove(i);
            if self.arena.read(t.at) == branch::TAIL {
                self.arena.patch(t.at, t.word);
            }
        }
    }

    /// See [`super::forked`].
    pub fn forked(&mut self) {
        self.regions.iter_mut().chain(self.images.made()).for_each(|r| r.stopping = 0);
        for t in std::mem::take(&mut self.tails) {
            self.arena.patch(t.at, t.word);
        }
    }

    /// What the trap a thread met at host address `pc` means.
    pub fn trapped(&mut self, pc: u64) -> Trapped {
        match self.arena.read(pc) {
            branch::DEAD => {
                let guest = self.region_at(pc).and_then(|(_, r)| r.point_at(pc));
                guest.map_or(Trapped::Again, Trapped::Dead)
            }
            branch::TAIL => {
                let word = self.tails.iter().find(|t| t.at == pc).map(|t| t.word);
                word.and_then(branch::register_target).map_or(Trapped::Again, Trapped::Tail)
            }
            _ => Trapped::Again,
        }
    }

    /// Forgets all code. No thread may be in it or return to it.
    pub fn reset(&mut self) {
        self.regions.clear();
        self.images.0.clear();
        self.entries.clear();
        self.pages.clear();
        self.unsorted.clear();
        self.tails.clear();
        self.arena.reset();
        self.stats.flushes += 1;
    }

    /// Takes the regions of `image`, whose file is open as `fd`, as if they had been translated. False when there is no space.
    pub fn adopt(&mut self, image: Image, fd: i32) -> bool {
        if !self.images.have_room(&image) {
            return false;
        }
        let Some(code) = self.arena.map(fd, image.code_offset(), image.code()) else { return false };
        self.stats.adopted += u64::from(image.count());
        self.images.add(image, code);
        true
    }

    /// How many regions this process made so far, and bytes of code of those from the `since`th on that are of `guest`.
    pub fn made(&self, since: usize, guest: &Range<u64>) -> (usize, usize) {
        let new = self.regions.get(since..).unwrap_or_default();
        let bytes =
            new.iter().filter(|r| r.alive && guest.contains(&r.entries[0].guest)).map(|r| r.bytes as usize).sum();
        (self.regions.len(), bytes)
    }

    /// A file of what is translated of `guest` (see [`build`]), with what `theirs` has besides. Not of the pages in `written` (see
    /// [`super::note_write`]).
    pub fn image(
        &mut self,
        key: [u64; 2],
        guest: &Range<u64>,
        theirs: Option<&Image>,
        written: &HashSet<u64>,
        read: impl Fn(Range<u64>, &mut [u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let own: Vec<RegionId> = self.images.made_from(guest).collect();
        // Their tables are made before any is borrowed.
        own.iter().for_each(|id| {
            self.images.region(*id);
        });
        let mut seen: HashSet<u64, AddrBuild> = HashSet::default();
        seen.reserve(2 * (self.regions.len() + own.len()));
        let mut pieces = Vec::new();
        let fresh = self.regions.iter().enumerate().map(|(n, r)| (n as RegionId, r));
        let adopted = own.iter().filter_map(|id| Some((*id, self.images.peek(*id)?)));
        for (id, region) in adopted.chain(fresh) {
            let current = |guest| self.known(guest).is_some_and(|e| e.1 == id);
            let whole = region.back.is_none() && !region.mended && !self.tails.iter().any(|t| region.contains(t.at));
            let piece = Piece { region, words: self.arena.words(region.start, region.bytes) };
            if region.alive
                && region.extent != Extent::Single
                && whole
                && current(region.entries[0].guest)
                && piece.fits(guest)
                && (written.is_empty() || region.pages().iter().all(|p| !written.contains(p)))
                && seen.insert(region.entries[0].guest)
            {
                pieces.push(piece);
            }
        }
        let others: Vec<(Region, &[u32])> = theirs.map(Image::regions).unwrap_or_default();
        for (region, words) in &others {
            if seen.insert(region.entries[0].guest) {
                pieces.push(Piece { region, words });
            }
        }
        build(key, guest, &pieces, read)
    }

    /// The regions that may run, for tests and tools.
    pub fn live(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|r| r.alive)
    }
}

/// Whether an exit of the region at `from` to `pc` goes back from further on, so that a larger region there would have a loop in one piece.
pub fn goes_back(from: u64, pc: u64) -> bool {
    /// Farther than a region reaches, a backward jump is no loop that fits one.
    const REACH: u64 = 2048;
    from.wrapping_sub(pc) < REACH
}
