//! Golden listings: a few guest instructions, what is known about the flags after them, a kind of host, and the exact AArch64
//! code they become. A change of the translator shows here as a diff to be read.
//!
//! `tests/golden/*.txt` hold blocks of lines:
//!
//! ```text
//! test: cmp eax, ebx; setb cl      instructions, NASM syntax
//! live: cz                         flags read afterwards: letters of czsop, `all` or `none` (default)
//! host: v8.0 max                   hosts (default v8.2)
//! order: tso                       plain (default), tso or fenced memory accesses
//! code: 39d8 0f92c1                the bytes
//!   v8.2:                          what they become
//!     ; cmp eax, ebx
//!     subs wzr, w19, w22
//! ```
//! Whoever adds a test writes the first lines and runs the test with `BLESS=1`, which fills in the rest; `nasm` is needed for
//! that, and for that only. `summary.txt` holds host words per guest instruction by file, and may only get smaller.

use iced_x86::{Formatter, IntelFormatter};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use xrun::Translator;
use xrun::facts::Facts;
use xrun::guest::Region;
use xrun::host::HostFeatures;
use xrun_runtime::engine::{Extent, GuestCode, Ordering, Request, Translation};

/// The code under test.
const AT: u64 = 0x40_0000;
/// What follows it: out of reach of region forming, but not of looking ahead.
const AFTER: u64 = 0x10_0000;

#[derive(Clone, Debug, Default)]
struct Test {
    comment: String,
    asm: String,
    live: String,
    hosts: Vec<String>,
    order: String,
    code: Vec<u8>,
    listing: String,
}

struct Guest {
    code: Vec<u8>,
    after: Vec<u8>,
}

impl GuestCode for Guest {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        for (at, bytes) in [(AT, &self.code), (AFTER, &self.after)] {
            if let Some(from) = addr.checked_sub(at).and_then(|o| bytes.get(o as usize..)) {
                let n = from.len().min(buf.len());
                buf[..n].copy_from_slice(&from[..n]);
                return n;
            }
        }
        0
    }
}

/// Code that reads just the flags in `live`, then overwrites all.
fn reader(live: &str) -> Vec<u8> {
    let mut code = Vec::new();
    for c in live.chars() {
        match c {
            'c' => code.extend([0x0f, 0x92, 0xc0]), // setb al
            'z' => code.extend([0x0f, 0x94, 0xc0]), // sete al
            's' => code.extend([0x0f, 0x98, 0xc0]), // sets al
            'o' => code.extend([0x0f, 0x90, 0xc0]), // seto al
            'p' => code.extend([0x0f, 0x9a, 0xc0]), // setp al
            _ => panic!("live: '{c}' is none of czsop"),
        }
    }
    code.extend([0x39, 0xc0]); // cmp eax, eax
    code
}

struct Output {
    listing: String,
    guest: usize,
    words: usize,
}

fn translate(t: &Test, host: HostFeatures) -> Output {
    let mut code = t.code.clone();
    // jmp AFTER, so that the test's own code ends with a direct exit.
    let next = AT + code.len() as u64 + 5;
    code.push(0xe9);
    code.extend(((AFTER.wrapping_sub(next)) as i32).to_le_bytes());
    let after = match t.live.as_str() {
        "all" => vec![0x9c], // pushfq
        "none" | "" => reader(""),
        live => reader(live),
    };
    let guest = Guest { code, after };
    let ordering = match t.order.as_str() {
        "" | "plain" => Ordering::Plain,
        "tso" => Ordering::Tso,
        "fenced" => Ordering::Fenced,
        other => panic!("order: '{other}' is none of plain, tso, fenced"),
    };
    let request = Request { ordering, extent: Extent::Loop, ..Request::at(AT) };
    let region = Region::find(AT, Extent::Loop, &guest).expect("there is code");
    let facts = Facts::of(&region, &guest);
    let made = Translator { host }.lower(&region, &facts, request);
    render(&region, &made, AT + t.code.len() as u64)
}

