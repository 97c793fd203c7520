//! Unmasked SSE exceptions (SDM vol. 1, 11.5): code made while some thread has unmasked one. Before an instruction that may raise one its
//! destination is saved;
//! after it FPSR says what it raised, and if this thread does not mask that, the destination goes back and the instruction traps. Five words an
//! instruction, which code made before the first unmasking does not have.
//!
//! FPSR notes a denormal operand only on hosts with FEAT_AFP, and an underflow only when it is inexact too: without FEAT_AFP an unmasked
//! denormal exception is not raised, and an exact underflow never is.

use super::{CANONICAL, Cx, FlagState, LINK, STATE, gpr};
use crate::emit::{Addr, Sz, V, X};
use crate::guest::Flags;
use crate::isa::sse::xmm;
use crate::isa::{Lower, Lowered, row};
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::mem::offset_of;
use xrun_runtime::engine::Trap;
use xrun_runtime::state::CpuState;

#[derive(Clone, Copy)]
enum Saved {
    Vector(V),
    General(X),
    /// NZCV, of an instruction that writes flags only.
    Flags,
    /// The destination is written after the look.
    Nothing,
}

/// An instruction to be looked after.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    saved: Saved,
    flags: FlagState,
    scratch: X,
}

const SAVED: Addr = Addr::Off(STATE, offset_of!(CpuState, saved) as i32);

/// Whether `i` may raise an SSE exception.
fn raises(i: &Instruction) -> bool {
    use Mnemonic::*;
    match i.mnemonic() {
        Cvtpi2ps | Cvtps2pi | Cvttps2pi | Cvtpd2pi | Cvttpd2pi => true,
        m => {
            !i.is_string_instruction()
                && row(m)
                    .is_some_and(|r| matches!(r.family, "sse float" | "sse compare" | "sse convert" | "fma" | "f16c"))
        }
    }
}

impl Cx<'_> {
    /// Lowers `i` by `lower`, and looks for exceptions.
    pub(crate) fn with_fp_traps(&mut self, i: &Instruction, lower: Lower) -> Lowered {
        if !raises(i) {
            return lower(self, i);
        }
        let scratch = self.tmp();
        let r = i.op0_register();
        let saved = match (i.op0_kind(), xmm(r), gpr(r)) {
            (OpKind::Register, Some(v), _) => {
                use Mnemonic::*;
                let compares = matches!(
                    i.mnemonic(),
                    Comiss | Comisd | Ucomiss | Ucomisd | Vcomiss | Vcomisd | Vucomiss | Vucomisd
                );
                if compares { Saved::Flags } else { Saved::Vector(v) }
            }
            (OpKind::Register, _, Some((x, ..))) => Saved::General(x),
            _ => Saved::Nothing,
        };
        match saved {
            Saved::Vector(v) => self.m.str_v(16, v, SAVED),
            Saved::General(x) => self.m.str(8, x, SAVED),
            Saved::Flags => {
                self.canonical(Flags::all());
                self.m.mrs_nzcv(LINK);
                self.m.str(8, LINK, SAVED);
            }
            Saved::Nothing => {}
        }
        self.watch = Some(Watch { saved, flags: self.flags, scratch });
        lower(self, i)?;
        self.look_for_fp_trap();
        Ok(())
    }

    /// Whether the look is still to come.
    pub(crate) fn watches_fp(&self) -> bool {
        self.watch.is_some()
    }

    /// The look itself, once: where the instruction has computed all it computes and written at most its first operand, of a YMM register the lower half.
    pub(crate) fn look_for_fp_trap(&mut self) {
        let Some(Watch { saved, flags, scratch }) = self.watch.take() else { return };
        self.m.ldr(4, LINK, Addr::Off(STATE, offset_of!(CpuState, unmasked) as i32));
        self.m.mrs_fpsr(scratch);
        self.m.and(Sz::W, scratch, scratch, LINK);
        let ip = self.region.insts[self.at].i.ip();
        let cold = self.cold(move |cx| {
            cx.flags = flags;
            match saved {
                Saved::Vector(v) => cx.m.ldr_v(16, v, SAVED),
                Saved::General(x) => cx.m.ldr(8, x, SAVED),
                Saved::Flags => {
                    cx.m.ldr(8, LINK, SAVED);
                    cx.m.msr_nzcv(LINK);
                    cx.flags = CANONICAL;
                }
                Saved::Nothing => {}
            }
            cx.trap(Trap::Simd, ip);
        });
        self.m.cbnz(Sz::W, scratch, cold);
    }
}
