//! What the loader needs of an ELF file, checked: bytes in, a plain description or an [`ElfError`] out. Nothing is mapped
//! or opened here, and no input makes it panic.

use goblin::elf::header::{self, machine_to_str};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD};
use goblin::elf64::program_header::{ProgramHeader, SIZEOF_PHDR};

use super::error::{ElfError, SegmentError};
use crate::memory::host::PAGE;
use crate::memory::space::TASK_SIZE;
use crate::memory::vmas::Prot;

/// Random access to a file's bytes.
pub trait Source {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Reads up to `buf.len()` bytes at `offset`; fewer at the end of the file.
    fn read(&self, offset: u64, buf: &mut [u8]) -> usize;
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let Some(rest) = usize::try_from(offset).ok().and_then(|o| self.get(o..)) else { return 0 };
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }
}

impl Source for std::fs::File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        use std::os::unix::fs::FileExt;
        let mut got = 0;
        while got < buf.len() {
            match self.read_at(&mut buf[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        got
    }
}

/// One PT_LOAD segment; addresses before relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub vaddr: u64,
    pub memsz: u64,
    pub offset: u64,
    pub filesz: u64,
    pub prot: Prot,
}

impl Segment {
    /// First byte past the segment.
    pub fn end(&self) -> u64 {
        self.vaddr + self.memsz
    }
}

/// A program or interpreter, as far as loading it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// ET_DYN: may be loaded anywhere.
    pub relocatable: bool,
    pub entry: u64,
    /// Ascending, disjoint.
    pub segments: Vec<Segment>,
    /// Largest alignment a segment asks for, in bytes; at least a page.
    pub align: u64,
    /// Path of the interpreter.
    pub interp: Option<Vec<u8>>,
    /// PT_GNU_STACK asks for an executable stack.
    pub exec_stack: bool,
    /// Address of the program headers in memory, when a segment has them; else 0.
    pub phdr: u64,
    pub phnum: u16,
}

impl Elf {
    /// The pages the segments span, before relocation.
    pub fn span(&self) -> std::ops::Range<u64> {
        let start = self.segments.first().map_or(0, |s| s.vaddr & !(PAGE - 1));
        let end = self.segments.last().map_or(0, |s| (s.end() + PAGE - 1) & !(PAGE - 1));
        start..end
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// The build id of an ELF file whose first bytes are `head`, if it lies in them.
pub fn build_id(head: &[u8]) -> Option<&[u8]> {
    let word = |at: usize, n: usize| {
        let mut b = [0; 8];
        b[..n].copy_from_slice(head.get(at..at.checked_add(n)?)?);
        usize::try_from(u64::from_le_bytes(b)).ok()
    };
    let (headers, size, n) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    (0..n).find_map(|i| {
        let p = headers.checked_add(i * size)?;
        if word(p, 4)? != goblin::elf64::program_header::PT_NOTE as usize {
            return None;
        }
        let (start, len) = (word(p + 8, 8)?, word(p + 32, 8)?);
        build_id_in(head.get(start..start.checked_add(len)?)?)
    })
}

/// The description of NT_GNU_BUILD_ID among ELF notes (gABI, "Note Section").
pub fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    loop {
        let word = |i: usize| Some(u32::from_le_bytes(notes.get(4 * i..4 * i + 4)?.try_into().ok()?));
        let (name, desc, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let at = 12 + name.checked_next_multiple_of(4)?;
        let all = notes.get(at..at.checked_add(desc)?)?;
        if kind == BUILD_ID && notes.get(12..12 + name)? == b"GNU\0" {
            return Some(all);
        }
        notes = notes.get(at + desc.checked_next_multiple_of(4)?..)?;
    }
}

/// An interpreter and its argument.
pub type ScriptLine = (Vec<u8>, Option<Vec<u8>>);

/// The interpreter line of a script: path and at most one argument (execve(2), "Interpreter scripts").
/// `None` when the file does not start with `#!`.
pub fn script_line(head: &[u8]) -> Option<Result<ScriptLine, &'static str>> {
    let rest = head.strip_prefix(b"#!")?;
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = match rest.iter().position(|&b| b == b'\n') {
        Some(i) => &rest[..i],
        // The kernel reads 256 bytes; a path cut off there is no path.
        None if rest.len() >= 254 && !rest.iter().skip_while(|b| blank(b)).any(blank) => {
            return Some(Err("the #! line is longer than 256 bytes"));
        }
        None => rest,
    };
    let line = line.split(|&b| b == 0).next().unwrap_or(line);
    let line = line.trim_ascii();
    if line.is_empty() {
        return Some(Err("the #! line names no interpreter"));
    }
    let end = line.iter().position(blank).unwrap_or(line.len());
    let arg = line[end..].trim_ascii();
    Some(Ok((line[..end].to_vec(), (!arg.is_empty()).then(|| arg.to_vec()))))
}

/// Which machine a file is for; decides who runs it. Reads the first bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// 64-bit little-endian ELF for x86_64.
    Amd64,
    /// 64-bit little-endian ELF for AArch64.
    Arm64,
    Script,
    Other,
}

