//! Which generations are there, are their files whole, and which one is active?
//!
//! A generation is a directory that never changes, named by the hash of its content. Rows and the active pointers are
//! in the ledger's database, so that every server and worker on it sees the same. Publishing, promoting and pruning
//! may be done by any process with the same database and data directory, also while a server runs.

mod directory;
mod error;
mod manifest;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use directory::Directory;
pub use directory::Draft;
pub use error::RegistryError;
pub use manifest::{
    ADAPTER, About, BaseRef, DatasetRef, FileEntry, MANIFEST, Manifest, POLICY_FILE, POLICY_FOLDER,
    ParitySample, REPORT_JSON, REPORT_MARKDOWN, REWARD_HEAD, TemplateRef,
};

use crate::domain::{ActiveRole, GenerationId, GenerationKind, GenerationState, Millis, now};
use crate::ledger::{Expected, GenerationFilter, GenerationRow, Ledger, Moved, Page, Paging, Pointer};
use crate::models::{BaseModel, Weights};

type Result<T> = std::result::Result<T, RegistryError>;

/// Most rows read at once when all are looked at.
const PAGE: usize = 500;

/// A generation with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// What it is.
    pub manifest: Manifest,
    /// What became of it.
    pub state: GenerationState,
    /// Why it is held.
    pub reasons: Vec<String>,
    /// When its files were deleted, if they were.
    pub pruned: Option<Millis>,
}

/// The generations of one data directory and database. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: Directory,
    ledger: Arc<dyn Ledger>,
}

impl Registry {
    /// Opens the generations in `data_dir`, and brings directories and rows in step if a process was killed between
    /// the two: a directory without a row gets one, drafts of processes that ended are deleted.
    ///
    /// # Errors
    /// When the folder can not be read or written, or the database fails.
    pub async fn open(data_dir: &Path, ledger: Arc<dyn Ledger>) -> Result<Self> {
        let data_dir = data_dir.to_owned();
        let directory = tokio::task::spawn_blocking(move || Directory::open(&data_dir)).await??;
        let registry = Self { directory, ledger };
        registry.reconcile().await?;
        Ok(registry)
    }

    /// A folder to write a new generation into, on the same file system as the others.
    ///
    /// # Errors
    /// When it can not be made.
    pub async fn draft(&self) -> Result<Draft> {
        self.on_disk(|directory| directory.draft(&directory.hold()?)).await
    }

    /// Publishes a draft as a candidate (held, when there are reasons): hashes its files, makes them durable, and
    /// gives the directory its final name. When this returns, directory and row survive a power cut. Publishing what
    /// is there already succeeds and changes nothing.
    ///
    /// # Errors
    /// When nothing was merged, the merged weights are those of the parent, there are no weights, or a file can not
    /// be read or written; the draft is deleted then.
    pub async fn publish(&self, draft: Draft, about: About) -> Result<Manifest> {
        let parent = match &about.parent {
            Some(parent) => Some(self.get(parent).await?.manifest),
            None => None,
        };
        let (draft, manifest) = self
            .on_disk(move |_| {
                let manifest = Directory::seal(&draft, about)?;
                Ok((draft, manifest))
            })
            .await?;
        publishable(&manifest, parent.as_ref())?;
        let (manifest, held) = self
            .on_disk(move |directory| {
                let held = directory.hold()?;
                Ok((directory.place(&draft, manifest, &held)?, held))
            })
            .await?;
        self.write_row(&manifest).await?;
        drop(held);
        tracing::info!(generation = %manifest.id, "published");
        Ok(manifest)
    }

