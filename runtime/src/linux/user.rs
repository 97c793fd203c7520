//! Guest memory as system calls read and write it: a bad address is EFAULT, never a crash.
//!
//! Where a structure is the same on both machines its pointer goes to the kernel as it is; only what must be looked at or
//! rewritten comes through here, to the guarded copy in [`crate::memory::access`].

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::Errno;
use crate::memory::access;

/// The end of what a guest may address: 47 bits less a guard page, as the x86_64 kernel has it.
pub const TASK_SIZE: u64 = (1 << 47) - 4096;

fn check(addr: u64, len: usize) -> Result<(), Errno> {
    match addr.checked_add(len as u64) {
        Some(end) if end <= TASK_SIZE => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Fills `buf` from guest memory at `addr`.
pub fn read_bytes(addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
    check(addr, buf.len())?;
    access::read(addr, buf).map_err(|_| Errno::EFAULT)
}

/// Copies `bytes` to guest memory at `addr`.
pub fn write_bytes(addr: u64, bytes: &[u8]) -> Result<(), Errno> {
    check(addr, bytes.len())?;
    access::write(addr, bytes).map_err(|_| Errno::EFAULT)
}

/// Reads a structure at a guest address of any alignment.
pub fn read<T: FromBytes + IntoBytes>(addr: u64) -> Result<T, Errno> {
    check(addr, size_of::<T>())?;
    access::get(addr).map_err(|_| Errno::EFAULT)
}

/// Writes a structure to a guest address of any alignment.
pub fn write<T: IntoBytes + Immutable>(addr: u64, v: &T) -> Result<(), Errno> {
    check(addr, size_of::<T>())?;
    access::put(addr, v).map_err(|_| Errno::EFAULT)
}

/// As [`write`], unless `addr` is null.
pub fn write_opt<T: IntoBytes + Immutable>(addr: u64, v: &T) -> Result<(), Errno> {
    if addr == 0 { Ok(()) } else { write(addr, v) }
}

/// Reads `n` bytes; `n` must be bounded by the caller.
pub fn read_vec(addr: u64, n: usize) -> Result<Vec<u8>, Errno> {
    check(addr, n)?;
    let mut v = vec![0; n];
    read_bytes(addr, &mut v)?;
    Ok(v)
}

/// Reads a NUL-terminated string without its NUL, of at most `limit` bytes with it; `too_long` when there is no NUL in those.
pub fn read_str(addr: u64, limit: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
    check(addr, 1)?;
    match access::get_str(addr, limit) {
        Ok(Some(s)) => Ok(s),
        Ok(None) => Err(too_long),
        Err(_) => Err(Errno::EFAULT),
    }
}

/// Reads a path as the kernel does: ENAMETOOLONG at PATH_MAX bytes.
pub fn read_path(addr: u64) -> Result<Vec<u8>, Errno> {
    read_str(addr, libc::PATH_MAX as usize, Errno(libc::ENAMETOOLONG))
}
