//! Another translator's instruction counts beside ours: `cargo run --example counts -- FILE [-v]`.
//!
//! FILE has lines of five columns, separated by tabs: an x86 instruction in NASM's syntax, host features that are there, features that are not, options,
//! and the number of AArch64 instructions it becomes with all flags live after it and memory ordering off. Ours counts the words of the main line,
//! flags brought to the form they have between regions included, the branch at the end not. Rows with options, and instructions NASM does not know, are
//! left out. What is longer than theirs is grouped by the reason; lines without one are printed, all with `-v`. Needs `nasm`.

use iced_x86::{EncodingKind, Instruction, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;
use xrun::Translator;
use xrun::facts::Facts;
use xrun::guest::Region;
use xrun::host::HostFeatures;
use xrun_runtime::engine::{Extent, GuestCode, Request};

const AT: u64 = 0x40_0000;
const AFTER: u64 = 0x10_0000;

/// One instruction, then a jump to code that reads all flags.
struct Guest(Vec<u8>);

impl GuestCode for Guest {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let pushfq: &[u8] = &[0x9c];
        for (at, bytes) in [(AT, &self.0[..]), (AFTER, pushfq)] {
            if let Some(from) = addr.checked_sub(at).and_then(|o| bytes.get(o as usize..)).filter(|b| !b.is_empty()) {
                let n = from.len().min(buf.len());
                buf[..n].copy_from_slice(&from[..n]);
                return n;
            }
        }
        0
    }
}

/// Words of the main line for `code`, and how many of them only bring flags to the form they have between regions; an error says why there are none.
fn words(code: &[u8], host: HostFeatures) -> Result<(u32, u32), String> {
    let mut bytes = code.to_vec();
    bytes.push(0xe9);
    bytes.extend((AFTER.wrapping_sub(AT + bytes.len() as u64 + 4) as i32).to_le_bytes());
    let guest = Guest(bytes);
    let region = Region::find(AT, Extent::Loop, &guest).map_err(|e| e.to_string())?;
    let i = &region.insts[0].i;
    if i.is_invalid() {
        return Err("not an instruction here".into());
    }
    if xrun::isa::row(i.mnemonic()).is_none() {
        return Err("no row".into());
    }
    let facts = Facts::of(&region, &guest);
    let request = Request { extent: Extent::Loop, ..Request::at(AT) };
    if xrun::isa::declined(&region, &facts, host, request.ordering).is_some() {
        return Err("declined".into());
    }
    let t = Translator { host }.lower(&region, &facts, request);
    let cold = t.exits.iter().map(|e| e.stub).min().unwrap_or(t.words.len() as u32);
    let jump = t.exits.iter().map(|e| e.site).filter(|&s| s < cold).max();
    // Without a jump at the end, what control never passes is all of it.
    let end = jump.unwrap_or(cold);
    let edge =
        t.marks.iter().find(|m| m.guest == region.insts[0].i.next_ip()).map_or(0, |m| end.saturating_sub(m.word));
    Ok((end - t.entries[0].word, edge))
}

/// Why `i` is `ours` words long, `edge` of them for flags, where another translator needs `theirs`; by the first reason that explains all of it.
fn reason(i: &Instruction, host: HostFeatures, enabled: &str, (ours, edge): (u32, u32), theirs: u32) -> &'static str {
    let family = xrun::isa::row(i.mnemonic()).map_or("-", |r| r.family);
    let register = |is: fn(Register) -> bool| (0..i.op_count()).any(|n| is(i.op_register(n)));
    let vex = i.code().op_code().encoding() == EncodingKind::VEX;
    if ours - edge <= theirs {
        "flags brought to the form they have between regions: only where a region ends"
    } else if family.starts_with("x87") {
        "x87 checked for exceptions, an empty stack and 80 bits"
    } else if register(Register::is_mm) {
        "MMX registers are the x87 ones, in memory: checked for exceptions, marked as in use"
    } else if matches!(family, "sse float" | "fma" | "f16c") && !host.afp || family == "fma" {
        "NaNs as x86 gives them"
    } else if register(Register::is_ymm) && enabled.split('+').any(|f| f == "SVE256") {
        "upper halves of YMM registers: theirs in SVE registers of 256 bits"
    } else if vex && register(Register::is_vector_register) {
        "upper halves of YMM registers: looked whether they are zero, and kept so"
    } else {
        "other"
    }
}

fn host(enabled: &str, disabled: &str) -> HostFeatures {
    let mut h = HostFeatures::V8_2;
    for (list, on) in [(enabled.split('+').collect::<Vec<_>>(), true), (disabled.split('-').collect(), false)] {
        for f in list {
            match f {
                "FLAGM" => h.flagm = on,
                "FLAGM2" => h.flagm2 = on,
                "AFP" => h.afp = on,
                "FRINTTS" => h.frint = on,
                "CRYPTO" => (h.aes, h.pmull, h.sha2) = (on, on, on),
                _ => {}
            }
        }
    }
    h
}

