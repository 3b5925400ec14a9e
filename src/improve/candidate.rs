//! How does a trained adapter become a generation: merged into weights, and published?

use std::collections::BTreeMap;
use std::sync::Arc;

use super::examination::Examined;
use super::material::Material;
use super::{ImproveError, Work, io};
use crate::domain::{GenerationKind, now};
use crate::models::Weights;
use crate::nn::{Decoder, Merged, merge_folder, merge_gguf};
use crate::registry::{
    ADAPTER, About, BaseRef, DatasetRef, Draft, Manifest, POLICY_FILE, POLICY_FOLDER, REPORT_JSON,
    REPORT_MARKDOWN,
};
use crate::sft::Trained;

/// A generation that is not published yet.
pub(super) struct Candidate {
    draft: Draft,
    merged: Merged,
    /// The weights as they will be served.
    pub(super) decoder: Arc<Decoder>,
    /// Adapter and figures of the training.
    pub(super) trained: Trained,
}

impl Work<'_> {
    /// Adds the adapter to the weights, in the format they are served in, and reads the result back: what is examined
    /// is what will be served.
    pub(super) async fn merge(&self, trained: Trained) -> Result<Candidate, ImproveError> {
        self.report.progress("merge", 0, 1);
        let draft = self.workshop.registry.draft().await?;
        trained.adapter.save(&draft.path().join(ADAPTER))?;
        let source = self.workshop.trained_weights().to_owned();
        let is_folder = matches!(self.workshop.base.weights, Weights::Safetensors(_));
        let format = self.workshop.base.serving_format;
        let target = draft.path().join(if is_folder { POLICY_FOLDER } else { POLICY_FILE });
        let adapter = trained.adapter.clone();
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
        Ok(Candidate { draft, merged, decoder: Arc::new(decoder), trained })
    }

    /// Writes reports and manifest, and makes the generation known as a candidate.
    pub(super) async fn publish(
        &self,
        material: &Material,
        candidate: Candidate,
        examined: &Examined,
    ) -> Result<Manifest, ImproveError> {
        self.report.progress("publish", 0, 1);
        let Candidate { draft, merged, trained, .. } = candidate;
        let write = |name: &str, text: String| {
            let path = draft.path().join(name);
            std::fs::write(&path, text).map_err(io(&path))
        };
        write(REPORT_MARKDOWN, examined.markdown())?;
        write(REPORT_JSON, examined.json())?;
        let mut metrics = examined.metrics();
        metrics.insert("training".into(), training_metrics(&trained));
        let about = About {
            kind: GenerationKind::Policy,
            parent: Some(self.workshop.base_manifest().id),
            base: BaseRef::of(&self.workshop.base),
            created: now(),
            run: Some(self.run.id.to_string()),
            dataset: Some(dataset(material)),
            template: self.workshop.templates(),
            access: material.snapshot.summary().access.clone(),
            serving_format: self.workshop.base.serving_format,
            merged_tensors: merged.changed,
            training: serde_json::json!({ "stage": "sft", "settings": self.settings }),
            metrics: metrics.into(),
            reasons: Vec::new(),
            parity: examined.parity.clone(),
        };
        let manifest = self.workshop.registry.publish(draft, about).await?;
        self.report.progress("publish", 1, 1);
        Ok(manifest)
    }
}

fn dataset(material: &Material) -> DatasetRef {
    let summary = material.snapshot.summary();
    let mut counts = BTreeMap::new();
    for (split, rows) in &summary.by_split {
        counts.insert(name(split), *rows as u64);
    }
    for (source, rows) in &summary.by_source {
        counts.insert(name(source), *rows as u64);
    }
    DatasetRef { sha256: material.snapshot.hash().to_owned(), counts }
}

/// The word that a value is written as in JSON.
fn name(value: &impl serde::Serialize) -> String {
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
