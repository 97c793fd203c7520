//! One translated region after publication: where it lies, how it is linked to others, and how a host pc in it is read back as a
//! guest instruction. Offsets are in bytes from the region's start.

use crate::engine::{Extent, FlagForm, Mark, Translation};
use std::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Index of a region in the cache; valid until the cache is emptied.
pub type RegionId = u32;
/// No region, no offset.
pub const NONE: u32 = u32::MAX;

/// An [`crate::engine::Exit`] and where it leads now.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub site: u32,
    pub stub: u32,
    pub target: u64,
    /// The word inside the region a back edge leads to, or [`NONE`].
    pub inside: u32,
    /// The region it leads to, or [`NONE`] while it leads to its stub. A back edge leads to its own region.
    pub to: RegionId,
    /// The stub's first word, if it was replaced by a B because the site cannot reach the target. Else 0.
    pub saved: u32,
}

/// A host word other code may come to, and the guest address it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub offset: u32,
    pub guest: u64,
}

/// See [`crate::engine::Mark`]. Packed, because there is one for nearly every guest instruction: the guest address as a difference from the
/// region's entry, or an index into `far` when that does not fit.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PackedMark {
    offset: u32,
    /// Bits 0-1 flag form or [`REPLAY`], bit 2 far, the rest signed.
    packed: i32,
}

/// See the file's head.
#[derive(Debug)]
pub struct Region {
    /// Host address.
    pub start: u64,
    pub bytes: u32,
    /// May new code lead here? A dead region is kept for threads still in it and for return addresses that lead to it.
    pub alive: bool,
    /// Threads told to leave it at their next boundary and not yet out: until they are, its exits stay unlinked.
    pub stopping: u32,
    pub extent: Extent,
    /// How often control came back to it as to the head of a loop.
    pub rounds: u32,
    pub entries: Box<[Point]>,
    pub landings: Box<[Point]>,
    pub links: Box<[Link]>,
    /// Links of other regions that lead here: (region, link). May name links that have moved on since.
    pub incoming: Vec<(RegionId, u32)>,
    pub depends: Box<[Range<u64>]>,
    pub marks: Box<[PackedMark]>,
    pub far: Box<[u64]>,
    /// One of its words was replaced by a jump to a stub (see [`super::unaligned`]).
    pub mended: bool,
    /// Set in a stub that stands in for one word of a region (see [`super::unaligned`]): the host address it goes back to.
    pub back: Option<u64>,
}

const FAR: i32 = 4;
/// In place of a form: flags as they are, and [`crate::engine::Mark::replay`].
const REPLAY: i32 = 3;

fn form(bits: i32) -> FlagForm {
    match bits & 3 {
        1 => FlagForm::CarryInverted,
        2 => FlagForm::FloatCompare,
        _ => FlagForm::Direct,
    }
}

impl Region {
    /// The tables of `t`, as if copied to host address `start` and its back edges, as they are, linked.
    pub fn new(start: u64, id: RegionId, t: &Translation, extent: Extent) -> Region {
        let point = |e: &crate::engine::Entry| Point { offset: 4 * e.word, guest: e.guest };
        let base = t.entries.first().map_or(0, |e| e.guest);
        let mut far = Vec::new();
        let pack = |m: &Mark| {
            let flags = match m.flags {
                _ if m.replay => REPLAY,
                FlagForm::Direct => 0,
                FlagForm::CarryInverted => 1,
                FlagForm::FloatCompare => 2,
            };
            let delta = m.guest.wrapping_sub(base) as i64;
            let packed = if delta.unsigned_abs() < 1 << 27 {
                (delta as i32) << 3 | flags
            } else {
                far.push(m.guest);
                ((far.len() as i32 - 1) << 3) | FAR | flags
            };
            PackedMark { offset: 4 * m.word, packed }
        };
        let marks = t.marks.iter().map(pack).collect();
        let links = t
            .exits
            .iter()
            .map(|e| Link {
                site: 4 * e.site,
                stub: 4 * e.stub,
                target: e.target,
                inside: e.inside.map_or(NONE, |w| 4 * w),
                to: if e.inside.is_some() { id } else { NONE },
                saved: 0,
            })
            .collect();
        Region {
            start,
            bytes: 4 * t.words.len() as u32,
            alive: true,
            stopping: 0,
            extent,
            rounds: 0,
            entries: t.entries.iter().map(point).collect(),
            landings: t.landings.iter().map(point).collect(),
            links,
            incoming: Vec::new(),
            depends: t.depends.as_slice().into(),
            marks,
            far: far.into_boxed_slice(),
            mended: false,
            back: None,
        }
    }

    /// Whether host address `pc` is in this region.
    pub fn contains(&self, pc: u64) -> bool {
        pc >= self.start && pc - self.start < u64::from(self.bytes)
    }

    fn mark_at(&self, pc: u64) -> Option<PackedMark> {
        let offset = (pc - self.start) as u32;
        let i = self.marks.partition_point(|m| m.offset <= offset).checked_sub(1)?;
        Some(self.marks[i])
    }

    /// Whether a fault at host address `pc` is to be found again by single instructions.
    pub fn replays(&self, pc: u64) -> bool {
        self.mark_at(pc).is_some_and(|m| m.packed & 3 == REPLAY)
    }

    /// The guest instruction that the word at host address `pc` is part of.
    pub fn guest_at(&self, pc: u64) -> Option<(u64, FlagForm)> {
        let m = self.mark_at(pc)?;
        let guest = if m.packed & FAR != 0 {
            self.far[(m.packed >> 3) as usize]
        } else {
            self.entries[0].guest.wrapping_add((m.packed >> 3) as i64 as u64)
        };
        Some((guest, form(m.packed)))
    }

    /// The guest address that the entry or landing at host address `pc` stands for.
    pub fn point_at(&self, pc: u64) -> Option<u64> {
        let offset = (pc - self.start) as u32;
        self.entries.iter().chain(&*self.landings).find(|p| p.offset == offset).map(|p| p.guest)
    }

    /// Whether the region was made from any byte of `range`.
    pub fn depends_on(&self, range: &Range<u64>) -> bool {
        self.depends.iter().any(|d| d.start < range.end && range.start < d.end)
    }

    /// Calls `f` with each page (number of 4 KiB) the region was made from, once.
    pub fn each_page(&self, mut f: impl FnMut(u64)) {
        let pages = |d: &Range<u64>| d.start >> 12..=d.end.saturating_sub(1).max(d.start) >> 12;
        let mut last = None;
        for (n, d) in self.depends.iter().enumerate() {
            for page in pages(d) {
                // Most regions are of one page.
                if last.replace(page) != Some(page) && !self.depends[..n].iter().any(|d| pages(d).contains(&page)) {
                    f(page);
                }
            }
        }
    }

    /// Those pages.
    pub fn pages(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        self.each_page(|page| pages.push(page));
        pages
    }
}
