//! A region: the instructions translated together from one entry, in address order, with the joins between them.
//!
//! Found by decoding forward from the entry: through conditional branches and calls, stopping at unconditional transfers and
//! going on at the lowest forward target seen, within a window. Backward jumps to instructions of the region make loops.
//! Invariant: instructions are sorted by address and do not overlap; `insts[0]` is the entry.

use super::flags::{FlagEffect, Flags, Role, Traits};
use super::quick;
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic};
use std::ops::Range;
use xrun_runtime::engine::{self, Extent, GuestCode, TranslateError};

/// What bounds a region, by extent: time spent on code that may never run against edges between regions.
struct Limits {
    /// Most instructions.
    insts: usize,
    /// From this many on, the region ends at the next branch or call.
    soft: usize,
    /// How far from the entry a forward jump's target may be to be taken in, in bytes.
    window: u64,
}

const fn limits(extent: Extent) -> Limits {
    match extent {
        Extent::Single => Limits { insts: 1, soft: 1, window: 0 },
        Extent::Cold => Limits { insts: 32, soft: 12, window: 0 },
        Extent::Loop => Limits { insts: 128, soft: 128, window: 2048 },
    }
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inst {
    pub i: Instruction,
    pub flags: FlagEffect,
    pub flow: FlowControl,
    pub role: Role,
    /// See [`Traits::general`].
    pub general: bool,
    /// Where a direct branch or call goes.
    pub target: Option<u64>,
    /// The index of the instruction a direct branch goes to, when that is in the region.
    pub inside: Option<u16>,
    /// Reached by a jump inside the region: flags must be in canonical form here.
    pub join: bool,
    /// The next instruction in the list is not what follows: this one ends a run.
    pub ends_run: bool,
    /// Not an instruction because it has more than 15 bytes: #GP, not #UD (SDM vol. 2, 2.3.11).
    pub too_long: bool,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Region {
    pub entry: u64,
    pub insts: Vec<Inst>,
    /// Indices of those after which control may go elsewhere than on.
    pub exits: Vec<u16>,
    /// Guest bytes read.
    pub depends: Vec<Range<u64>>,
    /// It lies in the vDSO, and has NOPs that mean something there.
    pub vdso: bool,
}

/// Bytes fetched at once.
const WINDOW: usize = 256;

struct Window {
    buf: [u8; WINDOW],
    start: u64,
    len: usize,
    /// How many instructions can start here with [`quick::READABLE`] bytes to each.
    starts: u64,
}

impl Window {
    /// The bytes from `pc` on, if they are here: enough for one instruction, or all there are.
    fn at(&self, pc: u64) -> Option<&[u8]> {
        let have = pc.wrapping_sub(self.start);
        // Nothing follows a window that could not be filled.
        let last = if self.len < WINDOW { self.len as u64 } else { self.starts };
        (have < last).then(|| &self.buf[have as usize..self.len])
    }

    /// The bytes from `pc` on, if there are as many as the tables want.
    #[inline]
    fn enough(&self, pc: u64) -> Option<&[u8; quick::READABLE]> {
        let have = pc.wrapping_sub(self.start);
        if have < self.starts { self.buf.get(have as usize..)?.first_chunk() } else { None }
    }
}

/// Guest code as it is decoded, through two windows: one moves on with the region, the other looks ahead from it.
pub struct Fetcher<'a> {
    code: &'a dyn GuestCode,
    windows: [Window; 2],
    /// The one used last.
    recent: usize,
}

impl<'a> Fetcher<'a> {
    pub fn new(code: &'a dyn GuestCode) -> Self {
        let empty = || Window { buf: [0; WINDOW], start: 0, len: 0, starts: 0 };
        Fetcher { code, windows: [empty(), empty()], recent: 0 }
    }

    /// Decodes the instruction at `pc`. False when not one byte of it can be fetched.
    #[inline]
    fn decode(&mut self, pc: u64, i: &mut Instruction) -> bool {
        let enough = self.windows[self.recent & 1].enough(pc);
        enough.is_some_and(|bytes| quick::decode(bytes, pc, i)) || self.decode_any(pc, i)
    }

    /// Traits of the instruction at `pc`, where the next one starts, and where it goes if it is a direct branch. `None` when not one byte of it can
    /// be fetched.
    fn scan(&mut self, pc: u64) -> Option<(Traits, u64, Option<u64>)> {
        if self.windows[self.recent & 1].enough(pc).is_none() {
            self.fetch(pc);
        }
        if let Some(s) = self.windows[self.recent & 1].enough(pc).and_then(quick::scan) {
            let next = pc.wrapping_add(s.len as u64);
            return Some((s.traits, next, s.branch.map(|b| next.wrapping_add_signed(b))));
        }
        let mut i = Instruction::default();
        self.decode_any(pc, &mut i).then(|| {
            let traits = Traits::of(&i);
            (traits, i.next_ip(), near_target(&i, traits.flow))
        })
    }

    /// Has the window used last hold the bytes at `pc`, as far as they can be fetched.
    fn fetch(&mut self, pc: u64) {
        if self.windows[self.recent & 1].at(pc).is_none() {
            self.recent ^= 1;
            let w = &mut self.windows[self.recent & 1];
            if w.at(pc).is_none() {
                w.len = self.code.fetch(pc, &mut w.buf);
                w.start = pc;
                w.starts = (w.len + 1).saturating_sub(quick::READABLE) as u64;
            }
        }
    }

    /// As [`Fetcher::decode`], whatever the instruction is and wherever its bytes are.
    #[inline(never)]
    fn decode_any(&mut self, pc: u64, i: &mut Instruction) -> bool {
        self.fetch(pc);
        let Some(bytes) = self.windows[self.recent & 1].at(pc) else { return false };
        if !bytes.first_chunk().is_some_and(|enough| quick::decode(enough, pc, i)) {
            decoder(bytes, pc).decode_out(i);
        }
        true
    }

    /// Why the bytes at `pc`, just decoded, are no instruction.
    fn why_invalid(&self, pc: u64) -> Invalid {
        self.windows[self.recent & 1].at(pc).map_or(Invalid::Undefined, |bytes| why_invalid(bytes, pc))
    }
}

/// The longest x86 instruction (SDM vol. 2, 2.3.11).
const MAX_LEN: usize = 15;

fn decoder(bytes: &[u8], pc: u64) -> Decoder<'_> {
    Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE)
}

