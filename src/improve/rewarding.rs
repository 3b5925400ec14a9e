//! What do people like, as a model? Trained on their choices, published, and used at once if it is good enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::candidate::write_reports;
use super::judging::Rewarding;
use super::{ImproveError, Work, io, write_whole};
use crate::dataset::judgements::{self, Judgements};
use crate::domain::{ActiveRole, GenerationId, GenerationKind, Outcome, Stage, Verdict, now};
use crate::evaluation::gate::{self, RewardModelScores, Thresholds};
use crate::nn::Decoder;
use crate::registry::{About, BaseRef, DatasetRef, REWARD_HEAD};
use crate::reward::{
    self, Backbone, Compared, Drift, Extractor, Pair, Preferences, Report, RewardModel, Trained,
};

/// Newest held-out choices on which a new reward model is compared with the old one.
const NEWEST: usize = 200;

/// What came of training a reward model; by default, nothing.
#[derive(Default)]
pub(super) struct Learnt {
    /// What the policy can be optimised by; `None` while there is too little to learn from.
    pub(super) rewarding: Option<Arc<Rewarding>>,
    /// The reward generation that was published.
    pub(super) generation: Option<GenerationId>,
    /// Why it is held, or what else an operator should know.
    pub(super) reasons: Vec<String>,
    /// Whether it is held.
    pub(super) held: bool,
    /// Figures.
    pub(super) metrics: Map<String, Value>,
}

