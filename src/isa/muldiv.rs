//! Multiplication and division: MUL IMUL DIV IDIV MULX, and the sign extensions that go before a division: CBW CWDE CDQE CWD CDQ CQO (SDM vol. 2).
//!
//! MUL and IMUL set CF = OF = whether the product does not fit its lower half; the other flags are undefined and left as they come.

use super::Lowered;
use super::cx::{Cx, Ext, Place, pinned, sz};
use crate::emit::{Cond, Sz, X, ZR};
use crate::facts::Known;
use crate::facts::fuse::dead_after;
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind, Register};
use xrun_runtime::engine::{FlagForm, Trap};
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::gpr::{RAX, RDX};

rows! { "muldiv";
    Mul => |cx, i| mul(cx, i, false),
    Imul => |cx, i| if i.op_count() == 1 { mul(cx, i, true) } else { imul(cx, i) },
    Mulx => |cx, i| mulx(cx, i),
    Div => |cx, i| div(cx, i, false),
    Idiv => |cx, i| div(cx, i, true),
    Cbw => |cx, _| { widen(cx, 1, 2); Ok(()) },
    Cwde => |cx, _| { widen(cx, 2, 4); Ok(()) },
    Cdqe => |cx, _| { widen(cx, 4, 8); Ok(()) },
    Cwd => |cx, _| { sign(cx, 2); Ok(()) },
    Cdq => |cx, _| { sign(cx, 4); Ok(()) },
    Cqo => |cx, _| { sign(cx, 8); Ok(()) },
}

/// RAX or AH:AL's halves.
fn reg(n: usize, bytes: u32) -> Place {
    Place::Reg { x: pinned(n), lsb: 0, bytes }
}

fn widen(cx: &mut Cx<'_>, from: u32, to: u32) {
    let rax = pinned(RAX);
    let d = if to == 2 { cx.tmp() } else { rax };
    cx.m.sbfx(sz(to), d, rax, 0, 8 * from);
    cx.set(reg(RAX, to), d);
}

fn sign(cx: &mut Cx<'_>, bytes: u32) {
    let (rax, rdx) = (pinned(RAX), pinned(RDX));
    if bytes == 2 {
        let t = cx.tmp();
        cx.m.sbfx(Sz::W, t, rax, 15, 1);
        cx.set(reg(RDX, 2), t);
    } else {
        cx.m.asr(sz(bytes), rdx, rax, 8 * bytes - 1);
    }
}

/// CF = OF = (Z is clear); the rest undefined.
fn overflow_unless_equal(cx: &mut Cx<'_>) {
    // Equal: 0 + 0 has neither carry nor overflow; else both bits are given.
    cx.m.ccmn_imm(Sz::W, ZR, 0, 0b0011, Cond::Eq);
    cx.set_form(FlagForm::Direct);
}

/// One operand: the double-width product to RDX:RAX, DX:AX, or AX.
fn mul(cx: &mut Cx<'_>, i: &Instruction, signed: bool) -> Lowered {
    let src = cx.place(i, 0)?;
    let bytes = src.bytes();
    let flags = cx.live().intersects(Flags::C | Flags::O);
    let ext = if signed { Ext::Sign } else { Ext::Zero };
    let b = cx.get(src, ext);
    let (rax, rdx) = (pinned(RAX), pinned(RDX));
    match bytes {
        1 | 2 => {
            let a = cx.get(reg(RAX, bytes), ext);
            let r = cx.tmp();
            cx.m.mul(Sz::W, r, a, b);
            if flags {
                cx.m.cmp_ext(Sz::W, r, r, bytes, signed);
                overflow_unless_equal(cx);
            }
            if bytes == 1 {
                cx.set(reg(RAX, 2), r);
            } else {
                cx.set(reg(RAX, 2), r);
                cx.m.lsr(Sz::W, r, r, 16);
                cx.set(reg(RDX, 2), r);
            }
        }
        4 => {
            let r = cx.tmp();
            if signed {
                cx.m.smull(r, rax, b);
            } else {
                cx.m.umull(r, rax, b);
            }
            if flags {
                cx.m.cmp_ext(Sz::X, r, r, 4, signed);
                overflow_unless_equal(cx);
            }
            cx.m.mov(Sz::W, rax, r);
            cx.m.lsr(Sz::X, rdx, r, 32);
        }
        _ => {
            let hi = if b == rdx { cx.tmp() } else { rdx };
            if signed {
                cx.m.smulh(hi, rax, b);
            } else {
                cx.m.umulh(hi, rax, b);
            }
            cx.m.mul(Sz::X, rax, rax, b);
            if hi != rdx {
                cx.m.mov(Sz::X, rdx, hi);
            }
            if flags {
                if signed {
                    cx.m.subs_asr(Sz::X, ZR, rdx, rax, 63);
                } else {
                    cx.m.subs_imm(Sz::X, ZR, rdx, 0);
                }
                overflow_unless_equal(cx);
            }
        }
    }
    cx.forget_pa();
    Ok(())
}

