//! What is a training run: what was asked for, how far is it, and what came of it?

mod series;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GenerationId, Millis, RunId};

pub use series::Series;

/// What a run does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Fine-tunes the base model on demonstrations.
    Sft,
    /// Trains the reward model on choices and thumbs.
    Reward,
    /// Fine-tunes, then optimises the policy against a model of people's choices, also one that the gate refuses.
    Policy,
    /// The whole loop: a new reward model, fine-tuning, the policy optimised against it where it is good enough,
    /// evaluation, publishing.
    Improve,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 4] = [Self::Sft, Self::Reward, Self::Policy, Self::Improve];

    /// As it is written on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Reward => "reward",
            Self::Policy => "policy",
            Self::Improve => "improve",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a run stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waiting for a worker.
    Queued,
    /// A worker has it, or had it and died: then the next one goes on.
    Running,
    /// It is done; what it made, if it made something, may be promoted, or was.
    Succeeded,
    /// It ended with a generation that the gate holds back; `reasons` say why.
    Held,
    /// It could not be finished; `error` says why.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Held, Self::Failed, Self::Cancelled];

    /// As it is written on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be done. What is left out comes from the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Which stage.
    pub stage: Stage,
    /// Whether the new generation is served at once if the gate lets it. Default `false`: it stays a candidate.
    #[serde(default)]
    pub promote: bool,
    /// How the base model is fine-tuned.
    #[serde(default)]
    pub sft: SftOptions,
    /// How the policy is optimised against the reward model.
    #[serde(default)]
    pub policy: PolicyOptions,
}

impl RunRequest {
    /// A run of a stage with everything as configured.
    #[must_use]
    pub fn new(stage: Stage) -> Self {
        Self { stage, promote: false, sft: SftOptions::default(), policy: PolicyOptions::default() }
    }
}

/// How the base model is fine-tuned; what is left out is as configured in section `sft`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SftOptions {
    /// Rank of the low-rank adapters, 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Scale of the adapters, above 0 and at most 1,024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Share of the adapters' inputs that is dropped while training, 0 to 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Peak learning rate, above 0 and at most 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Share of the steps over which the learning rate rises, 0 to 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<f64>,
    /// Passes over the demonstrations, 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Demonstrations a step, 1 to 1,024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Longest demonstration in tokens, prompt and response, 32 to 32,768.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequence_tokens: Option<usize>,
    /// Seed of order, adapters and dropout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether it begins with the adapter that the newest earlier fine-tuning made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<bool>,
    /// Whether rows that not everybody may see are learnt from too. The generation may then repeat them to anybody
    /// it is served to. Default `false`.
    pub include_restricted: bool,
}

/// How the policy is optimised against the reward model; what is left out is as configured in section `policy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyOptions {
    /// `rloo`, `grpo`, `ppo`, `dpo`, `kto` or `best_of_n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Steps, 1 to 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Questions a step, 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts_per_step: Option<usize>,
    /// Answers drawn for each question, 2 to 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<usize>,
    /// Longest answer in tokens, 1 to 4,096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// Softmax temperature at which the answers are drawn, above 0 and at most 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Peak learning rate, above 0 and at most 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// How much a nat away from the fine-tuned model costs, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Nats an answer may be away from the fine-tuned model, above 0 and at most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kl: Option<f64>,
    /// What agreeing entirely with the human answer is worth, in standard deviations of reward, 0 to 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Weight of the demonstrations' negative log-likelihood in the loss, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<f64>,
    /// Whether as many steps are taken with random rewards; without them the gate holds the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<bool>,
    /// Seed of questions, answers and adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// How far a run is in its present phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// What is being done.
    pub phase: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 when it is not known.
    pub total: u64,
    /// Seconds until the phase ends at the present pace; `null` when it can not be told yet.
    pub eta_seconds: Option<u64>,
}

impl Progress {
    /// The share that is done, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people to look at")]
    pub fn ratio(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.done as f64 / self.total as f64).min(1.0) }
    }
}

/// How long a phase took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseTime {
    /// What was done.
    pub phase: String,
    /// Seconds, without the time of attempts that were cut off.
    pub seconds: f64,
}

/// How a finished run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// What was made, if something was, may be promoted, or was.
    Succeeded,
    /// The gate holds the generation back.
    Held,
}

/// What came of a run's work.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The generation that was published.
    pub generation: Option<GenerationId>,
    /// How it ended.
    pub state: Verdict,
    /// Why the generation is held back, or what else the operator should know.
    pub reasons: Vec<String>,
    /// Summary figures, such as `{"f1": {"before": …, "after": …, "interval": […, …]}}`.
    pub metrics: Map<String, Value>,
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// What it does.
    pub stage: Stage,
    /// Where it stands.
    pub state: RunState,
    /// What was asked for, with what was left out filled in from the configuration.
    pub request: RunRequest,
    /// Who asked for it.
    pub requested_by: String,
    /// How far it is.
    pub progress: Option<Progress>,
    /// How long its phases took.
    pub phases: Vec<PhaseTime>,
    /// Summary figures, such as `{"f1": {"before": …, "after": …, "interval": […, …]}}`.
    #[schema(value_type = Object)]
    pub metrics: Map<String, Value>,
    /// Figures by step, for curves. Left out of lists.
    #[serde(default, skip_serializing_if = "Series::is_empty")]
    #[schema(value_type = HashMap<String, Vec<Vec<f64>>>)]
    pub series: Series,
    /// The generation it published.
    pub generation: Option<GenerationId>,
    /// Why the generation is held back, or what else the operator should know.
    pub reasons: Vec<String>,
    /// Why it failed, or why its last worker ended.
    pub error: Option<String>,
    /// How often a worker took it up; being stopped in good order does not count.
    pub attempts: u32,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// When it was asked for.
    pub created: Millis,
    /// When a worker first took it up.
    pub started: Option<Millis>,
    /// When its worker was last heard of.
    pub heartbeat: Option<Millis>,
    /// When it ended.
    pub finished: Option<Millis>,
}

impl Run {
    /// A run that waits for a worker.
    #[must_use]
    pub fn queued(request: RunRequest, requested_by: &str, created: Millis) -> Self {
        Self {
            id: RunId::generate(),
            stage: request.stage,
            state: RunState::Queued,
            request,
            requested_by: requested_by.to_owned(),
            progress: None,
            phases: Vec::new(),
            metrics: Map::new(),
            series: Series::default(),
            generation: None,
            reasons: Vec::new(),
            error: None,
            attempts: 0,
            cancel_requested: false,
            created,
            started: None,
            heartbeat: None,
            finished: None,
        }
    }
}
