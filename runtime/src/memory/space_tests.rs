//! The address space against the real kernel: mappings are made, and their effects read back.

// A list of ranges that has one element is what is meant.
#![allow(clippy::single_range_in_vec_init)]

use super::super::access;
use super::*;

const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const RWX: i32 = RW | libc::PROT_EXEC;

/// Tests run as threads of one process, so each has a window of its own.
fn space(n: u64) -> (Space, u64) {
    access::catch_faults_in_tests();
    let base = 0x1000_0000_0000 + n * 0x1_0000_0000;
    (Space { mmap_base: base, ..Space::new() }, base)
}

fn map(s: &mut Space, addr: u64, len: u64, prot: i32, flags: i32) -> Result<u64, Errno> {
    s.mmap(&mut Effects::default(), addr, len, prot, ANON | flags, -1, 0)
}

#[test]
fn top_down_and_hints() {
    let (mut s, base) = space(0);
    assert_eq!(map(&mut s, 0, 0x3000, RW, 0), Ok(base - 0x3000));
    assert_eq!(map(&mut s, 0, 1, RW, 0), Ok(base - 0x4000));
    assert_eq!(map(&mut s, base - 0x10000, PAGE, RW, 0), Ok(base - 0x10000));
    // A taken hint is only a hint.
    assert_eq!(map(&mut s, base - 0x3000, PAGE, RW, 0), Ok(base - 0x5000));
    assert_eq!(map(&mut s, base - 0x3000, PAGE, RW, host::MAP_FIXED_NOREPLACE), Err(libc::EEXIST));
    assert_eq!(map(&mut s, 1, PAGE, RW, libc::MAP_FIXED), Err(libc::EINVAL));
    assert_eq!(map(&mut s, 0, 0, RW, 0), Err(libc::EINVAL));
    assert_eq!(map(&mut s, TASK_SIZE, PAGE, RW, libc::MAP_FIXED), Err(libc::ENOMEM));
    let low = map(&mut s, 0, PAGE, RW, MAP_32BIT).expect("room below 2 GiB");
    assert!(LOW_WINDOW.contains(&low));
}

#[test]
fn foreign_memory_is_never_hit() {
    let (mut s, base) = space(1);
    let r = host::mmap_exactly(base - 0x8000, 0x4000, RW, ANON, -1, 0);
    assert_eq!(r, Ok(()));
    assert_eq!(access::write(base - 0x8000, b"mine"), Ok(()));
    assert_eq!(map(&mut s, 0, 0x6000, RW, 0), Ok(base - 0x8000 - 0x6000));
    assert_eq!(map(&mut s, 0, 0x4000, RW, 0), Ok(base - 0x4000));
    assert_eq!(map(&mut s, base - 0x9000, 0x3000, RW, libc::MAP_FIXED), Err(libc::ENOMEM));
    assert_eq!(s.munmap(&mut Effects::default(), base - 0x8000, 0x4000), Ok(()));
    assert_eq!(s.mprotect(&mut Effects::default(), base - 0x8000, PAGE, 0), Err(libc::ENOMEM));
    let mut b = [0; 4];
    assert_eq!(access::read(base - 0x8000, &mut b), Ok(()));
    assert_eq!(&b, b"mine");
    host::munmap(base - 0x8000, 0x4000).expect("ours");
}

#[test]
fn growing_and_moving() {
    let (mut s, base) = space(2);
    let mut fx = Effects::default();
    assert_eq!(map(&mut s, base, PAGE, libc::PROT_READ, libc::MAP_FIXED), Ok(base));
    let a = map(&mut s, 0, 0x2000, RW, 0).expect("maps");
    access::write(a, b"hello").expect("mapped");
    // No room above: moves.
    let b = s.mremap(&mut fx, a, 0x2000, 0x4000, libc::MREMAP_MAYMOVE, 0).expect("moves");
    assert_eq!(b, base - 0x6000);
    let mut w = [0; 5];
    access::read(b, &mut w).expect("moved");
    assert_eq!(&w, b"hello");
    assert_eq!(access::read(a, &mut w), Err(access::BadAddress(a)));
    // Room above: grows in place.
    assert_eq!(s.mremap(&mut fx, b, 0x4000, 0x5000, 0, 0), Ok(b));
    assert_eq!(s.mremap(&mut fx, b, 0x5000, 0x8000, 0, 0), Err(libc::ENOMEM));
    assert_eq!(s.mremap(&mut fx, b, 0x5000, 0x1000, 0, 0), Ok(b));
    assert_eq!(s.mremap(&mut fx, b, 0x2000, 0x3000, 0, 0), Err(libc::EFAULT));
    let to = base - 0x20000;
    let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    assert_eq!(s.mremap(&mut fx, b, 0x1000, 0x2000, fixed, to), Ok(to));
    access::read(to, &mut w).expect("moved");
    assert_eq!(&w, b"hello");
    assert!(s.vmas.is_free(b..base));
}

