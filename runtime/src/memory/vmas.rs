//! The guest's mappings as a map of disjoint ranges: what is where, with which rights. A plain data structure, it calls
//! nobody and does not know which pages the host has really mapped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use bitflags::bitflags;

bitflags! {
    /// Rights of the guest to a page, with the values of PROT_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Prot: u8 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

impl Prot {
    /// What the host page is given: guest code is data to the host, and every x86 page that can be written or
    /// executed can be read too (SDM vol. 3, 4.6).
    pub fn host(self) -> i32 {
        if self.contains(Prot::WRITE) {
            libc::PROT_READ | libc::PROT_WRITE
        } else if self.is_empty() {
            libc::PROT_NONE
        } else {
            libc::PROT_READ
        }
    }
}

/// What a mapping is for; decides its name in /proc/self/maps and how it may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Anon,
    File,
    Heap,
    Stack,
    Vdso,
    /// A System V segment attached here; its size in pages.
    Shm(u32),
    /// An anonymous mapping that extends downwards when the page below is touched (MAP_GROWSDOWN).
    GrowsDown,
}

/// One mapping. Neighbours that are equal in all fields (and continue each other's file) are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    pub prot: Prot,
    pub shared: bool,
    pub kind: Kind,
    /// Device and inode, known for shared file mappings only: there a page can be written through another address.
    pub file: Option<(u64, u64)>,
    /// File offset of the first byte, for mappings with a `file`; else 0.
    pub offset: u64,
}

impl Vma {
    pub fn anon(prot: Prot, kind: Kind) -> Vma {
        Vma { prot, shared: false, kind, file: None, offset: 0 }
    }

    /// The same mapping seen from `by` bytes further on.
    fn advanced(self, by: u64) -> Vma {
        Vma { offset: if self.file.is_some() { self.offset + by } else { 0 }, ..self }
    }
}

/// Disjoint ranges of guest addresses with a [`Vma`] each, in order.
#[derive(Debug, Default)]
pub struct Vmas {
    map: BTreeMap<u64, (u64, Vma)>,
    /// What [`Vmas::at`] found last; `None` after a change.
    last: Cell<Option<(u64, u64, Vma)>>,
}

impl Vmas {
    pub const fn new() -> Vmas {
        Vmas { map: BTreeMap::new(), last: Cell::new(None) }
    }

    /// The mapping that contains `addr`.
    pub fn at(&self, addr: u64) -> Option<(Range<u64>, Vma)> {
        if let Some((start, end, vma)) = self.last.get()
            && (start..end).contains(&addr)
        {
            return Some((start..end, vma));
        }
        let (&start, &(end, vma)) = self.map.range(..=addr).next_back()?;
        if addr >= end {
            return None;
        }
        self.last.set(Some((start, end, vma)));
        Some((start..end, vma))
    }

    /// The lowest mapping that starts above `addr`.
    pub fn above(&self, addr: u64) -> Option<(Range<u64>, Vma)> {
        let (&start, &(end, vma)) = self.map.range(addr + 1..).next()?;
        Some((start..end, vma))
    }

    /// The highest mapping that ends at or below `addr`, or contains it.
    pub fn below(&self, addr: u64) -> Option<(Range<u64>, Vma)> {
        let (&start, &(end, vma)) = self.map.range(..addr).next_back()?;
        Some((start..end, vma))
    }

