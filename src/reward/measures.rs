//! What do predictions say about a set of pairs? Accuracy by group, baselines, calibration and liking for length.

use std::collections::BTreeMap;

use super::Pair;
use super::features::{GROUNDED, feature_names};
use super::logistic::{log_loss, sigmoid};
use super::report::{Accuracy, Bin, Calibration, Group, Longer, Measures, point};
use crate::evaluation::metrics::word_count;

/// Ranges of predicted probability, from 0.5 to 1: with few pairs, more would be empty.
const BINS: usize = 5;
/// Names of margins' ranges: strength is given in three steps.
const MARGINS: [(f32, &str); 3] = [(0.34, "slight"), (0.67, "clear"), (f32::INFINITY, "strong")];
/// Names of ranges of how many times as long the longer answer is.
const GAPS: [(f64, &str); 3] =
    [(1.25, "about equal"), (2.0, "up to twice as long"), (f64::INFINITY, "over twice as long")];

/// The baseline that knows nothing but words, and that a reward model must beat.
pub const LONGER_WINS: &str = "longer wins";

/// A pair and what a model says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) pair: &'a Pair,
    /// Calibrated log-odds that the chosen answer is the better one.
    pub(super) logit: f64,
    /// Groundedness of the chosen answer minus that of the other.
    pub(super) grounded: f64,
}

impl Judged<'_> {
    fn longer(&self) -> f64 {
        longer_by(self.pair)
    }
}

/// Words of the chosen answer and of the other.
fn words(pair: &Pair) -> (f64, f64) {
    (word_count(&pair.chosen) as f64, word_count(&pair.rejected) as f64)
}

/// By how many words the chosen answer is longer than the other.
fn longer_by(pair: &Pair) -> f64 {
    let (chosen, rejected) = words(pair);
    chosen - rejected
}

/// How often the longer answer is the chosen one; the same length counts half. Ties have to be left out.
pub(super) fn longer_wins(decided: &[&Pair]) -> Accuracy {
    accuracy(decided.iter().map(|pair| longer_by(pair)))
}

/// Whether the longer answer of a source won more often, among what was learnt from.
#[derive(Debug, Clone, Default)]
pub(super) struct Likings {
    longer: BTreeMap<String, i64>,
}

impl Likings {
    pub(super) fn of(pairs: &[&Pair]) -> Self {
        let mut longer: BTreeMap<String, i64> = BTreeMap::new();
        for pair in pairs.iter().filter(|pair| !pair.is_tie()) {
            let (chosen, rejected) = (word_count(&pair.chosen), word_count(&pair.rejected));
            *longer.entry(pair.source.clone()).or_default() += (chosen.cmp(&rejected) as i8) as i64;
        }
        Self { longer }
    }

    /// 1 where longer wins, −1 where shorter does.
    fn sign(&self, source: &str) -> f64 {
        if self.longer.get(source).copied().unwrap_or(0) >= 0 { 1.0 } else { -1.0 }
    }
}

/// The column of groundedness alone.
pub(super) fn grounded_feature() -> usize {
    feature_names().iter().position(|name| *name == GROUNDED).unwrap_or(0)
}

/// Everything about one set; ties are left out.
pub(super) fn measure(judged: &[Judged<'_>], likings: &Likings) -> Measures {
    let decided: Vec<Judged<'_>> = judged.iter().copied().filter(|judged| !judged.pair.is_tie()).collect();
    let losses: f64 = decided.iter().map(|judged| log_loss(judged.logit, 1.0)).sum();
    let margin = |judged: &Judged<'_>| {
        MARGINS.iter().position(|(most, _)| judged.pair.margin < *most).unwrap_or(MARGINS.len() - 1)
    };
    let gap = |judged: &Judged<'_>| {
        let (a, b) = words(judged.pair);
        let ratio = a.max(b) / a.min(b).max(1.0);
        GAPS.iter().position(|(most, _)| ratio < *most).unwrap_or(GAPS.len() - 1)
    };
    let baseline = |name: &str, decide: &dyn Fn(&Judged<'_>) -> f64| Group {
        name: name.to_owned(),
        accuracy: accuracy(decided.iter().map(decide)),
    };
    let signed = |judged: &Judged<'_>| judged.longer() * likings.sign(&judged.pair.source);
    Measures {
        accuracy: accuracy(decided.iter().map(|judged| judged.logit)),
        log_loss: losses / decided.len().max(1) as f64,
        by_source: grouped(&decided, |judged| (0, judged.pair.source.as_str())),
        by_margin: grouped(&decided, |judged| (margin(judged), MARGINS[margin(judged)].1)),
        by_length_gap: grouped(&decided, |judged| (gap(judged), GAPS[gap(judged)].1)),
        baselines: vec![
            baseline(LONGER_WINS, &|judged| judged.longer()),
            baseline("shorter wins", &|judged| -judged.longer()),
            baseline("majority of the source", &signed),
            baseline("groundedness only", &|judged| judged.grounded),
        ],
        calibration: calibration(&decided),
        longer: longer(&decided),
    }
}

/// Of differences: above zero is right.
fn accuracy(differences: impl Iterator<Item = f64>) -> Accuracy {
    let points: Vec<f64> = differences.map(point).collect();
    Accuracy::of(points.iter().sum(), points.len() as u64)
}

/// By a rank and a name, in this order.
fn grouped<'a>(decided: &[Judged<'a>], group: impl Fn(&Judged<'a>) -> (usize, &'a str)) -> Vec<Group> {
    let mut groups: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for judged in decided {
        groups.entry(group(judged)).or_default().push(judged.logit);
    }
    let named = groups
        .into_iter()
        .map(|((_, name), logits)| Group { name: name.to_owned(), accuracy: accuracy(logits.into_iter()) });
    named.collect()
}

fn calibration(decided: &[Judged<'_>]) -> Calibration {
    let mut sums = [(0.0, 0.0, 0u64); BINS];
    for judged in decided {
        let sure = sigmoid(judged.logit.abs());
        let bin = (((sure - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1);
        sums[bin].0 += sure;
        sums[bin].1 += point(judged.logit);
        sums[bin].2 += 1;
    }
    let filled = sums.iter().filter(|(_, _, pairs)| *pairs > 0);
    let bins: Vec<Bin> = filled
        .map(|(sure, right, pairs)| {
            let n = *pairs as f64;
            Bin { predicted: sure / n, observed: right / n, pairs: *pairs }
        })
        .collect();
    let weighted = bins.iter().map(|bin| (bin.predicted - bin.observed).abs() * bin.pairs as f64);
    Calibration { error: weighted.sum::<f64>() / decided.len().max(1) as f64, bins }
}

fn longer(decided: &[Judged<'_>]) -> Longer {
    let unequal: Vec<&Judged<'_>> = decided.iter().filter(|judged| judged.longer() != 0.0).collect();
    let n = unequal.len().max(1) as f64;
    let by_people = unequal.iter().filter(|judged| judged.longer() > 0.0).count() as f64;
    // The model prefers the longer where its sign and that of the length agree.
    let by_model: f64 = unequal.iter().map(|judged| point(judged.logit * judged.longer())).sum();
    Longer { model: by_model / n, people: by_people / n }
}
