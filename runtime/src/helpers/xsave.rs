//! XSAVE, XSAVEC, XSAVEOPT, XRSTOR, XGETBV (SDM vol. 1, chapter 13; vol. 2) for the three state components there are: x87, SSE, and the upper halves
//! of the YMM
//! registers (AVX). The first two lie where FXSAVE has them.

use super::raise;
use super::x87::image::{fxrstor, fxsave};
use crate::engine::Trap;
use crate::enter::fp;
use crate::state::{CpuState, X87, gpr};

/// State components, by their bit (13.1).
pub const X87_STATE: u64 = 1;
pub const SSE_STATE: u64 = 2;
pub const AVX_STATE: u64 = 4;
/// XCR0: all of them are enabled.
pub const XCR0: u64 = X87_STATE | SSE_STATE | AVX_STATE;
/// Where AVX state lies, in the standard format and in the compacted one, and its size (13.5.3).
pub const AVX_OFFSET: usize = 576;
pub const AVX_SIZE: usize = 256;
/// Size of the whole area.
pub const SIZE: usize = AVX_OFFSET + AVX_SIZE;

const HEADER: usize = 512;
const COMPACTED: u64 = 1 << 63;
const MXCSR: std::ops::Range<usize> = 24..32;
/// The parts of the FXSAVE image that belong to a component.
const PARTS: [(u64, std::ops::Range<usize>); 3] =
    [(X87_STATE, 0..MXCSR.start), (X87_STATE, MXCSR.end..160), (SSE_STATE, 160..416)];

/// What [`xsave`] is to do, its first argument; [`WIDE`] is added for the forms with REX.W.
pub const SAVE: u64 = 0;
pub const SAVE_COMPACTED: u64 = 1;
pub const SAVE_OPTIMISED: u64 = 2;
pub const RESTORE: u64 = 3;
pub const READ_XCR: u64 = 4;
pub const WIDE: u64 = 8;

/// The components that are not in their initial state (13.6).
pub fn in_use(cpu: &CpuState) -> u64 {
    let (x, initial) = (&cpu.x87, X87::default());
    let control = |x: &X87| (x.control, x.status, x.in_use, x.top, x.opcode, x.last_ip, x.last_dp);
    let x87 = control(x) != control(&initial) || x.regs != initial.regs;
    u64::from(x87) * X87_STATE
        | u64::from(cpu.xmm != [0; 16]) * SSE_STATE
        | u64::from(cpu.uppers() != [0; 16]) * AVX_STATE
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    let mut q = [0; 8];
    q.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(q)
}

/// a = what, b = the guest address; EDX:EAX is the mask of components, for XGETBV ECX the register. Not pure: a fault on guest memory is the instruction's,
/// and comes before anything of the state is changed. For XRSTOR c = the address of the next instruction, where it ends translated code as LDMXCSR does.
///
/// # Safety
/// `cpu` is the running thread's state, called through the full helper thunk.
pub unsafe extern "C" fn xsave(cpu: *mut CpuState, a: u64, b: u64, next: u64) -> u64 {
    // SAFETY: the caller's promise.
    let cpu = unsafe { &mut *cpu };
    let (what, wide) = (a & !WIDE, a & WIDE != 0);
    if what == READ_XCR {
        read_xcr(cpu);
        return 0;
    }
    if !b.is_multiple_of(64) {
        raise(cpu, Trap::GeneralProtection);
        return 0;
    }
    let asked = (cpu.gpr[gpr::RDX] << 32 | cpu.gpr[gpr::RAX] & 0xffff_ffff) & XCR0;
    if what == RESTORE {
        let mut area = [0; SIZE];
        // SAFETY: a fault on a guest address is the calling instruction's, and drops nothing; `area` has as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(b as *const u8, area.as_mut_ptr(), HEADER + 64) };
        if asked & quad(&area, HEADER) & AVX_STATE != 0 {
            let from = b + AVX_OFFSET as u64;
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, area[AVX_OFFSET..].as_mut_ptr(), AVX_SIZE) };
        }
        if restore(cpu, asked, &area, wide).is_none() {
            raise(cpu, Trap::GeneralProtection);
        } else if crate::enter::fp::is_special(cpu) {
            super::segment::go_on_at(cpu, next);
        }
        return 0;
    }
    let mut header = [0; 16];
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping((b + HEADER as u64) as *const u8, header.as_mut_ptr(), 16) };
    let mut area = [0; SIZE];
    for part in save(cpu, what, asked, quad(&header, 0), wide, &mut area) {
        let to = (b + part.start as u64) as *mut u8;
        // SAFETY: as above; `part` is inside `area`.
        unsafe { std::ptr::copy_nonoverlapping(area[part.clone()].as_ptr(), to, part.len()) };
    }
    0
}

/// ECX 0 is XCR0, 1 the components in use (13.3).
fn read_xcr(cpu: &mut CpuState) {
    let v = match cpu.gpr[gpr::RCX] as u32 {
        0 => XCR0,
        1 => XCR0 & in_use(cpu),
        _ => return raise(cpu, Trap::GeneralProtection),
    };
    cpu.gpr[gpr::RAX] = v;
    cpu.gpr[gpr::RDX] = 0;
}

