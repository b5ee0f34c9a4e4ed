//! Quantised folders of other toolchains: `quantization_config` of config.json, and the tensors that stand beside a matrix's codes.
//!
//! Formats are told by the tensors that are there; the configuration gives what these do not say. Each module's tensors become one
//! entry under the name of its weight.

mod fp4;
mod fp8;
mod integers;

use std::collections::BTreeMap;

use forge_formats::{Format, Repack, first_not_finite};
use serde_json::{Map, Value};

use super::hf::{CONFIG, float_format};
use super::{Entry, Stored, brief, unsigned};
use crate::checkpoint::{Dtype, MappedFile, SafetensorsSet, StTensor};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

/// Numbers for activations and caches in 8 bits, which are not quantised here.
const OF_ACTIVATIONS: &[&str] = &[
    ".input_scale",
    ".input_zero_point",
    ".input_global_scale",
    ".output_scale",
    ".activation_scale",
    ".qscale_act",
    ".k_scale",
    ".v_scale",
    ".q_scale",
];

/// A folder whose matrices are to be joined.
pub(super) struct Folder<'a> {
    pub entries: &'a mut BTreeMap<String, Entry>,
    pub set: &'a SafetensorsSet,
    pub files: &'a [MappedFile],
    /// `quantization_config`.
    pub settings: &'a Map<String, Value>,
}

