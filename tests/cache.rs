//! Translations that outlive the process: that the next one takes them, and that nothing wrong is ever taken. Each test has a directory of
//! its own. xrun is named by XRUN, the emulator by QEMU where the machine needs one; without XRUN there is nothing to test.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory, a cache in it, and a program.
struct Case {
    dir: PathBuf,
    program: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    stdout: String,
    /// As `xrun cache warm` says: regions from the cache, and translated.
    taken: u64,
    translated: u64,
}

fn xrun() -> Option<(Vec<String>, String)> {
    let xrun = std::env::var("XRUN").ok()?;
    let qemu = match std::env::var("QEMU") {
        Ok(q) => q,
        Err(_) if cfg!(target_arch = "aarch64") => String::new(),
        Err(_) => "qemu-aarch64-static -cpu max".into(),
    };
    Some((qemu.split_whitespace().map(String::from).collect(), xrun))
}

fn compile(source: &str, out: &Path, flags: &[&str]) {
    let cc = if cfg!(target_arch = "x86_64") { "gcc" } else { "x86_64-linux-gnu-gcc" };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cache").join(source);
    let built = Command::new(cc)
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"])
        .args(flags)
        .arg("-o")
        .args([out, &source])
        .output()
        .unwrap_or_else(|e| panic!("{cc}: {e}"));
    assert!(built.status.success(), "{cc}: {}", String::from_utf8_lossy(&built.stderr));
}

impl Case {
    fn new(name: &str, source: &str) -> Option<Case> {
        if xrun().is_none() {
            eprintln!("XRUN names no xrun: {name} was not run");
            return None;
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let program = dir.join("program");
        compile(source, &program, &[]);
        Some(Case { dir, program })
    }

    fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// `xrun` with these arguments and this case's cache.
    fn command(&self, args: &[&str]) -> Command {
        let (emulator, xrun) = xrun().expect("checked in new");
        let mut words = emulator.iter();
        let mut c = match words.next() {
            Some(first) => Command::new(first),
            None => Command::new(&xrun),
        };
        if !emulator.is_empty() {
            c.args(words).arg(&xrun);
        }
        c.args(args).env("XRUN_CACHE", self.cache()).stdin(Stdio::null());
        c
    }

    fn warm(&self, args: &[&str]) -> Ran {
        let mut c = self.command(&["cache", "warm"]);
        c.arg(&self.program).args(args);
        ran(c)
    }

    /// The one kept file.
    fn kept(&self) -> PathBuf {
        let mut all = self.all_kept();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn all_kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache()).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>());
        let mut all = entries.unwrap_or_default();
        all.retain(|p| p.extension().is_some_and(|e| e == "xr"));
        all
    }

    /// Runs once with what was made of the kept file: nothing of it is taken and the output is right. Afterwards a good one is in its place.
    fn refuses(&self, what: &str) {
        let r = self.warm(&[]);
        assert_eq!((r.stdout.as_str(), r.taken), (FIRST, 0), "{what}");
        let r = self.warm(&[]);
        assert!(r.stdout == FIRST && r.taken > 100, "after {what}: {r:?}");
    }
}

/// What `paths.c` prints without an argument, on an x86_64 machine.
const FIRST: &str = "way 0: 3282901269\n";

fn ran(mut c: Command) -> Ran {
    let out = c.output().unwrap_or_else(|e| panic!("{c:?}: {e}"));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{c:?}: {}\n{stderr}", out.status);
    let words: Vec<&str> = stderr.split_whitespace().collect();
    let [.., taken, "regions", "from", "the", "cache,", translated, "translated"] = words[..] else {
        panic!("{c:?} said {stderr}")
    };
    Ran {
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        taken: taken.parse().expect("a number"),
        translated: translated.parse().expect("a number"),
    }
}

