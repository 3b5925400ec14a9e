//! Which words carry meaning, and how many of them does a passage have?

use std::collections::HashSet;

use crate::domain::PassageRef;
use crate::retrieval::terms_alike;

/// English words that say little about what a text is about.
pub(crate) const COMMON: &[&str] = &[
    "a", "about", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can",
    "do", "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its",
    "may", "more", "must", "my", "no", "not", "of", "on", "one", "or", "our", "should", "so", "than", "that",
    "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "up", "was", "we",
    "were", "what", "when", "where", "which", "who", "will", "with", "would", "you", "your",
];

/// How much of an answer and of its question a passage has, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Support {
    /// The share of the answer's words.
    pub(super) answer: f32,
    /// The share of the question's words.
    pub(super) question: f32,
}

impl Support {
    pub(super) fn of(answer: &str, question: &str, passage: &PassageRef) -> Self {
        let passage = format!("{}\n{}", passage.title, passage.text);
        let (answer, question) = (content(answer), content(question));
        let [passage, answer, question] = terms_alike([passage.as_str(), &answer, &question]);
        let passage: HashSet<String> = passage.into_iter().collect();
        Self { answer: share(&answer, &passage), question: share(&question, &passage) }
    }

    /// What passages are compared by: the answer's words say where it comes from, the question's what it is about.
    pub(super) fn strength(self) -> f32 {
        self.answer + self.question / 2.0
    }
}

/// The words of a text that carry meaning; numbers count as words.
fn content(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let meaning = words.filter(|word| !COMMON.contains(&word.to_lowercase().as_str()));
    meaning.collect::<Vec<_>>().join(" ")
}

/// The share of the different terms that are in the passage; 0 for a text without any.
fn share(terms: &[String], passage: &HashSet<String>) -> f32 {
    let terms: HashSet<&String> = terms.iter().collect();
    if terms.is_empty() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "an answer has far fewer than 2^24 words")]
    let share = terms.iter().filter(|term| passage.contains(**term)).count() as f32 / terms.len() as f32;
    share
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::DocumentId;

    pub(in crate::chat) fn passage(text: &str) -> PassageRef {
        PassageRef {
            document_id: DocumentId::parse("d").unwrap(),
            passage_id: "d#0".into(),
            title: "T".into(),
            url: None,
            text: text.into(),
            score: 1.0,
        }
    }

    #[test]
    fn common_words_do_not_count_and_forms_of_a_word_are_one() {
        let answer = |text: &str, in_passage: &str| Support::of(text, "", &passage(in_passage)).answer;
        assert!((answer("It is on the third floor.", "The third floors have 12 desks") - 1.0).abs() < 1e-6);
        assert!((answer("Room 310, Boston", "room 310") - 2.0 / 3.0).abs() < 1e-6);
        assert!(answer("the of and", "the of and").abs() < 1e-6);
    }
}
