//! Which generation should this server serve, and how does it get there without failing a request?
//!
//! The active pointer says which. A swap is prepare → commit → retire: prepare (verify the files, load, probe, compare
//! with the trainer) may fail, and what was served is served on; commit is one store into the slot.

mod checks;
mod loader;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

pub use checks::{mean_difference, tolerance};
pub use loader::{Given, Loader, MistralLoader, load};

use crate::config::RegistryConfig;
use crate::domain::{ActiveRole, GenerationId, Millis, now};
use crate::error::{Error, ErrorCode, chain};
use crate::generation::{GenerationError, LOADING_RETRY, Prepared, Slot};
use crate::models::ModelsError;
use crate::registry::{Manifest, Registry, RegistryError};
use crate::telemetry::Metrics;

/// How often the pointer is looked at: a promotion elsewhere is followed within about a second, and one small read a
/// second is nothing to a database.
const POLL: Duration = Duration::from_secs(1);
/// When a generation that could not be prepared is tried again: loading costs memory and time, and what is damaged
/// stays damaged until somebody publishes it again.
const RETRY: Duration = Duration::from_secs(300);
/// How long a caller waits for a promotion; below the 60 s at which many clients and proxies give up.
const PATIENCE: Duration = Duration::from_secs(45);

/// Why a generation can not be served.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// It is not known, damaged, or not what was expected.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The base model can not be had.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// It can not be loaded or does not answer.
    #[error("generation {id} can not be served: {source}")]
    Generation {
        /// The generation.
        id: GenerationId,
        /// Why.
        source: GenerationError,
    },
    /// It answers, but is not what training made.
    #[error("generation {id} is not served: {problem}")]
    Refused {
        /// The generation.
        id: GenerationId,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing is served yet.
    #[error("the model is still loading")]
    Loading,
    /// A task of ours panicked.
    #[error("a background task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<SwapError> for Error {
    fn from(error: SwapError) -> Self {
        match error {
            SwapError::Registry(error) => error.into(),
            SwapError::Models(error) => error.into(),
            SwapError::Generation { .. } | SwapError::Refused { .. } => {
                Self::new(ErrorCode::Conflict, chain(&error)).caused_by(error)
            }
            SwapError::Loading => {
                Self::new(ErrorCode::NotReady, error.to_string()).retry_after(LOADING_RETRY)
            }
            SwapError::Task(_) => Self::internal(error),
        }
    }
}

/// What came of a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// This server serves it.
    Committed,
    /// It takes longer than a caller waits; it goes on.
    UnderWay,
}

/// Why and when a generation could not be served here.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was wrong.
    pub reason: String,
    /// When it was tried.
    pub at: Millis,
    again: Instant,
}

/// Keeps the served generation and the active pointer in step. One swap at a time.
#[derive(Debug)]
pub struct Swapper {
    slot: Arc<Slot>,
    registry: Registry,
    loader: Arc<dyn Loader>,
    config: RegistryConfig,
    metrics: Metrics,
    /// Where promotions run: not on the HTTP workers' threads, which end before the server does.
    runtime: Handle,
    /// Held from reading the pointer to committing.
    turn: tokio::sync::Mutex<()>,
    failures: Mutex<BTreeMap<GenerationId, Failure>>,
    patience: Duration,
}

impl Swapper {
    /// A swapper that prepares generations with `loader`. To be made on the runtime it is to work on.
    #[must_use]
    pub fn new(
        slot: Arc<Slot>,
        registry: Registry,
        loader: Arc<dyn Loader>,
        config: &RegistryConfig,
    ) -> Self {
        Self {
            metrics: slot.metrics().clone(),
            slot,
            registry,
            loader,
            config: config.clone(),
            runtime: Handle::current(),
            turn: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
            patience: PATIENCE,
        }
    }

