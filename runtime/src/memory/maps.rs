//! The text of /proc/self/maps as the guest must see it: its own mappings with its own rights, xrun's left out.
//!
//! Paths, devices and inodes are taken from the host's file, which knows them best; without a host /proc the mappings
//! are listed as anonymous.

use std::fmt::Write;
use std::ops::Range;

use super::vmas::{Kind, Prot, Vma};

/// One line's parts.
struct Line<'a> {
    range: Range<u64>,
    prot: Prot,
    shared: bool,
    offset: u64,
    dev: &'a str,
    inode: &'a str,
    name: &'a str,
}

/// Reads one line of the host's file.
fn parse(line: &str) -> Option<Line<'_>> {
    let mut rest = line;
    let mut field = || {
        rest = rest.trim_start();
        let end = rest.find(' ').unwrap_or(rest.len());
        let (f, r) = rest.split_at(end);
        rest = r;
        f
    };
    let (start, end) = field().split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let _rights = field();
    let offset = u64::from_str_radix(field(), 16).ok()?;
    let (dev, inode) = (field(), field());
    Some(Line { range, prot: Prot::empty(), shared: false, offset, dev, inode, name: rest.trim_start() })
}

/// The text for the guest's /proc/self/maps.
pub fn maps_text() -> String {
    let host = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let vmas: Vec<(Range<u64>, Vma)> = super::lock().vmas.iter().collect();
    render(&host, &vmas)
}

fn render(host: &str, vmas: &[(Range<u64>, Vma)]) -> String {
    let host: Vec<Line> = host.lines().filter_map(parse).collect();
    let mut out: Vec<Line> = Vec::new();
    for (range, vma) in vmas {
        let mut at = range.start;
        for h in host.iter().filter(|h| h.range.start < range.end && h.range.end > range.start) {
            let r = h.range.start.max(at)..h.range.end.min(range.end);
            if r.start > at {
                add(&mut out, anonymous(at..r.start, vma));
            }
            at = r.end;
            let named = name(vma).unwrap_or(h.name);
            let of_file = h.inode != "0";
            let offset = if of_file { h.offset + (r.start - h.range.start) } else { 0 };
            add(&mut out, Line { offset, dev: h.dev, inode: h.inode, name: named, ..anonymous(r, vma) });
        }
        if at < range.end {
            add(&mut out, anonymous(at..range.end, vma));
        }
    }
    let mut text = String::new();
    for l in &out {
        let flag = |p, c| if l.prot.contains(p) { c } else { '-' };
        let head = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {} {} ",
            l.range.start,
            l.range.end,
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
            if l.shared { 's' } else { 'p' },
            l.offset,
            l.dev,
            l.inode
        );
        // The name starts in column 74 (fs/proc/task_mmu.c: show_map_vma, seq_pad).
        let _ = if l.name.is_empty() { writeln!(text, "{head}") } else { writeln!(text, "{head:<73}{}", l.name) };
    }
    text
}

fn anonymous(range: Range<u64>, vma: &Vma) -> Line<'static> {
    Line {
        range,
        prot: vma.prot,
        shared: vma.shared,
        offset: 0,
        dev: "00:00",
        inode: "0",
        name: name(vma).unwrap_or(""),
    }
}

fn name(vma: &Vma) -> Option<&'static str> {
    match vma.kind {
        Kind::Heap => Some("[heap]"),
        Kind::Stack => Some("[stack]"),
        Kind::Vdso => Some("[vdso]"),
        // The host may call these by names of its own ([anon:..], [heap]).
        Kind::Anon | Kind::GrowsDown => None,
        Kind::File | Kind::Shm(_) => None,
    }
}

/// Appends, joining what the host holds apart only because of watched pages.
fn add<'a>(out: &mut Vec<Line<'a>>, l: Line<'a>) {
    if let Some(p) = out.last_mut() {
        let continues = l.inode == "0" || p.offset + (p.range.end - p.range.start) == l.offset;
        if p.range.end == l.range.start
            && continues
            && (p.prot, p.shared, p.dev, p.inode, p.name) == (l.prot, l.shared, l.dev, l.inode, l.name)
        {
            p.range.end = l.range.end;
            return;
        }
    }
    out.push(l);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_renames() {
        let rx = Vma { kind: Kind::File, ..Vma::anon(Prot::READ | Prot::EXEC, Kind::File) };
        let vmas = [(0x400000..0x403000, rx), (0x600000..0x602000, Vma::anon(Prot::READ | Prot::WRITE, Kind::Heap))];
        let host = "00400000-00401000 r--p 00001000 08:01 77                         /bin/x y\n\
                    00401000-00403000 r--p 00002000 08:01 77                         /bin/x y\n\
                    00500000-00501000 r--p 00000000 00:00 0 \n\
                    00600000-00602000 rw-p 00000000 00:00 0 \n";
        let text = render(host, &vmas);
        let want = format!(
            "{:<73}/bin/x y\n{:<73}[heap]\n",
            "00400000-00403000 r-xp 00001000 08:01 77 ", "00600000-00602000 rw-p 00000000 00:00 0 "
        );
        assert_eq!(text, want);
    }

    /// The kernel's own file, with all mappings taken for the guest's, comes out as it went in.
    #[test]
    fn reproduces_the_hosts_file() {
        let Ok(host) = std::fs::read_to_string("/proc/self/maps") else {
            return;
        };
        let mut vmas = Vec::new();
        for line in host.lines() {
            let l = parse(line).expect("a line of /proc/self/maps");
            let rights = line.split(' ').nth(1).expect("rights").as_bytes();
            let mut prot = Prot::empty();
            prot.set(Prot::READ, rights[0] == b'r');
            prot.set(Prot::WRITE, rights[1] == b'w');
            prot.set(Prot::EXEC, rights[2] == b'x');
            let vma = Vma { shared: rights[3] == b's', ..Vma::anon(prot, Kind::File) };
            vmas.push((l.range, vma));
        }
        let text = render(&host, &vmas);
        for got in text.lines().filter_map(|l| Some((l, parse(l)?))) {
            // Emulators write the addresses without leading zeros; compare what a line says first, then its bytes.
            let (line, l) = got;
            let (same, h) = host
                .lines()
                .find_map(|w| Some((w, parse(w)?)).filter(|(_, h)| h.range.start == l.range.start))
                .expect("a line of the host's");
            assert_eq!((l.dev, l.inode, l.name), (h.dev, h.inode, h.name));
            if l.range == h.range && same.as_bytes()[0] == line.as_bytes()[0] {
                assert_eq!(line.trim_end(), same.trim_end());
            }
        }
    }
}
