//! The AArch64 instructions between the accesses, as far as the programs here have them (Arm ARM, C4.1): anything else is an error.

use super::run::{Machine, Val};

/// Whether condition `c` holds.
pub fn holds(c: u8, nzcv: u8) -> bool {
    let (n, z, cf, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
    let r = match c >> 1 {
        0 => z,
        1 => cf,
        2 => n,
        3 => v,
        4 => cf && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    r != (c & 1 == 1)
}

fn cut(v: u64, wide: bool) -> u64 {
    if wide { v } else { v & 0xffff_ffff }
}

fn shifted(v: u64, kind: u32, by: u32, wide: bool) -> u64 {
    let (v, bits) = (cut(v, wide), if wide { 64 } else { 32 });
    match kind {
        0 => cut(v.checked_shl(by).unwrap_or(0), wide),
        1 => v >> by,
        2 if wide => (v as i64 >> by) as u64,
        2 => (v as u32 as i32 >> by) as u32 as u64,
        _ => cut(v >> by | v.checked_shl(bits - by).unwrap_or(0), wide),
    }
}

/// `a + b + carry` and its flags.
fn sum(a: u64, b: u64, carry: u64, wide: bool) -> (u64, u8) {
    let (a, b) = (cut(a, wide), cut(b, wide));
    let full = u128::from(a) + u128::from(b) + u128::from(carry);
    let top = if wide { 63 } else { 31 };
    let r = cut(full as u64, wide);
    let (n, z, c) = (r >> top & 1, u64::from(r == 0), (full >> (top + 1)) as u64 & 1);
    let v = ((a ^ r) & (b ^ r)) >> top & 1;
    (r, (n << 3 | z << 2 | c << 1 | v) as u8)
}

/// The bitmask immediate of AND, ORR, EOR, ANDS (Arm ARM, DecodeBitMasks).
fn bitmask(n: u32, imms: u32, immr: u32) -> Option<u64> {
    let len = 31 - (n << 6 | (!imms & 63)).leading_zeros();
    let size = 1u32 << len;
    let (s, r) = (imms & (size - 1), immr & (size - 1));
    if s == size - 1 {
        return None;
    }
    let ones = (1u64 << (s + 1)) - 1;
    let mask = if size == 64 { u64::MAX } else { (1 << size) - 1 };
    let element = if r == 0 { ones } else { (ones >> r | ones << (size - r)) & mask };
    Some((0..64 / size).fold(0, |a, k| a | element << (k * size)))
}

pub fn execute(m: &mut Machine<'_>, w: u32, here: i64) -> Result<(), String> {
    let field = |lsb: u32, bits: u32| w >> lsb & ((1 << bits) - 1);
    let wide = w >> 31 == 1;
    let (d, n, r2) = (field(0, 5) as u8, field(5, 5) as u8, field(16, 5) as u8);
    let (a, b) = (m.get(n), m.get(r2));
    let both = a.from | b.from;
    let sp = |m: &Machine<'_>, n: u8| m.x[usize::from(n)];
    match field(23, 6) {
        // ADD, SUB (immediate): 31 is SP, but for the result of the forms that set flags.
        0b100010 => {
            let imm = u64::from(field(10, 12)) << (12 * field(22, 1));
            let (a, minus) = (sp(m, n), field(30, 1) == 1);
            let (r, f) = if minus { sum(a.v, !imm, 1, wide) } else { sum(a.v, imm, 0, wide) };
            if field(29, 1) == 1 {
                m.nzcv = Val { v: f, from: a.from };
                m.set(d, r, a.from);
            } else {
                m.x[usize::from(d)] = Val { v: r, from: a.from };
            }
            return Ok(());
        }
        0b100100 => {
            let imm = cut(bitmask(field(22, 1), field(10, 6), field(16, 6)).ok_or("bitmask")?, wide);
            let r = match field(29, 2) {
                0 | 3 => cut(a.v, wide) & imm,
                1 => cut(a.v, wide) | imm,
                _ => cut(a.v, wide) ^ imm,
            };
            if field(29, 2) == 3 {
                let n = r >> if wide { 63 } else { 31 };
                m.nzcv = Val { v: ((n as u8) << 3) | u8::from(r == 0) << 2, from: a.from };
            }
            m.set(d, r, a.from);
            return Ok(());
        }
        0b100101 => {
            let (imm, by) = (u64::from(field(5, 16)), 16 * field(21, 2));
            match field(29, 2) {
                0 => m.set(d, cut(!(imm << by), wide), 0),
                2 => m.set(d, imm << by, 0),
                3 => {
                    let old = m.get(d);
                    m.set(d, old.v & !(0xffff << by) | imm << by, old.from);
                }
                _ => return Err("move wide".into()),
            }
            return Ok(());
        }
        0b100110 => {
            let bits = if wide { 64 } else { 32 };
            let (r, s) = (field(16, 6), field(10, 6));
            let mask = |n: u32| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
            // The field, where it goes, its width.
            let (v, to, width) = if s >= r {
                (cut(a.v, wide) >> r & mask(s - r + 1), 0, s - r + 1)
            } else {
                (cut(a.v, wide) & mask(s + 1), bits - r, s + 1)
            };
            let old = m.get(d);
            let (r, from) = match field(29, 2) {
                0 => {
                    let up = 64 - width;
                    (cut((((v << up) as i64 >> up) as u64) << to, wide), a.from)
                }
                1 => (cut(old.v & !(mask(width) << to) | v << to, wide), a.from | old.from),
                2 => (cut(v << to, wide), a.from),
                _ => return Err("bit field".into()),
            };
            m.set(d, r, from);
            return Ok(());
        }
        _ => {}
    }
    if field(24, 5) == 0b10000 && !wide {
        let imm = i64::from((field(5, 19) << 2 | field(29, 2)) << 11) >> 11;
        m.set(d, (0x6f00_0000_0000 + 4 * here + imm) as u64, 0);
        return Ok(());
    }
    match field(24, 5) {
        0b01010 => {
            let b = shifted(b.v, field(22, 2), field(10, 6), wide);
            let b = cut(if field(21, 1) == 1 { !b } else { b }, wide);
            let a = cut(a.v, wide);
            let r = match field(29, 2) {
                0 | 3 => a & b,
                1 => a | b,
                _ => a ^ b,
            };
            if field(29, 2) == 3 {
                let n = r >> if wide { 63 } else { 31 };
                m.nzcv = Val { v: ((n as u8) << 3) | u8::from(r == 0) << 2, from: both };
            }
            m.set(d, r, both);
        }
        0b01011 => {
            let extended = field(21, 1) == 1;
            let b = if extended {
                let bits = [8, 16, 32, 64][(field(13, 3) & 3) as usize];
                let up = 64 - bits;
                let v = b.v << up;
                let v = if field(15, 1) == 1 { (v as i64 >> up) as u64 } else { v >> up };
                v << field(10, 3)
            } else {
                shifted(b.v, field(22, 2), field(10, 6), wide)
            };
            let a = if extended { sp(m, n).v } else { a.v };
            let (r, f) = if field(30, 1) == 1 { sum(a, !b, 1, wide) } else { sum(a, b, 0, wide) };
            if field(29, 1) == 1 {
                m.nzcv = Val { v: f, from: both };
            }
            m.set(d, r, both);
        }
        0b11010 if field(21, 3) == 0b100 => {
            // The condition makes no dependency; what is picked does.
            let taken = holds(field(12, 4) as u8, m.nzcv.v);
            let r = if taken {
                a.v
            } else {
                let v = if field(30, 1) == 1 { !b.v } else { b.v };
                v.wrapping_add(u64::from(field(10, 1)))
            };
            m.set(d, cut(r, wide), if taken { a.from } else { b.from });
        }
        0b11010 if field(21, 3) == 0b110 && field(30, 1) == 0 => {
            let by = (b.v & if wide { 63 } else { 31 }) as u32;
            match field(10, 6) {
                8..=11 => m.set(d, shifted(a.v, field(10, 2), by, wide), both),
                _ => return Err("two-source instruction".into()),
            }
        }
        0b11010 if field(21, 3) == 0b110 => {
            let v = cut(a.v, wide);
            let r = match field(10, 6) {
                0 => shifted(v.reverse_bits(), 1, if wide { 0 } else { 32 }, true),
                4 => u64::from(v.leading_zeros()) - if wide { 0 } else { 32 },
                _ => return Err("one-source instruction".into()),
            };
            m.set(d, r, a.from);
        }
        _ => return vector(m, w, d, n, r2),
    }
    Ok(())
}

fn vector(m: &mut Machine<'_>, w: u32, d: u8, n: u8, r2: u8) -> Result<(), String> {
    let (di, vn, vm) = (usize::from(d), m.v[usize::from(n)], m.v[usize::from(r2)]);
    let imm5 = w >> 16 & 31;
    let size = imm5.trailing_zeros().min(3);
    let lane = imm5 >> (size + 1);
    let bits = 8u32 << size;
    let x = m.get(n);
    let mask = u128::from(u64::MAX >> (64 - bits));
    let whole = |v: u128, from: u64| Val { v, from };
    match w {
        // MRS and MSR of NZCV.
        _ if w & !31 == 0xd53b_4200 => m.set(d, u64::from(m.nzcv.v) << 28, m.nzcv.from),
        _ if w & !31 == 0xd51b_4200 => m.nzcv = Val { v: (m.get(d).v >> 28) as u8 & 15, from: m.get(d).from },
        // RMIF, CFINV.
        _ if w & 0xffe0_7c10 == 0xba00_0400 => {
            let v = (x.v.rotate_right(w >> 15 & 63) & 15) as u8;
            let mask = (w & 15) as u8;
            m.nzcv = Val { v: m.nzcv.v & !mask | v & mask, from: m.nzcv.from | x.from };
        }
        0xd500_401f => m.nzcv.v ^= 2,
        // ORR, AND, EOR of whole registers.
        _ if w & 0xffe0_fc00 == 0x4ea0_1c00 => m.v[di] = whole(vn.v | vm.v, vn.from | vm.from),
        _ if w & 0xffe0_fc00 == 0x4e20_1c00 => m.v[di] = whole(vn.v & vm.v, vn.from | vm.from),
        _ if w & 0xffe0_fc00 == 0x6e20_1c00 => m.v[di] = whole(vn.v ^ vm.v, vn.from | vm.from),
        // DUP from a general register.
        _ if w & 0xffe0_fc00 == 0x4e00_0c00 => {
            let v = (0..128 / bits).fold(0, |a, k| a | (u128::from(x.v) & mask) << (k * bits));
            m.v[di] = whole(v, x.from);
        }
        // UMOV.
        _ if w & 0xbfe0_fc00 == 0x0e00_3c00 => m.set(d, (vn.v >> (lane * bits) & mask) as u64, vn.from),
        // INS from a general register and from a lane.
        _ if w & 0xffe0_fc00 == 0x4e00_1c00 => {
            let old = m.v[di];
            let at = lane * bits;
            m.v[di] = whole(old.v & !(mask << at) | (u128::from(x.v) & mask) << at, old.from | x.from);
        }
        _ if w & 0xffe0_8400 == 0x6e00_0400 => {
            let old = m.v[di];
            let from = (w >> 11 & 15) >> size;
            let at = lane * bits;
            m.v[di] = whole(old.v & !(mask << at) | (vn.v >> (from * bits) & mask) << at, old.from | vn.from);
        }
        // DUP of one lane into a scalar register.
        _ if w & 0xffe0_fc00 == 0x5e00_0400 => m.v[di] = whole(vn.v >> (lane * bits) & mask, vn.from),
        // FMOV between general and vector registers, and of scalars.
        _ if w & 0xffff_fc00 == 0x9e67_0000 => m.v[di] = whole(u128::from(x.v), x.from),
        _ if w & 0xffff_fc00 == 0x1e27_0000 => m.v[di] = whole(u128::from(x.v as u32), x.from),
        _ if w & 0xffff_fc00 == 0x9e66_0000 => m.set(d, vn.v as u64, vn.from),
        _ if w & 0xffff_fc00 == 0x1e26_0000 => m.set(d, vn.v as u32 as u64, vn.from),
        _ if w & 0xffff_fc00 == 0x1e60_4000 => m.v[di] = whole(vn.v as u64 as u128, vn.from),
        // MOVI of zero.
        _ if w & 0xffff_ffe0 == 0x6f00_e400 || w & 0xffff_ffe0 == 0x4f00_e400 => m.v[di] = whole(0, 0),
        _ => return Err("not an instruction that is known here".into()),
    }
    Ok(())
}
