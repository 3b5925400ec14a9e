//! The served generation is replaced while everybody asks: nobody's answer fails or mixes two of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use attune::admission::Admission;
use attune::chat::{AnswerEvent, Chat, Question, answer};
use attune::config::Config;
use attune::domain::{Groups, Identity, Message, Role};
use attune::generation::{Generator, ScriptedGenerator, Slot};
use attune::live::Watch;
use attune::prompt::PromptBuilder;
use attune::registry::Registry;
use attune::retrieval::Library;
use attune::scoring::Scorer;
use attune::telemetry::Metrics;
use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::harness::{PATIENCE, Setup, TestApp, asking};
use crate::loader::{Scripts, about, publish};

const ANSWERS: usize = 100;
/// The first, and five swaps; the last ones are rollbacks to what was served before.
const SERVED: [&str; 6] = ["gen-a", "gen-b", "gen-c", "gen-d", "gen-b", "gen-a"];

async fn chat(folder: &std::path::Path) -> Arc<Chat> {
    let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
    config.admission.max_in_flight = ANSWERS;
    config.admission.per_user_in_flight = ANSWERS;
    config.admission.per_user_per_minute = 0;
    let metrics = Metrics::new().unwrap();
    let ledger = attune::ledger::open(None, folder).await.unwrap();
    let registry = Registry::open(folder, Arc::clone(&ledger)).await.unwrap();
    let config = Arc::new(config);
    Arc::new(Chat {
        watch: Arc::new(Watch::new(b"key")),
        scorer: Arc::new(Scorer::new(registry, &config, None, metrics.clone())),
        ledger,
        library: Arc::new(Library::open(&folder.join("index"), &config.retrieval, None).unwrap()),
        slot: Arc::new(Slot::empty(metrics.clone())),
        admission: Arc::new(Admission::new(&config.admission, metrics.clone())),
        prompts: PromptBuilder::new(&config.prompt),
        metrics,
        tasks: TaskTracker::new(),
        runtime: tokio::runtime::Handle::current(),
        config,
    })
}

/// Serves a generation that says its own name, again and again.
async fn serve(chat: &Chat, id: &'static str) -> Weak<dyn Generator> {
    let says = format!("{id} ").repeat(20);
    let generator = ScriptedGenerator::new(id, move |_, _| says.clone()).pausing(Duration::from_millis(2));
    let generator: Arc<dyn Generator> = Arc::new(generator);
    let weak = Arc::downgrade(&generator);
    let prepared = chat.slot.prepare(generator).await.unwrap();
    chat.slot.commit(prepared);
    weak
}

