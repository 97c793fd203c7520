//! MMX (SDM vol. 1, chapter 9), and the SSE instructions that touch MMX registers.
//!
//! An MMX register is the significand of the x87 register of the same physical number. [`lower`] wraps every instruction that names one: its MMX
//! operands are loaded into scratch vector registers, the row does its work there, the result goes back, and the unit enters MMX state (SDM vol. 1,
//! 9.5.1): TOP 0, all in use, exponent and sign of what was written all ones. Where an instruction works lane by lane, the row is the SSE one:
//! 64 bits are its low half. Where it does not (packs, shuffles), the row's SSE function is not used but the one here.

use super::cx::{Cx, LINK, STATE};
use super::sse::convert::{doubles_to_ints, singles_to_ints};
use super::{Decline, Lowered};
use crate::emit::fp::Fp;
use crate::emit::simd::Ar;
use crate::emit::{Addr, Masm, Sz, V};
use crate::rows;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use std::mem::offset_of;
use xrun_runtime::engine::Trap;
use xrun_runtime::helpers::f80::sw;
use xrun_runtime::state::{CpuState, X87, X87Reg};

rows! { "mmx";
    Emms => |cx, _| emms(cx),
    Movdq2q => |cx, i| copy(cx, i),
    Movq2dq => |cx, i| copy(cx, i),
    Movntq => |cx, i| movntq(cx, i),
    Pshufw => |cx, i| pshufw(cx, i),
    Cvtpi2ps => |cx, i| from_ints(cx, i, true),
    Cvtpi2pd => |cx, i| from_ints(cx, i, false),
    Cvtps2pi => |cx, i| to_ints(cx, i, true, false),
    Cvttps2pi => |cx, i| to_ints(cx, i, true, true),
    Cvtpd2pi => |cx, i| to_ints(cx, i, false, false),
    Cvttpd2pi => |cx, i| to_ints(cx, i, false, true),
}

const fn unit(field: usize) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, x87) + field) as i32)
}

fn register(n: usize, field: usize) -> Addr {
    unit(offset_of!(X87, regs) + n * size_of::<X87Reg>() + field)
}

/// The MMX register that is operand `n`.
fn mm(i: &Instruction, n: u32) -> Option<usize> {
    (n < i.op_count() && i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
        .then(|| i.op_register(n).number())
}

/// Whether `i` names an MMX register.
pub fn touches(i: &Instruction) -> bool {
    // Where an operand is no register, none is named.
    i.op0_register().is_mm() || i.op1_register().is_mm() || i.op2_register().is_mm()
}

/// #MF if an unmasked x87 exception is pending.
fn pending(cx: &mut Cx<'_>) {
    let trap = cx.trap_label(Trap::X87);
    cx.m.ldr(2, LINK, unit(offset_of!(X87, status)));
    cx.m.tbnz(LINK, sw::ES.trailing_zeros(), trap);
}

/// Lowers an instruction that [`touches`] MMX registers, by its row or by the functions here.
pub fn lower(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let row = super::row(i.mnemonic()).ok_or(Decline::Unsupported("no row"))?;
    pending(cx);
    for n in 0..i.op_count() {
        if let Some(r) = mm(i, n)
            && cx.mm[r].is_none()
        {
            let v = cx.vtmp();
            cx.m.ldr_v(8, v, register(r, offset_of!(X87Reg, mantissa)));
            cx.mm[r] = Some(v);
        }
    }
    match special(i.mnemonic()) {
        Some(f) => f(cx, i)?,
        None => (row.lower)(cx, i)?,
    }
    // An exception finds the unit in MMX state already.
    let watched = cx.watches_fp();
    if watched {
        enter(cx);
        cx.look_for_fp_trap();
    }
    if let Some(r) = mm(i, 0)
        && let Some(v) = cx.mm[r]
    {
        cx.m.str_v(8, v, register(r, offset_of!(X87Reg, mantissa)));
        cx.m.movn(Sz::W, LINK, 0, 0);
        cx.m.str(2, LINK, register(r, offset_of!(X87Reg, sign_exp)));
    }
    if !watched {
        enter(cx);
    }
    Ok(())
}

/// All registers empty; the CPU also clears TOP.
fn emms(cx: &mut Cx<'_>) -> Lowered {
    pending(cx);
    cx.m.str(1, crate::emit::ZR, unit(offset_of!(X87, top)));
    cx.m.str(1, crate::emit::ZR, unit(offset_of!(X87, in_use)));
    Ok(())
}

/// MMX state.
fn enter(cx: &mut Cx<'_>) {
    cx.m.str(1, crate::emit::ZR, unit(offset_of!(X87, top)));
    cx.m.movn(Sz::W, LINK, 0, 0);
    cx.m.str(1, LINK, unit(offset_of!(X87, in_use)));
}

/// What does not work lane by lane.
fn special(m: Mnemonic) -> Option<fn(&mut Cx<'_>, &Instruction) -> Lowered> {
    use Mnemonic::*;
    Some(match m {
        Packsswb => |cx, i| pack(cx, i, Masm::sqxtn, Ar::B8),
        Packssdw => |cx, i| pack(cx, i, Masm::sqxtn, Ar::H4),
        Packuswb => |cx, i| pack(cx, i, Masm::sqxtun, Ar::B8),
        Punpckhbw => |cx, i| unpack_high(cx, i, Ar::B16),
        Punpckhwd => |cx, i| unpack_high(cx, i, Ar::H8),
        Punpckhdq => |cx, i| unpack_high(cx, i, Ar::S4),
        Phaddw => |cx, i| pairwise(cx, i, Masm::add_v, Ar::H8),
        Phaddd => |cx, i| pairwise(cx, i, Masm::add_v, Ar::S4),
        Phaddsw => |cx, i| pairwise(cx, i, Masm::sqadd, Ar::H8),
        Phsubw => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::H8),
        Phsubd => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::S4),
        Phsubsw => |cx, i| pairwise(cx, i, Masm::sqsub, Ar::H8),
        Pshufb => pshufb,
        Palignr => palignr,
        Pinsrw => pinsrw,
        Pextrw => pextrw,
        _ => return None,
    })
}

