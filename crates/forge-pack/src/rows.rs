//! One job: rows of a weight, converted and written.

use std::ops::Range;

use forge_formats::{Deviation, FormatError, Layout, Packer, Repacked, SourceRows, decode_row, first_not_finite};
use forge_frontend::graph::{FileRange, Source, Weight};
use forge_plan::PackedTensor;
use forge_plan::pack::PackPart;

use crate::quantize::Encoder;
use crate::{Job, Output, PackError, Packing};

/// What a worker keeps from job to job.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The packer of the tensor that the last job belonged to.
    packer: Option<(usize, Packer)>,
    /// Quantised rows.
    encoder: Encoder,
    /// Rows made of another toolchain's tensors.
    repacked: Repacked,
    /// Rows of floats, or of codes and of scales, that the checkpoint does not have side by side.
    gathered: [Vec<u8>; 2],
}

/// Something else than `expected` where the plan has it.
fn mixed(weight: &Weight, expected: &str, found: &str) -> PackError {
    PackError::Mixed { tensor: weight.tensor.clone(), expected: expected.into(), found: found.into() }
}

/// A piece of a weight's source: its first row, and how many it has.
struct Piece<'a> {
    source: &'a Source,
    first: usize,
    rows: usize,
}

impl Packing<'_> {
    /// Carries out one job; returns how far quantised rows are from the checkpoint's.
    pub(crate) fn run(
        &self,
        job: &Job,
        output: &Output<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Deviation>, PackError> {
        // The file is zero where nothing is written.
        let PackPart::Weight(id) = job.part else { return Ok(None) };
        let weight = &self.graph.weights[id];
        let tensor = &self.plan.tensors[job.tensor];
        if tensor.is_vector() {
            self.vector(job, weight, output).map(|()| None)
        } else {
            self.rows(job, weight, tensor, output, scratch)
        }
    }

    /// A vector: f32 elements, with the weight's offset and factor.
    fn vector(&self, job: &Job, weight: &Weight, output: &Output<'_>) -> Result<(), PackError> {
        let mut elements = vec![0.0; weight.cols];
        match &weight.source {
            Source::Values(values) => elements.clone_from(values),
            Source::Rows(range) => {
                let bytes = self.slice(weight, range, 1, 0..1)?;
                decode_row(weight.format, bytes, &mut elements)
                    .map_err(|source| PackError::Format { tensor: weight.tensor.clone(), source })?;
            }
            Source::Strided { elements: range, strides } => {
                let mut row = Vec::new();
                strides.gather(self.source.bytes(range), weight.format.block_bytes(), 0..1, weight.cols, &mut row);
                decode_row(weight.format, &row, &mut elements)
                    .map_err(|source| PackError::Format { tensor: weight.tensor.clone(), source })?;
            }
            Source::Quantize { .. }
            | Source::Affine { .. }
            | Source::Apart { .. }
            | Source::Factored { .. }
            | Source::Repack { .. }
            | Source::Stack(_) => {
                return Err(mixed(weight, "one vector", "parts"));
            }
        }
        let bytes: Vec<u8> = elements.iter().flat_map(|&element| weight.element(element).to_le_bytes()).collect();
        output.write(job.tensor, 4 * job.first as u64, &bytes)
    }

    /// Rows of a matrix in the device layout.
    fn rows(
        &self,
        job: &Job,
        weight: &Weight,
        tensor: &PackedTensor,
        output: &Output<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Deviation>, PackError> {
        let found = (weight.format, weight.cols);
        if found != (tensor.format, tensor.cols) {
            return Err(PackError::Mixed {
                tensor: weight.tensor.clone(),
                expected: format!("rows of {} {}", tensor.cols, tensor.format),
                found: format!("{} {}", found.1, found.0),
            });
        }
        // Of a stack the pieces that the rows are in, one by one.
        let pieces = weight.source.pieces();
        let each = weight.rows / pieces.len().max(1);
        let mut deviation: Option<Deviation> = None;
        for (index, piece) in pieces.iter().enumerate() {
            let first = index * each;
            let rows = job.rows.start.max(first)..job.rows.end.min(first + each);
            if rows.start < rows.end {
                let place = Piece { source: piece, first, rows: each };
                let found = self.piece(job, weight, tensor, place, rows, output, scratch);
                let found = if pieces.len() > 1 { found.map_err(|error| error.in_stack(index)) } else { found }?;
                if let Some(found) = found {
                    deviation.get_or_insert_default().merge(&found);
                }
            }
        }
        Ok(deviation)
    }

    /// Rows of one piece; `rows` are counted from the weight's first.
    #[expect(clippy::too_many_arguments, reason = "what is packed, from where and to where")]
    fn piece(
        &self,
        job: &Job,
        weight: &Weight,
        tensor: &PackedTensor,
        piece: Piece<'_>,
        rows: Range<usize>,
        output: &Output<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Deviation>, PackError> {
        let format_error = |source| PackError::Format { tensor: weight.tensor.clone(), source };
        let own = rows.start - piece.first..rows.end - piece.first;
        let slice = |range| self.slice(weight, range, piece.rows, own.clone());
        let Scratch { packer, encoder, repacked, gathered: [first, second] } = scratch;
        let mut deviation = None;
        let (from, factors) = match piece.source {
            Source::Factored { rows, factors } => (&**rows, factors.as_slice()),
            other => (other, &[][..]),
        };
        let source = match from {
            Source::Rows(range) => SourceRows::Blocks(slice(range)?),
            Source::Strided { elements, strides } => {
                let size = weight.format.block_bytes();
                strides.gather(self.source.bytes(elements), size, own.clone(), weight.cols, first);
                SourceRows::Blocks(first)
            }
            Source::Apart { codes, scales, step: 1, .. } => {
                SourceRows::Apart { codes: slice(codes)?, scales: slice(scales)? }
            }
            Source::Apart { codes, scales, first: turn, step } => {
                for (range, rows) in [(codes, &mut *first), (scales, &mut *second)] {
                    let all = self.slice(weight, range, piece.rows * step, 0..piece.rows * step)?;
                    let row = all.len() / (piece.rows * step).max(1);
                    rows.clear();
                    own.clone().for_each(|at| rows.extend_from_slice(&all[(turn + at * step) * row..][..row]));
                }
                SourceRows::Apart { codes: first, scales: second }
            }
            Source::Values(_) => return Err(mixed(weight, "rows of the checkpoint", "values")),
            Source::Quantize { floats, from } => {
                let rows = match &**floats {
                    Source::Rows(range) => slice(range)?,
                    Source::Strided { elements, strides } => {
                        let size = from.block_bytes();
                        strides.gather(self.source.bytes(elements), size, own.clone(), weight.cols, first);
                        &first[..]
                    }
                    Source::Values(_)
                    | Source::Quantize { .. }
                    | Source::Affine { .. }
                    | Source::Apart { .. }
                    | Source::Factored { .. }
                    | Source::Repack { .. }
                    | Source::Stack(_) => return Err(mixed(weight, "rows of floats", "something else")),
                };
                let found = encoder.encode(weight.format, weight.cols, *from, rows);
                deviation = Some(found.map_err(format_error)?);
                encoder.rows()
            }
            Source::Repack { repack, parts, first_row } => {
                let parts: Vec<&[u8]> = parts.iter().map(|range| self.source.bytes(range)).collect();
                let rows = first_row + own.start..first_row + own.end;
                repack.rows(&parts, rows, repacked).map_err(format_error)?;
                repacked.source()
            }
            Source::Affine { quants, scales, biases, scale_format } => {
                let (scales, biases) = (slice(scales)?, slice(biases)?);
                for (what, numbers) in [("scale", scales), ("bias", biases)] {
                    if let Some((_, value)) = first_not_finite(*scale_format, numbers).map_err(format_error)? {
                        return Err(format_error(FormatError::Companion { format: tensor.format, what, value }));
                    }
                }
                SourceRows::Affine { codes: slice(quants)?, scales, biases }
            }
            Source::Factored { .. } | Source::Stack(_) => {
                return Err(PackError::Mixed {
                    tensor: weight.tensor.clone(),
                    expected: "rows".into(),
                    found: "rows within rows".into(),
                });
            }
        };
        let stored: Vec<f32> =
            own.clone().filter_map(|row| factors.get(row * factors.len() / piece.rows).copied()).collect();
        let factors = if deviation.is_some() { encoder.factors() } else { &stored };
        let factored = SourceRows::Factored { rows: &source, factors };
        let source = if factors.is_empty() { source } else { factored };
        if packer.as_ref().is_none_or(|(of, _)| *of != job.tensor) {
            let layout = Layout::new(tensor.format, tensor.rows, tensor.cols).ok_or_else(|| PackError::Mixed {
                tensor: weight.tensor.clone(),
                expected: format!("whole blocks of {}", tensor.format),
                found: format!("rows of {}", tensor.cols),
            })?;
            match packer.as_mut() {
                Some((of, packer)) => {
                    *of = job.tensor;
                    packer.turn_to(layout);
                }
                None => *packer = Some((job.tensor, Packer::new(layout))),
            }
        }
        let (_, packer) = packer.as_mut().expect("set above");
        let mut written = Ok(());
        let packed = packer.pack(job.first + rows.start, source, |at, bytes| {
            if written.is_ok() {
                written = output.write(job.tensor, at, bytes);
            }
        });
        packed.map_err(format_error)?;
        written.map(|()| deviation)
    }

    /// The bytes of some of a weight's rows; `range` holds all `count` of them.
    fn slice(&self, weight: &Weight, range: &FileRange, count: usize, rows: Range<usize>) -> Result<&[u8], PackError> {
        let bytes = self.source.bytes(range);
        let row = bytes.len() / count.max(1);
        if row * count != bytes.len() {
            let expected = (row + 1) * count;
            return Err(PackError::Length { tensor: weight.tensor.clone(), expected, found: bytes.len() });
        }
        Ok(&bytes[row * rows.start..row * rows.end])
    }
}
