//! Arithmetic, compares and transcendental instructions (SDM vol. 2, FADD .. FYL2XP1): calls of pure helpers.

use super::{RAW, format, is_memory, st};
use crate::emit::{Sz, X};
use crate::isa::Lowered;
use crate::isa::cx::{AfFrom, Cx};
use crate::rows;
use iced_x86::Instruction;
use xrun_runtime::engine::FlagForm;
use xrun_runtime::helpers::Helper;
use xrun_runtime::helpers::x87::ops::{Arith, implied};

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
    cx.fwait();
    if is_memory(i) {
        let (f, bytes) = format(i);
        cx.fload(i, bytes, RAW);
        cx.m.mov(Sz::X, X(1), RAW);
        cx.fcall(Helper::X87ArithMemory, op as u64 | (f as u64) << 4);
    } else {
        let (d, s) = (st(i, 0), st(i, 1));
        cx.fcall(Helper::X87Arith, op as u64 | u64::from(d) << 4 | u64::from(s) << 8 | u64::from(pop) << 12);
    }
    Ok(())
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
    cx.fwait();
    cx.fcall(Helper::X87CompareFlags, other(i) | u64::from(quiet) << 4 | u64::from(pop) << 8);
    if !cx.live().is_empty() {
        cx.m.msr_nzcv(X(0));
        cx.set_form(FlagForm::Direct);
        cx.m.and_imm(Sz::W, X(1), X(0), 1);
        cx.m.eor_imm(Sz::W, X(1), X(1), 1);
        cx.set_pa(X(1), AfFrom::Const(0));
    }
    Ok(())
}
