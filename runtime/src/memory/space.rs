//! One guest's address space: the map, the rules of x86_64 Linux for placing things in it, and the host mappings behind
//! it. Guest addresses are host addresses, so xrun's own memory may lie between the guest's; it is never in the map, shows
//! only as EEXIST from the host, and is then remembered as foreign so that searches go round it.
//!
//! Not here: locking, and who is told that translations are void (the parent module's).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::host::{self, Errno, PAGE};
use super::vmas::{Kind, Prot, Vma, Vmas};

/// End of the address space of an x86_64 process with 4-level paging (arch/x86: TASK_SIZE_MAX).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Lowest address given out without being asked for (vm.mmap_min_addr's default).
const LOWEST: u64 = 0x1_0000;
/// Where MAP_32BIT mappings go (mmap(2)): the first 2 GiB, above 1 GiB.
const LOW_WINDOW: Range<u64> = 0x4000_0000..0x8000_0000;
/// Distance kept below a mapping that grows down, in bytes (stack_guard_gap).
pub const STACK_GUARD: u64 = 256 * PAGE;

pub const MAP_32BIT: i32 = 0x40;
const MAP_ABOVE4G: i32 = 0x80;
const MAP_TYPE: i32 = 0x0f;
const MAP_SHARED_VALIDATE: i32 = 3;
const MAP_DROPPABLE: i32 = 8;
const MAP_HUGETLB: i32 = 0x4_0000;

/// Whether a page that the guest may write was ever write-protected: only then can the kernel meet one on its way.
pub static PROTECTED: AtomicBool = AtomicBool::new(false);

/// What a change of the map means to others.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes whose translations were made void.
    pub void: Vec<Range<u64>>,
    /// Another process may watch the order of writes from now on.
    pub shared: bool,
}

impl Effects {
    /// To be called before the bytes of `range`, or their protection, change.
    fn void(&mut self, range: Range<u64>) {
        super::void(range.clone());
        self.void.push(range);
    }
}

#[derive(Debug)]
pub struct Space {
    pub vmas: Vmas,
    /// Host mappings in the guest's range that are not the guest's: start to end.
    foreign: BTreeMap<u64, u64>,
    /// Pages that translations were made from. Invariant: none of them is writable on the host.
    code: BTreeSet<u64>,
    /// Pages of `code` asked for of late, each at its own place by number; 1 for none.
    recent: [u64; RECENT],
    /// Writable pages that show the same file page as a page of `code`, to that page. Invariant: not writable on the host.
    aliases: BTreeMap<u64, u64>,
    /// Top of the area searched for mappings without an address.
    pub mmap_base: u64,
    /// End of the guest's address space: [`TASK_SIZE`], or less where the host's is smaller.
    pub end: u64,
    pub brk_start: u64,
    pub brk: u64,
    /// PROT_READ implies PROT_EXEC (personality READ_IMPLIES_EXEC).
    pub read_implies_exec: bool,
}

pub fn page_up(v: u64) -> Option<u64> {
    Some(v.checked_add(PAGE - 1)? & !(PAGE - 1))
}

/// Places in [`Space::recent`].
const RECENT: usize = 64;

fn recent_at(page: u64) -> usize {
    (page / PAGE) as usize % RECENT
}

fn page_of(v: u64) -> u64 {
    v & !(PAGE - 1)
}

impl Default for Space {
    fn default() -> Space {
        Space::new()
    }
}

impl Space {
    pub const fn new() -> Space {
        Space {
            vmas: Vmas::new(),
            foreign: BTreeMap::new(),
            code: BTreeSet::new(),
            recent: [1; RECENT],
            aliases: BTreeMap::new(),
            mmap_base: TASK_SIZE - (128 << 20),
            end: TASK_SIZE,
            brk_start: 0,
            brk: 0,
            read_implies_exec: false,
        }
    }

    // ---- placing ------------------------------------------------------------------------------------------------

