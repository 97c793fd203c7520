//! SSE to SSE4.2 (SDM vol. 1, chapters 10-12; vol. 2): vector operands, alignment, and one file per group of instructions.
//!
//! XMM registers are v16-v31. A row computes in scratch vector registers whatever it must not write before its last access that can fault, or
//! that would clobber a source. Scalar forms keep the other lanes of the destination: by a lane insert, or by FPCR.NEP where the host has
//! FEAT_AFP (the runtime then sets NEP and AH together, see `xrun_runtime`'s MXCSR conversion).
//!
//! A row names the legacy form and the VEX form of an instruction: what it says of 128 bits is done once, with two operands or three, or twice, for
//! the two halves of a YMM register. What only VEX forms do is in [`super::avx`].

use super::cx::{Cx, gpr};
use super::{Decline, Lowered};
use crate::emit::fp::Fp;
use crate::emit::{Addr, Label, Sz, V, X};
use crate::guest::Flags;
use iced_x86::{EncodingKind, Instruction, OpKind, Register};
use xrun_runtime::abi;
use xrun_runtime::engine::{FlagForm, Trap};

pub mod arith;
pub mod compare;
pub mod control;
pub mod convert;
pub mod crypto;
pub mod float;
pub mod gfni;
pub mod lanes;
pub mod moves;
pub mod run;
pub mod shuffle;

/// How wide an instruction's vectors are, and how it names its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Legacy encoding: 128 bits; the first operand is a source too; the upper halves of YMM registers stay.
    Legacy,
    /// VEX encoding, 128 bits or a scalar. What zeroes the upper half is [`super::avx`].
    Vex128,
    Vex256,
}

impl Width {
    pub fn of(i: &Instruction) -> Width {
        if i.code().encoding() != EncodingKind::VEX {
            return Width::Legacy;
        }
        let wide = (0..i.op_count()).any(|n| match i.op_kind(n) {
            OpKind::Register => i.op_register(n).is_ymm(),
            OpKind::Memory => i.memory_size().size() == 32,
            _ => false,
        });
        if wide { Width::Vex256 } else { Width::Vex128 }
    }
}

