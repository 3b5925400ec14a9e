//! What does a run learn from and what is it examined on, as tokens?

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::judging::{Rewarding, optimises};
use super::{ImproveError, Work, Workshop, write_whole};
use crate::chat::{self, Answered, Shown};
use crate::config::Config;
use crate::dataset::snapshot::{self, Example, Snapshot, Split};
use crate::domain::{AccessLabel, Message, PassageRef, Stage};
use crate::error::{ErrorCode, chain};
use crate::nn::Decoder;
use crate::prompt::{Demonstrated, Prompt, PromptParts};
use crate::retrieval::contextual_query;
use crate::sft;

/// Most questions of an examination: enough for an interval of about ±0.04 on a share, a few minutes to answer on two
/// processors.
const MOST_QUESTIONS: usize = 200;
/// Most questions people asked that are practised on: a run takes a few hundred, and the newest say most.
const MOST_ASKED: usize = 500;
/// Questions with a human answer that are enough to tell a loss: with a deviation of token F1 of 0.3 a question (measured, as
/// of ROUGE-L) their mean is known to 0.03, and the gate holds at a loss of 0.06 whatever chance says.
const ENOUGH_QUESTIONS: usize = 100;
/// Further questions of a comparison: with the held-out ones enough to tell 0.6 from 0.5. Asked questions are kept from
/// practice until there are so many: without them no comparison is sure, while demonstrations can be practised on too.
const MOST_FURTHER: usize = 100;

/// A question to be examined on.
#[derive(Debug, Clone)]
pub struct Question {
    /// The row it comes from.
    pub example: Example,
    /// Prompt and human answer, tokenised as the row was learnt from.
    pub tokens: sft::Example,
    /// The passages in the prompt, in the order of their numbers.
    pub passages: Vec<PassageRef>,
    /// Their tokens.
    pub evidence: Arc<[u32]>,
}

impl Question {
    /// What the chat would show of an answer to it.
    #[must_use]
    pub fn shown(&self, answer: &str, config: &Config) -> Shown {
        let question = &contextual_query(&self.example.messages);
        let answered = Answered { answer, question, passages: &self.passages };
        chat::shown(answered, config.generation.citation_overlap)
    }

    /// What the chat would show of a model's tokens; `ended` when the last of them ends the turn.
    #[must_use]
    pub fn answered(&self, workshop: &Workshop, (tokens, ended): (&[u32], bool)) -> Shown {
        self.shown(&workshop.said(tokens, ended), &workshop.config)
    }

    /// Texts of the passages in the prompt, in the order of their numbers.
    #[must_use]
    pub fn passage_texts(&self) -> Vec<String> {
        self.passages.iter().map(|passage| passage.text.clone()).collect()
    }

    /// The documents that are right to cite: those the row names, else those of the prompt's passages that support the
    /// human answer; empty when neither is known.
    #[must_use]
    pub fn right_pages(&self, config: &Config) -> Vec<String> {
        if !self.example.pages.is_empty() {
            return self.example.pages.clone();
        }
        let human = self.shown(&self.example.response, config);
        human.citations.into_iter().map(|citation| citation.document_id.to_string()).collect()
    }
}

/// A run's material.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) snapshot: Snapshot,
    pub(super) train: Vec<sft::Example>,
    pub(super) validation: Vec<sft::Example>,
    /// Questions with a human answer: first those that nothing was chosen by, then, where they are fewer than
    /// [`ENOUGH_QUESTIONS`], some whose loss chose among the fine-tuned model's passes. Optimised policies are compared on all, for
    /// the optimisation has seen none of them.
    pub(super) questions: Vec<Question>,
    /// How many of the questions nothing was chosen by: the first ones.
    pub(super) held_out: usize,
    /// Questions that people asked, and the other ones that chose among passes, on which a reward model says which policy
    /// answers better.
    pub(super) further: Vec<Question>,
    /// What the policy practises on: the questions it was fine-tuned on, and those people asked.
    pub(super) practice: Vec<Question>,
    pub(super) decoder: Decoder,
}

impl Work<'_> {
    /// Builds every row's prompt with the function that serves chat, and loads the model.
    pub(super) async fn material(&self, snapshot: Snapshot) -> Result<Arc<Material>, ImproveError> {
        let workshop = self.workshop.clone();
        let asked = self.asked(&snapshot).await?;
        let from_choices = self.policy.learns_from_choices();
        let material = tokio::task::spawn_blocking(move || {
            let held_out = snapshot.side(Split::HeldOut).take(MOST_QUESTIONS);
            let mut questions = questions(&workshop, held_out)?;
            let held_out = questions.len();
            let mut practice = self::questions(&workshop, snapshot.side(Split::Train))?;
            let mut further = self::questions(&workshop, snapshot.side(Split::Validation))?;
            let tokens = |questions: &[Question]| -> Vec<sft::Example> {
                questions.iter().map(|question| question.tokens.clone()).collect()
            };
            let (train, validation) = (tokens(&practice), tokens(&further));
            further.truncate(MOST_FURTHER);
            let room = MOST_FURTHER - further.len();
            compare_more(&mut questions, &mut further);
            // What is learnt from people's choices on a question can not be examined on it.
            let (asked, learnt): (Vec<&Example>, Vec<&Example>) =
                asked.iter().partition(|row| !from_choices || !optimises(&snapshot::cluster(&row.messages)));
            let (kept, practised) = kept(asked, room);
            practice.extend(self::questions(&workshop, learnt)?);
            practice.extend(self::questions(&workshop, practised)?);
            further.extend(self::questions(&workshop, kept)?);
            let decoder = Decoder::open(workshop.base.trained_weights())?;
            Ok::<_, ImproveError>(Material {
                snapshot,
                train,
                validation,
                questions,
                held_out,
                further,
                practice,
                decoder,
            })
        });
        Ok(Arc::new(material.await??))
    }

    /// What people asked that is not examined, for the stages that practise; the same after an interruption.
    async fn asked(&self, snapshot: &Snapshot) -> Result<Vec<Example>, ImproveError> {
        if !matches!(self.run.stage, Stage::Policy | Stage::Improve) {
            return Ok(Vec::new());
        }
        let name = self.folder.join("asked.json");
        if let Ok(text) = std::fs::read(&name)
            && let Ok(asked) = serde_json::from_slice(&text)
        {
            return Ok(asked);
        }
        let options = self.options();
        let ledger = self.workshop.ledger.as_ref();
        let asked = snapshot::asked(ledger, (snapshot, &options), MOST_ASKED).await;
        let asked = asked.map_err(ImproveError::Dataset)?;
        write_whole(&name, &serde_json::to_vec(&asked).unwrap_or_default())?;
        Ok(asked)
    }
}

