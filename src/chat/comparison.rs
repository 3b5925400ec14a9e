//! How are two answers to one question made, for a person to choose between?

use std::sync::Arc;

use super::drafting::{Draft, Drafting};
use super::turn::{self, Reader, Retrieved, Turn};
use super::{Chat, ComparisonEvent, ComparisonStream, Question, refusal};
use crate::domain::{AnswerRecord, Comparison, ComparisonId, ComparisonSide, FinishReason, Identity, now};
use crate::error::{Error, ErrorCode};
use crate::generation::Lease;

/// How often one side is drawn again when both came out the same.
const RESAMPLES: usize = 3;

/// Makes two answers to one question, on sides drawn at random. Takes one place of the queue.
///
/// # Errors
/// As [`super::answer`]; also a conflict when the answer is a refusal or both answers stay the same, for then there is
/// nothing to choose.
pub async fn compare(
    chat: &Arc<Chat>,
    who: &Identity,
    question: Question,
) -> Result<ComparisonStream, Error> {
    let turn = Turn::begin(chat, who, question)?;
    let ticket = chat.admission.enter(&who.user)?;
    let lease = chat.slot.lease(turn.question.generation.as_ref())?;
    let comparing = Arc::clone(chat);
    Ok(turn::in_background(chat, move |reader| async move {
        let _permit = ticket.wait().await?;
        let found = turn::retrieve(&comparing, &turn).await?;
        if refusal::refusal(&comparing, &turn, &found).is_some() {
            return Err(Error::new(
                ErrorCode::Conflict,
                "the answer is a refusal: there is nothing to compare",
            ));
        }
        let mut pair = Pair::begin(&comparing, turn, (&lease, &found));
        reader.send(pair.started());
        let drafts = pair.generate(&reader).await?;
        let (comparison, left, right) = pair.records(drafts);
        comparing.ledger.record_comparison(&comparison, [&left, &right]).await?;
        comparing.metrics.comparisons.with_label_values(&["offered"]).inc();
        Ok(ComparisonEvent::Finished(Box::new((comparison, left, right))))
    }))
}

/// Two answers in the making.
struct Pair<'a> {
    chat: &'a Arc<Chat>,
    lease: &'a Lease,
    found: &'a Retrieved,
    id: ComparisonId,
    left: Turn,
    right: Turn,
}

impl<'a> Pair<'a> {
    fn begin(chat: &'a Arc<Chat>, turn: Turn, (lease, found): (&'a Lease, &'a Retrieved)) -> Self {
        let id = ComparisonId::generate();
        let temperature = turn.question.temperature.unwrap_or(chat.config.generation.comparison_temperature);
        let seed = turn.sampling.seed;
        let sides = [turn.again(&id, temperature, seed), turn.again(&id, temperature, seed.wrapping_add(1))];
        // Which answer was drawn first tells a person nothing.
        let [left, right] = if rand::random() {
            sides
        } else {
            let [a, b] = sides;
            [b, a]
        };
        Self { chat, lease, found, id, left, right }
    }

    fn started(&self) -> ComparisonEvent {
        let (left, right) = (self.left.id.clone(), self.right.id.clone());
        ComparisonEvent::Started { id: self.id.clone(), left, right }
    }

    async fn generate(&mut self, reader: &Reader<ComparisonEvent>) -> Result<[Draft; 2], Error> {
        let (left, right) = tokio::join!(
            self.side(&self.left, ComparisonSide::Left, reader),
            self.side(&self.right, ComparisonSide::Right, reader),
        );
        let (left, mut right) = (left?, right?);
        for attempt in 1..=RESAMPLES {
            if left.text != right.text {
                return Ok([left, right]);
            }
            reader.send(ComparisonEvent::Restarted { side: ComparisonSide::Right });
            let sampling = &mut self.right.sampling;
            // Far from the seeds of both sides.
            sampling.seed = sampling.seed.wrapping_add(1_000 * attempt as u64);
            // A little warmer each time: a confident model says the same again and again.
            sampling.temperature = (sampling.temperature + 0.2).min(2.0);
            right = self.side(&self.right, ComparisonSide::Right, reader).await?;
        }
        if left.text == right.text {
            self.chat.metrics.comparisons.with_label_values(&["identical"]).inc();
            return Err(Error::new(
                ErrorCode::Conflict,
                "both answers are the same: there is nothing to choose",
            ));
        }
        Ok([left, right])
    }

    async fn side(
        &self,
        turn: &Turn,
        side: ComparisonSide,
        reader: &Reader<ComparisonEvent>,
    ) -> Result<Draft, Error> {
        let prompt = turn.prompt(self.chat, self.lease, self.found)?;
        let delta = move |text, _| ComparisonEvent::Delta { side, text };
        let mut draft = Drafting::new(self.chat, turn, prompt).run(self.lease, reader, &delta).await;
        if draft.finish_reason == FinishReason::Cancelled {
            // Nobody is left to be told; a pair with half an answer would teach something wrong.
            return Err(Error::new(
                ErrorCode::Conflict,
                "the reader went away before both answers were finished",
            ));
        }
        draft.failure.take().map_or(Ok(draft), Err)
    }

    fn records(&self, [left, right]: [Draft; 2]) -> (Comparison, AnswerRecord, AnswerRecord) {
        let (left, _) = self.left.record(self.chat, (self.lease, self.found), left);
        let (right, _) = self.right.record(self.chat, (self.lease, self.found), right);
        let comparison = Comparison {
            id: self.id.clone(),
            created: now(),
            user: left.user.clone(),
            messages: left.messages.clone(),
            left: left.id.clone(),
            right: right.id.clone(),
            access: left.access.clone(),
        };
        (comparison, left, right)
    }
}
