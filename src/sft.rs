//! How does a model learn from ideal answers? Supervised fine-tuning of an adapter on the answers' tokens, with early
//! stopping on a validation loss.
//!
//! The loss is the mean negative log-likelihood of the completions' tokens (nats per token), end-of-turn included,
//! prompts excluded. The same examples, settings and number of threads give the same adapter, however often the work
//! was interrupted.

mod plan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::nn::{
    self, AdamW, AdamWSettings, Adapter, AdapterShape, Batch, Checkpoint, Decoder, Gradients, NnError,
    Packed, Pass, Schedule, Text, pack,
};
use plan::Plan;

/// In a folder, the adapter that training begins with; without it a fresh one.
pub const START: &str = "start.safetensors";
/// In a folder, the adapter that training made.
pub const MADE: &str = "made.safetensors";
/// Joint norm to which gradients are clipped.
const CLIP: f32 = 1.0;
/// How often the validation loss is measured in one pass over the data.
const VALIDATIONS_PER_EPOCH: u64 = 2;
/// Validations without a better loss after which training stops.
const PATIENCE: u32 = 3;
/// Seconds between checkpoints: what a crash can cost.
const CHECKPOINT_SECONDS: f64 = 30.0;

/// Why fine-tuning did not finish.
#[derive(Debug, thiserror::Error)]
pub enum SftError {
    /// There is nothing to learn from.
    #[error("no example fits {limit} tokens; raise sft.max_sequence_tokens or shorten the passages")]
    NoExamples {
        /// Most tokens of an example.
        limit: usize,
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
        /// At which step, from 0.
        step: u64,
    },
    /// The model failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A tensor operation failed.
    #[error("tensor operation")]
    Tensor(#[from] candle_core::Error),
}

/// A prompt and its ideal answer, tokenised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The rendered prompt.
    pub prompt: Vec<u32>,
    /// The answer with its end-of-turn token.
    pub completion: Vec<u32>,
}

impl Example {
    fn tokens(&self) -> usize {
        self.prompt.len() + self.completion.len()
    }

    /// As it is read.
    pub(crate) fn text(&self) -> Text<'_> {
        Text { prompt: &self.prompt, completion: &self.completion }
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Size of the adapter.
    pub adapter: AdapterShape,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Share of the steps in which the rate rises.
    pub warmup: f32,
    /// Passes over the data.
    pub epochs: u32,
    /// Examples a step.
    pub batch: usize,
    /// Examples with more tokens are left out.
    pub max_sequence_tokens: usize,
    /// Tokens that are in memory together; a step's examples are split into passes of at most this many.
    pub pass_tokens: usize,
    /// Keep only layers' inputs between forward and backward: less memory, a third more work. Not part of what is
    /// learnt, so a run may go on with another.
    #[serde(skip)]
    pub recompute: bool,
    /// Of the adapter's first values, the order of examples and dropout.
    pub seed: u64,
}

/// What is told while training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Mean loss of this step's tokens (nats).
    pub loss: f32,
    /// Joint norm of the gradients before clipping.
    pub gradient_norm: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Tokens read a second, this step.
    pub tokens_per_second: f32,
    /// Loss on the validation examples (nats a token), when it was measured.
    pub validation_loss: Option<f32>,
}

/// What came out.
#[derive(Debug)]
pub struct Trained {
    /// The adapter at its best validation loss, or at the end when there was nothing to validate on.
    pub adapter: Adapter,
    /// Steps taken.
    pub steps: u64,
    /// Examples left out as too long.
    pub left_out: usize,
    /// Tokens read while training, validation not counted.
    pub tokens: u64,
    /// Seconds of training steps, validation not counted.
    pub seconds: f64,
    /// Validation loss before the first step (nats a token).
    pub validation_before: Option<f32>,
    /// Best validation loss (nats a token).
    pub validation_best: Option<f32>,
    /// Whether it ended before its last step because the validation loss no longer fell.
    pub stopped_early: bool,
}

/// What a checkpoint holds besides adapter and optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    step: u64,
    tokens: u64,
    seconds: f64,
    before: Option<f32>,
    best: Option<f32>,
    best_step: u64,
    worse: u32,
    stopped_early: bool,
}

