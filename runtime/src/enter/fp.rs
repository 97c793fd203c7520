//! MXCSR (SDM vol. 1, 10.2.3) and the host's FPCR and FPSR (Arm ARM, C5.2.8 and C5.2.10): how each says the other's bits.

/// MXCSR's reset value: everything masked, round to nearest.
pub const MXCSR_DEFAULT: u32 = 0x1f80;
const MXCSR_DAZ: u32 = 1 << 6;
const MXCSR_FTZ: u32 = 1 << 15;

const FPCR_FZ: u64 = 1 << 24;

/// FPCR for guest code under `mxcsr`. Rounding is exact. FZ flushes inputs and results alike, where x86 has a bit for each:
/// it is set when both are, which is how programs use them.
pub const fn fpcr_of(mxcsr: u32) -> u64 {
    // x86: 0 nearest, 1 down, 2 up, 3 zero; Arm: 0 nearest, 1 up, 2 down, 3 zero: the two bits swapped.
    let rc = (mxcsr >> 13) & 3;
    let mode = ((rc & 1) << 1 | rc >> 1) as u64;
    let flush = if mxcsr & (MXCSR_DAZ | MXCSR_FTZ) == MXCSR_DAZ | MXCSR_FTZ { FPCR_FZ } else { 0 };
    mode << 22 | flush
}

/// The sticky exception flags of MXCSR (bits 0-5) that `fpsr` has accumulated.
pub const fn flags_of(fpsr: u64) -> u32 {
    let f = fpsr as u32;
    let (ioc, dzc, ofc, ufc, ixc, idc) = (f & 1, f >> 1 & 1, f >> 2 & 1, f >> 3 & 1, f >> 4 & 1, f >> 7 & 1);
    ioc | idc << 1 | dzc << 2 | ofc << 3 | ufc << 4 | ixc << 5
}

/// The sticky flags of FPSR.
pub const FPSR_STICKY: u64 = 0x9f;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_modes_map_to_arms() {
        for (rc, rmode) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
            assert_eq!(fpcr_of(MXCSR_DEFAULT | rc << 13), rmode << 22);
        }
    }
}
