//! Leaving an instruction otherwise than by the next word: edges between regions, calls and returns with the shadow stack, indirect lookups, traps,
//! helpers, and the
//! cold code emitted after the main line.

use super::upper::Uppers;
use super::{CANONICAL, Cx, FlagState, LINK, Pa, SHADOW, STATE};
use crate::emit::{Addr, Label, Sz, X};
use crate::guest::Flags;
use iced_x86::FlowControl;
use std::mem::offset_of;
use xrun_runtime::abi::{self, Thunk};
use xrun_runtime::engine::{Entry, Exit, FlagForm, Trap};
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::CpuState;

type ColdFn<'a> = Box<dyn FnOnce(&mut Cx<'a>) + 'a>;

pub(super) enum Cold<'a> {
    Exit {
        label: Label,
        site: u32,
        target: u64,
        inside: Option<Label>,
    },
    Edge {
        label: Label,
        flags: FlagState,
        live: Flags,
        target: u64,
    },
    Trap {
        label: Label,
        pc: u64,
        trap: Trap,
        flags: FlagState,
    },
    Miss {
        label: Label,
        target: X,
        diff: X,
        hit: Hit,
        flags: FlagState,
    },
    Custom {
        label: Label,
        at: usize,
        flags: FlagState,
        uppers: Uppers,
        taken: (u8, u8, bool),
        f: ColdFn<'a>,
    },
    /// Emitted.
    Done,
}

/// Where an indirect branch goes when what it found matches.
#[derive(Clone, Copy)]
pub(super) enum Hit {
    /// Through the shadow stack.
    Return,
    /// To the entry in this register, from the lookup table.
    Entry(X),
}