/// Why bytes are no instruction.
#[derive(PartialEq, Eq)]
enum Invalid {
    Undefined,
    /// It would be one with some prefixes less.
    TooLong,
    /// It goes on at this address, where nothing can be fetched.
    Cut(u64),
}

fn why_invalid(bytes: &[u8], pc: u64) -> Invalid {
    let mut d = decoder(bytes, pc);
    let _ = d.decode();
    if d.last_error() == DecoderError::NoMoreBytes && bytes.len() < MAX_LEN {
        return Invalid::Cut(pc + bytes.len() as u64);
    }
    let prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take(MAX_LEN).take_while(|b| prefix(b)).count();
    let too_long = (1..=prefixes).any(|n| {
        let i = decoder(&bytes[n..], pc).decode();
        !i.is_invalid() && i.len() + n > MAX_LEN
    });
    if too_long { Invalid::TooLong } else { Invalid::Undefined }
}

/// Where a direct branch goes.
fn near_target(i: &Instruction, flow: FlowControl) -> Option<u64> {
    match flow {
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call
            if i.op0_kind() == iced_x86::OpKind::NearBranch64 || i.op0_kind() == iced_x86::OpKind::NearBranch16 =>
        {
            Some(i.near_branch_target())
        }
        _ => None,
    }
}

impl Region {
    /// Finds the region at `entry`.
    ///
    /// # Errors
    /// When the first instruction cannot be fetched at all.
    pub fn find(entry: u64, extent: Extent, code: &dyn GuestCode) -> Result<Region, TranslateError> {
        let mut region = Region::default();
        region.find_again(entry, extent, &mut Fetcher::new(code))?;
        Ok(region)
    }

