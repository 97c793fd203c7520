//! Advanced SIMD integer, permute, copy and shift instructions (Arm ARM, C4.1.96 and C7.2), one method each, encoded by class:
//! an instruction is its class's base word, the arrangement and the registers.

use super::{Masm, V, X};
use dynasmrt::{DynasmApi, dynasm};

/// An arrangement: log2 of the lane size in bytes (bits 0-1), and whether all 128 bits count (bit 2) or the low 64 (the high half of the
/// result is then zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ar(u8);

impl Ar {
    pub const B8: Ar = Ar(0);
    pub const H4: Ar = Ar(1);
    pub const S2: Ar = Ar(2);
    pub const B16: Ar = Ar(4);
    pub const H8: Ar = Ar(5);
    pub const S4: Ar = Ar(6);
    pub const D2: Ar = Ar(7);

    /// The whole-register arrangement of lanes of 2^`size` bytes.
    pub const fn full(size: u8) -> Ar {
        Ar(4 | size)
    }

    /// Log2 of the lane size in bytes.
    pub const fn size(self) -> u32 {
        (self.0 & 3) as u32
    }

    /// Lane size in bits.
    pub const fn lane_bits(self) -> u32 {
        8 << self.size()
    }

    pub(super) const fn q(self) -> u32 {
        ((self.0 >> 2) as u32) << 30
    }

    pub(super) const fn field(self) -> u32 {
        self.q() | self.size() << 22
    }
}

pub(super) fn dnm(d: V, n: V, m: V) -> u32 {
    u32::from(m.0) << 16 | u32::from(n.0) << 5 | u32::from(d.0)
}

/// "Three same" (C4.1.96): `name(ar, d, n, m)`; U and opcode.
macro_rules! three_same {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V, m: V) {
            self.word(0x0e20_0400 | $u << 29 | $op << 11 | ar.field() | dnm(d, n, m));
        }
    )*};
}

/// Bitwise operations, all 128 bits: `name(d, n, m)`; U and size.
macro_rules! bitwise {
    ($($(#[$doc:meta])* $name:ident $u:literal $size:literal;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, d: V, n: V, m: V) {
            self.word(0x4e20_1c00 | $u << 29 | $size << 22 | dnm(d, n, m));
        }
    )*};
}

/// "Three different": `name(ar, d, n, m)` on the low halves for a 64-bit arrangement of the sources, on the high halves (the `2` forms) for a
/// 128-bit one; U and opcode.
macro_rules! three_diff {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V, m: V) {
            self.word(0x0e20_0000 | $u << 29 | $op << 12 | ar.field() | dnm(d, n, m));
        }
    )*};
}

