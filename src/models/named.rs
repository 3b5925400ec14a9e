//! What does a model's name in the configuration stand for?

use std::path::{Path, PathBuf};

use super::{
    ModelsError,
    catalog::{Entry, Kind, catalog},
};

/// A name, understood.
#[derive(Debug)]
pub(super) enum Named {
    /// A model of the catalogue.
    Catalog(&'static Entry),
    /// A GGUF file.
    File(PathBuf),
    /// A folder with safetensors.
    Folder(PathBuf),
    /// One file of a hub's repository.
    HubFile { repo: String, file: PathBuf },
    /// A hub's repository with safetensors.
    HubFolder { repo: String },
}

impl Named {
    /// A name of the catalogue wins over a path, a path over a hub id.
    pub(super) fn parse(name: &str, wanted: Kind) -> Result<Self, ModelsError> {
        if let Some(entry) = catalog().find(name) {
            if entry.kind == wanted {
                return Ok(Self::Catalog(entry));
            }
            let (is, wanted) = (entry.kind.as_str(), wanted.as_str());
            return Err(ModelsError::WrongKind { name: name.to_owned(), is, wanted });
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            [owner, repo] if !is_gguf && is_hub_part(owner) && is_hub_part(repo) => {
                Ok(Self::HubFolder { repo: name.to_owned() })
            }
            [owner, repo, ref file @ ..]
                if is_gguf && !file.is_empty() && parts.iter().all(|part| is_hub_part(part)) =>
            {
                Ok(Self::HubFile { repo: format!("{owner}/{repo}"), file: file.iter().collect() })
            }
            _ if is_gguf || parts.len() > 1 => Err(ModelsError::Missing(path.to_owned())),
            _ => Err(ModelsError::Unknown { name: name.to_owned(), known: catalog().names_like(name) }),
        }
    }
}

fn is_hub_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
}

/// The name of a model that is given by its path.
pub(super) fn stem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// A folder name for a model outside the catalogue; no name of the catalogue has two dashes.
pub(super) fn folder_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }
    };
    format!("other--{}", name.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<Named, ModelsError> {
        Named::parse(name, Kind::Policy)
    }

    #[test]
    fn each_form_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.gguf");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(parse("smollm2-135m-instruct"), Ok(Named::Catalog(_))));
        assert!(matches!(parse(folder.path().to_str().unwrap()), Ok(Named::Folder(_))));
        assert!(matches!(parse(file.to_str().unwrap()), Ok(Named::File(_))));
        assert!(matches!(parse("owner/name"), Ok(Named::HubFolder { repo }) if repo == "owner/name"));
        match parse("owner/name/sub/file.Q8_0.gguf") {
            Ok(Named::HubFile { repo, file }) => {
                assert_eq!((repo.as_str(), file.to_str()), ("owner/name", Some("sub/file.Q8_0.gguf")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_can_not_be_found_is_said_by_name() {
        for (name, said) in [
            ("smollm2", "known are smollm2-135m-instruct"),
            ("/nowhere/model.gguf", "/nowhere/model.gguf does not exist"),
            ("models/model.gguf", "models/model.gguf does not exist"),
            ("../up/model.gguf", "does not exist"),
            ("./folder/", "does not exist"),
            ("all-minilm-l6-v2", "is a sentence model"),
            ("", "is no known model"),
        ] {
            let error = parse(name).unwrap_err().to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
