//! Floats that lie apart in a checkpoint where the graph has them side by side: transposed matrices, rows that take turns with others'.

use std::ops::Range;

/// Where the elements of a matrix lie among the floats of a range: element `c` of row `r` is number `first + r * row + c * col`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    /// The first row's first element.
    pub first: usize,
    /// From a row to the next.
    pub row: usize,
    /// From a column to the next.
    pub col: usize,
}

impl Strides {
    /// Some rows of `cols` floats of `size` bytes, one after another, into `out`. `bytes` are those of the whole range.
    ///
    /// # Panics
    /// The range ends before the last row does.
    pub fn gather(&self, bytes: &[u8], size: usize, rows: Range<usize>, cols: usize, out: &mut Vec<u8>) {
        out.clear();
        out.resize(rows.len() * cols * size, 0);
        // Neighbours of a transposed matrix are elements of one column.
        for col in 0..cols {
            for (at, row) in rows.clone().enumerate() {
                let from = (self.first + row * self.row + col * self.col) * size;
                out[(at * cols + col) * size..][..size].copy_from_slice(&bytes[from..from + size]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Strides;

    #[test]
    fn every_second_column_of_a_transposed_matrix() {
        // [3 inputs, 2 * 2 outputs] of two bytes each.
        let bytes: Vec<u8> = (0..12).flat_map(|value| [value, 100 + value]).collect();
        let mut out = Vec::new();
        Strides { first: 1, row: 2, col: 4 }.gather(&bytes, 2, 0..2, 3, &mut out);
        assert_eq!(out, [1, 101, 5, 105, 9, 109, 3, 103, 7, 107, 11, 111]);
        Strides { first: 1, row: 2, col: 4 }.gather(&bytes, 2, 1..2, 3, &mut out);
        assert_eq!(out, [3, 103, 7, 107, 11, 111]);
    }
}
