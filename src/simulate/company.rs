//! In which order does the simulated company work, and what has it done already?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::stream::{StreamExt, TryStreamExt, iter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::Answer;
use super::client::{Client, text};
use super::journal::Journal;
use super::people::{EXAMINER, employee};
use super::questions::{Question, Questions};
use super::report::{Answered, Facts, Report, RunRow, figure};
use super::voting::{Row, Votes};
use super::{Plan, SimulateError, Watch};
use crate::domain::Progress;

/// Questions asked at once: as many as the server answers at once by default.
const AT_ONCE: usize = 2;
/// Between two looks at a run.
const LOOK: Duration = Duration::from_secs(2);
/// How long the server may take until it answers with what a run has promoted.
const SWAPPING: Duration = Duration::from_secs(15 * 60);

/// A company with a server.
pub(super) struct Company<'a> {
    pub(super) plan: &'a Plan,
    pub(super) questions: Questions,
    folder: PathBuf,
    pub(super) client: Client,
    watch: &'a Watch<'a>,
    steps: Journal<StepDone>,
    runs: Journal<RunSeen>,
}

/// A step that is done, and how long it took.
#[derive(Debug, Serialize, Deserialize)]
struct StepDone {
    step: String,
    seconds: f64,
}

/// A run that was asked for, and once more when it was over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RunSeen {
    stage: String,
    id: String,
    /// What the server says of it in the end.
    over: Option<Value>,
}

/// How fast something goes.
pub(super) struct Pace<'a> {
    watch: &'a Watch<'a>,
    phase: String,
    began: Instant,
    first: usize,
}

impl Pace<'_> {
    /// Tells how far it is, and guesses the time left from the pace since it began.
    pub(super) fn tell(&self, done: usize, total: usize) {
        let new = done.saturating_sub(self.first) as f64;
        let left = total.saturating_sub(done) as f64;
        let eta = (new > 0.0).then(|| (self.began.elapsed().as_secs_f64() / new * left) as u64);
        let (done, total) = (done as u64, total as u64);
        (self.watch.progress)(&Progress { phase: self.phase.clone(), done, total, eta_seconds: eta });
    }
}

impl<'a> Company<'a> {
    /// Opens what is known already.
    ///
    /// # Errors
    /// When a file of the simulation can not be read.
    pub(super) fn open(
        (plan, questions): (&'a Plan, Questions),
        folder: &Path,
        base: &str,
        watch: &'a Watch<'a>,
    ) -> Result<Self, SimulateError> {
        Ok(Self {
            plan,
            questions,
            folder: folder.to_owned(),
            client: Client::new(base),
            watch,
            steps: Journal::open(&folder.join("steps.jsonl"))?,
            runs: Journal::open(&folder.join("runs.jsonl"))?,
        })
    }

    /// The whole simulation; what is done is not done again.
    ///
    /// # Errors
    /// When the server fails or refuses, or a run ends without a generation.
    pub(super) async fn learn(&mut self) -> Result<Report, SimulateError> {
        self.import().await?;
        let base = self.answers("base").await?;
        let tuning = self.run("sft").await?;
        let tuned = self.answers_after(&tuning, "fine-tuned", &base).await?;
        self.ask_around().await?;
        let votes = self.vote().await?;
        let improving = self.run("improve").await?;
        let last = self.answers_after(&improving, "final", &tuned).await?;
        self.judge([base, tuned, last], &votes, &improving).await
    }

    /// A journal of this simulation.
    pub(super) fn journal<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Journal<T>, SimulateError> {
        Journal::open(&self.folder.join(name))
    }

    pub(super) fn pace(&self, phase: &str, first: usize) -> Pace<'a> {
        Pace { watch: self.watch, phase: phase.to_owned(), began: Instant::now(), first }
    }

    /// Notes that a step is done, the first time.
    pub(super) fn done(&mut self, step: &str, began: Instant) -> Result<(), SimulateError> {
        if self.is_done(step) {
            return Ok(());
        }
        self.steps.add(StepDone { step: step.to_owned(), seconds: began.elapsed().as_secs_f64() })
    }

