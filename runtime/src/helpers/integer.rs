//! Integer operations that do not fit inline: 128-by-64-bit division, CPUID, RFLAGS as a whole, random numbers, bit deposit.

use super::raise;
use crate::engine::Trap;
use crate::state::{CpuState, Eflags, gpr};

/// DIV r/m64 (SDM vol. 2, DIV): quotient to RAX, remainder to RDX; #DE on zero or overflow.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn div64(cpu: *mut CpuState, divisor: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the thunk passes the running thread's state, which nothing else touches during the call.
    let cpu = unsafe { &mut *cpu };
    let n = u128::from(cpu.gpr[gpr::RDX]) << 64 | u128::from(cpu.gpr[gpr::RAX]);
    let d = u128::from(divisor);
    if divisor == 0 || cpu.gpr[gpr::RDX] >= divisor {
        raise(cpu, Trap::DivideError);
        return 0;
    }
    cpu.gpr[gpr::RAX] = (n / d) as u64;
    cpu.gpr[gpr::RDX] = (n % d) as u64;
    0
}

/// IDIV r/m64 (SDM vol. 2, IDIV): truncating; #DE on zero or when the quotient does not fit.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn idiv64(cpu: *mut CpuState, divisor: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as in `div64`.
    let cpu = unsafe { &mut *cpu };
    let n = (u128::from(cpu.gpr[gpr::RDX]) << 64 | u128::from(cpu.gpr[gpr::RAX])) as i128;
    let d = i128::from(divisor as i64);
    let q = n.checked_div(d).and_then(|q| i64::try_from(q).ok());
    let Some(q) = q else {
        raise(cpu, Trap::DivideError);
        return 0;
    };
    cpu.gpr[gpr::RAX] = q as u64;
    cpu.gpr[gpr::RDX] = (n % d) as u64;
    0
}

/// CPUID (SDM vol. 2): the engine's answer, zero-extended into RAX, RBX, RCX, RDX.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn cpuid(cpu: *mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as in `div64`.
    let cpu = unsafe { &mut *cpu };
    let Some(engine) = crate::engine::installed() else {
        return 0;
    };
    let r = engine.cpuid(cpu.gpr[gpr::RAX] as u32, cpu.gpr[gpr::RCX] as u32);
    for (reg, v) in [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX].into_iter().zip(r) {
        cpu.gpr[reg] = u64::from(v);
    }
    0
}

/// PUSHF (SDM vol. 2): RF and VM read as zero.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn flags_read(cpu: *mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as in `div64`.
    let cpu = unsafe { &*cpu };
    u64::from(cpu.eflags().difference(Eflags::RF).bits())
}

/// POPF (SDM vol. 2) at privilege level 3: what may not be changed is ignored. When it sets TF it ends translated code: from the next instruction on
/// there is a trap after each.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn flags_write(cpu: *mut CpuState, value: u64, bytes: u64, next: u64) -> u64 {
    // SAFETY: as in `div64`.
    let cpu = unsafe { &mut *cpu };
    let mut bits = value as u32;
    if bytes == 2 {
        bits = cpu.eflags().bits() & !0xffff | bits & 0xffff;
    }
    cpu.set_eflags(Eflags::from_bits_truncate(bits));
    if bits & Eflags::TF.bits() != 0 {
        super::segment::go_on_at(cpu, next);
    }
    0
}

/// RDRAND and RDSEED (SDM vol. 2): from the kernel's generator, which does not fail once it is seeded.
///
/// # Safety
/// None needed: the state is not looked at.
pub unsafe extern "C" fn random(_: *mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let mut v = [0u8; 8];
    let mut have = 0;
    while have < v.len() {
        // SAFETY: the rest of `v` is writable for as many bytes as asked.
        let n = unsafe { libc::getrandom(v[have..].as_mut_ptr().cast(), v.len() - have, 0) };
        if n > 0 {
            have += n as usize;
        }
    }
    u64::from_le_bytes(v)
}

/// IA32_TSC_AUX (SDM vol. 2, RDTSCP) as Linux fills it.
///
/// # Safety
/// None needed: the state is not looked at.
pub unsafe extern "C" fn tsc_aux(_: *mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: both are writable; the third argument is unused.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, std::ptr::null_mut::<u8>()) };
    u64::from(node) << 12 | u64::from(cpu)
}

/// CRC32 (SDM vol. 2): the Castagnoli polynomial, bits reflected.
///
/// # Safety
/// None needed: the state is not looked at.
pub unsafe extern "C" fn crc32c(_: *mut CpuState, crc: u64, data: u64, bytes: u64) -> u64 {
    const REFLECTED: u32 = 0x82f6_3b78;
    let mut crc = crc as u32;
    for byte in data.to_le_bytes().into_iter().take(bytes as usize) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (REFLECTED * (crc & 1));
        }
    }
    u64::from(crc)
}

/// PDEP (SDM vol. 2): the low bits of `source` to the places of `mask`.
///
/// # Safety
/// None needed: the state is not looked at.
pub unsafe extern "C" fn pdep(_: *mut CpuState, source: u64, mut mask: u64, _: u64) -> u64 {
    let (mut from, mut to) = (source, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if from & 1 != 0 {
            to |= lowest;
        }
        from >>= 1;
        mask ^= lowest;
    }
    to
}

/// PEXT (SDM vol. 2): the bits of `source` at the places of `mask`, gathered.
///
/// # Safety
/// None needed: the state is not looked at.
pub unsafe extern "C" fn pext(_: *mut CpuState, source: u64, mut mask: u64, _: u64) -> u64 {
    let (mut to, mut at) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        to |= u64::from(source & lowest != 0) << at;
        at += 1;
        mask ^= lowest;
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_and_extract_are_inverse_on_the_mask() {
        let cpu = &raw mut *Box::new(CpuState::default());
        for (v, mask) in [(0xdead_beef_1234_5678u64, 0xff00_0ff0_1234_8421u64), (!0, 1 << 63), (7, 0), (!0, !0)] {
            // SAFETY: none needed.
            let there = unsafe { pdep(cpu, v, mask, 0) };
            assert_eq!(there & !mask, 0);
            let ones = mask.count_ones();
            let low = if ones == 64 { !0 } else { (1u64 << ones) - 1 };
            // SAFETY: none needed.
            assert_eq!(unsafe { pext(cpu, there, mask, 0) }, v & low);
        }
    }

    #[test]
    fn crc32c_of_the_check_string() {
        let cpu = &raw mut *Box::new(CpuState::default());
        let mut crc = 0xffff_ffff;
        for b in *b"123456789" {
            // SAFETY: none needed.
            crc = unsafe { crc32c(cpu, crc, u64::from(b), 1) };
        }
        // The catalogue's check value (RFC 3720, appendix B.4 uses the same code).
        assert_eq!(!crc as u32, 0xe306_9283);
    }
}
