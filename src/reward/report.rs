//! How good is a reward model, honestly? Accuracy with intervals beside the simplest baselines, calibration, its liking
//! for length, and what the ladder tried.

mod markdown;
mod plot;

use serde::{Deserialize, Serialize};

use super::Rung;
use crate::evaluation::statistics::{Interval, mean_or_zero, wilson};

/// A share of pairs decided as people did, ties left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Pairs decided as people did; equal scores count half.
    pub right: f64,
    /// All pairs.
    pub pairs: u64,
    /// Wilson's 95% interval of the share, half counts rounded down; none of no pairs.
    pub interval: Option<Interval>,
}

/// One group's accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// A source, a range of margins, a range of length gaps or a baseline.
    pub name: String,
    /// Its accuracy.
    pub accuracy: Accuracy,
}

/// Pairs of similar predicted probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Mean predicted probability that the answer liked better by the model is the chosen one, 0.5 to 1.
    pub predicted: f64,
    /// Share for which it was.
    pub observed: f64,
    /// How many.
    pub pairs: u64,
}

/// Whether probabilities mean what they say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error: mean difference of predicted and observed, weighted by pairs, 0 to 0.5.
    pub error: f64,
    /// From the least to the most certain; empty ranges are left out.
    pub bins: Vec<Bin>,
}

/// How often the longer answer is preferred, among pairs of unequal length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Longer {
    /// By the model.
    pub model: f64,
    /// By people.
    pub people: f64,
}

/// What is measured on one set of pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Over all pairs.
    pub accuracy: Accuracy,
    /// Mean negative log-likelihood of people's choices (nats a pair); ln 2 is chance.
    pub log_loss: f64,
    /// By source, in alphabetical order.
    pub by_source: Vec<Group>,
    /// By strength of the choice.
    pub by_margin: Vec<Group>,
    /// By how much longer one answer is.
    pub by_length_gap: Vec<Group>,
    /// What needs no model: longer wins, shorter wins, majority, groundedness only.
    pub baselines: Vec<Group>,
    /// Probabilities against outcomes.
    pub calibration: Calibration,
    /// Liking for length.
    pub longer: Longer,
}

/// Cross-validated accuracy with this many pairs to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Pairs learnt from.
    pub pairs: u64,
    /// On pairs not learnt from.
    pub accuracy: Accuracy,
}

/// What one rung of the ladder gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Which.
    pub rung: Rung,
    /// Cross-validated (nats a pair); none when it was skipped.
    pub log_loss: Option<f64>,
    /// Log-loss of the rung below on the same pairs, when those were not all.
    pub below: Option<f64>,
    /// What it took.
    pub seconds: f64,
    /// Whether it became the model.
    pub chosen: bool,
    /// Why it was skipped or not chosen.
    pub reason: Option<String>,
}

/// How far people's votes can be trusted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VoteQuality {
    /// Share of comparisons that one person made again with the same choice; none when nobody did.
    pub repeat_consistency: Option<f64>,
    /// Krippendorff's alpha over comparisons that several people made (1: agreement, 0: chance); none without any.
    pub alpha: Option<f64>,
    /// Comparisons that several people made.
    pub overlapping: u64,
    /// People who choose against the others' taste more often than chance allows, and their weight, by name.
    pub outliers: Vec<Outlier>,
}

/// A person whose votes count less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// Who.
    pub user: String,
    /// Votes.
    pub votes: u64,
    /// Share that a model of the others' votes agrees with.
    pub agreement: f64,
    /// What is left of a vote's weight, 0 to 1.
    pub weight: f64,
}

/// What was learnt from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Pairs learnt from, ties included.
    pub pairs: u64,
    /// Of them ties.
    pub ties: u64,
    /// Thumbs learnt from.
    pub thumbs: u64,
    /// Pairs held out.
    pub held_out: u64,
    /// People with a name.
    pub people: u64,
    /// Pairs after caps, ties and balanced thumbs counted as they weigh.
    pub effective_pairs: f64,
}

/// How the scores of a new model differ from an old one's, on the same pairs of answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Pearson's correlation of the two models' scores; 0 where one gives all answers the same.
    pub correlation: f64,
    /// Spearman's: of the scores' ranks.
    pub rank_correlation: f64,
    /// Share of pairs of which both prefer the same answer; 1 of none.
    pub agreement: f64,
    /// Mean of new − old, in standard deviations of each model's reference set.
    pub shift: f64,
    /// Pairs compared.
    pub pairs: u64,
}

