//! How does training run, and with which defaults?

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, in_range};

/// Who starts the process that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerMode {
    /// The server, when a run is waiting.
    Auto,
    /// Somebody else: `attune worker`, here or on another machine with the same database and data directory.
    Manual,
}

/// How training runs beside chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Who starts the process that trains: `auto` (the server, when a run is waiting) or `manual` (`attune worker`).
    /// Default `auto`.
    pub worker: WorkerMode,
    /// Priority of the training process, 0 to 19; higher gives way more. Default 5: about a quarter of the processor
    /// while people chat, all of it otherwise.
    pub nice: u8,
    /// Threads that train; 0 is one for each processor. Default 0. The result depends on it in the last digits, so a
    /// run keeps the number it began with.
    pub threads: usize,
    /// Whether training keeps only layers' inputs between forward and backward (gradient checkpointing): less memory, a
    /// third more work, the same result. Default `false`.
    pub recompute: bool,
    /// People whose questions, votes and thumbs are not learnt from: probes that watch the server, say. Default none.
    pub except_users: Vec<String>,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self { worker: WorkerMode::Auto, nice: 5, threads: 0, recompute: false, except_users: Vec::new() }
    }
}

impl TrainingConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check(self.nice <= 19, "training.nice", || "must be 0 to 19".into())?;
        check(self.threads <= 1024, "training.threads", || "must be 0 to 1024".into())
    }
}

/// How the base model is fine-tuned on demonstrations, unless a run says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Rank of the low-rank adapters, 1 to 256. Default 16.
    pub rank: usize,
    /// Scale of the adapters: they are multiplied by alpha / rank. Above 0, at most 1,024. Default 32.
    pub alpha: f64,
    /// Share of the adapters' inputs that is dropped while training, 0 to 0.9. Default 0.05.
    pub dropout: f64,
    /// Peak learning rate, above 0 and at most 0.1. It rises over the warm-up and falls as a cosine to 0. Default 1e-3.
    pub learning_rate: f64,
    /// Share of the steps over which the learning rate rises, 0 to 0.5. Default 0.1.
    pub warmup: f64,
    /// Passes over the demonstrations, 1 to 100. Default 2.
    pub epochs: usize,
    /// Demonstrations a step, 1 to 1,024. Default 8.
    pub batch: usize,
    /// Longest demonstration in tokens, prompt and response, 32 to 32,768; longer ones are left out. Default 1,024.
    pub max_sequence_tokens: usize,
    /// Seed of order, adapters and dropout. Default 0.
    pub seed: u64,
    /// Whether it begins with the adapter that the newest earlier fine-tuning of the same base model, rank and alpha
    /// made, so that fewer passes are enough; otherwise from nothing, so that no earlier run can matter. Default `false`.
    pub warm_start: bool,
}

impl Default for SftConfig {
    /// The rate was chosen among 1e-4 to 2e-3 on grounded questions (`benches/RESULTS.md`): 1e-3 gave the best token F1.
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.05,
            learning_rate: 1e-3,
            warmup: 0.1,
            epochs: 2,
            batch: 8,
            max_sequence_tokens: 1024,
            seed: 0,
            warm_start: false,
        }
    }
}

impl SftConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range(self.problem())
    }

    /// The first value that is out of range: its key, and the range.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let checks = [
            ((1..=256).contains(&self.rank), "sft.rank", "must be 1 to 256"),
            (self.alpha > 0.0 && self.alpha <= 1024.0, "sft.alpha", "must be above 0 and at most 1024"),
            ((0.0..=0.9).contains(&self.dropout), "sft.dropout", "must be 0 to 0.9"),
            (
                self.learning_rate > 0.0 && self.learning_rate <= 0.1,
                "sft.learning_rate",
                "must be above 0 and at most 0.1",
            ),
            ((0.0..=0.5).contains(&self.warmup), "sft.warmup", "must be 0 to 0.5"),
            ((1..=100).contains(&self.epochs), "sft.epochs", "must be 1 to 100"),
            ((1..=1024).contains(&self.batch), "sft.batch", "must be 1 to 1024"),
            (
                (32..=32_768).contains(&self.max_sequence_tokens),
                "sft.max_sequence_tokens",
                "must be 32 to 32768",
            ),
        ];
        checks.into_iter().find(|(ok, ..)| !ok).map(|(_, key, problem)| (key, problem))
    }
}
