//! GGML's type ids: which are ours, and what the others are called, so that a refusal names them.

use crate::{Format, FormatError};

/// A type of GGML's table (`enum ggml_type` and its traits) that Forge does not read.
struct OtherType {
    id: u32,
    name: &'static str,
    /// Weights per block; 0 when the type was withdrawn and its size does not matter.
    elements: u32,
    /// Bytes per block.
    bytes: u32,
}

const fn other(id: u32, name: &'static str, elements: u32, bytes: u32) -> OtherType {
    OtherType { id, name, elements, bytes }
}

/// The type id that mainline's Q2_0 and TQ2_0_g128 share; see [`Format::from_ggml`].
pub(crate) const SHARED_ID: u32 = 42;

const OTHERS: &[OtherType] = &[
    other(4, "Q4_2", 0, 0),
    other(5, "Q4_3", 0, 0),
    other(9, "Q8_1", 32, 36),
    other(15, "Q8_K", 256, 292),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    other(31, "Q4_0_4_4", 0, 0),
    other(32, "Q4_0_4_8", 0, 0),
    other(33, "Q4_0_8_8", 0, 0),
    other(36, "IQ4_NL_4_4", 0, 0),
    other(37, "IQ4_NL_4_8", 0, 0),
    other(38, "IQ4_NL_8_8", 0, 0),
    other(40, "NVFP4", 64, 36),
];

fn find(id: u32) -> Option<&'static OtherType> {
    OTHERS.iter().find(|t| t.id == id)
}

impl Format {
    /// The format that a GGUF tensor of this type id is in.
    ///
    /// `elements` is the number of weights, `span` the bytes from the tensor's start to the next tensor's (or the end
    /// of the file), padding to `alignment` included. Only type 42 looks at them: mainline GGML's Q2_0 (64 weights in 18 bytes) and
    /// TQ2_0_g128 (128 weights in 34 bytes) share it, and only the space tells which one a file means.
    ///
    /// # Errors
    /// A known type that is not read, by its name; an unknown id; type 42 when the space fits both or neither.
    pub fn from_ggml(id: u32, elements: u64, span: u64, alignment: u64) -> Result<Self, FormatError> {
        if id == SHARED_ID {
            return Self::resolve_shared(elements, span, alignment);
        }
        if let Some(known) = Self::with_ggml_id(id) {
            return Ok(known.format);
        }
        let found = find(id).ok_or(FormatError::UnknownGgmlType { id })?;
        Err(FormatError::UnsupportedGgmlType { id, name: found.name })
    }

    fn resolve_shared(elements: u64, span: u64, alignment: u64) -> Result<Self, FormatError> {
        let fits = |block: u64, bytes: u64| {
            elements.is_multiple_of(block)
                && (elements / block).checked_mul(bytes).is_some_and(|size| size <= span && span - size < alignment)
        };
        match (fits(128, 34), fits(64, 18)) {
            (true, false) => Ok(Self::Tq2_0G128),
            (false, true) => Ok(Self::Q2_0),
            _ => Err(FormatError::AmbiguousGgmlType { elements, span }),
        }
    }

    /// The type id that GGUF files use for this format; `None` for those that GGUF does not have.
    pub fn ggml_id(self) -> Option<u32> {
        self.block().and_then(|known| known.ggml_id)
    }
}

/// GGML's name of a type id, for those that it has (type 42 is named as mainline names it).
pub fn ggml_name(id: u32) -> Option<&'static str> {
    find(id).map(|t| t.name).or_else(|| Format::with_ggml_id(id).map(|known| known.name))
}

/// Weights and bytes per block of a GGML type, whether or not Forge reads it; `None` for withdrawn and unknown types.
pub fn ggml_block(id: u32) -> Option<(u32, u32)> {
    match find(id) {
        Some(other) => (other.elements > 0).then_some((other.elements, other.bytes)),
        None => Format::with_ggml_id(id).map(|known| (known.elements as u32, known.bytes as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        for format in Format::all() {
            let Some(id) = format.ggml_id() else {
                assert!(matches!(format, Format::Affine { .. } | Format::E4m3G128 | Format::E4m3G32));
                continue;
            };
            let elements = 128 * 1024;
            let span = format.row_bytes(elements).expect("whole blocks") as u64;
            assert_eq!(Format::from_ggml(id, elements as u64, span, 32), Ok(format));
            // Mainline's Q2_0 comes first of the two.
            let first = format != Format::Tq2_0G128;
            assert_eq!(ggml_block(id).is_some_and(|(n, _)| n as usize == format.block_elements()), first);
        }
    }

    #[test]
    fn refusals_name_the_type() {
        for (id, name) in [(4, "Q4_2"), (9, "Q8_1"), (15, "Q8_K"), (24, "I8"), (28, "F64"), (40, "NVFP4")] {
            let refusal = FormatError::UnsupportedGgmlType { id, name };
            assert_eq!(Format::from_ggml(id, 256, 256, 32), Err(refusal));
            assert_eq!(ggml_name(id), Some(name));
        }
        assert_eq!(Format::from_ggml(43, 256, 256, 32), Err(FormatError::UnknownGgmlType { id: 43 }));
    }

    #[test]
    fn type_42_is_told_apart_by_size() {
        let q2_0 = Ok(Format::Q2_0);
        // 128 x 256 weights: 8704 bytes or 9216, with or without padding.
        assert_eq!(Format::from_ggml(42, 32_768, 8_704, 32), Ok(Format::Tq2_0G128));
        assert_eq!(Format::from_ggml(42, 32_768, 8_704 + 31, 32), Ok(Format::Tq2_0G128));
        assert_eq!(Format::from_ggml(42, 32_768, 9_216, 32), q2_0);
        assert_eq!(Format::from_ggml(42, 64, 32, 32), q2_0);
        // 128 weights: 34 bytes or 36, either padded to 64.
        let ambiguous = Err(FormatError::AmbiguousGgmlType { elements: 128, span: 64 });
        assert_eq!(Format::from_ggml(42, 128, 64, 32), ambiguous);
        assert!(Format::from_ggml(42, 32_768, 8_000, 32).is_err());
    }
}
