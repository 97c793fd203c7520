//! `xrun binfmt`: the kernel's binfmt_misc registration that makes x86_64 programs start under xrun. The rules are those of
//! Documentation/admin-guide/binfmt-misc.rst. Knows nothing of how a program is run.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What `xrun binfmt --help` says.
pub const HELP: &str = "\
usage: xrun binfmt [--dir DIR] install      x86_64 programs start under this xrun from now on, in every root and container
       xrun binfmt [--dir DIR] uninstall    they no longer do
       xrun binfmt [--dir DIR] status       what they start under; exit code 1 if it is not xrun
       xrun binfmt print                    the line that install registers, as systemd reads it from /etc/binfmt.d/xrun.conf

DIR is where binfmt_misc is mounted, /proc/sys/fs/binfmt_misc if not said. A registration lasts until the machine is restarted.
";

const DEFAULT_DIR: &str = "/proc/sys/fs/binfmt_misc";
/// The entry's name.
const NAME: &str = "xrun-x86_64";
/// P: argv[0] is kept. O: the program is passed open. C: set-id bits of the program count. F: xrun is opened now, so that it is found from within any root.
const FLAGS: &str = "POCF";

/// An x86_64 program as the kernel tells one (fs/binfmt_elf.c, elf_check_arch): the magic number, 64 bits, little-endian, executable or
/// shared object, machine 62.
const MAGIC: [u8; 20] = *b"\x7fELF\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
/// Of e_ident only magic number, class and byte order count. The kernel looks at nothing else, and AppImages have a mark of their own
/// where others have padding. The lowest bit of e_type is the difference between ET_EXEC (2) and ET_DYN (3).
const MASK: [u8; 20] = *b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\xfe\xff\xff\xff";

/// What is wrong, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}; try xrun binfmt --help")]
    Usage(String),
    #[error("{}: binfmt_misc is not mounted there; as root: mount -t binfmt_misc binfmt_misc {}", .0.display(), .0.display())]
    NotMounted(PathBuf),
    #[error("{}: changing the kernel's table needs root (in a container: root of its host)", .0.display())]
    NotAllowed(PathBuf),
    #[error("{}: mounted read-only; in a container, run this on its host", .0.display())]
    ReadOnly(PathBuf),
    #[error("{}: the kernel refuses {line:?}: {error}", .path.display())]
    Refused { path: PathBuf, line: String, error: io::Error },
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("where xrun itself is cannot be told: {0} (is /proc mounted?)")]
    NoOwnPath(io::Error),
    #[error("xrun's path {0:?} has a colon or newline in it, which the kernel's table cannot hold")]
    OwnPath(PathBuf),
    #[error("this xrun is no AArch64 program: x86_64 programs are this machine's own")]
    NotForThisMachine,
}

impl Error {
    fn at(path: &Path, error: io::Error) -> Error {
        let path = path.to_path_buf();
        match error.kind() {
            ErrorKind::PermissionDenied => Error::NotAllowed(path),
            ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path),
            _ => Error::Io { path, error },
        }
    }
}

/// One entry of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    enabled: bool,
    interpreter: String,
    flags: String,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Entry {
    /// Reads an entry's file (fs/binfmt_misc.c, entry_status). `None` for one that goes by file name extension.
    fn parse(name: &str, text: &str) -> Option<Entry> {
        let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let magic = bytes_of_hex(field("magic ")?)?;
        Some(Entry {
            name: name.into(),
            enabled: text.lines().next()? == "enabled",
            interpreter: field("interpreter ")?.into(),
            flags: field("flags:").unwrap_or_default().into(),
            offset: field("offset ").and_then(|n| n.parse().ok()).unwrap_or(0),
            mask: field("mask ").and_then(bytes_of_hex).unwrap_or_else(|| vec![0xff; magic.len()]),
            magic,
        })
    }

    /// Whether a file that starts with `head` is this entry's.
    fn takes(&self, head: &[u8]) -> bool {
        let Some(file) = head.get(self.offset..self.offset + self.magic.len()) else { return false };
        file.iter().zip(&self.magic).zip(&self.mask).all(|((f, m), mask)| (f ^ m) & mask == 0)
    }

    /// Whether it stands for x86_64 programs: it takes one of either type, made by an ordinary linker, and not every file there is.
    fn is_for_x86_64(&self) -> bool {
        [2, 3].iter().any(|&e_type| {
            let mut head = [0u8; 128];
            head[..20].copy_from_slice(&MAGIC);
            (head[6], head[16]) = (1, e_type);
            let mut other = head;
            other[18] = 183;
            self.takes(&head) && !self.takes(&other)
        })
    }

    /// The line that makes the entry.
    fn line(&self) -> String {
        let Entry { name, offset, interpreter, flags, .. } = self;
        format!(":{name}:M:{offset}:{}:{}:{interpreter}:{flags}", escaped(&self.magic), escaped(&self.mask))
    }

    /// For people.
    fn said(&self) -> String {
        let off = if self.enabled { "" } else { ", disabled" };
        format!("{} (entry {}, flags {}{off})", self.interpreter, self.name, self.flags)
    }
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|c| c.to_digit(16)).collect();
    Some(digits?.chunks_exact(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "\\x{b:02x}");
        s
    })
}

