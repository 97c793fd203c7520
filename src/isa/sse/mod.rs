//! SSE to SSE4.2 (SDM vol. 1, chapters 10-12; vol. 2): vector operands, alignment, and one file per group of instructions.
//!
//! XMM registers are v16-v31. A row computes in scratch vector registers whatever it must not write before its last access that can fault, or
//! that would clobber a source. Scalar forms keep the other lanes of the destination: by a lane insert, or by FPCR.NEP where the host has
//! FEAT_AFP (the runtime then sets NEP and AH together, see `xrun_runtime`'s MXCSR conversion).

use super::cx::{Cx, gpr};
use super::{Decline, Lowered};
use crate::emit::{Addr, Sz, V, X};
use crate::guest::Flags;
use iced_x86::{Instruction, OpKind, Register};
use xrun_runtime::abi;
use xrun_runtime::engine::{FlagForm, Trap};

pub mod arith;
pub mod compare;
pub mod control;
pub mod convert;
pub mod crypto;
pub mod float;
pub mod moves;
pub mod run;
pub mod shuffle;

/// The host register of an XMM register.
pub fn xmm(r: Register) -> Option<V> {
    r.is_xmm().then(|| V(abi::xmm(r.number() as u8)))
}

impl Cx<'_> {
    /// The XMM register that is operand `n`, or what holds the MMX register that is.
    pub fn vreg(&mut self, i: &Instruction, n: u32) -> Result<V, Decline> {
        if i.op_kind(n) != OpKind::Register {
            return Err(Decline::Unsupported("vector operand kind"));
        }
        let r = i.op_register(n);
        xmm(r).or_else(|| super::mmx::held(self, r)).ok_or(Decline::Unsupported("wider vector register"))
    }

    /// Vector operand `n`: the XMM register itself (do not write it), or memory loaded into a scratch register with the rest zero.
    /// 16-byte memory operands must be aligned (SDM vol. 1, 4.1.1), else #GP.
    pub fn vsrc(&mut self, i: &Instruction, n: u32) -> Result<V, Decline> {
        self.vsrc_as(i, n, true)
    }

    /// As [`Cx::vsrc`], for the instructions that take unaligned memory.
    pub fn vsrc_unaligned(&mut self, i: &Instruction, n: u32) -> Result<V, Decline> {
        self.vsrc_as(i, n, false)
    }

    fn vsrc_as(&mut self, i: &Instruction, n: u32, aligned: bool) -> Result<V, Decline> {
        if i.op_kind(n) != OpKind::Memory {
            return self.vreg(i, n);
        }
        let bytes = i.memory_size().size() as u32;
        let at = self.vaddr(i, bytes, aligned);
        let v = self.vtmp();
        self.load_v(bytes, v, at);
        Ok(v)
    }

    /// The address of a vector memory operand, checked to be aligned if asked and the access is 16 bytes.
    pub fn vaddr(&mut self, i: &Instruction, bytes: u32, aligned: bool) -> Addr {
        let at = self.addr(i, bytes);
        if aligned && bytes == 16 {
            self.check_aligned(i, at);
        }
        at
    }

    /// #GP(0) unless the memory operand, at `at`, is at a multiple of 16: nothing where that is known, else two or three words.
    fn check_aligned(&mut self, i: &Instruction, at: Addr) {
        let disp = i.memory_displacement64();
        let segment = matches!(i.segment_prefix(), Register::FS | Register::GS);
        let base = i.memory_base();
        if matches!(base, Register::RIP) && !segment {
            if !disp.is_multiple_of(16) {
                let l = self.trap_label(Trap::GeneralProtection);
                self.m.b(l);
            }
            return;
        }
        let known = match (gpr(base), i.memory_index()) {
            (Some((x, 0, 8)), Register::None) if !segment => Some((x, (disp & 15) as u8)),
            _ => None,
        };
        if let Some(k) = known {
            if self.aligned.contains(&k) {
                return;
            }
            self.aligned.push(k);
        }
        let t = self.tmp();
        match at {
            Addr::Off(n, off) if off % 16 == 0 => self.m.and_imm(Sz::X, t, n, 15),
            _ => {
                let n = self.addr_reg(at);
                self.m.and_imm(Sz::X, t, n, 15);
            }
        }
        let l = self.trap_label(Trap::GeneralProtection);
        self.m.cbnz(Sz::W, t, l);
    }

    /// Whether NZCV may be overwritten by this instruction, which changes no flags.
    pub fn nzcv_free(&self) -> bool {
        let live = self.live_out();
        let from_compare = self.form() == FlagForm::FloatCompare && live.intersects(Flags::P | Flags::A);
        !live.intersects(Flags::NZCV) && !from_compare
    }

    /// The value of an 8-bit immediate operand.
    pub fn imm8(&self, i: &Instruction, n: u32) -> u8 {
        i.immediate(n) as u8
    }

    /// A general register operand or memory, for the integer side of a move or conversion.
    pub fn int_src(&mut self, i: &Instruction, n: u32) -> Result<(X, u32), Decline> {
        let p = self.place(i, n)?;
        let x = self.get(p, super::Ext::Zero);
        Ok((x, p.bytes()))
    }
}

/// `d op= src` on XMM registers; `f(cx, d, a, b)` emits `d = a op b` reading both before it writes, and `d` is `a`.
pub fn binary(cx: &mut Cx<'_>, i: &Instruction, f: impl FnOnce(&mut Cx<'_>, V, V, V)) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let b = cx.vsrc(i, 1)?;
    f(cx, d, d, b);
    Ok(())
}

/// `d = op src`; `f(cx, d, n)`.
pub fn unary(cx: &mut Cx<'_>, i: &Instruction, f: impl FnOnce(&mut Cx<'_>, V, V)) -> Lowered {
    let d = cx.vreg(i, 0)?;
    let n = cx.vsrc(i, 1)?;
    f(cx, d, n);
    Ok(())
}