/// Two and three operands: the product cut to the operand's size.
fn imul(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    let bytes = dst.bytes();
    let size = sz(bytes);
    let flags = cx.live().intersects(Flags::C | Flags::O);
    let ext = if flags { Ext::Sign } else { Ext::Any };
    let (first, second) = if i.op_count() == 3 { (1, 2) } else { (0, 1) };
    let (pa, pb) = (cx.place(i, first)?, cx.place(i, second)?);
    let constant = match pb {
        Place::Imm { value, .. } if i.op_kind(second) != OpKind::Memory => Some(value),
        _ => None,
    };
    let a = cx.get(pa, ext);
    let d = cx.target(dst);
    if let (Some(v), false) = (constant, flags) {
        // A power of two, or one more.
        if v.is_power_of_two() && v > 1 {
            cx.m.lsl(size, d, a, v.trailing_zeros());
        } else if v > 2 && (v - 1).is_power_of_two() {
            cx.m.add_lsl(size, d, a, a, (v - 1).trailing_zeros());
        } else {
            let b = cx.get(pb, Ext::Any);
            cx.m.mul(size, d, a, b);
        }
        cx.set(dst, d);
        cx.forget_pa();
        return Ok(());
    }
    let b = cx.get(pb, ext);
    if !flags {
        cx.m.mul(size, d, a, b);
    } else if bytes == 8 {
        let hi = cx.tmp();
        cx.m.smulh(hi, a, b);
        cx.m.mul(Sz::X, d, a, b);
        cx.m.subs_asr(Sz::X, ZR, hi, d, 63);
        overflow_unless_equal(cx);
    } else if bytes == 4 {
        let r = cx.tmp();
        cx.m.smull(r, a, b);
        cx.m.mov(Sz::W, d, r);
        cx.m.cmp_ext(Sz::X, r, r, 4, true);
        overflow_unless_equal(cx);
    } else {
        cx.m.mul(Sz::W, d, a, b);
        cx.m.cmp_ext(Sz::W, d, d, bytes, true);
        overflow_unless_equal(cx);
    }
    cx.set(dst, d);
    cx.forget_pa();
    Ok(())
}

/// MULX hi, lo, src: RDX times the source, no flags. With one destination for both halves it gets the high one.
fn mulx(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (hi, lo, src) = (cx.place(i, 0)?, cx.place(i, 1)?, cx.place(i, 2)?);
    let b = cx.get(src, Ext::Any);
    let rdx = pinned(RDX);
    let (dh, dl) = (cx.target(hi), cx.target(lo));
    let free = |d: X| d != rdx && d != b;
    if hi.bytes() == 8 && dh == dl {
        // The upper half is what stays.
        cx.m.umulh(dh, rdx, b);
    } else if hi.bytes() == 8 && free(dh) {
        cx.m.umulh(dh, rdx, b);
        cx.m.mul(Sz::X, dl, rdx, b);
    } else if hi.bytes() == 8 && free(dl) {
        cx.m.mul(Sz::X, dl, rdx, b);
        cx.m.umulh(dh, rdx, b);
    } else if hi.bytes() == 8 {
        let t = cx.tmp();
        cx.m.umulh(t, rdx, b);
        cx.m.mul(Sz::X, dl, rdx, b);
        cx.m.mov(Sz::X, dh, t);
    } else {
        let t = cx.tmp();
        cx.m.umull(t, rdx, b);
        cx.m.mov(Sz::W, dl, t);
        cx.m.lsr(Sz::X, dh, t, 32);
    }
    Ok(())
}

