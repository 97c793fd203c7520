//! Bits: BT BTS BTR BTC, BSF BSR, POPCNT LZCNT TZCNT, BMI1, BMI2, ADX, CRC32 (SDM vol. 2).

use super::cx::{AF, AfFrom, Cx, Ext, Nzcv, PF, Place, sz};
use super::{Decline, Lowered};
use crate::emit::int::Lse;
use crate::emit::{Addr, Cond, Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::FlagForm;
use xrun_runtime::helpers::Helper;

rows! { "bits";
    Bt => |cx, i| bit_test(cx, i, None),
    Bts => |cx, i| bit_test(cx, i, Some(Lse::Set)),
    Btr => |cx, i| bit_test(cx, i, Some(Lse::Clr)),
    Btc => |cx, i| bit_test(cx, i, Some(Lse::Eor)),
    Bsf => |cx, i| scan(cx, i, true),
    Bsr => |cx, i| scan(cx, i, false),
    Popcnt => |cx, i| popcnt(cx, i),
    Tzcnt => |cx, i| count_zeros(cx, i, true),
    Lzcnt => |cx, i| count_zeros(cx, i, false),
    Blsi => |cx, i| lowest(cx, i, Lowest::Isolate),
    Blsr => |cx, i| lowest(cx, i, Lowest::Reset),
    Blsmsk => |cx, i| lowest(cx, i, Lowest::Mask),
    Bextr => |cx, i| bextr(cx, i),
    Bzhi => |cx, i| bzhi(cx, i),
    Pdep => |cx, i| deposit(cx, i, Helper::Pdep),
    Pext => |cx, i| deposit(cx, i, Helper::Pext),
    Adcx => |cx, i| adx(cx, i, false),
    Adox => |cx, i| adx(cx, i, true),
    Crc32 => |cx, i| crc32(cx, i),
}

/// CF is the bit; ZF stays, the other flags are undefined. With a register index and a memory operand the index is signed and reaches beyond the operand.
fn bit_test(cx: &mut Cx<'_>, i: &Instruction, op: Option<Lse>) -> Lowered {
    let dst = match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Memory, OpKind::Register) => reached(cx, i)?,
        _ => cx.place(i, 0)?,
    };
    let bytes = dst.bytes();
    let (size, bits) = (sz(bytes), 8 * bytes);
    let flag = cx.live().contains(Flags::C);
    // The index modulo the operand's bits: a constant, or a register whose upper bits the shifts ignore.
    let index = match i.op_kind(1) {
        OpKind::Register => {
            let x = match cx.place(i, 1)? {
                Place::Reg { x, .. } => x,
                _ => return Err(Decline::Unsupported("operand kind")),
            };
            if bytes == 2 {
                let t = cx.tmp();
                cx.m.and_imm(Sz::W, t, x, 15);
                Err(t)
            } else {
                Err(x)
            }
        }
        _ => Ok(i.immediate(1) as u32 & (bits - 1)),
    };
    let mask = |cx: &mut Cx<'_>| {
        let t = cx.tmp();
        match index {
            Ok(k) => cx.m.mov_imm(t, 1 << k),
            Err(x) => {
                cx.m.movz(Sz::W, t, 1, 0);
                cx.m.lslv(size, t, t, x);
            }
        }
        t
    };
    if let (Place::Mem { at, .. }, Some(op), true) = (dst, op, i.has_lock_prefix()) {
        let s = mask(cx);
        let old = cx.atomic(op, bytes, s, at);
        if flag {
            carry_from(cx, size, old, index);
        }
        return Ok(());
    }
    let a = cx.get(dst, Ext::Any);
    let Some(op) = op else {
        if flag {
            carry_from(cx, size, a, index);
        }
        return Ok(());
    };
    let (old, d) = match dst {
        Place::Reg { bytes: 4 | 8, .. } => {
            // The flag first: the register changes in place.
            if flag {
                carry_from(cx, size, a, index);
            }
            (None, a)
        }
        _ => (Some(a), cx.tmp()),
    };
    match (op, index) {
        (Lse::Set, Ok(k)) => cx.m.orr_imm(size, d, a, 1 << k),
        (Lse::Clr, Ok(k)) => cx.m.and_imm(size, d, a, if size == Sz::W { u64::from(!(1u32 << k)) } else { !(1 << k) }),
        (_, Ok(k)) => cx.m.eor_imm(size, d, a, 1 << k),
        (op, Err(_)) => {
            let s = mask(cx);
            match op {
                Lse::Set => cx.m.orr(size, d, a, s),
                Lse::Clr => cx.m.bic(size, d, a, s),
                _ => cx.m.eor(size, d, a, s),
            }
        }
    }
    match dst {
        // A 16-bit register is the old value until it is merged.
        Place::Reg { bytes: 2, .. } => {
            if let (Some(old), true) = (old, flag) {
                carry_from(cx, size, old, index);
            }
            cx.set(dst, d);
        }
        _ => {
            cx.set(dst, d);
            if let (Some(old), true) = (old, flag) {
                carry_from(cx, size, old, index);
            }
        }
    }
    Ok(())
}

