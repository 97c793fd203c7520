//! The host kernel's memory calls, as `Result`s. Knows nothing of the guest: addresses are plain numbers, errors are
//! errno values. Nothing here keeps state.

/// An errno value, positive.
pub type Errno = i32;

pub const PAGE: u64 = 4096;
pub const MAP_FIXED_NOREPLACE: i32 = 0x10_0000;

fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

fn check(r: i32) -> Result<(), Errno> {
    if r == 0 { Ok(()) } else { Err(errno()) }
}

/// mmap(2). `addr` is where the mapping is wanted; the caller's flags decide how strictly.
pub fn mmap(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64) -> Result<u64, Errno> {
    // SAFETY: the address comes from the guest's address space or, with NOREPLACE, names memory nobody uses; Rust
    // objects are never mapped over because `memory` refuses MAP_FIXED outside its own map.
    let p = unsafe { libc::mmap(addr as *mut _, len as usize, prot, flags, fd, off as i64) };
    if p == libc::MAP_FAILED { Err(errno()) } else { Ok(p as u64) }
}

/// Maps exactly at `addr`, never over anything. EEXIST when something is there.
///
/// Kernels before 4.17 take NOREPLACE for a hint; a mapping that landed elsewhere is taken back.
pub fn mmap_exactly(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64) -> Result<(), Errno> {
    let got = mmap(addr, len, prot, flags & !libc::MAP_FIXED | MAP_FIXED_NOREPLACE, fd, off)?;
    if got != addr {
        munmap(got, len)?;
        return Err(libc::EEXIST);
    }
    Ok(())
}

pub fn munmap(addr: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: callers name ranges the guest owns or ranges they mapped themselves.
    check(unsafe { libc::munmap(addr as *mut _, len as usize) })
}

pub fn mprotect(addr: u64, len: u64, prot: i32) -> Result<(), Errno> {
    // SAFETY: as for `munmap`.
    check(unsafe { libc::mprotect(addr as *mut _, len as usize, prot) })
}

pub fn madvise(addr: u64, len: u64, advice: i32) -> Result<(), Errno> {
    // SAFETY: as for `munmap`.
    check(unsafe { libc::madvise(addr as *mut _, len as usize, advice) })
}

pub fn mremap(old: u64, old_len: u64, new_len: u64, flags: i32, new: u64) -> Result<u64, Errno> {
    // SAFETY: as for `munmap`; with MREMAP_FIXED the target was reserved by the caller.
    let p = unsafe { libc::mremap(old as *mut _, old_len as usize, new_len as usize, flags, new as *mut libc::c_void) };
    if p == libc::MAP_FAILED { Err(errno()) } else { Ok(p as u64) }
}

/// shmat(2) over a range the caller has reserved.
pub fn shmat_over(id: i32, addr: u64, flags: i32) -> Result<(), Errno> {
    // SAFETY: the caller mapped the range and gives it up to the segment.
    let p = unsafe { libc::shmat(id, addr as *const _, flags | libc::SHM_REMAP) };
    if p as isize == -1 { Err(errno()) } else { Ok(()) }
}

pub fn shmdt(addr: u64) -> Result<(), Errno> {
    // SAFETY: callers name a segment the guest attached.
    check(unsafe { libc::shmdt(addr as *const _) })
}

/// The size in bytes of a System V segment.
pub fn shm_size(id: i32) -> Result<u64, Errno> {
    // SAFETY: an all-zero shmid_ds is a valid value, and the kernel fills it.
    let mut ds: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `ds` outlives the call.
    check(unsafe { libc::shmctl(id, libc::IPC_STAT, &mut ds) })?;
    Ok(ds.shm_segsz as u64)
}

/// Device and inode of an open file.
pub fn identity(fd: i32) -> Result<(u64, u64), Errno> {
    // SAFETY: an all-zero stat is a valid value.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `st` outlives the call.
    check(unsafe { libc::fstat(fd, &mut st) })?;
    Ok((st.st_dev as u64, st.st_ino as u64))
}

/// Whether somebody may well write the file while it is mapped: one in memory (POSIX shared memory, memfd), a device, a file not only its owner
/// root can write. What is left is the system's own files on disk, such as caches of the C library, which are replaced and not written in place.
pub fn is_written_by_others(fd: i32) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    const IN_MEMORY: [u64; 3] = [libc::TMPFS_MAGIC as u64, libc::HUGETLBFS_MAGIC as u64, RAMFS];
    // SAFETY: all-zero structures are valid values, and they outlive the calls.
    unsafe {
        let (mut st, mut fs): (libc::stat, libc::statfs) = (std::mem::zeroed(), std::mem::zeroed());
        if libc::fstat(fd, &mut st) != 0 || libc::fstatfs(fd, &mut fs) != 0 {
            return true;
        }
        let others = libc::S_IWGRP | libc::S_IWOTH;
        st.st_mode & libc::S_IFMT != libc::S_IFREG
            || st.st_uid != 0
            || st.st_mode & others != 0
            || IN_MEMORY.contains(&(fs.f_type as u64))
    }
}

/// Whether the file lies on a file system mounted noexec.
pub fn on_noexec_mount(fd: i32) -> bool {
    // SAFETY: an all-zero statvfs is a valid value, and it outlives the call.
    unsafe {
        let mut st: libc::statvfs = std::mem::zeroed();
        libc::fstatvfs(fd, &mut st) == 0 && st.f_flag & libc::ST_NOEXEC != 0
    }
}

/// Whether nothing is mapped in `start..end`. Anything the kernel refuses counts as taken.
pub fn is_free(start: u64, end: u64) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    mmap_exactly(start, end - start, libc::PROT_NONE, flags, -1, 0).is_ok() && munmap(start, end - start).is_ok()
}

/// The page size the host kernel uses, in bytes.
pub fn page_size() -> u64 {
    // SAFETY: sysconf reads no memory of ours.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// Whether the page at `addr` is in memory (and so had a page table entry, as far as can be told).
pub fn is_resident(addr: u64) -> bool {
    let mut there = 0u8;
    // SAFETY: asks about one page and fills one byte.
    unsafe { libc::mincore((addr & !(PAGE - 1)) as *mut _, 1, &mut there) == 0 && there & 1 != 0 }
}
