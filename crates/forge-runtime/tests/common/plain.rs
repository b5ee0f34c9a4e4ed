//! A sequence whose state can be seen through.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::ops::Range;

use forge_runtime::Result;
use forge_runtime::prefix::State;

/// A sequence whose state are its tokens, 8 bytes each, in two parts as two layers have them.
#[derive(Default)]
pub struct Plain {
    pub tokens: Vec<u32>,
    pub mark: Option<(usize, Vec<u8>)>,
    /// Positions that were read.
    pub read: usize,
}

impl Plain {
    pub fn of(tokens: &[u32]) -> Self {
        Self { tokens: tokens.to_vec(), ..Self::default() }
    }
}

impl State for Plain {
    fn read_rows(&mut self, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()> {
        self.read += positions.len();
        for layer in 0..2 {
            rows.extend(self.tokens[positions.clone()].iter().flat_map(|token| (token + layer).to_le_bytes()));
        }
        Ok(())
    }

    fn write_rows(&mut self, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()> {
        assert_eq!((self.tokens.len(), rows.len()), (positions.start, 8 * of));
        let token = |at: usize| u32::from_le_bytes(rows[4 * at..4 * at + 4].try_into().expect("four bytes"));
        for at in 0..positions.len() {
            assert_eq!(token(of + at), token(at) + 1, "the second layer's");
            self.tokens.push(token(at));
        }
        Ok(())
    }

    fn write_mark(&mut self, positions: usize, mark: &[u8]) -> Result<()> {
        self.mark = Some((positions, mark.to_vec()));
        Ok(())
    }
}
