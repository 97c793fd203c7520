//! Add, subtract, multiply, divide, square root, compare, remainder (SDM vol. 2, FADD .. FPREM1).
//! See the parent module for what `None` means.

use super::{BIAS, Class, Env, F80, Finite, INTEGER, Order, Rounding, shift_right_jam, sw};

/// The four operations with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

impl Op {
    pub fn run(self, env: &mut Env, a: F80, b: F80) -> Option<F80> {
        match self {
            Op::Add => add(env, a, b),
            Op::Sub => sub(env, a, b),
            Op::Mul => mul(env, a, b),
            Op::Div => div(env, a, b),
        }
    }

    /// As `run`, for any operands, denormals of a narrower format among them.
    pub fn run_any(self, env: &mut Env, a: F80, b: F80) -> Option<F80> {
        match self {
            Op::Add => add_special(env, a, b, false),
            Op::Sub => add_special(env, a, b, true),
            Op::Mul => mul_special(env, a, b, a.sign() != b.sign()),
            Op::Div => div_special(env, a, b),
        }
    }
}

#[inline]
pub fn add(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    if a.is_normal() && b.is_normal() {
        let x = Finite { sign: a.sign(), exp: i32::from(a.exp()), sig: a.mantissa };
        let y = Finite { sign: b.sign(), exp: i32::from(b.exp()), sig: b.mantissa };
        return Some(add_finite(env, x, y));
    }
    add_special(env, a, b, false)
}

#[inline]
pub fn sub(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    if a.is_normal() && b.is_normal() {
        let x = Finite { sign: a.sign(), exp: i32::from(a.exp()), sig: a.mantissa };
        let y = Finite { sign: !b.sign(), exp: i32::from(b.exp()), sig: b.mantissa };
        return Some(add_finite(env, x, y));
    }
    add_special(env, a, b, true)
}

#[cold]
#[inline(never)]
fn add_special(env: &mut Env, a: F80, b: F80, negate: bool) -> Option<F80> {
    let (ca, cb) = (a.class(), b.class());
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    if matches!(ca, Quiet | Signalling | Unsupported) || matches!(cb, Quiet | Signalling | Unsupported) {
        return env.nan2(a, b);
    }
    let b = if negate { b.negate() } else { b };
    match (ca, cb) {
        (Infinity, Infinity) if a.sign() != b.sign() => return env.invalid(),
        _ => env.denormals(&[a, b])?,
    }
    match (ca, cb) {
        (Infinity, _) => Some(a),
        (_, Infinity) => Some(b),
        (Zero, Zero) if a.sign() == b.sign() => Some(a),
        (Zero, Zero) => Some(F80::zero(env.rounding() == Rounding::Down)),
        (Zero, _) => Some(pass(env, b)),
        (_, Zero) => Some(pass(env, a)),
        _ => Some(add_finite(env, Finite::of(a), Finite::of(b))),
    }
}

/// A finite value as a result: rounded to the precision in force.
fn pass(env: &mut Env, x: F80) -> F80 {
    let f = Finite::of(x);
    env.round(f.sign, f.exp, u128::from(f.sig) << 64)
}

#[inline]
fn add_finite(env: &mut Env, a: Finite, b: Finite) -> F80 {
    let (a, b) = if a.exp >= b.exp { (a, b) } else { (b, a) };
    // One spare bit on top for the carry.
    let x = u128::from(a.sig) << 63;
    let y = shift_right_jam(u128::from(b.sig) << 63, (a.exp - b.exp) as u32);
    let (sign, sum) = if a.sign == b.sign {
        (a.sign, x + y)
    } else if x >= y {
        (a.sign, x - y)
    } else {
        (b.sign, y - x)
    };
    if sum == 0 {
        return F80::zero(env.rounding() == Rounding::Down);
    }
    let up = sum.leading_zeros();
    env.round(sign, a.exp + 1 - up as i32, sum << up)
}

#[inline]
pub fn mul(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    let sign = a.sign() != b.sign();
    if a.is_normal() && b.is_normal() {
        let product = u128::from(a.mantissa) * u128::from(b.mantissa);
        let up = product.leading_zeros();
        let exp = i32::from(a.exp()) + i32::from(b.exp()) - BIAS + 1 - up as i32;
        return Some(env.round(sign, exp, product << up));
    }
    mul_special(env, a, b, sign)
}

#[cold]
#[inline(never)]
fn mul_special(env: &mut Env, a: F80, b: F80, sign: bool) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let (ca, cb) = (a.class(), b.class());
    match (ca, cb) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(a, b),
        (Infinity, Zero) | (Zero, Infinity) => return env.invalid(),
        _ => env.denormals(&[a, b])?,
    }
    match (ca, cb) {
        (Infinity, _) | (_, Infinity) => Some(F80::infinity(sign)),
        (Zero, _) | (_, Zero) => Some(F80::zero(sign)),
        _ => {
            let (x, y) = (Finite::of(a), Finite::of(b));
            let product = u128::from(x.sig) * u128::from(y.sig);
            let up = product.leading_zeros();
            Some(env.round(sign, x.exp + y.exp - BIAS + 1 - up as i32, product << up))
        }
    }
}