#[test]
fn the_next_run_takes_what_one_made() {
    let Some(case) = Case::new("next", "paths.c") else { return };
    let first = case.warm(&[]);
    assert!(first.stdout == FIRST && first.taken == 0 && first.translated > 100, "{first:?}");
    // Loops are made of what was seen to go round, so it takes two runs.
    case.warm(&[]);
    let third = case.warm(&[]);
    assert!(third.stdout == FIRST && third.taken > 100 && third.translated < 10, "{third:?}");
    let status = case.command(&["cache", "status"]).output().expect("runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(": 1 file, ") && status.starts_with(case.cache().to_str().expect("UTF-8")), "{status}");
    let cleared = case.command(&["cache", "clear"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&cleared.stdout).contains("removed 1 file"));
    assert!(case.all_kept().is_empty());
}

#[test]
fn nothing_is_kept_where_it_is_not_wanted() {
    let Some(case) = Case::new("off", "paths.c") else { return };
    let flag = case.command(&["--no-cache"]);
    let mut variable = case.command(&[]);
    variable.env("XRUN_CACHE", "off");
    // A home that is not there, a directory that cannot be made, a file in its place.
    let mut home = case.command(&[]);
    home.env_remove("XRUN_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", "/nonexistent/home");
    let mut proc = case.command(&[]);
    proc.env_remove("XRUN_CACHE").env("XDG_CACHE_HOME", "/proc/self");
    let file = case.dir.join("file");
    fs::write(&file, b"").expect("written");
    let mut taken = case.command(&[]);
    taken.env("XRUN_CACHE", &file);
    for mut c in [flag, variable, home, proc, taken] {
        let out = c.arg(&case.program).output().expect("runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), FIRST, "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stderr.is_empty(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    assert!(!case.cache().exists());
}

#[test]
fn a_damaged_file_is_never_run() {
    let Some(case) = Case::new("damaged", "paths.c") else { return };
    case.warm(&[]);
    let good = fs::read(case.kept()).expect("readable");
    for len in [0, 1, 15, 64, 4096, good.len() / 2, good.len() - 1] {
        fs::write(case.kept(), &good[..len]).expect("written");
        case.refuses(&format!("a file cut to {len} bytes"));
    }
    for at in [0, 8, 20, 40, 90, 200, good.len() / 4, good.len() / 2, good.len() * 3 / 4, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(case.kept(), &bad).expect("written");
        case.refuses(&format!("byte {at} changed"));
    }
    let mut long = good.clone();
    long.push(0);
    fs::write(case.kept(), &long).expect("written");
    case.refuses("a file with one byte more");
}

#[test]
fn only_the_users_own_files_are_run() {
    let Some(case) = Case::new("own", "paths.c") else { return };
    case.warm(&[]);
    let mode = |p: &Path, mode| fs::set_permissions(p, fs::Permissions::from_mode(mode)).expect("ours");
    mode(&case.kept(), 0o622);
    case.refuses("a file that others can write");

    let kept = case.kept();
    let aside = case.dir.join("aside");
    fs::rename(&kept, &aside).expect("moved");
    symlink(&aside, &kept).expect("linked");
    case.refuses("a symbolic link");
    assert!(!case.kept().symlink_metadata().expect("there").is_symlink());

    // Whether a file can be given away depends on who runs the test.
    if std::os::unix::fs::chown(case.kept(), Some(65534), Some(65534)).is_ok() {
        assert_eq!(fs::metadata(case.kept()).expect("there").uid(), 65534);
        case.refuses("another user's file");
    }

    mode(&case.cache(), 0o777);
    let r = case.warm(&[]);
    assert_eq!((r.stdout.as_str(), r.taken), (FIRST, 0), "a directory that others can write");
}

#[test]
fn a_changed_program_is_translated_anew() {
    let Some(case) = Case::new("changed", "paths.c") else { return };
    // As if they were the same file to all appearance.
    let id = "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567";
    let (one, two) = (case.dir.join("one"), case.dir.join("two"));
    compile("number.c", &one, &["-DNUMBER=1111", id]);
    compile("number.c", &two, &["-DNUMBER=2222", id]);
    assert_eq!(fs::metadata(&one).expect("there").len(), fs::metadata(&two).expect("there").len());
    for (program, taken) in [(&one, false), (&one, true), (&two, false), (&two, true), (&one, false)] {
        fs::copy(program, &case.program).expect("copied");
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(&case.program).and_then(|f| f.set_modified(then)).expect("set");
        let r = case.warm(&[]);
        assert_eq!(r.stdout, if program == &one { "1111\n" } else { "2222\n" });
        assert_eq!(r.taken > 0, taken, "{r:?}");
        case.kept();
    }
}

#[test]
fn what_a_program_writes_over_is_not_kept() {
    let Some(case) = Case::new("patched", "patch.c") else { return };
    for n in 0..3 {
        let r = case.warm(&[]);
        assert_eq!(r.stdout, "1\n2\n2\n", "run {n}");
    }
}

#[test]
fn a_second_thread_has_code_of_its_own_order() {
    let Some(case) = Case::new("threads", "threads.c") else { return };
    for n in 0..3 {
        let r = case.warm(&[]);
        assert_eq!(r.stdout, "4000\n", "run {n}");
        assert_eq!(r.taken > 0, n > 0, "run {n}: {r:?}");
    }
    assert_eq!(case.all_kept().len(), 2);
}

#[test]
fn another_cpu_has_files_of_its_own() {
    let Some(case) = Case::new("cpu", "paths.c") else { return };
    let (emulator, _) = xrun().expect("checked");
    let Some(model) = emulator.iter().position(|w| w == "-cpu") else { return };
    let other = if emulator[model + 1] == "cortex-a72" { "max" } else { "cortex-a72" };
    case.warm(&[]);
    let mut c = Command::new(&emulator[0]);
    c.args(["-cpu", other, &xrun().expect("checked").1, "cache", "warm"]).arg(&case.program);
    let r = ran({
        c.env("XRUN_CACHE", case.cache());
        c
    });
    assert_eq!((r.stdout.as_str(), r.taken), (FIRST, 0));
    assert_eq!(case.all_kept().len(), 2);
}

#[test]
fn writers_at_once_lose_nothing() {
    let Some(case) = Case::new("writers", "paths.c") else { return };
    let ways: Vec<_> = (0..4)
        .map(|way| {
            let mut c = case.command(&["cache", "warm"]);
            c.arg(&case.program).arg(way.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
            c.spawn().expect("started")
        })
        .collect();
    for mut way in ways {
        assert!(way.wait().expect("ended").success());
    }
    for way in ["0", "1", "2", "3"] {
        // What is left are loops, at most.
        let r = case.warm(&[way]);
        assert!(r.taken > 100 && r.translated < 40, "way {way}: {r:?}");
    }
    let unfinished = fs::read_dir(case.cache()).expect("there").flatten();
    assert_eq!(unfinished.filter(|e| e.path().extension().is_some_and(|x| x == "new")).count(), 0);
}

#[test]
fn a_limit_on_file_sizes_is_not_felt() {
    // 50 KiB: less than an image, more than an emulator writes of its own.
    let Some(case) = Case::new("limit", "paths.c") else { return };
    let inner = case.command(&["cache", "warm"]);
    let mut c = Command::new("/bin/sh");
    c.args(["-c", "ulimit -f 100; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    c.arg(&case.program).env("XRUN_CACHE", case.cache());
    assert_eq!(ran(c).stdout, FIRST);
    assert!(case.all_kept().is_empty());
}
