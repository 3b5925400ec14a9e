//! Does the loop make answers that people like better? A company in small: employees with a secret preference ask, vote
//! and give thumbs over HTTP, the server learns, and a hidden judge compares before and after.
//!
//! 1. The train questions of a question file are imported as demonstrations.
//! 2. The base model answers the held-out questions, asked by an examiner from whom the server does not learn.
//! 3. A run of stage `sft` is promoted, and answers them too. Employees ask what else the file has.
//! 4. Employees ask train questions of it, get two answers each, and vote; 15% of the votes say the opposite of what
//!    they think.
//! 5. A run of stage `improve` is promoted if the gate lets it, and answers the held-out questions.
//! 6. The judge compares all answers, which only it and the employees know how to.
//!
//! Everything is under the data directory, and each result is on the disk before the next step: a second start goes on
//! where the first one stopped.

mod answers;
mod chart;
mod client;
mod company;
mod journal;
mod judge;
mod people;
mod questions;
mod report;
mod server;
#[cfg(test)]
mod tests;
mod voting;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::domain::Progress;
use company::Company;
pub use judge::{Choice, Preference, Shown};
pub use people::{employee, is_flipped, question};
use questions::Questions;
pub use report::{GenerationRow, Report, RunRow, WinRate};
use server::Server;
pub use server::ServerCommand;

/// Where in the data directory the simulation keeps what it knows.
const FOLDER: &str = "simulate";
/// The report for people.
pub const REPORT: &str = "report.md";
/// The report for programs.
pub const REPORT_JSON: &str = "report.json";
/// The drawing.
pub const DRAWING: &str = "result.svg";

/// Why a simulation did not finish.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A file or program can not be used.
    #[error("{path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the simulation's own files is not one of its.
    #[error("{path}, line {line}: {problem}; use another data directory")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The questions can not be used.
    #[error("{path}: {problem}")]
    Questions {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The data directory holds a simulation with other settings, or what is no simulation.
    #[error("{path} holds {what}; give a simulation a --data-dir of its own")]
    Occupied {
        /// The data directory.
        path: PathBuf,
        /// What is in it.
        what: &'static str,
    },
    /// There is no free port.
    #[error("a port for the server")]
    Port(#[source] std::io::Error),
    /// The server does not work.
    #[error("the server {problem}; the end of {path}:\n{log}")]
    Server {
        /// What happened.
        problem: String,
        /// Its log.
        path: PathBuf,
        /// The last lines of it.
        log: String,
    },
    /// The server can not be reached.
    #[error("{call}")]
    Http {
        /// The call.
        call: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server refuses a call.
    #[error("{call}: {status}: {message}")]
    Refused {
        /// The call.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The server answers with another generation than it should.
    #[error("{answers} answers are by {expected}, but the server now answers with {found}")]
    Changed {
        /// Whose answers were to be collected.
        answers: &'static str,
        /// The generation so far.
        expected: String,
        /// The generation now.
        found: String,
    },
    /// A run ended without a generation.
    #[error("the run of stage {stage} {state}: {problem}")]
    Run {
        /// Its stage.
        stage: &'static str,
        /// How it ended.
        state: String,
        /// Why.
        problem: String,
    },
    /// Most questions are refused, or answered twice alike.
    #[error(
        "{attempts} questions gave only {votes} pairs of answers to choose from; the last one failed because {why}"
    )]
    NothingToChoose {
        /// Questions asked.
        attempts: usize,
        /// Votes given.
        votes: usize,
        /// The server's words about the last pair that did not come about.
        why: String,
    },
    /// It was told to stop; a second start goes on.
    #[error("stopped; the same command goes on from here")]
    Stopped,
}

/// What is simulated. A data directory belongs to one plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What employees like.
    pub preference: Preference,
    /// Decides which questions are kept, in which order they are asked, and which votes are turned round.
    pub seed: u64,
    /// Votes.
    pub votes: usize,
    /// Most questions kept for the end.
    pub questions: usize,
    /// Whether answers and passages are as long as usual; otherwise they are cut so that it ends within 45 minutes on
    /// two processors.
    pub full: bool,
    /// The documents.
    pub docs: PathBuf,
    /// The questions with human answers.
    pub questions_file: PathBuf,
}

