//! Cases and outcomes as text, for `fixtures/oracle/*.txt` and for reports.
//!
//! ```text
//! # free text: CPU and date of the recording
//! case Add_rm32_r32
//!   asm add eax,ebx
//!   code 01d8
//!   in rax=ffffffff rbx=1 flags=206
//!   out rax=0 flags=257
//!   undefined flags=10
//!   end signal=11 code=1 addr=20000000
//! ```
//! `in` names what differs from [`State::default`], `out` what the CPU changed; `mem+N=..` are bytes of the window.
//! Without `end` the code reached its end. All numbers are hexadecimal, except the signal and its code.

use super::mask::Undefined;
use super::state::{Case, Fault, Outcome, State};
use std::fmt::Write;

pub const GPR_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// A recorded case.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub name: String,
    pub asm: String,
    pub case: Case,
    pub outcome: Outcome,
    pub undefined: Undefined,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

pub fn unhex(s: &str) -> Option<Vec<u8>> {
    if !s.len().is_multiple_of(2) || !s.is_ascii() {
        return None;
    }
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).ok()).collect()
}

pub fn flag_names(f: u64) -> String {
    let names =
        [(11, "O"), (10, "D"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C"), (14, "N"), (18, "ac"), (21, "id")];
    let s: String = names.iter().filter(|(b, _)| f >> b & 1 != 0).map(|n| n.1).collect();
    if s.is_empty() { "-".into() } else { s }
}

/// `to` as differences from `from`, one `name=value` each.
pub fn state_changes(from: &State, to: &State) -> String {
    let mut s = String::new();
    for (n, name) in GPR_NAMES.iter().enumerate() {
        if from.gpr[n] != to.gpr[n] {
            let _ = write!(s, " {name}={:x}", to.gpr[n]);
        }
    }
    for (name, a, b) in [
        ("rip", from.rip, to.rip),
        ("flags", from.flags, to.flags),
        ("mxcsr", from.mxcsr.into(), to.mxcsr.into()),
        ("fcw", from.fcw.into(), to.fcw.into()),
        ("fsw", from.fsw.into(), to.fsw.into()),
        ("inuse", from.in_use.into(), to.in_use.into()),
        ("gsbase", from.gs_base, to.gs_base),
    ] {
        if a != b {
            let _ = write!(s, " {name}={b:x}");
        }
    }
    for n in 0..16 {
        if from.xmm[n] != to.xmm[n] {
            let _ = write!(s, " xmm{n}={:x}", to.xmm[n]);
        }
        if from.ymm_hi[n] != to.ymm_hi[n] {
            let _ = write!(s, " ymmhi{n}={:x}", to.ymm_hi[n]);
        }
    }
    for n in 0..8 {
        if from.fpr[n] != to.fpr[n] {
            let _ = write!(s, " fpr{n}={:x}:{:x}", to.fpr[n].1, to.fpr[n].0);
        }
    }
    let mut at = 0;
    while at < from.mem.len() {
        if from.mem[at] == to.mem[at] {
            at += 1;
            continue;
        }
        // Runs with gaps of less than 8 equal bytes are one run.
        let mut end = at + 1;
        let mut k = end;
        while k < from.mem.len() && k < end + 8 {
            if from.mem[k] != to.mem[k] {
                end = k + 1;
            }
            k += 1;
        }
        let _ = write!(s, " mem+{at:x}={}", hex(&to.mem[at..end]));
        at = end;
    }
    s.trim_start().to_string()
}

/// Applies `name=value` changes to `s`.
///
/// # Errors
/// Names the word that does not parse.
pub fn apply_changes(s: &mut State, words: &str) -> Result<(), String> {
    for word in words.split_whitespace() {
        apply(s, word).ok_or_else(|| format!("cannot read '{word}'"))?;
    }
    Ok(())
}

fn apply(s: &mut State, word: &str) -> Option<()> {
    let (name, value) = word.split_once('=')?;
    let number = || u64::from_str_radix(value, 16).ok();
    let wide = || u128::from_str_radix(value, 16).ok();
    if let Some(n) = GPR_NAMES.iter().position(|g| *g == name) {
        s.gpr[n] = number()?;
    } else if let Some(at) = name.strip_prefix("mem+") {
        let at = usize::from_str_radix(at, 16).ok()?;
        let bytes = unhex(value)?;
        s.mem.get_mut(at..at + bytes.len())?.copy_from_slice(&bytes);
    } else if let Some(n) = name.strip_prefix("xmm") {
        *s.xmm.get_mut(n.parse::<usize>().ok()?)? = wide()?;
    } else if let Some(n) = name.strip_prefix("ymmhi") {
        *s.ymm_hi.get_mut(n.parse::<usize>().ok()?)? = wide()?;
    } else if let Some(n) = name.strip_prefix("fpr") {
        let (e, m) = value.split_once(':')?;
        *s.fpr.get_mut(n.parse::<usize>().ok()?)? =
            (u64::from_str_radix(m, 16).ok()?, u16::from_str_radix(e, 16).ok()?);
    } else {
        let v = number()?;
        match name {
            "rip" => s.rip = v,
            "flags" => s.flags = v,
            "mxcsr" => s.mxcsr = v as u32,
            "fcw" => s.fcw = v as u16,
            "fsw" => s.fsw = v as u16,
            "inuse" => s.in_use = v as u8,
            "gsbase" => s.gs_base = v,
            _ => return None,
        }
    }
    Some(())
}

/// Guest code as Intel-syntax lines.
pub fn disassemble(code: &[u8], ip: u64) -> Vec<String> {
    use iced_x86::{Decoder, DecoderOptions, FastFormatter};
    let mut d = Decoder::with_ip(64, code, ip, DecoderOptions::NONE);
    let mut f = FastFormatter::new();
    let mut lines = Vec::new();
    while d.can_decode() {
        let i = d.decode();
        let mut s = String::new();
        f.format(&i, &mut s);
        lines.push(s);
    }
    lines
}

impl Recorded {
    pub fn print(&self, out: &mut String) {
        let Self { name, asm, case, outcome, undefined } = self;
        let _ = writeln!(out, "case {name}");
        let _ = writeln!(out, "  asm {asm}");
        let _ = writeln!(out, "  code {}", hex(&case.code));
        let base = State::default();
        let _ = writeln!(out, "  in {}", state_changes(&base, &case.state));
        let mut before = case.state.clone();
        before.rip = super::START + case.code.len() as u64;
        let mut after = super::mask::normal(outcome.state.clone(), *undefined);
        // Bits that do not count are shown as they were.
        let keep = !(super::mask::FLAGS & !undefined.flags);
        after.flags |= case.state.flags & keep;
        after.fsw |= case.state.fsw & undefined.fsw;
        let _ = writeln!(out, "  out {}", state_changes(&before, &after));
        if undefined.flags != 0 || undefined.fsw != 0 {
            let _ = writeln!(out, "  undefined flags={:x} fsw={:x}", undefined.flags, undefined.fsw);
        }
        if let Some(f) = outcome.fault {
            let _ = writeln!(out, "  end signal={} code={} addr={:x}", f.signal, f.code, f.addr);
        }
        if outcome.rest != 0 {
            let _ = writeln!(out, "  rest {:x}", outcome.rest);
        }
    }
}

/// Reads a fixture file.
///
/// # Errors
/// Line number and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Recorded>, String> {
    let mut all: Vec<Recorded> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        parse_line(&mut all, word, rest).map_err(|e| format!("line {}: {e}", n + 1))?;
    }
    Ok(all)
}

