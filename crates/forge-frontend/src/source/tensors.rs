//! The checkpoint's tensors by role: one table for GGUF, Hugging Face and MLX names.

use std::cell::Cell;
use std::collections::BTreeMap;

use forge_formats::{Format, FormatError, Repack};

use super::Dialect;
use crate::graph::{FileRange, Source, Weight};
use crate::{FrontendError, Refusal};

/// Where a role's tensor is found: the stem of its name in each dialect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// The field's name for it.
    pub role: &'static str,
    /// After `blk.N.`.
    pub gguf: &'static str,
    /// After `layers.N.`.
    pub hf: &'static str,
    /// Whether `.weight` or `.bias` follows in a folder.
    suffixed: bool,
    /// Whether it does in a GGUF.
    suffixed_in_gguf: bool,
}

impl Role {
    pub const fn new(role: &'static str, gguf: &'static str, hf: &'static str) -> Self {
        Self { role, gguf, hf, suffixed: true, suffixed_in_gguf: true }
    }

    /// A tensor whose whole name in a folder is `hf`.
    pub const fn bare(role: &'static str, gguf: &'static str, hf: &'static str) -> Self {
        Self { role, gguf, hf, suffixed: false, suffixed_in_gguf: true }
    }

    /// A tensor whose whole name is `gguf` in a GGUF and `hf` in a folder.
    pub const fn unsuffixed(role: &'static str, gguf: &'static str, hf: &'static str) -> Self {
        Self { role, gguf, hf, suffixed: false, suffixed_in_gguf: false }
    }
}

/// Names that most architectures share; a family lists the ones that differ, which are looked at first.
const COMMON: &[Role] = &[
    Role::new("token_embd", "token_embd", "embed_tokens"),
    Role::new("output_norm", "output_norm", "norm"),
    Role::new("output", "output", "lm_head"),
    Role::new("attn_norm", "attn_norm", "input_layernorm"),
    Role::new("attn_q", "attn_q", "self_attn.q_proj"),
    Role::new("attn_k", "attn_k", "self_attn.k_proj"),
    Role::new("attn_v", "attn_v", "self_attn.v_proj"),
    Role::new("attn_qkv", "attn_qkv", "self_attn.qkv_proj"),
    Role::new("attn_q_norm", "attn_q_norm", "self_attn.q_norm"),
    Role::new("attn_k_norm", "attn_k_norm", "self_attn.k_norm"),
    Role::new("attn_output", "attn_output", "self_attn.o_proj"),
    Role::new("ffn_norm", "ffn_norm", "post_attention_layernorm"),
    Role::new("ffn_gate", "ffn_gate", "mlp.gate_proj"),
    Role::new("ffn_up", "ffn_up", "mlp.up_proj"),
    Role::new("ffn_gate_up", "ffn_up", "mlp.gate_up_proj"),
    Role::new("ffn_down", "ffn_down", "mlp.down_proj"),
];

/// What a weight is, and so how its tensor is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `[rows, cols]`.
    Matrix,
    /// `[cols]`.
    Vector,
    /// Taps of a convolution of each channel by itself, taken as a vector: `[channels, 1, taps]` in a Hugging Face folder,
    /// `[channels, taps, 1]` in an MLX folder, `[channels, taps]` in a GGUF.
    Taps {
        /// Channels.
        channels: usize,
        /// Taps of each.
        taps: usize,
    },
}

/// How a tensor is stored.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Rows of one format.
    Rows(Format, FileRange),
    /// Three tensors of MLX's affine quantisation, of `bits` a weight in groups of `group` columns.
    Affine { bits: u8, group: u16, ranges: AffineRanges },
    /// Tensors of another toolchain.
    Repack { repack: Repack, parts: Vec<FileRange> },
    /// Two tensors of codes and scales of a format.
    Apart { format: Format, codes: FileRange, scales: FileRange },
    /// Rows or codes and scales, whose weights are multiplied by numbers besides, each of which is that of equally many rows.
    Factored { of: Box<Stored>, factors: Vec<f32> },
    /// A type that is not read, refused when the tensor is wanted.
    Refused(FormatError),
    /// An element type without a name among the formats (FP8, integers).
    Foreign(String),
}

/// Where the three tensors of affine quantisation are.
#[derive(Debug)]
pub(crate) struct AffineRanges {
    pub quants: FileRange,
    pub scales: FileRange,
    pub biases: FileRange,
    pub scale_format: Format,
}

