//! What a reader does with a checkpoint that its owner may not expect. Every message is one line and names the file, and
//! the key or tensor.

/// Something that does not keep a checkpoint from being generated from, and that whoever generates should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The image or audio part of a multimodal checkpoint.
    #[error("{file}: {tower} (tensors: {tensors}): not used, the text model alone is generated")]
    OtherTower {
        /// The file, or the folder's index.
        file: String,
        /// What the names of its tensors begin with.
        tower: String,
        /// How many there are.
        tensors: usize,
    },
    /// Layers that predict tokens beyond the next one.
    #[error("{file}: {first} (tensors: {tensors}): not used, it predicts tokens beyond the next one")]
    Predictor {
        /// The file, or the folder's index.
        file: String,
        /// The first of its tensors.
        first: String,
        /// How many there are.
        tensors: usize,
    },
    /// Keys and values of layers that read the caches of other layers.
    #[error("{file}: {first} (tensors: {tensors}): not used, the layer reads another layer's cache")]
    SharedCache {
        /// The file, or the folder's index.
        file: String,
        /// The first such tensor.
        first: String,
        /// How many there are.
        tensors: usize,
    },
    /// Longrope's factors for long texts.
    #[error(
        "{file}: longrope's factors for long texts: not used, unless --context asks for more than {above} tokens (up to \
         {context}): all texts then use them"
    )]
    LongFactors {
        /// The file with the configuration.
        file: String,
        /// Tokens up to which the factors for short texts hold.
        above: usize,
        /// Tokens that the model was trained for.
        context: usize,
    },
    /// A chat template that the engine of generated projects does not take.
    #[error("{file}: chat template{}: {reason}; chats are refused, plain prompts work", named(name))]
    Template {
        /// The file that has it.
        file: String,
        /// The template's name; `None` for the default one.
        name: Option<String>,
        /// What is wrong with it, and in which line.
        reason: String,
    },
    /// Weights in one file, and beside it an index or shards of the same model.
    #[error("{used}: is used alone; beside it {unused}: not used")]
    OtherWeights {
        /// The file that is read.
        used: String,
        /// What is not.
        unused: String,
    },
    /// A JSON object with the same key twice, of which the last counts, as for Python's `json`.
    #[error("{file}: {key}: given twice, the last one counts")]
    DuplicateKey {
        /// The file.
        file: String,
        /// The key, with those of the objects around it.
        key: String,
    },
    /// Tokens that only chats have, in a GGUF that types them as normal text.
    #[error("{file}: {first} (tokens: {tokens}): typed as normal text, found whole all the same: no merge leads to it")]
    Markers {
        /// The file.
        file: String,
        /// The first of them.
        first: String,
        /// How many there are.
        tokens: usize,
    },
    /// The id of a special token that the vocabulary does not have.
    #[error("{file}: {key}: expected an id of the vocabulary, found {found}: not used")]
    TokenId {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The id.
        found: u32,
    },
}

/// A template's name where it has one.
fn named(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"))
}
