//! Segment registers and far transfers as a 64-bit Linux process has them: a flat table of descriptors, known in advance
//! (arch/x86/kernel/cpu/common.c, `gdt_page`), and no local one. Must not know how the instructions are encoded.

use super::{raise, raise_selector};
use crate::engine::{ExitReason, Trap};
use crate::state::{CpuState, Eflags, gpr, segment};

/// What a selector names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Null,
    Code64,
    Code32,
    Data,
    /// The one whose limit is the number of the CPU: read-only data.
    Node,
    /// The kernel's own, a system segment, or nothing.
    Closed,
}

fn segment(selector: u16) -> Segment {
    match selector & !3 {
        0 => Segment::Null,
        0x20 => Segment::Code32,
        0x28 => Segment::Data,
        0x30 => Segment::Code64,
        0x78 => Segment::Node,
        _ => Segment::Closed,
    }
}

/// Loads a segment register other than CS; the error is #GP's error code.
fn load(cpu: &mut CpuState, which: usize, selector: u16) -> Result<(), u16> {
    let error = Err(selector & !3);
    let fits = match segment(selector) {
        Segment::Data => which != segment::SS || selector & 3 == 3,
        // SS may be null at privilege levels 0 to 2 only.
        Segment::Null | Segment::Code32 | Segment::Code64 | Segment::Node => which != segment::SS,
        Segment::Closed => false,
    };
    let Some(slot) = cpu.selectors.get_mut(which).filter(|_| fits) else { return error };
    *slot = selector;
    match which {
        segment::FS => cpu.fs_base = 0,
        segment::GS => cpu.gs_base = 0,
        _ => {}
    }
    Ok(())
}

/// MOV Sreg, POP FS, LSS and their like: a = selector, b = the register's number. #GP(selector).
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn load_segment(cpu: *mut CpuState, selector: u64, which: u64, _: u64) -> u64 {
    // SAFETY: the thunk passes the running thread's state, which nothing else touches during the call.
    let cpu = unsafe { &mut *cpu };
    if let Err(e) = load(cpu, which as usize, selector as u16) {
        raise_selector(cpu, Trap::GeneralProtection, e);
    }
    0
}

/// LAR, LSL, VERR, VERW: a = selector, b = 0 to 3. Returns the value, with bit 63 set when the answer is yes (ZF).
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn descriptor(_: *mut CpuState, selector: u64, what: u64, _: u64) -> u64 {
    // SAFETY: takes no pointers that are read here.
    let node = unsafe { super::integer::tsc_aux(std::ptr::null_mut(), 0, 0, 0) };
    let s = segment(selector as u16);
    let (rights, limit) = match s {
        Segment::Code32 => (0x00cf_fb00, 0xffff_ffff),
        Segment::Data => (0x00cf_f300, 0xffff_ffff),
        Segment::Code64 => (0x00af_fb00, 0xffff_ffff),
        Segment::Node => (0x0040_f500 | (node >> 16 & 15) << 16, node & 0xf_ffff),
        Segment::Null | Segment::Closed => return 0,
    };
    let yes = 1 << 63;
    match what {
        0 => yes | rights,
        1 => yes | limit,
        2 => yes,
        _ if s == Segment::Data => yes,
        _ => 0,
    }
}

/// Reads `size` bytes of guest memory, zero-extended.
///
/// # Safety
/// As for any access of a helper to guest memory: called through the full thunk, with nothing of the state changed yet, so that a fault is the
/// calling instruction's.
unsafe fn read(at: u64, size: u64) -> u64 {
    // SAFETY: a fault on a guest address is the calling instruction's, and drops nothing.
    unsafe {
        match size {
            2 => (at as *const u16).read_unaligned().into(),
            4 => (at as *const u32).read_unaligned().into(),
            _ => (at as *const u64).read_unaligned(),
        }
    }
}

