//! Labels, and the PC-relative instructions that use them (Arm ARM, C4.1.86 and C6.2). These are encoded here and not by the
//! assembler library because the runtime re-points the same words later.

use super::{Masm, Sz, V, X};

/// A place in the code, bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub(super) u32);

impl Label {
    /// Whether it is one of the first `n` made.
    pub fn is_of(self, n: u32) -> bool {
        self.0 < n
    }
}

/// Condition codes (Arm ARM, C1.2.4), by encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cond {
    Eq = 0,
    Ne = 1,
    Cs = 2,
    Cc = 3,
    Mi = 4,
    Pl = 5,
    Vs = 6,
    Vc = 7,
    Hi = 8,
    Ls = 9,
    Ge = 10,
    Lt = 11,
    Gt = 12,
    Le = 13,
    Al = 14,
}

impl Cond {
    /// The condition that holds exactly when this one does not.
    pub fn invert(self) -> Cond {
        use Cond::*;
        match self {
            Eq => Ne,
            Ne => Eq,
            Cs => Cc,
            Cc => Cs,
            Mi => Pl,
            Pl => Mi,
            Vs => Vc,
            Vc => Vs,
            Hi => Ls,
            Ls => Hi,
            Ge => Lt,
            Lt => Ge,
            Gt => Le,
            Le => Gt,
            Al => Al,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Field {
    /// 26 bits at 0: B, BL.
    Imm26,
    /// 19 bits at 5: B.cond, CBZ, CBNZ, LDR literal.
    Imm19,
    /// 14 bits at 5: TBZ, TBNZ.
    Imm14,
    /// ADR: byte offset, low two bits at 29.
    Adr,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fixup {
    pub(super) word: u32,
    label: Label,
    field: Field,
}

/// What can go wrong when labels are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("label {0} was used and never bound")]
    Unbound(u32),
    #[error("word {0} cannot reach its label")]
    OutOfReach(u32),
}

pub(super) fn resolve(words: &mut [u32], labels: &[Option<u32>], fixups: &[Fixup]) -> Result<(), LinkError> {
    for f in fixups {
        let to = labels[f.label.0 as usize].ok_or(LinkError::Unbound(f.label.0))?;
        let delta = i64::from(to) - i64::from(f.word);
        let w = &mut words[f.word as usize];
        let bits = |n: u32| -> Result<u32, LinkError> {
            let lim = 1i64 << (n - 1);
            if delta < -lim || delta >= lim {
                return Err(LinkError::OutOfReach(f.word));
            }
            Ok(delta as u32 & ((1 << n) - 1))
        };
        match f.field {
            Field::Imm26 => *w |= bits(26)?,
            Field::Imm19 => *w |= bits(19)? << 5,
            Field::Imm14 => *w |= bits(14)? << 5,
            Field::Adr => *w |= bits(19)? << 5,
        }
    }
    Ok(())
}

impl Masm {
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() as u32 - 1)
    }

    /// How many labels there are.
    pub fn labels(&self) -> u32 {
        self.labels.len() as u32
    }

    /// Binds `label` to the next word.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = Some(self.here());
    }

    /// The word `label` was bound to, if it was.
    pub fn bound(&self, label: Label) -> Option<u32> {
        self.labels[label.0 as usize]
    }

    fn fix(&mut self, base: u32, label: Label, field: Field) {
        self.fixups.push(Fixup { word: self.here(), label, field });
        self.word(base);
    }

    pub fn b(&mut self, l: Label) {
        self.fix(0x1400_0000, l, Field::Imm26);
    }

    pub fn bl(&mut self, l: Label) {
        self.fix(0x9400_0000, l, Field::Imm26);
    }

    pub fn b_cond(&mut self, c: Cond, l: Label) {
        self.fix(0x5400_0000 | c as u32, l, Field::Imm19);
    }

    pub fn cbz(&mut self, sz: Sz, r: X, l: Label) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.fix(0x3400_0000 | sf | u32::from(r.0), l, Field::Imm19);
    }

    pub fn cbnz(&mut self, sz: Sz, r: X, l: Label) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.fix(0x3500_0000 | sf | u32::from(r.0), l, Field::Imm19);
    }

    /// Branches when bit `bit` of `r` is clear. Reaches 32 KiB.
    pub fn tbz(&mut self, r: X, bit: u32, l: Label) {
        self.fix(0x3600_0000 | (bit >> 5) << 31 | (bit & 31) << 19 | u32::from(r.0), l, Field::Imm14);
    }

    /// Branches when bit `bit` of `r` is set. Reaches 32 KiB.
    pub fn tbnz(&mut self, r: X, bit: u32, l: Label) {
        self.fix(0x3700_0000 | (bit >> 5) << 31 | (bit & 31) << 19 | u32::from(r.0), l, Field::Imm14);
    }

    pub fn adr(&mut self, d: X, l: Label) {
        self.fix(0x1000_0000 | u32::from(d.0), l, Field::Adr);
    }

    /// Loads a 64-bit constant from the literal pool.
    pub fn ldr_literal(&mut self, d: X, v: u64) {
        let label = match self.literals.iter().find(|(x, _)| *x == v) {
            Some(&(_, l)) => l,
            None => {
                let l = self.label();
                self.literals.push((v, l));
                l
            }
        };
        self.fix(0x5800_0000 | u32::from(d.0), label, Field::Imm19);
    }

    /// Loads a 128-bit constant from the literal pool.
    pub fn ldr_q_literal(&mut self, d: V, v: u128) {
        let (lo, hi) = (v as u64, (v >> 64) as u64);
        let label = match self.literals.windows(2).find(|w| w[0].0 == lo && w[1].0 == hi) {
            Some(w) => w[0].1,
            None => {
                let l = self.label();
                self.literals.push((lo, l));
                let second = self.label();
                self.literals.push((hi, second));
                l
            }
        };
        self.fix(0x9c00_0000 | u32::from(d.0), label, Field::Imm19);
    }
}
