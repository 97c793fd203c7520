//! The unit's state as memory shows it: the environment of FSTENV/FLDENV, the full state of FSAVE/FRSTOR (SDM vol. 1, 8.1.10), the legacy region of
//! FXSAVE/FXRSTOR (SDM vol. 1, 10.5.1), and the registers these and FLDCW, FNINIT, FNCLEX write. Byte arrays in and out; must not know guest memory.

use crate::enter::fp;
use crate::helpers::f80::{Class, F80, sw};
use crate::state::{CpuState, X87, X87Reg};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, transmute};

/// MXCSR bits that may be set: all but the reserved upper half.
pub const MXCSR_MASK: u32 = 0xffff;
/// Bytes of an FXSAVE image that the instruction writes; the rest is software's.
pub const FX_WRITTEN: usize = 416;

/// A control word as the unit keeps it: reserved bits read as zero, bit 6 as one.
pub const fn control_word(v: u16) -> u16 {
    v & 0x1f3f | 0x40
}

impl X87 {
    /// The status word with TOP.
    pub fn status_word(&self) -> u16 {
        self.status & !0x3800 | u16::from(self.top & 7) << 11
    }

    fn set_status_word(&mut self, v: u16) {
        self.status = v & !0x3800;
        self.top = (v >> 11) as u8 & 7;
        self.summarise();
    }

    /// FLDCW.
    pub fn set_control(&mut self, v: u16) {
        self.control = control_word(v);
        self.summarise();
    }

    /// FNINIT: registers keep their contents, empty.
    pub fn initialise(&mut self) {
        *self = X87 { regs: self.regs, ..X87::default() };
    }

    /// FNCLEX.
    pub fn clear_exceptions(&mut self) {
        self.status &= !(sw::EXCEPTIONS | sw::SF | sw::ES | sw::B);
    }

    /// Two bits for each physical register: valid, zero, special, empty (SDM vol. 1, 8.1.7).
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, n| {
            let tag = match F80::from(self.regs[n]).class() {
                _ if self.in_use >> n & 1 == 0 => 3,
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            };
            word | tag << (2 * n)
        })
    }

    fn set_tag_word(&mut self, v: u16) {
        self.in_use = (0..8).fold(0, |m, n| m | u8::from(v >> (2 * n) & 3 != 3) << n);
    }

    /// FNSTENV: fills 28 bytes, or 14 with a 16-bit operand size, and returns how many (SDM vol. 1, figures 8-9 and 8-11). Code and data segments
    /// are 0, as in 64-bit mode.
    pub fn environment(&self, short: bool, out: &mut [u8; 108]) -> usize {
        let words = [self.control, self.status_word(), self.tag_word()];
        let (ip, dp, op) = (self.last_ip, self.last_dp, self.opcode & 0x7ff);
        if short {
            let all = [words[0], words[1], words[2], ip as u16, 0, dp as u16, 0];
            for (to, w) in out.chunks_exact_mut(2).zip(all) {
                to.copy_from_slice(&w.to_le_bytes());
            }
            return 14;
        }
        let head = words.map(|w| 0xffff_0000 | u32::from(w));
        let all = [head[0], head[1], head[2], ip as u32, u32::from(op) << 16, dp as u32, 0xffff_0000];
        for (to, w) in out.chunks_exact_mut(4).zip(all) {
            to.copy_from_slice(&w.to_le_bytes());
        }
        28
    }

    /// FLDENV.
    pub fn set_environment(&mut self, image: &[u8]) {
        let short = image.len() < 28;
        let step = if short { 2 } else { 4 };
        let word = |n: usize| u16_at(image, n * step);
        let long = |n: usize| u64::from(word(n)) | if short { 0 } else { u64::from(u16_at(image, n * step + 2)) << 16 };
        self.control = control_word(word(0));
        self.set_status_word(word(1));
        self.set_tag_word(word(2));
        self.last_ip = long(3);
        self.last_dp = long(5);
        self.opcode = if short { 0 } else { u16_at(image, 18) & 0x7ff };
    }

    /// FNSAVE's image: the environment, then ST(0) to ST(7), ten bytes each. Returns its length.
    pub fn save(&self, short: bool, out: &mut [u8; 108]) -> usize {
        let head = self.environment(short, out);
        for (i, to) in (0..8).zip(out[head..].chunks_exact_mut(10)) {
            let x = self.st(i);
            to[..8].copy_from_slice(&x.mantissa.to_le_bytes());
            to[8..].copy_from_slice(&x.sign_exp.to_le_bytes());
        }
        head + 80
    }

    /// FRSTOR.
    pub fn restore(&mut self, image: &[u8]) {
        let head = image.len().saturating_sub(80);
        self.set_environment(&image[..head]);
        for i in 0..8 {
            let at = head + 10 * i;
            self.set_raw(i, u64_at(image, at), u16_at(image, at + 8));
        }
    }

    fn set_raw(&mut self, i: usize, mantissa: u64, sign_exp: u16) {
        let p = (usize::from(self.top) + i) & 7;
        self.regs[p] = X87Reg { mantissa, sign_exp, ..X87Reg::default() };
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |v, n| v | u64::from(b[at + n]) << (8 * n))
}

