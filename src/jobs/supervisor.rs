//! Who sees to it that runs are worked on, and tells operators how they are? One task of the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::process::WorkerProcess;
use super::{JobsError, WorkerLock, WorkerProgram, worker_name};
use crate::config::{Config, WorkerMode};
use crate::domain::{Progress, now};
use crate::error::chain;
use crate::ledger::{Ledger, RunsOverview};
use crate::telemetry::Metrics;

/// Between two looks at the runs.
const LOOK: Duration = Duration::from_secs(2);
/// Longest wait before a worker that ended without working is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A worker told to stop writes a checkpoint first; afterwards it is killed, and the run goes on from an older one.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Watches the runs: reports them as metrics, and in mode `auto` starts a worker process when one is waiting.
#[derive(Debug)]
pub struct Supervisor {
    /// The runs.
    pub ledger: Arc<dyn Ledger>,
    /// What is handed to workers.
    pub config: Arc<Config>,
    /// Where the workers' lock is.
    pub data_dir: PathBuf,
    /// What is reported.
    pub metrics: Metrics,
    /// What is started; `None` when nothing can be.
    pub program: Option<WorkerProgram>,
}

impl Supervisor {
    /// Goes on until `stop` is cancelled; then stops the worker, which gives its run back.
    pub async fn run(self, stop: CancellationToken) {
        let mut worker: Option<WorkerProcess> = None;
        // Workers that ended without having had a run, in a row.
        let mut idle_failures = 0;
        loop {
            let overview = self.look().await;
            let wanted = overview.as_ref().is_some_and(|overview| overview.claimable);
            if worker.is_none() && wanted && self.may_start() {
                worker = self.start().await;
                if worker.is_none() {
                    idle_failures += 1;
                }
            }
            self.metrics.worker_up.set(i64::from(worker.is_some()));
            let pause = if idle_failures > 0 { backoff(idle_failures) } else { LOOK };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                ended = ended(&mut worker) => {
                    let worked = self.note_end(worker.take(), ended).await;
                    idle_failures = if worked { 0 } else { idle_failures + 1 };
                }
            }
        }
        if let Some(worker) = worker {
            self.stop(worker).await;
        }
        self.metrics.worker_up.set(0);
    }

    /// Whether a worker would be let to work here.
    fn may_start(&self) -> bool {
        if self.config.training.worker == WorkerMode::Manual {
            return false;
        }
        match WorkerLock::take(&self.data_dir) {
            Ok(_free) => true,
            // `attune run` or `attune worker` is at work here, and will take what waits.
            Err(JobsError::Busy(_)) => false,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no worker can be started");
                false
            }
        }
    }

    async fn start(&self) -> Option<WorkerProcess> {
        let program = self.program.as_ref()?;
        match program.start(&worker_name(), &self.config).await {
            Ok(worker) => {
                tracing::info!(worker = %worker.name, "a run is waiting: started a worker process");
                Some(worker)
            }
            Err(error) => {
                tracing::error!(program = %program.program.display(), %error, "the worker process can not be started");
                None
            }
        }
    }

    /// Notes how a worker ended; says whether it did, or tried, anything.
    async fn note_end(&self, worker: Option<WorkerProcess>, ended: Result<(), String>) -> bool {
        let Some(worker) = worker else { return true };
        let outcome = if ended.is_ok() { "ended" } else { "failed" };
        self.metrics.worker_exits.with_label_values(&[outcome]).inc();
        let Err(reason) = ended else {
            tracing::info!(worker = %worker.name, "the worker process has ended");
            return true;
        };
        // What it worked on may be taken up at once, not only when its lease has run out.
        match self.ledger.abandon_run(&worker.name, &reason).await {
            Ok(had_run) => {
                tracing::error!(worker = %worker.name, had_run, %reason, "the worker process failed");
                had_run
            }
            Err(error) => {
                tracing::error!(worker = %worker.name, %reason, error = %chain(&error), "the worker process failed");
                false
            }
        }
    }

    async fn stop(&self, mut worker: WorkerProcess) {
        tracing::info!("stopping the worker: its run goes on from its checkpoint after the next start");
        worker.ask_to_stop();
        let ended = match tokio::time::timeout(STOP_PATIENCE, worker.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                worker.kill().await;
                Err("its server stopped, and it did not in time".to_owned())
            }
        };
        self.note_end(Some(worker), ended).await;
    }

    /// Reads how the runs are and reports it.
    async fn look(&self) -> Option<RunsOverview> {
        match self.ledger.runs_overview(now()).await {
            Ok(overview) => {
                self.report(&overview);
                Some(overview)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the runs can not be read");
                None
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^52")]
    fn report(&self, overview: &RunsOverview) {
        let metrics = &self.metrics;
        metrics.runs.reset();
        for (stage, state, count) in &overview.counts {
            metrics.runs.with_label_values(&[stage.name(), state.name()]).set(*count);
        }
        for (stage, at, took) in &overview.last_success {
            metrics.run_last_success.with_label_values(&[stage.name()]).set(at.seconds());
            metrics.run_duration_seconds.with_label_values(&[stage.name()]).set(*took as f64 / 1000.0);
        }
        let running = overview.running.as_ref();
        metrics.run_progress.reset();
        if let Some(run) = running {
            let ratio = run.progress.as_ref().map_or(0.0, Progress::ratio);
            metrics.run_progress.with_label_values(&[run.stage.name()]).set(ratio);
        }
        let heartbeat = running.and_then(|run| run.heartbeat).map_or(0, |at| at.seconds());
        metrics.run_heartbeat.set(heartbeat);
        let speed = running.and_then(|run| run.series.last("tokens_per_second"));
        metrics.training_tokens_per_second.set(speed.unwrap_or(0.0));
    }
}

/// Waits until the worker has ended; forever when there is none.
async fn ended(worker: &mut Option<WorkerProcess>) -> Result<(), String> {
    match worker {
        Some(worker) => worker.ended().await,
        None => std::future::pending().await,
    }
}

fn backoff(failures: u32) -> Duration {
    (LOOK * 2_u32.saturating_pow(failures.min(6))).min(LONGEST_WAIT)
}
