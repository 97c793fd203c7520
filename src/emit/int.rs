//! Integer instructions (Arm ARM, C6.2), one method each.

use super::{Addr, Cond, Masm, Sz, V, X};
use dynasmrt::{DynasmApi, dynasm};

/// `name(sz, d, n, m)`: three registers.
macro_rules! rrr {
    ($($name:ident $op:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, m: X) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op W(d.0), W(n.0), W(m.0)),
                Sz::X => dynasm!(self.a; .arch aarch64; $op X(d.0), X(n.0), X(m.0)),
            }
        }
    )*};
}

/// `name(sz, d, n, m, shift)`: the last register shifted left, right or arithmetically right by a constant.
macro_rules! rrr_shifted {
    ($($name:ident $op:ident $shift:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, m: X, by: u32) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op W(d.0), W(n.0), W(m.0), $shift by),
                Sz::X => dynasm!(self.a; .arch aarch64; $op X(d.0), X(n.0), X(m.0), $shift by),
            }
        }
    )*};
}

/// `name(sz, d, n)`: two registers.
macro_rules! rr {
    ($($name:ident $op:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op W(d.0), W(n.0)),
                Sz::X => dynasm!(self.a; .arch aarch64; $op X(d.0), X(n.0)),
            }
        }
    )*};
}

/// `name(sz, d, n, imm)`: a bitmask immediate; the caller has asked [`super::imm::fits_logical`].
macro_rules! logical_imm {
    ($($name:ident $op:ident $w:ident $x:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, imm: u64) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op $w(d.0), W(n.0), imm as u32),
                Sz::X => dynasm!(self.a; .arch aarch64; $op $x(d.0), X(n.0), imm),
            }
        }
    )*};
}

/// `name(sz, d, n, imm)`: an add/sub immediate; the caller has asked [`super::imm::fits_add`].
macro_rules! add_imm {
    ($($name:ident $op:ident $w:ident $x:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, imm: u32) {
            let (v, by) = if imm < 0x1000 { (imm, 0) } else { (imm >> 12, 12) };
            match (sz, by) {
                (Sz::W, 0) => dynasm!(self.a; .arch aarch64; $op $w(d.0), WSP(n.0), v),
                (Sz::W, _) => dynasm!(self.a; .arch aarch64; $op $w(d.0), WSP(n.0), v, lsl 12),
                (Sz::X, 0) => dynasm!(self.a; .arch aarch64; $op $x(d.0), XSP(n.0), v),
                (Sz::X, _) => dynasm!(self.a; .arch aarch64; $op $x(d.0), XSP(n.0), v, lsl 12),
            }
        }
    )*};
}

/// `name(sz, d, n, lsb, width)`: bit-field moves.
macro_rules! bitfield {
    ($($name:ident $op:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, lsb: u32, width: u32) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op W(d.0), W(n.0), lsb, width),
                Sz::X => dynasm!(self.a; .arch aarch64; $op X(d.0), X(n.0), lsb, width),
            }
        }
    )*};
}

/// `name(sz, d, n, imm)`: shifts by a constant below the width.
macro_rules! shift_imm {
    ($($name:ident $op:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, by: u32) {
            match sz {
                Sz::W => dynasm!(self.a; .arch aarch64; $op W(d.0), W(n.0), by),
                Sz::X => dynasm!(self.a; .arch aarch64; $op X(d.0), X(n.0), by),
            }
        }
    )*};
}

/// `name(sz, d, n, m, cond)`: conditional selects.
macro_rules! select {
    ($($name:ident $op:ident;)*) => {$(
        pub fn $name(&mut self, sz: Sz, d: X, n: X, m: X, c: Cond) {
            let base = match sz { Sz::W => 0u32, Sz::X => 1 << 31 };
            self.word(base | select_base(stringify!($op)) | u32::from(m.0) << 16 | (c as u32) << 12 | u32::from(n.0) << 5 | u32::from(d.0));
        }
    )*};
}

/// CSEL and its relatives take the condition as a field, which is not a token here (Arm ARM, C4.1.95).
const fn select_base(op: &str) -> u32 {
    match op.as_bytes() {
        b"csel" => 0x1a80_0000,
        b"csinc" => 0x1a80_0400,
        b"csinv" => 0x5a80_0000,
        _ => 0x5a80_0400,
    }
}

