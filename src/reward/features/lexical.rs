//! Which of the answer's words, numbers and names stand in question and passages?

use std::collections::{HashMap, HashSet};

use super::{Reading, names, numbers, sentences, term_set, terms};
use crate::evaluation::statistics::mean_or_zero;

/// The feature that alone says how grounded an answer is.
pub(in crate::reward) const GROUNDED: &str = "answer words in passages";

pub(super) const NAMES: [&str; 27] = [
    "question words in answer",
    "answer words in question",
    GROUNDED,
    "answer words in best passage",
    "passage words in answer",
    "weighted answer words in passages",
    "answer pairs of words in passages",
    "answer triples of words in passages",
    "claim words in best sentence, least",
    "claim words in best sentence, mean",
    "claim words in best three sentences, least",
    "numbers in passages",
    "unsupported numbers",
    "names in passages",
    "unsupported names",
    "asked-for kind of word",
    "question sentence words in answer",
    "answer words in question sentences",
    "question words beside the answer's",
    "first sentence answers",
    "numbers near the question's words",
    "new words beside the question",
    "shows a source",
    "unsupported words",
    "unsupported pairs of words",
    "unsupported claims",
    "answer words in first passage",
];

/// Share of an answer's words from which a passage is shown as its source though the answer does not name it, as in chat
/// (`generation.citation_overlap`): people see the source, not who named it.
const SHOWN: f64 = 0.35;

/// A claim rests on a passage sentence that has as many of its words: of five at least three.
const SUPPORTED: f64 = 0.6;

/// Passage sentences that say most about the question.
const FOCUS: usize = 3;

/// An item's words.
pub(super) struct Lexical {
    question: HashSet<String>,
    answer: HashSet<String>,
    /// In order, with repetitions.
    answer_terms: Vec<String>,
    passages: Vec<HashSet<String>>,
    passage_terms: Vec<String>,
    /// Of each passage sentence.
    evidence: Vec<HashSet<String>>,
    /// Of each answer sentence.
    claims: Vec<HashSet<String>>,
    /// In how many passage sentences a term stands.
    frequency: HashMap<String, usize>,
    numbers: (HashSet<String>, HashSet<String>),
    names: (HashSet<String>, HashSet<String>),
    /// Of the passages and the conversation: of an answer's other words, what was invented is among them.
    known: HashSet<String>,
    kind: f64,
    /// Whether the answer had passages, and names one.
    grounded: bool,
    cites: bool,
}

impl Lexical {
    pub(super) fn of(reading: &Reading<'_>) -> Self {
        let all = reading.passages.join("\n");
        let evidence: Vec<HashSet<String>> =
            reading.passage_sentences.iter().map(|sentence| term_set(sentence)).collect();
        let mut frequency = HashMap::new();
        for term in evidence.iter().flatten() {
            *frequency.entry(term.clone()).or_insert(0) += 1;
        }
        let known = format!("{all}\n{}", reading.said.join("\n"));
        Self {
            question: term_set(reading.question),
            answer: term_set(&reading.answer),
            known: term_set(&known),
            answer_terms: terms(&reading.answer),
            passages: reading.passages.iter().map(|passage| term_set(passage)).collect(),
            passage_terms: terms(&all),
            claims: sentences(&reading.answer).into_iter().map(term_set).collect(),
            evidence,
            frequency,
            numbers: (numbers(&reading.answer), numbers(&known)),
            names: (names(&reading.answer), lower_words(&known)),
            kind: kind(reading.question, &reading.answer),
            grounded: reading.grounded,
            cites: reading.valid_marks() > 0,
        }
    }

    /// In the order of [`NAMES`].
    pub(super) fn features(&self) -> impl Iterator<Item = f64> {
        let all: HashSet<String> = self.passages.iter().flatten().cloned().collect();
        let best = self.passages.iter().map(|passage| share(&self.answer, passage)).fold(0.0, f64::max);
        let claims: Vec<f64> = self.claims.iter().map(|claim| self.support(claim, 1)).collect();
        let wider: Vec<f64> = self.claims.iter().map(|claim| self.support(claim, 3)).collect();
        let focus = self.focus();
        let new: HashSet<String> = self.answer.difference(&self.question).cloned().collect();
        let [pairs, triples] = [2, 3].map(|n| Runs::of(&self.answer_terms, &self.passage_terms, n));
        [
            share(&self.question, &self.answer),
            share(&self.answer, &self.question),
            share(&self.answer, &all),
            best,
            share(&all, &self.answer),
            self.weighted(&self.answer, &all),
            pairs.copied(),
            triples.copied(),
            least(&claims),
            mean_or_zero(&claims),
            least(&wider),
            share_or_one(&self.numbers.0, &self.numbers.1),
            missing(&self.numbers.0, &self.numbers.1),
            share_or_one(&self.names.0, &self.names.1),
            missing(&self.names.0, &self.names.1),
            self.kind,
            share(&focus, &self.answer),
            share(&self.answer, &focus),
            self.beside(&new),
            self.claims.first().map_or(0.0, |claim| share(&self.question, claim)),
            self.beside(&self.numbers.0),
            share(&new, &all),
            f64::from(u8::from(self.grounded && (self.cites || best >= SHOWN))),
        ]
        .into_iter()
        .chain(self.unsupported(&claims, &pairs))
    }

