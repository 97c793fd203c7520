//! Loads, stores and register moves: FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP, constants, FXCH, FCMOVcc, FCHS, FABS, FFREE, FINCSTP (SDM vol. 2).

use super::{E, M, RAW, REGS, SIGN_EXP, T, TOP, U, format, is_memory, st};
use crate::emit::{Addr, Label, Sz, V, X};
use crate::isa::Lowered;
use crate::isa::branch::{Test, test};
use crate::isa::cx::{Cx, LINK};
use crate::rows;
use iced_x86::{ConditionCode, Instruction};
use xrun_runtime::helpers::Helper;
use xrun_runtime::helpers::f80::BIAS;
use xrun_runtime::helpers::x87::ops::{Format, implied};

rows! { "x87 moves";
    Fld => |cx, i| fld(cx, i), Fild => |cx, i| fild(cx, i), Fbld => |cx, i| { cx.fwait(); load_helper(cx, i); Ok(()) },
    Fst => |cx, i| fst(cx, i, false), Fstp => |cx, i| fst(cx, i, true), Fstpnce => |cx, i| fstpnce(cx, st(i, 0)),
    Fist => |cx, i| store(cx, i, false, false), Fistp => |cx, i| store(cx, i, false, true),
    Fisttp => |cx, i| store(cx, i, true, true), Fbstp => |cx, i| store(cx, i, false, true),
    Fld1 => |cx, _| constant(cx, BIAS as u16, 1 << 63, implied::FLD1), Fldz => |cx, _| constant(cx, 0, 0, implied::FLDZ),
    Fldl2t => |cx, _| by_helper(cx, implied::FLD1 + 1), Fldl2e => |cx, _| by_helper(cx, implied::FLD1 + 2),
    Fldpi => |cx, _| by_helper(cx, implied::FLD1 + 3), Fldlg2 => |cx, _| by_helper(cx, implied::FLD1 + 4),
    Fldln2 => |cx, _| by_helper(cx, implied::FLD1 + 5),
    Fxch => |cx, i| fxch(cx, st(i, 1)),
    Fcmovb => |cx, i| fcmov(cx, i, ConditionCode::b), Fcmove => |cx, i| fcmov(cx, i, ConditionCode::e),
    Fcmovbe => |cx, i| fcmov(cx, i, ConditionCode::be), Fcmovu => |cx, i| fcmov(cx, i, ConditionCode::p),
    Fcmovnb => |cx, i| fcmov(cx, i, ConditionCode::ae), Fcmovne => |cx, i| fcmov(cx, i, ConditionCode::ne),
    Fcmovnbe => |cx, i| fcmov(cx, i, ConditionCode::a), Fcmovnu => |cx, i| fcmov(cx, i, ConditionCode::np),
    Fchs => |cx, _| sign(cx, implied::FCHS), Fabs => |cx, _| sign(cx, implied::FABS),
    Ffree => |cx, i| free(cx, st(i, 0), false), Ffreep => |cx, i| free(cx, st(i, 0), true),
    Fincstp => |cx, _| turn(cx, 1), Fdecstp => |cx, _| turn(cx, 7),
}

fn by_helper(cx: &mut Cx<'_>, op: u8) -> Lowered {
    cx.fwait();
    cx.fcall(Helper::X87Implied, op.into());
    Ok(())
}

/// The operand loaded, then the helper.
fn load_helper(cx: &mut Cx<'_>, i: &Instruction) {
    let (f, bytes) = format(i);
    cx.fload(i, bytes, M);
    load_call(cx, f, M);
}

fn load_call(cx: &mut Cx<'_>, f: Format, raw: X) {
    cx.m.mov(Sz::X, X(1), raw);
    cx.m.mov(Sz::X, X(2), E);
    cx.fcall(Helper::X87Load, f as u64);
}

/// The helper's load out of line, with the raw operand in a register.
fn load_cold(cx: &mut Cx<'_>, f: Format, raw: X, done: Label) -> Label {
    cx.cold(move |cx| {
        load_call(cx, f, raw);
        cx.m.b(done);
    })
}

