//! The reward model, served: scores and rankings, which answer is shown, and which two are offered.

use std::sync::Arc;

use async_trait::async_trait;
use attune::domain::{GenerationId, GenerationKind, Message, Millis, Run, RunRequest, RunState, Stage, now};
use attune::generation::{Generator, ScriptedGenerator};
use attune::jobs::REQUESTER;
use attune::registry::{About, Manifest, REWARD_HEAD, Registry};
use attune::reward::{self, Extractor, Outcome, Pair, Preferences, Settings};
use attune::swap::{Loader, SwapError};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, check_error};
use crate::loader::{about, base, publish};

/// People who like answers that cite.
fn liking_citations() -> Preferences {
    let pair = |n: usize| {
        let (fact, room) = (format!("Team {n} sits in room {}.", 100 + n), 100 + n);
        let cited = format!("Team {n} sits in room {room} [1].");
        Pair {
            id: n.to_string(),
            cluster: format!("team {n}"),
            held_out: n.is_multiple_of(10),
            conversation: vec![Message::user(format!("Where does team {n} sit?"))],
            passages: vec![format!("Rooms. {fact}")],
            chosen: cited,
            rejected: fact,
            preference: 1.0,
            margin: 0.0,
            user: Some(format!("person {}", n % 7)),
            source: "vote".into(),
            created: n as i64,
        }
    };
    Preferences { pairs: (0..160).map(pair).collect(), thumbs: Vec::new() }
}

/// Publishes a reward model beside the running server, as a trainer does, and makes it the active one.
async fn publish_reward(app: &TestApp) -> GenerationId {
    let scratch = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let trained =
        reward::train(&liking_citations(), &Extractor::default(), (&settings, scratch.path()), |_| true);
    let Outcome::Trained(trained) = trained.unwrap() else { unreachable!("160 clear choices are enough") };
    let ledger = attune::ledger::open(None, app.folder()).await.unwrap();
    let registry = Registry::open(app.folder(), Arc::clone(&ledger)).await.unwrap();
    let draft = registry.draft().await.unwrap();
    trained.model.save(&draft.path().join(REWARD_HEAD)).unwrap();
    let metrics = json!({"accuracy": 0.9, "accuracy_interval": [0.8, 0.95], "pairs": 160, "thumbs": 0});
    let about = About { kind: GenerationKind::Reward, parent: None, merged_tensors: 0, metrics, ..about() };
    let id = registry.publish(draft, about).await.unwrap().id;
    registry.promote(&id, None).await.unwrap();
    ledger.close().await;
    id
}

const QUESTION: &str = "Where does team 5 sit?";
const PLAIN: &str = "Team 5 sits in room 105.";
const CITED: &str = "Team 5 sits in room 105 [1].";

fn two_answers() -> Value {
    json!({"text_1": QUESTION, "text_2": [PLAIN, CITED], "passages": ["Rooms. Team 5 sits in room 105."]})
}

#[tokio::test]
async fn without_a_reward_model_the_caller_is_told_how_to_get_one() {
    let app = TestApp::start().await;
    let refused = app.post("/v1/score", two_answers()).await;
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("attune run reward"), "{refused:?}");
    assert_eq!(check_error(refused, 404, "model_not_found").as_deref(), Some("model"));
}

#[tokio::test]
async fn an_accepted_reward_model_scores_at_once_and_the_same_alone_in_a_batch_and_in_the_trainer() {
    let app = TestApp::start().await;
    let id = publish_reward(&app).await;
    let (status, scored) = app.post("/v1/score", two_answers()).await;
    assert_eq!((status, &scored["model"]), (StatusCode::OK, &json!(id)), "{scored}");
    let score = |body: &Value, at: usize| body["data"][at]["score"].as_f64().unwrap();
    assert!(score(&scored, 1) > score(&scored, 0), "{scored}");
    assert!((0.0..=100.0).contains(&scored["data"][1]["percentile"].as_f64().unwrap()));

    let passages = json!([["Rooms. Team 5 sits in room 105."]]);
    let turns = json!([{"role": "user", "content": QUESTION}, {"role": "assistant", "content": CITED}]);
    let alone =
        app.post("/v1/score", json!({"conversations": [turns], "passages": passages, "model": id})).await.1;
    assert!((score(&alone, 0) - score(&scored, 1)).abs() < 1e-6, "{alone}");
    let ranked =
        app.post("/v1/rerank", json!({"query": QUESTION, "documents": [PLAIN, {"text": CITED}], "top_n": 1, "passages": ["Rooms. Team 5 sits in room 105."]}));
    let ranked = ranked.await.1;
    assert_eq!(ranked["results"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&ranked["results"][0]["index"], &ranked["results"][0]["document"]["text"]),
        (&json!(1), &json!(CITED))
    );
    app.eventually("the gauges tell of it", async || app.metrics.reward_signals.get() == 160).await;
}

