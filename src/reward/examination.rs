//! How good is what was made? The report of a trained model.

use super::folds::{FOLDS, first};
use super::logistic::fit;
use super::measures::{Judged, Likings, grounded_feature, measure};
use super::report::{Accuracy, Counts, CurvePoint, Outlier, Report, Tried, point};
use super::selection::Chosen;
use super::votes::quality;
use super::work::Work;
use super::{Pair, RewardModel};

/// Numbers of pairs at which the learning curve is measured.
const CURVE: [usize; 7] = [50, 100, 200, 300, 1_000, 3_000, 10_000];

impl<'a> Work<'a> {
    fn curve(&self, ridge: f64) -> Vec<CurvePoint> {
        let clusters = self.sample.clusters();
        let pairs = self.sample.pairs.len();
        let sizes = CURVE.into_iter().filter(|size| *size < pairs * 4 / 5);
        let penalty = self.penalty(ridge);
        sizes
            .map(|size| {
                let (mut right, mut all) = (0.0, 0);
                for fold in 0..FOLDS {
                    let take = |row: usize| row < pairs && self.folds[row] != fold;
                    let mut weights = vec![0.0; self.observations.len()];
                    for row in first(&clusters, (self.settings.seed, size), take) {
                        weights[row] = self.people.weights[row];
                    }
                    let fitted = self.coefficients(&fit((&self.observations, &weights), &penalty, None));
                    for (row, pair) in self.sample.pairs.iter().enumerate() {
                        if self.folds[row] == fold && !pair.is_tie() {
                            let x = &self.observations[row].x;
                            right += point(x.iter().zip(&fitted).map(|(x, w)| x * w).sum());
                            all += 1;
                        }
                    }
                }
                CurvePoint { pairs: size as u64, accuracy: Accuracy::of(right, all) }
            })
            .collect()
    }

    pub(super) fn report(
        &self,
        (model, rows, chosen): (&RewardModel, &[Vec<f64>], &Chosen),
        ladder: Vec<Tried>,
        outliers: Vec<Outlier>,
    ) -> Report {
        let sample = self.sample;
        let likings = Likings::of(&sample.pairs);
        let grounded = grounded_feature();
        let judge = |pair: &'a Pair, at: usize, logit: f64| {
            let grounded = self.read[at].features[grounded] - self.read[at + 1].features[grounded];
            Judged { pair, logit, grounded }
        };
        let trained = sample.pairs.iter().enumerate();
        let trained = trained.map(|(i, pair)| judge(pair, 2 * i, chosen.slope * chosen.logits[i]));
        let first_held_out = sample.training_items();
        let held_out = sample.held_out.iter().enumerate().map(|(i, pair)| {
            let at = first_held_out + 2 * i;
            judge(pair, at, model.logit([&rows[at], &rows[at + 1]]))
        });
        let held_out: Vec<Judged<'_>> = held_out.collect();
        let counts = Counts {
            pairs: sample.pairs.len() as u64,
            ties: sample.pairs.iter().filter(|pair| pair.is_tie()).count() as u64,
            thumbs: sample.thumbs.len() as u64,
            held_out: sample.held_out.len() as u64,
            people: self.people.names.len() as u64,
            effective_pairs: self.people.effective_pairs,
        };
        let mut cross_validated = measure(&trained.collect::<Vec<_>>(), &likings);
        cross_validated.log_loss = chosen.log_loss();
        Report {
            rung: model.rung(),
            counts,
            ridge: chosen.ridge,
            with_encoder: self.encoder.is_some(),
            held_out: (!held_out.is_empty()).then(|| measure(&held_out, &likings)),
            cross_validated,
            learning_curve: self.curve(chosen.ridge),
            ladder,
            drift: None,
            votes: quality(&sample.pairs, outliers),
            weights: model.named_weights(),
        }
    }
}
