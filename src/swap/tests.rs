//! Does the server follow the pointer, and never serve what it should not?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::Value;

use super::*;
use crate::config::WeightFormat;
use crate::domain::{AccessLabel, GenerationKind, Groups};
use crate::generation::{Generator, ScriptedGenerator};
use crate::ledger::tests::Harness;
use crate::registry::{About, BaseRef, POLICY_FILE, ParitySample, TemplateRef};

/// Loads scripted generators that say what the weights' file says.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    loads: AtomicUsize,
    /// Generations that do not load.
    broken: Mutex<BTreeSet<GenerationId>>,
    /// Waits before it loads.
    pause: Mutex<Duration>,
}

pub(crate) fn base() -> Manifest {
    let base = BaseRef { name: "tiny".into(), source_sha256: "aa".into(), serving_sha256: "bb".into() };
    let template = TemplateRef { prompt: "p".into(), chat: "c".into() };
    Manifest::of_base(GenerationId::from_wire("gen-00000000000000ba"), base, template, WeightFormat::F16)
}

/// Of a policy that was trained from the base model.
pub(crate) fn about() -> About {
    About {
        kind: GenerationKind::Policy,
        parent: Some(base().id),
        merged_tensors: 1,
        metrics: Value::Null,
        ..base().about
    }
}

/// A generation of [`Scripts`] whose answer is its weights.
pub(crate) async fn publish(registry: &Registry, weights: &str, about: About) -> GenerationId {
    let draft = registry.draft().await.unwrap();
    std::fs::write(draft.path().join(POLICY_FILE), weights).unwrap();
    registry.publish(draft, about).await.unwrap().id
}

#[async_trait]
impl Loader for Scripts {
    async fn base(&self) -> Result<Manifest, SwapError> {
        Ok(base())
    }

    async fn load(&self, registry: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let pause = *self.pause.lock().unwrap();
        tokio::time::sleep(pause).await;
        if self.broken.lock().unwrap().contains(&manifest.id) {
            let source = GenerationError::Engine("no such architecture".into());
            return Err(SwapError::Generation { id: manifest.id.clone(), source });
        }
        let words = match manifest.about.kind {
            GenerationKind::Base => "base".into(),
            _ => std::fs::read_to_string(registry.folder(&manifest.id).unwrap().join(POLICY_FILE)).unwrap(),
        };
        Ok(Arc::new(ScriptedGenerator::new(manifest.id.as_str(), move |_, _| words.clone())))
    }
}

struct Fixture {
    harness: Harness,
    registry: Registry,
    slot: Arc<Slot>,
    loader: Arc<Scripts>,
    swapper: Arc<Swapper>,
}

impl Fixture {
    async fn new() -> Self {
        let harness = Harness::sqlite().await;
        let registry = Registry::open(harness.folder(), Arc::clone(&harness.ledger)).await.unwrap();
        let slot = Arc::new(Slot::empty(Metrics::new().unwrap()));
        let loader = Arc::new(Scripts::default());
        let fixture = Self {
            swapper: Arc::new(Self::swapper(&slot, &registry, &loader)),
            harness,
            registry,
            slot,
            loader,
        };
        fixture.registry.adopt(&base()).await.unwrap();
        fixture
    }

    async fn started() -> Self {
        let fixture = Self::new().await;
        fixture.swapper.start().await.unwrap();
        fixture
    }

    fn swapper(slot: &Arc<Slot>, registry: &Registry, loader: &Arc<Scripts>) -> Swapper {
        let loader: Arc<dyn Loader> = Arc::<Scripts>::clone(loader);
        Swapper::new(Arc::clone(slot), registry.clone(), loader, &RegistryConfig::default())
    }

    async fn publish(&self, weights: &str, about: About) -> GenerationId {
        publish(&self.registry, weights, about).await
    }

    fn damage(&self, id: &GenerationId) {
        std::fs::write(self.registry.folder(id).unwrap().join(POLICY_FILE), "x").unwrap();
    }

    fn served(&self) -> GenerationId {
        self.slot.current().unwrap()
    }

    async fn active(&self) -> GenerationId {
        self.registry.pointer(ActiveRole::Policy).await.unwrap().unwrap().generation
    }

    fn count(&self, outcome: &str) -> u64 {
        self.slot.metrics().swaps.with_label_values(&[outcome]).get()
    }
}

