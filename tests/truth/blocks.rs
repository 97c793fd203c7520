//! Programs of one or many instructions, with branches between them, that can be changed and assembled again: what the
//! random tester makes, and what its shrinker takes apart.

use super::feature::other_maker;
use super::forms::{self, Pointers};
use super::mask::{self, Undefined};
use super::state::{Outcome, State};
use super::{CODE_MAX, RECORDER, START, WINDOW, values};
use fastrand::Rng;
use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// One instruction. `target` is the item a branch goes to (or a RIP-relative LEA points at); the number of items means the end.
#[derive(Clone, Debug)]
pub struct Item {
    pub instruction: Instruction,
    pub target: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Program {
    pub items: Vec<Item>,
}

/// A program's bytes, and where each item starts (one more entry for the end).
pub struct Assembled {
    pub code: Vec<u8>,
    pub starts: Vec<u64>,
}

impl Program {
    /// Whether every way through ends: jumps go forward, except a counted loop's.
    fn ends(&self) -> bool {
        let counter = |n: usize, set: bool| {
            self.items.get(n).is_some_and(|i| {
                let i = &i.instruction;
                i.op0_kind() == OpKind::Register
                    && i.op0_register().full_register() == Register::R15
                    && if set {
                        i.code() == Code::Mov_r32_imm32
                    } else {
                        matches!(i.code(), Code::Dec_rm32 | Code::Sub_rm64_imm8)
                    }
            })
        };
        // A jump into a loop past where its counter is set.
        let into = |n: usize, t: usize| {
            self.items.iter().enumerate().any(|(b, back)| {
                back.target
                    .is_some_and(|top| top <= b && (n + 1 < top && t >= top && t <= b || n > b && t <= b && t > top))
            })
        };
        // A jump by a register, which the LEA before it sets, must not be reached but by that.
        let by_register =
            |n: usize| self.items.get(n).is_some_and(|i| i.instruction.flow_control() == FlowControl::IndirectBranch);
        self.items.iter().enumerate().all(|(n, item)| match item.target {
            _ if self.items.len() > 1 && by_register(n) => {
                n > 0
                    && self.items[n - 1].target.is_some_and(|t| t > n)
                    && self.items[n - 1].instruction.mnemonic() == Mnemonic::Lea
            }
            Some(t) if into(n, t) || by_register(t) => false,
            None => true,
            Some(t) if item.instruction.mnemonic() == Mnemonic::Lea => t > n + 1,
            Some(t) => t > n || t > 0 && n > 0 && counter(n - 1, false) && counter(t - 1, true),
        })
    }

    /// `None` when something has no encoding, or the program might not end.
    pub fn assemble(&self) -> Option<Assembled> {
        if !self.ends() {
            return None;
        }
        let mut starts = vec![START; self.items.len() + 1];
        // Lengths do not depend on the distance, except that a short branch may not reach: two rounds settle it.
        for _ in 0..2 {
            let mut code = Vec::new();
            let mut next = Vec::with_capacity(starts.len());
            for item in &self.items {
                let ip = START + code.len() as u64;
                next.push(ip);
                let mut i = item.instruction;
                if let Some(t) = item.target {
                    let to = *starts.get(t)?;
                    if i.op0_kind() == OpKind::NearBranch64 {
                        i.set_near_branch64(to)
                    } else {
                        i.set_memory_displacement64(to)
                    }
                }
                code.extend(forms::encode(&i, ip)?);
            }
            next.push(START + code.len() as u64);
            if next == starts && code.len() <= CODE_MAX {
                return Some(Assembled { code, starts });
            }
            starts = next;
        }
        let mut code = Vec::new();
        for (item, &ip) in self.items.iter().zip(&starts) {
            let mut i = item.instruction;
            if let Some(t) = item.target {
                let to = *starts.get(t)?;
                if i.op0_kind() == OpKind::NearBranch64 {
                    i.set_near_branch64(to)
                } else {
                    i.set_memory_displacement64(to)
                }
            }
            if START + code.len() as u64 != ip {
                return None;
            }
            code.extend(forms::encode(&i, ip)?);
        }
        (code.len() <= CODE_MAX).then_some(Assembled { code, starts })
    }

    /// The first `n` items; jumps past them go to their end.
    pub fn first(&self, n: usize) -> Self {
        let mut p = self.clone();
        p.items.truncate(n);
        for item in &mut p.items {
            item.target = item.target.map(|t| t.min(n));
        }
        p
    }

