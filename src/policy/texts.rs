//! How likely are answers, by a model and an adapter? Read without gradients.

use candle_core::Tensor;

use super::PolicyError;
use crate::nn::{self, Adapter, Decoder, Text};

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
    texts: (&[Text<'_>], usize),
) -> Result<Vec<Reading>, PolicyError> {
    let whole = |read: &nn::Reading<'_>| {
        Ok(Reading { log_probabilities: read.log_probabilities.to_vec(), states: read.states()? })
    };
    Ok(nn::read((decoder, adapter), texts, whole)?)
}

/// Log-probability of an answer (nats) from those of its tokens.
pub(super) fn sum(log_probabilities: &[f32]) -> f64 {
    log_probabilities.iter().map(|value| f64::from(*value)).sum()
}
