//! The frame an x86_64 kernel puts on the stack for a signal handler, and its way back (arch/x86/kernel/signal_64.c,
//! fpu/signal.c): `rt_sigframe` with ucontext and siginfo, above it the FXSAVE image with its XSAVE extension.
//!
//! Layout and copying only: which signal is delivered and what the mask becomes is the parent module's business.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::enter::fp;
use crate::helpers::x87::image::FxImage;
use crate::memory::access::{self, BadAddress};
use crate::state::{CpuState, Eflags, X87, gpr};

/// Bytes below RSP that belong to the interrupted function (System V ABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// struct stack_t of x86_64 and AArch64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct StackT {
    pub sp: u64,
    pub flags: i32,
    pub pad: u32,
    pub size: u64,
}

/// struct sigcontext of x86_64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SigContext {
    /// R8 to R15.
    high: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    flags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct UContext {
    flags: u64,
    link: u64,
    stack: StackT,
    context: SigContext,
    mask: u64,
}

/// siginfo_t: the same 128 bytes on x86_64 and AArch64 (both are asm-generic's, 64-bit).
pub type SigInfo = [u64; 16];

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Frame {
    /// Return address of the handler: SA_RESTORER's.
    pretcode: u64,
    uc: UContext,
    info: SigInfo,
}
const _: () = {
    assert!(size_of::<SigContext>() == 256);
    assert!(size_of::<UContext>() == 304);
    assert!(size_of::<Frame>() == 440);
};

/// What Linux puts into the last 48 bytes of the FXSAVE image, which the processor leaves alone (struct _fpx_sw_bytes).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Software {
    magic1: u32,
    /// Of everything, the second magic number included.
    extended_size: u32,
    xfeatures: u64,
    xstate_size: u32,
    unused: [u32; 7],
}
const _: () = assert!(size_of::<Software>() == 48);

const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
const XFEATURE_X87_SSE: u64 = 3;
const XFEATURE_YMM: u64 = 4;
/// Where YMM_Hi128 lies in the standard format, and how long it is (SDM vol. 1, 13.5.3: CPUID leaf 0DH says so).
const YMM_OFFSET: usize = 576;
const YMM_SIZE: usize = 256;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

/// Selectors of 64-bit user code and data on Linux.
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;

/// Flags a program may set by returning from a signal (arch/x86: FIX_EFLAGS).
const RESTORED: Eflags =
    Eflags::from_bits_truncate(1 << 18 | 1 << 16 | 1 << 11 | 1 << 10 | 1 << 8 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | 1);

/// Which register state a frame carries, by what CPUID tells the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// OSXSAVE: the frame has the XSAVE extension, with these components.
    xsave: bool,
    xfeatures: u64,
    /// Size of the XSAVE area.
    state_size: usize,
    /// Size of everything above the frame proper.
    math_size: usize,
}

impl Features {
    pub const FXSAVE: Features = Features { xsave: false, xfeatures: 0, state_size: 512, math_size: 512 };
    pub const XSAVE: Features = Features::extended(XFEATURE_X87_SSE, YMM_OFFSET);
    pub const AVX: Features = Features::extended(XFEATURE_X87_SSE | XFEATURE_YMM, YMM_OFFSET + YMM_SIZE);

    const fn extended(xfeatures: u64, state_size: usize) -> Features {
        Features { xsave: true, xfeatures, state_size, math_size: state_size + 4 }
    }

    /// Those of the installed engine.
    pub fn of_engine() -> &'static Features {
        static FEATURES: OnceLock<&Features> = OnceLock::new();
        FEATURES.get_or_init(|| {
            // OSXSAVE, AVX.
            match crate::engine::installed().map_or(0, |e| e.cpuid(1, 0)[2]) >> 27 & 3 {
                3 => &Features::AVX,
                1 => &Features::XSAVE,
                _ => &Features::FXSAVE,
            }
        })
    }
}

/// AT_MINSIGSTKSZ: the most a frame can take, computed as the kernel does (init_sigframe_size): the frame, the padding of both
/// alignments, the register state; a multiple of 16.
pub fn min_stack(f: &Features) -> u64 {
    let frame = size_of::<Frame>() as u64;
    (frame + 15 + 8 + 63 + f.math_size as u64).next_multiple_of(16)
}

