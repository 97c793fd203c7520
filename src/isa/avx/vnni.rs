//! AVX-VNNI (SDM vol. 2, VPDPBUSD and so on): sums of four products of bytes, or two of words, added to the 32 bits of the destination.

use crate::emit::V;
use crate::emit::simd::Ar;
use crate::isa::cx::Cx;
use crate::isa::sse::ternary;
use crate::rows;

rows! { "avx vnni";
    Vpdpbusd => |cx, i| ternary(cx, i, |cx, d, from| bytes(cx, d, from, false)),
    Vpdpbusds => |cx, i| ternary(cx, i, |cx, d, from| bytes(cx, d, from, true)),
    Vpdpwssd => |cx, i| ternary(cx, i, words),
    Vpdpwssds => |cx, i| ternary(cx, i, words_saturated),
}

/// Unsigned bytes of `a` times signed ones of `b`: each product fits 16 bits, and only the last addition can leave 32.
fn bytes(cx: &mut Cx<'_>, d: V, [sum, a, b]: [V; 3], saturates: bool) {
    let (al, ah, bl, bh) = (cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp());
    cx.m.ushll(Ar::B8, al, a, 0);
    cx.m.sshll(Ar::B8, bl, b, 0);
    cx.m.ushll(Ar::B16, ah, a, 0);
    cx.m.sshll(Ar::B16, bh, b, 0);
    cx.m.mul_v(Ar::H8, al, al, bl);
    cx.m.mul_v(Ar::H8, ah, ah, bh);
    cx.m.saddlp(Ar::H8, al, al);
    cx.m.saddlp(Ar::H8, ah, ah);
    cx.m.addp_v(Ar::S4, al, al, ah);
    if saturates {
        cx.m.sqadd(Ar::S4, d, sum, al);
    } else {
        cx.m.add_v(Ar::S4, d, sum, al);
    }
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
