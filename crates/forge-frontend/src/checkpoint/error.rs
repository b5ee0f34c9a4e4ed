//! What can be wrong with a GGUF or safetensors file.

use std::io;
use std::path::PathBuf;

/// A file that cannot be read as what it claims to be; every variant names the file, and the key or tensor if there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A folder, a pipe or a device where a file should be.
    #[error("{}: expected a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that is read whole and larger than any real one.
    #[error("{}: expected at most {limit} bytes, found {found}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes read.
        limit: u64,
        /// The file's length.
        found: u64,
    },
    /// A link that leads to nothing.
    #[error("{}: expected a file, found a link to {}, which is not there", path.display(), target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A few lines in place of a file that Git has not fetched.
    #[error("{}: expected the file itself, found a Git LFS pointer to it (`git lfs pull` fetches it)", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// The text of a link to the text of a link.
    #[error("{}: expected the file itself, found the text of a link to another, {}: make it a link, or copy the file", path.display(), target.display())]
    LinkText {
        /// The file.
        path: PathBuf,
        /// Where it would lead.
        target: PathBuf,
    },
    /// A link that leads out of the model folder, to a file that is not of the kind that its name says.
    #[error(
        "{}: a link out of the model folder, to {}, whose content is not that of such a file",
        path.display(),
        target.display()
    )]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The file does not begin with `GGUF`.
    #[error("{}: not a GGUF file: expected it to begin with \"GGUF\", found \"{}\"", path.display(), found.escape_ascii())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its first four bytes, or fewer.
        found: Vec<u8>,
    },
    /// A GGUF file written for big-endian machines.
    #[error("{}: big-endian GGUF files are not supported", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
    },
    /// A GGUF version other than 2 and 3.
    #[error("{}: expected GGUF version 2 or 3, found {found}", path.display())]
    GgufVersion {
        /// The file.
        path: PathBuf,
        /// The version.
        found: u32,
    },
    /// The file ends inside something, or a length in it is larger than the file.
    #[error("{}: {what} needs {needed} bytes at offset {offset}, but {available} are left", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was being read.
        what: String,
        /// Where it begins.
        offset: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes from there to the end of the file.
        available: u64,
    },
    /// A metadata value of a type that GGUF does not have.
    #[error("{}: metadata {key}: expected a value type from 0 to 12, found {found}", path.display())]
    ValueType {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// The type id.
        found: u32,
    },
    /// A metadata value is of a known type, but not of the one its key has.
    #[error("{}: metadata {key}: expected {expected}, found {found}", path.display())]
    KeyType {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// What the key holds.
        expected: &'static str,
        /// The type found, or "nothing".
        found: &'static str,
    },
    /// A bool that is neither 0 nor 1.
    #[error("{}: metadata {key}: expected a bool of 0 or 1, found {found}", path.display())]
    Bool {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// Arrays of arrays of arrays, beyond what any writer makes.
    #[error("{}: metadata {key}: arrays are nested more than {limit} deep", path.display())]
    Nesting {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// Deepest nesting read.
        limit: u32,
    },
    /// A name or a string that is not UTF-8.
    #[error("{}: {what} is not UTF-8: \"{}\"", path.display(), found.escape_ascii())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Which string.
        what: String,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// A metadata key given twice.
    #[error("{}: metadata {key} is given twice", path.display())]
    DuplicateKey {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
    },
    /// A tensor given twice, in one file or in two of a set.
    #[error("{}: tensor {tensor} is already in {}", second.display(), first.display())]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// The file that has it first.
        first: PathBuf,
        /// The file that has it again.
        second: PathBuf,
    },
    /// `general.alignment` is not a power of two.
    #[error("{}: metadata general.alignment: expected a power of two of at least 8, found {found}", path.display())]
    Alignment {
        /// The file.
        path: PathBuf,
        /// The value.
        found: u64,
    },
    /// A tensor with too many dimensions.
    #[error("{}: tensor {tensor}: expected at most {limit} dimensions, found {found}", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Most dimensions that the container allows.
        limit: u32,
        /// Dimensions claimed.
        found: u32,
    },
    /// A tensor whose size is zero or beyond 64 bits.
    #[error("{}: tensor {tensor}: a shape of {shape:?} is not possible", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dimensions as stored.
        shape: Vec<u64>,
    },
    /// A row that is not a whole number of its type's blocks.
    #[error("{}: tensor {tensor}: rows of {cols} weights are not whole {ggml_type} blocks of {block}", path.display())]
    RowNotBlocks {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// GGML's name of the type.
        ggml_type: &'static str,
        /// Weights per row.
        cols: u64,
        /// Weights per block.
        block: u32,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("{}: tensor {tensor}: expected an offset that is a multiple of {alignment}, found {offset}", path.display())]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file's alignment.
        alignment: u64,
        /// The tensor's offset in the data.
        offset: u64,
    },
    /// A tensor that ends beyond the file.
    #[error("{}: tensor {tensor}: its {needed} bytes at offset {offset} end beyond the data's {available}", path.display())]
    OutsideFile {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its offset in the data.
        offset: u64,
        /// Its size.
        needed: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors that share bytes.
    #[error("{}: tensors {first} and {second} overlap", path.display())]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },
    /// A part of a split GGUF whose name does not say how the others are called.
    #[error("{}: one of {count} parts, but its name does not end in -NNNNN-of-{count:05}.gguf", path.display())]
    SplitName {
        /// The file.
        path: PathBuf,
        /// `split.count`.
        count: u64,
    },
    /// A part of a split GGUF that does not belong with the others.
    #[error("{}: metadata {key}: expected {expected}, found {found}", path.display())]
    SplitValue {
        /// The file.
        path: PathBuf,
        /// `split.no`, `split.count` or `split.tensors.count`.
        key: &'static str,
        /// What the other parts and the file's name imply.
        expected: u64,
        /// The value, or for `split.tensors.count` the tensors there are.
        found: u64,
    },
    /// A safetensors header of an impossible length.
    #[error("{}: expected a header of 2 to {limit} bytes, found {found}", path.display())]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// Longest header read, the file's own length included.
        limit: u64,
        /// The length claimed.
        found: u64,
    },
    /// A safetensors header or index that is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A tensor's entry in a safetensors header is not what it should be.
    #[error("{}: tensor {tensor}: {source}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A safetensors element type that is not known.
    #[error("{}: tensor {tensor}: unknown dtype {found:?}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name of the type.
        found: String,
    },
    /// A safetensors tensor with more or fewer bytes than its shape needs.
    #[error("{}: tensor {tensor}: expected {expected} bytes for its shape, found {found}", path.display())]
    DataLength {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes that dtype and shape need.
        expected: u64,
        /// Bytes that its offsets span.
        found: u64,
    },
    /// An index that names a file outside its own folder.
    #[error("{}: tensor {tensor}: expected the name of a file in the same folder, found {found:?}", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// A tensor that is said to be in it.
        tensor: String,
        /// The name.
        found: String,
    },
    /// An index that promises a tensor which its file does not have.
    #[error("{}: tensor {tensor} is missing, though the index places it here", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A shard that an index or its siblings' names speak of.
    #[error("{}: expected {expected}, found no such file", path.display())]
    ShardMissing {
        /// The shard.
        path: PathBuf,
        /// What it is: `shard 2 of 3`, `a shard of model.safetensors.index.json`.
        expected: String,
    },
    /// Shards of two sets in one folder, and no index that says which to take.
    #[error("{}: expected the shards of one model, found {first} and {second}", path.display())]
    TwoSets {
        /// The folder.
        path: PathBuf,
        /// A shard of one set.
        first: String,
        /// A shard of another.
        second: String,
    },
    /// A folder without weights that can be read.
    #[error("{}: expected model.safetensors or model-*.safetensors, found {found}", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
}
