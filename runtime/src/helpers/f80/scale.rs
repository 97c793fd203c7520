//! Instructions that take numbers apart: FRNDINT, FSCALE, FXTRACT, FXAM, and the constants (SDM vol. 2).

use super::{BIAS, Class, Env, F80, Finite, INTEGER, Rounding, convert, sw};

/// FRNDINT.
pub fn round_to_integer(env: &mut Env, x: F80) -> Option<F80> {
    match x.class() {
        Class::Quiet | Class::Signalling | Class::Unsupported => return env.nan1(x),
        Class::Zero | Class::Infinity => return Some(x),
        _ => env.denormals(&[x])?,
    }
    let f = Finite::of(x);
    if f.exp - BIAS >= 63 {
        return Some(x);
    }
    let Some(w) = convert::whole(f, env.rounding()) else {
        return Some(x);
    };
    env.inexact(w.inexact, w.up);
    if w.magnitude == 0 {
        return Some(F80::zero(f.sign));
    }
    let up = w.magnitude.leading_zeros();
    Some(F80::new(f.sign, (BIAS + 63 - up as i32) as u16, w.magnitude << up))
}

/// FSCALE: `a * 2^trunc(b)`.
pub fn scale(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    use Class::{Infinity, Quiet, Signalling, Unsupported, Zero};
    let (ca, cb) = (a.class(), b.class());
    match (ca, cb) {
        (Quiet | Signalling | Unsupported, _) | (_, Quiet | Signalling | Unsupported) => return env.nan2(a, b),
        (Infinity, Infinity) if b.sign() => return env.invalid(),
        (Zero, Infinity) if !b.sign() => return env.invalid(),
        _ => env.denormals(&[a, b])?,
    }
    match (ca, cb) {
        (Infinity | Zero, _) => return Some(a),
        (_, Infinity) => return Some(if b.sign() { F80::zero(a.sign()) } else { F80::infinity(a.sign()) }),
        (_, Zero) => {
            let f = Finite::of(a);
            return Some(env.round_to(f.sign, f.exp, u128::from(f.sig) << 64, 64));
        }
        _ => {}
    }
    let by = match convert::whole(Finite::of(b), Rounding::Chop) {
        Some(w) if w.magnitude < 1 << 17 => w.magnitude as i32,
        _ => 1 << 17,
    };
    let f = Finite::of(a);
    let exp = if b.sign() { f.exp - by } else { f.exp + by };
    Some(env.round_to(f.sign, exp, u128::from(f.sig) << 64, 64))
}

/// FXTRACT: significand and exponent, each as a number.
pub fn extract(env: &mut Env, x: F80) -> Option<(F80, F80)> {
    match x.class() {
        Class::Quiet | Class::Signalling | Class::Unsupported => {
            let n = env.nan1(x)?;
            Some((n, n))
        }
        Class::Infinity => Some((x, F80::infinity(false))),
        Class::Zero => {
            env.before(sw::ZE)?;
            Some((x, F80::infinity(true)))
        }
        _ => {
            env.denormals(&[x])?;
            let f = Finite::of(x);
            Some((F80::new(f.sign, BIAS as u16, f.sig), convert::from_int(i64::from(f.exp - BIAS))))
        }
    }
}

/// FXAM: C3, C2, C0 by class, C1 the sign.
pub fn examine(x: F80, empty: bool) -> u16 {
    let sign = if x.sign() { sw::C1 } else { 0 };
    let class = match x.class() {
        _ if empty => sw::C3 | sw::C0,
        Class::Unsupported => 0,
        Class::Quiet | Class::Signalling => sw::C0,
        Class::Normal => sw::C2,
        Class::Infinity => sw::C2 | sw::C0,
        Class::Zero => sw::C3,
        Class::Denormal => sw::C3 | sw::C2,
    };
    sign | class
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, in the order of their opcodes. The irrational ones are rounded by the rounding control.
pub fn constant(mode: Rounding, n: usize) -> F80 {
    // Significand cut off at 64 bits, exponent, and whether the cut part is more than half.
    const TABLE: [(u64, i32, bool); 7] = [
        (INTEGER, 0, false),
        (0xd49a_784b_cd1b_8afe, 1, false),
        (0xb8aa_3b29_5c17_f0bb, 0, true),
        (0xc90f_daa2_2168_c234, 1, true),
        (0x9a20_9a84_fbcf_f798, -2, true),
        (0xb172_17f7_d1cf_79ab, -1, true),
        (0, -BIAS, false),
    ];
    let (m, e, more) = TABLE[n.min(6)];
    let exact = n == 0 || n >= 6;
    let up = !exact && (mode == Rounding::Up || (mode == Rounding::Nearest && more));
    F80::new(false, (BIAS + e) as u16, m + u64::from(up))
}