/// The word of memory that has the bit: the index in a register moves the address on, within the address size.
fn reached(cx: &mut Cx<'_>, i: &Instruction) -> Result<Place, Decline> {
    let bytes = i.memory_size().size() as u32;
    let Place::Reg { x, .. } = cx.place(i, 1)? else { return Err(Decline::Unsupported("operand kind")) };
    let (log, scale) = ((8 * bytes).trailing_zeros(), bytes.trailing_zeros());
    let narrow = i.memory_base().size() == 4 || i.memory_index().size() == 4;
    let at = if narrow { Addr::Off(cx.lea(i, false), 0) } else { cx.addr(i, bytes) };
    let t = cx.tmp();
    cx.m.sbfx(Sz::X, t, x, log, 8 * bytes - log);
    let n = cx.addr_reg(at);
    cx.m.add_lsl(if narrow { Sz::W } else { Sz::X }, t, n, t, scale);
    if narrow {
        cx.add_segment(i, t);
    }
    Ok(Place::Mem { at: Addr::Off(t, 0), bytes })
}

fn carry_from(cx: &mut Cx<'_>, size: Sz, a: X, index: Result<u32, X>) {
    match index {
        Ok(k) => cx.set_carry_bit(a, k),
        Err(x) => {
            let t = cx.tmp();
            cx.m.lsrv(size, t, a, x);
            cx.set_carry_bit(t, 0);
        }
    }
}

/// BSF and BSR: a zero source sets ZF and leaves the destination as it is.
fn scan(cx: &mut Cx<'_>, i: &Instruction, forward: bool) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let size = sz(dst.bytes());
    let a = cx.get(src, Ext::Zero);
    let t = cx.tmp();
    if forward {
        cx.m.rbit(size, t, a);
        cx.m.clz(size, t, t);
    } else {
        cx.m.clz(size, t, a);
        cx.m.eor_imm(size, t, t, u64::from(size.bits() - 1));
    }
    cx.m.subs_imm(size, ZR, a, 0);
    cx.set_form(FlagForm::Direct);
    cx.forget_pa();
    match dst {
        Place::Reg { x, bytes: 4 | 8, .. } => cx.m.csel(Sz::X, x, x, t, Cond::Eq),
        _ => {
            let old = cx.get(dst, Ext::Any);
            cx.m.csel(Sz::W, t, old, t, Cond::Eq);
            cx.set(dst, t);
        }
    }
    Ok(())
}

/// PF and AF clear.
fn clear_pa(cx: &mut Cx<'_>) {
    if cx.live().intersects(Flags::P | Flags::A) {
        cx.m.movz(Sz::W, PF, 1, 0);
        cx.m.movz(Sz::W, AF, 1, 0);
    }
    cx.forget_pa();
}

/// ZF tells a zero source; all other flags are cleared.
fn popcnt(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let a = cx.get(src, Ext::Zero);
    let d = cx.target(dst);
    let v = cx.vtmp();
    cx.m.popcount(sz(dst.bytes()), d, a, v);
    if cx.live().intersects(Flags::NZCV) {
        cx.m.ands(Sz::W, ZR, d, d);
        cx.set_form(FlagForm::Direct);
    }
    clear_pa(cx);
    cx.set(dst, d);
    Ok(())
}

