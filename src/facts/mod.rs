//! What may be assumed about a region before any code is emitted. Facts never change what code means, only how short it can be.
//!
//! Architecture invariant: lowering reads facts, never decides them.

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
                    let live = facts.live_in[k];
                    if k <= at && facts.live_target[at] != live {
                        again = true;
                    }
                    facts.live_target[at] = live;
                }
                out |= facts.live_target[at];
                facts.live_out[at] = out;
                facts.live_in[at] = out.difference(x.flags.kills) | x.flags.reads;
            }
        }
        facts
    }
}
