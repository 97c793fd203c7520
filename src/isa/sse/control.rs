//! MXCSR, and the SSE4.2 string compares (SDM vol. 2): what goes through a helper.
//!
//! MXCSR's rounding and flush bits live in FPCR, its sticky flags in FPSR; the runtime converts (`xrun_runtime::enter::fp`). AArch64 CPUs need not
//! trap floating-point exceptions, and few do: from the first unmasking on, code looks at FPSR after each instruction that may raise one (`cx::traps`).

use super::{Width, unary};
use crate::emit::{Addr, Sz, V, X};
use crate::guest::Flags;
use crate::isa::cx::{Cx, STATE, pinned};
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::mem::offset_of;
use xrun_runtime::abi;
use xrun_runtime::engine::FlagForm;
use xrun_runtime::helpers::{Helper, sse::STRING_SLOT};
use xrun_runtime::state::{CpuState, gpr};

rows! { "sse control";
    Ldmxcsr | Vldmxcsr => |cx, i| ldmxcsr(cx, i),
    Stmxcsr | Vstmxcsr => |cx, i| stmxcsr(cx, i),
    Rcpss | Vrcpss => |cx, i| estimate(cx, i, false, 0),
    Rcpps | Vrcpps => |cx, i| estimate(cx, i, true, 0),
    Rsqrtss | Vrsqrtss => |cx, i| estimate(cx, i, false, 1),
    Rsqrtps | Vrsqrtps => |cx, i| estimate(cx, i, true, 1),
    Pcmpistri | Vpcmpistri => |cx, i| strings(cx, i, false, false),
    Pcmpistrm | Vpcmpistrm => |cx, i| strings(cx, i, false, true),
    Pcmpestri | Vpcmpestri => |cx, i| strings(cx, i, true, false),
    Pcmpestrm | Vpcmpestrm => |cx, i| strings(cx, i, true, true),
    Pcmpestri64 | Vpcmpestri64 => |cx, i| strings(cx, i, true, false),
    Pcmpestrm64 | Vpcmpestrm64 => |cx, i| strings(cx, i, true, true),
}

fn ldmxcsr(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    // The helper's first argument: taken, it stays out of the way of what follows.
    let value = cx.tmp();
    debug_assert_eq!(value, X(0));
    let at = cx.addr(i, 4);
    cx.load(4, value, at);
    cx.canonical(Flags::all());
    cx.m.mov_imm(X(1), i.next_ip());
    cx.call_helper(Helper::Ldmxcsr);
    Ok(())
}

fn stmxcsr(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    // The first scratch register is x0, where the helper leaves its result: taken, it stays out of the address's way.
    let value = cx.tmp();
    debug_assert_eq!(value, X(0));
    cx.canonical(cx.live_out());
    cx.call_helper(Helper::Stmxcsr);
    let at = cx.addr(i, 4);
    cx.store(4, value, at);
    Ok(())
}

/// RCP and RSQRT: tables in the runtime.
fn estimate(cx: &mut Cx<'_>, i: &Instruction, packed: bool, root: u64) -> Lowered {
    let four = |cx: &mut Cx<'_>, d: V, n: V| {
        cx.m.str_v(16, n, slot(0));
        cx.m.mov_imm(X(1), root);
        cx.call_pure(Helper::Estimate4);
        cx.m.ldr_v(16, d, slot(1));
    };
    if packed && Width::of(i) == Width::Vex256 {
        let d = cx.vreg(i, 0)?;
        let [lo, hi] = cx.vsrc_halves(i, 1)?;
        // The helper leaves no scratch register as it was.
        cx.m.str_v(16, hi, slot(2));
        four(cx, d, lo);
        let v = cx.vtmp();
        cx.m.ldr_v(16, v, slot(2));
        four(cx, v, v);
        cx.set_upper(i.op0_register().number(), v);
        return Ok(());
    }
    if packed {
        return unary(cx, i, four);
    }
    let vex = u32::from(Width::of(i) != Width::Legacy);
    let (d, a) = (cx.vreg(i, 0)?, cx.vreg(i, vex)?);
    let n = cx.vsrc(i, 1 + vex)?;
    cx.m.fmov_to_w(X(0), n);
    cx.m.mov_imm(X(1), root);
    cx.call_pure(Helper::Estimate);
    if d != a {
        cx.m.mov_v(d, a);
    }
    cx.m.ins_x(2, d, 0, X(0));
    Ok(())
}

/// A 16-byte slot of the spill space.
fn slot(n: usize) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, spill) + 8 * STRING_SLOT + 16 * n) as i32)
}

/// `explicit`: lengths in EAX and EDX (RAX and RDX with REX.W); else strings end at a zero. `mask`: the result is a mask in XMM0, else an index in ECX.
fn strings(cx: &mut Cx<'_>, i: &Instruction, explicit: bool, mask: bool) -> Lowered {
    let a = cx.vreg(i, 0)?;
    let b = cx.vsrc_unaligned(i, 1)?;
    if i.op2_kind() != OpKind::Immediate8 {
        return Err(Decline::Undefined);
    }
    let imm = u64::from(cx.imm8(i));
    cx.m.str_v(16, a, slot(0));
    cx.m.str_v(16, b, slot(1));
    if explicit {
        let wide = matches!(
            i.mnemonic(),
            Mnemonic::Pcmpestri64 | Mnemonic::Pcmpestrm64 | Mnemonic::Vpcmpestri64 | Mnemonic::Vpcmpestrm64
        );
        for (x, n) in [(X(1), gpr::RAX), (X(2), gpr::RDX)] {
            if wide {
                cx.m.mov(Sz::X, x, pinned(n));
            } else {
                cx.m.sbfx(Sz::X, x, pinned(n), 0, 32);
            }
        }
    }
    cx.m.mov_imm(X(0), imm | if explicit { 0x100 } else { 0 });
    cx.call_pure(Helper::Pcmpstr);
    if !cx.live().is_empty() {
        cx.m.lsr(Sz::X, X(1), X(0), 32);
        cx.m.msr_nzcv(X(1));
        cx.set_form(FlagForm::Direct);
        cx.set_pa_zero();
    }
    if mask {
        // No operand names XMM0.
        cx.m.ldr_v(16, V(abi::xmm(0)), slot(2));
        if Width::of(i) != Width::Legacy {
            cx.zero_upper(0);
        }
    } else {
        cx.m.mov(Sz::W, pinned(gpr::RCX), X(0));
    }
    Ok(())
}
