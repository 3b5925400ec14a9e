//! Why can the registry not do it?

use std::io;
use std::path::PathBuf;

use crate::domain::{ActiveRole, GenerationId, GenerationState};
use crate::error::{Error, ErrorCode};
use crate::ledger::LedgerError;

/// Why the registry could not do it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such generation.
    #[error("generation {0} was not found")]
    NotFound(GenerationId),
    /// Its files were deleted.
    #[error("the files of generation {0} were deleted to save space; it can not be used anymore")]
    Pruned(GenerationId),
    /// A file of it is missing or not what was published.
    #[error("generation {id} is damaged: {problem}; it is not used")]
    Damaged {
        /// The generation.
        id: GenerationId,
        /// Which file, and what is wrong with it.
        problem: String,
    },
    /// What is to be published is no generation.
    #[error("this can not be published: {0}")]
    Unpublishable(String),
    /// Another generation is active than was expected.
    #[error("the active generation is {}, not {expected}", active.as_ref().map_or("none", GenerationId::as_str))]
    NotActive {
        /// What was expected.
        expected: GenerationId,
        /// What is active.
        active: Option<GenerationId>,
    },
    /// It was decided upon already.
    #[error("generation {id} is {state}; only a candidate can be held")]
    Decided {
        /// The generation.
        id: GenerationId,
        /// What became of it.
        state: GenerationState,
    },
    /// There is nothing to go back to.
    #[error("there is no {0} generation to go back to")]
    NothingBefore(ActiveRole),
    /// The generation belongs to another base model.
    #[error("generation {id} was trained from the base model {trained_from}; this server has {configured}")]
    OtherBase {
        /// The generation.
        id: GenerationId,
        /// The base it stems from.
        trained_from: String,
        /// The base that is configured.
        configured: String,
    },
    /// Reading or writing failed.
    #[error("can not {operation} {}", path.display())]
    Io {
        /// "read", "write".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A manifest can not be written or read.
    #[error("the manifest of generation {id} can not be read")]
    Manifest {
        /// The generation.
        id: GenerationId,
        /// Why.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A thread of ours panicked.
    #[error("a background task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl RegistryError {
    /// For `map_err`: reading or writing `path` failed.
    pub(super) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        let conflict = |error: RegistryError| Self::new(ErrorCode::Conflict, error.to_string());
        match error {
            RegistryError::Ledger(error) => error.into(),
            RegistryError::NotFound(_) => Self::new(ErrorCode::NotFound, error.to_string()),
            RegistryError::NotActive { .. } => Self { param: Some("expected".into()), ..conflict(error) },
            RegistryError::Pruned(_)
            | RegistryError::Damaged { .. }
            | RegistryError::Unpublishable(_)
            | RegistryError::Decided { .. }
            | RegistryError::NothingBefore(_)
            | RegistryError::OtherBase { .. } => conflict(error),
            RegistryError::Io { ref source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::new(ErrorCode::StorageFull, "the server's disk is full; nothing was published")
                    .caused_by(error)
            }
            RegistryError::Io { .. } | RegistryError::Manifest { .. } | RegistryError::Task(_) => {
                Self::internal(error)
            }
        }
    }
}
