//! Numbers that look random and are the same each time.

use std::ops::Range;

/// A generator (Marsaglia, «Xorshift RNGs»).
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of this seed, which is not zero.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `end`; 0 if that is 0.
    ///
    /// # Panics
    /// Never where memory has 64 bits of address.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// A place in a text of this length, not longer than `longest`.
    pub fn range(&mut self, length: usize, longest: usize) -> Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(longest) + 1)
    }

    /// One of these; none if there are none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}
