//! What did people say? Pairs of answers of which one was chosen, and single answers with a thumb.

use serde::{Deserialize, Serialize};

use super::{Item, RewardError};
use crate::domain::Message;

/// Two answers to one question, and which one a person chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Names it in errors and reports.
    pub id: String,
    /// Rows of one cluster are never on both sides of a split.
    pub cluster: String,
    /// Never learnt from: what the report is measured on.
    pub held_out: bool,
    /// Oldest message first, the question last.
    pub conversation: Vec<Message>,
    /// Texts of the passages both answers were to be grounded in.
    pub passages: Vec<String>,
    /// The answer that was chosen.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// Probability that the chosen answer is the better one: 1, or 0.5 for a tie.
    pub preference: f32,
    /// How strong the choice was, 0 to 1.
    pub margin: f32,
    /// Who chose; none: exempt from caps and from the person's weight.
    pub user: Option<String>,
    /// Where it comes from: `vote`, `correction`, `import` and the like.
    pub source: String,
    /// When, in milliseconds since 1970.
    pub created: i64,
}

/// One answer that a person found good or bad.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thumb {
    /// Names it in errors and reports.
    pub id: String,
    /// Rows of one cluster are never on both sides of a split.
    pub cluster: String,
    /// Never learnt from.
    pub held_out: bool,
    /// Oldest message first, the question last.
    pub conversation: Vec<Message>,
    /// Texts of the passages the answer was to be grounded in.
    pub passages: Vec<String>,
    /// The answer.
    pub answer: String,
    /// Up or down.
    pub good: bool,
    /// Whose thumb; none: exempt from caps and bias.
    pub user: Option<String>,
    /// Where it comes from.
    pub source: String,
    /// When, in milliseconds since 1970.
    pub created: i64,
}

/// All that people said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Preferences {
    /// Choices between two answers.
    pub pairs: Vec<Pair>,
    /// Thumbs that found no counterpart.
    pub thumbs: Vec<Thumb>,
}

impl Pair {
    /// The chosen answer and the rejected one.
    #[must_use]
    pub fn items(&self) -> [Item<'_>; 2] {
        let item = |answer| Item { conversation: &self.conversation, passages: &self.passages, answer };
        [item(&self.chosen), item(&self.rejected)]
    }

    /// Whether neither answer was said to be better.
    #[must_use]
    pub fn is_tie(&self) -> bool {
        // Half a percent either way says nothing.
        (self.preference - 0.5).abs() < 0.005
    }
}

impl Thumb {
    /// The answer.
    #[must_use]
    pub fn item(&self) -> Item<'_> {
        Item { conversation: &self.conversation, passages: &self.passages, answer: &self.answer }
    }
}

impl Preferences {
    /// Refuses rows that would teach nonsense.
    ///
    /// # Errors
    /// When a conversation or an answer is empty, a preference is no probability or a margin is not from 0 to 1.
    pub(super) fn check(&self) -> Result<(), RewardError> {
        let refuse = |id: &str, problem| Err(RewardError::Row { id: id.to_owned(), problem });
        for pair in &self.pairs {
            if pair.conversation.is_empty() {
                return refuse(&pair.id, "its conversation is empty");
            }
            if pair.chosen.trim().is_empty() || pair.rejected.trim().is_empty() {
                return refuse(&pair.id, "an answer is empty");
            }
            if !(0.0..=1.0).contains(&pair.preference) {
                return refuse(&pair.id, "its preference is not from 0 to 1");
            }
            if !(0.0..=1.0).contains(&pair.margin) {
                return refuse(&pair.id, "its margin is not from 0 to 1");
            }
        }
        for thumb in &self.thumbs {
            if thumb.conversation.is_empty() {
                return refuse(&thumb.id, "its conversation is empty");
            }
            if thumb.answer.trim().is_empty() {
                return refuse(&thumb.id, "its answer is empty");
            }
        }
        Ok(())
    }
}
