//! How is an answer made? Length, lists, refusals, repetition, citations, tone.

use super::Reading;
use crate::evaluation::metrics::{repetition, word_count};
use crate::reward::text::words as words_of;

/// The feature whose coefficient is never above zero in scoring.
pub(in crate::reward) const LENGTH: &str = "log of words";

pub(super) const NAMES: [&str; 17] = [
    LENGTH,
    "cites",
    "share of valid citations",
    "list",
    "refuses",
    "hedges",
    "repeats",
    "ends a sentence",
    "thanks or greets",
    "speaks of itself",
    "asks back",
    "words a sentence",
    "capitals",
    "speaks to the reader",
    "speaks for the company",
    "exclaims",
    "order of steps",
];

/// How answers that are none begin or go on.
const REFUSALS: &[&str] = &[
    "i don't know",
    "i do not know",
    "i'm not sure",
    "i am not sure",
    "i cannot",
    "i can't",
    "i'm sorry",
    "i am sorry",
    "i apologize",
    "unable to",
    "not enough information",
    "no information",
    "does not provide",
    "doesn't provide",
    "does not mention",
    "not mentioned",
    "do not have the information",
    "don't have information",
    "do not have information",
    "as an ai",
];
const HEDGES: &[&str] = &["might", "maybe", "perhaps", "possibly", "it depends", "likely", "could be"];
const POLITE: &[&str] =
    &["please", "thank", "you're welcome", "hello", "happy to help", "sorry", "hope this helps"];
/// Words by which an answer speaks to who asked, and for those it works with.
const READER: &[&str] = &["you", "your", "yours", "yourself"];
const COMPANY: &[&str] = &["we", "us", "our", "ours", "let's"];
/// Words that say what comes after what.
const ORDER: &[&str] = &[
    "first",
    "second",
    "third",
    "then",
    "next",
    "before",
    "after",
    "afterwards",
    "finally",
    "lastly",
    "once",
];
const SELF: &[&str] = &["i ", "i'm", "i'd", "my "];

pub(super) fn features(reading: &Reading<'_>) -> [f64; NAMES.len()] {
    let answer = reading.answer.trim();
    let lower = answer.to_lowercase();
    let has = |phrases: &[&str]| f64::from(u8::from(phrases.iter().any(|phrase| lower.contains(phrase))));
    let words = word_count(answer) as f64;
    let spoken = words_of(&lower);
    let among =
        |list: &[&str]| (spoken.iter().filter(|word| list.contains(&word.as_str())).count() as f64).ln_1p();
    let sentences = reading.answer_sentences().len().max(1) as f64;
    let valid = reading.valid_marks();
    let lines = answer.lines().filter(|line| is_item(line)).count();
    let letters = answer.chars().filter(|c| c.is_alphabetic()).count().max(1) as f64;
    let capitals = answer.chars().filter(|c| c.is_uppercase()).count() as f64;
    [
        words.ln_1p(),
        f64::from(u8::from(reading.grounded && valid > 0)),
        valid as f64 / reading.marks.len().max(1) as f64,
        // Two items make a list.
        f64::from(u8::from(lines >= 2)),
        has(REFUSALS),
        has(HEDGES),
        repetition(answer),
        f64::from(u8::from(answer.ends_with(['.', '!', '?', ':', ')', '"', '”', '。', '`']))),
        has(POLITE),
        f64::from(u8::from(
            SELF.iter().any(|word| lower.starts_with(word) || lower.contains(&format!(" {word}"))),
        )),
        f64::from(u8::from(answer.ends_with('?'))),
        (words / sentences).ln_1p(),
        capitals / letters,
        among(READER),
        among(COMPANY),
        f64::from(u8::from(answer.contains('!'))),
        among(ORDER),
    ]
}

/// Whether a line begins as an item of a list does.
fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with(['-', '*', '•']) || (numbered.len() < line.len() && numbered.starts_with(['.', ')']))
}
