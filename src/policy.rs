//! How does a model learn from a reward? It answers real prompts, the reward judges the answers, and those better than
//! their neighbours become likelier, at a price for each nat by which the policy leaves the reference.
//!
//! The reference is a frozen decoder; the policy is the same decoder with an adapter beside it, so that the adapter
//! left out is the reference. Log-probabilities, KL and entropy are natural (nats); a KL is of whole answers, summed
//! over their tokens. The same material, settings and reward give the same adapter, however often the work was
//! interrupted.

mod advantage;
mod average;
mod direct;
mod figures;
mod health;
mod judge;
mod loss;
mod measure;
mod online;
mod order;
mod place;
mod rollouts;
mod settings;
mod training;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::nn::{Adapter, Decoder, NnError};
use crate::sft;

pub use measure::{best_of, best_of_kl, kl_to_reference};
pub use rollouts::{Drawing, draw};
pub use settings::{Algorithm, Control, Direct, KlPrice, Rules, Settings, ValueSettings};

/// Why the policy could not be optimised.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is nothing that this algorithm learns from.
    #[error("{algorithm:?} has no {missing} to learn from")]
    NoMaterial {
        /// Which algorithm.
        algorithm: Algorithm,
        /// What there is none of.
        missing: &'static str,
    },
    /// A setting is out of range.
    #[error("{field} {problem}")]
    Setting {
        /// Which setting.
        field: &'static str,
        /// What it must be.
        problem: &'static str,
    },
    /// The reward function failed.
    #[error("the reward failed: {0}")]
    Reward(String),
    /// The reward function gave too few or too many values, or one that is no number.
    #[error("the reward of {rollouts} answers is {values} numbers")]
    RewardShape {
        /// Answers that were to be judged.
        rollouts: usize,
        /// Finite numbers that came back.
        values: usize,
    },
    /// A rollout answers a prompt that is not there.
    #[error("there is no prompt {prompt}")]
    NoPrompt {
        /// Its place.
        prompt: usize,
    },
    /// The loss or its gradient is no number.
    #[error("the loss is no number at step {step}; a lower learning rate helps")]
    Diverged {
        /// At which step, from 0.
        step: u64,
    },
    /// It was told to stop; the checkpoint is written.
    #[error("stopped at step {step}")]
    Stopped {
        /// Steps done.
        step: u64,
    },
    /// The model failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A tensor operation failed.
    #[error("tensor operation")]
    Tensor(#[from] candle_core::Error),
}

/// A conversation that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The rendered chat prompt, tokenised; at least one token.
    pub tokens: Vec<u32>,
}

/// An answer that the policy gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Which of the prompts it answers.
    pub prompt: usize,
    /// The answer; its last token is an end of turn if it `ended`.
    pub tokens: Vec<u32>,
    /// Of each token, under the policy that drew it (nats).
    pub log_probabilities: Vec<f32>,
    /// Whether the policy ended its turn; otherwise `max_tokens` cut it off.
    pub ended: bool,
}

/// Judges answers: one finite number each, higher is better. An `Err` ends the work with [`PolicyError::Reward`].
pub type Reward<'a> = dyn FnMut(&[Rollout]) -> Result<Vec<f64>, String> + 'a;

/// Two answers to a prompt of which one was preferred (DPO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The rendered prompt.
    pub prompt: Vec<u32>,
    /// The preferred answer with its end-of-turn token.
    pub chosen: Vec<u32>,
    /// The other answer with its end-of-turn token.
    pub rejected: Vec<u32>,
}

/// An answer that was judged by itself (KTO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenJudged {
    /// The rendered prompt.
    pub prompt: Vec<u32>,
    /// The answer with its end-of-turn token.
    pub completion: Vec<u32>,
    /// Whether it was liked.
    pub label: bool,
}

/// What is learnt from.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// The reference policy: the base model with the fine-tuned adapter merged in.
    pub reference: &'a Decoder,
    /// End-of-turn tokens.
    pub ends: &'a [u32],
    /// What answers are drawn to (RLOO, GRPO, PPO, best-of-n).
    pub prompts: &'a [Prompt],
    /// Demonstrations that the policy is held to; may be empty.
    pub anchors: &'a [sft::Example],
    /// Preference pairs (DPO).
    pub pairs: &'a [TokenPair],
    /// Judged answers (KTO).
    pub judged: &'a [TokenJudged],
}

/// Figures of a step by TRL's names.
pub type Metrics = BTreeMap<&'static str, f64>;

/// What is told after each step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Among them `reward`, `kl` (nats an answer), `entropy` (nats a token) and `grad_norm`.
    pub metrics: Metrics,
}

/// What a candidate is like, estimated from up to 32 answers of its own, drawn at the settings' temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// KL to the reference (nats an answer).
    pub kl: f64,
    /// Nats a token.
    pub entropy: f64,
}

/// What came out.
#[derive(Debug)]
pub struct Optimised {
    /// The exponential average of the adapters: the candidate.
    pub adapter: Adapter,
    /// What it is like; `None` of the control, and without prompts.
    pub measured: Option<Measured>,
    /// Steps taken.
    pub steps: u64,
    /// Tokens drawn and read in gradient passes.
    pub tokens: u64,
    /// Seconds of steps.
    pub seconds: f64,
    /// Metrics of the last step, also when the policy was taken back after it.
    pub last: BTreeMap<String, f64>,
    /// Means of the metrics over all steps.
    pub means: BTreeMap<String, f64>,
    /// Healthy ranges that were left, and returns to a place nearer to the reference, one sentence each.
    pub alarms: Vec<String>,
    /// Why it ended before its last step.
    pub stopped_early: Option<String>,
}

/// Optimises a policy. `folder` keeps the checkpoint, and the place that the policy would be taken back to; a call with a folder in which an earlier one with the same
/// material and settings was interrupted goes on where that one was. `observe` hears every step; when it returns
/// `false` a checkpoint is written and the work ends with [`PolicyError::Stopped`].
///
/// # Errors
/// When a setting is out of range, there is no material for the algorithm, the reward fails, the loss is no number, a
/// checkpoint can not be written or belongs to other material or settings, or `observe` says so.
pub fn optimise(
    material: &Material<'_>,
    reward: &mut Reward<'_>,
    (settings, folder): (&Settings, &Path),
    mut observe: impl FnMut(&Step) -> bool,
) -> Result<Optimised, PolicyError> {
    if let Some((field, problem)) = settings.validate() {
        return Err(PolicyError::Setting { field, problem });
    }
    let mut training = training::Training::open(material, (settings, folder))?;
    training.run(reward, &mut observe)?;
    Ok(training.finish())
}
