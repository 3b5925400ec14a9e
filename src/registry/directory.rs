//! How does a generation lie on disk, whole or not at all, and how is damage noticed?
//!
//! `generations/<id>/` never changes. What is being written lies in `.draft-…` beside it, held by an advisory lock that
//! ends with its writer; what is being deleted is called `.trash-…` first. Whoever adds or removes a directory holds
//! `.lock`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::RegistryError;
use super::manifest::{About, FORMAT, FileEntry, MANIFEST, Manifest};
use crate::domain::GenerationId;
use crate::models::file::copy_hashing;

type Result<T> = std::result::Result<T, RegistryError>;

const LOCK: &str = ".lock";
const DRAFT: &str = ".draft-";
const TRASH: &str = ".trash-";

/// The folder of all generations.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    folder: PathBuf,
}

/// The right to add and remove generations; other processes wait.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

/// A folder to write a new generation into. Dropping it unpublished deletes it; when the process is killed, the next
/// one to open the registry does.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    _lock: File,
}

impl Draft {
    /// Where to write. Sub-folders are allowed; links are not.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unpublished generation can not be deleted");
        }
    }
}

impl Directory {
    /// Makes the folder if it is not there.
    pub(super) fn open(data_dir: &Path) -> Result<Self> {
        let folder = data_dir.join("generations");
        fs::create_dir_all(&folder).map_err(RegistryError::io("create", &folder))?;
        Ok(Self { folder })
    }

