//! What is each thing called, and which names are allowed?

use serde::{Deserialize, Serialize};

/// A name that does not have the form its kind requires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    /// What the value should have named ("document id").
    pub kind: &'static str,
    /// The value as given, cut to 80 characters.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as it is written on the wire and in the ledger.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

macro_rules! random_id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// A new id; ids made later sort after ids made earlier (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), uuid::Uuid::now_v7().simple()))
            }

            /// Takes an id that came over the wire or out of the ledger. Unknown ids are found missing at look-up,
            /// so nothing is checked here.
            #[must_use]
            pub fn from_wire(id: impl Into<String>) -> Self {
                Self(id.into())
            }
        }
    };
}

id! {
    /// One recorded answer; also OpenAI's response `id`, and what feedback names.
    AnswerId
}
random_id!(AnswerId, "chatcmpl-");

id! {
    /// One comparison: two answers to one prompt, shown side by side.
    ComparisonId
}
random_id!(ComparisonId, "cmp-");

id! {
    /// One demonstration: a prompt and its ideal human response.
    DemonstrationId
}
random_id!(DemonstrationId, "dem-");

id! {
    /// One training run.
    RunId
}
random_id!(RunId, "run-");

id! {
    /// One generation of a model: a content hash of what it is (`gen-` and 16 hex digits). The base model's covers
    /// weights, template and sampling defaults; a trained one's its weights and what they were made from.
    GenerationId
}

impl GenerationId {
    /// The id of the given content digest.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(format!("gen-{}", hex::encode(&digest[..8])))
    }

    /// Takes an id that came over the wire or out of the ledger.
    #[must_use]
    pub fn from_wire(id: impl Into<String>) -> Self {
        Self(id.into())
    }
}

id! {
    /// One document of the knowledge base: 1 to 200 of `[A-Za-z0-9._~:-]`.
    DocumentId
}

impl DocumentId {
    /// Checks the form of a document id.
    ///
    /// # Errors
    /// When it is empty, longer than 200 characters, or has a character outside `[A-Za-z0-9._~:-]`.
    pub fn parse(value: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:-".contains(&b);
        if value.is_empty() || value.len() > 200 || !value.bytes().all(allowed) {
            return Err(InvalidId {
                kind: "document id",
                value: value.chars().take(80).collect(),
                rule: "1 to 200 characters of A-Z a-z 0-9 . _ ~ : -",
            });
        }
        Ok(Self(value.to_owned()))
    }

    /// The id of a file at `relative` (its path inside a document folder, `/`-separated) of the folder named `root`:
    /// `handbook` and `offices/boston.md` give `handbook:offices:boston.md`. Other characters become `~` and two hex
    /// digits per byte; an id that would be longer than 200 characters ends in a hash instead.
    #[must_use]
    pub fn from_path(root: &str, relative: &str) -> Self {
        use sha2::{Digest, Sha256};
        use std::fmt::Write;
        let mut id = String::new();
        for byte in format!("{root}/{relative}").bytes() {
            match byte {
                b'/' | b'\\' => id.push(':'),
                b if b.is_ascii_alphanumeric() || b"._-".contains(&b) => id.push(char::from(b)),
                // Writing to a String cannot fail.
                b => drop(write!(id, "~{b:02x}")),
            }
        }
        if id.len() > 200 {
            let digest = hex::encode(&Sha256::digest(id.as_bytes())[..16]);
            id.truncate(160);
            id = format!("{id}~{digest}");
        }
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_valid_document_ids() {
        let id = DocumentId::from_path("handbook", "offices/boston.md");
        assert_eq!(id.as_str(), "handbook:offices:boston.md");
        for path in ["a b/ü.md", "x".repeat(500).as_str(), "a:b", "~"] {
            let id = DocumentId::from_path("r", path);
            assert_eq!(DocumentId::parse(id.as_str()), Ok(id.clone()), "{path}");
        }
        // Different paths keep different ids, also where a character was escaped.
        assert_ne!(DocumentId::from_path("r", "a b"), DocumentId::from_path("r", "a~20b"));
    }

    #[test]
    fn bad_document_ids_are_named() {
        for bad in ["", "a/b", "ü", &"x".repeat(201)] {
            assert!(DocumentId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn later_answer_ids_sort_later() {
        let first = AnswerId::generate();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < AnswerId::generate());
    }
}
