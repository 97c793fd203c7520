//! What translated code calls for x87 instructions. All but [`image`] are called as pure helpers: they take memory operands in their
//! arguments and touch nothing of the guest but [`crate::state::X87`], which no host register mirrors, and spill slots.
//!
//! The last instruction's opcode and addresses (FOP, FIP, FDP) are not followed: images show what was last loaded, at first zero. (CPUs differ here too:
//! some write them for FXSAVE only while an exception is pending.)
//!
//! Pending unmasked exceptions are not looked at here: translated code tests ES before each waiting instruction.

pub mod image;
pub mod ops;

#[cfg(all(test, target_arch = "x86_64"))]
mod native_tests;
#[cfg(test)]
mod replay_tests;

use super::f80::Order;
use super::raise;
use crate::engine::Trap;
use crate::state::{CpuState, X87};
use ops::{Arith, Format};

/// Spill slots through which [`store`] gives what does not fit its return value.
pub const STORE_HIGH: usize = 0;
pub const STORE_COMMIT: usize = 1;
/// In the [`STORE_COMMIT`] slot, beside the status word: nothing is to be stored, nor popped.
pub const STORE_ABANDONED: u64 = 1 << 16;

/// Codes of [`arith`], [`compare`] and others pack small operands as `field(a, n)` from bit `n` on.
fn field(a: u64, at: u32) -> u8 {
    (a >> at) as u8 & 15
}

/// # Safety
/// `cpu` is the running thread's state, and nothing else touches it during the call.
unsafe fn unit<'a>(cpu: *mut CpuState) -> &'a mut X87 {
    // SAFETY: the caller's promise; only the x87 part is borrowed.
    unsafe { &mut (*cpu).x87 }
}

/// FADD .. FDIVRP: a = operation ([`Arith`]) | destination << 4 | source << 8 | pop << 12.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn arith(cpu: *mut CpuState, a: u64, _: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.arith(Arith::from_raw(a), field(a, 4), field(a, 8), a >> 12 & 1 != 0);
    0
}

/// FADD m .. FIDIVR m: a = operation | format ([`Format`]) << 4, b = the memory operand.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn arith_memory(cpu: *mut CpuState, a: u64, b: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.arith_memory(Arith::from_raw(a), Format::from_raw(a >> 4), b);
    0
}

/// FCOM, FUCOM and their popping forms: a = register | quiet << 4 | pops << 8.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn compare(cpu: *mut CpuState, a: u64, _: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.compare(field(a, 0), field(a, 4) != 0, field(a, 8));
    0
}

/// FCOM m, FICOM m: a = format | pop << 4, b = the memory operand.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn compare_memory(cpu: *mut CpuState, a: u64, b: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.compare_memory(Format::from_raw(a), b, field(a, 4) != 0);
    0
}

/// FCOMI, FUCOMI: a = register | quiet << 4 | pop << 8. Returns NZCV as `CpuState::nzcv` has it, and PF in bit 0.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn compare_flags(cpu: *mut CpuState, a: u64, _: u64, _: u64) -> u64 {
    use crate::state::nzcv::{C, Z};
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    match x.compare_flags(field(a, 0), field(a, 4) != 0, field(a, 8) != 0) {
        Order::Greater => 0,
        Order::Less => u64::from(C),
        Order::Equal => u64::from(Z),
        Order::Unordered => u64::from(Z | C) | 1,
    }
}

/// FLD m, FILD m, FBLD: a = format, b = low 64 bits of the operand, c = the 16 above.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn load(cpu: *mut CpuState, a: u64, b: u64, c: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.load(Format::from_raw(a), b, c as u16);
    0
}

/// FST m .. FBSTP: a = format | chop << 4. Returns what to store, its bits above 64 in spill slot [`STORE_HIGH`]; [`STORE_COMMIT`] gets the status
/// word to set after the store, or with [`STORE_ABANDONED`] instead of it. Nothing of the unit is changed.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn store(cpu: *mut CpuState, a: u64, _: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let s = unsafe { unit(cpu) }.store(Format::from_raw(a), field(a, 4) != 0);
    // SAFETY: as above; spill slots are no part of the unit.
    let spill = unsafe { &mut (*cpu).spill };
    spill[STORE_HIGH] = u64::from(s.high);
    spill[STORE_COMMIT] = u64::from(s.status) | if s.write { 0 } else { STORE_ABANDONED };
    s.low
}

