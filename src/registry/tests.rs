//! Does the registry keep what it is given, whole, and in step with its rows?

mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config::WeightFormat;
use crate::domain::AccessLabel;
use crate::error::{Error, ErrorCode};
use crate::ledger::tests::Harness;

const BASE: &str = "gen-00000000000000ba";

pub(super) struct Fixture {
    harness: Harness,
    pub(super) registry: Registry,
}

pub(super) fn base_id() -> GenerationId {
    GenerationId::from_wire(BASE)
}

fn base_ref() -> BaseRef {
    BaseRef { name: "tiny".into(), source_sha256: "aa".repeat(32), serving_sha256: "bb".repeat(32) }
}

fn template() -> TemplateRef {
    TemplateRef { prompt: "prompt".into(), chat: "chat".into() }
}

pub(super) fn about(created: i64) -> About {
    About {
        kind: GenerationKind::Policy,
        parent: Some(base_id()),
        base: base_ref(),
        created: Millis(created),
        run: Some("run-1".into()),
        dataset: Some(DatasetRef { sha256: "dd".repeat(32), counts: BTreeMap::from([("train".into(), 20)]) }),
        template: template(),
        access: AccessLabel::default(),
        serving_format: WeightFormat::F16,
        merged_tensors: 7,
        training: json!({"rank": 16}),
        metrics: json!({"f1": {"before": 0.1, "after": 0.2}}),
        reasons: vec![],
        parity: vec![],
    }
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let harness = Harness::sqlite().await;
        let registry = Registry::open(harness.folder(), Arc::clone(&harness.ledger)).await.unwrap();
        let base = Manifest::of_base(base_id(), base_ref(), template(), WeightFormat::F16);
        registry.adopt(&base).await.unwrap();
        Self { harness, registry }
    }

    /// A draft whose weights are these.
    async fn draft(&self, weights: &str) -> Draft {
        let draft = self.registry.draft().await.unwrap();
        std::fs::write(draft.path().join(POLICY_FILE), weights).unwrap();
        std::fs::write(draft.path().join(ADAPTER), format!("adapter of {weights}")).unwrap();
        std::fs::write(draft.path().join(REPORT_MARKDOWN), "It got better.").unwrap();
        draft
    }

    pub(super) async fn publish(&self, weights: &str, about: About) -> Manifest {
        self.registry.publish(self.draft(weights).await, about).await.unwrap()
    }

    fn folder(&self, id: &GenerationId) -> PathBuf {
        self.registry.folder(id).unwrap()
    }

    async fn reopen(&self) -> Registry {
        Registry::open(self.harness.folder(), Arc::clone(&self.harness.ledger)).await.unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.harness.folder().join("generations")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }
}

fn code(error: RegistryError) -> (ErrorCode, String) {
    let error = Error::from(error);
    (error.code, error.message)
}

#[tokio::test]
async fn a_generation_is_published_once_and_is_what_was_written() {
    let fixture = Fixture::new().await;
    let manifest = fixture.publish("weights", about(1)).await;
    assert_eq!(fixture.registry.verify(&manifest.id).await.unwrap(), manifest);
    let found = fixture.registry.get(&manifest.id).await.unwrap();
    assert_eq!((found.state, &found.manifest), (GenerationState::Candidate, &manifest));
    let files: Vec<_> = manifest.files.keys().map(String::as_str).collect();
    assert_eq!(files, [ADAPTER, POLICY_FILE, REPORT_MARKDOWN]);
    // The same content made at another time, by another run, with another report, is the same generation.
    let draft = fixture.draft("weights").await;
    std::fs::write(draft.path().join(REPORT_MARKDOWN), "It took longer.").unwrap();
    let again = fixture.registry.publish(draft, About { run: None, ..about(2) }).await.unwrap();
    assert_eq!(again, manifest);
    assert_eq!(fixture.entries(), [manifest.id.as_str()]);
    let other = fixture.publish("other weights", about(3)).await;
    assert_ne!(other.id, manifest.id);
    let other = About { dataset: None, ..about(3) };
    assert_ne!(fixture.publish("weights", other).await.id, manifest.id);
}

