//! How do tokens become the text of an answer? Stop strings, citation marks, the deadline and a reader who leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::citations::MarkFilter;
use super::turn::{Reader, Retrieved, Turn};
use super::{AnswerEvent, Chat};
use crate::domain::{FinishReason, PassageRef, TokenUsage};
use crate::error::{Error, ErrorCode};
use crate::generation::{Event, GenerateRequest, GenerationError, Lease, StopFilter, Token};
use crate::prompt::{Prompt, references};

/// An answer that has ended but is not recorded.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) passages: Vec<PassageRef>,
    /// Numbers of passages the model cited.
    pub(super) cited: Vec<usize>,
    pub(super) invalid_marks: u64,
    pub(super) refused: bool,
    pub(super) finish_reason: FinishReason,
    pub(super) usage: TokenUsage,
    /// From the request's arrival.
    pub(super) first_token: Option<Duration>,
    /// What ended it early, to be told after it is recorded.
    pub(super) failure: Option<Error>,
}

/// The plain "I don't know", with the pages that came closest.
pub(super) fn refuse(text: String, reader: &Reader<AnswerEvent>, found: &Retrieved) -> Draft {
    reader.send(AnswerEvent::Delta { text: text.clone(), tokens: Vec::new() });
    Draft {
        text,
        passages: references(&found.passages),
        cited: Vec::new(),
        invalid_marks: 0,
        refused: true,
        finish_reason: FinishReason::Stop,
        usage: TokenUsage::default(),
        first_token: None,
        failure: None,
    }
}

/// The state of an answer in the making.
pub(super) struct Drafting<'a> {
    chat: &'a Arc<Chat>,
    turn: &'a Turn,
    request: GenerateRequest,
    stops: StopFilter,
    marks: MarkFilter,
    /// Tokens whose text has not been sent; kept only when probabilities were asked for.
    unsent: Vec<Token>,
    last_token: Instant,
    draft: Draft,
}

impl<'a> Drafting<'a> {
    pub(super) fn new(chat: &'a Arc<Chat>, turn: &'a Turn, prompt: Prompt) -> Self {
        let prompt_tokens = u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
        let top_logprobs = turn.question.top_logprobs.unwrap_or(0);
        let mut stops = turn.sampling.stop.clone();
        if !prompt.passages.is_empty() {
            stops.push(crate::prompt::repetition());
        }
        let marks = if turn.question.retrieve == Some(false) {
            MarkFilter::literal()
        } else {
            MarkFilter::new(prompt.passages.len())
        };
        Self {
            chat,
            turn,
            request: GenerateRequest {
                prompt: prompt.tokens,
                sampling: turn.sampling.clone(),
                top_logprobs,
                evidence: prompt.evidence,
            },
            stops: StopFilter::new(&stops),
            marks,
            unsent: Vec::new(),
            last_token: Instant::now(),
            draft: Draft {
                text: String::new(),
                passages: prompt.passages,
                cited: Vec::new(),
                invalid_marks: 0,
                refused: false,
                finish_reason: FinishReason::Error,
                usage: TokenUsage { prompt_tokens, completion_tokens: 0 },
                first_token: None,
                failure: None,
            },
        }
    }

    /// Generates until the end, the deadline, an error, or until nobody reads. What `delta` makes nothing of is not sent.
    pub(super) async fn run<E>(
        mut self,
        lease: &Lease,
        reader: &Reader<E>,
        delta: &(dyn Fn(String, Vec<Token>) -> Option<E> + Sync),
    ) -> Draft {
        let generation = lease.generator().id().to_string();
        let send = |text, tokens| delta(text, tokens).is_none_or(|event| reader.send(event));
        match lease.generator().generate(self.request.clone()).await {
            Err(error) => self.fail(error),
            Ok(mut stream) => {
                let deadline = tokio::time::Instant::from_std(self.turn.deadline);
                loop {
                    let event = tokio::select! {
                        event = stream.next() => event,
                        () = reader.gone() => break self.draft.finish_reason = FinishReason::Cancelled,
                        () = tokio::time::sleep_until(deadline) => break self.late(),
                    };
                    match event {
                        Some(Ok(Event::Token(token))) => {
                            if self.take(token, &generation, send) {
                                break self.draft.finish_reason = FinishReason::Stop;
                            }
                        }
                        Some(Ok(Event::End(reason))) => break self.draft.finish_reason = reason,
                        Some(Err(error)) => break self.fail(error),
                        None => break self.fail(GenerationError::Engine("the answer has no end".into())),
                    }
                }
            }
        }
        let rest = self.stops.finish();
        let mut rest = self.marks.push(&rest);
        rest.push_str(&self.marks.finish());
        self.show(rest, send);
        self.draft.cited = std::mem::take(&mut self.marks.cited);
        self.draft.invalid_marks = self.marks.invalid;
        self.draft
    }

    /// Takes one token; `true` when the answer ends before the model's turn does.
    fn take(&mut self, token: Token, generation: &str, send: impl Fn(String, Vec<Token>) -> bool) -> bool {
        self.draft.usage.completion_tokens += 1;
        let metrics = &self.chat.metrics;
        if self.draft.first_token.is_none() {
            metrics
                .first_token_seconds
                .with_label_values(&[generation])
                .observe(self.last_token.elapsed().as_secs_f64());
            self.draft.first_token = Some(self.turn.began.elapsed());
        } else {
            metrics
                .inter_token_seconds
                .with_label_values(&[generation])
                .observe(self.last_token.elapsed().as_secs_f64());
        }
        self.last_token = Instant::now();
        let released = self.stops.push(&token.text);
        if self.turn.question.top_logprobs.is_some() {
            self.unsent.push(token);
        }
        let text = self.marks.push(&released.text);
        self.show(text, send);
        released.stopped || self.marks.ended
    }

    fn show(&mut self, text: String, send: impl Fn(String, Vec<Token>) -> bool) {
        if text.is_empty() && self.unsent.is_empty() {
            return;
        }
        self.draft.text.push_str(&text);
        // Nobody reading is noticed in `run`.
        send(text, std::mem::take(&mut self.unsent));
    }

    fn late(&mut self) {
        let seconds = self.chat.config.admission.deadline_seconds;
        let problem = format!("the answer was not finished within {seconds} s");
        self.draft.failure = Some(Error::new(ErrorCode::DeadlineExceeded, problem));
    }

    fn fail(&mut self, error: GenerationError) {
        self.draft.failure = Some(error.into());
    }
}
