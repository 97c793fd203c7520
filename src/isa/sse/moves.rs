//! Moves between XMM registers, memory and general registers (SDM vol. 2): MOVAPS to MOVNTDQ, MOVD, MOVQ, MOVSS, MOVSD, MOVLPS to MOVHLPS,
//! MOVMSK, PMOVMSKB, PINSR, PEXTR, INSERTPS, EXTRACTPS, the duplicating moves, MASKMOVDQU.

use super::{Width, into};
use crate::emit::simd::Ar;
use crate::emit::{Addr, Sz, V, X, ZR};
use crate::facts::Fuse;
use crate::guest::Flags;
use crate::isa::cx::{Cx, pinned};
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, Mnemonic, OpKind};
use xrun_runtime::state::gpr;

rows! { "sse moves";
    Movaps | Vmovaps => |cx, i| whole(cx, i, true),
    Movapd | Vmovapd => |cx, i| whole(cx, i, true),
    Movdqa | Vmovdqa => |cx, i| whole(cx, i, true),
    Movups | Vmovups => |cx, i| whole(cx, i, false),
    Movupd | Vmovupd => |cx, i| whole(cx, i, false),
    Movdqu | Vmovdqu => |cx, i| whole(cx, i, false),
    Lddqu | Vlddqu => |cx, i| whole(cx, i, false),
    Movntps | Vmovntps => |cx, i| whole(cx, i, true),
    Movntpd | Vmovntpd => |cx, i| whole(cx, i, true),
    Movntdq | Vmovntdq => |cx, i| whole(cx, i, true),
    Movntdqa | Vmovntdqa => |cx, i| whole(cx, i, true),
    Movss | Vmovss => |cx, i| scalar(cx, i, 2),
    Movsd | Vmovsd => |cx, i| movsd(cx, i),
    Movd | Vmovd => |cx, i| movd(cx, i),
    Movq | Vmovq => |cx, i| movd(cx, i),
    Movlps | Vmovlps => |cx, i| half(cx, i, 0),
    Movlpd | Vmovlpd => |cx, i| half(cx, i, 0),
    Movhps | Vmovhps => |cx, i| half(cx, i, 1),
    Movhpd | Vmovhpd => |cx, i| half(cx, i, 1),
    Movhlps | Vmovhlps => |cx, i| between(cx, i, 0, 1),
    Movlhps | Vmovlhps => |cx, i| between(cx, i, 1, 0),
    Movddup | Vmovddup => |cx, i| super::unary(cx, i, |cx, d, n| cx.m.dup(Ar::D2, d, n, 0)),
    Movsldup | Vmovsldup => |cx, i| super::unary(cx, i, |cx, d, n| cx.m.trn1(Ar::S4, d, n, n)),
    Movshdup | Vmovshdup => |cx, i| super::unary(cx, i, |cx, d, n| cx.m.trn2(Ar::S4, d, n, n)),
    Movmskps | Vmovmskps => |cx, i| movmskps(cx, i),
    Movmskpd | Vmovmskpd => |cx, i| movmskpd(cx, i),
    Pmovmskb | Vpmovmskb => |cx, i| pmovmskb(cx, i),
    Pinsrb | Vpinsrb => |cx, i| pinsr(cx, i, 0),
    Pinsrw | Vpinsrw => |cx, i| pinsr(cx, i, 1),
    Pinsrd | Vpinsrd => |cx, i| pinsr(cx, i, 2),
    Pinsrq | Vpinsrq => |cx, i| pinsr(cx, i, 3),
    Pextrb | Vpextrb => |cx, i| pextr(cx, i, 0),
    Pextrw | Vpextrw => |cx, i| pextr(cx, i, 1),
    Pextrd | Vpextrd => |cx, i| pextr(cx, i, 2),
    Pextrq | Vpextrq => |cx, i| pextr(cx, i, 3),
    Extractps | Vextractps => |cx, i| pextr(cx, i, 2),
    Insertps | Vinsertps => |cx, i| insertps(cx, i),
    Maskmovdqu | Vmaskmovdqu => |cx, i| maskmov(cx, i),
    Maskmovq => |cx, i| maskmov(cx, i),
}