/// The part of an FXSAVE64 image that the instruction writes (SDM vol. 1, table 10-2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct FxImage {
    control: u16,
    status: u16,
    tags: u8,
    zero: u8,
    opcode: u16,
    ip: u64,
    dp: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    /// ST(0) to ST(7): mantissa; sign and exponent.
    st: [[u64; 2]; 8],
    xmm: [u128; 16],
}
const _: () = assert!(size_of::<FxImage>() == FX_WRITTEN);

impl FxImage {
    /// Makes it `cpu`'s.
    pub fn fill(&mut self, cpu: &CpuState) {
        let x = &cpu.x87;
        (self.control, self.status, self.tags, self.zero, self.opcode) =
            (x.control, x.status_word(), x.in_use, 0, x.opcode);
        (self.ip, self.dp) = (x.last_ip, x.last_dp);
        (self.mxcsr, self.mxcsr_mask) = (cpu.mxcsr | fp::flags_of(cpu.guest_fpsr), MXCSR_MASK);
        // Nearly always the stack is empty and starts at register 0.
        if x.top == 0 {
            for (to, r) in self.st.iter_mut().zip(&x.regs) {
                *to = [r.mantissa, u64::from(r.sign_exp)];
            }
        } else {
            for (i, to) in (0..8).zip(&mut self.st) {
                let r = x.st(i);
                *to = [r.mantissa, u64::from(r.sign_exp)];
            }
        }
        self.xmm = cpu.xmm;
    }

    /// # Errors
    /// [`BadMxcsr`].
    pub fn load(&self, cpu: &mut CpuState) -> Result<(), BadMxcsr> {
        if self.mxcsr & !MXCSR_MASK != 0 {
            return Err(BadMxcsr);
        }
        fp::change_mxcsr(cpu, self.mxcsr);
        cpu.guest_fpsr &= !fp::FPSR_STICKY;
        let x = &mut cpu.x87;
        x.control = control_word(self.control);
        x.set_status_word(self.status);
        x.in_use = self.tags;
        x.opcode = self.opcode & 0x7ff;
        (x.last_ip, x.last_dp) = (self.ip, self.dp);
        if x.top == 0 {
            for (r, [mantissa, sign_exp]) in x.regs.iter_mut().zip(&self.st) {
                *r = transmute!([*mantissa, *sign_exp & 0xffff]);
            }
        } else {
            for (i, [mantissa, sign_exp]) in self.st.iter().enumerate() {
                x.set_raw(i, *mantissa, *sign_exp as u16);
            }
        }
        cpu.xmm = self.xmm;
        Ok(())
    }
}

/// FXSAVE, FXSAVE64 (`wide`): fills the first [`FX_WRITTEN`] bytes.
pub fn fxsave(cpu: &CpuState, wide: bool, out: &mut [u8; 512]) {
    let mut image = FxImage::new_zeroed();
    image.fill(cpu);
    if !wide {
        (image.ip, image.dp) = (image.ip & 0xffff_ffff, image.dp & 0xffff_ffff);
    }
    out[..FX_WRITTEN].copy_from_slice(image.as_bytes());
}

/// MXCSR in the image has reserved bits set: #GP, nothing loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMxcsr;

/// FXRSTOR, FXRSTOR64 (`wide`).
///
/// # Errors
/// [`BadMxcsr`].
pub fn fxrstor(cpu: &mut CpuState, wide: bool, image: &[u8; 512]) -> Result<(), BadMxcsr> {
    let mut image = FxImage::read_from_bytes(&image[..FX_WRITTEN]).map_err(|_| BadMxcsr)?;
    if !wide {
        (image.ip, image.dp) = (image.ip & 0xffff_ffff, image.dp & 0xffff_ffff);
    }
    image.load(cpu)
}
