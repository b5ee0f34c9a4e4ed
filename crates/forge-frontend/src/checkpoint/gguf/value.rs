//! GGUF metadata values.

/// A metadata value, in the type it is stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// `GGUF_TYPE_UINT8`
    U8(u8),
    /// `GGUF_TYPE_INT8`
    I8(i8),
    /// `GGUF_TYPE_UINT16`
    U16(u16),
    /// `GGUF_TYPE_INT16`
    I16(i16),
    /// `GGUF_TYPE_UINT32`
    U32(u32),
    /// `GGUF_TYPE_INT32`
    I32(i32),
    /// `GGUF_TYPE_FLOAT32`
    F32(f32),
    /// `GGUF_TYPE_BOOL`
    Bool(bool),
    /// `GGUF_TYPE_STRING`
    String(String),
    /// `GGUF_TYPE_ARRAY`
    Array(MetaArray),
    /// `GGUF_TYPE_UINT64`
    U64(u64),
    /// `GGUF_TYPE_INT64`
    I64(i64),
    /// `GGUF_TYPE_FLOAT64`
    F64(f64),
}

/// An array of metadata values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaArray {
    /// Of `GGUF_TYPE_UINT8`.
    U8(Vec<u8>),
    /// Of `GGUF_TYPE_INT8`.
    I8(Vec<i8>),
    /// Of `GGUF_TYPE_UINT16`.
    U16(Vec<u16>),
    /// Of `GGUF_TYPE_INT16`.
    I16(Vec<i16>),
    /// Of `GGUF_TYPE_UINT32`.
    U32(Vec<u32>),
    /// Of `GGUF_TYPE_INT32`.
    I32(Vec<i32>),
    /// Of `GGUF_TYPE_FLOAT32`.
    F32(Vec<f32>),
    /// Of `GGUF_TYPE_BOOL`.
    Bool(Vec<bool>),
    /// Of `GGUF_TYPE_STRING`, as bytes: a vocabulary may hold tokens that are not UTF-8.
    Strings(Vec<Vec<u8>>),
    /// Of `GGUF_TYPE_ARRAY`.
    Arrays(Vec<MetaArray>),
    /// Of `GGUF_TYPE_UINT64`.
    U64(Vec<u64>),
    /// Of `GGUF_TYPE_INT64`.
    I64(Vec<i64>),
    /// Of `GGUF_TYPE_FLOAT64`.
    F64(Vec<f64>),
}

impl MetaValue {
    /// The type's name, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// Any integer.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::I64(v) => Some(v),
            _ => self.as_u64().and_then(|v| v.try_into().ok()),
        }
    }

    /// A float of either width, or any integer.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => self.as_i64().map(|v| v as f64).or(self.as_u64().map(|v| v as f64)),
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&MetaArray> {
        match self {
            Self::Array(v) => Some(v),
            _ => None,
        }
    }
}

impl MetaArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Strings(v) => v.len(),
            Self::Arrays(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// The elements of an array of any integers; those beyond 63 bits are the largest one.
    pub fn as_i64s(&self) -> Option<Vec<i64>> {
        fn widened<T: Copy + Into<i64>>(items: &[T]) -> Option<Vec<i64>> {
            Some(items.iter().map(|&item| item.into()).collect())
        }
        match self {
            Self::U8(v) => widened(v),
            Self::I8(v) => widened(v),
            Self::U16(v) => widened(v),
            Self::I16(v) => widened(v),
            Self::U32(v) => widened(v),
            Self::I32(v) => widened(v),
            Self::I64(v) => Some(v.clone()),
            Self::U64(v) => Some(v.iter().map(|&item| item.try_into().unwrap_or(i64::MAX)).collect()),
            _ => None,
        }
    }

    /// The elements of an array of floats of either width, or of any integers.
    pub fn as_f64s(&self) -> Option<Vec<f64>> {
        match self {
            Self::F32(v) => Some(v.iter().map(|&item| item.into()).collect()),
            Self::F64(v) => Some(v.clone()),
            _ => Some(self.as_i64s()?.into_iter().map(|item| item as f64).collect()),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
