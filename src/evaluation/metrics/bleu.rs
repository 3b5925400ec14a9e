//! How many 1- to 4-grams of an answer stand in the human's?

use super::ngrams;

/// Longest n-gram.
const ORDER: usize = 4;

/// What BLEU is computed from; the corpus's is the sum of its answers'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bleu {
    answer_tokens: usize,
    ideal_tokens: usize,
    matches: [u32; ORDER],
    possible: [usize; ORDER],
}

impl Bleu {
    /// Numbers of one answer's statistics.
    pub(in crate::evaluation) const COLUMNS: usize = 2 + 2 * ORDER;

    /// The statistics of one answer.
    #[must_use]
    pub fn of(answer: &str, ideal: &str) -> Self {
        let (answer, ideal) = (tokens(answer), tokens(ideal));
        Self {
            answer_tokens: answer.len(),
            ideal_tokens: ideal.len(),
            matches: std::array::from_fn(|at| ngrams::shared(&answer, &ideal, at + 1)),
            possible: std::array::from_fn(|at| ngrams::available(answer.len(), at + 1)),
        }
    }

    /// BLEU of one answer, over the n-grams it is long enough for.
    #[must_use]
    pub fn sentence(&self) -> f64 {
        let order = self.possible.iter().take_while(|&&possible| possible > 0).count();
        score(&self.columns(), order)
    }

    /// BLEU of a corpus; `None` of an empty one.
    pub fn corpus(answers: impl IntoIterator<Item = Self>) -> Option<f64> {
        let mut sums = None;
        for answer in answers {
            let sums = sums.get_or_insert([0.0; Self::COLUMNS]);
            sums.iter_mut().zip(answer.columns()).for_each(|(sum, column)| *sum += column);
        }
        sums.map(|sums| Self::of_sums(&sums))
    }

    pub(in crate::evaluation) fn columns(&self) -> [f64; Self::COLUMNS] {
        let mut columns =
            [self.answer_tokens as f64, self.ideal_tokens as f64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        for at in 0..ORDER {
            columns[2 + at] = f64::from(self.matches[at]);
            columns[2 + ORDER + at] = self.possible[at] as f64;
        }
        columns
    }

    /// BLEU of a corpus from the sums of its answers' columns.
    pub(in crate::evaluation) fn of_sums(sums: &[f64]) -> f64 {
        score(sums, ORDER)
    }
}

/// BLEU over the first `order` lengths. The first length without a match counts as half a match, the next as a quarter,
/// and so on.
fn score(sums: &[f64], order: usize) -> f64 {
    let (answer, ideal) = (sums[0], sums[1]);
    let (matches, possible) = sums[2..].split_at(ORDER);
    if order == 0 || matches.iter().all(|&count| count == 0.0) || possible[..order].contains(&0.0) {
        return 0.0;
    }
    let mut smoothing = 1.0;
    let mut logs = 0.0;
    for (&matched, &possible) in matches.iter().zip(possible).take(order) {
        let matched = if matched > 0.0 {
            matched
        } else {
            smoothing /= 2.0;
            smoothing
        };
        logs += (matched / possible).ln();
    }
    let brevity = if answer < ideal { (1.0 - ideal / answer).exp() } else { 1.0 };
    100.0 * brevity * (logs / order as f64).exp()
}

/// Tokens as `mteval-v13a` cuts them.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let text = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let mut spaced = String::with_capacity(text.len() * 2);
    for c in format!(" {text} ").chars() {
        // Every ASCII mark but the apostrophe and those that numbers are written with.
        if c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.') {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| matches!(c, '.' | ',');
    // A stop stays with digits on both sides, a dash with what is no digit before it.
    let spaced = apart(&spaced, |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let spaced = apart(&spaced, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let spaced = apart(&spaced, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Replaces pairs of characters from the left; a character belongs to one pair at most.
fn apart(
    text: &str,
    found: impl Fn(char, char) -> bool,
    written: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut result = String::with_capacity(text.len() * 2);
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        match rest.next_if(|&second| found(first, second)) {
            Some(second) => result.extend(written(first, second)),
            None => result.push(first),
        }
    }
    result
}
