//! GGML's type ids: which are ours, and what the others are called, so that a refusal names them.

use crate::{Format, FormatError};

/// A type of GGML's table (`enum ggml_type` and its traits), whether or not Forge reads it.
struct GgmlType {
    id: u32,
    name: &'static str,
    /// Weights per block; 0 when the type was withdrawn and its size does not matter.
    elements: u32,
    /// Bytes per block.
    bytes: u32,
}

const fn ggml(id: u32, name: &'static str, elements: u32, bytes: u32) -> GgmlType {
    GgmlType { id, name, elements, bytes }
}

/// The type id that mainline's Q2_0 and TQ2_0_g128 share; see [`Format::from_ggml`].
pub(crate) const SHARED_ID: u32 = 42;

const TYPES: &[GgmlType] = &[
    ggml(0, "F32", 1, 4),
    ggml(1, "F16", 1, 2),
    ggml(2, "Q4_0", 32, 18),
    ggml(3, "Q4_1", 32, 20),
    ggml(4, "Q4_2", 0, 0),
    ggml(5, "Q4_3", 0, 0),
    ggml(6, "Q5_0", 32, 22),
    ggml(7, "Q5_1", 32, 24),
    ggml(8, "Q8_0", 32, 34),
    ggml(9, "Q8_1", 32, 36),
    ggml(10, "Q2_K", 256, 84),
    ggml(11, "Q3_K", 256, 110),
    ggml(12, "Q4_K", 256, 144),
    ggml(13, "Q5_K", 256, 176),
    ggml(14, "Q6_K", 256, 210),
    ggml(15, "Q8_K", 256, 292),
    ggml(16, "IQ2_XXS", 256, 66),
    ggml(17, "IQ2_XS", 256, 74),
    ggml(18, "IQ3_XXS", 256, 98),
    ggml(19, "IQ1_S", 256, 50),
    ggml(20, "IQ4_NL", 32, 18),
    ggml(21, "IQ3_S", 256, 110),
    ggml(22, "IQ2_S", 256, 82),
    ggml(23, "IQ4_XS", 256, 136),
    ggml(24, "I8", 1, 1),
    ggml(25, "I16", 1, 2),
    ggml(26, "I32", 1, 4),
    ggml(27, "I64", 1, 8),
    ggml(28, "F64", 1, 8),
    ggml(29, "IQ1_M", 256, 56),
    ggml(30, "BF16", 1, 2),
    ggml(31, "Q4_0_4_4", 0, 0),
    ggml(32, "Q4_0_4_8", 0, 0),
    ggml(33, "Q4_0_8_8", 0, 0),
    ggml(34, "TQ1_0", 256, 54),
    ggml(35, "TQ2_0", 256, 66),
    ggml(36, "IQ4_NL_4_4", 0, 0),
    ggml(37, "IQ4_NL_4_8", 0, 0),
    ggml(38, "IQ4_NL_8_8", 0, 0),
    ggml(39, "MXFP4", 32, 17),
    ggml(40, "NVFP4", 64, 36),
    ggml(41, "Q1_0", 128, 18),
    ggml(42, "Q2_0", 64, 18),
];

fn find(id: u32) -> Option<&'static GgmlType> {
    TYPES.iter().find(|t| t.id == id)
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
    find(id).map(|t| t.name)
}

/// Weights and bytes per block of a GGML type, whether or not Forge reads it; `None` for withdrawn and unknown types.
pub fn ggml_block(id: u32) -> Option<(u32, u32)> {
    find(id).filter(|known| known.elements > 0).map(|known| (known.elements, known.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is GGML's, the blocks are ours.
    #[test]
    fn blocks_are_as_large_as_ggml_has_them() {
        for known in TYPES {
            if let Some(format) = Format::with_ggml_id(known.id).filter(|_| known.id != SHARED_ID) {
                assert_eq!(
                    (format.name, format.elements, format.bytes),
                    (known.name, known.elements as usize, known.bytes as usize)
                );
            }
        }
        assert!(Format::all().filter_map(Format::ggml_id).all(|id| find(id).is_some()));
    }

    #[test]
    fn ids_round_trip() {
        for format in Format::all() {
            let Some(id) = format.ggml_id() else {
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
        for (id, name) in [(4, "Q4_2"), (9, "Q8_1"), (15, "Q8_K"), (24, "I8"), (28, "F64"), (36, "IQ4_NL_4_4")] {
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