#[inline]
pub fn div(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    if a.is_normal() && b.is_normal() {
        let x = Finite { sign: a.sign(), exp: i32::from(a.exp()), sig: a.mantissa };
        let y = Finite { sign: b.sign(), exp: i32::from(b.exp()), sig: b.mantissa };
        return Some(div_finite(env, x, y));
    }
    div_special(env, a, b)
}

#[cold]
#[inline(never)]
fn div_special(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let sign = a.sign() != b.sign();
    let (ca, cb) = (a.class(), b.class());
    match (ca, cb) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(a, b),
        (Infinity, Infinity) | (Zero, Zero) => return env.invalid(),
        (Infinity, Zero) => {}
        (_, Zero) => {
            env.before(sw::ZE)?;
            return Some(F80::infinity(sign));
        }
        _ => env.denormals(&[a, b])?,
    }
    match (ca, cb) {
        (Infinity, _) => Some(F80::infinity(sign)),
        (_, Infinity) | (Zero, _) => Some(F80::zero(sign)),
        _ => Some(div_finite(env, Finite::of(a), Finite::of(b))),
    }
}

fn div_finite(env: &mut Env, a: Finite, b: Finite) -> F80 {
    // A quotient of exactly 64 bits; what follows it only matters as less than, equal to or more than half.
    let less = a.sig < b.sig;
    let (q, r) = div_128_64(if less { a.sig } else { a.sig >> 1 }, if less { 0 } else { a.sig << 63 }, b.sig);
    let low = match (r, (r as u128 * 2).cmp(&u128::from(b.sig))) {
        (0, _) => 0,
        (_, std::cmp::Ordering::Less) => 1u64 << 62,
        (_, std::cmp::Ordering::Equal) => 1 << 63,
        (_, std::cmp::Ordering::Greater) => 3 << 62,
    };
    env.round(a.sign != b.sign, a.exp - b.exp + BIAS - i32::from(less), u128::from(q) << 64 | u128::from(low))
}

/// `(hi:lo) / d` and its remainder, for `hi < d` and the top bit of `d` set: two digits of 32 bits each (Knuth, TAOCP vol. 2, 4.3.1, D).
#[inline]
pub fn div_128_64(hi: u64, lo: u64, d: u64) -> (u64, u64) {
    let (d1, d0) = (d >> 32, d & 0xffff_ffff);
    let digit = |rem: u64, next: u64| -> (u64, u64) {
        let mut q = rem / d1;
        let mut r = rem - q * d1;
        while q >> 32 != 0 || q * d0 > (r << 32 | next) {
            q -= 1;
            r += d1;
            if r >> 32 != 0 {
                break;
            }
        }
        let rest = (rem << 32 | next).wrapping_sub(q.wrapping_mul(d));
        (q, rest)
    };
    let (q1, r1) = digit(hi, lo >> 32);
    let (q0, r0) = digit(r1, lo & 0xffff_ffff);
    (q1 << 32 | q0, r0)
}

pub fn sqrt(env: &mut Env, a: F80) -> Option<F80> {
    match a.class() {
        Class::Quiet | Class::Signalling | Class::Unsupported => return env.nan1(a),
        Class::Zero => return Some(a),
        _ if a.sign() => return env.invalid(),
        Class::Infinity => return Some(a),
        _ => env.denormals(&[a])?,
    }
    let f = Finite::of(a);
    let e = f.exp - BIAS;
    // n = sig * 2^63 or 2^64, so that the exponent left over is even and the root has 64 bits.
    let n = u128::from(f.sig) << (63 + (e & 1));
    let root = n.isqrt();
    let rest = n - root * root;
    let low = match rest {
        0 => 0,
        r if r > root => 3u64 << 62,
        _ => 1 << 62,
    };
    Some(env.round(false, (e >> 1) + BIAS, root << 64 | u128::from(low)))
}

/// A comparison, and whether all it raised is masked: when not, nothing is popped, but the codes or flags say the order all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    pub order: Order,
    pub masked: bool,
}

