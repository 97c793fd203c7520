//! Builds the programs of a row, runs one side of it, and counts what it executed.
//!
//! Knows the three sides (native, qemu-x86_64, xrun), the emulator an x86_64 host needs around all
//! of them, and the counters. Knows nothing of ratios or tables.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::rows::{Program, Row};

/// How executed instructions are counted.
#[derive(Clone)]
pub enum Counter {
    /// The `insn` plugin of a qemu-aarch64 built with plugins.
    Plugin { qemu: PathBuf, plugin: PathBuf },
    /// The log of any qemu-aarch64, a line for each instruction: slow, but there where Debian is. For programs of one thread.
    Log,
    /// The processor's own counter, on an AArch64 host.
    Perf,
    /// None: only outputs are compared, and wall time is shown.
    Absent,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    Native,
    Qemu,
    Xrun,
}

#[derive(Clone)]
pub struct Bench {
    pub top: PathBuf,
    pub work: PathBuf,
    pub xrun: PathBuf,
    pub cpu: String,
    pub counter: Counter,
    pub timeout: u32,
    pub fresh: bool,
    /// Measure xrun with the translations that runs of the same command kept, instead of keeping none.
    pub warm: bool,
}

/// One run: its standard output, and its price in instructions (or nanoseconds without a counter).
#[derive(Clone)]
pub struct Run {
    pub output: Vec<u8>,
    pub cost: u64,
}

impl Bench {
    fn on_aarch64() -> bool {
        cfg!(target_arch = "aarch64")
    }

    fn root(&self, arch: &str) -> PathBuf {
        self.top.join("target/roots").join(arch)
    }

    /// Compiles `benches/programs/NAME` for both architectures unless that was done since it changed.
    pub fn build(&self, row: &Row) -> Result<(), String> {
        if !matches!(row.program, Program::Source) {
            return Ok(());
        }
        let (source, compiler) = [("c", "gcc"), ("cc", "g++")]
            .iter()
            .map(|(ext, compiler)| {
                let file = format!("benches/programs/{}.{ext}", row.name);
                (self.top.join(file), *compiler)
            })
            .find(|(path, _)| path.exists())
            .ok_or_else(|| format!("no source for {}", row.name))?;
        for (arch, triplet) in [("amd64", "x86_64-linux-gnu"), ("arm64", "aarch64-linux-gnu")] {
            let binary = self.binary(row.name, arch);
            let newest = newest(&[&source, &self.top.join("benches/programs/bench.h")]);
            if modified(&binary) >= newest {
                continue;
            }
            let mut command = Command::new(format!("{triplet}-{compiler}"));
            // Contraction would give one side fused multiply-adds and other results.
            command.args(["-O2", "-static", "-ffp-contract=off", "-Wall"]);
            if row.name == "x87" && arch == "arm64" {
                command.arg("-DREAL=double");
            }
            command.arg("-o").arg(&binary).arg(&source).args(["-lm", "-lpthread"]);
            let done = command.output().map_err(|e| format!("{triplet}-{compiler}: {e}"))?;
            if !done.status.success() {
                return Err(format!("does not compile: {}", first_line(&done.stderr)));
            }
        }
        Ok(())
    }

    fn binary(&self, name: &str, arch: &str) -> PathBuf {
        self.work.join(format!("{name}.{arch}"))
    }

    /// Runs one side of `row` at `size`. Native and qemu-x86_64 runs are remembered between
    /// invocations, since nothing here changes them.
    pub fn run(&self, row: &Row, side: Side, size: u64) -> Result<Run, String> {
        let (argv, env) = self.command(row, side, size)?;
        let key = self.key(&argv, side);
        if side != Side::Xrun
            && !self.fresh
            && let Some(run) = self.recall(&key)
        {
            return Ok(run);
        }
        let count_file = self.work.join(format!("{}.{side:?}.{size}.count", row.name));
        let _ = fs::remove_file(&count_file);
        let mut full: Vec<OsString> =
            ["timeout", "-k", "5", &self.timeout.to_string()].iter().map(OsString::from).collect();
        match &self.counter {
            Counter::Plugin { qemu, plugin } => {
                full.push(qemu.into());
                full.extend(["-cpu", &self.cpu, "-plugin"].map(OsString::from));
                full.push(format!("{},inline=true", plugin.display()).into());
                full.extend(["-d", "plugin", "-D"].map(OsString::from));
                full.push((&count_file).into());
            }
            Counter::Log => {
                full.extend(["qemu-aarch64-static", "-cpu", &self.cpu, "-one-insn-per-tb"].map(OsString::from));
                full.extend(["-d", "nochain,exec", "-D", "/proc/self/fd/2"].map(OsString::from));
            }
            Counter::Perf => {
                full.extend(["perf", "stat", "-x,", "-e", "instructions:u", "-o"].map(OsString::from));
                full.push((&count_file).into());
            }
            Counter::Absent if !Self::on_aarch64() => {
                full.extend(["qemu-aarch64-static", "-cpu", &self.cpu].map(OsString::from));
            }
            Counter::Absent => {}
        }
        full.extend(argv);
        let mut command = Command::new(&full[0]);
        command.args(&full[1..]).env_clear().envs(env).stdin(Stdio::null());
        // Loops are kept from the second run on.
        for _ in 0..if self.warm && side == Side::Xrun { 3 } else { 0 } {
            command.output().map_err(|e| format!("{:?}: {e}", full[0]))?;
        }
        let start = Instant::now();
        let (done, logged) = match self.counter {
            Counter::Log => counted(&mut command),
            _ => command.output().map(|done| (done, 0)),
        }
        .map_err(|e| format!("{:?}: {e}", full[0]))?;
        let nanos = start.elapsed().as_nanos() as u64;
        match done.status.code() {
            Some(0) => {}
            Some(124) => return Err(format!("no end within {} s", self.timeout)),
            Some(code) => return Err(format!("exit {code}: {}", first_line(&done.stderr))),
            None => return Err(format!("{}: {}", done.status, first_line(&done.stderr))),
        }
        let cost = match self.counter {
            Counter::Plugin { .. } => plugin_count(&count_file)?,
            Counter::Log => logged,
            Counter::Perf => perf_count(&count_file)?,
            Counter::Absent => nanos,
        };
        let _ = fs::remove_file(&count_file);
        let run = Run { output: done.stdout, cost };
        if side != Side::Xrun {
            self.remember(&key, &run);
        }
        Ok(run)
    }

