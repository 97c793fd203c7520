//! The x87 extended-precision number and its arithmetic in software (SDM vol. 1, chapters 4 and 8), exact to the bit and the flag.
//!
//! Everything here is pure: values and an [`Env`] in, values and flags out. It must not know the register stack, guest memory or the
//! host's floating-point unit.
//!
//! Exceptions follow the hardware's two kinds. Invalid operation, denormal operand and zero divide are found before there is a result: when one is
//! unmasked the operation is abandoned and the function returns `None`. Overflow, underflow and precision come with a result.

pub mod arith;
pub mod convert;
pub mod scale;
pub mod transcendental;
pub mod wide;

/// Status word bits (SDM vol. 1, 8.1.3).
pub mod sw {
    pub const IE: u16 = 1;
    pub const DE: u16 = 2;
    pub const ZE: u16 = 4;
    pub const OE: u16 = 8;
    pub const UE: u16 = 0x10;
    pub const PE: u16 = 0x20;
    /// Stack fault.
    pub const SF: u16 = 0x40;
    /// Error summary: an unmasked exception is pending.
    pub const ES: u16 = 0x80;
    pub const C0: u16 = 0x100;
    /// Rounded up; or, with a stack fault, overflow rather than underflow.
    pub const C1: u16 = 0x200;
    pub const C2: u16 = 0x400;
    pub const C3: u16 = 0x4000;
    /// Busy: a copy of ES.
    pub const B: u16 = 0x8000;
    pub const EXCEPTIONS: u16 = 0x3f;
    pub const CODES: u16 = C0 | C2 | C3;
}

/// Exponent bias.
pub const BIAS: i32 = 16383;
/// Exponent field of infinities and NaNs.
pub const MAX_EXP: u16 = 0x7fff;
/// The explicit integer bit.
pub const INTEGER: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
pub const QUIET: u64 = 1 << 62;
/// What an unmasked overflow or underflow moves the exponent by (SDM vol. 1, 8.5.4).
pub const WRAP: i32 = 24576;

/// An 80-bit value as the register holds it; every bit pattern is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F80 {
    pub mantissa: u64,
    pub sign_exp: u16,
}

/// What kind of value a bit pattern is (SDM vol. 1, 4.8 and 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Zero,
    /// Denormal or pseudo-denormal.
    Denormal,
    Normal,
    Infinity,
    Quiet,
    Signalling,
    /// Pseudo-infinity, pseudo-NaN, unnormal: operands the CPU refuses.
    Unsupported,
}

impl F80 {
    pub const INDEFINITE: F80 = F80 { mantissa: INTEGER | QUIET, sign_exp: 0xffff };
    pub const ONE: F80 = F80 { mantissa: INTEGER, sign_exp: BIAS as u16 };

    pub const fn new(sign: bool, exp: u16, mantissa: u64) -> F80 {
        F80 { mantissa, sign_exp: exp | (sign as u16) << 15 }
    }

    pub const fn zero(sign: bool) -> F80 {
        F80::new(sign, 0, 0)
    }

    pub const fn infinity(sign: bool) -> F80 {
        F80::new(sign, MAX_EXP, INTEGER)
    }

    pub const fn sign(self) -> bool {
        self.sign_exp & 0x8000 != 0
    }

    /// The exponent field.
    pub const fn exp(self) -> u16 {
        self.sign_exp & 0x7fff
    }

    pub const fn negate(self) -> F80 {
        F80 { mantissa: self.mantissa, sign_exp: self.sign_exp ^ 0x8000 }
    }

    pub const fn with_sign(self, sign: bool) -> F80 {
        F80::new(sign, self.exp(), self.mantissa)
    }

    pub const fn is_normal(self) -> bool {
        self.mantissa & INTEGER != 0 && self.exp().wrapping_sub(1) < 0x7ffe
    }

    pub const fn class(self) -> Class {
        match (self.exp(), self.mantissa) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, m) if m & INTEGER == 0 => Class::Unsupported,
            (MAX_EXP, INTEGER) => Class::Infinity,
            (MAX_EXP, m) if m & QUIET != 0 => Class::Quiet,
            (MAX_EXP, _) => Class::Signalling,
            _ => Class::Normal,
        }
    }

    pub const fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signalling)
    }

    pub const fn quiet(self) -> F80 {
        F80 { mantissa: self.mantissa | QUIET, ..self }
    }
}

