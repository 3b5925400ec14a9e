//! Which shapes do several calls share? Messages, citations, sources, lists.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::{AnswerRecord, Author, Citation, DocumentId, GenerationId, Groups, Message};
use crate::error::Error;
use crate::ledger::Paging;

/// Rows of a list unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Most rows of a list.
const MAX_LIMIT: usize = 1000;

/// One page of a list, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct List<T> {
    /// The rows; those the asker may not see are left out, so there may be fewer than `limit`.
    pub(super) data: Vec<T>,
    /// Pass as `before` to get the next page; `null` at the end.
    pub(super) next: Option<String>,
}

/// Which page of a list: as `before` and `limit` of the query.
pub(super) fn paging(before: Option<String>, limit: Option<usize>) -> Result<Paging, Error> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Error::invalid("limit", format!("limit must be 1 to {MAX_LIMIT}")));
    }
    Ok(Paging { before, limit })
}

/// Which page of a list is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Only rows older than the one with this cursor (`next` of the page before).
    pub(super) before: Option<String>,
    /// Most rows, 1 to 1000. Default 50.
    pub(super) limit: Option<usize>,
}

/// One message of a conversation.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct WireMessage {
    /// Who wrote it.
    role: WireRole,
    /// The text, or parts of type `text`.
    #[schema(value_type = ContentSchema)]
    content: Content,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    /// Instructions of the caller.
    System,
    /// Instructions of the caller, as newer clients call them.
    Developer,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

/// A text, or a list of its parts.
#[derive(utoipa::ToSchema)]
#[schema(as = MessageContent)]
#[expect(dead_code, reason = "describes `Content`, whose own parser names the part at fault, to OpenAPI")]
#[serde(untagged)]
pub(super) enum ContentSchema {
    /// The text.
    Text(String),
    /// Its parts.
    Parts(Vec<TextPart>),
}

/// A part of a text.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct TextPart {
    /// Always `text`.
    #[serde(rename = "type")]
    _kind: TextKind,
    /// The text.
    text: String,
}

/// The kinds of parts this server reads.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum TextKind {
    /// Text.
    Text,
}

/// A text, parsed by hand so that an error names the part at fault.
#[derive(Debug, Clone)]
struct Content(String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = String;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of parts of type text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<String, A::Error> {
                let mut text = String::new();
                while let Some(part) = parts.next_element::<TextPart>()? {
                    text.push_str(&part.text);
                }
                Ok(text)
            }
        }
        deserializer.deserialize_any(Parts).map(Self)
    }
}

impl From<WireMessage> for Message {
    fn from(message: WireMessage) -> Self {
        let role = match message.role {
            WireRole::System | WireRole::Developer => Author::System,
            WireRole::User => Author::User,
            WireRole::Assistant => Author::Assistant,
        };
        Self { role, content: message.content.0 }
    }
}

/// A conversation that ends in a question.
pub(super) fn conversation(messages: Vec<WireMessage>) -> Result<Vec<Message>, Error> {
    let messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
    match messages.last() {
        None => Err(Error::invalid("messages", "messages is empty; it needs at least a question")),
        Some(last) if last.role != Author::User => {
            Err(Error::invalid("messages", "the last message must be the question, with the role user"))
        }
        Some(last) if last.content.trim().is_empty() => {
            Err(Error::invalid("messages", "the last message, the question, is empty"))
        }
        Some(_) => Ok(messages),
    }
}

/// Attune's own part of a question.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Extension {
    /// Search as a member of these groups only; can only narrow the asker's own.
    pub(super) groups: Option<Groups>,
    /// Whether to look for passages. Default true.
    pub(super) retrieve: Option<bool>,
    /// Most passages, 1 to 50.
    #[schema(minimum = 1, maximum = 50)]
    pub(super) k: Option<usize>,
    /// Answer with this generation.
    pub(super) generation: Option<GenerationId>,
}

/// A passage that was given to the model.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Source {
    /// The number it has in the prompt, from 1.
    n: usize,
    /// The document.
    document_id: DocumentId,
    /// The passage; `GET /v1/passages/{id}` opens it.
    passage_id: String,
    /// Title of the document, with the headings above the passage.
    title: String,
    /// Where a person can read the document, if known.
    url: Option<String>,
    /// The passage's text.
    passage: String,
    /// Relevance; comparable within one answer only.
    score: f32,
}

/// The passages that were given to the model, in the prompt's order.
pub(super) fn sources(record: &AnswerRecord) -> Vec<Source> {
    let numbered = record.passages.iter().zip(1..);
    numbered
        .map(|(passage, n)| Source {
            n,
            document_id: passage.document_id.clone(),
            passage_id: passage.passage_id.clone(),
            title: passage.title.clone(),
            url: passage.url.clone(),
            passage: passage.text.clone(),
            score: passage.score,
        })
        .collect()
}

/// What Attune knows about an answer beyond OpenAI's schema.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AnswerInfo {
    /// The answer: feedback names it.
    answer_id: String,
    /// What the answer cites; each was retrieved for it.
    citations: Vec<Citation>,
    /// Every passage that was given to the model.
    sources: Vec<Source>,
    /// The generation that answered.
    generation: GenerationId,
    /// Whether any passage was given to the model.
    grounded: bool,
    /// Whether this is the plain "I don't know".
    refused: bool,
    /// Milliseconds that finding passages took.
    retrieval_ms: f64,
}

impl From<&AnswerRecord> for AnswerInfo {
    fn from(record: &AnswerRecord) -> Self {
        Self {
            answer_id: record.id.to_string(),
            citations: record.citations.clone(),
            sources: sources(record),
            generation: record.generation.clone(),
            grounded: record.grounded,
            refused: record.refused,
            retrieval_ms: record.timing.retrieval_ms,
        }
    }
}