/// The entry for the xrun at `path`.
fn own_entry(path: &Path) -> Result<Entry, Error> {
    let interpreter = path.to_str().filter(|p| !p.contains([':', '\n'])).ok_or_else(|| Error::OwnPath(path.into()))?;
    Ok(Entry {
        name: NAME.into(),
        enabled: true,
        interpreter: interpreter.into(),
        flags: FLAGS.into(),
        offset: 0,
        magic: MAGIC.into(),
        mask: MASK.into(),
    })
}

/// The kernel's table, where it is mounted.
struct Table {
    dir: PathBuf,
}

impl Table {
    fn open(dir: PathBuf) -> Result<Table, Error> {
        match dir.join("register").symlink_metadata() {
            Ok(_) => Ok(Table { dir }),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(Error::NotMounted(dir)),
            Err(e) => Err(Error::at(&dir, e)),
        }
    }

    /// Every entry for x86_64 programs.
    fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        for file in std::fs::read_dir(&self.dir).map_err(|e| Error::at(&self.dir, e))? {
            let file = file.map_err(|e| Error::at(&self.dir, e))?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name == "register" || name == "status" {
                continue;
            }
            let text = std::fs::read_to_string(file.path()).map_err(|e| Error::at(&file.path(), e))?;
            found.extend(Entry::parse(&name, &text).filter(Entry::is_for_x86_64));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether the table is in use at all.
    fn enabled(&self) -> bool {
        std::fs::read_to_string(self.dir.join("status")).map_or(true, |s| s.trim() != "disabled")
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(file);
        // One write: the kernel takes each as a whole command.
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        opened.and_then(|mut f| io::Write::write_all(&mut f, text.as_bytes())).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => Error::Refused { path: path.clone(), line: text.into(), error },
            _ => Error::at(&path, error),
        })
    }

    fn remove(&self, entry: &Entry) -> Result<(), Error> {
        self.write(&entry.name, "-1")
    }
}

/// Runs `xrun binfmt ARGS`: what to print, and whether the answer is yes (exit code 0 or 1).
pub fn run(args: impl Iterator<Item = OsString>) -> Result<(String, bool), Error> {
    let mut dir = PathBuf::from(DEFAULT_DIR);
    let mut given = false;
    let mut args = args;
    let mut verb = None;
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--dir") => {
                dir = args.next().ok_or_else(|| Error::Usage("--dir needs a value".into()))?.into();
                given = true;
            }
            Some("-h" | "--help") => return Ok((HELP.into(), true)),
            Some(v) if verb.is_none() && !v.starts_with('-') => verb = Some(v.to_owned()),
            _ => return Err(Error::Usage(format!("unknown argument {}", arg.display()))),
        }
    }
    match verb.as_deref() {
        Some("install") if given || cfg!(target_arch = "aarch64") => {
            install(&Table::open(dir)?, own_entry(&own_path()?)?)
        }
        Some("install") => Err(Error::NotForThisMachine),
        Some("uninstall") => uninstall(&Table::open(dir)?),
        Some("status") => status(&Table::open(dir)?),
        Some("print") => Ok((own_entry(&own_path()?)?.line() + "\n", true)),
        Some(v) => Err(Error::Usage(format!("unknown command {v}"))),
        None => Err(Error::Usage("install, uninstall, status or print?".into())),
    }
}

fn own_path() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::NoOwnPath)
}

fn install(table: &Table, own: Entry) -> Result<(String, bool), Error> {
    let older = table.entries()?;
    // Two entries cannot have one name, so an older one of this name goes first, and comes back if the new one is refused.
    let namesake = older.iter().find(|e| e.name == own.name);
    if let Some(e) = namesake {
        table.remove(e)?;
    }
    if let Err(e) = table.write("register", &own.line()) {
        if let Some(old) = namesake {
            table.write("register", &old.line())?;
        }
        return Err(e);
    }
    let mut said = String::new();
    for e in &older {
        if e.name != own.name {
            table.remove(e)?;
        }
        let _ = writeln!(said, "replaced {}", e.said());
    }
    let _ = writeln!(said, "x86_64 programs now start under {}", own.said());
    if !table.enabled() {
        let _ =
            writeln!(said, "but binfmt_misc as a whole is disabled: echo 1 > {}", table.dir.join("status").display());
    }
    Ok((said, true))
}

fn uninstall(table: &Table) -> Result<(String, bool), Error> {
    let (own, others): (Vec<_>, Vec<_>) = table.entries()?.into_iter().partition(|e| e.name == NAME);
    let mut said = String::new();
    for e in &own {
        table.remove(e)?;
        let _ = writeln!(said, "removed {}", e.said());
    }
    if own.is_empty() {
        said.push_str("xrun is not registered\n");
    }
    for e in &others {
        let _ = writeln!(said, "left alone: {}", e.said());
    }
    Ok((said, true))
}

fn status(table: &Table) -> Result<(String, bool), Error> {
    let entries = table.entries()?;
    let mut said = String::new();
    for e in &entries {
        let _ = writeln!(said, "x86_64 programs start under {}", e.said());
    }
    if entries.is_empty() {
        said.push_str("no entry for x86_64 programs\n");
    }
    if !table.enabled() {
        said.push_str("binfmt_misc as a whole is disabled\n");
    }
    let ours = entries.iter().any(|e| e.name == NAME && e.enabled) && table.enabled();
    Ok((said, ours))
}

#[cfg(test)]
#[path = "binfmt_tests.rs"]
mod tests;
