//! How likely are answers, by a model and an adapter? Read without gradients.

use candle_core::Tensor;

use super::PolicyError;
use crate::nn::{Adapter, Decoder, Packed, Pass, Text, pack};

/// What a pass without gradients says of an answer.
#[derive(Debug)]
pub(super) struct Reading {
    /// Of each token (nats).
    pub(super) log_probabilities: Vec<f32>,
    /// Normalised hidden states before each token: tokens × width.
    pub(super) states: Tensor,
}

/// Reads each answer, without gradients; without an adapter, as the reference does.
pub(super) fn read(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    (texts, tokens): (&[Text<'_>], usize),
) -> Result<Vec<Reading>, PolicyError> {
    let mut all = Vec::with_capacity(texts.len());
    for Packed { batch, .. } in pack(texts, tokens) {
        let scores = decoder.scores(&batch, Pass { adapter, frozen: true, ..Pass::default() })?;
        let values = scores.log_probabilities.to_vec1::<f32>()?;
        for range in batch.completions() {
            let states = scores.states.narrow(0, range.start, range.len())?;
            all.push(Reading { log_probabilities: values[range.clone()].to_vec(), states });
        }
    }
    Ok(all)
}

/// Log-probability of an answer (nats) from those of its tokens.
pub(super) fn sum(log_probabilities: &[f32]) -> f64 {
    log_probabilities.iter().map(|value| f64::from(*value)).sum()
}
