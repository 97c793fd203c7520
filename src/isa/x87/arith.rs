//! Arithmetic, compares and transcendental instructions (SDM vol. 2, FADD .. FYL2XP1): routines of the region for what is frequent, calls of pure
//! helpers for the rest.

use super::fast::{A, AE, DONE, Fast, TO};
use super::{E, M, RAW, REGS, SIGN_EXP, format, is_memory, st};
use crate::emit::{Addr, Label, Sz, V, X};
use crate::isa::Lowered;
use crate::isa::cx::{AfFrom, Cx, LINK};
use crate::rows;
use iced_x86::Instruction;
use xrun_runtime::engine::FlagForm;
use xrun_runtime::helpers::Helper;
use xrun_runtime::helpers::x87::ops::{Arith, Format, implied};

rows! { "x87 arithmetic";
    Fadd => |cx, i| arith(cx, i, Arith::Add, false), Faddp => |cx, i| arith(cx, i, Arith::Add, true), Fiadd => |cx, i| arith(cx, i, Arith::Add, false),
    Fmul => |cx, i| arith(cx, i, Arith::Mul, false), Fmulp => |cx, i| arith(cx, i, Arith::Mul, true), Fimul => |cx, i| arith(cx, i, Arith::Mul, false),
    Fsub => |cx, i| arith(cx, i, Arith::Sub, false), Fsubp => |cx, i| arith(cx, i, Arith::Sub, true), Fisub => |cx, i| arith(cx, i, Arith::Sub, false),
    Fsubr => |cx, i| arith(cx, i, Arith::SubR, false), Fsubrp => |cx, i| arith(cx, i, Arith::SubR, true), Fisubr => |cx, i| arith(cx, i, Arith::SubR, false),
    Fdiv => |cx, i| arith(cx, i, Arith::Div, false), Fdivp => |cx, i| arith(cx, i, Arith::Div, true), Fidiv => |cx, i| arith(cx, i, Arith::Div, false),
    Fdivr => |cx, i| arith(cx, i, Arith::DivR, false), Fdivrp => |cx, i| arith(cx, i, Arith::DivR, true), Fidivr => |cx, i| arith(cx, i, Arith::DivR, false),
    Fcom => |cx, i| compare(cx, i, false, 0), Fcomp => |cx, i| compare(cx, i, false, 1), Fcompp => |cx, i| compare(cx, i, false, 2),
    Ficom => |cx, i| compare(cx, i, false, 0), Ficomp => |cx, i| compare(cx, i, false, 1),
    Fucom => |cx, i| compare(cx, i, true, 0), Fucomp => |cx, i| compare(cx, i, true, 1), Fucompp => |cx, i| compare(cx, i, true, 2),
    Fcomi => |cx, i| compare_flags(cx, i, false, false), Fcomip => |cx, i| compare_flags(cx, i, false, true),
    Fucomi => |cx, i| compare_flags(cx, i, true, false), Fucomip => |cx, i| compare_flags(cx, i, true, true),
    Ftst => |cx, _| alone(cx, implied::FTST), Fxam => |cx, _| alone(cx, implied::FXAM),
    F2xm1 => |cx, _| alone(cx, implied::F2XM1), Fyl2x => |cx, _| alone(cx, implied::FYL2X), Fyl2xp1 => |cx, _| alone(cx, implied::FYL2XP1),
    Fptan => |cx, _| alone(cx, implied::FPTAN), Fpatan => |cx, _| alone(cx, implied::FPATAN), Fsin => |cx, _| alone(cx, implied::FSIN),
    Fcos => |cx, _| alone(cx, implied::FCOS), Fsincos => |cx, _| alone(cx, implied::FSINCOS), Fxtract => |cx, _| alone(cx, implied::FXTRACT),
    Fprem => |cx, _| alone(cx, implied::FPREM), Fprem1 => |cx, _| alone(cx, implied::FPREM1), Fsqrt => |cx, _| alone(cx, implied::FSQRT),
    Frndint => |cx, _| alone(cx, implied::FRNDINT), Fscale => |cx, _| alone(cx, implied::FSCALE),
}

fn alone(cx: &mut Cx<'_>, op: u8) -> Lowered {
    cx.fwait();
    cx.fcall(Helper::X87Implied, op.into());
    Ok(())
}

fn arith(cx: &mut Cx<'_>, i: &Instruction, op: Arith, pop: bool) -> Lowered {
    let fast = match op {
        Arith::Mul => Some(Fast::Mul),
        Arith::Add | Arith::Sub | Arith::SubR => Some(Fast::Add),
        Arith::Div | Arith::DivR => None,
    };
    cx.fwait();
    if is_memory(i) {
        let (f, bytes) = format(i);
        let code = op as u64 | (f as u64) << 4;
        cx.fload(i, bytes, RAW);
        match fast {
            Some(fast) if matches!(f, Format::F32 | Format::F64) => arith_memory(cx, op, fast, f, code),
            _ => arith_memory_helper(cx, code),
        }
        return Ok(());
    }
    let (d, s) = (st(i, 0), st(i, 1));
    let code = op as u64 | u64::from(d) << 4 | u64::from(s) << 8 | u64::from(pop) << 12;
    let Some(fast) = fast else {
        cx.fcall(Helper::X87Arith, code);
        return Ok(());
    };
    let done = cx.m.label();
    let slow = cx.fcall_cold(Helper::X87Arith, code, done);
    cx.fstack();
    cx.frotate(d == 0 && s == 0);
    cx.m.tbz(LINK, d, slow);
    if s != d {
        cx.m.tbz(LINK, s, slow);
    }
    cx.faddr(TO, d);
    cx.faddr(X(1), s);
    let (a, b) = if op == Arith::SubR { (X(1), TO) } else { (TO, X(1)) };
    operands(cx, a, b);
    run(cx, op, fast, slow);
    if pop {
        cx.fstack();
        cx.fpop();
    }
    cx.m.bind(done);
    Ok(())
}

