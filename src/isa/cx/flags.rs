//! The static state of the flags along the walk: NZCV's form, where PF and AF can be computed from, and how each is brought to the form a reader needs.
//! Must not know which instruction asks.

use super::{AF, AfFrom, Cx, LINK, PF, Pa, pinned};
use crate::emit::{Cond, Sz, X, ZR};
use crate::guest::Flags;
use iced_x86::{Instruction, Mnemonic, Register};
use xrun_runtime::abi;
use xrun_runtime::engine::FlagForm;
use xrun_runtime::state::gpr::RSP;

/// A bit of NZCV, by its place in the nibble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nzcv {
    V = 0,
    C = 1,
    Z = 2,
    N = 3,
}

/// What `i` adds to RSP, if that is a constant and all it does to RSP.
fn stack_step(i: &Instruction) -> Option<i32> {
    match i.mnemonic() {
        Mnemonic::Pop if i.op0_register().full_register() == Register::RSP => None,
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call => Some(i.stack_pointer_increment()),
        Mnemonic::Ret => Some(i.stack_pointer_increment()),
        _ => None,
    }
}

impl Cx<'_> {
    /// Before an instruction overwrites a register that PF or AF still come from: saves what is needed.
    pub(super) fn keep_pa(&mut self) {
        let live = self.facts.live_in[self.at];
        let Pa::Lazy { r, af, bias } = self.flags.pa else {
            return;
        };
        if !live.intersects(Flags::P | Flags::A) {
            self.flags.pa = Pa::Stored;
            return;
        }
        let i = &self.region.insts[self.at].i;
        let written = crate::guest::written_gprs(i);
        let hit = |x: X| written & (1 << x.0) != 0;
        let moved = if r == pinned(RSP) { stack_step(i) } else { None };
        match af {
            AfFrom::AddReg(b) | AfFrom::SubReg(b) if hit(r) || hit(b) => self.store_pa(live),
            _ if hit(r) => match moved.map(|n| bias + n).filter(|n| n.unsigned_abs() < 4096) {
                Some(bias) => self.flags.pa = Pa::Lazy { r, af, bias },
                None => self.take_pf(),
            },
            _ => {}
        }
    }

    /// Brings PF's source into its register.
    fn take_pf(&mut self) {
        let Pa::Lazy { r, af, bias } = self.flags.pa else {
            return;
        };
        match bias {
            0 if r == PF => {}
            0 => self.m.mov(Sz::W, PF, r),
            1.. => self.m.sub_imm(Sz::W, PF, r, bias as u32),
            _ => self.m.add_imm(Sz::W, PF, r, bias.unsigned_abs()),
        }
        self.flags.pa = Pa::Lazy { r: PF, af, bias: 0 };
    }

    /// Brings PF and AF into their registers as far as `live` asks.
    pub(crate) fn store_pa(&mut self, live: Flags) {
        let Pa::Lazy { af, .. } = self.flags.pa else {
            return;
        };
        if live.intersects(Flags::P | Flags::A) {
            self.take_pf();
        }
        self.flags.pa = Pa::Stored;
        if !live.contains(Flags::A) {
            return;
        }
        match af {
            AfFrom::Stored => {}
            AfFrom::Const(c) => self.m.movz(Sz::W, AF, u16::from(c), 0),
            AfFrom::AddImm(k) => {
                self.m.sub_imm(Sz::W, AF, PF, k as u32 & 0x1f);
                self.flip_bits(k);
            }
            AfFrom::SubImm(k) => {
                self.m.add_imm(Sz::W, AF, PF, k as u32 & 0x1f);
                self.flip_bits(k);
            }
            AfFrom::AddReg(b) => {
                self.m.sub(Sz::W, AF, PF, b);
                self.m.eor(Sz::W, AF, AF, b);
            }
            AfFrom::SubReg(b) => {
                self.m.add(Sz::W, AF, PF, b);
                self.m.eor(Sz::W, AF, AF, b);
            }
        }
    }

    /// PF and AF are undefined after this instruction: whatever is in their registers.
    pub fn forget_pa(&mut self) {
        self.flags.pa = Pa::Stored;
    }

    /// The register whose low byte's parity is PF. Not for the `FloatCompare` form.
    pub fn pf_source(&mut self) -> X {
        match self.flags.pa {
            Pa::Stored => PF,
            Pa::Lazy { r, bias: 0, .. } => r,
            Pa::Lazy { .. } => {
                self.take_pf();
                PF
            }
        }
    }

    /// Only bit 4 of AF's source counts.
    fn flip_bits(&mut self, k: u64) {
        if k & 0x10 != 0 {
            self.m.eor_imm(Sz::W, AF, AF, 0x10);
        }
    }

    /// Says where PF and AF of this instruction come from: the result `r`, and `af`. Nothing is emitted unless they are live and `r` is
    /// a scratch register. A register named in `af` must be a pinned one this instruction does not change.
    pub fn set_pa(&mut self, r: X, af: AfFrom) {
        let live = self.live();
        self.flags.pa = Pa::Stored;
        if self.flags.form == FlagForm::FloatCompare && !self.live_out().intersects(Flags::NZCV) {
            // NZCV, which nobody reads, is where they were.
            self.flags.form = FlagForm::Direct;
        }
        if !live.intersects(Flags::P | Flags::A) {
            return;
        }
        let keep = abi::GPR.contains(&r.0) || r == PF;
        if !keep {
            self.m.mov(Sz::W, PF, r);
        }
        self.flags.pa = Pa::Lazy { r: if keep { r } else { PF }, af, bias: 0 };
    }

    /// Says that PF and AF of this instruction are to be had from NZCV, as [`FlagForm::FloatCompare`] holds them.
    pub fn pa_in_nzcv(&mut self) {
        self.flags.pa = Pa::Stored;
    }

    /// Flags this instruction writes that something may read afterwards.
    pub fn live(&self) -> Flags {
        self.facts.live_out[self.at] & self.region.insts[self.at].flags.writes
    }

    /// Flags live after this instruction, whoever wrote them.
    pub fn live_out(&self) -> Flags {
        self.facts.live_out[self.at]
    }

    pub fn form(&self) -> FlagForm {
        self.flags.form
    }

    /// Declares how NZCV holds the guest's flags from here on.
    pub fn set_form(&mut self, f: FlagForm) {
        self.flags.form = f;
    }

    /// Inverts C: one word with FEAT_FlagM, else three.
    fn flip_carry(&mut self) {
        if self.host.flagm {
            self.m.cfinv();
        } else {
            self.m.mrs_nzcv(LINK);
            self.m.eor_imm(Sz::X, LINK, LINK, 1 << 29);
            self.m.msr_nzcv(LINK);
        }
    }

    /// Brings all flags to canonical form as far as `live` needs it: NZCV with C = CF, PF and AF in their registers.
    pub fn canonical(&mut self, live: Flags) {
        self.store_pa(live);
        match self.flags.form {
            FlagForm::Direct => {}
            FlagForm::CarryInverted => {
                if live.contains(Flags::C) {
                    self.flip_carry();
                }
            }
            FlagForm::FloatCompare => self.expand_float_compare(live, true),
        }
        self.flags.form = FlagForm::Direct;
    }

    /// Makes C hold CF (`inverted` false) or its inverse, for ADC, SBB and their like.
    pub fn carry_as(&mut self, inverted: bool) {
        let want = if inverted { FlagForm::CarryInverted } else { FlagForm::Direct };
        if self.flags.form == FlagForm::FloatCompare {
            self.expand_float_compare(Flags::all(), !inverted);
        } else if self.flags.form != want {
            self.flip_carry();
        }
        self.flags.form = want;
    }

    /// Leaves the `FloatCompare` form, so that single flags can be put into NZCV.
    pub fn settle(&mut self) {
        if self.flags.form == FlagForm::FloatCompare {
            self.canonical(Flags::all());
        }
    }

    /// CF as 0 or 1 in a scratch register, whatever form it is in.
    pub fn save_carry(&mut self) -> X {
        self.settle();
        let t = self.tmp();
        let set = if self.flags.form == FlagForm::CarryInverted { Cond::Cc } else { Cond::Cs };
        self.m.cset(t, set);
        t
    }

    /// Puts back what [`Cx::save_carry`] gave; N, Z and V stay.
    pub fn restore_carry(&mut self, c: X) {
        self.insert_flags(&[(c, 0, Nzcv::C)]);
    }

    /// Puts bits of registers into NZCV and leaves the others. A C put in is CF itself. One word each with FEAT_FlagM, else two more.
    pub fn insert_flags(&mut self, bits: &[(X, u32, Nzcv)]) {
        self.settle();
        if self.host.flagm {
            for &(x, bit, to) in bits {
                self.m.rmif(x, bit.wrapping_sub(to as u32) & 63, 1 << to as u32);
            }
        } else {
            self.m.mrs_nzcv(LINK);
            for &(x, bit, to) in bits {
                let x = if bit == 0 {
                    x
                } else {
                    let t = self.tmp();
                    self.m.lsr(Sz::X, t, x, bit);
                    t
                };
                self.m.bfi(Sz::X, LINK, x, 28 + to as u32, 1);
            }
            self.m.msr_nzcv(LINK);
        }
        if bits.iter().any(|b| b.2 == Nzcv::C) {
            self.flags.form = FlagForm::Direct;
        }
    }

    /// CF = bit `bit` of `x`; N, Z and V stay as far as they are live afterwards.
    pub fn set_carry_bit(&mut self, x: X, bit: u32) {
        if self.host.flagm || self.live_out().intersects(Flags::S | Flags::Z | Flags::O) {
            return self.insert_flags(&[(x, bit, Nzcv::C)]);
        }
        let t = self.tmp();
        self.m.lsl(Sz::X, t, x, 63 - bit);
        self.m.adds(Sz::X, ZR, t, t);
        self.flags.form = FlagForm::Direct;
    }

    /// Z = (the 32 bits of `r` are zero); the others stay.
    pub fn insert_z_if_zero(&mut self, r: X) {
        let t = self.tmp();
        self.m.clz(Sz::W, t, r);
        self.insert_flags(&[(t, 5, Nzcv::Z)]);
    }

    /// FCMP's flags to x86's: ZF = Z|V, CF = C clear or V, PF = V, SF = OF = AF = 0 (SDM vol. 2, UCOMISD; Arm ARM, FPCompare).
    fn expand_float_compare(&mut self, live: Flags, direct: bool) {
        if live.intersects(Flags::P | Flags::A) {
            // Odd parity (1) when ordered: PF clear. AF = bit 4 of PF ^ AF = 0.
            self.m.cset(PF, Cond::Vc);
            self.m.mov(Sz::W, AF, PF);
        }
        if live.intersects(Flags::NZCV) {
            if self.host.flagm2 {
                self.m.axflag();
                if direct && live.contains(Flags::C) {
                    self.m.cfinv();
                }
            } else {
                // less: N; equal: Z C; greater: C; unordered: C V.
                self.m.csinc(Sz::W, LINK, ZR, ZR, Cond::Ne);
                self.m.csinc(Sz::W, LINK, LINK, ZR, Cond::Vc);
                self.m.lsl(Sz::W, LINK, LINK, 30);
                let t = self.tmp();
                self.m.cset(t, if direct { Cond::Lt } else { Cond::Ge });
                self.m.orr_lsl(Sz::W, LINK, LINK, t, 29);
                self.m.msr_nzcv(LINK);
            }
        }
    }
}