    /// Largest resident memory of one run of a start-up row, in KiB. Under an emulator its own is in it, which is why only the
    /// difference between two sides means something.
    pub fn peak(&self, row: &Row, side: Side) -> Result<u64, String> {
        let (argv, env) = self.command(row, side, 0)?;
        let mut full: Vec<OsString> = vec![];
        if !Self::on_aarch64() {
            full.extend(["qemu-aarch64-static", "-cpu", &self.cpu].map(OsString::from));
        }
        full.extend(argv);
        let child = Command::new(&full[0])
            .args(&full[1..])
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{:?}: {e}", full[0]))?;
        let mut status = 0;
        // SAFETY: all zeroes is a valid rusage, which holds integers only.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to live locals of the right types; the child is ours and nobody else waits for it.
        let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
        if waited != child.id() as libc::pid_t || status != 0 {
            return Err(format!("wait status {status}"));
        }
        Ok(usage.ru_maxrss as u64)
    }

    /// Command line and environment of one side, without emulator and counter.
    pub fn command(
        &self,
        row: &Row,
        side: Side,
        size: u64,
    ) -> Result<(Vec<OsString>, Vec<(String, OsString)>), String> {
        let arch = if side == Side::Native { "arm64" } else { "amd64" };
        let root = self.root(arch);
        let mut argv: Vec<OsString> = match side {
            Side::Native => vec![],
            Side::Qemu => vec![self.top.join("target/roots/peers/qemu-x86_64").into()],
            Side::Xrun => vec![(&self.xrun).into()],
        };
        match row.program {
            Program::Source => {
                argv.push(self.binary(row.name, arch).into());
                if size > 0 {
                    argv.push(size.to_string().into());
                }
            }
            Program::Tool(path, args) => {
                if side == Side::Native {
                    argv.push(root.join("lib/ld-linux-aarch64.so.1").into());
                    argv.push("--library-path".into());
                    argv.push(root.join("usr/lib/aarch64-linux-gnu").into());
                } else {
                    argv.push("-L".into());
                    argv.push((&root).into());
                }
                argv.push(root.join(path).into());
                for arg in args {
                    argv.push(self.argument(arg, size)?);
                }
            }
        }
        let mut env = vec![
            ("PATH".to_string(), OsString::from("/usr/bin:/bin")),
            ("LC_ALL".to_string(), "C".into()),
            ("PYTHONHASHSEED".to_string(), "0".into()),
            ("PYTHONHOME".to_string(), root.join("usr").into()),
            // A stranger's configuration must not change counts.
            ("HOME".to_string(), "/nonexistent".into()),
        ];
        let cache = if self.warm { self.work.join(format!("cache-{}", row.name)).into() } else { "off".into() };
        env.push(("XRUN_CACHE".to_string(), cache));
        if side != Side::Qemu {
            // For programs the guest starts; qemu-x86_64 would take it for the model it shows the guest.
            env.push(("QEMU_CPU".to_string(), (&self.cpu).into()));
        }
        Ok((argv, env))
    }

    fn argument(&self, arg: &str, size: u64) -> Result<OsString, String> {
        if let Some(ext) = arg.strip_prefix("{F").and_then(|rest| rest.strip_suffix('}')) {
            return Ok(self.slice(size, ext)?.into());
        }
        Ok(arg.replace("{N}", &size.to_string()).into())
    }

