//! Importance matrices as llama.cpp writes them: a GGUF whose `general.type` is `imatrix`, with `NAME.in_sum2`, the sums of squares
//! of the inputs of matrix NAME `[experts, cols]`, and `NAME.counts` `[experts, 1]`, how many inputs were summed.

use std::collections::BTreeMap;
use std::path::Path;

use forge_formats::{Format, decode_row};
use forge_frontend::checkpoint::{GgufFile, MetaValue};
use forge_frontend::graph::Weight;

use crate::Error;

/// The mean square of each column's input, by the GGUF name of the matrix.
#[derive(Debug)]
pub struct Imatrix {
    means: BTreeMap<String, Vec<f32>>,
}

impl Imatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is no GGUF or no importance matrix; sums that are no F32, not finite, or without counts.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let gguf = GgufFile::open(path).map_err(|error| Error::Frontend(error.into()))?;
        let refused = |reason: String| Error::Imatrix { path: path.to_owned(), reason };
        if gguf.metadata("general.type").and_then(MetaValue::as_str) != Some("imatrix") {
            return Err(refused("general.type: expected \"imatrix\"".to_owned()));
        }
        let numbers = |name: &str| {
            let tensor = gguf.tensor(name).ok_or_else(|| refused(format!("tensor {name} is missing")))?;
            if tensor.format != Ok(Format::F32) {
                return Err(refused(format!("tensor {name}: expected F32")));
            }
            let bytes = gguf.data(tensor);
            let mut numbers = vec![0.0; bytes.len() / 4];
            decode_row(Format::F32, bytes, &mut numbers).expect("a tensor of F32");
            match numbers.iter().find(|number| !(number.is_finite() && **number >= 0.0)) {
                Some(number) => Err(refused(format!("tensor {name}: expected numbers from 0 up, found {number}"))),
                None => Ok(numbers),
            }
        };
        let mut means = BTreeMap::new();
        for tensor in gguf.tensors() {
            let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
            let (sums, counts) = (numbers(&tensor.name)?, numbers(&format!("{name}.counts"))?);
            if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                let reason = format!("tensor {name}.counts: {} numbers for {} sums", counts.len(), sums.len());
                return Err(refused(reason));
            }
            // Experts that saw no input count as if all columns were alike.
            let each = sums.len() / counts.len();
            let mean =
                |(index, sum): (usize, &f32)| if counts[index / each] > 0.0 { sum / counts[index / each] } else { 1.0 };
            means.insert(name.to_owned(), sums.iter().enumerate().map(mean).collect());
        }
        if means.is_empty() {
            return Err(refused("no tensor NAME.in_sum2".to_owned()));
        }
        Ok(Self { means })
    }

    /// The mean squares for a matrix: `[cols]`, or of stacked experts `[experts, cols]`. `None` where the file has none that fit.
    pub fn of(&self, weight: &Weight) -> Option<&[f32]> {
        let role = forge_plan::roles::gguf(&weight.role);
        let name = match weight.layer {
            Some(layer) => format!("blk.{layer}.{role}.weight"),
            None => format!("{role}.weight"),
        };
        let means = self.means.get(&name)?;
        let whole = weight.source.pieces().len() * weight.cols;
        // All zeros tell nothing.
        let fits = (means.len() == weight.cols || means.len() == whole) && means.iter().any(|mean| *mean > 0.0);
        fits.then_some(means)
    }
}
