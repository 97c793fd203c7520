//! What may be assumed about a region before any code is emitted. Facts never change what code means, only how short it can be.
//!
//! Architecture invariant: lowering reads facts, never decides them.

pub mod fuse;
pub mod upper;

pub use fuse::{Fuse, Known};

use crate::guest::region::{Fetcher, flags_needed_at};
use crate::guest::{Flags, Region};
use iced_x86::FlowControl;
use std::ops::Range;
use xrun_runtime::engine::GuestCode;

/// Facts about each instruction of a region, by index.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Flags something may read after the instruction, whichever way control goes.
    pub live_out: Vec<Flags>,
    /// Flags live before the instruction.
    pub live_in: Vec<Flags>,
    /// Flags live at the target of the direct branch at this index.
    pub live_target: Vec<Flags>,
    /// Flags live at the return point of the call at this index, when it is outside the region.
    pub live_return: Vec<Flags>,
    /// How each instruction is lowered.
    pub fuse: Vec<Fuse>,
    /// What is known of registers before each.
    pub known: Vec<Known>,
    /// YMM registers whose upper halves a loop works with, the most used first.
    pub uppers: Vec<u8>,
    /// Bytes outside the region that the facts were read from.
    pub depends: Vec<Range<u64>>,
}

impl Facts {
    /// Flag liveness, backward over the region, to a fixpoint over its loops.
    pub fn of(region: &Region, code: &dyn GuestCode) -> Facts {
        let n = region.insts.len();
        let mut facts = Facts {
            live_out: vec![Flags::empty(); n],
            live_in: vec![Flags::empty(); n],
            live_target: vec![Flags::empty(); n],
            live_return: vec![Flags::empty(); n],
            fuse: Vec::new(),
            known: Vec::new(),
            uppers: upper::named(region),
            depends: Vec::new(),
        };
        let mut fetcher = Fetcher::new(code);
        // Successors outside the region do not change from pass to pass: look at them once.
        let mut outside_next: Vec<Flags> = vec![Flags::empty(); n];
        let mut inside: Vec<Option<usize>> = vec![None; n];
        for (at, x) in region.insts.iter().enumerate() {
            if let Some(t) = x.target {
                match region.index_of(t) {
                    Some(k) if x.flow != FlowControl::Call => inside[at] = Some(k),
                    _ => facts.live_target[at] = flags_needed_at(t, &mut fetcher, &mut facts.depends),
                }
            }
            let flow = x.flow;
            if matches!(flow, FlowControl::Call | FlowControl::IndirectCall) && region.falls_to(at).is_none() {
                facts.live_return[at] = flags_needed_at(x.i.next_ip(), &mut fetcher, &mut facts.depends);
            }
            outside_next[at] = match flow {
                FlowControl::Next | FlowControl::ConditionalBranch if region.falls_to(at).is_none() => {
                    flags_needed_at(x.i.next_ip(), &mut fetcher, &mut facts.depends)
                }
                FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => Flags::empty(),
                // The callee may hand flags on to the return point only if it leaves them alone; its entry was looked at.
                FlowControl::Call => Flags::empty(),
                _ => Flags::all(),
            };
        }
        // Without a loop one pass, from the end, sees every successor before its user.
        let loops =
            (0..n).any(|at| inside[at].is_some_and(|k| k <= at) || region.falls_to(at).is_some_and(|k| k <= at));
        let mut again = true;
        while again {
            again = false;
            for at in (0..n).rev() {
                let x = &region.insts[at];
                let mut out = outside_next[at];
                let flow = x.flow;
                let falls = matches!(flow, FlowControl::Next | FlowControl::ConditionalBranch);
                if falls && let Some(next) = region.falls_to(at) {
                    out |= facts.live_in[next];
                }
                if let Some(k) = inside[at] {
                    facts.live_target[at] = facts.live_in[k];
                }
                out |= facts.live_target[at];
                facts.live_out[at] = out;
                let live = out.difference(x.flags.kills) | x.flags.reads;
                again |= loops && live != facts.live_in[at];
                facts.live_in[at] = live;
            }
        }
        (facts.fuse, facts.known) = fuse::find(region, &facts.live_out);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xrun_runtime::engine::Extent;

    struct Bytes(u64, &'static [u8]);

    impl GuestCode for Bytes {
        fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
            let from = addr.checked_sub(self.0).and_then(|o| self.1.get(o as usize..)).unwrap_or_default();
            let n = from.len().min(buf.len());
            buf[..n].copy_from_slice(&from[..n]);
            n
        }
    }

    /// What the head of a loop reads is live at the jump back to it, though that comes last.
    #[test]
    fn flags_live_round_a_loop() {
        // l: jbe e; cmp al, 2; jne l; e: ret
        let code = Bytes(0x40_1000, &[0x76, 0x04, 0x3c, 0x02, 0x75, 0xfa, 0xc3]);
        let region = Region::find(0x40_1000, Extent::Loop, &code).unwrap();
        let facts = Facts::of(&region, &code);
        let jne = region.index_of(0x40_1004).unwrap();
        assert!(facts.live_target[jne].contains(Flags::C | Flags::Z));
        let cmp = region.index_of(0x40_1002).unwrap();
        assert!(facts.live_out[cmp].contains(Flags::C | Flags::Z));
    }
}
