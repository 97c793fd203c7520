//! Which instructions are lowered together, and what is known of registers where it makes code shorter. Looks at register operands only, in straight
//! runs without joins; knows nothing of how anything is lowered.
//!
//! - A register copy whose target's next use is a two-operand instruction on it: `mov a, b; ..; op a, c`. The copy is left out, and the operation reads `b`.
//!   Nothing in between may touch `a`, write `b`, or be able to fault, so that nobody can see that the copy was not made yet.
//! - A comparison with zero, or a test of one bit, and the conditional branch after it, when no other flag is asked for.
//! - SETcc and the MOVZX of its result; SETcc into a register known to be zero.
//! - Division with RDX known to extend RAX. Two pushes, two pops.

use crate::guest::{Flags, Region, Role};
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// How an instruction is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fuse {
    #[default]
    Alone,
    /// A copy left out: what it copied is read from its source by a later instruction.
    Deferred,
    /// Reads the second register where it would read the first, the target of a deferred copy.
    Reads(Register, Register),
    /// Together with the conditional branch that follows.
    WithBranch,
    /// SETcc with the MOVZX of its destination that follows.
    SetWiden,
    /// Two pushes, or two pops, of 64-bit registers.
    Pair,
    /// Lowered with the one before.
    Done,
}

/// What is known before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Known {
    #[default]
    Nothing,
    /// RDX is 0 (of the operand's size).
    HighZero,
    /// RDX is the sign extension of RAX.
    HighSign,
    /// The destination's whole register is 0.
    Zero,
}

/// How far ahead the use of a copy, or back the source of a fact, is looked for.
const WINDOW: usize = 4;

/// Marks for every instruction of `region`. `live_out` is the flags live after each.
pub fn find(region: &Region, live_out: &[Flags], fuse: &mut Vec<Fuse>, known: &mut Vec<Known>) {
    let n = region.insts.len();
    fuse.clear();
    fuse.resize(n, Fuse::Alone);
    known.clear();
    known.resize(n, Known::Nothing);
    for (at, x) in region.insts.iter().enumerate() {
        let (i, role) = (&x.i, x.role);
        match role {
            // Most instructions are none of these.
            Role::Other | Role::Nop => continue,
            Role::Move if i.op1_kind() != OpKind::Register || i.op0_kind() != OpKind::Register => continue,
            Role::Divide => known[at] = dividend(region, at),
            Role::Set if zero_before(region, at) => known[at] = Known::Zero,
            _ => {}
        }
        if fuse[at] != Fuse::Alone {
            continue;
        }
        let Some(next) = region.falls_to(at).filter(|&k| !region.insts[k].join) else {
            continue;
        };
        let j = &region.insts[next].i;
        match role {
            Role::Move => {
                if let Some(k) = use_of_copy(region, at, fuse) {
                    fuse[at] = Fuse::Deferred;
                    fuse[k] = Fuse::Reads(i.op0_register().full_register(), i.op1_register().full_register());
                }
            }
            Role::Compare
                if region.insts[next].flow == FlowControl::ConditionalBranch && branch_on(i, j, live_out[next]) =>
            {
                (fuse[at], fuse[next]) = (Fuse::WithBranch, Fuse::Done);
            }
            Role::Stack if region.insts[next].role == Role::Stack && pair(i, j) => {
                (fuse[at], fuse[next]) = (Fuse::Pair, Fuse::Done);
            }
            Role::Set if widens(i, j) => (fuse[at], fuse[next]) = (Fuse::SetWiden, Fuse::Done),
            _ => {}
        }
    }
}

fn is_register(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr()
}

/// Full register of operand `n`, if it is a 32- or 64-bit general one.
fn whole(i: &Instruction, n: u32) -> Option<Register> {
    (is_register(i, n) && i.op_register(n).size() >= 4).then(|| i.op_register(n).full_register())
}

