//! How are the reward model trained and the policy optimised against it, and when does that happen by itself?

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, in_range};

/// How the reward model is trained on choices and thumbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Minutes its training may take, above 0 and at most 1,440; kinds of models that do not fit are skipped and named.
    /// Default 15.
    pub budget_minutes: f64,
    /// Pairs below which no reward model is trained, 10 to 100,000. Default 50: with fewer, 60% right can not be told
    /// from chance.
    pub enough: f64,
    /// Largest share of all weight that one person's votes have, 0.01 to 1. Default 0.25.
    pub person_share: f64,
    /// Seed of folds, bootstraps and first values. Default 0.
    pub seed: u64,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self { budget_minutes: 15.0, enough: 50.0, person_share: 0.25, seed: 0 }
    }
}

impl RewardConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let minutes = self.budget_minutes;
        check(minutes > 0.0 && minutes <= 1440.0, "reward.budget_minutes", || {
            "must be above 0 and at most 1440".into()
        })?;
        check((10.0..=100_000.0).contains(&self.enough), "reward.enough", || "must be 10 to 100000".into())?;
        check((0.01..=1.0).contains(&self.person_share), "reward.person_share", || "must be 0.01 to 1".into())
    }
}

/// How the policy is optimised against the reward model, unless a run says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `rloo`, `grpo`, `ppo`, `dpo`, `kto` or `best_of_n`. Default `rloo`.
    pub algorithm: String,
    /// Steps, 1 to 10,000; the control takes as many. Default 24: with a perfect reward more gained nothing
    /// (`benches/RESULTS.md`).
    pub steps: u64,
    /// Questions a step, 1 to 256. Default 4.
    pub prompts_per_step: usize,
    /// Answers drawn for each question, 2 to 64. Default 8: what each is worth is only known beside its neighbours, and 16
    /// take twice the time.
    pub completions: usize,
    /// Longest answer in tokens, 1 to 4,096. Default 64.
    pub max_tokens: usize,
    /// Softmax temperature at which the answers are drawn, above 0 and at most 2. Default 0.6: people are answered with the
    /// likeliest tokens, and what is drawn at 1 teaches little about those (`benches/RESULTS.md`). What is learnt, and the
    /// KL, is of the distribution at it.
    pub temperature: f64,
    /// Peak learning rate, above 0 and at most 0.1. Default 1.4e-3: with it the default model kept
    /// what the best of four answers gains, within the target; with half of it, the simulation's hidden judge liked it
    /// half as much better, in runs with other votes (`benches/RESULTS.md`).
    pub learning_rate: f64,
    /// How much a nat away from the fine-tuned model costs at first, 0 to 10; it follows `target_kl`. Default 0.05.
    pub beta: f64,
    /// Nats an answer may be away from the fine-tuned model before leaving it further costs more, above 0 and at most 100.
    /// Default 6.
    pub target_kl: f64,
    /// What an answer gains that says all of the human answer to its question, where there is one (token F1 times this,
    /// in standard deviations of reward), 0 to 20. Default 3: what people like must not cost what is
    /// right, and answers to one question differ about as much by it as by what people like (`benches/RESULTS.md`).
    pub agreement: f64,
    /// Weight of the demonstrations' negative log-likelihood in the loss, 0 to 10. Default 0.2.
    pub anchor: f64,
    /// Whether as many steps are taken with random rewards (DPO and KTO: random sides and thumbs), to compare with: about
    /// half of the time. Without them the gate holds what was optimised, so that it is for trying settings out. Default
    /// `true`.
    pub control: bool,
    /// Seed of questions, answers and adapters. Default 0.
    pub seed: u64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            algorithm: "rloo".into(),
            steps: 24,
            prompts_per_step: 4,
            completions: 8,
            max_tokens: 64,
            temperature: 0.6,
            learning_rate: 1.4e-3,
            beta: 0.05,
            target_kl: 6.0,
            agreement: 3.0,
            anchor: 0.2,
            control: true,
            seed: 0,
        }
    }
}