/// A run that is asked for again with another gate, or with the control it lacked, makes the same weights.
#[tokio::test]
async fn weights_that_were_held_may_be_let_through_later() {
    let fixture = Fixture::new().await;
    let held = About { reasons: vec!["The control was not measured.".into()], ..about(1) };
    let first = fixture.publish("weights", held.clone()).await;
    assert_eq!(fixture.publish("weights", held).await, first);
    let second = fixture.publish("weights", about(2)).await;
    assert_ne!(second.id, first.id);
    assert!(first.is_consistent() && second.is_consistent());
    for (manifest, state) in [(&first, GenerationState::Held), (&second, GenerationState::Candidate)] {
        let found = fixture.registry.get(&manifest.id).await.unwrap();
        assert_eq!((found.state, &found.manifest), (state, manifest));
    }
}

#[tokio::test]
async fn what_changes_nothing_is_refused_and_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    let parent = fixture.publish("weights", about(1)).await;
    let before = fixture.entries();
    let child = About { parent: Some(parent.id.clone()), ..about(2) };
    let weights_of_base = hex::encode(<sha2::Sha256 as sha2::Digest>::digest("base weights"));
    let refused = [
        ("weights", About { merged_tensors: 0, ..about(2) }),
        ("weights", child),
        (
            "base weights",
            About { base: BaseRef { serving_sha256: weights_of_base, ..base_ref() }, ..about(2) },
        ),
        ("weights", About { kind: GenerationKind::Base, ..about(2) }),
    ];
    for (weights, about) in refused {
        let error = fixture.registry.publish(fixture.draft(weights).await, about).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unpublishable(_)), "{error}");
    }
    let empty = fixture.registry.draft().await.unwrap();
    let error = fixture.registry.publish(empty, about(2)).await.unwrap_err();
    assert!(error.to_string().contains("policy.gguf"), "{error}");
    assert_eq!(fixture.entries(), before);
}

#[tokio::test]
async fn weights_in_a_folder_are_compared_with_the_parents_too() {
    let fixture = Fixture::new().await;
    let draft = async || {
        let draft = fixture.registry.draft().await.unwrap();
        std::fs::create_dir(draft.path().join(POLICY_FOLDER)).unwrap();
        std::fs::write(draft.path().join("policy/model.safetensors"), "weights").unwrap();
        draft
    };
    let parent = fixture.registry.publish(draft().await, about(1)).await.unwrap();
    assert!(parent.files.contains_key("policy/model.safetensors"));
    fixture.registry.verify(&parent.id).await.unwrap();
    let child = About { parent: Some(parent.id), ..about(2) };
    let error = fixture.registry.publish(draft().await, child).await.unwrap_err();
    assert!(error.to_string().contains("changed nothing"), "{error}");
}

#[tokio::test]
async fn damage_of_every_kind_is_named() {
    let fixture = Fixture::new().await;
    let id = fixture.publish("weights", about(1)).await.id;
    let (weights, manifest) = (fixture.folder(&id).join(POLICY_FILE), fixture.folder(&id).join(MANIFEST));
    let manifest_text = std::fs::read_to_string(&manifest).unwrap();
    let check = async |named: &str| {
        let (code, message) = code(fixture.registry.verify(&id).await.unwrap_err());
        assert_eq!(code, ErrorCode::Conflict);
        assert!(message.contains("is damaged") && message.contains(named), "{message}");
    };
    std::fs::write(&weights, "weighty").unwrap();
    check("SHA-256 of policy.gguf").await;
    std::fs::write(&weights, "weigh").unwrap();
    check("policy.gguf has 5 bytes instead of 7").await;
    std::fs::remove_file(&weights).unwrap();
    check("policy.gguf is missing").await;
    std::fs::write(&weights, "weights").unwrap();
    fixture.registry.verify(&id).await.unwrap();
    std::fs::write(&manifest, &manifest_text[..40]).unwrap();
    check("manifest.json").await;
    std::fs::write(&manifest, manifest_text.replace("\"prompt\": \"prompt\"", "\"prompt\": \"other\""))
        .unwrap();
    check("does not belong").await;
    std::fs::write(&manifest, manifest_text.replace("\"format\": 2", "\"format\": 3")).unwrap();
    check("format 3").await;
    // Publishing it again repairs it.
    fixture.publish("weights", about(2)).await;
    fixture.registry.verify(&id).await.unwrap();
}

