//! How likely are texts, by a model and an adapter? Read without gradients, pass by pass.

use std::ops::Range;

use candle_core::Tensor;

use super::packing::{Packed, Text, pack};
use super::{Adapter, Decoder, Pass, Result};

/// What a pass says of one text's completion; it is of the pass, so that nothing more than what is taken of it stays in
/// memory.
#[derive(Debug)]
pub struct Reading<'a> {
    /// Of each token (nats).
    pub log_probabilities: &'a [f32],
    /// Of the pass: targets × width.
    states: &'a Tensor,
    /// The completion's among them.
    targets: Range<usize>,
}

impl Reading<'_> {
    /// Log-probability of the completion (nats).
    #[must_use]
    pub fn sum(&self) -> f64 {
        log_probability(self.log_probabilities)
    }

    /// Normalised hidden states before each token: tokens × width.
    ///
    /// # Errors
    /// When the tensor operation fails.
    pub fn states(&self) -> Result<Tensor> {
        Ok(self.states.narrow(0, self.targets.start, self.targets.len())?)
    }
}

/// Log-probability of a completion (nats) from those of its tokens.
pub(crate) fn log_probability(of_tokens: &[f32]) -> f64 {
    of_tokens.iter().map(|value| f64::from(*value)).sum()
}

/// Reads texts in passes of at most `tokens` rows, without gradients, and takes of each what `take` does, in their order.
///
/// # Errors
/// When the model or `take` fails.
pub fn read<T>(
    (decoder, adapter): (&Decoder, Option<&Adapter>),
    (texts, tokens): (&[Text<'_>], usize),
    mut take: impl FnMut(&Reading<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut taken = Vec::with_capacity(texts.len());
    for Packed { batch, .. } in pack(texts, tokens) {
        let scores = decoder.scores(&batch, Pass { adapter, frozen: true, ..Pass::default() })?;
        let values = scores.log_probabilities.to_vec1::<f32>()?;
        for targets in batch.completions() {
            let log_probabilities = &values[targets.clone()];
            taken.push(take(&Reading {
                log_probabilities,
                states: &scores.states,
                targets: targets.clone(),
            })?);
        }
    }
    Ok(taken)
}
