//! How fast is this machine's own f32 matrix product? Benches give their speeds as shares of it.

use std::time::Instant;

use candle_core::{Device, Result, Tensor};

/// Side of the square matrices: too large for the machine's caches, as weights are.
const SIDE: usize = 1536;

/// A machine's matrix product.
pub(crate) struct Machine {
    square: Tensor,
}

impl Machine {
    /// Makes the matrices.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { square: Tensor::full(0.5f32, (SIDE, SIDE), &Device::Cpu)?.force_contiguous()? })
    }

    /// Measures its rate once, FLOP/s.
    pub(crate) fn rate(&self) -> Result<f64> {
        let started = Instant::now();
        self.square.matmul(&self.square)?;
        Ok(2.0 * (SIDE as f64).powi(3) / started.elapsed().as_secs_f64())
    }
}

/// The middle value; of an even number the higher one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
