//! Control transfers: JMP, Jcc, JRCXZ, LOOP, CALL, RET (SDM vol. 2), and what a condition is on AArch64.

use super::cx::{Cx, Ext, pinned};
use super::{Decline, Lowered};
use crate::emit::{Cond, Sz, X};
use crate::rows;
use iced_x86::{ConditionCode, Instruction, OpKind};
use xrun_runtime::engine::FlagForm;
use xrun_runtime::state::gpr::{RCX, RSP};

rows! { "branch";
    Jmp => |cx, i| jmp(cx, i),
    Call => |cx, i| call(cx, i),
    Ret => |cx, i| ret(cx, i),
    Jo => |cx, i| jcc(cx, i), Jno => |cx, i| jcc(cx, i), Jb => |cx, i| jcc(cx, i), Jae => |cx, i| jcc(cx, i),
    Je => |cx, i| jcc(cx, i), Jne => |cx, i| jcc(cx, i), Jbe => |cx, i| jcc(cx, i), Ja => |cx, i| jcc(cx, i),
    Js => |cx, i| jcc(cx, i), Jns => |cx, i| jcc(cx, i), Jp => |cx, i| jcc(cx, i), Jnp => |cx, i| jcc(cx, i),
    Jl => |cx, i| jcc(cx, i), Jge => |cx, i| jcc(cx, i), Jle => |cx, i| jcc(cx, i), Jg => |cx, i| jcc(cx, i),
    Jrcxz => |cx, i| jrcxz(cx, i, Sz::X), Jecxz => |cx, i| jrcxz(cx, i, Sz::W),
    Loop => |cx, i| loop_(cx, i, None), Loope => |cx, i| loop_(cx, i, Some(true)), Loopne => |cx, i| loop_(cx, i, Some(false)),
}

/// An x86 condition in terms of NZCV or of the PF source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    One(Cond),
    /// Either of two.
    Or(Cond, Cond),
    /// Both of two.
    And(Cond, Cond),
    /// Bit 0 of a scratch register is clear (`true`: PF set) or set.
    Parity(X, bool),
}

/// Prepares the condition: after this only the named host conditions need testing. May change the form of the flags.
pub fn test(cx: &mut Cx<'_>, cc: ConditionCode) -> Test {
    use ConditionCode as C;
    if cx.form() == FlagForm::FloatCompare {
        return match cc {
            C::a => Test::One(Cond::Gt),
            C::ae => Test::One(Cond::Ge),
            C::b => Test::One(Cond::Lt),
            C::be => Test::One(Cond::Le),
            C::e => Test::Or(Cond::Eq, Cond::Vs),
            C::ne => Test::And(Cond::Ne, Cond::Vc),
            C::p => Test::One(Cond::Vs),
            C::np => Test::One(Cond::Vc),
            _ => {
                cx.canonical(crate::guest::Flags::all());
                test(cx, cc)
            }
        };
    }
    let inverted = cx.form() == FlagForm::CarryInverted;
    Test::One(match cc {
        C::o => Cond::Vs,
        C::no => Cond::Vc,
        C::b => {
            if inverted {
                Cond::Cc
            } else {
                Cond::Cs
            }
        }
        C::ae => {
            if inverted {
                Cond::Cs
            } else {
                Cond::Cc
            }
        }
        C::e => Cond::Eq,
        C::ne => Cond::Ne,
        // Two tests are as short as turning the carry over, and leave it as it is.
        C::be if !inverted => return Test::Or(Cond::Cs, Cond::Eq),
        C::a if !inverted => return Test::And(Cond::Cc, Cond::Ne),
        C::be => Cond::Ls,
        C::a => Cond::Hi,
        C::s => Cond::Mi,
        C::ns => Cond::Pl,
        C::l => Cond::Lt,
        C::ge => Cond::Ge,
        C::le => Cond::Le,
        C::g => Cond::Gt,
        C::p | C::np => {
            // Fold the low byte's parity into bit 0.
            let (t, r) = (cx.tmp(), cx.pf_source());
            cx.m.eor_lsr(Sz::W, t, r, r, 4);
            cx.m.eor_lsr(Sz::W, t, t, t, 2);
            cx.m.eor_lsr(Sz::W, t, t, t, 1);
            return Test::Parity(t, cc == C::p);
        }
        C::None => Cond::Al,
    })
}

