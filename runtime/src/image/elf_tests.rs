//! Malformed files: each says what is wrong; none panics.

use super::*;

fn put(b: &mut [u8], at: usize, v: &[u8]) {
    b[at..at + v.len()].copy_from_slice(v);
}

/// A small valid program: text at 0x400000, data with zeros behind it at 0x600f00.
fn program() -> Vec<u8> {
    let mut b = vec![0u8; 0x1100];
    put(&mut b, 0, b"\x7fELF\x02\x01\x01");
    put(&mut b, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut b, 24, &0x400_100u64.to_le_bytes());
    put(&mut b, 32, &64u64.to_le_bytes());
    put(&mut b, 52, &[64, 0, 56, 0, 4, 0, 64, 0]);
    let mut phdr = |i: usize, t: u32, flags: u32, rest: [u64; 6]| {
        let at = 64 + i * 56;
        put(&mut b, at, &t.to_le_bytes());
        put(&mut b, at + 4, &flags.to_le_bytes());
        for (j, v) in rest.into_iter().enumerate() {
            put(&mut b, at + 8 + j * 8, &v.to_le_bytes());
        }
    };
    phdr(0, PT_LOAD, 5, [0, 0x400_000, 0x400_000, 0x800, 0x800, 0x1000]);
    phdr(1, PT_LOAD, 6, [0xf00, 0x600_f00, 0x600_f00, 0x200, 0x3000, 0x1000]);
    phdr(2, PT_INTERP, 4, [0x700, 0x400_700, 0x400_700, 0x10, 0x10, 1]);
    phdr(3, PT_GNU_STACK, 6, [0, 0, 0, 0, 0, 16]);
    put(&mut b, 0x700, b"/lib64/ld.so\0\0\0\0");
    b
}

fn with(at: usize, v: &[u8]) -> Result<Elf, ElfError> {
    let mut b = program();
    put(&mut b, at, v);
    parse(&b[..])
}

fn says(r: Result<Elf, ElfError>, part: &str) {
    let text = r.expect_err(part).to_string();
    assert!(text.contains(part), "{text:?} does not say {part:?}");
    assert!(!text.contains('\n'));
}

#[test]
fn describes_a_good_file() {
    let e = parse(&program()[..]).expect("valid");
    assert_eq!((e.relocatable, e.entry, e.phdr, e.phnum), (false, 0x400_100, 0x400_040, 4));
    assert_eq!(e.span(), 0x400_000..0x604_000);
    assert_eq!(e.segments[1].prot, Prot::READ | Prot::WRITE);
    assert_eq!(e.interp.as_deref(), Some(&b"/lib64/ld.so"[..]));
    assert!(!e.exec_stack);
}

#[test]
fn says_what_is_wrong() {
    says(parse(&[][..]), "empty");
    says(parse(&b"hello, world"[..]), "not an ELF");
    says(parse(&program()[..40]), "needs 64 bytes, the file has 40");
    says(with(4, &[1]), "32-bit");
    says(with(5, &[2]), "big-endian");
    says(with(18, &[40, 0]), "arm");
    says(with(18, &[183, 0]), "AArch64");
    says(with(16, &[1, 0]), "object file");
    says(with(16, &[4, 0]), "core dump");
    says(with(54, &[32, 0]), "instead of 56");
    says(with(56, &[0, 0]), "0 program headers");
    says(with(56, &[0xff, 0xff]), "65535 program headers");
    says(with(32, &0x1080u64.to_le_bytes()), "the file ends at 0x1100");
    says(with(32, &u64::MAX.to_le_bytes()), "program headers at offset");
    let mut no_load = program();
    (no_load[64], no_load[120]) = (9, 9);
    says(parse(&no_load[..]), "no segment to load");
    says(with(64 + 32, &0x4000u64.to_le_bytes()), "more than the 0x800 in memory");
    says(with(120 + 8, &0xe10u64.to_le_bytes()), "differ within a page");
    says(with(120 + 8, &0x1f00u64.to_le_bytes()), "truncated");
    says(with(120 + 8, &(!0xfff_u64 | 0xf00).to_le_bytes()), "truncated");
    says(with(120 + 16, &0x8000_0000_0f00u64.to_le_bytes()), "outside the 47-bit");
    says(with(120 + 16, &(u64::MAX - 0xff).to_le_bytes()), "outside the 47-bit");
    says(with(120 + 16, &0x3ff_f00u64.to_le_bytes()), "inside or before");
    says(with(120 + 48, &0x3000u64.to_le_bytes()), "power of two");
    says(with(176 + 32, &0u64.to_le_bytes()), "not that of a path");
    says(with(176 + 8, &0x10f8u64.to_le_bytes()), "past the end");
    says(with(0x70c, b"xxxx"), "NUL");
    says(with(0x700, b"\0"), "empty");
    // The offset named is that of the header in question.
    says(with(120 + 48, &0x3000u64.to_le_bytes()), "segment 1 (header at offset 0x78)");
}