    /// The program without item `n`.
    pub fn without(&self, n: usize) -> Self {
        let mut p = self.clone();
        p.items.remove(n);
        for item in &mut p.items {
            if let Some(t) = &mut item.target
                && *t > n
            {
                *t -= 1;
            }
        }
        p
    }

    /// For each item (and the end) the bits undefined when it starts; `None` when some item reads one, or makes a value
    /// that is itself undefined. `state` tells the shift count of a program of one instruction.
    pub fn undefined(&self, state: &State) -> Option<Vec<Undefined>> {
        let n = self.items.len();
        let mut before = vec![Undefined::default(); n + 1];
        let cl = (n == 1).then_some(state.gpr[1] as u32 & 0xff);
        for _ in 0..3 {
            for k in 0..n {
                let item = &self.items[k];
                let after = before[k].after(&item.instruction, cl);
                if !matches!(item.instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::Return) {
                    before[k + 1] = before[k + 1].join(after);
                }
                if let Some(t) = item.target {
                    before[t] = before[t].join(after);
                }
                if item.instruction.flow_control() == FlowControl::Return {
                    // Returns to after some call; which one is not followed.
                    for (c, call) in self.items.iter().enumerate() {
                        if call.instruction.flow_control() == FlowControl::Call {
                            before[c + 1] = before[c + 1].join(after);
                        }
                    }
                }
            }
        }
        let bad = |k: usize| {
            before[k].read_by(&self.items[k].instruction) || mask::undefined_value(&self.items[k].instruction, cl)
        };
        if (0..n).any(bad) { None } else { Some(before) }
    }

