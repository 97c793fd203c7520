//! Invents cases, runs each on the CPU under this process and through the translator on AArch64 (a server process, mostly
//! under an emulator), and compares. A case that differs is shrunk and printed with all there is to know about it.

use crate::truth::blocks::{self, Program};
use crate::truth::feature;
use crate::truth::forms;
use crate::truth::mask;
use crate::truth::native::Native;
use crate::truth::state::{Case, Outcome, State, Wire};
use crate::truth::text::{self, Recorded};
use crate::truth::{CODE, CODE_SIZE, START, state};
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Mnemonic};
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Options {
    server: String,
    emulator: String,
    cpus: Vec<String>,
    time: Duration,
    cases: Option<u64>,
    seed: u64,
    case: Option<u64>,
    mode: Option<u8>,
    single: bool,
    blocks: bool,
    only: Vec<String>,
    failures: usize,
    save: Option<String>,
}

fn options(args: &[String]) -> Result<Options, String> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut o = Options {
        server: String::new(),
        emulator: "qemu-aarch64-static".into(),
        cpus: ["cortex-a72", "neoverse-n1", "neoverse-v1", "max"].map(String::from).to_vec(),
        time: Duration::from_secs(20),
        cases: None,
        seed: clock,
        case: None,
        mode: None,
        single: true,
        blocks: true,
        only: Vec::new(),
        failures: 10,
        save: None,
    };
    let mut args = args.iter();
    while let Some(a) = args.next() {
        let mut value = || args.next().cloned().ok_or(format!("fuzz: {a} needs a value"));
        let number = |v: String| v.parse::<u64>().map_err(|_| format!("fuzz: '{v}' is no number"));
        match a.as_str() {
            "--server" => o.server = value()?,
            "--emulator" => o.emulator = value()?,
            "--cpus" => o.cpus = value()?.split(',').map(String::from).collect(),
            "--time" => o.time = Duration::from_secs(number(value()?)?),
            "--cases" => o.cases = Some(number(value()?)?),
            "--seed" => o.seed = number(value()?)?,
            "--case" => o.case = Some(number(value()?)?),
            "--mode" => o.mode = Some(number(value()?)? as u8),
            "--single" => o.blocks = false,
            "--blocks" => o.single = false,
            "--only" => o.only = value()?.split(',').map(str::to_lowercase).collect(),
            "--failures" => o.failures = number(value()?)? as usize,
            "--save" => o.save = Some(value()?),
            _ => return Err(format!("fuzz: unknown option {a}")),
        }
    }
    if o.server.is_empty() {
        return Err("fuzz: --server is missing".into());
    }
    Ok(o)
}

/// A process that runs cases through the translator.
struct Server {
    command: Vec<String>,
    name: String,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    /// How the next cases are translated (see `translated::Mode`).
    mode: u8,
}

