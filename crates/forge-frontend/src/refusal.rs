//! Every reason for which a checkpoint's content is refused: one list, one variant for each place that refuses.
//!
//! A [`FrontendError`](crate::FrontendError) says in its own fields which file, key or tensor it is about, what was expected and what
//! was found; its [`Refusal`] tells for what, so that a test can hold each place to its message. Containers have a variant of
//! [`CheckpointError`](crate::checkpoint::CheckpointError) for each. `cargo xtask tidy` fails for a variant that no product code, or
//! more than one place of it, or no test names.

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])+ $name,)+
        }

        impl Refusal {
            /// All of them, in the order of this list.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

refusals! {
    /// One file of a folder in place of the folder.
    SingleFile,
    /// A folder without config.json.
    NoConfig,
    /// A JSON file that holds something else than an object.
    NotAnObject,
    /// A config.json without `model_type`.
    NoModelType,
    /// A GGUF without `general.architecture`.
    NoArchitecture,
    /// An architecture that is known and not built.
    NotBuilt,
    /// A mixture of experts.
    Experts,
    /// Experts' weights where the configuration tells of none.
    ExpertWeights,
    /// More experts for a token than there are.
    ExpertCount,
    /// More experts, of a layer or of a token, or groups of them, than kernels have room for.
    ExpertLimit,
    /// Experts that do not divide among their groups.
    ExpertGroups,
    /// More groups to choose from than there are.
    GroupCount,
    /// Groups to choose from that have too few experts.
    GroupExperts,
    /// A router's scores that are not built.
    GatingFunction,
    /// A router's scores in a folder that are not built.
    ScoringFunction,
    /// More blocks that predict further tokens than there are blocks.
    PredictionLayers,
    /// Matrices of heads of another shape than the configuration implies.
    HeadMatrixShape,
    /// Heads with fewer elements than rotate.
    LatentHead,
    /// Which layers have experts, not said of each.
    MixtureLayers,
    /// Layers without experts, listed as something else than layers.
    DenseLayers,
    /// Experts' matrices of another shape than the configuration implies.
    ExpertShape,
    /// Experts of one layer in different formats.
    ExpertFormats,
    /// Experts with more rows than kernels count.
    ExpertRows,
    /// A limit or a slope of a clamped SwiGLU that kernels cannot be given.
    SwigluNumber,
    /// Queries, keys and values that are clipped.
    ClippedQkv,
    /// Weights quantised by a method that is not read.
    QuantizationMethod,
    /// Bits or group size of an MLX folder that are no numbers.
    QuantizationNumber,
    /// A mode of MLX's quantisation that is not read.
    QuantizationMode,
    /// Bits or a group size that a floating mode of MLX does not have.
    ModeWidth,
    /// Codes without the tensor of their scales.
    ApartScales,
    /// Scales of another shape than their codes need.
    ApartShape,
    /// Scales of another type than their codes need.
    ApartType,
    /// Second scales that are not F32.
    FactorType,
    /// More second scales than matrices, or fewer.
    FactorShape,
    /// A second scale that is no finite number.
    FactorValue,
    /// Bytes of two codes for more columns than can be counted.
    Fp4Width,
    /// Bits or a group size that affine quantisation does not have.
    QuantizationWidth,
    /// Codes of more columns than can be counted.
    AffineWidth,
    /// A quantised module without scales or biases.
    AffinePart,
    /// Scales or biases of another shape than their codes need.
    AffineShape,
    /// Scales or biases that are no floats.
    AffineType,
    /// Biases of another type than the scales.
    AffineBiasType,
    /// A tensor that another toolchain's codes need and that is absent.
    RepackPart,
    /// Such a tensor of another shape than the codes need.
    RepackShape,
    /// Codes or scales of another toolchain that are no matrix.
    RepackMatrix,
    /// Such a tensor of another element type.
    RepackType,
    /// Scales of another toolchain that are no finite numbers.
    RepackScale,
    /// A size of another toolchain's quantisation that is none.
    RepackSize,
    /// Words that hold no whole number of codes.
    RepackWords,
    /// Bits or a group size of another toolchain that no format here has.
    RepackFormat,
    /// Blocks of FP8 that are no two sizes.
    Fp8Blocks,
    /// A packing of GPTQ that is not read.
    GptqPacking,
    /// A packing of AWQ that is not read.
    AwqPacking,
    /// Bits that AWQ's words do not have.
    AwqBits,
    /// Sizes of a packed matrix that are none, or not those of its words.
    PackedSizes,
    /// Columns whose groups are not in order.
    ActOrder,
    /// A size that differs from layer to layer where one is needed.
    UnequalSizes,
    /// An empty array in place of a size.
    NoSizes,
    /// An array that has not one size for each layer.
    LayerSizes,
    /// A size that is needed and is -1.
    NegativeSize,
    /// A size that is needed and absent.
    MissingSize,
    /// A size that is no positive integer of 31 bits.
    Size,
    /// A number that is none, or not finite.
    Number,
    /// A number that is needed and absent.
    MissingNumber,
    /// A flag that is neither true nor false.
    Flag,
    /// A text that is none.
    Text,
    /// Query heads that do not divide among the key and value heads.
    HeadGroups,
    /// A hidden size that does not divide among the heads.
    HeadWidth,
    /// A head whose elements make no pairs.
    OddHead,
    /// Values of another width than keys.
    ValueWidth,
    /// A vocabulary size that is not the embedding's.
    VocabRows,
    /// A norm's epsilon that is no small positive number.
    Epsilon,
    /// More layers than tensors.
    LayerCount,
    /// An activation that is not built.
    Activation,
    /// Numbers of xIELU that a GGUF lacks.
    MissingXielu,
    /// Numbers of xIELU, not one for each layer.
    XieluNumbers,
    /// A tensor of xIELU that is no number.
    XieluTensor,
    /// An epsilon of xIELU that is not below 0.
    XieluEpsilon,
    /// Norms of each head of q and k that subtract a mean.
    HeadLayerNorms,
    /// Kinds of layers, not one for each.
    LayerKinds,
    /// A kind of layer that is not built.
    LayerKind,
    /// Which layers attend, not said of each.
    LayerMixers,
    /// Value heads of a delta rule that do not divide among its key heads.
    DeltaGroups,
    /// Values of a delta rule that do not divide among its value heads.
    DeltaValues,
    /// A size of a delta rule that is not built.
    DeltaWidth,
    /// Attention in both directions.
    Bidirectional,
    /// A scale of queries that is no positive number.
    QueryScale,
    /// Bases of layers' rotations, not one for each, or of several numbers.
    LayerBases,
    /// An epsilon of norms after branches that is none.
    PostEpsilon,
    /// Windows in SmolLM3.
    SmolWindows,
    /// Flags of rotating layers, not one for each.
    RotatingLayers,
    /// A flag of a rotating layer that is neither 0 nor 1.
    RotatingFlag,
    /// Gemma 4 with attention in both directions.
    Gemma4Bidirectional,
    /// Gemma 4 without feed-forward widths.
    Gemma4Widths,
    /// A layer that would read the cache of an earlier one of its kind, where there is none.
    SharedLayers,
    /// A size of one layer that is none.
    LayerSize,
    /// A key that a layer may not have of its own.
    LayerKey,
    /// Query heads that do not divide among one layer's key and value heads.
    LayerHeadGroups,
    /// A head of one layer whose elements make no pairs.
    LayerOddHead,
    /// Layers' own keys that are no object.
    LayersObject,
    /// One layer's own keys that are no object.
    LayerObject,
    /// A table of per-layer embeddings shorter than the vocabulary.
    TableRows,
    /// A RoPE base that is not positive.
    RopeBase,
    /// A number of rotating elements that a head cannot have.
    RotaryWidth,
    /// A RoPE scaling of a GGUF that is not built.
    ScalingType,
    /// A RoPE scaling of a folder that is not built.
    RopeType,
    /// RoPE divisors of another length.
    DivisorShape,
    /// RoPE divisors that are no F32.
    DivisorType,
    /// RoPE parameters that are no object.
    RopeObject,
    /// A RoPE parameter that is no number.
    RopeNumber,
    /// A RoPE parameter that is needed and absent.
    MissingRopeNumber,
    /// A RoPE parameter that is neither true nor false.
    RopeFlag,
    /// A RoPE parameter that is no text.
    RopeText,
    /// RoPE factors, not one for each pair.
    RopeFactors,
    /// A RoPE factor that is no number.
    RopeFactor,
    /// A tensor that is needed and absent.
    MissingTensor,
    /// A table that is no matrix, or has no rows.
    TableShape,
    /// A tensor of another shape than the configuration implies.
    WeightShape,
    /// A GGML type that is not read.
    GgmlType,
    /// An element type that is not read.
    ElementType,
    /// Rows that are not whole blocks, or groups of affine quantisation.
    RowBlocks,
    /// A sampling default that is no number.
    SamplingNumber,
    /// A sampling default that is no integer.
    SamplingCount,
    /// A sampling default that is neither true nor false.
    SamplingFlag,
    /// The id of a folder's special token that is no id.
    SpecialTokenId,
    /// A chat template that is not UTF-8.
    TemplateText,
    /// A tokenizer.json without a model's vocabulary.
    NoVocabulary,
    /// A token that begins every text, and that the embedding has no row for.
    FirstToken,
    /// A folder without a tokenizer.
    NoTokenizer,
    /// A GGUF without its tokenizer's name.
    NoTokenizerName,
    /// A tokenizer that is not imported.
    TokenizerName,
    /// A GGUF without its pre-tokenizer's name.
    NoPreTokenizer,
    /// A pre-tokenizer that is not known.
    PreTokenizer,
    /// Pieces of a GGUF's SentencePiece vocabulary that make no tokenizer.
    Pieces,
    /// A value of a GGUF's tokenizer that is of another type.
    TokenizerValue,
    /// The id of a special token that the vocabulary does not have.
    SpecialToken,
    /// A list of a GGUF's tokenizer that is needed and absent.
    NoStrings,
    /// A list of a GGUF's tokenizer that holds no strings.
    Strings,
    /// An item of such a list that is not UTF-8.
    StringText,
    /// A list beside the vocabulary that holds no numbers.
    Numbers,
    /// A list beside the vocabulary that has another length.
    NumberCount,
    /// A merge that is not two pieces.
    Merge,
    /// A tokenizer.model that is damaged.
    SentencePiece,
    /// A tokenizer.model that is not BPE.
    SentencePieceKind,
    /// A character map of a tokenizer.model that is damaged.
    SentencePieceMap,
    /// Pieces of a tokenizer.model that make no tokenizer.
    SentencePiecePieces,
}
