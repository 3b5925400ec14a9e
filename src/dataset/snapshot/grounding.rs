//! Which passages does a demonstration answer from?

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Example;
use crate::{
    config::RetrievalConfig,
    domain::{AccessLabel, DocumentId, Groups, PassageRef},
    error::Result,
    prompt::references,
    retrieval::{Library, SearchQuery, contextual_query},
};

/// Where an example's passages came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroundedBy {
    /// They were stored with the row.
    Row,
    /// They stood in the prompt of the answer that the row corrects.
    Answer,
    /// They were retrieved for the snapshot.
    Retrieval,
    /// There are none: the row says so, or the chat would find nothing that answers the question.
    Nothing,
}

/// Finds passages for rows that have none, as the chat does.
#[derive(Debug, Clone)]
pub struct Grounding {
    library: Arc<Library>,
    k: usize,
    threshold: f32,
}

/// A row, and what is known of its passages.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The row, without passages.
    pub(super) example: Example,
    /// Texts stored with it; an empty list means that it was answered without passages.
    pub(super) stored: Option<Vec<String>>,
    /// Passages of the answer it corrects.
    pub(super) answered: Option<Vec<PassageRef>>,
}

impl Grounding {
    /// Searches this library with the chat's settings.
    #[must_use]
    pub fn new(library: Arc<Library>, config: &RetrievalConfig) -> Self {
        Self { library, k: config.k, threshold: config.answerable_threshold }
    }

    /// Fills in passages. Blocks.
    pub(super) fn ground(&self, wanted: Vec<Wanted>) -> Result<Vec<Example>> {
        wanted.into_iter().map(|wanted| self.one(wanted)).collect()
    }

    fn one(&self, Wanted { mut example, stored, answered }: Wanted) -> Result<Example> {
        let (passages, by) = match (answered, stored) {
            (Some(passages), _) => (passages, GroundedBy::Answer),
            (None, Some(texts)) => (untitled(texts), GroundedBy::Row),
            (None, None) => (self.retrieved(&mut example)?, GroundedBy::Retrieval),
        };
        example.grounded_by = if passages.is_empty() { GroundedBy::Nothing } else { by };
        example.passages = passages;
        Ok(example)
    }

    /// What the chat would answer from, for somebody who may see the row; its label then covers the passages too.
    fn retrieved(&self, example: &mut Example) -> Result<Vec<PassageRef>> {
        let groups: Groups = example.access.clauses().iter().flatten().cloned().collect();
        let text = contextual_query(&example.messages);
        let found = self.library.ground(&SearchQuery { text: &text, groups: Some(&groups), k: self.k })?;
        if self.threshold > 0.0 && found.evidence < self.threshold {
            return Ok(Vec::new());
        }
        let clauses = example.access.clauses().iter().chain(found.passages.iter().map(|p| &p.groups));
        example.access = AccessLabel::of(clauses);
        Ok(references(&found.passages))
    }
}

/// Passages of which only the text is known, under ids of their own.
pub(crate) fn untitled(texts: Vec<String>) -> Vec<PassageRef> {
    let passage = |text: String| {
        let hash = hex::encode(&Sha256::digest(text.as_bytes())[..8]);
        let document_id = DocumentId::from_path("text", &hash);
        PassageRef {
            passage_id: format!("{document_id}#0-{}", &hash[..8]),
            document_id,
            title: String::new(),
            url: None,
            text,
            score: 0.0,
        }
    };
    texts.into_iter().map(passage).collect()
}
