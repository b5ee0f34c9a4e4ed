//! Codes and scales in two tensors: Hugging Face's `_blocks` and `_scales` (transformers' `quant_method` mxfp4), MLX's floating modes,
//! NVFP4 and MXFP4 of other toolchains.

use std::collections::BTreeMap;

use forge_formats::Format;

use super::factors::Factors;
use super::hf::float_format;
use super::{Entry, Stored};
use crate::checkpoint::{Dtype, SafetensorsSet, StTensor};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

/// Bytes of the codes of a block of MXFP4.
const BLOCK_BYTES: usize = 16;
/// Weights of such a block.
const BLOCK: usize = 32;

/// Replaces each pair of `X_blocks`, `[.., blocks, 16]` bytes, and `X_scales`, `[.., blocks]` bytes, by an entry `X`.
///
/// # Errors
/// Blocks without scales, or scales that do not fit them.
pub(super) fn join_blocks(entries: &mut BTreeMap<String, Entry>, set: &SafetensorsSet) -> Result<(), FrontendError> {
    let stems: Vec<String> =
        entries.keys().filter_map(|name| name.strip_suffix("_blocks")).map(str::to_owned).collect();
    for stem in stems {
        let [blocks, scales] = ["blocks", "scales"].map(|part| format!("{stem}_{part}"));
        let Some(tensor) = set.tensors().get(&blocks).filter(|tensor| tensor.dtype == Dtype::U8) else { continue };
        // Of blocks of another size the weights are not known: they stay what nothing reads.
        let [leading @ .., count, BLOCK_BYTES] = &tensor.shape[..] else { continue };
        let Some(cols) = count.checked_mul(BLOCK) else { continue };
        let shape = [leading, &[cols]].concat();
        join(entries, set, Format::Mxfp4, [&blocks, &scales], &stem, shape)?;
    }
    Ok(())
}

/// Replaces two tensors of codes and scales by an entry `name` of weights of this shape.
///
/// # Errors
/// Scales that are missing, of another shape or type than the codes need.
pub(super) fn join(
    entries: &mut BTreeMap<String, Entry>,
    set: &SafetensorsSet,
    format: Format,
    [codes, scales]: [&str; 2],
    name: &str,
    shape: Vec<usize>,
) -> Result<(), FrontendError> {
    let file = entries[codes].file.clone();
    let found = set.tensors().get(scales).ok_or_else(|| FrontendError::MissingTensor {
        refusal: Refusal::ApartScales,
        file: file.clone(),
        tensor: scales.to_owned(),
    })?;
    let (cols, leading) = shape.split_last().expect("at least the columns");
    let expected = [leading, &[cols.div_ceil(format.apart().map_or(1, |apart| apart.group))]].concat();
    if found.shape != expected {
        return Err(FrontendError::TensorShape {
            refusal: Refusal::ApartShape,
            file,
            tensor: scales.to_owned(),
            expected,
            found: found.shape.clone(),
        });
    }
    if ![Dtype::U8, Dtype::F8E4M3, Dtype::F8E8M0].contains(&found.dtype) {
        return Err(FrontendError::TensorType {
            refusal: Refusal::ApartType,
            file,
            tensor: scales.to_owned(),
            expected: "U8",
            found: found.dtype.as_str().to_owned(),
        });
    }
    let range = |tensor: &StTensor| FileRange { file: tensor.file, range: tensor.range.clone() };
    let stored = Stored::Apart { format, codes: range(&set.tensors()[codes]), scales: range(found) };
    entries.remove(scales);
    let entry = entries.remove(codes).expect("looked at above");
    entries.insert(name.to_owned(), Entry { shape, stored, ..entry });
    Ok(())
}

/// Multiplies the entry `of` by the numbers of a tensor, where there is such a tensor.
///
/// # Errors
/// Numbers that are not finite, not F32, or neither one nor one for each matrix of a stack.
pub(super) fn join_factors(
    entries: &mut BTreeMap<String, Entry>,
    set: &SafetensorsSet,
    name: &str,
    of: &str,
    number: impl Fn(f32) -> f32,
) -> Result<(), FrontendError> {
    let (Some(tensor), Some(entry)) = (set.tensors().get(name), entries.get(name)) else { return Ok(()) };
    let kind = float_format(tensor.dtype).ok_or_else(|| tensor.dtype.as_str().to_owned());
    let factors = Factors { name, file: entry.file.clone(), kind, shape: &tensor.shape, bytes: set.data(tensor) };
    let factors = factors.read(&entries[of].shape, number)?;
    entries.remove(name);
    let mut entry = entries.remove(of).expect("joined before");
    entry.stored = entry.stored.factored(factors);
    entries.insert(of.to_owned(), entry);
    Ok(())
}
