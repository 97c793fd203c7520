//! AES, carry-less multiplication, string compares (SDM vol. 2, the VEX forms; VAES, VPCLMULQDQ).

use crate::isa::Lowered;
use crate::isa::cx::Cx;
use crate::isa::sse::control::strings;
use crate::isa::sse::crypto::*;
use crate::rows;
use iced_x86::Instruction;

rows! { "avx crypto";
    Vaesenc => |cx, i| round(cx, i, false, false),
    Vaesenclast => |cx, i| round(cx, i, false, true),
    Vaesdec => |cx, i| round(cx, i, true, false),
    Vaesdeclast => |cx, i| round(cx, i, true, true),
    Vaesimc => |cx, i| imc(cx, i),
    Vaeskeygenassist => |cx, i| key_assist(cx, i),
    Vpclmulqdq => |cx, i| clmul(cx, i),
    Vpcmpistri => |cx, i| strings(cx, i, false, false),
    Vpcmpistrm => |cx, i| mask(cx, i, false),
    Vpcmpestri => |cx, i| strings(cx, i, true, false),
    Vpcmpestrm => |cx, i| mask(cx, i, true),
    Vpcmpestri64 => |cx, i| strings(cx, i, true, false),
    Vpcmpestrm64 => |cx, i| mask(cx, i, true),
}

/// The result is in XMM0, which no operand names.
fn mask(cx: &mut Cx<'_>, i: &Instruction, explicit: bool) -> Lowered {
    strings(cx, i, explicit, true)?;
    cx.zero_upper(0);
    Ok(())
}
