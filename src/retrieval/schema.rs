//! How do documents and passages lie in the index?
//!
//! A document is one entry of kind `document` (its record and its source) and one of kind `passage` per passage. All
//! of them carry its id and are written and deleted together, in one commit.

use serde::{Deserialize, Serialize};
use tantivy::TantivyDocument;
use tantivy::schema::{
    BytesOptions, FAST, Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions,
    Value,
};

use super::RetrievalError;
use super::StoredDocument;
use crate::domain::Groups;

/// `kind` of the entry that holds a document's record.
pub(super) const DOCUMENT: &str = "document";
/// `kind` of the entries that are searched.
pub(super) const PASSAGE: &str = "passage";
/// `access` of what everybody may see. Groups have a prefix, so none can be called this.
const PUBLIC: &str = "public";

/// Numbers of floats in a sentence vector.
pub(super) const DIMENSIONS: usize = 384;

/// The fields of the index.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub schema: Schema,
    /// [`DOCUMENT`] or [`PASSAGE`].
    pub kind: Field,
    pub document_id: Field,
    pub passage_id: Field,
    /// One term per group that may see it, or the public one: see [`access_terms`].
    pub access: Field,
    /// Code of the language that a passage's terms were stemmed in.
    pub language: Field,
    /// Terms of the document's title and of the headings.
    pub title: Field,
    /// Terms of the passage.
    pub body: Field,
    /// A [`Record`] or a [`StoredPassage`], as JSON.
    pub stored: Field,
    /// A document's source text.
    pub source: Field,
    /// When a document last changed, in milliseconds since the epoch.
    pub updated: Field,
    /// A passage's sentence vector: [`DIMENSIONS`] little-endian half floats.
    pub vector: Field,
}

impl Fields {
    pub(super) fn new() -> Self {
        let mut builder = Schema::builder();
        // The terms come tokenised; the tokenizer's name is a formality. Frequencies are scored, positions are not.
        let terms = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::WithFreqs),
        );
        Self {
            kind: builder.add_text_field("kind", STRING),
            document_id: builder.add_text_field("document_id", STRING | STORED),
            passage_id: builder.add_text_field("passage_id", STRING | STORED),
            access: builder.add_text_field("access", STRING),
            language: builder.add_text_field("language", STRING),
            title: builder.add_text_field("title", terms.clone()),
            body: builder.add_text_field("body", terms),
            stored: builder.add_text_field("stored", STORED),
            source: builder.add_text_field("source", STORED),
            updated: builder.add_i64_field("updated", FAST),
            vector: builder.add_bytes_field("vector", BytesOptions::default().set_fast()),
            schema: builder.build(),
        }
    }

    /// The text of a stored field.
    pub(super) fn text<'a>(&self, entry: &'a TantivyDocument, field: Field) -> &'a str {
        entry.get_first(field).and_then(|value| value.as_str()).unwrap_or_default()
    }

    /// Reads the stored part of an entry.
    ///
    /// # Errors
    /// When it was not written by this version.
    pub(super) fn stored<T: serde::de::DeserializeOwned>(
        &self,
        entry: &TantivyDocument,
    ) -> Result<T, RetrievalError> {
        serde_json::from_str(self.text(entry, self.stored)).map_err(|error| {
            RetrievalError::Index(tantivy::TantivyError::InternalError(format!(
                "a stored entry is not readable: {error}"
            )))
        })
    }
}

/// What is kept of a document besides its source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub document: StoredDocument,
    /// SHA-256 of everything that was given, hex.
    pub fingerprint: String,
    /// How it was split: see [`super::split::VERSION`].
    pub splitter: String,
    /// The sentence model of its vectors, if there are any.
    pub encoder: Option<String>,
}

/// What is kept of a passage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredPassage {
    pub title: String,
    pub heading_path: Vec<String>,
    pub url: Option<String>,
    pub text: String,
    pub groups: Groups,
}

/// What `access` holds for something that only these groups may see.
pub(super) fn access_terms(groups: &Groups) -> Vec<String> {
    if groups.is_empty() {
        vec![PUBLIC.to_owned()]
    } else {
        groups.iter().map(|name| group_term(name)).collect()
    }
}

/// What a member of these groups may see.
pub(super) fn visible_terms(groups: &Groups) -> Vec<String> {
    std::iter::once(PUBLIC.to_owned()).chain(groups.iter().map(|name| group_term(name))).collect()
}

fn group_term(name: &str) -> String {
    format!("group:{name}")
}
