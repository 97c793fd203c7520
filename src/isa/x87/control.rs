//! The control and status words, the environment, whole-state saves, and FXSAVE, which also saves SSE (SDM vol. 2). The FN forms do not wait for
//! pending exceptions.

use super::{CONTROL, S, STATUS, TOP};
use crate::emit::int::Dmb;
use crate::emit::{Sz, X};
use crate::guest::Flags;
use crate::isa::cx::{Cx, LINK};
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, Mnemonic, OpKind};
use xrun_runtime::engine::Ordering;
use xrun_runtime::helpers::Helper;

rows! { "x87 control";
    Fnop => |cx, _| { cx.fwait(); Ok(()) },
    Wait => |cx, _| { cx.fwait(); Ok(()) },
    Fninit => |cx, _| { cx.fcall(Helper::X87Control, 0); Ok(()) },
    Fnclex => |cx, _| { cx.fcall(Helper::X87Control, 1); Ok(()) },
    // The 8087's and 80287's: no operation since (SDM vol. 3, 23.18.9).
    Fneni => |_, _| Ok(()), Fndisi => |_, _| Ok(()), Fnsetpm => |_, _| Ok(()),
    Fldcw => |cx, i| fldcw(cx, i),
    Fnstcw => |cx, i| fnstcw(cx, i),
    Fnstsw => |cx, i| fnstsw(cx, i),
    Fnstenv => |cx, i| image(cx, i, 0, false), Fldenv => |cx, i| image(cx, i, 1, true),
    Fnsave => |cx, i| image(cx, i, 2, false), Frstor => |cx, i| image(cx, i, 3, true),
    Fxsave => |cx, i| image(cx, i, 4, false), Fxsave64 => |cx, i| image(cx, i, 4, false),
    Fxrstor => |cx, i| image(cx, i, 5, false), Fxrstor64 => |cx, i| image(cx, i, 5, false),
}

fn fldcw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    let w = X(6);
    // An exception already flagged becomes pending.
    let pending = cx.cold(move |cx| {
        cx.m.mov(Sz::W, X(1), w);
        cx.fcall(Helper::X87Control, 2);
        cx.m.b(done);
    });
    let at = cx.addr(i, 2);
    cx.load(2, w, at);
    cx.m.bic(Sz::W, X(0), S, w);
    cx.m.and_imm(Sz::W, X(0), X(0), 0x3f);
    cx.m.cbnz(Sz::W, X(0), pending);
    // Reserved bits read as 0, bit 6 as 1: 0x1f3f are the others.
    cx.m.and_imm(Sz::W, w, w, 0x1fff);
    cx.m.and_imm(Sz::W, w, w, u64::from(!0xc0u32));
    cx.m.orr_imm(Sz::W, w, w, 0x40);
    cx.m.str(2, w, CONTROL);
    cx.m.bind(done);
    Ok(())
}

fn fnstcw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    cx.m.ldr(2, S, CONTROL);
    let at = cx.addr(i, 2);
    cx.store(2, S, at);
    Ok(())
}

fn fnstsw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    cx.m.ldr(2, S, STATUS);
    cx.m.ldr(1, LINK, TOP);
    cx.m.orr_lsl(Sz::W, S, S, LINK, 11);
    if i.op0_kind() == OpKind::Register {
        let ax = cx.place(i, 0)?;
        cx.set(ax, S);
    } else {
        let at = cx.addr(i, 2);
        cx.store(2, S, at);
    }
    Ok(())
}

/// State to or from memory, by the full helper: it accesses guest memory itself.
fn image(cx: &mut Cx<'_>, i: &Instruction, code: u64, waits: bool) -> Lowered {
    use iced_x86::Code;
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    if waits {
        cx.fwait();
    }
    let short =
        matches!(i.code(), Code::Fnstenv_m14byte | Code::Fldenv_m14byte | Code::Fnsave_m94byte | Code::Frstor_m94byte);
    let variant = short || matches!(i.mnemonic(), Mnemonic::Fxsave64 | Mnemonic::Fxrstor64);
    cx.canonical(if code == 5 { Flags::all() } else { cx.live_out() });
    let at = cx.lea(i, true);
    cx.m.mov(Sz::X, X(1), at);
    cx.m.mov_imm(X(0), code | if variant { 8 } else { 0 });
    if code == 5 {
        cx.m.mov_imm(X(2), i.next_ip());
    }
    let fence = cx.ordering != Ordering::Plain;
    if fence {
        cx.m.dmb(Dmb::Ishst);
    }
    cx.call_helper(Helper::X87MemoryImage);
    if fence {
        cx.m.dmb(Dmb::Ishld);
    }
    Ok(())
}
