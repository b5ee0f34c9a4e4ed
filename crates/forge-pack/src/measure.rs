//! What quantising would cost, before it is done: the errors of a matrix in several formats, from some of its rows.

use forge_formats::Format;
use forge_frontend::graph::{Graph, Source as Place, Weight, WeightId};
use forge_plan::quantize::stored_bits;

use crate::quantize::Encoder;
use crate::{PackError, Source};

/// Fewest rows of a matrix that are tried, spread over all of it, and fewest weights in them.
const ROWS: usize = 64;
const WEIGHTS: usize = 1 << 16;
/// One in so many of these is tried first.
const FIRST: usize = 4;
/// How much more error than that of a format of no more bits tells after these rows that a format is not worth having.
const CLEARLY: f64 = 1.25;

/// Sums over the rows that were tried.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    errors: f64,
    squares: f64,
}

impl Sums {
    fn relative(self) -> f64 {
        if self.errors == 0.0 { 0.0 } else { self.errors / self.squares }
    }
}

/// Sum of squared errors of a matrix of floats in each of `formats`, by that of squared weights; each column counts as `importance`
/// says, of `[pieces, cols]` or `[cols]` numbers: the mean square of its input. `None` for a format that another of no more bits
/// clearly does better than.
///
/// # Errors
/// A weight that a format cannot hold, a matrix that is none of floats.
pub fn relative_errors(
    graph: &Graph,
    source: &dyn Source,
    id: WeightId,
    formats: &[Format],
    importance: Option<&[f32]>,
) -> Result<Vec<Option<f64>>, PackError> {
    let weight = &graph.weights[id];
    let mut measured = Measured { weight, source, importance, encoder: Encoder::default(), gathered: Vec::new() };
    let step = (weight.rows / ROWS.max(WEIGHTS.div_ceil(weight.cols))).max(1);
    let rows: Vec<usize> = (0..weight.rows).step_by(step).collect();
    let mut sums = vec![Some(Sums::default()); formats.len()];
    for row in rows.iter().step_by(FIRST) {
        measured.add(*row, formats, &mut sums)?;
    }
    let first: Vec<(u64, f64)> = formats
        .iter()
        .zip(&sums)
        .map(|(format, sums)| (stored_bits(weight, *format), sums.map_or(0.0, Sums::relative)))
        .collect();
    for (sums, (bits, error)) in sums.iter_mut().zip(&first) {
        if first.iter().any(|(other, less)| other <= bits && CLEARLY * less < *error) {
            *sums = None;
        }
    }
    for (_, row) in rows.iter().enumerate().filter(|(index, _)| index % FIRST != 0) {
        measured.add(*row, formats, &mut sums)?;
    }
    Ok(sums.into_iter().map(|sums| sums.map(Sums::relative)).collect())
}

/// A matrix, and the memory to try its rows.
struct Measured<'a> {
    weight: &'a Weight,
    source: &'a dyn Source,
    importance: Option<&'a [f32]>,
    encoder: Encoder,
    gathered: Vec<u8>,
}

impl Measured<'_> {
    /// Tries a row in each format that still has sums.
    fn add(&mut self, row: usize, formats: &[Format], sums: &mut [Option<Sums>]) -> Result<(), PackError> {
        let Self { weight, source, importance, encoder, gathered } = self;
        let pieces = weight.source.pieces();
        let each = weight.rows / pieces.len().max(1);
        let (piece, row) = (row / each, row % each);
        let row = match &pieces[piece] {
            Place::Rows(range) => {
                let bytes = source.bytes(range);
                let row_bytes = bytes.len() / each;
                &bytes[row * row_bytes..][..row_bytes]
            }
            Place::Strided { elements, strides } => {
                let size = weight.format.block_bytes();
                strides.gather(source.bytes(elements), size, row..row + 1, weight.cols, gathered);
                &gathered[..]
            }
            Place::Values(_)
            | Place::Quantize { .. }
            | Place::Affine { .. }
            | Place::Apart { .. }
            | Place::Factored { .. }
            | Place::Repack { .. }
            | Place::Stack(_) => {
                let (expected, found) = ("rows of floats".into(), "something else".into());
                return Err(PackError::Mixed { tensor: weight.tensor.clone(), expected, found });
            }
        };
        let of_piece = importance.map(|all| if all.len() == weight.cols { all } else { &all[piece * weight.cols..] });
        for (format, sums) in formats.iter().zip(sums) {
            let Some(sums) = sums else { continue };
            let format_error = |source| PackError::Format { tensor: weight.tensor.clone(), source };
            encoder.encode(*format, weight.cols, weight.format, row).map_err(format_error)?;
            let (weights, stored) = encoder.last_row();
            for (col, (weight, stored)) in weights.iter().zip(stored).enumerate() {
                let factor = of_piece.map_or(1.0, |of| f64::from(of[col]));
                sums.errors += factor * f64::from(stored - weight).powi(2);
                sums.squares += factor * f64::from(*weight).powi(2);
            }
        }
        Ok(())
    }
}