#[tokio::test]
async fn ids_that_are_no_hashes_lead_nowhere() {
    let fixture = Fixture::new().await;
    for id in ["../ledger.db", "gen-../../etc/passwd", "", "gen-", "gen-0123456789abcdeg"] {
        let id = GenerationId::from_wire(id);
        assert_eq!(code(fixture.registry.verify(&id).await.unwrap_err()).0, ErrorCode::NotFound);
        assert!(matches!(fixture.registry.folder(&id), Err(RegistryError::NotFound(_))));
    }
}

#[tokio::test]
async fn promotion_compares_and_rollback_goes_back_and_forth() {
    let fixture = Fixture::new().await;
    let registry = &fixture.registry;
    let role = ActiveRole::Policy;
    assert!(matches!(registry.rollback(role).await.unwrap_err(), RegistryError::NothingBefore(_)));
    let (one, two) = (fixture.publish("one", about(1)).await.id, fixture.publish("two", about(2)).await.id);
    registry.promote(&one, Some(&base_id())).await.unwrap();
    let error = registry.promote(&two, Some(&base_id())).await.unwrap_err();
    let error = Error::from(error);
    assert_eq!((error.code, error.param.as_deref()), (ErrorCode::Conflict, Some("expected")));
    assert!(error.message.contains(one.as_str()), "{error}");
    assert_eq!(registry.rollback(role).await.unwrap().generation, base_id());
    assert_eq!(registry.rollback(role).await.unwrap().generation, one);
    registry.promote(&two, None).await.unwrap();
    assert_eq!(registry.pointer(role).await.unwrap().unwrap().previous, Some(one.clone()));
    assert_eq!(registry.get(&one).await.unwrap().state, GenerationState::Retired);
    let error = registry.hold(&two, &["late".into()]).await.unwrap_err();
    assert!(error.to_string().contains("is active"), "{error}");
    let missing = registry.promote(&GenerationId::from_wire("gen-0000000000000000"), None).await.unwrap_err();
    assert_eq!(code(missing).0, ErrorCode::NotFound);
}

#[tokio::test]
async fn pruning_keeps_what_is_active_before_it_leased_or_new() {
    let fixture = Fixture::new().await;
    let registry = &fixture.registry;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(fixture.publish(&format!("weights {n}"), about(n)).await.id);
    }
    registry.promote(&ids[0], None).await.unwrap();
    registry.promote(&ids[1], None).await.unwrap();
    let gone = registry.prune(2, &[ids[3].clone()]).await.unwrap();
    assert_eq!(gone, [&ids[5], &ids[4], &ids[2]].map(Clone::clone));
    let kept = [0, 1, 3, 6, 7].map(|n| ids[n].clone());
    let mut names: Vec<_> = kept.iter().map(|id| id.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(fixture.entries(), names);
    for id in &kept {
        registry.verify(id).await.unwrap();
    }
    let (code, message) = code(registry.promote(&ids[5], None).await.unwrap_err());
    assert!(code == ErrorCode::Conflict && message.contains("deleted"), "{message}");
    assert_eq!(registry.prune(2, &[ids[3].clone()]).await.unwrap(), []);
    // What is published again is there again.
    let again = fixture.publish("weights 5", about(9)).await;
    assert_eq!(again.id, ids[5]);
    registry.verify(&ids[5]).await.unwrap();
    assert_eq!(registry.get(&ids[5]).await.unwrap().state, GenerationState::Candidate);
}

