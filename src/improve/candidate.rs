//! How does a trained adapter become a generation: merged into weights, and published?

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::examination::Examined;
use super::material::Material;
use super::optimisation::Made;
use super::rewarding::Learnt;
use super::{ImproveError, Work, io};
use crate::domain::{GenerationKind, Stage, now};
use crate::evaluation::gate::Method;
use crate::models::Weights;
use crate::nn::{Decoder, Merged, merge_folder, merge_gguf};
use crate::registry::{
    ADAPTER, About, BaseRef, DatasetRef, Draft, Manifest, POLICY_FILE, POLICY_FOLDER, REPORT_JSON,
    REPORT_MARKDOWN,
};
use crate::sft::{self, Trained};

/// Of a training, the settings of the fine-tuning.
const SETTINGS: &str = "settings";
/// Of a training, the settings of the optimisation: where there was one.
const POLICY: &str = "policy";
/// Why no policy is made: there is nothing new to learn.
const SAME: &str = "no policy was made: the served one has learnt from the same ideal answers";
/// Why no policy is made: the gate would hold it.
const WOULD_LOSE: &str = "no policy was made: the served one was optimised by what people like, and one that is only \
                          fine-tuned would lose that (`attune run sft` makes one all the same)";

/// A generation that is not published yet.
pub(super) struct Candidate {
    draft: Draft,
    merged: Merged,
    /// The weights as they will be served.
    pub(super) decoder: Decoder,
    /// Adapters and figures of the training.
    pub(super) made: Made,
}

impl Work<'_> {
    /// Adds the adapter to the weights, in the format they are served in, and reads the result back: what is examined
    /// is what will be served.
    pub(super) async fn merge(&self, made: Made) -> Result<Arc<Candidate>, ImproveError> {
        self.report.progress("merge", 0, 1);
        let draft = self.workshop.registry.draft().await?;
        made.adapter.save(&draft.path().join(ADAPTER))?;
        let source = self.workshop.base.trained_weights().to_owned();
        let is_folder = matches!(self.workshop.base.weights, Weights::Safetensors(_));
        let format = self.workshop.base.serving_format;
        let target = draft.path().join(if is_folder { POLICY_FOLDER } else { POLICY_FILE });
        let adapter = made.adapter.clone();
        let (merged, decoder) = tokio::task::spawn_blocking(move || {
            let merged = if is_folder {
                merge_folder((&source, &target), &adapter)?
            } else {
                merge_gguf((&source, &target), &adapter, crate::models::conversion(format))?
            };
            Ok::<_, ImproveError>((merged, Decoder::open(&target)?))
        })
        .await??;
        self.report.progress("merge", 1, 1);
        Ok(Arc::new(Candidate { draft, merged, decoder, made }))
    }

    /// Writes reports and manifest, and makes the generation known: as a candidate, or held with the gate's reasons.
    pub(super) async fn publish(
        &self,
        material: &Material,
        candidate: Arc<Candidate>,
        (examined, learnt): (&Examined, &Learnt),
    ) -> Result<Manifest, ImproveError> {
        self.go_on()?;
        self.report.progress("publish", 0, 1);
        let candidate = Arc::into_inner(candidate).ok_or(ImproveError::Shared)?;
        let Candidate { draft, merged, made, .. } = candidate;
        write_reports(&draft, (&examined.markdown(), &examined.json()))?;
        let mut training = serde_json::json!({ "stage": self.run.stage, SETTINGS: self.settings });
        if made.optimised.is_some() {
            training[POLICY] = serde_json::to_value(&self.policy).unwrap_or_default();
        }
        if self.run.stage != Stage::Sft {
            training["reward"] = serde_json::json!({
                "generation": learnt.generation,
                "judgements": learnt.rewarding.as_ref().map(|rewarding| rewarding.judgements.hash()),
            });
        }
        let about = About {
            kind: GenerationKind::Policy,
            parent: Some(self.workshop.base_manifest().id),
            base: BaseRef::of(&self.workshop.base),
            created: now(),
            run: Some(self.run.id.to_string()),
            dataset: Some(dataset(material, learnt)),
            template: self.workshop.templates(),
            access: material.access(learnt.rewarding.as_deref()),
            serving_format: self.workshop.base.serving_format,
            merged_tensors: merged.changed,
            training,
            metrics: examined.metrics().into(),
            reasons: self.held(examined),
            parity: examined.parity.clone(),
        };
        let manifest = self.workshop.registry.publish(draft, about).await?;
        self.report.progress("publish", 1, 1);
        Ok(manifest)
    }

    /// Why a run that has nothing to optimise by makes no policy at all.
    pub(super) async fn nothing_new(
        &self,
        material: &Material,
    ) -> Result<Option<&'static str>, ImproveError> {
        let Some(rival) = self.served().await? else { return Ok(None) };
        Ok(match self.weights(&rival).await? {
            Some((_, served)) if method_of(&served) == Method::Optimised => Some(WOULD_LOSE),
            Some((_, served)) => self.makes_again(&served, material).then_some(SAME),
            None => None,
        })
    }

    /// Whether the fine-tuning of this run is the one that made a generation.
    fn makes_again(&self, made: &About, material: &Material) -> bool {
        let settings =
            made.training.get(SETTINGS).and_then(|settings| sft::Settings::deserialize(settings).ok());
        let same_data = made.dataset.as_ref().is_some_and(|data| data.sha256 == material.snapshot.hash());
        // One that began from another adapter is never the same. How it is read is no part of what is learnt.
        let same_settings =
            !self.warm_start && settings == Some(sft::Settings { recompute: false, ..self.settings.clone() });
        let base = &self.workshop.base;
        same_data
            && same_settings
            && (&made.base, &made.template) == (&BaseRef::of(base), &self.workshop.templates())
            && made.serving_format == base.serving_format
    }

    /// Why the candidate is held; the stage `sft` publishes a candidate whatever its scores.
    pub(super) fn held(&self, examined: &Examined) -> Vec<String> {
        if self.run.stage == Stage::Sft { Vec::new() } else { examined.verdict.judgement.reasons() }
    }
}

