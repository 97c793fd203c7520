//! Integer operations that do not fit inline: 128-by-64-bit division, CPUID.

use super::raise;
use crate::engine::Trap;
use crate::state::{CpuState, gpr};

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
