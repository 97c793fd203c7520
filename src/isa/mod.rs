//! THE semantics: one family, one file, with its rows and the functions that lower them. This file joins the rows into one
//! table by mnemonic and says what a row is.
//!
//! A row names an iced mnemonic and a function `fn(&mut Cx, &Instruction) -> Lowered`. The function emits AArch64 for one guest
//! instruction through [`Cx`]: it reads operands ([`Cx::place`], [`Cx::get`]), emits, writes results ([`Cx::set`]) and leaves the flags
//! that are live ([`Cx::live`]) in the form it declares ([`Cx::set_form`]). It must not change guest state before its last
//! access that can fault. What it does not implement it declines with [`Decline`], and the instruction traps with a line saying so.

use crate::facts::Facts;
use crate::guest::Region;
use crate::host::HostFeatures;
use iced_x86::{Instruction, Mnemonic};
use xrun_runtime::engine::Ordering;

pub mod alu;
pub mod atomic;
pub mod avx;
pub mod bits;
pub mod branch;
pub mod cpuid;
pub mod cx;
pub mod fused;
pub mod mmx;
pub mod mov;
pub mod muldiv;
pub mod segment;
pub mod shift;
pub mod sse;
pub mod stack;
pub mod string;
pub mod system;
pub mod table;
pub mod x87;
pub mod xsave;

pub use cx::{Cx, Ext, Place};

/// Why an instruction was not lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decline {
    /// The CPU itself raises #UD for this form (for instance LOCK where it is not allowed).
    Undefined,
    /// Known and not done, with the reason.
    Unsupported(&'static str),
}

pub type Lowered = Result<(), Decline>;
pub type Lower = fn(&mut Cx<'_>, &Instruction) -> Lowered;

/// One mnemonic and how it is lowered.
#[derive(Clone, Copy)]
pub struct Row {
    pub mnemonic: Mnemonic,
    pub family: &'static str,
    pub lower: Lower,
}

/// `rows!("family"; Add => |cx, i| alu::add(cx, i), Paddb | Vpaddb => ..., ...)` makes a family's table.
#[macro_export]
macro_rules! rows {
    ($family:literal; $($($m:ident)|+ => $f:expr),* $(,)?) => {
        /// The family's rows.
        pub const ROWS: &[$crate::isa::Row] =
            &[$($($crate::isa::Row { mnemonic: iced_x86::Mnemonic::$m, family: $family, lower: $f }),+),*];
    };
}

/// All families.
#[rustfmt::skip]
pub const FAMILIES: &[&[Row]] = &[
    alu::ROWS,
    atomic::ROWS,
    avx::arith::ROWS,
    avx::f16c::ROWS,
    avx::fma::ROWS,
    avx::masked::ROWS,
    avx::moves::ROWS,
    avx::shuffle::ROWS,
    avx::vnni::ROWS,
    bits::ROWS,
    branch::ROWS,
    mmx::ROWS,
    mov::ROWS,
    muldiv::ROWS,
    segment::ROWS,
    shift::ROWS,
    stack::ROWS,
    string::ROWS,
    system::ROWS,
    sse::arith::ROWS,
    sse::compare::ROWS,
    sse::control::ROWS,
    sse::crypto::ROWS,
    sse::convert::ROWS,
    sse::float::ROWS,
    sse::gfni::ROWS,
    sse::moves::ROWS,
    sse::shuffle::ROWS,
    x87::arith::ROWS,
    x87::control::ROWS,
    x87::moves::ROWS,
    xsave::ROWS,
];

const MNEMONICS: usize = 2048;

const fn join() -> [Option<Row>; MNEMONICS] {
    let mut t: [Option<Row>; MNEMONICS] = [None; MNEMONICS];
    let mut f = 0;
    while f < FAMILIES.len() {
        let mut r = 0;
        while r < FAMILIES[f].len() {
            let row = FAMILIES[f][r];
            assert!(t[row.mnemonic as usize].is_none(), "two rows for one mnemonic");
            t[row.mnemonic as usize] = Some(row);
            r += 1;
        }
        f += 1;
    }
    t
}

static TABLE: [Option<Row>; MNEMONICS] = join();

/// The row of a mnemonic, if there is one.
#[inline]
pub fn row(m: Mnemonic) -> Option<&'static Row> {
    TABLE.get(m as usize)?.as_ref()
}

/// Why the first instruction of `region` is not lowered on `host`, if it is not.
pub fn declined(region: &Region, facts: &Facts, host: HostFeatures, ordering: Ordering) -> Option<Decline> {
    let i = region.insts[0].i;
    if i.is_invalid() {
        return Some(Decline::Undefined);
    }
    let Some(lower) = lowering(&i) else { return Some(Decline::Unsupported("no row")) };
    let mut cx = Cx::new(region, facts, host, ordering, &mut cx::Buffers::default());
    cx.begin(0, &region.insts[0]);
    cx.lower(|cx| lower(cx, &i)).err()
}

/// The function that lowers `i`, if it has a row.
#[inline]
pub fn lowering(i: &Instruction) -> Option<Lower> {
    let row = row(i.mnemonic())?;
    Some(if mmx::touches(i) {
        mmx::lower
    } else if avx::clears(i) {
        avx::lower
    } else {
        row.lower
    })
}
