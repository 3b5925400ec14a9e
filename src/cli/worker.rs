//! How does a process work on runs?

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{CommandResult, say};
use crate::config::Config;
use crate::domain::{Progress, RunId};
use crate::improve::{ImproveError, Workshop, improve};
use crate::jobs::{self, Ended, Outcome, Reporter, Run, Worked, Worker, WorkerLock, worker_name};
use crate::ledger::Ledger;

/// Seldom enough for a log, often enough to see that it moves.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// End after one run, or at once when none is waiting.
    #[arg(long)]
    once: bool,
    /// Work on this run only, then end.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
}

/// Does the work of a run.
async fn work(
    config: &Arc<Config>,
    ledger: &Arc<dyn Ledger>,
    (run, reporter): (&Run, &Reporter),
) -> Result<Outcome, ImproveError> {
    reporter.progress("models", 0, 1);
    let workshop = Workshop::open(Arc::clone(config), Arc::clone(ledger)).await?;
    reporter.progress("models", 1, 1);
    improve(&workshop, run, reporter).await
}

/// Sets how many threads train.
fn use_threads(config: &Config) {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(config.training.threads).build_global();
    if let Err(error) = threads {
        tracing::debug!(%error, "the threads were set before");
    }
}

pub(super) async fn run(
    config: Config,
    name: Option<String>,
    args: WorkerArgs,
    stop: CancellationToken,
) -> CommandResult {
    jobs::lower_priority(&config);
    let _lock = WorkerLock::take(&config.data_dir)?;
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let worker = Worker::new(Arc::clone(&ledger), name.unwrap_or_else(worker_name), stop);
    let worker = worker.watched_by(watcher());
    let config = Arc::new(config);
    use_threads(&config);
    let work = async |run: &Run, reporter: &Reporter| work(&config, &ledger, (run, reporter)).await;
    let only = args.run.map(RunId::from_wire);
    if args.once || only.is_some() {
        match worker.work_once(only.as_ref(), &work).await? {
            Some(Worked { run, ended }) => say(format!("{run}: {}", words(ended))),
            None => say("nothing to do"),
        }
    } else {
        worker.work(&work).await?;
    }
    ledger.close().await;
    Ok(())
}

/// Works on what waits, in its turn, until `run` is over or `stop` is cancelled.
pub(super) async fn work_until_over(
    config: &Arc<Config>,
    ledger: &Arc<dyn Ledger>,
    run: &RunId,
    stop: &CancellationToken,
) -> CommandResult {
    let worker = Worker::new(Arc::clone(ledger), worker_name(), stop.clone()).watched_by(watcher());
    use_threads(config);
    let work = async |run: &Run, reporter: &Reporter| work(config, ledger, (run, reporter)).await;
    while !stop.is_cancelled() && !is_over(ledger, run).await? {
        if worker.work_once(None, &work).await?.is_none() {
            // A worker elsewhere has one.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

pub(super) async fn is_over(ledger: &Arc<dyn Ledger>, id: &RunId) -> Result<bool, jobs::JobsError> {
    Ok(ledger.run(id).await?.is_none_or(|run| run.state.is_over()))
}

fn words(ended: Ended) -> String {
    match ended {
        Ended::Over(state) => state.to_string(),
        Ended::Released => "stopped; it goes on from its checkpoint when a worker takes it up".to_owned(),
        Ended::Lost => "another worker has it now".to_owned(),
    }
}

/// Shows progress: a bar on a terminal, log lines elsewhere.
pub(super) fn watcher() -> impl Fn(&Progress) + Send + Sync + 'static {
    let bar = std::io::stderr().is_terminal().then(bar);
    let last = std::sync::Mutex::new(None::<(String, Instant)>);
    move |progress| {
        if let Some(bar) = &bar {
            bar.set_message(progress.phase.clone());
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            return;
        }
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh = |(phase, at): &(String, Instant)| *phase == progress.phase && at.elapsed() < LINE_EVERY;
        if !last.as_ref().is_some_and(fresh) {
            *last = Some((progress.phase.clone(), Instant::now()));
            let Progress { phase, done, total, eta_seconds } = progress;
            tracing::info!(phase, done, total, eta_seconds, "at work");
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {elapsed} left {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    ProgressBar::no_length().with_style(style)
}