    /// As [`Region::find`], in the memory of an earlier region and through a fetcher that facts are looked up through afterwards.
    ///
    /// # Errors
    /// When the first instruction cannot be fetched at all.
    pub fn find_again(&mut self, entry: u64, extent: Extent, f: &mut Fetcher<'_>) -> Result<(), TranslateError> {
        let limit = limits(extent);
        self.entry = entry;
        let (insts, exits, depends) = (&mut self.insts, &mut self.exits, &mut self.depends);
        insts.clear();
        exits.clear();
        depends.clear();
        // Where forward jumps go that the region may take in.
        let mut ahead: Vec<u64> = Vec::new();
        let (mut pc, mut run_start) = (entry, entry);
        let (mut branches, mut nops) = (false, false);
        loop {
            insts.push(Inst::default());
            let n = insts.len();
            let x = &mut insts[n - 1];
            let found = f.decode(pc, &mut x.i);
            if found {
                let t = Traits::of(&x.i);
                (x.flags, x.flow, x.role, x.general) = (t.flags, t.flow, t.role, t.general);
                if t.flow == FlowControl::Next && n < limit.insts {
                    pc = x.i.next_ip();
                    nops |= t.role == Role::Nop && is_vdso_nop(&x.i);
                    continue;
                }
            }
            let mut done = false;
            let why = if found && x.i.is_invalid() { f.why_invalid(pc) } else { Invalid::Undefined };
            x.too_long = why == Invalid::TooLong;
            let missing = match why {
                Invalid::Cut(at) => Some(at),
                _ => (!found).then_some(pc),
            };
            if missing.is_none() {
                exits.push(n as u16 - 1);
                x.target = near_target(&x.i, x.flow);
                let full = n >= limit.insts || n >= limit.soft && x.flow != FlowControl::Next;
                // Control may have come to what follows a branch by another way before.
                let known = || {
                    let falls = extent == Extent::Cold && x.flow == FlowControl::ConditionalBranch;
                    falls && f.code.is_translated(x.i.next_ip())
                };
                done = full || x.i.is_invalid() || known();
                x.ends_run = done || ends_run(&x.i, x.flow);
                pc = x.i.next_ip();
                nops |= is_vdso_nop(&x.i);
                if let Some(t) = x.target
                    && x.flow != FlowControl::Call
                {
                    branches = true;
                    if t.wrapping_sub(entry) < limit.window {
                        ahead.push(t);
                    }
                }
                if !x.ends_run {
                    continue;
                }
            } else {
                insts.pop();
                match insts.last_mut() {
                    None => return Err(TranslateError::Fetch(missing.unwrap_or(pc))),
                    Some(last) => last.ends_run = true,
                }
                if exits.last() != Some(&(n as u16 - 2)) {
                    exits.push(n as u16 - 2);
                }
                // A jump to bytes that are not there: it leaves the region.
                ahead.retain(|&t| t != pc);
            }
            add_range(depends, run_start..pc);
            match ahead.iter().copied().filter(|&t| t >= pc).min() {
                Some(t) if !done => pc = t,
                _ => break,
            }
            run_start = pc;
        }
        // Only there do its long NOPs mean something.
        self.vdso = nops && f.code.is_vdso(entry);
        if branches {
            self.join(extent);
        }
        Ok(())
    }

    /// Finds the jumps that stay inside. What follows the last jump back is no part of the loop, and left out but for straight code.
    fn join(&mut self, extent: Extent) {
        let mut loop_end = None;
        for n in 0..self.exits.len() {
            let at = self.exits[n];
            let x = &self.insts[usize::from(at)];
            if let Some(t) = x.target
                && x.flow != FlowControl::Call
                && let Some(k) = self.index_of(t)
            {
                self.insts[usize::from(at)].inside = Some(k as u16);
                if k as u16 <= at {
                    loop_end = Some(at);
                }
            }
        }
        if let (Extent::Loop, Some(end)) = (extent, loop_end) {
            let last = self.exits.iter().copied().find(|&at| at > end).unwrap_or(end);
            self.insts.truncate(usize::from(last) + 1);
            self.insts[usize::from(last)].ends_run = true;
            self.exits.retain(|&at| at <= last);
        }
        let n = self.insts.len();
        for &at in &self.exits {
            match self.insts[usize::from(at)].inside.map(usize::from) {
                Some(k) if k < n => self.insts[k].join = true,
                _ => self.insts[usize::from(at)].inside = None,
            }
        }
    }

