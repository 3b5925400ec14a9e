//! How well are passages found, how fast, and how much room do they take?
//!
//! `cargo bench --bench retrieval` prints every figure; `-- NAME…` only those of some data (`handbook-faq`, `scifact`,
//! `feedbackqa`, `18f`, `questions`); `-- tune` compares parameters on the train splits; `-- fit` fits the evidence.
//! The evaluation data is looked for in `ATTUNE_EVAL_DATA` (default `../shared/data`); what is not there is skipped by
//! name. Encoded corpora are kept in the target folder.

#![expect(clippy::print_stdout, reason = "a measuring program prints its figures")]

mod beir;
mod evidence;
mod handbook;
mod questions;

use std::path::PathBuf;
use std::sync::Arc;

use attune::config::{ModelsConfig, RetrievalConfig};
use attune::models::{for_this_process, prepare_sentence};
use attune::retrieval::{Library, SentenceEncoder};

/// Any failure ends the bench with its message.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What every part needs.
struct Setting {
    data: PathBuf,
    /// Indexes that are used again by the next run.
    kept: PathBuf,
    encoder: Option<Arc<SentenceEncoder>>,
}

impl Setting {
    fn new() -> Outcome<Self> {
        let data =
            std::env::var_os("ATTUNE_EVAL_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
        let models = ModelsConfig::default();
        let folder = prepare_sentence(&models, for_this_process().as_ref())?;
        let encoder = folder.map(|folder| SentenceEncoder::load(&folder).map(Arc::new)).transpose()?;
        Ok(Self { data, kept: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("retrieval"), encoder })
    }

    /// Opens the kept index of this name; with the encoder, so that its passages have vectors.
    fn library(&self, name: &str, config: &RetrievalConfig) -> Outcome<Library> {
        let kind = if self.encoder.is_some() { "hybrid" } else { "lexical" };
        Ok(Library::open(&self.kept.join(format!("{name}-{kind}")), config, self.encoder.clone())?)
    }
}

fn main() -> Outcome<()> {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    let setting = Setting::new()?;
    if wanted.iter().any(|argument| argument == "tune") {
        beir::tune(&setting)?;
        return questions::tune(&setting);
    }
    if wanted.iter().any(|argument| argument == "fit") {
        return evidence::fit(&setting);
    }
    for (name, folder) in [
        ("handbook-faq", "handbook-faq/18f"),
        ("scifact", "scifact"),
        ("feedbackqa", "feedbackqa/retrieval/WHO"),
        ("feedbackqa", "feedbackqa/retrieval/CDC"),
        ("feedbackqa", "feedbackqa/retrieval/Australia"),
    ] {
        if is_wanted(name) {
            beir::figures(&setting, folder)?;
        }
    }
    if is_wanted("18f") {
        handbook::figures(&setting)?;
    }
    if is_wanted("questions") {
        questions::figures(&setting)?;
    }
    Ok(())
}

/// The value below which a share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1)) as f64 * share;
    sorted.get(place.round() as usize).copied().unwrap_or(f64::NAN)
}
