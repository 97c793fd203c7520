//! `make bench`: what x86_64 programs cost under xrun, as a ratio to the same source built for AArch64.
//!
//! Every row runs natively for arm64, under qemu-x86_64 (its AArch64 build) and under xrun; outputs
//! must be equal. The price is the number of AArch64 instructions executed, counted by the `insn`
//! plugin of a qemu-aarch64 (`--insn DIR`) or, on an AArch64 host, by `perf stat`. A ratio of whole runs
//! includes start-up and translation; the slope between two sizes does not. A count prices every
//! instruction at one: what a barrier or a divide costs on silicon it does not say.

mod gate;
mod plot;
mod report;
mod rows;
mod run;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use report::Line;
use rows::{Kind, ROWS, Row, SMOKE};
use run::{Bench, Counter, Side};

const USAGE: &str = "\
usage: make bench [INSN=DIR] [CPU=MODEL] [ARGS=\"...\"]
  --insn DIR      holds qemu-aarch64, built with plugins, and libinsn.so
  --cpu MODEL     AArch64 CPU model (default neoverse-n1)
  --rows A,B      only rows whose name or kind contains A or B
  --no-qemu       leave qemu-x86_64 out
  --jobs N        rows at a time (default: number of processors)
  --timeout S     seconds for one run (default 300)
  --json FILE     where to write the results (default target/bench/results.json)
  --svg FILE      where to draw them, if at all
  --fresh         measure native and qemu-x86_64 again instead of using remembered counts
  --gate          count a few small runs with the log of qemu-aarch64-static, and fail if one takes more than is recorded in
                  benches/gate.tsv allows (BLESS=1 records)
  --warm          measure xrun with what earlier runs of the same command kept of their translations
  --smoke         a few quick rows, small sizes, without qemu-x86_64: does it run at all
  --xrun FILE     the xrun to measure (default $XRUN, else target/aarch64-unknown-linux-gnu/release/xrun)
";

struct Options {
    bench: Bench,
    filter: Vec<String>,
    qemu: bool,
    jobs: usize,
    json: PathBuf,
    svg: Option<PathBuf>,
    smoke: bool,
    gate: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(args) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if options.gate {
        return gate::check(&options.bench, options.jobs);
    }
    let wanted: Vec<&Row> = ROWS.iter().filter(|row| selected(row, &options)).collect();
    if wanted.is_empty() {
        eprintln!("bench: no row matches");
        return ExitCode::from(2);
    }
    report::head(&options.bench, options.qemu);
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, (0..wanted.len()).map(|_| None).collect::<Vec<Option<Line>>>()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = wanted.get(at) else { break };
                    let line = measure(row, &options);
                    let mut done = done.lock().expect("no thread panics while holding it");
                    done.1[at] = Some(line);
                    // Lines appear in the order of the table, each as soon as those before it are there.
                    while let Some(Some(line)) = done.1.get(done.0) {
                        report::line(line);
                        done.0 += 1;
                    }
                }
            });
        }
    });
    let lines: Vec<Line> =
        done.into_inner().expect("no thread panics while holding it").1.into_iter().flatten().collect();
    report::summary(&lines);
    if let Err(e) = report::json(&options.json, &options.bench, &lines) {
        eprintln!("bench: {}: {e}", options.json.display());
        return ExitCode::FAILURE;
    }
    println!("written: {}", options.json.display());
    if let Some(file) = &options.svg {
        let title = format!("AArch64 instructions executed, native = 1 (slopes, -cpu {})", options.bench.cpu);
        if let Err(e) = std::fs::write(file, plot::svg(&title, &lines)) {
            eprintln!("bench: {}: {e}", file.display());
            return ExitCode::FAILURE;
        }
    }
    match lines.iter().filter(|line| line.xrun.is_err()).count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn selected(row: &Row, options: &Options) -> bool {
    if options.smoke && !SMOKE.contains(&row.name) {
        return false;
    }
    options.filter.is_empty()
        || options.filter.iter().any(|f| row.name.contains(f.as_str()) || row.kind.name().contains(f.as_str()))
}