fn message(error: SwapError) -> (ErrorCode, String) {
    let error = Error::from(error);
    (error.code, error.message)
}

#[tokio::test]
async fn promotion_serves_it_and_rollback_serves_the_one_before() {
    let fixture = Fixture::started().await;
    assert_eq!(fixture.served(), base().id);
    let id = fixture.publish("tuned", about()).await;
    let promoted = fixture.swapper.promote(&id, Some(&base().id)).await.unwrap();
    assert_eq!(
        (promoted, fixture.served(), fixture.active().await),
        (Promotion::Committed, id.clone(), id.clone())
    );
    let stale = fixture.swapper.promote(&base().id, Some(&base().id)).await.unwrap_err();
    assert_eq!(message(stale).0, ErrorCode::Conflict);
    assert_eq!(fixture.served(), id);
    let loads = fixture.loader.loads.load(Ordering::SeqCst);
    fixture.swapper.promote(&id, None).await.unwrap();
    assert_eq!(fixture.loader.loads.load(Ordering::SeqCst), loads, "what is served is not loaded again");
    let (back, _) = fixture.swapper.rollback(ActiveRole::Policy).await.unwrap();
    assert_eq!((back, fixture.served()), (base().id, base().id));
    let (forth, _) = fixture.swapper.rollback(ActiveRole::Policy).await.unwrap();
    assert_eq!((&forth, fixture.served()), (&id, id.clone()));
}

#[tokio::test]
async fn what_can_not_be_served_is_refused_and_the_pointer_stays() {
    let fixture = Fixture::started().await;
    let trained = |difference: f32| ParitySample {
        prompt: vec![1, 2],
        completion: vec![3, 4],
        // The script is certain: probability 1.
        logprobs: vec![(1.0 - difference).ln(); 2],
    };
    let restricted = AccessLabel::of([&Groups::from(["hr".to_owned()])]);
    let same = fixture.publish("base", about()).await;
    let mute = fixture.publish("", about()).await;
    let broken = fixture.publish("broken", about()).await;
    let secret = fixture.publish("secret", About { access: restricted, ..about() }).await;
    let off = About { parity: vec![trained(0.02)], ..about() };
    let off = fixture.publish("off", off).await;
    let (damaged, cut) = (fixture.publish("damaged", about()).await, fixture.publish("y", about()).await);
    fixture.loader.broken.lock().unwrap().insert(broken.clone());
    fixture.damage(&damaged);
    fixture.damage(&cut);
    let cases = [
        (&same, "changes nothing"),
        (&mute, "probe"),
        (&broken, "no such architecture"),
        (&secret, "restricted"),
        (&off, "another chat template"),
        (&damaged, "has 1 bytes instead of 7"),
        (&cut, "SHA-256"),
    ];
    for (n, (id, reason)) in cases.iter().enumerate() {
        let (code, message) = message(fixture.swapper.promote(id, None).await.unwrap_err());
        assert!(code == ErrorCode::Conflict && message.contains(reason), "{reason}: {code:?} {message}");
        assert_eq!((fixture.served(), fixture.active().await), (base().id, base().id), "{reason}");
        assert!(fixture.swapper.failure(id).unwrap().reason.contains(reason));
        assert_eq!(fixture.count("refused"), n as u64 + 1, "{reason}");
    }
    assert_eq!(fixture.slot.metrics().verification_failures.get(), 2);
    let near = About { parity: vec![trained(0.004)], ..about() };
    let near = fixture.publish("near", near).await;
    fixture.swapper.promote(&near, None).await.unwrap();
    // Eight-bit weights may differ by more.
    let coarse = About { parity: vec![trained(0.014)], serving_format: WeightFormat::Q8_0, ..about() };
    let coarse = fixture.publish("coarse", coarse).await;
    fixture.swapper.promote(&coarse, None).await.unwrap();
    assert_eq!(fixture.served(), coarse);
}

#[tokio::test]
async fn a_pointer_moved_elsewhere_is_followed() {
    let fixture = Fixture::started().await;
    let id = fixture.publish("tuned", about()).await;
    fixture.registry.promote(&id, None).await.unwrap();
    assert_eq!(fixture.served(), base().id);
    fixture.swapper.keep_in_step().await.unwrap();
    assert_eq!(fixture.served(), id);
    assert_eq!(fixture.slot.metrics().generation_unserved.get(), 0);
}