/// All of the register. `aligned`: memory must be at a multiple of its size.
fn whole(cx: &mut Cx<'_>, i: &Instruction, aligned: bool) -> Lowered {
    if Width::of(i) == Width::Vex256 {
        return whole_ymm(cx, i, aligned);
    }
    match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Memory, _) => {
            let s = cx.vreg(i, 1)?;
            let at = cx.vaddr(i, 16, aligned);
            cx.store_v(16, s, at);
        }
        (_, OpKind::Memory) => {
            let d = cx.vreg(i, 0)?;
            let at = cx.vaddr(i, 16, aligned);
            cx.load_v(16, d, at);
        }
        _ => {
            let (d, s) = (cx.vreg(i, 0)?, cx.vreg(i, 1)?);
            if d != s {
                cx.m.mov_v(d, s);
            }
        }
    }
    Ok(())
}

fn whole_ymm(cx: &mut Cx<'_>, i: &Instruction, aligned: bool) -> Lowered {
    if i.op0_kind() == OpKind::Memory {
        let lo = cx.vreg(i, 1)?;
        let hi = cx.upper(i.op1_register().number());
        let at = cx.vaddr(i, 32, aligned);
        cx.store_v_pair(lo, hi, at);
        return Ok(());
    }
    let (d, n) = (cx.vreg(i, 0)?, i.op0_register().number());
    if i.op1_kind() == OpKind::Memory {
        // A fault in the second half must find the register as it was, so the first half waits.
        let (lo, hi) = (cx.vtmp(), cx.upper_target(n));
        let at = cx.vaddr(i, 32, aligned);
        cx.load_v_pair(lo, hi, at);
        cx.m.mov_v(d, lo);
        cx.set_upper(n, hi);
    } else if i.op0_register() != i.op1_register() {
        let s = cx.vreg(i, 1)?;
        let hi = cx.upper(i.op1_register().number());
        cx.m.mov_v(d, s);
        cx.set_upper(n, hi);
    }
    Ok(())
}

/// MOVSS and MOVSD: a load clears the other lanes, a register move keeps them.
fn scalar(cx: &mut Cx<'_>, i: &Instruction, size: u32) -> Lowered {
    let bytes = 1 << size;
    match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Memory, _) => {
            let s = cx.vreg(i, 1)?;
            let at = cx.addr(i, bytes);
            cx.store_v(bytes, s, at);
        }
        (_, OpKind::Memory) => {
            let d = cx.vreg(i, 0)?;
            let at = cx.addr(i, bytes);
            cx.load_v(bytes, d, at);
        }
        _ => {
            return into(cx, i, |cx, d, s| {
                if d != s {
                    cx.m.ins(size, d, 0, s, 0);
                }
            });
        }
    }
    Ok(())
}

/// MOVSD names two instructions: the double move and the string move.
fn movsd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.is_string_instruction() {
        return crate::isa::string::movsd(cx, i);
    }
    scalar(cx, i, 3)
}

/// MOVD and MOVQ between general registers, memory and XMM registers; into an XMM register the rest becomes zero.
fn movd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let is_vector =
        |n: u32| i.op_kind(n) == OpKind::Register && (i.op_register(n).is_xmm() || i.op_register(n).is_mm());
    if !is_vector(0) && !is_vector(1) {
        return Err(Decline::Undefined);
    }
    if is_vector(0) && is_vector(1) {
        let (d, s) = (cx.vreg(i, 0)?, cx.vreg(i, 1)?);
        cx.m.mov_low(d, s);
        return Ok(());
    }
    let (v, other) = if is_vector(0) { (0, 1) } else { (1, 0) };
    let v = cx.vreg(i, v)?;
    match (i.op_kind(other), other) {
        (OpKind::Memory, _) => {
            let bytes = i.memory_size().size() as u32;
            let at = cx.addr(i, bytes);
            if other == 1 {
                cx.load_v(bytes, v, at);
            } else {
                cx.store_v(bytes, v, at);
            }
        }
        (_, 1) => {
            let (x, bytes) = cx.int_src(i, 1)?;
            if bytes == 8 {
                cx.m.fmov_from_x(v, x);
            } else {
                cx.m.fmov_from_w(v, x);
            }
        }
        _ => {
            let p = cx.place(i, 0)?;
            let x = cx.target(p);
            if p.bytes() == 8 {
                cx.m.fmov_to_x(x, v);
            } else {
                cx.m.fmov_to_w(x, v);
            }
            cx.set(p, x);
        }
    }
    Ok(())
}

