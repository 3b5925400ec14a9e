//! How close is an answer to the human's, and how is it worded?
//!
//! | measure | as | range |
//! |---|---|---|
//! | [`token_f1`], [`token_recall`], [`exact_match`] | evaluation of `SQuAD` 2.0: lower case, without punctuation and English articles | 0 to 1 |
//! | [`rouge_n`], [`rouge_l`] | F-measure of `rouge_score` without stemming: runs of `a-z0-9`, so Latin script only | 0 to 1 |
//! | [`Bleu`] | sacreBLEU: 13a tokens, exponential smoothing | 0 to 100 |
//! | [`Chrf`] | sacreBLEU: character 1- to 6-grams without white space, recall twice as heavy (β = 2) | 0 to 100 |
//! | [`distinct`], [`repetition`], [`length_ratio`] | words as Unicode cuts them | 0 to 1; from 0 |
//! | [`cosine`] | vectors of a sentence model | −1 to 1 |
//! | [`nll_per_token`] | natural logarithms (nats), lower is better | from 0 |
//!
//! The tests hold values of the original packages.

mod bleu;
mod chrf;
mod ngrams;
mod rouge;
mod squad;
mod wording;

pub use bleu::Bleu;
pub use chrf::Chrf;
pub use rouge::{rouge_l, rouge_n};
pub use squad::{exact_match, token_f1, token_recall};
pub(super) use wording::repetition_grams;
pub use wording::{
    DistinctGrams, distinct, length_ratio, most_common_share, repetition, without_marks, word_count,
};

/// Cosine of two vectors of one length; `None` when the lengths differ, or one of them is zero or not finite.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    (norms > 0.0 && norms.is_finite()).then(|| (dot(a, b) / norms).clamp(-1.0, 1.0))
}

/// Mean negative log-likelihood in nats of tokens with these log-probabilities; `None` for no tokens.
#[must_use]
pub fn nll_per_token(log_probabilities: &[f32]) -> Option<f64> {
    let sum: f64 = log_probabilities.iter().map(|&log| -f64::from(log)).sum();
    (!log_probabilities.is_empty()).then(|| sum / log_probabilities.len() as f64)
}

/// The share that is true: of answers that ended by themselves, the end-of-turn rate; `None` of nothing.
pub fn rate(outcomes: impl IntoIterator<Item = bool>) -> Option<f64> {
    let (mut hits, mut all) = (0u32, 0u32);
    for hit in outcomes {
        hits += u32::from(hit);
        all += 1;
    }
    (all > 0).then(|| f64::from(hits) / f64::from(all))
}

/// Whether one of the pages an answer cites is one that holds the answer.
pub fn citation_hit<T: PartialEq>(cited: &[T], right: &[T]) -> bool {
    cited.iter().any(|page| right.contains(page))
}

/// Harmonic mean of precision and recall, 0 when both are 0.
fn f_measure(precision: f64, recall: f64) -> f64 {
    let both = precision + recall;
    if both > 0.0 { 2.0 * precision * recall / both } else { 0.0 }
}

#[cfg(test)]
mod tests;