impl Work<'_> {
    /// Trains the reward model on all choices and thumbs, publishes it, and makes it the active one when it is at least
    /// as good as the one before; then, with the model that is to be optimised, the two that the policy is optimised and
    /// judged by.
    pub(super) async fn reward(&self, decoder: Option<Decoder>) -> Result<Learnt, ImproveError> {
        let optimises = decoder.is_some();
        let judgements = self.judgements().await?;
        let extractor = self.extractor(decoder).await?;
        let preferences = judgements.preferences();
        let trained = match self.train("all", (&preferences, &extractor), |_| ()).await? {
            Ok(trained) => trained,
            Err(collecting) => return Ok(Learnt::collecting(collecting)),
        };
        let scores = scores_of(&trained.report);
        let mut learnt = Learnt { metrics: figures(&trained.report), ..Learnt::default() };
        // The stage `policy` leaves the served reward model as it is.
        if self.run.stage != Stage::Policy {
            self.publish_reward(&mut learnt, *trained, (&judgements, &extractor)).await?;
        }
        if optimises {
            match self.sides(judgements, (extractor, scores)).await? {
                Ok(rewarding) => {
                    learnt.metrics.insert("halves".into(), json!(rewarding.halves));
                    learnt.rewarding = Some(Arc::new(rewarding));
                }
                Err(half) => learnt.reasons.push(format!(
                    "the policy was not optimised: half of the questions have the weight of {:.0} choices, {:.0} are \
                     needed, so that one half can judge what the other taught",
                    half.effective_pairs, half.needed
                )),
            }
        }
        Ok(learnt)
    }

    /// The judgements this run learns from: taken once, then kept.
    async fn judgements(&self) -> Result<Judgements, ImproveError> {
        let (name, data_dir) = (self.folder.join("judgements"), &self.workshop.config.data_dir);
        if let Ok(hash) = std::fs::read_to_string(&name) {
            return judgements::load(data_dir, hash.trim()).map_err(ImproveError::Dataset);
        }
        self.report.progress("judgements", 0, 1);
        let taken = judgements::take(self.workshop.ledger.as_ref(), &self.options()).await;
        let taken = taken.map_err(ImproveError::Dataset)?;
        taken.write(data_dir).map_err(ImproveError::Dataset)?;
        write_whole(&name, taken.hash().as_bytes())?;
        self.report.progress("judgements", 1, 1);
        Ok(taken)
    }

    /// What reads answers: the sentence model, and the base model.
    async fn extractor(&self, decoder: Option<Decoder>) -> Result<Extractor, ImproveError> {
        let (weights, codec) = (self.workshop.base.trained_weights().to_owned(), self.workshop.base.codec()?);
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => tokio::task::spawn_blocking(move || Decoder::open(&weights)).await??,
        };
        let backbone = Some(Arc::new(Backbone { decoder, codec }));
        Ok(Extractor { encoder: self.workshop.encoder.clone(), backbone })
    }

    /// Trains a reward model, or takes the one of this name that the run made before an interruption: what a rung costs,
    /// and so which one is chosen, differs from time to time. `Err` says how far the collecting is. All of a run share a
    /// folder, so that no answer is read twice.
    pub(super) async fn train(
        &self,
        name: &str,
        (preferences, extractor): (&Preferences, &Extractor),
        change: impl FnOnce(&mut reward::Settings),
    ) -> Result<Result<Box<Trained>, Collecting>, ImproveError> {
        let config = &self.workshop.config.reward;
        let mut settings = reward::Settings {
            budget_minutes: config.budget_minutes,
            enough: config.enough,
            person_share: config.person_share,
            seed: config.seed,
            ..reward::Settings::default()
        };
        change(&mut settings);
        let folder = self.folder.join("reward");
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let kept = Kept::new(&folder, name);
        if let Some(trained) = kept.load() {
            return Ok(Ok(trained));
        }
        let (preferences, extractor) = (preferences.clone(), extractor.clone());
        let report = self.report.clone();
        let training = tokio::task::spawn_blocking(move || {
            reward::train(&preferences, &extractor, (&settings, &folder), |step| {
                report.progress(step.phase, step.done, step.total);
                !report.cancelled()
            })
        });
        Ok(match training.await?? {
            reward::Outcome::Trained(trained) => {
                kept.save(&trained)?;
                Ok(trained)
            }
            reward::Outcome::Collecting { effective_pairs, needed } => {
                Err(Collecting { effective_pairs, needed })
            }
        })
    }

    async fn publish_reward(
        &self,
        learnt: &mut Learnt,
        trained: Trained,
        (judgements, extractor): (&Judgements, &Extractor),
    ) -> Result<(), ImproveError> {
        self.go_on()?;
        self.report.progress("publish reward", 0, 1);
        let registry = &self.workshop.registry;
        let active = registry.pointer(ActiveRole::Reward).await?.map(|pointer| pointer.generation);
        let accepted = self.accepted(active.as_ref(), (&trained, judgements, extractor)).await?;
        let Accepted { mut reasons, remarks, drift } = accepted;
        let access = judgements.summary().access.clone();
        if !access.is_public() && !self.workshop.config.registry.serve_restricted {
            reasons.push("it learnt from restricted pages, and everybody would be scored by it".into());
        }
        let label = serde_json::to_value(&access).unwrap_or_default();
        let Trained { model, mut report } = trained;
        report.drift = drift;
        if let Some(drift) = drift {
            learnt.metrics.insert("drift".into(), serde_json::to_value(drift).unwrap_or_default());
        }
        let draft = registry.draft().await?;
        model.with_label(label).save(&draft.path().join(REWARD_HEAD))?;
        let json = serde_json::to_string_pretty(&report).unwrap_or_default();
        write_reports(&draft, (&report.markdown(), &json))?;
        let about = About {
            kind: GenerationKind::Reward,
            parent: None,
            base: BaseRef::of(&self.workshop.base),
            created: now(),
            run: Some(self.run.id.to_string()),
            dataset: Some(dataset(judgements)),
            template: self.workshop.templates(),
            access,
            serving_format: self.workshop.base.serving_format,
            merged_tensors: 0,
            training: json!({ "stage": "reward", "settings": self.workshop.config.reward }),
            metrics: learnt.metrics.clone().into(),
            reasons: reasons.clone(),
            parity: Vec::new(),
        };
        let id = registry.publish(draft, about).await?.id;
        if reasons.is_empty() {
            registry.promote(&id, None).await?;
        }
        learnt.held = !reasons.is_empty();
        learnt.reasons = reasons.into_iter().chain(remarks).collect();
        learnt.generation = Some(id);
        self.report.progress("publish reward", 1, 1);
        Ok(())
    }

    /// Whether a new reward model may take the old one's place.
    async fn accepted(
        &self,
        active: Option<&GenerationId>,
        (trained, judgements, extractor): (&Trained, &Judgements, &Extractor),
    ) -> Result<Accepted, ImproveError> {
        let log_loss = trained.report.cross_validated.log_loss;
        let chance = std::f64::consts::LN_2;
        if log_loss.is_nan() || log_loss >= chance {
            let reason = format!(
                "its cross-validated log-loss is {log_loss:.3} nats, a coin's is {chance:.3}: it predicts choices no \
                 better than chance"
            );
            return Ok(Accepted { reasons: vec![reason], ..Accepted::default() });
        }
        let Some(active) = active else { return Ok(Accepted::default()) };
        let head = self.workshop.registry.folder(active)?.join(REWARD_HEAD);
        let (new, extractor) = (trained.model.clone(), extractor.clone());
        let preferences = judgements.preferences();
        let comparing = tokio::task::spawn_blocking(move || {
            let old = RewardModel::load(&head)?;
            let mut newest: Vec<&Pair> = preferences.pairs.iter().filter(|pair| pair.held_out).collect();
            newest.sort_by_key(|pair| std::cmp::Reverse(pair.created));
            newest.truncate(NEWEST);
            reward::compared((&old, &new), &extractor, &newest)
        });
        // An old one that can not be used any more, of another sentence model say, has nothing to defend.
        let Compared { old, new, drift } = match comparing.await? {
            Ok(compared) => compared,
            Err(error) => {
                let remark = format!("it was not compared with {active}: {}", crate::error::chain(&error));
                return Ok(Accepted { remarks: vec![remark], ..Accepted::default() });
            }
        };
        let words = format!(
            "on the newest {} held-out choices it is right in {:.1}, {active} in {:.1}",
            new.pairs, new.right, old.right
        );
        let mut accepted = Accepted { drift: Some(drift), ..Accepted::default() };
        let said = if new.right >= old.right { &mut accepted.remarks } else { &mut accepted.reasons };
        said.push(words);
        Ok(accepted)
    }
}

