//! Halves of YMM registers inserted and extracted, broadcasts, VZEROUPPER (SDM vol. 2).

use crate::emit::V;
use crate::emit::simd::Ar;
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::Width;
use crate::rows;
use iced_x86::{Instruction, OpKind};

rows! { "avx moves";
    Vinsertf128 => |cx, i| insert(cx, i),
    Vinserti128 => |cx, i| insert(cx, i),
    Vextractf128 => |cx, i| extract(cx, i),
    Vextracti128 => |cx, i| extract(cx, i),
    Vbroadcastss => |cx, i| broadcast(cx, i, Ar::S4),
    Vbroadcastsd => |cx, i| broadcast(cx, i, Ar::D2),
    Vpbroadcastb => |cx, i| broadcast(cx, i, Ar::B16),
    Vpbroadcastw => |cx, i| broadcast(cx, i, Ar::H8),
    Vpbroadcastd => |cx, i| broadcast(cx, i, Ar::S4),
    Vpbroadcastq => |cx, i| broadcast(cx, i, Ar::D2),
    Vbroadcastf128 => |cx, i| broadcast_half(cx, i),
    Vbroadcasti128 => |cx, i| broadcast_half(cx, i),
    Vzeroupper => |cx, _| zero(cx, false),
    Vzeroall => |cx, _| zero(cx, true),
}

/// VINSERTF128: the first source with one half replaced.
fn insert(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (d, a) = (cx.vreg(i, 0)?, cx.vreg(i, 1)?);
    let b = cx.vsrc(i, 2)?;
    let (to, from) = (i.op0_register().number(), i.op1_register().number());
    if cx.imm8(i) & 1 != 0 {
        cx.set_upper(to, b);
        copy(cx, d, a);
    } else {
        if to != from {
            let high = cx.upper(from);
            cx.set_upper(to, high);
        }
        copy(cx, d, b);
    }
    Ok(())
}

fn copy(cx: &mut Cx<'_>, d: V, n: V) {
    if d != n {
        cx.m.mov_v(d, n);
    }
}

/// VEXTRACTF128.
fn extract(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let n = if cx.imm8(i) & 1 != 0 { cx.upper(i.op1_register().number()) } else { cx.vreg(i, 1)? };
    if i.op0_kind() == OpKind::Memory {
        let at = cx.addr(i, 16);
        cx.store_v(16, n, at);
    } else {
        let d = cx.vreg(i, 0)?;
        copy(cx, d, n);
    }
    Ok(())
}

/// All lanes = the lowest one of a register, or one in memory.
fn broadcast(cx: &mut Cx<'_>, i: &Instruction, ar: Ar) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let n = cx.vsrc(i, 1)?;
    cx.m.dup(ar, d, n, 0);
    both(cx, i, d);
    Ok(())
}

fn broadcast_half(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let at = cx.addr(i, 16);
    cx.load_v(16, d, at);
    both(cx, i, d);
    Ok(())
}

/// The upper half, if there is one, is what the lower half `d` is.
fn both(cx: &mut Cx<'_>, i: &Instruction, d: V) {
    if Width::of(i) == Width::Vex256 {
        cx.set_upper(i.op0_register().number(), d);
    }
}

/// VZEROUPPER, and (`all`) VZEROALL.
fn zero(cx: &mut Cx<'_>, all: bool) -> Lowered {
    if all {
        for n in 0..16 {
            cx.m.zero_v(V(xrun_runtime::abi::xmm(n)));
        }
    }
    cx.zero_uppers();
    Ok(())
}