fn div(cx: &mut Cx<'_>, i: &Instruction, signed: bool) -> Lowered {
    let src = cx.place(i, 0)?;
    let bytes = src.bytes();
    let ext = if signed { Ext::Sign } else { Ext::Zero };
    let b = cx.get(src, ext);
    let (rax, rdx) = (pinned(RAX), pinned(RDX));
    // Flags are undefined afterwards; they leave as they came, so that a trap finds them.
    match bytes {
        8 => div64(cx, b, signed),
        4 if !signed && cx.facts.known[cx.at] == Known::HighZero => {
            let error = cx.trap_label(Trap::DivideError);
            cx.m.cbz(Sz::W, b, error);
            quotient(cx, Sz::W, b, false);
        }
        4 if signed && cx.facts.known[cx.at] == Known::HighSign => {
            // 0 and -1 are the divisors that can fail; -1 only for the least number, and then the quotient is the dividend.
            let error = cx.trap_label(Trap::DivideError);
            let t = cx.tmp();
            let back = cx.m.label();
            let check = cx.cold(move |cx| {
                cx.m.cbz(Sz::W, b, error);
                cx.m.eor_imm(Sz::W, t, rax, 0x8000_0000);
                cx.m.cbz(Sz::W, t, error);
                cx.m.b(back);
            });
            cx.m.add_imm(Sz::W, t, b, 1);
            cx.m.lsr(Sz::W, t, t, 1);
            cx.m.cbz(Sz::W, t, check);
            cx.m.bind(back);
            quotient(cx, Sz::W, b, true);
        }
        4 => {
            let error = cx.trap_label(Trap::DivideError);
            let (n, q) = (cx.tmp(), cx.tmp());
            cx.m.cbz(Sz::W, b, error);
            cx.m.mov(Sz::W, n, rax);
            cx.m.bfi(Sz::X, n, rdx, 32, 32);
            let wide = cx.tmp();
            if signed {
                cx.m.sbfx(Sz::X, wide, b, 0, 32);
                cx.m.sdiv(Sz::X, q, n, wide);
            } else {
                cx.m.mov(Sz::W, wide, b);
                cx.m.udiv(Sz::X, q, n, wide);
            }
            fits(cx, q, 32, signed, error);
            cx.m.msub(Sz::X, n, q, wide, n);
            cx.m.mov(Sz::W, rax, q);
            cx.m.mov(Sz::W, rdx, n);
        }
        _ => {
            let error = cx.trap_label(Trap::DivideError);
            let (n, q) = (cx.tmp(), cx.tmp());
            cx.m.cbz(Sz::W, b, error);
            if bytes == 2 {
                cx.m.ubfx(Sz::W, n, rax, 0, 16);
                cx.m.bfi(Sz::W, n, rdx, 16, 16);
            } else if signed {
                cx.m.sbfx(Sz::W, n, rax, 0, 16);
            } else {
                cx.m.ubfx(Sz::W, n, rax, 0, 16);
            }
            if signed {
                cx.m.sdiv(Sz::W, q, n, b);
            } else {
                cx.m.udiv(Sz::W, q, n, b);
            }
            // -2^31 / -1 wraps to -2^31, which does not fit either.
            fits(cx, q, 8 * bytes, signed, error);
            cx.m.msub(Sz::W, n, q, b, n);
            if bytes == 2 {
                cx.set(reg(RAX, 2), q);
                cx.set(reg(RDX, 2), n);
            } else {
                cx.m.bfi(Sz::W, q, n, 8, 8);
                cx.set(reg(RAX, 2), q);
            }
        }
    }
    cx.forget_pa();
    Ok(())
}

/// Branches to `error` unless `q` fits `bits`.
fn fits(cx: &mut Cx<'_>, q: X, bits: u32, signed: bool, error: crate::emit::Label) {
    let size = if bits == 32 { Sz::X } else { Sz::W };
    let t = cx.tmp();
    if signed {
        cx.m.sbfx(size, t, q, 0, bits);
        cx.m.sub(size, t, t, q);
    } else {
        cx.m.lsr(size, t, q, bits);
    }
    cx.m.cbnz(size, t, error);
}

/// 64 bits: inline when the dividend is 64 bits extended, which is all a compiler writes; else a helper.
fn div64(cx: &mut Cx<'_>, b: X, signed: bool) {
    let (rax, rdx) = (pinned(RAX), pinned(RDX));
    // The cold way calls a helper that sees all guest state: PF and AF in their registers, C = CF.
    let live = cx.live_out();
    cx.canonical(live);
    let back = cx.m.label();
    let slow = cx.cold(move |cx| {
        if b != X(0) {
            cx.m.mov(Sz::X, X(0), b);
        }
        cx.call_helper(if signed { Helper::Idiv64 } else { Helper::Div64 });
        cx.m.b(back);
    });
    let (t, q) = (cx.tmp(), cx.tmp());
    let known = cx.facts.known[cx.at];
    if signed {
        if known != Known::HighSign {
            cx.m.eor_asr(Sz::X, t, rdx, rax, 63);
            cx.m.cbnz(Sz::X, t, slow);
        }
        // 0 and -1 are the divisors that can fail.
        cx.m.add_imm(Sz::X, t, b, 1);
        cx.m.lsr(Sz::X, q, t, 1);
        cx.m.cbz(Sz::X, q, slow);
    } else {
        if known != Known::HighZero {
            cx.m.cbnz(Sz::X, rdx, slow);
        }
        cx.m.cbz(Sz::X, b, slow);
    }
    quotient(cx, Sz::X, b, signed);
    cx.m.bind(back);
}

/// RAX = RAX / `b`, RDX = the remainder; each only if it is not overwritten at once.
fn quotient(cx: &mut Cx<'_>, size: Sz, b: X, signed: bool) {
    let (rax, rdx) = (pinned(RAX), pinned(RDX));
    let dead = |r| dead_after(cx.region, cx.at, r);
    let (no_quotient, no_remainder) = (dead(Register::RAX), dead(Register::RDX));
    let q = if no_remainder { rax } else { cx.tmp() };
    if signed {
        cx.m.sdiv(size, q, rax, b);
    } else {
        cx.m.udiv(size, q, rax, b);
    }
    if !no_remainder {
        cx.m.msub(size, rdx, q, b, rax);
        if !no_quotient {
            cx.m.mov(size, rax, q);
        }
    }
}
