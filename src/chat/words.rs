//! Which words carry meaning, and how many of them do two texts share?

use std::collections::HashSet;

/// English words that say little about what a text is about.
const COMMON: &[&str] = &[
    "a", "about", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can",
    "do", "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its",
    "may", "more", "must", "my", "no", "not", "of", "on", "one", "or", "our", "should", "so", "than", "that",
    "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "up", "was", "we",
    "were", "what", "when", "where", "which", "who", "will", "with", "would", "you", "your",
];

/// The words of a text that carry meaning, lower case; numbers count as words.
pub(super) fn content_words(text: &str) -> HashSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).filter(|word| !COMMON.contains(&word.as_str())).collect()
}

/// The share of the answer's content words that the passage has, 0 to 1; 0 for an answer without any.
#[must_use]
pub fn overlap(answer: &str, passage: &str) -> f32 {
    let answer = content_words(answer);
    if answer.is_empty() {
        return 0.0;
    }
    let passage = content_words(passage);
    #[expect(clippy::cast_precision_loss, reason = "an answer has far fewer than 2^24 words")]
    let share = answer.intersection(&passage).count() as f32 / answer.len() as f32;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_do_not_count() {
        assert!(
            (overlap("It is on the third floor.", "The third floor has 12 desks") - 1.0).abs() < f32::EPSILON
        );
        assert!((overlap("Room 310, Boston", "room 310") - 2.0 / 3.0).abs() < 1e-6);
        assert!(overlap("the of and", "the of and").abs() < f32::EPSILON);
    }
}