#[tokio::test]
async fn what_can_not_be_scored_is_refused_by_name() {
    let app = TestApp::start().await;
    publish_reward(&app).await;
    for (body, field) in [
        (json!({"text_1": QUESTION, "text_2": ["fine", ""]}), "text_2"),
        (json!({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}), "text_1"),
        (json!({"text_1": QUESTION, "text_2": ["a", "b"], "passages": [["c"]]}), "passages"),
        (json!({"messages": [{"role": "user", "content": "Where?"}]}), "messages"),
    ] {
        assert_eq!(
            check_error(app.post("/v1/score", body).await, 400, "invalid_request").as_deref(),
            Some(field)
        );
    }
    let unknown = json!({"text_1": "a", "text_2": "b", "model": "gen-0123456789abcdef"});
    check_error(app.post("/v1/score", unknown).await, 404, "model_not_found");
    check_error(app.post("/v1/rerank", json!({"query": "a", "documents": []})).await, 400, "invalid_request");
}

/// Of three answers with seeds in a row, one cites.
fn one_of_three_cites() -> ScriptedGenerator {
    ScriptedGenerator::new(
        "gen-test",
        |_, seed| if seed.is_multiple_of(3) { CITED.into() } else { PLAIN.into() },
    )
}

#[tokio::test]
async fn the_best_of_several_answers_is_shown() {
    let setup = Setup::default().generator(one_of_three_cites());
    let app = setup.config(|config| config.generation.best_of = 3).start().await;
    app.put("/v1/documents/rooms", json!({"text": "# Rooms\n\nTeam 5 sits in room 105."})).await;
    let asking = json!({"messages": [{"role": "user", "content": QUESTION}]});
    publish_reward(&app).await;
    let (status, body) = app.post("/v1/chat/completions", asking.clone()).await;
    assert_eq!(
        (status, &body["choices"][0]["message"]["content"]),
        (StatusCode::OK, &json!(CITED)),
        "{body}"
    );
    // Who asks for one drawn in a certain way gets that one.
    let mut seeded = asking;
    seeded["seed"] = json!(1);
    let (_, body) = app.post("/v1/chat/completions", seeded).await;
    assert_eq!(body["choices"][0]["message"]["content"], json!(PLAIN), "{body}");
}

#[tokio::test]
async fn with_a_reward_model_two_different_answers_are_chosen_from_more() {
    let generator = ScriptedGenerator::new("gen-test", |_, seed| match seed % 3 {
        0 => PLAIN.into(),
        1 => CITED.into(),
        _ => "I do not know, ask the front desk.".into(),
    });
    let app = Setup::default().generator(generator).start().await;
    app.put("/v1/documents/rooms", json!({"text": "# Rooms\n\nTeam 5 sits in room 105."})).await;
    publish_reward(&app).await;
    let asking = json!({"messages": [{"role": "user", "content": QUESTION}]});
    let (status, pair) = app.post("/v1/comparisons", asking).await;
    assert_eq!(status, StatusCode::OK, "{pair}");
    assert_ne!(pair["left"]["content"], pair["right"]["content"]);
    // What is offered is what was recorded.
    for side in ["left", "right"] {
        let id = pair[side]["id"].as_str().unwrap();
        let (_, record) = app.get(&format!("/v1/answers/{id}")).await;
        assert_eq!(record["answer"], pair[side]["content"], "{record}");
    }
}

/// Every generation says its own name, with three seeds in a row in three ways.
#[derive(Debug)]
struct Names;

#[async_trait]
impl Loader for Names {
    async fn base(&self) -> Result<Manifest, SwapError> {
        Ok(base())
    }

    async fn load(&self, _: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError> {
        let id = manifest.id.to_string();
        let name = id.clone();
        Ok(Arc::new(ScriptedGenerator::new(&id, move |_, seed| format!("{name} says {} [1].", seed % 3))))
    }
}

/// Else what people choose while a generation is watched would say nothing about it.
#[tokio::test]
async fn while_two_generations_are_compared_each_says_one_of_the_answers() {
    let setup = Setup { loader: Some(Arc::new(Names)), ..Setup::default() };
    let app = setup.start().await;
    app.put("/v1/documents/rooms", json!({"text": "# Rooms\n\nTeam 5 sits in room 105."})).await;
    publish_reward(&app).await;
    let ledger = attune::ledger::open(None, app.folder()).await.unwrap();
    let request = RunRequest { promote: true, ..RunRequest::new(Stage::Improve) };
    let run = Run { state: RunState::Succeeded, ..Run::queued(request, REQUESTER, now()) };
    ledger.put_run(&run).await.unwrap();
    ledger.close().await;
    let made = About { run: Some(run.id.to_string()), created: Millis(now().0 + 1), ..about() };
    let id = publish(app.folder(), "weights", made).await;
    let (status, body) = app.post(&format!("/v1/generations/{id}/promote"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    app.eventually("it is watched", async || app.metrics.live_watched.get() == 1).await;
    let asking = json!({"messages": [{"role": "user", "content": QUESTION}]});
    let (status, pair) = app.post("/v1/comparisons", asking).await;
    assert_eq!(status, StatusCode::OK, "{pair}");
    let (_, log) = app.get("/v1/answers").await;
    let said: Vec<(&str, &str)> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["generation"].as_str().unwrap(), row["answer"].as_str().unwrap()))
        .collect();
    assert_eq!(said.len(), 2);
    assert_ne!(said[0].0, said[1].0);
    assert!(said.iter().all(|(generation, answer)| answer.starts_with(generation)), "{said:?}");
}
