//! XSAVE and its like, XGETBV (SDM vol. 2): helpers, which access guest memory themselves.

use super::cx::Cx;
use super::{Decline, Lowered};
use crate::emit::int::Dmb;
use crate::emit::{Sz, X};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::Ordering;
use xrun_runtime::helpers::{Helper, xsave};

rows! { "xsave";
    Xsave => |cx, i| area(cx, i, xsave::SAVE),
    Xsave64 => |cx, i| area(cx, i, xsave::SAVE | xsave::WIDE),
    Xsavec => |cx, i| area(cx, i, xsave::SAVE_COMPACTED),
    Xsavec64 => |cx, i| area(cx, i, xsave::SAVE_COMPACTED | xsave::WIDE),
    Xsaveopt => |cx, i| area(cx, i, xsave::SAVE_OPTIMISED),
    Xsaveopt64 => |cx, i| area(cx, i, xsave::SAVE_OPTIMISED | xsave::WIDE),
    Xrstor => |cx, i| area(cx, i, xsave::RESTORE),
    Xrstor64 => |cx, i| area(cx, i, xsave::RESTORE | xsave::WIDE),
    Xgetbv => |cx, _| xgetbv(cx),
}

fn area(cx: &mut Cx<'_>, i: &Instruction, what: u64) -> Lowered {
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    let restores = what & !xsave::WIDE == xsave::RESTORE;
    cx.canonical(if restores { Flags::all() } else { cx.live_out() });
    let at = cx.lea(i, true);
    cx.m.mov(Sz::X, X(1), at);
    cx.m.mov_imm(X(0), what);
    if restores {
        cx.m.mov_imm(X(2), i.next_ip());
    }
    let fence = cx.ordering != Ordering::Plain;
    if fence {
        cx.m.dmb(Dmb::Ishst);
    }
    cx.call_helper(Helper::Xsave);
    if fence {
        cx.m.dmb(Dmb::Ishld);
    }
    Ok(())
}

fn xgetbv(cx: &mut Cx<'_>) -> Lowered {
    cx.canonical(cx.live_out());
    cx.m.mov_imm(X(0), xsave::READ_XCR);
    cx.call_helper(Helper::Xsave);
    Ok(())
}
