//! x87 instructions on the register stack: operands, stack faults, flags, pops (SDM vol. 1, chapter 8). Arithmetic is `f80`'s; memory operands come and
//! go as raw bits. Must not know guest memory or translated code.
//!
//! An instruction whose unmasked exception comes before its result changes the status word only: no write, no push, no pop.

use crate::helpers::f80::arith::{self, Compared, Op};
use crate::helpers::f80::convert::{self, DOUBLE, SINGLE};
use crate::helpers::f80::{Class, Env, F80, Order, Rounding, scale, sw, transcendental};
use crate::state::{X87, X87Reg};

/// A number as memory holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    F32 = 0,
    F64 = 1,
    I16 = 2,
    I32 = 3,
    I64 = 4,
    F80 = 5,
    Bcd = 6,
}

impl Format {
    pub fn from_raw(v: u64) -> Format {
        match v & 7 {
            0 => Format::F32,
            1 => Format::F64,
            2 => Format::I16,
            3 => Format::I32,
            4 => Format::I64,
            6 => Format::Bcd,
            _ => Format::F80,
        }
    }
}

/// The arithmetic of D8/DA/DC/DE by the reg field of their ModRM byte (without the two compares).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Arith {
    Add = 0,
    Mul = 1,
    Sub = 4,
    SubR = 5,
    Div = 6,
    DivR = 7,
}

impl Arith {
    pub fn from_raw(v: u64) -> Arith {
        match v & 7 {
            0 => Arith::Add,
            1 => Arith::Mul,
            4 => Arith::Sub,
            5 => Arith::SubR,
            6 => Arith::Div,
            _ => Arith::DivR,
        }
    }

    #[inline]
    fn run(self, env: &mut Env, d: F80, s: F80) -> Option<F80> {
        match self {
            Arith::Add => arith::add(env, d, s),
            Arith::Mul => arith::mul(env, d, s),
            Arith::Sub => arith::sub(env, d, s),
            Arith::SubR => arith::sub(env, s, d),
            Arith::Div => arith::div(env, d, s),
            Arith::DivR => arith::div(env, s, d),
        }
    }

    fn run_any(self, env: &mut Env, d: F80, s: F80) -> Option<F80> {
        let (op, a, b) = match self {
            Arith::Add => (Op::Add, d, s),
            Arith::Mul => (Op::Mul, d, s),
            Arith::Sub => (Op::Sub, d, s),
            Arith::SubR => (Op::Sub, s, d),
            Arith::Div => (Op::Div, d, s),
            Arith::DivR => (Op::Div, s, d),
        };
        op.run_any(env, a, b)
    }
}

/// Everything with implied operands, by opcode: D9 /r with ModRM E0..FF is 0xe0..=0xff.
pub mod implied {
    pub const FCHS: u8 = 0xe0;
    pub const FABS: u8 = 0xe1;
    pub const FTST: u8 = 0xe4;
    pub const FXAM: u8 = 0xe5;
    pub const FLD1: u8 = 0xe8;
    pub const FLDZ: u8 = 0xee;
    pub const F2XM1: u8 = 0xf0;
    pub const FYL2X: u8 = 0xf1;
    pub const FPTAN: u8 = 0xf2;
    pub const FPATAN: u8 = 0xf3;
    pub const FXTRACT: u8 = 0xf4;
    pub const FPREM1: u8 = 0xf5;
    pub const FDECSTP: u8 = 0xf6;
    pub const FINCSTP: u8 = 0xf7;
    pub const FPREM: u8 = 0xf8;
    pub const FYL2XP1: u8 = 0xf9;
    pub const FSQRT: u8 = 0xfa;
    pub const FSINCOS: u8 = 0xfb;
    pub const FRNDINT: u8 = 0xfc;
    pub const FSCALE: u8 = 0xfd;
    pub const FSIN: u8 = 0xfe;
    pub const FCOS: u8 = 0xff;
}

/// What a store puts into memory, and the unit's state afterwards: the caller stores first, then commits, so that a page fault leaves nothing done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    pub low: u64,
    pub high: u16,
    /// The status word to set.
    pub status: u16,
    /// False when an unmasked exception keeps the instruction from storing and popping.
    pub write: bool,
}

