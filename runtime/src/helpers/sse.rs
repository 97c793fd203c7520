//! SSE operations called from translated code: MXCSR access, the SSE4.2 string compares.

use super::raise;
use crate::engine::Trap;
use crate::enter::fp;
use crate::state::{CpuState, nzcv};

/// MXCSR bits this CPU model has: six sticky flags, DAZ, six masks, rounding, FTZ (SDM vol. 1, 10.2.3).
pub const MXCSR_MASK: u32 = 0xffff;

/// LDMXCSR: a = the new value, b = the address of the next instruction; #GP when a reserved bit is set. Ends translated code when it unmasks
/// an exception or has denormals flushed: what follows may have to be translated anew.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn ldmxcsr(cpu: *mut CpuState, value: u64, next: u64, _: u64) -> u64 {
    // SAFETY: the thunk passes the running thread's state, which nothing else touches during the call.
    let cpu = unsafe { &mut *cpu };
    let value = value as u32;
    if value & !MXCSR_MASK != 0 {
        raise(cpu, Trap::GeneralProtection);
        return 0;
    }
    fp::set_mxcsr(cpu, value);
    cpu.guest_fpsr = 0;
    if fp::is_special(cpu) {
        super::segment::go_on_at(cpu, next);
    }
    0
}

/// STMXCSR: returns the value, with the flags raised so far.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn stmxcsr(cpu: *mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as in `ldmxcsr`.
    let cpu = unsafe { &mut *cpu };
    u64::from(cpu.mxcsr | fp::flags_of(cpu.guest_fpsr))
}

/// Words of [`CpuState::spill`] from which a string compare takes its operands and leaves its mask: 16-byte slots, aligned.
pub const STRING_SLOT: usize = {
    let at = std::mem::offset_of!(CpuState, spill);
    (at.next_multiple_of(16) - at) / 8
};

fn slot(cpu: &CpuState, n: usize) -> u128 {
    let at = STRING_SLOT + 2 * n;
    u128::from(cpu.spill[at]) | u128::from(cpu.spill[at + 1]) << 64
}

/// PCMPISTRI, PCMPISTRM, PCMPESTRI, PCMPESTRM (SDM vol. 2, 4.1): operands in slots 0 and 1; a = immediate, with bit 8 set for
/// explicit lengths, which are b and c, as signed numbers. Returns the index (ECX) and, in bits 63-60, NZCV with SF ZF CF OF; the mask goes to slot 2.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn pcmpstr(cpu: *mut CpuState, imm: u64, la: u64, lb: u64) -> u64 {
    // SAFETY: as in `ldmxcsr`.
    let cpu = unsafe { &mut *cpu };
    let (a, b) = (slot(cpu, 0), slot(cpu, 1));
    let lengths = (imm & 0x100 != 0).then_some((la, lb));
    let r = compare_strings(a, b, imm as u8, lengths);
    cpu.spill[STRING_SLOT + 4] = r.mask as u64;
    cpu.spill[STRING_SLOT + 5] = (r.mask >> 64) as u64;
    u64::from(r.index) | u64::from(r.nzcv) << 32
}

struct Strings {
    index: u32,
    mask: u128,
    nzcv: u32,
}

/// SDM vol. 2, 4.1.1 to 4.1.7.
fn compare_strings(a: u128, b: u128, imm: u8, lengths: Option<(u64, u64)>) -> Strings {
    let (wide, signed) = (imm & 1 != 0, imm & 2 != 0);
    let n: usize = if wide { 8 } else { 16 };
    let element = |v: u128, k: usize| -> i32 {
        match (wide, signed) {
            (false, false) => i32::from((v >> (8 * k)) as u8),
            (false, true) => i32::from((v >> (8 * k)) as i8),
            (true, false) => i32::from((v >> (16 * k)) as u16),
            (true, true) => i32::from((v >> (16 * k)) as i16),
        }
    };
    let to_zero = |v: u128| (0..n).find(|&k| element(v, k) == 0).unwrap_or(n);
    let absolute = |l: u64| (l as i64).unsigned_abs().min(n as u64) as usize;
    let (la, lb) = match lengths {
        Some((la, lb)) => (absolute(la), absolute(lb)),
        None => (to_zero(a), to_zero(b)),
    };
    let bit = |j: usize| -> bool {
        match imm >> 2 & 3 {
            // Equal any: element j of b is in the set a.
            0 => j < lb && (0..la).any(|i| element(a, i) == element(b, j)),
            // Ranges: a holds pairs of bounds.
            1 => {
                let x = element(b, j);
                j < lb && (0..la / 2).any(|p| element(a, 2 * p) <= x && x <= element(a, 2 * p + 1))
            }
            // Equal each: past both ends counts as equal.
            2 => match (j < la, j < lb) {
                (true, true) => element(a, j) == element(b, j),
                (x, y) => x == y,
            },
            // Equal ordered: a starts at element j of b, as far as the register goes.
            _ => (0..la.min(n - j)).all(|i| i + j < lb && element(a, i) == element(b, i + j)),
        }
    };
    let all = (1u32 << n) - 1;
    let r1 = (0..n).filter(|&j| bit(j)).fold(0u32, |r, j| r | 1 << j);
    let r2 = match imm >> 4 & 3 {
        1 => r1 ^ all,
        3 => r1 ^ ((1u32 << lb) - 1),
        _ => r1,
    };
    let index = match r2 {
        0 => n as u32,
        _ if imm & 0x40 != 0 => 31 - r2.leading_zeros(),
        _ => r2.trailing_zeros(),
    };
    let mask = if imm & 0x40 != 0 {
        let width = 128 / n;
        let ones = (1u128 << width) - 1;
        (0..n).filter(|&j| r2 & (1 << j) != 0).fold(0, |m, j| m | ones << (width * j))
    } else {
        u128::from(r2)
    };
    let mut f = 0;
    for (set, flag) in [(r2 != 0, nzcv::C), (lb < n, nzcv::Z), (la < n, nzcv::N), (r2 & 1 != 0, nzcv::V)] {
        if set {
            f |= flag;
        }
    }
    Strings { index, mask, nzcv: f }
}
