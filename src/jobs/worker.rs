//! Who does the work of a run? A worker claims it, keeps its lease while the work goes on, and records how it ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::reporter::{Interruption, Reporter, Watcher};
use super::{JobsError, Outcome, Run, Verdict};
use crate::domain::{Millis, Progress, RunId, RunState, now};
use crate::error::chain;
use crate::ledger::{Claim, Held, Ledger, Renewal, Result, RunEnd, RunReport};

/// A run that this many workers died of fails: it would kill the next one too.
pub const MAX_ATTEMPTS: u32 = 3;

/// How often a worker is heard of, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A worker not heard of for so long has lost its run. Default 30 s: longer than a busy machine holds up a write.
    pub lease: Duration,
    /// Between two signs of life, which carry the progress. Default 2 s.
    pub beat: Duration,
    /// Between two looks for something to do. Default 2 s.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), beat: Duration::from_secs(2), poll: Duration::from_secs(2) }
    }
}

/// How a worker's time with a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run is over.
    Over(RunState),
    /// The worker was stopped; the run waits for the next one.
    Released,
    /// The run had become another worker's.
    Lost,
}

/// A run that was worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worked {
    /// Which.
    pub run: RunId,
    /// How it ended.
    pub ended: Ended,
}

/// A name for a worker that no other has: machine, process, and a number.
#[must_use]
pub fn worker_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("worker").to_owned();
    format!("{host}:{}:{}", std::process::id(), uuid::Uuid::now_v7().simple())
}

