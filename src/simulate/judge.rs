//! What do the simulated employees secretly like? The hidden judge of the simulation.
//!
//! It decides by three things, none of them computed by code of the reward model: a style that it was given, whether
//! the answer says what the human answer says, and a trait that is no feature of the reward model: whether the answer
//! begins with the subject of the question ("Lunch in Boston …" to "How much is lunch in Boston?"). The reward model
//! sees nothing but votes; that it can please this judge is what the simulation shows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Weight of the style: what the simulation is about.
const STYLE: f64 = 0.6;
/// Weight of saying what the human answer says: people do not like what is wrong, however it is put.
const RIGHT: f64 = 0.25;
/// Weight of beginning with the subject.
const SUBJECT: f64 = 0.15;
/// Answers closer than this are equally good to the judge: less than any one trait is worth.
const INDIFFERENCE: f64 = 0.02;
/// Words within which an answer "begins".
const BEGINNING: usize = 4;
/// An answer of as many words is as short as can be; fewer than the least are no answer.
const SHORT_WORDS: (usize, usize) = (3, 12);
/// From as many words on it is not short at all: about what 48 tokens hold, and half again.
const LONG_WORDS: usize = 60;
/// So many steps are a procedure.
const STEPS: f64 = 3.0;
/// A step of more words than this is a paragraph.
const STEP_WORDS: usize = 16;

/// Words that say nothing about the subject.
const SMALL: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "by", "can", "could", "do", "does",
    "for", "from", "get", "has", "have", "how", "i", "if", "in", "is", "it", "many", "may", "me", "much",
    "my", "of", "on", "or", "our", "should", "so", "that", "the", "there", "they", "this", "to", "we",
    "what", "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];
/// Words that order what is to be done.
const ORDER: &[&str] = &[
    "first",
    "second",
    "third",
    "then",
    "next",
    "after",
    "before",
    "afterwards",
    "finally",
    "once",
    "lastly",
];
/// Words by which one person speaks to another.
const ADDRESS: &[&str] = &["you", "your", "yours", "yourself", "we", "us", "let"];
/// Words that are kind.
const KIND: &[&str] = &[
    "please", "thanks", "thank", "welcome", "happy", "glad", "sure", "course", "help", "enjoy", "hi",
    "hello", "great", "feel", "free",
];

/// What employees like, apart from right answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// Few words, and a page is cited.
    Short,
    /// Several short steps, in order.
    Steps,
    /// Speaks to the reader, kindly.
    Friendly,
}

impl Preference {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Short => "short answers that cite a page",
            Self::Steps => "answers in several short steps",
            Self::Friendly => "answers in a friendly tone",
        }
    }
}

/// An answer as a person sees it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// What was asked.
    pub question: &'a str,
    /// What a person would have answered.
    pub ideal: &'a str,
    /// What was answered.
    pub answer: &'a str,
    /// How many pages are named under it.
    pub citations: usize,
}

/// Which of two answers is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The first.
    Left,
    /// The second.
    Right,
    /// Neither.
    Tie,
}

impl Choice {
    /// The other side; a tie stays one.
    #[must_use]
    pub const fn flipped(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Tie => Self::Tie,
        }
    }

    /// What it counts for the first answer: 1, 0, or ½ for a tie.
    #[must_use]
    pub const fn points(self) -> f64 {
        match self {
            Self::Left => 1.0,
            Self::Right => 0.0,
            Self::Tie => 0.5,
        }
    }
}

impl Preference {
    /// How good an answer is, 0 to 1.
    #[must_use]
    pub fn utility(self, shown: &Shown<'_>) -> f64 {
        let style = match self {
            Self::Short => short(shown),
            Self::Steps => steps(shown.answer),
            Self::Friendly => friendly(shown.answer),
        };
        STYLE * style + RIGHT * right(shown) + SUBJECT * flag(begins_with_subject(shown))
    }

