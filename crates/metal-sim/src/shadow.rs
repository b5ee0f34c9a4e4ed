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

    /// Bits `begin..end` as a set of their own.
    pub(crate) fn slice(&self, begin: usize, end: usize) -> Self {
        let mut words: Vec<_> = (begin..end).step_by(64).map(|at| self.window(at)).collect();
        let tail = (end - begin) % 64;
        if let Some(last) = words.last_mut().filter(|_| tail != 0) {
            *last &= (1 << tail) - 1;
        }
        Self { words }
    }

    /// How many of `begin..end` are in the set.
    pub(crate) fn count(&self, begin: usize, end: usize) -> u64 {
        self.slice(begin, end).words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Calls `run` with the first number and the length of each run below `len`.
    pub(crate) fn for_each(&self, len: usize, mut run: impl FnMut(usize, usize)) {
        let mut begin = None;
        for (word, bits) in self.words.iter().enumerate() {
            let (first, end) = (word * 64, len.min(word * 64 + 64));
            match *bits {
                0 => {
                    if let Some(begin) = begin.take() {
                        run(begin, first - begin);
                    }
                }
                u64::MAX => {
                    begin.get_or_insert(first);
                }
                _ => {
                    for at in first..end {
                        if bits >> (at - first) & 1 != 0 {
                            begin.get_or_insert(at);
                        } else if let Some(begin) = begin.take() {
                            run(begin, at - begin);
                        }
                    }
                }
            }
        }
        if let Some(begin) = begin {
            run(begin, len - begin);
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

    /// The first byte of `begin..end` that was not written.
    pub(crate) fn first_missing(&self, begin: usize, end: usize) -> Option<usize> {
        match self {
            Self::Everything => None,
            Self::Nothing => (begin < end).then_some(begin),
            Self::Some(bits) => (begin..end).find(|&byte| bits.window(byte) & 1 == 0),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_slices_and_counts_agree() {
        let mut bits = Bits::new(300);
        bits.set(3, 5);
        bits.set(60, 200);
        bits.set(299, 300);
        let mut runs = Vec::new();
        bits.for_each(300, |begin, len| runs.push((begin, len)));
        assert_eq!(runs, [(3, 2), (60, 140), (299, 1)]);
        assert_eq!(bits.count(0, 300), 143);
        assert_eq!(bits.count(4, 61), 2);
        let mut runs = Vec::new();
        bits.slice(4, 70).for_each(66, |begin, len| runs.push((begin, len)));
        assert_eq!(runs, [(0, 1), (56, 10)]);
    }
}
