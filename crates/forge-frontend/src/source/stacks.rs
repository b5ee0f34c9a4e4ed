//! The matrices of a mixture's experts as one stack, however a checkpoint stores them: together, gate and up in one, or
//! each by itself.

use super::Dialect;
use super::tensors::{Entry, Stored, Tensors};
use crate::graph::{Source, Strides, Weight};
use crate::{FrontendError, Refusal};

/// A way to store a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// One tensor `[experts, rows, cols]`.
    Whole(&'static str),
    /// One tensor `[experts, 2 rows, cols]`, of which each expert's first or second rows are meant.
    Half(&'static str, usize),
    /// A tensor `[rows, cols]` for each, with the expert's index in place of `#`.
    Each(&'static str),
    /// One tensor `[experts, cols, of * rows]` of floats, of which the rows from `part * rows` on are meant (Qwen3-VL). One that is not turned,
    /// `[experts, of * rows, cols]`, is taken as it is.
    Turned {
        /// Its name.
        name: &'static str,
        /// Which of its parts.
        part: usize,
        /// Parts.
        of: usize,
    },
    /// One tensor with `of` times as many rows, of which every one from row `first` on is meant (gpt-oss): `[experts, of * rows,
    /// cols]` of codes and scales, or `[experts, cols, of * rows]` of floats.
    Turns {
        /// Its name.
        name: &'static str,
        /// The first row.
        first: usize,
        /// Rows from one to the next.
        of: usize,
    },
}

/// The ways to store the stacks of a role, the likeliest first.
pub(crate) type Stack = (&'static str, &'static [Place]);

/// The ways of each role and dialect; the names tell which a checkpoint has.
const GGUF: &[Stack] = &[
    (
        "expert_gate",
        &[
            Place::Whole("ffn_gate_exps.weight"),
            Place::Half("ffn_gate_up_exps.weight", 0),
            Place::Each("ffn_gate.#.weight"),
        ],
    ),
    (
        "expert_up",
        &[
            Place::Whole("ffn_up_exps.weight"),
            Place::Half("ffn_gate_up_exps.weight", 1),
            Place::Each("ffn_up.#.weight"),
        ],
    ),
    ("expert_down", &[Place::Whole("ffn_down_exps.weight"), Place::Each("ffn_down.#.weight")]),
    ("expert_gate_bias", &[Place::Whole("ffn_gate_exps.bias")]),
    ("expert_up_bias", &[Place::Whole("ffn_up_exps.bias")]),
    ("expert_down_bias", &[Place::Whole("ffn_down_exps.bias")]),
];

/// Folders of old have a tensor for each expert; transformers 5 stacks them, and so do Granite and MLX.
const FOLDER: &[Stack] = &[
    (
        "expert_gate",
        &[
            Place::Each("mlp.experts.#.gate_proj.weight"),
            Place::Half("mlp.experts.gate_up_proj", 0),
            Place::Whole("mlp.switch_mlp.gate_proj.weight"),
            Place::Each("block_sparse_moe.experts.#.w1.weight"),
            Place::Half("block_sparse_moe.input_linear.weight", 0),
            Place::Whole("block_sparse_moe.switch_mlp.gate_proj.weight"),
            Place::Each("feed_forward.experts.#.w1.weight"),
            Place::Half("feed_forward.experts.gate_up_proj", 0),
            Place::Whole("feed_forward.switch_mlp.gate_proj.weight"),
            Place::Half("experts.gate_up_proj", 0),
            Place::Whole("experts.switch_glu.gate_proj.weight"),
        ],
    ),
    (
        "expert_up",
        &[
            Place::Each("mlp.experts.#.up_proj.weight"),
            Place::Half("mlp.experts.gate_up_proj", 1),
            Place::Whole("mlp.switch_mlp.up_proj.weight"),
            Place::Each("block_sparse_moe.experts.#.w3.weight"),
            Place::Half("block_sparse_moe.input_linear.weight", 1),
            Place::Whole("block_sparse_moe.switch_mlp.up_proj.weight"),
            Place::Each("feed_forward.experts.#.w3.weight"),
            Place::Half("feed_forward.experts.gate_up_proj", 1),
            Place::Whole("feed_forward.switch_mlp.up_proj.weight"),
            Place::Half("experts.gate_up_proj", 1),
            Place::Whole("experts.switch_glu.up_proj.weight"),
        ],
    ),
    (
        "expert_down",
        &[
            Place::Each("mlp.experts.#.down_proj.weight"),
            Place::Whole("mlp.experts.down_proj"),
            Place::Whole("mlp.switch_mlp.down_proj.weight"),
            Place::Each("block_sparse_moe.experts.#.w2.weight"),
            Place::Whole("block_sparse_moe.output_linear.weight"),
            Place::Whole("block_sparse_moe.switch_mlp.down_proj.weight"),
            Place::Each("feed_forward.experts.#.w2.weight"),
            Place::Whole("feed_forward.experts.down_proj"),
            Place::Whole("feed_forward.switch_mlp.down_proj.weight"),
            Place::Whole("experts.down_proj"),
            Place::Whole("experts.switch_glu.down_proj.weight"),
        ],
    ),
];

impl Place {
    fn name(self, expert: usize) -> String {
        match self {
            Self::Whole(name) | Self::Half(name, _) | Self::Turns { name, .. } | Self::Turned { name, .. } => {
                name.to_owned()
            }
            Self::Each(name) => name.replace('#', &expert.to_string()),
        }
    }
}

impl Tensors {
    /// Whether a layer has experts.
    pub fn has_experts(&self, layer: usize) -> bool {
        let Some((_, places)) = self.stacks().iter().find(|(role, _)| *role == "expert_down") else { return false };
        places.iter().any(|place| self.entries.contains_key(&self.in_layer(layer, &place.name(0))))
    }

    fn stacks(&self) -> &'static [Stack] {
        match self.dialect {
            Dialect::Gguf => GGUF,
            Dialect::HuggingFace => FOLDER,
        }
    }

    fn in_layer(&self, layer: usize, name: &str) -> String {
        match self.dialect {
            Dialect::Gguf => format!("blk.{layer}.{name}"),
            Dialect::HuggingFace => format!("{}layers.{layer}.{name}", self.prefix),
        }
    }

    /// How a role is stored, and the name of its tensor or of the first expert's: as `own` has it, the family's ways, or as
    /// most have it.
    fn place(&self, own: &[Stack], role: &str, layer: Option<usize>) -> (Place, String) {
        let places = |list: &[Stack]| list.iter().find(|(known, _)| *known == role).map(|(_, places)| *places);
        let name = |place: Place| self.of_expert(layer, place, 0);
        let known = [places(own), places(self.stacks())].into_iter().flatten().flatten();
        let there = known.clone().find(|place| self.entries.contains_key(&name(**place)));
        let place = *there.or(known.clone().next()).expect("the role of a stack");
        (place, name(place))
    }

    /// The name of an expert's tensor.
    fn of_expert(&self, layer: Option<usize>, place: Place, expert: usize) -> String {
        let name = place.name(expert);
        layer.map_or_else(|| name.clone(), |layer| self.in_layer(layer, &name))
    }

    /// The vectors of a role, `rows` elements for each expert, one after another.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or in a format that is not read.
    ///
    /// # Panics
    /// A role that is no stack's.
    pub fn stack_vector(
        &self,
        own: &[Stack],
        role: &str,
        layer: Option<usize>,
        experts: usize,
        rows: usize,
    ) -> Result<Weight, FrontendError> {
        let (place, tensor) = self.place(own, role, layer);
        let entry = self.find(&tensor)?;
        let (first, of) = match place {
            Place::Turns { first, of, .. } => (first, of),
            Place::Whole(_) | Place::Half(..) | Place::Each(_) | Place::Turned { .. } => (0, 1),
        };
        entry.expect_shape(&tensor, &[experts, of * rows], self.dialect)?;
        let cols = experts * rows;
        let (format, source) = match (entry.rows(&tensor, of * cols, 1, 0, 1)?, of) {
            ((format, Source::Rows(elements)), 2..) => {
                (format, Source::Strided { elements, strides: Strides { first, row: 0, col: of } })
            }
            (whole, _) => whole,
        };
        let role = role.to_owned();
        Ok(Weight {
            tensor,
            role,
            layer,
            rows: 1,
            cols,
            format,
            source,
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: None,
        })
    }

    /// The stacked matrices of a role, `rows` rows of `cols` weights for each expert.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or in a format that is not read; experts differ in format; more rows than
    /// kernels count.
    ///
    /// # Panics
    /// A role that is no stack's.
    pub fn stack(
        &self,
        own: &[Stack],
        role: &str,
        layer: Option<usize>,
        experts: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Weight, FrontendError> {
        let (place, first_name) = self.place(own, role, layer);
        let first = self.find(&first_name)?;
        // A row's index is a word to kernels, which put gate and up rows of all experts one after another.
        let total = experts.checked_mul(rows).filter(|&total| u32::try_from(2 * total).is_ok());
        let Some(total) = total else {
            return Err(FrontendError::Tensor {
                refusal: Refusal::ExpertRows,
                file: first.file.clone(),
                tensor: first_name,
                expected: "experts of fewer rows in all",
                found: format!("{experts} of {rows}"),
            });
        };
        let place = match place {
            Place::Turned { name, part, of } if first.shape == [experts, of * rows, cols] && of * rows != cols => {
                if of == 1 { Place::Whole(name) } else { Place::Half(name, part) }
            }
            place => place,
        };
        let (format, source) = match place {
            Place::Whole(_) => {
                first.expect_shape(&first_name, &[experts, rows, cols], self.dialect)?;
                first.rows(&first_name, cols, total, 0, total)?
            }
            Place::Half(_, half) => {
                first.expect_shape(&first_name, &[experts, 2 * rows, cols], self.dialect)?;
                let piece = |expert| first.rows(&first_name, cols, 2 * total, (2 * expert + half) * rows, rows);
                let (format, _) = piece(0)?;
                let pieces = (0..experts).map(|expert| piece(expert).map(|(_, source)| source));
                (format, Source::Stack(pieces.collect::<Result<_, _>>()?))
            }
            Place::Turns { first: turn, of, .. } => first.in_turns(&first_name, [experts, rows, cols], [turn, of])?,
            Place::Turned { part, of, .. } => {
                let strides = Strides { first: part * rows, row: 1, col: of * rows };
                first.strided(&first_name, [experts, of * rows, cols], strides)?
            }
            Place::Each(_) => {
                let mut pieces = Vec::new();
                let mut format = None;
                for expert in 0..experts {
                    let name = self.of_expert(layer, place, expert);
                    let entry = self.find(&name)?;
                    entry.expect_shape(&name, &[rows, cols], self.dialect)?;
                    let (own, piece) = entry.rows(&name, cols, rows, 0, rows)?;
                    let like_the_first = *format.get_or_insert(own) == own && entry.scales() == first.scales();
                    if !like_the_first {
                        return Err(FrontendError::TensorType {
                            refusal: Refusal::ExpertFormats,
                            file: entry.file.clone(),
                            tensor: name,
                            expected: "the type of the other experts",
                            found: entry.stored_name(),
                        });
                    }
                    pieces.push(piece);
                }
                let format = format.expect("there is an expert");
                (format, Source::Stack(pieces))
            }
        };
        Ok(Weight {
            tensor: first_name,
            role: role.to_owned(),
            layer,
            rows: total,
            cols,
            format,
            source,
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: None,
        })
    }
}

impl Entry {
    fn expect_shape(&self, name: &str, expected: &[usize], dialect: Dialect) -> Result<(), FrontendError> {
        let expected = match (expected, dialect) {
            // A GGUF's shapes have no leading ones.
            ([1, rest @ ..], Dialect::Gguf) => rest,
            _ => expected,
        };
        if self.shape == expected {
            return Ok(());
        }
        Err(FrontendError::TensorShape {
            refusal: Refusal::ExpertShape,
            file: self.file.clone(),
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.clone(),
        })
    }

    /// The rows of a stack as [`Place::Turns`] has them.
    fn in_turns(
        &self,
        name: &str,
        [experts, rows, cols]: [usize; 3],
        [first, of]: [usize; 2],
    ) -> Result<(forge_formats::Format, Source), FrontendError> {
        let all = experts * of * rows;
        if let Stored::Rows(..) = self.stored {
            let strides = Strides { first, row: of, col: of * rows };
            return self.strided(name, [experts, of * rows, cols], strides);
        }
        self.expect_shape(name, &[experts, of * rows, cols], Dialect::HuggingFace)?;
        match self.rows(name, cols, all, 0, all)? {
            (format, Source::Apart { codes, scales, .. }) => {
                Ok((format, Source::Apart { codes, scales, first, step: of }))
            }
            _ => Err(self.foreign(name, self.stored_name())),
        }
    }

    /// The rows of a stack that lies turned, `[experts, cols, all]`, by their strides in an expert's matrix.
    fn strided(
        &self,
        name: &str,
        [experts, all, cols]: [usize; 3],
        strides: Strides,
    ) -> Result<(forge_formats::Format, Source), FrontendError> {
        self.expect_shape(name, &[experts, cols, all], Dialect::HuggingFace)?;
        let mut format = None;
        let mut pieces = Vec::new();
        for expert in 0..experts {
            let (own, source) = self.rows(name, all, experts * cols, expert * cols, cols)?;
            match source {
                Source::Rows(elements) => pieces.push(Source::Strided { elements, strides }),
                _ => return Err(self.foreign(name, self.stored_name())),
            }
            format = Some(own);
        }
        Ok((format.expect("there is an expert"), Source::Stack(pieces)))
    }

    /// What stands beside codes, where something does: format of the scales, and what they are besides.
    fn scales(&self) -> Option<(forge_formats::Format, forge_formats::Pairs)> {
        match &self.stored {
            Stored::Affine { ranges, .. } => Some((ranges.scale_format, forge_formats::Pairs::default())),
            Stored::Repack { repack, .. } => Some((forge_formats::Format::F16, repack.pairs())),
            Stored::Rows(..)
            | Stored::Apart { .. }
            | Stored::Factored { .. }
            | Stored::Refused(_)
            | Stored::Foreign(_) => None,
        }
    }
}
