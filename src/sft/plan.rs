//! Which examples come in which step? A seeded order for each pass over the data.

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use super::{Example, Settings};

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
