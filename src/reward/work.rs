//! What is between votes and a model? Columns, weights and folds of one rung, and the fits that are made of them.

use super::backbone::{Projection, State};
use super::features::{LENGTH, Row, feature_names};
use super::folds::{bootstrap, folds};
use super::logistic::{Fit, Observation, Penalty, dot, fit};
use super::model::{About, Normaliser, Reading, block_names};
use super::people::{agreeing, capped, numbered};
use super::report::Outlier;
use super::selection::{Chosen, Lengths, choose};
use super::table::Sample;
use super::{Extractor, RewardModel, Rung, Settings};
use crate::evaluation::statistics::mean_or_zero;

/// Whose votes they are, and what each pair and then each thumb weighs.
#[derive(Clone)]
pub(super) struct People {
    /// Of each pair and then of each thumb.
    pub(super) voters: Vec<Option<usize>>,
    pub(super) names: Vec<String>,
    pub(super) weights: Vec<f64>,
    pub(super) effective_pairs: f64,
}

impl People {
    pub(super) fn of(sample: &Sample<'_>, settings: &Settings) -> Self {
        let (voters, names) = numbered(sample.users().into_iter());
        let mut weights = vec![1.0; voters.len()];
        capped(&mut weights, &voters, settings.person_share);
        let (of_pairs, of_thumbs) = weights.split_at(sample.pairs.len());
        // A tie says nothing about which answer is liked.
        let decided = sample.pairs.iter().zip(of_pairs).filter(|(pair, _)| !pair.is_tie());
        let pairs: f64 = decided.map(|(_, weight)| weight).sum();
        let kind = |good| {
            let of_kind = sample.thumbs.iter().zip(of_thumbs).filter(move |(thumb, _)| thumb.good == good);
            of_kind.map(|(_, weight)| weight).sum::<f64>()
        };
        // One thumb up and one down compare two answers as a pair does.
        let effective_pairs = pairs + f64::min(kind(true), kind(false));
        Self { voters, names, weights, effective_pairs }
    }
}

/// What the second rung has besides features.
#[derive(Debug, Clone)]
struct States {
    projection: Projection,
    /// How much stronger the ridge is for them.
    factor: f64,
    /// Names the language model.
    version: String,
}

/// What a model is made of beside the features.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) rung: Rung,
    pub(super) reading: Option<Reading>,
    /// Names the language model.
    pub(super) version: Option<String>,
}

