//! Moves that change no flags: MOV, MOVZX, MOVSX, MOVSXD, LEA, CMOVcc, SETcc, BSWAP, MOVBE, XLAT, NOP (SDM vol. 2).

use super::Lowered;
use super::branch::{Test, test};
use super::cx::{Cx, Ext, Place, pinned, sz};
use super::fused::set_whole;
use crate::emit::{Addr, Sz, X, ZR};
use crate::facts::Known;
use crate::rows;
use iced_x86::{Instruction, OpKind, Register};
use xrun_runtime::engine::Trap;
use xrun_runtime::state::gpr::{RAX, RBX};

rows! { "mov";
    Mov => |cx, i| mov(cx, i), Movnti => |cx, i| mov(cx, i),
    Movzx => |cx, i| movzx(cx, i),
    Movsx => |cx, i| movsx(cx, i),
    Movsxd => |cx, i| movsx(cx, i),
    Lea => |cx, i| lea(cx, i),
    Endbr64 => |_, _| Ok(()),
    // Without shadow stacks these are the NOPs they were made from: the register keeps its value (SDM vol. 2, RDSSP).
    Rdsspd => |_, _| Ok(()),
    Rdsspq => |_, _| Ok(()),
    Endbr32 => |_, _| Ok(()),
    Bswap => |cx, i| bswap(cx, i),
    Movbe => |cx, i| movbe(cx, i),
    Xlatb => |cx, i| xlat(cx, i),
    Cmovo => |cx, i| cmov(cx, i), Cmovno => |cx, i| cmov(cx, i), Cmovb => |cx, i| cmov(cx, i), Cmovae => |cx, i| cmov(cx, i),
    Cmove => |cx, i| cmov(cx, i), Cmovne => |cx, i| cmov(cx, i), Cmovbe => |cx, i| cmov(cx, i), Cmova => |cx, i| cmov(cx, i),
    Cmovs => |cx, i| cmov(cx, i), Cmovns => |cx, i| cmov(cx, i), Cmovp => |cx, i| cmov(cx, i), Cmovnp => |cx, i| cmov(cx, i),
    Cmovl => |cx, i| cmov(cx, i), Cmovge => |cx, i| cmov(cx, i), Cmovle => |cx, i| cmov(cx, i), Cmovg => |cx, i| cmov(cx, i),
    Seto => |cx, i| setcc(cx, i), Setno => |cx, i| setcc(cx, i), Setb => |cx, i| setcc(cx, i), Setae => |cx, i| setcc(cx, i),
    Sete => |cx, i| setcc(cx, i), Setne => |cx, i| setcc(cx, i), Setbe => |cx, i| setcc(cx, i), Seta => |cx, i| setcc(cx, i),
    Sets => |cx, i| setcc(cx, i), Setns => |cx, i| setcc(cx, i), Setp => |cx, i| setcc(cx, i), Setnp => |cx, i| setcc(cx, i),
    Setl => |cx, i| setcc(cx, i), Setge => |cx, i| setcc(cx, i), Setle => |cx, i| setcc(cx, i), Setg => |cx, i| setcc(cx, i),
}

/// The source is read, and can fault, whatever the condition; a 32-bit destination is zero-extended either way.
fn cmov(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let src = cx.place(i, 1)?;
    let size = sz(dst.bytes());
    let old = cx.get(dst, Ext::Any);
    let new = cx.get(src, Ext::Any);
    let d = cx.target(dst);
    match test(cx, i.condition_code()) {
        Test::One(c) => cx.m.csel(size, d, new, old, c),
        Test::Or(a, b) => {
            let t = cx.tmp();
            cx.m.csel(size, t, new, old, a);
            cx.m.csel(size, d, new, t, b);
        }
        Test::And(a, b) => {
            let t = cx.tmp();
            cx.m.csel(size, t, new, old, a);
            cx.m.csel(size, d, t, old, b);
        }
        Test::Parity(t, even) => {
            // A mask of the parity bit selects, so that NZCV is left alone.
            cx.m.sbfx(Sz::X, t, t, 0, 1);
            let x = cx.tmp();
            cx.m.eor(size, x, old, new);
            if even {
                cx.m.bic(size, x, x, t);
            } else {
                cx.m.and(size, x, x, t);
            }
            cx.m.eor(size, d, old, x);
        }
    }
    cx.set(dst, d);
    Ok(())
}

fn setcc(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    if cx.facts.known[cx.at] == Known::Zero
        && let Place::Reg { x, .. } = dst
    {
        set_whole(cx, i.condition_code(), x);
        return Ok(());
    }
    let t = cx.tmp();
    set_whole(cx, i.condition_code(), t);
    cx.set(dst, t);
    Ok(())
}