fn parse_line(all: &mut Vec<Recorded>, word: &str, rest: &str) -> Result<(), String> {
    if word == "case" {
        let state = State::default();
        all.push(Recorded {
            name: rest.into(),
            asm: String::new(),
            case: Case { code: Vec::new(), state: state.clone() },
            outcome: Outcome { state, fault: None, rest: 0 },
            undefined: Undefined::default(),
        });
        return Ok(());
    }
    let r = all.last_mut().ok_or("a line before the first case")?;
    let number = |s: &str| u64::from_str_radix(s, 16).map_err(|_| format!("'{s}' is no number"));
    match word {
        "asm" => r.asm = rest.into(),
        "code" => r.case.code = unhex(rest).ok_or("bad bytes")?,
        "in" => {
            apply_changes(&mut r.case.state, rest)?;
            r.outcome.state = r.case.state.clone();
            r.outcome.state.rip = super::START + r.case.code.len() as u64;
        }
        "out" => apply_changes(&mut r.outcome.state, rest)?,
        "undefined" => {
            for w in rest.split_whitespace() {
                match w.split_once('=') {
                    Some(("flags", v)) => r.undefined.flags = number(v)?,
                    Some(("fsw", v)) => r.undefined.fsw = number(v)? as u16,
                    _ => return Err(format!("cannot read '{w}'")),
                }
            }
        }
        "end" => {
            let mut f = Fault { signal: 0, code: 0, addr: 0 };
            for w in rest.split_whitespace() {
                match w.split_once('=') {
                    Some(("signal", v)) => f.signal = v.parse().map_err(|_| format!("cannot read '{w}'"))?,
                    Some(("code", v)) => f.code = v.parse().map_err(|_| format!("cannot read '{w}'"))?,
                    Some(("addr", v)) => f.addr = number(v)?,
                    _ => return Err(format!("cannot read '{w}'")),
                }
            }
            r.outcome.fault = Some(f);
        }
        "rest" => r.outcome.rest = number(rest)?,
        _ => return Err(format!("unknown word '{word}'")),
    }
    Ok(())
}
