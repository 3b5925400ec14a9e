//! What is a trained reward model, and how does it score? Members of an ensemble, each a weighted sum of normalised
//! features, and the reference set their sums are read against.

use serde::{Deserialize, Serialize};

use super::backbone::Projection;
use super::features::{Row, feature_names};
use super::kind::KINDS;
use super::logistic::{dot, sigmoid};
use super::tuned::Tuning;
use super::{Backbone, Extractor, Item, RewardError, Score, Settings};
use crate::evaluation::statistics::{deviation, mean_or_zero};
use crate::nn::AdapterShape;

/// Normalised features farther out than this count as this far: no answer wins by being unlike all that were judged.
const FARTHEST: f64 = 5.0;
/// Standard deviations below this are rounding.
const SMALLEST: f64 = 1e-9;

/// Columns of each feature: with passages, without, and one for each kind of what is asked for.
pub(super) const BLOCKS: usize = FIRST_KIND + KINDS.len();
/// The place of the first kind.
pub(super) const FIRST_KIND: usize = 2;

/// What each of the [`BLOCKS`] is called, in order.
pub(super) fn block_names() -> Vec<&'static str> {
    ["with passages", "without"].into_iter().chain(KINDS).collect()
}

/// Which kind of model it is, from the simplest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Interpretable features.
    Features,
    /// And features of a frozen language model.
    Backbone,
    /// A trained adapter with a scalar head, and interpretable features beside it.
    Adapter,
}

/// What is known about a model besides its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) rung: Rung,
    pub(super) settings: Settings,
    /// Id of the sentence model whose cosines it learnt from.
    pub(super) encoder: Option<String>,
    /// Names the language model whose states it learnt from.
    pub(super) backbone: Option<String>,
    /// Shape of the adapter, on the rung that has one.
    pub(super) adapter: Option<AdapterShape>,
    /// Of the features, in order.
    pub(super) names: Vec<String>,
    /// Of the [`BLOCKS`], in order.
    #[serde(default, alias = "kinds")]
    pub(super) blocks: Vec<String>,
    /// Who may be served what it learnt; the caller's own words.
    pub(super) label: serde_json::Value,
}

impl About {
    /// Whether it is of a version with the same features.
    pub(super) fn is_of_this_version(&self) -> bool {
        self.names == feature_names() && self.blocks == block_names()
    }
}

/// A trained reward model. It never changes; scores may be asked for from any thread.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardModel {
    pub(super) about: About,
    pub(super) normaliser: Normaliser,
    /// Of the rungs that read answers with a language model.
    pub(super) reading: Option<Reading>,
    /// Members × columns: those of features, then those of states.
    pub(super) members: Vec<Vec<f64>>,
    /// Of each member, its mean over the reference set.
    pub(super) centres: Vec<f64>,
    /// Standard deviation of the members' mean over the reference set (nats).
    pub(super) unit: f64,
    /// Log-odds a nat of reward is worth, from cross-validation.
    pub(super) slope: f64,
    /// Values of the reference set, lowest first.
    pub(super) reference: Vec<f64>,
}

/// What becomes of an answer that a language model reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// Features of the frozen model's states.
    Frozen(Projection),
    /// The hidden state at the answer's end, with this adapter beside the model.
    Tuned(Tuning),
}

impl Reading {
    /// Columns of answers.
    pub(super) fn columns(
        &self,
        backbone: &Backbone,
        items: &[Item<'_>],
    ) -> Result<Vec<Vec<f64>>, RewardError> {
        match self {
            Self::Frozen(projection) => {
                Ok(backbone.states(items)?.iter().map(|state| projection.apply(state)).collect())
            }
            Self::Tuned(tuning) => backbone.ends(tuning, items),
        }
    }
}

/// Brings features to one scale, and apart by whether there were passages and by what was asked for: what makes an answer
/// good is not the same then. Every feature has two columns for the first, of which one is 0, and one for each kind of
/// what is asked for, of which all but one are 0. What it counts in each is the kind's ([`Kind::weights`]).
///
/// [`Kind::weights`]: super::kind::Kind::weights
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normaliser {
    /// Of each feature over the training answers with passages, then of each over those without.
    pub(super) mean: Vec<f64>,
    /// Of each feature, how far two answers to one question are apart (root mean square / √2); over all answers where
    /// there are no pairs.
    pub(super) deviation: Vec<f64>,
}

/// An answer as one reward model reads it: what its members' weights are of.
#[derive(Debug, Clone, PartialEq)]
pub struct Read(pub(super) Vec<f64>);

/// Which of two answers is better, and how sure the ensemble is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Probability that people choose the first one.
    pub probability: f64,
    /// Standard deviation over the members of the difference of scores, in the unit of [`Score`].
    pub spread: f64,
}

