//! Which generation answers now, and how does another take its place without dropping a request?
//!
//! Swap = prepare (load and probe; may fail, the old one keeps serving) → commit (one pointer store, cannot fail) →
//! retire (requests in flight finish on the generation they started on; the last one frees it).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use futures::StreamExt;

use super::{Event, GenerateRequest, GenerationError, Generator, LOADING_RETRY};
use crate::domain::{GenerationId, Message, Sampling};
use crate::error::{Error, ErrorCode};
use crate::telemetry::Metrics;

/// The place of the served generation.
#[derive(Debug)]
pub struct Slot {
    current: ArcSwapOption<Loaded>,
    /// Kept in memory to be compared with it.
    beside: ArcSwapOption<Loaded>,
    /// Every generation somebody still holds, the current one included; dead entries are swept at each commit.
    loaded: Mutex<Vec<Weak<Loaded>>>,
    copies: Arc<Copies>,
    metrics: Metrics,
}

/// How often each generation is in memory. After a rollback the one that is served again and the one that still
/// finishes older answers have one id, and with it their metrics: the last of them takes those along.
type Copies = Mutex<HashMap<GenerationId, usize>>;

/// A generation in memory. Dropped by whoever holds it last: the slot at a swap, or the last request in flight.
#[derive(Debug)]
struct Loaded {
    /// `Some` until dropped.
    generator: Option<Arc<dyn Generator>>,
    id: GenerationId,
    copies: Arc<Copies>,
    metrics: Metrics,
}

impl Loaded {
    fn new(generator: Arc<dyn Generator>, copies: &Arc<Copies>, metrics: &Metrics) -> Self {
        let id = generator.id().clone();
        *copies.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
        Self { generator: Some(generator), id, copies: Arc::clone(copies), metrics: metrics.clone() }
    }

    fn forget(&self) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let left = copies.get(&self.id).map_or(0, |copies| copies - 1);
        if left > 0 {
            copies.insert(self.id.clone(), left);
            return;
        }
        copies.remove(&self.id);
        drop(self.metrics.generation_info.remove_label_values(&[self.id.as_str()]));
        drop(self.metrics.generation_in_flight.remove_label_values(&[self.id.as_str()]));
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.forget();
        free(self.generator.take());
    }
}

/// A generation that has passed its probe and waits to be committed.
#[derive(Debug)]
pub struct Prepared(Arc<dyn Generator>);

impl Prepared {
    /// The generation.
    #[must_use]
    pub fn generator(&self) -> &dyn Generator {
        self.0.as_ref()
    }

    /// Frees it: it is not to be served after all.
    pub fn discard(self) {
        free(Some(self.0));
    }
}

/// Freeing an engine blocks: never on an async thread.
fn free(generator: Option<Arc<dyn Generator>>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(move || drop(generator));
    }
}

/// The right to use one generation for one request; the generation stays in memory as long as the lease lives.
#[derive(Debug)]
pub struct Lease {
    // Dropped before `loaded`, so that the last lease frees the generation off the async threads.
    generator: Arc<dyn Generator>,
    loaded: Arc<Loaded>,
}

impl Lease {
    fn new(loaded: Arc<Loaded>) -> Option<Self> {
        let generator = loaded.generator.clone()?;
        loaded.metrics.generation_in_flight.with_label_values(&[loaded.id.as_str()]).inc();
        Some(Self { generator, loaded })
    }

    /// The generation.
    #[must_use]
    pub fn generator(&self) -> &Arc<dyn Generator> {
        &self.generator
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.loaded.metrics.generation_in_flight.with_label_values(&[self.loaded.id.as_str()]).dec();
    }
}

