//! How does long work run beside chat? Runs wait in the ledger's database; one worker at a time holds one under a
//! lease, says how far it is, and ends it, or dies and leaves it to the next.
//!
//! ```text
//! queued ──claim──► running ──finish──► succeeded | held | failed | cancelled
//!    ▲                 │  ▲
//!    └────release──────┘  └── claimed again when its worker was not heard of for LEASE: at most MAX_ATTEMPTS times
//! ```

mod automation;
mod lock;
mod process;
mod reporter;
mod request;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::domain::{RunId, RunRequest, now};
use crate::error::{Error, ErrorCode};
use crate::ledger::{Ledger, LedgerError};
use crate::registry::RegistryError;

pub use crate::domain::{Outcome, Progress, Run, RunState, Stage, Verdict};
pub use automation::{Automation, REQUESTER, Why, due};
pub use lock::WorkerLock;
pub use process::{WorkerProgram, handed_over, lower_priority};
pub use reporter::{Interruption, Reporter};
pub use request::{complete, policy_settings, sft_settings};
pub use supervisor::Supervisor;
pub use worker::{Ended, MAX_ATTEMPTS, Timing, Worked, Worker, worker_name};

/// Why something about runs could not be done.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// A value of the request is out of range.
    #[error("{field}: {field} {problem}")]
    Invalid {
        /// Which (`sft.rank`).
        field: &'static str,
        /// The range.
        problem: &'static str,
    },
    /// Another worker works in the data directory.
    #[error("another worker is at work in data directory {0}; one at a time")]
    Busy(PathBuf),
    /// The data directory can not be written.
    #[error("{path}")]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database failed, or the run's state does not allow it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Which generation is active can not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<JobsError> for Error {
    fn from(error: JobsError) -> Self {
        match error {
            JobsError::Invalid { field, .. } => Self::invalid(field, error.to_string()),
            JobsError::Ledger(error) => error.into(),
            JobsError::Registry(error) => error.into(),
            busy @ JobsError::Busy(_) => Self::new(ErrorCode::Conflict, busy.to_string()),
            lock @ JobsError::Lock { .. } => Self::internal(lock),
        }
    }
}

/// Queues a run, with what the request leaves out filled in from the configuration.
///
/// # Errors
/// When a value is out of range, or the ledger can not be written.
pub async fn enqueue(
    ledger: &dyn Ledger,
    config: &Config,
    request: RunRequest,
    requested_by: &str,
) -> Result<Run, JobsError> {
    let run = Run::queued(complete(request, config)?, requested_by, now());
    ledger.put_run(&run).await?;
    tracing::info!(run = %run.id, stage = %run.stage, "queued");
    Ok(run)
}

/// In the data directory, where runs keep their files.
pub const RUNS: &str = "runs";

/// Where a run keeps its files: checkpoints, the dataset, reports.
#[must_use]
pub fn run_folder(data_dir: &Path, id: &RunId) -> PathBuf {
    data_dir.join(RUNS).join(id.as_str())
}