impl RewardModel {
    /// Which rung of the ladder it is.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.about.rung
    }

    /// Whether scoring needs [`Extractor::backbone`].
    #[must_use]
    pub fn needs_backbone(&self) -> bool {
        self.about.rung > Rung::Features
    }

    /// How it was trained.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.about.settings
    }

    /// The access label the caller gave it; null before.
    #[must_use]
    pub fn label(&self) -> &serde_json::Value {
        &self.about.label
    }

    /// The same model with an access label, which is saved with it.
    #[must_use]
    pub fn with_label(mut self, label: serde_json::Value) -> Self {
        self.about.label = label;
        self
    }

    /// Reads answers, in order: what their scores and the reasons for them are of.
    ///
    /// # Errors
    /// As [`RewardModel::score`].
    pub fn read(&self, extractor: &Extractor, items: &[Item<'_>]) -> Result<Vec<Read>, RewardError> {
        Ok(self.columns(extractor, items)?.into_iter().map(Read).collect())
    }

    /// The score of an answer it read.
    #[must_use]
    pub fn score_of(&self, Read(columns): &Read) -> Score {
        self.summary(&self.member_values(columns))
    }

    /// Scores answers, in order. An item's score does not depend on the others: features are computed item by item, so
    /// scores alone and in a batch differ by the rounding of the sentence model's matrix products at most (1e-5).
    ///
    /// # Errors
    /// When an answer or a conversation is empty, the extractor lacks a model this one was trained with or has another
    /// one, or a model fails.
    pub fn score(&self, extractor: &Extractor, items: &[Item<'_>]) -> Result<Vec<Score>, RewardError> {
        Ok(self.read(extractor, items)?.iter().map(|read| self.score_of(read)).collect())
    }

    /// Compares two answers.
    ///
    /// # Errors
    /// As [`RewardModel::score`].
    pub fn compare(
        &self,
        extractor: &Extractor,
        (first, second): (Item<'_>, Item<'_>),
    ) -> Result<Verdict, RewardError> {
        let values = self.values(extractor, &[first, second])?;
        let differences = values.first().zip(values.get(1)).map_or_else(Vec::new, |(a, b)| differences(a, b));
        let logit = self.slope * self.unit * mean_or_zero(&differences);
        Ok(Verdict { probability: sigmoid(logit), spread: deviation(&differences) })
    }

    /// Which two of these answers, of different texts, the members disagree on most: there a choice teaches most. `None`
    /// without two different ones.
    ///
    /// # Errors
    /// As [`RewardModel::score`].
    pub fn least_sure(
        &self,
        extractor: &Extractor,
        items: &[Item<'_>],
    ) -> Result<Option<(usize, usize)>, RewardError> {
        let values = self.values(extractor, items)?;
        let mut least: Option<((usize, usize), f64)> = None;
        for a in 0..items.len() {
            for b in (a + 1..items.len()).filter(|b| items[a].answer != items[*b].answer) {
                let spread = deviation(&differences(&values[a], &values[b]));
                if least.is_none_or(|(_, most)| spread > most) {
                    least = Some(((a, b), spread));
                }
            }
        }
        Ok(least.map(|(pair, _)| pair))
    }

    /// Of each item, every member's normalised score.
    fn values(&self, extractor: &Extractor, items: &[Item<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        Ok(self.read(extractor, items)?.iter().map(|Read(columns)| self.member_values(columns)).collect())
    }

    /// Of each item, what a member's weights are of: normalised features, block by block, then states.
    pub(super) fn columns(
        &self,
        extractor: &Extractor,
        items: &[Item<'_>],
    ) -> Result<Vec<Vec<f64>>, RewardError> {
        self.check(extractor)?;
        // A model that learnt without a sentence model scores without one.
        let rows = if self.about.encoder.is_some() {
            extractor.features(items)?
        } else {
            Extractor { encoder: None, backbone: extractor.backbone.clone() }.features(items)?
        };
        let mut columns: Vec<Vec<f64>> = rows.iter().map(|row| self.normaliser.apply(row)).collect();
        if let Some(reading) = &self.reading {
            let backbone = extractor.backbone.as_ref().ok_or(RewardError::NoBackbone)?;
            if self.about.backbone != Some(backbone.version()?) {
                return Err(RewardError::OtherBackbone);
            }
            backbone.check(items)?;
            for (columns, read) in columns.iter_mut().zip(reading.columns(backbone, items)?) {
                columns.extend(read);
            }
        }
        Ok(columns)
    }

    /// Of normalised features, every member's score against the reference set.
    fn member_values(&self, row: &[f64]) -> Vec<f64> {
        let members = self.members.iter().zip(&self.centres);
        members.map(|(weights, centre)| (dot(weights, row) - centre) / self.unit).collect()
    }

    /// Calibrated log-odds that the first of two answers is liked better, of normalised features.
    pub(super) fn logit(&self, rows: [&[f64]; 2]) -> f64 {
        let [first, second] = rows.map(|row| mean_or_zero(&self.member_values(row)));
        self.slope * self.unit * (first - second)
    }

    /// Mean weight of each column over the members.
    pub(super) fn mean_weights(&self) -> Vec<f64> {
        let columns = self.members.first().map_or(0, Vec::len);
        let of = |i: usize| mean_or_zero(&self.members.iter().map(|weights| weights[i]).collect::<Vec<_>>());
        (0..columns).map(of).collect()
    }

    /// Mean weight of each column with its name, the largest first.
    pub(super) fn named_weights(&self) -> Vec<(String, f64)> {
        let names = (self.about.blocks.iter())
            .flat_map(|block| self.about.names.iter().map(move |name| format!("{name} ({block})")));
        let weights = self.mean_weights();
        let read = weights.len().saturating_sub(BLOCKS * self.about.names.len());
        let states = (0..read).map(|i| format!("language model {i}"));
        let mut found: Vec<(String, f64)> = names.chain(states).zip(weights).collect();
        found.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        found
    }

    /// A model of these members, read against these answers (normalised features).
    pub(super) fn assemble(
        about: About,
        (normaliser, reading): (Normaliser, Option<Reading>),
        (members, slope): (Vec<Vec<f64>>, f64),
        reference: &[Vec<f64>],
    ) -> Self {
        let centre = |weights: &Vec<f64>| {
            mean_or_zero(&reference.iter().map(|row| dot(weights, row)).collect::<Vec<_>>())
        };
        let centres: Vec<f64> = members.iter().map(centre).collect();
        let mut model =
            Self { about, normaliser, reading, members, centres, unit: 1.0, slope, reference: vec![] };
        let mut scores: Vec<f64> =
            reference.iter().map(|row| mean_or_zero(&model.member_values(row))).collect();
        // A model that says nothing has a unit all the same.
        model.unit = deviation(&scores).max(SMALLEST);
        scores.iter_mut().for_each(|score| *score /= model.unit);
        scores.sort_by(f64::total_cmp);
        model.reference = scores;
        model
    }

    fn summary(&self, values: &[f64]) -> Score {
        let value = mean_or_zero(values);
        let below = self.reference.partition_point(|other| *other < value);
        let percentile = 100.0 * below as f64 / self.reference.len().max(1) as f64;
        Score { value, spread: deviation(values), percentile }
    }

    fn check(&self, extractor: &Extractor) -> Result<(), RewardError> {
        let found = extractor.encoder.as_ref().map(|encoder| encoder.id().to_owned());
        if found != self.about.encoder && self.about.encoder.is_some() {
            let name = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
            return Err(RewardError::OtherEncoder {
                trained: name(&self.about.encoder),
                found: name(&found),
            });
        }
        if self.needs_backbone() && extractor.backbone.is_none() {
            return Err(RewardError::NoBackbone);
        }
        Ok(())
    }
}

impl Normaliser {
    /// Of answers' features; the first `2 · pairs` are those of pairs, two each.
    pub(super) fn of(rows: &[Row], pairs: usize) -> Self {
        let features = rows.first().map_or(0, |row| row.features.len());
        let means = [true, false].map(|grounded| {
            let of_kind: Vec<&Row> = rows.iter().filter(|row| row.grounded == grounded).collect();
            (0..features)
                .map(move |i| mean_or_zero(&of_kind.iter().map(|row| row.features[i]).collect::<Vec<_>>()))
        });
        let apart = |i: usize| {
            let difference = |pair: &[Row]| (pair[0].features[i] - pair[1].features[i]).powi(2);
            let squares: f64 = rows[..2 * pairs].chunks_exact(2).map(difference).sum();
            (squares / (2 * pairs).max(1) as f64).sqrt()
        };
        let over_all = |i: usize| deviation(&rows.iter().map(|row| row.features[i]).collect::<Vec<_>>());
        let scale = |i: usize| {
            let found = if pairs > 0 { apart(i) } else { over_all(i) };
            // A feature in which answers never differ says nothing, whatever it is divided by.
            if found > SMALLEST { found } else { 1.0 }
        };
        let deviation = (0..features).map(scale).collect();
        Self { mean: means.into_iter().flatten().collect(), deviation }
    }

    /// The [`BLOCKS`] columns of each feature of one answer: all with passages, all without, then all of each kind.
    pub(super) fn apply(&self, row: &Row) -> Vec<f64> {
        let features = self.deviation.len();
        let start = if row.grounded { 0 } else { features };
        let of_kind = (FIRST_KIND + row.kind as usize) * features;
        let (shared, own) = row.kind.weights();
        let mut columns = vec![0.0; BLOCKS * features];
        let scaled = row.features.iter().zip(&self.mean[start..]).zip(&self.deviation);
        for (i, ((x, mean), deviation)) in scaled.enumerate() {
            let value = ((x - mean) / deviation).clamp(-FARTHEST, FARTHEST);
            (columns[start + i], columns[of_kind + i]) = (shared * value, own * value);
        }
        columns
    }
}

/// By how much each member likes one answer more than another.
fn differences(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one - other).collect()
}
