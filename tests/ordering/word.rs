//! AArch64 words as far as memory order is concerned: every load, store, atomic, barrier and branch (Arm ARM, C4.1). What else a word does is
//! left to who runs it ([`Op::Other`]). A load or store that is not known here is an error, never something else.

/// How a load or store is ordered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Plain,
    /// LDAPR: acquire, but may pass an earlier release.
    AcquirePc,
    Acquire,
    Release,
}

/// How the address comes about; register 31 is SP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Base plus offset.
    Offset(u8, i64),
    /// Base plus register, as extended by `option` and shifted.
    Index(u8, u8, u32, u32),
    /// Base plus offset, which the base becomes.
    Pre(u8, i64),
    /// Base, which becomes base plus offset.
    Post(u8, i64),
}

impl At {
    pub fn base(self) -> u8 {
        match self {
            At::Offset(n, _) | At::Index(n, ..) | At::Pre(n, _) | At::Post(n, _) => n,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lse {
    Add,
    Clr,
    Eor,
    Set,
    Swp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    Full,
    Load,
    Store,
    Instruction,
}

/// A condition on registers or flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Always,
    Flags(u8),
    /// Whole register (`wide`: 64 bits) is not zero.
    Zero {
        t: u8,
        wide: bool,
        nonzero: bool,
    },
    Bit {
        t: u8,
        bit: u32,
        set: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `t2` for pairs. `sign`: sign-extended to this many bits. `v`: vector registers.
    Load {
        bytes: u32,
        t: u8,
        t2: Option<u8>,
        at: At,
        order: Order,
        exclusive: bool,
        sign: Option<u32>,
        v: bool,
    },
    /// `status` for exclusive stores.
    Store {
        bytes: u32,
        t: u8,
        t2: Option<u8>,
        at: At,
        order: Order,
        status: Option<u8>,
        v: bool,
    },
    Lse {
        op: Lse,
        bytes: u32,
        s: u8,
        t: u8,
        n: u8,
        acquire: bool,
        release: bool,
    },
    Cas {
        bytes: u32,
        s: u8,
        t: u8,
        n: u8,
        acquire: bool,
        release: bool,
        pair: bool,
    },
    Literal {
        bytes: u32,
        t: u8,
        to: i64,
        v: bool,
    },
    Barrier(Barrier),
    /// To a word relative to this one.
    Branch {
        to: i64,
        test: Test,
        link: bool,
    },
    Indirect {
        n: u8,
        link: bool,
    },
    /// Prefetches and hints.
    Nothing,
    Other,
}

fn signed(v: u32, bits: u32) -> i64 {
    i64::from((v << (32 - bits)) as i32 >> (32 - bits))
}

/// What `w` is.
pub fn decode(w: u32) -> Result<Op, String> {
    match w >> 25 & 15 {
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory(w).ok_or_else(|| format!("load or store {w:08x} is not known")),
        0b1010 | 0b1011 => branch(w).ok_or_else(|| format!("branch or system instruction {w:08x} is not known")),
        _ => Ok(Op::Other),
    }
}

fn memory(w: u32) -> Option<Op> {
    let field = |lsb: u32, bits: u32| w >> lsb & ((1 << bits) - 1);
    let (size, v, t, n) = (field(30, 2), field(26, 1) == 1, field(0, 5) as u8, field(5, 5) as u8);
    let (s, t2) = (field(16, 5) as u8, field(10, 5) as u8);
    match field(24, 6) {
        0b00_1000 => return exclusive(w),
        // Load/store acquire/release, unscaled (FEAT_LRCPC2).
        0b01_1001 if field(21, 1) == 0 && field(10, 2) == 0 => {
            let at = At::Offset(n, signed(field(12, 9), 9));
            let (bytes, order) = (1 << size, Order::AcquirePc);
            let load = |sign| Op::Load { bytes, t, t2: None, at, order, exclusive: false, sign, v: false };
            return Some(match field(22, 2) {
                0 => Op::Store { bytes, t, t2: None, at, order: Order::Release, status: None, v: false },
                1 => load(None),
                2 => load(Some(64)),
                _ => load(Some(32)),
            });
        }
        _ => {}
    }
    if field(27, 3) == 0b011 && field(24, 2) == 0 {
        let to = signed(field(5, 19), 19);
        let bytes = match (size, v) {
            (3, false) => return Some(Op::Nothing),
            (0..=1, false) => 4 << size,
            (0..=2, true) => 4 << size,
            _ => return None,
        };
        return Some(Op::Literal { bytes, t, to, v });
    }
    if field(27, 3) == 0b101 && field(25, 1) == 0 {
        let bytes = match (size, v) {
            (0, false) => 4,
            (2, false) => 8,
            (0..=2, true) => 4 << size,
            _ => return None,
        };
        let off = signed(field(15, 7), 7) * i64::from(bytes);
        let at = match field(23, 2) {
            1 => At::Post(n, off),
            3 => At::Pre(n, off),
            _ => At::Offset(n, off),
        };
        let (t2, order) = (Some(t2), Order::Plain);
        return Some(if field(22, 1) == 1 {
            Op::Load { bytes, t, t2, at, order, exclusive: false, sign: None, v }
        } else {
            Op::Store { bytes, t, t2, at, order, status: None, v }
        });
    }
    if field(27, 3) != 0b111 || field(25, 1) != 0 {
        return None;
    }
    let (opc, scaled, register) = (field(22, 2), field(24, 1) == 1, field(21, 1) == 1);
    if !scaled && register && field(10, 2) == 0 {
        return if v { None } else { atomic(w) };
    }
    let bytes = if v && opc & 2 != 0 { if size == 0 { 16 } else { return None } } else { 1 << size };
    let log = u32::trailing_zeros(bytes);
    let at = match (scaled, register, field(10, 2)) {
        (true, ..) => At::Offset(n, i64::from(field(10, 12)) << log),
        (false, false, 0) => At::Offset(n, signed(field(12, 9), 9)),
        (false, false, 1) => At::Post(n, signed(field(12, 9), 9)),
        (false, false, 3) => At::Pre(n, signed(field(12, 9), 9)),
        (false, true, 2) => At::Index(n, s, field(13, 3), if field(12, 1) == 1 { log } else { 0 }),
        _ => return None,
    };
    let load = |sign| Op::Load { bytes, t, t2: None, at, order: Order::Plain, exclusive: false, sign, v };
    Some(match (opc, v, size) {
        (0, ..) | (2, true, _) => Op::Store { bytes, t, t2: None, at, order: Order::Plain, status: None, v },
        (1, ..) | (3, true, _) => load(None),
        (2, false, 3) => Op::Nothing,
        (2, false, _) => load(Some(64)),
        (3, false, 0 | 1) => load(Some(32)),
        _ => return None,
    })
}

/// Exclusives, LDAR, STLR, CAS, CASP.
fn exclusive(w: u32) -> Option<Op> {
    let field = |lsb: u32, bits: u32| w >> lsb & ((1 << bits) - 1);
    let (size, t, n) = (field(30, 2), field(0, 5) as u8, field(5, 5) as u8);
    let (s, t2) = (field(16, 5) as u8, field(10, 5) as u8);
    let (load, o0) = (field(22, 1) == 1, field(15, 1) == 1);
    let (bytes, at) = (1 << size, At::Offset(n, 0));
    Some(match (field(23, 1), field(21, 1)) {
        (0, 1) if size < 2 => {
            let bytes = 4 << size;
            (t2 == 31).then_some(Op::Cas { bytes, s, t, n, acquire: load, release: o0, pair: true })?
        }
        (0, pair) => {
            let t2 = (pair == 1).then_some(t2);
            if load {
                let order = if o0 { Order::Acquire } else { Order::Plain };
                Op::Load { bytes, t, t2, at, order, exclusive: true, sign: None, v: false }
            } else {
                let order = if o0 { Order::Release } else { Order::Plain };
                Op::Store { bytes, t, t2, at, order, status: Some(s), v: false }
            }
        }
        (1, 0) if o0 && load => {
            Op::Load { bytes, t, t2: None, at, order: Order::Acquire, exclusive: false, sign: None, v: false }
        }
        (1, 0) if o0 => Op::Store { bytes, t, t2: None, at, order: Order::Release, status: None, v: false },
        (1, 1) if t2 == 31 => Op::Cas { bytes, s, t, n, acquire: load, release: o0, pair: false },
        _ => return None,
    })
}

/// LDADD and its like, SWP, LDAPR.
fn atomic(w: u32) -> Option<Op> {
    let field = |lsb: u32, bits: u32| w >> lsb & ((1 << bits) - 1);
    let (bytes, t, n, s) = (1 << field(30, 2), field(0, 5) as u8, field(5, 5) as u8, field(16, 5) as u8);
    let (acquire, release) = (field(23, 1) == 1, field(22, 1) == 1);
    let op = match field(12, 4) {
        0 => Lse::Add,
        1 => Lse::Clr,
        2 => Lse::Eor,
        3 => Lse::Set,
        8 => Lse::Swp,
        0b1100 if acquire && !release && s == 31 => {
            let (at, order) = (At::Offset(n, 0), Order::AcquirePc);
            return Some(Op::Load { bytes, t, t2: None, at, order, exclusive: false, sign: None, v: false });
        }
        _ => return None,
    };
    Some(Op::Lse { op, bytes, s, t, n, acquire, release })
}

fn branch(w: u32) -> Option<Op> {
    let t = (w & 31) as u8;
    let by = |lsb: u32, bits: u32| signed(w >> lsb & ((1 << bits) - 1), bits);
    Some(match w >> 24 {
        x if x & 0x7c == 0x14 => Op::Branch { to: by(0, 26), test: Test::Always, link: x & 0x80 != 0 },
        0x34 | 0x35 | 0xb4 | 0xb5 => {
            let test = Test::Zero { t, wide: w >> 31 == 1, nonzero: w >> 24 & 1 == 1 };
            Op::Branch { to: by(5, 19), test, link: false }
        }
        0x36 | 0x37 | 0xb6 | 0xb7 => {
            let test = Test::Bit { t, bit: w >> 31 << 5 | w >> 19 & 31, set: w >> 24 & 1 == 1 };
            Op::Branch { to: by(5, 14), test, link: false }
        }
        0x54 if w & 0x10 == 0 => Op::Branch { to: by(5, 19), test: Test::Flags((w & 15) as u8), link: false },
        0xd6 if w & 0xff9f_fc1f == 0xd61f_0000 && w >> 21 & 3 != 3 => {
            Op::Indirect { n: (w >> 5 & 31) as u8, link: w >> 21 & 3 == 1 }
        }
        0xd5 => match w {
            _ if w & 0xffff_f01f == 0xd503_201f => Op::Nothing,
            _ if w & 0xffff_f0ff == 0xd503_30df => Op::Barrier(Barrier::Instruction),
            // DSB and DMB. The domain makes no difference among the processors of one system.
            _ if matches!(w & 0xffff_f0ff, 0xd503_30bf | 0xd503_309f) => Op::Barrier(match w >> 8 & 3 {
                1 => Barrier::Load,
                2 => Barrier::Store,
                3 => Barrier::Full,
                _ => return None,
            }),
            // System registers and flag manipulation.
            _ if w & 0xffd0_0000 == 0xd510_0000 || w & 0xffff_ff1f == 0xd500_401f => Op::Other,
            _ => return None,
        },
        // Exception generation.
        0xd4 => Op::Other,
        _ => return None,
    })
}
