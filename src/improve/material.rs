//! What does a run learn from and what is it examined on, as tokens?

use std::sync::Arc;

use super::{ImproveError, Work, Workshop};
use crate::dataset::snapshot::{Example, Snapshot, Split};
use crate::domain::PassageRef;
use crate::nn::Decoder;
use crate::prompt::PromptParts;
use crate::sft;

/// Most questions of an examination: enough for an interval of about ±0.04 on a share, a few minutes to answer on two
/// processors.
const MOST_QUESTIONS: usize = 200;

/// A question to be examined on.
#[derive(Debug, Clone)]
pub struct Question {
    /// The row it comes from.
    pub example: Example,
    /// Prompt and human answer, tokenised as the row was learnt from.
    pub tokens: sft::Example,
    /// The passages in the prompt, in the order of their numbers.
    pub passages: Vec<PassageRef>,
}

/// A run's material.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) snapshot: Snapshot,
    pub(super) train: Vec<sft::Example>,
    pub(super) validation: Vec<sft::Example>,
    pub(super) questions: Vec<Question>,
    pub(super) decoder: Decoder,
}

impl Work<'_> {
    /// Builds every row's prompt with the function that serves chat, and loads the model.
    pub(super) async fn material(&self, snapshot: Snapshot) -> Result<Arc<Material>, ImproveError> {
        let workshop = self.workshop.clone();
        let material = tokio::task::spawn_blocking(move || {
            let tokens = |split: Split| -> Result<Vec<sft::Example>, ImproveError> {
                snapshot.side(split).map(|row| Ok(question(&workshop, row)?.tokens)).collect()
            };
            let (train, validation) = (tokens(Split::Train)?, tokens(Split::Validation)?);
            let held_out = snapshot.side(Split::HeldOut).take(MOST_QUESTIONS);
            let questions = questions(&workshop, held_out)?;
            let decoder = Decoder::open(workshop.trained_weights())?;
            Ok::<_, ImproveError>(Material { snapshot, train, validation, questions, decoder })
        });
        Ok(Arc::new(material.await??))
    }
}

/// Rows as questions, in their order.
///
/// # Errors
/// When a prompt can not be built.
pub fn questions<'r>(
    workshop: &Workshop,
    rows: impl IntoIterator<Item = &'r Example>,
) -> Result<Vec<Question>, ImproveError> {
    rows.into_iter().map(|row| question(workshop, row)).collect()
}

/// A row as a question.
fn question(workshop: &Workshop, row: &Example) -> Result<Question, ImproveError> {
    let parts = PromptParts {
        messages: &row.messages,
        passages: &row.passages,
        answer_tokens: workshop.config.generation.max_tokens as usize,
    };
    let made = workshop.prompts.demonstrated(&workshop.codec, parts, &row.response);
    let made = made.map_err(ImproveError::Prompt)?;
    let tokens = sft::Example { prompt: made.prompt.tokens.to_vec(), completion: made.completion };
    Ok(Question { example: row.clone(), tokens, passages: made.prompt.passages })
}
