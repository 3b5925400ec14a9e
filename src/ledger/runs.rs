//! Which training runs are there, and who works on which? The rows behind `jobs`.

mod implementation;
mod statements;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Page, Paging, Result};
use crate::domain::{GenerationId, Millis, PhaseTime, Progress, Run, RunId, RunState, Series, Stage};

/// What a worker says about its run so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// How far it is.
    pub progress: Option<Progress>,
    /// How long its phases took.
    pub phases: Vec<PhaseTime>,
    /// Summary figures.
    pub metrics: Map<String, Value>,
    /// The generation it published.
    pub generation: Option<GenerationId>,
    /// Why the generation is held back.
    pub reasons: Vec<String>,
    /// Figures by step.
    #[serde(skip)]
    pub series: Series,
}

/// Who wants a run.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The worker's name; no two have the same.
    pub owner: &'a str,
    /// Now.
    pub at: Millis,
    /// When the run may be taken from the worker unless it was heard of again.
    pub until: Millis,
    /// This run and no other.
    pub only: Option<&'a RunId>,
    /// A run that this many workers died of fails.
    pub max_attempts: u32,
}

/// A run in a worker's hands.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The run.
    pub id: &'a RunId,
    /// The worker's name.
    pub owner: &'a str,
    /// Now.
    pub at: Millis,
}

/// How a worker ends a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    /// A state that is over.
    pub state: RunState,
    /// Why it failed.
    pub error: Option<String>,
}

/// What came of renewing a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The worker goes on.
    Renewed,
    /// The worker still has the run, and should end it: somebody cancelled it.
    Cancelled,
    /// The run is not the worker's (any more). Nothing was written.
    Lost,
}

/// The runs of one database at a glance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunsOverview {
    /// How many runs of a stage are in a state.
    pub counts: Vec<(Stage, RunState, i64)>,
    /// The last run of a stage that ended with a generation: when, and after how many milliseconds.
    pub last_success: Vec<(Stage, Millis, i64)>,
    /// The run that is being worked on.
    pub running: Option<Run>,
    /// Whether a worker that asked now would get something to do.
    pub claimable: bool,
}

/// The record of runs. As for the ledger: what returned `Ok` is durable, on `Err` nothing was written, and a dropped
/// future leaves all of a write or nothing. At most one run of a database is in state `running`.
#[async_trait]
pub trait Runs {
    /// Writes a run that waits. An id that is there is a conflict.
    async fn put_run(&self, run: &Run) -> Result<()>;
    /// One run.
    async fn run(&self, id: &RunId) -> Result<Option<Run>>;
    /// Runs, newest first, without their curves.
    async fn runs(&self, paging: &Paging) -> Result<Page<Run>>;
    /// Gives a worker the run that was left by a worker not heard of in time, or else the one that has waited longest;
    /// `None` when there is none, or when a run is being worked on. Before that, runs that were left by their workers
    /// end if they were cancelled or too many workers died of them.
    async fn claim_run(&self, claim: Claim<'_>) -> Result<Option<Run>>;
    /// Keeps a run for a worker until `until`, and writes what the worker says about it.
    async fn renew_run(&self, held: Held<'_>, until: Millis, report: &RunReport) -> Result<Renewal>;
    /// Gives a run back in good order: it waits again (or is cancelled, if somebody wanted that), and the attempt does
    /// not count. `false`, and nothing is written, when the run is not the worker's.
    async fn release_run(&self, held: Held<'_>, report: &RunReport) -> Result<bool>;
    /// Ends a run. `false`, and nothing is written, when the run is not the worker's.
    async fn finish_run(&self, held: Held<'_>, report: &RunReport, end: &RunEnd) -> Result<bool>;
    /// Cancels a run: at once when nobody works on it, otherwise its worker is told when it is next heard of. Not found
    /// when there is none; a conflict when it is over.
    async fn cancel_run(&self, id: &RunId, at: Millis) -> Result<RunState>;
    /// Notes that a worker has died, and why: what it worked on may be taken at once. Returns whether it had a run.
    async fn abandon_run(&self, owner: &str, reason: &str) -> Result<bool>;
    /// The runs at a glance.
    async fn runs_overview(&self, at: Millis) -> Result<RunsOverview>;
}
