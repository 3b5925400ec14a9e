//! Which of two answers would the company's people choose? A reward model learns it from their choices and thumbs, says
//! how well it does, and scores answers.
//!
//! A ladder of models, each tried only when the one below it works: nothing below [`Settings::enough`] effective pairs;
//! a ridge Bradley-Terry model on interpretable features; the same with features of a frozen language model; a trained
//! adapter with a scalar head. Cross-validated log-loss chooses. Rewards are differences of log-odds (nats): a pair's
//! chosen answer wins with probability σ(r(chosen) − r(rejected)).

mod backbone;
mod examination;
mod features;
mod folds;
mod head;
mod kind;
mod ladder;
mod logistic;
mod measures;
mod model;
mod people;
mod preferences;
mod reasons;
mod report;
mod selection;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod training;
mod tuned;
mod votes;
mod work;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::Message;
use crate::models::ModelCodec;
use crate::nn::{Decoder, NnError};
use crate::retrieval::{RetrievalError, SentenceEncoder};

pub use measures::LONGER_WINS;
pub use model::{Read, RewardModel, Rung, Verdict};
pub use preferences::{Pair, Preferences, Thumb};
pub use reasons::{Reason, words};
pub use report::{
    Accuracy, Bin, Calibration, Counts, CurvePoint, Drift, Group, Longer, Measures, Outlier, Report, Tried,
    VoteQuality,
};

/// Why a reward model could not be trained, read or used.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// It was told to stop.
    #[error("stopped while {phase}")]
    Stopped {
        /// What was being done.
        phase: &'static str,
    },
    /// An item has nothing to score.
    #[error("item {index}: the answer is empty")]
    EmptyAnswer {
        /// Which item, from 0.
        index: usize,
    },
    /// An item has no question.
    #[error("item {index}: the conversation is empty")]
    EmptyConversation {
        /// Which item, from 0.
        index: usize,
    },
    /// An answer does not fit the model that reads it.
    #[error("item {index}: the answer has {tokens} tokens, the model reads {limit}")]
    LongAnswer {
        /// Which item, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Most tokens.
        limit: usize,
    },
    /// A row that can not be learnt from.
    #[error("row {id}: {problem}")]
    Row {
        /// The pair's or thumb's id.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The model was trained with another sentence model, or with one and there is none.
    #[error("the reward model was trained with sentence model {trained}, here is {found}")]
    OtherEncoder {
        /// Its id, or `none`.
        trained: String,
        /// Its id, or `none`.
        found: String,
    },
    /// The rung reads answers with a language model and there is none.
    #[error("the reward model reads answers with a language model, and none was given")]
    NoBackbone,
    /// The rung reads answers with another language model than the one that was given.
    #[error(
        "the reward model was trained with another language model; `attune run reward` trains one of this one"
    )]
    OtherBackbone,
    /// The adapter's loss or its gradient is no number.
    #[error("the loss is no number at step {step}")]
    Diverged {
        /// At which step, from 0.
        step: u64,
    },
    /// The head is of a version of this program that saw other things of an answer.
    #[error(
        "the reward model was trained by a version with other features; `attune run reward` trains one of this version"
    )]
    OtherVersion,
    /// The head's file is damaged.
    #[error("reward head {path}: {problem}")]
    Head {
        /// Which file.
        path: String,
        /// What does not fit.
        problem: String,
    },
    /// A file can not be read or written.
    #[error("{path}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The sentence model failed.
    #[error("sentence model")]
    Encoder(#[from] RetrievalError),
    /// The language model failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A tensor operation failed.
    #[error("tensor operation")]
    Tensor(#[from] candle_core::Error),
    /// The chat template can not be rendered.
    #[error("chat template")]
    Template(#[from] minijinja::Error),
}

/// An answer and what it answers.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Oldest message first, the question last.
    pub conversation: &'a [Message],
    /// Texts of the passages the answer was to be grounded in; empty: the question serves as both.
    pub passages: &'a [String],
    /// The answer.
    pub answer: &'a str,
}

/// What reads items: the models that turn texts into numbers. Both are optional; without a sentence model the cosine
/// features are 0, without a backbone only the rungs below it can be trained and served.
#[derive(Debug, Clone, Default)]
pub struct Extractor {
    /// Meaning of texts as vectors.
    pub encoder: Option<Arc<SentenceEncoder>>,
    /// The policy's language model.
    pub backbone: Option<Arc<Backbone>>,
}

/// A language model that reads answers.
#[derive(Debug)]
pub struct Backbone {
    /// Its frozen weights.
    pub decoder: Decoder,
    /// Its tokens.
    pub codec: ModelCodec,
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Minutes in all; rungs that do not fit are skipped and named.
    pub budget_minutes: f64,
    /// Of folds, bootstraps and first values.
    pub seed: u64,
    /// Candidate strengths of the ridge, in pairs: how many pairs' evidence a coefficient of 1 must outweigh.
    pub ridges: Vec<f64>,
    /// Members of the ensemble.
    pub ensemble: usize,
    /// Share of choices taken to be slips.
    pub label_smoothing: f64,
    /// Reward (nats) by which a choice of full strength is to win.
    pub margin: f64,
    /// Largest share of all weight that one person's votes can have.
    pub person_share: f64,
    /// Effective pairs below which nothing is trained.
    pub enough: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A coffee break on two cores.
            budget_minutes: 15.0,
            seed: 20_250_117,
            // Features have a standard deviation of 1, so useful coefficients are a few tenths. Weaker ones are chosen by
            // chance among a hundred choices or two, and then half of the people's choices say little about the other
            // half's (`benches/RESULTS.md`).
            ridges: vec![100.0, 300.0, 1000.0, 3000.0, 10_000.0],
            // Four to five members almost end over-optimisation (arXiv:2310.02743).
            ensemble: 5,
            // Raters disagree in 25 to 40% of comparisons; some of that is noise.
            label_smoothing: 0.1,
            margin: 0.0,
            // Four voices at least.
            person_share: 0.25,
            // Below it, a held-out fold has too few pairs to tell 60% from chance.
            enough: 50.0,
        }
    }
}