/// MOVLPS, MOVHPS and their PD twins: one 64-bit half to or from memory.
fn half(cx: &mut Cx<'_>, i: &Instruction, at_half: u32) -> Lowered {
    if i.op0_kind() == OpKind::Memory {
        let s = cx.vreg(i, 1)?;
        let at = cx.addr(i, 8);
        let s = if at_half == 1 {
            let t = cx.vtmp();
            cx.m.mov_from_lane(3, t, s, 1);
            t
        } else {
            s
        };
        cx.store_v(8, s, at);
        return Ok(());
    }
    into(cx, i, |cx, d, t| cx.m.ins(3, d, at_half, t, 0))
}

fn between(cx: &mut Cx<'_>, i: &Instruction, to: u32, from: u32) -> Lowered {
    into(cx, i, |cx, d, s| cx.m.ins(3, d, to, s, from))
}

/// The sign bits of the lanes, as `bits(cx, d, t, h, v)` makes them of 128 bits in `d`: of both halves if there are two, `count` bits each.
fn sign_bits(cx: &mut Cx<'_>, i: &Instruction, count: u32, bits: impl Fn(&mut Cx<'_>, X, V, X, V)) -> Lowered {
    let s = cx.vreg(i, 1)?;
    let high = if Width::of(i) == Width::Vex256 { Some(cx.upper(i.op1_register().number())) } else { None };
    let p = cx.place(i, 0)?;
    let (t, d, h) = (cx.vtmp(), cx.target(p), cx.tmp());
    bits(cx, d, t, h, s);
    if let Some(v) = high {
        let u = cx.tmp();
        bits(cx, u, t, h, v);
        cx.m.orr_lsl(Sz::W, d, d, u, count);
    }
    cx.set(p, d);
    Ok(())
}

/// Four sign bits: fold pairs inside 64 bits, then the two halves.
fn movmskps(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    sign_bits(cx, i, 4, |cx, d, t, h, s| {
        cx.m.ushr(Ar::S4, t, s, 31);
        cx.m.usra(Ar::D2, t, t, 31);
        cx.m.umov(2, h, t, 2);
        cx.m.fmov_to_w(d, t);
        cx.m.orr_lsl(Sz::W, d, d, h, 2);
    })
}

fn movmskpd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    sign_bits(cx, i, 2, |cx, d, t, h, s| {
        cx.m.ushr(Ar::D2, t, s, 63);
        cx.m.umov(3, h, t, 1);
        cx.m.fmov_to_x(d, t);
        cx.m.orr_lsl(Sz::W, d, d, h, 1);
    })
}

fn pmovmskb(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if Width::of(i) == Width::Vex256 {
        return byte_masks(cx, i);
    }
    let s = cx.vreg(i, 1)?;
    let p = cx.place(i, 0)?;
    let (t, d, h) = (cx.vtmp(), cx.target(p), cx.tmp());
    if !branch_if_any(cx, i, &[s], t, d, move |cx| byte_mask(cx, s, t, d, h)) {
        byte_mask(cx, s, t, d, h);
    }
    cx.set(p, d);
    Ok(())
}

/// VPMOVMSKB of 256 bits. The two halves' bits are folded together in one register until every byte of it is a byte of the mask.
fn byte_masks(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let lo = cx.vreg(i, 1)?;
    let hi = cx.upper(i.op1_register().number());
    let p = cx.place(i, 0)?;
    let (t, u, w, d) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.target(p));
    let mask = move |cx: &mut Cx<'_>| {
        cx.m.ldr_q_literal(u, 0x8040_2010_0804_0201_8040_2010_0804_0201);
        cx.m.cmlt_zero(Ar::B16, t, lo);
        cx.m.and_v(t, t, u);
        cx.m.cmlt_zero(Ar::B16, w, hi);
        cx.m.and_v(u, w, u);
        cx.m.addp_v(Ar::B16, t, t, u);
        cx.m.addp_v(Ar::B16, t, t, t);
        cx.m.addp_v(Ar::B16, t, t, t);
        cx.m.fmov_to_w(d, t);
    };
    if !branch_if_any(cx, i, &[lo, hi], t, d, mask) {
        mask(cx);
    }
    cx.set(p, d);
    Ok(())
}

