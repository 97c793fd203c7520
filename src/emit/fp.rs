//! Floating-point instructions, scalar and vector (Arm ARM, C4.1.96, C4.1.97 and C7.2), one method each.

use super::simd::dnm;
use super::{Cond, Masm, Sz, V, X};

/// Precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fp {
    S,
    D,
}

impl Fp {
    /// Log2 of the size in bytes.
    pub const fn size(self) -> u32 {
        match self {
            Fp::S => 2,
            Fp::D => 3,
        }
    }

    const fn bit22(self) -> u32 {
        match self {
            Fp::S => 0,
            Fp::D => 1 << 22,
        }
    }
}

/// Shape of an operation: lane 0 alone, or all lanes of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Scalar,
    Packed,
}

/// Two sources: `name(shape, fp, d, n, m)`; scalar opcode, vector U, vector size bit 23, vector opcode.
macro_rules! fp_binary {
    ($($name:ident $scalar:literal $u:literal $a:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, shape: Shape, fp: Fp, d: V, n: V, m: V) {
            let w = match shape {
                Shape::Scalar => 0x1e20_0800 | $scalar << 12,
                Shape::Packed => 0x4e20_0400 | $u << 29 | $a << 23 | $op << 11,
            };
            self.word(w | fp.bit22() | dnm(d, n, m));
        }
    )*};
}

