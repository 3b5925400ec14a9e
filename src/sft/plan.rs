//! Which examples come in which step, and how do they lie in memory? A seeded order for each pass over the data.

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use super::{Example, Settings};
use crate::nn::{Batch, Branch, Sequence};

/// The order of everything.
pub(super) struct Plan<'a> {
    examples: Vec<&'a Example>,
    left_out: usize,
    batch: usize,
    epochs: u64,
    seed: u64,
}

impl<'a> Plan<'a> {
    pub(super) fn new(examples: &'a [Example], settings: &Settings) -> Self {
        let fits = |example: &&Example| {
            !example.prompt.is_empty()
                && !example.completion.is_empty()
                && example.tokens() <= settings.max_sequence_tokens
        };
        let fitting: Vec<&Example> = examples.iter().filter(fits).collect();
        Self {
            left_out: examples.len() - fitting.len(),
            examples: fitting,
            batch: settings.batch.max(1),
            epochs: u64::from(settings.epochs),
            seed: settings.seed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.examples.is_empty() || self.epochs == 0
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.batch) as u64
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps_per_epoch() * self.epochs
    }

    /// The examples of step `step`, from 0.
    pub(super) fn batch(&self, step: u64) -> Vec<&'a Example> {
        let epoch = step / self.steps_per_epoch();
        let mut order = self.examples.clone();
        order.shuffle(&mut StdRng::seed_from_u64(self.seed.wrapping_add(epoch.wrapping_mul(0x9e37_79b9))));
        let first = (step % self.steps_per_epoch()) as usize * self.batch;
        order[first..order.len().min(first + self.batch)].to_vec()
    }

    /// Hash of the examples and of the text of the settings.
    pub(super) fn fingerprint(&self, settings: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(settings);
        for tokens in self.examples.iter().flat_map(|example| [&example.prompt, &example.completion]) {
            hash.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        }
        hex::encode(&hash.finalize()[..16])
    }
}

/// Splits examples, in order, into parts of at most `tokens` rows, or one example where that has more. What all prompts
/// begin with counts once: [`pack`] reads it once.
pub(super) fn passes<'e, 'a>(examples: &'e [&'a Example], tokens: usize) -> Vec<&'e [&'a Example]> {
    let shared = shared(examples);
    let (mut parts, mut start, mut sum) = (Vec::new(), 0, shared);
    for (i, example) in examples.iter().enumerate() {
        let own = example.tokens() - shared;
        if i > start && sum + own > tokens {
            parts.push(&examples[start..i]);
            (start, sum) = (i, shared);
        }
        sum += own;
    }
    if start < examples.len() {
        parts.push(&examples[start..]);
    }
    parts
}

/// Tokens that all prompts begin with; none where that is not worth a span of its own.
fn shared(examples: &[&Example]) -> usize {
    // A span costs about as much as reading a few tokens again.
    const WORTH: usize = 8;
    let Some((first, rest)) = examples.split_first().filter(|(_, rest)| !rest.is_empty()) else { return 0 };
    let shared = rest.iter().fold(first.prompt.len(), |shared, other| {
        let both = first.prompt.iter().zip(&other.prompt);
        shared.min(both.take_while(|(a, b)| a == b).count())
    });
    if shared < WORTH { 0 } else { shared }
}

/// Lays examples into a batch. What all their prompts begin with (the instructions) is read once.
pub(super) fn pack(examples: &[&Example]) -> Batch {
    let mut batch = Batch::default();
    let shared = shared(examples);
    let Some(first) = examples.first().filter(|_| shared > 0) else {
        for example in examples {
            batch.push(Sequence { prompt: &example.prompt, branches: &[Branch::of(&example.completion)] });
        }
        return batch;
    };
    let branches: Vec<Branch<'_>> = examples
        .iter()
        .map(|example| Branch { read: &example.prompt[shared..], completion: &example.completion })
        .collect();
    batch.push(Sequence { prompt: &first.prompt[..shared], branches: &branches });
    batch
}
