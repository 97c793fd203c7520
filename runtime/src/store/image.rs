//! Translations of one mapped file, as another file keeps them: bytes to tables and back. Pure but for unmapping what was mapped.
//!
//! An image belongs to guest code at one address: xrun puts a file at the same place in every process (see the parent module), so that code
//! needs no relocation and processes share its pages. Its exits are linked to each other as far as the image goes. Everything that is a
//! guest address is kept as a distance from the start of the guest's mapping.
//!
//! | part | what |
//! |---|---|
//! | [`Head`] | whose it is, a checksum over all that follows, the length of each part |
//! | records | one for each region, in the order of their code; then one that only ends the last |
//! | points, links, marks, depends, incoming | the regions' tables, one after another |
//! | index | entries by guest address |
//! | ranges, content | the guest bytes that the code was made from |
//! | code | at a multiple of [`CODE_ALIGN`], to the end of the file |

use crate::code::branch;
use crate::code::cache::{AddrBuild, goes_back};
use crate::code::region::{Link, NONE, PackedMark, Point, Region, RegionId};
use crate::engine::Extent;
use std::collections::HashMap;
use std::ops::Range;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The host's page: there is no other size xrun runs with.
const CODE_ALIGN: usize = crate::memory::host::PAGE as usize;

/// What it begins with; the last byte counts changes of the format.
const MAGIC: [u8; 8] = *b"xrunimg\x01";

/// The file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    magic: [u8; 8],
    /// See [`check`].
    check: u64,
    /// What the code was made from and for (see the parent module).
    key: [u64; 2],
    /// The guest's mapping.
    guest: u64,
    len: u64,
    /// Numbers of elements.
    regions: u32,
    points: u32,
    links: u32,
    marks: u32,
    depends: u32,
    incoming: u32,
    index: u32,
    ranges: u32,
    /// Bytes.
    content: u32,
    code: u32,
}

const CHECKED_FROM: usize = 16;

/// One region: where its parts begin. They end where those of the next record begin, landings behind entries.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    code: u32,
    bytes: u32,
    /// 1 for [`Extent::Loop`].
    looped: u32,
    entries: u32,
    landings: u32,
    links: u32,
    marks: u32,
    depends: u32,
    incoming: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DiskPoint {
    offset: u32,
    guest: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DiskLink {
    site: u32,
    stub: u32,
    target: u32,
    inside: u32,
    to: u32,
    saved: u32,
}

/// A guest range; in `ranges`, its bytes lie in `content` one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Incoming {
    region: u32,
    link: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Indexed {
    guest: u32,
    /// From the start of the code.
    host: u32,
    region: u32,
}

/// Where each part is, as byte offsets in the file.
#[derive(Clone, Debug)]
struct Parts {
    records: Range<usize>,
    points: Range<usize>,
    links: Range<usize>,
    marks: Range<usize>,
    depends: Range<usize>,
    incoming: Range<usize>,
    index: Range<usize>,
    ranges: Range<usize>,
    content: Range<usize>,
    code: Range<usize>,
}

impl Parts {
    /// Where the parts of a file with this head are. Numbers of 32 bits do not overflow 64.
    fn of(h: &Head) -> Parts {
        let mut at = size_of::<Head>();
        let mut part = |n: u32, size: usize| {
            let r = at..at + n as usize * size;
            at = r.end;
            r
        };
        let records = part(h.regions.saturating_add(1), size_of::<Record>());
        let points = part(h.points, size_of::<DiskPoint>());
        let links = part(h.links, size_of::<DiskLink>());
        let marks = part(h.marks, size_of::<PackedMark>());
        let depends = part(h.depends, size_of::<Span>());
        let incoming = part(h.incoming, size_of::<Incoming>());
        let index = part(h.index, size_of::<Indexed>());
        let ranges = part(h.ranges, size_of::<Span>());
        let content = part(h.content, 1);
        let start = at.next_multiple_of(CODE_ALIGN);
        let code = start..start + h.code as usize;
        Parts { records, points, links, marks, depends, incoming, index, ranges, content, code }
    }
}

/// A mapping of a file, to read.
#[derive(Debug)]
pub struct Mapped {
    at: *const u8,
    len: usize,
}

// SAFETY: memory that is only read, owned by this value.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `len` bytes of the file, not 0.
    pub fn new(fd: i32, len: usize) -> Option<Mapped> {
        // SAFETY: a new mapping at an address of the kernel's choice affects no existing memory.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        (at != libc::MAP_FAILED).then_some(Mapped { at: at.cast(), len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this value lives. The file is replaced and never written (see `dir`); who else may write it is the
        // user who runs this program.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { libc::munmap(self.at as *mut _, self.len) };
    }
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a file of translations, or one of another version")]
    Format,
    #[error("made for something else")]
    Key,
    #[error("damaged")]
    Damaged,
}

