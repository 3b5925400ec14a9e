//! Which words do two answers share, apart from case, punctuation and articles?

use super::{f_measure, ngrams};

/// F1 of the normalised words two answers share; two answers without words are equal.
#[must_use]
pub fn token_f1(answer: &str, ideal: &str) -> f64 {
    let (answer, ideal) = (normalised(answer), normalised(ideal));
    if answer.is_empty() || ideal.is_empty() {
        return f64::from(u8::from(answer == ideal));
    }
    let shared = f64::from(ngrams::shared(&answer, &ideal, 1));
    f_measure(shared / answer.len() as f64, shared / ideal.len() as f64)
}

/// Share of the ideal answer's normalised words that the answer has: its coverage; 1 of an ideal answer without words.
#[must_use]
pub fn token_recall(answer: &str, ideal: &str) -> f64 {
    let (answer, ideal) = (normalised(answer), normalised(ideal));
    if ideal.is_empty() {
        return 1.0;
    }
    f64::from(ngrams::shared(&answer, &ideal, 1)) / ideal.len() as f64
}

/// Whether two answers are the same normalised words.
#[must_use]
pub fn exact_match(answer: &str, ideal: &str) -> bool {
    normalised(answer) == normalised(ideal)
}

/// Lower-case words without ASCII punctuation; what punctuation held apart grows together.
fn normalised(text: &str) -> Vec<String> {
    let mut plain = text.to_lowercase();
    plain.retain(|c| !c.is_ascii_punctuation());
    // An article is a whole word, and the letters, digits and marks of any script belong to words.
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    for run in plain.split_whitespace() {
        let mut kept = String::new();
        let mut rest = run;
        while let Some(first) = rest.chars().next() {
            let inside = word(first);
            let end = rest.find(|c| word(c) != inside).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            if matches!(part, "a" | "an" | "the") {
                words.extend((!kept.is_empty()).then(|| std::mem::take(&mut kept)));
            } else {
                kept.push_str(part);
            }
            rest = after;
        }
        words.extend((!kept.is_empty()).then_some(kept));
    }
    words
}
