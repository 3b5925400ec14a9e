//! Which passages does an answer cite? Only ones that were retrieved for it: every mark is checked, in the stream.

use super::words::overlap;
use crate::domain::{Citation, CitedBy, PassageRef};

/// Longest mark that is looked for, in bytes: `[10, 11, 12, 13]`. More is ordinary text in brackets.
const LONGEST_MARK: usize = 16;

/// Takes an answer's text as it comes and lets only valid marks through: `[n]` with n from 1 to the number of
/// passages. Lists (`[1, 3]`) become separate marks.
#[derive(Debug)]
pub(super) struct MarkFilter {
    passages: usize,
    /// Text that may still turn out to be a mark, with the white space before it.
    held: String,
    /// Valid numbers, in the order they first came.
    pub(super) cited: Vec<usize>,
    /// Marks that named no passage.
    pub(super) invalid: u64,
    begun: bool,
}

impl MarkFilter {
    pub(super) fn new(passages: usize) -> Self {
        Self { passages, held: String::new(), cited: Vec::new(), invalid: 0, begun: false }
    }

    /// Adds text; returns what can be shown now. White space at the answer's beginning is dropped.
    pub(super) fn push(&mut self, text: &str) -> String {
        let mut shown = String::new();
        for c in text.chars() {
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
                '[' => {
                    if in_mark {
                        shown.push_str(&std::mem::take(&mut self.held));
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
                    shown.push_str(&std::mem::take(&mut self.held));
                    shown.push(c);
                }
            }
        }
        shown
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
            shown.push_str(&held);
            return;
        }
        let mut space = Some(space);
        for number in numbers {
            match number.parse::<usize>() {
                Ok(n) if (1..=self.passages).contains(&n) => {
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

/// The citations of an answer: the passages the model named, or, when it named none, those which have at least
/// `threshold` of the answer's words, the best supported first.
pub(super) fn resolve(
    answer: &str,
    cited: &[usize],
    passages: &[PassageRef],
    threshold: f32,
) -> Vec<Citation> {
    if !cited.is_empty() {
        let named = cited.iter().filter_map(|n| Some((*n, passages.get(n.checked_sub(1)?)?)));
        return named.map(|(n, passage)| citation(n, passage, CitedBy::Model)).collect();
    }
    let supports = |passage: &PassageRef| overlap(answer, &format!("{} {}", passage.title, passage.text));
    let mut scored: Vec<(usize, f32)> = (1..).zip(passages.iter().map(supports)).collect();
    scored.retain(|(_, share)| *share >= threshold && *share > 0.0);
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.into_iter().map(|(n, _)| citation(n, &passages[n - 1], CitedBy::Overlap)).collect()
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

    use super::*;
    use crate::domain::DocumentId;

    fn filter(text: &str, passages: usize) -> (String, Vec<usize>, u64) {
        let mut filter = MarkFilter::new(passages);
        let mut shown = filter.push(text);
        shown.push_str(&filter.finish());
        (shown, filter.cited, filter.invalid)
    }

    fn passage(text: &str) -> PassageRef {
        PassageRef {
            document_id: DocumentId::parse("d").unwrap(),
            passage_id: "d#0".into(),
            title: "T".into(),
            url: None,
            text: text.into(),
            score: 1.0,
        }
    }

    #[test]
    fn valid_marks_stay_and_invalid_ones_go() {
        assert_eq!(filter("On floor 3 [1]. Also [7].", 2), ("On floor 3 [1]. Also.".into(), vec![1], 1));
        assert_eq!(filter("Both [1, 2] and [2,9]", 2), ("Both [1][2] and [2]".into(), vec![1, 2], 1));
        assert_eq!(filter("[0] zero", 2), (" zero".into(), vec![], 1));
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
        let found = resolve("The People team is in room 310.", &[], &passages, 0.5);
        assert_eq!(found.iter().map(|c| (c.n, c.by)).collect::<Vec<_>>(), [(2, CitedBy::Overlap)]);
        assert!(resolve("Bananas grow in Ecuador.", &[], &passages, 0.5).is_empty());
    }

    proptest! {
        /// Whatever the model writes and however it is cut, what is shown has no mark of a passage that was not there,
        /// and cutting changes nothing.
        #[test]
        fn shown_marks_always_name_a_passage(text in "[\\[\\]0-9, a.]{0,40}", passages in 0usize..4) {
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