impl Server {
    fn start(name: &str, command: Vec<String>) -> Result<Self, String> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("RUST_BACKTRACE", "0")
            .spawn()
            .map_err(|e| format!("{}: {e}", command[0]))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes to the server".into());
        };
        Ok(Self { command, name: name.into(), child, to, from, mode: 0 })
    }

    fn restart(&mut self) -> Result<std::process::ExitStatus, String> {
        let _ = self.child.kill();
        let status = self.child.wait().map_err(|e| e.to_string())?;
        let mode = self.mode;
        *self = Self::start(&self.name.clone(), self.command.clone())?;
        self.mode = mode;
        Ok(status)
    }

    fn send(&mut self, kind: u8, case: &Case) -> std::io::Result<()> {
        let mut m = vec![kind | self.mode << 1];
        m.extend_from_slice(&(case.code.len() as u32).to_le_bytes());
        m.extend_from_slice(&case.code);
        Wire::put_state(&mut m, &case.state);
        self.to.write_all(&m)
    }

    fn receive(&mut self) -> std::io::Result<Outcome> {
        let mut m = vec![0; state::OUTCOME_BYTES];
        self.from.read_exact(&mut m)?;
        Wire::outcome(&mut m.as_slice()).ok_or_else(|| std::io::Error::other("short outcome"))
    }

    /// Runs all cases. A case the server dies of has an `Err` that says how.
    fn run(&mut self, cases: &[Case]) -> Result<Vec<Result<Outcome, String>>, String> {
        let all = cases
            .iter()
            .try_for_each(|c| self.send(0, c))
            .and_then(|()| self.to.flush())
            .and_then(|()| (0..cases.len()).map(|_| self.receive()).collect::<std::io::Result<Vec<_>>>());
        if let Ok(outcomes) = all {
            return Ok(outcomes.into_iter().map(Ok).collect());
        }
        // Some case ended the server: find it by running them one by one.
        self.restart()?;
        let mut results = Vec::new();
        for c in cases {
            match self.send(0, c).and_then(|()| self.to.flush()).and_then(|()| self.receive()) {
                Ok(o) => results.push(Ok(o)),
                Err(_) => {
                    let status = self.restart()?;
                    results.push(Err(format!("{DIED}: {status}")));
                }
            }
        }
        Ok(results)
    }

    /// The host code of a case, as text.
    fn listing(&mut self, case: &Case) -> Result<String, String> {
        let read = |s: &mut Self| -> std::io::Result<String> {
            s.send(1, case)?;
            s.to.flush()?;
            let mut n = [0; 4];
            s.from.read_exact(&mut n)?;
            let mut text = vec![0; u32::from_le_bytes(n) as usize];
            s.from.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        match read(self) {
            Ok(t) => Ok(t),
            Err(e) => {
                self.restart()?;
                Ok(format!("(no listing: {e})\n"))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a return address that a store changed led the CPU into the middle of an instruction, of which the program does not know that it reads a bit that
/// is undefined then, or where there is one that is not compared or has the code itself for an operand, or past the end, where the way back to this process is. Nothing can then be said of
/// what came of it.
fn strays(native: &mut Native, case: &Case) -> bool {
    let mut undefined = mask::Undefined::default();
    for rip in native.trace(case) {
        if rip > START + case.code.len() as u64 {
            return true;
        }
        let Some(bytes) = case.code.get((rip - START) as usize..).filter(|_| rip >= START) else { continue };
        let mut decoder = Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE);
        let i = decoder.decode();
        // One that the program's last bytes begin has its end past it.
        let compared = i.is_invalid() || forms::excluded(i.code()).is_none();
        let own_code = i.is_ip_rel_memory_operand()
            && i.mnemonic() != Mnemonic::Lea
            && (CODE..CODE + CODE_SIZE as u64).contains(&i.ip_rel_memory_address());
        if !compared
            || own_code
            || undefined.read_by(&i)
            || !bytes.is_empty() && decoder.last_error() == DecoderError::NoMoreBytes
        {
            return true;
        }
        undefined = undefined.after(&i, None);
    }
    false
}

/// Whether a result that AArch64 flushes before it is rounded, and x86 after, comes before the first other difference: what is made of it differs too.
fn follows_a_flush(native: &mut Native, server: &mut Server, program: &Program, s: &State) -> Result<bool, String> {
    for n in 1..=program.items.len() {
        let first = program.first(n);
        let Some(assembled) = first.assemble() else { continue };
        let case = Case { code: assembled.code.clone(), state: s.clone() };
        let expected = native.run(&case);
        let Some(undefined) = first.undefined_at(s, &assembled, &expected) else { continue };
        let Ok(got) = server.run(std::slice::from_ref(&case))?.remove(0) else { return Ok(false) };
        if mask::differ_by_flushing(&expected, &got) {
            return Ok(true);
        }
        if !mask::differences(&expected, &got, undefined).is_empty() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// What is wrong with a program started from a state; `None` when both sides agree, or the case says nothing.
fn disagreement(
    native: &mut Native,
    server: &mut Server,
    program: &Program,
    s: &State,
) -> Result<Option<Failure>, String> {
    let Some(assembled) = program.assemble() else { return Ok(None) };
    let case = Case { code: assembled.code.clone(), state: s.clone() };
    let expected = native.run(&case);
    let Some(undefined) = program.undefined_at(s, &assembled, &expected) else { return Ok(None) };
    if expected.fault.is_some_and(|f| f.signal == libc::SIGALRM) {
        return Ok(None);
    }
    let got = server.run(std::slice::from_ref(&case))?.remove(0);
    if matches!(&got, Ok(o) if o.fault.is_some_and(|f| f.signal == state::UNSUPPORTED)) {
        return Ok(None);
    }
    let differences = match &got {
        Ok(got) => mask::differences(&expected, got, undefined),
        Err(e) => vec![e.clone()],
    };
    let says_something =
        !differences.is_empty() && !strays(native, &case) && !follows_a_flush(native, server, program, s)?;
    Ok(says_something.then_some(Failure { case, expected, undefined, differences }))
}

const DIED: &str = "the translator's process died";

struct Failure {
    case: Case,
    expected: Outcome,
    undefined: mask::Undefined,
    differences: Vec<String>,
}

/// The part of a difference that says what differs, without the values.
fn subject(differences: &[String]) -> HashSet<String> {
    differences.iter().map(|d| d.split(':').next().unwrap_or("").to_string()).collect()
}

/// Drops instructions, then simplifies the state, as long as both sides still disagree about something they disagreed
/// about before.
fn shrink(
    native: &mut Native,
    server: &mut Server,
    mut program: Program,
    mut s: State,
    first: Failure,
) -> Result<(Program, State, Failure), String> {
    let mut best = first;
    let subjects = subject(&best.differences);
    let deadline = Instant::now() + Duration::from_secs(60);
    let related = |f: &Failure| !subject(&f.differences).is_disjoint(&subjects);
    loop {
        let before = program.items.len();
        for n in (0..program.items.len()).rev() {
            if Instant::now() > deadline {
                return Ok((program, s, best));
            }
            let smaller = program.without(n);
            if let Some(f) = disagreement(native, server, &smaller, &s)?
                && related(&f)
            {
                program = smaller;
                best = f;
            }
        }
        if program.items.len() == before {
            break;
        }
    }
    // Each try costs a process when the server dies of it: the state stays as it is.
    if subjects.iter().any(|s| s.contains(DIED)) {
        return Ok((program, s, best));
    }
    let mut error = None;
    s = crate::record::simplify(s, |candidate| match disagreement(native, server, &program, candidate) {
        Ok(Some(f)) if related(&f) => {
            best = f;
            true
        }
        Ok(_) => false,
        Err(e) => {
            error = Some(e);
            false
        }
    });
    match error {
        Some(e) => Err(e),
        None => Ok((program, s, best)),
    }
}

/// # Errors
/// Bad arguments, or a server that cannot be started.
pub fn main(args: &[String]) -> Result<bool, String> {
    let o = options(args)?;
    let mut native = Native::new()?;
    let mut servers = Vec::new();
    for cpu in &o.cpus {
        let command = [&o.emulator, "-cpu", cpu, &o.server, "serve"].map(String::from).to_vec();
        servers.push(Server::start(cpu, command)?);
    }
    let mut left_out = BTreeMap::new();
    let pool = pool(&o.only, &mut left_out);
    if pool.is_empty() {
        return Err(match left_out.keys().next() {
            Some(why) => format!("nothing to compare: {why}"),
            None => "no supported form has such a name".into(),
        });
    }
    // Flags and flow are where blocks go wrong: half of a block's instructions are plain integer ones.
    let integer: Vec<Code> = pool
        .iter()
        .copied()
        .filter(|&c| matches!(forms::family(c), "alu" | "shift" | "mov" | "bits" | "muldiv"))
        .collect();
    println!("seed {}, {} forms, CPU models {}", o.seed, pool.len(), o.cpus.join(" "));

    // By family: compared, different, declined.
    let mut tally: BTreeMap<&'static str, (u64, u64, u64)> = BTreeMap::new();
    let mut declined: BTreeMap<Code, u64> = BTreeMap::new();
    let mut seen: HashSet<String> = HashSet::new();
    let mut index = o.case.unwrap_or(0);
    let start = Instant::now();
    let mut shown = Instant::now();
    let mut turn = 0;
    'all: loop {
        if o.case.is_none() && o.cases.map_or(start.elapsed() >= o.time, |n| index >= n) {
            break;
        }
        let mut batch = Vec::new();
        while batch.len() < 12 {
            let mut rng = fastrand::Rng::with_seed(o.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
            let number = index;
            index += 1;
            let single = o.single && (!o.blocks || rng.u8(..5) < 2);
            let made = if single {
                let code = pool[(number as usize).wrapping_mul(7919) % pool.len()];
                blocks::single(code, &mut rng).map(|m| (m, forms::family(code)))
            } else {
                let from = if rng.bool() && !integer.is_empty() { &integer } else { &pool };
                let max = [4, 8, 30][rng.usize(..3)];
                blocks::block(from, max, &mut rng).map(|m| (m, "blocks"))
            };
            if let Some(((program, mut s), family)) = made
                && let Some(assembled) = program.assemble()
            {
                // Now and then an exception is unmasked: invalid, division by zero, overflow or inexact. (Not the two that hosts do not report as x86
                // does: see docs/isa.md.)
                if rng.u8(..12) == 0 {
                    s.mxcsr &= !((u32::from(rng.u8(..64)) & 0x2d) << 7);
                }
                let case = Case { code: assembled.code.clone(), state: s.clone() };
                batch.push((number, program, s, assembled, case, family));
            }
            if o.case.is_some() {
                break;
            }
        }
        let turns = servers.len();
        let server = &mut servers[turn % turns];
        server.mode = o.mode.unwrap_or((turn / turns % 4) as u8);
        turn += 1;
        let cases: Vec<Case> = batch.iter().map(|b| b.4.clone()).collect();
        let results = server.run(&cases)?;
        for ((number, program, s, assembled, case, family), got) in batch.into_iter().zip(results) {
            let expected = native.run(&case);
            let Some(undefined) = program.undefined_at(&s, &assembled, &expected) else { continue };
            if expected.fault.is_some_and(|f| f.signal == libc::SIGALRM) {
                continue;
            }
            let t = tally.entry(family).or_default();
            if let Ok(got) = &got
                && got.fault.is_some_and(|f| f.signal == state::UNSUPPORTED)
            {
                t.2 += 1;
                if let Some(item) = program.items.iter().zip(&assembled.starts).find(|(_, s)| **s == got.state.rip) {
                    *declined.entry(item.0.instruction.code()).or_default() += 1;
                }
                continue;
            }
            let differences = match &got {
                Ok(got) => mask::differences(&expected, got, undefined),
                Err(e) => vec![e.clone()],
            };
            if !differences.is_empty()
                && (strays(&mut native, &case) || follows_a_flush(&mut native, server, &program, &s)?)
            {
                continue;
            }
            let t = tally.entry(family).or_default();
            t.0 += 1;
            if differences.is_empty() {
                continue;
            }
            t.1 += 1;
            let first = Failure { case, expected, undefined, differences };
            // A form that failed alone is known; so is a block of the same shape.
            if program.items.len() == 1 && seen.contains(&shape(&program)) {
                continue;
            }
            let (program, _, f) = shrink(&mut native, server, program, s, first)?;
            if !seen.insert(shape(&program)) {
                continue;
            }
            println!(
                "\n=== difference {} on {}, mode {}: --seed {} --case {number}",
                seen.len(),
                server.name,
                server.mode,
                o.seed
            );
            let recorded = report(&program, &f, server)?;
            if let Some(path) = &o.save {
                let mut file = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(|e| format!("{path}: {e}"))?;
                file.write_all(recorded.as_bytes()).map_err(|e| format!("{path}: {e}"))?;
            }
            if seen.len() >= o.failures {
                println!("\nstopped after {} different failures", seen.len());
                break 'all;
            }
        }
        if o.case.is_some() {
            break;
        }
        if shown.elapsed() > Duration::from_secs(10) {
            shown = Instant::now();
            let (n, bad) = tally.values().fold((0, 0), |a, t| (a.0 + t.0, a.1 + t.1));
            eprintln!("{:4} s: {n} cases, {bad} differ", start.elapsed().as_secs());
        }
    }
    let mut forms_of: BTreeMap<&str, usize> = BTreeMap::new();
    for &code in &pool {
        *forms_of.entry(forms::family(code)).or_default() += 1;
    }
    println!("\n{:10} {:>6} {:>9} {:>8} {:>9}", "family", "forms", "cases", "differ", "declined");
    for (family, (n, bad, no)) in &tally {
        // Blocks are made of all of them.
        let forms = forms_of.get(family).map_or(String::new(), usize::to_string);
        println!("{family:10} {forms:>6} {n:9} {bad:8} {no:9}");
    }
    if !declined.is_empty() {
        let names: Vec<String> = declined.keys().map(|c| format!("{c:?}")).collect();
        println!("declined (a row, but not for this form): {}", names.join(" "));
    }
    let (n, bad) = tally.values().fold((0, 0), |a, t| (a.0 + t.0, a.1 + t.1));
    for (why, n) in &left_out {
        println!("left out: {n} forms ({why})");
    }
    println!(
        "{:10} {:6} {n:9} {bad:8}   in {:.0} s, seed {}",
        "all",
        pool.len(),
        start.elapsed().as_secs_f64(),
        o.seed
    );
    Ok(bad == 0)
}

fn shape(program: &Program) -> String {
    program.items.iter().map(|i| format!("{:?} ", i.instruction.code())).collect()
}

/// Prints a failure; returns it in fixture form.
fn report(program: &Program, f: &Failure, server: &mut Server) -> Result<String, String> {
    let asm = text::disassemble(&f.case.code, START);
    for line in &asm {
        println!("    {line}");
    }
    println!("  in   {}", text::state_changes(&State::default(), &f.case.state));
    for d in &f.differences {
        println!("  {d}");
    }
    println!("{}", server.listing(&f.case)?);
    let recorded = Recorded {
        name: shape(program).trim().to_string(),
        asm: asm.join("; "),
        case: f.case.clone(),
        outcome: f.expected.clone(),
        undefined: f.undefined,
    };
    let mut s = String::new();
    recorded.print(&mut s);
    print!("{s}");
    Ok(s)
}

/// The forms that are tested: comparable, implemented, of a wanted name and in this CPU. Those that only the CPU lacks are counted by the reason.
fn pool(only: &[String], left_out: &mut BTreeMap<String, usize>) -> Vec<Code> {
    forms::all()
        .into_iter()
        .filter(|c| {
            let name = format!("{c:?}").to_lowercase();
            only.is_empty() || only.iter().any(|o| name.contains(o.as_str()) || forms::family(*c) == o)
        })
        .filter(|&c| forms::has_row(c))
        .filter(|&c| match feature::unknown_here(c) {
            Some(why) => {
                *left_out.entry(why).or_default() += 1;
                false
            }
            None => true,
        })
        .collect()
}