impl Slot {
    /// An empty slot: every request is told to come back until the first commit.
    #[must_use]
    pub fn empty(metrics: Metrics) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            beside: ArcSwapOption::empty(),
            loaded: Mutex::default(),
            copies: Arc::default(),
            metrics,
        }
    }

    /// Probes a freshly loaded generation: it must produce a token whose probability is a number.
    ///
    /// # Errors
    /// When it produces none; the slot is as it was.
    pub async fn prepare(&self, generator: Arc<dyn Generator>) -> Result<Prepared, GenerationError> {
        match probe(generator.as_ref()).await {
            Ok(()) => Ok(Prepared(generator)),
            Err(error) => {
                free(Some(generator));
                Err(error)
            }
        }
    }

    /// Makes a prepared generation the current one. Requests that hold a lease finish on theirs.
    pub fn commit(&self, prepared: Prepared) {
        let loaded = Arc::new(Loaded::new(prepared.0, &self.copies, &self.metrics));
        let id = loaded.id.clone();
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&loaded));
        if let Some(old) = self.current.swap(Some(loaded)) {
            self.metrics.generation_info.with_label_values(&[old.id.as_str()]).set(0);
        }
        self.metrics.generation_info.with_label_values(&[id.as_str()]).set(1);
        self.metrics.swaps.with_label_values(&["committed"]).inc();
    }

    /// Keeps a generation in memory beside the current one; it can be leased by its name.
    pub fn keep_beside(&self, prepared: Prepared) {
        let loaded = Arc::new(Loaded::new(prepared.0, &self.copies, &self.metrics));
        self.metrics.generation_info.with_label_values(&[loaded.id.as_str()]).set(0);
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&loaded));
        self.beside.store(Some(loaded));
    }

    /// Lets go of what was kept beside the current one: it is freed with its last answer.
    pub fn keep_nothing_beside(&self) {
        self.beside.store(None);
    }

    /// What is kept beside the current one.
    #[must_use]
    pub fn beside(&self) -> Option<GenerationId> {
        self.beside.load_full().map(|loaded| loaded.id.clone())
    }

    /// A lease on the current generation, or on the named one while it is in memory.
    ///
    /// # Errors
    /// Not ready before the first commit; model not found when the named generation is not in memory.
    pub fn lease(&self, wanted: Option<&GenerationId>) -> Result<Lease, Error> {
        let not_ready = |problem: &str| Error::new(ErrorCode::NotReady, problem).retry_after(LOADING_RETRY);
        let current = self.current.load_full().ok_or_else(|| not_ready("the model is still loading"))?;
        let loaded = match wanted {
            Some(id) if *id != current.id => self.named(id).ok_or_else(|| Error {
                param: Some("model".into()),
                ..Error::new(
                    ErrorCode::ModelNotFound,
                    format!("generation {id} is not loaded; leave `model` out to use the active one"),
                )
            })?,
            _ => current,
        };
        Lease::new(loaded).ok_or_else(|| not_ready("the model is being replaced"))
    }

    /// The served generation; `None` before the first commit.
    #[must_use]
    pub fn current(&self) -> Option<GenerationId> {
        self.current.load_full().map(|loaded| loaded.id.clone())
    }

    /// What is measured.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The generations in memory, the current one first.
    #[must_use]
    pub fn generations(&self) -> Vec<GenerationId> {
        let current = self.current();
        let all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = all.iter().filter_map(Weak::upgrade).map(|loaded| loaded.id.clone());
        let mut others: Vec<_> = ids.filter(|id| Some(id) != current.as_ref()).collect();
        others.sort();
        others.dedup();
        current.into_iter().chain(others).collect()
    }

    fn named(&self, id: &GenerationId) -> Option<Arc<Loaded>> {
        let all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).find(|loaded| loaded.id == *id)
    }
}

async fn probe(generator: &dyn Generator) -> Result<(), GenerationError> {
    let failed = |problem: &str| GenerationError::Probe {
        generation: generator.id().clone(),
        problem: problem.into(),
    };
    let prompt = generator.render(&[Message::user("Say yes.")])?;
    let sampling = Sampling::at(0.0, 2);
    let request = GenerateRequest { prompt: prompt.into(), sampling, top_logprobs: 0, evidence: [].into() };
    match generator.generate(request).await?.next().await {
        Some(Ok(Event::Token(token))) if token.logprob.is_finite() => Ok(()),
        Some(Ok(Event::Token(_))) => Err(failed("a probability that is no number")),
        Some(Ok(Event::End(_))) | None => Err(failed("nothing")),
        Some(Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::ScriptedGenerator;

    async fn swap(slot: &Slot, id: &str) {
        let generator = Arc::new(ScriptedGenerator::new(id, |_, _| "yes".into()));
        let prepared = slot.prepare(generator).await.unwrap();
        slot.commit(prepared);
    }

    #[tokio::test]
    async fn an_empty_slot_says_it_is_loading() {
        let slot = Slot::empty(Metrics::new().unwrap());
        assert_eq!(slot.lease(None).unwrap_err().code, ErrorCode::NotReady);
        assert_eq!(slot.generations(), []);
    }

    #[tokio::test]
    async fn a_lease_keeps_its_generation_through_a_swap_and_frees_it_afterwards() {
        let slot = Slot::empty(Metrics::new().unwrap());
        swap(&slot, "gen-a").await;
        let lease = slot.lease(None).unwrap();
        swap(&slot, "gen-b").await;
        assert_eq!(lease.generator().id().as_str(), "gen-a");
        assert_eq!(
            slot.generations().iter().map(GenerationId::as_str).collect::<Vec<_>>(),
            ["gen-b", "gen-a"]
        );
        let weak = Arc::downgrade(lease.generator());
        drop(lease);
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(slot.generations().len(), 1);
        let gone = slot.lease(Some(&GenerationId::from_wire("gen-a"))).unwrap_err();
        assert_eq!(gone.code, ErrorCode::ModelNotFound);
    }

    #[tokio::test]
    async fn a_generation_that_is_served_again_keeps_its_metrics_when_its_older_copy_goes() {
        let metrics = Metrics::new().unwrap();
        let slot = Slot::empty(metrics.clone());
        swap(&slot, "gen-a").await;
        let lease = slot.lease(None).unwrap();
        swap(&slot, "gen-b").await;
        swap(&slot, "gen-a").await;
        let newer = slot.lease(None).unwrap();
        let weak = Arc::downgrade(lease.generator());
        drop(lease);
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(metrics.generation_info.with_label_values(&["gen-a"]).get(), 1);
        assert_eq!(metrics.generation_in_flight.with_label_values(&["gen-a"]).get(), 1);
        drop(newer);
        assert_eq!(metrics.generation_in_flight.with_label_values(&["gen-a"]).get(), 0);
    }

    #[tokio::test]
    async fn a_generation_without_an_answer_is_refused_and_the_old_one_stays() {
        let slot = Slot::empty(Metrics::new().unwrap());
        swap(&slot, "gen-a").await;
        let mute = Arc::new(ScriptedGenerator::new("gen-mute", |_, _| String::new()));
        assert!(slot.prepare(mute).await.is_err());
        assert_eq!(slot.lease(None).unwrap().generator().id().as_str(), "gen-a");
    }
}
