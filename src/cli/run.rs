//! How is a run asked for, watched and cancelled from the shell?

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::worker::{is_over, watcher, work_until_over};
use super::{CommandResult, note, say};
use crate::config::Config;
use crate::domain::{PolicyOptions, Run, RunId, RunRequest, RunState, SftOptions, Stage, now};
use crate::jobs::{self, JobsError, WorkerLock};
use crate::ledger::{Ledger, Paging};
use crate::shutdown;

/// Who asks from the command line: whoever can write the data directory.
const REQUESTER: &str = "command-line";
/// A server that looks whether the lock is free holds it for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at a run that somebody else works on.
const LOOK: Duration = Duration::from_secs(1);
/// Rows of a list.
const LISTED: usize = 30;

#[derive(Debug, Subcommand)]
pub(super) enum Runs {
    /// Fine-tune the base model on demonstrations.
    Sft(Options),
    /// Train the reward model on choices and thumbs.
    Reward {
        /// Learn from choices too that not everybody may see.
        #[arg(long)]
        include_restricted: bool,
    },
    /// Fine-tune, then optimise the policy against a model of people's choices, also one that the gate refuses.
    Policy(Cycle),
    /// The whole loop: fine-tuning, reward model, policy optimisation where that is good enough, evaluation, the gate,
    /// publishing.
    Improve(Cycle),
    /// List runs, newest first.
    List,
    /// Show one run.
    Show {
        /// Id as in `attune run list`.
        id: String,
    },
    /// Cancel a run.
    Cancel {
        /// Id as in `attune run list`.
        id: String,
    },
}

/// What is left out is as configured.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Serve the new generation at once; one that was optimised (`policy`, `improve`) only if the gate lets it.
    #[arg(long)]
    promote: bool,
    /// Rank of the low-rank adapters.
    #[arg(long)]
    rank: Option<usize>,
    /// Scale of the adapters.
    #[arg(long)]
    alpha: Option<f64>,
    /// Share of the adapters' inputs that is dropped.
    #[arg(long)]
    dropout: Option<f64>,
    /// Peak learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Share of the steps over which the learning rate rises.
    #[arg(long)]
    warmup: Option<f64>,
    /// Passes over the demonstrations.
    #[arg(long)]
    epochs: Option<usize>,
    /// Demonstrations a step.
    #[arg(long)]
    batch: Option<usize>,
    /// Longest demonstration in tokens.
    #[arg(long)]
    max_sequence_tokens: Option<usize>,
    /// Seed of order, adapters and dropout.
    #[arg(long)]
    seed: Option<u64>,
    /// Begin with the adapter that the newest earlier fine-tuning made.
    #[arg(long)]
    warm_start: bool,
    /// Learn from rows too that not everybody may see.
    #[arg(long)]
    include_restricted: bool,
}

/// Options of the fine-tuning and of the optimisation after it.
#[derive(Debug, Args)]
pub(super) struct Cycle {
    #[command(flatten)]
    sft: Options,
    /// `rloo`, `grpo`, `ppo`, `dpo`, `kto` or `best_of_n`.
    #[arg(long)]
    algorithm: Option<String>,
    /// Steps of the optimisation.
    #[arg(long)]
    policy_steps: Option<u64>,
    /// Questions a step.
    #[arg(long)]
    prompts_per_step: Option<usize>,
    /// Answers drawn for each question.
    #[arg(long)]
    completions: Option<usize>,
    /// Longest answer in tokens.
    #[arg(long)]
    policy_max_tokens: Option<usize>,
    /// Softmax temperature at which the policy draws the answers it learns from.
    #[arg(long)]
    policy_temperature: Option<f64>,
    /// Peak learning rate of the optimisation.
    #[arg(long)]
    policy_learning_rate: Option<f64>,
    /// How much a nat away from the fine-tuned model costs at first.
    #[arg(long)]
    beta: Option<f64>,
    /// Nats an answer may be away from the fine-tuned model.
    #[arg(long)]
    target_kl: Option<f64>,
    /// What agreeing entirely with the human answer is worth, in standard deviations of reward.
    #[arg(long)]
    agreement: Option<f64>,
    /// Weight of the demonstrations' negative log-likelihood in the loss.
    #[arg(long)]
    anchor: Option<f64>,
    /// Whether as many steps are taken with random rewards: half of the time; without them the gate holds the result.
    #[arg(long)]
    control: Option<bool>,
    /// Seed of questions, answers and adapters.
    #[arg(long)]
    policy_seed: Option<u64>,
}

impl Cycle {
    fn request(self, stage: Stage) -> RunRequest {
        let policy = PolicyOptions {
            algorithm: self.algorithm,
            steps: self.policy_steps,
            prompts_per_step: self.prompts_per_step,
            completions: self.completions,
            max_tokens: self.policy_max_tokens,
            temperature: self.policy_temperature,
            learning_rate: self.policy_learning_rate,
            beta: self.beta,
            target_kl: self.target_kl,
            agreement: self.agreement,
            anchor: self.anchor,
            control: self.control,
            seed: self.policy_seed,
        };
        RunRequest { policy, ..self.sft.request(stage) }
    }
}