/// A tensor of the checkpoint.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Outermost first: `[rows, cols]` or `[len]`; of the weights, not of their codes.
    pub shape: Vec<usize>,
    pub stored: Stored,
    /// File name, for errors.
    pub file: String,
    /// Whether the graph reads it, or knows why it need not.
    pub used: Cell<bool>,
}

/// All tensors of the checkpoint.
#[derive(Debug)]
pub(crate) struct Tensors {
    pub dialect: Dialect,
    /// The main file or the folder's index, for errors about tensors that are in none.
    pub file: String,
    /// `model.` and its like: what precedes `embed_tokens` and `layers`. Empty for a GGUF.
    pub prefix: String,
    /// What precedes `lm_head`.
    pub head_prefix: String,
    pub entries: BTreeMap<String, Entry>,
    /// The family's own names.
    pub roles: &'static [Role],
}

/// A role whose weights are some rows of another role's tensor (fused projections).
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub role: &'static str,
    pub of: &'static str,
    /// First rows of the runs of rows that it has there, in its own order and all equally long.
    pub runs: Vec<usize>,
    pub total_rows: usize,
}

impl Part {
    /// Rows that follow one another from `first_row` on.
    pub fn run(role: &'static str, of: &'static str, first_row: usize, total_rows: usize) -> Self {
        Self { role, of, runs: vec![first_row], total_rows }
    }
}

impl Tensors {
    /// The tensor's name in this checkpoint. `role` may end in `_bias`.
    pub fn name(&self, role: &str, layer: Option<usize>) -> String {
        let (stem, suffix) = match role.strip_suffix("_bias") {
            Some(stem) => (stem, "bias"),
            None => (role, "weight"),
        };
        let found = self.roles.iter().chain(COMMON).find(|known| known.role == stem);
        let stem = match (found, self.dialect) {
            (Some(role), Dialect::Gguf) => role.gguf,
            (Some(role), Dialect::HuggingFace) => role.hf,
            (None, _) => stem,
        };
        match (self.dialect, layer) {
            (Dialect::HuggingFace, Some(layer)) if found.is_some_and(|role| !role.suffixed) => {
                format!("{}layers.{layer}.{stem}", self.prefix)
            }
            (Dialect::Gguf, Some(layer)) if found.is_some_and(|role| !role.suffixed_in_gguf) => {
                format!("blk.{layer}.{stem}")
            }
            (Dialect::Gguf, Some(layer)) => format!("blk.{layer}.{stem}.{suffix}"),
            (Dialect::Gguf, None) => format!("{stem}.{suffix}"),
            (Dialect::HuggingFace, Some(layer)) => format!("{}layers.{layer}.{stem}.{suffix}", self.prefix),
            (Dialect::HuggingFace, None) if stem == "lm_head" => format!("{}lm_head.{suffix}", self.head_prefix),
            (Dialect::HuggingFace, None) => format!("{}{stem}.{suffix}", self.prefix),
        }
    }

    pub fn has(&self, role: &str, layer: Option<usize>) -> bool {
        self.entries.contains_key(&self.name(role, layer))
    }

    pub fn find(&self, name: &str) -> Result<&Entry, FrontendError> {
        let missing = || FrontendError::MissingTensor {
            refusal: Refusal::MissingTensor,
            file: self.file.clone(),
            tensor: name.to_owned(),
        };
        let entry = self.entries.get(name).ok_or_else(missing)?;
        entry.used.set(true);
        Ok(entry)
    }

    /// Rows of the embedding table: the only size that some GGUFs do not state.
    pub fn vocab_rows(&self) -> Result<usize, FrontendError> {
        self.rows("token_embd", None)
    }

    /// Rows of a table or matrix.
    pub fn rows(&self, role: &str, layer: Option<usize>) -> Result<usize, FrontendError> {
        let name = self.name(role, layer);
        let entry = self.find(&name)?;
        match entry.shape[..] {
            [rows, _] if rows > 0 => Ok(rows),
            _ => Err(FrontendError::Tensor {
                refusal: Refusal::TableShape,
                file: entry.file.clone(),
                tensor: name,
                expected: "a matrix with rows",
                found: format!("shape {:?}", entry.shape),
            }),
        }
    }

