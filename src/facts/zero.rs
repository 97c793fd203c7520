//! Which XMM registers are zero above their low lane, forward over a region with loops.
//!
//! Scalar SSE keeps the upper lanes, and AArch64's scalar instructions clear them; where they are zero already the two are the same, and nothing
//! needs merging. Compilers zero a register, load or convert into it, and go on with scalar operations, so in loops of scalar code all uppers are zero,
//! round after round. What the region's entry must bring for that is assumed here, and has to be tested whenever control comes from outside.

use crate::guest::Region;
use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// A bit per XMM register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zero {
    /// Bits 64 to 127 are zero.
    pub above64: u16,
    /// Bits 32 to 127 are zero; a part of `above64`.
    pub above32: u16,
}

impl Zero {
    const ALL: Zero = Zero { above64: u16::MAX, above32: u16::MAX };

    fn meet(self, o: Zero) -> Zero {
        Zero { above64: self.above64 & o.above64, above32: self.above32 & o.above32 }
    }

    fn set(&mut self, r: u16, above64: bool, above32: bool) {
        self.above64 = self.above64 & !r | if above64 { r } else { 0 };
        self.above32 = self.above32 & !r | if above32 { r } else { 0 };
    }
}

/// The facts before each instruction of a region, given that those before the first were tested. `None` when there is nothing to win: no
/// loop, or none whose scalar operations need anything from outside.
pub fn find(region: &Region) -> Option<Vec<Zero>> {
    let n = region.insts.len();
    let inside: Vec<Option<usize>> = region
        .insts
        .iter()
        .map(|x| x.target.filter(|_| x.flow != FlowControl::Call).and_then(|t| region.index_of(t)))
        .collect();
    let (merged, singles) = (merged(region, false), merged(region, true));
    if merged == 0 || !(0..n).any(|at| inside[at].is_some_and(|k| k <= at)) {
        return None;
    }
    let mut before = vec![Zero::ALL; n];
    before[0] = Zero { above64: merged, above32: singles };
    let mut again = true;
    while again {
        again = false;
        for at in 0..n {
            let after = step(&region.insts[at].i, before[at]);
            for k in [region.falls_to(at), inside[at]].into_iter().flatten() {
                let met = before[k].meet(after);
                again |= met != before[k];
                before[k] = met;
            }
        }
    }
    (before[0] != Zero::default()).then_some(before)
}

/// Registers that scalar operations merge into, or only those in single precision; and those they were copied from.
fn merged(region: &Region, singles: bool) -> u16 {
    let mut set = 0;
    for x in &region.insts {
        if let Some(d) = bit(&x.i, 0)
            && scalar(x.i.mnemonic()).is_some_and(|double| !(singles && double))
        {
            set |= d;
        }
    }
    let mut last = 0;
    while set != last {
        last = set;
        for x in &region.insts {
            if let (Some(d), Some(s)) = (bit(&x.i, 0), bit(&x.i, 1))
                && is_copy(x.i.mnemonic())
                && set & d != 0
            {
                set |= s;
            }
        }
    }
    set
}

fn bit(i: &Instruction, n: u32) -> Option<u16> {
    (n < i.op_count() && i.op_kind(n) == OpKind::Register)
        .then(|| i.op_register(n))
        .filter(|r| r.is_xmm() && r.number() < 16)
        .map(|r| 1 << r.number())
}

fn is_copy(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Movaps | Movapd | Movups | Movupd | Movdqa | Movdqu)
}

/// Operations on the low lane that keep the rest of operand 0: whether the lane is a double.
fn scalar(m: Mnemonic) -> Option<bool> {
    use Mnemonic::*;
    Some(match m {
        Addsd | Subsd | Mulsd | Divsd | Sqrtsd | Minsd | Maxsd | Cvtsi2sd | Cvtss2sd => true,
        Addss | Subss | Mulss | Divss | Sqrtss | Minss | Maxss | Cvtsi2ss | Cvtsd2ss => false,
        _ => return None,
    })
}

/// The facts after `i`.
fn step(i: &Instruction, z: Zero) -> Zero {
    use Mnemonic::*;
    let mut z = z;
    if !matches!(
        i.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
    ) {
        return Zero::default();
    }
    let vector = |r: Register| r.is_vector_register() || r.is_mm();
    let touches = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && vector(i.op_register(n)));
    if !touches {
        return if matches!(i.mnemonic(), Fxrstor | Fxrstor64 | Xrstor | Xrstor64 | Xrstors | Xrstors64) {
            Zero::default()
        } else {
            z
        };
    }
    if i.encoding() != EncodingKind::Legacy {
        return Zero::default();
    }
    let Some(d) = bit(i, 0) else {
        // Stores, moves to general registers, compares of none: no XMM register is written. MMX may be.
        return if i.op_kind(0) == OpKind::Register && vector(i.op0_register()) { Zero::default() } else { z };
    };
    let s = bit(i, 1);
    let memory = i.op_count() > 1 && i.op_kind(1) == OpKind::Memory;
    match i.mnemonic() {
        Ucomiss | Ucomisd | Comiss | Comisd => {}
        Pxor | Xorps | Xorpd | Psubb | Psubw | Psubd | Psubq if s == Some(d) => z.set(d, true, true),
        Movss | Movd if s.is_none() => z.set(d, true, true),
        Movsd if memory => z.set(d, true, false),
        Movq => z.set(d, true, s.is_some_and(|s| z.above32 & s != 0)),
        m if is_copy(m) => match s {
            Some(s) => z.set(d, z.above64 & s != 0, z.above32 & s != 0),
            None => z.set(d, false, false),
        },
        // A lane of one more register: the rest stays.
        Movss => {}
        Movsd => z.set(d, z.above64 & d != 0, false),
        Andps | Andpd | Pand => {}
        m => match scalar(m) {
            Some(double) => z.set(d, z.above64 & d != 0, !double && z.above32 & d != 0),
            // PCMPxSTRM and its like write XMM0 unsaid.
            None => z.set(d | 1, false, false),
        },
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::Bytes;
    use xrun_runtime::engine::Extent;

    fn of(code: &'static [u8]) -> Option<Vec<Zero>> {
        let code = Bytes(0x40_1000, code.to_vec());
        find(&Region::find(0x40_1000, Extent::Loop, &code).unwrap())
    }

    /// l: mulsd xmm1, xmm0; dec eax; jne l: kept round the loop.
    #[test]
    fn a_scalar_loop_keeps_its_uppers() {
        let z = of(&[0xf2, 0x0f, 0x59, 0xc8, 0xff, 0xc8, 0x75, 0xf8, 0xc3]).unwrap();
        assert_eq!(z[0].above64, 1 << 1);
        assert_eq!(z[0].above32, 0);
    }

    /// l: mulsd xmm1, xmm0; movaps xmm1, [rax]; dec eax; jne l: written whole in the loop.
    #[test]
    fn a_whole_write_ends_it() {
        assert_eq!(of(&[0xf2, 0x0f, 0x59, 0xc8, 0x0f, 0x28, 0x08, 0xff, 0xc8, 0x75, 0xf5, 0xc3]), None);
    }

    /// l: mulsd xmm1, xmm0; call +0; dec eax; jne l: a call may do anything.
    #[test]
    fn a_call_ends_it() {
        assert_eq!(of(&[0xf2, 0x0f, 0x59, 0xc8, 0xe8, 0, 0, 0, 0, 0xff, 0xc8, 0x75, 0xf3, 0xc3]), None);
    }
}