/// Fills the parts of `area` that are to be written, and returns them. `header` is XSTATE_BV as it is in memory (13.7, 13.9, 13.10).
fn save(
    cpu: &CpuState,
    what: u64,
    asked: u64,
    header: u64,
    wide: bool,
    area: &mut [u8; SIZE],
) -> Vec<std::ops::Range<usize>> {
    let mut used = in_use(cpu);
    let compacted = what == SAVE_COMPACTED;
    let mxcsr = cpu.mxcsr | fp::flags_of(cpu.guest_fpsr);
    if compacted && mxcsr != fp::MXCSR_DEFAULT {
        used |= SSE_STATE;
    }
    let written = if what == SAVE { asked } else { asked & used };
    let mut image = [0; 512];
    fxsave(cpu, wide, &mut image);
    area[..512].copy_from_slice(&image);
    for (slot, v) in area[AVX_OFFSET..].chunks_exact_mut(16).zip(cpu.uppers()) {
        slot.copy_from_slice(&v.to_le_bytes());
    }
    let state = if compacted { asked & used } else { header & !asked | asked & used };
    area[HEADER..HEADER + 8].copy_from_slice(&state.to_le_bytes());
    area[HEADER + 8..HEADER + 16].copy_from_slice(&(asked | COMPACTED).to_le_bytes());
    let mut parts: Vec<_> =
        PARTS.into_iter().filter(|(component, _)| written & component != 0).map(|(_, part)| part).collect();
    let with_mxcsr = if compacted { written & SSE_STATE } else { asked & (SSE_STATE | AVX_STATE) };
    if with_mxcsr != 0 {
        parts.push(MXCSR);
    }
    if written & AVX_STATE != 0 {
        parts.push(AVX_OFFSET..SIZE);
    }
    parts.push(HEADER..HEADER + if compacted { 16 } else { 8 });
    parts
}

/// Loads what is asked from `area`; `None` is #GP, and nothing has changed (13.8).
fn restore(cpu: &mut CpuState, asked: u64, area: &[u8; SIZE], wide: bool) -> Option<()> {
    let (state, format) = (quad(area, HEADER), quad(area, HEADER + 8));
    let compacted = format & COMPACTED != 0;
    let rest = if compacted { &area[HEADER + 16..HEADER + 64] } else { &area[HEADER + 8..HEADER + 24] };
    let bad = if compacted { format & !COMPACTED & !XCR0 | state & !format } else { state & !XCR0 };
    if bad != 0 || rest.iter().any(|&b| b != 0) {
        return None;
    }
    let mut image = [0; 512];
    fxsave(cpu, wide, &mut image);
    let mut initial = [0; 512];
    fxsave(&CpuState::default(), wide, &mut initial);
    for (component, part) in PARTS.into_iter().filter(|(component, _)| asked & component != 0) {
        let from = if state & component != 0 { &area[part.clone()] } else { &initial[part.clone()] };
        image[part].copy_from_slice(from);
    }
    if compacted {
        if asked & SSE_STATE != 0 {
            let from = if state & SSE_STATE != 0 { &area[MXCSR] } else { &initial[MXCSR] };
            image[MXCSR].copy_from_slice(from);
        }
    } else if asked & (SSE_STATE | AVX_STATE) != 0 {
        image[MXCSR].copy_from_slice(&area[MXCSR]);
    }
    fxrstor(cpu, wide, &image).ok()?;
    if asked & AVX_STATE != 0 {
        let mut uppers = [0; 16];
        if state & AVX_STATE != 0 {
            for (v, b) in uppers.iter_mut().zip(area[AVX_OFFSET..].chunks_exact(16)) {
                *v = u128::from_le_bytes(b.try_into().ok()?);
            }
        }
        cpu.set_uppers(uppers);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> CpuState {
        let mut cpu = CpuState::default();
        for n in 0..16 {
            cpu.xmm[n] = u128::MAX / (n as u128 + 1);
            cpu.set_upper(n, u128::MAX / (n as u128 + 21));
        }
        cpu.x87.in_use = 3;
        cpu.mxcsr = 0x3f80;
        cpu
    }

    fn saved(cpu: &CpuState, what: u64, asked: u64) -> [u8; SIZE] {
        let (mut area, mut memory) = ([0; SIZE], [0; SIZE]);
        for part in save(cpu, what, asked, 0, true, &mut area) {
            memory[part.clone()].copy_from_slice(&area[part]);
        }
        memory
    }

    #[test]
    fn there_and_back() {
        for what in [SAVE, SAVE_COMPACTED, SAVE_OPTIMISED] {
            let cpu = filled();
            let area = saved(&cpu, what, XCR0);
            let mut other = CpuState::default();
            restore(&mut other, XCR0, &area, true).expect("well formed");
            assert_eq!((other.xmm, other.uppers(), other.mxcsr), (cpu.xmm, cpu.uppers(), cpu.mxcsr));
            assert_eq!(other.x87.in_use, 3);
            // What is not asked for stays; what was in its initial state is that again.
            let area = saved(&CpuState::default(), what, XCR0);
            let mut part = filled();
            restore(&mut part, AVX_STATE, &area, true).expect("well formed");
            assert_eq!((part.xmm, part.uppers()), (cpu.xmm, [0; 16]));
        }
    }

    #[test]
    fn bad_headers() {
        let good = saved(&filled(), SAVE, XCR0);
        for (at, v) in [(HEADER, 8), (HEADER + 8, 1), (HEADER + 16, 1)] {
            let mut area = good;
            area[at] |= v;
            assert!(restore(&mut filled(), XCR0, &area, true).is_none());
        }
    }
}
