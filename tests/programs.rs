//! Debian's amd64 programs under xrun: standard output and exit code equal to the native run's.
//!
//! Truth is the same program run by this machine's own processor: the amd64 file itself on x86_64,
//! its arm64 twin on aarch64. Nothing is recorded, so nothing can go stale. Both take every further
//! program they start from the unpacked root (PATH), and run in a directory of their own.
//!
//! Assumes the roots and data that `make roots data` unpacks, and a built xrun (`$XRUN`). On x86_64,
//! xrun runs under qemu-aarch64, once for each CPU model. `PROGRAMS` says how much: `short` (a quick
//! list on one model), `default` (every case on one model, the quick list on the others) or `full`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a case runs. In arguments, `{R}` is the root of the side that runs, `{F}` the directory of
/// fixtures, `{D}` the one of data, `{B}` the one of programs built from fixtures.
struct Case {
    name: &'static str,
    argv: &'static [&'static str],
    /// Part of the quick list.
    quick: bool,
}

const fn case(name: &'static str, quick: bool, argv: &'static [&'static str]) -> Case {
    Case { name, argv, quick }
}

const BASH: &str = "{R}/usr/bin/bash";

const CASES: &[Case] = &[
    case("hello-static", true, &["{B}/hello-static", "one", "two words"]),
    case("hello-static-pie", true, &["{B}/hello-static-pie", "one"]),
    case("hello-dynamic", true, &["{B}/hello-dynamic", "one"]),
    case("true", true, &["{R}/usr/bin/true"]),
    case("false", true, &["{R}/usr/bin/false"]),
    case("busybox", true, &["{R}/usr/bin/busybox", "sh", "{F}/busybox.sh"]),
    case("bash-basics", true, &[BASH, "{F}/bash_basics.sh"]),
    case("bash-pipes", true, &[BASH, "{F}/bash_pipes.sh"]),
    case("bash-traps", true, &[BASH, "{F}/bash_traps.sh"]),
    case("bash-forks", false, &[BASH, "{F}/bash_forks.sh"]),
    case("dash", true, &["{R}/usr/bin/dash", "-c", "for i in 1 2 3; do echo $i | cat; done; exit 4"]),
    case("coreutils", false, &[BASH, "{F}/coreutils.sh"]),
    case("tools", false, &[BASH, "{F}/tools.sh"]),
    case("perl", true, &["{R}/usr/bin/perl", "{F}/perl.pl"]),
    case("python3", true, &["{R}/usr/bin/python3", "-S", "{F}/python.py"]),
    case("sha256sum", true, &["{R}/usr/bin/sha256sum", "{D}/text.bz2"]),
    case("factor", true, &["{R}/usr/bin/factor", "18446743979220271189", "600851475143", "97"]),
    case("seq", true, &["{R}/usr/bin/seq", "-w", "1", "3", "20000"]),
    case("od", true, &["{R}/usr/bin/od", "-An", "-tx1", "-N", "200000", "{D}/text"]),
    case("sort-parallel", false, &["{R}/usr/bin/sort", "--parallel=4", "-S", "4M", "{D}/text-5m"]),
    case("pbzip2-decompress-22MB", false, &["{R}/usr/bin/pbzip2", "-dc", "-p4", "{D}/text.bz2"]),
    case("pbzip2-compress", false, &["{R}/usr/bin/pbzip2", "-zc", "-p4", "-b1", "{D}/text-1m"]),
    case("pbzip2-decompress", true, &["{R}/usr/bin/pbzip2", "-dc", "-p4", "{D}/text-1m.bz2"]),
    case("bzip2", false, &["{R}/usr/bin/bzip2", "-c", "{D}/text-1m"]),
    case("bunzip2", true, &["{R}/usr/bin/bzip2", "-dc", "{D}/text-1m.bz2"]),
    case("xz", false, &["{R}/usr/bin/xz", "-c", "-T4", "{D}/text-1m"]),
    case("unxz", true, &["{R}/usr/bin/xz", "-dc", "{D}/text-1m.xz"]),
    case("gzip", false, &["{R}/usr/bin/gzip", "-9nc", "{D}/text-1m"]),
    case("gunzip", true, &["{R}/usr/bin/gzip", "-dc", "{D}/text-1m.gz"]),
    case("not-found", true, &[BASH, "-c", "no-such-program; echo $?; exec {R}/no-such-file"]),
];

struct Setup {
    top: PathBuf,
    xrun: PathBuf,
    work: PathBuf,
}

/// What a run leaves behind.
#[derive(Clone)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: ExitStatus,
    seconds: f32,
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    let xrun = std::env::var_os("XRUN")
        .map(PathBuf::from)
        .unwrap_or_else(|| top.join("target/aarch64-unknown-linux-gnu/release/xrun"));
    let setup = Setup { work: top.join("target/tests"), xrun, top };
    if let Err(e) = prepare(&setup) {
        eprintln!("programs: {e}");
        return ExitCode::FAILURE;
    }
    let scope = std::env::var("PROGRAMS").unwrap_or_else(|_| "default".to_string());
    let models: Vec<String> = match std::env::var("CPUS") {
        _ if cfg!(target_arch = "aarch64") => vec!["host".to_string()],
        Ok(list) => list.split_whitespace().map(str::to_string).collect(),
        Err(_) => ["neoverse-n1", "cortex-a72", "neoverse-v1", "max"].map(str::to_string).to_vec(),
    };
    let main_model = if models.iter().any(|m| m == "neoverse-n1") { "neoverse-n1" } else { &models[0] };
    let setup = Arc::new(setup);
    let mut trials = vec![];
    for case in CASES {
        // The native run is made once and compared with on every model.
        let truth: Arc<OnceLock<Result<Outcome, String>>> = Arc::default();
        for model in &models {
            let wanted = match scope.as_str() {
                "full" => true,
                "short" => case.quick && model == main_model,
                _ => case.quick || model == main_model,
            };
            if !wanted {
                continue;
            }
            let (setup, model, truth) = (setup.clone(), model.clone(), truth.clone());
            trials.push(Trial::test(format!("{model}::{}", case.name), move || {
                let truth = truth.get_or_init(|| run(&setup, case, None)).clone()?;
                let got = run(&setup, case, Some(&model))?;
                compare(&truth, &got)
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// Checks that everything needed is there, and makes what is derived from it.
fn prepare(setup: &Setup) -> Result<(), String> {
    for (path, target) in [
        (setup.top.join("target/roots/amd64"), "roots"),
        (setup.top.join("target/data/text.bz2"), "data"),
        (setup.xrun.clone(), "build"),
    ] {
        if !path.exists() {
            return Err(format!("{} is not there: make {target}", path.display()));
        }
    }
    let built = setup.work.join("built");
    fs::create_dir_all(&built).map_err(|e| format!("{}: {e}", built.display()))?;
    let source = fixtures(setup).join("hello.c");
    for (arch, triplet) in [("amd64", "x86_64-linux-gnu"), ("arm64", "aarch64-linux-gnu")] {
        let dir = built.join(arch);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for (name, flags) in [
            ("hello-static", &["-static", "-no-pie"][..]),
            ("hello-static-pie", &["-static-pie"]),
            ("hello-dynamic", &[]),
        ] {
            let status = Command::new(format!("{triplet}-gcc"))
                .args(["-O2", "-o"])
                .arg(dir.join(name))
                .args(flags)
                .arg(&source)
                .status()
                .map_err(|e| format!("{triplet}-gcc: {e}"))?;
            if !status.success() {
                return Err(format!("{} does not compile for {arch}", source.display()));
            }
        }
    }
    Ok(())
}

fn fixtures(setup: &Setup) -> PathBuf {
    setup.top.join("fixtures/programs")
}

/// Runs a case natively (`model` is none) or under xrun on a CPU model.
fn run(setup: &Setup, case: &Case, model: Option<&str>) -> Result<Outcome, String> {
    let native_arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let arch = if model.is_some() { "amd64" } else { native_arch };
    let root = setup.top.join("target/roots").join(arch);
    let dir = setup.work.join(format!("{}.{}", case.name, model.unwrap_or("native")));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("tmp")).map_err(|e| format!("{}: {e}", dir.display()))?;

    let mut argv: Vec<OsString> = ["/usr/bin/timeout", "-k", "5", "600"].map(OsString::from).to_vec();
    if let Some(model) = model {
        if !cfg!(target_arch = "aarch64") {
            argv.extend(["/usr/bin/qemu-aarch64-static", "-cpu", model].map(OsString::from));
        }
        argv.push((&setup.xrun).into());
        argv.push("-L".into());
        argv.push((&root).into());
    }
    for arg in case.argv {
        let filled = arg
            .replace("{R}", &root.to_string_lossy())
            .replace("{F}", &fixtures(setup).to_string_lossy())
            .replace("{D}", &setup.top.join("target/data").to_string_lossy())
            .replace("{B}", &setup.work.join("built").join(arch).to_string_lossy());
        argv.push(filled.into());
    }
    let triplet = if arch == "arm64" { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };
    let libraries = root.join("usr/lib").join(triplet);
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .current_dir(&dir)
        .env_clear()
        .env("PATH", root.join("usr/bin"))
        .env("HOME", &dir)
        .env("TMPDIR", dir.join("tmp"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("XRUN_CACHE", setup.top.join("target/tests/kept"))
        .env("BB", root.join("usr/bin/busybox"))
        .env("TEXT", setup.top.join("target/data/text"))
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONHASHSEED", "0")
        .env("PERL5LIB", perl_library(&root, &libraries))
        .stdin(Stdio::null());
    match model {
        // qemu-x86_64 would take it for the model it shows its guest.
        Some(_) if peer(setup) => &mut command,
        // For AArch64 programs that the kernel starts through binfmt_misc: xrun starting itself.
        Some(model) => command.env("QEMU_CPU", model),
        // xrun finds the root's libraries by -L; a native loader needs to be told.
        None => command.env("LD_LIBRARY_PATH", libraries),
    };
    let start = Instant::now();
    let done = command.output().map_err(|e| format!("{:?}: {e}", argv[0]))?;
    Ok(Outcome {
        stdout: done.stdout,
        stderr: done.stderr,
        status: done.status,
        seconds: start.elapsed().as_secs_f32(),
    })
}

/// Whether `$XRUN` names qemu-x86_64, which takes the same arguments: a way to check this runner.
fn peer(setup: &Setup) -> bool {
    setup.xrun.file_name().is_some_and(|name| name == "qemu-x86_64")
}

/// Perl's library path has the version in it.
fn perl_library(root: &Path, libraries: &Path) -> OsString {
    let version = fs::read_dir(root.join("usr/share/perl"))
        .ok()
        .and_then(|dir| dir.flatten().map(|e| e.file_name()).find(|n| n.to_string_lossy().matches('.').count() == 1))
        .unwrap_or_default();
    let parts = [
        libraries.join("perl-base"),
        root.join("usr/share/perl").join(&version),
        libraries.join("perl").join(&version),
    ];
    std::env::join_paths(parts).unwrap_or_default()
}

/// Whole output and exit code; a difference is shown where it begins.
fn compare(truth: &Outcome, got: &Outcome) -> Result<(), Failed> {
    let mut complaint = String::new();
    if truth.stdout != got.stdout {
        let (want, have) = (lines(&truth.stdout), lines(&got.stdout));
        let at = want.iter().zip(&have).take_while(|(a, b)| a == b).count();
        let show = |l: &[&[u8]]| {
            l.get(at)
                .map_or("(end of output)".to_string(), |l| String::from_utf8_lossy(&l[..l.len().min(200)]).into_owned())
        };
        complaint += &format!(
            "output differs from line {} on ({} bytes native, {} bytes under xrun)\n  native: {}\n  xrun:   {}\n",
            at + 1,
            truth.stdout.len(),
            got.stdout.len(),
            show(&want),
            show(&have),
        );
    }
    if truth.status != got.status {
        complaint += &format!("native: {}; under xrun: {}\n", truth.status, got.status);
    }
    if complaint.is_empty() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&got.stderr);
    let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
    for line in tail.iter().rev() {
        complaint += &format!("  stderr: {line}\n");
    }
    complaint += &format!("  after {:.1} s (native {:.1} s)", got.seconds, truth.seconds);
    Err(complaint.into())
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|&b| b == b'\n').collect()
}
