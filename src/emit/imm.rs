//! Which constants fit where (Arm ARM, C3.4), and the shortest way to make one.

use super::{Masm, Sz, X, ZR};
use dynasmrt::aarch64::{encode_logical_immediate_32bit, encode_logical_immediate_64bit};

/// Fits the 12-bit, optionally shifted immediate of ADD/SUB.
pub fn fits_add(v: u64) -> bool {
    v < 0x1000 || (v & 0xfff == 0 && v < 0x100_0000)
}

/// Fits the bitmask immediate of AND/ORR/EOR/TST.
pub fn fits_logical(sz: Sz, v: u64) -> bool {
    match sz {
        Sz::W => encode_logical_immediate_32bit(v as u32).is_some(),
        Sz::X => encode_logical_immediate_64bit(v).is_some(),
    }
}

impl Masm {
    /// Sets `d` to `v`: one word: a single move or bitmask, else a load from the pool.
    pub fn mov_imm(&mut self, d: X, v: u64) {
        let chunk = |n: u32| (v >> (16 * n)) as u16;
        // The lowest 16 bits, at a multiple of 16, that are not all 0 and not all 1.
        let (one, other) = (v.trailing_zeros() / 16 & 3, v.trailing_ones() / 16 & 3);
        let low32 = v <= 0xffff_ffff;
        if v >> (16 * one) <= 0xffff {
            self.movz(Sz::X, d, chunk(one), one);
        } else if !v >> (16 * other) <= 0xffff {
            self.movn(Sz::X, d, !chunk(other), other);
        } else if low32 && (chunk(0) == 0xffff || chunk(1) == 0xffff) {
            let n = u32::from(chunk(0) == 0xffff);
            self.movn(Sz::W, d, !chunk(n), n);
        } else if fits_logical(Sz::X, v) {
            self.orr_imm(Sz::X, d, ZR, v);
        } else if low32 && fits_logical(Sz::W, v) {
            self.orr_imm(Sz::W, d, ZR, v);
        } else {
            self.ldr_literal(d, v);
        }
    }
}
