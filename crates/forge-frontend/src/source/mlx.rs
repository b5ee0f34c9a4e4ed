//! MLX's quantisation in a folder: `weight`, `scales` and `biases` of a module are one affine tensor, `weight` and `scales` one of
//! the floating modes, as `quantization` in config.json says.

use std::collections::BTreeMap;

use forge_formats::Format;
use serde_json::{Map, Value};

use super::hf::{CONFIG, float_format};
use super::tensors::AffineRanges;
use super::{Entry, Stored, apart, brief, unsigned};
use crate::checkpoint::{Dtype, SafetensorsSet, StTensor};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

/// Replaces the tensors of each quantised module by one entry under the name of its weight.
///
/// # Errors
/// Settings that are no quantisation of a known mode and width, or tensors that do not fit together.
pub(super) fn join_modules(
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
        let file = entries[&weight_name].file.clone();
        let (bits, group_size) = match format {
            Format::Affine { bits, group } => (bits, usize::from(group)),
            other => (0, other.apart().map_or(1, |apart| apart.group)),
        };
        let code_bits = format.apart().map_or(usize::from(bits), |apart| apart.bits);
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
        let Format::Affine { group, .. } = format else {
            apart::join(entries, set, format, [&weight_name, &format!("{module}.scales")], &weight_name, shape(cols))?;
            if format.has_row_factors() {
                // MLX's operations take the largest weight there is, which the largest scale and code stand for.
                let factor = |largest: f32| largest / (448.0 * 6.0);
                apart::join_factors(entries, set, &format!("{module}.global_scale"), &weight_name, factor)?;
            }
            continue;
        };
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

/// What `mx.quantize` makes of a module: its own settings where it has some, else those for all. Of its own what is not said is
/// the mode's default, affine for the mode.
fn settings(quantization: &Map<String, Value>, module: &str) -> Result<Format, FrontendError> {
    let own = quantization.get(module).and_then(Value::as_object);
    let (map, prefix) = match own {
        Some(own) => (own, format!("quantization.{module}")),
        None => (quantization, "quantization".to_owned()),
    };
    let setting = |key: &str| map.get(key).filter(|value| !value.is_null());
    let number = |key: &str, default: u32| match setting(key) {
        None if own.is_some() => Ok(default),
        value => value.and_then(unsigned).ok_or_else(|| FrontendError::KeyValue {
            refusal: Refusal::QuantizationNumber,
            file: CONFIG.to_owned(),
            key: format!("{prefix}.{key}"),
            expected: "a size".to_owned(),
            found: value.map_or_else(|| "nothing".to_owned(), brief),
        }),
    };
    let unsupported = |refusal: Refusal, key: &str, found: String, reason: String| FrontendError::UnsupportedFeature {
        refusal,
        file: CONFIG.to_owned(),
        key: format!("{prefix}.{key}"),
        found,
        reason,
    };
    let mode = setting("mode");
    let name = mode.map_or(Some("affine"), Value::as_str);
    if name == Some("affine") {
        let (bits, group) = (number("bits", 4)?, number("group_size", 64)?);
        return Format::affine(bits, group)
            .map_err(|error| unsupported(Refusal::QuantizationWidth, "bits", bits.to_string(), error.to_string()));
    }
    let Some((format, apart)) = name.and_then(Format::with_mlx_mode) else {
        let reason = format!("of MLX's quantisations affine, {} are read", Format::mlx_modes());
        return Err(unsupported(Refusal::QuantizationMode, "mode", mode.map_or_else(String::new, brief), reason));
    };
    let (bits, group) = (apart.bits as u32, apart.group as u32);
    match [number("bits", bits)?, number("group_size", group)?] {
        found if found == [bits, group] => Ok(format),
        [found, of] => {
            let reason =
                format!("{} has {bits} bits in groups of {group}, not {found} in groups of {of}", apart.mlx_mode);
            Err(unsupported(Refusal::ModeWidth, "bits", found.to_string(), reason))
        }
    }
}
