//! Masked moves and gathers (SDM vol. 2, VMASKMOV, VPMASKMOV, VGATHER, VPGATHER): memory is touched only for lanes whose mask is negative, so each lane has
//! its own test and access.

use crate::emit::simd::Ar;
use crate::emit::{Addr, Sz, V, X, ZR};
use crate::isa::cx::{Cx, gpr};
use crate::isa::sse::Width;
use crate::isa::{Decline, Lowered};
use crate::rows;
use iced_x86::{Instruction, OpKind, Register};

rows! { "avx masked";
    Vmaskmovps => |cx, i| masked(cx, i, 4),
    Vmaskmovpd => |cx, i| masked(cx, i, 8),
    Vpmaskmovd => |cx, i| masked(cx, i, 4),
    Vpmaskmovq => |cx, i| masked(cx, i, 8),
    Vgatherdps => |cx, i| gather(cx, i, 4, 4),
    Vgatherdpd => |cx, i| gather(cx, i, 4, 8),
    Vgatherqps => |cx, i| gather(cx, i, 8, 4),
    Vgatherqpd => |cx, i| gather(cx, i, 8, 8),
    Vpgatherdd => |cx, i| gather(cx, i, 4, 4),
    Vpgatherdq => |cx, i| gather(cx, i, 4, 8),
    Vpgatherqd => |cx, i| gather(cx, i, 8, 4),
    Vpgatherqq => |cx, i| gather(cx, i, 8, 8),
}

/// VMASKMOV, lanes of `bytes`: a load, whose other lanes become zero, or a store.
fn masked(cx: &mut Cx<'_>, i: &Instruction, bytes: u32) -> Lowered {
    let size = bytes.trailing_zeros();
    let wide = Width::of(i) == Width::Vex256;
    let store = i.op0_kind() == OpKind::Memory;
    let halves = |cx: &mut Cx<'_>, n: u32| -> Result<Vec<V>, Decline> {
        Ok(if wide { cx.vsrc_halves(i, n)?.to_vec() } else { vec![cx.vreg(i, n)?] })
    };
    let masks = halves(cx, 1)?;
    let values = if store { halves(cx, 2)? } else { masks.iter().map(|_| cx.vtmp()).collect() };
    let base = cx.lea(i, true);
    let (lo, hi, x) = (cx.tmp(), cx.tmp(), cx.tmp());
    for (half, (&mask, &v)) in masks.iter().zip(&values).enumerate() {
        if !store {
            cx.m.zero_v(v);
        }
        cx.m.fmov_to_x(lo, mask);
        cx.m.umov(3, hi, mask, 1);
        for lane in 0..16 / bytes {
            let skip = cx.m.label();
            let at = lane * bytes;
            let word = if at < 8 { lo } else { hi };
            cx.m.tbz(word, (at % 8 + bytes) * 8 - 1, skip);
            let place = cx.byte_at(base, (16 * half as u32 + at) as i32);
            if store {
                cx.m.umov(size, x, v, lane);
                cx.store(bytes, x, place);
            } else {
                cx.load(bytes, x, place);
                cx.m.ins_x(size, v, lane, x);
            }
            cx.m.bind(skip);
        }
    }
    if !store {
        let d = cx.vreg(i, 0)?;
        cx.m.mov_v(d, values[0]);
        if wide {
            cx.set_upper(i.op0_register().number(), values[1]);
        }
    }
    Ok(())
}

/// Where a lane of a register that changes as the instruction goes on is.
#[derive(Clone, Copy)]
enum Lanes {
    Low(V),
    /// The upper half, in memory.
    High(Addr),
}

impl Lanes {
    fn get(self, cx: &mut Cx<'_>, size: u32, x: X, lane: u32) {
        match self {
            Lanes::Low(v) => cx.m.umov(size, x, v, lane),
            Lanes::High(at) => cx.m.ldr(1 << size, x, beyond(at, lane << size)),
        }
    }

    fn put(self, cx: &mut Cx<'_>, size: u32, x: X, lane: u32) {
        match self {
            Lanes::Low(v) => cx.m.ins_x(size, v, lane, x),
            Lanes::High(at) => cx.m.str(1 << size, x, beyond(at, lane << size)),
        }
    }
}

