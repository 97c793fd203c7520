//! MXCSR (SDM vol. 1, 10.2.3) and the host's FPCR and FPSR (Arm ARM, C5.2.8 and C5.2.10): how each says the other's bits.

use crate::state::CpuState;
use std::sync::atomic::{AtomicBool, Ordering};

/// MXCSR's reset value: everything masked, round to nearest.
pub const MXCSR_DEFAULT: u32 = 0x1f80;
const MXCSR_DAZ: u32 = 1 << 6;
const MXCSR_FTZ: u32 = 1 << 15;

const FPCR_FZ: u64 = 1 << 24;
// FEAT_AFP (Arm ARM, C5.2.8): FIZ flushes inputs; AH makes FZ flush results only, NaNs and FMIN/FMAX behave as on x86 and
// denormal inputs set IDC; NEP makes scalar instructions keep the other lanes.
const FPCR_FIZ: u64 = 1 << 0;
const FPCR_AH: u64 = 1 << 1;
const FPCR_NEP: u64 = 1 << 2;

static ALTERNATE: AtomicBool = AtomicBool::new(false);
/// See [`some_thread_flushes`].
static FLUSHES: AtomicBool = AtomicBool::new(false);

/// Says that guest code runs with FPCR.AH and FPCR.NEP set: the host has FEAT_AFP and the engine's code relies on it. To be called before the first
/// guest instruction runs.
pub fn use_alternate_fp(on: bool) {
    ALTERNATE.store(on, Ordering::Relaxed);
}

/// FPCR for guest code under `mxcsr`. Rounding is exact. x86 has one bit for flushing inputs and one for results; so has AArch64 with
/// FEAT_AFP. Without it FZ does both: it is set when both are asked for, which is how programs use them.
pub fn fpcr_of(mxcsr: u32) -> u64 {
    fpcr_for(mxcsr, ALTERNATE.load(Ordering::Relaxed))
}

const fn fpcr_for(mxcsr: u32, alternate: bool) -> u64 {
    // x86: 0 nearest, 1 down, 2 up, 3 zero; Arm: 0 nearest, 1 up, 2 down, 3 zero: the two bits swapped.
    let rc = (mxcsr >> 13) & 3;
    let mode = (((rc & 1) << 1 | rc >> 1) as u64) << 22;
    let (inputs, results) = (mxcsr & MXCSR_DAZ != 0, mxcsr & MXCSR_FTZ != 0);
    if alternate {
        mode | FPCR_AH | FPCR_NEP | if inputs { FPCR_FIZ } else { 0 } | if results { FPCR_FZ } else { 0 }
    } else {
        mode | if inputs && results { FPCR_FZ } else { 0 }
    }
}

/// Makes `mxcsr` the guest's.
pub fn set_mxcsr(cpu: &mut CpuState, mxcsr: u32) {
    cpu.mxcsr = mxcsr;
    cpu.guest_fpcr = fpcr_of(mxcsr);
    cpu.unmasked = unmasked(mxcsr);
}

/// The same, when `cpu` runs already.
pub fn change_mxcsr(cpu: &mut CpuState, mxcsr: u32) {
    if mxcsr != cpu.mxcsr {
        set_mxcsr(cpu, mxcsr);
    }
}

/// Whether guest code has run with FPCR.FZ set and FPCR.AH clear. Then AArch64's comparisons take denormals for zeros, but selecting one of the
/// operands hands it on
/// as it is, so code for MIN and MAX that picks by a comparison has a denormal to flush.
pub fn some_thread_flushes() -> bool {
    FLUSHES.load(Ordering::Relaxed)
}

/// Whether `cpu` runs with FPCR.FZ set and FPCR.AH clear.
pub fn flushes(cpu: &CpuState) -> bool {
    cpu.guest_fpcr & (FPCR_FZ | FPCR_AH) == FPCR_FZ
}

/// Whether `cpu` wants other code than a thread with MXCSR as it is at first: the dispatcher is to look at it.
pub fn is_special(cpu: &CpuState) -> bool {
    cpu.unmasked != 0 || flushes(cpu)
}

/// From now on [`some_thread_flushes`]. False when it was so already.
pub fn set_flushing() -> bool {
    !FLUSHES.swap(true, Ordering::SeqCst)
}

/// The exceptions that `mxcsr` does not mask, as bits of FPSR: IE DE ZE OE UE PE are IOC IDC DZC OFC UFC IXC. An underflow is inexact too (see [`flags_of`]).
const fn unmasked(mxcsr: u32) -> u32 {
    let open = !mxcsr >> 7;
    open & 1 | (open >> 1 & 1) << 7 | (open >> 2 & 15) << 1 | (open >> 5 & 1) << 3
}

/// The sticky exception flags of MXCSR (bits 0-5) that `fpsr` has accumulated.
pub const fn flags_of(fpsr: u64) -> u32 {
    let f = fpsr as u32;
    if f & FPSR_STICKY as u32 == 0 {
        return 0;
    }
    let (ioc, dzc, ofc, ufc, ixc, idc) = (f & 1, f >> 1 & 1, f >> 2 & 1, f >> 3 & 1, f >> 4 & 1, f >> 7 & 1);
    // x86 notes an underflow only when the result is inexact too; flushing to zero, AArch64 notes the underflow alone.
    ioc | idc << 1 | dzc << 2 | ofc << 3 | ufc << 4 | (ixc | ufc) << 5
}

/// The sticky flags of FPSR.
pub const FPSR_STICKY: u64 = 0x9f;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_modes_map_to_arms() {
        for (rc, rmode) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
            assert_eq!(fpcr_for(MXCSR_DEFAULT | rc << 13, false), rmode << 22);
        }
    }
}
