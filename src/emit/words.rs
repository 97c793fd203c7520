//! The buffer `dynasm!` emits into: whole words, without the detour over bytes. Knows no instruction.

use dynasmrt::{AssemblyOffset, DynasmApi};

/// Words, and the bytes of one not yet whole.
#[derive(Default)]
pub(crate) struct Words {
    words: Vec<u32>,
    partial: u32,
    bits: u32,
}

impl Words {
    /// With nothing in it yet, in the memory of `words`.
    pub fn reusing(mut words: Vec<u32>) -> Words {
        words.clear();
        Words { words, partial: 0, bits: 0 }
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    pub fn push_word(&mut self, w: u32) {
        self.words.push(w);
    }

    pub fn truncate(&mut self, words: usize) {
        self.words.truncate(words);
    }

    pub fn take(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.words)
    }
}

impl Extend<u8> for Words {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        for b in iter {
            self.push(b);
        }
    }
}

impl<'a> Extend<&'a u8> for Words {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, iter: T) {
        self.extend(iter.into_iter().copied());
    }
}

impl DynasmApi for Words {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.words.len() * 4 + (self.bits / 8) as usize)
    }

    fn push(&mut self, byte: u8) {
        self.partial |= u32::from(byte) << self.bits;
        self.bits += 8;
        if self.bits == 32 {
            self.words.push(self.partial);
            self.partial = 0;
            self.bits = 0;
        }
    }

    fn align(&mut self, alignment: usize, with: u8) {
        while !self.offset().0.is_multiple_of(alignment) {
            self.push(with);
        }
    }

    fn push_u32(&mut self, value: u32) {
        self.words.push(value);
    }
}
