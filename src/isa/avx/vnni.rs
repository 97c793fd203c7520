//! AVX-VNNI (SDM vol. 2, VPDPBUSD and so on): sums of four products of bytes, or two of words, added to the 32 bits of the destination.

use crate::emit::simd::Ar;
use crate::emit::{Masm, V};
use crate::isa::cx::Cx;
use crate::isa::sse::arith::byte_products;
use crate::isa::sse::ternary;
use crate::rows;

rows! { "avx vnni";
    Vpdpbusd => |cx, i| ternary(cx, i, |cx, d, from| bytes(cx, d, from, false)),
    Vpdpbusds => |cx, i| ternary(cx, i, |cx, d, from| bytes(cx, d, from, true)),
    Vpdpwssd => |cx, i| ternary(cx, i, words),
    Vpdpwssds => |cx, i| ternary(cx, i, words_saturated),
}

/// Unsigned bytes of `a` times signed ones of `b`: only the last addition can leave 32 bits.
fn bytes(cx: &mut Cx<'_>, d: V, [sum, a, b]: [V; 3], saturates: bool) {
    let ([lo, hi], _) = byte_products(cx, a, b);
    cx.m.saddlp(Ar::H8, lo, lo);
    cx.m.saddlp(Ar::H8, hi, hi);
    cx.m.addp_v(Ar::S4, lo, lo, hi);
    let add = if saturates { Masm::sqadd } else { Masm::add_v };
    add(&mut cx.m, Ar::S4, d, sum, lo);
}

fn words(cx: &mut Cx<'_>, d: V, [sum, a, b]: [V; 3]) {
    let (lo, hi) = (cx.vtmp(), cx.vtmp());
    cx.m.smull_v(Ar::H4, lo, a, b);
    cx.m.smull_v(Ar::H8, hi, a, b);
    cx.m.addp_v(Ar::S4, lo, lo, hi);
    cx.m.add_v(Ar::S4, d, sum, lo);
}

/// In 64 bits, because two products may need 33 already.
fn words_saturated(cx: &mut Cx<'_>, d: V, [sum, a, b]: [V; 3]) {
    let (lo, hi, x, y) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
    cx.m.smull_v(Ar::H4, lo, a, b);
    cx.m.smull_v(Ar::H8, hi, a, b);
    cx.m.saddlp(Ar::S4, lo, lo);
    cx.m.saddlp(Ar::S4, hi, hi);
    cx.m.sshll(Ar::S2, x, sum, 0);
    cx.m.sshll(Ar::S4, y, sum, 0);
    cx.m.add_v(Ar::D2, lo, lo, x);
    cx.m.add_v(Ar::D2, hi, hi, y);
    cx.m.sqxtn(Ar::S2, d, lo);
    cx.m.sqxtn(Ar::S4, d, hi);
}
