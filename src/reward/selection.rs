//! How strong should the ridge be? The strength whose models predict clusters they have not seen best.

use super::folds::FOLDS;
use super::logistic::{Observation, Penalty, fit, log_loss, slope};

/// What cross-validation chose.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) ridge: f64,
    /// Of each observation, log-odds by a model that did not see its cluster.
    pub(super) logits: Vec<f64>,
    /// Of the predictions (nats), after calibration on other folds.
    pub(super) log_loss: f64,
    /// Of each observation, its part of the log-loss.
    pub(super) losses: Vec<f64>,
    /// Factor that calibrates the logits.
    pub(super) slope: f64,
}

/// Observations and their weights.
pub(super) type Data<'a> = (&'a [Observation], &'a [f64]);

/// Tries all strengths. `lengths` are the columns whose coefficients count only below zero.
pub(super) fn choose(
    data: Data<'_>,
    (folds, lengths): (&[usize], &[usize]),
    ridges: &[f64],
    penalty: impl Fn(f64) -> Penalty,
) -> Chosen {
    let tried = ridges.iter().map(|ridge| {
        let logits = logits(data, (folds, lengths), &penalty(*ridge));
        judged(data, folds, (*ridge, logits))
    });
    let best = tried.min_by(|a, b| a.log_loss.total_cmp(&b.log_loss));
    best.unwrap_or_else(|| judged(data, folds, (1.0, vec![0.0; data.0.len()])))
}

/// Predictions of each fold by a model of the others, as the model would score: a liking for length taken out.
pub(super) fn logits(data: Data<'_>, (folds, lengths): (&[usize], &[usize]), penalty: &Penalty) -> Vec<f64> {
    let (observations, weights) = data;
    let mut found = vec![0.0; observations.len()];
    let mut start = None;
    for fold in 0..FOLDS {
        let others: Vec<f64> =
            weights.iter().zip(folds).map(|(weight, of)| if *of == fold { 0.0 } else { *weight }).collect();
        let mut fitted = fit((observations, &others), penalty, start.as_ref());
        start = Some(fitted.clone());
        shorter_only(&mut fitted.weights, lengths);
        for (i, observation) in observations.iter().enumerate().filter(|(i, _)| folds[*i] == fold) {
            found[i] = fitted.logit(observation);
        }
    }
    found
}

/// The log-loss of predictions, each calibrated by a slope from the other folds.
pub(super) fn judged(data: Data<'_>, folds: &[usize], (ridge, logits): (f64, Vec<f64>)) -> Chosen {
    let (observations, weights) = data;
    let outcome = |i: usize| (logits[i], observations[i].outcome);
    let mut losses = vec![0.0; logits.len()];
    for fold in 0..FOLDS {
        let others: Vec<(f64, f64)> =
            (0..logits.len()).filter(|i| folds[*i] != fold && weights[*i] > 0.0).map(outcome).collect();
        let factor = slope(&others);
        for i in (0..logits.len()).filter(|i| folds[*i] == fold) {
            losses[i] = log_loss(factor * logits[i], observations[i].outcome);
        }
    }
    let seen: Vec<(f64, f64)> = (0..logits.len()).filter(|i| weights[*i] > 0.0).map(outcome).collect();
    let slope = slope(&seen);
    let log_loss = average(&losses, weights).unwrap_or(std::f64::consts::LN_2);
    Chosen { ridge, logits, log_loss, losses, slope }
}

/// By how much losses fall from one model to another (nats), and the standard error of that.
pub(super) fn gain(before: &Chosen, after: &Chosen, weights: &[f64]) -> (f64, f64) {
    let gains: Vec<f64> =
        before.losses.iter().zip(&after.losses).map(|(before, after)| before - after).collect();
    let mean = average(&gains, weights).unwrap_or(0.0);
    let squares: f64 = gains.iter().zip(weights).map(|(gain, weight)| (weight * (gain - mean)).powi(2)).sum();
    (mean, squares.sqrt() / weights.iter().sum::<f64>().max(f64::MIN_POSITIVE))
}

fn average(values: &[f64], weights: &[f64]) -> Option<f64> {
    let total: f64 = weights.iter().sum();
    let sum: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
    (total > 0.0).then(|| sum / total)
}

/// A liking for longer answers is a nuisance and not scored; one for shorter counts.
pub(super) fn shorter_only(weights: &mut [f64], lengths: &[usize]) {
    for length in lengths {
        if let Some(weight) = weights.get_mut(*length) {
            *weight = weight.min(0.0);
        }
    }
}