/// Everything there is to say about a trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which rung was chosen.
    pub rung: Rung,
    /// What it learnt from.
    pub counts: Counts,
    /// Strength of the ridge that was chosen, in pairs.
    pub ridge: f64,
    /// Whether a sentence model was there.
    pub with_encoder: bool,
    /// On pairs never learnt from; none when none were held out.
    pub held_out: Option<Measures>,
    /// On the training pairs, each predicted by a model that did not see its cluster.
    pub cross_validated: Measures,
    /// Over the number of pairs.
    pub learning_curve: Vec<CurvePoint>,
    /// What was tried, from the lowest rung.
    pub ladder: Vec<Tried>,
    /// Beside the model before; none without one.
    pub drift: Option<Drift>,
    /// The votes themselves.
    pub votes: VoteQuality,
    /// Mean weight of each feature over the ensemble, of features with a standard deviation of 1; the largest first.
    pub weights: Vec<(String, f64)>,
}

impl Accuracy {
    /// Of counts.
    #[must_use]
    pub fn of(right: f64, pairs: u64) -> Self {
        // A count is below 2^53 and not negative.
        let successes = right.floor() as u64;
        Self { right, pairs, interval: wilson(successes, pairs) }
    }

    /// The share, 0 to 1; 0.5 of no pairs.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.pairs == 0 { 0.5 } else { self.right / self.pairs as f64 }
    }
}

impl Drift {
    /// Of two models' scores of the same pairs.
    pub(super) fn of(old: &[[f64; 2]], new: &[[f64; 2]]) -> Self {
        let alike = old.iter().zip(new).filter(|([a, b], [c, d])| point(a - b) == point(c - d)).count();
        let (old, new) = (old.as_flattened(), new.as_flattened());
        Self {
            correlation: correlation(old, new),
            rank_correlation: correlation(&ranks(old), &ranks(new)),
            agreement: if old.is_empty() { 1.0 } else { 2.0 * alike as f64 / old.len() as f64 },
            shift: mean_or_zero(new) - mean_or_zero(old),
            pairs: old.len() as u64 / 2,
        }
    }
}

/// Pearson's; 0 where one side does not vary.
fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let (mean_one, mean_other) = (mean_or_zero(one), mean_or_zero(other));
    let (mut together, mut square_one, mut square_other) = (0.0, 0.0, 0.0);
    for (one, other) in one.iter().zip(other) {
        together += (one - mean_one) * (other - mean_other);
        square_one += (one - mean_one).powi(2);
        square_other += (other - mean_other).powi(2);
    }
    let scale: f64 = square_one * square_other;
    if scale > 0.0 { together / scale.sqrt() } else { 0.0 }
}

/// The place of each value among all, equal ones the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let equal = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|value| below(*value) + (equal(*value) - 1.0) / 2.0).collect()
}

/// What a difference of scores counts as: right, wrong, or half.
pub(super) fn point(difference: f64) -> f64 {
    match difference.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => 1.0,
        // Two zeros of either sign are equal.
        _ if difference == 0.0 => 0.5,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The new scores are the squares of the old: the same order, another shape; one pair of three is turned round.
    #[test]
    fn drift_is_that_found_by_hand() {
        let old = [[0.0, 1.0], [2.0, 3.0], [5.0, 4.0]];
        let same = Drift::of(&old, &old);
        assert!((same.correlation - 1.0).abs() < 1e-12 && (same.rank_correlation - 1.0).abs() < 1e-12);
        assert_eq!((same.agreement, same.shift, same.pairs), (1.0, 0.0, 3));
        let squares = old.map(|pair| pair.map(|score| score * score));
        let drift = Drift::of(&old, &squares);
        assert!((drift.rank_correlation - 1.0).abs() < 1e-12 && drift.correlation < 0.99);
        // Means 55 / 6 and 15 / 6.
        assert!((drift.shift - 40.0 / 6.0).abs() < 1e-12, "{drift:?}");
        let turned = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]];
        assert!((Drift::of(&old, &turned).agreement - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(Drift::of(&[], &[]).agreement, 1.0);
        assert_eq!(ranks(&[3.0, 1.0, 3.0]), [1.5, 0.0, 1.5]);
        assert_eq!(correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
