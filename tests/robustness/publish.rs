//! `kill -9` in the middle of publishing, promoting and pruning: what is there afterwards is whole and in step.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune::domain::{ActiveRole, GenerationId};
use attune::ledger::{GenerationFilter, Ledger, Paging};
use attune::registry::{ADAPTER, About, POLICY_FILE, Registry};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::commands::{fails, succeeds};
use crate::harness::{PATIENCE, Setup};
use crate::loader;

/// Names the data directory to publish into; without it [`publish_until_killed`] has nothing to do.
const HOME: &str = "ROBUSTNESS_REGISTRY";
/// Each round draws from its seed when the process is killed.
const SEEDS: [u64; 8] = [1, 2, 3, 5, 8, 13, 21, 34];
/// Large enough that a kill meets writing, hashing and syncing too.
const WEIGHTS_BYTES: usize = 1 << 20;
/// Lines of ids whose publishing was acknowledged.
const ACKNOWLEDGED: &str = "acknowledged";

async fn open(data: &Path) -> (Arc<dyn Ledger>, Registry) {
    let ledger = attune::ledger::open(None, data).await.unwrap();
    let registry = Registry::open(data, Arc::clone(&ledger)).await.unwrap();
    (ledger, registry)
}

fn acknowledged(data: &Path) -> Vec<GenerationId> {
    let text = std::fs::read_to_string(data.join(ACKNOWLEDGED)).unwrap_or_default();
    // The last line may be cut in two.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(GenerationId::from_wire).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_whole_after_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (ledger, registry) = open(data).await;
    registry.adopt(&loader::base()).await.unwrap();
    ledger.close().await;
    for seed in SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (before, more) = (acknowledged(data).len(), rng.random_range(1..=4));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "publish::publish_until_killed", "--ignored", "--nocapture"])
            .env(HOME, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while acknowledged(data).len() < before + more {
            assert!(
                began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(),
                "nothing is published"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..40_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        check(data).await;
    }
}

async fn check(data: &Path) {
    let (ledger, registry) = open(data).await;
    let rows =
        registry.list(GenerationFilter::default(), &Paging { before: None, limit: 1000 }).await.unwrap().data;
    let mut there = Vec::new();
    for row in rows.iter().filter(|row| row.pruned.is_none()) {
        registry.verify(&row.manifest.id).await.unwrap();
        there.push(row.manifest.id.to_string());
    }
    for id in acknowledged(data) {
        assert!(rows.iter().any(|row| row.manifest.id == id), "{id} was acknowledged");
    }
    let entries = std::fs::read_dir(data.join("generations")).unwrap();
    for name in entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(name == ".lock" || there.contains(&name), "{name} was left over");
    }
    let pointer = registry.pointer(ActiveRole::Policy).await.unwrap().unwrap();
    for id in [Some(pointer.generation), pointer.previous].into_iter().flatten() {
        registry.verify(&id).await.unwrap();
    }
    ledger.close().await;
}

/// The process that is killed. It ends with whoever started it.
#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn publish_until_killed() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    std::thread::spawn(|| {
        drop(std::io::Read::read(&mut std::io::stdin(), &mut [0]));
        std::process::abort();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let data = Path::new(&home);
        let (_ledger, registry) = open(data).await;
        let mut log =
            std::fs::File::options().append(true).create(true).open(data.join(ACKNOWLEDGED)).unwrap();
        for n in acknowledged(data).len().. {
            let draft = registry.draft().await.unwrap();
            std::fs::write(
                draft.path().join(POLICY_FILE),
                vec![u8::try_from(n % 251).unwrap(); WEIGHTS_BYTES + n],
            )
            .unwrap();
            std::fs::write(draft.path().join(ADAPTER), n.to_string()).unwrap();
            let about = About { created: attune::domain::now(), ..loader::about() };
            let id = registry.publish(draft, about).await.unwrap().id;
            std::io::Write::write_all(&mut log, format!("{id}\n").as_bytes()).unwrap();
            registry.promote(&id, None).await.unwrap();
            if n % 3 == 2 {
                registry.rollback(ActiveRole::Policy).await.unwrap();
            }
            registry.prune(1, &[]).await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_promotes_and_goes_back_beside_a_running_server() {
    let app = Setup { loader: Some(Arc::new(loader::Scripts::default())), ..Setup::default() }.start().await;
    let data = app.folder().to_str().unwrap();
    let id = loader::publish(app.folder(), "tuned", loader::about()).await.to_string();
    let listed = succeeds(&["generations", "--data-dir", data]);
    let line = listed.lines().find(|line| line.starts_with(&id)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("policy") && line.contains("candidate"), "{line}");
    let shown = succeeds(&["generations", "show", &id, "--data-dir", data]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["merged_tensors"], 210);

    let said = fails(&["promote", &id, "--expected", &id, "--data-dir", data]);
    assert!(said.contains("the active generation is gen-00000000000000ba"), "{said}");
    let serves = async |id: &str| app.get("/v1/models").await.1["data"][1]["id"] == id;
    succeeds(&["promote", &id, "--expected", loader::BASE, "--data-dir", data]);
    app.eventually("the server has followed", async || serves(&id).await).await;
    succeeds(&["rollback", "--data-dir", data]);
    app.eventually("the server has followed back", async || serves(loader::BASE).await).await;

    succeeds(&["generations", "verify", "--data-dir", data]);
    std::fs::write(app.folder().join("generations").join(&id).join(POLICY_FILE), "tuner").unwrap();
    let said = fails(&["generations", "verify", "--data-dir", data]);
    assert!(said.contains("1 of 2 generations"), "{said}");
    let said = fails(&["promote", &id, "--data-dir", data]);
    assert!(said.contains("SHA-256 of policy.gguf"), "{said}");
    assert!(serves(loader::BASE).await);
    assert!(succeeds(&["generations", "prune", "--data-dir", data]).contains("0 pruned"));
    let said = fails(&["rollback", "--kind", "reward", "--data-dir", data]);
    assert!(said.contains("no reward generation to go back to"), "{said}");
}
