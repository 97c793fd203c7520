//! What AArch64 does in one word to two registers of lanes, or of bits: for an instruction alone, by its row, and in a run. Knows nothing of operands.

use super::binary;
use crate::emit::simd::Ar;
use crate::emit::{Masm, V};
use crate::isa::cx::Cx;
use crate::isa::{Decline, Lowered};
use iced_x86::{Instruction, Mnemonic};

pub type LaneOp = fn(&mut Masm, Ar, V, V, V);
pub type BitOp = fn(&mut Masm, V, V, V);

/// Of lanes.
pub fn of(m: Mnemonic) -> Option<(LaneOp, Ar)> {
    use Mnemonic::*;
    Some(match m {
        Paddb | Vpaddb => (Masm::add_v, Ar::B16),
        Paddw | Vpaddw => (Masm::add_v, Ar::H8),
        Paddd | Vpaddd => (Masm::add_v, Ar::S4),
        Paddq | Vpaddq => (Masm::add_v, Ar::D2),
        Psubb | Vpsubb => (Masm::sub_v, Ar::B16),
        Psubw | Vpsubw => (Masm::sub_v, Ar::H8),
        Psubd | Vpsubd => (Masm::sub_v, Ar::S4),
        Psubq | Vpsubq => (Masm::sub_v, Ar::D2),
        Paddsb | Vpaddsb => (Masm::sqadd, Ar::B16),
        Paddsw | Vpaddsw => (Masm::sqadd, Ar::H8),
        Paddusb | Vpaddusb => (Masm::uqadd, Ar::B16),
        Paddusw | Vpaddusw => (Masm::uqadd, Ar::H8),
        Psubsb | Vpsubsb => (Masm::sqsub, Ar::B16),
        Psubsw | Vpsubsw => (Masm::sqsub, Ar::H8),
        Psubusb | Vpsubusb => (Masm::uqsub, Ar::B16),
        Psubusw | Vpsubusw => (Masm::uqsub, Ar::H8),
        Pavgb | Vpavgb => (Masm::urhadd, Ar::B16),
        Pavgw | Vpavgw => (Masm::urhadd, Ar::H8),
        Pminub | Vpminub => (Masm::umin, Ar::B16),
        Pminuw | Vpminuw => (Masm::umin, Ar::H8),
        Pminud | Vpminud => (Masm::umin, Ar::S4),
        Pminsb | Vpminsb => (Masm::smin, Ar::B16),
        Pminsw | Vpminsw => (Masm::smin, Ar::H8),
        Pminsd | Vpminsd => (Masm::smin, Ar::S4),
        Pmaxub | Vpmaxub => (Masm::umax, Ar::B16),
        Pmaxuw | Vpmaxuw => (Masm::umax, Ar::H8),
        Pmaxud | Vpmaxud => (Masm::umax, Ar::S4),
        Pmaxsb | Vpmaxsb => (Masm::smax, Ar::B16),
        Pmaxsw | Vpmaxsw => (Masm::smax, Ar::H8),
        Pmaxsd | Vpmaxsd => (Masm::smax, Ar::S4),
        Pcmpgtb | Vpcmpgtb => (Masm::cmgt, Ar::B16),
        Pcmpgtw | Vpcmpgtw => (Masm::cmgt, Ar::H8),
        Pcmpgtd | Vpcmpgtd => (Masm::cmgt, Ar::S4),
        Pcmpgtq | Vpcmpgtq => (Masm::cmgt, Ar::D2),
        Pmullw | Vpmullw => (Masm::mul_v, Ar::H8),
        Pmulld | Vpmulld => (Masm::mul_v, Ar::S4),
        Phaddw | Vphaddw => (Masm::addp_v, Ar::H8),
        Phaddd | Vphaddd => (Masm::addp_v, Ar::S4),
        Pcmpeqb | Vpcmpeqb => (Masm::cmeq, Ar::B16),
        Pcmpeqw | Vpcmpeqw => (Masm::cmeq, Ar::H8),
        Pcmpeqd | Vpcmpeqd => (Masm::cmeq, Ar::S4),
        Pcmpeqq | Vpcmpeqq => (Masm::cmeq, Ar::D2),
        Unpcklps | Vunpcklps | Punpckldq | Vpunpckldq => (Masm::zip1, Ar::S4),
        Unpckhps | Vunpckhps | Punpckhdq | Vpunpckhdq => (Masm::zip2, Ar::S4),
        Unpcklpd | Vunpcklpd | Punpcklqdq | Vpunpcklqdq => (Masm::zip1, Ar::D2),
        Unpckhpd | Vunpckhpd | Punpckhqdq | Vpunpckhqdq => (Masm::zip2, Ar::D2),
        Punpcklbw | Vpunpcklbw => (Masm::zip1, Ar::B16),
        Punpcklwd | Vpunpcklwd => (Masm::zip1, Ar::H8),
        Punpckhbw | Vpunpckhbw => (Masm::zip2, Ar::B16),
        Punpckhwd | Vpunpckhwd => (Masm::zip2, Ar::H8),
        _ => return None,
    })
}

/// Of bits; `true`: with its sources the other way round.
pub fn bits(m: Mnemonic) -> Option<(BitOp, bool)> {
    use Mnemonic::*;
    Some(match m {
        Andps | Vandps | Andpd | Vandpd | Pand | Vpand => (Masm::and_v, false),
        Orps | Vorps | Orpd | Vorpd | Por | Vpor => (Masm::orr_v, false),
        Xorps | Vxorps | Xorpd | Vxorpd | Pxor | Vpxor => (Masm::eor_v, false),
        Andnps | Vandnps | Andnpd | Vandnpd | Pandn | Vpandn => (Masm::bic_v, true),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    Left,
    Right,
    Arithmetic,
}

/// Of lanes, all by the same count.
pub fn shift(m: Mnemonic) -> Option<(Shift, Ar)> {
    use Mnemonic::*;
    Some(match m {
        Psllw | Vpsllw => (Shift::Left, Ar::H8),
        Pslld | Vpslld => (Shift::Left, Ar::S4),
        Psllq | Vpsllq => (Shift::Left, Ar::D2),
        Psrlw | Vpsrlw => (Shift::Right, Ar::H8),
        Psrld | Vpsrld => (Shift::Right, Ar::S4),
        Psrlq | Vpsrlq => (Shift::Right, Ar::D2),
        Psraw | Vpsraw => (Shift::Arithmetic, Ar::H8),
        Psrad | Vpsrad => (Shift::Arithmetic, Ar::S4),
        _ => return None,
    })
}

/// The row of those in [`of`].
pub fn lanewise(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (op, ar) = of(i.mnemonic()).ok_or(Decline::Undefined)?;
    binary(cx, i, |cx, d, a, b| op(&mut cx.m, ar, d, a, b))
}
