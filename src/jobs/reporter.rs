//! How does work say how far it is, and learn that it should end?

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::domain::{PhaseTime, Progress};
use crate::ledger::RunReport;

/// Told about progress as it is made, on the thread that makes it.
pub(super) type Watcher = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Why work should end before it is done. A later one in this order wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interruption {
    /// The worker is going down; the run goes on later from its checkpoint.
    Stopping,
    /// Somebody cancelled the run.
    Cancelled,
    /// The run is not this worker's any more: another one may be at work on it.
    Lost,
}

/// Given to the work of a run. Cheap to clone, may be called from any thread, never waits for a disk: what is said is
/// written within seconds by the worker.
#[derive(Clone)]
pub struct Reporter(Arc<Shared>);

struct Shared {
    live: Mutex<Live>,
    /// 0, or one more than the [`Interruption`].
    interruption: AtomicU8,
    watcher: Option<Watcher>,
}

struct Live {
    report: RunReport,
    phase: Option<Phase>,
}

/// The phase that is under way.
struct Phase {
    name: String,
    began: Instant,
    /// Steps that were done when this process began it.
    done_before: u64,
}

impl Reporter {
    /// A reporter that nobody listens to, for work outside a run.
    #[must_use]
    pub fn unattended() -> Self {
        Self::new(RunReport::default(), None)
    }

    /// A reporter for work outside a run, that tells a watcher about progress.
    #[must_use]
    pub fn watched_by(watcher: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self::new(RunReport::default(), Some(Arc::new(watcher)))
    }

    pub(super) fn new(report: RunReport, watcher: Option<Watcher>) -> Self {
        let live = Mutex::new(Live { report, phase: None });
        Self(Arc::new(Shared { live, interruption: AtomicU8::new(0), watcher }))
    }

    /// Says that `done` of `total` steps of a phase are done (`total` 0 when it is not known).
    pub fn progress(&self, phase: &str, done: u64, total: u64) {
        let progress = {
            let mut live = self.live();
            let eta_seconds = live.enter(phase, done).and_then(|phase| phase.eta_seconds(done, total));
            let progress = Progress { phase: phase.to_owned(), done, total, eta_seconds };
            live.report.progress = Some(progress.clone());
            progress
        };
        if let Some(watcher) = &self.0.watcher {
            watcher(&progress);
        }
    }

    /// Adds a point to each of some curves (`loss`, `validation_loss`, `learning_rate`, `tokens_per_second`). Steps
    /// count from the run's beginning; going back to an earlier step forgets the points after it.
    pub fn point(&self, step: u64, values: &[(&str, f64)]) {
        let mut live = self.live();
        for (name, value) in values {
            live.report.series.push(name, step, *value);
        }
    }

    /// Whether the work should end now: write the checkpoint, and return any error.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.interruption().is_some()
    }

    /// Why the work should end, if it should.
    #[must_use]
    pub fn interruption(&self) -> Option<Interruption> {
        match self.0.interruption.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Interruption::Stopping),
            2 => Some(Interruption::Cancelled),
            _ => Some(Interruption::Lost),
        }
    }

    /// What was said so far, the time of the phase under way included.
    #[must_use]
    pub fn report(&self) -> RunReport {
        let live = self.live();
        let mut report = live.report.clone();
        if let Some(phase) = &live.phase {
            add_time(&mut report.phases, phase);
        }
        report
    }

    /// Tells the work to end.
    pub(super) fn interrupt(&self, why: Interruption) {
        self.0.interruption.fetch_max(why as u8 + 1, Ordering::AcqRel);
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        // A panic between two plain stores leaves nothing half done.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("interruption", &self.interruption()).finish_non_exhaustive()
    }
}

impl Live {
    /// The phase of this name, begun now unless it is under way.
    fn enter(&mut self, name: &str, done: u64) -> Option<&Phase> {
        if self.phase.as_ref().is_none_or(|phase| phase.name != name) {
            if let Some(over) = self.phase.take() {
                add_time(&mut self.report.phases, &over);
            }
            self.phase = Some(Phase { name: name.to_owned(), began: Instant::now(), done_before: done });
        }
        self.phase.as_ref()
    }
}

impl Phase {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds for people to look at"
    )]
    fn eta_seconds(&self, done: u64, total: u64) -> Option<u64> {
        let made = done.checked_sub(self.done_before).filter(|made| *made > 0)?;
        let left = total.checked_sub(done)?;
        Some((self.began.elapsed().as_secs_f64() / made as f64 * left as f64).round() as u64)
    }
}

fn add_time(phases: &mut Vec<PhaseTime>, phase: &Phase) {
    let seconds = phase.began.elapsed().as_secs_f64();
    match phases.iter_mut().find(|known| known.phase == phase.name) {
        Some(known) => known.seconds += seconds,
        None => phases.push(PhaseTime { phase: phase.name.clone(), seconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_and_keep_their_time() {
        let reporter = Reporter::unattended();
        reporter.progress("train", 5, 10);
        assert_eq!(reporter.report().progress.unwrap().eta_seconds, None);
        reporter.progress("train", 6, 10);
        assert!(reporter.report().progress.unwrap().eta_seconds.is_some());
        reporter.progress("evaluate", 0, 3);
        let report = reporter.report();
        assert_eq!(report.progress.unwrap().phase, "evaluate");
        let names: Vec<_> = report.phases.iter().map(|phase| phase.phase.as_str()).collect();
        assert_eq!(names, ["train", "evaluate"]);
    }

    #[test]
    fn losing_the_run_is_not_taken_back() {
        let reporter = Reporter::unattended();
        assert!(!reporter.cancelled());
        reporter.interrupt(Interruption::Stopping);
        assert_eq!(reporter.interruption(), Some(Interruption::Stopping));
        reporter.interrupt(Interruption::Lost);
        reporter.interrupt(Interruption::Cancelled);
        assert_eq!(reporter.interruption(), Some(Interruption::Lost));
    }

    #[test]
    fn many_threads_may_report_at_once() {
        let reporter = Reporter::unattended();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let reporter = reporter.clone();
                scope.spawn(move || {
                    for step in 0..100 {
                        reporter.progress("train", step, 100);
                        reporter.point(step, &[(["a", "b", "c", "d"][thread as usize], 1.0)]);
                    }
                });
            }
        });
        let report = reporter.report();
        assert!(["a", "b", "c", "d"].iter().all(|name| report.series.curve(name).len() == 100));
    }
}
