//! Register and memory contents biased towards the edges where instructions go wrong: sign and width boundaries, powers
//! of two, and for floating point zeros, infinities, NaNs of both kinds, denormals and the limits of conversions.

use super::state::State;
use super::{STACK, WINDOW, WINDOW_SIZE};
use fastrand::Rng;

/// An integer: an edge of some width, a small one, a single bit, a run of bits, or anything.
pub fn integer(rng: &mut Rng) -> u64 {
    const EDGES: &[u64] = &[
        0,
        1,
        2,
        0x7f,
        0x80,
        0x81,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0x8001,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xffff_ffff,
        0x1_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        0x8000_0000_0000_0001,
        0xffff_ffff_ffff_ffff,
        0xffff_ffff_0000_0000,
        0xffff_ffff_8000_0000,
        0xffff_ffff_ffff_ff80,
        0xffff_ffff_ffff_8000,
        0xaaaa_aaaa_aaaa_aaaa,
        0x5555_5555_5555_5555,
    ];
    match rng.u8(..8) {
        0..=2 => EDGES[rng.usize(..EDGES.len())],
        3 => rng.u64(..64),
        4 => 1 << rng.u32(..64),
        5 => (u64::MAX >> rng.u32(..64)).rotate_left(rng.u32(..64)),
        6 => u64::from(rng.u32(..)),
        _ => rng.u64(..),
    }
}

pub fn f32_bits(rng: &mut Rng) -> u32 {
    const EDGES: &[u32] = &[
        0x0000_0000, // 0
        0x3f80_0000, // 1
        0x3f00_0000, // 0.5
        0x3fc0_0000, // 1.5
        0x4020_0000, // 2.5
        0x7f80_0000, // infinity
        0x7fc0_0000, // default NaN, positive
        0x7fc1_2345, // quiet NaN with a payload
        0x7f81_2345, // signalling NaN
        0x0000_0001, // smallest denormal
        0x007f_ffff, // largest denormal
        0x0080_0000, // smallest normal
        0x7f7f_ffff, // largest
        0x4eff_ffff, // just under 2^31
        0x4f00_0000, // 2^31
        0x5f00_0000, // 2^63
        0x4f7f_ffff,
        0x4f80_0000, // 2^32
        0x3eff_ffff, // just under 0.5
        0x4b00_0000, // 2^23
    ];
    let sign = u32::from(rng.bool()) << 31;
    match rng.u8(..8) {
        0..=3 => EDGES[rng.usize(..EDGES.len())] | sign,
        4 | 5 => (rng.i32(-1000..1000) as f32 / 8.0).to_bits(),
        6 => (rng.u32(..) & 0x007f_ffff) | rng.u32(100..155) << 23 | sign,
        _ => rng.u32(..),
    }
}

pub fn f64_bits(rng: &mut Rng) -> u64 {
    const EDGES: &[u64] = &[
        0x0000_0000_0000_0000, // 0
        0x3ff0_0000_0000_0000, // 1
        0x3fe0_0000_0000_0000, // 0.5
        0x3ff8_0000_0000_0000, // 1.5
        0x4004_0000_0000_0000, // 2.5
        0x7ff0_0000_0000_0000, // infinity
        0x7ff8_0000_0000_0000, // default NaN, positive
        0x7ff8_1234_5678_9abc, // quiet NaN with a payload
        0x7ff0_1234_5678_9abc, // signalling NaN
        0x0000_0000_0000_0001, // smallest denormal
        0x000f_ffff_ffff_ffff, // largest denormal
        0x0010_0000_0000_0000, // smallest normal
        0x7fef_ffff_ffff_ffff, // largest
        0x41df_ffff_ffc0_0000, // 2^31 - 1
        0x41df_ffff_ffe0_0000, // 2^31 - 0.5
        0x41e0_0000_0000_0000, // 2^31
        0x43df_ffff_ffff_ffff, // just under 2^63
        0x43e0_0000_0000_0000, // 2^63
        0x47ef_ffff_e000_0000, // largest f32
        0x47ef_ffff_f000_0000, // rounds to f32 infinity
        0x3690_0000_0000_0000, // half the smallest f32 denormal
        0x380f_ffff_ffff_ffff, // just under the smallest f32 normal
        0x4330_0000_0000_0000, // 2^52
    ];
    let sign = u64::from(rng.bool()) << 63;
    match rng.u8(..8) {
        0..=3 => EDGES[rng.usize(..EDGES.len())] | sign,
        4 | 5 => (rng.i32(-1000..1000) as f64 / 8.0).to_bits(),
        6 => (rng.u64(..) & 0x000f_ffff_ffff_ffff) | rng.u64(980..1070) << 52 | sign,
        _ => rng.u64(..),
    }
}

/// A vector: lanes of one kind.
pub fn vector(rng: &mut Rng) -> u128 {
    match rng.u8(..8) {
        0 | 1 => (0..4).fold(0, |v, _| v << 32 | u128::from(f32_bits(rng))),
        2 | 3 => (0..2).fold(0, |v, _| v << 64 | u128::from(f64_bits(rng))),
        4 => (0..2).fold(0, |v, _| v << 64 | u128::from(integer(rng))),
        5 => {
            const BYTES: [u8; 8] = [0, 1, 0x7f, 0x80, 0x81, 0xff, 0xfe, 0x0f];
            (0..16).fold(0, |v, _| v << 8 | u128::from(BYTES[rng.usize(..8)]))
        }
        6 => {
            const WORDS: [u16; 8] = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x00ff, 0x4000];
            (0..8).fold(0, |v, _| v << 16 | u128::from(WORDS[rng.usize(..8)]))
        }
        _ => rng.u128(..),
    }
}

