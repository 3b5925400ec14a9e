//! How do sequences lie in a batch? End to end, without padding; what several prompts begin with, and a prompt that several
//! completions share, once.

use std::ops::Range;

use super::attention::{Group, Span};

/// A beginning and the ways in which it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Tokens that come first; at least one.
    pub prompt: &'a [u32],
    /// What may follow: tokens whose log-probabilities are asked for, ended by the end-of-turn token if there is one.
    pub completions: &'a [&'a [u32]],
}

/// A token whose log-probability is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The row whose output predicts it.
    pub row: usize,
    /// The token.
    pub token: u32,
}

/// Sequences laid end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token of each row.
    pub(crate) tokens: Vec<u32>,
    /// Position of each row in its own sequence.
    pub(crate) positions: Vec<u32>,
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<Target>,
    /// Of each completion pushed, its range of targets.
    pub(crate) completions: Vec<Range<usize>>,
}

impl Batch {
    /// Adds a prompt and what follows it. Every completion token is a target: the first is predicted by the row before
    /// it. The last token of each is predicted, not read, and so has no row.
    pub fn push(&mut self, sequence: Sequence<'_>) {
        self.push_sharing(&[sequence], 0);
    }

    /// Adds sequences as [`Self::push`] does; the `shared` tokens with which all their prompts begin are read once. Gives
    /// the rows of each prompt: the shared ones, then its own.
    pub fn push_sharing(&mut self, sequences: &[Sequence<'_>], shared: usize) -> Vec<[Range<usize>; 2]> {
        let beginning = sequences.first().map_or(&[][..], |first| &first.prompt[..shared]);
        let common = self.rows(beginning, 0);
        let mut spans = Vec::new();
        if !common.is_empty() {
            spans.push(Span { rows: common.clone(), prefix: Vec::new() });
        }
        let lay = |sequence: &Sequence<'_>| [common.clone(), self.lay(*sequence, &common, &mut spans)];
        let rows = sequences.iter().map(lay).collect();
        self.groups.push(Group { spans });
        rows
    }

    /// Adds a sequence of which the rows `common` are there already; gives those of the rest of its prompt.
    fn lay(&mut self, sequence: Sequence<'_>, common: &Range<usize>, spans: &mut Vec<Span>) -> Range<usize> {
        let Sequence { prompt, completions } = sequence;
        let own = self.rows(&prompt[common.len()..], common.len());
        let last = if own.is_empty() { common.end } else { own.end } - 1;
        let some = |rows: &[&Range<usize>]| -> Vec<Range<usize>> {
            rows.iter().copied().filter(|rows| !rows.is_empty()).cloned().collect()
        };
        if !own.is_empty() {
            spans.push(Span { rows: own.clone(), prefix: some(&[common]) });
        }
        for completion in completions {
            let read = self.rows(&completion[..completion.len().saturating_sub(1)], prompt.len());
            match (spans.last_mut(), completions) {
                // A prompt and its only completion attend as one text.
                (Some(whole), [_]) if !own.is_empty() => whole.rows.end = read.end,
                _ if read.is_empty() => {}
                _ => spans.push(Span { rows: read.clone(), prefix: some(&[common, &own]) }),
            }
            self.targets(completion, last, read.start);
        }
        own
    }

    /// Adds a text every token of which, but the first, is a target.
    pub fn push_text(&mut self, tokens: &[u32]) {
        if let Some((first, rest)) = tokens.split_first() {
            self.push(Sequence { prompt: &[*first], completions: &[rest] });
        }
    }

    /// Adds tokens, the first of them at `position` of its sequence; gives their rows.
    fn rows(&mut self, tokens: &[u32], position: usize) -> Range<usize> {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position as u32..).take(tokens.len()));
        start..self.tokens.len()
    }

    /// `before` predicts the first token, `first` is the row of that token.
    fn targets(&mut self, completion: &[u32], before: usize, first: usize) {
        let start = self.targets.len();
        let rows = std::iter::once(before).chain(first..);
        self.targets.extend(rows.zip(completion).map(|(row, &token)| Target { row, token }));
        self.completions.push(start..self.targets.len());
    }

    /// Number of rows: tokens that are read.
    #[must_use]
    pub fn rows_len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens whose log-probabilities a pass gives, in its order.
    #[must_use]
    pub fn targets_slice(&self) -> &[Target] {
        &self.targets
    }

    /// Of each completion in the order pushed, which targets are its own.
    #[must_use]
    pub fn completions(&self) -> &[Range<usize>] {
        &self.completions
    }
}