/// TZCNT and LZCNT: CF tells a zero source, ZF a zero count.
fn count_zeros(cx: &mut Cx<'_>, i: &Instruction, trailing: bool) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let bytes = dst.bytes();
    let size = sz(bytes);
    let mut a = cx.get(src, Ext::Any);
    let d = cx.target(dst);
    if bytes == 2 {
        // A bit just past the operand stops the count there.
        let t = cx.tmp();
        if trailing {
            cx.m.orr_imm(Sz::W, t, a, 0x1_0000);
        } else {
            cx.m.lsl(Sz::W, t, a, 16);
            cx.m.orr_imm(Sz::W, t, t, 0x8000);
        }
        a = t;
    }
    if trailing {
        cx.m.rbit(size, d, a);
        cx.m.clz(size, d, d);
    } else {
        cx.m.clz(size, d, a);
    }
    let live = cx.live() & (Flags::C | Flags::Z);
    if !live.is_empty() {
        cx.m.ands(Sz::W, ZR, d, d);
        cx.set_form(FlagForm::Direct);
        if live.contains(Flags::C) {
            // Only a zero source makes the count reach the operand's width, a power of two.
            let bit = (8 * bytes).trailing_zeros();
            if live == Flags::C && !cx.host.flagm {
                cx.m.subs_imm(Sz::W, ZR, d, 8 * bytes);
            } else {
                cx.insert_flags(&[(d, bit, Nzcv::C)]);
            }
        }
    }
    cx.forget_pa();
    cx.set(dst, d);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lowest {
    Isolate,
    Reset,
    Mask,
}

/// BLSI, BLSR, BLSMSK: CF tells a non-zero source for BLSI, a zero one for the others; OF is clear.
fn lowest(cx: &mut Cx<'_>, i: &Instruction, what: Lowest) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let size = sz(dst.bytes());
    let a = cx.get(src, Ext::Any);
    let d = cx.target(dst);
    let live = cx.live();
    let t = cx.tmp();
    // The carry's source outlives the result.
    let zero = live.contains(Flags::C).then(|| {
        let z = cx.tmp();
        cx.m.clz(size, z, a);
        z
    });
    match what {
        Lowest::Isolate => cx.m.sub(size, t, ZR, a),
        _ => cx.m.sub_imm(size, t, a, 1),
    }
    if what == Lowest::Mask {
        cx.m.eor(size, d, a, t);
    } else {
        cx.m.and(size, d, a, t);
    }
    if live.intersects(Flags::NZCV) {
        cx.m.ands(size, ZR, d, d);
        cx.set_form(FlagForm::Direct);
        if let Some(z) = zero {
            let bit = size.bits().trailing_zeros();
            if what == Lowest::Isolate {
                // The inverse, by turning the one bit over.
                cx.m.eor_imm(Sz::W, z, z, u64::from(size.bits()));
            }
            cx.insert_flags(&[(z, bit, Nzcv::C)]);
        }
    }
    cx.forget_pa();
    Ok(())
}

/// BEXTR d, s, c: `c`'s low byte is the start, its second byte the length.
fn bextr(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src, ctl) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let size = sz(dst.bytes());
    let a = cx.get(src, Ext::Any);
    let c = cx.get(ctl, Ext::Any);
    let d = cx.target(dst);
    let (start, len, v) = (cx.tmp(), cx.tmp(), cx.tmp());
    cx.m.ubfx(Sz::W, start, c, 0, 8);
    cx.m.ubfx(Sz::W, len, c, 8, 8);
    if size == Sz::W {
        cx.m.mov(Sz::W, v, a);
    } else {
        cx.m.mov(Sz::X, v, a);
    }
    // Shifts beyond 63 give zero: done by two halves of the count.
    shift_out(cx, v, start, false);
    // Keep the low `len` bits: clear them in a copy, and take the difference.
    let t = cx.tmp();
    cx.m.movn(Sz::X, t, 0, 0);
    shift_out(cx, t, len, true);
    cx.m.bic(Sz::X, d, v, t);
    bmi_flags(cx, size, d);
    Ok(())
}

