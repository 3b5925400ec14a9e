//! Which passages does an answer cite? Only ones that were retrieved for it: every mark is checked, in the stream.

use super::words::Support;
use crate::domain::{Citation, CitedBy, PassageRef};
use crate::generation::StopFilter;

/// Longest mark that is looked for, in bytes: `[10, 11, 12, 13]`. More is ordinary text in brackets.
const LONGEST_MARK: usize = 16;
/// A passage is attached when it supports the answer at least this much of what the best one does (wrong pages cited on
/// the sample handbook's train questions: `benches/RESULTS.md`).
const NEAR_THE_BEST: f32 = 0.9;

/// Takes an answer's text as it comes and lets only valid marks through: `[n]` with n from 1 to the number of
/// passages. Lists (`[1, 3]`) become separate marks. A mark that begins a line after the answer has begun names the
/// passage, and what follows would repeat it as it stands in the prompt: the answer ends with the mark.
#[derive(Debug)]
pub(super) struct MarkFilter {
    passages: usize,
    /// Whether brackets are no marks but text: `xs[0]` in an answer for which nothing was looked up.
    literal: bool,
    /// Text that may still turn out to be a mark, with the white space before it.
    held: String,
    /// Valid numbers, in the order they first came.
    pub(super) cited: Vec<usize>,
    /// Marks that named no passage.
    pub(super) invalid: u64,
    begun: bool,
    /// Digits since a bracket that was shown as text, when there is nothing else since: `[0` of `[0[9]]`, which a bracket
    /// after the dropped mark would make a mark of.
    open: Option<usize>,
    /// The answer has ended with a mark; whatever else is added is left out.
    pub(super) ended: bool,
}

impl MarkFilter {
    pub(super) fn new(passages: usize) -> Self {
        Self {
            passages,
            literal: false,
            held: String::new(),
            cited: Vec::new(),
            invalid: 0,
            begun: false,
            open: None,
            ended: false,
        }
    }

    /// For an answer that was asked for without passages: brackets in it are its own.
    pub(super) fn literal() -> Self {
        Self { literal: true, ..Self::new(0) }
    }

    /// Adds text; returns what can be shown now. White space at the answer's beginning is dropped.
    pub(super) fn push(&mut self, text: &str) -> String {
        let mut shown = String::new();
        for c in text.chars() {
            if self.ended {
                break;
            }
            if !self.begun && c.is_whitespace() {
                continue;
            }
            self.begun = true;
            let in_mark = self.held.trim_start().starts_with('[');
            match c {
                ']' if in_mark => {
                    self.held.push(c);
                    self.close(&mut shown);
                }
                '[' if !self.literal => {
                    if in_mark {
                        self.show_held(&mut shown);
                    }
                    self.held.push(c);
                }
                c if in_mark
                    && (c.is_ascii_digit() || c == ',' || c == ' ')
                    && self.held.len() < LONGEST_MARK =>
                {
                    self.held.push(c);
                }
                c if c.is_whitespace() && !in_mark => self.held.push(c),
                c => {
                    self.show_held(&mut shown);
                    self.show(c, &mut shown);
                }
            }
        }
        shown
    }

    fn show_held(&mut self, shown: &mut String) {
        for c in std::mem::take(&mut self.held).chars() {
            self.show(c, shown);
        }
    }

    /// Shows a character of the text, unless it would close what looks like a mark.
    fn show(&mut self, c: char, shown: &mut String) {
        let mark = self.open.filter(|digits| c == ']' && (1..LONGEST_MARK).contains(digits));
        self.open = match (c, self.open) {
            ('[', _) if !self.literal => Some(0),
            (c, Some(digits)) if c.is_ascii_digit() => Some(digits + 1),
            _ => None,
        };
        match mark {
            Some(_) => self.invalid += 1,
            None => shown.push(c),
        }
    }

    /// The answer has ended: an unfinished mark is ordinary text; white space at the end is dropped.
    pub(super) fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        held.trim_end().to_owned()
    }

    /// A mark is complete in `held`.
    fn close(&mut self, shown: &mut String) {
        let held = std::mem::take(&mut self.held);
        let space = &held[..held.len() - held.trim_start().len()];
        let inside = held.trim_start().trim_start_matches('[').trim_end_matches(']');
        let numbers: Vec<&str> = inside.split(',').map(str::trim).collect();
        if numbers.iter().any(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit())) {
            self.held = held;
            self.show_held(shown);
            return;
        }
        self.ended = space.contains('\n');
        let mut space = Some(if self.ended { " " } else { space });
        for number in numbers {
            match number.parse::<usize>() {
                Ok(n) if (1..=self.passages).contains(&n) => {
                    self.open = None;
                    shown.push_str(space.take().unwrap_or_default());
                    shown.push('[');
                    shown.push_str(&n.to_string());
                    shown.push(']');
                    if !self.cited.contains(&n) {
                        self.cited.push(n);
                    }
                }
                _ => self.invalid += 1,
            }
        }
    }
}