impl Folder<'_> {
    /// Joins the tensors of each quantised module.
    ///
    /// # Errors
    /// A method that is not read; tensors that are missing or do not fit together.
    pub fn join(mut self) -> Result<(), FrontendError> {
        match self.text("quant_method").as_deref() {
            Some("fp8" | "fbgemm_fp8") => self.join_fp8()?,
            Some("modelopt") => {
                self.join_fp4(fp4::MODEL_OPT)?;
                self.join_fp8()?;
            }
            Some("gptq") => self.join_gptq()?,
            Some("awq") => self.join_awq()?,
            Some("compressed-tensors") => {
                self.join_fp4(fp4::COMPRESSED)?;
                self.join_compressed()?;
                self.join_fp8()?;
            }
            method => {
                let found = method.map_or_else(|| "nothing".to_owned(), |method| format!("{method:?}"));
                let read = "weights in F32, F16, BF16, FP8, GPTQ, AWQ, compressed-tensors, ModelOpt, MLX or GGUF formats are read";
                return Err(self.unsupported(Refusal::QuantizationMethod, "quant_method", found, read));
            }
        }
        self.entries.retain(|name, _| !OF_ACTIVATIONS.iter().any(|suffix| name.ends_with(suffix)));
        Ok(())
    }

    fn unsupported(&self, refusal: Refusal, key: &str, found: String, reason: &str) -> FrontendError {
        let key = format!("quantization_config.{key}");
        FrontendError::UnsupportedFeature { refusal, file: CONFIG.to_owned(), key, found, reason: reason.to_owned() }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.settings.get(key).and_then(Value::as_str).map(str::to_ascii_lowercase)
    }

    /// The modules that have a tensor of this suffix.
    fn modules(&self, suffix: &str) -> Vec<String> {
        self.entries.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    fn file(&self, tensor: &StTensor) -> String {
        self.files[tensor.file].name()
    }

    /// A module's tensor; `of` is one that it has, whose file errors name.
    fn part(&self, name: &str, of: &str) -> Result<&StTensor, FrontendError> {
        let missing = || FrontendError::MissingTensor {
            refusal: Refusal::RepackPart,
            file: self.file(&self.set.tensors()[of]),
            tensor: name.to_owned(),
        };
        self.set.tensors().get(name).ok_or_else(missing)
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), FrontendError> {
        let tensor = &self.set.tensors()[name];
        if tensor.shape == expected {
            return Ok(());
        }
        Err(FrontendError::TensorShape {
            refusal: Refusal::RepackShape,
            file: self.file(tensor),
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: tensor.shape.clone(),
        })
    }

    /// Rows and columns of a matrix.
    fn matrix(&self, name: &str) -> Result<[usize; 2], FrontendError> {
        let tensor = &self.set.tensors()[name];
        match tensor.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            _ => {
                Err(self.not_as_expected(Refusal::RepackMatrix, name, "a matrix", format!("shape {:?}", tensor.shape)))
            }
        }
    }

    fn check_type(&self, name: &str, known: &[Dtype], expected: &'static str) -> Result<(), FrontendError> {
        let tensor = &self.set.tensors()[name];
        if known.contains(&tensor.dtype) {
            return Ok(());
        }
        Err(FrontendError::TensorType {
            refusal: Refusal::RepackType,
            file: self.file(tensor),
            tensor: name.to_owned(),
            expected,
            found: tensor.dtype.as_str().to_owned(),
        })
    }

    fn not_as_expected(&self, refusal: Refusal, name: &str, expected: &'static str, found: String) -> FrontendError {
        let file = self.file(&self.set.tensors()[name]);
        FrontendError::Tensor { refusal, file, tensor: name.to_owned(), expected, found }
    }

    /// The format of a tensor of scales, which are finite numbers all.
    fn scales(&self, name: &str, known: &[Dtype], expected: &'static str) -> Result<Format, FrontendError> {
        self.check_type(name, known, expected)?;
        let tensor = &self.set.tensors()[name];
        let format = float_format(tensor.dtype).expect("scales are floats");
        match first_not_finite(format, self.set.data(tensor)).expect("a tensor of floats") {
            Some((index, scale)) => {
                let found = format!("{scale} at {index}");
                Err(self.not_as_expected(Refusal::RepackScale, name, "finite scales", found))
            }
            None => Ok(format),
        }
    }

    /// The 32-bit (or 64-bit) integers of a tensor.
    fn integers(&self, name: &str) -> Result<Vec<i64>, FrontendError> {
        self.check_type(name, &[Dtype::I32, Dtype::I64], "I32 or I64")?;
        let tensor = &self.set.tensors()[name];
        let bytes = self.set.data(tensor);
        Ok(match tensor.dtype {
            Dtype::I64 => bytes.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word)).collect(),
            _ => bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word).into()).collect(),
        })
    }

    /// Checks that there is a format for a module's codes.
    fn check_format(&self, repack: &Repack, codes: &str) -> Result<(), FrontendError> {
        let error = |source| {
            let file = self.file(&self.set.tensors()[codes]);
            FrontendError::TensorFormat { refusal: Refusal::RepackFormat, file, tensor: codes.to_owned(), source }
        };
        repack.format().map(|_| ()).map_err(error)
    }

    /// Puts one entry in place of a module's tensors. The first part gives the file that errors name.
    fn replace(&mut self, module: &str, shape: Vec<usize>, repack: Repack, parts: &[String], known: &[String]) {
        let range = |name: &String| {
            let tensor = &self.set.tensors()[name];
            FileRange { file: tensor.file, range: tensor.range.clone() }
        };
        let file = self.file(&self.set.tensors()[&parts[0]]);
        let stored = Stored::Repack { repack, parts: parts.iter().map(range).collect() };
        parts.iter().chain(known).for_each(|name| {
            self.entries.remove(name);
        });
        let entry = Entry { shape, stored, file, used: std::cell::Cell::new(false) };
        self.entries.insert(format!("{module}.weight"), entry);
    }

    /// A size that the configuration must give.
    fn size(&self, key: &str) -> Result<usize, FrontendError> {
        let value = self.settings.get(key);
        let found = value.and_then(unsigned).filter(|&size| size > 0);
        found.map(|size| size as usize).ok_or_else(|| FrontendError::KeyValue {
            refusal: Refusal::RepackSize,
            file: CONFIG.to_owned(),
            key: format!("quantization_config.{key}"),
            expected: "a size".to_owned(),
            found: value.map_or_else(|| "nothing".to_owned(), brief),
        })
    }
}
