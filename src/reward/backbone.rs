//! What does a frozen language model make of an answer? How likely it finds it, and the directions in which its hidden
//! states of answers differ most.

use super::logistic::dot;
use super::{Backbone, Item, RewardError};
use crate::domain::{Author, Message};
use crate::models::Codec;
use crate::nn::{Batch, Pass, Sequence};

/// Most tokens of a prompt; longer ones lose their beginning. What is compared is the answers, and a prompt costs as
/// much as an answer of the same length.
const PROMPT_TOKENS: usize = 256;
/// Most tokens of an answer that are read.
const ANSWER_TOKENS: usize = 512;
/// Directions of hidden states that become features: as many as there are interpretable ones, for some hundred pairs.
pub(super) const DIRECTIONS: usize = 32;
/// Rounds of the power method; the directions need not be exact, only the same every time.
const ROUNDS: usize = 12;
/// What is known of an answer besides its hidden state.
const LIKELIHOODS: usize = 3;

/// What the model makes of one answer: its mean log-probability (nats a token), that of its least likely token, the mean
/// entropy, then the hidden state at its end and the mean over its tokens (both after the last norm).
pub(super) type State = Vec<f64>;

/// A map from states to features.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Projection {
    /// Of states' numbers, over the training answers.
    pub(super) mean: Vec<f64>,
    /// Directions × hidden numbers, orthonormal.
    pub(super) directions: Vec<Vec<f64>>,
    /// Standard deviation of each feature between two answers to one question.
    pub(super) deviation: Vec<f64>,
}

/// A prompt and an answer, tokenised and cut.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) prompt: Vec<u32>,
    /// With the end of the turn, and a token behind it, so that the end is read too.
    pub(super) answer: Vec<u32>,
}

impl Read {
    pub(super) fn tokens(&self) -> usize {
        self.prompt.len() + self.answer.len()
    }
}