/// Classifies a file by its first bytes (20 suffice).
pub fn classify(head: &[u8]) -> FileKind {
    if head.starts_with(b"#!") {
        return FileKind::Script;
    }
    if head.len() < 20 || head[..6] != *b"\x7fELF\x02\x01" {
        return FileKind::Other;
    }
    match u16_at(head, 18) {
        header::EM_X86_64 => FileKind::Amd64,
        header::EM_AARCH64 => FileKind::Arm64,
        _ => FileKind::Other,
    }
}

/// Checks and describes the ELF file in `src`.
pub fn parse(src: &(impl Source + ?Sized)) -> Result<Elf, ElfError> {
    let size = src.size();
    // Most files have their program headers right behind the header: one read gets both.
    let mut head = [0u8; 64 + 16 * SIZEOF_PHDR];
    let n = src.read(0, &mut head);
    let head = &head[..n];
    if n == 0 {
        return Err(ElfError::Empty);
    }
    if !head.starts_with(header::ELFMAG) {
        return Err(ElfError::NotElf(head[..n.min(4)].to_vec()));
    }
    if n < header::header64::SIZEOF_EHDR {
        return Err(ElfError::ShortHeader(size));
    }
    let machine = |b: &[u8]| match u16_at(b, 18) {
        header::EM_386 => "i386".to_string(),
        header::EM_AARCH64 => "AArch64".to_string(),
        m => match machine_to_str(m) {
            "MACHINE_UNKNOWN" => format!("machine {m}"),
            s => s.trim_start_matches("EM_").to_lowercase(),
        },
    };
    if head[5] == header::ELFDATA2MSB {
        return Err(ElfError::BigEndian);
    }
    match head[4] {
        header::ELFCLASS64 => {}
        header::ELFCLASS32 => return Err(ElfError::WrongClass(32, machine(head))),
        c => return Err(ElfError::WrongClass(u32::from(c), machine(head))),
    }
    let mut bytes = [0u8; 64];
    bytes.copy_from_slice(&head[..64]);
    let h = *header::header64::Header::from_bytes(&bytes);
    if h.e_machine != header::EM_X86_64 {
        return Err(ElfError::WrongMachine(machine(head)));
    }
    let relocatable = match h.e_type {
        header::ET_EXEC => false,
        header::ET_DYN => true,
        header::ET_REL => return Err(ElfError::WrongType("an object file (ET_REL)".into())),
        header::ET_CORE => return Err(ElfError::WrongType("a core dump (ET_CORE)".into())),
        t => return Err(ElfError::WrongType(format!("of type {t}"))),
    };
    if usize::from(h.e_phentsize) != SIZEOF_PHDR {
        return Err(ElfError::HeaderSize(h.e_phentsize));
    }
    // The kernel takes at most 64 KiB of them.
    let table = usize::from(h.e_phnum) * SIZEOF_PHDR;
    if h.e_phnum == 0 || table > 0x1_0000 {
        return Err(ElfError::HeaderCount(h.e_phnum));
    }
    let outside = |end| ElfError::HeadersOutside { offset: h.e_phoff, end, size };
    let end = h.e_phoff.checked_add(table as u64).ok_or(outside(u64::MAX))?;
    let mut own;
    let raw = if end <= n as u64 {
        &head[h.e_phoff as usize..end as usize]
    } else {
        if end > size {
            return Err(outside(end));
        }
        own = vec![0; table];
        if src.read(h.e_phoff, &mut own) != table {
            return Err(outside(end));
        }
        &own
    };
    let phdrs = ProgramHeader::from_bytes(raw, h.e_phnum.into());
    collect(src, size, &h, relocatable, &phdrs)
}

