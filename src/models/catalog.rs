//! Which base models are known by name, where do they come from, and how is each file recognised?

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The models known by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// In the order of `models/catalog.toml`.
    #[serde(rename = "model")]
    pub models: Vec<Entry>,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers.
    Policy,
    /// Turns a passage into a vector.
    Sentence,
}

impl Kind {
    /// As the catalogue writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Sentence => "sentence",
        }
    }
}

/// One model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name people use.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// One sentence.
    pub description: String,
    /// Family of the network ("llama", "bert").
    pub architecture: String,
    /// SPDX licence expression of the weights.
    pub licence: String,
    /// Longest text in tokens.
    pub context_tokens: usize,
    /// Every file of the model.
    pub files: Vec<File>,
    /// Where to get the files, the first that works.
    pub sources: Vec<Source>,
}

impl Entry {
    /// Size of all files in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// One file, the same from every source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name inside each source's folder, and in the cache.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256.
    #[serde(deserialize_with = "digest")]
    pub sha256: [u8; 32],
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&text, &mut digest).map_err(serde::de::Error::custom)?;
    Ok(digest)
}

/// Where files come from.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Source {
    /// A Python package that has the files inside.
    Package {
        /// Its name.
        python_package: String,
        /// Its version.
        version: String,
        /// The folder of the files inside the package.
        folder: String,
    },
    /// A repository of the model hub.
    Hub {
        /// `owner/name`.
        hub: String,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package { python_package, version, .. } => {
                write!(f, "Python package {python_package} {version}")
            }
            Self::Hub { hub } => write!(f, "model hub {hub}"),
        }
    }
}

/// The catalogue that is built in (`models/catalog.toml`).
#[must_use]
pub fn catalog() -> &'static Catalog {
    #[expect(clippy::expect_used, reason = "the text is part of the program, and a test reads it")]
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        toml::from_str(include_str!("../../models/catalog.toml")).expect("models/catalog.toml is valid")
    });
    &CATALOG
}

impl Catalog {
    /// The model of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }

    /// All names, those most like `name` first.
    pub(super) fn names_like(&self, name: &str) -> Vec<String> {
        let mut names: Vec<&str> = self.models.iter().map(|entry| entry.name.as_str()).collect();
        let name = name.to_lowercase();
        names.sort_by_key(|known| (!known.contains(&name), edits(known, &name)));
        names.into_iter().map(str::to_owned).collect()
    }
}

/// How many characters to add, drop or change to turn one word into the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelsConfig;

    #[test]
    fn the_defaults_of_the_configuration_are_in_the_catalogue() {
        let config = ModelsConfig::default();
        assert_eq!(catalog().find(&config.base).unwrap().kind, Kind::Policy);
        assert_eq!(catalog().find(&config.sentence).unwrap().kind, Kind::Sentence);
    }

    #[test]
    fn entries_can_be_fetched_and_kept() {
        for entry in &catalog().models {
            assert!(!entry.sources.is_empty() && !entry.files.is_empty(), "{}", entry.name);
            // Names become file names in the cache.
            let plain = |name: &str| !name.contains(['/', '\\']) && !name.starts_with('.');
            assert!(plain(&entry.name) && entry.files.iter().all(|file| plain(&file.name)), "{}", entry.name);
            let ggufs = entry.files.iter().filter(|file| file.name.ends_with(".gguf")).count();
            assert_eq!(ggufs, usize::from(entry.kind == Kind::Policy), "{}", entry.name);
        }
    }

    #[test]
    fn near_names_come_first() {
        assert_eq!(catalog().names_like("SmolLM2-135m")[0], "smollm2-135m-instruct");
        assert_eq!(catalog().names_like("minilm")[0], "all-minilm-l6-v2");
        assert_eq!((edits("kitten", "sitting"), edits("", "ab"), edits("a", "a")), (3, 2, 0));
    }
}