    /// All mappings, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, Vma)> + '_ {
        self.map.iter().map(|(&s, &(e, v))| (s..e, v))
    }

    /// The parts of mappings that lie in `r`, lowest first, cut to it.
    pub fn parts(&self, r: Range<u64>) -> Vec<(Range<u64>, Vma)> {
        let first = self.map.range(..=r.start).next_back().map_or(r.start, |(&s, _)| s);
        let mut out = Vec::new();
        if r.is_empty() {
            return out;
        }
        for (&s, &(e, v)) in self.map.range(first..r.end) {
            if e > r.start {
                let from = s.max(r.start);
                out.push((from..e.min(r.end), v.advanced(from - s)));
            }
        }
        out
    }

    /// Whether no mapping touches `r`.
    pub fn is_free(&self, r: Range<u64>) -> bool {
        match self.map.range(..r.end).next_back() {
            Some((_, &(end, _))) => end <= r.start,
            None => true,
        }
    }

    /// Whether every byte of `r` is mapped.
    pub fn covers(&self, r: Range<u64>) -> bool {
        self.gaps(r).is_empty()
    }

    /// The unmapped parts of `r`, lowest first.
    pub fn gaps(&self, r: Range<u64>) -> Vec<Range<u64>> {
        let mut out = Vec::new();
        let mut at = r.start;
        for (part, _) in self.parts(r.clone()) {
            if part.start > at {
                out.push(at..part.start);
            }
            at = part.end;
        }
        if at < r.end {
            out.push(at..r.end);
        }
        out
    }

    /// Forgets everything in `r`.
    pub fn remove(&mut self, r: Range<u64>) {
        if r.is_empty() {
            return;
        }
        self.last.set(None);
        self.split(r.start);
        self.split(r.end);
        let keys: Vec<u64> = self.map.range(r).map(|(&s, _)| s).collect();
        for k in keys {
            self.map.remove(&k);
        }
    }

    /// Puts `vma` at `r`, over whatever was there.
    pub fn insert(&mut self, r: Range<u64>, vma: Vma) {
        if r.is_empty() {
            return;
        }
        self.remove(r.clone());
        self.map.insert(r.start, (r.end, vma));
        self.merge(r.start);
        self.merge(r.end);
    }

    /// Changes every mapping in `r`.
    pub fn update(&mut self, r: Range<u64>, f: impl Fn(&mut Vma)) {
        if r.is_empty() {
            return;
        }
        self.last.set(None);
        self.split(r.start);
        self.split(r.end);
        let mut keys = Vec::new();
        for (&s, (_, v)) in self.map.range_mut(r.clone()) {
            f(v);
            keys.push(s);
        }
        keys.push(r.end);
        for k in keys {
            self.merge(k);
        }
    }

    /// Makes `at` a boundary.
    fn split(&mut self, at: u64) {
        if let Some((&start, slot)) = self.map.range_mut(..at).next_back()
            && slot.0 > at
        {
            let (end, vma) = *slot;
            slot.0 = at;
            self.map.insert(at, (end, vma.advanced(at - start)));
        }
    }

    /// Joins the mappings on both sides of `at` when they are one.
    fn merge(&mut self, at: u64) {
        let Some(&(end, right)) = self.map.get(&at) else {
            return;
        };
        let Some((&start, left)) = self.map.range_mut(..at).next_back() else {
            return;
        };
        if left.0 == at && left.1.advanced(at - start) == right && !matches!(right.kind, Kind::Shm(_)) {
            left.0 = end;
            self.map.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anon(prot: Prot) -> Vma {
        Vma::anon(prot, Kind::Anon)
    }

    #[test]
    fn insert_over_and_merge() {
        let mut m = Vmas::new();
        let rw = anon(Prot::READ | Prot::WRITE);
        m.insert(0x1000..0x5000, rw);
        m.insert(0x5000..0x6000, rw);
        assert_eq!(m.iter().collect::<Vec<_>>(), [(0x1000..0x6000, rw)]);
        m.update(0x2000..0x3000, |v| v.prot = Prot::READ);
        assert_eq!(m.iter().count(), 3);
        m.update(0x2000..0x3000, |v| v.prot = rw.prot);
        assert_eq!(m.iter().count(), 1);
        m.remove(0x3000..0x4000);
        assert_eq!(m.gaps(0x0..0x7000), [0..0x1000, 0x3000..0x4000, 0x6000..0x7000]);
        assert!(m.is_free(0x3000..0x4000) && !m.is_free(0x2fff..0x3001));
        assert!(m.covers(0x1000..0x3000) && !m.covers(0x1000..0x3001));
    }

    #[test]
    fn file_offsets_follow_splits() {
        let mut m = Vmas::new();
        let f = Vma { prot: Prot::READ, shared: true, kind: Kind::File, file: Some((1, 2)), offset: 0x8000 };
        m.insert(0x10000..0x14000, f);
        m.remove(0x11000..0x12000);
        assert_eq!(m.at(0x12000).map(|(r, v)| (r, v.offset)), Some((0x12000..0x14000, 0xa000)));
        m.insert(0x11000..0x12000, Vma { offset: 0x9000, ..f });
        assert_eq!(m.iter().count(), 1);
        m.insert(0x11000..0x12000, Vma { offset: 0, ..f });
        assert_eq!(m.iter().count(), 3);
    }

    /// Against one entry per page, under random edits.
    #[test]
    fn agrees_with_a_page_array() {
        let mut m = Vmas::new();
        let mut model = [None::<Prot>; 64];
        let mut seed = 1u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..20_000 {
            let a = next(64);
            let b = a + next(65 - a);
            let p = Prot::from_bits_truncate(next(8) as u8);
            let r = a * 4096..b * 4096;
            match next(3) {
                0 => {
                    m.insert(r, anon(p));
                    model[a as usize..b as usize].fill(Some(p));
                }
                1 => {
                    m.remove(r);
                    model[a as usize..b as usize].fill(None);
                }
                _ => {
                    m.update(r, |v| v.prot = p);
                    model[a as usize..b as usize].iter_mut().flatten().for_each(|x| *x = p);
                }
            }
            for (i, want) in model.iter().enumerate() {
                assert_eq!(m.at(i as u64 * 4096).map(|(_, v)| v.prot), *want);
            }
            let all: Vec<_> = m.iter().collect();
            for w in all.windows(2) {
                assert!(w[0].0.end < w[1].0.start || w[0].0.end == w[1].0.start && w[0].1 != w[1].1);
            }
        }
    }
}
