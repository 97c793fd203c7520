//! Files: the calls AArch64 has only in their `*at` form, and those whose flags differ.

use super::errno::{Answer, Errno};
use super::{kernel, path, procfs, quick, strace, user};
use crate::thread::Thread;

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

/// Four open flags have other places on the two machines (x86 uses asm-generic/fcntl.h's, AArch64 its own asm/fcntl.h):
/// DIRECT and LARGEFILE at bits 14 and 15, DIRECTORY and NOFOLLOW at 16 and 17, or the two pairs the other way round. The
/// change is its own inverse.
pub const fn swap_open_flags(flags: u64) -> u64 {
    if cfg!(target_arch = "aarch64") {
        flags & !0o740000 | (flags & 0o140000) << 2 | (flags & 0o600000) >> 2
    } else {
        flags
    }
}

const X86_O_CREAT: u64 = 0o100;
const X86_O_CLOEXEC: u64 = 0o2000000;
const X86_O_NOFOLLOW: u64 = 0o400000;
const X86_O_DIRECTORY: u64 = 0o200000;
const X86_O_PATH: u64 = 0o10000000;
const ACCMODE: u64 = 3;

pub fn open(t: &mut Thread, a: [u64; 6]) -> Answer {
    openat(t, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

pub fn creat(t: &mut Thread, a: [u64; 6]) -> Answer {
    const WRONLY_CREAT_TRUNC: u64 = 0o1101;
    openat(t, [AT_FDCWD, a[0], WRONLY_CREAT_TRUNC, a[1], 0, 0])
}

pub fn openat(t: &mut Thread, a: [u64; 6]) -> Answer {
    let flags = a[2];
    let host = [a[0], a[1], swap_open_flags(flags), a[3], 0, 0];
    if let Some(fd) = special(a[1], flags)? {
        return Ok(fd);
    }
    if flags & X86_O_CREAT != 0 {
        kernel(t, libc::SYS_openat, host)
    } else if flags & X86_O_NOFOLLOW != 0 {
        path::lookup_link(t, libc::SYS_openat, host, 1)
    } else {
        path::lookup(t, libc::SYS_openat, host, 1)
    }
}

/// Opens a /proc file of which the guest must see its own version, if the path is one.
fn special(name: u64, flags: u64) -> Result<Option<i64>, Errno> {
    if flags & (ACCMODE | X86_O_PATH | X86_O_CREAT) != 0 {
        return Ok(None);
    }
    let Some(name) = path::absolute(name)? else {
        return Ok(None);
    };
    match procfs::content(&name) {
        Some(_) if flags & X86_O_DIRECTORY != 0 => Err(Errno(libc::ENOTDIR)),
        Some(c) => procfs::open(&c, flags & X86_O_CLOEXEC != 0).map(Some),
        None => Ok(None),
    }
}

pub fn openat2(t: &mut Thread, a: [u64; 6]) -> Answer {
    // struct open_how { u64 flags, mode, resolve }; longer ones end in zeros this kernel may know.
    let len = a[3] as usize;
    if len < 24 {
        return Err(Errno::EINVAL);
    }
    if len > 4096 {
        return Err(Errno(libc::E2BIG));
    }
    let mut how = user::read_vec(a[2], len)?;
    let flags = u64::from_le_bytes(how[..8].try_into().unwrap_or_default());
    how[..8].copy_from_slice(&swap_open_flags(flags).to_le_bytes());
    let resolve = u64::from_le_bytes(how[16..24].try_into().unwrap_or_default());
    let host = [a[0], a[1], how.as_ptr() as u64, a[3], 0, 0];
    // Restricted resolution is a promise about the path as written.
    if resolve != 0 || flags & X86_O_CREAT != 0 {
        return kernel(t, libc::SYS_openat2, host);
    }
    if let Some(fd) = special(a[1], flags)? {
        return Ok(fd);
    }
    path::lookup(t, libc::SYS_openat2, host, 1)
}

pub fn open_by_handle_at(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_open_by_handle_at, [a[0], a[1], swap_open_flags(a[2]), 0, 0, 0])
}

pub fn mq_open(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_mq_open, [a[0], swap_open_flags(a[1]), a[2], a[3], 0, 0])
}