/// What a handler is called with.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub signal: i32,
    pub handler: u64,
    pub restorer: u64,
    pub info: &'a SigInfo,
    /// The alternate stack as ucontext shows it.
    pub altstack: StackT,
    /// Top of the alternate stack, when the frame goes there.
    pub switch_to: Option<u64>,
    /// The signal mask that returning from the handler restores.
    pub mask: u64,
    /// The last exception's vector, error code and address.
    pub trapno: u64,
    pub err: u64,
    pub cr2: u64,
}

/// Where a frame for `call` would lie: itself, and the register state above it.
pub fn place(cpu: &CpuState, call: &Call, f: &Features) -> (u64, u64) {
    let sp = match call.switch_to {
        Some(top) => top,
        None => cpu.gpr[gpr::RSP].wrapping_sub(RED_ZONE),
    };
    let fpstate = sp.wrapping_sub(f.math_size as u64) & !63;
    let frame = (fpstate.wrapping_sub(size_of::<Frame>() as u64) & !15).wrapping_sub(8);
    (frame, fpstate)
}

/// Writes the frame at its [`place`] and makes `cpu` enter the handler. On an error nothing of `cpu` has changed. `math` is the thread's.
pub fn push(
    cpu: &mut CpuState,
    math: &mut Math,
    call: &Call,
    f: &Features,
    (at, fpstate): (u64, u64),
) -> Result<(), BadAddress> {
    math.fill(cpu, f);
    access::write(fpstate, &math.as_bytes()[..f.math_size])?;
    let g = &cpu.gpr;
    let frame = Frame {
        pretcode: call.restorer,
        uc: UContext {
            flags: UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | if f.xsave { UC_FP_XSTATE } else { 0 },
            link: 0,
            stack: call.altstack,
            context: SigContext {
                high: std::array::from_fn(|n| g[gpr::R8 + n]),
                rdi: g[gpr::RDI],
                rsi: g[gpr::RSI],
                rbp: g[gpr::RBP],
                rbx: g[gpr::RBX],
                rdx: g[gpr::RDX],
                rax: g[gpr::RAX],
                rcx: g[gpr::RCX],
                rsp: g[gpr::RSP],
                rip: cpu.rip,
                flags: u64::from(cpu.eflags().bits()),
                cs: USER_CS,
                gs: 0,
                fs: 0,
                ss: USER_SS,
                err: call.err,
                trapno: call.trapno,
                oldmask: call.mask,
                cr2: call.cr2,
                fpstate,
                reserved: [0; 8],
            },
            mask: call.mask,
        },
        info: *call.info,
    };
    access::put(at, &frame)?;
    cpu.gpr[gpr::RSP] = at;
    cpu.gpr[gpr::RDI] = call.signal as u64;
    cpu.gpr[gpr::RSI] = at + std::mem::offset_of!(Frame, info) as u64;
    cpu.gpr[gpr::RDX] = at + std::mem::offset_of!(Frame, uc) as u64;
    cpu.gpr[gpr::RAX] = 0;
    cpu.rip = call.handler;
    // As the kernel: DF, RF and TF go, the others stay.
    cpu.df = 1;
    cpu.other_flags &= !u64::from((Eflags::RF | Eflags::TF).bits());
    // A handler starts with floating point as a new program has it (fpu__clear_user_states).
    reset_math(cpu);
    Ok(())
}

/// What a frame restores besides registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub mask: u64,
    pub altstack: StackT,
}

/// Undoes [`push`] from the frame whose return address has just been popped (RSP - 8). On an error nothing has changed: the kernel raises SIGSEGV then.
pub fn pop(cpu: &mut CpuState, f: &Features) -> Result<Restored, BadAddress> {
    let at = cpu.gpr[gpr::RSP].wrapping_sub(8);
    let mut frame = MaybeUninit::uninit();
    let frame: &mut Frame = access::get_into(at, &mut frame)?;
    let c = &frame.uc.context;
    if c.fpstate == 0 {
        reset_math(cpu);
    } else {
        load_math(cpu, c.fpstate, f)?;
    }
    let g = &mut cpu.gpr;
    g[gpr::R8..].copy_from_slice(&c.high);
    for (reg, v) in [
        (gpr::RDI, c.rdi),
        (gpr::RSI, c.rsi),
        (gpr::RBP, c.rbp),
        (gpr::RBX, c.rbx),
        (gpr::RDX, c.rdx),
        (gpr::RAX, c.rax),
        (gpr::RCX, c.rcx),
        (gpr::RSP, c.rsp),
    ] {
        g[reg] = v;
    }
    cpu.rip = c.rip;
    // What is not restored is none of those that have a place of their own.
    let kept = Eflags::from_bits_truncate(cpu.other_flags as u32) & !RESTORED;
    cpu.set_eflags(kept | Eflags::from_bits_truncate(c.flags as u32) & RESTORED);
    Ok(Restored { mask: frame.uc.mask, altstack: frame.uc.stack })
}