impl From<X87Reg> for F80 {
    fn from(r: X87Reg) -> F80 {
        F80 { mantissa: r.mantissa, sign_exp: r.sign_exp }
    }
}

impl X87 {
    #[inline]
    fn phys(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(i) & 7)
    }

    #[inline]
    pub fn st(&self, i: u8) -> F80 {
        self.regs[self.phys(i)].into()
    }

    #[inline]
    pub fn empty(&self, i: u8) -> bool {
        self.in_use >> self.phys(i) & 1 == 0
    }

    #[inline]
    fn set(&mut self, i: u8, v: F80) {
        let p = self.phys(i);
        self.regs[p].mantissa = v.mantissa;
        self.regs[p].sign_exp = v.sign_exp;
        self.in_use |= 1 << p;
    }

    /// Marks ST(0) empty and moves TOP.
    #[inline]
    pub fn pop(&mut self) {
        self.in_use &= !(1 << (self.top & 7));
        self.top = (self.top + 1) & 7;
    }

    #[inline]
    fn env(&self) -> Env {
        Env::new(self.control)
    }

    /// The status word with what `raised` adds: C1 as raised, ES and B from what is unmasked.
    #[inline]
    fn status_with(&self, raised: u16) -> u16 {
        let s = self.status & !sw::C1 | raised;
        if s & !self.control & sw::EXCEPTIONS != 0 { s | sw::ES | sw::B } else { s }
    }

    #[inline]
    fn raise(&mut self, raised: u16) {
        self.status = self.status_with(raised);
    }

    /// A stack fault (SDM vol. 1, 8.5.1.1). True when it is masked: the caller then delivers the indefinite.
    #[cold]
    #[inline(never)]
    fn stack_fault(&mut self, overflow: bool) -> bool {
        self.raise(sw::IE | sw::SF | if overflow { sw::C1 } else { 0 });
        self.control & sw::IE != 0
    }

    /// ES follows the masks when the control word changes (FLDCW, FLDENV).
    pub fn summarise(&mut self) {
        let pending = self.status & !self.control & sw::EXCEPTIONS != 0;
        self.status &= !(sw::ES | sw::B);
        if pending {
            self.status |= sw::ES | sw::B;
        }
    }

    /// Puts a result, if there is one, into ST(i), with the flags; pops.
    #[inline]
    fn result(&mut self, env: Env, i: u8, r: Option<F80>, pop: bool) {
        self.raise(env.raised);
        if let Some(v) = r {
            self.set(i, v);
            if pop {
                self.pop();
            }
        }
    }

    /// FADD .. FDIVR with register operands: ST(d) = ST(d) op ST(s).
    #[inline]
    pub fn arith(&mut self, op: Arith, d: u8, s: u8, pop: bool) {
        let mut env = self.env();
        let r = if self.empty(d) || self.empty(s) {
            self.stack_fault(false).then_some(F80::INDEFINITE)
        } else {
            let r = op.run(&mut env, self.st(d), self.st(s));
            self.raise(env.raised);
            r
        };
        if let Some(v) = r {
            self.set(d, v);
            if pop {
                self.pop();
            }
        }
    }

    /// FADD .. FIDIVR with a memory operand: ST(0) = ST(0) op m.
    #[inline]
    pub fn arith_memory(&mut self, op: Arith, format: Format, raw: u64) {
        let mut env = self.env();
        if self.empty(0) {
            if self.stack_fault(false) {
                self.set(0, F80::INDEFINITE);
            }
            return;
        }
        let m = memory_operand(&mut env, format, raw);
        let a = self.st(0);
        let r = if env.narrow_denormal { op.run_any(&mut env, a, m) } else { op.run(&mut env, a, m) };
        self.result(env, 0, r, false);
    }

    /// FCOM and FUCOM (`quiet`) with ST(s), popping up to two.
    pub fn compare(&mut self, s: u8, quiet: bool, pops: u8) {
        let other = (!self.empty(s)).then(|| self.st(s));
        self.compare_with(self.env(), other, quiet, pops);
    }

    /// FCOM, FICOM with memory.
    pub fn compare_memory(&mut self, format: Format, raw: u64, pop: bool) {
        let mut env = self.env();
        let m = memory_operand(&mut env, format, raw);
        self.compare_with(env, Some(m), false, u8::from(pop));
    }

    fn compare_with(&mut self, mut env: Env, other: Option<F80>, quiet: bool, pops: u8) {
        let c = match other {
            Some(b) if !self.empty(0) => {
                let c = arith::compare(&mut env, self.st(0), b, quiet);
                self.raise(env.raised);
                c
            }
            _ => Compared { order: Order::Unordered, masked: self.stack_fault(false) },
        };
        self.status = self.status & !sw::CODES | c.order.codes();
        if c.masked {
            for _ in 0..pops {
                self.pop();
            }
        }
    }

    /// FCOMI, FUCOMI. C1 stays unless there is a stack fault.
    pub fn compare_flags(&mut self, s: u8, quiet: bool, pop: bool) -> Order {
        let mut env = self.env();
        let c = if self.empty(0) || self.empty(s) {
            Compared { order: Order::Unordered, masked: self.stack_fault(false) }
        } else {
            let c = arith::compare(&mut env, self.st(0), self.st(s), quiet);
            self.raise(env.raised | self.status & sw::C1);
            c
        };
        if pop && c.masked {
            self.pop();
        }
        c.order
    }

    /// Pushes a result.
    fn push(&mut self, env: Env, r: Option<F80>) {
        let Some(v) = r else {
            return self.raise(env.raised);
        };
        if !self.empty(7) {
            if self.stack_fault(true) {
                self.top = self.top.wrapping_sub(1) & 7;
                self.set(0, F80::INDEFINITE);
            }
            return;
        }
        self.raise(env.raised);
        self.top = self.top.wrapping_sub(1) & 7;
        self.set(0, v);
    }

    /// FLD, FILD, FBLD from memory.
    pub fn load(&mut self, format: Format, low: u64, high: u16) {
        let mut env = self.env();
        if !self.empty(7) {
            return self.push(env, Some(F80::INDEFINITE));
        }
        let r = match format {
            Format::F32 => convert::widen(&mut env, low, SINGLE),
            Format::F64 => convert::widen(&mut env, low, DOUBLE),
            Format::F80 => Some(F80 { mantissa: low, sign_exp: high }),
            Format::Bcd => Some(convert::from_bcd(low, high)),
            _ => Some(memory_operand(&mut env, format, low)),
        };
        self.push(env, r);
    }

    /// FLD ST(i).
    pub fn load_register(&mut self, i: u8) {
        let v = if self.empty(i) {
            if !self.stack_fault(false) {
                return;
            }
            self.top = self.top.wrapping_sub(1) & 7;
            return self.set(0, F80::INDEFINITE);
        } else {
            self.st(i)
        };
        self.push(self.env(), Some(v));
    }

    /// FLD1 .. FLDZ.
    pub fn load_constant(&mut self, n: usize) {
        let env = self.env();
        self.push(env, Some(scale::constant(env.rounding(), n)));
    }

    /// FST, FIST, FISTTP (`chop`), FBSTP: what to store. Pops and the status word are the caller's to commit.
    #[inline]
    pub fn store(&self, format: Format, chop: bool) -> Store {
        let mut env = self.env();
        let none = |status| Store { low: 0, high: 0, status, write: false };
        let (x, faulted) = if self.empty(0) { (F80::INDEFINITE, true) } else { (self.st(0), false) };
        if faulted {
            env.raised |= sw::IE | sw::SF;
            if !env.masked(sw::IE) {
                return none(self.status_with(env.raised));
            }
        }
        let before = env.raised;
        let mode = if chop { Rounding::Chop } else { env.rounding() };
        let r = match format {
            Format::F32 => convert::narrow(&mut env, x, SINGLE).map(|v| (v, 0)),
            Format::F64 => convert::narrow(&mut env, x, DOUBLE).map(|v| (v, 0)),
            Format::I16 => convert::to_int(&mut env, x, 16, mode).map(|v| (v, 0)),
            Format::I32 => convert::to_int(&mut env, x, 32, mode).map(|v| (v, 0)),
            Format::I64 => convert::to_int(&mut env, x, 64, mode).map(|v| (v, 0)),
            Format::F80 => Some((x.mantissa, x.sign_exp)),
            Format::Bcd => convert::to_bcd(&mut env, x),
        };
        let status = self.status_with(env.raised | before);
        match r {
            Some((low, high)) => Store { low, high, status, write: true },
            None => none(status),
        }
    }

    /// FST ST(i).
    pub fn store_register(&mut self, i: u8, pop: bool) {
        let v = if self.empty(0) {
            if !self.stack_fault(false) {
                return;
            }
            F80::INDEFINITE
        } else {
            self.raise(0);
            self.st(0)
        };
        self.set(i, v);
        if pop {
            self.pop();
        }
    }

    /// FXCH ST(i). An empty operand counts as the indefinite when the fault is masked.
    pub fn exchange(&mut self, i: u8) {
        if self.empty(0) || self.empty(i) {
            if !self.stack_fault(false) {
                return;
            }
            let a = if self.empty(0) { F80::INDEFINITE } else { self.st(0) };
            let b = if self.empty(i) { F80::INDEFINITE } else { self.st(i) };
            self.set(0, b);
            return self.set(i, a);
        }
        self.raise(0);
        let (a, b) = (self.st(0), self.st(i));
        self.set(0, b);
        self.set(i, a);
    }

    /// FCMOVcc ST(0), ST(i), with the condition known. A stack fault is one whether it holds or not.
    pub fn move_if(&mut self, i: u8, taken: bool) {
        if self.empty(0) || self.empty(i) {
            if self.stack_fault(false) {
                self.set(0, F80::INDEFINITE);
            }
            return;
        }
        if taken {
            self.set(0, self.st(i));
        }
    }

    /// Instructions with implied operands ([`implied`]).
    pub fn implied(&mut self, op: u8) {
        use implied::*;
        let mut env = self.env();
        let x = self.st(0);
        match op {
            FINCSTP | FDECSTP => {
                self.status &= !sw::C1;
                self.top = self.top.wrapping_add(if op == FINCSTP { 1 } else { 7 }) & 7;
            }
            FXAM => {
                let codes = scale::examine(x, self.empty(0));
                self.status = self.status & !(sw::CODES | sw::C1) | codes;
            }
            FLD1..=FLDZ => self.load_constant(usize::from(op - FLD1)),
            FTST => self.compare_with(env, Some(F80::zero(false)), false, 0),
            FYL2X | FPATAN | FYL2XP1 => self.two_to_one(op),
            FPREM | FPREM1 | FSCALE => self.two_keep(op),
            FSIN | FCOS | FPTAN | FSINCOS => self.trigonometric(op),
            _ if self.empty(0) => self.unary_underflow(op),
            FCHS | FABS => {
                let v = if op == FCHS { x.negate() } else { x.with_sign(false) };
                self.result(env, 0, Some(v), false);
            }
            F2XM1 => {
                let r = transcendental::exp2_minus_1(&mut env, x);
                self.result(env, 0, r, false);
            }
            FSQRT => {
                let r = arith::sqrt(&mut env, x);
                self.result(env, 0, r, false);
            }
            FRNDINT => {
                let r = scale::round_to_integer(&mut env, x);
                self.result(env, 0, r, false);
            }
            FXTRACT => {
                let r = scale::extract(&mut env, x);
                self.replace_push(env, r.map(|(sig, exp)| (exp, sig)));
            }
            _ => {}
        }
    }

    /// ST(0) empty, for instructions of one operand.
    fn unary_underflow(&mut self, op: u8) {
        use implied::*;
        if !self.stack_fault(false) {
            return;
        }
        match op {
            FXTRACT | FPTAN | FSINCOS => {
                self.set(0, F80::INDEFINITE);
                self.top = self.top.wrapping_sub(1) & 7;
                self.set(0, F80::INDEFINITE);
            }
            _ => self.set(0, F80::INDEFINITE),
        }
    }

    /// ST(0) becomes the first value, then the second is pushed.
    fn replace_push(&mut self, env: Env, r: Option<(F80, F80)>) {
        if !self.empty(7) {
            if self.stack_fault(true) {
                self.set(0, F80::INDEFINITE);
                self.top = self.top.wrapping_sub(1) & 7;
                self.set(0, F80::INDEFINITE);
            }
            return;
        }
        if let Some((under, top)) = r {
            self.set(0, under);
            self.top = self.top.wrapping_sub(1) & 7;
            self.set(0, top);
        }
        self.raise(env.raised);
    }

    /// ST(1) = f(ST(0), ST(1)), pop.
    fn two_to_one(&mut self, op: u8) {
        let mut env = self.env();
        let r = if self.empty(0) || self.empty(1) {
            self.stack_fault(false).then_some(F80::INDEFINITE)
        } else {
            let (x, y) = (self.st(0), self.st(1));
            let r = match op {
                implied::FYL2X => transcendental::y_log2_x(&mut env, y, x),
                implied::FYL2XP1 => transcendental::y_log2_x_plus_1(&mut env, y, x),
                _ => transcendental::arctangent(&mut env, y, x),
            };
            self.raise(env.raised);
            r
        };
        if let Some(v) = r {
            self.set(1, v);
            self.pop();
        }
    }

    /// ST(0) = f(ST(0), ST(1)).
    fn two_keep(&mut self, op: u8) {
        let mut env = self.env();
        if op != implied::FSCALE {
            self.status &= !sw::C2;
        }
        if self.empty(0) || self.empty(1) {
            if self.stack_fault(false) {
                self.set(0, F80::INDEFINITE);
            }
            return;
        }
        let (x, y) = (self.st(0), self.st(1));
        if op == implied::FSCALE {
            let r = scale::scale(&mut env, x, y);
            return self.result(env, 0, r, false);
        }
        let r = arith::remainder(&mut env, x, y, op == implied::FPREM1);
        if let Some(codes) = r.and_then(|r| r.codes) {
            self.status = self.status & !sw::CODES | codes & sw::CODES;
            env.raised |= codes & sw::C1;
        }
        self.result(env, 0, r.map(|r| r.value), false);
    }

    /// FSIN, FCOS, FPTAN, FSINCOS: C2 is set, and nothing else done, for |x| >= 2^63.
    fn trigonometric(&mut self, op: u8) {
        let mut env = self.env();
        let x = self.st(0);
        self.status &= !sw::C2;
        if self.empty(0) {
            return self.unary_underflow(op);
        }
        if matches!(op, implied::FPTAN | implied::FSINCOS) && !self.empty(7) {
            return self.replace_push(env, None);
        }
        let finite = matches!(x.class(), Class::Normal | Class::Denormal | Class::Zero);
        if finite && x.exp() >= 16383 + 63 {
            self.status |= sw::C2;
            return self.raise(0);
        }
        match op {
            implied::FSIN | implied::FCOS => {
                let r = if op == implied::FSIN {
                    transcendental::sine(&mut env, x)
                } else {
                    transcendental::cosine(&mut env, x)
                };
                self.result(env, 0, r, false);
            }
            implied::FPTAN => {
                let r = transcendental::tangent(&mut env, x);
                let one = if finite { arith::one(false) } else { r.unwrap_or_default() };
                env.raised &= !sw::C1;
                self.replace_push(env, r.map(|t| (t, one)));
            }
            _ => {
                let r = transcendental::sine_cosine(&mut env, x);
                env.raised &= !sw::C1;
                self.replace_push(env, r);
            }
        }
    }
}

/// A memory operand of arithmetic and compares, as it is.
#[inline]
fn memory_operand(env: &mut Env, format: Format, raw: u64) -> F80 {
    match format {
        Format::F32 => convert::operand(env, raw, SINGLE),
        Format::I16 => convert::from_int(i64::from(raw as i16)),
        Format::I32 => convert::from_int(i64::from(raw as i32)),
        Format::I64 => convert::from_int(raw as i64),
        _ => convert::operand(env, raw, DOUBLE),
    }
}