#[test]
fn script_lines() {
    let ok = |s: &str| elf_line(s.as_bytes());
    fn elf_line(s: &[u8]) -> Option<Result<(Vec<u8>, Option<Vec<u8>>), &'static str>> {
        script_line(s)
    }
    assert_eq!(ok("#!/bin/sh\n"), Some(Ok((b"/bin/sh".to_vec(), None))));
    assert_eq!(ok("#! /bin/env  python3 -x \nx"), Some(Ok((b"/bin/env".to_vec(), Some(b"python3 -x".to_vec())))));
    assert_eq!(ok("#!/bin/sh"), Some(Ok((b"/bin/sh".to_vec(), None))));
    assert!(matches!(ok("#!  \n/bin/sh"), Some(Err(_))));
    assert!(matches!(ok(&format!("#!/{}", "x".repeat(300))), Some(Err(_))));
    assert_eq!(ok("echo"), None);
    assert_eq!(classify(&program()), FileKind::Amd64);
    assert_eq!(classify(b"#!/bin/sh"), FileKind::Script);
    assert_eq!(classify(b"\x7fELF"), FileKind::Other);
}

/// Random damage to a good file: an answer, always, and one that keeps its promises. Goes on for `XRUN_FUZZ_SECONDS` (`make fuzz-bytes`).
#[test]
fn damaged_files_never_panic() {
    use std::time::{Duration, Instant};
    let number = |name| std::env::var(name).ok().and_then(|s: String| s.parse::<u64>().ok());
    let end = Instant::now() + Duration::from_secs(number("XRUN_FUZZ_SECONDS").unwrap_or(0));
    let mut seed = 0x9e37_79b9_7f4a_7c15 ^ number("XRUN_FUZZ_SEED").unwrap_or(0);
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = program();
    let (mut fine, mut bad) = (0, 0);
    while fine + bad < 200_000 || Instant::now() < end {
        let mut b = good.clone();
        for _ in 0..1 + next() % 4 {
            // Mostly in the headers, where it matters.
            let at = (next() % if next() % 8 == 0 { b.len() as u64 } else { 300 }) as usize;
            let len = [1, 2, 4, 8][(next() % 4) as usize].min(b.len() - at);
            let v = match next() % 4 {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << (next() % 64),
                _ => next(),
            };
            put(&mut b, at, &v.to_le_bytes()[..len]);
        }
        if next() % 8 == 0 {
            b.truncate((next() % 0x1100) as usize);
        }
        match parse(&b[..]) {
            Ok(e) => {
                fine += 1;
                assert!(!e.segments.is_empty() && e.align.is_power_of_two());
                for w in e.segments.windows(2) {
                    assert!(w[0].end() <= w[1].vaddr);
                }
                assert!(e.segments.iter().all(|s| s.filesz <= s.memsz && s.end() <= TASK_SIZE));
                let _ = e.span();
            }
            Err(e) => {
                bad += 1;
                assert!(!e.to_string().contains('\n'));
            }
        }
    }
    assert!(fine > 1000 && bad > 1000, "{fine} {bad}");
}