/// The host words of the instructions before `end`, each under its guest instruction, then the cold code that is theirs.
fn render(region: &Region, t: &Translation, end: u64) -> Output {
    let mut out = String::new();
    let mut words = 0;
    let mut intel = IntelFormatter::new();
    intel.options_mut().set_hex_prefix("0x");
    intel.options_mut().set_hex_suffix("");
    intel.options_mut().set_space_after_operand_separator(true);
    let stub_end = |at: u32| t.exits.iter().any(|e| (e.stub..e.stub + 4).contains(&at));
    let cold = t.exits.iter().map(|e| e.stub).min().unwrap_or(t.words.len() as u32);
    let mut guest = 0;
    for x in region.insts.iter().filter(|x| x.i.ip() < end) {
        guest += 1;
        let mut text = String::new();
        intel.format(&x.i, &mut text);
        let _ = writeln!(out, "    ; {text}");
        for (n, m) in t.marks.iter().enumerate().filter(|(_, m)| m.guest == x.i.ip()) {
            let to = t.marks.get(n + 1).map_or(cold, |m| m.word).min(cold.max(m.word));
            for at in m.word..to {
                let _ = writeln!(out, "    {}", xrun::listing::host_word(t.words[at as usize], at));
                words += 1;
            }
        }
    }
    let rest: Vec<u32> = (cold..t.words.len() as u32).filter(|&at| !stub_end(at)).collect();
    if !rest.is_empty() {
        let _ = writeln!(out, "    ; cold");
        for at in rest {
            let _ = writeln!(out, "    {}", xrun::listing::host_word(t.words[at as usize], at));
        }
    }
    Output { listing: out, guest, words }
}

fn parse(path: &Path, text: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    let mut comment = String::new();
    for (n, line) in text.lines().enumerate() {
        let wrong = |what: &str| panic!("{}:{}: {what}", path.display(), n + 1);
        if line.starts_with('#') {
            comment += &format!("{line}\n");
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        if let Some(asm) = line.strip_prefix("test:") {
            let comment = std::mem::take(&mut comment);
            tests.push(Test { comment, asm: asm.trim().into(), ..Test::default() });
            continue;
        }
        let Some(t) = tests.last_mut() else { wrong("a line before the first test") };
        if line.starts_with(' ') {
            t.listing += &format!("{line}\n");
            continue;
        }
        match line.split_once(':') {
            Some(("live", v)) => t.live = v.trim().into(),
            Some(("host", v)) => t.hosts = v.split_whitespace().map(String::from).collect(),
            Some(("order", v)) => t.order = v.trim().into(),
            Some(("code", v)) => {
                let hex: Vec<u8> = v.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
                t.code = hex
                    .chunks(2)
                    .map(|c| u8::from_str_radix(&String::from_utf8_lossy(c), 16).unwrap_or_else(|_| wrong("bad bytes")))
                    .collect();
            }
            _ => wrong("not a line of a test"),
        }
    }
    tests
}

fn print(tests: &[Test]) -> String {
    let mut out = String::new();
    for (n, t) in tests.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        out += &t.comment;
        let _ = writeln!(out, "test: {}", t.asm);
        for (name, value) in [("live", t.live.clone()), ("host", t.hosts.join(" "))] {
            if !value.is_empty() {
                let _ = writeln!(out, "{name}: {value}");
            }
        }
        if !t.order.is_empty() {
            let _ = writeln!(out, "order: {}", t.order);
        }
        let code: String = t.code.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "code: {code}");
        out += &t.listing;
    }
    out
}

