//! How is a reward model made from what people said? Read, weigh, climb the ladder, bootstrap, measure.

use std::path::Path;
use std::time::Instant;

use super::ladder::{Clock, climb};
use super::table::{Sample, features};
use super::work::{People, Work};
use super::{Extractor, Outcome, Preferences, RewardError, Settings, Step, Trained};

pub(super) fn train(
    preferences: &Preferences,
    extractor: &Extractor,
    (settings, folder): (&Settings, &Path),
    mut observe: impl FnMut(Step) -> bool,
) -> Result<Outcome, RewardError> {
    let clock = Clock { started: Instant::now(), minutes: settings.budget_minutes };
    preferences.check()?;
    let sample = Sample::of(preferences);
    let people = People::of(&sample, settings);
    if people.effective_pairs < settings.enough {
        return Ok(Outcome::Collecting { effective_pairs: people.effective_pairs, needed: settings.enough });
    }
    let read = features(extractor, &sample.items(), folder, &mut observe)?;
    let mut work = Work::new((&sample, people), (settings, extractor), read);
    step(&mut observe, ("weighing votes", 0))?;
    let outliers = work.weigh();
    let climbed = climb(&work, (extractor, folder), clock, &mut observe)?;
    let work = climbed.work.unwrap_or(work);
    step(&mut observe, ("training the ensemble", 2))?;
    let chosen = climbed.chosen;
    let members = work.members(&chosen);
    let (model, rows) = match climbed.tuned {
        None => (work.model(work.beside(), (members, chosen.slope), &work.rows), work.rows.clone()),
        Some(tuned) => {
            let members = tuned.members(&members, chosen.slope);
            (work.model(tuned.beside, (members, 1.0), &tuned.rows), tuned.rows)
        }
    };
    step(&mut observe, ("measuring", 3))?;
    let report = work.report((&model, &rows, &chosen), climbed.ladder, outliers);
    Ok(Outcome::Trained(Box::new(Trained { model, report })))
}

/// Says what comes next: weighing, choosing, the ensemble, measuring.
pub(super) fn step(
    observe: &mut impl FnMut(Step) -> bool,
    (phase, done): (&'static str, u64),
) -> Result<(), RewardError> {
    if observe(Step { phase, done, total: 4 }) { Ok(()) } else { Err(RewardError::Stopped { phase }) }
}