    /// Waits until no other process adds or removes.
    pub(super) fn hold(&self) -> Result<Held> {
        let path = self.folder.join(LOCK);
        let hold = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(Held { _file: file })
        };
        hold().map_err(RegistryError::io("lock", &path))
    }

    /// Where a generation is. An id is a name here, so only ids that are content hashes have a place.
    pub(super) fn path(&self, id: &GenerationId) -> Result<PathBuf> {
        let hash = id.as_str().strip_prefix("gen-").unwrap_or_default();
        if hash.len() != 16 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RegistryError::NotFound(id.clone()));
        }
        Ok(self.folder.join(id.as_str()))
    }

    /// A new, empty draft.
    pub(super) fn draft(&self, _held: &Held) -> Result<Draft> {
        let path = self.folder.join(format!("{DRAFT}{}", uuid::Uuid::now_v7().simple()));
        let make = || {
            fs::create_dir(&path)?;
            let file = File::create(path.join(LOCK))?;
            file.lock()?;
            Ok(file)
        };
        let lock = make().map_err(RegistryError::io("write", &path))?;
        Ok(Draft { path, _lock: lock })
    }

    /// Deletes drafts whose writer is gone, and what was being deleted when a process ended.
    pub(super) fn sweep(&self, _held: &Held) -> Result<()> {
        for path in self.entries()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let dead = name.starts_with(DRAFT)
                && File::open(path.join(LOCK)).map_or(true, |lock| lock.try_lock().is_ok());
            if dead || name.starts_with(TRASH) {
                fs::remove_dir_all(&path).map_err(RegistryError::io("delete", &path))?;
                tracing::info!(path = %path.display(), "deleted what a process that ended had left");
            }
        }
        Ok(())
    }

    /// Ids of the generations that have a directory.
    pub(super) fn ids(&self) -> Result<Vec<GenerationId>> {
        let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let ids = self.entries()?.into_iter().filter_map(name).map(GenerationId::from_wire);
        Ok(ids.filter(|id| self.path(id).is_ok()).collect())
    }

    /// Hashes a draft's files and makes them durable, with the manifest among them.
    pub(super) fn seal(draft: &Draft, about: About) -> Result<Manifest> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(&draft.path).sort_by_file_name() {
            let entry = entry.map_err(|error| RegistryError::io("read", &draft.path)(error.into()))?;
            let kind = entry.file_type();
            let name = relative(entry.path(), &draft.path);
            if kind.is_dir() || name == LOCK || name == MANIFEST {
                continue;
            }
            if !kind.is_file() {
                return Err(RegistryError::Unpublishable(format!("{name} is no file")));
            }
            files.insert(name, sealed(entry.path())?);
        }
        let manifest = Manifest::new(about, files);
        let path = draft.path.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| RegistryError::Manifest { id: manifest.id.clone(), source })?;
        fs::write(&path, text).map_err(RegistryError::io("write", &path))?;
        synced(&path)?;
        for entry in WalkDir::new(&draft.path).into_iter().filter_map(std::result::Result::ok) {
            if entry.file_type().is_dir() {
                synced(entry.path())?;
            }
        }
        Ok(manifest)
    }

    /// Gives a sealed draft its name, and returns the manifest that has it then. A generation that is there whole
    /// already stays as it is; a damaged one is replaced.
    pub(super) fn place(&self, draft: &Draft, manifest: Manifest, held: &Held) -> Result<Manifest> {
        let path = self.path(&manifest.id)?;
        if path.exists() {
            if let Ok(there) = self.verify(&manifest.id) {
                return Ok(there);
            }
            self.discard(&manifest.id, held)?;
        }
        let lock = draft.path.join(LOCK);
        fs::remove_file(&lock).map_err(RegistryError::io("delete", &lock))?;
        fs::rename(&draft.path, &path).map_err(RegistryError::io("write", &path))?;
        synced(&self.folder)?;
        Ok(manifest)
    }

    /// Deletes a generation's directory.
    pub(super) fn discard(&self, id: &GenerationId, _held: &Held) -> Result<()> {
        let (path, trash) = (self.path(id)?, self.folder.join(format!("{TRASH}{id}")));
        if trash.exists() {
            fs::remove_dir_all(&trash).map_err(RegistryError::io("delete", &trash))?;
        }
        match fs::rename(&path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(RegistryError::io("delete", &path))?,
        }
        fs::remove_dir_all(&trash).map_err(RegistryError::io("delete", &trash))
    }

    /// Reads a generation's manifest.
    pub(super) fn manifest(&self, id: &GenerationId) -> Result<Manifest> {
        let path = self.path(id)?.join(MANIFEST);
        let damaged = |problem: String| RegistryError::Damaged { id: id.clone(), problem };
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(format!("{} is missing", path.display())));
            }
            read => read.map_err(RegistryError::io("read", &path))?,
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
        if manifest.format > FORMAT {
            return Err(damaged(format!(
                "its manifest has format {}; this version reads {FORMAT}",
                manifest.format
            )));
        }
        if manifest.id != *id || !manifest.is_consistent() {
            return Err(damaged("its manifest does not belong to it".into()));
        }
        Ok(manifest)
    }

    /// Reads a generation's manifest and compares every file with it.
    pub(super) fn verify(&self, id: &GenerationId) -> Result<Manifest> {
        let (folder, manifest) = (self.path(id)?, self.manifest(id)?);
        for (name, wanted) in &manifest.files {
            let damaged = |problem: String| RegistryError::Damaged { id: id.clone(), problem };
            let path = folder.join(name);
            let found = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(damaged(format!("{name} is missing")));
                }
                opened => opened.map_err(RegistryError::io("read", &path))?,
            };
            let bytes = found.metadata().map_err(RegistryError::io("read", &path))?.len();
            if bytes != wanted.bytes {
                return Err(damaged(format!("{name} has {bytes} bytes instead of {}", wanted.bytes)));
            }
            let sha256 = digest(found).map_err(RegistryError::io("read", &path))?.sha256;
            if sha256 != wanted.sha256 {
                return Err(damaged(format!(
                    "the SHA-256 of {name} is {sha256} instead of {}",
                    wanted.sha256
                )));
            }
        }
        Ok(manifest)
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let read =
            || fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = read().map_err(RegistryError::io("read", &self.folder))?;
        paths.retain(|path| path.is_dir());
        paths.sort();
        Ok(paths)
    }
}

/// A path below `folder`, with `/` between its parts.
fn relative(path: &Path, folder: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn digest(mut file: File) -> io::Result<FileEntry> {
    let (bytes, sha256) = copy_hashing(&mut file, &mut io::sink(), |_| ())?;
    Ok(FileEntry { sha256: hex::encode(sha256), bytes })
}

/// Hashes a file and waits until it is on the disk.
fn sealed(path: &Path) -> Result<FileEntry> {
    let seal = || {
        let file = File::open(path)?;
        file.sync_all()?;
        digest(file)
    };
    seal().map_err(RegistryError::io("read", path))
}

/// Waits until a file or a folder's list of names is on the disk.
fn synced(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(RegistryError::io("write", path))
}
