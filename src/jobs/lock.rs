//! Which worker has this data directory? One at a time: they share its files and the machine.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::JobsError;

/// The right to work on runs in a data directory, until dropped. It is apart from the server's: a worker runs beside it.
#[derive(Debug)]
pub struct WorkerLock {
    /// Holds the advisory lock; closing it, also by `kill -9`, releases it.
    _file: File,
}

impl WorkerLock {
    /// Takes the lock of a data directory.
    ///
    /// # Errors
    /// [`JobsError::Busy`] when another worker has it; [`JobsError::Lock`] when the directory can not be written.
    pub fn take(data_dir: &Path) -> Result<Self, JobsError> {
        let path = data_dir.join("worker.lock");
        let failed = |source| JobsError::Lock { path: path.clone(), source };
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(JobsError::Busy(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_has_it_and_dropping_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = WorkerLock::take(dir.path()).unwrap();
        assert!(matches!(WorkerLock::take(dir.path()), Err(JobsError::Busy(_))));
        drop(first);
        assert!(WorkerLock::take(dir.path()).is_ok());
    }
}
