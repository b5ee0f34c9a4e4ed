//! Which bytes of a buffer were ever written, a bit for each; and the bit sets that runs hand back.

/// A set of bytes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) words: Vec<u64>,
}

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)] }
    }

    pub(crate) fn set(&mut self, begin: usize, end: usize) {
        let mut at = begin;
        while at < end {
            let (word, bit) = (at / 64, at % 64);
            let count = (64 - bit).min(end - at);
            let mask = if count == 64 { !0 } else { ((1 << count) - 1) << bit };
            self.words[word] |= mask;
            at += count;
        }
    }

    /// The 64 bits from `at` on; past the end they are 0.
    pub(crate) fn window(&self, at: usize) -> u64 {
        let (word, bit) = (at / 64, at % 64);
        let get = |word: usize| self.words.get(word).copied().unwrap_or(0);
        if bit == 0 { get(word) } else { get(word) >> bit | get(word + 1) << (64 - bit) }
    }
}

/// The bytes of one buffer that were written since it was made.
#[derive(Clone, Debug)]
pub(crate) enum Shadow {
    Nothing,
    Everything,
    Some(Bits),
}

impl Shadow {
    pub(crate) fn nothing() -> Self {
        Self::Nothing
    }

    pub(crate) fn everything() -> Self {
        Self::Everything
    }

    /// Marks bytes `begin..end` of a buffer of `len`.
    pub(crate) fn mark(&mut self, begin: usize, end: usize, len: usize) {
        match self {
            Self::Everything => {}
            _ if begin == 0 && end == len => *self = Self::Everything,
            Self::Nothing if begin == end => {}
            Self::Nothing => {
                let mut bits = Bits::new(len);
                bits.set(begin, end);
                *self = Self::Some(bits);
            }
            Self::Some(bits) => bits.set(begin, end),
        }
    }
}