/// The first 512 bytes of the math state.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Legacy {
    fx: FxImage,
    reserved: [u64; 6],
    software: Software,
}
const _: () = assert!(size_of::<Legacy>() == 512);

/// All of it in the standard format, with room for the second magic number, which follows what there is of it. Kept from one signal to the next, because
/// much of it never changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Math {
    legacy: Legacy,
    /// The XSAVE header: XSTATE_BV, then zeros.
    header: [u64; 8],
    uppers: [u128; 16],
    end: [u32; 4],
}
const _: () = {
    assert!(std::mem::offset_of!(Math, uppers) == YMM_OFFSET);
    assert!(std::mem::offset_of!(Math, end) == YMM_OFFSET + YMM_SIZE);
};

impl Math {
    /// Makes it `cpu`'s. It was zero at first, or has been used for the same features since.
    fn fill(&mut self, cpu: &CpuState, f: &Features) {
        self.legacy.fx.fill(cpu);
        if !f.xsave {
            return;
        }
        if self.legacy.software.magic1 == 0 {
            self.legacy.software = Software {
                magic1: FP_XSTATE_MAGIC1,
                extended_size: f.math_size as u32,
                xfeatures: f.xfeatures,
                xstate_size: f.state_size as u32,
                unused: [0; 7],
            };
            self.as_mut_bytes()[f.state_size..f.math_size].copy_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
        }
        // XSAVE leaves out the bit of a component in its initial state (SDM vol. 1, 13.7); the kernel then claims x87 and SSE in any case
        // (save_xstate_epilog).
        let before = std::mem::replace(&mut self.header[0], f.xfeatures);
        if f.xfeatures & XFEATURE_YMM != 0 {
            if cpu.upper_live != 0 {
                self.uppers = cpu.uppers();
            } else {
                self.header[0] &= !XFEATURE_YMM;
                if before & XFEATURE_YMM != 0 {
                    self.uppers = [0; 16];
                }
            }
        }
    }
}

/// Loads the state at `at`, or changes nothing. As the kernel: the extension counts only with both magic numbers in place, and a component
/// that XSTATE_BV leaves out is reset.
fn load_math(cpu: &mut CpuState, at: u64, f: &Features) -> Result<(), BadAddress> {
    let mut legacy = MaybeUninit::uninit();
    let Legacy { fx, software, .. } = access::get_into(at, &mut legacy)?;
    let sizes = 576..=f.state_size as u32;
    let extended = f.xsave
        && software.magic1 == FP_XSTATE_MAGIC1
        && sizes.contains(&software.xstate_size)
        && software.extended_size >= software.xstate_size;
    let mut present = XFEATURE_X87_SSE;
    let mut ymm = None;
    if extended && access::get::<u32>(at.wrapping_add(u64::from(software.xstate_size)))? == FP_XSTATE_MAGIC2 {
        present = access::get::<u64>(at.wrapping_add(512))? & software.xfeatures & f.xfeatures;
        if present & XFEATURE_YMM != 0 {
            ymm = Some(access::get(at.wrapping_add(YMM_OFFSET as u64))?);
        }
    }
    fx.load(cpu).map_err(|_| BadAddress(at))?;
    if present & 1 == 0 {
        cpu.x87 = X87::default();
    }
    if present & 2 == 0 {
        cpu.xmm = [0; 16];
    }
    match ymm {
        Some(y) => cpu.set_uppers(y),
        None => cpu.upper_live = 0,
    }
    Ok(())
}

impl Default for Math {
    fn default() -> Math {
        Math::new_zeroed()
    }
}

fn reset_math(cpu: &mut CpuState) {
    cpu.x87 = X87::default();
    cpu.xmm = [0; 16];
    cpu.upper_live = 0;
    fp::change_mxcsr(cpu, fp::MXCSR_DEFAULT);
    cpu.guest_fpsr &= !fp::FPSR_STICKY;
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