/// A checked file.
#[derive(Debug)]
pub struct Image {
    head: Head,
    /// Where the code is in the file.
    code_at: usize,
    records: &'static [Record],
    points: &'static [DiskPoint],
    links: &'static [DiskLink],
    marks: &'static [PackedMark],
    depends: &'static [Span],
    incoming: &'static [Incoming],
    index: &'static [Indexed],
    ranges: &'static [Span],
    content: &'static [u8],
    code: &'static [u8],
    /// What all these are slices of: none of them is given to others for longer than `self` lives.
    _mapped: Mapped,
}

impl Image {
    /// Checks all of a file that should be for `key` and code at `guest`.
    pub fn open(mapped: Mapped, key: [u64; 2], guest: &Range<u64>) -> Result<Image, Refused> {
        let bytes = mapped.bytes();
        let (head, _) = Head::read_from_prefix(bytes).map_err(|_| Refused::Format)?;
        if head.magic != MAGIC {
            return Err(Refused::Format);
        }
        let parts = Parts::of(&head);
        if parts.code.end != bytes.len() || check(bytes, &parts) != head.check {
            return Err(Refused::Damaged);
        }
        if head.key != key || head.guest != guest.start || head.guest.checked_add(head.len) != Some(guest.end) {
            return Err(Refused::Key);
        }
        // SAFETY: the mapping lives as long as the image that it moves into, wherever that is.
        let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(mapped.at, mapped.len) };
        Ok(Image {
            head,
            code_at: parts.code.start,
            records: table(bytes, &parts.records)?,
            points: table(bytes, &parts.points)?,
            links: table(bytes, &parts.links)?,
            marks: table(bytes, &parts.marks)?,
            depends: table(bytes, &parts.depends)?,
            incoming: table(bytes, &parts.incoming)?,
            index: table(bytes, &parts.index)?,
            ranges: table(bytes, &parts.ranges)?,
            content: table(bytes, &parts.content)?,
            code: table(bytes, &parts.code)?,
            _mapped: mapped,
        })
    }

    pub fn guest(&self) -> Range<u64> {
        self.head.guest..self.head.guest + self.head.len
    }

    /// How many regions there are.
    pub fn count(&self) -> u32 {
        self.head.regions
    }

    /// All code.
    pub fn code(&self) -> &[u8] {
        self.code
    }

    /// Where it is in the file.
    pub fn code_offset(&self) -> u64 {
        self.code_at as u64
    }

    /// The guest ranges the code was made from, and what was in them.
    pub fn content(&self) -> impl Iterator<Item = (Range<u64>, &[u8])> {
        let mut rest = self.content;
        self.ranges.iter().map(move |s| {
            let (now, after) = rest.split_at_checked(s.len as usize).unwrap_or_default();
            rest = after;
            (self.range(s), now)
        })
    }

    fn range(&self, s: &Span) -> Range<u64> {
        let start = self.head.guest + u64::from(s.start);
        start..start + u64::from(s.len)
    }

    /// The guest address of region `i`'s own entry.
    pub fn start(&self, i: u32) -> Option<u64> {
        let point = self.points.get(self.records.get(i as usize)?.entries as usize)?;
        Some(self.head.guest + u64::from(point.guest))
    }

    /// All regions with their words, not to be run where they are.
    pub fn regions(&self) -> Vec<(Region, &[u32])> {
        let words = <[u32]>::ref_from_bytes(self.code).unwrap_or_default();
        let all = (0..self.count()).map(|i| self.region(i, 0, 0));
        all.filter_map(|r| {
            let at = r.start as usize / 4;
            let words = words.get(at..at + r.bytes as usize / 4)?;
            (!r.entries.is_empty()).then_some((r, words))
        })
        .collect()
    }

    /// The region whose code holds the byte at `offset`.
    pub fn region_at(&self, offset: u32) -> Option<u32> {
        let records = self.records;
        let i = records.partition_point(|r| r.code <= offset).checked_sub(1)?;
        (i < self.head.regions as usize && offset - records[i].code < records[i].bytes).then_some(i as u32)
    }

    /// The entry for `guest`: the offset of its code, and its region.
    pub fn entry(&self, guest: u64) -> Option<(u32, u32)> {
        let at = u32::try_from(guest.checked_sub(self.head.guest)?).ok()?;
        let i = self.index.binary_search_by_key(&at, |x| x.guest).ok()?;
        Some((self.index[i].host, self.index[i].region))
    }

    /// Whether region `i` was made from any byte of `range`.
    pub fn depends_on(&self, i: u32, range: &Range<u64>) -> bool {
        self.depends(i).any(|d| d.start < range.end && range.start < d.end)
    }

    fn depends(&self, i: u32) -> impl Iterator<Item = Range<u64>> + '_ {
        self.of(i, self.depends, |r| r.depends).iter().map(|s| self.range(s))
    }

    /// The part of a table that is region `i`'s.
    fn of<T>(&self, i: u32, table: &'static [T], from: fn(&Record) -> u32) -> &[T] {
        let ends = self.records.get(i as usize..i as usize + 2);
        ends.and_then(|r| table.get(from(&r[0]) as usize..from(&r[1]) as usize)).unwrap_or_default()
    }

    /// The tables of region `i`, with the image's code at host address `code` and the image's regions known by `first` and on.
    /// `i` is less than [`Image::count`].
    pub fn region(&self, i: u32, code: u64, first: RegionId) -> Region {
        let r = self.records[i as usize];
        let point = |p: &DiskPoint| Point { offset: p.offset, guest: self.head.guest + u64::from(p.guest) };
        let points = self.of(i, self.points, |r| r.entries);
        let (entries, landings) =
            points.split_at(r.landings.saturating_sub(r.entries).min(points.len() as u32) as usize);
        let link = |l: &DiskLink| Link {
            site: l.site,
            stub: l.stub,
            target: self.head.guest + u64::from(l.target),
            inside: l.inside,
            to: if l.to == NONE { NONE } else { first + l.to },
            saved: l.saved,
        };
        Region {
            start: code + u64::from(r.code),
            bytes: r.bytes,
            alive: true,
            stopping: 0,
            extent: if r.looped == 1 { Extent::Loop } else { Extent::Cold },
            rounds: 0,
            entries: entries.iter().map(point).collect(),
            landings: landings.iter().map(point).collect(),
            links: self.of(i, self.links, |r| r.links).iter().map(link).collect(),
            incoming: self.of(i, self.incoming, |r| r.incoming).iter().map(|x| (first + x.region, x.link)).collect(),
            depends: self.depends(i).collect(),
            marks: self.of(i, self.marks, |r| r.marks).into(),
            far: Box::default(),
            mended: false,
            back: None,
        }
    }
}

