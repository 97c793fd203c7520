//! The memory translated code lies in, and the indirect-branch tables before it: one private anonymous mapping, so that fork
//! copies it lazily and a child's patches stay its own.
//!
//! Layout: page (its last u64 is [`NEVER`]), the all-miss table, page (the same), the lookup table, code up to the end. Everything starts as
//! zero pages that cost nothing until touched. A table slot is the byte offset of a host entry from the table's base; the
//! zero slot therefore names the base itself, before which [`NEVER`] stands where an entry has its guest address. A branch to that very address would find it,
//! so the slot it looks in is never zero: when empty it names [`NOTHING`], before which stands an address that looks in another slot. The whole
//! mapping is within the reach of a B.

use crate::abi::LOOKUP_BITS;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// No guest instruction has this address: user code lies below 2^47.
pub const NEVER: u64 = u64::MAX;

const PAGE: usize = 4096;
const TABLE: usize = 4 << LOOKUP_BITS;
const MISS_BASE: usize = PAGE;
const LOOKUP_BASE: usize = PAGE + TABLE + PAGE;
/// After 0, the guest address before it.
const NOTHING: usize = LOOKUP_BASE + TABLE + 8;
const CODE: usize = NOTHING + 8;

/// The reach of B and BL in either direction.
pub const SIZE: usize = 128 << 20;

/// See the file's head.
pub struct Arena {
    base: u64,
    size: usize,
    /// Byte offset from `base` of the first free word.
    cursor: usize,
    /// Where a file was mapped.
    files: Vec<std::ops::Range<usize>>,
}

impl Arena {
    /// Maps `size` bytes; the error is the errno of mmap.
    pub fn new(size: usize) -> Result<Arena, i32> {
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice affects no existing memory.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        }
        let arena = Arena { base: at as u64, size, cursor: CODE, files: Vec::new() };
        for base in [MISS_BASE, LOOKUP_BASE] {
            // SAFETY: both addresses are aligned and inside the new mapping.
            unsafe { AtomicU64::from_ptr((arena.base + base as u64 - 8) as *mut u64) }.store(NEVER, Ordering::Relaxed);
            arena.word(arena.base + base as u64 + 4 * index(NEVER)).store((NOTHING - base) as u32, Ordering::Relaxed);
        }
        Ok(arena)
    }

    /// The lookup table; what `CpuState::lookup` normally is.
    pub fn lookup(&self) -> u64 {
        self.base + LOOKUP_BASE as u64
    }

    /// A table in which every lookup misses.
    pub fn all_miss(&self) -> u64 {
        self.base + MISS_BASE as u64
    }

    /// Where code lies, as host addresses.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.base + CODE as u64..self.base + self.size as u64
    }

    /// Takes space for `words` words; returns its host address, 16-byte aligned. `None` when full.
    pub fn take(&mut self, words: usize) -> Option<u64> {
        let at = self.cursor.next_multiple_of(16);
        let end = at.checked_add(words.checked_mul(4)?)?;
        if end > self.size {
            return None;
        }
        self.cursor = end;
        Some(self.base + at as u64)
    }

    /// Maps the code at `offset` of the file, a multiple of the host's page, up to the file's end; other processes that map it share its pages
    /// until they patch them. Where code may not be mapped from a file (EPERM: a file system mounted noexec) it is copied from `bytes`, which are
    /// the same. Returns its host address; `None` when there is no space.
    pub fn map(&mut self, fd: i32, offset: u64, bytes: &[u8]) -> Option<u64> {
        let page = crate::memory::host::page_size() as usize;
        let at = self.cursor.next_multiple_of(page);
        let end = at.checked_add(bytes.len())?.checked_next_multiple_of(page)?;
        if end > self.size {
            return None;
        }
        let host = self.base + at as u64;
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: the range is inside this arena's own mapping, and nobody uses it yet.
        let got = unsafe { libc::mmap(host as *mut _, bytes.len(), prot, flags, fd, offset as i64) };
        self.cursor = end;
        if got != libc::MAP_FAILED {
            self.files.push(at..end);
            return Some(host);
        }
        // After any other error what was mapped here may be gone: the space is not used.
        if !matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM | libc::EBADF)) {
            self.files.push(at..end);
            return None;
        }
        // SAFETY: as in `copy`; the kernel looks for these errors before it changes anything.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host as *mut u8, bytes.len()) };
        sync(host, bytes.len());
        Some(host)
    }

    /// The words from host address `at` on, as they are now. Whoever changes words holds the cache's lock, so does the caller.
    pub fn words(&self, at: u64, bytes: u32) -> &[u32] {
        debug_assert!(at >= self.base && at + u64::from(bytes) <= self.base + self.size as u64);
        // SAFETY: inside the mapping, aligned; nobody writes while the slice lives (see above).
        unsafe { std::slice::from_raw_parts(at as *const u32, bytes as usize / 4) }
    }

    /// Bytes of code taken.
    pub fn used(&self) -> usize {
        self.cursor - CODE
    }

    /// Makes all space free again and empties the lookup table. No thread may be in translated code or come back to it.
    pub fn reset(&mut self) {
        self.cursor = CODE;
        for r in std::mem::take(&mut self.files) {
            let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            let at = (self.base + r.start as u64) as *mut libc::c_void;
            // SAFETY: the range is inside this arena's own mapping, and nobody uses it any more.
            unsafe { libc::mmap(at, r.len(), prot, flags, -1, 0) };
        }
        // SAFETY: the range is the lookup table's own pages; a private anonymous mapping reads as zero after MADV_DONTNEED.
        unsafe { libc::madvise(self.lookup() as *mut _, TABLE, libc::MADV_DONTNEED) };
        self.empty(NEVER);
    }

    /// Copies `words` to `at`, which `take` returned. They may be executed after [`sync`].
    pub fn copy(&self, at: u64, words: &[u32]) {
        debug_assert!(self.range().contains(&at) && at + 4 * words.len() as u64 <= self.range().end);
        // SAFETY: the space belongs to this region alone and nobody executes it yet.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), at as *mut u32, words.len()) };
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4) && at >= self.base && at < self.base + self.size as u64);
        // SAFETY: aligned, inside the mapping, which is never unmapped; other threads only execute or atomically patch it.
        unsafe { AtomicU32::from_ptr(at as *mut u32) }
    }

    /// The word at host address `at`.
    pub fn read(&self, at: u64) -> u32 {
        self.word(at).load(Ordering::Relaxed)
    }

    /// Replaces one word that threads may be executing. Each sees the old or the new one (Arm ARM, B2.2.5 "Concurrent modification and
    /// execution of instructions").
    pub fn patch(&self, at: u64, word: u32) {
        self.word(at).store(word, Ordering::Relaxed);
        sync(at, 4);
    }

    /// The slot of `guest` in the lookup table.
    pub fn slot(&self, guest: u64) -> &AtomicU32 {
        self.word(self.lookup() + 4 * index(guest))
    }

    /// Makes the slot of `guest` name nothing.
    pub fn empty(&self, guest: u64) {
        let nothing = if index(guest) == index(NEVER) { (NOTHING - LOOKUP_BASE) as u32 } else { 0 };
        self.slot(guest).store(nothing, Ordering::Relaxed);
    }
}