#[test]
fn code_pages_are_watched() {
    let (mut s, _) = space(3);
    let mut fx = Effects::default();
    let a = map(&mut s, 0, 0x3000, RWX, 0).expect("maps");
    assert!(s.watch(a + PAGE));
    assert!(!s.watch(a + 0x3000));
    // The host refuses the write now, the guest's fault handler allows it again.
    assert!(access::write(a, b"x").is_ok());
    assert!(s.fault(a + PAGE + 5, &mut fx));
    assert_eq!(fx.void, [a + PAGE..a + 2 * PAGE]);
    assert!(!s.fault(a + PAGE + 5, &mut fx));
    for (i, change) in [
        (|s: &mut Space, fx: &mut Effects, a| s.munmap(fx, a, PAGE)) as fn(&mut Space, &mut Effects, u64) -> _,
        |s, fx, a| s.mprotect(fx, a, PAGE, RW),
        |s, fx, a| s.madvise(fx, a, PAGE, libc::MADV_DONTNEED),
        |s, fx, a| s.mmap(fx, a, PAGE, RWX, ANON | libc::MAP_FIXED, -1, 0).map(drop),
    ]
    .into_iter()
    .enumerate()
    {
        let a = map(&mut s, 0, PAGE, RWX, 0).expect("maps");
        assert!(s.watch(a));
        let mut fx = Effects::default();
        assert_eq!(change(&mut s, &mut fx, a), Ok(()), "change {i}");
        assert_eq!(fx.void, [a..a + PAGE], "change {i}");
        assert!(i == 0 || access::write(a, b"x").is_ok(), "change {i}");
    }
    // Taking away write keeps the code.
    let a = map(&mut s, 0, PAGE, RWX, 0).expect("maps");
    assert!(s.watch(a));
    let mut fx = Effects::default();
    assert_eq!(s.mprotect(&mut fx, a, PAGE, libc::PROT_READ | libc::PROT_EXEC), Ok(()));
    assert!(fx.void.is_empty());
}

#[test]
fn shared_memory_is_noticed() {
    let (mut s, _) = space(4);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    for to in [libc::PROT_READ, RW] {
        let mut fx = Effects::default();
        let a = s.mmap(&mut fx, 0, PAGE, libc::PROT_NONE, shared, -1, 0).expect("maps");
        assert!(!fx.shared);
        assert_eq!(s.mprotect(&mut fx, a, PAGE, to), Ok(()));
        assert!(fx.shared);
    }
    // Written by whoever else has it, for all that is known.
    // SAFETY: a name that ends in zero.
    let fd = unsafe { libc::memfd_create(c"shared".as_ptr(), 0) };
    let mut fx = Effects::default();
    s.mmap(&mut fx, 0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0).expect("maps");
    assert!(fx.shared);
    let mut fx = Effects::default();
    s.mmap(&mut fx, 0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).expect("maps");
    assert!(!fx.shared);
}

#[test]
fn the_break_moves_both_ways() {
    let (mut s, base) = space(5);
    let mut fx = Effects::default();
    s.brk_start = base + 0x123;
    s.brk = s.brk_start;
    assert_eq!(s.set_brk(&mut fx, 0), base + 0x123);
    assert_eq!(s.set_brk(&mut fx, base + 0x5001), base + 0x5001);
    assert!(access::write(base + 0x5fff, b"x").is_ok());
    assert_eq!(s.set_brk(&mut fx, base + 0x1800), base + 0x1800);
    assert!(access::write(base + 0x1fff, b"x").is_ok());
    assert!(s.vmas.is_free(base + 0x2000..base + 0x6000));
    assert_eq!(map(&mut s, base + 0x3000, PAGE, RW, libc::MAP_FIXED), Ok(base + 0x3000));
    assert_eq!(s.set_brk(&mut fx, base + 0x5001), base + 0x1800);
}

#[test]
fn mappings_that_grow_down() {
    let (mut s, base) = space(6);
    let mut fx = Effects::default();
    let at = base - 0x10000;
    let fixed = libc::MAP_FIXED | libc::MAP_GROWSDOWN;
    assert_eq!(map(&mut s, at, PAGE, RW, fixed), Ok(at));
    assert!(s.fault(at - 1, &mut fx));
    assert!(access::write(at - PAGE, b"x").is_ok());
    assert!(!s.fault(at - PAGE - STACK_GUARD - 1, &mut fx));
}

/// A just-in-time compiler that maps its code twice, once to write and once to run.
#[test]
fn code_mapped_twice_is_watched_where_it_is_written() {
    let (mut s, _) = space(7);
    // SAFETY: makes a file that only this test knows.
    let fd = unsafe { libc::memfd_create(c"code".as_ptr(), 0) };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ftruncate(fd, 0x3000) }, 0);
    let mut fx = Effects::default();
    let rx = libc::PROT_READ | libc::PROT_EXEC;
    let run = s.mmap(&mut fx, 0, 0x3000, rx, libc::MAP_SHARED, fd, 0).expect("maps");
    let write = s.mmap(&mut fx, 0, 0x2000, RW, libc::MAP_SHARED, fd, 0x1000).expect("maps");
    assert!(s.watch(run + PAGE));
    assert!(fx.void.is_empty());
    assert!(s.fault(write + 8, &mut fx));
    assert_eq!(fx.void, [run + PAGE..run + 2 * PAGE]);
    assert_eq!(access::write(write, b"new"), Ok(()));
    assert!(!s.fault(write + 8, &mut fx));
    // A second writable view appears, or the first goes, after the code was translated.
    for i in 0..3 {
        assert!(s.watch(run + PAGE));
        let mut fx = Effects::default();
        match i {
            0 => drop(s.mmap(&mut fx, 0, PAGE, RW, libc::MAP_SHARED, fd, 0x1000).expect("maps")),
            1 => s.mprotect(&mut fx, write, PAGE, libc::PROT_READ).expect("changes"),
            _ => s.mprotect(&mut fx, write, PAGE, RW).expect("changes"),
        }
        assert_eq!(fx.void, [run + PAGE..run + 2 * PAGE], "{i}");
        assert!(i == 1 || access::write(write, b"newer").is_ok());
    }
    // SAFETY: this test's own descriptor.
    unsafe { libc::close(fd) };
}