/// Asks once and returns which generation answered; the answer must be all its own.
async fn ask(chat: &Arc<Chat>) -> String {
    let who =
        Identity { user: "ada".into(), groups: Groups::new(), role: Role::Employee, sees_everything: false };
    let question = Question {
        messages: vec![Message::user("Who are you?")],
        retrieve: Some(false),
        ..Question::default()
    };
    let mut events = answer(chat, &who, question).await.unwrap();
    let (mut streamed, mut record) = (String::new(), None);
    while let Some(event) = events.next().await {
        match event.unwrap() {
            AnswerEvent::Started(_) => {}
            AnswerEvent::Delta { text, .. } => streamed.push_str(&text),
            AnswerEvent::Finished(finished) => record = Some(finished),
        }
    }
    let record = record.expect("an answer has an end");
    assert_eq!(streamed.trim_end(), record.answer.trim_end());
    let words: Vec<_> = streamed.split_whitespace().collect();
    assert_eq!(words, vec![record.generation.as_str(); 20]);
    record.generation.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_finish_on_the_generation_they_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let chat = chat(folder.path()).await;
    let mut served = vec![serve(&chat, SERVED[0]).await];
    // Another question every few answers' time, so that each swap meets some that are half-way.
    let asking = futures::stream::iter(0..ANSWERS).map(|_| ask(&chat)).buffer_unordered(10);
    let mut asking = std::pin::pin!(asking);
    let (mut answered, mut by) = (0, BTreeSet::new());
    while let Some(generation) = asking.next().await {
        by.insert(generation);
        answered += 1;
        if answered % (ANSWERS / SERVED.len()) == 0 && served.len() < SERVED.len() {
            served.push(serve(&chat, SERVED[served.len()]).await);
        }
    }
    assert_eq!((answered, by.len()), (ANSWERS, 4), "every generation answered: {by:?}");

    let current = served.pop().unwrap();
    let freed = async {
        while served.iter().any(|generator| generator.strong_count() > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("replaced generations are freed");
    assert!(current.strong_count() > 0);
    assert_eq!(chat.generations().len(), 1);
    // Metrics know the one that is left, and nothing of those that are gone.
    let metrics = chat.metrics.render().unwrap();
    let lines: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains("generation=\"gen-") && line.contains("attune_generation"))
        .collect();
    assert_eq!(
        lines,
        [
            r#"attune_generation_in_flight{generation="gen-a"} 0"#,
            r#"attune_generation_info{generation="gen-a"} 1"#
        ]
    );
    chat.ledger.close().await;
}

/// Streams over HTTP, and how many are in progress at once.
const STREAMS: usize = 500;
const AT_ONCE: usize = 16;
/// Swaps meanwhile: four generations are promoted in turn, and every other time it is gone back.
const SWAPS: usize = 10;

/// Streams one answer and returns which generation gave it; every part of it must be that one's.
async fn stream(app: &TestApp) -> String {
    let mut body = asking("Who are you?");
    (body["stream"], body["attune"]) = (json!(true), json!({"retrieve": false}));
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    let (mut said, mut by, mut ended) = (String::new(), BTreeSet::new(), false);
    for event in crate::harness::events(&text) {
        assert!(event["error"].is_null(), "{event}");
        let choice = &event["choices"][0];
        said.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        by.extend(event["attune"]["generation"].as_str().map(str::to_owned));
        by.extend(choice["delta"]["attune"]["generation"].as_str().map(str::to_owned));
        ended |= event == "[DONE]";
    }
    assert!(ended, "{text}");
    assert_eq!(by.len(), 1, "{text}");
    let words: BTreeSet<_> = said.split_whitespace().collect();
    assert_eq!((words.len(), said.split_whitespace().count()), (1, WORDS), "{said}");
    let by = by.pop_first().unwrap();
    assert!(words.contains(by.as_str()), "{by} said {said}");
    by
}

/// Words of each answer.
const WORDS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_over_ten_swaps_fail_and_mix_in_no_case() {
    let loader = Scripts { pause: Duration::from_millis(2), says: Some(|id| format!("{id} ").repeat(WORDS)) };
    let setup = Setup { loader: Some(Arc::new(loader)), ..Setup::default() }.config(|config| {
        config.admission.max_in_flight = AT_ONCE;
        config.admission.max_waiting = STREAMS;
        config.admission.per_user_in_flight = STREAMS;
    });
    let app = setup.start().await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(publish(app.folder(), &format!("weights {n}"), about()).await.to_string());
    }
    // Damaged: asked for in the middle of everything, it must change nothing.
    let damaged = publish(app.folder(), "damaged", about()).await.to_string();
    let weights = app.folder().join("generations").join(&damaged).join(attune::registry::POLICY_FILE);
    std::fs::write(weights, "dam").unwrap();

    let streams = futures::stream::iter(0..STREAMS).map(|_| stream(&app)).buffer_unordered(AT_ONCE);
    let mut streams = std::pin::pin!(streams);
    let (mut answered, mut swapped, mut by) = (0, 0, BTreeSet::new());
    let mut swap = std::pin::pin!(async {
        for n in 0..SWAPS {
            app.eventually("answers are in the making", async || app.metrics.queue_running.get() > 2).await;
            let path = match n {
                n if n % 3 == 2 => "/v1/rollback".to_owned(),
                n => format!("/v1/generations/{}/promote", ids[n % ids.len()]),
            };
            let (status, body) = app.post(&path, json!({})).await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            let (status, body) = app.post(&format!("/v1/generations/{damaged}/promote"), json!({})).await;
            assert_eq!(status, StatusCode::CONFLICT, "{body}");
        }
    });
    let mut swapping = true;
    while answered < STREAMS {
        tokio::select! {
            generation = streams.next() => {
                by.insert(generation.unwrap());
                answered += 1;
            }
            () = &mut swap, if swapping => {
                swapping = false;
                swapped = SWAPS;
            }
        }
    }
    assert_eq!(swapped, SWAPS, "every swap met answers in the making");
    assert!(by.len() >= 4, "{by:?}");
    let outcomes =
        ["answered", "failed", "cancelled"].map(|o| app.metrics.answers.with_label_values(&[o]).get());
    assert_eq!(outcomes, [STREAMS as u64, 0, 0]);
    let loaded = async || app.get("/v1/models").await.1["data"].as_array().unwrap().len();
    app.eventually("what is not served has left the memory", async || loaded().await == 2).await;
}
