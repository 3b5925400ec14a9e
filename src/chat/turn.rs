//! What is known about one question on its way to an answer?

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::citations::Answered;
use super::drafting::Draft;
use super::{Chat, Question, Started, citations, quoted};
use crate::admission::{Permit, Ticket};
use crate::domain::{
    AccessLabel, AnswerId, AnswerRecord, Author, ComparisonId, FinishReason, Identity, Millis, Passage,
    Sampling, Timing, now,
};
use crate::error::{Error, ErrorCode};
use crate::generation::Lease;
use crate::prompt::{Prompt, PromptParts, references};
use crate::retrieval::{SearchQuery, contextual_query};

/// One question, checked, with everything that does not depend on what is found.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) id: AnswerId,
    pub(super) who: Identity,
    pub(super) question: Question,
    pub(super) sampling: Sampling,
    pub(super) comparison: Option<ComparisonId>,
    search_query: String,
    created: Millis,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
}

/// What retrieval brought.
#[derive(Debug, Clone)]
pub(super) struct Retrieved {
    pub(super) passages: Vec<Passage>,
    pub(super) evidence: f32,
    pub(super) index_version: String,
    /// Who may see what the conversation quotes of earlier answers.
    quoted: AccessLabel,
    /// From the request's arrival to here.
    queued: Duration,
    took: Duration,
}

impl Turn {
    /// Checks the question and fills in what it leaves to the configuration.
    pub(super) fn begin(chat: &Chat, who: &Identity, question: Question) -> Result<Self, Error> {
        let sampling = sampling(chat, &question)?;
        if question.messages.last().is_none_or(|m| m.role != Author::User || m.content.trim().is_empty()) {
            return Err(Error::invalid("messages", "the last message must be by the user and not empty"));
        }
        check(question.k.is_none_or(|k| (1..=50).contains(&k)), "attune.k", "must be 1 to 50")?;
        let who = question.groups.as_ref().map_or_else(|| who.clone(), |groups| who.narrowed(groups));
        let began = Instant::now();
        Ok(Self {
            id: AnswerId::generate(),
            who,
            sampling,
            comparison: None,
            search_query: contextual_query(&question.messages),
            question,
            created: now(),
            began,
            deadline: began + Duration::from_secs(chat.config.admission.deadline_seconds),
        })
    }

    /// The same question once more: another answer with another seed.
    pub(super) fn again(&self, comparison: &ComparisonId, temperature: f32, seed: u64) -> Self {
        let sampling = Sampling { temperature, seed, ..self.sampling.clone() };
        Self { id: AnswerId::generate(), sampling, comparison: Some(comparison.clone()), ..self.clone() }
    }

    /// The same question once more, to choose from: drawn as for a comparison, from a stream of its own.
    pub(super) fn other(&self, chat: &Chat, nth: u64) -> Self {
        let temperature = self.sampling.temperature.max(chat.config.generation.comparison_temperature);
        let seed = self.sampling.seed.wrapping_add(nth);
        Self { sampling: Sampling { temperature, seed, ..self.sampling.clone() }, ..self.clone() }
    }

    /// Whether another answer than the first may be shown: not when the caller asks for one drawn in a certain way.
    pub(super) fn may_choose(&self) -> bool {
        let Question { temperature, seed, top_logprobs, .. } = &self.question;
        temperature.is_none() && seed.is_none() && top_logprobs.is_none()
    }

    /// What the reader is told first.
    pub(super) fn started(&self, chat: &Chat, lease: &Lease, found: &Retrieved) -> Started {
        let generation = lease.generator().id().clone();
        let parts = [generation.as_str(), chat.prompts.template_hash(), &found.index_version].join(" ");
        let system_fingerprint = format!("fp_{}", hex::encode(&Sha256::digest(parts.as_bytes())[..6]));
        Started { id: self.id.clone(), created: self.created, generation, system_fingerprint }
    }

