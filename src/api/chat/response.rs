//! How does an answer look on the wire? OpenAI's shapes, and Attune's part under one name.

use serde::Serialize;

use crate::api::wire::AnswerInfo;
use crate::chat::Started;
use crate::domain::{AnswerRecord, FinishReason, TokenUsage};
use crate::generation::Token;

use super::Finished;

/// The smallest log-probability sent, as OpenAI does; JSON has no infinity.
const MIN_LOGPROB: f32 = -9999.0;

/// A whole answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::api) struct ChatCompletion {
    /// The answer's id: feedback names it.
    id: String,
    /// Always `chat.completion`.
    object: &'static str,
    /// Seconds since the epoch.
    created: i64,
    /// The generation that answered.
    model: String,
    /// Hash of generation, prompt template and index version.
    system_fingerprint: String,
    /// The answers, as many as `n`.
    choices: Vec<CompletionChoice>,
    /// Token counts.
    usage: Usage,
}

/// One of the answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CompletionChoice {
    /// Its position.
    index: u8,
    /// The answer.
    message: CompletionMessage,
    /// Probabilities, when asked for.
    logprobs: Option<Logprobs>,
    /// `stop` or `length`.
    finish_reason: &'static str,
}

/// An answer's text.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CompletionMessage {
    /// Always `assistant`.
    role: &'static str,
    /// The text.
    content: String,
    /// Always null: an "I don't know" is content, marked in `attune.refused`.
    refusal: Option<String>,
    /// Citations and the rest.
    attune: AnswerInfo,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, Serialize, utoipa::ToSchema)]
pub(super) struct Usage {
    /// Tokens of the prompt, once for all answers.
    prompt_tokens: u32,
    /// Tokens of all answers.
    completion_tokens: u32,
    /// Both together.
    total_tokens: u32,
}

impl Usage {
    /// Adds one more answer to the same prompt.
    pub(super) fn add(&mut self, usage: TokenUsage) {
        self.prompt_tokens = self.prompt_tokens.max(usage.prompt_tokens);
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// Probabilities of an answer's tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Logprobs {
    /// One entry a token.
    content: Vec<TokenLogprob>,
    /// Always null.
    refusal: Option<Vec<TokenLogprob>>,
}

/// A token and how likely it was.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TokenLogprob {
    /// The token's text.
    token: String,
    /// Natural logarithm of its probability.
    logprob: f32,
    /// The text's UTF-8 bytes.
    bytes: Vec<u8>,
    /// The likeliest tokens at this position.
    top_logprobs: Vec<TopLogprob>,
}

/// A likely alternative.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TopLogprob {
    /// The token's text.
    token: String,
    /// Natural logarithm of its probability.
    logprob: f32,
    /// The text's UTF-8 bytes.
    bytes: Vec<u8>,
}

/// The probabilities of `tokens`; `None` when none were asked for.
pub(super) fn logprobs(tokens: &[Token]) -> Option<Logprobs> {
    let content = tokens.iter().map(|token| TokenLogprob {
        token: token.text.clone(),
        logprob: token.logprob.max(MIN_LOGPROB),
        bytes: token.text.as_bytes().to_vec(),
        top_logprobs: token
            .top
            .iter()
            .map(|other| TopLogprob {
                token: other.text.clone(),
                logprob: other.logprob.max(MIN_LOGPROB),
                bytes: other.text.as_bytes().to_vec(),
            })
            .collect(),
    });
    (!tokens.is_empty()).then(|| Logprobs { content: content.collect(), refusal: None })
}

/// OpenAI knows neither cancelled nor failed answers: what there is of them was cut short.
fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Cancelled | FinishReason::Error => "length",
    }
}

impl ChatCompletion {
    pub(super) fn new(started: &Started, finished: &[Finished]) -> Self {
        let mut usage = Usage::default();
        let mut choices = Vec::with_capacity(finished.len());
        for Finished { index, tokens, record } in finished {
            usage.add(record.usage);
            let message = CompletionMessage {
                role: "assistant",
                content: record.answer.clone(),
                refusal: None,
                attune: AnswerInfo::from(record),
            };
            choices.push(CompletionChoice {
                index: *index,
                message,
                logprobs: logprobs(tokens),
                finish_reason: finish_reason(record.finish_reason),
            });
        }
        Self {
            id: started.id.to_string(),
            object: "chat.completion",
            created: started.created.seconds(),
            model: started.generation.to_string(),
            system_fingerprint: started.system_fingerprint.clone(),
            choices,
            usage,
        }
    }
}

/// A part of a streamed answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::api) struct Chunk {
    /// The answer's id, the same in every chunk.
    id: String,
    /// Always `chat.completion.chunk`.
    object: &'static str,
    /// Seconds since the epoch.
    created: i64,
    /// The generation that answers.
    model: String,
    /// Hash of generation, prompt template and index version.
    system_fingerprint: String,
    /// One part of one answer; none in the chunk with the token counts.
    choices: Vec<ChunkChoice>,
    /// With `include_usage`: the token counts in the last chunk, null in the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    usage: Option<Option<Usage>>,
    /// Citations and the rest, on the chunk that ends an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    attune: Option<AnswerInfo>,
}

/// A part of one of the answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ChunkChoice {
    /// Which answer.
    index: u8,
    /// What to append.
    delta: Delta,
    /// Probabilities of this part's tokens, when asked for.
    logprobs: Option<Logprobs>,
    /// `stop` or `length` in an answer's last chunk.
    finish_reason: Option<&'static str>,
}

/// What to append to an answer.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Delta {
    /// `assistant`, in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Makes the chunks of one response.
pub(super) struct Chunks {
    /// The first answer's start: its id and time are every chunk's.
    pub(super) started: Started,
    /// Whether chunks speak of token counts.
    pub(super) includes_usage: bool,
}

impl Chunks {
    /// The first chunk of an answer.
    pub(super) fn role(&self, index: u8) -> Chunk {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        self.chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }])
    }

    /// More text of an answer.
    pub(super) fn text(&self, index: u8, text: String, tokens: &[Token]) -> Chunk {
        let delta = Delta { role: None, content: Some(text) };
        self.chunk(vec![ChunkChoice { index, delta, logprobs: logprobs(tokens), finish_reason: None }])
    }

    /// The last chunk of an answer.
    pub(super) fn end(&self, index: u8, record: &AnswerRecord) -> Chunk {
        let finish_reason = Some(finish_reason(record.finish_reason));
        let choice = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
        Chunk { attune: Some(AnswerInfo::from(record)), ..self.chunk(vec![choice]) }
    }

    /// The chunk with the token counts.
    pub(super) fn usage(&self, usage: Usage) -> Chunk {
        Chunk { usage: Some(Some(usage)), ..self.chunk(Vec::new()) }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> Chunk {
        Chunk {
            id: self.started.id.to_string(),
            object: "chat.completion.chunk",
            created: self.started.created.seconds(),
            model: self.started.generation.to_string(),
            system_fingerprint: self.started.system_fingerprint.clone(),
            choices,
            usage: self.includes_usage.then_some(None),
            attune: None,
        }
    }
}