pub fn fanotify_init(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_fanotify_init, [a[0], swap_open_flags(a[1]), 0, 0, 0, 0])
}

/// The descriptor that `--strace` writes to is not the guest's to close.
pub fn close(t: &mut Thread, a: [u64; 6]) -> Answer {
    if strace::owns(a[0]) {
        return Err(Errno(libc::EBADF));
    }
    kernel(t, libc::SYS_close, a)
}

pub fn close_range(t: &mut Thread, a: [u64; 6]) -> Answer {
    let (first, last) = (a[0] & 0xffff_ffff, a[1] & 0xffff_ffff);
    let Some(own) = strace::fd().filter(|fd| (first..=last).contains(fd)) else {
        return kernel(t, libc::SYS_close_range, a);
    };
    if first < own {
        kernel(t, libc::SYS_close_range, [first, own - 1, a[2], 0, 0, 0])?;
    }
    if own < last {
        kernel(t, libc::SYS_close_range, [own + 1, last, a[2], 0, 0, 0])?;
    }
    Ok(0)
}

pub fn dup2(t: &mut Thread, a: [u64; 6]) -> Answer {
    let (old, new) = (a[0] as u32, a[1] as u32);
    if old == new {
        // dup3 refuses this; dup2 only asks that the descriptor is open.
        kernel(t, libc::SYS_fcntl, [a[0], libc::F_GETFD as u64, 0, 0, 0, 0])?;
        return Ok(i64::from(new));
    }
    if strace::owns(a[1]) {
        return Err(Errno(libc::EBADF));
    }
    kernel(t, libc::SYS_dup3, [a[0], a[1], 0, 0, 0, 0])
}

pub fn pipe(t: &mut Thread, a: [u64; 6]) -> Answer {
    pipe2(t, [a[0], 0, 0, 0, 0, 0])
}

/// O_DIRECT (packet mode) is an open flag with another place.
pub fn pipe2(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_pipe2, [a[0], swap_open_flags(a[1]), 0, 0, 0, 0])
}

pub fn eventfd(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_eventfd2, [a[0], 0, 0, 0, 0, 0])
}

pub fn inotify_init(t: &mut Thread, _: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_inotify_init1, [0; 6])
}

pub fn fcntl(t: &mut Thread, a: [u64; 6]) -> Answer {
    match a[1] as i32 {
        libc::F_GETFL => Ok(swap_open_flags(kernel(t, libc::SYS_fcntl, a)? as u64) as i64),
        libc::F_SETFL => kernel(t, libc::SYS_fcntl, [a[0], a[1], swap_open_flags(a[2]), 0, 0, 0]),
        _ => kernel(t, libc::SYS_fcntl, a),
    }
}

/// Numbers and structures are asm-generic's on both machines. A pointer above the guest's addresses is refused, as far as an
/// argument of unknown kind can be told to be one.
pub fn ioctl(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_ioctl, a)
}

pub fn access(t: &mut Thread, a: [u64; 6]) -> Answer {
    path::lookup(t, libc::SYS_faccessat, [AT_FDCWD, a[0], a[1], 0, 0, 0], 1)
}

pub fn faccessat(t: &mut Thread, a: [u64; 6]) -> Answer {
    path::lookup(t, libc::SYS_faccessat, a, 1)
}

pub fn faccessat2(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[3] & libc::AT_SYMLINK_NOFOLLOW as u64 != 0 {
        path::lookup_link(t, libc::SYS_faccessat2, a, 1)
    } else {
        path::lookup(t, libc::SYS_faccessat2, a, 1)
    }
}

pub fn readlink(t: &mut Thread, a: [u64; 6]) -> Answer {
    readlinkat(t, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

pub fn readlinkat(t: &mut Thread, a: [u64; 6]) -> Answer {
    if let Some(name) = path::absolute(a[1])?
        && let Some(target) = procfs::link(&name)
    {
        let size = a[3] as i32;
        if size <= 0 {
            return Err(Errno::EINVAL);
        }
        let n = target.len().min(size as usize);
        user::write_bytes(a[2], &target[..n])?;
        return Ok(n as i64);
    }
    path::lookup_link(t, libc::SYS_readlinkat, a, 1)
}

pub fn rename(t: &mut Thread, a: [u64; 6]) -> Answer {
    renameat(t, [AT_FDCWD, a[0], AT_FDCWD, a[1], 0, 0])
}

pub fn renameat(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_renameat2, [a[0], a[1], a[2], a[3], 0, 0])
}

pub fn mkdir(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_mkdirat, [AT_FDCWD, a[0], a[1], 0, 0, 0])
}

