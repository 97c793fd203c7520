//! Records oracle fixtures: a few cases of every instruction form, run on the CPU under this process, one file per family.

use crate::truth::blocks::{self, Program};
use crate::truth::feature;
use crate::truth::forms;
use crate::truth::native::Native;
use crate::truth::state::{Case, Outcome, State};
use crate::truth::text::{self, Recorded};
use crate::truth::values;
use std::collections::BTreeMap;

/// The file of what MIN and MAX do when denormals are zeros.
const DENORMALS: &str = "denormals";

/// # Errors
/// Bad arguments, or a file that cannot be written.
pub fn main(args: &[String]) -> Result<bool, String> {
    let dir = args.first().ok_or("record: which directory?")?;
    let mut cases = 4;
    if let [flag, n] = &args[1..] {
        if flag != "--cases" {
            return Err(format!("record: unknown option {flag}"));
        }
        cases = n.parse().map_err(|_| format!("record: '{n}' is no number"))?;
    }
    let mut native = Native::new()?;
    let header = header();
    let mut files: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut total = 0;
    // Families with a form that this CPU cannot record: their files stay as they are.
    let mut kept: BTreeMap<&'static str, String> = BTreeMap::new();
    for code in forms::all() {
        if let Some(why) = feature::unknown_here(code) {
            kept.insert(forms::family(code), why);
            continue;
        }
        // The seed is the form's own, so that recording again changes nothing and a new form disturbs no other.
        let mut rng = fastrand::Rng::with_seed(0x6f72_6163_6c65 ^ (code as u64) << 32);
        for _ in 0..cases {
            let Some((program, state)) = blocks::single(code, &mut rng) else { continue };
            let Some(r) = record(&mut native, &program, state, format!("{code:?}")) else { continue };
            r.print(files.entry(forms::family(code)).or_insert_with(|| header.clone()));
            total += 1;
        }
        if !forms::picks(code) {
            continue;
        }
        for _ in 0..cases {
            let Some((program, mut state)) = blocks::single(code, &mut rng) else { continue };
            values::denormals(&mut state, forms::is_double(code), &mut rng);
            let Some(r) = record(&mut native, &program, state, format!("{code:?}")) else { continue };
            r.print(files.entry(DENORMALS).or_insert_with(|| header.clone()));
            total += 1;
        }
    }
    for (family, why) in &kept {
        println!("{family}.txt stays as it is: {why}");
    }
    files.retain(|family, _| !kept.contains_key(family));
    for (family, text) in &files {
        let path = format!("{dir}/{family}.txt");
        std::fs::write(&path, text).map_err(|e| format!("{path}: {e}"))?;
    }
    println!("recorded {total} cases in {} files", files.len());
    Ok(true)
}

fn header() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpu.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_once(':'))
            .map_or("unknown", |(_, v)| v.trim())
            .to_string()
    };
    let date = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d"])
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string())
        .unwrap_or_default();
    format!(
        "# Recorded from a real CPU by `truth record`; never edited by hand.\n# cpu: {}, vendor {}, family {}, model {}, stepping {}\n# date: {date}\n",
        field("model name"),
        field("vendor_id"),
        field("cpu family"),
        field("model\t"),
        field("stepping"),
    )
}

/// Runs a program and makes its case as short as it can be without changing what the CPU does.
pub fn record(native: &mut Native, program: &Program, state: State, name: String) -> Option<Recorded> {
    let assembled = program.assemble()?;
    let run = |native: &mut Native, state: &State| -> (Case, Outcome) {
        let case = Case { code: assembled.code.clone(), state: state.clone() };
        let outcome = native.run(&case);
        (case, outcome)
    };
    let (_, first) = run(native, &state);
    let effect = |s: &State, o: &Outcome| {
        let mut before = s.clone();
        before.rip = 0;
        let undefined = program.undefined_at(s, &assembled, o)?;
        let mut after = o.state.clone();
        after.flags = (after.flags & !undefined.flags) | (before.flags & undefined.flags);
        after.fsw = (after.fsw & !undefined.fsw) | (before.fsw & undefined.fsw);
        Some((text::state_changes(&before, &after), o.fault, o.rest))
    };
    let want = effect(&state, &first)?;
    let simple = simplify(state, |s| {
        let (_, o) = run(native, s);
        effect(s, &o).as_ref() == Some(&want)
    });
    let (case, outcome) = run(native, &simple);
    let undefined = program.undefined_at(&simple, &assembled, &outcome)?;
    let asm = text::disassemble(&case.code, crate::truth::START).join("; ");
    Some(Recorded { name, asm, case, outcome, undefined })
}

/// Sets every part of `state` that `same` says does not matter to its default.
pub fn simplify(mut state: State, mut same: impl FnMut(&State) -> bool) -> State {
    let base = State::default();
    let mut attempt = |state: &mut State, change: &dyn Fn(&mut State)| {
        let mut s = state.clone();
        change(&mut s);
        if s != *state && same(&s) {
            *state = s;
        }
    };
    // Everything of one kind at once first, then one by one.
    attempt(&mut state, &|s| (s.xmm, s.ymm_hi) = (base.xmm, base.ymm_hi));
    attempt(&mut state, &|s| (s.fcw, s.fsw, s.in_use, s.fpr) = (base.fcw, base.fsw, base.in_use, base.fpr));
    attempt(&mut state, &|s| s.mem.copy_from_slice(&base.mem));
    attempt(&mut state, &|s| s.fpr = base.fpr);
    attempt(&mut state, &|s| s.ymm_hi = base.ymm_hi);
    attempt(&mut state, &|s| s.mxcsr = base.mxcsr);
    attempt(&mut state, &|s| s.fcw = base.fcw);
    attempt(&mut state, &|s| s.fsw = base.fsw);
    attempt(&mut state, &|s| s.in_use = base.in_use);
    attempt(&mut state, &|s| s.flags = base.flags);
    attempt(&mut state, &|s| s.gs_base = base.gs_base);
    for n in 0..16 {
        attempt(&mut state, &|s| s.gpr[n] = base.gpr[n]);
        attempt(&mut state, &|s| s.xmm[n] = base.xmm[n]);
        attempt(&mut state, &|s| s.ymm_hi[n] = base.ymm_hi[n]);
    }
    for n in 0..8 {
        attempt(&mut state, &|s| s.fpr[n] = base.fpr[n]);
    }
    for size in [256, 64, 16, 8] {
        for at in (0..state.mem.len()).step_by(size) {
            attempt(&mut state, &|s| s.mem[at..at + size].copy_from_slice(&base.mem[at..at + size]));
        }
    }
    state
}
