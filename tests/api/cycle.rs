//! The whole cycle on a tiny model: from what people said to a generation with the gate's verdict, twice the same.

use std::path::Path;
use std::sync::Arc;

use attune::config::Config;
use attune::dataset::{Format, Import, import};
use attune::domain::{ActiveRole, GenerationKind, Run, RunRequest, Stage, now};
use attune::evaluation::gate::Thresholds;
use attune::improve::{Workshop, improve};
use attune::jobs::{Outcome, Reporter, Verdict, Worker, enqueue, run_folder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::own_model::write_model;

/// The gate of companies with so few choices that nothing is calibrated.
pub(crate) fn lenient() -> Thresholds {
    Thresholds { calibration_error: 1.0, ..Thresholds::default() }
}

pub(crate) struct Company {
    pub(crate) workshop: Workshop,
    dir: tempfile::TempDir,
}

/// What works on the data in a folder, with the model in it.
pub(crate) async fn workshop(folder: &Path, gate: Thresholds) -> Workshop {
    let mut config = Config { data_dir: folder.join("data"), gate, ..Config::default() };
    config.models.base = folder.join("model").to_str().unwrap().to_owned();
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
    Workshop::open(Arc::new(config), ledger).await.unwrap()
}

impl Company {
    /// With a model that knows nothing, 40 ideal answers, and `choices` between two answers.
    pub(crate) async fn new(choices: usize) -> Self {
        Self::with(40, choices).await
    }

    async fn with(ideal: usize, choices: usize) -> Self {
        Self::choosing((ideal, choices), rambling, lenient()).await
    }

    /// With choices in which everybody prefers what cites a page to what `rejected` says.
    async fn choosing(
        (ideal, choices): (usize, usize),
        rejected: fn(usize) -> String,
        gate: Thresholds,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::create_dir(&model).unwrap();
        write_model(&model);
        let company = Self { workshop: workshop(dir.path(), gate).await, dir };
        let demonstration = |n: usize| json!({"prompt": asked(n), "response": cited(n)});
        company.import(Format::Sft, (0..ideal).map(demonstration)).await;
        let choice = |n: usize| {
            json!({"prompt": asked(n), "chosen": cited(n), "rejected": rejected(n), "passages": [plain(n)],
                "user": format!("person {}", n % 7)})
        };
        company.import(Format::Preference, (0..choices).map(choice)).await;
        company
    }

    /// Leaves the folder with the data and the model, which nobody has open any more.
    pub(crate) async fn closed(self) -> tempfile::TempDir {
        self.workshop.ledger.close().await;
        self.dir
    }

    async fn import(&self, format: Format, rows: impl Iterator<Item = Value>) {
        let text: String = rows.map(|row| format!("{row}\n")).collect();
        let folder: &Path = &self.workshop.config.data_dir;
        let options = Import { format, importer: "cora", folder, now: now() };
        import(self.workshop.ledger.as_ref(), text.as_bytes(), options).await.unwrap();
    }

    pub(crate) async fn run(&self, stage: Stage) -> Run {
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

/// As often shorter than what cites as longer.
fn rambling(n: usize) -> String {
    if n.is_multiple_of(2) { plain(n) } else { format!("{} Ask there.", plain(n)) }
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
    assert_eq!((&again.generation, again.state), (&outcome.generation, outcome.state));

    // Also when somebody has promoted it meanwhile: it is compared with what it was compared with.
    registry.promote(&id, None).await.unwrap();
    let again = company.work(&run).await;
    assert_eq!((again.generation, again.state), (outcome.generation, outcome.state));
}

/// The longer answer was always the chosen one, so that counting words is as good as the reward model.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_optimised_by_a_reward_model_that_the_gate_refuses() {
    let company = Company::choosing((40, 160), plain, Thresholds::default()).await;
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let said =
        outcome.reasons.iter().find(|reason| reason.starts_with("the policy was not optimised")).unwrap();
    assert!(said.contains("choosing the longer answer"), "{said}");
    let registry = &company.workshop.registry;
    let tuned = outcome.generation.unwrap();
    let about = registry.get(&tuned).await.unwrap().manifest.about;
    // It is judged as what it is, and says that it learnt from no choice; the reward model is there all the same.
    assert!(about.training.get("policy").is_none() && about.training["reward"]["judgements"].is_null());
    assert!(about.reasons.iter().all(|reason| !reason.contains("reward model")), "{:?}", about.reasons);
    assert_eq!(
        about.training["reward"]["generation"],
        json!(registry.pointer(ActiveRole::Reward).await.unwrap().unwrap().generation)
    );
    // Where that is served, a run that learns nothing else makes no policy.
    registry.promote(&tuned, None).await.unwrap();
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let made = registry.get(&outcome.generation.unwrap()).await.unwrap().manifest.about.kind;
    assert_eq!((made, outcome.state), (GenerationKind::Reward, Verdict::Succeeded));
    let said = outcome.reasons.iter().any(|reason| reason.starts_with("no policy was made"));
    assert!(said, "{:?}", outcome.reasons);
    // One more ideal answer, and it does.
    company.import(Format::Sft, std::iter::once(json!({"prompt": asked(40), "response": cited(40)}))).await;
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let made = registry.get(&outcome.generation.unwrap()).await.unwrap().manifest.about.kind;
    assert_eq!(made, GenerationKind::Policy);
    // Who asks for an optimisation gets it, and the gate's reason.
    let run = company.run(Stage::Policy).await;
    let outcome = company.work(&run).await;
    assert!(outcome.metrics.contains_key("policy"));
    assert_eq!(outcome.state, Verdict::Held);
    let said = outcome.reasons.iter().any(|reason| reason.contains("choosing the longer answer"));
    assert!(said, "{:?}", outcome.reasons);
    // Where somebody promotes that, no run of itself makes one that has learnt from ideal answers alone.
    registry.promote(&outcome.generation.unwrap(), None).await.unwrap();
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let made = registry.get(&outcome.generation.unwrap()).await.unwrap().manifest.about.kind;
    let said = outcome.reasons.iter().any(|reason| reason.contains("would lose that"));
    assert!(made == GenerationKind::Reward && said, "{:?}", outcome.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choices_are_learnt_from_where_ideal_answers_are_few() {
    let company = Company::with(12, 160).await;
    let run = company.run(Stage::Improve).await;
    let outcome = company.work(&run).await;
    let reward = company.workshop.registry.pointer(ActiveRole::Reward).await.unwrap().unwrap();
    assert_eq!((outcome.generation, outcome.state), (Some(reward.generation), Verdict::Succeeded));
    let said = outcome.reasons.iter().any(|reason| reason.contains("12 demonstrations are there"));
    assert!(said, "{:?}", outcome.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_longer_than_the_model_reads_is_left_out() {
    let company = Company::new(0).await;
    let long = json!({"prompt": "where ".repeat(20_000), "response": "Here."});
    company.import(Format::Sft, std::iter::once(long)).await;
    let run = company.run(Stage::Sft).await;
    assert!(company.work(&run).await.generation.is_some());
}

/// Checkpoints and what was read of answers are kept until the run is over, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_would_have_gone_on_from_is_deleted_when_it_is_over() {
    let company = Company::new(160).await;
    let parts = |run: &Run| run_folder(&company.workshop.config.data_dir, &run.id).join("reward");
    let first = company.run(Stage::Reward).await;
    let worker = Worker::new(Arc::clone(&company.workshop.ledger), "w".into(), CancellationToken::new());
    let work = async |run: &Run, reporter: &Reporter| improve(&company.workshop, run, reporter).await;
    worker.work_once(Some(&first.id), &work).await.unwrap().unwrap();
    assert!(parts(&first).is_dir());
    let (second, third) = (company.run(Stage::Reward).await, company.run(Stage::Reward).await);
    company.work(&second).await;
    assert!(!parts(&first).exists() && parts(&second).is_dir());
    // The second one's end was never recorded.
    company.work(&third).await;
    assert!(parts(&second).is_dir());
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
