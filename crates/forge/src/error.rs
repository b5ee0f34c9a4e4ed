//! Everything that ends a run of `forge`.

use forge_codegen::CodegenError;
use forge_frontend::FrontendError;
use forge_pack::PackError;
use forge_plan::PlanError;

use crate::output::OutputError;

/// An error of `forge`: one line that names the file, key or tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is well formed, but Forge cannot generate from it yet.
    #[error("unsupported: {0}")]
    Unsupported(Box<Error>),
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
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl From<FrontendError> for Error {
    fn from(error: FrontendError) -> Self {
        use FrontendError as E;
        let unsupported = matches!(
            error,
            E::UnknownArchitecture { .. }
                | E::UnsupportedFeature { .. }
                | E::TensorFormat { .. }
                | E::UnreadTensor { .. }
        );
        wrap(unsupported, Self::Frontend(error))
    }
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        use PlanError as E;
        let unsupported = matches!(error, E::Unsupported { .. } | E::Width { .. } | E::AffineScales { .. });
        wrap(unsupported, Self::Plan(error))
    }
}

fn wrap(unsupported: bool, error: Error) -> Error {
    if unsupported { Error::Unsupported(Box::new(error)) } else { error }
}