/// Plain computations on registers and constants: no memory, no fault, first operand written (or only flags), the others only read.
pub fn is_simple(i: &Instruction) -> bool {
    use Mnemonic::*;
    let known = matches!(
        i.mnemonic(),
        Mov | Movzx
            | Movsx
            | Movsxd
            | Lea
            | Add
            | Sub
            | And
            | Or
            | Xor
            | Shl
            | Shr
            | Sar
            | Neg
            | Not
            | Inc
            | Dec
            | Cmp
            | Test
    ) || i.mnemonic() == Imul && i.op_count() > 1;
    let memory = i.mnemonic() != Lea && (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    known && !memory && (0..i.op_count()).all(|n| i.op_kind(n) != OpKind::Register || i.op_register(n).is_gpr())
}

fn touches(i: &Instruction, r: Register) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).full_register() == r)
        || i.memory_base().full_register() == r
        || i.memory_index().full_register() == r
}

fn writes(i: &Instruction, r: Register) -> bool {
    !matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) && i.op0_register().full_register() == r
}

/// The instruction that can read the source of the copy at `at` itself.
fn use_of_copy(region: &Region, at: usize, fuse: &[Fuse]) -> Option<usize> {
    let i = &region.insts[at].i;
    let (to, from) = (whole(i, 0)?, whole(i, 1)?);
    let bytes = i.op0_register().size();
    if to == from {
        return None;
    }
    let mut k = at;
    for _ in 0..WINDOW {
        k = region.falls_to(k).filter(|&k| !region.insts[k].join)?;
        let j = &region.insts[k].i;
        if !is_simple(j) {
            return None;
        }
        if whole(j, 0) == Some(to) {
            return (fuse[k] == Fuse::Alone && takes_copy(j, to, bytes)).then_some(k);
        }
        if touches(j, to) || writes(j, from) {
            return None;
        }
    }
    None
}

/// Whether `j`, which writes `to`, also reads it as its first source and nowhere else, at no more than `bytes`.
fn takes_copy(j: &Instruction, to: Register, bytes: usize) -> bool {
    use Mnemonic::*;
    if j.op0_register().size() > bytes {
        return false;
    }
    let other_is = |n: u32| is_register(j, n) && j.op_register(n).full_register() == to;
    match j.mnemonic() {
        Add | Sub | And | Or | Xor => !other_is(1),
        Imul => j.op_count() == 2 && !other_is(1),
        Shl | Shr | Sar => {
            let mask = if j.op0_register().size() == 8 { 63 } else { 31 };
            if is_register(j, 1) { to != Register::RCX } else { j.immediate(1) & mask != 0 }
        }
        Neg | Not => true,
        _ => false,
    }
}

/// A comparison whose only reader is the branch `j` after it, and which is one bit or zero-or-not.
fn branch_on(i: &Instruction, j: &Instruction, after: Flags) -> bool {
    use ConditionCode as C;
    if !after.is_empty() && i.mnemonic() != Mnemonic::Bt || !j.is_jcc_short_or_near() {
        return false;
    }
    let cc = j.condition_code();
    if i.mnemonic() == Mnemonic::Bt {
        // Only CF is its own; the others stay as they are.
        return is_register(i, 0)
            && i.op0_register().size() >= 4
            && !after.contains(Flags::C)
            && matches!(cc, C::b | C::ae);
    }
    let equal = matches!(cc, C::e | C::ne);
    let sign = matches!(cc, C::s | C::ns | C::l | C::ge);
    let memory = i.op0_kind() == OpKind::Memory;
    if !memory && !is_register(i, 0) {
        return false;
    }
    let constant = i.op1_kind() != OpKind::Register && i.op1_kind() != OpKind::Memory;
    let bytes = if memory { i.memory_size().size() } else { i.op0_register().size() };
    if i.mnemonic() == Mnemonic::Cmp {
        let zero = constant && i.immediate(1) == 0;
        return zero && (bytes >= 4 && (equal || sign) || memory && equal);
    }
    if constant {
        let mask = if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
        return equal && (i.immediate(1) & mask).is_power_of_two();
    }
    let same = !memory && i.op1_register() == i.op0_register();
    same && (bytes >= 4 && equal || sign)
}

fn widens(i: &Instruction, j: &Instruction) -> bool {
    j.mnemonic() == Mnemonic::Movzx
        && is_register(i, 0)
        && is_register(j, 1)
        && j.op1_register() == i.op0_register()
        && whole(j, 0) == Some(i.op0_register().full_register())
}

