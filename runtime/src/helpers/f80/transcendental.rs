//! F2XM1, FYL2X, FYL2XP1, FPATAN, FSIN, FCOS, FPTAN, FSINCOS (SDM vol. 1, 8.3.8 to 8.3.10).
//!
//! Computed in [`Wide`] to some 120 bits and rounded once, so results are the nearest value but for about one in 2^50; the hardware
//! promises less than one unit in the last place and mostly gives the same. Arguments of the trigonometric ones are reduced by the hardware's own
//! 66-bit pi, which is what programs see for large arguments.

use super::wide::Wide;
use super::{BIAS, Class, Env, F80, arith, sw};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// ln 2.
const LN2: Wide = Wide { sign: false, exp: -1, sig: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
/// 1 / ln 2.
const LOG2E: Wide = Wide { sign: false, exp: 0, sig: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89 };
/// Pi.
const PI: Wide = Wide { sign: false, exp: 1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
/// Pi as the hardware reduces by it: 66 significant bits, in units of 2^-66.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;
/// arctan(k / 8).
const ARCTAN: [Wide; 9] = [
    Wide::ZERO,
    Wide { sign: false, exp: -4, sig: 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8 },
    Wide { sign: false, exp: -3, sig: 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6 },
    Wide { sign: false, exp: -2, sig: 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483 },
    Wide { sign: false, exp: -2, sig: 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03 },
    Wide { sign: false, exp: -1, sig: 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748 },
    Wide { sign: false, exp: -1, sig: 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f },
    Wide { sign: false, exp: -1, sig: 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d },
    Wide { sign: false, exp: -1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 },
];
/// sqrt(2) / 2's significand, 64 bits: where a significand in [1, 2) is better taken as one in [1/2, 1).
const ROOT_2: u64 = 0xb504_f333_f9de_6484;

/// Sums `first + next(1) + next(2) + ..` until a term no longer counts.
fn series(first: Wide, mut next: impl FnMut(u64) -> Wide) -> Wide {
    let mut sum = first;
    for n in 1..80 {
        let t = next(n);
        if t.is_zero() || t.exp < sum.exp - 132 {
            // It still says on which side of `sum` the value is.
            return sum.add(t);
        }
        sum = sum.add(t);
    }
    sum
}

/// F2XM1: 2^x - 1 for |x| <= 1. Beyond that the manuals leave the result open; the CPU returns the operand.
pub fn exp2_minus_1(env: &mut Env, x: F80) -> Option<F80> {
    match x.class() {
        Class::Quiet | Class::Signalling | Class::Unsupported => return env.nan1(x),
        Class::Zero => return Some(x),
        Class::Infinity => return Some(if x.sign() { arith::one(true) } else { x }),
        _ => env.denormals(&[x])?,
    }
    if x.exp() >= BIAS as u16 {
        // The CPU raises precision here, exact or not.
        env.inexact(true, false);
        if x.mantissa == super::INTEGER && x.exp() == BIAS as u16 && x.sign() {
            return Some(F80::new(true, BIAS as u16 - 1, x.mantissa));
        }
        return Some(x);
    }
    let y = Wide::of(x).mul(LN2);
    let mut term = y;
    let sum = series(y, |n| {
        term = term.mul(y).div_int(n + 1);
        term
    });
    Some(sum.result(env))
}

/// 2 artanh(f) / ln 2 for |f| < 0.18.
fn log2_of_ratio(f: Wide) -> Wide {
    let square = f.mul(f);
    let mut power = f;
    let sum = series(f, |n| {
        power = power.mul(square);
        power.div_int(2 * n + 1)
    });
    sum.mul(LOG2E).scale(1)
}

/// log2 of a positive finite value.
fn log2(x: Wide) -> Wide {
    let (mut e, mut m) = (x.exp, Wide { exp: 0, ..x });
    if (x.sig >> 64) as u64 > ROOT_2 {
        e += 1;
        m.exp = -1;
    }
    let f = m.sub(Wide::ONE);
    let fraction = if f.is_zero() { Wide::ZERO } else { log2_of_ratio(f.div(m.add(Wide::ONE))) };
    Wide::int(i64::from(e)).add(fraction)
}

/// FYL2X: y * log2(x).
pub fn y_log2_x(env: &mut Env, y: F80, x: F80) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let (cy, cx) = (y.class(), x.class());
    match (cy, cx) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(x, y),
        (Zero, Zero) | (Zero, Infinity) => return env.invalid(),
        (_, Zero) => {
            if cy != Infinity {
                env.before(sw::ZE)?;
            }
            return Some(F80::infinity(!y.sign()));
        }
        _ if x.sign() => return env.invalid(),
        _ => {}
    }
    let one = x == F80::ONE;
    if cy == Infinity && one {
        return env.invalid();
    }
    env.denormals(&[x, y])?;
    if cx == Infinity {
        return Some(F80::infinity(y.sign()));
    }
    let w = Wide::of(x);
    if cy == Infinity {
        return Some(F80::infinity(y.sign() != (w.exp < 0)));
    }
    if one {
        return Some(F80::zero(y.sign()));
    }
    if cy == Zero {
        return Some(F80::zero(y.sign() != (w.exp < 0)));
    }
    let l = log2(w);
    let product = l.mul(Wide::of(y));
    if w.sig == 1 << 127 {
        return Some(exact_or_rounded(env, product));
    }
    Some(product.result(env))
}

