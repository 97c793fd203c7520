//! How AArch64 says it: the macro assembler. Sole user of `dynasm!`. Methods are named after the instructions they emit, take
//! registers and a width, and emit exactly one word unless their doc says otherwise. Knows nothing of x86.

// The assembler macro converts every register number, needed or not.
#![allow(clippy::useless_conversion)]

pub mod fp;
pub mod imm;
pub mod int;
pub mod link;
pub mod simd;

mod words;

pub use link::{Cond, Label};

/// A general register x0..x30; 31 is XZR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct X(pub u8);

/// The zero register.
pub const ZR: X = X(31);

/// A vector register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct V(pub u8);

/// Operand width of a data-processing instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sz {
    W,
    X,
}

impl Sz {
    pub fn bits(self) -> u32 {
        match self {
            Sz::W => 32,
            Sz::X => 64,
        }
    }
}

/// An AArch64 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addr {
    /// Base plus a byte offset.
    Off(X, i32),
    /// Base plus index shifted left. The shift is 0 or the log2 of the access size.
    Idx(X, X, u8),
}

/// Emits words into a buffer; labels and the literal pool are resolved by [`Masm::finish`].
#[derive(Default)]
pub struct Masm {
    a: words::Words,
    labels: Vec<Option<u32>>,
    fixups: Vec<link::Fixup>,
    literals: Vec<(u64, Label)>,
}

impl Masm {
    pub fn new() -> Masm {
        Masm::default()
    }

    /// Gives memory for words, of code that is not used any more.
    pub fn reuse(&mut self, words: Vec<u32>) {
        self.a = words::Words::reusing(words);
    }

    /// Forgets every word from `at` on, with what refers to labels there. Labels bound there must not be used any more.
    pub fn rewind(&mut self, at: u32) {
        self.a.truncate(at as usize);
        self.fixups.retain(|f| f.word < at);
    }

    /// Offset of the next word.
    pub fn here(&self) -> u32 {
        self.a.len() as u32
    }

    /// Emits one word as it is.
    pub fn word(&mut self, w: u32) {
        self.a.push_word(w);
    }

    /// Emits eight bytes of data.
    pub fn quad(&mut self, v: u64) {
        self.a.push_word(v as u32);
        self.a.push_word((v >> 32) as u32);
    }

    /// Resolves labels, appends the literal pool, and is ready for other code.
    ///
    /// # Errors
    /// A label that was never bound, or one out of a branch's reach: a defect of the caller, told by name.
    pub fn finish(&mut self) -> Result<Vec<u32>, link::LinkError> {
        if !self.literals.is_empty() && self.here() % 2 == 1 {
            self.nop();
        }
        for n in 0..self.literals.len() {
            let (v, label) = self.literals[n];
            self.bind(label);
            self.quad(v);
        }
        let mut words = self.a.take();
        let resolved = link::resolve(&mut words, &self.labels, &self.fixups);
        self.literals.clear();
        self.labels.clear();
        self.fixups.clear();
        resolved.map(|()| words)
    }
}