fn beyond(at: Addr, by: u32) -> Addr {
    match at {
        Addr::Off(n, off) => Addr::Off(n, off + by as i32),
        indexed => indexed,
    }
}

/// VGATHER of lanes of `bytes` by indices of `index` bytes. A lane is done when it is in the destination and its mask is zero, so a fault leaves the
/// lanes before
/// it done, and starting again goes on with the one that faulted.
fn gather(cx: &mut Cx<'_>, i: &Instruction, index: u32, bytes: u32) -> Lowered {
    let vsib = i.memory_index();
    let (to, from, by) = (i.op0_register(), i.op2_register(), vsib);
    let numbers = [to, from, by].map(|r| r.number());
    if numbers[0] == numbers[1] || numbers[0] == numbers[2] || numbers[1] == numbers[2] {
        return Err(Decline::Undefined);
    }
    let wide = to.is_ymm();
    // As many lanes as fit both the destination and the indices.
    let most = |r: Register, size: u32| if r.is_ymm() { 32 / size } else { 16 / size };
    let count = most(to, bytes).min(most(by, index));
    let size = bytes.trailing_zeros();
    let lanes = |cx: &mut Cx<'_>, op: u32| -> Result<[Lanes; 2], Decline> {
        let v = cx.vreg(i, op)?;
        let n = i.op_register(op).number();
        let high = if wide { Lanes::High(cx.upper_in_memory(n)) } else { Lanes::Low(v) };
        Ok([Lanes::Low(v), high])
    };
    let (d, mask) = (lanes(cx, 0)?, lanes(cx, 2)?);
    // First of all every lane of the mask becomes all ones or all zeros, and with 128 bits its upper half is cleared: a fault shows it so.
    let ar = Ar::full(size as u8);
    let low = cx.vreg(i, 2)?;
    cx.m.cmlt_zero(ar, low, low);
    match mask[1] {
        Lanes::High(at) => {
            let t = cx.vtmp();
            cx.m.ldr_v(16, t, at);
            cx.m.cmlt_zero(ar, t, t);
            cx.m.str_v(16, t, at);
        }
        Lanes::Low(_) => cx.zero_upper(numbers[1]),
    }
    let index_low = V(xrun_runtime::abi::xmm(numbers[2] as u8));
    let indices = if by.is_ymm() { [index_low, cx.upper(numbers[2])] } else { [index_low; 2] };
    let narrow = i.memory_base().size() == 4;
    let base = match gpr(i.memory_base()) {
        // With 32-bit addresses the sum is cut before the segment's base is added.
        Some((b, ..)) if narrow && i.memory_displacement64() == 0 => b,
        _ => cx.lea(i, !narrow),
    };
    let (x, t) = (cx.tmp(), cx.tmp());
    for lane in 0..count {
        let skip = cx.m.label();
        let (half, own) = ((lane * bytes / 16) as usize, lane * bytes % 16 / bytes);
        mask[half].get(cx, size, x, own);
        cx.m.tbz(x, 8 * bytes - 1, skip);
        let which = lane * index;
        cx.m.umov(index.trailing_zeros(), x, indices[(which / 16) as usize], which % 16 / index);
        if index == 4 {
            cx.m.sbfx(Sz::X, x, x, 0, 32);
        }
        let scale = i.memory_index_scale().trailing_zeros();
        cx.m.add_lsl(if narrow { Sz::W } else { Sz::X }, t, base, x, scale);
        if narrow {
            cx.add_segment(i, t);
        }
        cx.load(bytes, x, Addr::Off(t, 0));
        d[half].put(cx, size, x, own);
        mask[half].put(cx, size, ZR, own);
        cx.m.bind(skip);
    }
    let (low, gone) = (cx.vreg(i, 0)?, cx.vreg(i, 2)?);
    cx.m.zero_v(gone);
    if count * bytes < 16 {
        cx.m.mov_low(low, low);
    }
    cx.zero_upper(numbers[1]);
    Ok(())
}