/// A finite, nonzero value: `sig / 2^63 * 2^(exp - BIAS)`, with the top bit of `sig` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finite {
    pub sign: bool,
    pub exp: i32,
    pub sig: u64,
}

impl Finite {
    /// The value of a normal or (pseudo-)denormal number.
    #[inline]
    pub fn of(x: F80) -> Finite {
        let exp = i32::from(x.exp()).max(1);
        let up = x.mantissa.leading_zeros();
        Finite { sign: x.sign(), exp: exp - up as i32, sig: x.mantissa << up }
    }
}

/// Rounding control (SDM vol. 1, 4.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Nearest,
    Down,
    Up,
    Chop,
}

/// The control word, and the flags an operation raises.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    pub control: u16,
    /// Exception flags and C1, as bits of the status word. Starts at zero for each instruction.
    pub raised: u16,
    /// An operand was a denormal in the narrower format memory holds it in, though none in this one.
    pub narrow_denormal: bool,
}

impl Env {
    pub fn new(control: u16) -> Env {
        Env { control, raised: 0, narrow_denormal: false }
    }

    pub fn rounding(&self) -> Rounding {
        match self.control >> 10 & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Chop,
        }
    }

    /// Significand bits by precision control; the reserved value works as 64.
    pub fn precision(&self) -> u32 {
        match self.control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        }
    }

    pub fn masked(&self, exceptions: u16) -> bool {
        exceptions & !self.control & sw::EXCEPTIONS == 0
    }

    /// Raises exceptions found before there is a result; `None` when one is unmasked.
    #[must_use]
    pub fn before(&mut self, exceptions: u16) -> Option<()> {
        self.raised |= exceptions;
        self.masked(exceptions).then_some(())
    }

    /// The masked response to an invalid operation.
    pub fn invalid(&mut self) -> Option<F80> {
        self.before(sw::IE)?;
        Some(F80::INDEFINITE)
    }

    /// Raises the denormal exception if any operand is one.
    #[inline]
    pub fn denormals(&mut self, operands: &[F80]) -> Option<()> {
        if self.narrow_denormal || operands.iter().any(|x| x.exp() == 0 && x.mantissa != 0) {
            return self.before(sw::DE);
        }
        Some(())
    }

    /// Rounds `sig / 2^127 * 2^(exp - BIAS)` to the precision in force. The top bit of `sig` is set; its lowest bit may stand for any number of
    /// nonzero bits below it.
    #[inline]
    pub fn round(&mut self, sign: bool, exp: i32, sig: u128) -> F80 {
        if self.control & 0xf00 == 0x300 && exp > 0 && exp < 0x7ffe {
            let (hi, lo) = ((sig >> 64) as u64, sig as u64);
            if lo == 0 {
                return F80::new(sign, exp as u16, hi);
            }
            self.raised |= sw::PE;
            if lo < INTEGER || (lo == INTEGER && hi & 1 == 0) {
                return F80::new(sign, exp as u16, hi);
            }
            self.raised |= sw::C1;
            let (up, carry) = hi.overflowing_add(1);
            return F80::new(sign, exp as u16 + u16::from(carry), if carry { INTEGER } else { up });
        }
        let p = self.precision();
        self.round_to(sign, exp, sig, p)
    }

    /// As [`Env::round`], to `p` bits whatever the precision control says.
    pub fn round_to(&mut self, sign: bool, exp: i32, sig: u128, p: u32) -> F80 {
        let r = round_significand(sig, p, self.rounding(), sign);
        let full_exp = exp + i32::from(r.carry);
        if full_exp < 1 {
            return self.underflow(sign, exp, sig, p, r);
        }
        if full_exp > 0x7ffe {
            return self.overflow(sign, full_exp, p, r);
        }
        self.inexact(r.inexact, r.up);
        F80::new(sign, full_exp as u16, r.sig)
    }

    /// Raises the precision exception and says in C1 which way was rounded.
    pub fn inexact(&mut self, inexact: bool, up: bool) {
        if inexact {
            self.raised |= sw::PE;
            if up {
                self.raised |= sw::C1;
            }
        }
    }

    /// Tiny after rounding (SDM vol. 1, 8.5.5).
    fn underflow(&mut self, sign: bool, exp: i32, sig: u128, p: u32, full: Rounded) -> F80 {
        if !self.masked(sw::UE) {
            self.raised |= sw::UE;
            let wrapped = exp + i32::from(full.carry) + WRAP;
            if wrapped >= 1 {
                self.inexact(full.inexact, full.up);
                return F80::new(sign, wrapped as u16, full.sig);
            }
            // Beyond even the wrapped range (FSCALE): zero.
            self.inexact(true, false);
            return F80::zero(sign);
        }
        let small = shift_right_jam(sig, (1 - exp) as u32);
        let r = round_significand(small, p, self.rounding(), sign);
        if r.inexact {
            self.raised |= sw::UE;
        }
        self.inexact(r.inexact, r.up);
        F80::new(sign, (r.sig >> 63) as u16, r.sig)
    }

    fn overflow(&mut self, sign: bool, exp: i32, p: u32, full: Rounded) -> F80 {
        self.raised |= sw::OE;
        if !self.masked(sw::OE) {
            let wrapped = exp - WRAP;
            if wrapped <= 0x7ffe {
                self.inexact(full.inexact, full.up);
                return F80::new(sign, wrapped as u16, full.sig);
            }
            self.inexact(true, true);
            return F80::infinity(sign);
        }
        let away = match self.rounding() {
            Rounding::Nearest => true,
            Rounding::Down => sign,
            Rounding::Up => !sign,
            Rounding::Chop => false,
        };
        self.inexact(true, away);
        if away { F80::infinity(sign) } else { F80::new(sign, 0x7ffe, u64::MAX << (64 - p)) }
    }

    /// The result of an operation with at least one NaN or unsupported operand (SDM vol. 1, table 4-7).
    pub fn nan2(&mut self, a: F80, b: F80) -> Option<F80> {
        let (ca, cb) = (a.class(), b.class());
        if ca == Class::Unsupported || cb == Class::Unsupported {
            return self.invalid();
        }
        if ca == Class::Signalling || cb == Class::Signalling {
            self.before(sw::IE)?;
        }
        let pick = match (a.is_nan(), b.is_nan()) {
            (true, false) => a,
            (false, true) => b,
            _ if ca == Class::Signalling && cb == Class::Quiet => b,
            _ if ca == Class::Quiet && cb == Class::Signalling => a,
            _ if a.mantissa > b.mantissa => a,
            _ if a.mantissa < b.mantissa => b,
            _ if a.sign() => b,
            _ => a,
        };
        Some(pick.quiet())
    }

    /// The same for one operand.
    pub fn nan1(&mut self, a: F80) -> Option<F80> {
        match a.class() {
            Class::Unsupported => self.invalid(),
            Class::Signalling => {
                self.before(sw::IE)?;
                Some(a.quiet())
            }
            _ => Some(a),
        }
    }
}