fn fld(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    if !is_memory(i) {
        let n = st(i, 0);
        let slow = cx.cold(move |cx| {
            cx.m.mov_imm(X(1), n.into());
            cx.fcall(Helper::X87Register, 0);
            cx.m.b(done);
        });
        cx.fstack();
        cx.frotate(n == 0);
        cx.m.tbz(LINK, n, slow);
        cx.faddr(X(0), n);
        cx.m.ldr(8, M, Addr::Off(X(0), REGS));
        cx.m.ldr(2, E, Addr::Off(X(0), SIGN_EXP));
        cx.fpush(slow);
        cx.m.bind(done);
        return Ok(());
    }
    let (f, bytes) = format(i);
    match f {
        Format::F80 => {
            let slow = load_cold(cx, f, M, done);
            cx.fload(i, bytes, M);
            cx.fstack();
            cx.fpush(slow);
        }
        _ => {
            let slow = load_cold(cx, f, RAW, done);
            cx.fload(i, bytes, RAW);
            widen(cx, f, slow);
            cx.fstack();
            cx.fpush(slow);
        }
    }
    cx.m.bind(done);
    Ok(())
}

/// A normal single or double in [`RAW`] to [`M`], [`E`]; anything else goes to `slow`.
pub(super) fn widen(cx: &mut Cx<'_>, f: Format, slow: Label) {
    let (precision, exp_bits) = if f == Format::F32 { (24, 8) } else { (53, 11) };
    let bias = (1 << (exp_bits - 1)) - 1;
    cx.m.ubfx(Sz::X, E, RAW, precision - 1, exp_bits);
    // Exponents 0 and all-ones become 0.
    cx.m.add_imm(Sz::W, X(0), E, 1);
    cx.m.and_imm(Sz::W, X(0), X(0), (1 << exp_bits) - 2);
    cx.m.cbz(Sz::W, X(0), slow);
    cx.m.lsl(Sz::X, M, RAW, 64 - precision);
    cx.m.orr_imm(Sz::X, M, M, 1 << 63);
    cx.m.mov_imm(X(0), (BIAS - bias) as u64);
    cx.m.add(Sz::W, E, E, X(0));
    cx.m.lsr(Sz::X, X(0), RAW, precision - 1 + exp_bits);
    cx.m.orr_lsl(Sz::W, E, E, X(0), 15);
}

fn fild(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (f, bytes) = format(i);
    let done = cx.m.label();
    cx.fwait();
    let slow = load_cold(cx, f, RAW, done);
    cx.fload(i, bytes, RAW);
    let wide = if bytes < 8 {
        cx.m.sbfx(Sz::X, M, RAW, 0, 8 * bytes);
        M
    } else {
        RAW
    };
    cx.m.cbz(Sz::X, wide, slow);
    cx.m.asr(Sz::X, X(0), wide, 63);
    cx.m.eor(Sz::X, M, wide, X(0));
    cx.m.sub(Sz::X, M, M, X(0));
    cx.m.clz(Sz::X, X(1), M);
    cx.m.lslv(Sz::X, M, M, X(1));
    cx.m.mov_imm(E, (BIAS + 63) as u64);
    cx.m.sub(Sz::W, E, E, X(1));
    cx.m.and_imm(Sz::W, X(0), X(0), 0x8000);
    cx.m.orr(Sz::W, E, E, X(0));
    cx.fstack();
    cx.fpush(slow);
    cx.m.bind(done);
    Ok(())
}

fn constant(cx: &mut Cx<'_>, sign_exp: u16, mantissa: u64, op: u8) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    let slow = cx.fcall_cold(Helper::X87Implied, op.into(), done);
    cx.m.mov_imm(M, mantissa);
    cx.m.mov_imm(E, sign_exp.into());
    cx.fstack();
    cx.fpush(slow);
    cx.m.bind(done);
    Ok(())
}

fn store(cx: &mut Cx<'_>, i: &Instruction, chop: bool, pop: bool) -> Lowered {
    cx.fwait();
    cx.fstore_helper(i, chop, pop);
    Ok(())
}