fn jcc(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let target = i.near_branch_target();
    let live = cx.facts.live_target[cx.at];
    match test(cx, i.condition_code()) {
        Test::One(c) => {
            let l = cx.edge(target, live);
            cx.m.b_cond(c, l);
        }
        Test::Or(a, b) => {
            let l = cx.edge(target, live);
            cx.m.b_cond(a, l);
            let l = cx.edge(target, live);
            cx.m.b_cond(b, l);
        }
        Test::And(a, b) => {
            cx.prepare_edge(target);
            let skip = cx.m.label();
            cx.m.b_cond(a.invert(), skip);
            let l = cx.edge(target, live);
            cx.m.b_cond(b, l);
            cx.m.bind(skip);
        }
        Test::Parity(t, even) => {
            let l = cx.edge(target, live);
            if even {
                cx.m.tbz(t, 0, l);
            } else {
                cx.m.tbnz(t, 0, l);
            }
        }
    }
    Ok(())
}

/// JRCXZ, JECXZ: no flags read.
fn jrcxz(cx: &mut Cx<'_>, i: &Instruction, size: Sz) -> Lowered {
    let live = cx.facts.live_target[cx.at];
    let l = cx.edge(i.near_branch_target(), live);
    cx.m.cbz(size, pinned(RCX), l);
    Ok(())
}

/// LOOP, LOOPE, LOOPNE: counts RCX (ECX with an address-size prefix) down without changing flags.
fn loop_(cx: &mut Cx<'_>, i: &Instruction, want_zf: Option<bool>) -> Lowered {
    use iced_x86::Code::*;
    let size = match i.code() {
        Loop_rel8_64_RCX | Loope_rel8_64_RCX | Loopne_rel8_64_RCX => Sz::X,
        Loop_rel8_64_ECX | Loope_rel8_64_ECX | Loopne_rel8_64_ECX => Sz::W,
        _ => return Err(Decline::Unsupported("16-bit branch")),
    };
    let live = cx.facts.live_target[cx.at];
    let rcx = pinned(RCX);
    if want_zf.is_some() {
        cx.settle();
    }
    cx.prepare_edge(i.near_branch_target());
    cx.m.sub_imm(size, rcx, rcx, 1);
    let skip = want_zf.map(|z| {
        let skip = cx.m.label();
        cx.m.b_cond(if z { Cond::Ne } else { Cond::Eq }, skip);
        skip
    });
    let l = cx.edge(i.near_branch_target(), live);
    cx.m.cbnz(size, rcx, l);
    if let Some(skip) = skip {
        cx.m.bind(skip);
    }
    Ok(())
}

fn jmp(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    match i.op0_kind() {
        OpKind::NearBranch64 => {
            let live = cx.facts.live_target[cx.at];
            cx.jump(i.near_branch_target(), live);
            Ok(())
        }
        OpKind::Register | OpKind::Memory if !i.is_jmp_far_indirect() => {
            let p = cx.place(i, 0)?;
            if p.bytes() != 8 {
                return Err(Decline::Unsupported("16-bit near jump"));
            }
            let t = cx.get(p, Ext::Any);
            cx.jump_indirect(t);
            Ok(())
        }
        _ => super::segment::transfer(cx, i),
    }
}

fn call(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let next = i.next_ip();
    let rsp = pinned(RSP);
    match i.op0_kind() {
        OpKind::NearBranch64 => {
            let ret = cx.tmp();
            cx.m.mov_imm(ret, next);
            cx.push(ret, rsp);
            cx.call_direct(i.near_branch_target(), ret, next);
            Ok(())
        }
        OpKind::Register | OpKind::Memory if !i.is_call_far_indirect() => {
            let p = cx.place(i, 0)?;
            if p.bytes() != 8 {
                return Err(Decline::Unsupported("16-bit near call"));
            }
            let mut t = cx.get(p, Ext::Any);
            if t == rsp {
                t = cx.tmp();
                cx.m.mov(Sz::X, t, rsp);
            }
            let ret = cx.tmp();
            cx.m.mov_imm(ret, next);
            cx.push(ret, rsp);
            cx.call_indirect(t, ret, next);
            Ok(())
        }
        _ => super::segment::transfer(cx, i),
    }
}

fn ret(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let rsp = pinned(RSP);
    let t = cx.tmp();
    if i.code() == iced_x86::Code::Retnw || i.code() == iced_x86::Code::Retnw_imm16 {
        return Err(Decline::Unsupported("16-bit return"));
    }
    cx.pop(t, rsp);
    if i.op_count() == 1 {
        cx.add_const(Sz::X, rsp, rsp, i64::from(i.immediate16()));
    }
    cx.ret_to(t);
    Ok(())
}