/// Moves between registers: b = register.
///
/// a | instruction
/// --|--
/// 0 | FLD ST(i)
/// 1, 2 | FST ST(i), FSTP ST(i)
/// 3 | FXCH
/// 4, 5 | FCMOVcc with a false, a true condition
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn register(cpu: *mut CpuState, a: u64, b: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    let i = field(b, 0);
    match a {
        0 => x.load_register(i),
        1 | 2 => x.store_register(i, a == 2),
        3 => x.exchange(i),
        _ => x.move_if(i, a == 5),
    }
    0
}

/// Instructions with implied operands: a = second opcode byte ([`ops::implied`]).
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn implied(cpu: *mut CpuState, a: u64, _: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    x.implied(a as u8);
    0
}

/// Instructions that set the unit up: a = 0 FNINIT, 1 FNCLEX, 2 FLDCW with b = the value.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn control(cpu: *mut CpuState, a: u64, b: u64, _: u64) -> u64 {
    // SAFETY: passed on.
    let x = unsafe { unit(cpu) };
    match a {
        0 => x.initialise(),
        1 => x.clear_exceptions(),
        _ => x.set_control(b as u16),
    }
    0
}

/// Instructions that move the unit to or from memory at guest address b; a = 0 FNSTENV, 1 FLDENV, 2 FNSAVE, 3 FRSTOR, 4 FXSAVE, 5 FXRSTOR,
/// | 8 for the 14-byte environment or the 64-bit pointers of FXSAVE64; c = the address of the next instruction, where FXRSTOR ends translated code
/// as LDMXCSR does. Not pure: it accesses guest memory, first of all, and a fault there is
/// the instruction's.
///
/// # Safety
/// `cpu` is the running thread's state, called through the full helper thunk.
pub unsafe extern "C" fn memory_image(cpu: *mut CpuState, a: u64, b: u64, next: u64) -> u64 {
    // SAFETY: the caller's promise.
    let cpu = unsafe { &mut *cpu };
    let variant = a & 8 != 0;
    let x = &mut cpu.x87;
    match a & 7 {
        0 => {
            let mut out = [0; 108];
            let len = x.environment(variant, &mut out);
            // SAFETY: a fault on a guest address is the calling instruction's, and drops nothing; `out` has `len` bytes.
            unsafe { std::ptr::copy_nonoverlapping(out.as_ptr(), b as *mut u8, len) };
            x.control |= 0x3f;
            x.summarise();
        }
        2 => {
            let mut out = [0; 108];
            let len = x.save(variant, &mut out);
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(out.as_ptr(), b as *mut u8, len) };
            x.initialise();
        }
        1 | 3 => {
            let len = if variant { 14 } else { 28 } + if a & 7 == 3 { 80 } else { 0 };
            let mut image = [0; 108];
            // SAFETY: as above; `image` has `len` bytes.
            unsafe { std::ptr::copy_nonoverlapping(b as *const u8, image.as_mut_ptr(), len) };
            if a & 7 == 3 {
                x.restore(&image[..len]);
            } else {
                x.set_environment(&image[..len]);
            }
        }
        _ if !b.is_multiple_of(16) => raise(cpu, Trap::GeneralProtection),
        4 => {
            let mut image = [0; 512];
            image::fxsave(cpu, variant, &mut image);
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), b as *mut u8, image::FX_WRITTEN) };
        }
        _ => {
            let mut image = [0; 512];
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(b as *const u8, image.as_mut_ptr(), 512) };
            if image::fxrstor(cpu, variant, &image).is_err() {
                raise(cpu, Trap::GeneralProtection);
            } else if crate::enter::fp::is_special(cpu) {
                super::segment::go_on_at(cpu, next);
            }
        }
    }
    0
}
