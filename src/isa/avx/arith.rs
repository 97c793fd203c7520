//! Shifts of lanes by counts of their own, tests of signs (SDM vol. 2, VPSLLV, VPSRLV, VPSRAV, VTESTPS).

use crate::emit::V;
use crate::emit::simd::Ar;
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::arith::test;
use crate::isa::sse::binary;
use crate::isa::sse::lanes::Shift;
use crate::rows;
use iced_x86::Instruction;

rows! { "avx integer";
    Vtestps => |cx, i| test(cx, i, |cx, t, v| signs(cx, Ar::S4, t, v)),
    Vtestpd => |cx, i| test(cx, i, |cx, t, v| signs(cx, Ar::D2, t, v)),
    Vpsllvd => |cx, i| shift_lanes(cx, i, Ar::S4, Shift::Left),
    Vpsllvq => |cx, i| shift_lanes(cx, i, Ar::D2, Shift::Left),
    Vpsrlvd => |cx, i| shift_lanes(cx, i, Ar::S4, Shift::Right),
    Vpsrlvq => |cx, i| shift_lanes(cx, i, Ar::D2, Shift::Right),
    Vpsravd => |cx, i| shift_lanes(cx, i, Ar::S4, Shift::Arithmetic),
}

/// The lanes' signs as masks: what VTESTPS and VTESTPD look at.
fn signs(cx: &mut Cx<'_>, ar: Ar, t: V, v: V) -> V {
    cx.m.cmlt_zero(ar, t, v);
    t
}

/// Each lane by its own count. USHL takes the low byte of a count, signed, so larger ones become 127, past every lane's width.
fn shift_lanes(cx: &mut Cx<'_>, i: &Instruction, ar: Ar, kind: Shift) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        let (c, limit) = (cx.vtmp(), cx.vtmp());
        cx.m.movi_s(limit, 127, 0);
        if ar == Ar::D2 {
            cx.m.uqxtn(Ar::S2, c, b);
            cx.m.umin(Ar::S4, c, c, limit);
            cx.m.ushll(Ar::S2, c, c, 0);
        } else {
            cx.m.umin(ar, c, b, limit);
        }
        if kind != Shift::Left {
            cx.m.neg_v(ar, c, c);
        }
        match kind {
            Shift::Arithmetic => cx.m.sshl(ar, d, a, c),
            _ => cx.m.ushl(ar, d, a, c),
        }
    })
}
