//! How good is a reward model, honestly? Accuracy with intervals beside the simplest baselines, calibration, its liking
//! for length, and what the ladder tried.

mod markdown;
mod plot;

use serde::{Deserialize, Serialize};

use super::Rung;
use crate::evaluation::statistics::{Interval, wilson};

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

/// How the scores of one model differ from another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Pearson's correlation of the two models' scores.
    pub correlation: f64,
    /// Mean of new − old, in standard deviations of each model's reference set.
    pub shift: f64,
    /// Items compared.
    pub items: u64,
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
    /// Of two models' scores of the same items.
    pub(super) fn of(old: &[f64], new: &[f64]) -> Self {
        let n = old.len().min(new.len()).max(1) as f64;
        let (mean_old, mean_new) = (old.iter().sum::<f64>() / n, new.iter().sum::<f64>() / n);
        let (mut together, mut square_old, mut square_new) = (0.0, 0.0, 0.0);
        for (old, new) in old.iter().zip(new) {
            together += (old - mean_old) * (new - mean_new);
            square_old += (old - mean_old).powi(2);
            square_new += (new - mean_new).powi(2);
        }
        let scale = (square_old * square_new).sqrt();
        let correlation = if scale > 0.0 { together / scale } else { 0.0 };
        Self { correlation, shift: mean_new - mean_old, items: old.len() as u64 }
    }
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
