//! How do gradients change the adapter? An optimizer with moments that can be saved, a schedule, and clipping.

use candle_core::{Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Result;
use super::tensors::with_values;

/// Settings of `AdamW` (arXiv:1711.05101).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWSettings {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Share of the learning rate by which values shrink in each step.
    pub weight_decay: f32,
}

impl Default for AdamWSettings {
    /// The usual values; adapters are not decayed.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// `AdamW` with its moments.
#[derive(Debug, Clone)]
pub struct AdamW {
    settings: AdamWSettings,
    /// Steps taken.
    pub(crate) steps: u64,
    /// Per variable: mean and mean square of gradients.
    pub(crate) moments: Vec<(Vec<f32>, Vec<f32>)>,
}

impl AdamW {
    /// An optimizer that has taken no step.
    #[must_use]
    pub fn new(variables: &[&Var], settings: AdamWSettings) -> Self {
        let zeros = |var: &&Var| (vec![0.0; var.elem_count()], vec![0.0; var.elem_count()]);
        Self { settings, steps: 0, moments: variables.iter().map(zeros).collect() }
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step; a variable without a gradient keeps its value.
    ///
    /// # Errors
    /// When a gradient has another shape than its variable.
    pub fn step(&mut self, variables: &[&Var], gradients: &[Option<Tensor>], rate: f32) -> Result<()> {
        self.steps += 1;
        let AdamWSettings { beta1, beta2, eps, weight_decay } = self.settings;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (correct1, correct2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let all = variables.par_iter().zip(gradients).zip(&mut self.moments);
        all.try_for_each(|((var, gradient), (mean, square))| -> Result<()> {
            let Some(gradient) = gradient else { return Ok(()) };
            let values = with_values([var.as_tensor(), gradient], |[values, gradient]| {
                if values.len() != gradient.len() {
                    candle_core::bail!("{} gradients for {} values", gradient.len(), values.len());
                }
                let step = |(((value, g), m), v): (((&f32, &f32), &mut f32), &mut f32)| {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    let update = (*m / correct1) / ((*v / correct2).sqrt() + eps);
                    value - rate * (update + weight_decay * value)
                };
                Ok(values.iter().zip(gradient).zip(mean).zip(square).map(step).collect::<Vec<f32>>())
            })?;
            Ok(var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?)
        })
    }
}

/// How the learning rate moves: linearly up, then along half a cosine down to zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f32,
    /// Steps until it is reached.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    #[must_use]
    pub fn at(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        let (past, whole) = (step - self.warmup, self.total.saturating_sub(self.warmup).max(1));
        let turn = (past as f32 / whole as f32).min(1.0) * std::f32::consts::PI;
        self.peak * 0.5 * (1.0 + turn.cos())
    }
}

/// Scales gradients so that their joint norm is at most `limit`; gives the norm before. With a norm that is no number
/// nothing is scaled: the caller must not take that step.
///
/// # Errors
/// When a gradient can not be read.
pub fn clip(gradients: &mut [Option<Tensor>], limit: f32) -> Result<f32> {
    let mut total = 0f64;
    for gradient in gradients.iter().flatten() {
        let square = |[values]: [&[f32]; 1]| Ok(values.iter().map(|g| f64::from(g * g)).sum::<f64>());
        total += with_values([gradient], square)?;
    }
    let norm = total.sqrt() as f32;
    if norm.is_finite() && norm > limit {
        for gradient in gradients.iter_mut().flatten() {
            *gradient = (&*gradient * f64::from(limit / norm))?;
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_schedule_rises_and_falls() {
        let schedule = Schedule { peak: 1.0, warmup: 4, total: 104 };
        let near = |step, rate: f32| assert!((schedule.at(step) - rate).abs() < 1e-5, "{step}");
        near(0, 0.25);
        near(3, 1.0);
        near(4, 1.0);
        near(54, 0.5);
        near(104, 0.0);
    }

    /// Two steps of a value of 1 with gradients 0.5 and −1, worked out by hand.
    #[test]
    fn steps_agree_with_a_hand_computed_example() {
        let var = Var::from_vec(vec![1f32], 1, &Device::Cpu).unwrap();
        let settings = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        let mut optimizer = AdamW::new(&[&var], settings);
        let mut step = |gradient: f32| {
            let gradient = Tensor::from_vec(vec![gradient], 1, &Device::Cpu).unwrap();
            optimizer.step(&[&var], &[Some(gradient)], 0.1).unwrap();
            var.to_vec1::<f32>().unwrap()[0]
        };
        // m̂ = 0.5, √v̂ = 0.5: 1 − 0.1·(1 + 0.1·1) = 0.89.
        assert!((step(0.5) - 0.89).abs() < 1e-5);
        // m = 0.1·(0.9·0.5 − 1) = −0.055, m̂ = −0.055/0.19; v = 0.001·(0.999·0.25 + 1), v̂ = v/0.001999.
        let expected = 0.89 - 0.1 * (-0.055 / 0.19 / (1.249_75e-3f32 / 1.999e-3).sqrt() + 0.089);
        assert!((step(-1.0) - expected).abs() < 1e-5);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let tensor = |values: &[f32]| Some(Tensor::new(values, &Device::Cpu).unwrap());
        let mut gradients = [tensor(&[3.0]), None, tensor(&[4.0])];
        assert_eq!(clip(&mut gradients, 1.0).unwrap(), 5.0);
        let value = |gradient: &Option<Tensor>| gradient.as_ref().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((value(&gradients[0]) - 0.6).abs() < 1e-6 && (value(&gradients[2]) - 0.8).abs() < 1e-6);
        assert!((clip(&mut gradients, 1.0).unwrap() - 1.0).abs() < 1e-6);
    }
}
