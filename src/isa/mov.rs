//! Moves that change no flags: MOV, MOVZX, MOVSX, MOVSXD, LEA, NOP (SDM vol. 2).

use super::Lowered;
use super::cx::{Cx, Ext, Place, sz};
use crate::emit::{Sz, X};
use crate::rows;
use iced_x86::{Instruction, OpKind};

rows! { "mov";
    Mov => |cx, i| mov(cx, i),
    Movzx => |cx, i| movzx(cx, i),
    Movsx => |cx, i| movsx(cx, i),
    Movsxd => |cx, i| movsx(cx, i),
    Lea => |cx, i| lea(cx, i),
    Nop => |_, _| Ok(()),
    Endbr64 => |_, _| Ok(()),
    Endbr32 => |_, _| Ok(()),
}

fn mov(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    match (dst, cx.place(i, 1)?) {
        (Place::Reg { x, bytes: 4 | 8, .. }, Place::Imm { value, .. }) => cx.m.mov_imm(x, value),
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
    let v = cx.lea(i, false);
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.m.mov(sz(dst.bytes()), x, v),
        _ => cx.set(dst, v),
    }
    Ok(())
}
