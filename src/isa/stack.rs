//! The stack: PUSH, POP, LEAVE (SDM vol. 2). 64-bit forms; RSP moves only when the access succeeded.

use super::cx::{Cx, Ext, pinned};
use super::{Decline, Lowered};
use crate::emit::{Addr, Sz, X};
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::Ordering;
use xrun_runtime::state::gpr::{RBP, RSP};

rows! { "stack";
    Push => |cx, i| push(cx, i),
    Pop => |cx, i| pop(cx, i),
    Leave => |cx, i| leave(cx, i),
}

impl Cx<'_> {
    /// Pushes 64 bits.
    pub fn push(&mut self, v: X, rsp: X) {
        if self.ordering == Ordering::Plain {
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
        } else {
            self.load(8, d, Addr::Off(rsp, 0));
            self.m.add_imm(Sz::X, rsp, rsp, 8);
        }
    }
}

fn push(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let rsp = pinned(RSP);
    let v = match i.op0_kind() {
        OpKind::Register | OpKind::Memory => {
            let p = cx.place(i, 0)?;
            if p.bytes() != 8 {
                return Err(Decline::Unsupported("16-bit push"));
            }
            cx.get(p, Ext::Any)
        }
        _ => {
            if i.stack_pointer_increment() != -8 {
                return Err(Decline::Unsupported("16-bit push"));
            }
            let t = cx.tmp();
            cx.m.mov_imm(t, i.immediate(0));
            t
        }
    };
    let v = if v == rsp {
        let t = cx.tmp();
        cx.m.mov(Sz::X, t, rsp);
        t
    } else {
        v
    };
    cx.push(v, rsp);
    Ok(())
}

fn pop(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let rsp = pinned(RSP);
    match i.op0_kind() {
        OpKind::Register if i.op0_register().size() == 8 => {
            let p = cx.place(i, 0)?;
            let d = cx.target(p);
            if d == rsp {
                cx.load(8, d, Addr::Off(rsp, 0));
            } else {
                cx.pop(d, rsp);
            }
            Ok(())
        }
        _ => Err(Decline::Unsupported("pop to memory or 16-bit pop")),
    }
}

fn leave(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.stack_pointer_increment() == 0 && i.code() != iced_x86::Code::Leaveq {
        return Err(Decline::Unsupported("16-bit leave"));
    }
    let (rsp, rbp) = (pinned(RSP), pinned(RBP));
    let t = cx.tmp();
    cx.load(8, t, Addr::Off(rbp, 0));
    cx.m.add_imm(Sz::X, rsp, rbp, 8);
    cx.m.mov(Sz::X, rbp, t);
    Ok(())
}
