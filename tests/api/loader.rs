//! Generations for tests: published with a few bytes, loaded as scripts that say what their weights' file says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use attune::config::WeightFormat;
use attune::domain::{GenerationId, GenerationKind};
use attune::generation::{Generator, ScriptedGenerator};
use attune::registry::{About, BaseRef, Manifest, POLICY_FILE, REPORT_MARKDOWN, Registry, TemplateRef};
use attune::swap::{Loader, SwapError};

/// The base generation's id; it says this word.
pub(crate) const BASE: &str = "gen-00000000000000ba";
pub(crate) const BASE_SAYS: &str = "base [1].";

/// Loads scripts.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    /// They wait this long before each word.
    pub(crate) pause: Duration,
    /// What a generation says, by its id, instead of its weights.
    pub(crate) says: Option<fn(&str) -> String>,
}

/// The base generation.
pub(crate) fn base() -> Manifest {
    let base = BaseRef { name: "tiny".into(), source_sha256: "aa".into(), serving_sha256: "bb".into() };
    let template = TemplateRef { prompt: "p".into(), chat: "c".into() };
    Manifest::of_base(GenerationId::from_wire(BASE), base, template, WeightFormat::F16)
}

#[async_trait]
impl Loader for Scripts {
    async fn base(&self) -> Result<Manifest, SwapError> {
        Ok(base())
    }

    async fn load(&self, registry: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError> {
        let words = match (self.says, manifest.about.kind) {
            (Some(says), _) => says(manifest.id.as_str()),
            (_, GenerationKind::Base) => BASE_SAYS.to_owned(),
            (..) => {
                std::fs::read_to_string(registry.folder(&manifest.id).unwrap().join(POLICY_FILE)).unwrap()
            }
        };
        let generator = ScriptedGenerator::new(manifest.id.as_str(), move |_, _| words.clone());
        Ok(Arc::new(generator.pausing(self.pause)))
    }
}

/// What a policy made from the base generation is like.
pub(crate) fn about() -> About {
    About {
        kind: GenerationKind::Policy,
        parent: Some(GenerationId::from_wire(BASE)),
        merged_tensors: 210,
        metrics: serde_json::json!({
            "f1": {"before": 0.36, "after": 0.451, "difference": 0.091, "interval": [0.04, 0.143]},
            "nll": {"before": 1.278, "after": 0.991, "difference": -0.287, "interval": [-0.35, -0.22]},
        }),
        training: serde_json::json!({"rank": 16, "alpha": 32, "rate": 5e-4}),
        ..base().about
    }
}

/// Publishes beside a running server, as a trainer in a process of its own does, and returns the id.
pub(crate) async fn publish(data_dir: &Path, says: &str, about: About) -> GenerationId {
    let ledger = attune::ledger::open(None, data_dir).await.unwrap();
    let registry = Registry::open(data_dir, Arc::clone(&ledger)).await.unwrap();
    let draft = registry.draft().await.unwrap();
    std::fs::write(draft.path().join(POLICY_FILE), says).unwrap();
    std::fs::write(draft.path().join(REPORT_MARKDOWN), "# Evaluation\n\nToken F1 went **up**.").unwrap();
    let id = registry.publish(draft, about).await.unwrap().id;
    ledger.close().await;
    id
}