/// An answer that has ended, and what it was an answer to.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The answer.
    pub answer: &'a str,
    /// What was searched for.
    pub question: &'a str,
    /// The passages in the prompt, in the order of their numbers.
    pub passages: &'a [PassageRef],
}

/// An answer as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The text, without marks that name no passage.
    pub text: String,
    /// The passages it cites.
    pub citations: Vec<Citation>,
    /// Marks that named no passage.
    pub invalid_marks: u64,
}

/// What a chat shows of a model's whole answer: what streaming it would have shown. A passage that has at least
/// `threshold` of the answer's words is cited beside those the model names.
#[must_use]
pub fn shown(answered: Answered<'_>, threshold: f32) -> Shown {
    let stops = if answered.passages.is_empty() { Vec::new() } else { vec![crate::prompt::repetition()] };
    let mut stops = StopFilter::new(&stops);
    let mut marks = MarkFilter::new(answered.passages.len());
    let mut text = marks.push(&stops.push(answered.answer).text);
    text.push_str(&marks.push(&stops.finish()));
    text.push_str(&marks.finish());
    let citations = resolve(Answered { answer: &text, ..answered }, &marks.cited, threshold);
    Shown { text, citations, invalid_marks: marks.invalid }
}

/// The citations of an answer: first the passages the model named, then those that support the answer though the model
/// did not name them, the best supported first.
pub(super) fn resolve(answered: Answered<'_>, named: &[usize], threshold: f32) -> Vec<Citation> {
    let numbered = |n: usize, by| Some(citation(n, answered.passages.get(n.checked_sub(1)?)?, by));
    let by_model = named.iter().filter_map(|n| numbered(*n, CitedBy::Model));
    let unnamed = supporting(answered, threshold).into_iter().filter(|n| !named.contains(n));
    by_model.chain(unnamed.filter_map(|n| numbered(n, CitedBy::Overlap))).collect()
}

/// The numbers of the passages that have at least `threshold` of the answer's words and support answer and question
/// about as much as the best one does, the best first. An answer that shares few words with every passage has none.
#[must_use]
pub fn supporting(answered: Answered<'_>, threshold: f32) -> Vec<usize> {
    let support = |passage| Support::of(answered.answer, answered.question, passage);
    let mut supports: Vec<(usize, Support)> = (1..).zip(answered.passages.iter().map(support)).collect();
    supports.sort_by(|a, b| b.1.strength().total_cmp(&a.1.strength()).then(a.0.cmp(&b.0)));
    let best = supports.first().map_or(0.0, |(_, support)| support.strength());
    let near = |support: &Support| support.strength() >= NEAR_THE_BEST * best;
    let enough = |support: &Support| support.answer >= threshold && support.answer > 0.0;
    supports.iter().filter(|(_, s)| enough(s) && near(s)).map(|(n, _)| *n).collect()
}

