//! Which n-grams, and which longest common subsequence, does an answer share with the human's?

use super::{f_measure, ngrams};

/// ROUGE-N: F-measure of the runs of `n` words two texts share.
#[must_use]
pub fn rouge_n(answer: &str, ideal: &str, n: usize) -> f64 {
    let (answer, ideal) = (words(answer), words(ideal));
    let share = |shared: u32, length| f64::from(shared) / ngrams::available(length, n).max(1) as f64;
    let shared = ngrams::shared(&answer, &ideal, n);
    f_measure(share(shared, answer.len()), share(shared, ideal.len()))
}

/// ROUGE-L: F-measure of the longest sequence of words both texts have in this order, gaps allowed.
#[must_use]
pub fn rouge_l(answer: &str, ideal: &str) -> f64 {
    let (answer, ideal) = (words(answer), words(ideal));
    if answer.is_empty() || ideal.is_empty() {
        return 0.0;
    }
    let common = longest_common(&answer, &ideal) as f64;
    f_measure(common / answer.len() as f64, common / ideal.len() as f64)
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let runs = lower.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    runs.filter(|run| !run.is_empty()).map(str::to_owned).collect()
}

/// Length of the longest common subsequence; one row of the table is kept.
fn longest_common(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if x == y { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
