//! Which generations in use have learnt from what a person said? From a click to the models, through the datasets that
//! they were trained on.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dataset::{judgements, snapshot};
use crate::domain::{ActiveRole, GenerationId};
use crate::error::{Error, chain};
use crate::registry::{About, Registry};

/// Datasets whose ids are kept in memory: those of the active policy and reward model, and of the ones before them.
const KEPT: usize = 8;

/// Ids of what a dataset was made from.
type Ids = Arc<HashSet<String>>;

/// Finds the generations that learnt from a signal.
#[derive(Debug)]
pub struct Lineage {
    registry: Registry,
    data_dir: PathBuf,
    known: Mutex<HashMap<String, Ids>>,
}

impl Lineage {
    /// Over the generations and datasets of a data directory.
    #[must_use]
    pub fn new(registry: Registry, data_dir: PathBuf) -> Self {
        Self { registry, data_dir, known: Mutex::default() }
    }

    /// The active policy and reward model, those of them that learnt from one of these ids (of an answer, a comparison
    /// or a demonstration).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn learnt_by(&self, ids: &[&str]) -> Result<Vec<GenerationId>, Error> {
        let mut found = Vec::new();
        for role in [ActiveRole::Policy, ActiveRole::Reward] {
            let Some(pointer) = self.registry.pointer(role).await? else { continue };
            let about = self.registry.get(&pointer.generation).await?.manifest.about;
            let mut learnt = false;
            for dataset in datasets(&about) {
                let known = self.ids(dataset).await;
                learnt |= ids.iter().any(|id| known.contains(*id));
            }
            if learnt {
                found.push(pointer.generation);
            }
        }
        Ok(found)
    }

    async fn ids(&self, dataset: String) -> Ids {
        if let Some(known) = self.known().get(&dataset) {
            return Arc::clone(known);
        }
        let (data_dir, name) = (self.data_dir.clone(), dataset.clone());
        let reading = tokio::task::spawn_blocking(move || read(&data_dir, &name)).await;
        let ids = Arc::new(reading.unwrap_or_default());
        let mut known = self.known();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(dataset, Arc::clone(&ids));
        ids
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ids>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes of what a generation learnt from: its dataset, and the judgements its reward model learnt from.
fn datasets(about: &About) -> Vec<String> {
    let judgements = about.training["reward"]["judgements"].as_str().map(str::to_owned);
    about.dataset.iter().map(|dataset| dataset.sha256.clone()).chain(judgements).collect()
}

/// What a dataset was made from; nothing of one whose file is gone.
fn read(data_dir: &std::path::Path, hash: &str) -> HashSet<String> {
    if let Ok(judgements) = judgements::load(data_dir, hash) {
        return judgements.rows().iter().flat_map(|row| row.ids.iter().cloned()).collect();
    }
    match snapshot::load(data_dir, hash) {
        Ok(snapshot) => snapshot.rows().iter().map(|row| row.id.clone()).collect(),
        Err(error) => {
            tracing::debug!(hash, error = %chain(&error), "what a generation learnt from can not be told");
            HashSet::new()
        }
    }
}
