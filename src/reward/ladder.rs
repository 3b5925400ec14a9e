//! Which kind of model is worth it? Each rung is tried when the one below works and there is time, and is taken when it
//! predicts votes better than chance alone would have it.

use std::path::Path;
use std::time::Instant;

use super::report::Tried;
use super::selection::{Chosen, gain};
use super::table::states;
use super::training::step;
use super::work::Work;
use super::{Extractor, RewardError, Rung, Settings, Step};

/// Share of the time left that reading answers with a language model may take; fits and measuring need the rest.
const READING: f64 = 0.7;
/// How much stronger the ridge is on states of a language model than on features that mean something.
const FACTORS: [f64; 4] = [1.0, 5.0, 25.0, 125.0];

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
    /// Of the rung that was chosen; none: of the first.
    pub(super) work: Option<Work<'a>>,
    pub(super) chosen: Chosen,
    pub(super) ladder: Vec<Tried>,
}

pub(super) fn climb<'a>(
    (work, settings): (&Work<'a>, &Settings),
    (extractor, folder): (&Extractor, &Path),
    clock: Clock,
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Climbed<'a>, RewardError> {
    step(observe, ("choosing the ridge", 1))?;
    let chosen = work.choose(&settings.ridges);
    let features = Tried {
        rung: Rung::Features,
        log_loss: Some(chosen.log_loss),
        below: None,
        seconds: clock.started.elapsed().as_secs_f64(),
        chosen: true,
        reason: None,
    };
    let mut climbed = Climbed { work: None, chosen, ladder: vec![features] };
    let started = Instant::now();
    let (found, reason) = with_states((work, &climbed.chosen), (extractor, folder), clock, observe)?;
    let mut tried = Tried {
        rung: Rung::Backbone,
        log_loss: None,
        below: None,
        seconds: started.elapsed().as_secs_f64(),
        chosen: false,
        reason,
    };
    if let Some((richer, chosen)) = found {
        tried.log_loss = Some(chosen.log_loss);
        let (better, error) = gain(&climbed.chosen, &chosen, &work.people.weights);
        tried.chosen = better > error;
        if tried.chosen {
            climbed.ladder.iter_mut().for_each(|below| below.chosen = false);
            (climbed.work, climbed.chosen) = (Some(richer), chosen);
        } else {
            tried.reason = Some(format!("predicts no better: {better:+.4} nats, standard error {error:.4}"));
        }
    }
    climbed.ladder.push(tried);
    Ok(climbed)
}

/// A rung's work and what cross-validation chose, or why it was skipped.
type Attempt<'a> = (Option<(Work<'a>, Chosen)>, Option<String>);

/// Features and states of the frozen language model.
fn with_states<'a>(
    (work, below): (&Work<'a>, &Chosen),
    (extractor, folder): (&Extractor, &Path),
    clock: Clock,
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Attempt<'a>, RewardError> {
    let Some(backbone) = &extractor.backbone else {
        return Ok((None, Some("skipped: there is no language model".to_owned())));
    };
    let seconds = READING * clock.seconds_left();
    let states = match states(backbone, &work.sample.items(), (folder, seconds), observe)? {
        Ok(states) => states,
        Err(needed) => {
            let reason = format!(
                "skipped: reading takes {:.0} minutes, {:.0} are left",
                needed / 60.0,
                seconds / 60.0
            );
            return Ok((None, Some(reason)));
        }
    };
    let richer = work.with_states(&states, backbone.version()?);
    let tried = FACTORS.map(|factor| {
        let held = richer.clone().holding_states(factor);
        let chosen = held.choose(&[below.ridge]);
        (held, chosen)
    });
    let best = tried.into_iter().min_by(|a, b| a.1.log_loss.total_cmp(&b.1.log_loss));
    Ok((best, None))
}