#[tokio::test]
async fn another_base_model_takes_the_place_of_a_base_model_only() {
    let fixture = Fixture::new().await;
    let other = |n: u8| {
        let id = GenerationId::from_wire(format!("gen-00000000000000b{n}"));
        Manifest::of_base(id, base_ref(), template(), WeightFormat::Q8_0)
    };
    assert_eq!(fixture.registry.adopt(&other(1)).await.unwrap().generation, other(1).id);
    let tuned = fixture.publish("weights", about(1)).await.id;
    fixture.registry.promote(&tuned, None).await.unwrap();
    assert_eq!(fixture.registry.adopt(&other(2)).await.unwrap().generation, tuned);
    assert_eq!(fixture.registry.verify(&other(2).id).await.unwrap().id, other(2).id);
}

#[tokio::test]
async fn what_a_killed_process_left_is_put_in_order() {
    let fixture = Fixture::new().await;
    let (kept, pruned) =
        (fixture.publish("kept", about(1)).await.id, fixture.publish("old", about(2)).await.id);
    // Killed after the directory had its name and before the row was written: as with a ledger that knows nothing.
    let elsewhere = Harness::sqlite().await;
    let registry = Registry::open(fixture.harness.folder(), Arc::clone(&elsewhere.ledger)).await.unwrap();
    assert_eq!(registry.get(&kept).await.unwrap().state, GenerationState::Candidate);
    // Killed after the row said that the files go, and before they went.
    assert!(fixture.harness.ledger.prune_generation(&pruned, Millis(9)).await.unwrap());
    // Killed while writing a draft (nobody holds its lock) and while deleting.
    let folder = fixture.harness.folder().join("generations");
    for dead in [".draft-dead", ".draft-dead-without-lock", ".trash-gen-0000000000000001"] {
        std::fs::create_dir(folder.join(dead)).unwrap();
        std::fs::write(folder.join(dead).join(POLICY_FILE), "half").unwrap();
    }
    std::fs::write(folder.join(".draft-dead/.lock"), "").unwrap();
    // Somebody else's draft is alive.
    let alive = fixture.draft("alive").await;
    let name = alive.path().file_name().unwrap().to_str().unwrap().to_owned();
    let registry = fixture.reopen().await;
    assert_eq!(fixture.entries(), [name, kept.to_string()]);
    let published = registry.publish(alive, about(3)).await.unwrap();
    registry.verify(&published.id).await.unwrap();
}

#[tokio::test]
async fn a_draft_that_is_dropped_is_gone() {
    let fixture = Fixture::new().await;
    drop(fixture.draft("never mind").await);
    assert!(fixture.entries().is_empty());
}

/// Manifests that were written stay readable: this one was published by version 0.1.
#[test]
fn a_manifest_of_the_first_format_is_read() {
    let text = r#"{"format":1,"id":"gen-7fd405338d44b578","kind":"policy","parent":"gen-00000000000000ba",
        "base":{"name":"tiny","source_sha256":"aa","serving_sha256":"bb"},"created":7,
        "template":{"prompt":"p","chat":"c"},"serving_format":"q8_0","merged_tensors":1,
        "files":{"policy.gguf":{"sha256":"cc","bytes":3}}}"#;
    let manifest: Manifest = serde_json::from_str(text).unwrap();
    assert!(
        manifest.is_consistent(),
        "{:?}",
        Manifest::new(manifest.about.clone(), manifest.files.clone()).id
    );
    assert_eq!(manifest.weights_sha256().as_deref(), Some("cc"));
    let written = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&written).unwrap(), manifest);
}
