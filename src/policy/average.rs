//! Which adapter becomes the candidate? The exponential average of those along the way, which moves less than the last.

use super::PolicyError;
use crate::nn::Adapter;

/// Steps over which the average is faster than its decay: its decay after t updates is at most (1 + t) / (10 + t), so
/// that it does not remember the beginning of a short run.
const WARMUP: f64 = 10.0;

/// Share of the average that stays in update `update`, counted from 1.
pub(super) fn decay(most: f64, update: u64) -> f64 {
    most.min((1.0 + update as f64) / (WARMUP + update as f64))
}

/// Moves `average` towards `adapter`; `decay` is the share of it that stays.
pub(super) fn follow(average: &Adapter, adapter: &Adapter, decay: f64) -> Result<(), PolicyError> {
    for (average, now) in average.variables().into_iter().zip(adapter.variables()) {
        let kept = (average.as_tensor() * decay)?;
        average.set(&(kept + (now.as_tensor() * (1.0 - decay))?)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tests::models::tiny;
    use crate::nn::{AdapterShape, Family};

    #[test]
    fn the_average_is_fast_at_first_and_slow_at_last() {
        assert!((decay(0.992, 1) - 2.0 / 11.0).abs() < 1e-12);
        assert!((decay(0.992, 30) - 31.0 / 40.0).abs() < 1e-12);
        assert_eq!(decay(0.992, 10_000), 0.992);
        assert_eq!(decay(0.0, 5), 0.0);
    }

    #[test]
    fn the_average_moves_by_the_rest() {
        let decoder = tiny(Family::Llama);
        let shape = AdapterShape { rank: 2, alpha: 2.0, dropout: 0.0 };
        let (average, adapter) =
            (Adapter::new(&decoder, shape, 1).unwrap(), Adapter::new(&decoder, shape, 2).unwrap());
        let first =
            |adapter: &Adapter| adapter.variables()[0].flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let (before, towards) = (first(&average), first(&adapter));
        follow(&average, &adapter, 0.75).unwrap();
        assert!((first(&average) - (0.75 * before + 0.25 * towards)).abs() < 1e-7);
        assert_eq!(first(&adapter), towards);
    }
}
