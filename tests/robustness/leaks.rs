//! Many chats, some of them left in the middle: nothing stays behind.

use std::time::Duration;

use attune::generation::ScriptedGenerator;
use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Setup, TestApp, asking};

const CHATS: usize = 300;
/// Of them, those whose reader leaves after the first words.
const LEFT: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_leave_nothing_behind() {
    // Far longer than anybody waits: an answer that is left can not have ended by itself.
    let answer = "word ".repeat(1000);
    let generator =
        ScriptedGenerator::new("gen-test", move |_, _| answer.clone()).pausing(Duration::from_millis(20));
    let setup = Setup::default().generator(generator).config(|config| {
        config.admission.max_in_flight = 32;
        config.admission.max_waiting = CHATS;
        config.admission.per_user_in_flight = CHATS;
    });
    let app = setup.start().await;
    futures::stream::iter(0..CHATS)
        .for_each_concurrent(64, async |n| {
            if n % (CHATS / LEFT) == 0 {
                leaves(&app).await;
            } else {
                stays(&app, n % 2 == 0).await;
            }
        })
        .await;
    let in_flight = app.metrics.generation_in_flight.with_label_values(&["gen-test"]);
    app.eventually("every gauge is back at zero", async || {
        let metrics = &app.metrics;
        let http = [metrics.http_in_flight.get(), in_flight.get()];
        (http, metrics.queue_running.get(), metrics.queue_waiting.get()) == ([0, 0], 0, 0)
    })
    .await;
    let outcome = |outcome| app.metrics.answers.with_label_values(&[outcome]).get();
    assert_eq!((outcome("answered"), outcome("cancelled")), ((CHATS - LEFT) as u64, LEFT as u64));
    let (_, recorded) = app.get("/v1/answers?limit=1000").await;
    assert_eq!(recorded["data"].as_array().unwrap().len(), CHATS);
}

async fn stays(app: &TestApp, streams: bool) {
    let mut body = asking("Where?");
    (body["stream"], body["max_tokens"]) = (json!(streams), json!(5));
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.text().await.unwrap().contains("word"));
}

async fn leaves(app: &TestApp) {
    let mut body = asking("Where?");
    (body["stream"], body["max_tokens"]) = (json!(true), json!(1000));
    let mut response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    while !String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()).contains("word") {}
}