/// Whether a reward model may take the place of the one before.
#[derive(Default)]
struct Accepted {
    /// Why not; it may when there are none.
    reasons: Vec<String>,
    /// What else an operator should know.
    remarks: Vec<String>,
    /// How its scores differ from the one before's; `None` when they were not compared.
    drift: Option<Drift>,
}

/// How far the collecting is.
pub(super) struct Collecting {
    pub(super) effective_pairs: f64,
    pub(super) needed: f64,
}

impl Learnt {
    /// What came of a run that only learns this.
    pub(super) fn outcome(self) -> Outcome {
        let state = if self.held { Verdict::Held } else { Verdict::Succeeded };
        Outcome { generation: self.generation, state, reasons: self.reasons, metrics: self.metrics }
    }

    /// Leaves out the optimisation by reward models that the gate refuses: most of a cycle's time would go into what is
    /// held. What the ideal answers teach can be served meanwhile.
    pub(super) fn refuse(&mut self, thresholds: &Thresholds) {
        let Some(rewarding) = &self.rewarding else { return };
        let refusals = gate::refusals(rewarding.scores, thresholds);
        if !refusals.is_empty() {
            self.rewarding = None;
            self.reasons.push(format!(
                "the policy was not optimised, since it would be held for its reward models whatever became of it: {} They \
                 mostly become better with more choices; stage `policy` optimises all the same",
                refusals.join(" ")
            ));
        }
    }

    /// With one reason more.
    pub(super) fn because(mut self, reason: &str) -> Self {
        self.reasons.push(reason.to_owned());
        self
    }

    fn collecting(Collecting { effective_pairs, needed }: Collecting) -> Self {
        let words = format!(
            "collecting ({effective_pairs:.0} of {needed:.0}): a reward model needs more choices between answers"
        );
        let metrics = json!({ "effective_pairs": effective_pairs, "needed": needed });
        Self {
            reasons: vec![words],
            metrics: metrics.as_object().cloned().unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// How good a reward model is on pairs it did not see: by cross-validation, which has the more pairs.
fn scores_of(report: &Report) -> RewardModelScores {
    let measures = &report.cross_validated;
    let longer = measures.baselines.iter().find(|group| group.name == reward::LONGER_WINS);
    RewardModelScores {
        pairs: measures.accuracy.pairs,
        right: measures.accuracy.right.floor() as u64,
        longer_chosen: longer.map_or(0, |group| group.accuracy.right.floor() as u64),
        calibration_error: measures.calibration.error,
        halves: None,
    }
}

/// Where a run keeps a reward model that it trained.
struct Kept {
    head: PathBuf,
    /// Written last: with it, both are whole.
    report: PathBuf,
}

impl Kept {
    fn new(folder: &Path, name: &str) -> Self {
        Self { head: folder.join(format!("{name}.safetensors")), report: folder.join(format!("{name}.json")) }
    }

    /// What an earlier start of the run trained; one that this version can not read, after an upgrade, is made again.
    fn load(&self) -> Option<Box<Trained>> {
        let report = serde_json::from_slice(&std::fs::read(&self.report).ok()?).ok()?;
        let model = RewardModel::load(&self.head).ok()?;
        Some(Box::new(Trained { model, report }))
    }

    fn save(&self, trained: &Trained) -> Result<(), ImproveError> {
        trained.model.save(&self.head)?;
        write_whole(&self.report, &serde_json::to_vec(&trained.report).unwrap_or_default())
    }
}

/// Figures for the run and the manifest.
fn figures(report: &Report) -> Map<String, Value> {
    let measures = report.held_out.as_ref().unwrap_or(&report.cross_validated);
    let figures = json!({
        "rung": report.rung,
        "accuracy": measures.accuracy.share(),
        "accuracy_interval": measures.accuracy.interval,
        "log_loss": measures.log_loss,
        "calibration_error": measures.calibration.error,
        "cross_validated_accuracy": report.cross_validated.accuracy.share(),
        "cross_validated_log_loss": report.cross_validated.log_loss,
        "pairs": report.counts.pairs,
        "thumbs": report.counts.thumbs,
        "held_out": report.counts.held_out,
        "people": report.counts.people,
        "effective_pairs": report.counts.effective_pairs,
    });
    figures.as_object().cloned().unwrap_or_default()
}

fn dataset(judgements: &Judgements) -> DatasetRef {
    let summary = judgements.summary();
    let count = |name: &str, n: usize| (name.to_owned(), n as u64);
    let mut counts: std::collections::BTreeMap<String, u64> =
        [count("pairs", summary.pairs), count("thumbs", summary.thumbs), count("held_out", summary.held_out)]
            .into();
    counts
        .extend(summary.by_source.iter().map(|(source, rows)| count(&super::candidate::name(source), *rows)));
    DatasetRef { sha256: judgements.hash().to_owned(), counts }
}
