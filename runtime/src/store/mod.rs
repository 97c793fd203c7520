//! Translations that outlive the process: what code of a mapped file was translated to is kept in a file of the user's, and the next process that
//! maps the same takes it from there.
//!
//! | file | |
//! |---|---|
//! | [`image`] | what such a file holds |
//! | [`dir`] | where it lies, and whom it must belong to |
//!
//! **When an image is used.** Its name and head are made of the mapped file's size, time of change and build id (without one: device and
//! inode), the offset of the mapping, this very build of xrun, the engine's [`options`](crate::engine::Engine::options) (what the host CPU
//! has), and the memory order that code is made for. Its checksum must be right, and the guest's memory must hold, byte for byte, what the code was
//! made from; these pages are watched from then on like any others with translations. Anything else, and the image is as good as absent: nothing
//! is reported, the code is translated.
//!
//! **Where files are mapped.** Translated code holds guest addresses. A file that is mapped where the kernel may choose therefore goes to an address that is
//! drawn once for each file, from a secret of the user's: other users cannot guess it, processes of one user agree on it. Where the
//! place is taken, or the program chose another, that mapping has no image.
//!
//! **When an image is written.** As the process ends, executes another program, forks or makes its first thread, if it has translated enough that is new. What
//! other processes wrote meanwhile is kept.
//!
//! Locks: [`MODULES`] is held for moments, and nothing else is called under it.

pub mod dir;
pub mod image;

use crate::code;
use crate::engine;
use crate::image::elf;
use crate::memory::{self, access};
use crate::{binfmt, config, image as loader};
use dir::Dir;
use image::{Image, Mapped};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What all files together may take on the disk, in bytes.
pub const LIMIT: u64 = 512 << 20;
/// A module's image is written when so many bytes of code are new, and one part in [`SHARE`] of all.
const ENOUGH: usize = 2048;
const SHARE: usize = 32;
/// Below so many new regions nobody looks closer.
const FEW: usize = 8;

/// A mapping of code that an image can be for.
#[derive(Clone, Debug)]
struct Module {
    guest: Range<u64>,
    /// The mapped file and the offset in it.
    file: Identity,
    offset: u64,
    /// The inode of the image that was adopted or written, and its size.
    image: Option<(u64, usize)>,
    /// How many regions this process had made then.
    since: usize,
}

/// What tells one file from another.
type Identity = [u64; 2];

/// What this process has to do with kept translations.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    secret: [u8; 16],
    /// xrun's own build and the engine's options.
    maker: Vec<u8>,
}

static STORE: OnceLock<Option<Store>> = OnceLock::new();
static MODULES: Mutex<Vec<Module>> = Mutex::new(Vec::new());
/// How many regions this process had made when images were last written.
static SAVED: AtomicUsize = AtomicUsize::new(0);

fn modules() -> MutexGuard<'static, Vec<Module>> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store() -> Option<&'static Store> {
    STORE.get_or_init(open).as_ref()
}

/// Finds the directory and its secret. Nothing is kept for a set-id program, whose environment is somebody else's. Where the kernel starts
/// programs under xrun, users need not know of it, and a container's root is to stay as it is: there a cache is only made where there are caches.
fn open() -> Option<Store> {
    if !config::get().cache || loader::host_auxv(libc::AT_SECURE) != 0 {
        return None;
    }
    let path = dir::path()?;
    let mut maker = own_build_id()?.to_vec();
    maker.extend(engine::installed()?.options());
    let secret = Dir::make(&path, !binfmt::started()).and_then(|d| d.secret()).ok()?;
    Some(Store { path, secret, maker })
}

