//! A region: the instructions translated together from one entry, in address order, with the joins between them.
//!
//! Found by decoding forward from the entry: through conditional branches and calls, stopping at unconditional transfers and
//! going on at the lowest forward target seen, within a window. Backward jumps to instructions of the region make loops.
//! Invariant: instructions are sorted by address and do not overlap; `insts[0]` is the entry.

use super::flags::{FlagEffect, Flags};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use std::ops::Range;
use xrun_runtime::engine::{Extent, GuestCode, TranslateError};

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

/// The longest x86 instruction (SDM vol. 2, 2.3.11).
const MAX_LEN: usize = 15;

/// One decoded instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inst {
    pub i: Instruction,
    pub flags: FlagEffect,
    pub flow: FlowControl,
    /// Where a direct branch or call goes.
    pub target: Option<u64>,
    /// Reached by a jump inside the region: flags must be in canonical form here.
    pub join: bool,
    /// The next instruction in the list is not what follows: this one ends a run.
    pub ends_run: bool,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Region {
    pub entry: u64,
    pub insts: Vec<Inst>,
    /// Guest bytes read.
    pub depends: Vec<Range<u64>>,
    /// It lies in the vDSO.
    pub vdso: bool,
}

/// A window of guest bytes, moved as decoding goes on.
pub struct Fetcher<'a> {
    code: &'a dyn GuestCode,
    buf: [u8; 256],
    start: u64,
    len: usize,
}

impl<'a> Fetcher<'a> {
    pub fn new(code: &'a dyn GuestCode) -> Self {
        Fetcher { code, buf: [0; 256], start: 0, len: 0 }
    }

    /// The bytes from `pc` on: enough for one instruction, or all there are. Empty when not one can be fetched.
    fn at(&mut self, pc: u64) -> &[u8] {
        let have = pc.wrapping_sub(self.start);
        let inside = pc >= self.start && have < self.len as u64;
        if !inside || self.len - (have as usize) < MAX_LEN && self.len == self.buf.len() {
            self.len = self.code.fetch(pc, &mut self.buf);
            self.start = pc;
        }
        &self.buf[(pc - self.start) as usize..self.len]
    }
}

fn decoder(bytes: &[u8], pc: u64) -> Decoder<'_> {
    Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE)
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
        let mut f = Fetcher::new(code);
        let limit = limits(extent);
        let mut insts: Vec<Inst> = Vec::with_capacity(limit.insts);
        let mut targets: Vec<u64> = Vec::with_capacity(16);
        let mut pc = entry;
        let mut run = true;
        while run {
            let bytes = f.at(pc);
            if bytes.is_empty() {
                match insts.last_mut() {
                    None => return Err(TranslateError::Fetch(pc)),
                    Some(last) => last.ends_run = true,
                }
                // A jump to bytes that are not there: it leaves the region.
                targets.retain(|&t| t != pc);
            } else {
                // One decoder for as long as a whole instruction is certain to be in the window.
                let safe = bytes.len().saturating_sub(MAX_LEN);
                let mut decoder = decoder(bytes, pc);
                loop {
                    let mut x = Inst::default();
                    decoder.decode_out(&mut x.i);
                    x.flags = FlagEffect::of(&x.i);
                    let n = insts.len() + 1;
                    x.flow = x.i.flow_control();
                    x.target = near_target(&x.i, x.flow);
                    let full = n >= limit.insts || n >= limit.soft && x.flow != FlowControl::Next;
                    x.ends_run = ends_run(&x.i, x.flow) || full || x.i.is_invalid();
                    run = !full;
                    pc = pc.wrapping_add(x.i.len() as u64);
                    if let Some(t) = x.target
                        && x.flow != FlowControl::Call
                    {
                        targets.push(t);
                    }
                    let end = x.ends_run;
                    insts.push(x);
                    if end || decoder.position() > safe {
                        break;
                    }
                }
            }
            if run && insts.last().is_some_and(|x| x.ends_run) {
                if insts.last().is_some_and(|x| x.i.is_invalid()) {
                    break;
                }
                match targets.iter().copied().filter(|&t| t >= pc && t - entry < limit.window).min() {
                    Some(t) => pc = t,
                    None => run = false,
                }
            }
        }
        let mut depends: Vec<Range<u64>> = Vec::with_capacity(4);
        for x in &insts {
            let (a, b) = (x.i.ip(), x.i.ip().wrapping_add(x.i.len() as u64));
            match depends.last_mut() {
                Some(r) if r.end == a => r.end = b,
                _ => depends.push(a..b),
            }
        }
        let mut region = Region { entry, insts, depends, vdso: code.is_vdso(entry) };
        for t in targets {
            if let Some(at) = region.index_of(t) {
                region.insts[at].join = true;
            }
        }
        Ok(region)
    }

    /// The index of the instruction that starts at `pc`.
    pub fn index_of(&self, pc: u64) -> Option<usize> {
        self.insts.binary_search_by_key(&pc, |x| x.i.ip()).ok()
    }

    /// What follows instruction `at` when it does not branch: an index of this region, or nothing.
    pub fn falls_to(&self, at: usize) -> Option<usize> {
        (!self.insts[at].ends_run && at + 1 < self.insts.len()).then_some(at + 1)
    }
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
    let mut i = Instruction::default();
    loop {
        let bytes = f.at(at);
        if bytes.is_empty() {
            return needed | unknown;
        }
        let safe = bytes.len().saturating_sub(MAX_LEN);
        let mut decoder = decoder(bytes, at);
        let from = at;
        // Straight on as far as one decoder goes; then where to.
        let branch = loop {
            if *budget == 0 {
                return needed | unknown;
            }
            *budget -= 1;
            decoder.decode_out(&mut i);
            let e = FlagEffect::of(&i);
            at = at.wrapping_add(i.len() as u64);
            needed |= e.reads & unknown;
            unknown &= !(e.kills | e.reads);
            let flow = i.flow_control();
            if unknown.is_empty() || flow != FlowControl::Next || decoder.position() > safe {
                break flow;
            }
        };
        match depends.last_mut() {
            Some(r) if r.end == from => r.end = at,
            _ => depends.push(from..at),
        }
        if unknown.is_empty() {
            return needed;
        }
        match (branch, near_target(&i, branch)) {
            (FlowControl::Next, _) => {}
            (FlowControl::UnconditionalBranch | FlowControl::Call, Some(t)) => at = t,
            (FlowControl::ConditionalBranch, Some(t)) => {
                needed |= look(t, unknown, budget, f, depends);
                unknown &= !needed;
            }
            _ => return needed | unknown,
        }
    }
}
