//! How strong should the ridge be? The strength whose models predict clusters they have not seen best.

use super::folds::FOLDS;
use super::kind::Kind;
use super::logistic::{Observation, Penalty, fit, log_loss, slope};
use super::model::FIRST_KIND;

/// What cross-validation chose.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) ridge: f64,
    /// Of each observation, log-odds by a model that did not see its cluster.
    pub(super) logits: Vec<f64>,
    /// Log-loss of each observation (nats), after calibration on other folds.
    pub(super) losses: Vec<f64>,
    /// What each of them counts.
    pub(super) counts: Vec<f64>,
    /// Factor that calibrates the logits.
    pub(super) slope: f64,
}

impl Chosen {
    /// Of the predictions (nats); a coin's where nothing counts.
    pub(super) fn log_loss(&self) -> f64 {
        average(&self.losses, &self.counts).unwrap_or(std::f64::consts::LN_2)
    }
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
    let best = tried.min_by(|a, b| a.log_loss().total_cmp(&b.log_loss()));
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
    let (observations, counts) = (data.0, counting(data));
    let outcome = |i: usize| (logits[i], observations[i].outcome, counts[i]);
    let mut losses = vec![0.0; logits.len()];
    for fold in 0..FOLDS {
        let others: Vec<(f64, f64, f64)> =
            (0..logits.len()).filter(|i| folds[*i] != fold).map(outcome).collect();
        let factor = slope(&others);
        for i in (0..logits.len()).filter(|i| folds[*i] == fold) {
            losses[i] = log_loss(factor * logits[i], observations[i].outcome);
        }
    }
    let slope = slope(&(0..logits.len()).map(outcome).collect::<Vec<_>>());
    Chosen { ridge, logits, losses, counts, slope }
}

/// What each observation counts when a model is judged: choices do, for they are what it is to predict. Thumbs depend on
/// who gives them as much as on the answer, and are counted only where there is no choice.
fn counting((observations, weights): Data<'_>) -> Vec<f64> {
    let seen = || observations.iter().zip(weights).map(|(observation, weight)| (observation.thumb, *weight));
    let some = seen().any(|(thumb, weight)| !thumb && weight > 0.0);
    seen().map(|(thumb, weight)| if thumb && some { 0.0 } else { weight }).collect()
}

/// By how much losses fall from one model to another (nats), and the standard error of that.
pub(super) fn gain(before: &Chosen, after: &Chosen) -> (f64, f64) {
    let counts = &before.counts;
    let gains: Vec<f64> =
        before.losses.iter().zip(&after.losses).map(|(before, after)| before - after).collect();
    let mean = average(&gains, counts).unwrap_or(0.0);
    let squares: f64 = gains.iter().zip(counts).map(|(gain, count)| (count * (gain - mean)).powi(2)).sum();
    (mean, squares.sqrt() / counts.iter().sum::<f64>().max(f64::MIN_POSITIVE))
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
    whole: [usize; 2],
    /// Of each kind.
    kinds: [(Kind, usize); Kind::ALL.len()],
}

impl Lengths {
    /// Where each block's column is.
    pub(super) fn of(column: impl Fn(usize) -> usize) -> Self {
        let kinds = Kind::ALL.map(|kind| (kind, column(FIRST_KIND + kind as usize)));
        Self { whole: [column(0), column(1)], kinds }
    }

    /// A liking for longer answers is a nuisance and not scored; one for shorter counts. A kind's own coefficient comes
    /// on top of that of all kinds, so it is their sum that stays at or below zero, with passages and without.
    pub(super) fn shorter_only(&self, weights: &mut [f64]) {
        let [with, without] = self.whole.map(|column| lowered(weights, column, 0.0));
        for (kind, column) in self.kinds {
            let (shared, own) = kind.weights();
            lowered(weights, column, -shared * with.max(without) / own);
        }
    }
}

/// Lowers the weight of a column to a limit, and gives what it is then.
fn lowered(weights: &mut [f64], column: usize, limit: f64) -> f64 {
    weights.get_mut(column).map_or(limit, |weight| {
        *weight = weight.min(limit);
        *weight
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(thumb: bool, x: f64, outcome: f64) -> Observation {
        let (sum, person) = if thumb { (vec![], Some(0)) } else { (vec![0.0], None) };
        Observation { x: vec![x], sum, outcome, target: outcome, margin: 0.0, person, thumb }
    }

    /// People who find everything bad, whatever the answer, say nothing about how sure a choice is.
    #[test]
    fn thumbs_change_neither_calibration_nor_loss_of_choices() {
        let folds: Vec<usize> = (0..60).map(|i| i % FOLDS).collect();
        let choices: Vec<Observation> =
            (0..40).map(|i| observation(false, 1.0, f64::from(u8::from(i % 8 < 6)))).collect();
        let thumbs: Vec<Observation> = (0..20).map(|_| observation(true, 3.0, 0.0)).collect();
        let all = [choices.as_slice(), &thumbs].concat();
        let logits = |count: usize| vec![2.0; count];
        let alone = judged((&choices, &[1.0; 40]), &folds[..40], (1.0, logits(40)));
        let beside = judged((&all, &[1.0; 60]), &folds, (1.0, logits(60)));
        assert_eq!((beside.slope, beside.log_loss()), (alone.slope, alone.log_loss()));
        assert!((alone.slope - 3f64.ln() / 2.0).abs() < 0.05, "{}", alone.slope);
        // Where there are only thumbs, they are what a model is judged by.
        let only = judged((&thumbs, &[1.0; 20]), &folds[..20], (1.0, logits(20)));
        assert!(only.slope < 0.1 && only.log_loss() > alone.log_loss(), "{} {}", only.slope, only.log_loss());
    }

    #[test]
    fn no_kind_of_question_has_a_liking_for_longer() {
        let lengths = Lengths::of(|block| block);
        let lowered = |mut weights: [f64; 8]| {
            lengths.shorter_only(&mut weights);
            weights
        };
        let found = lowered([-0.4, 0.2, 1.0, -1.0, 0.0, 0.5, 0.5, -0.5]);
        assert_eq!(found, [-0.4, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -0.5]);
        // -0.25 + 0.5 * 0.5 = 0; 0.2 * -0.25 + 0.05 = 0.
        let found = lowered([-0.5, -0.25, 1.0, 0.3, 0.5, -1.0, 1.0, 0.01]);
        assert_eq!(found, [-0.5, -0.25, 0.5, 0.3, 0.5, -1.0, 0.05, 0.01]);
    }
}
