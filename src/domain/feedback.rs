//! What can people say about answers?

use serde::{Deserialize, Serialize};

use super::{AccessLabel, AnswerId, AnswerRecord, DemonstrationId, Groups, Message, Millis};

/// A thumb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rating {
    /// Helpful.
    Up,
    /// Not helpful.
    Down,
}

/// Why a thumb was given.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Right and supported by the sources.
    Accurate,
    /// Easy to read.
    Clear,
    /// Says what was needed.
    Complete,
    /// States something wrong.
    Inaccurate,
    /// Out of date.
    Outdated,
    /// Does not answer the question.
    OffTopic,
    /// Leaves out what matters.
    Incomplete,
    /// Too long.
    TooLong,
    /// Tone or form is bad.
    BadStyle,
    /// The cited page does not support it, or the right page is missing.
    WrongSource,
    /// Said "I don't know" though the knowledge base answers it.
    UnjustifiedRefusal,
    /// Something else; see the comment.
    Other,
}

/// One person's feedback on one answer; there is at most one per (answer, user).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Feedback {
    /// The answer.
    pub answer: AnswerId,
    /// Who said it.
    pub user: String,
    /// The thumb; `None` with a comment or correction only.
    pub rating: Option<Rating>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Free text.
    pub comment: Option<String>,
    /// What the answer should have been.
    pub ideal_answer: Option<String>,
    /// When it was first given.
    pub created: Millis,
    /// When it was last changed.
    pub updated: Millis,
}

/// What was chosen in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The left answer is better.
    Left,
    /// The right answer is better.
    Right,
    /// Equally good.
    Tie,
    /// Neither will do.
    BothBad,
}

/// Where a demonstration came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DemonstrationSource {
    /// A file of rows.
    Import,
    /// Written by a person through the console or the HTTP interface.
    Written,
    /// An employee's correction of an answer, approved by a curator.
    Correction,
}

/// Whether a demonstration may be learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DemonstrationStatus {
    /// Waits for a curator.
    Draft,
    /// May be learnt from.
    Approved,
}

/// Where an imported row came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lineage {
    /// SHA-256 of the imported file, hex.
    pub file_sha256: String,
    /// Line of the file, from 1.
    pub line: u64,
    /// Who imported it.
    pub importer: String,
}

/// A prompt and its ideal human response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Demonstration {
    /// The demonstration.
    pub id: DemonstrationId,
    /// The conversation, the question last.
    pub messages: Vec<Message>,
    /// The ideal response.
    pub response: String,
    /// Groups one must be in (any of them) to see it; empty means everybody.
    pub groups: Groups,
    /// Label of what it was grounded in, when it is a correction of an answer.
    pub access: AccessLabel,
    /// Texts of the passages it is grounded in, when known; else they are retrieved when learning.
    pub passages: Option<Vec<String>>,
    /// Where it came from.
    pub source: DemonstrationSource,
    /// Who wrote it.
    pub author: String,
    /// Whether it may be learnt from.
    pub status: DemonstrationStatus,
    /// The answer it corrects, if any.
    pub corrects: Option<AnswerId>,
    /// The imported row, if any.
    pub lineage: Option<Lineage>,
    /// When it was made.
    pub created: Millis,
    /// When it was last changed.
    pub updated: Millis,
}

impl Demonstration {
    /// The same response as what should have been said instead of this answer: only who may see the answer may see it,
    /// and it is grounded in the same passages unless it names its own. A refusal had none; for a better answer they are
    /// retrieved when learning.
    #[must_use]
    pub fn correcting(self, answer: &AnswerRecord) -> Self {
        let texts = || answer.passages.iter().map(|passage| passage.text.clone()).collect();
        Self {
            access: answer.access.clone(),
            passages: self.passages.or_else(|| answer.grounded.then(texts)),
            source: DemonstrationSource::Correction,
            corrects: Some(answer.id.clone()),
            ..self
        }
    }
}