    /// The weight of a role. `rows` is 1 for what is no matrix.
    ///
    /// # Errors
    /// The tensor is missing, of another shape, or in a format that is not read.
    pub fn weight(
        &self,
        role: &str,
        layer: Option<usize>,
        rows: usize,
        cols: usize,
        shape: Shape,
        part: Option<&Part>,
    ) -> Result<Weight, FrontendError> {
        let name = self.name(part.map_or(role, |part| part.of), layer);
        let entry = self.find(&name)?;
        let total_rows = part.map_or(rows, |part| part.total_rows);
        // Of a vector a part is some elements.
        let expected = match (shape, part) {
            // A GGUF's shapes have no leading ones.
            (Shape::Matrix, None) if rows == 1 && self.dialect == Dialect::Gguf => vec![cols],
            (Shape::Vector, None) => vec![cols],
            (Shape::Vector, Some(_)) => vec![total_rows],
            (Shape::Matrix, _) => vec![total_rows, cols],
            (Shape::Taps { channels, taps }, _) => vec![channels, taps],
        };
        let longer = |shape: &[usize]| shape.iter().copied().filter(|&axis| axis != 1).collect::<Vec<_>>();
        let fits = match shape {
            Shape::Matrix | Shape::Vector => entry.shape == expected,
            Shape::Taps { .. } => longer(&entry.shape) == longer(&expected),
        };
        if !fits {
            return Err(FrontendError::TensorShape {
                refusal: Refusal::WeightShape,
                file: entry.file.clone(),
                tensor: name,
                expected,
                found: entry.shape.clone(),
            });
        }
        let runs: &[usize] = part.map_or(&[0], |part| &part.runs);
        let (row_cols, rows_here) = match (shape, part) {
            (Shape::Vector, Some(_)) => (1, cols),
            _ => (cols, rows),
        };
        let run = |&first: &usize| entry.rows(&name, row_cols, total_rows, first, rows_here / runs.len());
        let (format, source) = match runs {
            [only] => run(only)?,
            _ => {
                let (format, _) = run(&runs[0])?;
                let pieces = runs.iter().map(|first| run(first).map(|(_, source)| source));
                (format, Source::Stack(pieces.collect::<Result<_, _>>()?))
            }
        };
        Ok(Weight {
            tensor: name,
            role: role.to_owned(),
            layer,
            rows,
            cols,
            format,
            source,
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: None,
        })
    }

    /// Marks as known every tensor whose name satisfies the predicate.
    pub fn ignore(&self, known: impl Fn(&str) -> bool) {
        self.entries.iter().filter(|(name, _)| known(name)).for_each(|(_, entry)| entry.used.set(true));
    }

    /// The first tensor that nothing has read.
    pub fn unread(&self) -> Option<(&String, &Entry)> {
        self.entries.iter().find(|(_, entry)| !entry.used.get())
    }
}

impl Entry {
    /// Bytes of `rows` rows from `first_row` on, of `total_rows` rows of `cols` weights.
    pub(super) fn rows(
        &self,
        name: &str,
        cols: usize,
        total_rows: usize,
        first_row: usize,
        rows: usize,
    ) -> Result<(Format, Source), FrontendError> {
        self.rows_of(&self.stored, name, cols, total_rows, first_row, rows)
    }