    /// Makes the configured base model known, and active if nothing else is, or if another base model is: without a
    /// trained generation, the configuration decides. Returns the pointer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(&self, base: &Manifest) -> Result<Pointer> {
        self.write_row(base).await?;
        let to = (ActiveRole::Policy, &base.id);
        loop {
            let expected = match self.pointer(ActiveRole::Policy).await? {
                None => None,
                Some(pointer) if pointer.generation == base.id => return Ok(pointer),
                Some(pointer) => {
                    let active = self.get(&pointer.generation).await?;
                    if active.manifest.about.kind != GenerationKind::Base {
                        return Ok(pointer);
                    }
                    Some(pointer.generation)
                }
            };
            let expected = expected.as_ref().map_or(Expected::Unset, Expected::Active);
            match self.ledger.move_pointer(to, expected, now()).await? {
                Moved::To(pointer) => return Ok(pointer),
                // Another server was faster; look again.
                Moved::Unexpected(_) => {}
                Moved::Unusable => return Err(RegistryError::NotFound(base.id.clone())),
            }
        }
    }

    /// One generation.
    ///
    /// # Errors
    /// When there is none of this id, or its row can not be read.
    pub async fn get(&self, id: &GenerationId) -> Result<Generation> {
        let row = self.ledger.generation(id).await?;
        generation(row.ok_or_else(|| RegistryError::NotFound(id.clone()))?)
    }

    /// Generations, newest first.
    ///
    /// # Errors
    /// When the cursor is none of this list's, or a row can not be read.
    pub async fn list(&self, filter: GenerationFilter, paging: &Paging) -> Result<Page<Generation>> {
        let page = self.ledger.generations(filter, paging).await?;
        let data = page.data.into_iter().map(generation).collect::<Result<_>>()?;
        Ok(Page { data, next: page.next })
    }

    /// Which generation is active in a role; `None` before the first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pointer(&self, role: ActiveRole) -> Result<Option<Pointer>> {
        Ok(self.ledger.pointer(role).await?)
    }

    /// Makes a generation the active one of its role, if the one in `expected` is active (`None`: whatever is). Moves
    /// the pointer only: servers follow by themselves. Looks at none of its files: see [`Registry::verify`].
    ///
    /// # Errors
    /// When there is none of this id, its files were deleted, or another one is active than expected.
    pub async fn promote(&self, id: &GenerationId, expected: Option<&GenerationId>) -> Result<Pointer> {
        let found = self.get(id).await?;
        if found.pruned.is_some() {
            return Err(RegistryError::Pruned(id.clone()));
        }
        let role = found.manifest.about.kind.role();
        let wanted = expected.map_or(Expected::Any, Expected::Active);
        match self.ledger.move_pointer((role, id), wanted, now()).await? {
            Moved::To(pointer) => Ok(pointer),
            Moved::Unusable => Err(RegistryError::Pruned(id.clone())),
            Moved::Unexpected(pointer) => Err(RegistryError::NotActive {
                expected: expected.unwrap_or(id).clone(),
                active: pointer.map(|pointer| pointer.generation),
            }),
        }
    }

    /// The generation a rollback of this role would make active, and the one it expects to be.
    ///
    /// # Errors
    /// When there was none before the active one.
    pub async fn before(&self, role: ActiveRole) -> Result<(GenerationId, GenerationId)> {
        let pointer = self.pointer(role).await?.ok_or(RegistryError::NothingBefore(role))?;
        let previous = pointer.previous.ok_or(RegistryError::NothingBefore(role))?;
        Ok((previous, pointer.generation))
    }

    /// Makes the generation before the active one active again. Twice is back where it was.
    ///
    /// # Errors
    /// As [`Registry::promote`], and when there was none before.
    pub async fn rollback(&self, role: ActiveRole) -> Result<Pointer> {
        let (previous, active) = self.before(role).await?;
        self.promote(&previous, Some(&active)).await
    }

    /// Holds a candidate, with the reasons.
    ///
    /// # Errors
    /// When there is none of this id, or it is in use or was.
    pub async fn hold(&self, id: &GenerationId, reasons: &[String]) -> Result<()> {
        if self.ledger.hold_generation(id, reasons).await? {
            return Ok(());
        }
        let state = self.get(id).await?.state;
        Err(RegistryError::Decided { id: id.clone(), state })
    }

    /// Deletes the files of generations that are neither active, nor what a rollback goes back to, nor among the
    /// `keep` newest of their kind, nor in `leased`. Their rows stay. Returns which.
    ///
    /// # Errors
    /// When the database fails or files can not be deleted.
    pub async fn prune(&self, keep: usize, leased: &[GenerationId]) -> Result<Vec<GenerationId>> {
        let held = self.on_disk(Directory::hold).await?;
        let mut gone = Vec::new();
        for kind in [GenerationKind::Policy, GenerationKind::Reward] {
            let filter = GenerationFilter { kind: Some(kind), state: None };
            let all = self.all(filter).await?;
            let old = all.into_iter().filter(|generation| generation.pruned.is_none()).skip(keep);
            for id in old.map(|generation| generation.manifest.id).filter(|id| !leased.contains(id)) {
                if self.ledger.prune_generation(&id, now()).await? {
                    gone.push(id);
                }
            }
        }
        // Rows first: a directory whose row says so is deleted by whoever opens the registry next.
        let deleting = gone.clone();
        self.on_disk(move |directory| deleting.iter().try_for_each(|id| directory.discard(id, &held)))
            .await?;
        Ok(gone)
    }

    /// Compares every file of a generation with its manifest. A base model has none here: it is verified where models
    /// are kept.
    ///
    /// # Errors
    /// When there is none of this id, its files were deleted, or one of them is missing, cut short or changed.
    pub async fn verify(&self, id: &GenerationId) -> Result<Manifest> {
        let found = self.get(id).await?;
        if found.pruned.is_some() {
            return Err(RegistryError::Pruned(id.clone()));
        }
        if found.manifest.about.kind == GenerationKind::Base {
            return Ok(found.manifest);
        }
        let id = id.clone();
        self.on_disk(move |directory| directory.verify(&id)).await
    }

    /// The directory of a generation.
    ///
    /// # Errors
    /// When the id is none that can have one.
    pub fn folder(&self, id: &GenerationId) -> Result<PathBuf> {
        self.directory.path(id)
    }

    /// The model that serves a policy generation: the base model it stems from, with its weights.
    ///
    /// # Errors
    /// When it stems from another base model or has no weights.
    pub fn servable(&self, base: &BaseModel, manifest: &Manifest) -> Result<BaseModel> {
        let id = &manifest.id;
        let about = &manifest.about;
        if about.base.source_sha256 != hex::encode(base.source_sha256) {
            let (trained_from, configured) = (about.base.name.clone(), base.name.clone());
            return Err(RegistryError::OtherBase { id: id.clone(), trained_from, configured });
        }
        let no_weights =
            || RegistryError::Damaged { id: id.clone(), problem: "it has no weights to serve".into() };
        let sha256 = manifest.weights_sha256().and_then(|text| hex::decode(text).ok()?.try_into().ok());
        let sha256: [u8; 32] = sha256.ok_or_else(no_weights)?;
        let folder = self.folder(id)?;
        let weights = if manifest.files.contains_key(POLICY_FILE) {
            Weights::Gguf(folder.join(POLICY_FILE))
        } else {
            Weights::Safetensors(folder.join(POLICY_FOLDER))
        };
        Ok(base.with_weights(weights, sha256, about.serving_format))
    }

    /// Every generation, newest first.
    async fn all(&self, filter: GenerationFilter) -> Result<Vec<Generation>> {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = self.list(filter, &Paging { before, limit: PAGE }).await?;
            all.extend(page.data);
            before = page.next;
            if before.is_none() {
                return Ok(all);
            }
        }
    }

    async fn reconcile(&self) -> Result<()> {
        let (ids, held) = self
            .on_disk(move |directory| {
                let held = directory.hold()?;
                directory.sweep(&held)?;
                Ok((directory.ids()?, held))
            })
            .await?;
        let mut pruned = Vec::new();
        for id in ids {
            match self.ledger.generation(&id).await? {
                Some(row) if row.pruned.is_some() => pruned.push(id),
                Some(_) => {}
                None => self.adopt_directory(id).await?,
            }
        }
        self.on_disk(move |directory| pruned.iter().try_for_each(|id| directory.discard(id, &held))).await
    }

    /// Gives a directory without a row one; a damaged one is left alone and named in the log.
    async fn adopt_directory(&self, id: GenerationId) -> Result<()> {
        match self.on_disk(move |directory| directory.manifest(&id)).await {
            Ok(manifest) => self.write_row(&manifest).await,
            Err(error @ RegistryError::Damaged { .. }) => {
                tracing::warn!(%error, "a directory among the generations is none");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write_row(&self, manifest: &Manifest) -> Result<()> {
        let about = &manifest.about;
        let held = !about.reasons.is_empty();
        let row = GenerationRow {
            id: manifest.id.clone(),
            kind: about.kind,
            state: if held { GenerationState::Held } else { GenerationState::Candidate },
            parent: about.parent.clone(),
            created: about.created,
            reasons: about.reasons.clone(),
            pruned: None,
            manifest: serde_json::to_string(manifest)
                .map_err(|source| RegistryError::Manifest { id: manifest.id.clone(), source })?,
        };
        self.ledger.put_generation(&row).await?;
        Ok(())
    }

    /// Runs what blocks off the async threads.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || work(&directory)).await?
    }
}

fn generation(row: GenerationRow) -> Result<Generation> {
    let manifest = serde_json::from_str(&row.manifest)
        .map_err(|source| RegistryError::Manifest { id: row.id.clone(), source })?;
    Ok(Generation { manifest, state: row.state, reasons: row.reasons, pruned: row.pruned })
}

/// Refuses what would serve nothing, or nothing new.
fn publishable(manifest: &Manifest, parent: Option<&Manifest>) -> Result<()> {
    let refuse = |problem: &str| Err(RegistryError::Unpublishable(problem.to_owned()));
    match manifest.about.kind {
        GenerationKind::Base => return refuse("a base model is adopted, not published"),
        GenerationKind::Reward if manifest.files.is_empty() => return refuse("it has no files"),
        GenerationKind::Reward => return Ok(()),
        GenerationKind::Policy => {}
    }
    let Some(weights) = manifest.weights_sha256() else {
        return refuse("it has neither policy.gguf nor files in policy/");
    };
    if manifest.about.merged_tensors == 0 {
        return refuse("no tensor was merged: training changed nothing");
    }
    let before = match parent {
        Some(parent) if parent.about.kind == GenerationKind::Policy => parent.weights_sha256(),
        _ => None,
    };
    if before.as_ref() == Some(&weights) || manifest.about.base.serving_sha256 == weights {
        return refuse("its weights are those it was trained from: training changed nothing");
    }
    Ok(())
}