/// An 80-bit x87 register: normals mostly, and every class of SDM vol. 1, table 8-3, the unsupported ones included.
pub fn x87(rng: &mut Rng) -> (u64, u16) {
    const TOP: u64 = 1 << 63;
    let sign = u16::from(rng.bool()) << 15;
    match rng.u8(..16) {
        0 => (0, sign),
        1 => (TOP, sign | 0x3fff),
        2 => (TOP, sign | 0x7fff),
        3 => (TOP | 1 << 62 | rng.u64(..) >> 2, sign | 0x7fff),
        4 => (TOP | 1 | rng.u64(..) >> 2, sign | 0x7fff),
        5 => (rng.u64(1..TOP), sign),         // denormal
        6 => (TOP | rng.u64(..), sign),       // pseudo-denormal
        7 => (rng.u64(..TOP), sign | 0x4000), // unnormal
        8 => (TOP | integer(rng), sign | rng.u16(0x3fff..0x4040)),
        9 => (u64::MAX, sign | 0x7ffe),
        10 => (TOP, sign | 1),
        11 => (TOP | 1 << rng.u32(..63), sign | rng.u16(0x3ff8..0x4008)),
        _ => (TOP | rng.u64(..), sign | rng.u16(0x3fe0..0x4020)),
    }
}

/// What [`denormals`] puts in lanes of 32 bits; of 64 bits, the same with a longer exponent.
const SMALL: [u32; 8] = [
    0x0000_0000, // 0
    0x0000_0001, // smallest denormal
    0x0040_0000, // a denormal that a NaN would be quiet by
    0x007f_ffff, // largest denormal
    0x0080_0000, // smallest normal
    0x3f80_0000, // 1
    0x7fc0_0001, // quiet NaN
    0x7f80_0001, // signalling NaN
];

/// Fills all vector registers and the memory of `s` with lanes at the edges of the denormals, and has it take denormals for zeros.
pub fn denormals(s: &mut State, double: bool, rng: &mut Rng) {
    let mut lane = || {
        let v = SMALL[rng.usize(..SMALL.len())] | u32::from(rng.bool()) << 31;
        if !double {
            return u64::from(v) | u64::from(SMALL[rng.usize(..SMALL.len())]) << 32;
        }
        let (sign, mantissa) = (u64::from(v >> 31), u64::from(v & 0x7f_ffff));
        let exponent = match v >> 23 & 0xff {
            0x7f => 0x3ff,
            0xff => 0x7ff,
            e => u64::from(e),
        };
        // The lowest and the highest bit of the mantissa stay what they are.
        sign << 63 | exponent << 52 | (mantissa & 1) | (mantissa >> 1) << 30
    };
    let mut vector = || u128::from(lane()) | u128::from(lane()) << 64;
    for n in 0..16 {
        s.xmm[n] = vector();
        s.ymm_hi[n] = vector();
    }
    for at in (0..WINDOW_SIZE).step_by(16) {
        let v = vector();
        s.mem[at..at + 16].copy_from_slice(&v.to_le_bytes());
    }
    s.mxcsr = MXCSR_DEFAULT | FLUSH;
}

/// MXCSR at reset, and FTZ with DAZ. Only together: AArch64's FZ is one bit for both (see `xrun_runtime::enter::fp`).
const MXCSR_DEFAULT: u32 = 0x1f80;
const FLUSH: u32 = 1 << 15 | 1 << 6;

/// A full state. Registers hold edge values; none is meant as an address yet, except that the stack pointer is usable.
pub fn state(rng: &mut Rng) -> State {
    let mut s = State::default();
    for n in 0..16 {
        s.gpr[n] = integer(rng);
        s.xmm[n] = vector(rng);
        s.ymm_hi[n] = vector(rng);
    }
    s.gpr[4] = STACK;
    s.flags = 0x202 | u64::from(rng.u16(..)) & 0x8d5;
    if rng.u8(..8) == 0 {
        s.flags |= 1 << 10;
    }
    if rng.u8(..4) == 0 {
        // Rounding mode, and sometimes flush-to-zero and denormals-are-zero. All exceptions masked.
        s.mxcsr = MXCSR_DEFAULT | u32::from(rng.u8(..4)) << 13;
        if rng.u8(..4) == 0 {
            s.mxcsr |= FLUSH;
        }
        if rng.bool() {
            s.mxcsr |= u32::from(rng.u8(..64));
        }
    }
    let top = if rng.bool() { rng.u16(..8) } else { 0 };
    s.fsw = top << 11;
    s.in_use = match rng.u8(..4) {
        0 => 0,
        1 => rng.u8(..),
        _ => 0xff,
    };
    for r in &mut s.fpr {
        *r = x87(rng);
    }
    if rng.u8(..4) == 0 {
        // Precision (not the reserved value 1) and rounding control; all exceptions masked.
        s.fcw = 0x7f | [0, 2, 3, 3][rng.usize(..4)] << 8 | rng.u16(..4) << 10;
    }
    s.gs_base = if rng.bool() { 0 } else { rng.u64(..0x100) & !7 };
    for chunk in s.mem.chunks_exact_mut(16) {
        chunk.copy_from_slice(&vector(rng).to_le_bytes());
    }
    // A few words of memory hold usable addresses, for POP, RET and indirect branches to find.
    for _ in 0..4 {
        let at = rng.usize(..WINDOW_SIZE / 8) * 8;
        let v = WINDOW + rng.u64(..WINDOW_SIZE as u64);
        s.mem[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    s
}