/// A part of the file as the table it is.
fn table<'a, T: FromBytes + Immutable + KnownLayout>(bytes: &'a [u8], part: &Range<usize>) -> Result<&'a [T], Refused> {
    bytes.get(part.clone()).and_then(|b| <[T]>::ref_from_bytes(b).ok()).ok_or(Refused::Format)
}

/// The checksum: of all that follows it but `content`, which is compared with what it should be.
fn check(bytes: &[u8], parts: &Parts) -> u64 {
    let code = xxh3_64(&bytes[parts.content.end..]);
    xxh3_64_with_seed(&bytes[CHECKED_FROM..parts.content.start], code)
}

/// A region to be kept: its tables, and its words as they are now.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub region: &'a Region,
    pub words: &'a [u32],
}

impl Piece<'_> {
    /// Whether an image of `guest` can hold it.
    pub fn fits(&self, guest: &Range<u64>) -> bool {
        let r = self.region;
        let inside = |a: u64| guest.contains(&a);
        r.far.is_empty()
            && r.entries.iter().chain(&*r.landings).all(|p| inside(p.guest))
            && r.links.iter().all(|l| inside(l.target))
            && r.depends.iter().all(|d| guest.start <= d.start && d.end <= guest.end)
    }
}

/// The file that holds `pieces`, which all [fit](Piece::fits) and are of different guest addresses. `read` gives guest bytes; `None` when it cannot.
pub fn build(
    key: [u64; 2],
    guest: &Range<u64>,
    pieces: &[Piece],
    read: impl Fn(Range<u64>, &mut [u8]) -> bool,
) -> Option<Vec<u8>> {
    u32::try_from(guest.end - guest.start).ok()?;
    let rel = |a: u64| (a - guest.start) as u32;

    // Where each region's code comes to lie, and what leads where.
    let mut starts = Vec::with_capacity(pieces.len());
    let mut code_len = 0usize;
    let mut entries: HashMap<u64, (u32, u32), AddrBuild> = HashMap::default();
    entries.reserve(2 * pieces.len());
    for (n, p) in pieces.iter().enumerate() {
        starts.push(code_len as u32);
        let own = p.region.entries.first()?;
        entries.insert(own.guest, (code_len as u32 + own.offset, n as u32));
        code_len = (code_len + 4 * p.words.len()).next_multiple_of(16);
    }
    u32::try_from(code_len).ok()?;
    for (n, p) in pieces.iter().enumerate() {
        for e in p.region.entries.iter().skip(1) {
            entries.entry(e.guest).or_insert((starts[n] + e.offset, n as u32));
        }
    }

    let (mut records, mut points, mut links, mut marks, mut depends) = (vec![], vec![], vec![], vec![], vec![]);
    let mut code = vec![0u32; code_len / 4];
    let mut incoming: Vec<Vec<Incoming>> = Vec::new();
    incoming.resize_with(pieces.len(), Vec::new);
    for (n, p) in pieces.iter().enumerate() {
        let (r, start) = (p.region, starts[n]);
        records.push(Record {
            code: start,
            bytes: 4 * p.words.len() as u32,
            looped: u32::from(r.extent == Extent::Loop),
            entries: points.len() as u32,
            landings: (points.len() + r.entries.len()) as u32,
            links: links.len() as u32,
            marks: marks.len() as u32,
            depends: depends.len() as u32,
            incoming: 0,
        });
        let all = r.entries.iter().chain(&*r.landings);
        points.extend(all.map(|x| DiskPoint { offset: x.offset, guest: rel(x.guest) }));
        marks.extend_from_slice(&r.marks);
        let spans = r.depends.iter().map(|d| Span { start: rel(d.start), len: (d.end - d.start) as u32 });
        depends.extend(merged(spans.collect(), 0));
        let words = &mut code[start as usize / 4..start as usize / 4 + p.words.len()];
        words.copy_from_slice(p.words);
        unlink(words, &r.links)?;
        for (i, l) in r.links.iter().enumerate() {
            let to = (l.inside == NONE).then(|| entries.get(&l.target)).flatten().filter(|(_, to)| {
                // As `Cache::follow`: rounds of what may be a loop are to be seen.
                let head = pieces[*to as usize].region.extent == Extent::Cold;
                !(head && goes_back(r.entries[0].guest, l.target))
            });
            let mut disk =
                DiskLink { site: l.site, stub: l.stub, target: rel(l.target), inside: l.inside, to: NONE, saved: 0 };
            if l.inside != NONE {
                let site = l.site as usize / 4;
                words[site] = branch::retarget(words[site], (i64::from(l.inside) - i64::from(l.site)) >> 2)?;
                disk.to = n as u32;
            } else if let Some(&(host, to)) = to {
                let host = i64::from(host) - i64::from(start);
                let (site, stub) = (l.site as usize / 4, l.stub as usize / 4);
                let direct = branch::retarget(words[site], (host - i64::from(l.site)) >> 2);
                let through = branch::b((host - i64::from(l.stub)) >> 2);
                match (direct, through) {
                    (Some(word), _) => words[site] = word,
                    (None, Some(jump)) => {
                        // Another exit with the same stub may have replaced its first word.
                        if words[stub] != jump {
                            disk.saved = words[stub];
                            words[stub] = jump;
                        }
                    }
                    (None, None) => {
                        links.push(disk);
                        continue;
                    }
                }
                disk.to = to;
                incoming[to as usize].push(Incoming { region: n as u32, link: i as u32 });
            }
            links.push(disk);
        }
    }
    let mut all_incoming = Vec::new();
    for (r, list) in records.iter_mut().zip(incoming) {
        r.incoming = all_incoming.len() as u32;
        all_incoming.extend(list);
    }
    records.push(Record {
        code: code_len as u32,
        entries: points.len() as u32,
        landings: points.len() as u32,
        links: links.len() as u32,
        marks: marks.len() as u32,
        depends: depends.len() as u32,
        incoming: all_incoming.len() as u32,
        ..Record::default()
    });
    let mut index: Vec<Indexed> =
        entries.iter().map(|(&g, &(host, region))| Indexed { guest: rel(g), host, region }).collect();
    index.sort_unstable_by_key(|x| x.guest);

    let ranges = merged(depends.clone(), NEAR);
    let mut content = vec![0; ranges.iter().map(|s| s.len as usize).sum()];
    let mut at = 0;
    for s in &ranges {
        let (start, len) = (guest.start + u64::from(s.start), s.len as usize);
        if !read(start..start + len as u64, &mut content[at..at + len]) {
            return None;
        }
        at += len;
    }

    let mut head = Head {
        magic: MAGIC,
        check: 0,
        key,
        guest: guest.start,
        len: guest.end - guest.start,
        regions: pieces.len() as u32,
        points: points.len() as u32,
        links: links.len() as u32,
        marks: marks.len() as u32,
        depends: depends.len() as u32,
        incoming: all_incoming.len() as u32,
        index: index.len() as u32,
        ranges: ranges.len() as u32,
        content: content.len() as u32,
        code: code_len as u32,
    };
    let parts = Parts::of(&head);
    let mut file = Vec::with_capacity(parts.code.end);
    file.extend_from_slice(head.as_bytes());
    for part in [
        records.as_bytes(),
        points.as_bytes(),
        links.as_bytes(),
        marks.as_bytes(),
        depends.as_bytes(),
        all_incoming.as_bytes(),
        index.as_bytes(),
        ranges.as_bytes(),
        content.as_bytes(),
    ] {
        file.extend_from_slice(part);
    }
    file.resize(parts.code.start, 0);
    file.extend_from_slice(code.as_bytes());
    head.check = check(&file, &parts);
    file[..size_of::<Head>()].copy_from_slice(head.as_bytes());
    Some(file)
}