#[tokio::test]
async fn a_pointer_to_what_can_not_be_served_is_tried_once_and_shown() {
    let fixture = Fixture::started().await;
    let id = fixture.publish("tuned", about()).await;
    fixture.damage(&id);
    fixture.registry.promote(&id, None).await.unwrap();
    for _ in 0..3 {
        fixture.swapper.keep_in_step().await.unwrap();
    }
    assert_eq!((fixture.served(), fixture.count("refused")), (base().id, 1));
    assert_eq!(fixture.slot.metrics().generation_unserved.get(), 1);
    assert!(fixture.swapper.failure(&id).unwrap().reason.contains("damaged"));
    // A caller who asks for it is told at once, and it works again when it was repaired.
    assert!(fixture.swapper.promote(&id, None).await.is_err());
    fixture.publish("tuned", about()).await;
    fixture.swapper.promote(&id, None).await.unwrap();
    assert_eq!(fixture.served(), id);
    assert!(fixture.swapper.failure(&id).is_none());
}

#[tokio::test]
async fn a_server_starts_with_the_active_generation_or_else_with_the_base_model() {
    let fixture = Fixture::started().await;
    let id = fixture.publish("tuned", about()).await;
    fixture.swapper.promote(&id, None).await.unwrap();
    for (damaged, served) in [(false, id.clone()), (true, base().id)] {
        if damaged {
            fixture.damage(&id);
        }
        let slot = Arc::new(Slot::empty(Metrics::new().unwrap()));
        let swapper = Fixture::swapper(&slot, &fixture.registry, &fixture.loader);
        swapper.start().await.unwrap();
        assert_eq!(slot.current(), Some(served));
        assert_eq!(swapper.failure(&id).is_some(), damaged);
        assert_eq!(slot.metrics().generation_unserved.get(), i64::from(damaged));
    }
    assert_eq!(fixture.active().await, id, "a server that can not serve it leaves the pointer to people");
}

#[tokio::test]
async fn nothing_is_promoted_before_anything_is_served() {
    let fixture = Fixture::new().await;
    let id = fixture.publish("tuned", about()).await;
    assert_eq!(message(fixture.swapper.promote(&id, None).await.unwrap_err()).0, ErrorCode::NotReady);
    let unknown = GenerationId::from_wire("gen-0000000000000000");
    assert_eq!(message(fixture.swapper.promote(&unknown, None).await.unwrap_err()).0, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_promotion_that_takes_long_goes_on_without_its_caller() {
    let fixture = Fixture::started().await;
    let id = fixture.publish("tuned", about()).await;
    *fixture.loader.pause.lock().unwrap() = Duration::from_millis(100);
    let mut swapper = Fixture::swapper(&fixture.slot, &fixture.registry, &fixture.loader);
    swapper.patience = Duration::ZERO;
    assert_eq!(Arc::new(swapper).promote(&id, None).await.unwrap(), Promotion::UnderWay);
    while fixture.served() != id {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.active().await, id);
}

#[tokio::test]
async fn a_reward_generation_moves_its_own_pointer_only() {
    let fixture = Fixture::started().await;
    let about = About { kind: GenerationKind::Reward, ..about() };
    let id = fixture.publish("reward", about).await;
    assert_eq!(fixture.swapper.promote(&id, None).await.unwrap(), Promotion::Committed);
    assert_eq!((fixture.served(), fixture.active().await), (base().id, base().id));
    let judge = fixture.registry.pointer(ActiveRole::Reward).await.unwrap().unwrap();
    assert_eq!(judge.generation, id);
}

#[tokio::test]
async fn old_generations_are_deleted_after_a_swap_and_the_served_one_is_not() {
    let fixture = Fixture::started().await;
    let mut ids = Vec::new();
    for n in 0..9 {
        let about = About { created: Millis(n), ..about() };
        ids.push(fixture.publish(&format!("tuned {n}"), about).await);
    }
    fixture.swapper.promote(&ids[0], None).await.unwrap();
    let gone = async || {
        let mut gone = BTreeMap::new();
        for id in &ids {
            gone.insert(id.clone(), fixture.registry.get(id).await.unwrap().pruned.is_some());
        }
        gone.values().filter(|gone| **gone).count()
    };
    // Of nine the five newest stay, and the oldest, which is served.
    while gone().await < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.registry.verify(&ids[0]).await.unwrap();
    assert_eq!(gone().await, 3);
    drop(fixture.harness);
}