/// All runs of one row.
fn measure(row: &Row, options: &Options) -> Line {
    let bench = &options.bench;
    let mut line = Line::new(row);
    let sizes = if row.kind == Kind::Startup {
        vec![0]
    } else if options.smoke {
        vec![row.small]
    } else {
        vec![row.small, row.large]
    };
    if let Err(e) = bench.build(row) {
        line.native = Err(e.clone());
        line.xrun = Err(e);
        return line;
    }
    let side =
        |side| -> Result<Vec<run::Run>, String> { sizes.iter().map(|&size| bench.run(row, side, size)).collect() };
    let native = side(Side::Native);
    let compare = |runs: Vec<run::Run>| -> Result<Vec<u64>, String> {
        let native = native.as_ref().map_err(|e| format!("nothing to compare with: native {e}"))?;
        for ((run, want), size) in runs.iter().zip(native).zip(&sizes) {
            if run.output != want.output {
                return Err(format!("output differs from the native run's at size {size}"));
            }
        }
        Ok(runs.iter().map(|run| run.cost).collect())
    };
    line.xrun = side(Side::Xrun).and_then(compare);
    if options.qemu {
        line.qemu = Some(side(Side::Qemu).and_then(compare));
    }
    if row.kind == Kind::Startup {
        line.peak = match (bench.peak(row, Side::Native), bench.peak(row, Side::Xrun)) {
            (Ok(native), Ok(xrun)) => Some((native, xrun)),
            _ => None,
        };
    }
    line.native = native.map(|runs| runs.iter().map(|run| run.cost).collect());
    line
}

fn parse(args: Vec<String>) -> Result<Options, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    let work = top.join("target/bench");
    let mut insn: Option<PathBuf> = None;
    let mut xrun = std::env::var_os("XRUN").map(PathBuf::from);
    let mut json = None;
    let mut options = Options {
        bench: Bench {
            work: work.clone(),
            xrun: PathBuf::new(),
            cpu: "neoverse-n1".to_string(),
            counter: Counter::Absent,
            timeout: 300,
            fresh: false,
            warm: false,
            top,
        },
        filter: vec![],
        qemu: true,
        jobs: std::thread::available_parallelism().map_or(1, |n| n.get()),
        json: PathBuf::new(),
        svg: None,
        smoke: false,
        gate: false,
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--insn" => insn = Some(value()?.into()),
            "--cpu" => options.bench.cpu = value()?,
            "--rows" => options.filter = value()?.split(',').map(str::to_string).collect(),
            "--no-qemu" => options.qemu = false,
            "--jobs" => options.jobs = value()?.parse().map_err(|e| format!("--jobs: {e}"))?,
            "--timeout" => options.bench.timeout = value()?.parse().map_err(|e| format!("--timeout: {e}"))?,
            "--json" => json = Some(PathBuf::from(value()?)),
            "--svg" => options.svg = Some(value()?.into()),
            "--fresh" => options.bench.fresh = true,
            "--warm" => options.bench.warm = true,
            "--smoke" => (options.smoke, options.qemu) = (true, false),
            "--gate" => options.gate = true,
            "--xrun" => xrun = Some(value()?.into()),
            // Cargo says which kind of target it runs.
            "--bench" => {}
            _ => return Err(USAGE.to_string()),
        }
    }
    options.bench.counter = if options.gate { Counter::Log } else { counter(insn)? };
    options.bench.xrun =
        xrun.unwrap_or_else(|| options.bench.top.join("target/aarch64-unknown-linux-gnu/release/xrun"));
    let name = if options.smoke { "smoke.json" } else { "results.json" };
    options.json = json.unwrap_or_else(|| work.join(name));
    options.jobs = options.jobs.max(1);
    if !options.bench.xrun.is_file() {
        return Err(format!("bench: {} is not there; use make bench", options.bench.xrun.display()));
    }
    std::fs::create_dir_all(&work).map_err(|e| format!("bench: {}: {e}", work.display()))?;
    Ok(options)
}

fn counter(insn: Option<PathBuf>) -> Result<Counter, String> {
    if let Some(dir) = insn {
        let (qemu, plugin) = (dir.join("qemu-aarch64"), dir.join("libinsn.so"));
        for file in [&qemu, &plugin] {
            if !file.is_file() {
                return Err(format!("bench: {} is not there", file.display()));
            }
        }
        return Ok(Counter::Plugin { qemu, plugin });
    }
    if cfg!(target_arch = "aarch64") {
        let works = Command::new("perf")
            .args(["stat", "-x,", "-e", "instructions:u", "true"])
            .output()
            .is_ok_and(|o| o.status.success() && !String::from_utf8_lossy(&o.stderr).contains("<not"));
        if works {
            return Ok(Counter::Perf);
        }
    }
    Ok(Counter::Absent)
}
