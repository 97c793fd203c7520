//! The stat family: struct stat is the machine's own (asm/stat.h), 144 bytes on x86_64, 128 on AArch64, in another order.

use std::mem::MaybeUninit;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::Answer;
use super::{kernel, path, user};
use crate::thread::Thread;

/// struct stat of x86_64 (arch/x86/include/uapi/asm/stat.h).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: [i64; 2],
    pub mtime: [i64; 2],
    pub ctime: [i64; 2],
    pub unused: [i64; 3],
}

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

/// Runs `f` with a host struct stat to fill, and gives the guest its own form of it.
fn converted(out: u64, f: impl FnOnce(u64) -> Answer) -> Answer {
    let mut host = MaybeUninit::<libc::stat>::zeroed();
    let r = f(host.as_mut_ptr() as u64)?;
    // SAFETY: zeroed plain integers, then filled by the kernel.
    let h = unsafe { host.assume_init() };
    // Field widths differ between hosts; every value fits the guest's.
    #[allow(clippy::unnecessary_cast)]
    let guest = Stat {
        dev: h.st_dev as u64,
        ino: h.st_ino as u64,
        nlink: h.st_nlink as u64,
        mode: h.st_mode,
        uid: h.st_uid,
        gid: h.st_gid,
        pad: 0,
        rdev: h.st_rdev as u64,
        size: h.st_size as i64,
        blksize: h.st_blksize as i64,
        blocks: h.st_blocks as i64,
        atime: [h.st_atime, h.st_atime_nsec],
        mtime: [h.st_mtime, h.st_mtime_nsec],
        ctime: [h.st_ctime, h.st_ctime_nsec],
        unused: [0; 3],
    };
    user::write(out, &guest)?;
    Ok(r)
}

fn at(t: &Thread, dir: u64, name: u64, out: u64, flags: u64) -> Answer {
    converted(out, |host| {
        let args = [dir, name, host, flags, 0, 0];
        if flags & libc::AT_SYMLINK_NOFOLLOW as u64 != 0 {
            path::lookup_link(t, libc::SYS_newfstatat, args, 1)
        } else {
            path::lookup(t, libc::SYS_newfstatat, args, 1)
        }
    })
}

pub fn stat(t: &mut Thread, a: [u64; 6]) -> Answer {
    at(t, AT_FDCWD, a[0], a[1], 0)
}

pub fn lstat(t: &mut Thread, a: [u64; 6]) -> Answer {
    at(t, AT_FDCWD, a[0], a[1], libc::AT_SYMLINK_NOFOLLOW as u64)
}

pub fn fstat(t: &mut Thread, a: [u64; 6]) -> Answer {
    converted(a[1], |host| kernel(t, libc::SYS_fstat, [a[0], host, 0, 0, 0, 0]))
}

pub fn newfstatat(t: &mut Thread, a: [u64; 6]) -> Answer {
    at(t, a[0], a[1], a[2], a[3])
}

/// struct statx is the same everywhere; only the file may be another.
pub fn statx(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[2] & libc::AT_SYMLINK_NOFOLLOW as u64 != 0 {
        path::lookup_link(t, libc::SYS_statx, a, 1)
    } else {
        path::lookup(t, libc::SYS_statx, a, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Recorded with `offsetof` on an x86_64 machine; compared with the C library's there.
    #[test]
    fn layout() {
        assert_eq!(size_of::<Stat>(), 144);
        assert_eq!(offset_of!(Stat, mode), 24);
        assert_eq!(offset_of!(Stat, rdev), 40);
        assert_eq!(offset_of!(Stat, atime), 72);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(size_of::<libc::stat>(), size_of::<Stat>());
            assert_eq!(offset_of!(libc::stat, st_nlink), offset_of!(Stat, nlink));
            assert_eq!(offset_of!(libc::stat, st_mode), offset_of!(Stat, mode));
            assert_eq!(offset_of!(libc::stat, st_uid), offset_of!(Stat, uid));
            assert_eq!(offset_of!(libc::stat, st_rdev), offset_of!(Stat, rdev));
            assert_eq!(offset_of!(libc::stat, st_size), offset_of!(Stat, size));
            assert_eq!(offset_of!(libc::stat, st_blksize), offset_of!(Stat, blksize));
            assert_eq!(offset_of!(libc::stat, st_blocks), offset_of!(Stat, blocks));
            assert_eq!(offset_of!(libc::stat, st_atime), offset_of!(Stat, atime));
            assert_eq!(offset_of!(libc::stat, st_mtime), offset_of!(Stat, mtime));
            assert_eq!(offset_of!(libc::stat, st_ctime), offset_of!(Stat, ctime));
        }
    }
}
