//! Geometry of matrix-vector kernels by format and shape, as data.

use forge_formats::Format;

/// How a matrix is spread over simdgroups and threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Output rows that one simdgroup computes.
    pub rows_per_simdgroup: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Simdgroups that share one row's columns; divides `simdgroups`.
    pub split_k: usize,
}

impl Geometry {
    /// Output rows that one threadgroup computes.
    pub fn rows_per_threadgroup(self) -> usize {
        self.rows_per_simdgroup * self.simdgroups / self.split_k
    }
}

/// The geometry for one matrix.
pub fn gemv_geometry(_format: Format, _rows: usize, _cols: usize) -> Geometry {
    Geometry { rows_per_simdgroup: 4, simdgroups: 2, split_k: 1 }
}
