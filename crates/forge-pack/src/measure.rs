//! What quantising would cost, before it is done: the error of a matrix in a format, from some of its rows.

use forge_formats::Format;
use forge_frontend::graph::{Graph, Source as Place, WeightId};

use crate::quantize::Encoder;
use crate::{PackError, Source};

/// Rows of a matrix that are tried, spread over all of it.
const ROWS: usize = 256;

/// Sum of squared errors of a matrix of floats in `format`, by that of squared weights; each column counts as `importance` says, of
/// `[pieces, cols]` or `[cols]` numbers: the mean square of its input.
///
/// # Errors
/// A weight that the format cannot hold, a matrix that is none of floats.
pub fn relative_error(
    graph: &Graph,
    source: &dyn Source,
    id: WeightId,
    format: Format,
    importance: Option<&[f32]>,
) -> Result<f64, PackError> {
    let weight = &graph.weights[id];
    let pieces = weight.source.pieces();
    let each = weight.rows / pieces.len().max(1);
    let (mut encoder, mut gathered) = (Encoder::default(), Vec::new());
    let (mut errors, mut squares) = (0.0, 0.0);
    for row in (0..weight.rows).step_by(weight.rows.div_ceil(ROWS)) {
        let (piece, row) = (row / each, row % each);
        let row = match &pieces[piece] {
            Place::Rows(range) => {
                let bytes = source.bytes(range);
                let row_bytes = bytes.len() / each;
                &bytes[row * row_bytes..][..row_bytes]
            }
            Place::Strided { elements, strides } => {
                let size = weight.format.block_bytes();
                strides.gather(source.bytes(elements), size, row..row + 1, weight.cols, &mut gathered);
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
        let format_error = |source| PackError::Format { tensor: weight.tensor.clone(), source };
        encoder.encode(format, weight.cols, weight.format, row).map_err(format_error)?;
        let (weights, stored) = encoder.last_row();
        let of_piece = importance.map(|all| if all.len() == weight.cols { all } else { &all[piece * weight.cols..] });
        for (col, (weight, stored)) in weights.iter().zip(stored).enumerate() {
            let factor = of_piece.map_or(1.0, |of| f64::from(of[col]));
            errors += factor * f64::from(stored - weight).powi(2);
            squares += factor * f64::from(*weight).powi(2);
        }
    }
    Ok(if errors == 0.0 { 0.0 } else { errors / squares })
}