/// PMOVMSKB, TEST of its result, JZ or JNZ: how string functions look at 16 bytes. The mask is zero nearly every time, which is found in three words (four
/// where the bytes are not known to be all ones or zeros), and made in full only where it is not.
fn branch_if_any<'a>(cx: &mut Cx<'a>, i: &Instruction, of: &[V], t: V, d: X, mask: impl Fn(&mut Cx<'a>) + 'a) -> bool {
    let (at, insts) = (cx.at, &cx.region.insts);
    let Some([test, jump]) = insts.get(at + 1..at + 3) else { return false };
    let straight = !insts[at].ends_run && !test.ends_run && !test.join && !jump.join;
    let plain = matches!(cx.facts.fuse[at + 1], Fuse::Alone | Fuse::WithBranch)
        && matches!(cx.facts.fuse[at + 2], Fuse::Alone | Fuse::Done);
    let r = i.op0_register();
    let same = test.i.mnemonic() == Mnemonic::Test
        && test.i.op0_kind() == OpKind::Register
        && test.i.op1_kind() == OpKind::Register
        && test.i.op0_register().full_register() == r.full_register()
        && test.i.op0_register() == test.i.op1_register()
        && test.i.op0_register().size() >= 4;
    let zero = jump.i.mnemonic() == Mnemonic::Je;
    let after = cx.facts.live_out[at + 2];
    if !straight || !plain || !same || !(zero || jump.i.mnemonic() == Mnemonic::Jne) || !after.is_empty() {
        return false;
    }
    let target = jump.i.near_branch_target();
    let bytes_are_masks = at > 0
        && !insts[at].join
        && !insts[at - 1].ends_run
        && insts[at - 1].i.op0_register() == i.op1_register()
        && matches!(
            insts[at - 1].i.mnemonic(),
            Mnemonic::Pcmpeqb
                | Mnemonic::Pcmpeqw
                | Mnemonic::Pcmpeqd
                | Mnemonic::Pcmpgtb
                | Mnemonic::Vpcmpeqb
                | Mnemonic::Vpcmpeqw
                | Mnemonic::Vpcmpeqd
                | Mnemonic::Vpcmpgtb
        );
    let (mut any, s) = (of[0], of[0]);
    if let [lo, hi] = of {
        cx.m.orr_v(t, *lo, *hi);
        any = t;
    }
    if !bytes_are_masks {
        cx.m.cmlt_zero(Ar::B16, t, if of.len() == 1 { s } else { t });
        any = t;
    }
    cx.m.umaxp(Ar::S4, t, any, any);
    cx.m.fmov_to_x(d, t);
    // What the mask's register was known to hold is not looked at again for the instructions skipped.
    cx.aligned.clear();
    cx.at = at + 2;
    cx.skip = 2;
    if zero {
        let to = cx.edge(target, after);
        cx.m.cbz(Sz::X, d, to);
        mask(cx);
    } else {
        let cold = cx.cold(move |cx| {
            mask(cx);
            let to = cx.edge(target, Flags::empty());
            cx.m.b(to);
        });
        cx.m.cbnz(Sz::X, d, cold);
    }
    true
}

/// Sixteen sign bits: each step folds neighbours together, 2, 4, then 8 bits at a time, until bytes 0 and 8 hold a half each.
fn byte_mask(cx: &mut Cx<'_>, s: V, t: V, d: X, h: X) {
    cx.m.ushr(Ar::B16, t, s, 7);
    cx.m.usra(Ar::H8, t, t, 7);
    cx.m.usra(Ar::S4, t, t, 14);
    cx.m.usra(Ar::D2, t, t, 28);
    cx.m.umov(0, d, t, 0);
    cx.m.umov(0, h, t, 8);
    cx.m.orr_lsl(Sz::W, d, d, h, 8);
}

