//! The whole cycle on a tiny model: from what people said to a generation with the gate's verdict, twice the same.

use std::path::Path;
use std::sync::Arc;

use attune::config::Config;
use attune::dataset::{Format, Import, import};
use attune::domain::{ActiveRole, GenerationKind, Run, RunRequest, Stage, now};
use attune::improve::{Workshop, improve};
use attune::jobs::{Outcome, Reporter, Verdict, enqueue};
use serde_json::{Value, json};

use crate::own_model::write_model;

struct Company {
    workshop: Workshop,
    _dir: tempfile::TempDir,
}

impl Company {
    /// With a model that knows nothing, people who answer questions, and `choices` between two answers.
    async fn new(choices: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::create_dir(&model).unwrap();
        write_model(&model);
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        config.models.base = model.to_str().unwrap().to_owned();
        config.models.sentence = String::new();
        config.retrieval.answerable_threshold = 0.0;
        config.prompt.examples = 0;
        config.generation.max_tokens = 12;
        config.reward.enough = 40.0;
        config.sft.epochs = 1;
        let policy = &mut config.policy;
        (policy.steps, policy.prompts_per_step, policy.completions, policy.max_tokens) = (2, 2, 2, 8);
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let ledger = attune::ledger::open(None, &config.data_dir).await.unwrap();
        let workshop = Workshop::open(Arc::new(config), ledger).await.unwrap();
        let company = Self { workshop, _dir: dir };
        let demonstration = |n: usize| json!({"prompt": asked(n), "response": cited(n)});
        company.import(Format::Sft, (0..40).map(demonstration)).await;
        let choice = |n: usize| {
            json!({"prompt": asked(n), "chosen": cited(n), "rejected": plain(n), "passages": [plain(n)],
                "user": format!("person {}", n % 7)})
        };
        company.import(Format::Preference, (0..choices).map(choice)).await;
        company
    }

    async fn import(&self, format: Format, rows: impl Iterator<Item = Value>) {
        let text: String = rows.map(|row| format!("{row}\n")).collect();
        let folder: &Path = &self.workshop.config.data_dir;
        let options = Import { format, importer: "cora", folder, now: now() };
        import(self.workshop.ledger.as_ref(), text.as_bytes(), options).await.unwrap();
    }

    async fn run(&self, stage: Stage) -> Run {
        let request = RunRequest { promote: true, ..RunRequest::new(stage) };
        enqueue(self.workshop.ledger.as_ref(), &self.workshop.config, request, "olga").await.unwrap()
    }

    async fn work(&self, run: &Run) -> Outcome {
        improve(&self.workshop, run, &Reporter::unattended()).await.unwrap()
    }
}

fn asked(n: usize) -> String {
    format!("Where does team {} sit?", word(n))
}

fn plain(n: usize) -> String {
    format!("Team {} sits in room {}.", word(n), 100 + n)
}

fn cited(n: usize) -> String {
    format!("Team {} sits in room {} [1].", word(n), 100 + n)
}

/// A word of its own for each number, so that no question is like another.
fn word(n: usize) -> String {
    let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
    format!("q{}{}x", letter(n), letter(n / 26))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_ends_with_a_judged_generation_and_begun_again_with_the_same() {
    let company = Company::new(160).await;
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let registry = &company.workshop.registry;

    let reward = registry.pointer(ActiveRole::Reward).await.unwrap().unwrap().generation;
    let judged = registry.get(&reward).await.unwrap().manifest.about;
    assert_eq!(judged.kind, GenerationKind::Reward);
    // Everybody likes what cites: that is easily learnt.
    assert!(judged.metrics["accuracy"].as_f64().unwrap() > 0.9, "{}", judged.metrics);

    let id = outcome.generation.clone().unwrap();
    let about = registry.get(&id).await.unwrap().manifest.about;
    assert_eq!(
        (about.kind, &about.training["reward"]["generation"]),
        (GenerationKind::Policy, &json!(reward))
    );
    let figures = Value::from(outcome.metrics.clone());
    for figure in ["f1", "nll", "kl", "win_rate", "win_rate_over_random", "gain", "policy", "reward_model"] {
        assert!(!figures[figure].is_null(), "{figure} in {figures}");
    }
    // A model of random weights does not pass, and the verdict, the reasons and the pointer agree.
    assert_eq!((outcome.state, &figures["gate"]), (Verdict::Held, &json!("hold")));
    assert!(!outcome.reasons.is_empty());
    assert_ne!(registry.pointer(ActiveRole::Policy).await.unwrap().unwrap().generation, id);

    // As after a crash at the end: every step is there already.
    let again = company.work(&run).await;
    assert_eq!((again.generation, again.state), (outcome.generation, outcome.state));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_choices_the_reward_model_is_being_collected_for() {
    let company = Company::new(12).await;
    let run = company.run(Stage::Reward).await;
    let outcome = company.work(&run).await;
    assert_eq!((outcome.state, &outcome.generation), (Verdict::Succeeded, &None));
    assert!(outcome.reasons[0].starts_with("collecting ("), "{:?}", outcome.reasons);
    // The rest of the cycle goes on without it.
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    assert!(outcome.generation.is_some());
    assert!(outcome.reasons.iter().any(|reason| reason.starts_with("collecting (")), "{:?}", outcome.reasons);
}