fn collect(
    src: &(impl Source + ?Sized),
    size: u64,
    h: &header::header64::Header,
    relocatable: bool,
    phdrs: &[ProgramHeader],
) -> Result<Elf, ElfError> {
    let mut elf = Elf {
        relocatable,
        entry: h.e_entry,
        segments: Vec::new(),
        align: PAGE,
        interp: None,
        exec_stack: false,
        phdr: 0,
        phnum: h.e_phnum,
    };
    for (index, p) in phdrs.iter().enumerate() {
        let at = h.e_phoff + (index * SIZEOF_PHDR) as u64;
        match p.p_type {
            PT_LOAD if p.p_memsz != 0 || p.p_filesz != 0 => {
                let before = elf.segments.last().map(Segment::end);
                let s = segment(p, size, before).map_err(|what| ElfError::Segment { index, at, what })?;
                if s.offset <= h.e_phoff && h.e_phoff - s.offset < s.filesz {
                    elf.phdr = h.e_phoff - s.offset + s.vaddr;
                }
                elf.align = elf.align.max(p.p_align);
                elf.segments.push(s);
            }
            // The first one counts.
            PT_INTERP if elf.interp.is_none() => {
                elf.interp = Some(interp(src, p).map_err(|what| ElfError::Interp { at, what })?);
            }
            PT_GNU_STACK => elf.exec_stack = p.p_flags & PF_X != 0,
            _ => {}
        }
    }
    if elf.segments.is_empty() {
        return Err(ElfError::NothingToLoad(h.e_phnum));
    }
    Ok(elf)
}

fn segment(p: &ProgramHeader, size: u64, before: Option<u64>) -> Result<Segment, SegmentError> {
    let (vaddr, memsz, offset, filesz) = (p.p_vaddr, p.p_memsz, p.p_offset, p.p_filesz);
    if filesz > memsz {
        return Err(SegmentError::Sizes { filesz, memsz });
    }
    // A page is left free above, so that rounding up never overflows.
    if vaddr.checked_add(memsz).is_none_or(|e| e > TASK_SIZE) {
        return Err(SegmentError::Outside { vaddr, memsz });
    }
    if filesz != 0 {
        if offset.checked_add(filesz).is_none_or(|e| e > size) {
            return Err(SegmentError::Truncated { start: offset, end: offset.saturating_add(filesz), size });
        }
        if offset % PAGE != vaddr % PAGE {
            return Err(SegmentError::Misaligned { offset, vaddr });
        }
    }
    if p.p_align > 1 && !p.p_align.is_power_of_two() {
        return Err(SegmentError::Alignment(p.p_align));
    }
    if let Some(before) = before.filter(|&b| vaddr < b) {
        return Err(SegmentError::Overlap { vaddr, before });
    }
    let mut prot = Prot::empty();
    prot.set(Prot::READ, p.p_flags & PF_R != 0);
    prot.set(Prot::WRITE, p.p_flags & PF_W != 0);
    prot.set(Prot::EXEC, p.p_flags & PF_X != 0);
    Ok(Segment { vaddr, memsz, offset, filesz, prot })
}

fn interp(src: &(impl Source + ?Sized), p: &ProgramHeader) -> Result<Vec<u8>, &'static str> {
    if p.p_filesz < 2 || p.p_filesz > libc::PATH_MAX as u64 {
        return Err("its length is not that of a path");
    }
    let mut name = vec![0; p.p_filesz as usize];
    if src.read(p.p_offset, &mut name) != name.len() {
        return Err("truncated: its bytes lie past the end of the file");
    }
    if name.pop() != Some(0) {
        return Err("it does not end with a NUL byte");
    }
    // As a C string it ends at the first NUL.
    let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    name.truncate(len);
    if name.is_empty() { Err("it is empty") } else { Ok(name) }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
