//! The beginning of the safetensors files that commands write.

use serde_json::{Map, Value, json};

/// A tensor of a file: name, type of four bytes an element, shape.
pub(crate) type Tensor<'a> = (&'a str, &'static str, &'a [usize]);

/// What comes before the data: the header's length and the header. The data of the tensors follows in their order, without gaps.
pub(crate) fn header(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut entries = Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        entries.insert((*name).to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(entries).to_string();
    // The format asks for data on an 8-byte boundary, reached with spaces.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}