    fn rows_of(
        &self,
        stored: &Stored,
        name: &str,
        cols: usize,
        total_rows: usize,
        first_row: usize,
        rows: usize,
    ) -> Result<(Format, Source), FrontendError> {
        let format_error = |refusal, source| FrontendError::TensorFormat {
            refusal,
            file: self.file.clone(),
            tensor: name.to_owned(),
            source,
        };
        let not_whole =
            |format: Format, block| format_error(Refusal::RowBlocks, FormatError::RowNotBlocks { format, cols, block });
        let row_bytes =
            |format: Format| format.row_bytes(cols).ok_or_else(|| not_whole(format, format.block_elements()));
        match stored {
            Stored::Refused(error) => Err(format_error(Refusal::GgmlType, error.clone())),
            Stored::Foreign(found) => Err(self.foreign(name, found.clone())),
            Stored::Rows(format, whole) => {
                let row_bytes = row_bytes(*format)?;
                let range = self.slice(name, whole, row_bytes as u64, total_rows, first_row, rows)?;
                Ok((*format, Source::Rows(range)))
            }
            Stored::Repack { repack, parts } => {
                let format = repack.format().expect("joining has found it");
                row_bytes(format)?;
                Ok((format, Source::Repack { repack: repack.clone(), parts: parts.clone(), first_row }))
            }
            Stored::Affine { bits, group, ranges } => {
                let format = Format::Affine { bits: *bits, group: *group };
                let group = usize::from(*group);
                row_bytes(format)?;
                let code_bytes = (cols * usize::from(*bits) / 8) as u64;
                let scale_bytes = (cols / group * ranges.scale_format.block_bytes()) as u64;
                let slice = |whole, row_bytes| self.slice(name, whole, row_bytes, total_rows, first_row, rows);
                let source = Source::Affine {
                    quants: slice(&ranges.quants, code_bytes)?,
                    scales: slice(&ranges.scales, scale_bytes)?,
                    biases: slice(&ranges.biases, scale_bytes)?,
                    scale_format: ranges.scale_format,
                };
                Ok((format, source))
            }
            Stored::Factored { of, factors } => {
                let (format, source) = self.rows_of(of, name, cols, total_rows, first_row, rows)?;
                let each = total_rows / factors.len();
                let of_row = |row: usize| factors[row / each];
                // Within one factor's rows there is one; else one a row says it whatever the rows are.
                let factors = match first_row / each == (first_row + rows - 1) / each {
                    true => vec![of_row(first_row)],
                    false => (first_row..first_row + rows).map(of_row).collect(),
                };
                Ok((format, Source::Factored { rows: Box::new(source), factors }))
            }
            Stored::Apart { format, codes, scales } => {
                let row = format.apart_row_bytes(cols).ok_or_else(|| not_whole(*format, format.block_elements()))?;
                let [codes, scales] = [(codes, row[0]), (scales, row[1])]
                    .map(|(whole, bytes)| self.slice(name, whole, bytes as u64, total_rows, first_row, rows));
                Ok((*format, Source::Apart { codes: codes?, scales: scales?, first: 0, step: 1 }))
            }
        }
    }

    /// A type that is not read.
    pub(super) fn foreign(&self, name: &str, found: String) -> FrontendError {
        FrontendError::TensorType {
            refusal: Refusal::ElementType,
            file: self.file.clone(),
            tensor: name.to_owned(),
            expected: "F32, F16 or BF16",
            found,
        }
    }

    fn slice(
        &self,
        name: &str,
        whole: &FileRange,
        row_bytes: u64,
        total_rows: usize,
        first_row: usize,
        rows: usize,
    ) -> Result<FileRange, FrontendError> {
        let expected = row_bytes * total_rows as u64;
        let found = whole.range.end - whole.range.start;
        if found != expected {
            return Err(FrontendError::TensorBytes {
                file: self.file.clone(),
                tensor: name.to_owned(),
                expected,
                found,
            });
        }
        let start = whole.range.start + row_bytes * first_row as u64;
        Ok(FileRange { file: whole.file, range: start..start + row_bytes * rows as u64 })
    }
}

impl Entry {
    /// The stored type's name.
    pub fn stored_name(&self) -> String {
        self.stored.name()
    }
}

impl Stored {
    /// The type's name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Factored { of, .. } => of.name(),
            Self::Rows(format, _) => format.to_string(),
            Self::Affine { bits, group, .. } => Format::Affine { bits: *bits, group: *group }.to_string(),
            Self::Repack { repack, .. } => repack.to_string(),
            Self::Apart { format, .. } => format.to_string(),
            Self::Refused(FormatError::UnsupportedGgmlType { name, .. }) => (*name).to_owned(),
            Self::Refused(error) => error.to_string(),
            Self::Foreign(name) => name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Entry, FileRange, Format, Stored};
    use crate::FrontendError;

    #[test]
    fn bytes_that_are_not_what_the_rows_need() {
        let range = FileRange { file: 0, range: 100..163 };
        let stored = Stored::Rows(Format::F16, range);
        let entry = Entry { shape: vec![4, 8], stored, file: "a.safetensors".to_owned(), used: Cell::new(false) };
        let error = entry.rows("w", 8, 4, 0, 4).expect_err("a byte is missing");
        assert!(matches!(error, FrontendError::TensorBytes { expected: 64, found: 63, .. }), "{error}");
        assert_eq!(error.to_string(), "a.safetensors: tensor w: expected 64 bytes, found 63");
    }
}