/// Writes a report for people and one for programs into a generation.
pub(super) fn write_reports(draft: &Draft, (markdown, json): (&str, &str)) -> Result<(), ImproveError> {
    for (name, text) in [(REPORT_MARKDOWN, markdown), (REPORT_JSON, json)] {
        let path = draft.path().join(name);
        std::fs::write(&path, text).map_err(io(&path))?;
    }
    Ok(())
}

fn dataset(material: &Material, learnt: &Learnt) -> DatasetRef {
    let summary = material.snapshot.summary();
    let mut counts = BTreeMap::new();
    for (split, rows) in &summary.by_split {
        counts.insert(name(split), *rows as u64);
    }
    for (source, rows) in &summary.by_source {
        counts.insert(name(source), *rows as u64);
    }
    if let Some(rewarding) = &learnt.rewarding {
        let judged = rewarding.judgements.summary();
        counts.insert("preference_pairs".into(), judged.pairs as u64);
        counts.insert("thumbs".into(), judged.thumbs as u64);
        counts.insert("questions_asked".into(), (material.practice.len() - material.train.len()) as u64);
    }
    DatasetRef { sha256: material.snapshot.hash().to_owned(), counts }
}

/// How a generation was made.
pub(super) fn method_of(about: &About) -> Method {
    if about.training.get(POLICY).is_some() { Method::Optimised } else { Method::FineTuned }
}

/// The word that a value is written as in JSON.
pub(super) fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

/// Figures of the training, for manifest and run.
pub(super) fn training_metrics(trained: &Trained) -> serde_json::Value {
    serde_json::json!({
        "steps": trained.steps,
        "tokens": trained.tokens,
        "seconds": trained.seconds,
        "tokens_per_second": trained.tokens as f64 / trained.seconds.max(1e-9),
        "left_out": trained.left_out,
        "stopped_early": trained.stopped_early,
        "validation_loss": { "before": trained.validation_before, "after": trained.validation_best },
    })
}