/// Both operands in one register: the first below the second.
fn joined(cx: &mut Cx<'_>, i: &Instruction) -> Result<(V, V), Decline> {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    let t = cx.vtmp();
    cx.m.mov_v(t, d);
    cx.m.ins(3, t, 1, s, 0);
    Ok((d, t))
}

fn pack(cx: &mut Cx<'_>, i: &Instruction, narrow: fn(&mut Masm, Ar, V, V), ar: Ar) -> Lowered {
    let (d, t) = joined(cx, i)?;
    narrow(&mut cx.m, ar, d, t);
    Ok(())
}

fn pairwise(cx: &mut Cx<'_>, i: &Instruction, op: fn(&mut Masm, Ar, V, V, V), ar: Ar) -> Lowered {
    let (d, t) = joined(cx, i)?;
    let odd = cx.vtmp();
    cx.m.uzp2(ar, odd, t, t);
    cx.m.uzp1(ar, t, t, t);
    op(&mut cx.m, ar, d, t, odd);
    Ok(())
}

fn unpack_high(cx: &mut Cx<'_>, i: &Instruction, ar: Ar) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    cx.m.zip1(ar, d, d, s);
    cx.m.dup(Ar::D2, d, d, 1);
    Ok(())
}

/// An index's bits 0-2 count, bit 7 means zero: with the source twice in a register, bit 3 may be what it likes.
fn pshufb(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    let index = cx.vtmp();
    cx.m.movi_bytes(index, 0x8f);
    cx.m.and_v(index, index, s);
    cx.m.ins(3, d, 1, d, 0);
    cx.m.tbl(d, d, index);
    Ok(())
}

fn palignr(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    match u32::from(cx.imm8(i)) {
        by @ 0..=7 => cx.m.ext8(d, s, d, by),
        by @ 8..=15 => {
            let zero = cx.vtmp();
            cx.m.zero_v(zero);
            cx.m.ext8(d, d, zero, by - 8);
        }
        _ => cx.m.zero_v(d),
    }
    Ok(())
}

fn pinsrw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let lane = u32::from(cx.imm8(i)) & 3;
    let (x, _) = cx.int_src(i, 1)?;
    cx.m.ins_x(1, d, lane, x);
    Ok(())
}

fn pextrw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let s = cx.vreg(i, 1)?;
    let d = cx.place(i, 0)?;
    let x = cx.target(d);
    cx.m.umov(1, x, s, u32::from(cx.imm8(i)) & 3);
    cx.set(d, x);
    Ok(())
}

fn pshufw(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    let t = cx.vtmp();
    cx.m.mov_v(t, s);
    for lane in 0..4 {
        cx.m.ins(1, d, lane, t, u32::from(cx.imm8(i)) >> (2 * lane) & 3);
    }
    Ok(())
}

/// MOVDQ2Q, MOVQ2DQ.
fn copy(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (d, s) = (cx.vreg(i, 0)?, cx.vreg(i, 1)?);
    cx.m.mov_low(d, s);
    Ok(())
}

fn movntq(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let s = cx.vreg(i, 1)?;
    let at = cx.addr(i, 8);
    cx.store_v(8, s, at);
    Ok(())
}

/// CVTPI2PS, CVTPI2PD. With memory they name no MMX register and leave the unit alone.
fn from_ints(cx: &mut Cx<'_>, i: &Instruction, single: bool) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    let t = cx.vtmp();
    if single {
        cx.m.scvtf_v(Fp::S, t, s);
        cx.m.ins(3, d, 0, t, 0);
    } else {
        cx.m.sshll(Ar::S2, t, s, 0);
        cx.m.scvtf_v(Fp::D, d, t);
    }
    Ok(())
}

/// CVT(T)PS2PI, CVT(T)PD2PI.
fn to_ints(cx: &mut Cx<'_>, i: &Instruction, single: bool, truncate: bool) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let s = cx.vsrc(i, 1)?;
    if single {
        // Only two lanes are converted: the others must raise nothing.
        let t = cx.vtmp();
        cx.m.mov_low(t, s);
        singles_to_ints(cx, d, t, truncate);
    } else {
        doubles_to_ints(cx, d, s, truncate);
    }
    Ok(())
}

/// The scratch register that holds an MMX register during [`lower`].
pub fn held(cx: &Cx<'_>, r: Register) -> Option<V> {
    if r.is_mm() { cx.mm[r.number()] } else { None }
}