/// A significand rounded to some bits, left-aligned again.
#[derive(Clone, Copy, Debug)]
pub struct Rounded {
    pub sig: u64,
    /// Rounding carried out of the top: `sig` is 1.0 and the exponent one more.
    pub carry: bool,
    pub inexact: bool,
    /// The magnitude grew.
    pub up: bool,
}

/// Keeps the top `p` bits (1..=64) of `sig`.
pub fn round_significand(sig: u128, p: u32, mode: Rounding, sign: bool) -> Rounded {
    let base = (sig >> (128 - p)) as u64;
    let rest = sig << p;
    let half = 1u128 << 127;
    let up = match mode {
        Rounding::Nearest => rest > half || (rest == half && base & 1 != 0),
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Chop => false,
    };
    let grown = u128::from(base) + u128::from(up);
    let carry = grown >> p != 0;
    let sig = if carry { INTEGER } else { (grown as u64) << (64 - p) };
    Rounded { sig, carry, inexact: rest != 0, up }
}

/// Shifts right; bits lost are remembered in the lowest.
#[inline]
pub fn shift_right_jam(v: u128, by: u32) -> u128 {
    match by {
        0 => v,
        1..=127 => v >> by | u128::from(v << (128 - by) != 0),
        _ => u128::from(v != 0),
    }
}

/// Which way two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Less,
    Equal,
    Greater,
    Unordered,
}

impl Order {
    /// C3, C2, C0 as FCOM sets them (SDM vol. 1, table 8-6).
    pub fn codes(self) -> u16 {
        match self {
            Order::Greater => 0,
            Order::Less => sw::C0,
            Order::Equal => sw::C3,
            Order::Unordered => sw::CODES,
        }
    }
}
