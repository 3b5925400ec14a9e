//! What is a generation, and what was it made from? The manifest that lies beside its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::WeightFormat;
use crate::domain::{AccessLabel, GenerationId, GenerationKind, Millis};
use crate::models::BaseModel;

/// The version of the manifest this program writes: since 2 the id says why a generation is held, too.
pub(super) const FORMAT: u32 = 2;
/// The manifest's own name.
pub const MANIFEST: &str = "manifest.json";
/// What training changed, before it was merged.
pub const ADAPTER: &str = "adapter.safetensors";
/// Merged weights in the serving format, for a base model in GGUF.
pub const POLICY_FILE: &str = "policy.gguf";
/// Folder of merged weights with their settings, for a base model in safetensors.
pub const POLICY_FOLDER: &str = "policy";
/// What a reward model is.
pub const REWARD_HEAD: &str = "head.safetensors";
/// The evaluation for programs.
pub const REPORT_JSON: &str = "report.json";
/// The evaluation for people.
pub const REPORT_MARKDOWN: &str = "report.md";

/// Which base model a generation stems from. Digests are SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BaseRef {
    /// Its name in the catalogue, or of its file.
    pub name: String,
    /// Digest of the model as it was published.
    pub source_sha256: String,
    /// Digest of what is served of it.
    pub serving_sha256: String,
}

impl BaseRef {
    /// The reference to a base model.
    #[must_use]
    pub fn of(base: &BaseModel) -> Self {
        Self {
            name: base.name.clone(),
            source_sha256: hex::encode(base.source_sha256),
            serving_sha256: hex::encode(base.serving_sha256),
        }
    }
}

/// What it was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DatasetRef {
    /// Content hash of the snapshot.
    pub sha256: String,
    /// Rows by split or kind.
    pub counts: BTreeMap<String, u64>,
}

/// How prompts looked in training; serving must do the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TemplateRef {
    /// Hash of instructions, layout and budget.
    pub prompt: String,
    /// Hash of the model's chat template.
    pub chat: String,
}

/// Probabilities the trainer gave to tokens, to be compared with those of the served model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ParitySample {
    /// The rendered prompt, tokenised.
    pub prompt: Vec<u32>,
    /// Tokens after it.
    pub completion: Vec<u32>,
    /// Natural logarithm of the probability of each of them (nats).
    pub logprobs: Vec<f32>,
}

/// A file of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FileEntry {
    /// Digest, hex.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
}

/// What whoever makes a generation knows of it; the registry adds its files and thereby its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// What it is.
    pub kind: GenerationKind,
    /// What it was made from.
    pub parent: Option<GenerationId>,
    /// Which base model it stems from.
    pub base: BaseRef,
    /// When it was made.
    pub created: Millis,
    /// The run that made it.
    #[serde(default)]
    pub run: Option<String>,
    /// What it was trained on.
    #[serde(default)]
    pub dataset: Option<DatasetRef>,
    /// How prompts looked in training.
    pub template: TemplateRef,
    /// Who may be served by it: what it was trained on was visible to them.
    #[serde(default)]
    pub access: AccessLabel,
    /// The format its weights are in.
    pub serving_format: WeightFormat,
    /// How many tensors training changed.
    #[serde(default)]
    pub merged_tensors: usize,
    /// The settings of the training.
    #[serde(default)]
    pub training: serde_json::Value,
    /// How it did.
    #[serde(default)]
    pub metrics: serde_json::Value,
    /// Why it is to be held; empty for a candidate.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Probabilities to compare before it is served.
    #[serde(default)]
    pub parity: Vec<ParitySample>,
}

/// What a generation is, with the digest of each of its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// The content hash.
    pub id: GenerationId,
    /// What was known when it was made.
    #[serde(flatten)]
    pub about: About,
    /// Digest and size by name; `/` separates folders.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    /// The manifest of a generation with these files.
    #[must_use]
    pub fn new(about: About, files: BTreeMap<String, FileEntry>) -> Self {
        let id = content_id(FORMAT, &about, &files);
        Self { format: FORMAT, id, about, files }
    }

    /// The manifest of a base model, which has no files here, under the id it is served by.
    #[must_use]
    pub fn of_base(id: GenerationId, base: BaseRef, template: TemplateRef, format: WeightFormat) -> Self {
        let about = About {
            kind: GenerationKind::Base,
            parent: None,
            base,
            created: crate::domain::now(),
            run: None,
            dataset: None,
            template,
            access: AccessLabel::default(),
            serving_format: format,
            merged_tensors: 0,
            training: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
            reasons: Vec::new(),
            parity: Vec::new(),
        };
        Self { format: FORMAT, id, about, files: BTreeMap::new() }
    }

    /// Whether the id is the content hash of what the manifest lists.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.about.kind == GenerationKind::Base
            || self.id == content_id(self.format, &self.about, &self.files)
    }

    /// Digest of the weights that are served: of the one file, or over the names and digests of the folder's files.
    /// `None` when there are none.
    #[must_use]
    pub fn weights_sha256(&self) -> Option<String> {
        if let Some(file) = self.files.get(POLICY_FILE) {
            return Some(file.sha256.clone());
        }
        let mut hash = Sha256::new();
        let mut any = false;
        for (name, file) in &self.files {
            if let Some(name) = name.strip_prefix(POLICY_FOLDER).and_then(|name| name.strip_prefix('/')) {
                any = true;
                hash.update(name.as_bytes());
                hash.update([0]);
                hash.update(hex::decode(&file.sha256).unwrap_or_default());
            }
        }
        any.then(|| hex::encode(hash.finalize()))
    }
}

/// The hash over what a generation is: its files (reports are none of it), kind, parent, base, dataset and templates, and
/// why it is held; not when or by which run it was made. The same weights may be examined again, with another gate say:
/// what is let through then is not the generation that was held.
fn content_id(format: u32, about: &About, files: &BTreeMap<String, FileEntry>) -> GenerationId {
    let mut hash = Sha256::new();
    hash.update(b"attune generation 1\0");
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(&about.kind.to_string());
    part(about.parent.as_ref().map_or("", GenerationId::as_str));
    part(&about.base.source_sha256);
    part(about.dataset.as_ref().map_or("", |dataset| &dataset.sha256));
    part(&about.template.prompt);
    part(&about.template.chat);
    for (name, file) in files.iter().filter(|(name, _)| is_content(name)) {
        part(name);
        part(&file.sha256);
    }
    if format > 1 {
        about.reasons.iter().for_each(|reason| part(reason));
    }
    GenerationId::from_digest(&hash.finalize().into())
}

/// Whether a file is part of what a generation is.
fn is_content(name: &str) -> bool {
    ![REPORT_JSON, REPORT_MARKDOWN].contains(&name)
}
