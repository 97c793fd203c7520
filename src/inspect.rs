//! `xrun explain` and `xrun dump`: the way of an instruction from guest bytes to AArch64, without running anything. Works on any machine.

use crate::facts::Facts;
use crate::guest::Region;
use crate::host::HostFeatures;
use crate::listing::{self, Stage};
use crate::{Translator, isa};
use goblin::elf::Elf;
use goblin::elf::program_header::{PF_X, PT_LOAD};
use std::path::PathBuf;
use xrun_runtime::engine::{Engine, Extent, GuestCode, Ordering, Request, TranslateError};

/// What went wrong, in one line.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: not an ELF file that can be read: {1}")]
    Elf(PathBuf, goblin::error::Error),
    #[error("{0:?} is neither an address (0x...) nor a symbol of the program, with an optional +offset")]
    Address(String),
    #[error("{0}")]
    Translate(#[from] TranslateError),
    #[error("{0}")]
    Usage(String),
}

/// An ELF file's code at its link addresses.
struct Program {
    bytes: Vec<u8>,
    /// (first address, bytes).
    segments: Vec<(u64, std::ops::Range<usize>)>,
    symbols: Vec<(String, u64)>,
    entry: u64,
}

impl GuestCode for Program {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        for (start, range) in &self.segments {
            let Some(at) = addr.checked_sub(*start) else { continue };
            let Some(from) = self.bytes[range.clone()].get(at as usize..) else { continue };
            let n = from.len().min(buf.len());
            buf[..n].copy_from_slice(&from[..n]);
            if n > 0 {
                return n;
            }
        }
        0
    }
}

impl Program {
    fn open(path: PathBuf) -> Result<Program, InspectError> {
        let bytes = std::fs::read(&path).map_err(|e| InspectError::Read(path.clone(), e))?;
        let elf = Elf::parse(&bytes).map_err(|e| InspectError::Elf(path, e))?;
        let mut segments = Vec::new();
        for p in &elf.program_headers {
            let end = p.p_offset.saturating_add(p.p_filesz);
            if p.p_type == PT_LOAD && p.p_flags & PF_X != 0 && end <= bytes.len() as u64 {
                segments.push((p.p_vaddr, p.p_offset as usize..end as usize));
            }
        }
        let mut symbols = Vec::new();
        for (table, names) in [(&elf.syms, &elf.strtab), (&elf.dynsyms, &elf.dynstrtab)] {
            for s in table.iter().filter(|s| s.is_function() && s.st_value != 0) {
                if let Some(name) = names.get_at(s.st_name) {
                    symbols.push((name.to_string(), s.st_value));
                }
            }
        }
        let entry = elf.entry;
        Ok(Program { bytes, segments, symbols, entry })
    }

    /// `0x...`, `entry`, `symbol` or `symbol+0x...`.
    fn address(&self, text: &str) -> Result<u64, InspectError> {
        let number = |s: &str| u64::from_str_radix(s.strip_prefix("0x")?, 16).ok();
        if let Some(a) = number(text) {
            return Ok(a);
        }
        let (name, offset) = text.rsplit_once('+').unwrap_or((text, "0x0"));
        let base = if name == "entry" {
            Some(self.entry)
        } else {
            self.symbols.iter().find(|(n, _)| n == name).map(|(_, a)| *a)
        };
        match (base, number(offset)) {
            (Some(b), Some(o)) => Ok(b + o),
            _ => Err(InspectError::Address(text.into())),
        }
    }
}

/// Options of both commands, with the rest of the words.
struct Options {
    translator: Translator,
    ordering: Ordering,
    stage: Stage,
    words: Vec<String>,
}

fn options(args: impl Iterator<Item = String>) -> Result<Options, InspectError> {
    let mut o = Options {
        translator: Translator { host: HostFeatures::V8_2 },
        ordering: Ordering::Plain,
        stage: Stage::Host,
        words: Vec::new(),
    };
    for a in args {
        if let Some(h) = a.strip_prefix("--host=") {
            let found = HostFeatures::ALL.iter().find(|(name, _)| *name == h);
            let names = HostFeatures::ALL.map(|(name, _)| name).join(", ");
            o.translator.host = found.ok_or_else(|| InspectError::Usage(format!("--host is one of {names}")))?.1;
        } else if let Some(s) = a.strip_prefix("--stage=") {
            o.stage = s.parse().map_err(InspectError::Usage)?;
        } else if a == "--tso" {
            o.ordering = Ordering::Tso;
        } else if a.starts_with("--") {
            return Err(InspectError::Usage(format!("unknown option {a}")));
        } else {
            o.words.push(a);
        }
    }
    Ok(o)
}