    fn is_done(&self, step: &str) -> bool {
        self.steps.rows().iter().any(|done| done.step == step)
    }

    async fn import(&mut self) -> Result<(), SimulateError> {
        if self.is_done("import") {
            return Ok(());
        }
        let (began, pace) = (Instant::now(), self.pace("import", 0));
        pace.tell(0, 1);
        let (rows, new) = self.client.import(&self.questions.demonstrations()).await?;
        tracing::info!(rows, new, "demonstrations are imported");
        pace.tell(1, 1);
        self.done("import", began)
    }

    /// Employees ask what else they want to know, and say nothing of the answers.
    async fn ask_around(&mut self) -> Result<(), SimulateError> {
        let began = Instant::now();
        self.ask_all("other", (&self.questions.others, &employee)).await?;
        self.done("other answers", began)
    }

    /// Answers of the generation that is active to the questions that are never learnt from.
    async fn answers(&mut self, name: &'static str) -> Result<Vec<Answer>, SimulateError> {
        let began = Instant::now();
        let answers = self.ask_all(name, (&self.questions.held_out, &|_| EXAMINER.to_owned())).await?;
        self.done(&format!("{name} answers"), began)?;
        Ok(answers)
    }

    async fn ask_all(
        &self,
        name: &'static str,
        (questions, who): (&[Question], &(dyn Fn(usize) -> String + Sync)),
    ) -> Result<Vec<Answer>, SimulateError> {
        let mut journal: Journal<Answer> = self.journal(&format!("{name}.jsonl"))?;
        let total = questions.len();
        let pace = self.pace(&format!("{name} answers"), journal.rows().len());
        let left = questions.iter().enumerate().skip(journal.rows().len());
        let asked = left.map(|(n, question)| {
            let (client, user) = (&self.client, who(n));
            async move { client.ask(&user, question).await }
        });
        let mut answers = iter(asked).buffered(AT_ONCE);
        pace.tell(journal.rows().len(), total);
        while let Some(answer) = answers.try_next().await? {
            let expected = journal.rows().first().map_or(&answer.generation, |first| &first.generation);
            if answer.generation != *expected {
                let (expected, found) = (expected.clone(), answer.generation);
                return Err(SimulateError::Changed { answers: name, expected, found });
            }
            journal.add(answer)?;
            pace.tell(journal.rows().len(), total);
        }
        Ok(journal.rows().to_vec())
    }

    /// Answers after a run; where its generation is held, or it made none, nothing has changed.
    async fn answers_after(
        &mut self,
        run: &Value,
        name: &'static str,
        before: &[Answer],
    ) -> Result<Vec<Answer>, SimulateError> {
        if run["state"] == "held" || policy_of(run).is_none() {
            tracing::warn!(name, "its generation is held, or it made none: the one before it stays");
            return Ok(before.to_vec());
        }
        self.answers(name).await
    }

    /// Asks for a run, or finds the one that was asked for, and waits until it is over and served.
    async fn run(&mut self, stage: &'static str) -> Result<Value, SimulateError> {
        let seen = self.runs.rows().iter().rfind(|run| run.stage == stage).cloned();
        let id = match seen {
            Some(RunSeen { over: Some(run), .. }) => return Ok(run),
            Some(RunSeen { id, .. }) => id,
            None => {
                let id = self.client.begin_run(stage).await?;
                self.runs.add(RunSeen { stage: stage.to_owned(), id: id.clone(), over: None })?;
                id
            }
        };
        let began = Instant::now();
        let mut run = self.until_over(stage, &id).await?;
        let state = text(&run["state"]);
        if !matches!(state.as_str(), "succeeded" | "held") {
            return Err(SimulateError::Run { stage, state, problem: text(&run["error"]) });
        }
        if let (true, Some(generation)) = (state == "succeeded", policy_of(&run)) {
            self.until_served((stage, generation)).await?;
        }
        // Curves are long, and the server keeps them.
        run["series"].take();
        self.runs.add(RunSeen { stage: stage.to_owned(), id, over: Some(run.clone()) })?;
        self.done(&format!("run {stage}"), began)?;
        Ok(run)
    }