/// "Two-register miscellaneous": `name(ar, d, n)`; U and opcode.
macro_rules! two_misc {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V) {
            self.word(0x0e20_0800 | $u << 29 | $op << 12 | ar.field() | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// "Across lanes": `name(ar, d, n)`; U and opcode.
macro_rules! across {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V) {
            self.word(0x0e30_0800 | $u << 29 | $op << 12 | ar.field() | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// "Permute": `name(ar, d, n, m)`; opcode.
macro_rules! permute {
    ($($name:ident $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V, m: V) {
            self.word(0x0e00_0800 | $op << 12 | ar.field() | dnm(d, n, m));
        }
    )*};
}

/// Right shifts by a constant, 1 to the lane size: `name(ar, d, n, by)`; U and opcode. For narrowing ones `ar` is the destination's.
macro_rules! shift_right {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V, by: u32) {
            let imm = 2 * ar.lane_bits() - by;
            self.word(0x0f00_0400 | $u << 29 | $op << 11 | ar.q() | imm << 16 | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// Left shifts by a constant, 0 to the lane size - 1: `name(ar, d, n, by)`; U and opcode. For widening ones `ar` is the source's.
macro_rules! shift_left {
    ($($name:ident $u:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, ar: Ar, d: V, n: V, by: u32) {
            let imm = ar.lane_bits() + by;
            self.word(0x0f00_0400 | $u << 29 | $op << 11 | ar.q() | imm << 16 | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// The imm5 field naming lane `at` of lanes of 2^`size` bytes.
fn lane(size: u32, at: u32) -> u32 {
    (at << 1 | 1) << size << 16
}

impl Masm {
    three_same! {
        add_v 0 0b10000; sub_v 1 0b10000; mul_v 0 0b10011;
        sqadd 0 0b00001; uqadd 1 0b00001; sqsub 0 0b00101; uqsub 1 0b00101;
        cmgt 0 0b00110; cmhi 1 0b00110; cmge 0 0b00111; cmhs 1 0b00111; cmeq 1 0b10001; cmtst 0 0b10001;
        sshl 0 0b01000; ushl 1 0b01000;
        smax 0 0b01100; umax 1 0b01100; smin 0 0b01101; umin 1 0b01101; pmul 1 0b10011;
        sabd 0 0b01110; uabd 1 0b01110; urhadd 1 0b00010;
        addp_v 0 0b10111; umaxp 1 0b10100; uminp 1 0b10101;
    }
    bitwise! {
        and_v 0 0; bic_v 0 1; orr_v 0 2; orn_v 0 3; eor_v 1 0;
        /// Where `d` is 1: `n`; where 0: `m`.
        bsl 1 1;
        /// Where `m` is 1: `n`; else `d` stays.
        bit 1 2;
        /// Where `m` is 0: `n`; else `d` stays.
        bif 1 3;
    }
    three_diff! { smull_v 0 0b1100; umull_v 1 0b1100; uabdl 1 0b0111; uabal 1 0b0101; sqdmull 0 0b1101; pmull_b 0 0b1110; }
    two_misc! {
        rev64 0 0b00000; rev32 1 0b00000; rev16_v 0 0b00001;
        saddlp 0 0b00010; uaddlp 1 0b00010; cnt 0 0b00101; not_v 1 0b00101;
        abs_v 0 0b01011; neg_v 1 0b01011;
        cmgt_zero 0 0b01000; cmge_zero 1 0b01000; cmeq_zero 0 0b01001; cmlt_zero 0 0b01010;
        xtn 0 0b10010; sqxtn 0 0b10100; uqxtn 1 0b10100; sqxtun 1 0b10010;
    }
    across! { addv 0 0b11011; umaxv 1 0b01010; uminv 1 0b11010; }
    permute! { uzp1 0b001; trn1 0b010; zip1 0b011; uzp2 0b101; trn2 0b110; zip2 0b111; }
    shift_right! { sshr 0 0b00000; ushr 1 0b00000; usra 1 0b00010; sri 1 0b01000; shrn 0 0b10000; rshrn 0 0b10001; }
    shift_left! { shl_v 0 0b01010; sli 1 0b01010; sshll 0 0b10100; ushll 1 0b10100; }

    /// AES single round, decryption (`true`) or encryption: adds the key `n`, substitutes bytes, shifts rows, in `d` (FEAT_AES).
    pub fn aes_round(&mut self, decrypt: bool, d: V, n: V) {
        let op = if decrypt { 0x4e28_5800 } else { 0x4e28_4800 };
        self.word(op | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// AES mix columns, inverse (`true`) or not (FEAT_AES).
    pub fn aes_mix(&mut self, inverse: bool, d: V, n: V) {
        let op = if inverse { 0x4e28_7800 } else { 0x4e28_6800 };
        self.word(op | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Carry-less product of the low, or (`high`) the high, 64 bits (FEAT_PMULL).
    pub fn pmull_d(&mut self, high: bool, d: V, n: V, m: V) {
        self.word(0x0ee0_e000 | u32::from(high) << 30 | dnm(d, n, m));
    }

    /// Copies a whole vector register.
    pub fn mov_v(&mut self, d: V, n: V) {
        self.orr_v(d, n, n);
    }

    /// Copies the low 64 bits, upper half zero. Unlike FMOV it is no floating-point instruction, so FPCR cannot change it.
    pub fn mov_low(&mut self, d: V, n: V) {
        self.word(0x0ea0_1c00 | dnm(d, n, n));
    }

    /// Bytes `by`.. of `n` followed by `m` (`m` is the high part).
    pub fn ext(&mut self, d: V, n: V, m: V, by: u32) {
        self.word(0x6e00_0000 | by << 11 | dnm(d, n, m));
    }

    /// EXT on 64-bit registers, upper half zero.
    pub fn ext8(&mut self, d: V, n: V, m: V, by: u32) {
        self.word(0x2e00_0000 | by << 11 | dnm(d, n, m));
    }

    /// Table look-up of bytes in `n`; indices past 15 give zero.
    pub fn tbl(&mut self, d: V, n: V, m: V) {
        self.word(0x4e00_0000 | dnm(d, n, m));
    }

    /// Table look-up of bytes in `n` and the register after it.
    pub fn tbl2(&mut self, d: V, n: V, m: V) {
        self.word(0x4e00_2000 | dnm(d, n, m));
    }

    /// All lanes = lane `at` of `n`.
    pub fn dup(&mut self, ar: Ar, d: V, n: V, at: u32) {
        self.word(0x0e00_0400 | ar.q() | lane(ar.size(), at) | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// All lanes = the low bits of a general register.
    pub fn dup_x(&mut self, ar: Ar, d: V, n: X) {
        self.word(0x0e00_0c00 | ar.q() | lane(ar.size(), 0) | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Lane `at` of `n` to lane 0 of `d`, rest zero.
    pub fn mov_from_lane(&mut self, size: u32, d: V, n: V, at: u32) {
        self.word(0x5e00_0400 | lane(size, at) | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Lane `to` of `d` = lane `from` of `n`; other lanes stay. `size`: log2 of the lane in bytes.
    pub fn ins(&mut self, size: u32, d: V, to: u32, n: V, from: u32) {
        self.word(0x6e00_0400 | lane(size, to) | from << size << 11 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Lane `to` of `d` = the low bits of a general register.
    pub fn ins_x(&mut self, size: u32, d: V, to: u32, n: X) {
        self.word(0x4e00_1c00 | lane(size, to) | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Lane `at` of `n`, zero-extended.
    pub fn umov(&mut self, size: u32, d: X, n: V, at: u32) {
        let q = u32::from(size == 3) << 30;
        self.word(0x0e00_3c00 | q | lane(size, at) | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// All bytes = `v`.
    pub fn movi_bytes(&mut self, d: V, v: u8) {
        self.modified_imm(0, 0b1110, v, d);
    }

    /// All bits zero.
    pub fn zero_v(&mut self, d: V) {
        self.movi_bytes(d, 0);
    }

    /// All 32-bit lanes = `v` << 8 * `byte`.
    pub fn movi_s(&mut self, d: V, v: u8, byte: u32) {
        self.modified_imm(0, byte << 1, v, d);
    }

    /// All 16-bit lanes = `v` << 8 * `byte`.
    pub fn movi_h(&mut self, d: V, v: u8, byte: u32) {
        self.modified_imm(0, 0b1000 | byte << 1, v, d);
    }

    /// Each bit of `v` makes one byte of every 64-bit lane all ones or all zeros.
    pub fn movi_d(&mut self, d: V, v: u8) {
        self.modified_imm(1, 0b1110, v, d);
    }

    /// ORR of all 32-bit lanes with `v` << 8 * `byte`.
    pub fn orr_imm_s(&mut self, d: V, v: u8, byte: u32) {
        self.modified_imm(0, byte << 1 | 1, v, d);
    }

    pub(super) fn modified_imm(&mut self, op: u32, cmode: u32, v: u8, d: V) {
        let v = u32::from(v);
        self.word(0x4f00_0400 | op << 29 | (v >> 5) << 16 | cmode << 12 | (v & 31) << 5 | u32::from(d.0));
    }

    /// 64 bits of a general register to the low half, upper half zero.
    pub fn fmov_from_x(&mut self, d: V, n: X) {
        dynasm!(self.a; .arch aarch64; fmov D(d.0), X(n.0))
    }

    /// 32 bits of a general register to lane 0, rest zero.
    pub fn fmov_from_w(&mut self, d: V, n: X) {
        dynasm!(self.a; .arch aarch64; fmov S(d.0), W(n.0))
    }

    /// The low 64 bits.
    pub fn fmov_to_x(&mut self, d: X, n: V) {
        dynasm!(self.a; .arch aarch64; fmov X(d.0), D(n.0))
    }

    /// The low 32 bits, zero-extended.
    pub fn fmov_to_w(&mut self, d: X, n: V) {
        dynasm!(self.a; .arch aarch64; fmov W(d.0), S(n.0))
    }
}
