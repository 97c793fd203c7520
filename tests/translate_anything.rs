//! Any bytes may be asked to be translated: it never panics, takes bounded time and space, and every host, ordering and extent gives code
//! whose tables are consistent.

mod truth;

use iced_x86::{Decoder, DecoderError, DecoderOptions};
use std::panic::catch_unwind;
use std::time::{Duration, Instant};
use truth::{START, blocks, forms};
use xrun::Translator;
use xrun::host::HostFeatures;
use xrun_runtime::engine::{Engine, Extent, GuestCode, Ordering, Request, TranslateError};

struct Bytes<'a>(&'a [u8]);

impl GuestCode for Bytes<'_> {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let Some(from) = addr.checked_sub(START).and_then(|o| self.0.get(o as usize..)) else { return 0 };
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// Whether the bytes end before their first instruction does.
fn ends_early(code: &[u8]) -> bool {
    let mut decoder = Decoder::with_ip(64, code, START, DecoderOptions::NONE);
    let _ = decoder.decode();
    decoder.last_error() == DecoderError::NoMoreBytes
}

/// Time this thread has run, however busy the machine is.
fn run_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `t` alone.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn translate(code: &[u8]) {
    for (name, host) in HostFeatures::ALL {
        for ordering in [Ordering::Plain, Ordering::Tso, Ordering::Fenced] {
            for extent in [Extent::Single, Extent::Cold, Extent::Loop] {
                let request = Request { ordering, extent, ..Request::at(START) };
                let begun = run_time();
                let what = || format!("{} on {name}, {ordering:?}, {extent:?}", truth::text::hex(code));
                let translated = catch_unwind(|| (Translator { host }).translate(request, &Bytes(code)));
                match translated.unwrap_or_else(|_| panic!("panic: {}", what())) {
                    // Nothing there, or an instruction that goes on where there is nothing.
                    Err(TranslateError::Fetch(at)) => {
                        assert!(ends_early(code) && at == START + code.len() as u64, "{at:#x}: {}", what());
                    }
                    Ok(t) => {
                        let end = t.words.len() as u32;
                        assert!(end > 0, "no code: {}", what());
                        assert_eq!(t.entries[0].guest, START, "{}", what());
                        assert!(t.marks.windows(2).all(|m| m[0].word <= m[1].word), "marks in order: {}", what());
                        assert!(t.marks.iter().all(|m| m.word <= end), "{}", what());
                        for e in &t.exits {
                            assert!(e.site < end && e.stub + 3 < end, "exit in the code: {}", what());
                            let quad =
                                u64::from(t.words[e.stub as usize + 2]) | u64::from(t.words[e.stub as usize + 3]) << 32;
                            assert_eq!(quad, e.target, "the stub names its target: {}", what());
                            assert!(e.inside.is_none_or(|w| w < end), "{}", what());
                        }
                        assert!(t.words.len() < 1 << 16, "{} words: {}", t.words.len(), what());
                    }
                }
                assert!(run_time() - begun < Duration::from_secs(2), "slow: {}", what());
            }
        }
    }
}

/// For how long each test goes on; longer with `XRUN_FUZZ_SECONDS` (`make fuzz-bytes`).
fn until() -> Instant {
    let seconds = std::env::var("XRUN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    Instant::now() + Duration::from_secs(seconds)
}

fn seed() -> u64 {
    let seed = std::env::var("XRUN_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("XRUN_FUZZ_SEED={seed}");
    seed
}

#[test]
fn random_bytes() {
    let mut rng = fastrand::Rng::with_seed(seed());
    translate(&[]);
    let (end, mut n) = (until(), 0);
    while Instant::now() < end {
        n += 1;
        let mut code: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
        // Half of it starts like instructions do: prefixes, REX, the two- and three-byte maps, VEX.
        if rng.bool() {
            const HEADS: &[u8] =
                &[0x66, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x65, 0x67, 0x40, 0x48, 0x0f, 0x0f, 0xc5, 0xc4, 0xd9];
            for at in (0..code.len()).step_by(rng.usize(2..9)) {
                code[at] = HEADS[rng.usize(..HEADS.len())];
            }
        }
        translate(&code);
    }
    println!("random_bytes: {n} pieces of code");
}

/// Every form of every instruction, and blocks of them.
#[test]
fn every_form() {
    let seed = seed();
    for code in forms::all() {
        let mut rng = fastrand::Rng::with_seed(seed ^ code as u64);
        for _ in 0..3 {
            if let Some((program, _)) = blocks::single(code, &mut rng)
                && let Some(a) = program.assemble()
            {
                translate(&a.code);
            }
        }
    }
    let pool: Vec<_> = forms::all().into_iter().filter(|&c| forms::has_row(c)).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (end, mut n) = (until(), 0);
    while Instant::now() < end {
        if let Some((program, _)) = blocks::block(&pool, 60, &mut rng)
            && let Some(a) = program.assemble()
        {
            n += 1;
            translate(&a.code);
        }
    }
    println!("every_form: {n} blocks");
}

/// What a shrunk failure of the random tester was.
#[test]
fn regressions() {
    for hex in [
        "f08175a4555555559e",
        "7612c4427d34fe0faeedc4c16572e600c5e9e1f3c4427d35e066440f2fe7c57dd7f0f041f65da4c549f8b6df0e00207b11c5c9dbd34d39f166450f58bc72b4010000",
    ] {
        translate(&truth::text::unhex(hex).unwrap_or_default());
    }
}
