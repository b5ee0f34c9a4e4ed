//! Device layout: how a packed matrix lies in `weights.safetensors`, and repacking of stored rows into it.
//!
//! A row is cut into tiles of 256 columns. In a tile each of the 32 lanes of a simdgroup owns 8 columns of one block:
//! with `block` columns a block, `block / 8` lanes share it, and a lane owns two runs of four columns half a block
//! apart. Up to [`Scheme::tiles`] tiles form a group in which a lane's codes lie together, so that a lane loads up to
//! 16 bytes and neighbouring lanes continue; what is left of a row follows in groups of 4, 2 and 1 tiles and a partial
//! tile that has only its own lanes. Nothing is padded but the start of each plane, to 256 bytes.
//!
//! A matrix is a sequence of planes (codes, then what scales them), each with all rows in order, so that any range of
//! rows can be packed by itself. The kernels in `templates/msl` read exactly this; `common.metal` tells it from their
//! side.

mod groups;
mod parts;
mod write;

use crate::{Format, FormatError};
use forge_spec::{Plane, Scheme, TILE};
pub(crate) use parts::RowParts;

/// Lanes of a simdgroup.
const LANES: usize = 32;
/// Planes start at multiples of this many bytes.
const PLANE_ALIGNMENT: u64 = 256;

/// Bytes of a packed matrix; `None` when a row is not a whole number of blocks, or beyond `u64`.
pub fn packed_len(format: Format, rows: usize, cols: usize) -> Option<u64> {
    Layout::new(format, rows, cols).map(|layout| layout.len())
}

impl Format {
    /// Columns that a simdgroup takes in one go: a group of tiles, or as many floats as fill its loads.
    pub fn columns_at_once(self) -> usize {
        if self.is_float() { 2 * TILE } else { self.scheme().tiles * TILE }
    }
}

/// One plane of a packed matrix: all rows in order, without padding between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneRange {
    /// Bytes from the matrix's start to the plane; a multiple of 256.
    pub offset: u64,
    /// Bytes of one row in this plane.
    pub row_bytes: usize,
}

/// Where everything of one packed `[rows, cols]` matrix lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    format: Format,
    rows: usize,
    cols: usize,
    planes: Vec<PlaneRange>,
    len: u64,
}

impl Layout {
    /// The layout of a matrix; `None` when a row is not a whole number of blocks, or the size is beyond `u64`.
    pub fn new(format: Format, rows: usize, cols: usize) -> Option<Self> {
        format.row_bytes(cols)?;
        let mut len = 0_u64;
        let mut planes = Vec::new();
        let scheme = format.scheme();
        for plane in scheme.planes {
            let row_bytes = plane.row_bytes(scheme.block, cols);
            let offset = len.checked_next_multiple_of(PLANE_ALIGNMENT)?;
            planes.push(PlaneRange { offset, row_bytes });
            len = offset.checked_add((rows as u64).checked_mul(row_bytes as u64)?)?;
        }
        Some(Self { format, rows, cols, planes, len })
    }

    /// Bytes from the first plane's start to the last one's end. Bytes between planes are zero.
    #[expect(clippy::len_without_is_empty, reason = "a size in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The planes, in file order.
    pub fn planes(&self) -> &[PlaneRange] {
        &self.planes
    }
}

/// Stored rows to be packed.
#[derive(Clone, Copy, Debug)]
pub enum SourceRows<'a> {
    /// Whole rows of blocks (or of floats), as a checkpoint stores them.
    Blocks(&'a [u8]),
    /// The three parts of affine rows; scales and biases are F16 or BF16 and keep their bits.
    Affine {
        /// `[rows, cols * bits / 8]` bytes, a little-endian stream of codes per row.
        codes: &'a [u8],
        /// `[rows, cols / group]`, 16 bits each.
        scales: &'a [u8],
        /// `[rows, cols / group]`, 16 bits each.
        biases: &'a [u8],
    },
    /// The two parts of rows whose codes and scales are apart.
    Apart {
        /// `[rows, cols * bits / 8]` bytes, a stream of codes per row.
        codes: &'a [u8],
        /// `[rows, cols / group]` bytes.
        scales: &'a [u8],
    },
    /// Rows that are multiplied by a number each, in a format that has a plane for these.
    Factored {
        /// Rows of another kind.
        rows: &'a SourceRows<'a>,
        /// `[rows]`.
        factors: &'a [f32],
    },
}

/// Packs ranges of rows of one matrix; holds only a row's worth of scratch and the output of one call.
#[derive(Debug)]
pub struct Packer {
    layout: Layout,
    scheme: Scheme,
    parts: RowParts,
    output: Vec<Vec<u8>>,
}

impl Packer {
    /// A packer for this matrix.
    pub fn new(layout: Layout) -> Self {
        let scheme = layout.format.scheme();
        Self { layout, scheme, parts: RowParts::default(), output: Vec::new() }
    }

    /// Turns to another matrix, with the memory that it has: fresh memory costs as much as packing does.
    pub fn turn_to(&mut self, layout: Layout) {
        self.scheme = layout.format.scheme();
        self.layout = layout;
    }