fn fst(cx: &mut Cx<'_>, i: &Instruction, pop: bool) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    if !is_memory(i) {
        return fst_register(cx, st(i, 0), pop, done);
    }
    let (f, bytes) = format(i);
    let copy = *i;
    let slow = cx.cold(move |cx| {
        cx.fstore_helper(&copy, false, pop);
        cx.m.b(done);
    });
    cx.fstack();
    cx.frotate(true);
    cx.m.tbz(LINK, 0, slow);
    cx.faddr(X(0), 0);
    cx.m.ldr(8, M, Addr::Off(X(0), REGS));
    cx.m.ldr(2, E, Addr::Off(X(0), SIGN_EXP));
    if f != Format::F80 {
        narrow(cx, f, slow);
    }
    cx.fstore(i, bytes);
    if pop {
        cx.fpop();
    }
    cx.fclean();
    cx.m.bind(done);
    Ok(())
}

/// [`M`], [`E`] to a single or double in [`M`], if it is one exactly and normal there; anything else goes to `slow`.
fn narrow(cx: &mut Cx<'_>, f: Format, slow: Label) {
    let (precision, exp_bits) = if f == Format::F32 { (24, 8) } else { (53, 11) };
    let bias = (1 << (exp_bits - 1)) - 1;
    cx.m.and_imm(Sz::X, X(0), M, (1 << (64 - precision)) - 1);
    cx.m.cbnz(Sz::X, X(0), slow);
    cx.m.tbz(M, 63, slow);
    // x0 = new exponent - 1; in range if it is not negative and it less the number of normal exponents is.
    cx.m.and_imm(Sz::X, X(0), E, 0x7fff);
    cx.m.mov_imm(X(1), (BIAS - bias + 1) as u64);
    cx.m.sub(Sz::X, X(0), X(0), X(1));
    cx.m.sub_imm(Sz::X, X(1), X(0), (1 << exp_bits) - 2);
    cx.m.bic(Sz::X, X(1), X(1), X(0));
    cx.m.tbz(X(1), 63, slow);
    cx.m.add_imm(Sz::W, X(0), X(0), 1);
    cx.m.ubfx(Sz::X, M, M, 64 - precision, precision - 1);
    cx.m.orr_lsl(Sz::X, M, M, X(0), precision - 1);
    cx.m.lsr(Sz::W, X(0), E, 15);
    cx.m.orr_lsl(Sz::X, M, M, X(0), precision - 1 + exp_bits);
}

fn fst_register(cx: &mut Cx<'_>, n: u32, pop: bool, done: Label) -> Lowered {
    let slow = cx.cold(move |cx| {
        cx.m.mov_imm(X(1), n.into());
        cx.fcall(Helper::X87Register, 1 + u64::from(pop));
        cx.m.b(done);
    });
    cx.fstack();
    cx.frotate(true);
    cx.m.tbz(LINK, 0, slow);
    copy_top(cx, n);
    if pop {
        cx.fpop();
    } else if n != 0 {
        cx.m.str(1, U, super::IN_USE);
    }
    cx.fclean();
    cx.m.bind(done);
    Ok(())
}

/// FSTPNCE ST(n), D9 D8: FSTP that raises nothing when ST(0) is empty. It is in no manual, and makers differ in what becomes of ST(n) then: as on
/// Intel's CPUs it
/// stays as it was.
fn fstpnce(cx: &mut Cx<'_>, n: u32) -> Lowered {
    let empty = cx.m.label();
    cx.fwait();
    cx.fstack();
    cx.frotate(true);
    cx.m.tbz(LINK, 0, empty);
    copy_top(cx, n);
    cx.m.bind(empty);
    cx.fpop();
    cx.fclean();
    Ok(())
}

/// ST(n) = ST(0), which is not empty.
fn copy_top(cx: &mut Cx<'_>, n: u32) {
    if n == 0 {
        return;
    }
    cx.faddr(X(0), 0);
    cx.m.ldr_v(16, V(0), Addr::Off(X(0), REGS));
    cx.m.add_imm(Sz::W, X(1), T, n);
    cx.m.and_imm(Sz::W, X(1), X(1), 7);
    cx.m.movz(Sz::W, LINK, 1, 0);
    cx.m.lslv(Sz::W, LINK, LINK, X(1));
    cx.m.orr(Sz::W, U, U, LINK);
    cx.faddr(X(0), n);
    cx.m.str_v(16, V(0), Addr::Off(X(0), REGS));
}