    async fn until_over(&self, stage: &str, id: &str) -> Result<Value, SimulateError> {
        loop {
            let run = self.client.run(id).await?;
            let known = serde_json::from_value::<Progress>(run["progress"].clone());
            if let Ok(progress) = known {
                let phase = format!("{stage}: {}", progress.phase);
                (self.watch.progress)(&Progress { phase, ..progress });
            }
            if !matches!(run["state"].as_str(), Some("queued" | "running")) {
                return Ok(run);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_served(&self, (stage, generation): (&'static str, &str)) -> Result<(), SimulateError> {
        let began = Instant::now();
        while !self.client.serves(generation).await? {
            if began.elapsed() > SWAPPING {
                let problem = format!("the server does not answer with {generation}");
                return Err(SimulateError::Run { stage, state: "succeeded".into(), problem });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Scores and compares all answers.
    async fn judge(
        &mut self,
        [base, tuned, last]: [Vec<Answer>; 3],
        votes: &Votes,
        improving: &Value,
    ) -> Result<Report, SimulateError> {
        let began = Instant::now();
        let kl = (improving["state"] == "succeeded" && policy_of(improving).is_some())
            .then(|| figure(&improving["metrics"], &["kl", "objective/kl"]));
        let mut generations = [
            Answered { name: "base", answers: base, reward: None, kl: None },
            Answered { name: "fine-tuned", answers: tuned, reward: None, kl: None },
            Answered { name: "final", answers: last, reward: None, kl: kl.flatten() },
        ];
        for generation in &mut generations {
            let asked: Vec<_> = self.questions.held_out.iter().zip(&generation.answers).collect();
            generation.reward = self.client.mean_reward(&asked).await?;
        }
        self.done("rewards", began)?;
        let facts = Facts {
            votes: votes.given(),
            flipped: votes.flipped(),
            runs: self
                .runs
                .rows()
                .iter()
                .filter_map(|run| Some(run_row(&run.stage, run.over.as_ref()?)))
                .collect(),
            steps: self.steps.rows().iter().map(|done| (done.step.clone(), done.seconds)).collect(),
        };
        let report = Report::of(self.plan, &self.questions.held_out, &generations, facts);
        report.ok_or_else(|| SimulateError::Questions {
            path: self.plan.questions_file.clone(),
            problem: "no question was kept for the end".into(),
        })
    }

    /// Has the employees ask and vote.
    async fn vote(&mut self) -> Result<Votes, SimulateError> {
        let began = Instant::now();
        let votes = Votes::collect(self, self.journal::<Row>("votes.jsonl")?).await?;
        if !self.is_done("votes") {
            let approved = self.client.approve_corrections().await?;
            tracing::info!(approved, "corrections are approved");
        }
        self.done("votes", began)?;
        Ok(votes)
    }
}

/// The policy that a run made: what it names may be a reward model, and only policies are put before the gate.
fn policy_of(run: &Value) -> Option<&str> {
    run["generation"].as_str().filter(|_| !run["metrics"]["gate"].is_null())
}

fn run_row(stage: &str, run: &Value) -> RunRow {
    let list = |name: &str| run[name].as_array().cloned().unwrap_or_default();
    let seconds = |phase: &Value| phase["seconds"].as_f64().unwrap_or(0.0);
    RunRow {
        stage: stage.to_owned(),
        state: text(&run["state"]),
        reasons: list("reasons").iter().map(text).collect(),
        generation: run["generation"].as_str().map(str::to_owned),
        phases: list("phases").iter().map(|phase| (text(&phase["phase"]), seconds(phase))).collect(),
    }
}
