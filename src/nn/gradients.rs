//! How are the gradients of one step gathered from several passes? Summed, in the order of the adapter's variables.

use candle_core::Tensor;

use super::adapter::Adapter;
use super::batch::Batch;
use super::decoder::{Decoder, Pass, Scores};
use super::{Result, clip};

/// Sums of gradients with respect to an adapter's variables.
#[derive(Debug)]
pub struct Gradients {
    sums: Vec<Option<Tensor>>,
    /// Keep only layers' inputs between forward and backward.
    recompute: bool,
}

impl Gradients {
    /// No gradients yet. With `recompute` passes take less memory and a third more work
    /// ([`Decoder::checkpointed_backward`]).
    #[must_use]
    pub fn none(adapter: &Adapter, recompute: bool) -> Self {
        Self { sums: vec![None; adapter.variables().len()], recompute }
    }

    /// Reads a batch and adds the gradients of `loss(scores)`; gives the loss.
    ///
    /// # Errors
    /// As [`Decoder::hidden`], and when `loss` fails.
    pub fn add(
        &mut self,
        (decoder, batch): (&Decoder, &Batch),
        (adapter, pass): (&Adapter, Pass<'_>),
        loss: impl FnOnce(&Scores) -> Result<Tensor>,
    ) -> Result<f32> {
        let (value, found) = if self.recompute {
            decoder.checkpointed_backward(batch, (adapter, pass), loss)?
        } else {
            let scores = decoder.scores(batch, Pass { adapter: Some(adapter), ..pass })?;
            let value = loss(&scores)?;
            let found = value.backward()?;
            let found = adapter.variables().iter().map(|var| found.get(var).cloned()).collect();
            (value.to_scalar()?, found)
        };
        accumulate(&mut self.sums, found)?;
        Ok(value)
    }

    /// Scales them so that their joint norm is at most `limit`; gives the norm before ([`clip`]).
    ///
    /// # Errors
    /// When a gradient can not be read.
    pub fn clip(&mut self, limit: f32) -> Result<f32> {
        clip(&mut self.sums, limit)
    }

    /// One gradient a variable; `None` where nothing was added.
    #[must_use]
    pub fn as_slice(&self) -> &[Option<Tensor>] {
        &self.sums
    }
}

/// Adds gradients to sums, variable by variable.
pub(crate) fn accumulate(
    sums: &mut [Option<Tensor>],
    found: impl IntoIterator<Item = Option<Tensor>>,
) -> Result<()> {
    for (sum, found) in sums.iter_mut().zip(found) {
        *sum = match (sum.take(), found) {
            (Some(sum), Some(found)) => Some((sum + found)?),
            (sum, found) => sum.or(found),
        };
    }
    Ok(())
}