/// The slot that `guest` looks in.
const fn index(guest: u64) -> u64 {
    guest & ((1 << LOOKUP_BITS) - 1)
}

/// What the lookup in the table at `lookup` finds for `guest`: what translated code does inline, both tries in one. The result is the entry's tag
/// (`guest`, with [`crate::abi::WANTS_FLAGS`] where set) and its host address.
pub fn probe(lookup: u64, guest: u64) -> Option<(u64, u64)> {
    if guest >> 47 != 0 {
        return None;
    }
    let index = index(guest);
    // SAFETY: `lookup` is one of an arena's two tables; their slots hold offsets of entries, or 0, with a u64 before each.
    unsafe {
        let slot = AtomicU32::from_ptr((lookup + 4 * index) as *mut u32).load(Ordering::Acquire);
        let host = lookup + u64::from(slot);
        let tag = ((host - 8) as *const u64).read_unaligned();
        (tag & !crate::abi::WANTS_FLAGS == guest).then_some((tag, host))
    }
}

/// Makes `len` bytes of new instructions at `at` visible to instruction fetch on every core (Arm ARM, B2.4.4 "Concurrent modification":
/// clean to the point of unification, invalidate, barriers). Lines are as CTR_EL0 says.
#[cfg(target_arch = "aarch64")]
pub fn sync(at: u64, len: usize) {
    use std::arch::asm;
    let ctr: u64;
    // SAFETY: reads a register user code may read; Linux sets SCTLR_EL1.UCT, or traps and emulates it.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    let end = at + len as u64;
    // IDC: data need not be cleaned. DIC: instructions need not be invalidated.
    if ctr >> 28 & 1 == 0 {
        let line = 4u64 << (ctr >> 16 & 15);
        let mut p = at & !(line - 1);
        while p < end {
            // SAFETY: cache maintenance by address of memory this process maps; it changes no data.
            unsafe { asm!("dc cvau, {}", in(reg) p, options(nostack, preserves_flags)) };
            p += line;
        }
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    if ctr >> 29 & 1 == 0 {
        let line = 4u64 << (ctr & 15);
        let mut p = at & !(line - 1);
        while p < end {
            // SAFETY: as above.
            unsafe { asm!("ic ivau, {}", in(reg) p, options(nostack, preserves_flags)) };
            p += line;
        }
        // SAFETY: a barrier.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Elsewhere the bytes are data.
#[cfg(not(target_arch = "aarch64"))]
pub fn sync(_at: u64, _len: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn code_comes_from_files_and_goes_again() {
        let path = std::env::temp_dir().join(format!("xrun-arena-{}", std::process::id()));
        let bytes: Vec<u8> = (0..5000u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut file =
            std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("made");
        file.write_all(&[0; PAGE]).and_then(|()| file.write_all(&bytes)).expect("written");
        let _ = std::fs::remove_file(path);
        let mut arena = Arena::new(4 << 20).expect("memory");
        let word = arena.take(1).expect("space");
        // One that cannot be mapped (no file) is copied.
        for fd in [file.as_raw_fd(), -1] {
            let at = arena.map(fd, PAGE as u64, &bytes).expect("space");
            assert!(at > word && at.is_multiple_of(PAGE as u64));
            assert_eq!(arena.words(at, 20_000).iter().zip(0..).filter(|(w, n)| **w != *n).count(), 0);
            // Patches are this process's own, and space goes on behind.
            arena.patch(at, 77);
            assert!(arena.take(1).expect("space") >= at + 20_000);
        }
        let large = vec![0; 4 << 20];
        assert_eq!(arena.map(-1, 0, &large), None);
        arena.reset();
        let at = arena.map(file.as_raw_fd(), PAGE as u64, &bytes).expect("space");
        assert_eq!(arena.read(at), 0);
    }
}