/// How much a model reads and writes for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Most tokens of an answer.
    pub(crate) answer_tokens: u32,
    /// Most passages of a prompt.
    pub(crate) passages: usize,
    /// Most tokens of a passage.
    pub(crate) passage_tokens: usize,
    /// Steps of the optimisation; `None`: as configured.
    pub(crate) policy_steps: Option<u64>,
}

impl Default for Size {
    /// 120 votes are 240 answers; with 160 tokens of passages and 48 of answer they take about 7 minutes on two
    /// processors. A step of the optimisation takes 20 seconds and the control has as many: 16 end in time, and with a right
    /// reward they are enough (`benches/RESULTS.md`).
    fn default() -> Self {
        Self { answer_tokens: 48, passages: 1, passage_tokens: 160, policy_steps: Some(16) }
    }
}

impl Size {
    fn of(plan: &Plan) -> Self {
        let small = Self::default();
        if plan.full { Self { answer_tokens: 96, passages: 2, policy_steps: None, ..small } } else { small }
    }
}

/// Who wants to know how far it is, and may stop it.
pub struct Watch<'a> {
    /// Told about every step.
    pub progress: &'a (dyn Fn(&Progress) + Send + Sync),
    /// Cancelled to stop; what is done is kept.
    pub stop: &'a CancellationToken,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Simulates, or goes on with, what the data directory was begun for; writes [`REPORT`], [`REPORT_JSON`] and
/// [`DRAWING`] to `simulate` in it. Afterwards `attune serve` can open the data directory.
///
/// # Errors
/// When the plan can not be carried out, the server fails, a run ends without a generation, or it is told to stop.
pub async fn simulate(
    command: &ServerCommand,
    plan: &Plan,
    watch: &Watch<'_>,
) -> Result<Report, SimulateError> {
    let folder = claim(&command.data_dir, plan)?;
    let questions = Questions::read(&plan.questions_file, plan.questions, plan.seed)?;
    (watch.progress)(&Progress { phase: "server".into(), done: 0, total: 1, eta_seconds: None });
    let size = Size::of(plan);
    let starting = Server::start(command, &size, folder.join("server.log"));
    let server = until(watch.stop, starting).await?;
    let working = async {
        let mut company = Company::open((plan, questions), &folder, &server.base, watch)?;
        company.learn().await
    };
    let reported = until(watch.stop, Box::pin(working)).await;
    let report = match reported {
        Ok(report) => report,
        Err(error) => return Err(server.blamed(error).await),
    };
    server.stop().await;
    write(&folder.join(REPORT), report.markdown().as_bytes())?;
    write(&folder.join(REPORT_JSON), &serde_json::to_vec_pretty(&report).unwrap_or_default())?;
    write(&folder.join(DRAWING), report.svg().as_bytes())?;
    Ok(report)
}

/// The folder of the simulation's own files.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// Makes the data directory this plan's. One with data of a real company is left alone: votes can not be taken back.
fn claim(data_dir: &Path, plan: &Plan) -> Result<PathBuf, SimulateError> {
    let folder = folder(data_dir);
    let file = folder.join("plan.json");
    let occupied = |what| SimulateError::Occupied { path: data_dir.to_owned(), what };
    match std::fs::read(&file) {
        Ok(bytes) => {
            let same = serde_json::from_slice::<Plan>(&bytes).is_ok_and(|known| known == *plan);
            return if same { Ok(folder) } else { Err(occupied("a simulation with other settings")) };
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(SimulateError::Io { path: file, source }),
    }
    if data_dir.join("ledger.db").exists() {
        return Err(occupied("data that no simulation made"));
    }
    std::fs::create_dir_all(&folder).map_err(|source| SimulateError::Io { path: folder.clone(), source })?;
    write(&file, &serde_json::to_vec_pretty(plan).unwrap_or_default())?;
    Ok(folder)
}

/// The work's result, unless it is to stop before.
async fn until<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, SimulateError>>,
) -> Result<T, SimulateError> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(SimulateError::Stopped),
    }
}

/// Writes a file so that it is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SimulateError> {
    let writing = crate::durable::replace(path, bytes);
    writing.map_err(|source| SimulateError::Io { path: path.to_owned(), source })
}
