//! Memory calls: arguments unpacked, the work is [`crate::memory`]'s.

use super::errno::{Answer, Errno};
use super::kernel;
use crate::memory;
use crate::thread::Thread;

/// [`crate::memory`] returns what the kernel would.
fn answer(r: i64) -> Answer {
    if (-4095..0).contains(&r) { Err(Errno(-r as i32)) } else { Ok(r) }
}

pub fn mmap(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::mmap(a[0], a[1], a[2] as i32, a[3] as i32, a[4] as i32, a[5]))
}

pub fn munmap(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::munmap(a[0], a[1]))
}

pub fn mprotect(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::mprotect(a[0], a[1], a[2] as i32))
}

/// Without protection keys in the CPU only "no key" is one.
pub fn pkey_mprotect(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[3] as i32 == -1 { mprotect(t, a) } else { Err(Errno::EINVAL) }
}

pub fn mremap(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::mremap(a[0], a[1], a[2], a[3] as i32, a[4]))
}

pub fn brk(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::brk(a[0]))
}

pub fn madvise(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::madvise(a[0], a[1], a[2] as i32))
}

pub fn shmat(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::shmat(a[0] as i32, a[1], a[2] as i32))
}

pub fn shmdt(_: &mut Thread, a: [u64; 6]) -> Answer {
    answer(memory::shmdt(a[0]))
}

/// A range that the host would answer for is the guest's only as far as the guest mapped it.
fn within_guest(t: &Thread, nr: i64, a: [u64; 6]) -> Answer {
    if !a[0].is_multiple_of(4096) || memory::is_mapped(a[0], a[1]) {
        kernel(t, nr, a)
    } else {
        Err(Errno(libc::ENOMEM))
    }
}

pub fn msync(t: &mut Thread, a: [u64; 6]) -> Answer {
    within_guest(t, libc::SYS_msync, a)
}

pub fn mincore(t: &mut Thread, a: [u64; 6]) -> Answer {
    within_guest(t, libc::SYS_mincore, a)
}

pub fn mlock(t: &mut Thread, a: [u64; 6]) -> Answer {
    within_guest(t, libc::SYS_mlock, a)
}

pub fn munlock(t: &mut Thread, a: [u64; 6]) -> Answer {
    within_guest(t, libc::SYS_munlock, a)
}

pub fn mlock2(t: &mut Thread, a: [u64; 6]) -> Answer {
    within_guest(t, libc::SYS_mlock2, a)
}
