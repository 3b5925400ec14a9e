//! How are two answers to one question made, for a person to choose between?

use std::sync::Arc;

use super::drafting::{Draft, Drafting};
use super::turn::{self, Reader, Retrieved, Turn};
use super::{Chat, ComparisonEvent, ComparisonStream, Question, choosing, refusal};
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
    let wanted = turn.question.generation.as_ref();
    let lease = chat.slot.lease(wanted)?;
    // While the active generation is watched, it is compared with the one before.
    let rival = if wanted.is_none() { chat.watch.rival() } else { None };
    let rival = rival.and_then(|id| chat.slot.lease(Some(&id)).ok());
    let comparing = Arc::clone(chat);
    Ok(turn::in_background(chat, move |reader| async move {
        let _permit = turn::place(ticket, &reader).await?;
        let found = turn::retrieve(&comparing, &turn).await?;
        if refusal::refusal(&comparing, &turn, &found).is_some() {
            return Err(Error::new(
                ErrorCode::Conflict,
                "the answer is a refusal: there is nothing to compare",
            ));
        }
        let mut pair = Pair::begin(&comparing, turn, ([&lease, rival.as_ref().unwrap_or(&lease)], &found));
        reader.send(pair.started());
        let drafts = if pair.may_choose().await { pair.choose(&reader).await? } else { None };
        let drafts = match drafts {
            Some(drafts) => drafts,
            None => pair.generate(&reader).await?,
        };
        let (comparison, left, right) = pair.records(drafts);
        comparing.ledger.record_comparison(&comparison, [&left, &right]).await?;
        comparing.metrics.comparisons.with_label_values(&["offered"]).inc();
        Ok(ComparisonEvent::Finished(Box::new((comparison, left, right))))
    }))
}

/// Two answers in the making.
struct Pair<'a> {
    chat: &'a Arc<Chat>,
    found: &'a Retrieved,
    id: ComparisonId,
    left: Side<'a>,
    right: Side<'a>,
}

/// One side: the question, and the generation that answers it.
struct Side<'a> {
    turn: Turn,
    lease: &'a Lease,
}

impl<'a> Pair<'a> {
    fn begin(chat: &'a Arc<Chat>, turn: Turn, (leases, found): ([&'a Lease; 2], &'a Retrieved)) -> Self {
        let id = ComparisonId::generate();
        let temperature = turn.question.temperature.unwrap_or(chat.config.generation.comparison_temperature);
        let seed = turn.sampling.seed;
        let side = |lease, seed| Side { turn: turn.again(&id, temperature, seed), lease };
        let sides = [side(leases[0], seed), side(leases[1], seed.wrapping_add(1))];
        // Which answer was drawn first tells a person nothing.
        let [left, right] = if rand::random() {
            sides
        } else {
            let [a, b] = sides;
            [b, a]
        };
        Self { chat, found, id, left, right }
    }

    fn started(&self) -> ComparisonEvent {
        let (left, right) = (self.left.turn.id.clone(), self.right.turn.id.clone());
        ComparisonEvent::Started { id: self.id.clone(), left, right }
    }

    /// Whether there is something to choose by. Not while two generations are compared: each says one of the two.
    async fn may_choose(&self) -> bool {
        let same = self.left.lease.generator().id() == self.right.lease.generator().id();
        same && self.chat.config.comparisons.candidates > 2
            && matches!(self.chat.scorer.active().await, Ok(Some(_)))
    }

    /// Draws several answers and offers the two of which the reward model knows least which one is liked: from that
    /// choice it learns most. `None` when there are no two.
    async fn choose(&mut self, reader: &Reader<ComparisonEvent>) -> Result<Option<[Draft; 2]>, Error> {
        let left = &self.left.turn;
        let more = (2..self.chat.config.comparisons.candidates).map(|nth| left.other(self.chat, nth as u64));
        let turns: Vec<Turn> = [left.clone(), self.right.turn.clone()].into_iter().chain(more).collect();
        let drafts = choosing::draw(self.chat, (&turns, self.left.lease, self.found), reader).await?;
        let Some((a, b)) = choosing::least_sure(self.chat, left, &drafts).await else {
            return Ok(None);
        };
        let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
        // Which one scores higher is not to be seen from where it stands.
        let (a, b) = if rand::random() { (a, b) } else { (b, a) };
        self.left.turn.sampling = turns[a].sampling.clone();
        self.right.turn.sampling = turns[b].sampling.clone();
        let (Some(left), Some(right)) = (drafts[a].take(), drafts[b].take()) else { return Ok(None) };
        for (side, draft) in [(ComparisonSide::Left, &left), (ComparisonSide::Right, &right)] {
            reader.send(ComparisonEvent::Delta { side, text: draft.text.clone() });
        }
        Ok(Some([left, right]))
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
            let sampling = &mut self.right.turn.sampling;
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
        Side { turn, lease }: &Side<'_>,
        side: ComparisonSide,
        reader: &Reader<ComparisonEvent>,
    ) -> Result<Draft, Error> {
        let prompt = turn.prompt(self.chat, lease, self.found)?;
        let delta = move |text, _| Some(ComparisonEvent::Delta { side, text });
        let mut draft = Drafting::new(self.chat, turn, prompt).run(lease, reader, &delta).await;
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
        let record = |side: &Side<'_>, draft| side.turn.record(self.chat, (side.lease, self.found), draft).0;
        let (left, right) = (record(&self.left, left), record(&self.right, right));
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
