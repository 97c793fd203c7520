//! System calls: the programs of `fixtures/syscalls` print what every call gave; the same must come out natively and under xrun.
//!
//! `NAME.out` beside each source is the output of a real x86_64 kernel. On an x86_64 machine the program is first run natively and must
//! give that again (BLESS=1 records it), but for what [`AMD`] names; then it is run under xrun, named by XRUN, through the emulator command in QEMU
//! where the machine needs one. An x86_64 compiler is needed: gcc, or x86_64-linux-gnu-gcc elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lines that the programs print otherwise where the CPU is AMD's: the record's beginning, and what may come instead. xrun is the Intel CPU its CPUID names.
const AMD: &[(&str, &str)] = &[
    // The CPU traps after INT1, but a hypervisor that intercepts #DB is given the address of INT1 itself for this one (AMD APM vol. 2, 15.12.2), and most
    // hand on what they are given.
    ("icebp: ", "icebp: signal 5 code 1 rip +1 addr +1 trapno 1 err 0"),
    // REX.W does not make the offset 64 bits wide (AMD APM vol. 3, JMP (Far) and CALL (Far); SDM vol. 2, JMP: m16:64): the selector is read from its middle.
    ("far jump: ", "far jump: signal 11 code 128 rip +19 addr 0 trapno 13 err 0x34"),
    ("far call: ", "far call: signal 11 code 128 rip +19 addr 0 trapno 13 err 0x34"),
];

/// Whether the CPU under this process is AMD's.
fn on_amd() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cfg!(target_arch = "x86_64") && info.contains("AuthenticAMD")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/syscalls")
}

/// Builds the program; statically, so that it needs no amd64 libraries to run.
fn build(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("syscalls");
    std::fs::create_dir_all(&dir).expect("a directory to build in");
    let out = dir.join(name);
    let cc = if cfg!(target_arch = "x86_64") { "gcc" } else { "x86_64-linux-gnu-gcc" };
    let source = fixtures().join(format!("{name}.c"));
    let built = Command::new(cc)
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o"])
        .args([&out, &source])
        .output()
        .unwrap_or_else(|e| panic!("{cc}: {e}"));
    assert!(built.status.success(), "{cc}: {}", String::from_utf8_lossy(&built.stderr));
    out
}

fn run(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    format!("{}{}{status}\n", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
}

/// The program under xrun; `None` when no xrun is named.
fn under_xrun(program: &Path) -> Option<Command> {
    let xrun = std::env::var_os("XRUN")?;
    let qemu = emulator();
    let mut words = qemu.split_whitespace();
    let mut command = match words.next() {
        None => Command::new(xrun),
        Some(emulator) => {
            let mut c = Command::new(emulator);
            c.args(words).arg(xrun).args(["--emulator", &qemu]);
            c
        }
    };
    command.arg(program);
    Some(command)
}

fn emulator() -> String {
    match std::env::var("QEMU") {
        Ok(q) => q,
        Err(_) if cfg!(target_arch = "aarch64") => String::new(),
        Err(_) => "qemu-aarch64-static -cpu max".into(),
    }
}

fn check(name: &str) {
    let program = native(name);
    match under_xrun(&program) {
        Some(command) => same("xrun", &run(command), &record(name), &[]),
        None => eprintln!("XRUN names no xrun: {name} was run natively only"),
    }
}

fn check_unless_emulated(name: &str) {
    if emulator().is_empty() {
        check(name);
    } else {
        native(name);
    }
}

fn record(name: &str) -> PathBuf {
    fixtures().join(format!("{name}.out"))
}

/// Builds the program and, where that can be done, runs it natively.
fn native(name: &str) -> PathBuf {
    let program = build(name);
    let record = record(name);
    if cfg!(target_arch = "x86_64") {
        let native = run(Command::new(&program));
        if std::env::var_os("BLESS").is_some() {
            assert!(!on_amd() || name != "traps", "{name}.out is recorded on an Intel CPU");
            std::fs::write(&record, &native).expect("recorded");
        }
        same("native", &native, &record, if on_amd() { AMD } else { &[] });
    }
    program
}

/// Compares whole outputs; shows the lines that differ. `or`: lines that may stand for recorded ones, as in [`AMD`].
fn same(who: &str, got: &str, record: &Path, or: &[(&str, &str)]) {
    let want = std::fs::read_to_string(record).expect("a recorded output");
    if got == want {
        return;
    }
    let (mut g, mut w) = (got.lines(), want.lines());
    let mut report = String::new();
    for n in 1.. {
        match (g.next(), w.next()) {
            (None, None) => break,
            (Some(a), Some(b)) if or.iter().any(|&(want, line)| b.starts_with(want) && a == line) => {}
            (a, b) if a != b => {
                report += &format!("line {n}\n  want {}\n  got  {}\n", b.unwrap_or("(end)"), a.unwrap_or("(end)"));
            }
            _ => {}
        }
    }
    assert!(report.is_empty(), "{who} differs from {}:\n{report}", record.display());
}

macro_rules! programs {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )* };
}
programs! { calls denormals errors files float_loops interrupts ipc jit load memory poll proc process races signals start threads traps vectors }

/// What emulators get wrong counts only where there is none.
#[test]
fn kernel() {
    check_unless_emulated("kernel");
}

/// qemu-aarch64 cuts control messages in another way than a kernel does.
#[test]
fn control() {
    check_unless_emulated("control");
}

/// qemu-aarch64 reads a handler's address after it looked whether there is one.
#[test]
fn handlers() {
    check_unless_emulated("handlers");
}

/// Emulators have answers of their own to wild pointers; but all of them must come.
#[test]
fn pointers() {
    check_unless_emulated("pointers");
    let program = build("pointers");
    if let Some(command) = under_xrun(&program) {
        let questions =
            |answers: &str| answers.lines().map(|l| l.split(':').next().map(String::from)).collect::<Vec<_>>();
        let recorded = std::fs::read_to_string(record("pointers")).expect("a recorded output");
        assert_eq!(questions(&run(command)), questions(&recorded));
    }
}
