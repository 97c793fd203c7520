//! Integer arithmetic and logic: ADD ADC SUB SBB CMP AND OR XOR TEST INC DEC NEG NOT ANDN (SDM vol. 2), all widths, register, memory and LOCK forms.
//!
//! 32- and 64-bit operations set NZCV by AArch64's own flag-setting forms. 8- and 16-bit ones work on operands shifted to the top
//! of a 32-bit register, so that N, Z, C and V come out right, unless fewer flags are asked for and a shorter way gives those.
//! Forms that read a flag and write memory set flags after the store, so that a fault leaves what a retry reads.

use super::Lowered;
use super::cx::{AF, AfFrom, Cx, Ext, PF, Place, mask, sz};
use crate::emit::imm::{fits_add, fits_logical};
use crate::emit::int::Lse;
use crate::emit::{Cond, Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::abi;
use xrun_runtime::engine::FlagForm;

rows! { "alu";
    Add => |cx, i| arith(cx, i, Arith::Add, true),
    Adc => |cx, i| arith(cx, i, Arith::Adc, true),
    Sub => |cx, i| arith(cx, i, Arith::Sub, true),
    Sbb => |cx, i| arith(cx, i, Arith::Sbb, true),
    Cmp => |cx, i| arith(cx, i, Arith::Sub, false),
    And => |cx, i| logic(cx, i, Logic::And, true),
    Or => |cx, i| logic(cx, i, Logic::Or, true),
    Xor => |cx, i| logic(cx, i, Logic::Xor, true),
    Test => |cx, i| logic(cx, i, Logic::And, false),
    Inc => |cx, i| step(cx, i, Arith::Add),
    Dec => |cx, i| step(cx, i, Arith::Sub),
    Neg => |cx, i| neg(cx, i),
    Not => |cx, i| not(cx, i),
    Andn => |cx, i| andn(cx, i),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arith {
    Add,
    Adc,
    Sub,
    Sbb,
}

impl Arith {
    fn subtracts(self) -> bool {
        matches!(self, Arith::Sub | Arith::Sbb)
    }

    fn with_carry(self) -> bool {
        matches!(self, Arith::Adc | Arith::Sbb)
    }

    /// The form NZCV has after the AArch64 instruction for this operation.
    fn form(self) -> FlagForm {
        if self.subtracts() { FlagForm::CarryInverted } else { FlagForm::Direct }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logic {
    And,
    Or,
    Xor,
}

/// A source operand once fetched. Immediates are cut to the operand's size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Src {
    Imm(u64),
    Reg(X),
}

pub(super) fn src(cx: &mut Cx<'_>, p: Place, ext: Ext) -> Src {
    match p {
        Place::Imm { value, .. } => Src::Imm(value),
        _ => Src::Reg(cx.get(p, ext)),
    }
}

impl Src {
    pub(super) fn reg(self, cx: &mut Cx<'_>) -> X {
        match self {
            Src::Reg(x) => x,
            Src::Imm(0) => ZR,
            Src::Imm(v) => {
                let t = cx.tmp();
                cx.m.mov_imm(t, v);
                t
            }
        }
    }
}

/// AF's source for `a op b`, where the result is written over `overwritten`; `None`: nothing outlives this instruction.
fn af_of(cx: &mut Cx<'_>, live: Flags, op: Arith, a: X, b: Src, overwritten: Option<X>) -> AfFrom {
    if !live.contains(Flags::A) || b == Src::Reg(a) && !op.with_carry() {
        return AfFrom::Const(0);
    }
    match b {
        // `r - b` gives back `a` only without a carry.
        Src::Imm(v) if !op.with_carry() => {
            if op.subtracts() {
                AfFrom::SubImm(v)
            } else {
                AfFrom::AddImm(v)
            }
        }
        Src::Reg(b) if !op.with_carry() && abi::GPR.contains(&b.0) && overwritten.is_some_and(|r| r != b) => {
            if op.subtracts() { AfFrom::SubReg(b) } else { AfFrom::AddReg(b) }
        }
        _ => {
            let b = b.reg(cx);
            cx.m.eor(Sz::W, AF, a, b);
            AfFrom::Stored
        }
    }
}

/// `a op b` with the flags in `live`. The result's low `bytes` are in the register that comes back (`d`, if one was given); without `d` and without flags from
/// it there may be none. For 8 and 16 bits `a` and `b` may hold anything above the operand unless `zero_ext` says they do not.
pub(super) fn compute(
    cx: &mut Cx<'_>,
    op: Arith,
    bytes: u32,
    d: Option<X>,
    a: X,
    b: Src,
    zero_ext: bool,
    live: Flags,
) -> X {
    let nzcv = live.intersects(Flags::NZCV);
    let pa = live.intersects(Flags::P | Flags::A);
    let narrow = bytes < 4;
    let r = match d {
        Some(d) => d,
        None if pa && !narrow => PF,
        None if narrow => cx.tmp(),
        None => ZR,
    };
    if op.with_carry() {
        // First, because it may bring PF and AF of an instruction before into the registers that get this one's.
        cx.carry_as(op == Arith::Sbb);
    }
    // A narrow source is a copy or part of a register: never kept.
    let af = af_of(cx, live, op, a, b, (!narrow).then_some(r));
    if narrow {
        compute_narrow(cx, op, bytes, r, a, b, zero_ext, live);
    } else {
        compute_wide(cx, op, sz(bytes), r, a, b, nzcv);
    }
    if nzcv {
        cx.set_form(op.form());
    }
    cx.set_pa(r, af);
    r
}

fn compute_wide(cx: &mut Cx<'_>, op: Arith, size: Sz, r: X, a: X, b: Src, nzcv: bool) {
    if let Src::Imm(v) = b
        && !op.with_carry()
    {
        let negated = match size {
            Sz::W => u64::from((v as u32).wrapping_neg()),
            Sz::X => v.wrapping_neg(),
        };
        // Adding -k is subtracting k and the other way round. The carry comes out the same, except for k = 0, where the first branch holds.
        let (k, sub) = if fits_add(v) {
            (Some(v), op.subtracts())
        } else if fits_add(negated) {
            (Some(negated), !op.subtracts())
        } else {
            (None, false)
        };
        if let Some(k) = k {
            let k = k as u32;
            match (sub, nzcv) {
                (_, false) if r == ZR => {}
                (false, false) => cx.m.add_imm(size, r, a, k),
                (true, false) => cx.m.sub_imm(size, r, a, k),
                (false, true) => cx.m.adds_imm(size, r, a, k),
                (true, true) => cx.m.subs_imm(size, r, a, k),
            }
            return;
        }
    }
    if r == ZR && !nzcv {
        return;
    }
    let b = b.reg(cx);
    match (op, nzcv) {
        (Arith::Add, false) => cx.m.add(size, r, a, b),
        (Arith::Add, true) => cx.m.adds(size, r, a, b),
        (Arith::Sub, false) => cx.m.sub(size, r, a, b),
        (Arith::Sub, true) => cx.m.subs(size, r, a, b),
        (Arith::Adc, false) => cx.m.adc(size, r, a, b),
        (Arith::Adc, true) => cx.m.adcs(size, r, a, b),
        (Arith::Sbb, false) => cx.m.sbc(size, r, a, b),
        (Arith::Sbb, true) => cx.m.sbcs(size, r, a, b),
    }
}

/// 8 and 16 bits: the result in the low bits of `r`, anything above.
fn compute_narrow(cx: &mut Cx<'_>, op: Arith, bytes: u32, r: X, a: X, b: Src, zero_ext: bool, live: Flags) {
    let bits = 8 * bytes;
    let shift = 32 - bits;
    let need = live & Flags::NZCV;
    if need.is_empty() {
        let b = match b {
            Src::Imm(v) if v >> (bits - 1) != 0 => Src::Imm((v | !mask(bytes)) & mask(4)),
            b => b,
        };
        return compute_wide(cx, op, Sz::W, r, a, b, false);
    }
    if op == Arith::Sub && zero_ext && (Flags::Z | Flags::C).contains(need) {
        return compute_wide(cx, op, Sz::W, r, a, b, true);
    }
    if op.with_carry() {
        return compute_narrow_carry(cx, op, bytes, r, a, b, need);
    }
    let t = cx.tmp();
    cx.m.lsl(Sz::W, t, a, shift);
    match (op, b) {
        (_, Src::Imm(v)) => {
            let b = Src::Imm((v & mask(bytes)) << shift);
            // Not `compute_wide`'s negation: fits_add never holds for these but for zero.
            let b = b.reg(cx);
            if op == Arith::Add {
                cx.m.adds(Sz::W, r, t, b);
            } else {
                cx.m.subs(Sz::W, r, t, b);
            }
        }
        (Arith::Add, Src::Reg(b)) => cx.m.adds_lsl(Sz::W, r, t, b, shift),
        (_, Src::Reg(b)) => cx.m.subs_lsl(Sz::W, r, t, b, shift),
    }
    cx.m.lsr(Sz::W, r, r, shift);
}

/// ADC and SBB of 8 and 16 bits with flags. The low bits of the shifted `a` are all ones (ADC) or zeros (SBB), so that the carry in reaches the
/// operand's lowest bit. They leave N, C and V right; Z is put in afterwards.
fn compute_narrow_carry(cx: &mut Cx<'_>, op: Arith, bytes: u32, r: X, a: X, b: Src, need: Flags) {
    let shift = 32 - 8 * bytes;
    let b = b.reg(cx);
    let (t, u) = (cx.tmp(), cx.tmp());
    cx.m.lsl(Sz::W, u, b, shift);
    cx.m.lsl(Sz::W, t, a, shift);
    if op == Arith::Adc {
        cx.m.orr_imm(Sz::W, t, t, (1 << shift) - 1);
        cx.m.adcs(Sz::W, r, t, u);
    } else {
        cx.m.sbcs(Sz::W, r, t, u);
    }
    cx.m.lsr(Sz::W, r, r, shift);
    if need.contains(Flags::Z) {
        cx.insert_z_if_zero(r);
    }
}

fn arith(cx: &mut Cx<'_>, i: &Instruction, op: Arith, write: bool) -> Lowered {
    let live = cx.live();
    let same =
        i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
    let dst = cx.place(i, 0)?;
    if same && op == Arith::Sub && write {
        return zero(cx, dst, live);
    }
    let bytes = dst.bytes();
    if same && op == Arith::Sbb && !live.intersects(Flags::all()) && bytes >= 4 {
        // All ones when CF, in whichever form it is.
        let d = cx.target(dst);
        if cx.form() == FlagForm::FloatCompare {
            cx.carry_as(true);
        }
        let clear = if cx.form() == FlagForm::CarryInverted { Cond::Cs } else { Cond::Cc };
        cx.m.csinv(sz(bytes), d, ZR, ZR, clear);
        return Ok(());
    }
    let second = cx.place(i, 1)?;
    if i.has_lock_prefix() {
        return locked_arith(cx, op, dst, second, live);
    }
    let ext = if bytes < 4 && op == Arith::Sub && (Flags::Z | Flags::C).contains(live & Flags::NZCV) {
        if (live & Flags::NZCV).is_empty() { Ext::Any } else { Ext::Zero }
    } else {
        Ext::Any
    };
    let a = cx.get(dst, ext);
    let b = src(cx, second, ext);
    if op.with_carry() && dst.is_mem() {
        let b = Src::Reg(b.reg(cx));
        let kept = cx.tmp;
        let r = cx.tmp();
        // PF and AF are this instruction's to overwrite; CF must survive until the store is done.
        compute(cx, op, bytes, Some(r), a, b, false, Flags::empty());
        cx.set(dst, r);
        cx.tmp = kept;
        if !live.is_empty() {
            compute(cx, op, bytes, None, a, b, false, live);
        }
        return Ok(());
    }
    let d = write.then(|| cx.target(dst));
    let r = compute(cx, op, bytes, d, a, b, ext == Ext::Zero, live);
    if write {
        cx.set(dst, r);
    }
    Ok(())
}

/// LOCK forms: one atomic add; the flags are computed from what it found.
fn locked_arith(cx: &mut Cx<'_>, op: Arith, dst: Place, second: Place, live: Flags) -> Lowered {
    let Place::Mem { at, bytes } = dst else {
        return Err(super::Decline::Undefined);
    };
    let size = sz(bytes);
    let mut b = src(cx, second, Ext::Any);
    if op.with_carry() {
        // Needed three times: held once.
        b = Src::Reg(b.reg(cx));
    }
    let s = match (op, b) {
        (Arith::Add, _) => b.reg(cx),
        (Arith::Sub, Src::Imm(v)) => Src::Imm(v.wrapping_neg() & mask(bytes)).reg(cx),
        (Arith::Sub, Src::Reg(b)) => {
            let t = cx.tmp();
            cx.m.sub(size, t, ZR, b);
            t
        }
        (Arith::Adc, _) => {
            let b = b.reg(cx);
            cx.carry_as(false);
            let t = cx.tmp();
            cx.m.adc(size, t, b, ZR);
            t
        }
        (Arith::Sbb, _) => {
            let b = b.reg(cx);
            cx.carry_as(true);
            let t = cx.tmp();
            cx.m.sbc(size, t, ZR, b);
            t
        }
    };
    let old = cx.atomic(Lse::Add, bytes, s, at);
    if !live.is_empty() {
        compute(cx, op, bytes, None, old, b, false, live);
    }
    Ok(())
}

/// What XOR r,r and SUB r,r are for.
fn zero(cx: &mut Cx<'_>, dst: Place, live: Flags) -> Lowered {
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.m.movz(Sz::W, x, 0, 0),
        _ => cx.set(dst, ZR),
    }
    if live.intersects(Flags::NZCV) {
        cx.m.ands(Sz::W, ZR, ZR, ZR);
        cx.set_form(FlagForm::Direct);
    }
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.set_pa(x, AfFrom::Const(0)),
        _ => cx.set_pa(ZR, AfFrom::Const(0)),
    }
    Ok(())
}

fn logic(cx: &mut Cx<'_>, i: &Instruction, op: Logic, write: bool) -> Lowered {
    let dst = cx.place(i, 0)?;
    let live = cx.live();
    let same =
        i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
    if op == Logic::Xor && same {
        return zero(cx, dst, live);
    }
    let op = if same { Logic::And } else { op };
    let second = cx.place(i, 1)?;
    let bytes = dst.bytes();
    if i.has_lock_prefix() {
        let Place::Mem { at, .. } = dst else {
            return Err(super::Decline::Undefined);
        };
        let b = src(cx, second, Ext::Any);
        let (lse, s) = match (op, b) {
            (Logic::And, Src::Imm(v)) => (Lse::Clr, Src::Imm(!v & mask(bytes)).reg(cx)),
            (Logic::And, Src::Reg(b)) => {
                let t = cx.tmp();
                cx.m.mvn(Sz::X, t, b);
                (Lse::Clr, t)
            }
            (Logic::Or, b) => (Lse::Set, b.reg(cx)),
            (Logic::Xor, b) => (Lse::Eor, b.reg(cx)),
        };
        let old = cx.atomic(lse, bytes, s, at);
        if !live.is_empty() {
            logic_op(cx, op, bytes, None, old, b, live);
        }
        return Ok(());
    }
    let a = cx.get(dst, Ext::Any);
    let b = if same { Src::Reg(a) } else { src(cx, second, Ext::Any) };
    if same && (!write || live.is_empty()) {
        // TEST r,r, and AND/OR of a register with itself when only the upper half can change.
        if write && bytes == 4 {
            cx.m.mov(Sz::W, a, a);
        } else if !write {
            logic_op(cx, op, bytes, None, a, b, live);
        }
        return Ok(());
    }
    let d = write.then(|| cx.target(dst));
    let r = logic_op(cx, op, bytes, d, a, b, live);
    if write {
        cx.set(dst, r);
    }
    Ok(())
}

/// `a op b` with the flags in `live`; as [`compute`].
fn logic_op(cx: &mut Cx<'_>, op: Logic, bytes: u32, d: Option<X>, a: X, b: Src, live: Flags) -> X {
    let size = sz(bytes);
    let bits = 8 * bytes;
    let narrow = bytes < 4;
    let nzcv = live.intersects(Flags::NZCV);
    let pa = live.intersects(Flags::P | Flags::A);
    if nzcv {
        cx.set_form(FlagForm::Direct);
    }
    if op == Logic::And && b == Src::Reg(a) && d.is_none() {
        // TEST r,r: the value itself.
        if nzcv {
            if narrow {
                cx.m.adds_lsl(Sz::W, ZR, ZR, a, 32 - bits);
            } else {
                cx.m.ands(size, ZR, a, a);
            }
        }
        cx.set_pa(a, AfFrom::Const(0));
        return a;
    }
    // The sign of a narrow result is at the top of a word only after a shift, unless it is known to be clear.
    let plain_sign = match (op, b) {
        (Logic::And, Src::Imm(v)) => v >> (bits - 1) == 0,
        _ => false,
    };
    let ands =
        op == Logic::And && nzcv && (!narrow || matches!(b, Src::Imm(_)) && (plain_sign || !live.contains(Flags::S)));
    let r = match d {
        Some(d) => d,
        None if pa || nzcv && !ands => cx.tmp(),
        None => ZR,
    };
    let imm = match b {
        Src::Imm(v) if fits_logical(size, v) => Some(v),
        _ => None,
    };
    match imm {
        Some(v) => match op {
            Logic::And if ands => cx.m.ands_imm(size, r, a, v),
            Logic::And if r != ZR => cx.m.and_imm(size, r, a, v),
            Logic::And => {}
            Logic::Or => cx.m.orr_imm(size, r, a, v),
            Logic::Xor => cx.m.eor_imm(size, r, a, v),
        },
        None => {
            let b = b.reg(cx);
            match op {
                Logic::And if ands => cx.m.ands(size, r, a, b),
                Logic::And => cx.m.and(size, r, a, b),
                Logic::Or => cx.m.orr(size, r, a, b),
                Logic::Xor => cx.m.eor(size, r, a, b),
            }
        }
    }
    if nzcv && !ands {
        if narrow {
            // 0 + r: N and Z of the shifted value, C and V clear.
            cx.m.adds_lsl(Sz::W, ZR, ZR, r, 32 - bits);
        } else {
            cx.m.ands(size, ZR, r, r);
        }
    }
    cx.set_pa(r, AfFrom::Const(0));
    r
}

/// INC and DEC: ADD and SUB of 1 that leave CF alone.
fn step(cx: &mut Cx<'_>, i: &Instruction, op: Arith) -> Lowered {
    let dst = cx.place(i, 0)?;
    let live = cx.live();
    let bytes = dst.bytes();
    let one = Src::Imm(1);
    let keep_c = cx.live_out().contains(Flags::C) && live.intersects(Flags::NZCV);
    let locked = match dst {
        Place::Mem { at, .. } if i.has_lock_prefix() => Some(at),
        _ => None,
    };
    let old = match locked {
        Some(at) => {
            let s = if op == Arith::Add { Src::Imm(1) } else { Src::Imm(mask(bytes)) }.reg(cx);
            cx.atomic(Lse::Add, bytes, s, at)
        }
        None => cx.get(dst, Ext::Any),
    };
    let saved = keep_c.then(|| cx.save_carry());
    let d = locked.is_none().then(|| cx.target(dst));
    if dst.is_mem() && locked.is_none() && saved.is_some() {
        // The store may fault, and CF is live: it goes first.
        let r = compute(cx, op, bytes, d, old, one, false, Flags::empty());
        cx.set(dst, r);
        compute(cx, op, bytes, None, old, one, false, live);
    } else {
        let r = compute(cx, op, bytes, d, old, one, false, live);
        if locked.is_none() {
            cx.set(dst, r);
        }
    }
    if let Some(c) = saved {
        cx.restore_carry(c);
    }
    Ok(())
}

fn neg(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let live = cx.live();
    let bytes = dst.bytes();
    if let Place::Mem { at, .. } = dst
        && i.has_lock_prefix()
    {
        let old = cx.atomic_loop(bytes, at, |cx, new, old| cx.m.sub(sz(bytes), new, ZR, old));
        if !live.is_empty() {
            neg_of(cx, bytes, None, old, live);
        }
        return Ok(());
    }
    let a = cx.get(dst, Ext::Any);
    let d = cx.target(dst);
    let r = neg_of(cx, bytes, Some(d), a, live);
    cx.set(dst, r);
    Ok(())
}

/// `0 - a`: CF is `a != 0`, the inverse of AArch64's C.
fn neg_of(cx: &mut Cx<'_>, bytes: u32, d: Option<X>, a: X, live: Flags) -> X {
    let nzcv = live.intersects(Flags::NZCV);
    if live.contains(Flags::A) {
        cx.m.mov(Sz::W, AF, a);
    }
    let r = d.unwrap_or_else(|| cx.tmp());
    if nzcv && bytes < 4 {
        let shift = 32 - 8 * bytes;
        cx.m.subs_lsl(Sz::W, r, ZR, a, shift);
        cx.m.lsr(Sz::W, r, r, shift);
    } else if nzcv {
        cx.m.subs(sz(bytes), r, ZR, a);
    } else {
        cx.m.sub(sz(bytes), r, ZR, a);
    }
    if nzcv {
        cx.set_form(FlagForm::CarryInverted);
    }
    cx.set_pa(r, AfFrom::Stored);
    r
}

fn not(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let bytes = dst.bytes();
    if let Place::Mem { at, .. } = dst
        && i.has_lock_prefix()
    {
        let ones = Src::Imm(mask(bytes)).reg(cx);
        cx.atomic(Lse::Eor, bytes, ones, at);
        return Ok(());
    }
    if let Place::Reg { x, lsb, bytes: 1 | 2 } = dst {
        cx.m.eor_imm(Sz::X, x, x, mask(bytes) << lsb);
        return Ok(());
    }
    let a = cx.get(dst, Ext::Any);
    let d = cx.target(dst);
    cx.m.mvn(sz(bytes), d, a);
    cx.set(dst, d);
    Ok(())
}

/// ANDN d, a, b: `!a & b`.
fn andn(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, a, b) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let size = sz(dst.bytes());
    let (a, b) = (cx.get(a, Ext::Any), cx.get(b, Ext::Any));
    let d = cx.target(dst);
    if cx.live().intersects(Flags::NZCV) {
        cx.m.bics(size, d, b, a);
        cx.set_form(FlagForm::Direct);
    } else {
        cx.m.bic(size, d, b, a);
    }
    cx.set_pa(d, AfFrom::Const(0));
    Ok(())
}
