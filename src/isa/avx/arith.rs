//! Packed integers, logic, shifts, tests (SDM vol. 2, the VEX forms of SSE's; VPSLLV, VPSRLV, VPSRAV, VTESTPS).

use crate::emit::simd::Ar;
use crate::emit::{Masm, V};
use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::arith::*;
use crate::isa::sse::{binary, unary};
use crate::rows;
use iced_x86::Instruction;

rows! { "avx integer";
    Vpaddb => |cx, i| op3(cx, i, Masm::add_v, Ar::B16),
    Vpaddw => |cx, i| op3(cx, i, Masm::add_v, Ar::H8),
    Vpaddd => |cx, i| op3(cx, i, Masm::add_v, Ar::S4),
    Vpaddq => |cx, i| op3(cx, i, Masm::add_v, Ar::D2),
    Vpsubb => |cx, i| zeroing(cx, i, Masm::sub_v, Ar::B16),
    Vpsubw => |cx, i| zeroing(cx, i, Masm::sub_v, Ar::H8),
    Vpsubd => |cx, i| zeroing(cx, i, Masm::sub_v, Ar::S4),
    Vpsubq => |cx, i| zeroing(cx, i, Masm::sub_v, Ar::D2),
    Vpaddsb => |cx, i| op3(cx, i, Masm::sqadd, Ar::B16),
    Vpaddsw => |cx, i| op3(cx, i, Masm::sqadd, Ar::H8),
    Vpaddusb => |cx, i| op3(cx, i, Masm::uqadd, Ar::B16),
    Vpaddusw => |cx, i| op3(cx, i, Masm::uqadd, Ar::H8),
    Vpsubsb => |cx, i| op3(cx, i, Masm::sqsub, Ar::B16),
    Vpsubsw => |cx, i| op3(cx, i, Masm::sqsub, Ar::H8),
    Vpsubusb => |cx, i| op3(cx, i, Masm::uqsub, Ar::B16),
    Vpsubusw => |cx, i| op3(cx, i, Masm::uqsub, Ar::H8),
    Vpavgb => |cx, i| op3(cx, i, Masm::urhadd, Ar::B16),
    Vpavgw => |cx, i| op3(cx, i, Masm::urhadd, Ar::H8),
    Vpminub => |cx, i| op3(cx, i, Masm::umin, Ar::B16),
    Vpminuw => |cx, i| op3(cx, i, Masm::umin, Ar::H8),
    Vpminud => |cx, i| op3(cx, i, Masm::umin, Ar::S4),
    Vpminsb => |cx, i| op3(cx, i, Masm::smin, Ar::B16),
    Vpminsw => |cx, i| op3(cx, i, Masm::smin, Ar::H8),
    Vpminsd => |cx, i| op3(cx, i, Masm::smin, Ar::S4),
    Vpmaxub => |cx, i| op3(cx, i, Masm::umax, Ar::B16),
    Vpmaxuw => |cx, i| op3(cx, i, Masm::umax, Ar::H8),
    Vpmaxud => |cx, i| op3(cx, i, Masm::umax, Ar::S4),
    Vpmaxsb => |cx, i| op3(cx, i, Masm::smax, Ar::B16),
    Vpmaxsw => |cx, i| op3(cx, i, Masm::smax, Ar::H8),
    Vpmaxsd => |cx, i| op3(cx, i, Masm::smax, Ar::S4),
    Vpcmpeqb => |cx, i| equal(cx, i, Ar::B16),
    Vpcmpeqw => |cx, i| equal(cx, i, Ar::H8),
    Vpcmpeqd => |cx, i| equal(cx, i, Ar::S4),
    Vpcmpeqq => |cx, i| equal(cx, i, Ar::D2),
    Vpcmpgtb => |cx, i| op3(cx, i, Masm::cmgt, Ar::B16),
    Vpcmpgtw => |cx, i| op3(cx, i, Masm::cmgt, Ar::H8),
    Vpcmpgtd => |cx, i| op3(cx, i, Masm::cmgt, Ar::S4),
    Vpcmpgtq => |cx, i| op3(cx, i, Masm::cmgt, Ar::D2),
    Vpmullw => |cx, i| op3(cx, i, Masm::mul_v, Ar::H8),
    Vpmulld => |cx, i| op3(cx, i, Masm::mul_v, Ar::S4),
    Vphaddw => |cx, i| op3(cx, i, Masm::addp_v, Ar::H8),
    Vphaddd => |cx, i| op3(cx, i, Masm::addp_v, Ar::S4),
    Vphaddsw => |cx, i| pairwise(cx, i, Masm::sqadd, Ar::H8),
    Vphsubw => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::H8),
    Vphsubd => |cx, i| pairwise(cx, i, Masm::sub_v, Ar::S4),
    Vphsubsw => |cx, i| pairwise(cx, i, Masm::sqsub, Ar::H8),
    Vpabsb => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::B16, d, n)),
    Vpabsw => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::H8, d, n)),
    Vpabsd => |cx, i| unary(cx, i, |cx, d, n| cx.m.abs_v(Ar::S4, d, n)),
    Vpsignb => |cx, i| sign(cx, i, Ar::B16),
    Vpsignw => |cx, i| sign(cx, i, Ar::H8),
    Vpsignd => |cx, i| sign(cx, i, Ar::S4),
    Vpmulhw => |cx, i| mul_high(cx, i, Masm::smull_v),
    Vpmulhuw => |cx, i| mul_high(cx, i, Masm::umull_v),
    Vpmulhrsw => |cx, i| binary(cx, i, mulhrs),
    Vpmuludq => |cx, i| mul_even(cx, i, Masm::umull_v),
    Vpmuldq => |cx, i| mul_even(cx, i, Masm::smull_v),
    Vpmaddwd => |cx, i| binary(cx, i, maddwd),
    Vpmaddubsw => |cx, i| binary(cx, i, maddubsw),
    Vpsadbw => |cx, i| binary(cx, i, sadbw),
    Vmpsadbw => |cx, i| mpsadbw(cx, i),
    Vphminposuw => |cx, i| unary(cx, i, minpos),
    Vpand => |cx, i| bitwise(cx, i, Masm::and_v),
    Vandps => |cx, i| bitwise(cx, i, Masm::and_v),
    Vandpd => |cx, i| bitwise(cx, i, Masm::and_v),
    Vpor => |cx, i| bitwise(cx, i, Masm::orr_v),
    Vorps => |cx, i| bitwise(cx, i, Masm::orr_v),
    Vorpd => |cx, i| bitwise(cx, i, Masm::orr_v),
    Vpandn => |cx, i| and_not(cx, i),
    Vandnps => |cx, i| and_not(cx, i),
    Vandnpd => |cx, i| and_not(cx, i),
    Vpxor => |cx, i| xor(cx, i),
    Vxorps => |cx, i| xor(cx, i),
    Vxorpd => |cx, i| xor(cx, i),
    Vptest => |cx, i| ptest(cx, i),
    Vtestps => |cx, i| test(cx, i, |cx, t, v| signs(cx, Ar::S4, t, v)),
    Vtestpd => |cx, i| test(cx, i, |cx, t, v| signs(cx, Ar::D2, t, v)),
    Vpsllw => |cx, i| shift(cx, i, Ar::H8, Shift::Left),
    Vpslld => |cx, i| shift(cx, i, Ar::S4, Shift::Left),
    Vpsllq => |cx, i| shift(cx, i, Ar::D2, Shift::Left),
    Vpsrlw => |cx, i| shift(cx, i, Ar::H8, Shift::Right),
    Vpsrld => |cx, i| shift(cx, i, Ar::S4, Shift::Right),
    Vpsrlq => |cx, i| shift(cx, i, Ar::D2, Shift::Right),
    Vpsraw => |cx, i| shift(cx, i, Ar::H8, Shift::Arithmetic),
    Vpsrad => |cx, i| shift(cx, i, Ar::S4, Shift::Arithmetic),
    Vpslldq => |cx, i| shift_bytes(cx, i, Shift::Left),
    Vpsrldq => |cx, i| shift_bytes(cx, i, Shift::Right),
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
