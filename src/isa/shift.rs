//! Shifts and rotates: SHL SHR SAR ROL ROR RCL RCR SHLD SHRD, SHLX SHRX SARX RORX (SDM vol. 2), all widths.
//!
//! A count is taken modulo 64 for 64-bit operands and modulo 32 for all others; a count of zero changes no flag. AArch64's shifts by register take the
//! count modulo the register width, which is the same thing. Flags that the SDM leaves undefined come out as whatever is shortest.
//!
//! CF is the last bit shifted out. For left shifts the last step is an addition of the value to itself, which sets all four flags; for right shifts the
//! value before the last step, rotated by one, is added to itself: that bit leaves as the carry, and the rest is zero exactly when the result is.

use super::Lowered;
use super::cx::{AF, AfFrom, Cx, Ext, Nzcv, PF, Place, pinned, sz};
use crate::emit::{Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::FlagForm;
use xrun_runtime::state::gpr::RCX;

rows! { "shift";
    Shl => |cx, i| shift(cx, i, Kind::Shl),
    Sal => |cx, i| shift(cx, i, Kind::Shl),
    Shr => |cx, i| shift(cx, i, Kind::Shr),
    Sar => |cx, i| shift(cx, i, Kind::Sar),
    Rol => |cx, i| rotate(cx, i, true),
    Ror => |cx, i| rotate(cx, i, false),
    Rcl => |cx, i| rotate_carry(cx, i, true),
    Rcr => |cx, i| rotate_carry(cx, i, false),
    Shld => |cx, i| double(cx, i, true),
    Shrd => |cx, i| double(cx, i, false),
    Shlx => |cx, i| without_flags(cx, i, Kind::Shl),
    Shrx => |cx, i| without_flags(cx, i, Kind::Shr),
    Sarx => |cx, i| without_flags(cx, i, Kind::Sar),
    Rorx => |cx, i| rorx(cx, i),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shl,
    Shr,
    Sar,
}

/// The count operand.
enum Count {
    /// Already masked.
    Const(u32),
    Cl,
}

fn count_mask(bytes: u32) -> u32 {
    if bytes == 8 { 63 } else { 31 }
}

fn count(i: &Instruction, n: u32, bytes: u32) -> Count {
    match i.op_kind(n) {
        OpKind::Register => Count::Cl,
        _ => Count::Const(i.immediate(n) as u32 & count_mask(bytes)),
    }
}

impl Kind {
    fn ext(self) -> Ext {
        match self {
            Kind::Shl => Ext::Any,
            Kind::Shr => Ext::Zero,
            Kind::Sar => Ext::Sign,
        }
    }

    fn by_const(self, cx: &mut Cx<'_>, size: Sz, d: X, a: X, k: u32) {
        match self {
            _ if k == 0 => {
                if d != a {
                    cx.m.mov(size, d, a);
                }
            }
            Kind::Shl => cx.m.lsl(size, d, a, k),
            Kind::Shr => cx.m.lsr(size, d, a, k),
            Kind::Sar => cx.m.asr(size, d, a, k),
        }
    }

    fn by_reg(self, cx: &mut Cx<'_>, size: Sz, d: X, a: X, c: X) {
        match self {
            Kind::Shl => cx.m.lslv(size, d, a, c),
            Kind::Shr => cx.m.lsrv(size, d, a, c),
            Kind::Sar => cx.m.asrv(size, d, a, c),
        }
    }
}

fn shift(cx: &mut Cx<'_>, i: &Instruction, kind: Kind) -> Lowered {
    let dst = cx.place(i, 0)?;
    let bytes = dst.bytes();
    let size = sz(bytes);
    let live = cx.live();
    match count(i, 1, bytes) {
        Count::Const(0) => {
            // Nothing but the access, and the zero-extension of a 32-bit register.
            let a = cx.get(dst, Ext::Any);
            match dst {
                Place::Reg { bytes: 4, .. } => cx.m.mov(Sz::W, a, a),
                Place::Reg { .. } => {}
                _ => cx.set(dst, a),
            }
        }
        Count::Const(k) => {
            let a = cx.get(dst, kind.ext());
            let d = cx.target(dst);
            if live.intersects(Flags::NZCV) {
                const_with_flags(cx, kind, bytes, d, a, k, live);
            } else {
                kind.by_const(cx, size, d, a, k);
            }
            cx.set_pa(d, AfFrom::Const(0));
            cx.set(dst, d);
        }
        Count::Cl if live.is_empty() => {
            let a = cx.get(dst, kind.ext());
            let d = cx.target(dst);
            kind.by_reg(cx, size, d, a, pinned(RCX));
            cx.set(dst, d);
        }
        Count::Cl => {
            let keep = cx.live_out();
            cx.canonical(keep);
            let a = cx.get(dst, kind.ext());
            let (r, c) = (cx.tmp(), cx.tmp());
            cx.m.mov(size, r, a);
            cx.m.and_imm(Sz::W, c, pinned(RCX), u64::from(count_mask(bytes)));
            let skip = cx.m.label();
            cx.m.cbz(Sz::W, c, skip);
            cx.m.sub_imm(Sz::W, c, c, 1);
            let before_last = cx.tmp();
            if kind == Kind::Shl && bytes < 4 {
                cx.m.lsl(Sz::W, before_last, a, 32 - 8 * bytes);
                kind.by_reg(cx, size, before_last, before_last, c);
            } else {
                kind.by_reg(cx, size, before_last, a, c);
            }
            last_step(cx, kind, bytes, r, before_last, live, true);
            if live.intersects(Flags::P | Flags::A) {
                cx.m.mov(Sz::W, PF, r);
                cx.m.mov(Sz::W, AF, r);
            }
            cx.m.bind(skip);
            cx.set(dst, r);
        }
    }
    Ok(())
}

/// Shift by a constant from 1 with NZCV; `a` is extended as [`Kind::ext`] says.
fn const_with_flags(cx: &mut Cx<'_>, kind: Kind, bytes: u32, d: X, a: X, k: u32, live: Flags) {
    let size = sz(bytes);
    if !live.intersects(Flags::C | Flags::O) && bytes >= 4 {
        kind.by_const(cx, size, d, a, k);
        cx.m.ands(size, ZR, d, d);
        cx.set_form(FlagForm::Direct);
        return;
    }
    if kind == Kind::Shl && bytes < 4 {
        // The operand goes to the top of a word on the way; beyond that everything is gone.
        let top = 32 - 8 * bytes;
        let t = cx.tmp();
        if top + k - 1 < 32 {
            cx.m.lsl(Sz::W, t, a, top + k - 1);
        } else {
            cx.m.movz(Sz::W, t, 0, 0);
        }
        return last_step(cx, kind, bytes, d, t, live, k == 1);
    }
    let before_last = if k == 1 {
        a
    } else {
        let t = cx.tmp();
        kind.by_const(cx, size, t, a, k - 1);
        t
    };
    last_step(cx, kind, bytes, d, before_last, live, k == 1);
}

/// The last step of a shift by one, with NZCV. `only` when it may be the only step: then OF is defined. A narrow left shift has its operand at the top of a word.
fn last_step(cx: &mut Cx<'_>, kind: Kind, bytes: u32, d: X, u: X, live: Flags, only: bool) {
    let size = sz(bytes);
    let top = size.bits() - 1;
    cx.set_form(FlagForm::Direct);
    match kind {
        Kind::Shl => {
            cx.m.adds(size, d, u, u);
            if bytes < 4 {
                cx.m.lsr(Sz::W, d, d, 32 - 8 * bytes);
            }
        }
        Kind::Shr | Kind::Sar => {
            let overflow = only && live.contains(Flags::O);
            // A logical shift by one of a full register moves its top bit to where the addition sees a sign.
            let sign = only && kind == Kind::Shr && bytes >= 4 && live.contains(Flags::S);
            let t = cx.tmp();
            if overflow || sign {
                cx.m.mov(size, t, u);
                kind.by_const(cx, size, d, u, 1);
                cx.m.ands(size, ZR, d, d);
                let operand_top = if bytes < 4 { 8 * bytes - 1 } else { top };
                let mut bits = vec![(t, 0, Nzcv::C)];
                if overflow && kind == Kind::Shr {
                    bits.push((t, operand_top, Nzcv::V));
                }
                cx.insert_flags(&bits);
            } else {
                cx.m.ror(size, t, u, 1);
                kind.by_const(cx, size, d, u, 1);
                cx.m.adds(size, ZR, t, t);
            }
        }
    }
}

/// Fills a word with copies of a narrow value, so that rotating the word rotates the value.
fn replicate(cx: &mut Cx<'_>, bytes: u32, a: X) -> X {
    let t = cx.tmp();
    cx.m.orr_lsl(Sz::W, t, a, a, 8 * bytes);
    if bytes == 1 {
        cx.m.orr_lsl(Sz::W, t, t, t, 16);
    }
    t
}

/// CF is the bit that went around: bit 0 of the result after ROL, the top bit after ROR. OF, for a count of one, is CF xor the top bit after ROL, the xor
/// of the two top bits after ROR. The other flags stay.
fn rotate(cx: &mut Cx<'_>, i: &Instruction, left: bool) -> Lowered {
    let dst = cx.place(i, 0)?;
    let (bytes, live) = (dst.bytes(), cx.live());
    let (size, bits) = (sz(bytes), 8 * bytes);
    match count(i, 1, bytes) {
        Count::Const(0) => {
            let a = cx.get(dst, Ext::Any);
            match dst {
                Place::Reg { bytes: 4, .. } => cx.m.mov(Sz::W, a, a),
                Place::Reg { .. } => {}
                _ => cx.set(dst, a),
            }
            return Ok(());
        }
        Count::Const(k) => {
            let right = if left { (bits - k % bits) % bits } else { k % bits };
            let a = cx.get(dst, Ext::Zero);
            let d = cx.target(dst);
            if bytes >= 4 {
                cx.m.ror(size, d, a, right);
            } else if bytes == 2 && right == 8 {
                cx.m.rev16(Sz::W, d, a);
            } else {
                let t = cx.tmp();
                cx.m.orr_lsl(Sz::W, t, a, a, bits);
                cx.m.lsr(Sz::W, d, t, right);
            }
            if live.intersects(Flags::C | Flags::O) {
                rotate_flags(cx, left, bits, d, live, k == 1);
            }
            cx.set(dst, d);
        }
        Count::Cl => {
            if !live.is_empty() {
                let keep = cx.live_out();
                cx.canonical(keep);
            }
            let mut a = cx.get(dst, Ext::Zero);
            if bytes < 4 {
                a = replicate(cx, bytes, a);
            }
            let c = if left {
                let t = cx.tmp();
                cx.m.sub(Sz::W, t, ZR, pinned(RCX));
                t
            } else {
                pinned(RCX)
            };
            let d = if live.is_empty() { cx.target(dst) } else { cx.tmp() };
            cx.m.rorv(size, d, a, c);
            if !live.is_empty() {
                let skip = cx.m.label();
                let t = cx.tmp();
                cx.m.and_imm(Sz::W, t, pinned(RCX), u64::from(count_mask(bytes)));
                cx.m.cbz(Sz::W, t, skip);
                rotate_flags(cx, left, bits, d, live, true);
                cx.m.bind(skip);
            }
            cx.set(dst, d);
        }
    }
    Ok(())
}

fn rotate_flags(cx: &mut Cx<'_>, left: bool, bits: u32, r: X, live: Flags, only: bool) {
    let carry = if left { 0 } else { bits - 1 };
    if only && live.contains(Flags::O) {
        let t = cx.tmp();
        if left {
            cx.m.eor_lsr(Sz::X, t, r, r, bits - 1);
            cx.insert_flags(&[(r, carry, Nzcv::C), (t, 0, Nzcv::V)]);
        } else {
            cx.m.eor_lsr(Sz::X, t, r, r, 1);
            cx.insert_flags(&[(r, carry, Nzcv::C), (t, bits - 2, Nzcv::V)]);
        }
    } else if live.contains(Flags::C) {
        cx.set_carry_bit(r, carry);
    }
}

/// RCL and RCR rotate through CF, one bit wider than the operand.
fn rotate_carry(cx: &mut Cx<'_>, i: &Instruction, left: bool) -> Lowered {
    let dst = cx.place(i, 0)?;
    let (bytes, live) = (dst.bytes(), cx.live());
    let (size, bits) = (sz(bytes), 8 * bytes);
    let others = cx.live_out().intersects(Flags::S | Flags::Z);
    match count(i, 1, bytes) {
        Count::Const(k) => {
            let k = if bytes < 4 { k % (bits + 1) } else { k };
            let a = cx.get(dst, Ext::Zero);
            if k == 0 {
                match dst {
                    Place::Reg { bytes: 4, .. } => cx.m.mov(Sz::W, a, a),
                    Place::Reg { .. } => {}
                    _ => cx.set(dst, a),
                }
                return Ok(());
            }
            if left && k == 1 && bytes >= 4 && !others && !dst.is_mem() {
                // Adding a value to itself with carry is this rotation, carry, overflow and all.
                cx.carry_as(false);
                let d = cx.target(dst);
                cx.m.adcs(size, d, a, a);
                return Ok(());
            }
            let c = cx.save_carry();
            let r = cx.tmp();
            if left {
                Kind::Shl.by_const(cx, size, r, a, k);
                cx.m.orr_lsl(size, r, r, c, k - 1);
                if k >= 2 {
                    cx.m.orr_lsr(size, r, r, a, bits + 1 - k);
                }
            } else {
                Kind::Shr.by_const(cx, size, r, a, k);
                cx.m.orr_lsl(size, r, r, c, bits - k);
                if k >= 2 {
                    cx.m.orr_lsl(size, r, r, a, bits + 1 - k);
                }
            }
            let out = if left { bits - k } else { k - 1 };
            let old = cx.tmp();
            if !live.is_empty() {
                cx.m.mov(Sz::X, old, a);
            }
            cx.set(dst, r);
            if !live.is_empty() {
                carry_flags(cx, left, bits, r, old, out, live);
            }
        }
        Count::Cl => {
            let keep = cx.live_out();
            cx.canonical(keep | Flags::C);
            let a = cx.get(dst, Ext::Zero);
            let c = cx.save_carry();
            let (r, n, t) = (cx.tmp(), cx.tmp(), cx.tmp());
            let steps = cx.tmp();
            cx.m.mov(size, r, a);
            cx.m.and_imm(Sz::W, n, pinned(RCX), u64::from(count_mask(bytes)));
            if bytes < 4 {
                // Modulo 9 or 17.
                cx.m.movz(Sz::W, steps, bits as u16 + 1, 0);
                cx.m.udiv(Sz::W, t, n, steps);
                cx.m.msub(Sz::W, n, t, steps, n);
            }
            // One bit at a time: this form is rare.
            let (again, stored) = (cx.m.label(), cx.m.label());
            cx.m.mov(Sz::W, steps, n);
            cx.m.cbz(Sz::W, n, stored);
            cx.m.bind(again);
            if left {
                cx.m.ubfx(size, t, r, bits - 1, 1);
                cx.m.orr_lsl(size, r, c, r, 1);
                if bytes < 4 {
                    cx.m.ubfx(Sz::W, r, r, 0, bits);
                }
            } else {
                cx.m.ubfx(size, t, r, 0, 1);
                cx.m.lsr(size, r, r, 1);
                cx.m.orr_lsl(size, r, r, c, bits - 1);
            }
            cx.m.mov(Sz::W, c, t);
            cx.m.sub_imm(Sz::W, n, n, 1);
            cx.m.cbnz(Sz::W, n, again);
            cx.m.bind(stored);
            cx.set(dst, r);
            if !live.is_empty() {
                let skip = cx.m.label();
                cx.m.cbz(Sz::W, steps, skip);
                carry_flags(cx, left, bits, r, c, 0, live);
                cx.m.bind(skip);
            }
        }
    }
    Ok(())
}

/// CF = bit `out` of `from`; OF = top bit xor CF after RCL, the xor of the two top bits after RCR.
fn carry_flags(cx: &mut Cx<'_>, left: bool, bits: u32, r: X, from: X, out: u32, live: Flags) {
    if !live.contains(Flags::O) {
        return cx.set_carry_bit(from, out);
    }
    let t = cx.tmp();
    if left {
        cx.m.lsr(Sz::X, t, r, bits - 1);
        cx.m.eor_lsr(Sz::X, t, t, from, out);
        cx.insert_flags(&[(from, out, Nzcv::C), (t, 0, Nzcv::V)]);
    } else {
        cx.m.eor_lsr(Sz::X, t, r, r, 1);
        cx.insert_flags(&[(from, out, Nzcv::C), (t, bits - 2, Nzcv::V)]);
    }
}

/// SHLD and SHRD: the destination shifted, filled from the second operand. OF, for a count of one: whether the sign changed.
fn double(cx: &mut Cx<'_>, i: &Instruction, left: bool) -> Lowered {
    let dst = cx.place(i, 0)?;
    let second = cx.place(i, 1)?;
    let (bytes, live) = (dst.bytes(), cx.live());
    let (size, bits) = (sz(bytes), 8 * bytes);
    let k = count(i, 2, bytes);
    if let Count::Const(0) = k {
        let a = cx.get(dst, Ext::Any);
        match dst {
            Place::Reg { bytes: 4, .. } => cx.m.mov(Sz::W, a, a),
            Place::Reg { .. } => {}
            _ => cx.set(dst, a),
        }
        return Ok(());
    }
    if !live.is_empty() {
        let keep = cx.live_out();
        cx.canonical(keep);
    }
    let a = cx.get(dst, Ext::Zero);
    let b = cx.get(second, Ext::Zero);
    let r = if live.is_empty() { cx.target(dst) } else { cx.tmp() };
    // 16 bits: both operands side by side in one word, which is then rotated.
    let pair = (bytes == 2).then(|| {
        let t = cx.tmp();
        if left {
            cx.m.orr_lsl(Sz::W, t, b, a, 16);
        } else {
            cx.m.orr_lsl(Sz::W, t, a, b, 16);
        }
        t
    });
    match k {
        Count::Const(k) => {
            match (pair, left) {
                (Some(t), true) => {
                    cx.m.ror(Sz::W, r, t, (32 - k) % 32);
                    cx.m.lsr(Sz::W, r, r, 16);
                }
                (Some(t), false) => cx.m.ror(Sz::W, r, t, k),
                (None, true) => cx.m.extr(size, r, a, b, bits - k),
                (None, false) => cx.m.extr(size, r, b, a, k),
            }
            if live.intersects(Flags::NZCV) {
                let out = if left { bits.saturating_sub(k) } else { k - 1 };
                let c = cx.tmp();
                cx.m.lsr(Sz::X, c, a, out);
                double_flags(cx, bytes, r, a, c, live, k == 1);
            }
            cx.set_pa(r, AfFrom::Const(0));
        }
        Count::Cl => {
            let cl = pinned(RCX);
            let (n, m) = (cx.tmp(), cx.tmp());
            match (pair, left) {
                (Some(t), true) => {
                    cx.m.sub(Sz::W, n, ZR, cl);
                    cx.m.rorv(Sz::W, r, t, n);
                    cx.m.lsr(Sz::W, r, r, 16);
                }
                (Some(t), false) => cx.m.rorv(Sz::W, r, t, cl),
                (None, true) => {
                    cx.m.mvn(Sz::W, n, cl);
                    cx.m.lsr(size, m, b, 1);
                    cx.m.lsrv(size, m, m, n);
                    cx.m.lslv(size, r, a, cl);
                    cx.m.orr(size, r, r, m);
                }
                (None, false) => {
                    cx.m.mvn(Sz::W, n, cl);
                    cx.m.lsl(size, m, b, 1);
                    cx.m.lslv(size, m, m, n);
                    cx.m.lsrv(size, r, a, cl);
                    cx.m.orr(size, r, r, m);
                }
            }
            if !live.is_empty() {
                let skip = cx.m.label();
                cx.m.and_imm(Sz::W, n, cl, u64::from(count_mask(bytes)));
                cx.m.cbz(Sz::W, n, skip);
                if left {
                    // Bit `bits - n`.
                    cx.m.movz(Sz::W, m, bits as u16, 0);
                    cx.m.sub(Sz::W, n, m, n);
                } else {
                    cx.m.sub_imm(Sz::W, n, n, 1);
                }
                cx.m.lsrv(Sz::X, n, a, n);
                double_flags(cx, bytes, r, a, n, live, true);
                if live.intersects(Flags::P | Flags::A) {
                    cx.m.mov(Sz::W, PF, r);
                    cx.m.mov(Sz::W, AF, r);
                }
                cx.m.bind(skip);
            }
        }
    }
    cx.set(dst, r);
    Ok(())
}

/// N and Z of `r`, CF = bit 0 of `c`, OF = whether the sign of `a` changed.
fn double_flags(cx: &mut Cx<'_>, bytes: u32, r: X, a: X, c: X, live: Flags, only: bool) {
    let bits = 8 * bytes;
    if !live.intersects(Flags::NZCV) {
        return;
    }
    cx.set_form(FlagForm::Direct);
    if bytes < 4 {
        cx.m.adds_lsl(Sz::W, ZR, ZR, r, 32 - bits);
    } else {
        cx.m.ands(sz(bytes), ZR, r, r);
    }
    let mut insert = vec![];
    if live.contains(Flags::C) {
        insert.push((c, 0, Nzcv::C));
    }
    if only && live.contains(Flags::O) {
        let t = cx.tmp();
        cx.m.eor(Sz::X, t, r, a);
        insert.push((t, bits - 1, Nzcv::V));
    }
    if !insert.is_empty() {
        cx.insert_flags(&insert);
    }
}

fn without_flags(cx: &mut Cx<'_>, i: &Instruction, kind: Kind) -> Lowered {
    let (dst, a, c) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let (a, c) = (cx.get(a, Ext::Any), cx.get(c, Ext::Any));
    let d = cx.target(dst);
    kind.by_reg(cx, sz(dst.bytes()), d, a, c);
    Ok(())
}

fn rorx(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, a) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let a = cx.get(a, Ext::Any);
    let d = cx.target(dst);
    cx.m.ror(sz(dst.bytes()), d, a, i.immediate(2) as u32 & (8 * dst.bytes() - 1));
    Ok(())
}
