//! How do sequences lie in a batch? End to end, without padding; a prompt that several completions share, once.

use std::ops::Range;

use super::attention::{Group, Span};

/// A beginning and the ways in which it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Tokens that come first; at least one.
    pub prompt: &'a [u32],
    /// What may follow.
    pub branches: &'a [Branch<'a>],
}

/// One way in which a text goes on.
#[derive(Debug, Clone, Copy)]
pub struct Branch<'a> {
    /// Tokens that are only read: the rest of a prompt of which others share the beginning.
    pub read: &'a [u32],
    /// Tokens whose log-probabilities are asked for, ended by the end-of-turn token if there is one.
    pub completion: &'a [u32],
}

impl<'a> Branch<'a> {
    /// A branch that is a completion from its first token.
    #[must_use]
    pub fn of(completion: &'a [u32]) -> Self {
        Self { read: &[], completion }
    }
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
        let start = self.tokens.len();
        self.rows(sequence.prompt, 0);
        let shared = start..self.tokens.len();
        let mut spans = vec![Span { rows: shared.clone(), prefix: 0..0 }];
        for branch in sequence.branches {
            let first = self.tokens.len();
            let read = branch.completion.len().saturating_sub(1);
            self.rows(branch.read, sequence.prompt.len());
            self.rows(&branch.completion[..read], sequence.prompt.len() + branch.read.len());
            if let ([whole], [_]) = (&mut spans[..], sequence.branches) {
                // Prompt and its only branch attend as one text.
                whole.rows.end = self.tokens.len();
            } else if self.tokens.len() > first {
                spans.push(Span { rows: first..self.tokens.len(), prefix: shared.clone() });
            }
            let before = if branch.read.is_empty() { shared.end - 1 } else { first + branch.read.len() - 1 };
            self.targets(branch.completion, before, first + branch.read.len());
        }
        self.groups.push(Group { rows: start..self.tokens.len(), spans });
    }

    /// Adds a text every token of which, but the first, is a target.
    pub fn push_text(&mut self, tokens: &[u32]) {
        if let Some((first, rest)) = tokens.split_first() {
            self.push(Sequence { prompt: &[*first], branches: &[Branch::of(rest)] });
        }
    }

    fn rows(&mut self, tokens: &[u32], position: usize) {
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position as u32..).take(tokens.len()));
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