    /// The undefined bits of an outcome.
    pub fn undefined_at(&self, state: &State, assembled: &Assembled, outcome: &Outcome) -> Option<Undefined> {
        let rip = outcome.state.rip;
        const SI_KERNEL: i32 = 128;
        let here = assembled.starts.iter().position(|&s| s == rip).and_then(|k| self.items.get(k));
        if outcome.fault.is_some_and(|f| f.code == SI_KERNEL)
            && here.is_some_and(|h| mask::non_canonical(&h.instruction, &outcome.state))
        {
            return None;
        }
        // The CPU looks at a branch's target before it goes there, the translator when it has come there, and bit 63 of it never.
        let jumps = |i: &Instruction| {
            use FlowControl::{IndirectBranch, IndirectCall, Return};
            matches!(i.flow_control(), Return | IndirectBranch | IndirectCall)
        };
        if outcome.fault.is_some_and(|f| f.code == SI_KERNEL) && here.is_some_and(|h| jumps(&h.instruction)) {
            return None;
        }
        if outcome.fault.is_some_and(|f| f.addr & !0xfff == RECORDER) {
            return None;
        }
        // Which of two faults of one instruction comes first is each CPU's own (SDM vol. 3, 7.9): for a conversion that stores, an exception Intel's CPUs
        // find before the store as the translator does, AMD's after it.
        let converts = |i: &Instruction| i.mnemonic() == Mnemonic::Vcvtps2ph && i.op0_kind() == OpKind::Memory;
        let unmasked = state.mxcsr & 0x1f80 != 0x1f80;
        if outcome.fault.is_some() && unmasked && here.is_some_and(|h| converts(&h.instruction)) && other_maker() {
            return None;
        }
        let fault = outcome.fault.is_some_and(|f| matches!(f.signal, 7 | 8 | 11));
        let before = self.undefined(state)?;
        let mut u = Undefined::default();
        // At a fault, flags that no later instruction could have read may be gone, and so may those that a read-modify-write
        // instruction would have overwritten when its write faults after its read: going on from there cannot tell.
        if fault {
            let at = assembled.starts.iter().position(|&s| s == rip).and_then(|k| self.items.get(k));
            u.flags = match at {
                Some(item) if self.items.len() == 1 => mask::written(&item.instruction),
                _ => mask::STATUS,
            };
        }
        if fault && let Some(h) = here {
            u = u.join(mask::half_done(&h.instruction));
        }
        for (k, &start) in assembled.starts.iter().enumerate() {
            // A trap leaves rip behind the instruction, a fault on it; both neighbours' bits are left out.
            if start == rip {
                u = u.join(before[k]);
            }
        }
        if !assembled.starts.contains(&rip) {
            u = before.iter().fold(u, |u, &b| u.join(b));
        }
        Some(u)
    }
}

/// One instruction of form `code`, and a state for it.
pub fn single(code: Code, rng: &mut Rng) -> Option<(Program, State)> {
    for _ in 0..50 {
        let mut state = values::state(rng);
        if rng.u8(..4) == 0 {
            // Equal operands are an edge of their own.
            let v = state.gpr[rng.usize(..16)];
            state.gpr[rng.usize(..4)] = v;
            state.xmm[rng.usize(..16)] = state.xmm[rng.usize(..16)];
        }
        let Some(i) = forms::build(code, rng, &mut Pointers::Free(&mut state), START) else { continue };
        let branch = i.op0_kind() == OpKind::NearBranch64;
        let mut items = vec![Item { instruction: i, target: branch.then_some(1) }];
        if branch {
            // Taken or not must show: not taken meets a MOV that changes a register.
            let n = if matches!(i.mnemonic(), Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz) {
                3
            } else {
                0
            };
            let mark = Instruction::with2(Code::Mov_r32_imm32, forms::gpr(n, 32), 0x1234_5678).ok()?;
            items.push(Item { instruction: mark, target: None });
            items[0].target = Some(2);
            if matches!(
                i.mnemonic(),
                Mnemonic::Jecxz | Mnemonic::Jrcxz | Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne
            ) && rng.bool()
            {
                state.gpr[1] &= rng.u64(..2) | !0xffff_ffff;
            }
        }
        let program = Program { items };
        if program.assemble().is_some() && program.undefined(&state).is_some() {
            return Some((program, state));
        }
    }
    None
}

/// A program of up to `max` instructions drawn from `pool`, with forward branches, counted loops and calls, and its state.
pub fn block(pool: &[Code], max: usize, rng: &mut Rng) -> Option<(Program, State)> {
    let mut state = values::state(rng);
    let mut info = InstructionInfoFactory::new();
    // Registers that hold addresses (or a small index, or a loop counter) and stay put.
    let mut names: Vec<usize> = (0..15).filter(|&n| n != 4 && n != 1).collect();
    rng.shuffle(&mut names);
    let mut fixed: Vec<(usize, u64)> = names[..3].iter().map(|&n| (n, WINDOW + (rng.u64(0x40..0x380) & !7))).collect();
    fixed.push((names[3], rng.u64(..8)));
    fixed.push((4, state.gpr[4]));
    for &(n, v) in &fixed {
        state.gpr[n] = v;
    }
    let counter = 15;
    let kept = |n: usize| n == counter || fixed.iter().any(|f| f.0 == n);

    let mut program = Program::default();
    let length = rng.usize(2..=max.max(2));
    let mut tries = 0;
    let draw = |rng: &mut Rng, info: &mut InstructionInfoFactory, program: &mut Program| -> bool {
        let code = pool[rng.usize(..pool.len())];
        let Some(i) = forms::build(code, rng, &mut Pointers::Fixed { base: &fixed }, START) else { return false };
        if !allowed_in_block(&i, rng) {
            return false;
        }
        let string = i.is_string_instruction();
        if string && !(kept(6) && kept(7)) {
            return false;
        }
        let writes_kept = info.info(&i).used_registers().iter().any(|u| {
            let write =
                !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None);
            let full = u.register().full_register();
            let n = (full as u32).wrapping_sub(Register::RAX as u32) as usize;
            let stack = n == 4
                && i.is_stack_instruction()
                && !(0..i.op_count())
                    .any(|op| i.op_kind(op) == OpKind::Register && i.op_register(op).full_register() == Register::RSP);
            let moves = string && matches!(n, 6 | 7);
            write && n < 16 && kept(n) && !stack && !moves
        });
        if writes_kept || forms::encode(&i, START).is_none() {
            return false;
        }
        program.items.push(Item { instruction: i, target: None });
        true
    };
    while program.items.len() < length && tries < 400 {
        tries += 1;
        match rng.u8(..24) {
            0 | 1 => {
                // A forward branch over a few instructions.
                const JCC: &[Code] = &[
                    Code::Jo_rel8_64,
                    Code::Jno_rel8_64,
                    Code::Jb_rel8_64,
                    Code::Jae_rel8_64,
                    Code::Je_rel8_64,
                    Code::Jne_rel8_64,
                    Code::Jbe_rel8_64,
                    Code::Ja_rel8_64,
                    Code::Js_rel8_64,
                    Code::Jns_rel8_64,
                    Code::Jp_rel8_64,
                    Code::Jnp_rel8_64,
                    Code::Jl_rel8_64,
                    Code::Jge_rel8_64,
                    Code::Jle_rel8_64,
                    Code::Jg_rel8_64,
                    Code::Jrcxz_rel8_64,
                    Code::Jmp_rel8_64,
                ];
                let Ok(i) = Instruction::with_branch(JCC[rng.usize(..JCC.len())], START) else { continue };
                let target = program.items.len() + 1 + rng.usize(1..5);
                program.items.push(Item { instruction: i, target: Some(target) });
            }
            2 if program.items.len() + 6 < length => {
                // A counted loop: MOV counter, n; body; SUB or DEC; JNZ.
                let Ok(set) = Instruction::with2(Code::Mov_r32_imm32, Register::R15D, rng.u32(1..6)) else { continue };
                program.items.push(Item { instruction: set, target: None });
                let top = program.items.len();
                for _ in 0..rng.usize(1..6) {
                    draw(rng, &mut info, &mut program);
                }
                let step = if rng.bool() {
                    Instruction::with1(Code::Dec_rm32, Register::R15D)
                } else {
                    Instruction::with2(Code::Sub_rm64_imm8, Register::R15, 1)
                };
                let (Ok(step), Ok(back)) = (step, Instruction::with_branch(Code::Jne_rel32_64, START)) else {
                    continue;
                };
                program.items.push(Item { instruction: step, target: None });
                program.items.push(Item { instruction: back, target: Some(top) });
            }
            3 if program.items.len() + 6 < length => {
                // CALL over a JMP to a short function that returns.
                let Ok(call) = Instruction::with_branch(Code::Call_rel32_64, START) else { continue };
                let Ok(jmp) = Instruction::with_branch(Code::Jmp_rel32_64, START) else { continue };
                let at = program.items.len();
                program.items.push(Item { instruction: call, target: Some(at + 2) });
                program.items.push(Item { instruction: jmp, target: None });
                for _ in 0..rng.usize(1..4) {
                    if draw(rng, &mut info, &mut program)
                        && program.items.last().is_some_and(|l| l.instruction.is_stack_instruction())
                    {
                        program.items.pop();
                    }
                }
                program.items.push(Item { instruction: Instruction::with(Code::Retnq), target: None });
                let end = program.items.len();
                program.items[at + 1].target = Some(end);
            }
            4 if program.items.len() + 4 < length => {
                // LEA of a later place; JMP register.
                let n = names[4];
                let lea = Instruction::with2(
                    Code::Lea_r64_m,
                    forms::gpr(n, 64),
                    iced_x86::MemoryOperand::with_base_displ(Register::RIP, START as i64),
                );
                let (Ok(lea), Ok(jmp)) = (lea, Instruction::with1(Code::Jmp_rm64, forms::gpr(n, 64))) else { continue };
                let at = program.items.len();
                program.items.push(Item { instruction: lea, target: Some(at + 2 + rng.usize(..3)) });
                program.items.push(Item { instruction: jmp, target: None });
            }
            _ => {
                draw(rng, &mut info, &mut program);
            }
        }
    }
    let end = program.items.len();
    for item in &mut program.items {
        if let Some(t) = &mut item.target {
            *t = (*t).min(end);
        }
    }
    // A program that reads an undefined flag loses the instructions that do.
    while program.undefined(&state).is_none() {
        let n = program.items.len();
        if n == 0 {
            return None;
        }
        let reader = (0..n).find(|&k| {
            let mut head = program.clone();
            head.items.truncate(k + 1);
            for item in &mut head.items {
                if let Some(t) = &mut item.target {
                    *t = (*t).min(k + 1);
                }
            }
            head.undefined(&state).is_none()
        });
        program = program.without(reader.unwrap_or(n - 1));
    }
    (program.assemble().is_some() && !program.items.is_empty()).then_some((program, state))
}

/// Left out of blocks, because their operands need a state made for them alone: they are tested one by one.
fn allowed_in_block(i: &Instruction, rng: &mut Rng) -> bool {
    use Mnemonic::*;
    if i.flow_control() != FlowControl::Next {
        return false;
    }
    match i.mnemonic() {
        Enter | Leave | Maskmovq | Maskmovdqu | Vmaskmovdqu | Xlatb | Ud2 | Popf | Popfd | Popfq | Ldmxcsr
        | Vldmxcsr | Fldcw | Fldenv | Frstor | Fxrstor | Fxrstor64 => false,
        Div | Idiv => rng.u8(..10) == 0,
        Bt | Bts | Btr | Btc => !(i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register),
        _ => !(i.has_rep_prefix() || i.has_repne_prefix()) || !i.is_string_instruction(),
    }
}
