//! Typed access to the fields of a JSON request; a field that is null counts as absent.

use serde_json::{Map, Value};

use super::api_error::ApiError;

/// What a field that limits something says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// -1, as in llama.cpp's server and LM Studio.
    None,
    /// So many.
    Of(usize),
}

impl Limit {
    pub(super) fn most(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Of(most) => Some(most),
        }
    }
}

pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a request, which may hold `most` values in all: each takes far more memory than its text.
    pub(super) fn parse(body: &[u8], most: usize) -> Result<Self, ApiError> {
        if values(body) > most {
            return Err(ApiError::invalid(None, format!("the request body holds more than {most} JSON values")));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::invalid(None, "the request body is not a JSON object".into())),
            Err(error) => Err(ApiError::invalid(None, format!("the request body is not valid JSON: {error}"))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Takes a field out of the request.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, ApiError> {
        Ok(self.typed(name, "a number", Value::as_f64)?.map(|value| value as f32))
    }

    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.typed(name, "a whole number, 0 or more", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A limit: a count, or -1 for none.
    pub(super) fn limit(&self, name: &str) -> Result<Option<Limit>, ApiError> {
        self.typed(name, "a whole number, 0 or more, or -1 for no limit", |value| match value.as_i64() {
            Some(-1) => Some(Limit::None),
            _ => value.as_u64().and_then(|n| usize::try_from(n).ok()).map(Limit::Of),
        })
    }

    /// Any 64-bit integer; negative ones wrap, which for a seed is as good as any.
    pub(super) fn seed(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.typed(name, "an integer", |value| value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ApiError> {
        self.typed(name, "an object", Value::as_object)
    }

    /// Refuses a feature of the API that this server does not have, unless the field asks for nothing.
    pub(super) fn refuse_unless(
        &self,
        name: &str,
        neutral: impl Fn(&Value) -> bool,
        why: &str,
    ) -> Result<(), ApiError> {
        match self.get(name) {
            Some(value) if !neutral(value) => Err(ApiError::invalid(name.to_owned(), format!("{name}: {why}"))),
            _ => Ok(()),
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_type(name, expected)),
        }
    }
}

/// How many values and keys a JSON text holds at most: what stands behind a bracket, a comma or a colon.
fn values(body: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' | b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

pub(super) fn wrong_type(name: &str, expected: &str) -> ApiError {
    ApiError::invalid(name.to_owned(), format!("{name} must be {expected}"))
}