    /// The index of the instruction that starts at `pc`.
    pub fn index_of(&self, pc: u64) -> Option<usize> {
        let last = self.insts.last()?.i.ip();
        if !(self.entry..=last).contains(&pc) {
            return None;
        }
        self.insts.binary_search_by_key(&pc, |x| x.i.ip()).ok()
    }

    /// What follows instruction `at` when it does not branch: an index of this region, or nothing.
    pub fn falls_to(&self, at: usize) -> Option<usize> {
        (!self.insts[at].ends_run && at + 1 < self.insts.len()).then_some(at + 1)
    }
}

/// Whether `i` has a meaning in the vDSO.
fn is_vdso_nop(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Nop && i.memory_displacement32() & 0xffff_0000 == engine::VDSO_NOP
}

/// Control never reaches the next instruction, or only by way of the runtime.
fn ends_run(i: &Instruction, flow: FlowControl) -> bool {
    match flow {
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall => false,
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::Return
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::Exception => i.mnemonic() != Mnemonic::Xend,
    }
}

/// Adds `r` to the ranges, to the last one if it follows that.
fn add_range(ranges: &mut Vec<Range<u64>>, r: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == r.start => last.end = r.end,
        _ if r.is_empty() => {}
        _ => ranges.push(r),
    }
}

/// Flags some code at `pc` may read before overwriting them, looking ahead a few instructions along every known path.
/// Every byte looked at is added to `depends`: if it changes, so may the answer.
pub fn flags_needed_at(pc: u64, f: &mut Fetcher<'_>, depends: &mut Vec<Range<u64>>) -> Flags {
    let mut budget = 24;
    look(pc, Flags::all(), &mut budget, f, depends)
}

/// Those of `unknown` that code at `at` may read. Every known path must be looked at, so running out of `budget` means "all of them".
fn look(
    mut at: u64,
    mut unknown: Flags,
    budget: &mut u32,
    f: &mut Fetcher<'_>,
    depends: &mut Vec<Range<u64>>,
) -> Flags {
    let mut needed = Flags::empty();
    loop {
        let from = at;
        // Straight on, then where to.
        let end = loop {
            if *budget == 0 {
                break None;
            }
            let Some((Traits { flags, flow, .. }, next, target)) = f.scan(at) else { break None };
            *budget -= 1;
            at = next;
            needed |= flags.reads & unknown;
            unknown &= !(flags.kills | flags.reads);
            if unknown.is_empty() || flow != FlowControl::Next {
                break Some((flow, target));
            }
        };
        add_range(depends, from..at);
        let Some(end) = end else { return needed | unknown };
        if unknown.is_empty() {
            return needed;
        }
        match end {
            (FlowControl::UnconditionalBranch | FlowControl::Call, Some(t)) => at = t,
            (FlowControl::ConditionalBranch, Some(t)) => {
                needed |= look(t, unknown, budget, f, depends);
                unknown &= !needed;
            }
            _ => return needed | unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::Bytes;

    #[test]
    fn an_instruction_has_at_most_15_bytes() {
        let nop = |prefixes: usize| {
            let mut b = vec![0x66; prefixes];
            b.extend([0x90, 0xc3, 0, 0, 0, 0]);
            Region::find(0x40_1000, Extent::Cold, &Bytes(0x40_1000, b)).unwrap().insts[0]
        };
        assert!(!nop(14).i.is_invalid());
        assert!(nop(15).i.is_invalid() && nop(15).too_long);
        // Not an instruction, but not for its length.
        let i = Region::find(0x40_1000, Extent::Cold, &Bytes(0x40_1000, vec![0x06; 20])).unwrap().insts[0];
        assert!(i.i.is_invalid() && !i.too_long);
    }

    #[test]
    fn a_cut_instruction_faults_where_it_goes_on() {
        // nop; mov rax, imm64 with two bytes of the constant.
        let code = Bytes(0x40_1000, vec![0x90, 0x48, 0xb8, 1, 2]);
        let region = Region::find(0x40_1000, Extent::Cold, &code).unwrap();
        assert_eq!(region.insts.len(), 1);
        assert!(region.insts[0].ends_run);
        assert_eq!(Region::find(0x40_1001, Extent::Cold, &code).unwrap_err(), TranslateError::Fetch(0x40_1005));
    }
}
