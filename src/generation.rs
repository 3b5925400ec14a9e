//! Where do tokens come from? The model that is served, one generation at a time, and how it is swapped.

mod detokenizer;
mod mistralrs;
mod repetition;
pub(crate) mod sampler;
mod scripted;
mod slot;
mod stops;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::config::GenerationConfig;
use crate::domain::{FinishReason, GenerationId, Sampling};
use crate::error::{Error, ErrorCode};
use crate::models::{BaseModel, Codec};

pub use mistralrs::MistralGenerator;
pub use sampler::LogitBias;
pub use scripted::ScriptedGenerator;
pub use slot::{Lease, Prepared, Slot};
pub use stops::{Released, StopFilter};

/// When a caller may try again while the model loads: loading the default model takes 1 to 2 seconds.
pub(crate) const LOADING_RETRY: Duration = Duration::from_secs(2);

/// Why a model could not be loaded or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The weights or the tokenizer can not be read.
    #[error("{path}: {problem}")]
    Weights {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The prompt does not fit the model's context.
    #[error("the prompt has {tokens} tokens, the model's context is {limit}")]
    PromptTooLong {
        /// Tokens of the rendered prompt.
        tokens: usize,
        /// Tokens of the context.
        limit: usize,
    },
    /// The chat template can not be rendered with these messages.
    #[error("chat template")]
    Template(#[from] minijinja::Error),
    /// The model's own chat template is not valid.
    #[error(transparent)]
    Model(#[from] crate::models::ModelsError),
    /// The engine failed; the text is its own.
    #[error("engine: {0}")]
    Engine(String),
    /// A probe answer after loading was empty or not finite: the weights are damaged.
    #[error("generation {generation} answered the probe with {problem}")]
    Probe {
        /// The generation that was probed.
        generation: GenerationId,
        /// What came instead of an answer.
        problem: String,
    },
}

impl From<GenerationError> for Error {
    fn from(error: GenerationError) -> Self {
        match &error {
            GenerationError::PromptTooLong { .. } => Self::invalid("messages", error.to_string()),
            GenerationError::Template(_) => {
                Self::new(ErrorCode::InvalidRequest, "these messages do not fit the model's chat template")
                    .caused_by(error)
            }
            _ => Self::internal(error),
        }
    }
}

/// The id of the base model's generation: a hash of the weights, the chat template, the sampling defaults (the
/// costs of repetitions among them) and the bias towards the passages.
#[must_use]
pub fn base_id(model: &BaseModel, config: &GenerationConfig) -> GenerationId {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(b"attune base generation 1\0");
    hash.update(model.serving_sha256);
    hash.update(Sha256::digest(model.chat_template.as_bytes()));
    hash.update(config.max_tokens.to_le_bytes());
    for default in [config.temperature, config.top_p, config.repetition_penalty] {
        hash.update(default.to_le_bytes());
    }
    // Without them the id is that of the versions that had none.
    if config.copy_bias != 0.0 {
        hash.update(config.copy_bias.to_le_bytes());
    }
    if config.dry_multiplier != 0.0 {
        hash.update(b"dry");
        hash.update(config.dry_multiplier.to_le_bytes());
    }
    GenerationId::from_digest(&hash.finalize().into())
}

/// A likely alternative at one position.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The token's text.
    pub text: String,
    /// Natural logarithm of its probability under the model, before temperature and nucleus.
    pub logprob: f32,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Id in the model's vocabulary.
    pub id: u32,
    /// The text it adds; empty while a character is incomplete and for the end-of-turn token.
    pub text: String,
    /// Natural logarithm of its probability under the model, before temperature, penalty and nucleus (nats).
    pub logprob: f32,
    /// The likeliest tokens at this position, when asked for, likeliest first.
    pub top: Vec<Candidate>,
}

/// What a generator sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next token.
    Token(Token),
    /// The end; nothing follows.
    End(FinishReason),
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// The rendered prompt, tokenised.
    pub prompt: Arc<[u32]>,
    /// How tokens are drawn. `stop` is not looked at here: see [`StopFilter`].
    pub sampling: Sampling,
    /// How many alternatives to report per position, 0 to 20.
    pub top_logprobs: u8,
    /// The tokens of the passages in the prompt, which a generation may make likelier ([`LogitBias`]); in any order.
    pub evidence: Arc<[u32]>,
}

/// Tokens of one generation. Dropping the stream stops the work at the next token.
pub type TokenStream = BoxStream<'static, Result<Event, GenerationError>>;

/// A loaded generation. Calls may be made from any number of tasks; each stream is independent of the others, and
/// equal requests give equal streams (up to the numerical differences of batching).
#[async_trait]
pub trait Generator: Codec {
    /// Which generation this is.
    fn id(&self) -> &GenerationId;
    /// Starts generating.
    ///
    /// # Errors
    /// When the prompt does not fit the context or the engine is gone. Later failures come in the stream.
    async fn generate(&self, request: GenerateRequest) -> Result<TokenStream, GenerationError>;
    /// Natural logarithms of the probabilities (nats) of `completion`'s tokens after `prompt`, one each; fewer when the
    /// completion goes on after the end of a turn.
    ///
    /// # Errors
    /// When both do not fit the context together or the engine fails.
    async fn score(&self, prompt: &[u32], completion: &[u32]) -> Result<Vec<f32>, GenerationError>;
}