/// Works on runs, one at a time.
pub struct Worker {
    ledger: Arc<dyn Ledger>,
    name: String,
    /// Cancelled by whoever wants the worker to stop; the work in hand ends at its next step.
    stop: CancellationToken,
    timing: Timing,
    watcher: Option<Watcher>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of this name (see [`worker_name`]) that goes on until `stop` is cancelled.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, name: String, stop: CancellationToken) -> Self {
        Self { ledger, name, stop, timing: Timing::default(), watcher: None }
    }

    /// The same worker with other times.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// The same worker; `watcher` is told about progress, on the thread that makes it.
    #[must_use]
    pub fn watched_by(self, watcher: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self { watcher: Some(Arc::new(watcher)), ..self }
    }

    /// Takes the next run (or `only` that one), works on it and records how it ended; `None` when there is nothing to
    /// do now. An error of the work, or a panic in it, fails the run; it is no error of the worker.
    ///
    /// # Errors
    /// When the database fails for longer than a lease; the run then goes to the next worker.
    pub async fn work_once<E: std::error::Error + 'static>(
        &self,
        only: Option<&RunId>,
        work: &impl AsyncFn(&Run, &Reporter) -> std::result::Result<Outcome, E>,
    ) -> std::result::Result<Option<Worked>, JobsError> {
        let at = now();
        let claim = Claim { owner: &self.name, at, until: self.until(at), only, max_attempts: MAX_ATTEMPTS };
        let Some(run) = self.ledger.claim_run(claim).await? else {
            return Ok(None);
        };
        tracing::info!(run = %run.id, stage = %run.stage, attempt = run.attempts, "working on a run");
        let reporter = Reporter::new(report_of(&run), self.watcher.clone());
        let keeper = tokio::spawn(keep(self.keeper(&run.id, &reporter)));
        let result = AssertUnwindSafe(work(&run, &reporter)).catch_unwind().await;
        keeper.abort();
        let result = match result {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(chain(&error)),
            Err(panic) => Err(format!("the work panicked: {}", panic_text(panic.as_ref()))),
        };
        if let (Err(reason), None) = (&result, reporter.interruption()) {
            tracing::error!(run = %run.id, stage = %run.stage, %reason, "the run failed");
        }
        let ended = self.record(&run.id, &reporter, result).await?;
        tracing::info!(run = %run.id, ?ended, "the worker's time with the run is over");
        Ok(Some(Worked { run: run.id, ended }))
    }

    /// Works on runs as they come until told to stop.
    ///
    /// # Errors
    /// When the database fails for longer than a lease.
    pub async fn work<E: std::error::Error + 'static>(
        &self,
        work: &impl AsyncFn(&Run, &Reporter) -> std::result::Result<Outcome, E>,
    ) -> std::result::Result<(), JobsError> {
        while !self.stop.is_cancelled() {
            if self.work_once(None, work).await?.is_none() {
                tokio::select! {
                    () = tokio::time::sleep(self.timing.poll) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    fn until(&self, at: Millis) -> Millis {
        later(at, self.timing.lease)
    }

    fn keeper(&self, run: &RunId, reporter: &Reporter) -> Keeper {
        Keeper {
            ledger: Arc::clone(&self.ledger),
            owner: self.name.clone(),
            run: run.clone(),
            reporter: reporter.clone(),
            stop: self.stop.clone(),
            timing: self.timing,
        }
    }

    async fn record(
        &self,
        run: &RunId,
        reporter: &Reporter,
        result: std::result::Result<Outcome, String>,
    ) -> std::result::Result<Ended, JobsError> {
        let mut report = reporter.report();
        let over = |state, error| Some(RunEnd { state, error });
        let end = match (result, reporter.interruption()) {
            (_, Some(Interruption::Lost)) => return Ok(Ended::Lost),
            (Ok(outcome), _) => {
                report.metrics = outcome.metrics;
                report.generation = outcome.generation;
                report.reasons = outcome.reasons;
                over(
                    match outcome.state {
                        Verdict::Succeeded => RunState::Succeeded,
                        Verdict::Held => RunState::Held,
                    },
                    None,
                )
            }
            (Err(_), Some(Interruption::Cancelled)) => over(RunState::Cancelled, None),
            (Err(_), Some(Interruption::Stopping)) => None,
            (Err(error), None) => over(RunState::Failed, Some(error)),
        };
        let still_ours = self.patiently(async || self.write_end(run, &report, end.as_ref()).await).await?;
        Ok(match end {
            _ if !still_ours => Ended::Lost,
            Some(end) => Ended::Over(end.state),
            None => Ended::Released,
        })
    }

    async fn write_end(&self, id: &RunId, report: &RunReport, end: Option<&RunEnd>) -> Result<bool> {
        let held = Held { id, owner: &self.name, at: now() };
        match end {
            Some(end) => self.ledger.finish_run(held, report, end).await,
            None => self.ledger.release_run(held, report).await,
        }
    }

    /// Tries again while the database fails, as long as the lease lasts: hours of work hang on this write.
    async fn patiently<T>(&self, write: impl AsyncFn() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match write().await {
                Err(error) if began.elapsed() < self.timing.lease => {
                    tracing::warn!(error = %chain(&error), "recording the end of a run; trying again");
                    tokio::time::sleep(self.timing.beat).await;
                }
                done => return done,
            }
        }
    }
}

/// What keeps one run's lease.
struct Keeper {
    ledger: Arc<dyn Ledger>,
    owner: String,
    run: RunId,
    reporter: Reporter,
    stop: CancellationToken,
    timing: Timing,
}

/// Renews the lease and writes what the work says, until aborted or the run is lost.
async fn keep(keeper: Keeper) {
    let Keeper { ledger, owner, run, reporter, stop, timing } = keeper;
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(timing.beat) => {}
            () = stop.cancelled(), if reporter.interruption().is_none() => {
                reporter.interrupt(Interruption::Stopping);
            }
        }
        let at = now();
        let held = Held { id: &run, owner: &owner, at };
        match ledger.renew_run(held, later(at, timing.lease), &reporter.report()).await {
            Ok(Renewal::Renewed) => heard = Instant::now(),
            Ok(Renewal::Cancelled) => {
                heard = Instant::now();
                reporter.interrupt(Interruption::Cancelled);
            }
            Ok(Renewal::Lost) => {
                tracing::warn!(%run, "another worker has taken the run, or it is over");
                return reporter.interrupt(Interruption::Lost);
            }
            Err(error) => {
                tracing::warn!(%run, error = %chain(&error), "the run's lease could not be renewed");
                if heard.elapsed() >= timing.lease {
                    return reporter.interrupt(Interruption::Lost);
                }
            }
        }
    }
}

fn later(at: Millis, by: Duration) -> Millis {
    Millis(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// What earlier attempts said, so that this one goes on from it.
fn report_of(run: &Run) -> RunReport {
    RunReport {
        progress: run.progress.clone(),
        phases: run.phases.clone(),
        metrics: run.metrics.clone(),
        generation: run.generation.clone(),
        reasons: run.reasons.clone(),
        series: run.series.clone(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
