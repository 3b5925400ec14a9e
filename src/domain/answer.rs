//! What is recorded about one answer?

use serde::{Deserialize, Serialize};

use super::{
    AccessLabel, AnswerId, Choice, ComparisonId, DocumentId, GenerationId, Message, Millis, PassageRef,
};

/// How tokens were drawn. Everything needed to draw them again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Sampling {
    /// Softmax temperature; 0 takes the likeliest token.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 keeps every token.
    pub top_p: f32,
    /// Divides the logits of tokens already in the answer (>= 1; 1 is off), as CTRL (arXiv:1909.05858, section 4.1).
    pub repetition_penalty: f32,
    /// Weight of the cost of going on with a sequence that the answer says a second time (DRY; >= 0; 0 is off).
    #[serde(default)]
    pub dry_multiplier: f32,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Seed of the answer's own random stream.
    pub seed: u64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

impl Sampling {
    /// Nothing but a softmax temperature: no nucleus, no penalties, no stop strings; the random stream of seed 0.
    #[must_use]
    pub fn at(temperature: f32, max_tokens: u32) -> Self {
        Self {
            temperature,
            top_p: 1.0,
            repetition_penalty: 1.0,
            dry_multiplier: 0.0,
            max_tokens,
            seed: 0,
            stop: Vec::new(),
        }
    }
}

/// Why the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop string came.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
    /// The client went away or asked to stop; what was generated so far is recorded.
    Cancelled,
    /// The deadline passed or the engine failed part-way.
    Error,
}

/// Tokens of prompt and answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenUsage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer, the end-of-turn token included.
    pub completion_tokens: u32,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// Waiting for a place.
    pub queue_ms: f64,
    /// Finding passages.
    pub retrieval_ms: f64,
    /// From admission to the first token.
    pub first_token_ms: Option<f64>,
    /// From the request to the last token.
    pub total_ms: f64,
}

/// How a citation came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CitedBy {
    /// The model wrote `[n]`.
    Model,
    /// The model did not name it; the answer's words overlap with the passage.
    Overlap,
}

/// A passage that supports the answer; always one that was retrieved for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Citation {
    /// The number it has in the answer and in the prompt, from 1.
    pub n: u32,
    /// The document.
    pub document_id: DocumentId,
    /// The passage's id.
    pub passage_id: String,
    /// Title of the document, with the headings above the passage.
    pub title: String,
    /// Where a person can read the document, if known.
    pub url: Option<String>,
    /// The passage's text.
    pub passage: String,
    /// Who chose it.
    pub by: CitedBy,
}

/// One answer with its full provenance; written once, before the answer's last event is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AnswerRecord {
    /// The answer.
    pub id: AnswerId,
    /// When the request came.
    pub created: Millis,
    /// Who asked.
    pub user: String,
    /// The conversation, the question last.
    pub messages: Vec<Message>,
    /// What was searched for: the last question, with the conversation in mind.
    pub search_query: String,
    /// The answer's text.
    pub answer: String,
    /// The generation that answered.
    pub generation: GenerationId,
    /// Hash of the prompt template and its settings.
    pub template_hash: String,
    /// Version of the index that was searched.
    pub index_version: String,
    /// The passages of the prompt, in its order.
    pub passages: Vec<PassageRef>,
    /// What the answer cites.
    pub citations: Vec<Citation>,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// Who may see what the answer is grounded in.
    pub access: AccessLabel,
    /// Whether any passage was given to the model.
    pub grounded: bool,
    /// Whether this is the plain "I don't know", made without the model.
    pub refused: bool,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: TokenUsage,
    /// Where the time went.
    pub timing: Timing,
    /// The comparison this answer is a side of, if any.
    pub comparison: Option<ComparisonId>,
}

/// A side of a comparison as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonSide {
    /// Shown on the left, or first.
    Left,
    /// Shown on the right, or second.
    Right,
}

/// Two answers to one prompt; which answer is on which side was drawn at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comparison {
    /// The comparison.
    pub id: ComparisonId,
    /// When it was made.
    pub created: Millis,
    /// For whom it was made.
    pub user: String,
    /// The conversation, the question last.
    pub messages: Vec<Message>,
    /// The answer on the left.
    pub left: AnswerId,
    /// The answer on the right.
    pub right: AnswerId,
    /// Who may see it.
    pub access: AccessLabel,
}

/// One person's choice in a comparison; changeable until a dataset snapshot used it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Vote {
    /// The comparison.
    pub comparison: ComparisonId,
    /// Who chose.
    pub user: String,
    /// What was chosen.
    pub choice: Choice,
    /// How much better, 1 to 3; only with a side chosen.
    pub strength: Option<u8>,
    /// Free text.
    pub comment: Option<String>,
    /// When it was first given.
    pub created: Millis,
    /// When it was last changed.
    pub updated: Millis,
}