impl Backbone {
    /// States of answers, in order. Answers to one prompt that follow each other share the prompt's pass.
    pub(super) fn states(&self, items: &[Item<'_>]) -> Result<Vec<State>, RewardError> {
        let tokens = items.iter().map(|item| self.read(item)).collect::<Result<Vec<_>, _>>()?;
        let mut states = Vec::with_capacity(items.len());
        for group in tokens.chunk_by(|a, b| a.prompt == b.prompt) {
            let completions: Vec<&[u32]> = group.iter().map(|tokens| tokens.answer.as_slice()).collect();
            let mut batch = Batch::default();
            batch.push(Sequence { prompt: &group[0].prompt, completions: &completions });
            let pass = Pass { frozen: true, ..Pass::default() };
            let (hidden, scores) = self.decoder.hidden_and_scores(&batch, pass)?;
            let rows = hidden.to_vec2::<f32>()?;
            let (log_p, entropy) = (scores.log_probabilities.to_vec1::<f32>()?, scores.entropy());
            for range in batch.completions() {
                // The last target is the token behind the end.
                let said = range.start..range.end - 1;
                let targets = &batch.targets_slice()[range.start + 1..range.end];
                // The row that predicts the next token is the one that read this.
                let read: Vec<&[f32]> = targets.iter().map(|target| rows[target.row].as_slice()).collect();
                states.push(state(&log_p[said.clone()], &entropy[said], &read));
            }
        }
        Ok(states)
    }

    /// Names what the states depend on besides the texts.
    pub(super) fn version(&self) -> Result<String, RewardError> {
        let weights = self.decoder.fingerprint()?;
        Ok(format!("{weights} {} {PROMPT_TOKENS} {ANSWER_TOKENS}", self.codec.template_hash()))
    }

    /// How many numbers a state has.
    pub(super) fn state_len(&self) -> usize {
        LIKELIHOODS + 2 * self.decoder.architecture().width
    }

    /// Refuses answers to be scored that do not fit the model's context.
    pub(super) fn check(&self, items: &[Item<'_>]) -> Result<(), RewardError> {
        let limit = self.codec.context_tokens();
        for (index, item) in items.iter().enumerate() {
            let tokens = self.codec.tokenize(item.answer).len();
            if tokens > limit {
                return Err(RewardError::LongAnswer { index, tokens, limit });
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, item: &Item<'_>) -> Result<Read, RewardError> {
        let messages = asked(item);
        let prompt = self.codec.render(&messages)?;
        let mut answer = self.codec.completion(&messages, item.answer)?;
        let end = self.codec.end_of_turn();
        if answer.len() > ANSWER_TOKENS {
            answer.truncate(ANSWER_TOKENS - 1);
            answer.push(end);
        }
        answer.push(end);
        let start = prompt.len().saturating_sub(PROMPT_TOKENS);
        Ok(Read { prompt: prompt[start..].to_vec(), answer })
    }
}

/// The conversation, with the passages before the question they are for.
fn asked(item: &Item<'_>) -> Vec<Message> {
    let mut messages = item.conversation.to_vec();
    if let Some(last) =
        messages.last_mut().filter(|last| last.role == Author::User && !item.passages.is_empty())
    {
        last.content = format!("{}\n\n{}", item.passages.join("\n\n"), last.content);
    }
    messages
}

fn state(log_p: &[f32], entropy: &[f32], rows: &[&[f32]]) -> State {
    let n = log_p.len().max(1) as f64;
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
    let least = log_p.iter().copied().fold(0.0, f32::min);
    let mut found = vec![sum(log_p) / n, f64::from(least), sum(entropy) / n];
    found.extend(rows.last().into_iter().flat_map(|row| row.iter().map(|value| f64::from(*value))));
    let width = rows.first().map_or(0, |row| row.len());
    found.extend(
        (0..width).map(|i| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64),
    );
    found
}

impl Projection {
    /// The directions in which these answers' states differ most (principal components); the first `2 · pairs` are
    /// those of pairs.
    pub(super) fn of(states: &[State], pairs: usize) -> Self {
        let size = states.first().map_or(0, Vec::len);
        let n = states.len().max(1) as f64;
        let mean: Vec<f64> =
            (0..size).map(|i| states.iter().map(|state| state[i]).sum::<f64>() / n).collect();
        let hidden: Vec<Vec<f64>> =
            states.iter().map(|state| centred(state, &mean)[LIKELIHOODS..].to_vec()).collect();
        let directions = components(&hidden, DIRECTIONS.min(states.len() / 2));
        let mut found = Self { mean, deviation: vec![1.0; LIKELIHOODS + directions.len()], directions };
        let features: Vec<Vec<f64>> = states[..2 * pairs].iter().map(|state| found.apply(state)).collect();
        for i in 0..found.deviation.len() {
            let squares = features.chunks_exact(2).map(|pair| (pair[0][i] - pair[1][i]).powi(2));
            let apart = (squares.sum::<f64>() / (2 * pairs).max(1) as f64).sqrt();
            found.deviation[i] = if apart > 1e-9 { apart } else { 1.0 };
        }
        found
    }

    /// What was saved; none when the lists do not fit each other.
    pub(super) fn of_numbers(mean: Vec<f64>, directions: &[f64], deviation: Vec<f64>) -> Option<Self> {
        let hidden = mean.len().checked_sub(LIKELIHOODS).filter(|hidden| *hidden > 0)?;
        let directions: Vec<Vec<f64>> = directions.chunks(hidden).map(<[f64]>::to_vec).collect();
        let fits = directions.iter().all(|direction| direction.len() == hidden);
        let fits = fits && deviation.len() == LIKELIHOODS + directions.len();
        fits.then_some(Self { mean, directions, deviation })
    }

    /// How many features a state gives.
    pub(super) fn len(&self) -> usize {
        LIKELIHOODS + self.directions.len()
    }

    /// Features of one answer.
    pub(super) fn apply(&self, state: &State) -> Vec<f64> {
        let state = centred(state, &self.mean);
        let (likelihoods, hidden) = state.split_at(LIKELIHOODS);
        let along = self.directions.iter().map(|direction| dot(direction, hidden));
        let features = likelihoods.iter().copied().chain(along);
        features.zip(&self.deviation).map(|(value, deviation)| (value / deviation).clamp(-5.0, 5.0)).collect()
    }
}

fn centred(state: &State, mean: &[f64]) -> Vec<f64> {
    state.iter().zip(mean).map(|(value, mean)| value - mean).collect()
}

/// The first principal components of centred rows, by the power method on all of them at once. It begins with rows
/// themselves, so that no random numbers are needed.
fn components(rows: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    let every = (rows.len() / count.max(1)).max(1);
    let mut found: Vec<Vec<f64>> = rows.iter().step_by(every).take(count).cloned().collect();
    orthonormalise(&mut found);
    for _ in 0..ROUNDS {
        let mut next = vec![vec![0.0; rows.first().map_or(0, Vec::len)]; found.len()];
        for row in rows {
            for (direction, next) in found.iter().zip(&mut next) {
                let along = dot(direction, row);
                next.iter_mut().zip(row).for_each(|(next, value)| *next += along * value);
            }
        }
        found = next;
        orthonormalise(&mut found);
    }
    found
}

/// Gram and Schmidt's method; a direction that depends on the ones before becomes zero.
fn orthonormalise(directions: &mut [Vec<f64>]) {
    for i in 0..directions.len() {
        let (before, rest) = directions.split_at_mut(i);
        let direction = &mut rest[0];
        let length = dot(direction, direction).sqrt();
        for other in before {
            let along = dot(direction, other);
            direction.iter_mut().zip(other.iter()).for_each(|(value, other)| *value -= along * other);
        }
        let left = dot(direction, direction).sqrt();
        let scale = if left > 1e-9 * length { left.recip() } else { 0.0 };
        direction.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points along two axes, the first with three times the spread of the second.
    #[test]
    fn components_are_the_directions_of_largest_spread() {
        let rows: Vec<Vec<f64>> = (0..40)
            .map(|i| {
                let (a, b) = (3.0 * f64::from(i % 5 - 2), f64::from(i / 5) - 3.5);
                vec![0.6 * a, 0.8 * a, b, 0.0]
            })
            .collect();
        let found = components(&rows, 2);
        let first = dot(&found[0], &[0.6, 0.8, 0.0, 0.0]).abs();
        let second = found[1][2].abs();
        assert!(first > 0.999 && second > 0.999, "{found:?}");
        assert!(dot(&found[0], &found[1]).abs() < 1e-9);
    }
}
