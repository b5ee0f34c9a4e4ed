//! The matrices of heads that latent attention has, however a checkpoint stores them: keys and values apart, or together.

use super::tensors::Tensors;
use crate::graph::{LatentSizes, Source, Weight};
use crate::{FrontendError, Refusal};

/// The tensor that has both: of each head the rows of its keys, then those of its values.
const TOGETHER: &str = "attn_kv_b";

impl Tensors {
    /// Whether keys and values are stored together.
    pub fn has_keys_with_values(&self) -> bool {
        self.has(TOGETHER, Some(0))
    }

    /// The matrices of all heads for keys (`attn_k_b`) or values (`attn_v_b`), one after another. Of those that are stored
    /// `together` keys are `[heads * nope, latent]`; apart they are `[heads * latent, nope]`, turned.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or in a format that is not read.
    pub fn of_heads(
        &self,
        role: &str,
        layer: Option<usize>,
        sizes: &LatentSizes,
        together: bool,
    ) -> Result<Weight, FrontendError> {
        let &LatentSizes { heads, latent, nope, value, .. } = sizes;
        let is_key = role == "attn_k_b";
        let name = self.name(if together { TOGETHER } else { role }, layer);
        let entry = self.find(&name)?;
        let [rows, cols] = match (is_key, together) {
            (true, true) => [nope, latent],
            (true, false) => [latent, nope],
            (false, _) => [value, latent],
        };
        let both = nope + value;
        let mut expected = if together { vec![heads * both, latent] } else { vec![heads, rows, cols] };
        // Some writers leave the heads' axis out, or one of a single head.
        if !together && entry.shape.len() == 2 {
            expected = vec![heads * rows, cols];
        }
        if entry.shape != expected {
            return Err(FrontendError::TensorShape {
                refusal: Refusal::HeadMatrixShape,
                file: entry.file.clone(),
                tensor: name,
                expected,
                found: entry.shape.clone(),
            });
        }
        let (format, source) = if together {
            let first = if is_key { 0 } else { nope };
            let piece = |head| entry.rows(&name, cols, heads * both, head * both + first, rows);
            let (format, _) = piece(0)?;
            let pieces = (0..heads).map(|head| piece(head).map(|(_, source)| source));
            (format, Source::Stack(pieces.collect::<Result<_, _>>()?))
        } else {
            entry.rows(&name, cols, heads * rows, 0, heads * rows)?
        };
        Ok(Weight {
            tensor: name,
            role: role.to_owned(),
            layer,
            rows: heads * rows,
            cols,
            format,
            source,
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: None,
        })
    }
}
