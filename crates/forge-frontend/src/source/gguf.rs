//! GGUF files: `<architecture>.*` metadata and tensors under llama.cpp's names.

use std::cell::{Cell, RefCell};

use serde_json::{Map, Value};

use super::{Dialect, Entry, Hparams, Loaded, Stored, Tensors, hparams::is_global, json::float};
use crate::checkpoint::{GgufFile, MetaArray, MetaValue};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

/// Longest array that counts as a hyper-parameter: one value per layer, with room.
const LONGEST_ARRAY: usize = 4096;

/// The hyper-parameters and tensors of a GGUF.
pub(crate) fn load_gguf(gguf: &GgufFile) -> Result<Loaded, FrontendError> {
    let files = gguf.files().to_vec();
    let file = files[0].name();
    let text = |key: &str| gguf.metadata(key).and_then(MetaValue::as_str).map(str::to_owned);
    let key = "general.architecture";
    let architecture = text(key).ok_or_else(|| FrontendError::MissingKey {
        refusal: Refusal::NoArchitecture,
        file: file.clone(),
        key: key.to_owned(),
    })?;

    let prefix = format!("{architecture}.");
    let own = |key: &'_ str| key.strip_prefix(&prefix).map(str::to_owned);
    let global = |key: &str| is_global(key).then(|| key.to_owned());
    let keys = gguf.entries().iter().filter_map(|(key, value)| Some((own(key).or_else(|| global(key))?, json(value)?)));
    let values: Map<String, Value> = keys.collect();
    let hparams = Hparams { dialect: Dialect::Gguf, file: file.clone(), prefix, values };

    let entries = gguf.tensors().iter().map(|tensor| {
        let mut shape: Vec<usize> = tensor.dims.iter().rev().map(|&dim| dim as usize).collect();
        // Converters write vectors with one dimension; some tools pad shapes with ones.
        while shape.len() > 1 && shape[0] == 1 {
            shape.remove(0);
        }
        let range = FileRange { file: tensor.file, range: tensor.range.clone() };
        let stored = match &tensor.format {
            Ok(format) => Stored::Rows(*format, range),
            Err(error) => Stored::Refused(error.clone()),
        };
        let entry = Entry { shape, stored, file: files[tensor.file].name(), used: Cell::new(false) };
        (tensor.name.clone(), entry)
    });
    let tensors = Tensors {
        dialect: Dialect::Gguf,
        file: file.clone(),
        prefix: String::new(),
        head_prefix: String::new(),
        entries: entries.collect(),
        roles: &[],
    };
    let name = text("general.name").filter(|name| !name.trim().is_empty());
    let name = name.unwrap_or_else(|| file.strip_suffix(".gguf").unwrap_or(&file).to_owned());
    Ok(Loaded { architecture, name, hparams, tensors, files, warnings: RefCell::default() })
}

/// A metadata value as JSON; `None` for what is no hyper-parameter.
fn json(value: &MetaValue) -> Option<Value> {
    match value {
        MetaValue::String(text) => Some(Value::String(text.clone())),
        MetaValue::Bool(flag) => Some(Value::Bool(*flag)),
        MetaValue::F32(number) => Some(float(f64::from(*number))),
        MetaValue::F64(number) => Some(float(*number)),
        MetaValue::I8(number) => Some(Value::from(*number)),
        MetaValue::I16(number) => Some(Value::from(*number)),
        MetaValue::I32(number) => Some(Value::from(*number)),
        MetaValue::I64(number) => Some(Value::from(*number)),
        MetaValue::Array(array) if array.len() <= LONGEST_ARRAY => json_array(array),
        MetaValue::Array(_) => None,
        MetaValue::U8(_) | MetaValue::U16(_) | MetaValue::U32(_) | MetaValue::U64(_) => value.as_u64().map(Value::from),
    }
}

fn json_array(array: &MetaArray) -> Option<Value> {
    Some(match array {
        MetaArray::U8(items) => Value::from(items.clone()),
        MetaArray::I8(items) => Value::from(items.clone()),
        MetaArray::U16(items) => Value::from(items.clone()),
        MetaArray::I16(items) => Value::from(items.clone()),
        MetaArray::U32(items) => Value::from(items.clone()),
        MetaArray::I32(items) => Value::from(items.clone()),
        MetaArray::F32(items) => items.iter().map(|&item| float(f64::from(item))).collect(),
        MetaArray::Bool(items) => Value::from(items.clone()),
        MetaArray::U64(items) => Value::from(items.clone()),
        MetaArray::I64(items) => Value::from(items.clone()),
        MetaArray::F64(items) => items.iter().map(|&item| float(item)).collect(),
        MetaArray::Strings(_) | MetaArray::Arrays(_) => return None,
    })
}
