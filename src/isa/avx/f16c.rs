//! Conversions between half and single precision (SDM vol. 2, VCVTPH2PS and VCVTPS2PH).

use crate::emit::simd::Ar;
use crate::emit::{Sz, V, X};
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::Width;
use crate::rows;
use iced_x86::{Instruction, OpKind};

rows! { "f16c";
    Vcvtph2ps => |cx, i| halves_to_singles(cx, i),
    Vcvtps2ph => |cx, i| singles_to_halves(cx, i),
}

/// VCVTPH2PS.
fn halves_to_singles(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let n = cx.vsrc(i, 1)?;
    if Width::of(i) == Width::Vex256 {
        let to = i.op0_register().number();
        let high = cx.upper_target(to);
        cx.m.fcvtl_half(true, high, n);
        cx.m.fcvtl_half(false, d, n);
        cx.set_upper(to, high);
    } else {
        cx.m.fcvtl_half(false, d, n);
    }
    Ok(())
}

/// FPCR.RMode, bits 23-22, for the rounding controls of x86: nearest, down, up, toward zero.
const RMODE: [u32; 4] = [0, 2, 1, 3];

/// VCVTPS2PH: imm8[2] asks for MXCSR's rounding, else imm8[1:0] says which, and FPCR is set for the one instruction or two.
fn singles_to_halves(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let imm = cx.imm8(i);
    let wide = i.op1_register().is_ymm();
    let sources = if wide { cx.vsrc_halves(i, 1)?.to_vec() } else { vec![cx.vreg(i, 1)?] };
    let to =
        if i.op0_kind() == OpKind::Memory { Err(cx.addr(i, if wide { 16 } else { 8 })) } else { Ok(cx.vreg(i, 0)?) };
    let (kept, t) = (cx.tmp(), cx.tmp());
    if imm & 4 == 0 {
        set_rounding(cx, kept, t, RMODE[usize::from(imm & 3)]);
    }
    let results: Vec<V> = sources
        .into_iter()
        .map(|s| {
            let r = cx.vtmp();
            cx.m.fcvtn_half(r, s);
            r
        })
        .collect();
    if imm & 4 == 0 {
        cx.m.msr_fpcr(kept);
    }
    let mut r = results[0];
    if let [lo, hi] = results[..] {
        cx.m.zip1(Ar::D2, lo, lo, hi);
        r = lo;
    }
    match to {
        Ok(d) => cx.m.mov_v(d, r),
        Err(at) => {
            cx.look_for_fp_trap();
            cx.store_v(if wide { 16 } else { 8 }, r, at);
        }
    }
    Ok(())
}

/// Sets FPCR's rounding mode; what it was is in `kept`.
fn set_rounding(cx: &mut Cx<'_>, kept: X, t: X, mode: u32) {
    let m = cx.tmp();
    cx.m.mrs_fpcr(kept);
    cx.m.movz(Sz::W, m, mode as u16, 0);
    cx.m.mov(Sz::X, t, kept);
    cx.m.bfi(Sz::X, t, m, 22, 2);
    cx.m.msr_fpcr(t);
}
