//! How do sequences lie in a batch? End to end, without padding; a prompt that several completions share, once.

use std::ops::Range;

use super::attention::{Group, Span};

/// A prompt and what may follow it.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Tokens that come first; at least one.
    pub prompt: &'a [u32],
    /// Tokens that follow, each a completion of its own, ended by its end-of-turn token if it has one.
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
    /// Adds a prompt and its completions. Every completion token is a target: the first is predicted by the prompt's
    /// last row. The last token of each is predicted, not read, and so has no row.
    pub fn push(&mut self, sequence: Sequence<'_>) {
        let start = self.tokens.len();
        let prompt = sequence.prompt.len();
        let mut spans = Vec::new();
        if let [only] = sequence.completions {
            // One span: the prompt's rows and the completion's attend as one text.
            self.rows(sequence.prompt, 0);
            self.rows(&only[..only.len().saturating_sub(1)], prompt);
            spans.push(Span { rows: start..self.tokens.len(), prefix: 0..0 });
            self.targets(only, start + prompt - 1, start + prompt);
        } else {
            self.rows(sequence.prompt, 0);
            let shared = start..self.tokens.len();
            spans.push(Span { rows: shared.clone(), prefix: 0..0 });
            for completion in sequence.completions {
                let first = self.tokens.len();
                self.rows(&completion[..completion.len().saturating_sub(1)], prompt);
                if self.tokens.len() > first {
                    spans.push(Span { rows: first..self.tokens.len(), prefix: shared.clone() });
                }
                self.targets(completion, shared.end - 1, first);
            }
        }
        self.groups.push(Group { rows: start..self.tokens.len(), spans });
    }

    /// Adds a text every token of which, but the first, is a target.
    pub fn push_text(&mut self, tokens: &[u32]) {
        if let Some((first, rest)) = tokens.split_first() {
            self.push(Sequence { prompt: &[*first], completions: &[rest] });
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
