//! How does a run go from step to step, and on after a crash? The adapter, its average, the optimizer and everything
//! that changes are in one checkpoint, replaced whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::average::{decay, follow};
use super::health::Health;
use super::measure::kl_to_reference;
use super::order::{Purpose, places, stream};
use super::rollouts::{Drawing, draw};
use super::value::ValueHead;
use super::{Algorithm, Material, Optimised, PolicyError, Reward, Settings, Step, loss};
use crate::nn::{
    AdamW, AdamWSettings, Adapter, Checkpoint, Decoder, Gradients, NnError, Pass, Schedule, Text, pack,
};

/// Seconds between checkpoints: what a crash can cost.
const CHECKPOINT_SECONDS: f64 = 30.0;
/// Answers by which the KL of a candidate is estimated: as many as a step of the default size draws.
const KL_ANSWERS: usize = 32;

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub(super) done: u64,
    /// Updates of the adapter, several a step at times.
    updates: u64,
    /// What a nat of KL costs now.
    #[serde(with = "exact")]
    pub(super) beta: f64,
    /// Tokens drawn and read in gradient passes.
    pub(super) tokens: u64,
    seconds: f64,
    /// Steps of the value head.
    head_steps: u64,
    /// Per metric: sum and number of its values.
    sums: BTreeMap<String, (f64, u64)>,
    last: BTreeMap<String, f64>,
    /// Whether `last` has the KL that is measured at the end of an algorithm that draws no answers.
    #[serde(default)]
    measured: bool,
    health: Health,
}

/// A number in JSON by its bits: as a decimal it may come back one unit in the last place off.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// A run.
pub(super) struct Training<'a> {
    pub(super) material: &'a Material<'a>,
    pub(super) settings: &'a Settings,
    /// The reference at the temperature at which answers are drawn.
    pub(super) reference_drawn: Decoder,
    folder: PathBuf,
    schedule: Schedule,
    pub(super) adapter: Adapter,
    average: Adapter,
    optimizer: AdamW,
    /// PPO's.
    pub(super) head: Option<ValueHead>,
    /// Log-probability under the reference of each answer that DPO or KTO learns from (nats).
    pub(super) reference: Vec<f32>,
    pub(super) state: State,
}

/// What an update did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Update {
    /// Joint norm of the gradients before clipping.
    pub(super) gradient_norm: f32,
    /// Mean loss of the demonstrations' tokens (nats), where there are any.
    pub(super) anchor: Option<f64>,
    pub(super) learning_rate: f32,
}

