//! A binary float with a 128-bit significand, truncating: the working precision of the transcendental instructions, twice what
//! their results keep. Each operation errs by less than 2 units of 2^-127 relative; exponents never overflow in their use here.

use super::{BIAS, Env, F80, Finite};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// `sig / 2^127 * 2^exp`, top bit of `sig` set; zero is `sig == 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

impl Wide {
    pub const ZERO: Wide = Wide { sign: false, exp: 0, sig: 0 };
    pub const ONE: Wide = Wide { sign: false, exp: 0, sig: 1 << 127 };

    pub fn of(x: F80) -> Wide {
        if x.mantissa == 0 {
            return Wide { sign: x.sign(), ..Wide::ZERO };
        }
        let f = Finite::of(x);
        Wide { sign: f.sign, exp: f.exp - BIAS, sig: u128::from(f.sig) << 64 }
    }

    /// `v * 2^exp`.
    pub fn scaled(sign: bool, v: u128, exp: i32) -> Wide {
        if v == 0 {
            return Wide { sign, ..Wide::ZERO };
        }
        let up = v.leading_zeros();
        Wide { sign, exp: exp + 127 - up as i32, sig: v << up }
    }

    pub fn int(v: i64) -> Wide {
        Wide::scaled(v < 0, u128::from(v.unsigned_abs()), 0)
    }

    pub fn is_zero(self) -> bool {
        self.sig == 0
    }

    pub fn abs(self) -> Wide {
        Wide { sign: false, ..self }
    }

    /// `self * 2^n`.
    pub fn scale(self, n: i32) -> Wide {
        Wide { exp: self.exp + n, ..self }
    }

    /// |self| < |o|.
    pub fn below(self, o: Wide) -> bool {
        match (self.sig, o.sig) {
            (_, 0) => false,
            (0, _) => true,
            _ => (self.exp, self.sig) < (o.exp, o.sig),
        }
    }

    /// Quotient by a small integer.
    pub fn div_int(self, d: u64) -> Wide {
        if self.is_zero() {
            return self;
        }
        let d = u128::from(d);
        let (q1, r1) = (self.sig / d, self.sig % d);
        let up = q1.leading_zeros();
        let more = ((r1 << 64) / d) << 64 >> (128 - up.clamp(1, 127));
        let sig = if up == 0 { q1 } else { q1 << up | more };
        Wide { sign: self.sign, exp: self.exp - up as i32, sig }
    }

    /// Nearest integer, for values below 2^62.
    pub fn round(self) -> i64 {
        if self.is_zero() || self.exp < -1 {
            return 0;
        }
        let half = if self.exp < 0 { self.sig >> 127 } else { self.sig >> (126 - self.exp) };
        let m = ((half + 1) >> 1) as i64;
        if self.sign { -m } else { m }
    }

    /// The result of an instruction: inexact always, since the true value is irrational or longer than any register.
    /// Precision control does not apply to it.
    pub fn result(self, env: &mut Env) -> F80 {
        if self.is_zero() {
            return F80::zero(self.sign);
        }
        env.round_to(self.sign, self.exp + BIAS, self.sig | 1, 64)
    }
}

impl Neg for Wide {
    type Output = Wide;

    fn neg(self) -> Wide {
        Wide { sign: !self.sign, ..self }
    }
}

impl Add for Wide {
    type Output = Wide;

    fn add(self, o: Wide) -> Wide {
        if self.is_zero() {
            return o;
        }
        if o.is_zero() {
            return self;
        }
        let (a, b) = if self.below(o) { (o, self) } else { (self, o) };
        let d = (a.exp - b.exp) as u32;
        let low = if d < 128 { b.sig >> d } else { 0 };
        if a.sign == b.sign {
            let (s, carry) = a.sig.overflowing_add(low);
            return if carry { Wide { exp: a.exp + 1, sig: s >> 1 | 1 << 127, ..a } } else { Wide { sig: s, ..a } };
        }
        // The subtrahend to 256 bits; what it loses beyond that counts as one in the lowest.
        let rest = match d {
            0 => 0,
            1..=127 => b.sig << (128 - d),
            _ => 1,
        };
        let s = a.sig - low - u128::from(rest != 0);
        let rest = rest.wrapping_neg();
        if s == 0 {
            return if rest == 0 { Wide::ZERO } else { Wide::scaled(a.sign, rest, a.exp - 255) };
        }
        let up = s.leading_zeros();
        let more = if up == 0 { 0 } else { rest >> (128 - up) };
        Wide { sign: a.sign, exp: a.exp - up as i32, sig: s << up | more }
    }
}

impl Sub for Wide {
    type Output = Wide;

    fn sub(self, o: Wide) -> Wide {
        self + -o
    }
}

impl Mul for Wide {
    type Output = Wide;

    fn mul(self, o: Wide) -> Wide {
        if self.is_zero() || o.is_zero() {
            return Wide { sign: self.sign != o.sign, ..Wide::ZERO };
        }
        let (a1, a0) = ((self.sig >> 64) as u64, self.sig as u64);
        let (b1, b0) = ((o.sig >> 64) as u64, o.sig as u64);
        let m = |x: u64, y: u64| u128::from(x) * u128::from(y);
        let (p11, p10, p01, p00) = (m(a1, b1), m(a1, b0), m(a0, b1), m(a0, b0));
        let mid = (p00 >> 64) + u128::from(p10 as u64) + u128::from(p01 as u64);
        let hi = p11 + (p10 >> 64) + (p01 >> 64) + (mid >> 64);
        let lo = (mid as u64 as u128) << 64 | u128::from(p00 as u64);
        let up = hi.leading_zeros();
        let sig = if up == 0 { hi } else { hi << 1 | lo >> 127 };
        Wide { sign: self.sign != o.sign, exp: self.exp + o.exp + 1 - up as i32, sig }
    }
}

impl Div for Wide {
    type Output = Wide;

    /// Quotient by long division, one bit at a time.
    fn div(self, o: Wide) -> Wide {
        if self.is_zero() {
            return Wide { sign: self.sign != o.sign, ..Wide::ZERO };
        }
        let d = o.sig;
        let mut r = self.sig;
        let mut exp = self.exp - o.exp;
        let mut q = 0u128;
        let mut over = false;
        if r < d {
            exp -= 1;
            over = r >> 127 != 0;
            r <<= 1;
        }
        for _ in 0..128 {
            q <<= 1;
            if over || r >= d {
                r = r.wrapping_sub(d);
                q |= 1;
            }
            over = r >> 127 != 0;
            r <<= 1;
        }
        Wide { sign: self.sign != o.sign, exp, sig: q }
    }
}
