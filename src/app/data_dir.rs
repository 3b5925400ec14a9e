//! Who owns the data directory? One server at a time; the operating system's lock goes with the process.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Why the data directory can not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It can not be created or written.
    #[error("data directory {path} can not be used; choose another with --data-dir or data_dir")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "data directory {0} is in use by another attune process; stop that one or choose another with --data-dir"
    )]
    Locked(PathBuf),
}

/// A data directory that is ours until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the advisory lock; closing it, also by `kill -9`, releases it.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if needed and takes its lock.
    ///
    /// # Errors
    /// When it can not be created or written, or another process has it.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        let is_new = !path.exists();
        std::fs::create_dir_all(path).map_err(unusable)?;
        if is_new {
            tracing::info!(path = %path.display(), "a new data directory begins here");
        }
        let file = File::options().create(true).truncate(false).write(true).open(path.join("lock"));
        let file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the index lives.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.path.join("index")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_has_it_and_dropping_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::lock(dir.path()).unwrap();
        assert!(matches!(DataDir::lock(dir.path()), Err(DataDirError::Locked(_))));
        drop(first);
        assert!(DataDir::lock(dir.path()).is_ok());
    }
}