impl<'a> Training<'a> {
    pub(super) fn open(
        material: &'a Material<'a>,
        (settings, folder): (&'a Settings, &Path),
    ) -> Result<Self, PolicyError> {
        check(material, settings.algorithm)?;
        let decoder = material.reference;
        let new = || Adapter::new(decoder, settings.adapter, settings.seed);
        let (adapter, average) = (new()?, new()?);
        // Also the default 1e-8 beside the root of the second moment: with PPO's 1e-5 most of an adapter's gradients, whose
        // joint norm is clipped to 1, were damped, and the policy hardly left the reference (`benches/RESULTS.md`).
        let moments = AdamWSettings::default();
        let head = (settings.algorithm == Algorithm::Ppo)
            .then(|| ValueHead::new(decoder.architecture().width))
            .transpose()?;
        let warmup = (settings.steps as f32 * settings.warmup).ceil() as u64;
        let mut training = Self {
            material,
            settings,
            reference_drawn: decoder.at_temperature(settings.temperature)?,
            folder: folder.to_owned(),
            schedule: Schedule { peak: settings.learning_rate, warmup, total: settings.steps },
            optimizer: AdamW::new(&adapter.variables(), moments),
            adapter,
            average,
            head,
            reference: Vec::new(),
            state: State { beta: settings.kl.beta, ..State::default() },
        };
        if let Some(found) = Checkpoint::load(&training.path(), training.adapter.clone(), moments)? {
            training.go_on(found)?;
        } else if !settings.algorithm.draws_rollouts() {
            training.reference = training.score_reference()?;
        }
        Ok(training)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("checkpoint.safetensors")
    }

    fn go_on(&mut self, found: Checkpoint) -> Result<(), PolicyError> {
        let path = self.path().display().to_string();
        let problem = |problem: String| NnError::Checkpoint { path: path.clone(), problem };
        let (fingerprint, state): (String, State) =
            serde_json::from_str(&found.state).map_err(|error| problem(error.to_string()))?;
        if fingerprint != self.fingerprint() {
            return Err(problem("it is of other material or settings".into()).into());
        }
        for (name, var) in self.average.named_in_order() {
            let tensor = found.others.get(&format!("average.{name}"));
            let tensor = tensor.filter(|tensor| tensor.shape() == var.shape());
            var.set(
                &tensor
                    .ok_or_else(|| problem(format!("it has no average of {name}")))?
                    .to_device(var.device())?,
            )?;
        }
        if let Some(head) = &mut self.head {
            head.restore(&found.others, state.head_steps)?;
        }
        if let Some(reference) = found.others.get("reference") {
            self.reference = reference.to_vec1()?;
        }
        (self.adapter, self.optimizer, self.state) = (found.adapter, found.optimizer, state);
        tracing::info!(step = self.state.done, "going on from a checkpoint");
        Ok(())
    }

    /// Identifies material and settings; the reference's weights are the caller's to keep.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_string(self.settings).unwrap_or_default());
        let Material { ends, prompts, anchors, pairs, judged, .. } = self.material;
        let mut add = |tokens: &[u32]| {
            hash.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        };
        add(ends);
        prompts.iter().for_each(|prompt| add(&prompt.tokens));
        anchors.iter().flat_map(|one| [&one.prompt, &one.completion]).for_each(|tokens| add(tokens));
        pairs.iter().flat_map(|one| [&one.prompt, &one.chosen, &one.rejected]).for_each(|tokens| add(tokens));
        for one in *judged {
            add(&one.prompt);
            add(&one.completion);
            add(&[u32::from(one.label)]);
        }
        hex::encode(&hash.finalize()[..16])
    }

    fn save(&mut self) -> Result<(), PolicyError> {
        let mut others: BTreeMap<String, Tensor> = self
            .average
            .named()
            .into_iter()
            .map(|(name, tensor)| (format!("average.{name}"), tensor))
            .collect();
        if let Some(head) = &self.head {
            self.state.head_steps = head.steps();
            others.extend(head.tensors()?);
        }
        if !self.reference.is_empty() {
            let count = self.reference.len();
            others.insert("reference".into(), Tensor::from_slice(&self.reference, count, &Device::Cpu)?);
        }
        let state = serde_json::to_string(&(self.fingerprint(), &self.state)).unwrap_or_default();
        Ok(Checkpoint::save_with(&self.path(), (&self.adapter, &self.optimizer), (&state, &others))?)
    }