    /// Where something overlapping `r` starts that must be avoided: the lowest such start.
    fn obstacle(&self, r: Range<u64>) -> Option<u64> {
        let guarded = r.end.saturating_add(STACK_GUARD);
        let vma = self.vmas.below(r.start).filter(|(v, _)| v.end > r.start).map(|(v, _)| v.start).or_else(|| {
            let (v, vma) = self.vmas.above(r.start.wrapping_sub(1))?;
            if v.start < r.end {
                Some(v.start)
            } else if vma.kind == Kind::GrowsDown && v.start < guarded {
                Some(v.start.saturating_sub(STACK_GUARD))
            } else {
                None
            }
        });
        let foreign = self
            .foreign
            .range(..=r.start)
            .next_back()
            .filter(|&(_, &end)| end > r.start)
            .or_else(|| self.foreign.range(r.clone()).next())
            .map(|(&s, _)| s);
        match (vma, foreign) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Searches `window` from the top for `len` bytes and lets `try_map` map there.
    /// `try_map` says EEXIST when the host has something the map does not know.
    fn search(
        &mut self,
        window: Range<u64>,
        len: u64,
        align: u64,
        try_map: &mut dyn FnMut(u64) -> Result<(), Errno>,
    ) -> Result<u64, Errno> {
        let mut top = window.end;
        while let Some(start) = top.checked_sub(len).map(|s| s & !(align - 1)) {
            if start < window.start {
                break;
            }
            let r = start..start + len;
            if let Some(low) = self.obstacle(r.clone()) {
                top = low;
                continue;
            }
            match try_map(start) {
                Err(libc::EEXIST) => self.learn_foreign(r),
                Ok(()) => return Ok(start),
                Err(e) => return Err(e),
            }
        }
        Err(libc::ENOMEM)
    }

    /// As the kernel's `get_unmapped_area`: the hint when it is free, else top-down from mmap_base, else above it.
    fn place(
        &mut self,
        hint: u64,
        len: u64,
        align: u64,
        low: bool,
        try_map: &mut dyn FnMut(u64) -> Result<(), Errno>,
    ) -> Result<u64, Errno> {
        let hint = page_up(hint).unwrap_or(0) & !(align - 1);
        if hint >= LOWEST && hint.checked_add(len).is_some_and(|e| e <= self.end) {
            let fits = !low || hint + len <= LOW_WINDOW.end;
            if fits && self.obstacle(hint..hint + len).is_none() {
                match try_map(hint) {
                    Ok(()) => return Ok(hint),
                    Err(libc::EEXIST) => self.learn_foreign(hint..hint + len),
                    Err(e) => return Err(e),
                }
            }
        }
        if low {
            return self.search(LOW_WINDOW, len, align, try_map);
        }
        for _ in 0..2 {
            for window in [LOWEST..self.mmap_base, self.mmap_base..self.end] {
                match self.search(window, len, align, try_map) {
                    Err(libc::ENOMEM) => {}
                    r => return r,
                }
            }
            // Foreign mappings come and go; what was in the way once need not be now.
            if self.foreign.is_empty() {
                break;
            }
            self.foreign.clear();
        }
        Err(libc::ENOMEM)
    }

    /// Finds the highest foreign mapping in `r` by asking the host, and remembers it.
    fn learn_foreign(&mut self, r: Range<u64>) {
        // Largest suffix of `r` that is free: [hi, end) is, [lo, end) is not.
        let (mut lo, mut hi) = (r.start, r.end);
        while hi - lo > PAGE {
            let mid = page_of(lo + (hi - lo) / 2);
            if host::is_free(mid, r.end) { hi = mid } else { lo = mid }
        }
        // Page `lo` is taken. Walk down in doubling steps while single pages are; holes skipped this way are only not used.
        let mut bottom = lo;
        let mut step = PAGE;
        while bottom > step && !host::is_free(bottom - step, bottom - step + PAGE) {
            bottom -= step;
            step *= 2;
        }
        let mut free_below = bottom.saturating_sub(step);
        while bottom - free_below > PAGE {
            let mid = page_of(free_below + (bottom - free_below) / 2);
            if host::is_free(mid, mid + PAGE) { free_below = mid } else { bottom = mid }
        }
        let end = hi;
        self.foreign.retain(|&s, &mut e| e < bottom || s > end);
        self.foreign.insert(bottom, end);
    }

    /// Claims `r` on the host so that MAP_FIXED over it can only hit the guest's own memory. Returns what had to be
    /// claimed, to be given back on failure.
    fn claim(&mut self, r: Range<u64>) -> Result<Vec<Range<u64>>, Errno> {
        let gaps = self.vmas.gaps(r);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        for (i, g) in gaps.iter().enumerate() {
            if let Err(e) = host::mmap_exactly(g.start, g.end - g.start, libc::PROT_NONE, flags, -1, 0) {
                for g in &gaps[..i] {
                    let _ = host::munmap(g.start, g.end - g.start);
                }
                return Err(if e == libc::EEXIST { libc::ENOMEM } else { e });
            }
        }
        Ok(gaps)
    }

    // ---- the calls ----------------------------------------------------------------------------------------------

    fn guest_prot(&self, prot: i32) -> Prot {
        let mut p = Prot::from_bits_truncate(prot as u8);
        if self.read_implies_exec && p.contains(Prot::READ) {
            p |= Prot::EXEC;
        }
        p
    }

    #[allow(clippy::too_many_arguments)]
    pub fn mmap(
        &mut self,
        fx: &mut Effects,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        off: u64,
    ) -> Result<u64, Errno> {
        if len == 0 || !off.is_multiple_of(PAGE) {
            return Err(libc::EINVAL);
        }
        let len = page_up(len).filter(|&l| l <= self.end).ok_or(libc::ENOMEM)?;
        if off.checked_add(len).is_none() {
            return Err(libc::EOVERFLOW);
        }
        let anon = flags & libc::MAP_ANONYMOUS != 0;
        let shared = matches!(flags & MAP_TYPE, libc::MAP_SHARED | MAP_SHARED_VALIDATE);
        if !shared && !matches!(flags & MAP_TYPE, libc::MAP_PRIVATE | MAP_DROPPABLE) {
            return Err(libc::EINVAL);
        }
        if flags & libc::MAP_GROWSDOWN != 0 && (shared || !anon) {
            return Err(libc::EINVAL);
        }
        let prot = self.guest_prot(prot);
        if !anon && prot.contains(Prot::EXEC) && host::on_noexec_mount(fd) {
            return Err(libc::EPERM);
        }
        let fd = if anon { -1 } else { fd };
        let vma = Vma {
            prot,
            shared,
            kind: match (anon, flags & libc::MAP_GROWSDOWN != 0) {
                (true, true) => Kind::GrowsDown,
                (true, false) => Kind::Anon,
                (false, _) => Kind::File,
            },
            file: if shared && !anon { Some(host::identity(fd)?) } else { None },
            offset: if shared && !anon { off } else { 0 },
        };
        // Growth is done here (`grow`), so that the map always knows it.
        let kept =
            flags & !(MAP_32BIT | MAP_ABOVE4G | libc::MAP_GROWSDOWN | libc::MAP_FIXED | host::MAP_FIXED_NOREPLACE);
        let at = if flags & (libc::MAP_FIXED | host::MAP_FIXED_NOREPLACE) != 0 {
            if !addr.is_multiple_of(PAGE) {
                return Err(libc::EINVAL);
            }
            let end = addr.checked_add(len).filter(|&e| e <= self.end).ok_or(libc::ENOMEM)?;
            if flags & host::MAP_FIXED_NOREPLACE != 0 {
                if !self.vmas.is_free(addr..end) {
                    return Err(libc::EEXIST);
                }
                host::mmap_exactly(addr, len, prot.host(), kept, fd, off)?;
            } else {
                let claimed = self.claim(addr..end)?;
                self.forget_code(addr..end, fx);
                if let Err(e) = host::mmap(addr, len, prot.host(), kept | libc::MAP_FIXED, fd, off) {
                    for g in claimed {
                        let _ = host::munmap(g.start, g.end - g.start);
                    }
                    return Err(e);
                }
            }
            addr
        } else {
            let align = huge_alignment(flags);
            let len = len.div_ceil(align) * align;
            self.place(addr, len, align, flags & MAP_32BIT != 0, &mut |at| {
                host::mmap_exactly(at, len, prot.host(), kept, fd, off)
            })?
        };
        self.vmas.insert(at..at + len, vma);
        self.note_sharing(vma, fx);
        // What this process only reads others may write: then the order of its loads shows.
        fx.shared |= shared && !anon && host::is_written_by_others(fd);
        Ok(at)
    }

    /// A mapping came to be or changed its rights: others may watch its writes, or run what is written through it. Of memory
    /// that is no file's they may also be the ones who write.
    fn note_sharing(&mut self, vma: Vma, fx: &mut Effects) {
        if !vma.shared {
            return;
        }
        fx.shared |= vma.file.is_none() && vma.prot.contains(Prot::READ);
        if !vma.prot.contains(Prot::WRITE) {
            return;
        }
        fx.shared = true;
        if vma.file.is_none() || self.code.is_empty() {
            return;
        }
        let same: Vec<_> = self.vmas.iter().filter(|(_, v)| v.shared && v.file == vma.file).map(|(r, _)| r).collect();
        for r in same {
            self.release(r, fx);
        }
    }

    pub fn munmap(&mut self, fx: &mut Effects, addr: u64, len: u64) -> Result<(), Errno> {
        let r = self.user_range(addr, len).filter(|r| !r.is_empty()).ok_or(libc::EINVAL)?;
        self.forget_code(r.clone(), fx);
        for (part, _) in self.vmas.parts(r) {
            host::munmap(part.start, part.end - part.start)?;
            self.vmas.remove(part);
        }
        Ok(())
    }

    pub fn mprotect(&mut self, fx: &mut Effects, addr: u64, len: u64, prot: i32) -> Result<(), Errno> {
        const GROWS: i32 = libc::PROT_GROWSDOWN | libc::PROT_GROWSUP;
        // PROT_SEM (8) is accepted and means nothing.
        if prot & !(7 | 8 | GROWS) != 0 || prot & GROWS == GROWS {
            return Err(libc::EINVAL);
        }
        if !addr.is_multiple_of(PAGE) {
            return Err(libc::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let mut r = self.user_range(addr, len).ok_or(libc::ENOMEM)?;
        if prot & libc::PROT_GROWSDOWN != 0 {
            let (v, vma) = self.vmas.at(r.start).ok_or(libc::ENOMEM)?;
            if !matches!(vma.kind, Kind::Stack | Kind::GrowsDown) {
                return Err(libc::EINVAL);
            }
            r.start = v.start;
        } else if prot & libc::PROT_GROWSUP != 0 {
            return Err(libc::EINVAL);
        }
        let prot = self.guest_prot(prot);
        // The kernel changes everything up to the first hole before it fails.
        let mut at = r.start;
        for (part, vma) in self.vmas.parts(r.clone()) {
            if part.start != at {
                break;
            }
            if vma.prot != prot {
                if !prot.contains(Prot::EXEC) || prot.contains(Prot::WRITE) {
                    self.forget_code(part.clone(), fx);
                }
                host::mprotect(part.start, part.end - part.start, prot.host())?;
                self.note_sharing(Vma { prot, ..vma }, fx);
            }
            at = part.end;
        }
        self.vmas.update(r.start..at, |v| v.prot = prot);
        if at == r.end { Ok(()) } else { Err(libc::ENOMEM) }
    }

    pub fn mremap(
        &mut self,
        fx: &mut Effects,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: i32,
        new: u64,
    ) -> Result<u64, Errno> {
        const DONTUNMAP: i32 = 4;
        let fixed = flags & libc::MREMAP_FIXED != 0;
        let may_move = flags & libc::MREMAP_MAYMOVE != 0;
        let keep = flags & DONTUNMAP != 0;
        if flags & !(libc::MREMAP_FIXED | libc::MREMAP_MAYMOVE | DONTUNMAP) != 0
            || (fixed || keep) && !may_move
            || keep && old_len != new_len
            || !old.is_multiple_of(PAGE)
        {
            return Err(libc::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(libc::EINVAL)?;
        let new_len = page_up(new_len).filter(|&l| l != 0).ok_or(libc::EINVAL)?;
        if new_len > self.end {
            return Err(libc::ENOMEM);
        }
        let (whole, vma) = self.vmas.at(old).ok_or(libc::EFAULT)?;
        // Duplicating (old_len 0) is for shared mappings only.
        if old_len == 0 && !vma.shared {
            return Err(libc::EINVAL);
        }
        if old + old_len > whole.end {
            return Err(libc::EFAULT);
        }
        let vma = self.vmas.parts(old..old + old_len.max(PAGE))[0].1;
        let source = old..old + old_len;
        // Write-protected code pages have split the host's mapping, and the host moves whole mappings only.
        self.release(source.clone(), fx);
        if fixed {
            let target = self.user_range(new, new_len).ok_or(libc::EINVAL)?;
            if target.start < source.end && source.start < target.end {
                return Err(libc::EINVAL);
            }
            if new_len < old_len {
                self.munmap(fx, old + new_len, old_len - new_len)?;
            }
            let claimed = self.claim(target.clone())?;
            self.forget_code(target.clone(), fx);
            let r = host::mremap(old, old_len.min(new_len), new_len, flags, new);
            if let Err(e) = r {
                for g in claimed {
                    let _ = host::munmap(g.start, g.end - g.start);
                }
                return Err(e);
            }
            self.moved(old..old + old_len.min(new_len), target, vma, keep);
            return Ok(new);
        }
        if old_len >= new_len && !keep && old_len != 0 {
            if old_len > new_len {
                self.munmap(fx, old + new_len, old_len - new_len)?;
            }
            return Ok(old);
        }
        let grown = old + new_len;
        if !keep
            && old_len != 0
            && source.end == whole.end
            && grown <= self.end
            && self.obstacle(source.end..grown).is_none()
            && host::mremap(old, old_len, new_len, 0, 0).is_ok()
        {
            self.vmas.insert(old..grown, vma);
            return Ok(old);
        }
        if !may_move {
            return Err(libc::ENOMEM);
        }
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let to = self
            .place(0, new_len, PAGE, false, &mut |at| host::mmap_exactly(at, new_len, libc::PROT_NONE, none, -1, 0))?;
        if let Err(e) = host::mremap(old, old_len, new_len, flags | libc::MREMAP_FIXED, to) {
            let _ = host::munmap(to, new_len);
            return Err(e);
        }
        self.moved(source, to..to + new_len, vma, keep);
        Ok(to)
    }

    fn moved(&mut self, from: Range<u64>, to: Range<u64>, vma: Vma, keep: bool) {
        if !keep {
            self.vmas.remove(from);
        }
        self.vmas.insert(to, vma);
    }

    /// brk(2): the new break, or the old one when it cannot be moved there.
    pub fn set_brk(&mut self, fx: &mut Effects, to: u64) -> u64 {
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(to)) else {
            return self.brk;
        };
        if to < self.brk_start || new_end > self.end {
            return self.brk;
        }
        if new_end > old_end {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let prot = self.guest_prot(libc::PROT_READ | libc::PROT_WRITE);
            let r = old_end..new_end;
            if self.obstacle(r.clone()).is_some()
                || host::mmap_exactly(r.start, r.end - r.start, prot.host(), flags, -1, 0).is_err()
            {
                return self.brk;
            }
            self.vmas.insert(r, Vma::anon(prot, Kind::Heap));
        } else if new_end < old_end && self.munmap(fx, new_end, old_end - new_end).is_err() {
            return self.brk;
        }
        self.brk = to;
        to
    }

    pub fn madvise(&mut self, fx: &mut Effects, addr: u64, len: u64, advice: i32) -> Result<(), Errno> {
        if !addr.is_multiple_of(PAGE) {
            return Err(libc::EINVAL);
        }
        // The advice there is (asm-generic/mman-common.h), and memory failure injection, which is for root.
        if !matches!(advice, 0..=4 | 8..=25 | 100..=103) {
            return Err(libc::EINVAL);
        }
        let r = self.user_range(addr, len).ok_or(libc::EINVAL)?;
        let replaces =
            matches!(advice, libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE | MADV_DONTNEED_LOCKED);
        if replaces {
            self.release(r.clone(), fx);
        }
        if r.is_empty() {
            return host::madvise(r.start, 0, advice);
        }
        // Advice is given to what is the guest's; a hole makes the call fail once the rest is done, as the kernel has it.
        for (part, _) in self.vmas.parts(r.clone()) {
            host::madvise(part.start, part.end - part.start, advice)?;
        }
        if self.vmas.covers(r) { Ok(()) } else { Err(libc::ENOMEM) }
    }

    pub fn shmat(&mut self, fx: &mut Effects, id: i32, addr: u64, flags: i32) -> Result<u64, Errno> {
        let size = page_up(host::shm_size(id)?).ok_or(libc::EINVAL)?;
        let mut prot = Prot::READ;
        prot.set(Prot::WRITE, flags & libc::SHM_RDONLY == 0);
        prot.set(Prot::EXEC, flags & libc::SHM_EXEC != 0);
        let vma = Vma { shared: true, ..Vma::anon(prot, Kind::Shm((size / PAGE) as u32)) };
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let host_flags = flags & !(libc::SHM_EXEC | libc::SHM_RND);
        let at = if addr == 0 {
            if flags & libc::SHM_REMAP != 0 {
                return Err(libc::EINVAL);
            }
            self.place(0, size, PAGE, false, &mut |at| host::mmap_exactly(at, size, libc::PROT_NONE, none, -1, 0))?
        } else {
            let at = if flags & libc::SHM_RND != 0 { page_of(addr) } else { addr };
            if !at.is_multiple_of(PAGE) {
                return Err(libc::EINVAL);
            }
            let r = self.user_range(at, size).ok_or(libc::EINVAL)?;
            if flags & libc::SHM_REMAP == 0 && !self.vmas.is_free(r.clone()) {
                return Err(libc::EINVAL);
            }
            self.claim(r.clone())?;
            self.forget_code(r, fx);
            at
        };
        if let Err(e) = host::shmat_over(id, at, host_flags) {
            self.vmas.remove(at..at + size);
            let _ = host::munmap(at, size);
            return Err(e);
        }
        self.vmas.insert(at..at + size, vma);
        self.note_sharing(vma, fx);
        Ok(at)
    }

    pub fn shmdt(&mut self, fx: &mut Effects, addr: u64) -> Result<(), Errno> {
        let (r, vma) = self.vmas.at(addr).filter(|(r, _)| r.start == addr).ok_or(libc::EINVAL)?;
        let Kind::Shm(pages) = vma.kind else {
            return Err(libc::EINVAL);
        };
        host::shmdt(addr)?;
        let end = addr + u64::from(pages) * PAGE;
        for (part, v) in self.vmas.parts(r.start..end) {
            if v.kind == vma.kind {
                self.vmas.remove(part);
            }
        }
        self.forget_code(addr..end, fx);
        Ok(())
    }

    /// `addr..addr+len` rounded up to pages, when it lies in the guest's space.
    fn user_range(&self, addr: u64, len: u64) -> Option<Range<u64>> {
        let len = page_up(len)?;
        let end = addr.checked_add(len)?;
        (addr.is_multiple_of(PAGE) && end <= self.end).then_some(addr..end)
    }

    // ---- code pages ---------------------------------------------------------------------------------------------

    fn code_in(&self, r: Range<u64>) -> Vec<u64> {
        self.code.range(page_of(r.start)..r.end).copied().collect()
    }

    /// The bytes in `r` are about to change by a call (or are gone from the map): no page of it holds code any more. The caller
    /// then sets the host's protection itself.
    fn forget_code(&mut self, r: Range<u64>, fx: &mut Effects) {
        self.release_aliases(r.clone(), fx);
        // Code that is not watched (it is checked whenever it is entered) does not notice that it may not be run any more.
        let runs = self.vmas.parts(r.clone()).iter().any(|(_, v)| v.prot.contains(Prot::EXEC));
        let pages = self.code_in(r.clone());
        if runs || !pages.is_empty() {
            fx.void(r);
        }
        for p in pages {
            self.forget_page(p);
        }
    }

    /// Takes one page off the list, and gives write access back to its aliases.
    fn forget_page(&mut self, page: u64) {
        self.recent[recent_at(page)] = 1;
        self.code.remove(&page);
        if self.aliases.is_empty() {
            return;
        }
        let mine: Vec<u64> = self.aliases.iter().filter(|&(_, &code)| code == page).map(|(&a, _)| a).collect();
        for a in mine {
            self.aliases.remove(&a);
            if let Some((_, vma)) = self.vmas.at(a) {
                let _ = host::mprotect(a, PAGE, vma.prot.host());
            }
        }
    }

    /// What is written through the aliases in `r` is no code any more. Whether there were any.
    fn release_aliases(&mut self, r: Range<u64>, fx: &mut Effects) -> bool {
        if self.aliases.is_empty() {
            return false;
        }
        let pages: Vec<u64> = self.aliases.range(page_of(r.start)..r.end.max(r.start)).map(|(_, &code)| code).collect();
        for &p in &pages {
            self.release(p..p + PAGE, fx);
        }
        !pages.is_empty()
    }

    /// As `forget_code`, and gives write access back on the host. Returns whether any page had lost it.
    pub fn release(&mut self, r: Range<u64>, fx: &mut Effects) -> bool {
        let mut any = false;
        for p in self.code_in(r.clone()) {
            any |= self.release_page(p, fx);
        }
        any | self.release_aliases(r, fx)
    }

    /// `release` of one page of code.
    fn release_page(&mut self, page: u64, fx: &mut Effects) -> bool {
        fx.void(page..page + PAGE);
        self.forget_page(page);
        match self.vmas.at(page) {
            Some((_, vma)) if vma.prot.contains(Prot::WRITE) => host::mprotect(page, PAGE, vma.prot.host()).is_ok(),
            _ => false,
        }
    }

    /// As `release`, for code pages only the guest may write to. Used before the kernel writes to guest memory.
    pub fn release_writable(&mut self, r: Range<u64>, fx: &mut Effects) -> bool {
        let mut any = self.release_aliases(r.clone(), fx);
        for p in self.code_in(r) {
            if self.vmas.at(p).is_some_and(|(_, v)| v.prot.contains(Prot::WRITE)) {
                any |= self.release(p..p + PAGE, fx);
            }
        }
        any
    }

    /// Marks the page at `page` as one that translations are made from: from now on a write to it is seen.
    /// False when the page is not executable for the guest.
    pub fn watch(&mut self, page: u64) -> bool {
        if page == self.recent[recent_at(page)] {
            return true;
        }
        let Some((_, vma)) = self.vmas.at(page) else {
            return false;
        };
        if !vma.prot.contains(Prot::EXEC) {
            return false;
        }
        if self.code.insert(page) && vma.prot.contains(Prot::WRITE) {
            PROTECTED.store(true, Ordering::SeqCst);
            // Refused only when the host is out of mappings (vm.max_map_count); then writes go unseen, so do not run it.
            if host::mprotect(page, PAGE, libc::PROT_READ).is_err() {
                self.code.remove(&page);
                return false;
            }
        }
        if !self.watch_aliases(page) {
            self.forget_page(page);
            return false;
        }
        self.recent[recent_at(page)] = page;
        true
    }

    /// Write-protects the other places that `page`, of a shared file mapping, can be written through.
    fn watch_aliases(&mut self, page: u64) -> bool {
        let Some((r, vma)) = self.vmas.at(page).filter(|(_, v)| v.shared && v.file.is_some()) else { return true };
        let offset = vma.offset + (page - r.start);
        let others: Vec<u64> = self
            .vmas
            .iter()
            .filter(|(_, v)| v.shared && v.file == vma.file && v.prot.contains(Prot::WRITE))
            .filter(|(o, v)| (v.offset..v.offset + (o.end - o.start)).contains(&offset))
            .map(|(o, v)| o.start + (offset - v.offset))
            .filter(|&a| a != page)
            .collect();
        for a in others {
            PROTECTED.store(true, Ordering::SeqCst);
            if host::mprotect(a, PAGE, libc::PROT_READ).is_err() {
                return false;
            }
            self.aliases.insert(a, page);
        }
        true
    }

    /// A fault at `addr`: writes to watched pages and touches just below a growing mapping are put right.
    /// True when the access should be tried again.
    pub fn fault(&mut self, addr: u64, fx: &mut Effects) -> bool {
        let page = page_of(addr);
        match self.vmas.at(addr) {
            Some((_, vma)) if vma.prot.contains(Prot::WRITE) => {
                if self.code.contains(&page) {
                    return self.release_page(page, fx) | self.release_aliases(page..page + PAGE, fx);
                }
                if self.aliases.contains_key(&page) {
                    return self.release_aliases(page..page + PAGE, fx);
                }
                // Another thread may have put it right between the fault and the lock.
                false
            }
            Some(_) => false,
            None => self.grow(page),
        }
    }

    /// Extends a MAP_GROWSDOWN mapping down to `page`, keeping the guard gap to what lies below.
    fn grow(&mut self, page: u64) -> bool {
        let Some((r, vma)) = self.vmas.above(page) else {
            return false;
        };
        if vma.kind != Kind::GrowsDown || r.start - page > STACK_GUARD {
            return false;
        }
        let lowest = page.saturating_sub(STACK_GUARD);
        if self.vmas.below(page).is_some_and(|(b, _)| b.end > lowest) {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if host::mmap_exactly(page, r.start - page, vma.prot.host(), flags, -1, 0).is_err() {
            return false;
        }
        self.vmas.insert(page..r.start, vma);
        true
    }
}

const MADV_DONTNEED_LOCKED: i32 = 24;

/// Size of the pages asked for by MAP_HUGETLB (2 MiB unless the flags name another), else one page.
fn huge_alignment(flags: i32) -> u64 {
    if flags & MAP_HUGETLB == 0 {
        return PAGE;
    }
    match (flags as u32) >> 26 {
        0 => 2 << 20,
        shift => (1u64 << shift.min(40)).max(PAGE),
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
