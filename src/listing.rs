//! A region as text: guest instructions, facts, host words, side by side. For people and for goldens. Prints what the pipeline's structs hold and decides nothing.

use crate::facts::Facts;
use crate::guest::{Flags, Inst, Region};
use disarm64::{InsnDisplay, decoder};
use iced_x86::{Formatter, IntelFormatter};
use std::fmt::Write as _;
use xrun_runtime::engine::Translation;

/// How far along the pipeline a dump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Decode,
    Facts,
    Host,
}

impl std::str::FromStr for Stage {
    type Err = String;

    fn from_str(s: &str) -> Result<Stage, String> {
        match s {
            "decode" => Ok(Stage::Decode),
            "facts" => Ok(Stage::Facts),
            "host" => Ok(Stage::Host),
            _ => Err(format!("unknown stage {s:?}: decode, facts or host")),
        }
    }
}

/// `czsopa` letters of a flag set, `-` when empty.
pub fn flag_letters(f: Flags) -> String {
    let all = [(Flags::C, 'c'), (Flags::P, 'p'), (Flags::A, 'a'), (Flags::Z, 'z'), (Flags::S, 's'), (Flags::O, 'o')];
    let s: String = all.iter().filter(|(b, _)| f.contains(*b)).map(|(_, c)| *c).collect();
    if s.is_empty() { "-".into() } else { s }
}

/// One AArch64 word at word offset `at`, with PC-relative targets as word offsets from the start of the translation.
pub fn host_word(word: u32, at: u32) -> String {
    let opcode = decoder::decode(word);
    match opcode {
        Some(op) => op.display_at(u64::from(at) * 4).to_string().replace('\t', " "),
        None => format!(".word {word:#010x}"),
    }
}

/// The region and what became of it, up to `stage`.
pub fn region(stage: Stage, region: &Region, facts: &Facts, t: &Translation) -> String {
    let mut out = String::new();
    let mut intel = IntelFormatter::new();
    intel.options_mut().set_hex_prefix("0x");
    intel.options_mut().set_hex_suffix("");
    intel.options_mut().set_space_after_operand_separator(true);
    for (at, x) in region.insts.iter().enumerate() {
        guest_line(&mut out, &mut intel, x);
        if stage != Stage::Decode {
            let _ = write!(
                out,
                "    ; in {} out {}",
                flag_letters(facts.live_in[at]),
                flag_letters(facts.live_out[at] & x.flags.writes)
            );
        }
        out.push('\n');
        if stage == Stage::Host {
            for n in 0..t.marks.len() {
                let m = t.marks[n];
                if m.guest == x.i.ip() {
                    let end = t.marks.get(n + 1).map_or(first_cold(t), |m| m.word);
                    host_lines(&mut out, t, m.word, end);
                }
            }
        }
        if x.ends_run {
            out.push('\n');
        }
    }
    if stage == Stage::Host {
        out.push_str("cold:\n");
        host_lines(&mut out, t, first_cold(t), t.words.len() as u32);
    }
    out
}

/// The first word after the main line: exit stubs and cold code begin there.
fn first_cold(t: &Translation) -> u32 {
    t.exits.iter().map(|e| e.stub).min().unwrap_or(t.words.len() as u32)
}

fn guest_line(out: &mut String, intel: &mut IntelFormatter, x: &Inst) {
    let _ = write!(out, "{}{:#x}  ", if x.join { ">" } else { " " }, x.i.ip());
    intel.format(&x.i, out);
}

fn host_lines(out: &mut String, t: &Translation, from: u32, to: u32) {
    let mut at = from;
    while at < to {
        let word = t.words[at as usize];
        if let Some(e) = t.exits.iter().find(|e| e.stub + 2 == at) {
            let _ = writeln!(out, "      {at:5}  {word:08x}  .quad {:#x}", e.target);
            at += 2;
            continue;
        }
        let _ = writeln!(out, "      {at:5}  {word:08x}  {}", host_word(word, at));
        at += 1;
    }
}

/// Host words of the main line (cold code and stubs left out), per guest instruction of the region.
pub fn words_per_guest(region: &Region, t: &Translation) -> f64 {
    f64::from(first_cold(t) - t.entries[0].word) / region.insts.len() as f64
}