    /// Builds the prompt.
    pub(super) fn prompt(&self, chat: &Chat, lease: &Lease, found: &Retrieved) -> Result<Prompt, Error> {
        let parts = PromptParts {
            messages: &self.question.messages,
            passages: &references(&found.passages),
            answer_tokens: self.sampling.max_tokens as usize,
        };
        chat.prompts.build(lease.generator().as_ref(), parts)
    }

    /// The record of an answer, and the failure that ended it, if one did.
    pub(super) fn record(
        &self,
        chat: &Chat,
        (lease, found): (&Lease, &Retrieved),
        draft: Draft,
    ) -> (AnswerRecord, Option<Error>) {
        let threshold = chat.config.generation.citation_overlap;
        let grounded = !draft.passages.is_empty() && !draft.refused;
        let citations = if grounded {
            let (answer, question, passages) = (&*draft.text, &*self.search_query, &*draft.passages);
            citations::resolve(Answered { answer, question, passages }, &draft.cited, threshold)
        } else {
            Vec::new()
        };
        let used = found
            .passages
            .iter()
            .filter(|p| draft.passages.iter().any(|used| used.passage_id == p.passage_id));
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let record = AnswerRecord {
            id: self.id.clone(),
            created: self.created,
            user: self.who.user.clone(),
            messages: self.question.messages.clone(),
            search_query: self.search_query.clone(),
            answer: draft.text,
            generation: lease.generator().id().clone(),
            template_hash: chat.prompts.template_hash().to_owned(),
            index_version: found.index_version.clone(),
            access: AccessLabel::of(used.map(|passage| &passage.groups).chain(found.quoted.clauses())),
            passages: draft.passages,
            citations,
            sampling: self.sampling.clone(),
            grounded,
            refused: draft.refused,
            finish_reason: draft.finish_reason,
            usage: draft.usage,
            timing: Timing {
                queue_ms: milliseconds(found.queued),
                retrieval_ms: milliseconds(found.took),
                first_token_ms: draft.first_token.map(milliseconds),
                total_ms: milliseconds(self.began.elapsed()),
            },
            comparison: self.comparison.clone(),
        };
        observe(chat, &record, draft.invalid_marks);
        (record, draft.failure)
    }
}

fn observe(chat: &Chat, record: &AnswerRecord, invalid_marks: u64) {
    let metrics = &chat.metrics;
    let outcome = match record.finish_reason {
        _ if record.refused => "refused",
        FinishReason::Stop | FinishReason::Length => "answered",
        FinishReason::Cancelled => "cancelled",
        FinishReason::Error => "failed",
    };
    metrics.answers.with_label_values(&[outcome]).inc();
    metrics.answer_seconds.observe(record.timing.total_ms / 1e3);
    metrics.tokens.with_label_values(&["prompt"]).inc_by(record.usage.prompt_tokens.into());
    metrics.tokens.with_label_values(&["completion"]).inc_by(record.usage.completion_tokens.into());
    metrics.citations_invalid.inc_by(invalid_marks);
    for citation in &record.citations {
        let by = match citation.by {
            crate::domain::CitedBy::Model => "model",
            crate::domain::CitedBy::Overlap => "overlap",
        };
        metrics.citations.with_label_values(&[by]).inc();
    }
}

/// Waits for a place, as long as somebody waits for the answer.
pub(super) async fn place<E>(ticket: Ticket, reader: &Reader<E>) -> Result<Permit, Error> {
    tokio::select! {
        place = ticket.wait() => place,
        () = reader.gone() => Err(Error::new(ErrorCode::Conflict, "the reader went away before its turn")),
    }
}

