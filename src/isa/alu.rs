//! Two-operand integer arithmetic and logic: ADD SUB CMP AND OR XOR TEST (SDM vol. 2), all widths, register and memory forms without LOCK.
//!
//! 32- and 64-bit operations set NZCV by AArch64's own flag-setting forms. 8- and 16-bit ones work on operands shifted to the top
//! of a 32-bit register, so that N, Z, C and V come out right, unless only Z (and unsigned C) is asked for.

use super::cx::{AF, AfFrom, Cx, Ext, PF, Place, sz};
use super::{Decline, Lowered};
use crate::emit::imm::{fits_add, fits_logical};
use crate::emit::{Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::Instruction;
use xrun_runtime::abi;
use xrun_runtime::engine::FlagForm;

rows! { "alu";
    Add => |cx, i| arith(cx, i, Arith::Add, true),
    Sub => |cx, i| arith(cx, i, Arith::Sub, true),
    Cmp => |cx, i| arith(cx, i, Arith::Sub, false),
    And => |cx, i| logic(cx, i, Logic::And, true),
    Or => |cx, i| logic(cx, i, Logic::Or, true),
    Xor => |cx, i| logic(cx, i, Logic::Xor, true),
    Test => |cx, i| logic(cx, i, Logic::And, false),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Arith {
    Add,
    Sub,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logic {
    And,
    Or,
    Xor,
}

/// `op`'s AF source for operand `b`. `same`: `b` is the destination itself, or a scratch register that will be gone; then `a ^ b` must be stored now.
fn af_of(cx: &mut Cx<'_>, live: Flags, op: Arith, a: X, b: X, overwritten: Option<X>) -> AfFrom {
    if !live.contains(Flags::A) || a == b {
        return AfFrom::Const(0);
    }
    if !abi::GPR.contains(&b.0) || overwritten == Some(b) {
        cx.m.eor(Sz::W, AF, a, b);
        return AfFrom::Stored;
    }
    match op {
        Arith::Add => AfFrom::AddReg(b),
        Arith::Sub => AfFrom::SubReg(b),
    }
}

fn arith(cx: &mut Cx<'_>, i: &Instruction, op: Arith, write: bool) -> Lowered {
    if i.has_lock_prefix() {
        return Err(Decline::Unsupported("LOCK"));
    }
    let dst = cx.place(i, 0)?;
    let src = cx.place(i, 1)?;
    let live = cx.live();
    let bytes = dst.bytes();
    if bytes < 4 {
        return arith_narrow(cx, op, write, dst, src, live);
    }
    let size = sz(bytes);
    let a = cx.get(dst, Ext::Any);
    let d = if write { cx.target(dst) } else { ZR };
    let nzcv = live.intersects(Flags::NZCV);
    let imm = match src {
        Place::Imm { value, .. } if fits_add(value) => Some(value),
        _ => None,
    };
    let r = if write || !live.intersects(Flags::P | Flags::A) { d } else { PF };
    let af;
    match imm {
        Some(v) => {
            af = if op == Arith::Add { AfFrom::AddImm(v) } else { AfFrom::SubImm(v) };
            match (op, nzcv) {
                (Arith::Add, false) => cx.m.add_imm(size, r, a, v as u32),
                (Arith::Add, true) => cx.m.adds_imm(size, r, a, v as u32),
                (Arith::Sub, false) if r != ZR => cx.m.sub_imm(size, r, a, v as u32),
                (Arith::Sub, false) => {}
                (Arith::Sub, true) => cx.m.subs_imm(size, r, a, v as u32),
            }
        }
        None => {
            let b = cx.get(src, Ext::Any);
            af = af_of(cx, live, op, a, b, Some(r));
            match (op, nzcv) {
                (Arith::Add, false) => cx.m.add(size, r, a, b),
                (Arith::Add, true) => cx.m.adds(size, r, a, b),
                (Arith::Sub, false) => cx.m.sub(size, r, a, b),
                (Arith::Sub, true) => cx.m.subs(size, r, a, b),
            }
        }
    }
    cx.set_pa(r, af);
    if nzcv {
        cx.set_form(if op == Arith::Add { FlagForm::Direct } else { FlagForm::CarryInverted });
    }
    if write {
        cx.set(dst, r);
    }
    Ok(())
}

fn arith_narrow(cx: &mut Cx<'_>, op: Arith, write: bool, dst: Place, src: Place, live: Flags) -> Lowered {
    let shift = 32 - 8 * dst.bytes();
    let a = cx.get(dst, Ext::Any);
    let b = cx.get(src, Ext::Any);
    let af = af_of(cx, live, op, a, b, Some(b));
    let nzcv = live.intersects(Flags::NZCV);
    let r = cx.tmp();
    if nzcv {
        let t = cx.tmp();
        cx.m.lsl(Sz::W, t, a, shift);
        match op {
            Arith::Add => cx.m.adds_lsl(Sz::W, r, t, b, shift),
            Arith::Sub => cx.m.subs_lsl(Sz::W, r, t, b, shift),
        }
        cx.set_form(if op == Arith::Add { FlagForm::Direct } else { FlagForm::CarryInverted });
        if write || live.intersects(Flags::P | Flags::A) {
            cx.m.lsr(Sz::W, r, r, shift);
        }
    } else {
        match op {
            Arith::Add => cx.m.add(Sz::W, r, a, b),
            Arith::Sub => cx.m.sub(Sz::W, r, a, b),
        }
    }
    cx.set_pa(r, af);
    if write {
        cx.set(dst, r);
    }
    Ok(())
}

fn logic(cx: &mut Cx<'_>, i: &Instruction, op: Logic, write: bool) -> Lowered {
    if i.has_lock_prefix() {
        return Err(Decline::Unsupported("LOCK"));
    }
    let dst = cx.place(i, 0)?;
    let live = cx.live();
    let bytes = dst.bytes();
    let size = sz(bytes);
    let nzcv = live.intersects(Flags::NZCV);
    let need = live.intersects(Flags::P | Flags::A);
    // XOR r,r and SUB r,r are how x86 says zero.
    if op == Logic::Xor
        && i.op1_kind() == iced_x86::OpKind::Register
        && i.op0_kind() == i.op1_kind()
        && i.op0_register() == i.op1_register()
    {
        let d = cx.target(dst);
        cx.m.movz(Sz::W, d, 0, 0);
        if nzcv {
            cx.m.ands(Sz::W, ZR, ZR, ZR);
            cx.set_form(FlagForm::Direct);
        }
        cx.set(dst, d);
        cx.set_pa(d, AfFrom::Const(0));
        return Ok(());
    }
    let src = cx.place(i, 1)?;
    // Flags of a narrow result come from its bits at the top of a word.
    let narrow = bytes < 4;
    let a = cx.get(dst, Ext::Any);
    let r = if write {
        cx.target(dst)
    } else if need || narrow {
        cx.tmp()
    } else {
        ZR
    };
    let set_here = nzcv && !narrow && op == Logic::And;
    let imm = match src {
        Place::Imm { value, .. } if fits_logical(size, value) => Some(value),
        _ => None,
    };
    match imm {
        Some(v) => match op {
            Logic::And if set_here => cx.m.ands_imm(size, r, a, v),
            Logic::And if r != ZR => cx.m.and_imm(size, r, a, v),
            Logic::And => {}
            Logic::Or => cx.m.orr_imm(size, r, a, v),
            Logic::Xor => cx.m.eor_imm(size, r, a, v),
        },
        None => {
            let b = cx.get(src, Ext::Any);
            match op {
                Logic::And if set_here => cx.m.ands(size, r, a, b),
                Logic::And => cx.m.and(size, r, a, b),
                Logic::Or => cx.m.orr(size, r, a, b),
                Logic::Xor => cx.m.eor(size, r, a, b),
            }
        }
    }
    if nzcv {
        if narrow {
            // 0 + (r << n): N and Z of the narrow result, no carry, no overflow.
            cx.m.adds_lsl(Sz::W, ZR, ZR, r, 32 - 8 * bytes);
        } else if !set_here {
            cx.m.ands(size, ZR, r, r);
        }
        cx.set_form(FlagForm::Direct);
    }
    cx.set_pa(r, AfFrom::Const(0));
    if write {
        cx.set(dst, r);
    }
    Ok(())
}