pub fn rmdir(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_unlinkat, [AT_FDCWD, a[0], libc::AT_REMOVEDIR as u64, 0, 0, 0])
}

pub fn unlink(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_unlinkat, [AT_FDCWD, a[0], 0, 0, 0, 0])
}

pub fn link(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_linkat, [AT_FDCWD, a[0], AT_FDCWD, a[1], 0, 0])
}

pub fn symlink(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_symlinkat, [a[0], AT_FDCWD, a[1], 0, 0, 0])
}

pub fn chmod(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_fchmodat, [AT_FDCWD, a[0], a[1], 0, 0, 0])
}

pub fn chown(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_fchownat, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

pub fn lchown(t: &mut Thread, a: [u64; 6]) -> Answer {
    let nofollow = libc::AT_SYMLINK_NOFOLLOW as u64;
    kernel(t, libc::SYS_fchownat, [AT_FDCWD, a[0], a[1], a[2], nofollow, 0])
}

pub fn mknod(t: &mut Thread, a: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_mknodat, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

/// The old directory entry: u64 ino, u64 off, u16 reclen, name, NUL, padding, and the type in the record's last byte. Made from
/// getdents64's { ino, off, reclen, u8 type, name }, whose records are never shorter, so what fits as that fits as this.
pub fn getdents(t: &mut Thread, a: [u64; 6]) -> Answer {
    const HEAD: usize = 19;
    let size = (a[2] as u32).min(1 << 20) as usize;
    let mut host = vec![0u8; size];
    let host_args = [a[0], host.as_mut_ptr() as u64, size as u64, 0, 0, 0];
    let seek = |to: u64, whence: i32| quick(libc::SYS_lseek, [a[0], to, whence as u64, 0, 0, 0]);
    let mut next = seek(0, libc::SEEK_CUR);
    let n = kernel(t, libc::SYS_getdents64, host_args)? as usize;
    let mut out = Vec::with_capacity(n);
    let (mut at, mut written) = (0, 0);
    while at + HEAD <= n {
        let len = usize::from(u16::from_le_bytes([host[at + 16], host[at + 17]]));
        if len < HEAD || at + len > n {
            break;
        }
        let entry = &host[at..at + len];
        let name = entry[HEAD..].split(|&b| b == 0).next().unwrap_or_default();
        // Rounded up to 8; the type takes the last byte.
        let size = (18 + name.len() + 2).next_multiple_of(8);
        out.clear();
        out.extend_from_slice(&entry[..16]);
        out.extend_from_slice(&(size as u16).to_le_bytes());
        out.extend_from_slice(name);
        out.resize(size, 0);
        out[size - 1] = entry[18];
        if let Err(e) = user::write_bytes(a[1].wrapping_add(written), &out) {
            // The directory stays at the entry that was not taken.
            seek(next? as u64, libc::SEEK_SET)?;
            return if written == 0 { Err(e) } else { Ok(written as i64) };
        }
        next = Ok(i64::from_le_bytes(entry[8..16].try_into().unwrap_or_default()));
        written += size as u64;
        at += len;
    }
    Ok(written as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_are_their_own_inverse() {
        for flags in [0u64, 0o40000, 0o100000, 0o200000, 0o400000, 0o2000101, 0o20200002] {
            assert_eq!(swap_open_flags(swap_open_flags(flags)), flags);
        }
        #[cfg(target_arch = "aarch64")]
        {
            assert_eq!(swap_open_flags(0o40000), libc::O_DIRECT as u64);
            assert_eq!(swap_open_flags(0o200000), libc::O_DIRECTORY as u64);
            assert_eq!(swap_open_flags(0o400000), libc::O_NOFOLLOW as u64);
            assert_eq!(swap_open_flags(0o20200000), libc::O_TMPFILE as u64);
        }
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(libc::O_DIRECT, 0o40000);
            assert_eq!(libc::O_DIRECTORY, 0o200000);
            assert_eq!(libc::O_NOFOLLOW, 0o400000);
        }
    }
}
