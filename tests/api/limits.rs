//! Too many questions, a client that goes away, a server that stops.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;

use attune::generation::ScriptedGenerator;

use crate::harness::{Setup, TestApp, asking, check_error, events};

/// A model that takes its time: as long as it must be for a test to do something meanwhile, for nobody waits it out.
fn slow() -> ScriptedGenerator {
    let answer = "word ".repeat(1000);
    ScriptedGenerator::new("gen-test", move |_, _| answer.clone()).pausing(Duration::from_millis(20))
}

async fn stream(app: &TestApp, max_tokens: u32) -> reqwest::Response {
    let mut body = asking("Where?");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(max_tokens);
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

#[tokio::test]
async fn one_person_may_not_have_too_many_questions_open() {
    let setup = Setup::default().generator(slow()).config(|config| config.admission.per_user_in_flight = 1);
    let app = setup.start().await;
    let open = stream(&app, 1000).await;
    let response =
        app.request(Method::POST, "/v1/chat/completions").json(&asking("Me too?")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    let body = response.json().await.unwrap();
    check_error((StatusCode::TOO_MANY_REQUESTS, body), 429, "rate_limit_exceeded");
    assert_eq!(app.get("/v1/answers").await.0, StatusCode::OK, "what makes no answer is not limited");
    drop(open);
}

#[tokio::test]
async fn a_full_queue_turns_questions_away() {
    let setup = Setup::default().generator(slow()).config(|config| {
        config.admission.max_in_flight = 1;
        config.admission.max_waiting = 0;
    });
    let app = setup.start().await;
    let open = stream(&app, 1000).await;
    check_error(app.post("/v1/chat/completions", asking("Me too?")).await, 429, "queue_full");
    drop(open);
    app.eventually("the place is free", async || {
        let mut body = asking("Now?");
        body["max_tokens"] = json!(1);
        app.post("/v1/chat/completions", body).await.0 == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn a_waiting_stream_is_kept_alive_by_comments() {
    let setup = Setup::default().generator(slow()).config(|config| {
        config.admission.max_in_flight = 1;
        config.server.keep_alive_seconds = 1;
    });
    let app = setup.start().await;
    let _open = stream(&app, 1000).await;
    let mut waiting = stream(&app, 1).await.bytes_stream();
    let first = waiting.next().await.unwrap().unwrap();
    assert!(first.starts_with(b":"), "{first:?}");
}

#[tokio::test]
async fn an_answer_stops_when_its_reader_goes() {
    let app = Setup::default().generator(slow()).start().await;
    let cancelled = || app.metrics.answers.with_label_values(&["cancelled"]).get();
    let mut open = stream(&app, 1000).await.bytes_stream();
    open.next().await.unwrap().unwrap();
    drop(open);
    app.eventually("the stream's answer is cancelled", async || {
        cancelled() == 1 && app.metrics.queue_running.get() == 0
    })
    .await;

    let mut body = asking("Where?");
    body["max_tokens"] = json!(1000);
    let request = app.request(Method::POST, "/v1/chat/completions").json(&body);
    let asking = tokio::spawn(request.send());
    app.eventually("it is being answered", async || app.metrics.queue_running.get() == 1).await;
    asking.abort();
    app.eventually("the whole answer is cancelled too", async || cancelled() == 2).await;
    let (_, log) = app.get("/v1/answers").await;
    let reasons: Vec<_> = log["data"].as_array().unwrap().iter().map(|row| &row["finish_reason"]).collect();
    assert_eq!(reasons, [&json!("cancelled"), &json!("cancelled")]);
}

#[tokio::test]
async fn a_question_that_waits_is_given_up_with_its_reader() {
    let setup = Setup::default().generator(slow()).config(|config| {
        config.admission.max_in_flight = 1;
        config.admission.per_user_in_flight = 2;
        config.admission.queue_seconds = 600;
        config.server.keep_alive_seconds = 1;
    });
    let app = setup.start().await;
    let open = stream(&app, 1000).await;
    let waiting = stream(&app, 1).await;
    check_error(app.post("/v1/chat/completions", asking("Me too?")).await, 429, "rate_limit_exceeded");
    drop(waiting);
    app.eventually("its place in the person's limit is free", async || {
        let mut third = asking("Now?");
        third["stream"] = json!(true);
        let sent = app.request(Method::POST, "/v1/chat/completions").json(&third).send().await.unwrap();
        sent.status() == StatusCode::OK
    })
    .await;
    assert_eq!(app.get("/v1/answers").await.1["data"], json!([]), "nothing was made, so nothing is recorded");
    drop(open);
}

#[tokio::test]
async fn a_stopping_server_finishes_open_streams_and_takes_no_new_questions() {
    let setup = Setup::default().generator(slow()).config(|config| config.server.drain_delay_seconds = 1);
    let app = setup.start().await;
    let open = stream(&app, 150).await;
    app.stop.cancel();
    app.eventually("readiness says so", async || app.status("/readyz").await != Some(StatusCode::OK)).await;
    app.eventually("questions are turned away", async || {
        let asked = app.request(Method::POST, "/v1/chat/completions").json(&asking("Still there?"));
        asked.send().await.map_or(true, |response| response.status() == StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    let frames = events(&open.text().await.unwrap());
    assert_eq!(frames.last().unwrap(), "[DONE]", "the open stream was cut off");
    assert_eq!(frames[frames.len() - 2]["choices"][0]["finish_reason"], "length");
}