/// The host register of an XMM register, or of the lower half of a YMM register.
pub fn xmm(r: Register) -> Option<V> {
    (r.is_xmm() || r.is_ymm()).then(|| V(abi::xmm(r.number() as u8)))
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
    /// 16-byte memory operands of legacy encodings must be aligned (SDM vol. 1, 4.1.1), else #GP; with VEX only those of moves that say so (14.9).
    pub fn vsrc(&mut self, i: &Instruction, n: u32) -> Result<V, Decline> {
        self.vsrc_as(i, n, Width::of(i) == Width::Legacy)
    }

    /// The two halves of the 256-bit operand `n`; do not write them.
    pub fn vsrc_halves(&mut self, i: &Instruction, n: u32) -> Result<[V; 2], Decline> {
        if i.op_kind(n) == OpKind::Memory {
            let (lo, hi) = (self.vtmp(), self.vtmp());
            self.load_halves(i, lo, hi);
            return Ok([lo, hi]);
        }
        let lo = self.vreg(i, n)?;
        Ok([lo, self.upper(i.op_register(n).number())])
    }

    /// Loads the 32 bytes of the memory operand.
    pub fn load_halves(&mut self, i: &Instruction, lo: V, hi: V) {
        let at = self.addr(i, 16);
        self.load_v_pair(lo, hi, at);
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
        if aligned && bytes >= 16 {
            self.check_aligned(i, at, bytes);
        }
        at
    }

    /// #GP(0) unless the memory operand, at `at`, is at a multiple of its size: nothing where that is known, else two or three words.
    fn check_aligned(&mut self, i: &Instruction, at: Addr, bytes: u32) {
        let low = i64::from(bytes) - 1;
        let disp = i.memory_displacement64();
        let segment = matches!(i.segment_prefix(), Register::FS | Register::GS);
        let base = i.memory_base();
        if matches!(base, Register::RIP) && !segment {
            if !disp.is_multiple_of(bytes.into()) {
                let l = self.misaligned();
                self.m.b(l);
            }
            return;
        }
        let known = match (gpr(base), i.memory_index()) {
            (Some((x, 0, 8)), Register::None) if !segment && bytes == 16 => Some((x, (disp & 15) as u8)),
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
            Addr::Off(n, off) if i64::from(off) & low == 0 => self.m.and_imm(Sz::X, t, n, low as u64),
            _ => {
                let n = self.addr_reg(at);
                self.m.and_imm(Sz::X, t, n, low as u64);
            }
        }
        let l = self.misaligned();
        self.m.cbnz(Sz::W, t, l);
    }

    /// Where to go when an address is not aligned: #GP, in a run by way of its instructions one by one.
    fn misaligned(&mut self) -> Label {
        match self.slow_run() {
            Some(l) => l,
            None => self.trap_label(Trap::GeneralProtection),
        }
    }

    /// Whether NZCV may be overwritten by this instruction, which changes no flags.
    pub fn nzcv_free(&self) -> bool {
        let live = self.live_out();
        let from_compare = self.form() == FlagForm::FloatCompare && live.intersects(Flags::P | Flags::A);
        !live.intersects(Flags::NZCV) && !from_compare
    }

    /// The value of the 8-bit immediate operand, which is the last one.
    pub fn imm8(&self, i: &Instruction) -> u8 {
        i.immediate(i.op_count() - 1) as u8
    }

    /// `d` = `a`, but its low lane from `r`, a scratch register.
    pub fn merge_into(&mut self, fp: Fp, d: V, a: V, r: V) {
        if d != a {
            self.m.mov_v(d, a);
        }
        self.merge(fp, d, r);
    }

    /// A general register operand or memory, for the integer side of a move or conversion.
    pub fn int_src(&mut self, i: &Instruction, n: u32) -> Result<(X, u32), Decline> {
        let p = self.place(i, n)?;
        let x = self.get(p, super::Ext::Zero);
        Ok((x, p.bytes()))
    }
}

/// `d = a op b`, `d op= b` in legacy encodings; `f(cx, half, d, a, b)` emits it for one half, reading `a` and `b` before it writes `d`, which may be either
/// of them, or both.
pub fn halves(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, u32, V, V, V)) -> Lowered {
    let d = cx.vreg(i, 0)?;
    match Width::of(i) {
        Width::Legacy => {
            let b = cx.vsrc(i, 1)?;
            f(cx, 0, d, d, b);
        }
        Width::Vex128 => {
            let a = cx.vreg(i, 1)?;
            let b = cx.vsrc(i, 2)?;
            f(cx, 0, d, a, b);
        }
        Width::Vex256 => {
            let (n, m) = (i.op0_register().number(), i.op1_register().number());
            let same = i.op2_kind() == OpKind::Register && i.op2_register() == i.op1_register();
            let a = [cx.vreg(i, 1)?, cx.upper(m)];
            let b = if same { a } else { cx.vsrc_halves(i, 2)? };
            let high = cx.upper_target(n);
            cx.with_vtmps(|cx| f(cx, 0, d, a[0], b[0]));
            cx.with_vtmps(|cx| f(cx, 1, high, a[1], b[1]));
            cx.set_upper(n, high);
        }
    }
    Ok(())
}

/// VEX forms with three sources, the first of which is the destination: `f(cx, d, [d, a, b])` for each half.
pub fn ternary(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V, [V; 3])) -> Lowered {
    let (d, n) = (cx.vreg(i, 0)?, i.op0_register().number());
    if Width::of(i) != Width::Vex256 {
        let from = [d, cx.vreg(i, 1)?, cx.vsrc(i, 2)?];
        f(cx, d, from);
        return Ok(());
    }
    let last = cx.vsrc_halves(i, 2)?;
    let uppers = [cx.upper(n), cx.upper(i.op1_register().number())];
    let low = [d, cx.vreg(i, 1)?, last[0]];
    let high = cx.upper_target(n);
    cx.with_vtmps(|cx| f(cx, d, low));
    cx.with_vtmps(|cx| f(cx, high, [uppers[0], uppers[1], last[1]]));
    cx.set_upper(n, high);
    Ok(())
}