/// # Safety
/// As [`read`].
unsafe fn write(at: u64, size: u64, v: u64) {
    // SAFETY: as in `read`.
    unsafe {
        match size {
            2 => (at as *mut u16).write_unaligned(v as u16),
            4 => (at as *mut u32).write_unaligned(v as u32),
            _ => (at as *mut u64).write_unaligned(v),
        }
    }
}

/// A code segment as the target of a far transfer: what it raises instead, if anything.
fn code(selector: u16, returns: bool) -> Result<(), (Trap, u16)> {
    let gp = Err((Trap::GeneralProtection, selector & !3));
    match segment(selector) {
        Segment::Code64 | Segment::Code32 if returns && selector & 3 != 3 => gp,
        Segment::Code64 => Ok(()),
        // 32-bit code, which is not translated.
        Segment::Code32 => Err((Trap::Unsupported, 0)),
        _ => gp,
    }
}

/// Far transfers (SDM vol. 2, RET, IRET, JMP, CALL): a = 0 far return, 1 IRET, 2 far jump, 3 far call | operand size << 8 | bytes to release << 16;
/// b = the address of a jump's or call's operand, c = the address of the next instruction. Leaves translated code.
///
/// # Safety
/// `cpu` is the running thread's state, called through the full helper thunk.
pub unsafe extern "C" fn far(cpu: *mut CpuState, a: u64, operand: u64, next: u64) -> u64 {
    // SAFETY: as in `load_segment`.
    let cpu = unsafe { &mut *cpu };
    let (size, release) = (a >> 8 & 0xff, a >> 16);
    let returns = a & 3 < 2;
    let sp = cpu.gpr[gpr::RSP];
    let from = if returns { sp } else { operand };
    // SAFETY: nothing has changed yet.
    let (ip, cs) = unsafe { (read(from, size), read(from.wrapping_add(size), if returns { size } else { 2 }) as u16) };
    let interrupt = a & 3 == 1;
    if interrupt && cpu.other_flags & u64::from(Eflags::NT.bits()) != 0 {
        raise(cpu, Trap::GeneralProtection);
        return 0;
    }
    let at = |n: u64| sp.wrapping_add(n * size);
    let (mut flags, mut new_sp, mut ss) = (0, at(2).wrapping_add(release), segment::USER_DS);
    if interrupt {
        // SAFETY: nothing has changed yet.
        (flags, new_sp, ss) = unsafe { (read(at(2), size), read(at(3), size), read(at(4), size) as u16) };
    }
    if let Err((trap, error)) = code(cs, returns) {
        raise_selector(cpu, trap, error);
        return 0;
    }
    if interrupt && (segment(ss) != Segment::Data || ss & 3 != 3) {
        raise_selector(cpu, Trap::GeneralProtection, ss & !3);
        return 0;
    }
    if (ip as i64) << 16 >> 16 != ip as i64 {
        raise(cpu, Trap::GeneralProtection);
        return 0;
    }
    match a & 3 {
        0 => cpu.gpr[gpr::RSP] = new_sp,
        1 => {
            cpu.gpr[gpr::RSP] = new_sp;
            cpu.selectors[segment::SS] = ss;
            let kept = if size == 2 { cpu.eflags().bits() & !0xffff } else { 0 };
            cpu.set_eflags(Eflags::from_bits_truncate(kept | flags as u32));
        }
        3 => {
            // SAFETY: the first of two stores: nothing has changed yet. The second goes to lower addresses, where a fault may find the first done,
            // as on the CPU.
            unsafe {
                write(sp.wrapping_sub(size), size, u64::from(cpu.selectors[segment::CS]));
                write(sp.wrapping_sub(2 * size), size, next);
            }
            cpu.gpr[gpr::RSP] = sp.wrapping_sub(2 * size);
        }
        _ => {}
    }
    cpu.selectors[segment::CS] = cs | 3;
    go_on_at(cpu, ip);
    0
}

/// Makes the instruction that called the helper end translated code and go on at `rip`.
pub fn go_on_at(cpu: &mut CpuState, rip: u64) {
    cpu.rip = rip;
    cpu.helper_return = 0;
    cpu.exit_reason = ExitReason::Resume as u64;
}