    /// Loads the active generation. One that can not be served is named in the log and in its failure, and the base
    /// model is served instead: an answer without what was learnt is better than none.
    ///
    /// # Errors
    /// When the base model can not be had or served, or the database fails.
    pub async fn start(&self) -> Result<(), SwapError> {
        let _turn = self.turn.lock().await;
        let base = self.loader.base().await?;
        let pointer = self.registry.adopt(&base).await?;
        self.metrics.generation_promoted.set(pointer.changed.seconds());
        if pointer.generation != base.id {
            match self.prepare(&pointer.generation).await {
                Ok(prepared) => {
                    self.slot.commit(prepared);
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), generation = %pointer.generation, base = %base.id,
                        "the active generation can not be served; the base model is served instead");
                    self.metrics.generation_unserved.set(1);
                }
            }
        }
        let prepared = self.prepare(&base.id).await?;
        self.slot.commit(prepared);
        Ok(())
    }

    /// Follows the pointer until dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reachable = true;
        loop {
            ticks.tick().await;
            match self.keep_in_step().await {
                Ok(()) => reachable = true,
                // Once, not every second.
                Err(error) if reachable => {
                    reachable = false;
                    tracing::warn!(error = %chain(&error), "which generation is active is not known");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks at the pointer and follows it; a generation that can not be served is left for a while.
    async fn keep_in_step(&self) -> Result<(), RegistryError> {
        let Some(pointer) = self.registry.pointer(ActiveRole::Policy).await? else { return Ok(()) };
        self.metrics.generation_promoted.set(pointer.changed.seconds());
        let served = self.slot.current().as_ref() == Some(&pointer.generation);
        self.metrics.generation_unserved.set(i64::from(!served));
        if served || self.failure(&pointer.generation).is_some_and(|failure| Instant::now() < failure.again) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        // Meanwhile a promotion may have been done, and the next tick looks again.
        if self.registry.pointer(ActiveRole::Policy).await?.as_ref() != Some(&pointer) {
            return Ok(());
        }
        match self.prepare(&pointer.generation).await {
            Ok(prepared) => self.commit(prepared),
            Err(error) => tracing::error!(error = %chain(&error), generation = %pointer.generation,
                "the active generation can not be served here; what was served is served on"),
        }
        Ok(())
    }

    /// Makes a generation the active one, after this server has loaded and checked it; then serves it. With
    /// `expected`, only if that one is active. A caller that leaves does not stop it.
    ///
    /// # Errors
    /// When it is not known, its files were deleted or are damaged, it can not be loaded, fails a check, belongs to
    /// another base model, or another generation is active than expected; the pointer stays. Also while the server is
    /// still loading.
    pub async fn promote(
        self: &Arc<Self>,
        id: &GenerationId,
        expected: Option<&GenerationId>,
    ) -> Result<Promotion, SwapError> {
        if self.registry.get(id).await?.manifest.about.kind.role() == ActiveRole::Reward {
            self.registry.promote(id, expected).await?;
            return Ok(Promotion::Committed);
        }
        let (swapper, id, expected) = (Arc::clone(self), id.clone(), expected.cloned());
        let promoting =
            self.runtime.spawn(async move { swapper.promote_policy(&id, expected.as_ref()).await });
        match tokio::time::timeout(self.patience, promoting).await {
            Ok(promoted) => promoted?.map(|()| Promotion::Committed),
            Err(_) => Ok(Promotion::UnderWay),
        }
    }

    /// Goes back to the generation before the active one; see [`Swapper::promote`]. Returns which one that is.
    ///
    /// # Errors
    /// As promoting it, and when there was none before.
    pub async fn rollback(
        self: &Arc<Self>,
        role: ActiveRole,
    ) -> Result<(GenerationId, Promotion), SwapError> {
        let (previous, active) = self.registry.before(role).await?;
        let promotion = self.promote(&previous, Some(&active)).await?;
        Ok((previous, promotion))
    }

    /// Loads and checks a generation and keeps it in memory beside the served one, unless it is there already.
    ///
    /// # Errors
    /// As [`Swapper::promote`]; nothing is kept then.
    pub async fn keep_beside(&self, id: &GenerationId) -> Result<(), SwapError> {
        if self.slot.beside().as_ref() == Some(id) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let prepared = self.prepare(id).await?;
        self.slot.keep_beside(prepared);
        Ok(())
    }

    /// Lets go of what was kept beside the served one.
    pub fn keep_nothing_beside(&self) {
        self.slot.keep_nothing_beside();
    }

    /// Why a generation could not be served here, if it was tried and could not.
    #[must_use]
    pub fn failure(&self, id: &GenerationId) -> Option<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Whether the active generation is still to be served here: it was promoted elsewhere and is loaded next. Not one
    /// that was tried and could not be served.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_behind(&self) -> Result<bool, RegistryError> {
        let Some(pointer) = self.registry.pointer(ActiveRole::Policy).await? else { return Ok(false) };
        let is_served = self.slot.current().as_ref() == Some(&pointer.generation);
        Ok(!is_served && self.failure(&pointer.generation).is_none())
    }

    /// The generations in memory, the served one first.
    #[must_use]
    pub fn loaded(&self) -> Vec<GenerationId> {
        self.slot.generations()
    }

    async fn promote_policy(
        &self,
        id: &GenerationId,
        expected: Option<&GenerationId>,
    ) -> Result<(), SwapError> {
        let _turn = self.turn.lock().await;
        let current = self.slot.current().ok_or(SwapError::Loading)?;
        let active = self.registry.pointer(ActiveRole::Policy).await?.map(|pointer| pointer.generation);
        if let Some(expected) = expected.filter(|expected| active.as_ref() != Some(*expected)) {
            return Err(RegistryError::NotActive { expected: expected.clone(), active }.into());
        }
        let prepared = if current == *id { None } else { Some(self.prepare(id).await?) };
        let pointer = match self.registry.promote(id, expected).await {
            Ok(pointer) => pointer,
            Err(error) => {
                prepared.into_iter().for_each(Prepared::discard);
                return Err(error.into());
            }
        };
        self.metrics.generation_promoted.set(pointer.changed.seconds());
        if let Some(prepared) = prepared {
            self.commit(prepared);
        }
        Ok(())
    }

    /// Verifies, loads and checks a generation; a failure is remembered and counted.
    async fn prepare(&self, id: &GenerationId) -> Result<Prepared, SwapError> {
        let began = Instant::now();
        let prepared = self.try_prepare(id).await;
        self.metrics.swap_prepare_seconds.observe(began.elapsed().as_secs_f64());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match &prepared {
            Ok(_) => drop(failures.remove(id)),
            Err(error) => {
                self.metrics.swaps.with_label_values(&["refused"]).inc();
                let failure = Failure { reason: chain(error), at: now(), again: began + RETRY };
                failures.insert(id.clone(), failure);
            }
        }
        prepared
    }

    async fn try_prepare(&self, id: &GenerationId) -> Result<Prepared, SwapError> {
        let manifest = self.registry.verify(id).await.inspect_err(|error| {
            if matches!(error, RegistryError::Damaged { .. }) {
                self.metrics.verification_failures.inc();
            }
        })?;
        self.permitted(&manifest)?;
        let generator = self.loader.load(&self.registry, &manifest).await?;
        let failed = |source| SwapError::Generation { id: id.clone(), source };
        let prepared = self.slot.prepare(generator).await.map_err(failed)?;
        match self.check(&prepared, &manifest).await {
            Ok(()) => Ok(prepared),
            Err(error) => {
                prepared.discard();
                Err(error)
            }
        }
    }

    /// Compares a loaded generation with the served one, which it must differ from, and with the trainer's, which it
    /// must not.
    async fn check(&self, prepared: &Prepared, manifest: &Manifest) -> Result<(), SwapError> {
        let id = &manifest.id;
        let failed = |source| SwapError::Generation { id: id.clone(), source };
        let refused = |problem| SwapError::Refused { id: id.clone(), problem };
        if let Ok(lease) = self.slot.lease(None) {
            let (before, after) = (lease.generator().as_ref(), prepared.generator());
            if before.id() != after.id() && !checks::differ(before, after).await.map_err(failed)? {
                return Err(refused(
                    "its answers are those of the one that is served: it changes nothing".into(),
                ));
            }
        }
        checks::parity(prepared.generator(), manifest).await.map_err(failed)?.map_err(refused)
    }

    /// What was learnt from restricted documents is not told to everybody.
    fn permitted(&self, manifest: &Manifest) -> Result<(), SwapError> {
        if manifest.about.access.is_public() || self.config.serve_restricted {
            return Ok(());
        }
        let problem = "it was trained on restricted documents, and everybody would be answered by it; \
                       registry.serve_restricted permits it";
        Err(SwapError::Refused { id: manifest.id.clone(), problem: problem.into() })
    }

    fn commit(&self, prepared: Prepared) {
        let id = prepared.generator().id().clone();
        self.slot.commit(prepared);
        self.metrics.generation_unserved.set(0);
        tracing::info!(generation = %id, "serving");
        let (registry, keep, leased) = (self.registry.clone(), self.config.keep, self.slot.generations());
        self.runtime.spawn(async move {
            match registry.prune(keep, &leased).await {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => tracing::info!(?gone, "deleted the files of old generations"),
                Err(error) => tracing::warn!(error = %chain(&error), "old generations were not deleted"),
            }
        });
    }
}
