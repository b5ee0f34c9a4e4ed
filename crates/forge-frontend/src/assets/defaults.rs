//! Typed access to generation_config.json, where null is absent.

use serde_json::{Map, Value};

use crate::source::{brief, integer, unsigned};
use crate::{FrontendError, Refusal};

pub(super) const GENERATION: &str = "generation_config.json";

/// The values of a generation_config.json.
pub(super) struct Defaults<'a>(pub &'a Map<String, Value>);

impl Defaults<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        refusal: Refusal,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(refusal, GENERATION, key, expected, value))
    }

    pub fn number(&self, key: &str) -> Result<Option<f32>, FrontendError> {
        self.typed(Refusal::SamplingNumber, key, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A count; a negative one stands for none.
    pub fn count(&self, key: &str) -> Result<Option<u32>, FrontendError> {
        let count = self.typed(Refusal::SamplingCount, key, "an integer", integer)?;
        Ok(count.filter(|count| *count >= 0).map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, FrontendError> {
        self.typed(Refusal::SamplingFlag, key, "true or false", Value::as_bool)
    }
}

/// Refuses ids of special tokens that are neither an integer nor a list of some; -1 and null stand for none.
pub(super) fn check_ids(file: &str, values: &Map<String, Value>) -> Result<(), FrontendError> {
    let is_id = |value: &Value| value.is_null() || integer(value) == Some(-1) || unsigned(value).is_some();
    for key in ["bos_token_id", "eos_token_id"] {
        let Some(value) = values.get(key) else { continue };
        if !value.as_array().map_or_else(|| is_id(value), |items| items.iter().all(is_id)) {
            return Err(wrong(Refusal::SpecialTokenId, file, key, "a token's id, or a list of them", value));
        }
    }
    Ok(())
}

fn wrong(refusal: Refusal, file: &str, key: &str, expected: &str, found: &Value) -> FrontendError {
    FrontendError::KeyValue {
        refusal,
        file: file.to_owned(),
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: brief(found),
    }
}