/// `v` shifted by the 8-bit count `c`, zero for counts from 64. Left when `left`.
fn shift_out(cx: &mut Cx<'_>, v: X, c: X, left: bool) {
    let t = cx.tmp();
    // All ones when the count is below 64: (c >> 6) - 1 is negative only for 0.
    cx.m.lsr(Sz::W, t, c, 6);
    cx.m.sub_imm(Sz::X, t, t, 1);
    cx.m.and_asr(Sz::X, v, v, t, 63);
    if left {
        cx.m.lslv(Sz::X, v, v, c);
    } else {
        cx.m.lsrv(Sz::X, v, v, c);
    }
}

/// SF, ZF by the result, CF and OF clear.
fn bmi_flags(cx: &mut Cx<'_>, size: Sz, d: X) {
    if cx.live().intersects(Flags::NZCV) {
        cx.m.ands(size, ZR, d, d);
        cx.set_form(FlagForm::Direct);
    }
    cx.set_pa(d, AfFrom::Const(0));
}

/// BZHI d, s, n: bits from `n`'s low byte up are cleared; CF tells that `n` is past the operand.
fn bzhi(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src, index) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let size = sz(dst.bytes());
    let a = cx.get(src, Ext::Any);
    let n = cx.get(index, Ext::Any);
    let d = cx.target(dst);
    let (c, t) = (cx.tmp(), cx.tmp());
    cx.m.ubfx(Sz::W, c, n, 0, 8);
    cx.m.movn(Sz::X, t, 0, 0);
    shift_out(cx, t, c, true);
    cx.m.bic(size, d, a, t);
    bmi_flags(cx, size, d);
    if cx.live().contains(Flags::C) {
        // Past the operand: any of the bits from log2 of its width.
        let log = size.bits().trailing_zeros();
        cx.m.lsr(Sz::W, c, c, log);
        cx.m.sub(Sz::W, c, ZR, c);
        cx.insert_flags(&[(c, 31, Nzcv::C)]);
    }
    Ok(())
}

/// PDEP, PEXT: helpers.
fn deposit(cx: &mut Cx<'_>, i: &Instruction, helper: Helper) -> Lowered {
    let (dst, src, mask) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let size = sz(dst.bytes());
    let m = cx.get(mask, Ext::Any);
    let a = cx.get(src, Ext::Any);
    cx.m.mov(size, X(1), m);
    cx.m.mov(size, X(0), a);
    cx.call_pure(helper);
    cx.set(dst, X(0));
    Ok(())
}

/// ADCX adds with CF, ADOX with OF; neither touches any other flag.
fn adx(cx: &mut Cx<'_>, i: &Instruction, by_overflow: bool) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let size = sz(dst.bytes());
    let b = cx.get(src, Ext::Any);
    let d = cx.target(dst);
    let rest = cx.live_out() & Flags::NZCV;
    if !by_overflow {
        cx.carry_as(false);
        if !rest.intersects(Flags::S | Flags::Z | Flags::O) {
            cx.m.adcs(size, d, d, b);
            return Ok(());
        }
    }
    cx.settle();
    let (saved, c) = (cx.tmp(), cx.tmp());
    cx.m.mrs_nzcv(saved);
    if by_overflow {
        cx.m.cset(c, Cond::Vs);
        cx.m.subs_imm(Sz::W, ZR, c, 1);
    }
    cx.m.adcs(size, d, d, b);
    cx.m.cset(c, Cond::Cs);
    cx.m.bfi(Sz::X, saved, c, if by_overflow { 28 } else { 29 }, 1);
    cx.m.msr_nzcv(saved);
    Ok(())
}

fn crc32(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let Place::Reg { x, .. } = cx.place(i, 0)? else {
        return Err(Decline::Unsupported("operand kind"));
    };
    let src = cx.place(i, 1)?;
    let v = cx.get(src, Ext::Any);
    if cx.host.crc32 {
        cx.m.crc32c(x, x, v, src.bytes());
    } else {
        cx.m.mov(Sz::X, X(1), v);
        cx.m.mov(Sz::W, X(0), x);
        cx.m.movz(Sz::W, X(2), src.bytes() as u16, 0);
        cx.call_pure(Helper::Crc32c);
        cx.m.mov(Sz::W, x, X(0));
    }
    Ok(())
}
