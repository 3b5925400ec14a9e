//! How is one question answered? admit → retrieve → prompt → generate → record.

mod citations;
mod choosing;
mod comparison;
mod drafting;
mod quoted;
mod refusal;
mod turn;
mod words;

use std::sync::Arc;

use futures::stream::BoxStream;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::config::Config;
use crate::domain::{
    AnswerId, AnswerRecord, Comparison, ComparisonId, ComparisonSide, GenerationId, Groups, Identity,
    Message, Millis,
};
use crate::error::Error;
use crate::generation::{Lease, Slot, Token};
use crate::ledger::Ledger;
use crate::live::Watch;
use crate::prompt::PromptBuilder;
use crate::retrieval::Library;
use crate::scoring::Scorer;
use crate::telemetry::Metrics;

pub use citations::{Answered, Shown, shown, supporting};
pub use comparison::compare;
use drafting::Drafting;
pub(crate) use words::COMMON;

/// What answering needs.
#[derive(Debug)]
pub struct Chat {
    /// The validated configuration.
    pub config: Arc<Config>,
    /// Where answers are recorded.
    pub ledger: Arc<dyn Ledger>,
    /// Where passages are found.
    pub library: Arc<Library>,
    /// The served generation.
    pub slot: Arc<Slot>,
    /// Says which answers people would like.
    pub scorer: Arc<Scorer>,
    /// Which generation answers whom while one is watched.
    pub watch: Arc<Watch>,
    /// The door.
    pub admission: Arc<Admission>,
    /// Builds prompts.
    pub prompts: PromptBuilder,
    /// Metrics.
    pub metrics: Metrics,
    /// Answers in the making: a shutdown waits for them, also when their readers have gone.
    pub tasks: TaskTracker,
    /// Where they run: not on the HTTP workers' threads, which end before the answers do.
    pub runtime: tokio::runtime::Handle,
}

impl Chat {
    /// The generations that can answer, the active one first.
    #[must_use]
    pub fn generations(&self) -> Vec<GenerationId> {
        self.slot.generations()
    }

    /// The generation that answers a person: the one they name, or the active one, or the one before while the active
    /// one is watched.
    fn lease(&self, user: &str, wanted: Option<&GenerationId>) -> Result<Lease, Error> {
        let instead = if wanted.is_none() { self.watch.instead(user) } else { None };
        // It may have gone a moment ago.
        let other = instead.and_then(|id| self.slot.lease(Some(&id)).ok());
        other.map_or_else(|| self.slot.lease(wanted), Ok)
    }
}

/// Answers one question.
///
/// The answer is made in a task of its own, so that it is recorded (as cancelled) also when the reader goes away.
///
/// # Errors
/// At once, when a field is out of range (the field is named), the person has too many questions open, the queue is
/// full, the model is loading, or the named generation is not loaded. In the stream, when no place came free in time,
/// the deadline passed, the engine failed or the answer could not be recorded.
pub async fn answer(chat: &Arc<Chat>, who: &Identity, question: Question) -> Result<AnswerStream, Error> {
    let turn = turn::Turn::begin(chat, who, question)?;
    let ticket = chat.admission.enter(&who.user)?;
    let lease = chat.lease(&who.user, turn.question.generation.as_ref())?;
    let answering = Arc::clone(chat);
    Ok(turn::in_background(chat, move |reader| async move {
        let _permit = turn::place(ticket, &reader).await?;
        let found = turn::retrieve(&answering, &turn).await?;
        reader.send(AnswerEvent::Started(turn.started(&answering, &lease, &found)));
        let draft = match refusal::refusal(&answering, &turn, &found) {
            Some(text) => drafting::refuse(text, &reader, &found),
            None if answering.config.generation.best_of > 1 && turn.may_choose() => {
                choosing::best(&answering, &turn, (&lease, &found), &reader).await?
            }
            None => {
                let prompt = turn.prompt(&answering, &lease, &found)?;
                let delta = |text, tokens| Some(AnswerEvent::Delta { text, tokens });
                Drafting::new(&answering, &turn, prompt).run(&lease, &reader, &delta).await
            }
        };
        let (record, failure) = turn.record(&answering, (&lease, &found), draft);
        answering.ledger.record_answer(&record).await?;
        failure.map_or(Ok(AnswerEvent::Finished(Box::new(record))), Err)
    }))
}

/// A question as the caller puts it; what is `None` comes from the configuration.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The conversation, the question last (author `user`).
    pub messages: Vec<Message>,
    /// Softmax temperature, 0 to 2.
    pub temperature: Option<f32>,
    /// Nucleus mass in (0, 1].
    pub top_p: Option<f32>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Seed; without one a random one is drawn and recorded.
    pub seed: Option<u64>,
    /// Texts that end the answer, at most 4.
    pub stop: Vec<String>,
    /// How many likely alternatives to report per token, 0 to 20; `None` reports no probabilities.
    pub top_logprobs: Option<u8>,
    /// Whether to look for passages; `None` is yes. Without passages nothing is refused or cited.
    pub retrieve: Option<bool>,
    /// Most passages, 1 to 50.
    pub k: Option<usize>,
    /// Search as a member of these groups only; can only narrow the asker's own.
    pub groups: Option<Groups>,
    /// Answer with this generation; it must be loaded.
    pub generation: Option<GenerationId>,
}

/// What a caller sees of an answer as it is made.
#[derive(Debug, Clone)]
pub enum AnswerEvent {
    /// Comes first.
    Started(Started),
    /// Text to append; never empty, except when only `token` matters.
    Delta {
        /// The text.
        text: String,
        /// The tokens it is made of, when probabilities were asked for.
        tokens: Vec<Token>,
    },
    /// Comes last, after the answer is durable in the ledger. The record's `answer` is authoritative: invalid citation
    /// marks are gone from it.
    Finished(Box<AnswerRecord>),
}

/// What is known when an answer begins.
#[derive(Debug, Clone)]
pub struct Started {
    /// The answer's id: feedback names it.
    pub id: AnswerId,
    /// When the question came.
    pub created: Millis,
    /// The generation that answers.
    pub generation: GenerationId,
    /// Hash of generation, prompt template and index version.
    pub system_fingerprint: String,
}

/// An answer in the making. An error ends it; dropping it stops the work at the next token (what was generated until
/// then is recorded as cancelled).
pub type AnswerStream = BoxStream<'static, Result<AnswerEvent, Error>>;

/// What a caller sees of a comparison as it is made.
#[derive(Debug, Clone)]
pub enum ComparisonEvent {
    /// Comes first: the comparison's id and the sides' answer ids.
    Started {
        /// The comparison.
        id: ComparisonId,
        /// The answer shown left.
        left: AnswerId,
        /// The answer shown right.
        right: AnswerId,
    },
    /// Text to append to one side.
    Delta {
        /// Which side.
        side: ComparisonSide,
        /// The text.
        text: String,
    },
    /// Both texts were the same, so one side begins again: what it showed is to be forgotten.
    Restarted {
        /// Which side.
        side: ComparisonSide,
    },
    /// Comes last, after everything is durable in the ledger: the comparison, the left and the right answer.
    Finished(Box<(Comparison, AnswerRecord, AnswerRecord)>),
}

/// A comparison in the making; see [`AnswerStream`].
pub type ComparisonStream = BoxStream<'static, Result<ComparisonEvent, Error>>;