/// As [`halves`], for what is the same for both.
pub fn binary(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V, V, V)) -> Lowered {
    halves(cx, i, |cx, _, d, a, b| f(cx, d, a, b))
}

/// As [`halves`] for an `f` that writes `d` before it has read all of `b`: it is never called with `d` the same as `b` but not as `a`.
pub fn apart(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V, V, V)) -> Lowered {
    binary(cx, i, |cx, d, a, b| {
        if d != b || d == a {
            return f(cx, d, a, b);
        }
        let t = cx.vtmp();
        f(cx, t, a, b);
        cx.m.mov_v(d, t);
    })
}

/// `d` is changed by `b`: `f(cx, d, b)` finds in `d` what it is computed from.
pub fn into(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V, V)) -> Lowered {
    apart(cx, i, |cx, d, a, b| {
        if d != a {
            cx.m.mov_v(d, a);
        }
        f(cx, d, b);
    })
}

/// What an operation of a register with itself gives when that does not depend on the register: `f(cx, d)` emits it. True if `i` is one.
pub fn idiom(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V)) -> Result<bool, Decline> {
    let n = i.op_count();
    let register = |n: u32| i.op_kind(n) == OpKind::Register;
    if !register(n - 2) || !register(n - 1) || i.op_register(n - 2) != i.op_register(n - 1) {
        return Ok(false);
    }
    let d = cx.vreg(i, 0)?;
    f(cx, d);
    if Width::of(i) == Width::Vex256 {
        let n = i.op0_register().number();
        let high = cx.upper_target(n);
        f(cx, high);
        cx.set_upper(n, high);
    }
    Ok(true)
}

/// `d = op src`; `f(cx, d, n)`.
pub fn unary(cx: &mut Cx<'_>, i: &Instruction, f: impl Fn(&mut Cx<'_>, V, V)) -> Lowered {
    unary_halves(cx, i, 1, |cx, _, d, n| f(cx, d, n))
}

/// `d = op` of operand `from`; `f(cx, half, d, n)`.
pub fn unary_halves(cx: &mut Cx<'_>, i: &Instruction, from: u32, f: impl Fn(&mut Cx<'_>, u32, V, V)) -> Lowered {
    let d = cx.vreg(i, 0)?;
    if Width::of(i) != Width::Vex256 {
        let n = cx.vsrc(i, from)?;
        f(cx, 0, d, n);
        return Ok(());
    }
    let n = cx.vsrc_halves(i, from)?;
    let to = i.op0_register().number();
    let high = cx.upper_target(to);
    cx.with_vtmps(|cx| f(cx, 0, d, n[0]));
    cx.with_vtmps(|cx| f(cx, 1, high, n[1]));
    cx.set_upper(to, high);
    Ok(())
}

/// A scalar result in the low lane of `d`, the others from `a` (`d` itself in legacy encodings): `f(cx, r, n)` emits it for the last register or
/// memory operand `n`. With FEAT_AFP it leaves the others of `r` alone; else it may change them.
pub fn scalar(cx: &mut Cx<'_>, i: &Instruction, fp: Fp, f: impl Fn(&mut Cx<'_>, V, V)) -> Lowered {
    let vex = u32::from(Width::of(i) != Width::Legacy);
    let d = cx.vreg(i, 0)?;
    let a = cx.vreg(i, vex)?;
    let n = cx.vsrc(i, 1 + vex)?;
    if cx.host.afp && (d == a || d != n) {
        if d != a {
            cx.m.mov_v(d, a);
        }
        f(cx, d, n);
        return Ok(());
    }
    let r = cx.vtmp();
    f(cx, r, n);
    cx.merge_into(fp, d, a, r);
    Ok(())
}