/// What is known while a model is made.
#[derive(Clone)]
pub(super) struct Work<'a> {
    pub(super) sample: &'a Sample<'a>,
    pub(super) people: People,
    pub(super) settings: &'a Settings,
    pub(super) encoder: Option<String>,
    normaliser: Normaliser,
    /// None on the first rung.
    states: Option<States>,
    /// As read, in the order of [`Sample::items`].
    pub(super) read: Vec<Row>,
    /// Columns: the same, normalised, and what the projection gives.
    pub(super) rows: Vec<Vec<f64>>,
    pub(super) observations: Vec<Observation>,
    pub(super) folds: Vec<usize>,
    /// Of each feature, how strongly its coefficients are held beside those of the others.
    held: Vec<f64>,
    /// Columns of the answer's length.
    lengths: Lengths,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        (sample, people): (&'a Sample<'a>, People),
        (settings, extractor): (&'a Settings, &Extractor),
        read: Vec<Row>,
    ) -> Self {
        let normaliser = Normaliser::of(&read[..sample.training_items()], sample.pairs.len());
        let rows: Vec<Vec<f64>> = read.iter().map(|row| normaliser.apply(row)).collect();
        let held = held(&read[..sample.training_items()], sample.pairs.len());
        let observations = observations(sample, &people, (&rows, settings));
        let folds = folds(&sample.clusters(), settings.seed);
        let length = feature_names().iter().position(|name| *name == LENGTH).unwrap_or(0);
        let lengths = Lengths::of(|block| length + block * feature_names().len());
        let encoder = extractor.encoder.as_ref().map(|encoder| encoder.id().to_owned());
        Self {
            sample,
            people,
            settings,
            encoder,
            normaliser,
            states: None,
            read,
            rows,
            observations,
            folds,
            held,
            lengths,
        }
    }

    /// Lowers the weight of people who choose against the others, and balances thumbs.
    pub(super) fn weigh(&mut self) -> Vec<Outlier> {
        let People { voters, names, weights, .. } = &mut self.people;
        let outliers = agreeing((&self.observations, weights), (voters, names));
        let (of_pairs, of_thumbs) = weights.split_at_mut(self.sample.pairs.len());
        let total: f64 = of_pairs.iter().sum();
        let good: Vec<bool> = self.sample.thumbs.iter().map(|thumb| thumb.good).collect();
        balance(of_thumbs, &good, total);
        outliers
    }

    /// The same work with states of a language model beside the features.
    pub(super) fn with_states(&self, states: &[State], version: String) -> Self {
        let projection = Projection::of(&states[..self.sample.training_items()], self.sample.pairs.len());
        let beside = |(row, state): (&Vec<f64>, &State)| [row.as_slice(), &projection.apply(state)].concat();
        let rows: Vec<Vec<f64>> = self.rows.iter().zip(states).map(beside).collect();
        let observations = observations(self.sample, &self.people, (&rows, self.settings));
        let states = Some(States { projection, factor: 1.0, version });
        Self { states, rows, observations, ..self.clone() }
    }

    /// The same work with a ridge this many times stronger on states than on features.
    pub(super) fn holding_states(mut self, factor: f64) -> Self {
        if let Some(states) = &mut self.states {
            states.factor = factor;
        }
        self
    }

    pub(super) fn penalty(&self, ridge: f64) -> Penalty {
        let (states, factor) =
            self.states.as_ref().map_or((0, 1.0), |states| (states.projection.len(), states.factor));
        let all = self.rows.first().map_or(0, Vec::len);
        let mut columns: Vec<f64> =
            self.held.iter().map(|held| ridge * held).cycle().take(all - states).collect();
        columns.resize(all, ridge * factor);
        // A bias of one nat is as surprising as a coefficient of one.
        Penalty { columns, person: 1.0, people: self.people.names.len() }
    }

    /// The best of some strengths of the ridge.
    pub(super) fn choose(&self, ridges: &[f64]) -> Chosen {
        let data = (self.observations.as_slice(), self.people.weights.as_slice());
        choose(data, (&self.folds, &self.lengths), ridges, |ridge| self.penalty(ridge))
    }

    /// Coefficients of an ensemble. Members learn from clusters drawn with replacement, and differ where the data say
    /// little.
    pub(super) fn members(&self, chosen: &Chosen) -> Vec<Vec<f64>> {
        let clusters = self.sample.clusters();
        let penalty = self.penalty(chosen.ridge);
        let whole = fit((&self.observations, &self.people.weights), &penalty, None);
        let member = |m: usize| {
            let drawn = bootstrap(&clusters, self.settings.seed.wrapping_add(m as u64 + 1));
            let weights: Vec<f64> = drawn.iter().zip(&self.people.weights).map(|(n, w)| n * w).collect();
            self.coefficients(&fit((&self.observations, &weights), &penalty, Some(&whole)))
        };
        (0..self.settings.ensemble.max(1)).map(member).collect()
    }

    /// What this work's columns are made of.
    pub(super) fn beside(&self) -> Beside {
        let rung = if self.states.is_some() { Rung::Backbone } else { Rung::Features };
        let reading = self.states.as_ref().map(|states| Reading::Frozen(states.projection.clone()));
        Beside { rung, reading, version: self.states.as_ref().map(|states| states.version.clone()) }
    }

    /// A model of these members; `rows` are the columns of all items.
    pub(super) fn model(
        &self,
        beside: Beside,
        (members, slope): (Vec<Vec<f64>>, f64),
        rows: &[Vec<f64>],
    ) -> RewardModel {
        let adapter = match &beside.reading {
            Some(Reading::Tuned(tuning)) => Some(tuning.shape),
            _ => None,
        };
        let about = About {
            rung: beside.rung,
            settings: self.settings.clone(),
            encoder: self.encoder.clone(),
            backbone: beside.version,
            adapter,
            names: feature_names().iter().map(|name| (*name).to_owned()).collect(),
            blocks: block_names().into_iter().map(str::to_owned).collect(),
            label: serde_json::Value::Null,
        };
        let reference = &rows[..self.sample.training_items()];
        RewardModel::assemble(about, (self.normaliser.clone(), beside.reading), (members, slope), reference)
    }

    /// A liking for longer is a nuisance, one for shorter counts.
    pub(super) fn coefficients(&self, fit: &Fit) -> Vec<f64> {
        let mut weights = fit.weights.clone();
        // The intercept is of thumbs only.
        weights.truncate(weights.len() - 1);
        self.lengths.shorter_only(&mut weights);
        weights
    }
}

