//! Instructions lowered together, as [`crate::facts::fuse`] marks them. Each way here means exactly what its instructions mean one after the other; a fault
//! inside is the first one's.

use super::branch::{Test, test};
use super::cx::{Cx, Ext, Place, pinned};
use super::{Decline, Lowered};
use crate::emit::{Sz, X, ZR};
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind};
use xrun_runtime::engine::Ordering;
use xrun_runtime::state::gpr::RSP;

/// A comparison or bit test, and the branch `j` that alone reads it. [`Cx::at`] is the comparison's on entry and the branch's on exit.
pub fn with_branch(cx: &mut Cx<'_>, i: &Instruction, j: &Instruction) -> Lowered {
    use ConditionCode as C;
    let cc = j.condition_code();
    let dst = cx.place(i, 0)?;
    let bytes = dst.bytes();
    let size = if bytes == 8 { Sz::X } else { Sz::W };
    let a = match dst {
        // The bit is found in the register itself.
        Place::Reg { x, .. } => x,
        p => cx.get(p, Ext::Zero),
    };
    let lsb = match dst {
        Place::Reg { lsb, .. } => lsb,
        _ => 0,
    };
    let constant = i.op1_kind() != OpKind::Register;
    // One bit, and whether the branch is taken when it is set; none: the whole register and whether it is taken when that is not zero.
    let (x, bit, taken_if_set) = match i.mnemonic() {
        Mnemonic::Bt if constant => (a, Some(i.immediate(1) as u32 & (8 * bytes - 1)), cc == C::b),
        Mnemonic::Bt => {
            let index = cx.place(i, 1)?;
            let n = cx.get(index, Ext::Any);
            let t = cx.tmp();
            cx.m.lsrv(size, t, a, n);
            (t, Some(0), cc == C::b)
        }
        Mnemonic::Test if constant => {
            let mask = i.immediate(1) & super::cx::mask(bytes);
            (a, Some(lsb + mask.trailing_zeros()), cc == C::ne)
        }
        _ if matches!(cc, C::s | C::ns | C::l | C::ge) => (a, Some(lsb + 8 * bytes - 1), matches!(cc, C::s | C::l)),
        _ => (a, None, cc == C::ne),
    };
    cx.at += 1;
    let live = cx.facts.live_target[cx.at];
    let l = cx.edge(j.near_branch_target(), live);
    match (bit, taken_if_set) {
        (Some(b), true) => cx.m.tbnz(x, b, l),
        (Some(b), false) => cx.m.tbz(x, b, l),
        (None, true) => cx.m.cbnz(size, x, l),
        (None, false) => cx.m.cbz(size, x, l),
    }
    Ok(())
}

/// SETcc and the MOVZX of its result: a whole register of 0 or 1.
pub fn set_widen(cx: &mut Cx<'_>, i: &Instruction, j: &Instruction) -> Lowered {
    let Place::Reg { x, .. } = cx.place(j, 0)? else {
        return Err(Decline::Unsupported("operand kind"));
    };
    set_whole(cx, i.condition_code(), x);
    cx.at += 1;
    Ok(())
}

/// `d` = the condition as 0 or 1.
pub fn set_whole(cx: &mut Cx<'_>, cc: ConditionCode, d: X) {
    match test(cx, cc) {
        Test::One(c) => cx.m.cset(d, c),
        Test::Or(a, b) => {
            cx.m.cset(d, a);
            cx.m.csinc(Sz::W, d, d, ZR, b.invert());
        }
        Test::And(a, b) => {
            cx.m.cset(d, a);
            cx.m.csel(Sz::W, d, d, ZR, b);
        }
        Test::Parity(p, even) => {
            cx.m.and_imm(Sz::W, d, p, 1);
            if even {
                cx.m.eor_imm(Sz::W, d, d, 1);
            }
        }
    }
}

/// Two pushes or two pops of 64-bit registers in one access, where nothing else can see the order.
pub fn pair(cx: &mut Cx<'_>, i: &Instruction, j: &Instruction) -> Lowered {
    if cx.ordering != Ordering::Plain {
        return Err(Decline::Unsupported("ordered pair"));
    }
    let (Place::Reg { x: a, .. }, Place::Reg { x: b, .. }) = (cx.place(i, 0)?, cx.place(j, 0)?) else {
        return Err(Decline::Unsupported("operand kind"));
    };
    let rsp = pinned(RSP);
    if i.mnemonic() == Mnemonic::Push {
        cx.m.stp_pre(b, a, rsp, -16);
    } else {
        cx.m.ldp_post(a, b, rsp, 16);
    }
    cx.at += 1;
    Ok(())
}
