//! The proof that the instruction set is covered: every mnemonic of what CPUID announces has a row, a golden listing and a recorded result, or a reason;
//! and the page made from the table of instructions is up to date (BLESS=1 writes it).

mod truth;

use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Mnemonic};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use truth::{feature, forms};
use xrun::facts::Facts;
use xrun::guest::Region;
use xrun::host::HostFeatures;
use xrun::isa::{self, Decline, cpuid, row, table};
use xrun_runtime::engine::{Extent, GuestCode, Ordering};

/// Whether the translator's CPUID announces `code`.
fn announced(code: Code) -> bool {
    let oc = code.op_code();
    oc.is_instruction()
        && oc.mode64()
        && matches!(oc.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && feature::missing(code, cpuid::cpuid).is_none()
}

/// Mnemonics of what is announced, each with its forms.
fn mnemonics() -> BTreeMap<String, Vec<Code>> {
    let mut all: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for code in Code::values().filter(|&c| announced(c) && !odd(c.mnemonic())) {
        all.entry(format!("{:?}", code.mnemonic())).or_default().push(code);
    }
    all
}

/// In the encoding tables under an old name, but in no CPU that has 64-bit mode; or the kernel's alone; or two instructions, WAIT and another.
fn odd(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Fclex
            | Finit
            | Fsave
            | Fstcw
            | Fstenv
            | Fstsw
            | Jmpe
            | Loadall
            | Umov
            | Fstdw
            | Fstsg
            | Fnstdw
            | Fnstsg
            | Feni
            | Fdisi
            | Fsetpm
            | Frstpm
            | Rsm
            | Ibts
            | Xbts
    )
}

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The mnemonics of some code.
fn decoded(bytes: &[u8], into: &mut BTreeSet<String>) {
    for i in &mut Decoder::new(64, bytes, DecoderOptions::NONE) {
        into.insert(format!("{:?}", i.mnemonic()));
    }
}

fn in_goldens() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root("tests/golden")).expect("golden listings") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a readable file");
        for hex in text.lines().filter_map(|l| l.strip_prefix("code:")) {
            let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            let byte = |c: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(c), 16).expect("hexadecimal digits");
            let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
            decoded(&bytes, &mut seen);
        }
    }
    seen
}

fn in_records() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root("fixtures/oracle")).expect("recorded results") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a readable file");
        for r in truth::text::parse(&text).expect("a readable record") {
            decoded(&r.case.code, &mut seen);
        }
    }
    seen
}

/// The names in `all` that `has` does not hold.
fn missing(all: &BTreeMap<String, Vec<Code>>, has: impl Fn(&str, &[Code]) -> bool) -> Vec<&str> {
    all.iter().filter(|(n, codes)| !has(n, codes)).map(|(n, _)| n.as_str()).collect()
}

#[test]
fn what_is_announced_has_rows() {
    let all = mnemonics();
    let without = missing(&all, |_, codes| row(codes[0].mnemonic()).is_some());
    assert!(without.is_empty(), "no row: {}", without.join(" "));
}

#[test]
fn what_is_announced_has_golden_listings() {
    let (all, seen) = (mnemonics(), in_goldens());
    let without = missing(&all, |n, _| seen.contains(n));
    assert!(without.is_empty(), "{} without a golden listing: {}", without.len(), without.join(" "));
}

#[test]
fn what_is_announced_has_recorded_results() {
    let (all, seen) = (mnemonics(), in_records());
    // The recorder makes no operands with a vector index.
    let gathers = |n: &str| n.starts_with("Vgather") || n.starts_with("Vpgather");
    let without =
        missing(&all, |n, codes| seen.contains(n) || gathers(n) || codes.iter().all(|&c| forms::excluded(c).is_some()));
    assert!(without.is_empty(), "{} without a recorded result: {}", without.len(), without.join(" "));
}

/// The bytes of one case, then code that reads all flags.
struct Guest(Vec<u8>);

impl GuestCode for Guest {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let from = addr.checked_sub(truth::START).and_then(|o| self.0.get(o as usize..)).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// Every form that is compared with the CPU, with all kinds of operands, is lowered on every host and in every memory ordering; what is not is in the
/// table of what is there in part.
#[test]
fn no_form_is_declined() {
    let mut declined: BTreeMap<String, String> = BTreeMap::new();
    for code in forms::all().into_iter().filter(|&c| announced(c) && row(c.mnemonic()).is_some()) {
        let mut rng = fastrand::Rng::with_seed(code as u64);
        for _ in 0..24 {
            let Some(assembled) = truth::blocks::single(code, &mut rng).and_then(|(p, _)| p.assemble()) else {
                continue;
            };
            let mut bytes = assembled.code;
            bytes.extend([0x9c, 0xc3]);
            let guest = Guest(bytes);
            let region = Region::find(truth::START, Extent::Loop, &guest).expect("code");
            let facts = Facts::of(&region, &guest);
            for (name, host) in HostFeatures::ALL {
                for ordering in [Ordering::Plain, Ordering::Tso, Ordering::Fenced] {
                    if let Some(Decline::Unsupported(why)) = isa::declined(&region, &facts, host, ordering)
                        && table::partial(code.mnemonic()).is_none()
                    {
                        declined.insert(
                            format!("{code:?}"),
                            format!("{why} ({name}, {ordering:?}, {})", region.insts[0].i),
                        );
                    }
                }
            }
        }
    }
    let lines: Vec<String> = declined.iter().map(|(c, why)| format!("{c}: {why}")).collect();
    assert!(lines.is_empty(), "{} forms declined:\n{}", lines.len(), lines.join("\n"));
}

fn up_to_date(path: &str, text: &str) {
    let path = root(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory to write in");
        std::fs::write(&path, text).expect("a writable file");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "{} is out of date: BLESS=1 cargo test --test isa", path.display());
}

#[test]
fn the_page_is_up_to_date() {
    up_to_date("docs/isa.md", &table::page());
}