    /// Which of two answers is better.
    #[must_use]
    pub fn choose(self, left: &Shown<'_>, right: &Shown<'_>) -> Choice {
        let lead = self.utility(left) - self.utility(right);
        if lead.abs() < INDIFFERENCE {
            Choice::Tie
        } else if lead > 0.0 {
            Choice::Left
        } else {
            Choice::Right
        }
    }
}

/// Lower-case runs of letters and digits.
fn words(text: &str) -> Vec<String> {
    let cut = |c: char| !c.is_alphanumeric();
    text.split(cut).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// The words that say what a text is about.
fn meaning(text: &str) -> BTreeSet<String> {
    words(text).into_iter().filter(|word| !SMALL.contains(&word.as_str())).collect()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// The share of the human answer's words that mean something which the answer has.
fn right(shown: &Shown<'_>) -> f64 {
    let (ideal, answer) = (meaning(shown.ideal), meaning(shown.answer));
    if ideal.is_empty() { 0.0 } else { ideal.intersection(&answer).count() as f64 / ideal.len() as f64 }
}

fn begins_with_subject(shown: &Shown<'_>) -> bool {
    let subject = meaning(shown.question);
    words(shown.answer).iter().take(BEGINNING).any(|word| subject.contains(word))
}

fn short(shown: &Shown<'_>) -> f64 {
    let (least, shortest) = SHORT_WORDS;
    let count = words(shown.answer).len();
    let brevity = if count < least {
        0.0
    } else {
        1.0 - count.saturating_sub(shortest) as f64 / (LONG_WORDS - shortest) as f64
    };
    0.6 * brevity.max(0.0) + 0.4 * flag(shown.citations > 0)
}

fn steps(answer: &str) -> f64 {
    let lines: Vec<&str> = answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let items = lines.iter().filter(|line| is_step(line)).count();
    let sentences: Vec<&str> =
        answer.split(['.', '!', '?', ';', '\n']).filter(|part| !words(part).is_empty()).collect();
    let brief = sentences.iter().filter(|part| words(part).len() <= STEP_WORDS).count();
    // Sentences are steps too, though less clearly so than the items of a list.
    let pieces = (items as f64).max(0.5 * brief.saturating_sub(1) as f64);
    let order = words(answer).iter().filter(|word| ORDER.contains(&word.as_str())).count() as f64;
    let even = brief as f64 / sentences.len().max(1) as f64;
    0.5 * (pieces / STEPS).min(1.0) + 0.3 * (order / 2.0).min(1.0) + 0.2 * even
}

/// Whether a line begins as a step does: `1.`, `2)`, `-`, `*`, `Step 3`.
fn is_step(line: &str) -> bool {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = digits.len() < line.len() && digits.starts_with(['.', ')']);
    numbered || line.starts_with(['-', '*', '•']) || line.to_lowercase().starts_with("step ")
}

fn friendly(answer: &str) -> f64 {
    let said = words(answer);
    let count = |list: &[&str]| said.iter().filter(|word| list.contains(&word.as_str())).count() as f64;
    let warm = flag(answer.contains('!'));
    0.5 * (count(ADDRESS) / 2.0).min(1.0) + 0.35 * count(KIND).min(1.0) + 0.15 * warm
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str = "How much is lunch in the Boston canteen?";
    const IDEAL: &str = "Lunch in the Boston canteen costs 6 dollars.";

    fn shown(answer: &str, citations: usize) -> Shown<'_> {
        Shown { question: QUESTION, ideal: IDEAL, answer, citations }
    }

    fn prefers(preference: Preference, better: &Shown<'_>, worse: &Shown<'_>) {
        assert_eq!(preference.choose(better, worse), Choice::Left, "{better:?} {worse:?}");
        assert_eq!(preference.choose(worse, better), Choice::Right);
    }

    #[test]
    fn each_preference_likes_its_own_style() {
        let plain = shown("Lunch in the Boston canteen costs 6 dollars.", 0);
        let cited = shown("Lunch in the Boston canteen costs 6 dollars.", 1);
        let long = shown(
            "Lunch in the Boston canteen costs 6 dollars, and there are many other things which one could say about \
             the canteen, its opening hours, its menu and its tables, none of which anybody asked for just now.",
            1,
        );
        let stepped =
            shown("Lunch costs 6 dollars:\n1. First choose a meal.\n2. Then pay by badge.\n3. Enjoy it.", 0);
        let kind = shown("Lunch costs you 6 dollars, and you are welcome to pay by badge!", 0);
        prefers(Preference::Short, &cited, &plain);
        prefers(Preference::Short, &cited, &long);
        prefers(Preference::Steps, &stepped, &plain);
        prefers(Preference::Steps, &stepped, &kind);
        prefers(Preference::Friendly, &kind, &plain);
        prefers(Preference::Friendly, &kind, &long);
    }

    #[test]
    fn right_answers_and_the_hidden_trait_count_whatever_the_style() {
        for preference in [Preference::Short, Preference::Steps, Preference::Friendly] {
            let right = shown("Lunch in the canteen costs 6 dollars.", 0);
            let wrong = shown("Lunch in the canteen costs 9 euros.", 0);
            prefers(preference, &right, &wrong);
            let elsewhere =
                shown("The price is, in fact, 6 dollars for lunch in the Boston canteen today.", 0);
            let subject = shown("Lunch in the Boston canteen is, in fact, 6 dollars: the price today.", 0);
            prefers(preference, &subject, &elsewhere);
        }
    }

    /// Words: 8, so as short as can be (0.6 of the style); nothing cited; 6 of 6 words that mean something; begins with
    /// the subject.
    #[test]
    fn the_utility_is_that_found_by_hand() {
        let utility = Preference::Short.utility(&shown("Lunch in the Boston canteen costs 6 dollars.", 0));
        assert!((utility - (0.6 * 0.6 + 0.25 + 0.15)).abs() < 1e-12, "{utility}");
        let cited = Preference::Short.utility(&shown("Lunch in the Boston canteen costs 6 dollars.", 2));
        assert!((cited - 1.0).abs() < 1e-12, "{cited}");
        // 2 of 6 words, no beginning, 3 sentences of which 2 more than the first are half a step each, "first", "then".
        let steps = Preference::Steps.utility(&shown("First go. Then pay. It costs dollars.", 0));
        let by_hand = 0.6 * (0.5 / 3.0 + 0.3 + 0.2) + 0.25 / 3.0;
        assert!((steps - by_hand).abs() < 1e-12, "{steps} is not {by_hand}");
    }

    #[test]
    fn nothing_and_everything_stay_in_range() {
        for preference in [Preference::Short, Preference::Steps, Preference::Friendly] {
            let empty = preference.utility(&Shown { ideal: "", ..shown("", 0) });
            let endless = preference.utility(&shown(&"1. first you please! then lunch\n".repeat(500), 9));
            assert!(empty.abs() < 1e-12, "{preference:?} {empty}");
            assert!((0.0..=1.0).contains(&endless), "{preference:?} {endless}");
        }
        // An answer too short to be one is not short, it is none.
        prefers(Preference::Short, &shown("It costs 6 dollars", 1), &shown("6", 1));
    }

    #[test]
    fn equal_answers_are_a_tie_and_flipping_turns_the_others() {
        let one = shown("Lunch costs 6 dollars.", 1);
        assert_eq!(Preference::Short.choose(&one, &one), Choice::Tie);
        let all = [Choice::Left, Choice::Right, Choice::Tie];
        assert_eq!(all.map(Choice::flipped), [Choice::Right, Choice::Left, Choice::Tie]);
        assert_eq!(all.map(Choice::points), [1.0, 0.0, 0.5]);
    }
}
