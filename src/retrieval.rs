//! Which passages of the company's documents speak about this question?

mod analysis;
mod conversation;
mod encoder;
mod evidence;
mod folders;
mod grounding;
mod interaction;
mod library;
mod parse;
mod schema;
mod search;
mod split;
mod store;
mod synonyms;
mod vectors;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{DocumentId, Groups, Millis, Passage};
use crate::error::{Error, ErrorCode};

pub use analysis::terms_alike;
pub use conversation::contextual_query;
pub use encoder::SentenceEncoder;
pub use evidence::Features;
pub use folders::{SyncProgress, SyncReport, is_watched};
pub use interaction::Interaction;
pub use library::{Library, Stats};
pub use watch::{Watcher, watch};

/// Why documents could not be indexed or searched.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// The index's files are damaged or of another version; it can be rebuilt from the documents.
    #[error("index {path}: {problem}; move the folder away and start again to rebuild it")]
    Damaged {
        /// The index folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The index's disk is full; the index is as it was.
    #[error("the index's disk is full")]
    Full,
    /// A file or folder can not be read.
    #[error("{path}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A document's content can not be used.
    #[error("document {document}: {problem}")]
    Malformed {
        /// The document.
        document: String,
        /// The field or place at fault and what to do.
        problem: String,
    },
    /// The place in a list is not one that an earlier page named.
    #[error("`after` is not the `next` of an earlier page")]
    Cursor,
    /// The sentence model's files can not be used.
    #[error("{path}: {problem}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The operating system can not watch the folders.
    #[error("watching the document folders")]
    Watch(#[from] notify::Error),
    /// The engine failed.
    #[error("index")]
    Index(#[from] tantivy::TantivyError),
    /// The sentence model failed.
    #[error("sentence model")]
    Encoder(#[from] candle_core::Error),
}

impl From<RetrievalError> for Error {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Malformed { .. } => Self::invalid("text", error.to_string()),
            RetrievalError::Cursor => Self::invalid("after", error.to_string()),
            RetrievalError::Full => {
                Self::new(ErrorCode::StorageFull, "the server's disk is full; the index is unchanged")
                    .caused_by(error)
            }
            other => Self::internal(other),
        }
    }
}

/// How a document's text is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Markdown, with optional YAML front matter.
    #[default]
    Markdown,
    /// HTML; scripts, styles and navigation are left out.
    Html,
    /// Plain text.
    Text,
}

/// A document to index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its title; when `None`, front matter, the first heading, or the id's last part serve.
    pub title: Option<String>,
    /// Its source text.
    pub text: String,
    /// How the text is written.
    pub format: Format,
    /// Where people read it.
    pub url: Option<String>,
    /// Who may see it; `None` leaves it to front matter, and without any everybody may.
    pub groups: Option<Groups>,
    /// Anything else worth keeping.
    pub metadata: BTreeMap<String, String>,
}

/// A document as it stands in the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoredDocument {
    /// Its id.
    pub id: DocumentId,
    /// Its title.
    pub title: String,
    /// Its source text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How the text is written.
    pub format: Format,
    /// Where people read it.
    pub url: Option<String>,
    /// Who may see it; empty means everybody.
    pub groups: Groups,
    /// Anything else that was kept with it.
    pub metadata: BTreeMap<String, String>,
    /// When it was last changed in the index.
    pub updated: Millis,
    /// How many passages it has.
    pub passages: u64,
    /// Where it came from: `api`, or `folder:NAME` for documents kept in step with a folder.
    pub source: String,
}

/// What a search asks for.
#[derive(Debug, Clone)]
pub struct SearchQuery<'a> {
    /// The question, or keywords.
    pub text: &'a str,
    /// The asker's groups; `None` sees every document. Applied inside the query.
    pub groups: Option<&'a Groups>,
    /// Most passages, 1 to 50.
    pub k: usize,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Passages, best first.
    pub passages: Vec<Passage>,
    /// How likely the passages answer the question, 0 to 1. Compared with `retrieval.answerable_threshold` in one
    /// place: `chat::refusal`.
    pub evidence: f32,
    /// Version of the index that was searched; changes with every change of a document.
    pub index_version: String,
}

/// What putting a document did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PutOutcome {
    /// It is new.
    Created,
    /// It replaced an older text.
    Updated,
    /// It was there with the same content; nothing was written.
    Unchanged,
}
