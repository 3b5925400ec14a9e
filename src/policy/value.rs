//! How much reward is still to come after each token? A linear head on the policy's hidden states, from zero (PPO).
//!
//! The head reads the states without moving them: its loss is none of the policy's business in a run of tens of steps.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::{PolicyError, ValueSettings};
use crate::evaluation::statistics::deviation;
use crate::nn::{AdamW, AdamWSettings, NnError};

/// One weight for each column of the states and a bias.
#[derive(Debug)]
pub(super) struct ValueHead {
    weights: Var,
    optimizer: AdamW,
}

/// The states of one answer: tokens × width, row-major.
pub(super) type States = Vec<f32>;

impl ValueHead {
    pub(super) fn new(width: usize) -> Result<Self, PolicyError> {
        let weights = Var::from_vec(vec![0f32; width + 1], width + 1, &Device::Cpu)?;
        let optimizer = AdamW::new(&[&weights], AdamWSettings::default());
        Ok(Self { weights, optimizer })
    }

    /// Value before each token of each answer.
    pub(super) fn values(&self, states: &[States]) -> Result<Vec<Vec<f64>>, PolicyError> {
        let weights = self.weights.to_vec1::<f32>()?;
        let Some((bias, weights)) = weights.split_last() else { return Ok(Vec::new()) };
        let value = |state: &[f32]| {
            let terms = state.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
            terms.sum::<f64>() + f64::from(*bias)
        };
        Ok(states.iter().map(|states| states.chunks_exact(weights.len()).map(value).collect()).collect())
    }

    /// Takes a step towards `returns`; `before` are the values when the answers were drawn. Gives the loss before.
    pub(super) fn learn(
        &mut self,
        states: &[States],
        (before, returns): (&[Vec<f64>], &[Vec<f64>]),
        settings: &ValueSettings,
    ) -> Result<f64, PolicyError> {
        let values = self.values(states)?;
        let width = self.weights.elem_count() - 1;
        let mut gradient = vec![0f64; width + 1];
        let count = returns.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let mut loss = 0.0;
        for (i, states) in states.iter().enumerate() {
            for (at, state) in states.chunks_exact(width).enumerate() {
                let token = (values[i][at], before[i][at], returns[i][at]);
                let (value, slope) = value_loss(token, settings.clip);
                loss += value / count;
                for (sum, x) in gradient.iter_mut().zip(state.iter().chain([&1.0])) {
                    *sum += slope / count * f64::from(*x);
                }
            }
        }
        let gradient: Vec<f32> = gradient.into_iter().map(|value| value as f32).collect();
        let gradient = Tensor::from_vec(gradient, width + 1, &Device::Cpu)?;
        self.optimizer.step(&[&self.weights], &[Some(gradient)], settings.learning_rate)?;
        Ok(loss)
    }

    /// Weights and moments, for a checkpoint.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>, PolicyError> {
        let size = self.weights.elem_count();
        let (mean, square) = self.optimizer.moments.first().cloned().unwrap_or_default();
        Ok(BTreeMap::from([
            ("value.weights".to_owned(), self.weights.as_tensor().clone()),
            ("value.mean".to_owned(), Tensor::from_vec(mean, size, &Device::Cpu)?),
            ("value.square".to_owned(), Tensor::from_vec(square, size, &Device::Cpu)?),
        ]))
    }

    /// Takes over what [`ValueHead::tensors`] gave after `steps` steps.
    pub(super) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, steps: u64) -> Result<(), NnError> {
        let take = |name: &str| {
            let found = tensors.get(name).filter(|tensor| tensor.dims() == self.weights.dims());
            found.ok_or_else(|| candle_core::Error::Msg(format!("the checkpoint has no {name}")))
        };
        let moments = (take("value.mean")?.to_vec1()?, take("value.square")?.to_vec1()?);
        self.weights.set(take("value.weights")?)?;
        (self.optimizer.moments, self.optimizer.steps) = (vec![moments], steps);
        Ok(())
    }

    /// Steps it took.
    pub(super) fn steps(&self) -> u64 {
        self.optimizer.steps
    }
}

/// Half the larger of the squared errors of the value and of the value held near the one before, and the slope with
/// respect to the value (as in the first PPO implementation; Huang et al., "The 37 implementation details of PPO", 9).
fn value_loss((value, before, expected): (f64, f64, f64), clip: f64) -> (f64, f64) {
    let held = before + (value - before).clamp(-clip, clip);
    let (free, held) = (value - expected, held - expected);
    if free.abs() >= held.abs() {
        (free * free / 2.0, free)
    } else {
        // The held value does not move with the value here: it is at its bound.
        (held * held / 2.0, 0.0)
    }
}

/// Share of the returns' variance that the values explain; 0 where returns do not vary.
pub(super) fn explained(values: &[Vec<f64>], returns: &[Vec<f64>]) -> f64 {
    let pairs = values.iter().flatten().zip(returns.iter().flatten());
    let rests: Vec<f64> = pairs.map(|(value, expected)| expected - value).collect();
    let returns: Vec<f64> = returns.iter().flatten().copied().collect();
    let spread = deviation(&returns);
    if spread == 0.0 { 0.0 } else { 1.0 - (deviation(&rests) / spread).powi(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, clip 0.2, value before 1: a value of 1.1 towards 2 is free (error −0.9); 1.5 towards 2 is held at 1.2
    /// (error −0.8, larger than −0.5: no slope); 1.5 towards 1 is free (0.5 is larger than 0.2).
    #[test]
    fn the_value_loss_agrees_with_a_hand_computed_example() {
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| {
            assert!((a - c).abs() < 1e-9 && (b - d).abs() < 1e-9, "{a}, {b}");
        };
        near(value_loss((1.1, 1.0, 2.0), 0.2), (0.405, -0.9));
        near(value_loss((1.5, 1.0, 2.0), 0.2), (0.32, 0.0));
        near(value_loss((1.5, 1.0, 1.0), 0.2), (0.125, 0.5));
    }

    #[test]
    fn a_head_learns_what_states_say_and_is_restored_as_it_was() {
        let settings = ValueSettings { learning_rate: 0.05, clip: 10.0, ..ValueSettings::default() };
        // The return is twice the first column plus one.
        let states: Vec<States> = vec![vec![1.0, 0.5, -1.0, 0.5], vec![0.0, -0.5]];
        let returns = vec![vec![3.0, -1.0], vec![1.0]];
        let mut head = ValueHead::new(2).unwrap();
        let before = head.values(&states).unwrap();
        assert_eq!(before, [vec![0.0, 0.0], vec![0.0]]);
        for _ in 0..400 {
            let before = head.values(&states).unwrap();
            head.learn(&states, (&before, &returns), &settings).unwrap();
        }
        let values = head.values(&states).unwrap();
        let close = values.concat().iter().zip(returns.concat()).all(|(a, b)| (a - b).abs() < 0.05);
        assert!(close, "{values:?}");
        assert!(explained(&values, &returns) > 0.99 && explained(&before, &returns).abs() < 1e-9);
        let mut other = ValueHead::new(2).unwrap();
        other.restore(&head.tensors().unwrap(), head.steps()).unwrap();
        for head in [&mut head, &mut other] {
            head.learn(&states, (&values, &returns), &settings).unwrap();
        }
        assert_eq!(head.values(&states).unwrap(), other.values(&states).unwrap());
        assert!(ValueHead::new(3).unwrap().restore(&head.tensors().unwrap(), 1).is_err());
    }
}
