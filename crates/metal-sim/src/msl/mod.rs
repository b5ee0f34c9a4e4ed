//! MSL source text: a lexer, and the rewriting that makes a kernel file into C++ for the runtime in `cpp/`.
//!
//! What the rewriting cannot handle is an error, never silently something else.

mod cuda;
mod kernels;
mod lex;
mod rewrite;
mod threadgroup;

pub use cuda::CUDA_HEADERS;
pub use kernels::{KernelSource, Parameter};
pub use lex::{Token, TokenKind, directives, lex};
pub use rewrite::{Rewritten, rewrite};

/// Why a text cannot be rewritten.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {kind}")]
pub struct MslError {
    /// The file's name as given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong.
    pub kind: MslErrorKind,
}

/// What is wrong with a text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the names in the message")]
pub enum MslErrorKind {
    #[error("unmatched {bracket}")]
    Unmatched { bracket: String },
    #[error(
        "template kernels and [[host_name]] instantiations are not supported; write a plain kernel that calls the template"
    )]
    TemplateKernel,
    #[error("a kernel inside a namespace or block is not supported")]
    NestedKernel,
    #[error("cannot read this kernel declaration")]
    KernelDeclaration,
    #[error("two kernels are named {name}")]
    DuplicateKernel { name: String },
    #[error("kernel {kernel}: [[buffer({index})]] is not a number of at most 30")]
    BufferIndex { kernel: String, index: String },
    #[error("kernel {kernel}: two parameters have [[buffer({index})]]")]
    DuplicateBuffer { kernel: String, index: u32 },
    #[error("kernel {kernel}: parameter {parameter} has no attribute that says what it is")]
    NoAttribute { kernel: String, parameter: String },
    #[error("kernel {kernel}: parameter {parameter} has attribute {attribute}, which is not supported")]
    Attribute { kernel: String, parameter: String, attribute: String },
    #[error("attribute [[{attribute}]] is not supported")]
    UnknownAttribute { attribute: String },
    #[error(
        "kernel {kernel}: parameter {parameter} is threadgroup memory sized by the host, which is not supported; declare the array in the kernel"
    )]
    ThreadgroupParameter { kernel: String, parameter: String },
    #[error(
        "{type_name} in device or threadgroup memory: accesses of 32 bytes cannot be checked; use two of half the size"
    )]
    WideMemory { type_name: String },
    #[error("threadgroup declaration in a macro is not supported")]
    ThreadgroupInMacro,
    #[error("threadgroup variable {name} must not have an initialiser")]
    ThreadgroupInitialiser { name: String },
    #[error("cannot rewrite this threadgroup declaration: {text}")]
    ThreadgroupDeclaration { text: String },
    #[error("threadgroup variable in a place this rewriting does not handle")]
    ThreadgroupPlace,
    #[error("{word} depends on an Apple GPU's order of lanes in a matrix, which an NVIDIA GPU does not have")]
    LaneOrder { word: String },
}