impl Masm {
    rrr! {
        add add; adds adds; sub sub; subs subs; adc adc; adcs adcs; sbc sbc; sbcs sbcs;
        and and; ands ands; orr orr; eor eor; bic bic; orn orn; eon eon; bics bics;
        lslv lsl; lsrv lsr; asrv asr; rorv ror; udiv udiv; sdiv sdiv; mul mul;
    }
    rrr_shifted! {
        add_lsl add lsl; sub_lsl sub lsl; adds_lsl adds lsl; subs_lsl subs lsl; orr_lsl orr lsl; and_lsl and lsl; eor_lsl eor lsl;
        add_lsr add lsr; orr_lsr orr lsr; eor_lsr eor lsr; and_lsr and lsr; ands_lsl ands lsl; sub_asr sub asr; subs_asr subs asr;
        eor_asr eor asr; and_asr and asr; orr_asr orr asr; eor_ror eor ror; bic_lsl bic lsl; ands_asr ands asr; ands_lsr ands lsr;
        sub_lsr sub lsr;
    }
    rr! { mov mov; mvn mvn; neg neg; clz clz; cls cls; rbit rbit; rev rev; ngc ngc; rev16 rev16; }
    logical_imm! { and_imm and WSP XSP; orr_imm orr WSP XSP; eor_imm eor WSP XSP; ands_imm ands W X; }
    add_imm! { add_imm add WSP XSP; sub_imm sub WSP XSP; adds_imm adds W X; subs_imm subs W X; }
    bitfield! { bfi bfi; bfxil bfxil; ubfx ubfx; sbfx sbfx; ubfiz ubfiz; sbfiz sbfiz; }
    shift_imm! { lsl lsl; lsr lsr; asr asr; ror ror; }
    select! { csel csel; csinc csinc; csinv csinv; csneg csneg; }

    /// Rd = condition ? 1 : 0.
    pub fn cset(&mut self, d: X, c: Cond) {
        self.csinc(Sz::W, d, super::ZR, super::ZR, c.invert());
    }