/// How strongly each feature's coefficients are held, 1 on average: by the root of how often the others measure the same,
/// which is the sum of its squared correlations with all of them. Many features see how much of question and passages is in
/// an answer, one or two see its tone: held alike, what many say would be believed many times as easily. The root, since
/// what is measured often is known better, too (`benches/RESULTS.md`). Of answers' features; the first `2 · pairs` are
/// those of pairs, whose differences are what is looked at.
fn held(rows: &[Row], pairs: usize) -> Vec<f64> {
    let features = rows.first().map_or(0, |row| row.features.len());
    let difference = |pair: &[Row]| -> Vec<f64> {
        pair[0].features.iter().zip(&pair[1].features).map(|(a, b)| a - b).collect()
    };
    let mut columns = vec![Vec::with_capacity(pairs); features];
    for pair in rows[..2 * pairs].chunks_exact(2) {
        columns.iter_mut().zip(difference(pair)).for_each(|(column, value)| column.push(value));
    }
    let square = |column: &Vec<f64>| dot(column, column);
    let again = |one: &Vec<f64>| -> f64 {
        let of = |other: &Vec<f64>| dot(one, other).powi(2) / (square(one) * square(other));
        // What never differs is like nothing, not even itself.
        columns.iter().map(of).filter(|share| share.is_finite()).sum::<f64>().max(1.0).sqrt()
    };
    let found: Vec<f64> = columns.iter().map(again).collect();
    let mean = mean_or_zero(&found);
    found.iter().map(|held| held / mean).collect()
}

/// What all thumbs together weigh at most, for each choice: on 307 choices of a simulation with 224 thumbs the
/// cross-validated log-loss was 0.591 at a quarter, 0.594 without thumbs, 0.606 at as much as the choices.
const THUMBS: f64 = 0.25;

/// Makes both kinds of thumbs weigh the same, and all of them no more than [`THUMBS`] where there are pairs.
fn balance(weights: &mut [f64], good: &[bool], pairs: f64) {
    let kind = |good_ones: bool| -> f64 {
        weights.iter().zip(good).filter(|(_, good)| **good == good_ones).map(|(weight, _)| weight).sum()
    };
    let (up, down) = (kind(true), kind(false));
    let total = if pairs > 0.0 { (up + down).min(THUMBS * pairs) } else { up + down };
    for (weight, good) in weights.iter_mut().zip(good) {
        // One kind alone says only how a person votes, which is the bias's part.
        let of_kind = if *good { up } else { down };
        *weight *= if up > 0.0 && down > 0.0 { total / 2.0 / of_kind } else { 0.0 };
    }
}

/// Pairs first, then thumbs.
fn observations(
    sample: &Sample<'_>,
    people: &People,
    (rows, settings): (&[Vec<f64>], &Settings),
) -> Vec<Observation> {
    let smooth = |p: f64| p * (1.0 - settings.label_smoothing) + (1.0 - p) * settings.label_smoothing;
    let pairs = sample.pairs.iter().zip(rows.chunks_exact(2)).map(|(pair, rows)| {
        let combined =
            |f: fn(f64, f64) -> f64| rows[0].iter().zip(&rows[1]).map(|(a, b)| f(*a, *b)).collect();
        let outcome = f64::from(pair.preference);
        Observation {
            x: combined(|a, b| a - b),
            sum: combined(|a, b| a + b),
            outcome,
            target: smooth(outcome),
            // A tie asks for no margin, a choice for its own.
            margin: settings.margin * f64::from(pair.margin) * (2.0 * outcome - 1.0),
            person: None,
            thumb: false,
        }
    });
    let voters = people.voters.iter().skip(sample.pairs.len());
    let thumbs = sample.thumbs.iter().zip(&rows[2 * sample.pairs.len()..]).zip(voters);
    let thumbs = thumbs.map(|((thumb, row), voter)| {
        let outcome = f64::from(u8::from(thumb.good));
        Observation {
            x: row.clone(),
            sum: Vec::new(),
            outcome,
            target: smooth(outcome),
            margin: 0.0,
            person: *voter,
            thumb: true,
        }
    });
    pairs.chain(thumbs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Message;
    use crate::reward::Item;

    fn row(features: [f64; 4]) -> Row {
        let conversation = [Message::user("What is it?")];
        Row::of(features.to_vec(), &Item { conversation: &conversation, passages: &[], answer: "It." })
    }

    /// By hand: the first two always say the same, so each is seen twice; the third goes its own way, the fourth never differs.
    #[test]
    fn what_several_features_say_is_held_more_strongly() {
        let differences =
            [[1.0, -2.0, 1.0, 0.0], [1.0, -2.0, -1.0, 0.0], [-1.0, 2.0, 1.0, 0.0], [-1.0, 2.0, -1.0, 0.0]];
        let rows: Vec<Row> =
            differences.into_iter().flat_map(|difference| [row(difference), row([0.0; 4])]).collect();
        let found = held(&rows, 4);
        let (twice, mean) = (2f64.sqrt(), (2f64.sqrt() + 1.0) / 2.0);
        for (found, expected) in found.iter().zip([twice, twice, 1.0, 1.0]) {
            assert!((found - expected / mean).abs() < 1e-12, "{found}");
        }
        assert_eq!(held(&rows, 0), [1.0; 4], "thumbs alone");
    }
}