/// A product known exactly, since x was a power of two. The CPU raises precision all the same.
fn exact_or_rounded(env: &mut Env, v: Wide) -> F80 {
    env.inexact(true, false);
    let r = env.round_to(v.sign, v.exp + BIAS, v.sig, 64);
    if r.exp() == 0 {
        env.raised |= sw::UE;
    }
    r
}

/// FYL2XP1: y * log2(x + 1), meant for |x| < 1 - sqrt(2)/2.
pub fn y_log2_x_plus_1(env: &mut Env, y: F80, x: F80) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let (cy, cx) = (y.class(), x.class());
    let sign = x.sign() != y.sign();
    match (cy, cx) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(x, y),
        (Zero, Infinity) | (Infinity, Zero) => return env.invalid(),
        (_, Infinity) if x.sign() => return env.invalid(),
        _ => env.denormals(&[x, y])?,
    }
    let w = Wide::of(x);
    if cx == Infinity || cy == Infinity {
        return Some(F80::infinity(sign));
    }
    if cx == Zero || cy == Zero {
        return Some(F80::zero(sign));
    }
    if w.sign && w.exp >= 0 {
        // Outside what the manuals define: the CPU returns the operand.
        env.inexact(true, false);
        return Some(x);
    }
    let l = if w.exp < -2 {
        log2_of_ratio(w.div(w.add(Wide::int(2))))
    } else {
        let sum = w.add(Wide::ONE);
        if sum.sig == 1 << 127 {
            return Some(exact_or_rounded(env, Wide::int(i64::from(sum.exp)).mul(Wide::of(y))));
        }
        log2(sum)
    };
    Some(l.mul(Wide::of(y)).result(env))
}

/// arctan(t) for 0 <= t <= 1.
fn arctan_unit(t: Wide) -> Wide {
    let k = t.scale(3).round();
    let u = if k == 0 {
        t
    } else {
        let c = Wide::int(k).scale(-3);
        t.sub(c).div(Wide::ONE.add(t.mul(c)))
    };
    if u.is_zero() {
        return ARCTAN[k as usize];
    }
    let square = u.mul(u).neg();
    let mut power = u;
    let small = series(u, |n| {
        power = power.mul(square);
        power.div_int(2 * n + 1)
    });
    ARCTAN[k as usize].add(small)
}

/// FPATAN: the angle of the point (x, y).
pub fn arctangent(env: &mut Env, y: F80, x: F80) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let (cy, cx) = (y.class(), x.class());
    match (cy, cx) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(x, y),
        _ => env.denormals(&[x, y])?,
    }
    let angle = |w: Wide, env: &mut Env| Some(Wide { sign: y.sign(), ..w }.result(env));
    let quarter = PI.scale(-2);
    match (cy, cx) {
        (Infinity, Infinity) => return angle(if x.sign() { PI.sub(quarter) } else { quarter }, env),
        (Infinity, _) => return angle(PI.scale(-1), env),
        (Zero, _) | (_, Infinity) => {
            return if x.sign() { angle(PI, env) } else { Some(F80::zero(y.sign())) };
        }
        (_, Zero) => return angle(PI.scale(-1), env),
        _ => {}
    }
    let (wy, wx) = (Wide::of(y).abs(), Wide::of(x).abs());
    let a = if wx.below(wy) {
        let a = arctan_unit(wx.div(wy));
        let half = PI.scale(-1);
        if x.sign() { half.add(a) } else { half.sub(a) }
    } else {
        let a = arctan_unit(wy.div(wx));
        if x.sign() { PI.sub(a) } else { a }
    };
    angle(a, env)
}