    /// CCMP/CCMN with a register: flags of `n - m` (or `n + m`) if `c`, else the four bits `nzcv` (N is bit 3).
    pub fn ccmp(&mut self, sz: Sz, n: X, m: X, nzcv: u32, c: Cond) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x7a40_0000 | sf | u32::from(m.0) << 16 | (c as u32) << 12 | u32::from(n.0) << 5 | nzcv);
    }

    /// CCMP with a 5-bit immediate.
    pub fn ccmp_imm(&mut self, sz: Sz, n: X, imm: u32, nzcv: u32, c: Cond) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x7a40_0800 | sf | (imm & 31) << 16 | (c as u32) << 12 | u32::from(n.0) << 5 | nzcv);
    }

    /// CCMN with a 5-bit immediate: flags of `n + imm` if `c`, else the four bits `nzcv`.
    pub fn ccmn_imm(&mut self, sz: Sz, n: X, imm: u32, nzcv: u32, c: Cond) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x3a40_0800 | sf | (imm & 31) << 16 | (c as u32) << 12 | u32::from(n.0) << 5 | nzcv);
    }

    /// Compares `n` with `m` extended from 8, 16 or 32 bits (CMP, extended register). `n` 31 would be SP.
    pub fn cmp_ext(&mut self, sz: Sz, n: X, m: X, bytes: u32, signed: bool) {
        let sf = u32::from(sz == Sz::X) << 31;
        let option = bytes.trailing_zeros() | u32::from(signed) << 2;
        self.word(0x6b20_001f | sf | u32::from(m.0) << 16 | option << 13 | u32::from(n.0) << 5);
    }

    /// `d = n + m` with `m` extended from 32 bits. `n` 31 would be SP.
    pub fn add_uxtw(&mut self, d: X, n: X, m: X) {
        self.word(0x8b20_4000 | u32::from(m.0) << 16 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// Bits set in `n`, through vector register `v`: four words.
    pub fn popcount(&mut self, sz: Sz, d: X, n: X, v: V) {
        match sz {
            Sz::W => dynasm!(self.a; .arch aarch64; fmov S(v.0), W(n.0)),
            Sz::X => dynasm!(self.a; .arch aarch64; fmov D(v.0), X(n.0)),
        }
        dynasm!(self.a; .arch aarch64; cnt V(v.0).b8, V(v.0).b8; addv B(v.0), V(v.0).b8; fmov W(d.0), S(v.0));
    }

    /// The virtual counter, after everything before it (ISB, then CNTVCT_EL0): two words.
    pub fn mrs_cntvct(&mut self, d: X) {
        self.word(0xd503_3fdf);
        self.word(0xd53b_e040 | u32::from(d.0));
    }

    /// A hint that the thread spins.
    pub fn yield_(&mut self) {
        self.word(0xd503_203f);
    }

    /// Prefetch of `[n]`; `op` is the 5-bit prfop.
    pub fn prfm(&mut self, op: u32, n: X) {
        self.word(0xf980_0000 | u32::from(n.0) << 5 | op);
    }

    /// `ldp a, b, [n, #off]` of two 128-bit vectors.
    pub fn ldp_q(&mut self, a: V, b: V, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; ldp Q(a.0), Q(b.0), [XSP(n.0), off])
    }

    pub fn stp_q(&mut self, a: V, b: V, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; stp Q(a.0), Q(b.0), [XSP(n.0), off])
    }

    /// `stp a, b, [n], #off` of two 128-bit vectors.
    pub fn stp_q_post(&mut self, a: V, b: V, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; stp Q(a.0), Q(b.0), [XSP(n.0)], off)
    }

    /// Every lane of `bytes` (1, 2, 4, 8) of a vector gets the low part of `n`.
    pub fn dup_all(&mut self, bytes: u32, d: V, n: X) {
        match bytes {
            1 => dynasm!(self.a; .arch aarch64; dup V(d.0).b16, W(n.0)),
            2 => dynasm!(self.a; .arch aarch64; dup V(d.0).h8, W(n.0)),
            4 => dynasm!(self.a; .arch aarch64; dup V(d.0).s4, W(n.0)),
            _ => dynasm!(self.a; .arch aarch64; dup V(d.0).d2, X(n.0)),
        }
    }

    pub fn movz(&mut self, sz: Sz, d: X, v: u16, chunk: u32) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x5280_0000 | sf | chunk << 21 | u32::from(v) << 5 | u32::from(d.0));
    }

    pub fn movn(&mut self, sz: Sz, d: X, v: u16, chunk: u32) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x1280_0000 | sf | chunk << 21 | u32::from(v) << 5 | u32::from(d.0));
    }

    pub fn movk(&mut self, sz: Sz, d: X, v: u16, chunk: u32) {
        let sf = u32::from(sz == Sz::X) << 31;
        self.word(0x7280_0000 | sf | chunk << 21 | u32::from(v) << 5 | u32::from(d.0));
    }

    /// 128-bit shift right of `n:m` by a constant, low half.
    pub fn extr(&mut self, sz: Sz, d: X, n: X, m: X, by: u32) {
        match sz {
            Sz::W => dynasm!(self.a; .arch aarch64; extr W(d.0), W(n.0), W(m.0), by),
            Sz::X => dynasm!(self.a; .arch aarch64; extr X(d.0), X(n.0), X(m.0), by),
        }
    }

    pub fn madd(&mut self, sz: Sz, d: X, n: X, m: X, a: X) {
        match sz {
            Sz::W => dynasm!(self.a; .arch aarch64; madd W(d.0), W(n.0), W(m.0), W(a.0)),
            Sz::X => dynasm!(self.a; .arch aarch64; madd X(d.0), X(n.0), X(m.0), X(a.0)),
        }
    }

    pub fn msub(&mut self, sz: Sz, d: X, n: X, m: X, a: X) {
        match sz {
            Sz::W => dynasm!(self.a; .arch aarch64; msub W(d.0), W(n.0), W(m.0), W(a.0)),
            Sz::X => dynasm!(self.a; .arch aarch64; msub X(d.0), X(n.0), X(m.0), X(a.0)),
        }
    }

    pub fn umull(&mut self, d: X, n: X, m: X) {
        dynasm!(self.a; .arch aarch64; umull X(d.0), W(n.0), W(m.0))
    }

    pub fn smull(&mut self, d: X, n: X, m: X) {
        dynasm!(self.a; .arch aarch64; smull X(d.0), W(n.0), W(m.0))
    }

    pub fn umulh(&mut self, d: X, n: X, m: X) {
        dynasm!(self.a; .arch aarch64; umulh X(d.0), X(n.0), X(m.0))
    }

    pub fn smulh(&mut self, d: X, n: X, m: X) {
        dynasm!(self.a; .arch aarch64; smulh X(d.0), X(n.0), X(m.0))
    }

    /// Sign- or zero-extends the low `bits` (8, 16 or 32) of `n`.
    pub fn sext(&mut self, sz: Sz, d: X, n: X, bits: u32) {
        self.sbfx(sz, d, n, 0, bits);
    }

    pub fn nop(&mut self) {
        self.word(0xd503_201f);
    }

    pub fn brk(&mut self, imm: u16) {
        self.word(0xd420_0000 | u32::from(imm) << 5);
    }

    pub fn br(&mut self, n: X) {
        dynasm!(self.a; .arch aarch64; br X(n.0))
    }

    pub fn blr(&mut self, n: X) {
        dynasm!(self.a; .arch aarch64; blr X(n.0))
    }

    pub fn ret(&mut self, n: X) {
        dynasm!(self.a; .arch aarch64; ret X(n.0))
    }

    /// NZCV to a register.
    pub fn mrs_nzcv(&mut self, d: X) {
        self.word(0xd53b_4200 | u32::from(d.0));
    }

    /// A register to NZCV.
    pub fn msr_nzcv(&mut self, n: X) {
        self.word(0xd51b_4200 | u32::from(n.0));
    }

    /// FPCR, FPSR to and from a register.
    pub fn mrs_fpcr(&mut self, d: X) {
        self.word(0xd53b_4400 | u32::from(d.0));
    }

    pub fn msr_fpcr(&mut self, n: X) {
        self.word(0xd51b_4400 | u32::from(n.0));
    }

    pub fn mrs_fpsr(&mut self, d: X) {
        self.word(0xd53b_4420 | u32::from(d.0));
    }

    pub fn msr_fpsr(&mut self, n: X) {
        self.word(0xd51b_4420 | u32::from(n.0));
    }

    /// Inverts C (FEAT_FlagM).
    pub fn cfinv(&mut self) {
        self.word(0xd500_401f);
    }

    /// Turns FCMP's flags into ZF and an inverted CF, N and V zero (FEAT_FlagM2).
    pub fn axflag(&mut self) {
        self.word(0xd500_405f);
    }

    /// Rotates `n` right and inserts bits chosen by `mask` into NZCV (FEAT_FlagM).
    pub fn rmif(&mut self, n: X, by: u32, mask: u32) {
        self.word(0xba00_0400 | by << 15 | u32::from(n.0) << 5 | mask);
    }

    /// N, Z, V from the low 8 bits, as after an 8-bit operation (FEAT_FlagM).
    pub fn setf8(&mut self, n: X) {
        self.word(0x3a00_080d | u32::from(n.0) << 5);
    }

    pub fn setf16(&mut self, n: X) {
        self.word(0x3a00_480d | u32::from(n.0) << 5);
    }

    /// CRC-32C of `bytes` (1, 2, 4, 8) of `m` onto `n` (FEAT_CRC32).
    pub fn crc32c(&mut self, d: X, n: X, m: X, bytes: u32) {
        match bytes {
            1 => dynasm!(self.a; .arch aarch64; crc32cb W(d.0), W(n.0), W(m.0)),
            2 => dynasm!(self.a; .arch aarch64; crc32ch W(d.0), W(n.0), W(m.0)),
            4 => dynasm!(self.a; .arch aarch64; crc32cw W(d.0), W(n.0), W(m.0)),
            _ => dynasm!(self.a; .arch aarch64; crc32cx W(d.0), W(n.0), X(m.0)),
        }
    }

    /// Plain load of `bytes` (1, 2, 4, 8), zero-extended.
    pub fn ldr(&mut self, bytes: u32, d: X, at: Addr) {
        self.ls(bytes, 1, d.0, at, false);
    }

    /// Plain load of `bytes` (1, 2, 4), sign-extended to `to`.
    pub fn ldrs(&mut self, bytes: u32, to: Sz, d: X, at: Addr) {
        self.ls(bytes, if to == Sz::X { 2 } else { 3 }, d.0, at, false);
    }

    /// Plain store of the low `bytes` of `s`.
    pub fn str(&mut self, bytes: u32, s: X, at: Addr) {
        self.ls(bytes, 0, s.0, at, false);
    }

    /// Plain vector load of `bytes` (1, 2, 4, 8, 16); the rest of the register becomes zero.
    pub fn ldr_v(&mut self, bytes: u32, d: V, at: Addr) {
        let opc = if bytes == 16 { 3 } else { 1 };
        self.ls(bytes, opc, d.0, at, true);
    }

    pub fn str_v(&mut self, bytes: u32, s: V, at: Addr) {
        let opc = if bytes == 16 { 2 } else { 0 };
        self.ls(bytes, opc, s.0, at, true);
    }

    /// Stores, then adds `by` (below 256) to `n`.
    pub fn str_v_post(&mut self, bytes: u32, s: V, n: X, by: u32) {
        let (size, opc) = if bytes == 16 { (0, 2) } else { (bytes.trailing_zeros(), 0) };
        self.word(size << 30 | 0x3c00_0400 | opc << 22 | (by & 0xff) << 12 | u32::from(n.0) << 5 | u32::from(s.0));
    }

    /// Load/store register, all its forms: unsigned scaled offset, unscaled offset, register offset (Arm ARM, C4.1.94).
    /// The caller has made the address fit ([`Addr`], [`fits_offset`]).
    fn ls(&mut self, bytes: u32, opc: u32, t: u8, at: Addr, v: bool) {
        let size = if bytes == 16 { 0 } else { bytes.trailing_zeros() };
        let base = size << 30 | 0x3800_0000 | u32::from(v) << 26 | opc << 22 | u32::from(t);
        match at {
            Addr::Off(n, off) => {
                let scale = bytes.trailing_zeros();
                let n = u32::from(n.0) << 5;
                if off >= 0 && (off as u32).is_multiple_of(bytes) && (off as u32 >> scale) < 4096 {
                    self.word(base | 0x0100_0000 | (off as u32 >> scale) << 10 | n);
                } else {
                    debug_assert!((-256..256).contains(&off), "offset {off} does not fit");
                    self.word(base | (off as u32 & 0x1ff) << 12 | n);
                }
            }
            Addr::Idx(n, m, shift) => {
                let s = u32::from(shift != 0) << 12;
                self.word(base | 0x0020_0800 | 0x6000 | s | u32::from(m.0) << 16 | u32::from(n.0) << 5);
            }
        }
    }

    /// `ldr d, [n], #off`.
    pub fn ldr_post(&mut self, bytes: u32, d: X, n: X, off: i32) {
        self.word(
            bytes.trailing_zeros() << 30
                | 0x3840_0400
                | (off as u32 & 0x1ff) << 12
                | u32::from(n.0) << 5
                | u32::from(d.0),
        );
    }

    /// `str s, [n, #off]!`.
    pub fn str_pre(&mut self, bytes: u32, s: X, n: X, off: i32) {
        self.word(
            bytes.trailing_zeros() << 30
                | 0x3800_0c00
                | (off as u32 & 0x1ff) << 12
                | u32::from(n.0) << 5
                | u32::from(s.0),
        );
    }

    /// `str s, [n], #off`.
    pub fn str_post(&mut self, bytes: u32, s: X, n: X, off: i32) {
        self.word(
            bytes.trailing_zeros() << 30
                | 0x3800_0400
                | (off as u32 & 0x1ff) << 12
                | u32::from(n.0) << 5
                | u32::from(s.0),
        );
    }

    /// `stp a, b, [n, #off]!`, 64-bit.
    pub fn stp_pre(&mut self, a: X, b: X, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; stp X(a.0), X(b.0), [XSP(n.0), off]!)
    }

    /// `ldp a, b, [n], #off`, 64-bit.
    pub fn ldp_post(&mut self, a: X, b: X, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; ldp X(a.0), X(b.0), [XSP(n.0)], off)
    }

    pub fn stp(&mut self, a: X, b: X, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; stp X(a.0), X(b.0), [XSP(n.0), off])
    }

    pub fn ldp(&mut self, a: X, b: X, n: X, off: i32) {
        dynasm!(self.a; .arch aarch64; ldp X(a.0), X(b.0), [XSP(n.0), off])
    }

    /// LDAPR (FEAT_LRCPC), zero-extending.
    pub fn ldapr(&mut self, bytes: u32, d: X, n: X) {
        self.word(bytes.trailing_zeros() << 30 | 0x38bf_c000 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// LDAPUR (FEAT_LRCPC2), zero-extending; offset in -256..256.
    pub fn ldapur(&mut self, bytes: u32, d: X, n: X, off: i32) {
        self.word(
            bytes.trailing_zeros() << 30
                | 0x1940_0000
                | (off as u32 & 0x1ff) << 12
                | u32::from(n.0) << 5
                | u32::from(d.0),
        );
    }

    pub fn stlur(&mut self, bytes: u32, s: X, n: X, off: i32) {
        self.word(
            bytes.trailing_zeros() << 30
                | 0x1900_0000
                | (off as u32 & 0x1ff) << 12
                | u32::from(n.0) << 5
                | u32::from(s.0),
        );
    }

    pub fn ldar(&mut self, bytes: u32, d: X, n: X) {
        self.word(bytes.trailing_zeros() << 30 | 0x08df_fc00 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    pub fn stlr(&mut self, bytes: u32, s: X, n: X) {
        self.word(bytes.trailing_zeros() << 30 | 0x089f_fc00 | u32::from(n.0) << 5 | u32::from(s.0));
    }

    pub fn ldaxr(&mut self, bytes: u32, d: X, n: X) {
        self.word(bytes.trailing_zeros() << 30 | 0x085f_fc00 | u32::from(n.0) << 5 | u32::from(d.0));
    }

    /// `s` becomes 0 on success, 1 when the exclusive monitor was lost.
    pub fn stlxr(&mut self, bytes: u32, s: X, t: X, n: X) {
        self.word(
            bytes.trailing_zeros() << 30 | 0x0800_fc00 | u32::from(s.0) << 16 | u32::from(n.0) << 5 | u32::from(t.0),
        );
    }

    /// LDXP/STXP of two 64-bit registers with acquire/release.
    pub fn ldaxp(&mut self, a: X, b: X, n: X) {
        self.word(0xc87f_8000 | u32::from(b.0) << 10 | u32::from(n.0) << 5 | u32::from(a.0));
    }

    pub fn stlxp(&mut self, s: X, a: X, b: X, n: X) {
        self.word(0xc820_8000 | u32::from(s.0) << 16 | u32::from(b.0) << 10 | u32::from(n.0) << 5 | u32::from(a.0));
    }

    /// LSE read-modify-write with acquire and release: `t` = old value at `[n]`.
    pub fn lse(&mut self, op: Lse, bytes: u32, s: X, t: X, n: X) {
        let op = match op {
            Lse::Add => 0x0000,
            Lse::Clr => 0x1000,
            Lse::Eor => 0x2000,
            Lse::Set => 0x3000,
            Lse::Swp => 0x8000,
        };
        self.word(
            bytes.trailing_zeros() << 30
                | 0x38e0_0000
                | op
                | u32::from(s.0) << 16
                | u32::from(n.0) << 5
                | u32::from(t.0),
        );
    }

    /// CASAL: compares `[n]` with `s`, stores `t` if equal; `s` = old value.
    pub fn casal(&mut self, bytes: u32, s: X, t: X, n: X) {
        self.word(
            bytes.trailing_zeros() << 30 | 0x08e0_fc00 | u32::from(s.0) << 16 | u32::from(n.0) << 5 | u32::from(t.0),
        );
    }

    /// CASPAL of the 64-bit pairs starting at even registers `s` and `t`.
    pub fn caspal(&mut self, s: X, t: X, n: X) {
        self.word(0x4860_fc00 | u32::from(s.0) << 16 | u32::from(n.0) << 5 | u32::from(t.0));
    }

    pub fn dmb(&mut self, kind: Dmb) {
        self.word(0xd503_30bf | (kind as u32) << 8);
    }
}

/// LSE operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lse {
    Add,
    Clr,
    Eor,
    Set,
    Swp,
}

/// Inner-shareable barriers by CRm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Dmb {
    Ishld = 0b1001,
    Ishst = 0b1010,
    Ish = 0b1011,
}

/// Whether `off` fits a plain load or store of `bytes`.
pub fn fits_offset(bytes: u32, off: i64) -> bool {
    (-256..256).contains(&off) || off >= 0 && off % i64::from(bytes) == 0 && off / i64::from(bytes) < 4096
}
