//! Which kind of model is worth it? Each rung is tried when the one below works and there is time, and is taken when it
//! predicts votes better by more than a standard error.

use std::path::Path;
use std::time::Instant;

use super::folds::first;
use super::logistic::log_loss;
use super::model::Reading;
use super::report::Tried;
use super::selection::{Chosen, gain};
use super::table::states;
use super::training::step;
use super::tuned::{Lesson, Tuned, tune};
use super::work::{Beside, Work};
use super::{Backbone, Extractor, Item, RewardError, Rung, Step};

/// Share of the time left that reading answers with a language model may take; fits and measuring need the rest.
const READING: f64 = 0.7;
/// How much stronger the ridge is on states of a language model than on features that mean something.
const FACTORS: [f64; 4] = [1.0, 5.0, 25.0, 125.0];
/// Share of the time left that the adapter's comparison may take: training on all pairs comes after it.
const COMPARING: f64 = 0.35;
/// Most pairs of the adapter's comparison to learn from, and to judge by.
const COMPARED: (usize, usize) = (1_000, 250);
/// The fold that judges the adapter.
const JUDGING: usize = 0;

/// How much time there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) minutes: f64,
}

impl Clock {
    fn seconds_left(&self) -> f64 {
        60.0 * self.minutes - self.started.elapsed().as_secs_f64()
    }
}

/// Where the climb ended.
pub(super) struct Climbed<'a> {
    /// Of the linear rung that was chosen; none: of the first.
    pub(super) work: Option<Work<'a>>,
    pub(super) chosen: Chosen,
    /// When the adapter was chosen: beside the features, whatever the rung between gave.
    pub(super) tuned: Option<TunedRung>,
    pub(super) ladder: Vec<Tried>,
}

/// The last rung.
pub(super) struct TunedRung {
    pub(super) beside: Beside,
    /// Columns of all items: features, then the hidden state at the answer's end.
    pub(super) rows: Vec<Vec<f64>>,
    heads: Vec<Vec<f64>>,
}

impl TunedRung {
    /// Coefficients of the features, calibrated as the heads expect, with one head each.
    pub(super) fn members(&self, features: &[Vec<f64>], slope: f64) -> Vec<Vec<f64>> {
        let scaled = |weights: &Vec<f64>| weights.iter().map(|weight| slope * weight).collect::<Vec<_>>();
        features
            .iter()
            .zip(&self.heads)
            .map(|(weights, head)| [scaled(weights), head.clone()].concat())
            .collect()
    }
}

pub(super) fn climb<'a>(
    work: &Work<'a>,
    (extractor, folder): (&Extractor, &Path),
    clock: Clock,
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Climbed<'a>, RewardError> {
    step(observe, ("choosing the ridge", 1))?;
    let chosen = work.choose(&work.settings.ridges);
    let seconds = clock.started.elapsed().as_secs_f64();
    let mut features = tried(Rung::Features, seconds);
    (features.log_loss, features.chosen) = (Some(chosen.log_loss()), true);
    let mut climbed = Climbed { work: None, chosen, tuned: None, ladder: vec![features] };
    let Some(backbone) = &extractor.backbone else {
        for rung in [Rung::Backbone, Rung::Adapter] {
            let reason = Some("skipped: there is no language model".to_owned());
            climbed.ladder.push(Tried { reason, ..tried(rung, 0.0) });
        }
        return Ok(climbed);
    };
    let on_features = climbed.chosen.clone();
    with_states((work, backbone), &mut climbed, (folder, clock), observe)?;
    let started = Instant::now();
    let mut last = tried(Rung::Adapter, 0.0);
    climbed.tuned = with_adapter((work, backbone), (&on_features, &mut last), clock, observe)?;
    last.seconds = started.elapsed().as_secs_f64();
    if climbed.tuned.is_some() {
        // It stands on the features alone.
        (climbed.work, climbed.chosen) = (None, on_features);
        climbed.ladder.iter_mut().for_each(|below| below.chosen = false);
        last.chosen = true;
    }
    climbed.ladder.push(last);
    Ok(climbed)
}

fn tried(rung: Rung, seconds: f64) -> Tried {
    Tried { rung, log_loss: None, below: None, seconds, chosen: false, reason: None }
}