/// Compares. `quiet`: FUCOM, for which a quiet NaN is no invalid operation.
pub fn compare(env: &mut Env, a: F80, b: F80, quiet: bool) -> Compared {
    use Class::{Quiet, Signalling, Unsupported};
    let (ca, cb) = (a.class(), b.class());
    if matches!(ca, Quiet | Signalling | Unsupported) || matches!(cb, Quiet | Signalling | Unsupported) {
        let silent = quiet && !matches!(ca, Signalling | Unsupported) && !matches!(cb, Signalling | Unsupported);
        let masked = silent || env.before(sw::IE).is_some();
        return Compared { order: Order::Unordered, masked };
    }
    let masked = env.denormals(&[a, b]).is_some();
    // A pseudo-denormal has the value of exponent 1.
    let key = |x: F80| (u128::from(x.exp().max((x.mantissa >> 63) as u16)) << 64) | u128::from(x.mantissa);
    let (ka, kb) = (key(a), key(b));
    if ka == 0 && kb == 0 {
        return Compared { order: Order::Equal, masked };
    }
    let ord = match (a.sign(), b.sign()) {
        (false, false) => ka.cmp(&kb),
        (true, true) => kb.cmp(&ka),
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
    };
    let order = match ord {
        std::cmp::Ordering::Less => Order::Less,
        std::cmp::Ordering::Equal => Order::Equal,
        std::cmp::Ordering::Greater => Order::Greater,
    };
    Compared { order, masked }
}

/// What FPREM and FPREM1 leave: the remainder, and C2 (not finished) or the quotient's low bits in C0, C3, C1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    pub value: F80,
    /// `None`: there is no quotient, C0 and C3 stay.
    pub codes: Option<u16>,
}

/// FPREM (`nearest` false: quotient truncated) and FPREM1 (rounded to nearest even).
pub fn remainder(env: &mut Env, a: F80, b: F80, nearest: bool) -> Option<Remainder> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let done = |value| Some(Remainder { value, codes: None });
    let whole = |value| Some(Remainder { value, codes: Some(0) });
    let (ca, cb) = (a.class(), b.class());
    match (ca, cb) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => {
            return done(env.nan2(a, b)?);
        }
        (Infinity, _) | (_, Zero) => return done(env.invalid()?),
        _ => env.denormals(&[a, b])?,
    }
    if ca == Zero {
        return whole(a);
    }
    if cb == Infinity {
        return whole(exactly(env, Finite::of(a)));
    }
    let (x, y) = (Finite::of(a), Finite::of(b));
    let d = x.exp - y.exp;
    if d < -1 || (d < 0 && !nearest) {
        return whole(exactly(env, x));
    }
    if d >= 64 {
        // Take off a multiple that leaves an exponent difference below 64 (SDM vol. 2, FPREM: N between 32 and 63).
        let n = 32 + d % 32;
        let r = long_remainder(x.sig, n, y.sig).1;
        let value = finish(env, a.sign(), y.exp + d - n, u128::from(r));
        return Some(Remainder { value, codes: Some(sw::C2) });
    }
    let (mut q, r) = if d < 0 { (0, x.sig) } else { long_remainder(x.sig, d, y.sig) };
    let mut sign = a.sign();
    // The remainder is r * 2^(y.exp); for d = -1 it is r * 2^(y.exp - 1). Doubled, both compare with y.
    let mut rest = if d < 0 { u128::from(r) } else { u128::from(r) << 1 };
    if nearest {
        let whole = u128::from(y.sig) << 1;
        let twice = rest << 1;
        if twice > whole || (twice == whole && q & 1 != 0) {
            rest = whole - rest;
            sign = !sign;
            q = q.wrapping_add(1);
        }
    }
    let value = finish(env, sign, y.exp - 1, rest);
    let bit = |n: u32, code: u16| if q >> n & 1 != 0 { code } else { 0 };
    let codes = bit(0, sw::C1) | bit(1, sw::C3) | bit(2, sw::C0);
    Some(Remainder { value: if rest == 0 { F80::zero(a.sign()) } else { value }, codes: Some(codes) })
}

/// `(a << n) / b` (its low 64 bits) and the remainder.
fn long_remainder(a: u64, n: i32, b: u64) -> (u64, u64) {
    let (mut q, mut r) = if a >= b { (1u64, a - b) } else { (0, a) };
    let mut left = n;
    if left >= 64 {
        left = 63;
    }
    if left > 0 {
        // r < b, so r * 2^left / b has at most `left` bits.
        let (hi, lo) = (r >> (64 - left), r << left);
        let (dq, dr) = div_128_64(hi, lo, b);
        q = q << left | dq;
        r = dr;
    }
    (q, r)
}

/// `v * 2^(exp - BIAS - 63)` as a result of the remainder instructions, which are exact whatever the precision control.
fn finish(env: &mut Env, sign: bool, exp: i32, v: u128) -> F80 {
    if v == 0 {
        return F80::zero(sign);
    }
    let up = v.leading_zeros();
    env.round_to(sign, exp + 64 - up as i32, v << up, 64)
}

fn exactly(env: &mut Env, x: Finite) -> F80 {
    env.round_to(x.sign, x.exp, u128::from(x.sig) << 64, 64)
}

/// FTST and friends compare with this; FLD1 and friends load such.
pub fn one(sign: bool) -> F80 {
    F80::new(sign, BIAS as u16, INTEGER)
}
