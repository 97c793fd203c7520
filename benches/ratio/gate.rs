//! The gate: what a few small runs under xrun execute must not grow unnoticed.
//!
//! `benches/gate.tsv` has, for each: the row's name (with `/warm`: with kept translations), two sizes, and the number of AArch64 instructions between them (of the whole run where
//! the sizes are 0). Counts repeat to a few hundred instructions, so the allowance is for compilers, not for chance.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rows::ROWS;
use crate::run::{Bench, Side};

/// More than this many per cent over the record fails.
const ALLOWED: u64 = 2;

struct Gate {
    name: String,
    sizes: [u64; 2],
    record: u64,
}

fn parse(text: &str) -> Option<Vec<Gate>> {
    let gate = |line: &str| {
        let f: Vec<&str> = line.split('\t').collect();
        let [name, small, large, record] = f[..] else { return None };
        Some(Gate {
            name: name.into(),
            sizes: [small.parse().ok()?, large.parse().ok()?],
            record: record.parse().ok()?,
        })
    };
    text.lines().map(gate).collect()
}

/// Instructions executed between the two sizes.
fn count(bench: &Bench, gate: &Gate) -> Result<u64, String> {
    let (name, warm) = gate.name.strip_suffix("/warm").map_or((&gate.name[..], false), |name| (name, true));
    let row = ROWS.iter().find(|row| row.name == name).ok_or("there is no such row")?;
    let bench = &Bench { warm, ..bench.clone() };
    bench.build(row)?;
    let run = |size| bench.run(row, Side::Xrun, size).map(|run| run.cost);
    let [small, large] = gate.sizes;
    if small == large {
        return run(small);
    }
    let (small, large) = (run(small)?, run(large)?);
    large.checked_sub(small).ok_or_else(|| "the larger size takes less".to_string())
}

/// Measures all gates, `jobs` at a time, and says for each what it takes now.
pub fn check(bench: &Bench, jobs: usize) -> ExitCode {
    let file = bench.top.join("benches/gate.tsv");
    let gates = match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text),
        Err(e) => {
            eprintln!("bench: {}: {e}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let Some(gates) = gates else {
        eprintln!("bench: {}: a line is not NAME, SIZE, SIZE, COUNT", file.display());
        return ExitCode::FAILURE;
    };
    let next = AtomicUsize::new(0);
    let counts = Mutex::new((0..gates.len()).map(|_| Ok(0)).collect::<Vec<Result<u64, String>>>());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((at, gate)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, gates.get(at)?)))
                {
                    let counted = count(bench, gate);
                    counts.lock().expect("no thread panics while holding it")[at] = counted;
                }
            });
        }
    });
    let counts = counts.into_inner().expect("no thread panics while holding it");
    let bless = std::env::var_os("BLESS").is_some();
    let (mut failed, mut blessed) = (0, String::new());
    println!("{:<12} {:>12} {:>12}", "gate", "recorded", "now");
    for (gate, counted) in gates.iter().zip(counts) {
        match counted {
            Ok(now) => {
                let grown = !bless && now * 100 > gate.record * (100 + ALLOWED);
                failed += usize::from(grown);
                let note = if grown { "  GROWN" } else { "" };
                println!("{:<12} {:>12} {:>12}{note}", gate.name, gate.record, now);
                blessed += &format!("{}\t{}\t{}\t{now}\n", gate.name, gate.sizes[0], gate.sizes[1]);
            }
            Err(e) => {
                println!("{:<12} {:>12} {e}", gate.name, gate.record);
                failed += 1;
            }
        }
    }
    if bless && blessed.lines().count() == gates.len() {
        if let Err(e) = std::fs::write(&file, blessed) {
            eprintln!("bench: {}: {e}", file.display());
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    println!("{} passed, {failed} failed", gates.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
