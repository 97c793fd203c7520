//! RCPPS, RSQRTPS and their scalar forms (SDM vol. 2): approximations with a relative error of at most 1.5 * 2^-12. Each maker's CPUs have
//! their own tables; these are AMD's (Zen), as the instructions return them for every one of the 4096 leading mantissa values.
//! No exception is raised, denormal operands count as zeros and results too small are zeros, whatever MXCSR says.

use super::sse::STRING_SLOT;
use crate::state::CpuState;

/// 12-bit mantissas by 12-bit mantissa, little-endian: 1/x for x in [1, 2), 1/sqrt(x) for x in [1, 2), then for x in [0.5, 1).
static TABLE: &[u8; 3 * 8192] = include_bytes!("reciprocal.bin");

fn table(which: usize, x: u32) -> u32 {
    let at = 8192 * which + 2 * (x >> 11 & 0xfff) as usize;
    u32::from(u16::from_le_bytes([TABLE[at], TABLE[at + 1]])) << 11
}

/// RCPSS of a single's bits.
pub fn reciprocal(x: u32) -> u32 {
    let (sign, exponent) = (x & 0x8000_0000, x >> 23 & 0xff);
    match exponent {
        0 => sign | 0x7f80_0000,
        0xff if x & 0x7f_ffff != 0 => x | 0x40_0000,
        // The result would be below the smallest normal number.
        253.. => sign,
        e => sign | (253 - e) << 23 | table(0, x),
    }
}

/// RSQRTSS of a single's bits.
pub fn reciprocal_root(x: u32) -> u32 {
    let (sign, exponent) = (x & 0x8000_0000, x >> 23 & 0xff);
    match exponent {
        0 => sign | 0x7f80_0000,
        0xff if x & 0x7f_ffff != 0 => x | 0x40_0000,
        _ if sign != 0 => 0xffc0_0000,
        0xff => 0,
        // x = m * 2^(e - 127), e - 127 even: half of it leaves the root's exponent.
        e if e & 1 == 1 => (126 + 63 - (e >> 1)) << 23 | table(1, x),
        e => (127 + 63 - (e >> 1)) << 23 | table(2, x),
    }
}

/// RCPPS (b = 0) or RSQRTPS (b = 1) on two singles: a = both, the result likewise. Pure.
///
/// # Safety
/// None of its own: the state is not looked at.
pub unsafe extern "C" fn estimate(_: *mut CpuState, a: u64, b: u64, _: u64) -> u64 {
    let f = if b == 0 { reciprocal } else { reciprocal_root };
    u64::from(f(a as u32)) | u64::from(f((a >> 32) as u32)) << 32
}

/// As [`estimate`] on the four singles in the first spill slot; the results go to the second.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn estimate4(cpu: *mut CpuState, _: u64, b: u64, _: u64) -> u64 {
    // SAFETY: the thunk passes the running thread's state, which nothing else touches during the call.
    let cpu = unsafe { &mut *cpu };
    for n in STRING_SLOT..STRING_SLOT + 2 {
        // SAFETY: it takes no notice of the pointer.
        cpu.spill[n + 2] = unsafe { estimate(std::ptr::null_mut(), cpu.spill[n], b, 0) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_inside_the_documented_bound() {
        for m in (0..1 << 23).step_by(97) {
            for exponent in [1, 64, 126, 127, 128, 200] {
                let x = f64::from(f32::from_bits(exponent << 23 | m));
                let r = f64::from(f32::from_bits(reciprocal(exponent << 23 | m)));
                assert!((r * x - 1.0).abs() <= 1.5 / 4096.0, "1/{x}: {r}");
                let r = f64::from(f32::from_bits(reciprocal_root(exponent << 23 | m)));
                assert!((r * x.sqrt() - 1.0).abs() <= 1.5 / 4096.0, "1/sqrt({x}): {r}");
            }
        }
    }

    /// On the maker's CPUs the tables are the CPU's own.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tables_are_the_cpus() {
        use std::arch::x86_64::*;
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !info.contains("AuthenticAMD") {
            println!("another maker's CPU: nothing to compare with");
            return;
        }
        let mut x = 0u32;
        loop {
            // SAFETY: SSE is part of every x86_64 CPU.
            let (rcp, rsqrt) = unsafe {
                let v = _mm_castsi128_ps(_mm_cvtsi32_si128(x as i32));
                (
                    _mm_cvtsi128_si32(_mm_castps_si128(_mm_rcp_ss(v))) as u32,
                    _mm_cvtsi128_si32(_mm_castps_si128(_mm_rsqrt_ss(v))) as u32,
                )
            };
            assert_eq!((reciprocal(x), reciprocal_root(x)), (rcp, rsqrt), "{x:#x}");
            match x.checked_add(0x1e9) {
                Some(n) => x = n,
                None => break,
            }
        }
    }
}
