//! How strong should the ridge be? The strength whose models predict clusters they have not seen best.

use super::folds::FOLDS;
use super::logistic::{Observation, Penalty, fit, log_loss, slope};
use super::model::CROSSED;

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
    (folds, lengths): (&[usize], &Lengths),
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
pub(super) fn logits(data: Data<'_>, (folds, lengths): (&[usize], &Lengths), penalty: &Penalty) -> Vec<f64> {
    let (observations, weights) = data;
    let mut found = vec![0.0; observations.len()];
    let mut start = None;
    for fold in 0..FOLDS {
        let others: Vec<f64> =
            weights.iter().zip(folds).map(|(weight, of)| if *of == fold { 0.0 } else { *weight }).collect();
        let mut fitted = fit((observations, &others), penalty, start.as_ref());
        start = Some(fitted.clone());
        lengths.shorter_only(&mut fitted.weights);
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

/// The columns of an answer's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lengths {
    /// With passages and without.
    pub(super) whole: [usize; 2],
    /// Of each kind of question.
    pub(super) kinds: Vec<usize>,
}

impl Lengths {
    /// A liking for longer answers is a nuisance and not scored; one for shorter counts. A kind's own coefficient comes
    /// on top of that of all kinds, so it is their sum that stays at or below zero.
    pub(super) fn shorter_only(&self, weights: &mut [f64]) {
        let mut of_all = f64::NEG_INFINITY;
        for column in self.whole {
            if let Some(weight) = weights.get_mut(column) {
                *weight = weight.min(0.0);
                of_all = of_all.max(*weight);
            }
        }
        for column in &self.kinds {
            if let Some(weight) = weights.get_mut(*column) {
                *weight = weight.min(-of_all / CROSSED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_of_question_has_a_liking_for_longer() {
        let lengths = Lengths { whole: [0, 1], kinds: vec![2, 3] };
        let mut weights = [-0.4, 0.2, 1.0, -1.0];
        lengths.shorter_only(&mut weights);
        assert_eq!(weights, [-0.4, 0.0, 0.0, -1.0]);
        let mut weights = [-0.4, -0.2, 1.0, 0.3];
        lengths.shorter_only(&mut weights);
        // -0.2 + 0.5 * 0.4 = 0.
        assert_eq!(weights, [-0.4, -0.2, 0.4, 0.3]);
    }
}