/// Points every exit in `words` at its stub, as a new translation has it but for back edges.
fn unlink(words: &mut [u32], links: &[Link]) -> Option<()> {
    for l in links {
        let (site, stub) = (l.site as usize / 4, l.stub as usize / 4);
        if l.saved != 0 {
            *words.get_mut(stub)? = l.saved;
        }
        let word = words.get_mut(site)?;
        *word = branch::retarget(*word, (i64::from(l.stub) - i64::from(l.site)) >> 2)?;
    }
    Some(())
}

/// Code that is no farther apart than this is compared in one piece.
const NEAR: u32 = 64;

/// The union of the spans, in order; with what is between any that are no farther apart than `near`.
fn merged(mut spans: Vec<Span>, near: u32) -> Vec<Span> {
    spans.retain(|s| s.len != 0);
    spans.sort_unstable_by_key(|s| s.start);
    spans.dedup_by(|s, last| {
        let touch = s.start <= last.start.saturating_add(last.len).saturating_add(near);
        if touch {
            last.len = last.len.max(s.start + s.len - last.start);
        }
        touch
    });
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Entry, Exit, FlagForm, Mark, Translation};
    use std::io::Write;
    use std::os::fd::AsRawFd;

    const GUEST: Range<u64> = 0x40_1000..0x40_5000;
    const B_STUB: u32 = 0x1400_0001; // b .+4
    const NOP: u32 = 0xd503_201f;

    /// A region for `guest` whose one exit, word 2, leads to `target` by the stub behind it.
    fn region(guest: u64, target: u64) -> Region {
        let t = Translation {
            words: vec![0, 0, B_STUB, NOP, NOP],
            entries: vec![Entry { guest, word: 2 }],
            exits: vec![Exit { site: 2, stub: 3, target, inside: None }],
            marks: vec![Mark { word: 2, guest, flags: FlagForm::CarryInverted, replay: false }],
            depends: std::iter::once(guest..guest + 5).collect(),
            ..Translation::default()
        };
        Region::new(0x1_0000, 0, &t, Extent::Cold)
    }

    fn file(name: &str, bytes: &[u8]) -> std::fs::File {
        let path = std::env::temp_dir().join(format!("xrun-image-{}-{name}", std::process::id()));
        std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("written");
        let f = std::fs::File::open(&path).expect("there");
        let _ = std::fs::remove_file(path);
        f
    }

    fn open(name: &str, bytes: &[u8], key: [u64; 2]) -> Result<Image, Refused> {
        let f = file(name, bytes);
        Image::open(Mapped::new(f.as_raw_fd(), bytes.len()).expect("mapped"), key, &GUEST)
    }

    fn two_regions() -> Vec<u8> {
        let words = [0, 0, B_STUB, NOP, NOP];
        let all = [region(0x40_1000, 0x40_2000), region(0x40_2000, 0x40_3000)];
        let pieces = all.each_ref().map(|region| Piece { region, words: &words });
        let read = |r: Range<u64>, buf: &mut [u8]| {
            buf.iter_mut().zip(r).for_each(|(b, at)| *b = at as u8);
            true
        };
        build([1, 2], &GUEST, &pieces, read).expect("built")
    }

    #[test]
    fn comes_back_linked() {
        let image = open("linked", &two_regions(), [1, 2]).expect("good");
        assert_eq!((image.count(), image.guest()), (2, GUEST));
        assert_eq!(image.entry(0x40_2000), Some((32 + 8, 1)));
        assert_eq!(image.entry(0x40_3000), None);
        assert_eq!(image.region_at(32 + 19), Some(1));
        assert_eq!(image.region_at(32 - 4), None);
        let (a, b) = (image.region(0, 0x8000, 100), image.region(1, 0x8000, 100));
        // Word 2 of the first leads to word 2 of the second, 8 words on; the second's target is not here.
        assert_eq!((a.links[0].to, b.links[0].to), (101, NONE));
        assert_eq!(b.incoming, [(100, 0)]);
        let words: Vec<u32> =
            image.code().chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().expect("4"))).collect();
        assert_eq!((words[2], words[10]), (0x1400_0008, B_STUB));
        assert_eq!(b.guest_at(0x8000 + 32 + 8), Some((0x40_2000, FlagForm::CarryInverted)));
        let content: Vec<_> = image.content().collect();
        assert_eq!(
            content,
            [(0x40_1000..0x40_1005, &[0, 1, 2, 3, 4][..]), (0x40_2000..0x40_2005, &[0, 1, 2, 3, 4][..])]
        );
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        let good = two_regions();
        assert_eq!(open("key", &good, [1, 3]).expect_err("another key"), Refused::Key);
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            let Ok(image) = open("bad", &bad, [1, 2]) else { continue };
            assert!(
                n >= CHECKED_FROM && !image.content().eq(open("good", &good, [1, 2]).expect("good").content()),
                "byte {n}"
            );
        }
        for n in 1..good.len() {
            assert!(open("short", &good[..n], [1, 2]).is_err(), "{n} bytes");
        }
    }

    #[test]
    fn spans_that_touch_are_one() {
        let s = |start, len| Span { start, len };
        let all = vec![s(10, 5), s(0, 0), s(2, 3), s(5, 1), s(12, 1)];
        assert_eq!(merged(all.clone(), 0), [s(2, 4), s(10, 5)]);
        assert_eq!(merged(all, 4), [s(2, 13)]);
    }
}