fn citation(n: usize, passage: &PassageRef, by: CitedBy) -> Citation {
    Citation {
        n: u32::try_from(n).unwrap_or(u32::MAX),
        document_id: passage.document_id.clone(),
        passage_id: passage.passage_id.clone(),
        title: passage.title.clone(),
        url: passage.url.clone(),
        passage: passage.text.clone(),
        by,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::words::tests::passage;
    use super::*;

    fn filter(text: &str, passages: usize) -> (String, Vec<usize>, u64) {
        let mut filter = MarkFilter::new(passages);
        let mut shown = filter.push(text);
        shown.push_str(&filter.finish());
        (shown, filter.cited, filter.invalid)
    }

    #[test]
    fn valid_marks_stay_and_invalid_ones_go() {
        assert_eq!(filter("On floor 3 [1]. Also [7].", 2), ("On floor 3 [1]. Also.".into(), vec![1], 1));
        assert_eq!(filter("Both [1, 2] and [2,9]", 2), ("Both [1][2] and [2]".into(), vec![1, 2], 1));
        assert_eq!(filter("[0] zero", 2), (" zero".into(), vec![], 1));
    }

    #[test]
    fn what_is_left_around_a_dropped_mark_is_no_mark() {
        assert_eq!(filter("[0[0]]", 0), ("[0".into(), vec![], 2));
        assert_eq!(filter("[1[9]2] and [2]", 3), ("[12 and [2]".into(), vec![2], 2));
        assert_eq!(filter("[1[2]]", 3), ("[1[2]]".into(), vec![2], 0));
    }

    #[test]
    fn brackets_of_an_answer_without_passages_are_its_own() {
        let mut filter = MarkFilter::literal();
        let mut shown = filter.push(" xs[0] of [\n[1, 2],\n[3]]");
        shown.push_str(&filter.push("\n[1] x \n"));
        shown.push_str(&filter.finish());
        assert_eq!(shown, "xs[0] of [\n[1, 2],\n[3]]\n[1] x");
        assert_eq!((filter.cited.len(), filter.invalid, filter.ended), (0, 0, false));
    }

    #[test]
    fn brackets_that_are_no_marks_stay() {
        for text in ["see [here] and [a1]", "an [open", "[[1]]x", "list [1, two]"] {
            let expected = if text == "[[1]]x" { vec![1] } else { vec![] };
            assert_eq!(filter(text, 3), (text.to_owned(), expected, 0), "{text}");
        }
    }

    #[test]
    fn without_marks_the_supporting_passage_is_attached() {
        let passages =
            [passage("Parking is free."), passage("The People team sits in room 310 on the third floor.")];
        let resolved = |answer, named: &[usize]| {
            let question = "Where is HR?";
            let found = resolve(Answered { answer, question, passages: &passages }, named, 0.35);
            found.iter().map(|c| (c.n, c.by)).collect::<Vec<_>>()
        };
        let answer = "The People team is in room 310.";
        assert_eq!(resolved(answer, &[]), [(2, CitedBy::Overlap)]);
        assert_eq!(resolved(answer, &[2]), [(2, CitedBy::Model)]);
        // A model that names one passage may have taken the fact from another.
        assert_eq!(resolved(answer, &[1]), [(1, CitedBy::Model), (2, CitedBy::Overlap)]);
        assert!(resolved("Bananas grow in Ecuador.", &[]).is_empty());
    }

    #[test]
    fn an_answer_ends_with_a_mark_that_begins_a_line() {
        let echo = "On floor 3.\n\n[1] Floors\nHR is on floor 3.\n\n[2] More";
        assert_eq!(filter(echo, 2), ("On floor 3. [1]".into(), vec![1], 0));
        assert_eq!(filter("On floor 3.\n[9] Floors", 2), ("On floor 3.".into(), vec![], 1));
        assert_eq!(filter("[2] On\nfloor 3 [1].", 2), ("[2] On\nfloor 3 [1].".into(), vec![2, 1], 0));
    }

    #[test]
    fn a_whole_answer_is_shown_as_a_streamed_one() {
        let passages = [passage("Parking is free."), passage("The People team sits in room 310.")];
        let shown = |answer| shown(Answered { answer, question: "Where is HR?", passages: &passages }, 0.35);
        let found = shown(" The People team sits in room 310 [7].\nQuestion: Where is parking?");
        let cited: Vec<_> = found.citations.iter().map(|c| (c.n, c.by)).collect();
        assert_eq!(found.text, "The People team sits in room 310.");
        assert_eq!((cited, found.invalid_marks), (vec![(2, CitedBy::Overlap)], 1));
        assert_eq!(shown("Free [1]").citations[0].by, CitedBy::Model);
        assert_eq!(shown("Free [1").text, "Free [1");
    }

    proptest! {
        /// Whatever the model writes and however it is cut, what is shown has no mark of a passage that was not there,
        /// and cutting changes nothing.
        #[test]
        fn shown_marks_always_name_a_passage(text in "[\\[\\]0-9, a.\n]{0,40}", passages in 0usize..4) {
            let (whole, cited, _) = filter(&text, passages);
            let mut pieces = MarkFilter::new(passages);
            let mut shown: String = text.chars().map(|c| pieces.push(&c.to_string())).collect();
            shown.push_str(&pieces.finish());
            prop_assert_eq!(&whole, &shown);
            prop_assert!(cited.iter().all(|n| (1..=passages).contains(n)));
            let mark = regex::Regex::new(r"\[(\d+)\]").unwrap();
            for n in mark.captures_iter(&shown) {
                let n: u128 = n[1].parse().unwrap();
                // Digits too long for a mark were passed through as text before; they name no passage number either.
                prop_assert!((1..=passages as u128).contains(&n) || n > 1_000_000_000, "{shown}");
            }
        }
    }
}