/// Features and states of the frozen language model.
fn with_states<'a>(
    (work, backbone): (&Work<'a>, &Backbone),
    climbed: &mut Climbed<'a>,
    (folder, clock): (&Path, Clock),
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<(), RewardError> {
    let started = Instant::now();
    let mut last = tried(Rung::Backbone, 0.0);
    let seconds = READING * clock.seconds_left();
    match states(backbone, &work.sample.items(), (folder, seconds), observe)? {
        Err(needed) => last.reason = Some(too_long("reading every answer", needed, seconds)),
        Ok(states) => {
            let richer = work.with_states(&states, backbone.version()?);
            let held = FACTORS.map(|factor| {
                let held = richer.clone().holding_states(factor);
                let chosen = held.choose(&[climbed.chosen.ridge]);
                (held, chosen)
            });
            let best = held.into_iter().min_by(|a, b| a.1.log_loss().total_cmp(&b.1.log_loss()));
            if let Some((richer, chosen)) = best {
                last.log_loss = Some(chosen.log_loss());
                let (better, error) = gain(&climbed.chosen, &chosen);
                if better > error {
                    climbed.ladder.iter_mut().for_each(|below| below.chosen = false);
                    (climbed.work, climbed.chosen) = (Some(richer), chosen);
                    last.chosen = true;
                } else {
                    last.reason = Some(no_better(better, error));
                }
            }
        }
    }
    last.seconds = started.elapsed().as_secs_f64();
    climbed.ladder.push(last);
    Ok(())
}

/// Features, and an adapter with heads on what they leave unexplained: compared on one fold, then trained on all pairs.
fn with_adapter(
    (work, backbone): (&Work<'_>, &Backbone),
    (below, tried): (&Chosen, &mut Tried),
    clock: Clock,
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Option<TunedRung>, RewardError> {
    let pairs = work.sample.pairs.len();
    let clusters = work.sample.clusters();
    let take = |most, judging: bool| {
        let of = |row: usize| row < pairs && (work.folds[row] == JUDGING) == judging;
        first(&clusters, (work.settings.seed, most), of)
    };
    let (learnt, judges) = (take(COMPARED.0, false), take(COMPARED.1, true));
    if learnt.is_empty() || judges.is_empty() {
        tried.reason = Some("skipped: there are no pairs to compare on".to_owned());
        return Ok(None);
    }
    let how = |seconds| (work.settings.seed, work.settings.ensemble.max(1), seconds);
    let (started, seconds) = (Instant::now(), COMPARING * clock.seconds_left());
    let tuned = match tune(backbone, &lessons(work, below, &learnt), how(seconds), observe)? {
        Ok(tuned) => tuned,
        Err(needed) => {
            tried.reason = Some(too_long("training", needed, seconds));
            return Ok(None);
        }
    };
    let (better, error) = judge((work, backbone), (&tuned, below), &judges, tried)?;
    if better <= error {
        tried.reason = Some(no_better(better, error));
        return Ok(None);
    }
    // What the comparison took, for all pairs and for reading all answers.
    let items = work.sample.items();
    let needed = started.elapsed().as_secs_f64() * (items.len() as f64 / 2.0 / learnt.len() as f64).max(1.0);
    let seconds = clock.seconds_left();
    if needed > seconds {
        tried.reason = Some(too_long("it predicts better, but training on all pairs", needed, seconds));
        return Ok(None);
    }
    let all: Vec<usize> = (0..pairs).collect();
    match tune(backbone, &lessons(work, below, &all), how(seconds), observe)? {
        Ok(tuned) => Ok(Some(rung((work, backbone), tuned, &items)?)),
        Err(needed) => {
            tried.reason = Some(too_long("it predicts better, but training on all pairs", needed, seconds));
            Ok(None)
        }
    }
}

fn lessons<'a>(work: &Work<'a>, below: &Chosen, rows: &[usize]) -> Vec<Lesson<'a>> {
    let lesson = |row: &usize| Lesson {
        pair: work.sample.pairs[*row],
        logit: below.slope * below.logits[*row],
        target: work.observations[*row].target,
        weight: work.people.weights[*row],
    };
    rows.iter().filter(|row| work.people.weights[**row] > 0.0).map(lesson).collect()
}

/// By how much the adapter lowers the loss on pairs it has not seen, and the standard error.
fn judge(
    (work, backbone): (&Work<'_>, &Backbone),
    (tuned, below): (&Tuned, &Chosen),
    judges: &[usize],
    tried: &mut Tried,
) -> Result<(f64, f64), RewardError> {
    let items: Vec<Item<'_>> = judges.iter().flat_map(|row| work.sample.pairs[*row].items()).collect();
    let ends = backbone.ends(&tuned.adapter, &items)?;
    let counts = judges.iter().map(|row| work.people.weights[*row]).collect();
    let without = Chosen { losses: Vec::new(), counts, ..below.clone() };
    let mut losses = [without.clone(), without];
    for (row, ends) in judges.iter().zip(ends.chunks_exact(2)) {
        let score = |end: &[f64]| {
            let sums = tuned.heads.iter().map(|head| head.iter().zip(end).map(|(w, x)| w * x).sum::<f64>());
            sums.sum::<f64>() / tuned.heads.len() as f64
        };
        let (before, outcome) = (below.slope * below.logits[*row], work.observations[*row].outcome);
        losses[0].losses.push(log_loss(before, outcome));
        losses[1].losses.push(log_loss(before + score(&ends[0]) - score(&ends[1]), outcome));
    }
    let [before, after] = losses.each_ref().map(Chosen::log_loss);
    (tried.below, tried.log_loss) = (Some(before), Some(after));
    Ok(gain(&losses[0], &losses[1]))
}

fn rung(
    (work, backbone): (&Work<'_>, &Backbone),
    tuned: Tuned,
    items: &[Item<'_>],
) -> Result<TunedRung, RewardError> {
    let ends = backbone.ends(&tuned.adapter, items)?;
    let rows = work.rows.iter().zip(ends).map(|(row, end)| [row.as_slice(), &end].concat()).collect();
    let reading = Some(Reading::Tuned(tuned.adapter));
    let beside = Beside { rung: Rung::Adapter, reading, version: Some(backbone.version()?) };
    Ok(TunedRung { beside, rows, heads: tuned.heads })
}

fn too_long(what: &str, needed: f64, seconds: f64) -> String {
    format!("skipped: {what} takes {:.1} minutes, there are {:.1}", needed / 60.0, seconds.max(0.0) / 60.0)
}

fn no_better(better: f64, error: f64) -> String {
    format!("predicts no better: {better:+.4} nats, standard error {error:.4}")
}