/// `dump [--stage=decode|facts|host] [--host=NAME] [--tso] PROG ADDR`: the region that starts at ADDR.
///
/// # Errors
/// The file, the address or the options.
pub fn dump(args: impl Iterator<Item = String>) -> Result<String, InspectError> {
    let o = options(args)?;
    let [prog, addr] = &o.words[..] else {
        return Err(InspectError::Usage(
            "usage: xrun dump [--stage=decode|facts|host] [--host=v8.0|v8.2|v8.4|max] [--tso] PROG ADDR|SYMBOL[+0xOFF]"
                .into(),
        ));
    };
    let p = Program::open(prog.into())?;
    let request = Request { ordering: o.ordering, extent: Extent::Loop, ..Request::at(p.address(addr)?) };
    let region = Region::find(request.pc, Extent::Loop, &p)?;
    let facts = Facts::of(&region, &p);
    let t = o.translator.lower(&region, &facts, request);
    let mut out = listing::region(o.stage, &region, &facts, &t);
    if o.stage == Stage::Host {
        let n = region.insts.len();
        out.push_str(&format!(
            "{n} guest instructions, {:.2} host words each on the main line\n",
            listing::words_per_guest(&region, &t)
        ));
    }
    Ok(out)
}

/// `explain [--host=NAME] [--tso] PROG ADDR`: one instruction: bytes, meaning, row, flags, host words on the named host.
///
/// # Errors
/// The file, the address or the options.
pub fn explain(args: impl Iterator<Item = String>) -> Result<String, InspectError> {
    let o = options(args)?;
    let [prog, addr] = &o.words[..] else {
        return Err(InspectError::Usage(
            "usage: xrun explain [--host=v8.0|v8.2|v8.4|max] [--tso] PROG ADDR|SYMBOL[+0xOFF]".into(),
        ));
    };
    let p = Program::open(prog.into())?;
    let pc = p.address(addr)?;
    let region = Region::find(pc, Extent::Single, &p)?;
    let i = region.insts[0].i;
    let mut bytes = [0u8; 15];
    let n = p.fetch(pc, &mut bytes).min(i.len());
    let hex: Vec<String> = bytes[..n].iter().map(|b| format!("{b:02x}")).collect();
    let effect = region.insts[0].flags;
    let mut out = format!("bytes    {}\ninstr    {i}\n", hex.join(" "));
    let row = match isa::row(i.mnemonic()) {
        Some(row) => format!("src/isa, family {}", row.family),
        None => "none: raises #UD and says so".into(),
    };
    out.push_str(&format!("row      {row}\n"));
    let letters = listing::flag_letters;
    out.push_str(&format!(
        "flags    reads {} writes {} kills {}\n",
        letters(effect.reads),
        letters(effect.writes),
        letters(effect.kills)
    ));
    let request = Request { ordering: o.ordering, extent: Extent::Loop, ..Request::at(pc) };
    let wide = Region::find(pc, Extent::Loop, &p)?;
    let facts = Facts::of(&wide, &p);
    out.push_str(&format!(
        "live     {} of them, as the code after it shows\n",
        letters(facts.live_out[0] & effect.writes)
    ));
    let t = o.translator.translate(Request { extent: Extent::Single, ..request }, &p)?;
    let single = Facts::of(&region, &p);
    out.push_str(&format!("alone\n{}", listing::region(Stage::Host, &region, &single, &t)));
    let t = o.translator.lower(&wide, &facts, request);
    let in_place = listing::region(Stage::Host, &wide, &facts, &t);
    let until = in_place.lines().skip(1).position(|l| l.contains("  ; in ")).map_or(usize::MAX, |n| n + 1);
    out.push_str("in its region\n");
    for l in in_place.lines().take(until) {
        out.push_str(l);
        out.push('\n');
    }
    Ok(out)
}
