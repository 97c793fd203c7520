//! What may be assumed about a region before any code is emitted. Facts never change what code means, only how short it can be.
//!
//! Architecture invariant: lowering reads facts, never decides them.

pub mod fuse;
pub mod upper;
pub mod zero;

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
        let mut facts = Facts::default();
        facts.find_again(region, &mut Fetcher::new(code));
        facts
    }

    /// As [`Facts::of`], in the memory of earlier facts and through the fetcher that found the region.
    pub fn find_again(&mut self, region: &Region, fetcher: &mut Fetcher<'_>) {
        let facts = self;
        let n = region.insts.len();
        let insts = &region.insts[..n];
        for flags in [&mut facts.live_out, &mut facts.live_in, &mut facts.live_target, &mut facts.live_return] {
            flags.clear();
            flags.resize(n, Flags::empty());
        }
        facts.depends.clear();
        // Without a loop one pass, from the end, sees every successor before its user.
        let mut loops = false;
        // Successors outside the region do not change from pass to pass: look at them once.
        for at in region.exits.iter().map(|&at| usize::from(at)) {
            let x = &insts[at];
            let leaves = region.falls_to(at).is_none();
            if let Some(k) = x.inside {
                loops |= usize::from(k) <= at;
            } else if let Some(t) = x.target {
                facts.live_target[at] = flags_needed_at(t, fetcher, &mut facts.depends);
            }
            match x.flow {
                FlowControl::Call | FlowControl::IndirectCall if leaves => {
                    facts.live_return[at] = flags_needed_at(x.i.next_ip(), fetcher, &mut facts.depends);
                }
                FlowControl::Next | FlowControl::ConditionalBranch if leaves => {
                    facts.live_out[at] = flags_needed_at(x.i.next_ip(), fetcher, &mut facts.depends);
                }
                _ => {}
            }
            match x.flow {
                FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {}
                // The callee may hand flags on to the return point only if it leaves them alone; its entry was looked at.
                FlowControl::Call => {}
                _ => facts.live_out[at] = Flags::all(),
            }
        }
        facts.uppers = if loops { upper::named(region) } else { Vec::new() };
        let (live_out, live_in) = (&mut facts.live_out[..n], &mut facts.live_in[..n]);
        let live_target = &mut facts.live_target[..n];
        let mut again = true;
        while again {
            again = false;
            // Of the instruction that follows in the list.
            let mut next = Flags::empty();
            for at in (0..n).rev() {
                let x = &insts[at];
                let mut out = next;
                if x.flow != FlowControl::Next || x.ends_run {
                    out = live_out[at] | live_target[at];
                    if !x.ends_run && x.flow == FlowControl::ConditionalBranch {
                        out |= next;
                    }
                    if let Some(k) = x.inside {
                        let target = live_in[usize::from(k)];
                        live_target[at] = target;
                        out |= target;
                    }
                }
                live_out[at] = out;
                let live = out.difference(x.flags.kills) | x.flags.reads;
                again |= loops && live != live_in[at];
                live_in[at] = live;
                next = live;
            }
        }
        fuse::find(region, &facts.live_out, &mut facts.fuse, &mut facts.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::Bytes;
    use xrun_runtime::engine::Extent;

    /// What the head of a loop reads is live at the jump back to it, though that comes last.
    #[test]
    fn flags_live_round_a_loop() {
        // l: jbe e; cmp al, 2; jne l; e: ret
        let code = Bytes(0x40_1000, vec![0x76, 0x04, 0x3c, 0x02, 0x75, 0xfa, 0xc3]);
        let region = Region::find(0x40_1000, Extent::Loop, &code).unwrap();
        let facts = Facts::of(&region, &code);
        let jne = region.index_of(0x40_1004).unwrap();
        assert!(facts.live_target[jne].contains(Flags::C | Flags::Z));
        let cmp = region.index_of(0x40_1002).unwrap();
        assert!(facts.live_out[cmp].contains(Flags::C | Flags::Z));
    }
}