/// PINSRB/W/D/Q.
fn pinsr(cx: &mut Cx<'_>, i: &Instruction, size: u32) -> Lowered {
    let vex = u32::from(Width::of(i) != Width::Legacy);
    let (d, a) = (cx.vreg(i, 0)?, cx.vreg(i, vex)?);
    let lane = u32::from(cx.imm8(i)) & ((16 >> size) - 1);
    let x = match i.op_kind(1 + vex) {
        OpKind::Memory => {
            let at = cx.addr(i, 1 << size);
            let t = cx.tmp();
            cx.load(1 << size, t, at);
            t
        }
        _ => cx.int_src(i, 1 + vex)?.0,
    };
    if d != a {
        cx.m.mov_v(d, a);
    }
    cx.m.ins_x(size, d, lane, x);
    Ok(())
}

/// PEXTRB/W/D/Q, EXTRACTPS: zero-extended to a register, or the lane alone to memory.
fn pextr(cx: &mut Cx<'_>, i: &Instruction, size: u32) -> Lowered {
    let s = cx.vreg(i, 1)?;
    let lane = u32::from(cx.imm8(i)) & ((16 >> size) - 1);
    if i.op0_kind() == OpKind::Memory {
        let at = cx.addr(i, 1 << size);
        let t = cx.tmp();
        cx.m.umov(size, t, s, lane);
        cx.store(1 << size, t, at);
        return Ok(());
    }
    let p = cx.place(i, 0)?;
    let d = cx.target(p);
    cx.m.umov(size, d, s, lane);
    cx.set(p, d);
    Ok(())
}

/// INSERTPS: imm8[7:6] picks the source lane (memory: its one lane), [5:4] the destination lane, [3:0] lanes to clear.
fn insertps(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let memory = i.op_kind(i.op_count() - 2) == OpKind::Memory;
    let imm = u32::from(cx.imm8(i));
    let (from, to, clear) = (if memory { 0 } else { imm >> 6 }, imm >> 4 & 3, imm & 15);
    into(cx, i, |cx, d, b| {
        if clear == 15 {
            return cx.m.zero_v(d);
        }
        if clear & (1 << to) == 0 && !(b == d && from == to) {
            cx.m.ins(2, d, to, b, from);
        }
        for lane in (0..4).filter(|l| clear & (1 << l) != 0) {
            cx.m.ins_x(2, d, lane, ZR);
        }
    })
}

/// MASKMOVDQU: stores the bytes whose mask byte is negative at [RDI] and touches no others.
fn maskmov(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (s, mask): (V, V) = (cx.vreg(i, 1)?, cx.vreg(i, 2)?);
    let base = cx.lea_string_rdi(i);
    let (lo, hi, t) = (cx.tmp(), cx.tmp(), cx.tmp());
    cx.m.fmov_to_x(lo, mask);
    cx.m.umov(3, hi, mask, 1);
    for k in 0..16 {
        let skip = cx.m.label();
        let (m, bit) = if k < 8 { (lo, 8 * k + 7) } else { (hi, 8 * (k - 8) + 7) };
        cx.m.tbz(m, bit, skip);
        cx.m.umov(0, t, s, k);
        let at = cx.byte_at(base, k as i32);
        cx.store(1, t, at);
        cx.m.bind(skip);
    }
    Ok(())
}

impl Cx<'_> {
    /// The address in RDI, cut to 32 bits by an address-size prefix, plus the segment base.
    fn lea_string_rdi(&mut self, i: &Instruction) -> X {
        use xrun_runtime::state::CpuState;
        let mut x = pinned(gpr::RDI);
        if i.op0_kind() == OpKind::MemorySegEDI {
            let t = self.tmp();
            self.m.mov(Sz::W, t, x);
            x = t;
        }
        let off = match i.segment_prefix() {
            iced_x86::Register::FS => std::mem::offset_of!(CpuState, fs_base),
            iced_x86::Register::GS => std::mem::offset_of!(CpuState, gs_base),
            _ => return x,
        };
        let t = self.tmp();
        self.m.ldr(8, t, Addr::Off(crate::isa::cx::STATE, off as i32));
        self.m.add(Sz::X, t, t, x);
        t
    }

    /// An address an ordered access of a few bytes can use without taking a new scratch register each time.
    pub fn byte_at(&mut self, base: X, off: i32) -> Addr {
        if self.ordering != xrun_runtime::engine::Ordering::Tso || off == 0 || self.host.lrcpc2 {
            return Addr::Off(base, off);
        }
        let link = crate::isa::cx::LINK;
        self.m.add_imm(Sz::X, link, base, off as u32);
        Addr::Off(link, 0)
    }
}