/// Loads a routine's operands from two registers' addresses.
fn operands(cx: &mut Cx<'_>, a: X, b: X) {
    for (from, m, e) in [(a, A, AE), (b, M, E)] {
        cx.m.ldr(8, m, Addr::Off(from, REGS));
        cx.m.ldr(2, e, Addr::Off(from, SIGN_EXP));
    }
}

/// The operation on what is in [`A`] and [`M`].
fn run(cx: &mut Cx<'_>, op: Arith, fast: Fast, slow: Label) {
    if matches!(op, Arith::Sub | Arith::SubR) {
        cx.m.eor_imm(Sz::W, E, E, 0x8000);
    }
    call(cx, fast, slow);
}

fn call(cx: &mut Cx<'_>, fast: Fast, slow: Label) {
    let routine = cx.fast_routine(fast);
    cx.m.bl(routine);
    cx.m.cbz(Sz::W, DONE, slow);
}

fn arith_memory_helper(cx: &mut Cx<'_>, code: u64) {
    cx.m.mov(Sz::X, X(1), RAW);
    cx.fcall(Helper::X87ArithMemory, code);
}

/// ST(0) and the single or double in [`RAW`].
fn arith_memory(cx: &mut Cx<'_>, op: Arith, fast: Fast, f: Format, code: u64) {
    // The routine takes all scratch registers.
    let kept = V(0);
    let (done, early) = (cx.m.label(), cx.m.label());
    let slow = cx.cold(move |cx| {
        cx.m.fmov_to_x(RAW, kept);
        cx.m.bind(early);
        arith_memory_helper(cx, code);
        cx.m.b(done);
    });
    cx.fstack();
    cx.frotate(true);
    cx.m.tbz(LINK, 0, early);
    super::moves::widen(cx, f, early);
    cx.faddr(TO, 0);
    cx.m.fmov_from_x(kept, RAW);
    let (m, e) = if op == Arith::SubR {
        cx.m.mov(Sz::X, A, M);
        cx.m.mov(Sz::W, AE, E);
        (M, E)
    } else {
        (A, AE)
    };
    cx.m.ldr(8, m, Addr::Off(TO, REGS));
    cx.m.ldr(2, e, Addr::Off(TO, SIGN_EXP));
    run(cx, op, fast, slow);
    cx.m.bind(done);
}

/// The register a compare's second operand is; ST(1) for the forms that name none.
fn other(i: &Instruction) -> u64 {
    match i.op_count() {
        0 => 1,
        1 => st(i, 0).into(),
        _ => st(i, 1).into(),
    }
}

fn compare(cx: &mut Cx<'_>, i: &Instruction, quiet: bool, pops: u64) -> Lowered {
    cx.fwait();
    if is_memory(i) {
        let (f, bytes) = format(i);
        cx.fload(i, bytes, RAW);
        cx.m.mov(Sz::X, X(1), RAW);
        cx.fcall(Helper::X87CompareMemory, f as u64 | pops << 4);
    } else {
        cx.fcall(Helper::X87Compare, other(i) | u64::from(quiet) << 4 | pops << 8);
    }
    Ok(())
}

fn compare_flags(cx: &mut Cx<'_>, i: &Instruction, quiet: bool, pop: bool) -> Lowered {
    let done = cx.m.label();
    cx.fwait();
    let s = other(i) as u32;
    let slow = cx.fcall_cold(Helper::X87CompareFlags, u64::from(s) | u64::from(quiet) << 4 | u64::from(pop) << 8, done);
    cx.fstack();
    cx.frotate(s == 0);
    cx.m.tbz(LINK, 0, slow);
    if s != 0 {
        cx.m.tbz(LINK, s, slow);
    }
    cx.faddr(X(0), 0);
    cx.faddr(X(1), s);
    operands(cx, X(0), X(1));
    call(cx, Fast::Compare, slow);
    if pop {
        cx.fstack();
        cx.fpop();
    }
    cx.m.bind(done);
    if !cx.live().is_empty() {
        cx.m.msr_nzcv(X(0));
        cx.set_form(FlagForm::Direct);
        cx.m.and_imm(Sz::W, X(1), X(0), 1);
        cx.m.eor_imm(Sz::W, X(1), X(1), 1);
        cx.set_pa(X(1), AfFrom::Const(0));
    }
    Ok(())
}