/// One source: `name(shape, fp, d, n)`; scalar opcode, vector U, vector size bit 23, vector opcode.
macro_rules! fp_unary {
    ($($name:ident $scalar:literal $u:literal $a:literal $op:literal;)*) => {$(
        pub fn $name(&mut self, shape: Shape, fp: Fp, d: V, n: V) {
            let w = match shape {
                Shape::Scalar => 0x1e20_4000 | $scalar << 15,
                Shape::Packed => 0x4e20_0800 | $u << 29 | $a << 23 | $op << 12,
            };
            self.word(w | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// Compares that make a mask: `name(shape, fp, d, n, m)`; U and size bit 23. The scalar form clears the rest of the register.
macro_rules! fp_mask {
    ($($name:ident $u:literal $a:literal;)*) => {$(
        pub fn $name(&mut self, shape: Shape, fp: Fp, d: V, n: V, m: V) {
            let scalar = u32::from(shape == Shape::Scalar) << 28;
            self.word(0x4e20_e400 | scalar | $u << 29 | $a << 23 | fp.bit22() | dnm(d, n, m));
        }
    )*};
}

impl Masm {
    fp_binary! {
        fmul 0b0000 1 0 0b11011; fdiv 0b0001 1 0 0b11111; fadd 0b0010 0 0 0b11010; fsub 0b0011 0 1 0b11010;
        fmax 0b0100 0 0 0b11110; fmin 0b0101 0 1 0b11110;
    }
    fp_unary! {
        fsqrt 3 1 1 0b11111;
        frintn 8 0 0 0b11000; frintp 9 0 1 0b11000; frintm 10 0 0 0b11001; frintz 11 0 1 0b11001;
        frintx 14 1 0 0b11001; frinti 15 1 1 0b11001;
        frint32z 16 0 0 0b11110; frint32x 17 1 0 0b11110; frint64z 18 0 0 0b11111; frint64x 19 1 0 0b11111;
    }
    fp_mask! { fcmeq 0 0; fcmge 1 0; fcmgt 1 1; }

    /// Sums of adjacent pairs of `n`, then of `m`.
    pub fn faddp(&mut self, fp: Fp, d: V, n: V, m: V) {
        self.word(0x6e20_d400 | fp.bit22() | dnm(d, n, m));
    }

    /// The largest of four singles, or a NaN if there is one.
    pub fn fmaxv_s4(&mut self, d: V, n: V) {
        self.word(0x6e30_f800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// The larger of two doubles, or a NaN if there is one.
    pub fn fmaxp_d2(&mut self, d: V, n: V) {
        self.word(0x7e70_f800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// NZCV of the comparison of lane 0; quiet NaNs signal if `signals`.
    pub fn fcmp(&mut self, fp: Fp, n: V, m: V, signals: bool) {
        self.word(
            0x1e20_2000 | fp.bit22() | u32::from(m.0) << 16 | u32::from(n.0) << 5 | if signals { 0x10 } else { 0 },
        );
    }

    /// Lane 0 of `n` if `c`, else of `m`; rest zero.
    pub fn fcsel(&mut self, fp: Fp, d: V, n: V, m: V, c: Cond) {
        self.word(0x1e20_0c00 | fp.bit22() | (c as u32) << 12 | dnm(d, n, m));
    }

    /// If `c`: NZCV of the comparison, else the four bits `nzcv`.
    pub fn fccmp(&mut self, fp: Fp, n: V, m: V, nzcv: u32, c: Cond) {
        self.word(0x1e20_0400 | fp.bit22() | u32::from(m.0) << 16 | (c as u32) << 12 | u32::from(n.0) << 5 | nzcv);
    }

    /// Lane 0 of `n` to the other precision; rest zero.
    pub fn fcvt(&mut self, from: Fp, d: V, n: V) {
        let op = match from {
            Fp::S => 0x1e22_c000,
            Fp::D => 0x1e62_4000,
        };
        self.word(op | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Two singles to two doubles.
    pub fn fcvtl(&mut self, d: V, n: V) {
        self.word(0x0e61_7800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Two doubles to two singles, upper half zero.
    pub fn fcvtn(&mut self, d: V, n: V) {
        self.word(0x0e61_6800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// The upper two of four singles to two doubles.
    pub fn fcvtl2(&mut self, d: V, n: V) {
        self.word(0x4e61_7800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Four half-precision numbers, the lower or the upper ones, to four singles.
    pub fn fcvtl_half(&mut self, high: bool, d: V, n: V) {
        self.word(0x0e21_7800 | u32::from(high) << 30 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Four singles to four half-precision numbers, upper half zero.
    pub fn fcvtn_half(&mut self, d: V, n: V) {
        self.word(0x0e21_6800 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// `d` + `n` * `m`, rounded once, all lanes.
    pub fn fmla(&mut self, fp: Fp, d: V, n: V, m: V) {
        self.word(0x4e20_cc00 | fp.bit22() | dnm(d, n, m));
    }

    /// `d` - `n` * `m`, rounded once, all lanes.
    pub fn fmls(&mut self, fp: Fp, d: V, n: V, m: V) {
        self.word(0x4ea0_cc00 | fp.bit22() | dnm(d, n, m));
    }

    /// `a` + `n` * `m` in lane 0, rounded once; the product negated if `minus_product`, `a` if `minus_a`. (FMADD, FMSUB, FNMSUB, FNMADD.)
    pub fn fmadd(&mut self, minus_product: bool, minus_a: bool, fp: Fp, d: V, n: V, m: V, a: V) {
        // FNMADD is -a - n * m, FNMSUB -a + n * m.
        let o0 = minus_product != minus_a;
        self.word(
            0x1f00_0000
                | fp.bit22()
                | u32::from(minus_a) << 21
                | u32::from(o0) << 15
                | u32::from(a.0) << 10
                | dnm(d, n, m),
        );
    }

    /// Signs changed, all lanes.
    pub fn fneg_v(&mut self, fp: Fp, d: V, n: V) {
        self.word(0x6ea0_f800 | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Signed integers to floating point, all lanes.
    pub fn scvtf_v(&mut self, fp: Fp, d: V, n: V) {
        self.word(0x4e21_d800 | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// To signed integers of the same size toward zero, all lanes, saturating.
    pub fn fcvtzs_v(&mut self, fp: Fp, d: V, n: V) {
        self.word(0x4ea1_b800 | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// A general register, signed, to floating point in lane 0; rest zero.
    pub fn scvtf(&mut self, fp: Fp, d: V, from: Sz, n: X) {
        let sf = u32::from(from == Sz::X) << 31;
        self.word(0x1e22_0000 | sf | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Lane 0 to a signed integer toward zero, saturating; NaN gives zero.
    pub fn fcvtzs(&mut self, to: Sz, d: X, fp: Fp, n: V) {
        let sf = u32::from(to == Sz::X) << 31;
        self.word(0x1e38_0000 | sf | fp.bit22() | u32::from(n.0) << 5 | u32::from(d.0));
    }
}