/// The build id in this program's own notes.
fn own_build_id() -> Option<&'static [u8]> {
    let (at, n) = (loader::host_auxv(libc::AT_PHDR), loader::host_auxv(libc::AT_PHNUM));
    if at == 0 {
        return None;
    }
    // SAFETY: the kernel tells where this program's own program headers are mapped; they are never changed.
    let headers = unsafe { std::slice::from_raw_parts(at as *const libc::Elf64_Phdr, n as usize) };
    // The headers lie right behind the ELF header, which is mapped first.
    let base = headers.iter().find(|h| h.p_type == libc::PT_PHDR).map(|h| at - h.p_vaddr).unwrap_or_else(|| {
        let first = headers.iter().find(|h| h.p_type == libc::PT_LOAD && h.p_offset == 0);
        first.map_or(0, |h| (at & !0xfff).wrapping_sub(h.p_vaddr))
    });
    headers.iter().filter(|h| h.p_type == libc::PT_NOTE).find_map(|h| {
        // SAFETY: notes are in a loaded segment of this program, at the address its header says.
        let notes =
            unsafe { std::slice::from_raw_parts(base.wrapping_add(h.p_vaddr) as *const u8, h.p_filesz as usize) };
        elf::build_id_in(notes)
    })
}

/// What tells the open file from others; `None` when it is no ELF file.
fn identity(fd: i32) -> Option<Identity> {
    let mut head = [0u8; 4096];
    // SAFETY: the buffer is valid for its length; an all-zero stat is a valid value and outlives the call.
    let (n, st) = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        // Reading from a device may do something.
        if libc::fstat(fd, &mut st) != 0 || st.st_mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        (libc::pread(fd, head.as_mut_ptr().cast(), head.len(), 0), st)
    };
    let head = head.get(..usize::try_from(n).ok()?)?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // The time always: a file that is written over while a process has it mapped must not be taken for what that process translated.
    let mut bytes = (st.st_size as u64).to_le_bytes().to_vec();
    bytes.extend(st.st_mtime.to_le_bytes());
    bytes.extend(st.st_mtime_nsec.to_le_bytes());
    match elf::build_id(head) {
        Some(id) => bytes.extend(id),
        None => {
            bytes.extend(st.st_dev.to_le_bytes());
            bytes.extend(st.st_ino.to_le_bytes());
        }
    }
    Some(halves(xxh3_128_with_seed(&bytes, 0)))
}

fn halves(h: u128) -> [u64; 2] {
    [h as u64, (h >> 64) as u64]
}

impl Store {
    /// 64 bits for this file that only this user's processes know.
    fn draw(&self, file: Identity) -> u64 {
        let mut bytes = self.secret.to_vec();
        file.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        xxh3_128_with_seed(&bytes, 1) as u64
    }

    fn key(&self, m: &Module, ordering: engine::Ordering) -> [u64; 2] {
        let mut bytes = self.maker.clone();
        for v in [m.file[0], m.file[1], m.offset, ordering as u64] {
            bytes.extend(v.to_le_bytes());
        }
        halves(xxh3_128_with_seed(&bytes, 2))
    }
}

/// Random bits for the address of the program in the open file: the same in each process. `None` when it may as well be another each time.
pub fn program_place(fd: i32) -> Option<u64> {
    let s = store()?;
    Some(s.draw(identity(fd)?))
}

/// Where a file is to be mapped that may be anywhere in an address space that ends at `end`; `None` when there is no reason for one place.
pub fn place(fd: i32, end: u64) -> Option<u64> {
    let s = store().filter(|_| loader::is_randomised())?;
    // The last but one 256th of the space: among the mappings, clear of the stack.
    let (window, start) = (end / 256, end / 256 * 254);
    Some((start + s.draw(identity(fd)?) % window) & !(memory::host::PAGE - 1))
}

/// The open file was mapped from `offset` on at `guest`, to be executed and not written. What is kept for it is taken.
pub fn mapped(fd: i32, guest: Range<u64>, offset: u64) {
    let Some(s) = store() else { return };
    let Some(file) = identity(fd) else { return };
    let mut m = Module { guest, file, offset, image: None, since: 0 };
    m.image = adopt(s, &m);
    let mut all = modules();
    all.retain(|x| x.guest.end <= m.guest.start || m.guest.end <= x.guest.start);
    all.push(m);
}

/// The program is about to be given write access to `range`: what it then holds is not the file's, and nothing is kept of it.
pub fn may_change(range: Range<u64>) {
    modules().retain(|m| m.guest.end <= range.start || range.end <= m.guest.start);
}

/// Opens and checks the image for `m`.
fn open_image(dir: &Dir, m: &Module, key: [u64; 2]) -> Option<(std::fs::File, Image, u64)> {
    let (file, len, inode) = dir.read(&dir::name(key)).ok()?;
    if len == 0 || len > LIMIT {
        return None;
    }
    let image = Image::open(Mapped::new(file.as_raw_fd(), len as usize)?, key, &m.guest).ok()?;
    Some((file, image, inode))
}

