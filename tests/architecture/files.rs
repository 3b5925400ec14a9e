//! Which files belong to the repository?

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

/// The repository's root.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file under `folder` (relative to the root) with its text, in a stable order. What .gitignore names at
/// the root is no part of the repository.
pub(super) fn texts(folder: &str) -> Vec<(PathBuf, String)> {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    let kept = |entry: &DirEntry| {
        let path = entry.path().strip_prefix(root()).unwrap();
        path != Path::new(".git") && !ignored.iter().any(|name| path == Path::new(name))
    };
    WalkDir::new(root().join(folder))
        .sort_by_file_name()
        .into_iter()
        .filter_entry(kept)
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| {
            let text = String::from_utf8(std::fs::read(entry.path()).unwrap()).ok()?;
            Some((entry.path().strip_prefix(root()).unwrap().to_owned(), text))
        })
        .collect()
}

/// The text of one file.
pub(super) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