    /// The first `size` bytes of the text, packed as the file extension says.
    fn slice(&self, size: u64, ext: &str) -> Result<PathBuf, String> {
        let text = self.top.join("target/data/text");
        let plain = self.work.join(format!("text-{size}"));
        let file = self.work.join(format!("text-{size}{ext}"));
        if file.exists() && modified(&file) >= modified(&text) {
            return Ok(file);
        }
        let all = fs::read(&text).map_err(|e| format!("{}: {e}", text.display()))?;
        let part = all.get(..size as usize).ok_or("the text is shorter than that")?;
        write_whole(&plain, part)?;
        let (tool, args): (_, &[&str]) = match ext {
            "" => return Ok(plain),
            ".gz" => ("gzip", &["-nc"]),
            ".bz2" => ("bzip2", &["-c"]),
            ".xz" => ("xz", &["-c"]),
            _ => return Err(format!("no packer for {ext}")),
        };
        let (root, loader, libraries) = if Self::on_aarch64() {
            (self.root("arm64"), "lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu")
        } else {
            (self.root("amd64"), "lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu")
        };
        let done = Command::new(root.join(loader))
            .arg("--library-path")
            .arg(root.join(libraries))
            .arg(root.join("usr/bin").join(tool))
            .args(args)
            .arg(&plain)
            .output()
            .map_err(|e| format!("{tool}: {e}"))?;
        if !done.status.success() {
            return Err(format!("{tool}: {}", first_line(&done.stderr)));
        }
        write_whole(&file, &done.stdout)?;
        Ok(file)
    }

    fn key(&self, argv: &[OsString], side: Side) -> String {
        let mut hash = DefaultHasher::new();
        for arg in argv {
            arg.hash(&mut hash);
            let path = Path::new(arg);
            if path.is_file() {
                modified(path).hash(&mut hash);
            }
        }
        match &self.counter {
            Counter::Plugin { qemu, .. } => modified(qemu).hash(&mut hash),
            Counter::Perf => 1u8.hash(&mut hash),
            Counter::Absent => 2u8.hash(&mut hash),
            Counter::Log => 3u8.hash(&mut hash),
        }
        format!("{side:?}-{}-{:016x}", self.cpu, hash.finish())
    }

    fn recall(&self, key: &str) -> Option<Run> {
        let bytes = fs::read(self.work.join("known").join(key)).ok()?;
        let (cost, output) = bytes.split_first_chunk::<8>()?;
        Some(Run { output: output.to_vec(), cost: u64::from_le_bytes(*cost) })
    }

    fn remember(&self, key: &str, run: &Run) {
        let dir = self.work.join("known");
        let mut bytes = run.cost.to_le_bytes().to_vec();
        bytes.extend_from_slice(&run.output);
        // A result that cannot be kept is measured again next time.
        let _ = fs::create_dir_all(&dir);
        let _ = write_whole(&dir.join(key), &bytes);
    }
}

/// Runs `command` to its end and counts what qemu logs on its standard error; what else is said there stays in the output.
fn counted(command: &mut Command) -> std::io::Result<(Output, u64)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut log = BufReader::with_capacity(1 << 20, child.stderr.take().expect("a pipe"));
    let reader = std::thread::spawn(move || -> std::io::Result<(Vec<u8>, u64)> {
        let (mut said, mut line, mut count) = (vec![], vec![], 0);
        while log.read_until(b'\n', &mut line)? != 0 {
            if line.starts_with(b"Trace ") {
                count += 1;
            } else {
                said.extend_from_slice(&line);
            }
            line.clear();
        }
        Ok((said, count))
    });
    let mut done = child.wait_with_output()?;
    let (said, count) = reader.join().expect("it does not panic")?;
    done.stderr = said;
    Ok((done, count))
}

/// `total insns: N` of the plugin's log; threads are in the sum.
fn plugin_count(file: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("no instruction count: {e}"))?;
    text.lines()
        .filter_map(|line| line.strip_prefix("total insns: ")?.trim().parse().ok())
        .next_back()
        .ok_or_else(|| "no instruction count in the plugin's log".to_string())
}

/// `N,,instructions:u,...` of perf's machine-readable output.
fn perf_count(file: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("no instruction count: {e}"))?;
    text.lines()
        .find(|line| line.contains("instructions"))
        .and_then(|line| line.split(',').next()?.parse().ok())
        .ok_or_else(|| "perf counts no instructions here".to_string())
}

/// Written beside its place and moved there, since rows run in parallel.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let id = std::thread::current().id();
    let new = path.with_extension(format!("{id:?}.new").replace(['(', ')'], ""));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, path)).map_err(|e| format!("{}: {e}", path.display()))
}

fn modified(path: &Path) -> u128 {
    fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos())
}

fn newest(paths: &[&Path]) -> u128 {
    paths.iter().map(|p| modified(p)).max().unwrap_or(0)
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("(nothing on standard error)")
        .chars()
        .take(100)
        .collect()
}
