//! Should this question be answered at all? Decided here and nowhere else.

use super::Chat;
use super::turn::{Retrieved, Turn};

/// The plain "I don't know" when the knowledge base has nothing relevant, or `None` when the model shall answer.
pub(super) fn refusal(chat: &Chat, turn: &Turn, found: &Retrieved) -> Option<String> {
    let threshold = chat.config.retrieval.answerable_threshold;
    let relevant = !found.passages.is_empty() && found.evidence >= threshold;
    let asked_ungrounded = turn.question.retrieve == Some(false);
    (!asked_ungrounded && threshold > 0.0 && !relevant).then(|| {
        format!(
            "I don't know: I found nothing about this in the knowledge base. Please ask {}.",
            chat.config.prompt.whom_to_ask
        )
    })
}