fn fxch(cx: &mut Cx<'_>, n: u32) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    let slow = cx.cold(move |cx| {
        cx.m.mov_imm(X(1), n.into());
        cx.fcall(Helper::X87Register, 3);
        cx.m.b(done);
    });
    cx.fstack();
    cx.frotate(false);
    cx.m.tbz(LINK, 0, slow);
    if n != 0 {
        cx.m.tbz(LINK, n, slow);
        cx.faddr(X(0), 0);
        cx.faddr(X(1), n);
        cx.m.ldr_v(16, V(0), Addr::Off(X(0), REGS));
        cx.m.ldr_v(16, V(1), Addr::Off(X(1), REGS));
        cx.m.str_v(16, V(1), Addr::Off(X(0), REGS));
        cx.m.str_v(16, V(0), Addr::Off(X(1), REGS));
    }
    cx.fclean();
    cx.m.bind(done);
    Ok(())
}

/// FCMOVcc by the helper, with the condition in bit 0 of its code.
fn fcmov(cx: &mut Cx<'_>, i: &Instruction, cc: ConditionCode) -> Lowered {
    cx.fwait();
    let c = X(3);
    match test(cx, cc) {
        Test::One(a) => cx.m.cset(c, a),
        Test::Or(a, b) => {
            cx.m.cset(c, a);
            cx.m.cset(X(4), b);
            cx.m.orr(Sz::W, c, c, X(4));
        }
        Test::And(a, b) => {
            cx.m.cset(c, a);
            cx.m.cset(X(4), b);
            cx.m.and(Sz::W, c, c, X(4));
        }
        Test::Parity(t, even) => {
            cx.m.and_imm(Sz::W, c, t, 1);
            if even {
                cx.m.eor_imm(Sz::W, c, c, 1);
            }
        }
    }
    cx.m.add_imm(Sz::W, X(0), c, 4);
    cx.m.mov_imm(X(1), st(i, 1).into());
    cx.call_pure(Helper::X87Register);
    Ok(())
}

/// FCHS, FABS.
fn sign(cx: &mut Cx<'_>, op: u8) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    let slow = cx.fcall_cold(Helper::X87Implied, op.into(), done);
    cx.fstack();
    cx.frotate(true);
    cx.m.tbz(LINK, 0, slow);
    cx.faddr(X(0), 0);
    let at = Addr::Off(X(0), SIGN_EXP);
    cx.m.ldr(2, E, at);
    if op == implied::FCHS {
        cx.m.eor_imm(Sz::W, E, E, 0x8000);
    } else {
        cx.m.and_imm(Sz::W, E, E, 0x7fff);
    }
    cx.m.str(2, E, at);
    cx.fclean();
    cx.m.bind(done);
    Ok(())
}

fn free(cx: &mut Cx<'_>, n: u32, pop: bool) -> Lowered {
    cx.fwait();
    cx.fstack();
    cx.m.add_imm(Sz::W, X(0), T, n);
    cx.m.and_imm(Sz::W, X(0), X(0), 7);
    cx.m.movz(Sz::W, LINK, 1, 0);
    cx.m.lslv(Sz::W, LINK, LINK, X(0));
    cx.m.bic(Sz::W, U, U, LINK);
    cx.m.str(1, U, super::IN_USE);
    if pop {
        cx.fpop();
    }
    Ok(())
}

/// FINCSTP, FDECSTP: TOP moves, tags stay.
fn turn(cx: &mut Cx<'_>, by: u32) -> Lowered {
    cx.fwait();
    cx.m.ldr(1, T, TOP);
    cx.m.add_imm(Sz::W, T, T, by);
    cx.m.and_imm(Sz::W, T, T, 7);
    cx.m.str(1, T, TOP);
    cx.fclean();
    Ok(())
}