/// Trains an adapter, the one in [`START`] if the folder has it. `folder` keeps checkpoint, best adapter and the result
/// ([`MADE`]); a call with a folder in which an earlier one with the same examples and settings was interrupted goes on
/// where that one was. `observe` hears every step; when it
/// returns `false` a checkpoint is written and the work ends with [`SftError::Stopped`].
///
/// # Errors
/// When no example fits, the loss is no number, a checkpoint can not be written or belongs to other settings, or
/// `observe` says so.
pub fn train(
    decoder: &Decoder,
    (examples, validation): (&[Example], &[Example]),
    (settings, folder): (&Settings, &Path),
    mut observe: impl FnMut(Step) -> bool,
) -> Result<Trained, SftError> {
    let plan = Plan::new(examples, settings);
    if plan.is_empty() {
        return Err(SftError::NoExamples { limit: settings.max_sequence_tokens });
    }
    let mut training = Training::open(decoder, (settings, folder), (plan, validation))?;
    let mut saved = Instant::now();
    while training.state.step < training.plan.steps() && !training.state.stopped_early {
        let step = training.step()?;
        let going = observe(step);
        if !going || saved.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
            training.save()?;
            saved = Instant::now();
        }
        if !going {
            return Err(SftError::Stopped { step: training.state.step });
        }
    }
    training.finish()
}

/// What training begins with.
fn first(decoder: &Decoder, (settings, folder): (&Settings, &Path)) -> Result<Adapter, NnError> {
    let start = folder.join(START);
    if !start.exists() {
        return Adapter::new(decoder, settings.adapter, settings.seed);
    }
    let found = Adapter::load(decoder, &start)?;
    let (shape, wanted) = (found.shape(), settings.adapter);
    if (shape.rank, shape.alpha) != (wanted.rank, wanted.alpha) {
        let problem = format!("its rank is {} and its alpha {}, not as set", shape.rank, shape.alpha);
        return Err(NnError::Checkpoint { path: start.display().to_string(), problem });
    }
    Ok(found.with_dropout(wanted.dropout))
}

