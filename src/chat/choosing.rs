//! Which of several answers is shown? The one that people would like best; to choose between, the two of which the reward
//! model knows least which one they prefer.

use std::sync::Arc;

use futures::future::join_all;

use super::drafting::{Draft, Drafting};
use super::turn::{Reader, Retrieved, Turn};
use super::{AnswerEvent, Chat};
use crate::domain::{FinishReason, PassageRef};
use crate::error::{Error, chain};
use crate::generation::Lease;
use crate::scoring::Answered;

/// Answers a question several times and keeps the answer that the reward model likes best. Without a reward model, or
/// when it fails, that is the first, which is the one that a single answer would have been. Nothing is shown before the
/// choice is made.
pub(super) async fn best(
    chat: &Arc<Chat>,
    turn: &Turn,
    (lease, found): (&Lease, &Retrieved),
    reader: &Reader<AnswerEvent>,
) -> Result<Draft, Error> {
    let others = (1..chat.config.generation.best_of).map(|nth| turn.other(chat, nth as u64));
    let turns: Vec<Turn> = std::iter::once(turn.clone()).chain(others).collect();
    let mut drafts = draw(chat, (&turns, lease, found), reader).await?;
    let chosen = favourite(chat, turn, &drafts).await.unwrap_or(0);
    let draft = drafts.swap_remove(chosen);
    reader.send(AnswerEvent::Delta { text: draft.text.clone(), tokens: Vec::new() });
    Ok(draft)
}

/// Answers every turn at once, without showing anything.
pub(super) async fn draw<E>(
    chat: &Arc<Chat>,
    (turns, lease, found): (&[Turn], &Lease, &Retrieved),
    reader: &Reader<E>,
) -> Result<Vec<Draft>, Error> {
    let drawing = turns.iter().map(async |turn| {
        let prompt = turn.prompt(chat, lease, found)?;
        Ok::<_, Error>(Drafting::new(chat, turn, prompt).run(lease, reader, &|_, _| None).await)
    });
    join_all(drawing).await.into_iter().collect()
}

/// Which of the finished answers is liked best; `None` when that can not be told.
async fn favourite(chat: &Arc<Chat>, turn: &Turn, drafts: &[Draft]) -> Option<usize> {
    let finished: Vec<usize> = places(drafts);
    if finished.len() < 2 || finished.first() != Some(&0) {
        return None;
    }
    let answers = finished.iter().map(|&at| answered(turn, &drafts[at])).collect();
    match chat.scorer.score(None, answers).await {
        Ok(scored) => {
            let scores = finished.into_iter().zip(scored.scores);
            // Of equals the first.
            scores.rev().max_by(|a, b| a.1.value.total_cmp(&b.1.value)).map(|(at, _)| at)
        }
        Err(error) => {
            tracing::debug!(error = %chain(&error), "the first answer is shown: they can not be compared");
            None
        }
    }
}

/// The two answers, of different texts, whose order is known least; `None` when that can not be told.
pub(super) async fn least_sure(chat: &Arc<Chat>, turn: &Turn, drafts: &[Draft]) -> Option<(usize, usize)> {
    let finished = places(drafts);
    let answers = finished.iter().map(|&at| answered(turn, &drafts[at])).collect();
    match chat.scorer.least_sure(answers).await {
        Ok(pair) => pair.map(|(a, b)| (finished[a], finished[b])),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "the first two answers are offered");
            None
        }
    }
}

/// Answers that ended as they should and say something.
fn places(drafts: &[Draft]) -> Vec<usize> {
    let fine = |draft: &Draft| {
        matches!(draft.finish_reason, FinishReason::Stop | FinishReason::Length)
            && !draft.text.trim().is_empty()
    };
    (0..drafts.len()).filter(|&at| fine(&drafts[at])).collect()
}

fn answered(turn: &Turn, draft: &Draft) -> Answered {
    let passages = draft.passages.iter().map(|passage: &PassageRef| passage.text.clone()).collect();
    Answered { conversation: turn.question.messages.clone(), passages, answer: draft.text.clone() }
}
