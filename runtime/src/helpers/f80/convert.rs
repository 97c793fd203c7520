//! Conversions between the extended format and what memory holds: single, double, integers, packed decimal (SDM vol. 2, FLD, FST, FILD, FIST, FBLD, FBSTP).

use super::{BIAS, Class, Env, F80, Finite, INTEGER, MAX_EXP, Rounding, round_significand, shift_right_jam, sw};

/// A binary interchange format narrower than 80 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrow {
    /// Significand bits with the implicit one.
    pub precision: u32,
    pub exp_bits: u32,
}

pub const SINGLE: Narrow = Narrow { precision: 24, exp_bits: 8 };
pub const DOUBLE: Narrow = Narrow { precision: 53, exp_bits: 11 };

impl Narrow {
    const fn bias(self) -> i32 {
        (1 << (self.exp_bits - 1)) - 1
    }

    const fn max_exp(self) -> u64 {
        (1 << self.exp_bits) - 1
    }

    const fn sign_shift(self) -> u32 {
        self.precision - 1 + self.exp_bits
    }
}

/// FLD m32/m64.
#[inline]
pub fn widen(env: &mut Env, v: u64, f: Narrow) -> Option<F80> {
    let x = operand(env, v, f);
    if env.narrow_denormal {
        // Unlike in arithmetic, the value is loaded even if this is unmasked.
        env.raised |= sw::DE;
    }
    if x.class() == Class::Signalling {
        return env.nan1(x);
    }
    Some(x)
}

/// A memory operand as it is: nothing is raised, a signalling NaN stays one, a denormal is noted in `env`.
#[inline]
pub fn operand(env: &mut Env, v: u64, f: Narrow) -> F80 {
    let sign = v >> f.sign_shift() & 1 != 0;
    let exp = v >> (f.precision - 1) & f.max_exp();
    let fraction = v << (64 - f.precision) << 1 >> 1;
    if exp != 0 && exp != f.max_exp() {
        return F80::new(sign, (exp as i32 - f.bias() + BIAS) as u16, INTEGER | fraction);
    }
    if exp != 0 {
        return F80::new(sign, MAX_EXP, INTEGER | fraction);
    }
    if fraction == 0 {
        return F80::zero(sign);
    }
    env.narrow_denormal = true;
    let up = fraction.leading_zeros();
    F80::new(sign, (1 - f.bias() + BIAS - up as i32) as u16, fraction << up)
}

/// FST m32/m64. `None` also when an unmasked overflow or underflow leaves memory alone (SDM vol. 1, 8.5.4 and 8.5.5).
#[inline]
pub fn narrow(env: &mut Env, x: F80, f: Narrow) -> Option<u64> {
    let s = u64::from(x.sign()) << f.sign_shift();
    let pack = |exp: u64, sig: u64| s | exp << (f.precision - 1) | (sig << 1 >> 1 >> (64 - f.precision));
    if !x.is_normal() {
        match x.class() {
            Class::Zero => return Some(s),
            Class::Infinity => return Some(pack(f.max_exp(), 0)),
            Class::Quiet | Class::Signalling | Class::Unsupported => {
                let n = env.nan1(x)?;
                let s = u64::from(n.sign()) << f.sign_shift();
                return Some(s | f.max_exp() << (f.precision - 1) | (n.mantissa << 1 >> 1 >> (64 - f.precision)));
            }
            _ => {}
        }
    }
    let v = Finite::of(x);
    let exp = v.exp - BIAS + f.bias();
    let sig = u128::from(v.sig) << 64;
    let r = round_significand(sig, f.precision, env.rounding(), v.sign);
    let full = exp + i32::from(r.carry);
    if full >= f.max_exp() as i32 {
        env.before(sw::OE)?;
        let away = match env.rounding() {
            Rounding::Nearest => true,
            Rounding::Down => v.sign,
            Rounding::Up => !v.sign,
            Rounding::Chop => false,
        };
        env.inexact(true, away);
        return Some(if away { pack(f.max_exp(), 0) } else { pack(f.max_exp() - 1, u64::MAX) });
    }
    if full < 1 {
        if !env.masked(sw::UE) {
            env.raised |= sw::UE;
            return None;
        }
        let r = round_significand(shift_right_jam(sig, (1 - exp) as u32), f.precision, env.rounding(), v.sign);
        if r.inexact {
            env.raised |= sw::UE;
        }
        env.inexact(r.inexact, r.up);
        return Some(pack(r.sig >> 63, r.sig));
    }
    env.inexact(r.inexact, r.up);
    Some(pack(full as u64, r.sig))
}