/// What is told while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being done.
    pub phase: &'static str,
    /// Parts of it done.
    pub done: u64,
    /// Its parts.
    pub total: u64,
}

/// What came of training.
#[derive(Debug)]
pub enum Outcome {
    /// There is too little to learn from yet.
    Collecting {
        /// Pairs after caps, ties and balanced thumbs counted as they weigh.
        effective_pairs: f64,
        /// [`Settings::enough`].
        needed: f64,
    },
    /// A model.
    Trained(Box<Trained>),
}

/// A trained model and how good it is.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: RewardModel,
    /// How good it is, honestly.
    pub report: Report,
}

/// How much an answer is liked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean of the ensemble's members, in standard deviations from the mean of the reference set.
    pub value: f64,
    /// Standard deviation over the members, in the same unit.
    pub spread: f64,
    /// Share of the reference set's answers that score lower, 0 to 100.
    pub percentile: f64,
}

/// Trains a reward model on what people said. `folder` keeps features and checkpoints between calls, so that an
/// interrupted one goes on. `observe` hears of every part; when it returns `false` the work ends with
/// [`RewardError::Stopped`]. The same preferences, settings and models give the same model.
///
/// # Errors
/// When a row can not be learnt from, a model fails, the folder can not be written, or `observe` says so.
pub fn train(
    preferences: &Preferences,
    extractor: &Extractor,
    (settings, folder): (&Settings, &Path),
    observe: impl FnMut(Step) -> bool,
) -> Result<Outcome, RewardError> {
    training::train(preferences, extractor, (settings, folder), observe)
}

/// How often a model decides pairs as people did, ties left out.
///
/// # Errors
/// As [`RewardModel::score`].
pub fn accuracy_of(
    model: &RewardModel,
    extractor: &Extractor,
    pairs: &[&Pair],
) -> Result<Accuracy, RewardError> {
    Ok(right(&scores_of(model, extractor, &decided(pairs))?))
}

/// How often people chose the longer answer, ties left out; answers of the same length count half.
#[must_use]
pub fn longer_wins(pairs: &[&Pair]) -> Accuracy {
    measures::longer_wins(&decided(pairs))
}

/// A new model beside an old one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// How often the old one decides pairs as people did.
    pub old: Accuracy,
    /// How often the new one does.
    pub new: Accuracy,
    /// How their scores differ.
    pub drift: Drift,
}

/// Compares two models on pairs, ties left out.
///
/// # Errors
/// As [`RewardModel::score`].
pub fn compared(
    (old, new): (&RewardModel, &RewardModel),
    extractor: &Extractor,
    pairs: &[&Pair],
) -> Result<Compared, RewardError> {
    let decided = decided(pairs);
    let (old, new) = (scores_of(old, extractor, &decided)?, scores_of(new, extractor, &decided)?);
    Ok(Compared { old: right(&old), new: right(&new), drift: Drift::of(&old, &new) })
}

fn decided<'a>(pairs: &[&'a Pair]) -> Vec<&'a Pair> {
    pairs.iter().copied().filter(|pair| !pair.is_tie()).collect()
}

/// Of each pair, the score of the chosen answer and of the other.
fn scores_of(
    model: &RewardModel,
    extractor: &Extractor,
    pairs: &[&Pair],
) -> Result<Vec<[f64; 2]>, RewardError> {
    let items: Vec<Item<'_>> = pairs.iter().flat_map(|pair| pair.items()).collect();
    let scores = model.score(extractor, &items)?;
    Ok(scores.chunks_exact(2).map(|pair| [pair[0].value, pair[1].value]).collect())
}

fn right(scores: &[[f64; 2]]) -> Accuracy {
    let points = scores.iter().map(|[chosen, other]| report::point(chosen - other)).sum();
    Accuracy::of(points, scores.len() as u64)
}