    /// How much of the answer rests on nothing, and on the passage found first. Without passages all of it rests on nothing,
    /// and that is the answer's length once more, so then it says nothing.
    fn unsupported(&self, claims: &[f64], pairs: &Runs) -> [f64; 4] {
        if !self.grounded {
            return [0.0; 4];
        }
        let first = self.passages.first().map_or(0.0, |passage| share(&self.answer, passage));
        let alone = claims.iter().filter(|support| **support < SUPPORTED).count();
        [missing(&self.answer, &self.known), (pairs.new as f64).ln_1p(), (alone as f64).ln_1p(), first]
    }

    /// Share of a claim's words in the `together` passage sentences in a row that have most of them.
    fn support(&self, claim: &HashSet<String>, together: usize) -> f64 {
        let window = |window: &[HashSet<String>]| {
            let found = claim.iter().filter(|term| window.iter().any(|sentence| sentence.contains(*term)));
            found.count() as f64 / claim.len().max(1) as f64
        };
        if self.evidence.len() < together {
            return window(&self.evidence);
        }
        self.evidence.windows(together).map(window).fold(0.0, f64::max)
    }

    /// Rare words say more: share by ln(1 + sentences / sentences with the word).
    fn weighted(&self, of: &HashSet<String>, among: &HashSet<String>) -> f64 {
        let (mut found, mut total) = (0.0, 0.0);
        let mut sorted: Vec<&String> = of.iter().collect();
        // Sums of floats depend on their order.
        sorted.sort();
        for term in sorted {
            let weight = self.weight(term);
            total += weight;
            if among.contains(term) {
                found += weight;
            }
        }
        if total > 0.0 { found / total } else { 0.0 }
    }

    fn weight(&self, term: &str) -> f64 {
        let frequency = self.frequency.get(term).copied().unwrap_or(0);
        (1.0 + self.evidence.len() as f64 / (frequency as f64 + 0.5)).ln()
    }

    /// The words of the passage sentences that say most about the question.
    fn focus(&self) -> HashSet<String> {
        let mut order: Vec<(f64, usize)> =
            self.evidence.iter().map(|s| self.weighted(&self.question, s)).zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.iter().take(FOCUS).flat_map(|(_, i)| self.evidence[*i].iter().cloned()).collect()
    }

    /// Of the passage sentences that have a word of these, the mean share of the question's words they have.
    fn beside(&self, terms: &HashSet<String>) -> f64 {
        let mut shares = Vec::new();
        for term in terms {
            let holding = self.evidence.iter().filter(|sentence| sentence.contains(term));
            let best = holding.map(|sentence| self.weighted(&self.question, sentence)).fold(0.0, f64::max);
            shares.push(best);
        }
        shares.sort_by(f64::total_cmp);
        mean_or_zero(&shares)
    }
}

fn lower_words(text: &str) -> HashSet<String> {
    super::super::text::words(text).into_iter().collect()
}

/// Whether the answer has the kind of word the question asks for: 1 yes, 0 no or nothing in particular.
fn kind(question: &str, answer: &str) -> f64 {
    let question = question.to_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| question.contains(word));
    let has = if starts(&["when", "what year", "how many", "how much", "how long", "how old", "what date"]) {
        !numbers(answer).is_empty()
    } else if starts(&["who", "where", "which", "whose"]) {
        !names(answer).is_empty()
    } else if starts(&["why"]) {
        let answer = answer.to_lowercase();
        ["because", "due to", "since", "so that", "in order to"].iter().any(|word| answer.contains(word))
    } else {
        false
    };
    f64::from(u8::from(has))
}

fn share(of: &HashSet<String>, among: &HashSet<String>) -> f64 {
    if of.is_empty() { 0.0 } else { of.intersection(among).count() as f64 / of.len() as f64 }
}

fn share_or_one(of: &HashSet<String>, among: &HashSet<String>) -> f64 {
    if of.is_empty() { 1.0 } else { share(of, among) }
}

/// ln(1 + how many are missing).
fn missing(of: &HashSet<String>, among: &HashSet<String>) -> f64 {
    (of.difference(among).count() as f64).ln_1p()
}

/// An answer's terms, taken some in a row.
struct Runs {
    all: usize,
    /// Of them, those that do not stand so in the passages.
    new: usize,
}

impl Runs {
    fn of(terms: &[String], passages: &[String], n: usize) -> Self {
        let known: HashSet<&[String]> = passages.windows(n).collect();
        let runs = terms.windows(n);
        Self { all: runs.len(), new: runs.filter(|run| !known.contains(run)).count() }
    }

    /// Share that stands so in the passages; 0 of none.
    fn copied(&self) -> f64 {
        (self.all - self.new) as f64 / self.all.max(1) as f64
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or(0.0)
}
