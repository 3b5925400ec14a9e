//! How likely is each given token? Log-probabilities at chosen positions, by chunks, so that full logits never exist.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Matrix, Store, product, softmax};
use super::ops::Linear;
use super::tensors::{values, with_values};

/// Positions whose logits exist together: at 49,152 tokens 25 MB, small beside the weights and large enough for the
/// matrix product to run at its full rate.
const CHUNK: usize = 128;

/// Natural logarithms of the probabilities of `tokens` (one a row) from hidden states (rows × width). The gradient is
/// worked out together with the value: for each row it is the token's output vector minus the expected one, which the
/// backward pass only scales; so logits are made once, not twice.
#[derive(Debug, Clone)]
pub(crate) struct LogProbabilities {
    /// From width to vocabulary.
    pub(crate) head: Linear,
    pub(crate) tokens: Arc<Vec<u32>>,
    /// Whether a backward pass will come.
    pub(crate) differentiable: bool,
    pub(crate) found: Arc<Mutex<Found>>,
}

/// What was found besides the values.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Rows × width: d log p / d hidden.
    slope: Vec<f32>,
    /// Entropy of each row's distribution (nats).
    pub(crate) entropy: Vec<f32>,
}

/// One chunk's results.
struct Part {
    log_p: Vec<f32>,
    entropy: Vec<f32>,
    slope: Vec<f32>,
}

impl LogProbabilities {
    /// `head` and `turned` are the output map's weight in both orientations.
    fn part(
        &self,
        (head, turned): (&[f32], &[f32]),
        (hidden, tokens): (&[f32], &[u32]),
        logits: &mut Vec<f32>,
    ) -> Result<Part> {
        let (vocabulary, width) = self.head.dims()?;
        logits.resize(tokens.len() * vocabulary, 0.0);
        let factors = (Matrix::new(hidden, width), Matrix::new(turned, vocabulary));
        product((logits, Store::Fresh), factors, 1.0, true)?;
        let rows = logits.par_chunks_exact_mut(vocabulary).zip(tokens);
        let (log_p, entropy) = rows
            .map(|(row, &token)| {
                let logit = row.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
                // H = log Σ e^x − Σ p x; the scores are still needed, so they are kept until p is known.
                let scores = row.to_vec();
                let log_sum = softmax(row);
                let expected = super::kernel::dot(row, &scores);
                if self.differentiable {
                    row.iter_mut().for_each(|p| *p = -*p);
                    if let Some(p) = row.get_mut(token as usize) {
                        *p += 1.0;
                    }
                }
                (logit - log_sum, log_sum - expected)
            })
            .unzip();
        let mut slope = Vec::new();
        if self.differentiable {
            slope.resize(hidden.len(), 0.0);
            let factors = (Matrix::new(logits, vocabulary), Matrix::new(head, width));
            product((&mut slope, Store::Fresh), factors, 1.0, true)?;
        }
        Ok(Part { log_p, entropy, slope })
    }
}

impl CustomOp1 for LogProbabilities {
    fn name(&self) -> &'static str {
        "log-probabilities"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let hidden = values(hidden, layout)?;
        let width = self.head.dims()?.1;
        let (mut log_p, mut found, mut logits) = (Vec::new(), Found::default(), Vec::new());
        with_values([&self.head.weight, &self.head.turned], |[head, turned]| {
            for (hidden, tokens) in hidden.chunks(CHUNK * width).zip(self.tokens.chunks(CHUNK)) {
                let part = self.part((head, turned), (hidden, tokens), &mut logits)?;
                log_p.extend(part.log_p);
                found.entropy.extend(part.entropy);
                found.slope.extend(part.slope);
            }
            Ok(())
        })?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        let shape = Shape::from(log_p.len());
        Ok((CpuStorage::F32(log_p), shape))
    }

    fn bwd(&self, hidden: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = self.head.dims()?.1;
        let mut slope = std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner).slope);
        with_values([grad], |[grad]| {
            for (row, grad) in slope.chunks_exact_mut(width).zip(grad) {
                row.iter_mut().for_each(|value| *value *= grad);
            }
            Ok(())
        })?;
        Tensor::from_vec(slope, hidden.shape(), hidden.device()).map(Some)
    }
}
