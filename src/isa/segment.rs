//! Segment registers and far transfers (SDM vol. 2): in 64-bit mode only FS and GS have bases, but all of them can be written and read, and
//! returns, jumps and calls through a code segment lead back to the same one. The runtime knows the kernel's descriptors; all of it goes through helpers.

use super::cx::{Cx, Ext, Place, STATE, pinned};
use super::{Decline, Lowered};
use crate::emit::int::Dmb;
use crate::emit::{Addr, Sz, X};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use std::mem::offset_of;
use xrun_runtime::engine::Ordering;
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::CpuState;
use xrun_runtime::state::gpr::RSP;

use super::cx::Nzcv;

rows! { "segment";
    Retf => |cx, i| far(cx, i, 0),
    Iret => |cx, i| far(cx, i, 1),
    Iretd => |cx, i| far(cx, i, 1),
    Iretq => |cx, i| far(cx, i, 1),
    Lss => |cx, i| load_far(cx, i, Register::SS),
    Lfs => |cx, i| load_far(cx, i, Register::FS),
    Lgs => |cx, i| load_far(cx, i, Register::GS),
    Lar => |cx, i| descriptor(cx, i, 0),
    Lsl => |cx, i| descriptor(cx, i, 1),
    Verr => |cx, i| descriptor(cx, i, 2),
    Verw => |cx, i| descriptor(cx, i, 3),
    Sgdt => |cx, i| table(cx, i, 0xffff_ffff_fffe_0000),
    Sidt => |cx, i| table(cx, i, 0xffff_ffff_ffff_0000),
    Sldt => |cx, i| word(cx, i, 0),
    Str => |cx, i| word(cx, i, 0x40),
    Smsw => |cx, i| word(cx, i, 0x8005_0033),
}

/// Where a segment register's selector is kept.
fn slot(r: Register) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, selectors) + 2 * r.number()) as i32)
}

/// The selector in `r`, in a scratch register.
pub fn selector(cx: &mut Cx<'_>, r: Register) -> X {
    let t = cx.tmp();
    cx.m.ldr(2, t, slot(r));
    t
}

/// Loads segment register `r` from the low half of `x`. Everything the instruction still has to read must be read; a fault leaves the state as it is.
pub fn load(cx: &mut Cx<'_>, r: Register, x: X) -> Lowered {
    if r == Register::CS {
        return Err(Decline::Undefined);
    }
    let saved = cx.tmp();
    cx.m.mov(Sz::W, saved, x);
    cx.canonical(Flags::all());
    cx.m.ubfx(Sz::W, X(0), saved, 0, 16);
    cx.m.movz(Sz::W, X(1), r.number() as u16, 0);
    cx.call_helper(Helper::LoadSegment);
    Ok(())
}

/// POP FS, POP GS.
pub fn pop(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (rsp, bytes) = (pinned(RSP), i.stack_pointer_increment().unsigned_abs());
    let t = cx.tmp();
    cx.load(bytes, t, Addr::Off(rsp, 0));
    load(cx, i.op0_register(), t)?;
    cx.m.add_imm(Sz::X, rsp, rsp, bytes);
    Ok(())
}

/// LSS, LFS, LGS: offset and selector from memory.
fn load_far(cx: &mut Cx<'_>, i: &Instruction, r: Register) -> Lowered {
    let dst = cx.place(i, 0)?;
    let n = cx.lea(i, true);
    let (offset, selector) = (cx.tmp(), cx.tmp());
    cx.load(dst.bytes(), offset, Addr::Off(n, 0));
    let at = cx.tmp();
    cx.m.add_imm(Sz::X, at, n, dst.bytes());
    cx.load(2, selector, Addr::Off(at, 0));
    // The helper keeps no scratch register: the offset waits in the state.
    let spill = Addr::Off(STATE, offset_of!(CpuState, spill) as i32);
    cx.m.str(8, offset, spill);
    load(cx, r, selector)?;
    cx.m.ldr(8, X(0), spill);
    cx.set(dst, X(0));
    Ok(())
}