/// A reduced argument: `x = quadrant * pi/2 + rest`, |rest| <= pi/4.
struct Reduced {
    quadrant: u32,
    rest: Wide,
}

/// Reduces |x| < 2^63 by multiples of half the hardware's pi.
fn reduce(x: Wide) -> Reduced {
    if x.exp < -1 {
        return Reduced { quadrant: 0, rest: x };
    }
    // |x| in units of 2^-67, modulo PI_66 of them, bit by bit: significand bits first, then the zeros that follow.
    let (mut r, mut q) = ((x.sig >> 64), 0u32);
    for _ in 0..x.exp + 4 {
        r <<= 1;
        q <<= 1;
        if r >= PI_66 {
            r -= PI_66;
            q |= 1;
        }
    }
    let mut rest = Wide::scaled(false, r, -67);
    if r << 1 > PI_66 {
        rest = Wide::scaled(true, PI_66 - r, -67);
        q = q.wrapping_add(1);
    }
    if x.sign {
        rest = rest.neg();
        q = q.wrapping_neg();
    }
    Reduced { quadrant: q & 3, rest }
}

fn sin_kernel(r: Wide) -> Wide {
    let square = r.mul(r).neg();
    let mut term = r;
    series(r, |n| {
        term = term.mul(square).div_int(2 * n * (2 * n + 1));
        term
    })
}

fn cos_kernel(r: Wide) -> Wide {
    let square = r.mul(r).neg();
    let mut term = Wide::ONE;
    series(Wide::ONE, |n| {
        term = term.mul(square).div_int((2 * n - 1) * 2 * n);
        term
    })
}

fn sin_of(r: &Reduced) -> Wide {
    match r.quadrant {
        0 => sin_kernel(r.rest),
        1 => cos_kernel(r.rest),
        2 => sin_kernel(r.rest).neg(),
        _ => cos_kernel(r.rest).neg(),
    }
}

fn cos_of(r: &Reduced) -> Wide {
    match r.quadrant {
        0 => cos_kernel(r.rest),
        1 => sin_kernel(r.rest).neg(),
        2 => cos_kernel(r.rest).neg(),
        _ => sin_kernel(r.rest),
    }
}

/// What the trigonometric instructions do before they compute: `Err` is the whole answer.
fn argument(env: &mut Env, x: F80) -> Result<Reduced, Option<F80>> {
    match x.class() {
        Class::Quiet | Class::Signalling | Class::Unsupported => Err(env.nan1(x)),
        Class::Infinity => Err(env.invalid()),
        _ => match env.denormals(&[x]) {
            None => Err(None),
            Some(()) => Ok(reduce(Wide::of(x))),
        },
    }
}

/// FSIN, for |x| < 2^63.
pub fn sine(env: &mut Env, x: F80) -> Option<F80> {
    match argument(env, x) {
        Err(r) => r,
        Ok(_) if x.class() == Class::Zero => Some(x),
        Ok(r) => Some(sin_of(&r).result(env)),
    }
}

/// FCOS, for |x| < 2^63.
pub fn cosine(env: &mut Env, x: F80) -> Option<F80> {
    match argument(env, x) {
        Err(r) => r,
        Ok(_) if x.class() == Class::Zero => Some(arith::one(false)),
        Ok(r) => Some(cos_of(&r).result(env)),
    }
}

/// FPTAN's tangent, for |x| < 2^63.
pub fn tangent(env: &mut Env, x: F80) -> Option<F80> {
    match argument(env, x) {
        Err(r) => r,
        Ok(_) if x.class() == Class::Zero => Some(x),
        Ok(r) => Some(sin_of(&r).div(cos_of(&r)).result(env)),
    }
}

/// FSINCOS, for |x| < 2^63.
pub fn sine_cosine(env: &mut Env, x: F80) -> Option<(F80, F80)> {
    match argument(env, x) {
        Err(r) => r.map(|v| (v, v)),
        Ok(_) if x.class() == Class::Zero => Some((x, arith::one(false))),
        Ok(r) => {
            let s = sin_of(&r).result(env);
            Some((s, cos_of(&r).result(env)))
        }
    }
}