    /// Takes the steps that are left.
    pub(super) fn run(
        &mut self,
        reward: &mut Reward<'_>,
        observe: &mut dyn FnMut(&Step) -> bool,
    ) -> Result<(), PolicyError> {
        let mut saved = Instant::now();
        while self.state.done < self.settings.steps && self.state.health.stopped.is_none() {
            let step = self.step(reward)?;
            let going = observe(&step);
            if !going || saved.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                self.save()?;
                saved = Instant::now();
            }
            if !going {
                return Err(PolicyError::Stopped { step: self.state.done });
            }
        }
        self.measure_candidate()?;
        self.save()
    }

    fn step(&mut self, reward: &mut Reward<'_>) -> Result<Step, PolicyError> {
        let started = Instant::now();
        let mut metrics = match self.settings.algorithm {
            Algorithm::Dpo => self.learn_pairs()?,
            Algorithm::Kto => self.learn_judged()?,
            _ => self.learn_rollouts(reward)?,
        };
        let seconds = started.elapsed().as_secs_f64();
        self.state.done += 1;
        self.state.seconds += seconds;
        metrics.insert("num_tokens", self.state.tokens as f64);
        metrics.insert("step_time", seconds);
        self.state.last = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        for (name, value) in &metrics {
            let (sum, count) = self.state.sums.entry((*name).to_owned()).or_default();
            (*sum, *count) = (*sum + value, *count + 1);
        }
        self.state.health.observe(self.state.done, &metrics, &self.settings.kl);
        Ok(Step { done: self.state.done, total: self.settings.steps, metrics })
    }

    /// Adds the demonstrations' gradients and moves adapter and average.
    pub(super) fn update(&mut self, mut gradients: Gradients) -> Result<Update, PolicyError> {
        let step = self.state.done;
        let anchor = self.anchor(&mut gradients)?;
        let gradient_norm = gradients.clip(self.settings.gradient_clip)?;
        if !gradient_norm.is_finite() {
            return Err(PolicyError::Diverged { step });
        }
        let learning_rate = self.schedule.at(step);
        self.optimizer.step(&self.adapter.variables(), gradients.as_slice(), learning_rate)?;
        self.state.updates += 1;
        follow(&self.average, &self.adapter, decay(self.settings.ema, self.state.updates))?;
        Ok(Update { gradient_norm, anchor, learning_rate })
    }

    /// Adds the gradients of the demonstrations' mean negative log-likelihood; gives it (nats a token).
    fn anchor(&mut self, gradients: &mut Gradients) -> Result<Option<f64>, PolicyError> {
        let Settings { nll_anchor, anchors_per_step, seed, pass_tokens, .. } = *self.settings;
        let anchors = self.material.anchors;
        if nll_anchor == 0.0 || anchors.is_empty() {
            return Ok(None);
        }
        let each = anchors_per_step.min(anchors.len());
        let chosen = places(anchors.len(), (self.state.done, each), (seed, Purpose::Anchors));
        let texts: Vec<Text<'_>> = chosen.iter().map(|&i| anchors[i].text()).collect();
        let tokens = texts.iter().map(|text| text.completion.len()).sum::<usize>().max(1) as f64;
        let mut total = 0.0;
        for packed in pack(&texts, pass_tokens) {
            self.state.tokens += packed.batch.rows_len() as u64;
            let read = (self.material.reference, &packed.batch);
            gradients.add(read, (&self.adapter, Pass::default()), |scores| {
                let values = scores.log_probabilities.to_vec1::<f32>()?;
                let found = loss::weighted(&values, &vec![nll_anchor / tokens; values.len()]);
                total += found.value / nll_anchor;
                Ok(found.through(&scores.log_probabilities)?)
            })?;
        }
        Ok(Some(total))
    }

    /// Measures the KL of the candidate of an algorithm that draws no answers, once: a finished run that is taken over
    /// has it.
    fn measure_candidate(&mut self) -> Result<(), PolicyError> {
        let measured = self.settings.algorithm.draws_rollouts() || self.state.measured;
        if !measured && !self.material.prompts.is_empty() {
            let kl = self.candidate_kl()?;
            self.state.last.insert("kl".into(), kl);
            self.state.measured = true;
        }
        Ok(())
    }

    /// KL of the candidate to the reference at the temperature of drawing (nats an answer), from answers of its own.
    fn candidate_kl(&self) -> Result<f64, PolicyError> {
        let (settings, material) = (self.settings, self.material);
        let each = KL_ANSWERS.min(material.prompts.len());
        let chosen = places(material.prompts.len(), (0, each), (settings.seed, Purpose::Material));
        let mut random = stream(settings.seed, Purpose::Answers, 0);
        let policy = self.reference_drawn.merged(&self.average)?;
        let drawing = Drawing { completions: 1, ..Drawing::from(settings) };
        let asked = (material.prompts, chosen.as_slice());
        let answers = draw((&policy, material.ends), asked, drawing, &mut random)?;
        kl_to_reference(&self.reference_drawn, &self.average, (material.prompts, &answers))
    }

    pub(super) fn finish(self) -> Optimised {
        let State { done, tokens, seconds, sums, last, health, .. } = self.state;
        let means = sums.into_iter().map(|(name, (sum, count))| (name, sum / count.max(1) as f64));
        Optimised {
            adapter: self.average,
            steps: done,
            tokens,
            seconds,
            last,
            means: means.collect(),
            alarms: health.alarms,
            stopped_early: health.stopped,
        }
    }
}

fn check(material: &Material<'_>, algorithm: Algorithm) -> Result<(), PolicyError> {
    let (count, missing) = match algorithm {
        Algorithm::Dpo => (material.pairs.len(), "preference pairs"),
        Algorithm::Kto => (material.judged.len(), "judged answers"),
        _ => (material.prompts.len(), "prompts"),
    };
    if count == 0 { Err(PolicyError::NoMaterial { algorithm, missing }) } else { Ok(()) }
}