impl Options {
    fn request(self, stage: Stage) -> RunRequest {
        let sft = SftOptions {
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            epochs: self.epochs,
            batch: self.batch,
            max_sequence_tokens: self.max_sequence_tokens,
            seed: self.seed,
            // Without the flag it is as configured.
            warm_start: self.warm_start.then_some(true),
            include_restricted: self.include_restricted,
        };
        RunRequest { promote: self.promote, sft, ..RunRequest::new(stage) }
    }
}

pub(super) async fn run(config: Config, runs: Runs, json: bool) -> CommandResult {
    let request = match runs {
        Runs::Sft(options) => options.request(Stage::Sft),
        Runs::Reward { include_restricted } => RunRequest {
            sft: SftOptions { include_restricted, ..SftOptions::default() },
            ..RunRequest::new(Stage::Reward)
        },
        Runs::Policy(cycle) => cycle.request(Stage::Policy),
        Runs::Improve(cycle) => cycle.request(Stage::Improve),
        Runs::List => return list(config, json).await,
        Runs::Show { id } => {
            let ledger = open(&config).await?;
            return print(&find(&ledger, &RunId::from_wire(id)).await?, json);
        }
        Runs::Cancel { id } => {
            let ledger = open(&config).await?;
            let state = ledger.cancel_run(&RunId::from_wire(id), now()).await.map_err(JobsError::from)?;
            let words = match state {
                RunState::Running => "its worker has been told; it ends at its next step",
                _ => "cancelled",
            };
            if json {
                say(serde_json::json!({"state": state}));
            } else {
                say(words);
            }
            return Ok(());
        }
    };
    jobs::lower_priority(&config);
    foreground(config, request, json).await
}

/// Queues the run and works on it here, unless a worker is busy in this data directory: then that one takes it.
async fn foreground(config: Config, request: RunRequest, json: bool) -> CommandResult {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    let ledger = open(&config).await?;
    let lock = take_lock(&config).await?;
    let id = jobs::enqueue(&*ledger, &config, request, REQUESTER).await?.id;
    if lock.is_some() {
        note(format!("{id}: working on it here; Ctrl-C stops, and keeps it for later"));
        work_until_over(&Arc::new(config), &ledger, &id, &stop).await?;
    } else {
        note(format!(
            "{id}: queued; a worker is busy in this data directory and takes it in its turn. Ctrl-C stops watching, \
             not the run"
        ));
        follow(&ledger, &id, &stop).await?;
    }
    let run = find(&ledger, &id).await?;
    print(&run, json)?;
    ledger.close().await;
    match run.state {
        RunState::Failed => Err(run.error.unwrap_or_else(|| "the run failed".to_owned()).into()),
        RunState::Queued | RunState::Running => {
            note(format!(
                "{id} is kept: `attune worker`, or a server, goes on from its checkpoint; `attune run cancel {id}` \
                 ends it"
            ));
            Ok(())
        }
        RunState::Succeeded | RunState::Held | RunState::Cancelled => Ok(()),
    }
}

async fn open(config: &Config) -> Result<Arc<dyn Ledger>, Box<dyn std::error::Error + Send + Sync>> {
    std::fs::create_dir_all(&config.data_dir)?;
    Ok(crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?)
}

async fn take_lock(config: &Config) -> Result<Option<WorkerLock>, JobsError> {
    for _ in 1..LOCK_TRIES {
        match WorkerLock::take(&config.data_dir) {
            Ok(lock) => return Ok(Some(lock)),
            Err(JobsError::Busy(_)) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Shows how far a run is that another process works on.
async fn follow(ledger: &Arc<dyn Ledger>, id: &RunId, stop: &CancellationToken) -> CommandResult {
    let watcher = watcher();
    while !stop.is_cancelled() && !is_over(ledger, id).await? {
        if let Some(progress) = find(ledger, id).await?.progress {
            watcher(&progress);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

async fn find(ledger: &Arc<dyn Ledger>, id: &RunId) -> Result<Run, Box<dyn std::error::Error + Send + Sync>> {
    Ok(ledger.run(id).await?.ok_or_else(|| format!("there is no run {id}"))?)
}

async fn list(config: Config, json: bool) -> CommandResult {
    let ledger = open(&config).await?;
    let page = ledger.runs(&Paging { before: None, limit: LISTED }).await?;
    if json {
        say(serde_json::to_string_pretty(&page.data)?);
    } else {
        for run in page.data {
            let generation = run.generation.as_ref().map_or("", |id| id.as_str());
            let Run { id, stage, state, .. } = &run;
            say(format!("{id}  {:<8} {:<9} {generation}", stage.name(), state.name()));
        }
    }
    ledger.close().await;
    Ok(())
}

fn print(run: &Run, json: bool) -> CommandResult {
    if json {
        say(serde_json::to_string(run)?);
        return Ok(());
    }
    say(format!("{}: {} {}", run.id, run.stage, run.state));
    if let Some(progress) = &run.progress {
        say(format!("  {} {}/{}", progress.phase, progress.done, progress.total));
    }
    for phase in &run.phases {
        say(format!("  {} took {:.1} s", phase.phase, phase.seconds));
    }
    for (name, value) in &run.metrics {
        say(format!("  {name}: {value}"));
    }
    for reason in run.reasons.iter().chain(&run.error) {
        say(format!("  {reason}"));
    }
    if let Some(generation) = &run.generation {
        say(format!("  generation {generation}"));
    }
    Ok(())
}
