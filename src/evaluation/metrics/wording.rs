//! How is an answer worded: how long, how varied, how often the same?

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation;

use super::ngrams;

/// Runs of this many words that come again are repetition: shorter ones do in ordinary prose.
const REPETITION: usize = 4;

/// How many runs of `n` words a text has, and how many different ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DistinctGrams {
    /// Different runs.
    pub different: usize,
    /// All runs.
    pub all: usize,
}

impl DistinctGrams {
    /// Of one text; case does not matter.
    #[must_use]
    pub fn of(text: &str, n: usize) -> Self {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower.unicode_words().collect();
        Self { different: ngrams::counts(&words, n).len(), all: ngrams::available(words.len(), n) }
    }
}

/// distinct-n: the share of runs of `n` words that are different; `None` for a text that is shorter.
#[must_use]
pub fn distinct(text: &str, n: usize) -> Option<f64> {
    let grams = DistinctGrams::of(text, n);
    (grams.all > 0).then(|| grams.different as f64 / grams.all as f64)
}

/// The share of runs of 4 words that stood in the same text before; 0 for a shorter one.
#[must_use]
pub fn repetition(text: &str) -> f64 {
    distinct(text, REPETITION).map_or(0.0, |distinct| 1.0 - distinct)
}

/// The runs that [`repetition`] counts.
pub(in crate::evaluation) fn repetition_grams(text: &str) -> DistinctGrams {
    DistinctGrams::of(text, REPETITION)
}

/// Words of an answer for each word of the ideal one; `None` when that has no words.
#[must_use]
pub fn length_ratio(answer: &str, ideal: &str) -> Option<f64> {
    let ideal = word_count(ideal);
    (ideal > 0).then(|| word_count(answer) as f64 / ideal as f64)
}

/// How many words, as Unicode cuts them.
#[must_use]
pub fn word_count(text: &str) -> usize {
    text.unicode_words().count()
}

/// The share of answers that are the most common one, apart from case and spacing; `None` of nothing. Near 0 for a
/// model that answers the question, 1 for one that always says the same.
#[must_use]
pub fn most_common_share<'a>(answers: impl IntoIterator<Item = &'a str>) -> Option<f64> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for answer in answers {
        let same = answer.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        *counts.entry(same).or_default() += 1;
    }
    let all: u32 = counts.values().sum();
    counts.values().max().map(|&most| f64::from(most) / f64::from(all))
}

/// The text without citation marks (`[1]`, `[2, 3]`) and the white space before them: people cite otherwise than
/// models, and what is compared is what is said.
#[must_use]
pub fn without_marks(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, from) = rest.split_at(open);
        let mark = from.find(']').filter(|&close| is_mark(&from[1..close]));
        kept.push_str(if mark.is_some() { before.trim_end() } else { before });
        let skip = mark.map_or(1, |close| close + 1);
        if mark.is_none() {
            kept.push('[');
        }
        rest = &from[skip..];
    }
    kept.push_str(rest);
    kept
}

fn is_mark(inside: &str) -> bool {
    let number = |part: &str| {
        let part = part.trim();
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    inside.split(',').all(number)
}