/// Mean negative log-likelihood of completions (nats a token); `None` without examples.
///
/// # Errors
/// When the model fails.
pub fn loss(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<Option<f32>, NnError> {
    let sums = log_likelihoods(decoder, adapter, examples)?;
    let tokens: usize = examples.iter().map(|example| example.completion.len()).sum();
    let total: f64 = sums.iter().sum();
    Ok((tokens > 0).then(|| (-total / tokens as f64) as f32))
}

/// Log-likelihood of each example's completion (nats, summed over its tokens).
///
/// # Errors
/// When the model fails.
pub fn log_likelihoods(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<Vec<f64>, NnError> {
    let texts: Vec<Text<'_>> = examples.iter().map(Example::text).collect();
    nn::read((decoder, adapter), (&texts, nn::PASS_TOKENS), |read| Ok(read.sum()))
}

struct Training<'a> {
    decoder: &'a Decoder,
    settings: &'a Settings,
    folder: PathBuf,
    plan: Plan<'a>,
    validation: &'a [Example],
    schedule: Schedule,
    adapter: Adapter,
    optimizer: AdamW,
    state: State,
}

impl<'a> Training<'a> {
    fn open(
        decoder: &'a Decoder,
        (settings, folder): (&'a Settings, &Path),
        (plan, validation): (Plan<'a>, &'a [Example]),
    ) -> Result<Self, SftError> {
        let adapter = first(decoder, (settings, folder))?;
        let total = plan.steps();
        let warmup = (total as f32 * settings.warmup).ceil() as u64;
        let schedule = Schedule { peak: settings.learning_rate, warmup, total };
        let checkpoint = folder.join("checkpoint.safetensors");
        let moments = AdamWSettings::default();
        let fresh = AdamW::new(&adapter.variables(), moments);
        let mut training = Self {
            decoder,
            settings,
            folder: folder.to_owned(),
            plan,
            validation,
            schedule,
            adapter: adapter.clone(),
            optimizer: fresh,
            state: State::default(),
        };
        if let Some(found) = Checkpoint::load(&checkpoint, adapter, moments)? {
            let problem =
                |problem: String| NnError::Checkpoint { path: checkpoint.display().to_string(), problem };
            let (fingerprint, state): (String, State) =
                serde_json::from_str(&found.state).map_err(|error| problem(error.to_string()))?;
            if fingerprint != training.fingerprint() {
                return Err(problem("it is of other examples or settings".into()).into());
            }
            (training.adapter, training.optimizer, training.state) = (found.adapter, found.optimizer, state);
            tracing::info!(step = training.state.step, "going on from a checkpoint");
        } else {
            training.state.before = training.validate()?;
        }
        Ok(training)
    }

    /// Identifies examples and settings.
    fn fingerprint(&self) -> String {
        let settings = serde_json::to_string(self.settings).unwrap_or_default();
        self.plan.fingerprint(&settings)
    }

    fn save(&self) -> Result<(), NnError> {
        let state = serde_json::to_string(&(self.fingerprint(), &self.state)).unwrap_or_default();
        let path = self.folder.join("checkpoint.safetensors");
        Checkpoint::save(&path, (&self.adapter, &self.optimizer), &state)
    }

    fn best_path(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }

    fn validate(&self) -> Result<Option<f32>, NnError> {
        loss(self.decoder, Some(&self.adapter), self.validation)
    }

    fn step(&mut self) -> Result<Step, SftError> {
        let started = Instant::now();
        let at = self.state.step;
        let examples = self.plan.batch(at);
        let targets: usize = examples.iter().map(|example| example.completion.len()).sum();
        let (mut sum, mut tokens) = (0.0, 0);
        let mut gradients = Gradients::none(&self.adapter, self.settings.recompute);
        let texts: Vec<Text<'_>> = examples.iter().map(|example| example.text()).collect();
        for (i, Packed { batch, .. }) in pack(&texts, self.settings.pass_tokens).into_iter().enumerate() {
            tokens += batch.rows_len() as u64;
            // Passes of one step drop different values.
            let seed = self.settings.seed.wrapping_add(at.wrapping_mul(1000)).wrapping_add(i as u64);
            sum += self.backward(&batch, (seed, targets), &mut gradients)?;
        }
        let norm = gradients.clip(CLIP)?;
        if !sum.is_finite() || !norm.is_finite() {
            return Err(SftError::Diverged { step: at });
        }
        let rate = self.schedule.at(at);
        self.optimizer.step(&self.adapter.variables(), gradients.as_slice(), rate)?;
        let seconds = started.elapsed().as_secs_f64();
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.seconds += seconds;
        Ok(Step {
            done: self.state.step,
            total: self.plan.steps(),
            loss: sum,
            gradient_norm: norm,
            learning_rate: rate,
            tokens_per_second: (tokens as f64 / seconds) as f32,
            validation_loss: self.validate_if_due()?,
        })
    }

    /// Adds the gradients of one pass; gives its share of the step's loss.
    fn backward(
        &self,
        batch: &Batch,
        (seed, targets): (u64, usize),
        gradients: &mut Gradients,
    ) -> Result<f32, NnError> {
        let share = -1.0 / targets as f64;
        let pass = Pass { dropout_seed: Some(seed), ..Pass::default() };
        gradients.add((self.decoder, batch), (&self.adapter, pass), |scores| {
            Ok((scores.log_probabilities.sum_all()? * share)?)
        })
    }

    fn validate_if_due(&mut self) -> Result<Option<f32>, SftError> {
        let every = (self.plan.steps_per_epoch() / VALIDATIONS_PER_EPOCH).max(1);
        let last = self.state.step == self.plan.steps();
        if self.validation.is_empty() || !(last || self.state.step.is_multiple_of(every)) {
            return Ok(None);
        }
        let loss = self.validate()?;
        if loss < self.state.best || self.state.best.is_none() {
            (self.state.best, self.state.best_step, self.state.worse) = (loss, self.state.step, 0);
            self.adapter.save(&self.best_path())?;
        } else {
            self.state.worse += 1;
            self.state.stopped_early = self.state.worse >= PATIENCE;
        }
        Ok(loss)
    }

    fn finish(self) -> Result<Trained, SftError> {
        self.save()?;
        let State { step, tokens, seconds, before, best, stopped_early, best_step, .. } = self.state;
        let adapter = if best.is_some() && best_step != step {
            Adapter::load(self.decoder, &self.best_path())?
        } else {
            self.adapter
        };
        adapter.save(&self.folder.join(MADE))?;
        Ok(Trained {
            adapter,
            steps: step,
            left_out: self.plan.left_out(),
            tokens,
            seconds,
            validation_before: before,
            validation_best: best,
            stopped_early,
        })
    }
}