fn pair(i: &Instruction, j: &Instruction) -> bool {
    let plain =
        |i: &Instruction| is_register(i, 0) && i.op0_register().size() == 8 && i.op0_register() != Register::RSP;
    i.mnemonic() == j.mnemonic()
        && plain(i)
        && plain(j)
        && (i.mnemonic() == Mnemonic::Push || i.op0_register() != j.op0_register())
}

/// The instructions before `at` in its run, last first, as far back as nothing jumps in between and at most `window`.
fn before(region: &Region, at: usize, window: usize) -> impl Iterator<Item = &Instruction> {
    (0..at)
        .rev()
        .take(window)
        .take_while(move |&k| region.falls_to(k) == Some(k + 1) && !region.insts[k + 1].join)
        .map(|k| &region.insts[k].i)
}

fn dividend(region: &Region, at: usize) -> Known {
    let bytes = {
        let i = &region.insts[at].i;
        if i.op0_kind() == OpKind::Memory { i.memory_size().size() } else { i.op0_register().size() }
    };
    if bytes < 4 {
        return Known::Nothing;
    }
    let mut rax_changed = false;
    for i in before(region, at, 4 * WINDOW) {
        match i.mnemonic() {
            Mnemonic::Cqo if bytes == 8 && !rax_changed => return Known::HighSign,
            Mnemonic::Cdq if bytes == 4 && !rax_changed => return Known::HighSign,
            Mnemonic::Xor | Mnemonic::Sub
                if whole(i, 0) == Some(Register::RDX)
                    && i.op1_kind() == OpKind::Register
                    && i.op1_register() == i.op0_register() =>
            {
                return Known::HighZero;
            }
            Mnemonic::Mov
                if whole(i, 0) == Some(Register::RDX)
                    && i.op1_kind() == OpKind::Immediate32
                    && i.immediate32() == 0 =>
            {
                return Known::HighZero;
            }
            _ => {}
        }
        // A load is as good as a register here.
        let harmless = is_simple(i)
            || matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd);
        if !harmless || writes(i, Register::RDX) {
            return Known::Nothing;
        }
        rax_changed |= writes(i, Register::RAX);
    }
    Known::Nothing
}

/// Whether the whole of `r` is overwritten soon after instruction `at`, with nothing in between that reads it or could be stopped at.
pub fn dead_after(region: &Region, at: usize, r: Register) -> bool {
    let mut k = at;
    for _ in 0..WINDOW {
        let Some(next) = region.falls_to(k) else { return false };
        k = next;
        let i = &region.insts[k].i;
        if !is_simple(i) {
            return false;
        }
        let reads = (1..i.op_count())
            .any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).full_register() == r)
            || i.memory_base().full_register() == r
            || i.memory_index().full_register() == r;
        let moves = matches!(
            i.mnemonic(),
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd | Mnemonic::Lea
        );
        if moves && whole(i, 0) == Some(r) && !reads {
            return true;
        }
        if touches(i, r) {
            return false;
        }
    }
    false
}

/// SETcc's register was zeroed shortly before and not touched since.
fn zero_before(region: &Region, at: usize) -> bool {
    let i = &region.insts[at].i;
    if !is_register(i, 0) || high_byte(i.op0_register()) {
        return false;
    }
    let r = i.op0_register().full_register();
    for i in before(region, at, WINDOW) {
        if touches(i, r) {
            let zeroed = i.mnemonic() == Mnemonic::Xor
                && i.op1_kind() == OpKind::Register
                && i.op0_register() == i.op1_register();
            let moved = i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Immediate32 && i.immediate32() == 0;
            if whole(i, 0) == Some(r) && (zeroed || moved) {
                return true;
            }
            // Reading it changes nothing.
            if !matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
                return false;
            }
        } else if !is_simple(i) && !matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Mov) {
            return false;
        }
    }
    false
}

fn high_byte(r: Register) -> bool {
    matches!(r, Register::AH | Register::BH | Register::CH | Register::DH)
}
