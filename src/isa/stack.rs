//! The stack: PUSH, POP, ENTER, LEAVE, PUSHF, POPF (SDM vol. 2). RSP moves only when the access succeeded.

use super::Lowered;
use super::cx::{Cx, Ext, Place, pinned};
use crate::emit::int::Dmb;
use crate::emit::{Addr, Sz, X};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Code, Instruction, OpKind, Register};
use xrun_runtime::engine::Ordering;
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::gpr::{RBP, RSP};

rows! { "stack";
    Push => |cx, i| push(cx, i),
    Pop => |cx, i| pop(cx, i),
    Leave => |cx, i| leave(cx, i),
    Enter => |cx, i| enter(cx, i),
    Pushfq => |cx, _| { pushf(cx, 8); Ok(()) },
    Pushf => |cx, _| { pushf(cx, 2); Ok(()) },
    Popfq => |cx, i| { popf(cx, 8, i.next_ip()); Ok(()) },
    Popf => |cx, i| { popf(cx, 2, i.next_ip()); Ok(()) },
}

impl Cx<'_> {
    /// Pushes 64 bits.
    pub fn push(&mut self, v: X, rsp: X) {
        if self.ordering == Ordering::Plain {
            self.m.str_pre(8, v, rsp, -8);
        } else if self.ordering == Ordering::Fenced {
            self.m.dmb(Dmb::Ishst);
            self.m.str_pre(8, v, rsp, -8);
        } else if self.host.lrcpc2 {
            self.m.stlur(8, v, rsp, -8);
            self.m.sub_imm(Sz::X, rsp, rsp, 8);
        } else {
            let t = self.tmp();
            self.m.sub_imm(Sz::X, t, rsp, 8);
            self.m.stlr(8, v, t);
            self.m.mov(Sz::X, rsp, t);
        }
    }

    /// Pops 64 bits into `d`, which is not RSP.
    pub fn pop(&mut self, d: X, rsp: X) {
        if self.ordering == Ordering::Plain {
            self.m.ldr_post(8, d, rsp, 8);
        } else if self.ordering == Ordering::Fenced {
            self.m.ldr_post(8, d, rsp, 8);
            self.m.dmb(Dmb::Ishld);
        } else {
            self.load(8, d, Addr::Off(rsp, 0));
            self.m.add_imm(Sz::X, rsp, rsp, 8);
        }
    }
}

fn push(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let rsp = pinned(RSP);
    let bytes = i.stack_pointer_increment().unsigned_abs();
    let v = match i.op0_kind() {
        OpKind::Register if i.op0_register().is_segment_register() => super::segment::selector(cx, i.op0_register()),
        OpKind::Register | OpKind::Memory => {
            let p = cx.place(i, 0)?;
            cx.get(p, Ext::Any)
        }
        _ => {
            let t = cx.tmp();
            cx.m.mov_imm(t, i.immediate(0));
            t
        }
    };
    if bytes == 8 {
        let v = if v == rsp {
            let t = cx.tmp();
            cx.m.mov(Sz::X, t, rsp);
            t
        } else {
            v
        };
        cx.push(v, rsp);
    } else {
        cx.store(bytes, v, Addr::Off(rsp, -(bytes as i32)));
        cx.m.sub_imm(Sz::X, rsp, rsp, bytes);
    }
    Ok(())
}

fn pop(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let rsp = pinned(RSP);
    let bytes = i.stack_pointer_increment().unsigned_abs();
    match i.op0_kind() {
        OpKind::Register if i.op0_register().is_segment_register() => {
            return super::segment::pop(cx, i);
        }
        OpKind::Register => {
            let p = cx.place(i, 0)?;
            let d = cx.target(p);
            if d == rsp {
                cx.load(8, d, Addr::Off(rsp, 0));
            } else if bytes == 8 {
                cx.pop(d, rsp);
            } else {
                cx.load(bytes, d, Addr::Off(rsp, 0));
                cx.m.add_imm(Sz::X, rsp, rsp, bytes);
                cx.set(p, d);
            }
        }
        _ => {
            // An address based on RSP is computed with RSP as it is afterwards.
            let t = cx.tmp();
            cx.load(bytes, t, Addr::Off(rsp, 0));
            let mut n = cx.lea(i, true);
            if i.memory_base().full_register() == Register::RSP {
                let u = cx.tmp();
                cx.m.add_imm(if i.memory_base() == Register::ESP { Sz::W } else { Sz::X }, u, n, bytes);
                n = u;
            }
            cx.store(bytes, t, Addr::Off(n, 0));
            cx.m.add_imm(Sz::X, rsp, rsp, bytes);
        }
    }
    Ok(())
}

fn leave(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (rsp, rbp) = (pinned(RSP), pinned(RBP));
    let bytes = if i.code() == Code::Leaveq { 8 } else { 2 };
    let t = cx.tmp();
    cx.load(bytes, t, Addr::Off(rbp, 0));
    cx.m.add_imm(Sz::X, rsp, rbp, bytes);
    cx.set(Place::Reg { x: rbp, lsb: 0, bytes }, t);
    Ok(())
}

/// ENTER: pushes RBP, then for nested procedures the frame pointers found under it and the new one. With a 16-bit operand size BP alone is written.
fn enter(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let bytes = if i.code() == Code::Enterq_imm16_imm8 { 8 } else { 2 };
    let step = bytes as i32;
    let (rsp, rbp) = (pinned(RSP), pinned(RBP));
    let level = i32::from(i.immediate8_2nd() & 31);
    cx.store(bytes, rbp, Addr::Off(rsp, -step));
    let frame = cx.tmp();
    cx.m.sub_imm(Sz::X, frame, rsp, bytes);
    for n in 1..level {
        let kept = cx.tmp;
        let t = cx.tmp();
        cx.load(bytes, t, Addr::Off(rbp, -step * n));
        cx.store(bytes, t, Addr::Off(frame, -step * n));
        cx.tmp = kept;
    }
    if level > 0 {
        cx.store(bytes, frame, Addr::Off(frame, -step * level));
    }
    let top = cx.tmp();
    cx.add_const(Sz::X, top, frame, -i64::from(step * level) - i64::from(i.immediate16()));
    cx.m.mov(Sz::X, rsp, top);
    cx.set(Place::Reg { x: rbp, lsb: 0, bytes }, frame);
    Ok(())
}

fn pushf(cx: &mut Cx<'_>, bytes: u32) {
    let rsp = pinned(RSP);
    cx.canonical(Flags::all());
    cx.call_helper(Helper::FlagsRead);
    // The helper's result, whatever the flags took before.
    cx.tmp = 0;
    let v = cx.tmp();
    cx.store(bytes, v, Addr::Off(rsp, -(bytes as i32)));
    cx.m.sub_imm(Sz::X, rsp, rsp, bytes);
}

fn popf(cx: &mut Cx<'_>, bytes: u32, next: u64) {
    let rsp = pinned(RSP);
    cx.canonical(Flags::all());
    // The helper's argument; what the flags took is free again.
    cx.tmp = 0;
    let v = cx.tmp();
    cx.load(bytes, v, Addr::Off(rsp, 0));
    cx.m.add_imm(Sz::X, rsp, rsp, bytes);
    cx.m.movz(Sz::W, X(1), bytes as u16, 0);
    cx.m.mov_imm(X(2), next);
    cx.call_helper(Helper::FlagsWrite);
}