/// Whether guest memory holds what the image was made from. Watches it first.
fn is_current(image: &Image) -> bool {
    let mut buf = [0u8; 4096];
    let mut watched = 0;
    image.content().all(|(range, want)| {
        if range.end > watched {
            memory::protect_code(range.start.max(watched)..range.end);
            watched = range.end.next_multiple_of(memory::host::PAGE);
        }
        want.chunks(buf.len()).zip((range.start..).step_by(buf.len())).all(|(want, at)| {
            let got = &mut buf[..want.len()];
            access::read_some(at, got) == got.len() && got == want
        })
    })
}

fn adopt(s: &Store, m: &Module) -> Option<(u64, usize)> {
    let ordering = code::regime()?;
    let key = s.key(m, ordering);
    let dir = Dir::open(&s.path).ok()?;
    let generation = memory::generation();
    let (file, image, inode) = open_image(&dir, m, key)?;
    if !is_current(&image) {
        return None;
    }
    dir::touch(&file);
    let size = image.code().len();
    code::adopt(image, file.as_raw_fd(), generation, ordering).then_some((inode, size))
}

/// Takes what is kept for all that is mapped, after the cache was emptied.
pub fn adopt_again() {
    let Some(s) = store() else { return };
    let all = modules().clone();
    let again: Vec<_> = all.iter().map(|m| adopt(s, m)).collect();
    let mut now = modules();
    for (m, image) in all.iter().zip(again) {
        if let Some(x) = now.iter_mut().find(|x| x.guest == m.guest && x.file == m.file) {
            (x.image, x.since) = (image, 0);
        }
    }
    SAVED.store(0, Ordering::Relaxed);
}

/// Writes what is new to the images, if it is much.
pub fn save() {
    let Some(s) = store() else { return };
    let since = SAVED.load(Ordering::Relaxed);
    let made = code::made(since, &(0..0)).0;
    if made.saturating_sub(since) < FEW || !may_write() {
        return;
    }
    SAVED.store(made, Ordering::Relaxed);
    let Some(ordering) = code::regime() else { return };
    let all = modules().clone();
    for m in all {
        let (made, new) = code::made(m.since, &m.guest);
        if new < ENOUGH || new * SHARE < m.image.map_or(0, |i| i.1) {
            continue;
        }
        if let Some(image) = write(s, &m, ordering)
            && let Some(x) = modules().iter_mut().find(|x| x.guest == m.guest)
        {
            (x.image, x.since) = (Some(image), made);
        }
    }
}

/// As [`save`], for a process that is about to end: says what it had from there, if that was asked for.
pub fn end() {
    save();
    if config::get().cache_report {
        let (stats, _) = code::stats();
        eprintln!("xrun: {} regions from the cache, {} translated", stats.adopted, stats.regions);
    }
}

/// Holds this module's lock across fork, so that the child gets it free.
pub struct ForkGuard(#[allow(dead_code)] MutexGuard<'static, Vec<Module>>);

/// See [`ForkGuard`].
pub fn fork_guard() -> ForkGuard {
    ForkGuard(modules())
}

/// Whether the process may write files of any size: a limit would be felt as a signal.
fn may_write() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) == 0 && limit.rlim_cur == libc::RLIM_INFINITY }
}

fn write(s: &Store, m: &Module, ordering: engine::Ordering) -> Option<(u64, usize)> {
    let key = s.key(m, ordering);
    let name = dir::name(key);
    let dir = Dir::open(&s.path).ok()?;
    let _lock = dir.lock().ok()?;
    let generation = memory::generation();
    let theirs = open_image(&dir, m, key)
        .filter(|(_, _, inode)| m.image.is_none_or(|i| i.0 != *inode))
        .map(|(_, image, _)| image)
        .filter(is_current);
    let file = code::image(key, &m.guest, theirs.as_ref(), generation, ordering)?;
    let inode = dir.replace(&name, &file).ok()?;
    let _ = dir::evict(&s.path, &dir, LIMIT);
    Some((inode, file.len()))
}