impl PolicyConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range(self.problem())
    }

    /// Whether the policy learns from people's choices themselves, not only from a reward model that learnt from them.
    #[must_use]
    pub fn learns_from_choices(&self) -> bool {
        matches!(self.algorithm.as_str(), "dpo" | "kto")
    }

    /// The first value that is out of range: its key, and the range.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        const ALGORITHMS: [&str; 6] = ["rloo", "grpo", "ppo", "dpo", "kto", "best_of_n"];
        let rate = self.learning_rate;
        let checks = [
            (
                ALGORITHMS.contains(&self.algorithm.as_str()),
                "policy.algorithm",
                "must be rloo, grpo, ppo, dpo, kto or best_of_n",
            ),
            ((1..=10_000).contains(&self.steps), "policy.steps", "must be 1 to 10000"),
            ((1..=256).contains(&self.prompts_per_step), "policy.prompts_per_step", "must be 1 to 256"),
            ((2..=64).contains(&self.completions), "policy.completions", "must be 2 to 64"),
            ((1..=4096).contains(&self.max_tokens), "policy.max_tokens", "must be 1 to 4096"),
            (
                self.temperature > 0.0 && self.temperature <= 2.0,
                "policy.temperature",
                "must be above 0 and at most 2",
            ),
            (rate > 0.0 && rate <= 0.1, "policy.learning_rate", "must be above 0 and at most 0.1"),
            ((0.0..=10.0).contains(&self.beta), "policy.beta", "must be 0 to 10"),
            (
                self.target_kl > 0.0 && self.target_kl <= 100.0,
                "policy.target_kl",
                "must be above 0 and at most 100",
            ),
            ((0.0..=20.0).contains(&self.agreement), "policy.agreement", "must be 0 to 20"),
            ((0.0..=10.0).contains(&self.anchor), "policy.anchor", "must be 0 to 10"),
        ];
        checks.into_iter().find(|(ok, ..)| !ok).map(|(_, key, problem)| (key, problem))
    }
}

/// When the server starts a run by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutomationConfig {
    /// What is run: `off`, `reward` (a new reward model) or `improve` (the whole cycle). Default `improve`.
    pub stage: AutomationStage,
    /// New signals (choices, thumbs, approved ideal answers) after which it runs; 0 is never. Default 50.
    pub signals: u64,
    /// When it runs besides, as a cron expression in UTC of five fields (`0 3 * * 1`); empty is never. Default empty.
    pub cron: String,
    /// Hours (UTC) in which none is started, `22-6` for instance; empty is none. Default empty.
    pub quiet_hours: String,
    /// Whether what the gate lets through is served at once. Default `true`.
    pub promote: bool,
}

impl Default for AutomationConfig {
    fn default() -> Self {
        Self {
            stage: AutomationStage::Improve,
            signals: 50,
            cron: String::new(),
            quiet_hours: String::new(),
            promote: true,
        }
    }
}

impl AutomationConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let schedule = |error: croner::errors::CronError| ConfigError::Invalid {
            key: "automation.cron",
            problem: format!("{error}; five fields: minute, hour, day of the month, month, day of the week"),
        };
        self.schedule().map_err(schedule)?;
        check(self.quiet_hours.is_empty() || self.quiet().is_some(), "automation.quiet_hours", || {
            "must be two hours from 0 to 23, such as 22-6".into()
        })
    }

    /// When it runs by the calendar, if it does.
    ///
    /// # Errors
    /// When `cron` is no expression.
    pub fn schedule(&self) -> Result<Option<croner::Cron>, croner::errors::CronError> {
        let some = !self.cron.trim().is_empty();
        some.then(|| self.cron.parse()).transpose()
    }

    /// The first quiet hour, and the first that is none.
    #[must_use]
    pub fn quiet(&self) -> Option<(i8, i8)> {
        let (from, to) = self.quiet_hours.split_once('-')?;
        let hour = |text: &str| text.trim().parse().ok().filter(|hour| (0..24).contains(hour));
        Some((hour(from)?, hour(to)?))
    }
}

/// How a generation that was promoted by itself is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// Share of the people who are answered by it while it is watched, 0 to 1; the others by the one before. Default
    /// 0.5. In mode open everybody is.
    pub share: f64,
    /// Longest time it is watched, in days; 0 is not at all. Default 14.
    pub days: f64,
    /// Probability of a wrong verdict, 0.0001 to 0.5. Default 0.05.
    pub error: f64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { share: 0.5, days: 14.0, error: 0.05 }
    }
}

impl LiveConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check((0.0..=1.0).contains(&self.share), "live.share", || "must be 0 to 1".into())?;
        check((0.0..=365.0).contains(&self.days), "live.days", || "must be 0 to 365".into())?;
        check((0.0001..=0.5).contains(&self.error), "live.error", || "must be 0.0001 to 0.5".into())
    }
}

/// What the server runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutomationStage {
    /// Nothing.
    Off,
    /// A new reward model.
    Reward,
    /// The whole cycle.
    Improve,
}