/// Calls the helper for far transfers, which leaves. `what` is its operation.
fn leave(cx: &mut Cx<'_>, i: &Instruction, what: u64, operand: Option<X>) {
    let saved = cx.tmp();
    if let Some(x) = operand {
        cx.m.mov(Sz::X, saved, x);
    }
    cx.canonical(Flags::all());
    if cx.ordering != Ordering::Plain {
        cx.m.dmb(Dmb::Ish);
    }
    if operand.is_some() {
        cx.m.mov(Sz::X, X(1), saved);
    }
    cx.m.mov_imm(X(0), what);
    cx.m.mov_imm(X(2), i.next_ip());
    cx.call_helper(Helper::Far);
}

/// Far returns.
fn far(cx: &mut Cx<'_>, i: &Instruction, what: u64) -> Lowered {
    let size = match i.code() {
        Code::Retfw | Code::Retfw_imm16 | Code::Iretw => 2,
        Code::Retfd | Code::Retfd_imm16 | Code::Iretd => 4,
        _ => 8,
    };
    let release = if i.op_count() == 1 { u64::from(i.immediate16()) } else { 0 };
    leave(cx, i, what | size << 8 | release << 16, None);
    Ok(())
}

/// Far JMP and CALL through memory, the only ones of 64-bit mode.
pub fn transfer(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    let size = match i.code() {
        Code::Jmp_m1616 | Code::Call_m1616 => 2,
        Code::Jmp_m1632 | Code::Call_m1632 => 4,
        _ => 8,
    };
    let n = cx.lea(i, true);
    let what = if i.mnemonic() == Mnemonic::Jmp { 2 } else { 3 };
    leave(cx, i, what | size << 8, Some(n));
    Ok(())
}

/// LAR and LSL give a value and ZF, VERR and VERW only ZF; the other flags stay.
fn descriptor(cx: &mut Cx<'_>, i: &Instruction, what: u64) -> Lowered {
    let (dst, src) = if what < 2 { (Some(cx.place(i, 0)?), 1) } else { (None, 0) };
    let src = match cx.place(i, src)? {
        Place::Mem { at, .. } => Place::Mem { at, bytes: 2 },
        p => p,
    };
    let v = cx.get(src, Ext::Any);
    cx.m.ubfx(Sz::W, X(0), v, 0, 16);
    cx.m.mov_imm(X(1), what);
    cx.call_pure(Helper::Descriptor);
    // The helper's result is in x0; what the operands took is free again.
    cx.tmp = 1;
    if let Some(dst) = dst {
        let done = cx.m.label();
        cx.m.tbz(X(0), 63, done);
        let v = cx.tmp();
        cx.m.ubfx(Sz::X, v, X(0), 0, 32);
        cx.set(dst, v);
        cx.m.bind(done);
    }
    if cx.live().contains(Flags::Z) {
        cx.insert_flags(&[(X(0), 63, Nzcv::Z)]);
    }
    Ok(())
}

/// SGDT and SIDT as Linux answers where the CPU keeps them from programs (arch/x86/kernel/umip.c): a limit of 0 and a base.
fn table(cx: &mut Cx<'_>, i: &Instruction, base: u64) -> Lowered {
    let n = cx.lea(i, true);
    let (t, at) = (cx.tmp(), cx.tmp());
    cx.m.add_imm(Sz::X, at, n, 2);
    cx.m.mov_imm(t, base);
    cx.store(8, t, Addr::Off(at, 0));
    cx.store(2, crate::emit::ZR, Addr::Off(n, 0));
    Ok(())
}

/// SLDT, STR, SMSW, likewise: two bytes to memory. To a register SMSW gives all of it, the others 32 bits, leaving the rest.
fn word(cx: &mut Cx<'_>, i: &Instruction, v: u64) -> Lowered {
    let t = cx.tmp();
    cx.m.mov_imm(t, v);
    match cx.place(i, 0)? {
        Place::Mem { at, .. } => cx.store(2, t, at),
        Place::Reg { x, bytes: 2, .. } => cx.m.bfi(Sz::X, x, t, 0, 16),
        Place::Reg { x, .. } if i.mnemonic() == Mnemonic::Smsw => cx.m.mov(Sz::X, x, t),
        Place::Reg { x, .. } => cx.m.bfi(Sz::X, x, t, 0, 32),
        Place::Imm { .. } => {}
    }
    Ok(())
}
