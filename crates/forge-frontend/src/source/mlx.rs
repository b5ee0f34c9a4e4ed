//! MLX's quantisation in a folder: `weight`, `scales` and `biases` of a module are one affine tensor, with bits and group
//! size from `quantization` in config.json.

use std::collections::BTreeMap;

use forge_formats::Format;
use serde_json::{Map, Value};

use super::hf::{CONFIG, float_format};
use super::tensors::AffineRanges;
use super::{Entry, Stored, brief, unsigned};
use crate::checkpoint::{Dtype, SafetensorsSet, StTensor};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

/// Replaces the three tensors of each quantised module by one entry under the name of its weight.
///
/// # Errors
/// Settings that are not affine quantisation of a known width, or tensors that do not fit together.
pub(super) fn join_affine(
    entries: &mut BTreeMap<String, Entry>,
    set: &SafetensorsSet,
    quantization: &Map<String, Value>,
) -> Result<(), FrontendError> {
    let modules: Vec<String> =
        entries.keys().filter_map(|name| name.strip_suffix(".scales")).map(str::to_owned).collect();
    for module in modules {
        let weight_name = format!("{module}.weight");
        let Some(codes) = set.tensors().get(&weight_name).filter(|tensor| tensor.dtype == Dtype::U32) else { continue };
        let format = settings(quantization, &module)?;
        let Format::Affine { bits, group } = format else { continue };
        let file = entries[&weight_name].file.clone();
        let (code_bits, group_size) = (usize::from(bits), usize::from(group));
        // A stack of matrices has one dimension more.
        let (words, leading) = match &codes.shape[..] {
            [leading @ .., words] if (1..=2).contains(&leading.len()) => (*words, leading),
            _ => {
                // Refused by its name where it is wanted, after the architecture has been looked at.
                if let Some(entry) = entries.get_mut(&weight_name) {
                    entry.stored = Stored::Foreign(format!("{} dimensions of {format}", codes.shape.len()));
                }
                entries.remove(&format!("{module}.scales"));
                entries.remove(&format!("{module}.biases"));
                continue;
            }
        };
        let shape = |cols: usize| [leading, &[cols]].concat();
        // An empty tensor may claim any width.
        let cols = words.checked_mul(32).ok_or_else(|| FrontendError::Tensor {
            refusal: Refusal::AffineWidth,
            file: file.clone(),
            tensor: weight_name.clone(),
            expected: "codes of fewer columns",
            found: format!("shape {:?}", codes.shape),
        })? / code_bits;
        let part = |suffix: &str| {
            let name = format!("{module}.{suffix}");
            let missing = || FrontendError::MissingTensor {
                refusal: Refusal::AffinePart,
                file: file.clone(),
                tensor: name.clone(),
            };
            let tensor = set.tensors().get(&name).ok_or_else(missing)?;
            let expected = shape(cols / group_size);
            if tensor.shape != expected {
                return Err(FrontendError::TensorShape {
                    refusal: Refusal::AffineShape,
                    file: file.clone(),
                    tensor: name,
                    expected,
                    found: tensor.shape.clone(),
                });
            }
            let format = float_format(tensor.dtype).ok_or_else(|| FrontendError::TensorType {
                refusal: Refusal::AffineType,
                file: file.clone(),
                tensor: name.clone(),
                expected: "F32, F16 or BF16",
                found: tensor.dtype.as_str().to_owned(),
            })?;
            Ok((tensor, format))
        };
        let ((scales, scale_format), (biases, bias_format)) = (part("scales")?, part("biases")?);
        if scale_format != bias_format {
            return Err(FrontendError::TensorType {
                refusal: Refusal::AffineBiasType,
                file,
                tensor: format!("{module}.biases"),
                expected: "the type of the scales",
                found: bias_format.to_string(),
            });
        }
        let range = |tensor: &StTensor| FileRange { file: tensor.file, range: tensor.range.clone() };
        let ranges = AffineRanges { quants: range(codes), scales: range(scales), biases: range(biases), scale_format };
        entries.remove(&format!("{module}.scales"));
        entries.remove(&format!("{module}.biases"));
        if let Some(entry) = entries.get_mut(&weight_name) {
            entry.shape = shape(cols);
            entry.stored = Stored::Affine { bits, group, ranges };
        }
    }
    Ok(())
}

/// Bits and group size of a module: its own settings where it has some, else those for all.
fn settings<'a>(quantization: &'a Map<String, Value>, module: &str) -> Result<Format, FrontendError> {
    let own = quantization.get(module).and_then(Value::as_object);
    let setting = |key: &str| -> Option<&'a Value> {
        let stated = |map: &'a Map<String, Value>| map.get(key).filter(|value| !value.is_null());
        own.and_then(stated).or_else(|| stated(quantization))
    };
    let prefix = if own.is_some() { format!("quantization.{module}") } else { "quantization".to_owned() };
    let number = |key: &str| {
        let value = setting(key);
        value.and_then(unsigned).ok_or_else(|| FrontendError::KeyValue {
            refusal: Refusal::QuantizationNumber,
            file: CONFIG.to_owned(),
            key: format!("{prefix}.{key}"),
            expected: "a size".to_owned(),
            found: value.map_or_else(|| "nothing".to_owned(), brief),
        })
    };
    let unsupported = |refusal: Refusal, key: &str, found: String, reason: String| FrontendError::UnsupportedFeature {
        refusal,
        file: CONFIG.to_owned(),
        key: format!("{prefix}.{key}"),
        found,
        reason,
    };
    if let Some(mode) = setting("mode")
        && mode.as_str() != Some("affine")
    {
        return Err(unsupported(
            Refusal::QuantizationMode,
            "mode",
            brief(mode),
            "of MLX's quantisations affine is read".to_owned(),
        ));
    }
    let (bits, group) = (number("bits")?, number("group_size")?);
    Format::affine(bits, group)
        .map_err(|error| unsupported(Refusal::QuantizationWidth, "bits", bits.to_string(), error.to_string()))
}
