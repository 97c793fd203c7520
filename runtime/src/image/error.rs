//! Why a program cannot be loaded, one clear line each, and the exit code a shell gives for it.

use std::path::PathBuf;

/// What is wrong with an ELF file's contents. Offsets are byte offsets in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    #[error("not an ELF program or script (first bytes {0:02x?})")]
    NotElf(Vec<u8>),
    #[error("the file is empty")]
    Empty,
    #[error("truncated: the ELF header needs 64 bytes, the file has {0}")]
    ShortHeader(u64),
    #[error("a {0}-bit program for {1}; xrun runs 64-bit x86_64 programs (offset 0x4, e_ident class)")]
    WrongClass(u32, String),
    #[error("a big-endian file (offset 0x5, e_ident data)")]
    BigEndian,
    #[error("a program for {0}, not x86_64 (offset 0x12, e_machine)")]
    WrongMachine(String),
    #[error("not a program but {0} (offset 0x10, e_type)")]
    WrongType(String),
    #[error("program headers of {0} bytes each instead of 56 (offset 0x36, e_phentsize)")]
    HeaderSize(u16),
    #[error("{0} program headers; 1 to 1170 are possible (offset 0x38, e_phnum)")]
    HeaderCount(u16),
    #[error("truncated: program headers at offset {offset:#x}..{end:#x}, the file ends at {size:#x}")]
    HeadersOutside { offset: u64, end: u64, size: u64 },
    #[error("no segment to load among {0} program headers")]
    NothingToLoad(u16),
    #[error("segment {index} (header at offset {at:#x}): {what}")]
    Segment { index: usize, at: u64, what: SegmentError },
    #[error("interpreter name (header at offset {at:#x}): {what}")]
    Interp { at: u64, what: &'static str },
}

/// What is wrong with one segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("truncated: its bytes are at offset {start:#x}..{end:#x}, the file ends at {size:#x}")]
    Truncated { start: u64, end: u64, size: u64 },
    #[error("{filesz:#x} bytes in the file, more than the {memsz:#x} in memory")]
    Sizes { filesz: u64, memsz: u64 },
    #[error("file offset {offset:#x} and address {vaddr:#x} differ within a page")]
    Misaligned { offset: u64, vaddr: u64 },
    #[error("address {vaddr:#x} + {memsz:#x} is outside the 47-bit address space")]
    Outside { vaddr: u64, memsz: u64 },
    #[error("starts at {vaddr:#x}, inside or before the segment before it, which ends at {before:#x}")]
    Overlap { vaddr: u64, before: u64 },
    #[error("alignment {0:#x} is not a power of two")]
    Alignment(u64),
}

/// Why a program cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {}", .path.display(), plain(.error))]
    Open { path: PathBuf, error: std::io::Error },
    #[error("{}: is a directory", .0.display())]
    Directory(PathBuf),
    #[error("{}: not a regular file", .0.display())]
    Special(PathBuf),
    #[error("{}: not executable (no x permission)", .0.display())]
    NotExecutable(PathBuf),
    #[error("{}: {error}", .path.display())]
    Elf { path: PathBuf, error: ElfError },
    #[error(
        "{} missing, which {} needs: an amd64 program in a root without amd64 libraries; use -L DIR, where DIR{} exists",
        .interp.display(), .path.display(), .interp.display()
    )]
    NoInterp { path: PathBuf, interp: PathBuf },
    #[error("{}: interpreter of script {} not found", .interp.display(), .script.display())]
    NoScriptInterp { script: PathBuf, interp: PathBuf },
    #[error("{}: {what}", .path.display())]
    Script { path: PathBuf, what: &'static str },
    #[error("{}: cannot map {what} at {start:#x}..{end:#x}: {error}", .path.display())]
    Map { path: PathBuf, what: &'static str, start: u64, end: u64, error: std::io::Error },
    #[error("no room for {0} in the guest's address space: {1}")]
    NoRoom(&'static str, std::io::Error),
    #[error("arguments and environment take {0} bytes, more than the stack of {1} bytes allows")]
    TooBig(u64, u64),
    #[error("this kernel's pages are {0} bytes; x86_64 programs need 4096")]
    PageSize(u64),
}

/// The system's words without Rust's "(os error N)".
fn plain(e: &std::io::Error) -> String {
    let s = e.to_string();
    match s.find(" (os error") {
        Some(i) => s[..i].to_lowercase(),
        None => s,
    }
}

impl LoadError {
    /// 127 when something was not found, else 126, as a shell exits.
    pub fn exit_code(&self) -> i32 {
        match self {
            LoadError::Open { error, .. } if error.kind() == std::io::ErrorKind::NotFound => 127,
            LoadError::NoInterp { .. } | LoadError::NoScriptInterp { .. } => 127,
            _ => 126,
        }
    }
}