/// FILD: exact.
#[inline]
pub fn from_int(v: i64) -> F80 {
    if v == 0 {
        return F80::zero(false);
    }
    let m = v.unsigned_abs();
    let up = m.leading_zeros();
    F80::new(v < 0, (BIAS + 63 - up as i32) as u16, m << up)
}

/// A value rounded to an integer magnitude.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    pub magnitude: u64,
    pub inexact: bool,
    pub up: bool,
}

/// Rounds |x| to an integer; `None` when it is 2^64 or more.
pub fn whole(x: Finite, mode: Rounding) -> Option<Whole> {
    let e = x.exp - BIAS;
    if e > 63 {
        return None;
    }
    // 64 bits before the binary point, 64 after.
    let fixed = shift_right_jam(u128::from(x.sig) << 64, (63 - e) as u32);
    let r = round_significand(fixed, 64, mode, x.sign);
    if r.carry {
        return None;
    }
    Some(Whole { magnitude: r.sig, inexact: r.inexact, up: r.up })
}

/// FIST/FISTP (and FISTTP with `mode` = chop) to `bits` = 16, 32 or 64. Out of range: invalid, and the integer indefinite.
#[inline]
pub fn to_int(env: &mut Env, x: F80, bits: u32, mode: Rounding) -> Option<u64> {
    let sign = x.sign();
    let mask = u64::MAX >> (64 - bits);
    let w = match x.class() {
        Class::Zero => return Some(0),
        Class::Normal | Class::Denormal => whole(Finite::of(x), mode),
        _ => None,
    };
    let limit = (1u64 << (bits - 1)) - u64::from(!sign);
    match w {
        Some(w) if w.magnitude <= limit => {
            env.inexact(w.inexact, w.up);
            let v = if sign { w.magnitude.wrapping_neg() } else { w.magnitude };
            Some(v & mask)
        }
        _ => {
            env.before(sw::IE)?;
            Some(1 << (bits - 1))
        }
    }
}

/// FBLD: 18 decimal digits and a sign. Digits above 9 count as what they are (the manuals leave them undefined).
pub fn from_bcd(low: u64, high: u16) -> F80 {
    let mut v = 0u64;
    let digits = u128::from(high & 0xff) << 64 | u128::from(low);
    for n in (0..18).rev() {
        v = v * 10 + (digits >> (4 * n) & 15) as u64;
    }
    let x = if v == 0 { F80::zero(false) } else { from_int(v as i64) };
    x.with_sign(high & 0x8000 != 0)
}

/// FBSTP: the ten bytes.
pub fn to_bcd(env: &mut Env, x: F80) -> Option<(u64, u16)> {
    let sign = u16::from(x.sign()) << 15;
    let w = match x.class() {
        Class::Zero => return Some((0, sign)),
        Class::Normal | Class::Denormal => whole(Finite::of(x), env.rounding()),
        _ => None,
    };
    match w {
        Some(w) if w.magnitude < 1_000_000_000_000_000_000 => {
            env.inexact(w.inexact, w.up);
            let mut left = w.magnitude;
            let mut digits = 0u128;
            for n in 0..18 {
                digits |= u128::from(left % 10) << (4 * n);
                left /= 10;
            }
            Some((digits as u64, (digits >> 64) as u16 | sign))
        }
        _ => {
            env.before(sw::IE)?;
            Some((0xc000_0000_0000_0000, 0xffff))
        }
    }
}