/// Bytes of each instruction NASM knows.
fn assemble(texts: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let dir = std::env::temp_dir().join(format!("xrun-counts-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let (source, object) = (dir.join("all.asm"), dir.join("all.bin"));
    let mut left: Vec<&str> = texts.iter().copied().collect();
    let made = loop {
        let mut text = String::from("bits 64\ndefault rel\n");
        for (n, t) in left.iter().enumerate() {
            let t = t.replace("ptr ", "");
            let _ = writeln!(text, "dw e{n} - s{n}\ns{n}: {t}\ne{n}:");
        }
        std::fs::write(&source, text).map_err(|e| e.to_string())?;
        let out = std::process::Command::new("nasm")
            .args(["-w-all", "-f", "bin", "-Ox", "-o"])
            .args([&object, &source])
            .output()
            .map_err(|e| format!("nasm: {e}"))?;
        if out.status.success() {
            break std::fs::read(&object).map_err(|e| e.to_string())?;
        }
        // Three lines an instruction, after two of head.
        let errors = String::from_utf8_lossy(&out.stderr);
        let bad: BTreeSet<usize> = errors
            .lines()
            .filter_map(|l| l.split(':').nth(1)?.parse::<usize>().ok())
            .map(|line| line.saturating_sub(3) / 3)
            .collect();
        if bad.is_empty() {
            return Err(format!("nasm: {errors}"));
        }
        let kept = left.iter().enumerate().filter(|(n, _)| !bad.contains(n)).map(|(_, t)| *t);
        left = kept.collect();
    };
    let _ = std::fs::remove_dir_all(&dir);
    let (mut bytes, mut all) = (&made[..], BTreeMap::new());
    for t in left {
        let n = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        all.insert(t.to_string(), bytes[2..2 + n].to_vec());
        bytes = &bytes[2 + n..];
    }
    Ok(all)
}

fn run(path: &str, all: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let rows: Vec<Vec<&str>> = text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect();
    let rows: Vec<&Vec<&str>> = rows.iter().filter(|r| r.len() == 5).collect();
    let plain: Vec<&Vec<&str>> = rows.iter().copied().filter(|r| r[3] == "-").collect();
    let code = assemble(&plain.iter().map(|r| r[0]).collect())?;
    let mut left_out: BTreeMap<String, u32> = BTreeMap::new();
    left_out.insert("with options".into(), (rows.len() - plain.len()) as u32);
    // Family: rows, at or below, words ours, words theirs.
    let mut groups: BTreeMap<&str, (u32, u32, u32, u32)> = BTreeMap::new();
    let mut above: BTreeMap<String, (u32, u32, u32)> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for r in plain {
        let theirs: u32 = r[4].parse().map_err(|_| format!("{}: '{}' is no number", r[0], r[4]))?;
        let result = match code.get(r[0]) {
            None => Err("not in NASM's syntax".into()),
            Some(bytes) => words(bytes, host(r[1], r[2])).map(|(n, edge)| (n, edge, bytes)),
        };
        match result {
            Err(why) => *left_out.entry(why).or_default() += 1,
            Ok((ours, edge, bytes)) => {
                let guest = Guest(bytes.clone());
                let region = Region::find(AT, Extent::Single, &guest).map_err(|e| e.to_string())?;
                let i = &region.insts[0].i;
                let m = i.mnemonic();
                let family = xrun::isa::row(m).map_or("-", |r| r.family);
                let g = groups.entry(family).or_default();
                *g = (g.0 + 1, g.1 + u32::from(ours <= theirs), g.2 + ours, g.3 + theirs);
                let why = if ours > theirs { reason(i, host(r[1], r[2]), r[1], (ours, edge), theirs) } else { "" };
                if all || why == "other" {
                    println!("{:44} {:14} ours {ours:3} theirs {theirs:3}  on {} without {}", r[0], family, r[1], r[2]);
                }
                if ours > theirs {
                    let g = reasons.entry(why).or_default();
                    *g = (g.0 + 1, g.1 + ours, g.2 + theirs);
                    let a = above.entry(format!("{m:?}").to_lowercase()).or_default();
                    *a = (a.0 + 1, a.1 + ours, a.2 + theirs);
                }
            }
        }
    }
    println!("\n{:16} {:>6} {:>14} {:>7} {:>7}", "family", "rows", "at or below", "ours", "theirs");
    let mut sum = (0, 0, 0, 0);
    for (family, g) in &groups {
        println!(
            "{family:16} {:6} {:6} {:5.1} % {:7} {:7}",
            g.0,
            g.1,
            100.0 * f64::from(g.1) / f64::from(g.0),
            g.2,
            g.3
        );
        sum = (sum.0 + g.0, sum.1 + g.1, sum.2 + g.2, sum.3 + g.3);
    }
    let share = 100.0 * f64::from(sum.1) / f64::from(sum.0.max(1));
    println!("{:16} {:6} {:6} {share:5.1} % {:7} {:7}", "all", sum.0, sum.1, sum.2, sum.3);
    println!("\nabove, why: rows, words ours and theirs");
    for (why, (n, ours, theirs)) in &reasons {
        println!("{n:6} {ours:6} {theirs:6}  {why}");
    }
    let but = |why: &str| reasons.get(why).map_or(0, |r| r.0);
    let flags = reasons.keys().find(|w| w.starts_with("flags")).map_or(0, |w| but(w));
    let share = |n: u32| 100.0 * f64::from(n) / f64::from(sum.0.max(1));
    println!(
        "at or below without the flags' words: {:.1} %; with none of these reasons but the last: {:.1} %",
        share(sum.1 + flags),
        share(sum.0 - but("other"))
    );
    println!("\nabove: mnemonic, rows, words ours and theirs");
    let mut worst: Vec<_> = above.into_iter().collect();
    worst.sort_by_key(|(_, (n, ..))| std::cmp::Reverse(*n));
    for (m, (n, ours, theirs)) in worst {
        println!("{m:16} {n:4} {ours:6} {theirs:6}");
    }
    println!("\nleft out:");
    for (why, n) in left_out {
        println!("{n:6} {why}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match &args[..] {
        [path] => run(path, false),
        [path, v] if v == "-v" => run(path, true),
        _ => Err("usage: counts FILE [-v]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("counts: {e}");
            ExitCode::from(2)
        }
    }
}
