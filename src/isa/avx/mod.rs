//! AVX, AVX2, FMA, F16C, AVX-VNNI (SDM vol. 1, chapter 14; vol. 2): what only VEX-encoded instructions do. The VEX forms of SSE's instructions stand
//! in the rows of
//! [`super::sse`], which does 256 bits as twice 128.
//!
//! The lower 128 bits of a YMM register are its XMM register, in v16-v31; the upper ones are asked for by number ([`Cx::upper`]).
//! A VEX-encoded instruction that writes an XMM register clears the upper half (vol. 1, 14.1.2): that is done here, for all of them.
//!
//! | file | rows |
//! |---|---|
//! | [`arith`] | shifts by counts in lanes, tests of signs |
//! | [`f16c`] | conversions of half precision |
//! | [`fma`] | fused multiplication and addition |
//! | [`moves`] | halves inserted and extracted, broadcasts, VZEROUPPER |
//! | [`shuffle`] | permutations |
//! | [`masked`] | masked moves and gathers |
//! | [`vnni`] | sums of products of bytes and words |

use super::cx::Cx;
use super::{Decline, Lowered};
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind};

pub mod arith;
pub mod f16c;
pub mod fma;
pub mod masked;
pub mod moves;
pub mod shuffle;
pub mod vnni;

/// Whether `i` is VEX-encoded and writes an XMM register, its first operand.
pub fn clears(i: &Instruction) -> bool {
    use Mnemonic::*;
    i.op0_register().is_xmm()
        && i.op0_kind() == OpKind::Register
        && i.code().encoding() == EncodingKind::VEX
        && !matches!(
            i.mnemonic(),
            Vcomiss
                | Vcomisd
                | Vucomiss
                | Vucomisd
                | Vptest
                | Vtestps
                | Vtestpd
                | Vpcmpestri
                | Vpcmpestrm
                | Vpcmpistri
                | Vpcmpistrm
                | Vpcmpestri64
                | Vpcmpestrm64
        )
}

/// Lowers an instruction that [`clears`], by its row.
pub fn lower(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let row = super::row(i.mnemonic()).ok_or(Decline::Unsupported("no row"))?;
    (row.lower)(cx, i)?;
    cx.look_for_fp_trap();
    cx.zero_upper(i.op0_register().number());
    Ok(())
}
