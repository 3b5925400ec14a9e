//! How does a run go from step to step, back when it went too far, and on after a crash? The adapter, its average, the
//! optimizer and everything that changes are in one checkpoint, replaced whole; it names the file of the place that the
//! policy would be taken back to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::health::Health;
use super::order::{Purpose, places, stream};
use super::place::Place;
use super::rollouts::{Drawing, draw};
use super::value::ValueHead;
use super::{Algorithm, Control, Material, Measured, Optimised, PolicyError, Reward, Settings, Step, loss};
use crate::evaluation::statistics::mean_or_zero;
use crate::nn::{Decoder, Gradients, NnError, Pass, Schedule, Text, pack};

/// Seconds between checkpoints: what a crash can cost.
const CHECKPOINT_SECONDS: f64 = 30.0;
/// Answers by which the KL of a candidate is estimated: as many as a step of the default size draws.
const KL_ANSWERS: usize = 32;
/// Times that a policy which left the reference too far is taken back: then it learns at an eighth of its rate, and what
/// breaks out even so does not come from the rate.
const RETURNS: u32 = 3;

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub(super) done: u64,
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
    /// Of the candidate, at the end.
    #[serde(default)]
    candidate: Option<Measured>,
    /// Whether nothing is left to do.
    #[serde(default)]
    finished: bool,
    /// Steps after which the policy was where it would be taken back to.
    #[serde(default)]
    near: u64,
    /// Times that it was taken back.
    #[serde(default)]
    returns: u32,
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
    pub(super) at: Place,
    /// Where it was last within the target of KL.
    near: Place,
    /// Of which number of steps the file of that is known to be there.
    near_saved: u64,
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
        let first = || Place::first(decoder, settings.adapter, settings.seed);
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
            at: first()?,
            near: first()?,
            near_saved: 0,
            head,
            reference: Vec::new(),
            state: State { beta: settings.kl.beta, ..State::default() },
        };
        if !training.go_on()? && !settings.algorithm.draws_rollouts() {
            training.reference = training.score_reference()?;
        }
        Ok(training)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("checkpoint.safetensors")
    }

    /// Of the place that the policy would be taken back to.
    fn near_path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("near-{step}.safetensors"))
    }

    /// Takes up what an interrupted run left, if there is any.
    fn go_on(&mut self) -> Result<bool, PolicyError> {
        let path = self.path();
        let (place, rest) = self.at.copied()?.load(&path)?;
        let Some((state, others)) = rest else { return Ok(false) };
        let problem = |problem: String| NnError::Checkpoint { path: path.display().to_string(), problem };
        let (fingerprint, state): (String, State) =
            serde_json::from_str(&state).map_err(|error| problem(error.to_string()))?;
        if fingerprint != self.fingerprint() {
            return Err(problem("it is of other material or settings".into()).into());
        }
        if let Some(head) = &mut self.head {
            head.restore(&others, state.head_steps)?;
        }
        if let Some(reference) = others.get("reference") {
            self.reference = reference.to_vec1()?;
        }
        (self.at, self.state) = (place, state);
        self.load_near()?;
        tracing::info!(step = self.state.done, "going on from a checkpoint");
        Ok(true)
    }

    /// At no steps it is the first place, which has no file.
    fn load_near(&mut self) -> Result<(), PolicyError> {
        let steps = self.state.near;
        if steps == 0 || self.state.finished {
            return Ok(());
        }
        let path = self.near_path(steps);
        let (near, rest) = self.near.copied()?.load(&path)?;
        if rest.is_none_or(|(fingerprint, _)| fingerprint != self.fingerprint()) {
            let problem = "it is not there, or of other material or settings".into();
            return Err(NnError::Checkpoint { path: path.display().to_string(), problem }.into());
        }
        (self.near, self.near_saved) = (near, steps);
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

    /// The place to go back to has a file of its own, named by its steps: it is whole before the checkpoint names it.
    fn save(&mut self) -> Result<(), PolicyError> {
        let (steps, near) = (self.state.near, self.near_path(self.state.near));
        if steps != self.near_saved && !self.state.finished {
            self.near.save(&near, (self.fingerprint(), BTreeMap::new()))?;
            self.near_saved = steps;
        }
        let mut others = BTreeMap::new();
        if let Some(head) = &self.head {
            self.state.head_steps = head.steps();
            others.extend(head.tensors()?);
        }
        if !self.reference.is_empty() {
            let count = self.reference.len();
            others.insert("reference".into(), Tensor::from_slice(&self.reference, count, &Device::Cpu)?);
        }
        let state = serde_json::to_string(&(self.fingerprint(), &self.state)).unwrap_or_default();
        self.at.save(&self.path(), (state, others))?;
        self.forget_others((!self.state.finished).then_some(&near));
        Ok(())
    }

    /// Removes the files of places that no checkpoint names any more.
    fn forget_others(&self, near: Option<&PathBuf>) {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| Some(path) != near) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("near-")
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old place of the policy stays on the disk");
            }
        }
    }

    /// Takes the steps that are left.
    pub(super) fn run(
        &mut self,
        reward: &mut Reward<'_>,
        observe: &mut dyn FnMut(&Step) -> bool,
    ) -> Result<(), PolicyError> {
        let mut saved = Instant::now();
        while self.state.done < self.settings.steps && self.state.health.stopped.is_none() {
            // DPO's steps have no KL, so that it never goes back.
            let may_return = self.settings.algorithm != Algorithm::Dpo;
            let place = may_return.then(|| self.at.copied()).transpose()?;
            let steps = self.state.done;
            let step = self.step(reward)?;
            if let Some((place, kl)) = place.zip(step.metrics.get("kl")) {
                self.keep_near((steps, place), *kl)?;
            }
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
        self.state.finished = true;
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
        self.state.health.observe(self.state.done, &metrics, self.settings.kl.target);
        Ok(Step { done: self.state.done, total: self.settings.steps, metrics })
    }

    /// Takes the policy back when it has left the reference by more than the cap, `kl` nats an answer: to where it was
    /// last within the target, and on from there at half the rate. `before` is the place of which this is the KL, and the
    /// steps that had led to it. The price of KL stays as high as it has become, and PPO's values stay those of the answers
    /// seen last.
    fn keep_near(&mut self, (steps, before): (u64, Place), kl: f64) -> Result<(), PolicyError> {
        let (price, step) = (self.settings.kl, self.state.done);
        if kl <= price.target {
            (self.state.near, self.near) = (steps, before);
        }
        if kl <= price.cap {
            return Ok(());
        }
        let when = format!("step {step}");
        if self.state.returns == RETURNS {
            let (broken, near) = (self.broken(&when, kl), self.state.near);
            let why = format!("{broken} after {RETURNS} returns; the policy is that of {near} steps again");
            self.state.health.stopped.get_or_insert(why);
        }
        let goes_on = self.state.health.stopped.is_none() && step < self.settings.steps;
        self.go_back((&when, kl), goes_on)
    }

    /// Takes the policy back to where it was last within the target, and tells when and why. If it goes on, then at half
    /// the rate.
    fn go_back(&mut self, (when, kl): (&str, f64), goes_on: bool) -> Result<(), PolicyError> {
        self.at = self.near.copied()?;
        self.state.returns += u32::from(goes_on);
        let near = self.state.near;
        let what = if goes_on {
            format!("on at half the rate from the policy of {near} steps")
        } else {
            format!("the policy is that of {near} steps again")
        };
        let alarm = format!("{}: {what}", self.broken(when, kl));
        self.state.health.alarm(&format!("return at {when}"), alarm);
        Ok(())
    }

    fn broken(&self, when: &str, kl: f64) -> String {
        format!("kl of {kl:.2} nats an answer at {when} is above the cap of {}", self.settings.kl.cap)
    }

    /// Adds the demonstrations' gradients and moves adapter and average.
    pub(super) fn update(&mut self, mut gradients: Gradients) -> Result<Update, PolicyError> {
        let step = self.state.done;
        let anchor = self.anchor(&mut gradients)?;
        let gradient_norm = gradients.clip(self.settings.gradient_clip)?;
        if !gradient_norm.is_finite() {
            return Err(PolicyError::Diverged { step });
        }
        let learning_rate = self.schedule.at(step) * 0.5f32.powi(self.state.returns.cast_signed());
        self.at.step(&gradients, (learning_rate, self.settings.ema))?;
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
            gradients.add(read, (&self.at.adapter, Pass::default()), |scores| {
                let values = scores.log_probabilities.to_vec1::<f32>()?;
                let found = loss::weighted(&values, &vec![nll_anchor / tokens; values.len()]);
                total += found.value / nll_anchor;
                Ok(found.through(&scores.log_probabilities)?)
            })?;
        }
        Ok(Some(total))
    }

    /// Measures the candidate, once: a finished run that is taken over has it. Nobody asks for the control's. When the last
    /// steps took it past the cap, which no further step would see, it is that of the place within the target.
    fn measure_candidate(&mut self) -> Result<(), PolicyError> {
        let asked = self.settings.control == Control::Reward && !self.material.prompts.is_empty();
        if !asked || self.state.candidate.is_some() {
            return Ok(());
        }
        let mut measured = self.measured()?;
        if measured.kl > self.settings.kl.cap && self.settings.algorithm.draws_rollouts() {
            self.go_back(("the end", measured.kl), false)?;
            measured = self.measured()?;
        }
        self.state.candidate = Some(measured);
        Ok(())
    }

    /// The candidate, from answers of its own.
    fn measured(&self) -> Result<Measured, PolicyError> {
        let (settings, material) = (self.settings, self.material);
        let each = KL_ANSWERS.min(material.prompts.len());
        let chosen = places(material.prompts.len(), (0, each), (settings.seed, Purpose::Material));
        let mut random = stream(settings.seed, Purpose::Answers, 0);
        let policy = self.reference_drawn.merged(&self.at.average)?;
        let drawing = Drawing { completions: 1, ..Drawing::from(settings) };
        let asked = (material.prompts, chosen.as_slice());
        let answers = draw((&policy, material.ends), asked, drawing, &mut random)?;
        let (_, kl) = self.under_reference(&answers)?;
        let tokens: Vec<f64> =
            answers.iter().flat_map(|one| &one.log_probabilities).map(|nats| -f64::from(*nats)).collect();
        Ok(Measured { kl: mean_or_zero(&kl), entropy: mean_or_zero(&tokens) })
    }

    pub(super) fn finish(self) -> Optimised {
        let State { done, tokens, seconds, sums, last, candidate, health, .. } = self.state;
        let means = sums.into_iter().map(|(name, (sum, count))| (name, sum / count.max(1) as f64));
        Optimised {
            adapter: self.at.average,
            measured: candidate,
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
