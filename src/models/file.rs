//! How is a file written so that it is whole or not there, and how is it recognised?

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::ModelsError;

/// SHA-256 of a file.
pub(super) fn sha256(path: &Path) -> Result<[u8; 32], ModelsError> {
    let mut file = File::open(path).map_err(ModelsError::io("read", path))?;
    copy_hashing(&mut file, &mut io::sink(), |_| ())
        .map_err(ModelsError::io("read", path))
        .map(|(_, digest)| digest)
}

/// Copies all of `from`, telling `at` how many bytes are done; gives their number and SHA-256.
pub(crate) fn copy_hashing(
    from: &mut impl Read,
    to: &mut impl Write,
    at: impl Fn(u64),
) -> io::Result<(u64, [u8; 32])> {
    // Large enough that a read costs nothing beside hashing it.
    let mut buffer = vec![0; 1 << 18];
    let (mut done, mut hasher) = (0, Sha256::new());
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok((done, hasher.finalize().into())),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        done += n as u64;
        at(done);
    }
}

/// The name a file has until it is whole.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Gives a whole file its name, so that it has it after a power cut too.
pub(super) fn publish(partial: &Path, path: &Path) -> Result<(), ModelsError> {
    let publish = || {
        File::open(partial)?.sync_all()?;
        fs::rename(partial, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    publish().map_err(ModelsError::io("write", path))
}

/// Makes a folder and those above it.
pub(super) fn create_folder(path: &Path) -> Result<(), ModelsError> {
    fs::create_dir_all(path).map_err(ModelsError::io("create", path))
}

/// Holds a model's folder in the cache, so that two processes do not fetch or convert the same model at once. The
/// system lets go when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Waits until no other process holds the folder.
    pub(super) fn take(folder: &Path) -> Result<Self, ModelsError> {
        create_folder(folder)?;
        let path = folder.join("lock");
        let take = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.try_lock().is_err() {
                tracing::info!("another process prepares {}; waiting for it", folder.display());
                file.lock()?;
            }
            Ok(Self { _file: file })
        };
        take().map_err(ModelsError::io("lock", &path))
    }
}

/// Fails unless the digests are equal.
pub(super) fn check_sha256(path: &Path, found: &[u8; 32], wanted: &[u8; 32]) -> Result<(), ModelsError> {
    if found == wanted {
        return Ok(());
    }
    let problem = format!("its SHA-256 is {} instead of {}", hex::encode(found), hex::encode(wanted));
    Err(ModelsError::damaged(path, problem))
}