/// Finds passages the asker may see; none when the caller wants an ungrounded answer.
pub(super) async fn retrieve(chat: &Arc<Chat>, turn: &Turn) -> Result<Retrieved, Error> {
    let queued = turn.began.elapsed();
    let quoted = quoted::access(chat.ledger.as_ref(), &turn.who.user, &turn.question.messages).await?;
    let began = Instant::now();
    let k = match turn.question.retrieve {
        Some(false) => 0,
        _ => turn.question.k.unwrap_or(chat.config.retrieval.k),
    };
    if k == 0 {
        let index_version = chat.library.index_version();
        return Ok(Retrieved {
            passages: vec![],
            evidence: 0.0,
            index_version,
            quoted,
            queued,
            took: Duration::ZERO,
        });
    }
    let (library, who, text) = (Arc::clone(&chat.library), turn.who.clone(), turn.search_query.clone());
    let searching = tokio::task::spawn_blocking(move || {
        library.ground(&SearchQuery { text: &text, groups: who.visible_groups(), k })
    });
    let found = searching.await.map_err(Error::internal)??;
    let took = began.elapsed();
    chat.metrics.search_seconds.observe(took.as_secs_f64());
    let outcome = if found.passages.is_empty() { "nothing" } else { "found" };
    chat.metrics.searches.with_label_values(&[outcome]).inc();
    let (passages, evidence, index_version) = (found.passages, found.evidence, found.index_version);
    Ok(Retrieved { passages, evidence, index_version, quoted, queued, took })
}

fn sampling(chat: &Chat, question: &Question) -> Result<Sampling, Error> {
    let config = &chat.config.generation;
    let temperature = question.temperature.unwrap_or(config.temperature);
    check((0.0..=2.0).contains(&temperature), "temperature", "must be 0 to 2")?;
    let top_p = question.top_p.unwrap_or(config.top_p);
    check(top_p > 0.0 && top_p <= 1.0, "top_p", "must be above 0 and at most 1")?;
    let max_tokens = question.max_tokens.unwrap_or(config.max_tokens);
    check(
        (1..=config.max_tokens_limit).contains(&max_tokens),
        "max_tokens",
        &format!("must be 1 to {}", config.max_tokens_limit),
    )?;
    check(question.stop.len() <= 4, "stop", "at most 4 stop strings")?;
    check(question.top_logprobs.is_none_or(|n| n <= 20), "top_logprobs", "must be 0 to 20")?;
    Ok(Sampling {
        temperature,
        top_p,
        repetition_penalty: config.repetition_penalty,
        dry_multiplier: config.dry_multiplier,
        max_tokens,
        // 32 bits, so that every JSON reader can say it back exactly.
        seed: question.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        stop: question.stop.clone(),
    })
}

fn check(ok: bool, field: &str, rule: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::invalid(field, format!("{field}: {rule}"))) }
}

/// Where an answer in the making is sent.
#[derive(Debug, Clone)]
pub(super) struct Reader<E>(mpsc::UnboundedSender<Result<E, Error>>);

impl<E> Reader<E> {
    /// Sends an event; `false` when nobody reads anymore.
    pub(super) fn send(&self, event: E) -> bool {
        self.0.send(Ok(event)).is_ok()
    }

    /// Returns when nobody reads anymore.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// Runs `work` in a task the shutdown waits for, and streams what it sends; what it returns comes last.
pub(super) fn in_background<E, W, F>(
    chat: &Chat,
    work: W,
) -> futures::stream::BoxStream<'static, Result<E, Error>>
where
    E: Send + 'static,
    W: FnOnce(Reader<E>) -> F,
    F: Future<Output = Result<E, Error>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let last = sender.clone();
    let working = work(Reader(sender));
    let answering = async move {
        // Nobody may read anymore; the work is done all the same.
        drop(last.send(working.await));
    };
    let task = chat.tasks.spawn_on(answering, &chat.runtime);
    async_stream::stream! {
        while let Some(event) = receiver.recv().await {
            yield event;
        }
        if let Err(panic) = task.await {
            yield Err(Error::internal(panic));
        }
    }
    .boxed()
}