impl Material {
    /// Who may see all that the policy was made from, with the judgements it was optimised by.
    pub(super) fn access(&self, rewarding: Option<&Rewarding>) -> AccessLabel {
        let practised = self.practice.iter().map(|question| &question.example.access);
        let judged = rewarding.map(|rewarding| &rewarding.judgements.summary().access);
        let all = practised.chain([&self.snapshot.summary().access]).chain(judged);
        AccessLabel::of(all.flat_map(|access| access.clauses()))
    }

    /// The questions that the candidate is examined on, as [`snapshot::cluster`]s.
    pub(super) fn examined(&self) -> HashSet<String> {
        let all = self.questions.iter().chain(&self.further);
        all.map(|question| snapshot::cluster(&question.example.messages)).collect()
    }
}

/// Moves the first of the further questions, which have a human answer, to those that are compared with it, until these are
/// [`ENOUGH_QUESTIONS`].
fn compare_more<T>(compared: &mut Vec<T>, further: &mut Vec<T>) {
    let few = ENOUGH_QUESTIONS.saturating_sub(compared.len()).min(further.len());
    compared.extend(further.drain(..few));
}

/// The asked questions that are kept to compare policies on, at most `room`, and those that are practised on: by a hash
/// of their words, so that neither the newest nor the oldest are preferred.
fn kept(mut asked: Vec<&Example>, room: usize) -> (Vec<&Example>, Vec<&Example>) {
    asked.sort_by_cached_key(|row| {
        let words = row.messages.last().map_or("", |message| message.content.as_str());
        <[u8; 32]>::from(Sha256::digest(format!("attune kept\0{}", words.trim().to_lowercase())))
    });
    let practised = asked.split_off(room.min(asked.len()));
    (asked, practised)
}

/// Rows as questions, in their order. A row whose question alone is longer than the model's context is left out, and
/// named in the log: no model can be asked it.
///
/// # Errors
/// When a prompt can not be built.
pub fn questions<'r>(
    workshop: &Workshop,
    rows: impl IntoIterator<Item = &'r Example>,
) -> Result<Vec<Question>, ImproveError> {
    rows.into_iter().filter_map(|row| fitting(&row.id, question(workshop, row)).transpose()).collect()
}

/// What was made of a row; `None`, and a line in the log, where its question is longer than the model's context.
pub(super) fn fitting<T>(row: &str, made: Result<T, ImproveError>) -> Result<Option<T>, ImproveError> {
    match made {
        Err(ImproveError::Prompt(error))
            if error.code == ErrorCode::InvalidRequest && error.param.as_deref() == Some("messages") =>
        {
            tracing::warn!(row, error = %chain(&error), "left out");
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// A row as a question.
fn question(workshop: &Workshop, row: &Example) -> Result<Question, ImproveError> {
    let made = demonstrated(workshop, (&row.messages, &row.passages), &row.response)?;
    let tokens = sft::Example { prompt: made.prompt.tokens.to_vec(), completion: made.completion };
    let Prompt { passages, evidence, .. } = made.prompt;
    Ok(Question { example: row.clone(), tokens, passages, evidence })
}

/// The prompt that chat would use, and the tokens of an answer to it.
pub(super) fn demonstrated(
    workshop: &Workshop,
    (messages, passages): (&[Message], &[PassageRef]),
    answer: &str,
) -> Result<Demonstrated, ImproveError> {
    let answer_tokens = workshop.config.generation.max_tokens as usize;
    let parts = PromptParts { messages, passages, answer_tokens };
    workshop.prompts.demonstrated(&workshop.codec, parts, answer).map_err(ImproveError::Prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_questions_are_compared_only_where_few_are_held_out() {
        for (held_out, others, compared) in
            [(19, 19, 38), (0, 5, 5), (95, 19, 100), (100, 19, 100), (180, 19, 180)]
        {
            let mut questions: Vec<usize> = (0..held_out).collect();
            let mut further: Vec<usize> = (held_out..held_out + others).collect();
            compare_more(&mut questions, &mut further);
            assert_eq!(questions.len(), compared);
            let all: Vec<usize> = [questions, further].concat();
            assert_eq!(all, (0..held_out + others).collect::<Vec<_>>());
        }
    }
}