    /// Packs whole rows that start at row `first` of the matrix and hands each plane's bytes to `write` with their
    /// offset in the packed matrix. Returns the number of rows.
    ///
    /// # Errors
    /// The source is of the other kind than the format, is not a whole number of rows, or its parts disagree.
    ///
    /// # Panics
    /// The rows reach past the end of the matrix.
    pub fn pack(
        &mut self,
        first: usize,
        source: SourceRows<'_>,
        mut write: impl FnMut(u64, &[u8]),
    ) -> Result<usize, FormatError> {
        let rows = self.count_rows(source)?;
        assert!(
            first.checked_add(rows).is_some_and(|end| end <= self.layout.rows),
            "rows {first}.. +{rows} of {}",
            self.layout.rows
        );
        self.output.resize_with(self.layout.planes.len().max(self.output.len()), Vec::new);
        for (plane, out) in self.layout.planes.iter().zip(&mut self.output) {
            out.clear();
            out.reserve(plane.row_bytes * rows);
        }
        for row in 0..rows {
            self.pack_row(source, row);
        }
        for (plane, out) in self.layout.planes.iter().zip(&self.output) {
            debug_assert_eq!(out.len(), plane.row_bytes * rows);
            write(plane.offset + first as u64 * plane.row_bytes as u64, out);
        }
        Ok(rows)
    }

    fn pack_row(&mut self, source: SourceRows<'_>, row: usize) {
        let (format, cols) = (self.layout.format, self.layout.cols);
        if let ([Plane::Values { bytes }], SourceRows::Blocks(data)) = (self.scheme.planes, source) {
            let row_bytes = cols * bytes;
            self.output[0].extend_from_slice(&data[row * row_bytes..][..row_bytes]);
            return;
        }
        self.parts.read(format, cols, source, row);
        let mut lists = self.parts.entries.iter();
        let mut entries = || lists.next().expect("one list of entries per plane of blocks or groups");
        for (plane, out) in self.scheme.planes.iter().zip(&mut self.output) {
            match *plane {
                Plane::Codes { shift, bits } => {
                    write::codes(&self.scheme, cols, &self.parts.codes, shift, bits, out);
                }
                Plane::Bits => write::bits(&self.scheme, cols, &self.parts.codes, out),
                Plane::Blocks { bits } => {
                    write::entries(&self.scheme, cols, self.scheme.block, entries(), bits, out);
                }
                Plane::Groups { columns, bits } => {
                    write::entries(&self.scheme, cols, columns, entries(), bits, out);
                }
                Plane::Split { lanes, bits } => write::split(&self.scheme, cols, lanes, entries(), bits, out),
                Plane::Points { lanes } => write::points(&self.scheme, cols, lanes, entries(), out),
                Plane::Supers { .. } => out.extend_from_slice(&self.parts.supers),
                Plane::RowFactor => out.extend_from_slice(&self.parts.factor.to_le_bytes()),
                Plane::Values { .. } => unreachable!("floats have no other plane"),
            }
        }
    }

    fn count_factored(&self, rows: SourceRows<'_>, factors: &[f32]) -> Result<usize, FormatError> {
        let format = self.layout.format;
        if !format.has_row_factors() {
            return Err(FormatError::NoRowFactors { format });
        }
        let (expected, found) = (self.count_rows(rows)?, factors.len());
        if expected != found {
            return Err(FormatError::Length { format, what: "factors", expected, found });
        }
        Ok(expected)
    }

    /// Rows in the source, once its parts agree.
    fn count_rows(&self, source: SourceRows<'_>) -> Result<usize, FormatError> {
        if let SourceRows::Factored { rows, factors } = source {
            return self.count_factored(*rows, factors);
        }
        let (format, cols) = (self.layout.format, self.layout.cols);
        let whole = |what, found: usize, row: usize| {
            let rows = found.checked_div(row).unwrap_or(0);
            let expected = rows * row;
            if expected == found { Ok(rows) } else { Err(FormatError::Length { format, what, expected, found }) }
        };
        match (source, format) {
            (SourceRows::Affine { codes, scales, biases }, Format::Affine { bits, group }) => {
                let rows = whole("codes", codes.len(), cols * usize::from(bits) / 8)?;
                let expected = rows * (cols / usize::from(group)) * 2;
                for (what, found) in [("scales", scales.len()), ("biases", biases.len())] {
                    if found != expected {
                        return Err(FormatError::Length { format, what, expected, found });
                    }
                }
                Ok(rows)
            }
            (SourceRows::Affine { .. }, _) => Err(FormatError::NotAffine { format }),
            (SourceRows::Apart { codes, scales }, _) => {
                let [code_bytes, scale_bytes] = format.apart_row_bytes(cols).ok_or(FormatError::NotApart { format })?;
                let rows = whole("codes", codes.len(), code_bytes)?;
                let (expected, found) = (rows * scale_bytes, scales.len());
                if found != expected {
                    return Err(FormatError::Length { format, what: "scales", expected, found });
                }
                let apart = format.apart().expect("has the bytes of such rows");
                let not_finite = |bytes: &[u8], number: fn(u8) -> f32| {
                    let finite: [bool; 256] = std::array::from_fn(|byte| number(byte as u8).is_finite());
                    bytes.iter().find(|byte| !finite[usize::from(**byte)]).map(|byte| number(*byte))
                };
                if let Some(value) = not_finite(scales, apart.scale) {
                    return Err(FormatError::Companion { format, what: "scale", value });
                }
                // Codes of fewer bits are numbers all.
                if let Some(value) = (apart.bits == 8).then(|| not_finite(codes, apart.code)).flatten() {
                    return Err(FormatError::Unrepresentable { format, value });
                }
                Ok(rows)
            }
            (SourceRows::Factored { .. }, _) => unreachable!("looked at above"),
            (SourceRows::Blocks(_), Format::Affine { .. }) => Err(FormatError::NotBlocks { format, action: "packed" }),
            (SourceRows::Blocks(data), _) => {
                let row = format.row_bytes(cols).expect("Layout::new has checked the width");
                whole("blocks", data.len(), row)
            }
        }
    }
}