/// 16-bit BSWAP is undefined; processors clear the register's low half.
fn bswap(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.m.rev(sz(dst.bytes()), x, x),
        _ => cx.set(dst, ZR),
    }
    Ok(())
}

fn movbe(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let v = cx.get(src, Ext::Any);
    let t = match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => x,
        _ => cx.tmp(),
    };
    if dst.bytes() == 2 {
        cx.m.rev16(Sz::W, t, v);
    } else {
        cx.m.rev(sz(dst.bytes()), t, v);
    }
    cx.set(dst, t);
    Ok(())
}

/// AL = byte at RBX + AL.
fn xlat(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let t = cx.tmp();
    let size = if i.memory_base() == Register::RBX { Sz::X } else { Sz::W };
    cx.m.ubfx(Sz::W, t, pinned(RAX), 0, 8);
    cx.m.add(size, t, t, pinned(RBX));
    cx.add_segment(i, t);
    cx.load(1, t, Addr::Off(t, 0));
    cx.m.bfi(Sz::X, pinned(RAX), t, 0, 8);
    Ok(())
}

fn mov(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    for n in 0..2 {
        if i.op_kind(n) != OpKind::Register {
            continue;
        }
        let r = i.op_register(n);
        if r.is_cr() || r.is_dr() || r.is_tr() {
            cx.trap(Trap::GeneralProtection, i.ip());
            return Ok(());
        }
        if r.is_segment_register() && n == 0 {
            let src = match cx.place(i, 1)? {
                Place::Mem { at, .. } => Place::Mem { at, bytes: 2 },
                p => p,
            };
            let v = cx.get(src, Ext::Any);
            return super::segment::load(cx, r, v);
        }
        if r.is_segment_register() {
            // To memory always 16 bits; to a register its full size.
            let dst = match cx.place(i, 0)? {
                Place::Mem { at, .. } => Place::Mem { at, bytes: 2 },
                p => p,
            };
            let t = super::segment::selector(cx, r);
            cx.set(dst, t);
            return Ok(());
        }
    }
    let dst = cx.place(i, 0)?;
    match (dst, cx.place(i, 1)?) {
        (Place::Reg { x, bytes: 4 | 8, .. }, Place::Imm { value, .. }) => cx.m.mov_imm(x, value),
        (Place::Reg { x, bytes: 2, .. }, Place::Imm { value, .. }) => cx.m.movk(Sz::X, x, value as u16, 0),
        (Place::Reg { x, bytes: 4 | 8, .. }, Place::Mem { at, bytes }) => cx.load(bytes, x, at),
        (Place::Reg { x, bytes, .. }, Place::Reg { x: s, .. }) if bytes >= 4 => cx.m.mov(sz(bytes), x, s),
        (_, src) => {
            let v = cx.get(src, Ext::Any);
            cx.set(dst, v);
        }
    }
    Ok(())
}

fn movzx(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let src = cx.place(i, 1)?;
    match (dst, src) {
        (Place::Reg { x, bytes: 4 | 8, .. }, Place::Mem { at, bytes }) => cx.load(bytes, x, at),
        (Place::Reg { x, bytes: 4 | 8, .. }, Place::Reg { x: s, lsb, bytes }) => cx.m.ubfx(Sz::W, x, s, lsb, 8 * bytes),
        _ => {
            let v = cx.get(src, Ext::Zero);
            cx.set(dst, v);
        }
    }
    Ok(())
}

fn movsx(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let src = cx.place(i, 1)?;
    let to = sz(dst.bytes());
    let d: X = cx.target(dst);
    match src {
        Place::Mem { at, bytes } if bytes < 4 || to == Sz::X => cx.load_signed(bytes, to, d, at),
        Place::Reg { x, lsb, bytes } if bytes < 4 || to == Sz::X => cx.m.sbfx(to, d, x, lsb, 8 * bytes),
        // MOVSXD r32, r/m32 without REX.W is a plain 32-bit move.
        src => {
            let v = cx.get(src, Ext::Any);
            cx.m.mov(Sz::W, d, v);
        }
    }
    cx.set(dst, d);
    Ok(())
}

fn lea(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    debug_assert_eq!(i.op1_kind(), OpKind::Memory);
    let dst = cx.place(i, 0)?;
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.lea_into(i, x, sz(dst.bytes())),
        _ => {
            let v = cx.lea(i, false);
            cx.set(dst, v);
        }
    }
    Ok(())
}