/// Assembles all tests of a file that have no bytes yet, in one run of NASM.
fn assemble(path: &Path, tests: &mut [Test]) {
    let new: Vec<usize> = (0..tests.len()).filter(|&n| tests[n].code.is_empty()).collect();
    if new.is_empty() {
        return;
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (source, object) = (dir.join(format!("{stem}.asm")), dir.join(format!("{stem}.bin")));
    let mut text = String::from("bits 64\ndefault rel\n");
    // Each test's length goes before it, so that the flat binary can be cut.
    for &n in &new {
        let _ = writeln!(text, "dw e{n} - s{n}\ns{n}:");
        for line in tests[n].asm.split(';') {
            let _ = writeln!(text, "{}", line.trim());
        }
        let _ = writeln!(text, "e{n}:");
    }
    std::fs::write(&source, text).expect("a writable target directory");
    let status = std::process::Command::new("nasm")
        .args(["-f", "bin", "-Ox", "-o"])
        .args([&object, &source])
        .status()
        .expect("nasm, which assembles new tests");
    assert!(status.success(), "{}: see {}", path.display(), source.display());
    let mut bytes: &[u8] = &std::fs::read(&object).expect("what nasm wrote");
    for n in new {
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        tests[n].code = bytes[2..2 + length].to_vec();
        bytes = &bytes[2 + length..];
    }
}

#[test]
fn listings_are_as_recorded() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BLESS").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("tests/golden")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt") && p.file_stem().is_some_and(|s| s != "summary"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no golden files");
    let mut summary =
        String::from("# Host words per guest instruction in each golden file, for v8.2. May only get smaller.\n");
    let mut density = BTreeMap::new();
    let mut wrong = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let mut tests = parse(&path, &text);
        if bless {
            assemble(&path, &mut tests);
        }
        let (mut guest, mut words) = (0, 0);
        for t in &mut tests {
            assert!(!t.code.is_empty(), "{}: '{}' has no bytes; run with BLESS=1", path.display(), t.asm);
            let hosts = if t.hosts.is_empty() { vec!["v8.2".to_string()] } else { t.hosts.clone() };
            let mut listing = String::new();
            for name in hosts {
                let host = HostFeatures::ALL.iter().find(|h| h.0 == name);
                let (_, host) = host.unwrap_or_else(|| panic!("{}: no host {name}", path.display()));
                let _ = writeln!(listing, "  {name}:");
                listing += &translate(t, *host).listing;
            }
            let size = translate(t, HostFeatures::V8_2);
            guest += size.guest;
            words += size.words;
            if t.listing != listing && !bless {
                let _ = write!(wrong, "\n{}: {}\nexpected\n{}got\n{listing}", path.display(), t.asm, t.listing);
            }
            t.listing = listing;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(summary, "{name} {guest} {words} {:.3}", words as f64 / guest as f64);
        density.insert(name, (guest, words));
        if bless {
            std::fs::write(&path, print(&tests)).expect("a writable file");
        }
    }
    let path = dir.join("summary.txt");
    if bless {
        std::fs::write(&path, summary).expect("a writable file");
        return;
    }
    for line in std::fs::read_to_string(&path).unwrap_or_default().lines().filter(|l| !l.starts_with('#')) {
        let mut f = line.split_whitespace();
        let (Some(name), Some(guest), Some(words)) = (f.next(), f.next(), f.next()) else { continue };
        let (guest, words): (usize, usize) = (guest.parse().unwrap_or(0), words.parse().unwrap_or(0));
        match density.remove(name) {
            Some((g, w)) if g == guest && w > words => {
                let _ = write!(wrong, "\n{name}: {w} host words where there were {words}");
            }
            Some((g, _)) if g != guest => {
                let _ = write!(wrong, "\n{name}: the summary counts {guest} guest instructions, there are {g}");
            }
            Some(_) => {}
            None => {
                let _ = write!(wrong, "\n{name}: in the summary, but no such file");
            }
        }
    }
    for name in density.keys() {
        let _ = write!(wrong, "\n{name}: not in the summary");
    }
    assert!(wrong.is_empty(), "{wrong}\n\nIf this is meant: BLESS=1, and read the diff.");
}
