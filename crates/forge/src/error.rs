//! Everything that ends a run of `forge`.

use std::io;
use std::path::{Path, PathBuf};

use forge_codegen::CodegenError;
use forge_frontend::FrontendError;
use forge_pack::PackError;
use forge_plan::PlanError;
use forge_sources::SourceError;

use crate::output::OutputError;

/// An error of `forge`: one line that names the file, key or tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is well formed, but Forge cannot generate from it yet.
    #[error("unsupported: {0}")]
    Unsupported(Box<Error>),
    /// A name of a model that did not become a checkpoint.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Frontend(FrontendError),
    /// No plan for the graph.
    #[error(transparent)]
    Plan(PlanError),
    /// The project cannot be rendered.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// The weights cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The folder cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A tuning file that cannot be used.
    #[error("{path}: {reason}")]
    Tuning {
        /// The file.
        path: PathBuf,
        /// The key, and what is wrong with it.
        reason: String,
    },
    /// An importance matrix that cannot be used.
    #[error("{path}: {reason}")]
    Imatrix {
        /// The file.
        path: PathBuf,
        /// The key or tensor, and what is wrong with it.
        reason: String,
    },
    /// A size that no choice of formats has.
    #[error("--quantize auto:{bits}: the smallest that this model can be quantised to is {least:.3} bits a weight")]
    TooSmall {
        /// Bits a weight, asked for.
        bits: f64,
        /// The fewest there are.
        least: f64,
    },
    /// A file or program that cannot be opened.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The static gate could not run.
    #[error(transparent)]
    Gate(#[from] msl_gate::Error),
    /// No cargo.
    #[error("{cargo} cannot be run ({source}): checks and --measure build projects; install Rust, https://rustup.rs")]
    Cargo {
        /// The program tried.
        cargo: String,
        /// What the system says.
        source: io::Error,
    },
    /// A project that cannot be built.
    #[error("{project} does not build: {reason}")]
    Build {
        /// The project's folder.
        project: PathBuf,
        /// What the build says.
        reason: String,
    },
    /// The project's `verify` came to no table.
    #[error("{project}: its verify command failed: {reason}")]
    Verify {
        /// The project's folder.
        project: PathBuf,
        /// What it says.
        reason: String,
    },
    /// A program that did not come to figures.
    #[error("--measure: the program's perplexity command failed: {reason}")]
    Measure {
        /// What it says.
        reason: String,
    },
    /// Checks that did not pass.
    #[error("{failed} of 3 checks failed")]
    Checks {
        /// How many of static gate, run and comparison.
        failed: usize,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err` on work with a file.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

impl From<FrontendError> for Error {
    fn from(error: FrontendError) -> Self {
        use FrontendError as E;
        let unsupported = matches!(
            error,
            E::UnknownArchitecture { .. }
                | E::UnsupportedFeature { .. }
                | E::TensorFormat { .. }
                | E::TensorType { .. }
                | E::UnreadTensor { .. }
        );
        wrap(unsupported, Self::Frontend(error))
    }
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        use PlanError as E;
        let unsupported =
            matches!(error, E::Unsupported { .. } | E::Width { .. } | E::AffineScales { .. } | E::CacheBlocks { .. });
        wrap(unsupported, Self::Plan(error))
    }
}

fn wrap(unsupported: bool, error: Error) -> Error {
    if unsupported { Error::Unsupported(Box::new(error)) } else { error }
}