impl<'a> Cx<'a> {
    /// Code run rarely: `f` is emitted after the region's main line, at a label this returns. It sees this instruction's flag form and may use scratch
    /// registers this instruction has not taken; it must end in a branch (back to a label, or a trap).
    pub fn cold(&mut self, f: impl FnOnce(&mut Cx<'a>) + 'a) -> Label {
        let label = self.m.label();
        let taken = (self.tmp, self.vtmp, self.homes_off);
        let (at, flags, uppers) = (self.at, self.flags, self.uppers);
        self.cold.push(Cold::Custom { label, at, flags, uppers, taken, f: Box::new(f) });
        label
    }

    /// As [`Cx::cold`], at a label that is in use already, for instruction `at` with these flags.
    pub(super) fn cold_at(&mut self, label: Label, at: usize, flags: FlagState, f: impl FnOnce(&mut Cx<'a>) + 'a) {
        let uppers = self.uppers;
        self.cold.push(Cold::Custom { label, at, flags, uppers, taken: (0, 0, false), f: Box::new(f) });
    }

    /// A label whose code raises `trap` at the current instruction.
    pub fn trap_label(&mut self, trap: Trap) -> Label {
        let label = self.m.label();
        let pc = self.region.insts[self.at].i.ip();
        self.cold.push(Cold::Trap { label, pc, trap, flags: self.flags });
        label
    }

    /// Raises `trap` here with `pc` as the guest address it reports.
    pub fn trap(&mut self, trap: Trap, pc: u64) {
        self.trap_with(trap, pc, 0);
    }

    /// As [`Cx::trap`], with an error code.
    pub fn trap_with(&mut self, trap: Trap, pc: u64, error: u16) {
        self.canonical(Flags::all());
        self.m.mov_imm(X(0), pc);
        self.m.mov_imm(X(1), trap as u64 | u64::from(error) << 32);
        self.thunk(Thunk::Trap, false);
    }

    /// `ldr x8, thunk; br/blr x8`.
    fn thunk(&mut self, t: Thunk, link: bool) {
        let off = offset_of!(CpuState, thunks) + 8 * t as usize;
        self.m.ldr(8, X(8), Addr::Off(STATE, off as i32));
        if link {
            self.m.blr(X(8));
        } else {
            self.m.br(X(8));
        }
    }

    /// Calls a helper with its arguments already in x0-x2. Flags must be in `Direct` form: call [`Cx::canonical`] first. Afterwards x0 is the
    /// result, x1-x9 and
    /// v0-v15 are garbage, guest registers are what the helper left.
    pub fn call_helper(&mut self, h: Helper) {
        debug_assert_eq!(self.flags, CANONICAL);
        self.m.movz(Sz::W, X(9), h as u16, 0);
        self.thunk(Thunk::Helper, true);
        self.homes_lost();
        self.forget_uppers();
    }

    /// Calls a helper that looks at its arguments only.
    pub fn call_pure(&mut self, h: Helper) {
        self.m.movz(Sz::W, X(9), h as u16, 0);
        self.thunk(Thunk::HelperPure, true);
        self.homes_lost();
    }

    /// SYSCALL, which goes on at `next`. RAX, RCX and R11 change.
    pub fn syscall(&mut self, next: u64) {
        self.canonical(Flags::all());
        self.m.mov_imm(X(0), next);
        self.thunk(Thunk::Syscall, true);
        let landing = self.m.label();
        self.land(landing, next);
    }

    /// A label to branch to, at the next word, for guest address `target`, with flags in the current form and `live` needed there.
    pub fn edge(&mut self, target: u64, live: Flags) -> Label {
        self.prepare_edge(target);
        let fix_pa = self.flags.pa != Pa::Stored && live.intersects(Flags::P | Flags::A);
        let fix_nzcv = match self.flags.form {
            FlagForm::Direct => false,
            FlagForm::CarryInverted => live.contains(Flags::C),
            FlagForm::FloatCompare => !live.is_empty(),
        };
        if fix_pa || fix_nzcv {
            let label = self.m.label();
            self.cold.push(Cold::Edge { label, flags: self.flags, live, target });
            return label;
        }
        self.direct(target)
    }

    /// Has what edges to `target` rely on in place: code that is to run on every way past a branch, so call it before one that skips the edge.
    pub fn prepare_edge(&mut self, target: u64) {
        if self.inside(target).is_some() {
            self.join_uppers(true);
        }
    }

    /// The instruction of the region at `target`.
    fn inside(&self, target: u64) -> Option<usize> {
        match self.region.insts.get(self.at) {
            // Found with the region.
            Some(x) if x.target == Some(target) && x.flow != FlowControl::Call => x.inside.map(usize::from),
            _ => self.region.index_of(target),
        }
    }

    /// The label for a branch at the next word to `target`: in the region, or an exit.
    fn direct(&mut self, target: u64) -> Label {
        let stub = self.m.label();
        let site = self.m.here();
        if !self.alone
            && let Some(k) = self.inside(target)
        {
            let inside = self.label_of(k);
            if k <= self.at {
                self.cold.push(Cold::Exit { label: stub, site, target, inside: Some(inside) });
            }
            return inside;
        }
        self.cold.push(Cold::Exit { label: stub, site, target, inside: None });
        stub
    }

    /// The label for a branch at the next word back to `again`, inside the loop of one instruction that can be left and started anew between its steps. The
    /// flags must be canonical, and all of the step's results written.
    pub fn step_again(&mut self, again: Label) -> Label {
        let site = self.m.here();
        let (label, target) = (self.m.label(), self.region.insts[self.at].i.ip());
        let inside = (!self.alone).then_some(again);
        self.cold.push(Cold::Exit { label, site, target, inside });
        inside.unwrap_or(label)
    }

    /// Goes to guest address `target` for good.
    pub fn jump(&mut self, target: u64, live: Flags) {
        self.canonical(live);
        if self.region.index_of(target).is_some() {
            self.join_uppers(true);
        }
        let l = self.direct(target);
        self.m.b(l);
    }

    /// The shadow-stack half of CALL: pushes {`ret`, where `landing` is}. `landing` must directly follow the BL or BLR.
    /// A return point that may read flags is marked [`abi::WANTS_FLAGS`].
    fn push_shadow(&mut self, ret: X, landing: Label) {
        let flags_at_return = match self.region.falls_to(self.at) {
            Some(next) => self.facts.live_in[next],
            None => self.facts.live_return[self.at],
        };
        let ret = if flags_at_return.is_empty() {
            ret
        } else {
            let t = self.tmp();
            self.m.orr_imm(Sz::X, t, ret, abi::WANTS_FLAGS);
            t
        };
        self.m.adr(LINK, landing);
        self.m.stp_pre(ret, LINK, SHADOW, -16);
    }

    /// Ends a direct CALL: `ret` holds the return address, already pushed on the guest's stack.
    pub fn call_direct(&mut self, target: u64, ret: X, ret_pc: u64) {
        let live = self.facts.live_target[self.at];
        self.canonical(live);
        let landing = self.m.label();
        self.push_shadow(ret, landing);
        let stub = self.m.label();
        let site = self.m.here();
        self.cold.push(Cold::Exit { label: stub, site, target, inside: None });
        self.m.bl(stub);
        self.land(landing, ret_pc);
    }

    /// Ends an indirect CALL to the address in `target`.
    pub fn call_indirect(&mut self, target: X, ret: X, ret_pc: u64) {
        let landing = self.m.label();
        self.push_shadow(ret, landing);
        self.lookup(target, true);
        self.land(landing, ret_pc);
    }

    fn land(&mut self, landing: Label, ret_pc: u64) {
        self.m.bind(landing);
        self.result.landings.push(Entry { guest: ret_pc, word: self.m.here() });
        self.flags = CANONICAL;
        self.forget_uppers();
        if self.region.falls_to(self.at).is_none() {
            self.at_end(ret_pc, Flags::all());
        }
    }

    /// Leaves to `next`, which does not follow in the region.
    #[inline(never)]
    pub(crate) fn at_end(&mut self, next: u64, live: Flags) {
        self.canonical(live);
        let stub = self.m.label();
        let site = self.m.here();
        self.cold.push(Cold::Exit { label: stub, site, target: next, inside: None });
        self.m.b(stub);
    }

    /// Jumps to the guest address in `target`: eight words through the shared lookup table. Entries that may read flags are marked [`abi::WANTS_FLAGS`] and
    /// match on the cold way only, which brings all flags first.
    pub fn jump_indirect(&mut self, target: X) {
        self.lookup(target, false);
    }

    fn lookup(&mut self, target: X, link: bool) {
        let miss = self.m.label();
        let (t, e) = (self.tmp(), self.tmp());
        self.cold.push(Cold::Miss { label: miss, target, diff: t, hit: Hit::Entry(e), flags: self.flags });
        self.m.ldr(8, t, Addr::Off(STATE, offset_of!(CpuState, lookup) as i32));
        self.m.ubfx(Sz::X, e, target, 0, abi::LOOKUP_BITS);
        self.m.ldr(4, e, Addr::Idx(t, e, 2));
        self.m.add(Sz::X, e, e, t);
        self.m.ldr(8, t, Addr::Off(e, -8));
        self.m.sub(Sz::X, t, t, target);
        self.m.cbnz(Sz::X, t, miss);
        if link {
            self.m.blr(e);
        } else {
            self.m.br(e);
        }
    }

    /// RET to the address in `target`, already popped: through the shadow stack.
    pub fn ret_to(&mut self, target: X) {
        let miss = self.m.label();
        let t = self.tmp();
        self.cold.push(Cold::Miss { label: miss, target, diff: t, hit: Hit::Return, flags: self.flags });
        self.m.ldp_post(t, LINK, SHADOW, 16);
        self.m.sub(Sz::X, t, t, target);
        self.m.cbnz(Sz::X, t, miss);
        self.m.ret(LINK);
    }

    /// Emits everything that was put off.
    pub(crate) fn finish_cold(&mut self) {
        self.out_of_line = true;
        let mut n = 0;
        while n < self.cold.len() {
            let c = std::mem::replace(&mut self.cold[n], Cold::Done);
            self.emit_cold(c);
            n += 1;
        }
    }

    fn emit_cold(&mut self, c: Cold<'a>) {
        match c {
            Cold::Done => {}
            Cold::Exit { label, site, target, inside } => {
                // The u64 after the BLR must be aligned to 8.
                if self.m.here() % 2 == 1 {
                    self.m.nop();
                }
                self.m.bind(label);
                let stub = self.m.here();
                self.thunk(Thunk::Direct, true);
                self.m.quad(target);
                let at = self.result.exits.len();
                self.result.exits.push(Exit { site, stub, target, inside: None });
                if let Some(l) = inside {
                    self.inside.push((at, l));
                }
            }
            Cold::Edge { label, flags, live, target } => {
                self.m.bind(label);
                self.flags = flags;
                self.tmp = 0;
                self.canonical(live);
                // Past the end, so that an edge to any instruction of the region counts as a back edge.
                self.at = self.region.insts.len();
                let l = self.direct(target);
                self.m.b(l);
            }
            Cold::Trap { label, pc, trap, flags } => {
                self.m.bind(label);
                self.flags = flags;
                self.trap(trap, pc);
            }
            Cold::Miss { label, target, diff, hit, flags } => {
                self.m.bind(label);
                self.flags = flags;
                // The lookup's own scratch registers are the first ones.
                self.tmp = abi::SCRATCH.len() as u8 - 1;
                let link = self.tmp();
                if matches!(hit, Hit::Return) {
                    // Canonical flags may take the link register.
                    self.m.mov(Sz::X, link, LINK);
                }
                self.tmp -= 2;
                self.canonical(Flags::all());
                let miss = self.m.label();
                self.m.eor_imm(Sz::X, diff, diff, abi::WANTS_FLAGS);
                self.m.cbnz(Sz::X, diff, miss);
                match hit {
                    Hit::Return => self.m.ret(link),
                    Hit::Entry(e) => self.m.br(e),
                }
                self.m.bind(miss);
                let thunk = match hit {
                    Hit::Return => Thunk::ReturnMiss,
                    Hit::Entry(_) => Thunk::Indirect,
                };
                if target != X(0) {
                    self.m.mov(Sz::X, X(0), target);
                }
                self.thunk(thunk, false);
            }
            Cold::Custom { label, at, flags, uppers, taken, f } => {
                self.m.bind(label);
                (self.tmp, self.vtmp, self.homes_off) = taken;
                self.at = at;
                self.flags = flags;
                self.uppers = uppers;
                self.mark();
                f(self);
            }
        }
    }
}
