//! What is a passage of the knowledge base?

use serde::{Deserialize, Serialize};

use super::{DocumentId, Groups};

/// A passage as retrieval found it for one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Passage {
    /// The document it is part of.
    pub document_id: DocumentId,
    /// The passage: document id, `#`, position, `-`, first 8 hex digits of the text's SHA-256; so a changed text gets
    /// a new id.
    pub passage_id: String,
    /// The document's title.
    pub title: String,
    /// The headings above the passage, outermost first, without the document's title.
    pub heading_path: Vec<String>,
    /// Where a person can read the document, if known.
    pub url: Option<String>,
    /// The plain text.
    pub text: String,
    /// Relevance for the question; higher is better, comparable within one result only.
    pub score: f32,
    /// Who may see it; empty means everybody.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub groups: Groups,
}

/// What the ledger keeps of a passage an answer was grounded in: enough to rebuild the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PassageRef {
    /// See [`Passage::document_id`].
    pub document_id: DocumentId,
    /// See [`Passage::passage_id`].
    pub passage_id: String,
    /// The title as it stood in the prompt (document title and headings).
    pub title: String,
    /// See [`Passage::url`].
    pub url: Option<String>,
    /// The text as it stood in the prompt, after cutting.
    pub text: String,
    /// See [`Passage::score`].
    pub score: f32,
}
