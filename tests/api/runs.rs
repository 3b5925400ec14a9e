//! Training runs: asked for by operators, read by curators, cancelled while they wait.

use attune::config::WorkerMode;
use attune::domain::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, answer, check_error};

/// Nobody works on runs here: what works has tests of its own.
async fn start() -> TestApp {
    Setup::default().config(|config| config.training.worker = WorkerMode::Manual).start().await
}

#[tokio::test]
async fn a_run_is_queued_read_and_cancelled() {
    let app = start().await;
    let request = json!({"stage": "improve", "promote": true, "sft": {"rank": 8, "learning_rate": 1e-4}});
    let (status, run) = app.post("/v1/runs", request).await;
    assert_eq!(
        (status, &run["state"], &run["stage"]),
        (StatusCode::CREATED, &json!("queued"), &json!("improve"))
    );
    assert_eq!((&run["request"]["promote"], &run["requested_by"]), (&json!(true), &json!("local")));
    // What was left out is decided now, so that the run does the same whenever it goes on.
    let sft = &run["request"]["sft"];
    assert_eq!((&sft["rank"], &sft["learning_rate"], &sft["epochs"]), (&json!(8), &json!(1e-4), &json!(2)));

    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await, (StatusCode::OK, run.clone()));
    assert_eq!(app.get("/v1/runs").await.1, json!({"data": [run], "next": null}));

    let (status, cancelled) = app.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!((status, &cancelled["state"]), (StatusCode::OK, &json!("cancelled")));
    check_error(app.post(&format!("{path}/cancel"), json!({})).await, 409, "conflict");
    assert_eq!(app.get(&path).await.1["state"], "cancelled");
    check_error(app.get("/v1/runs/run-none").await, 404, "not_found");
    check_error(app.post("/v1/runs/run-none/cancel", json!({})).await, 404, "not_found");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_by_field() {
    let app = start().await;
    for (body, param) in [
        (json!({}), "stage"),
        (json!({"stage": "none"}), "stage"),
        (json!({"stage": "policy", "policy": {"steps": 0}}), "policy.steps"),
        (json!({"stage": "improve", "policy": {"algorithm": "magic"}}), "policy.algorithm"),
        (json!({"stage": "sft", "rank": 8}), "rank"),
        (json!({"stage": "sft", "sft": {"rank": 0}}), "sft.rank"),
        (json!({"stage": "sft", "sft": {"dropout": 1.5}}), "sft.dropout"),
        (json!({"stage": "sft", "sft": {"epochs": "two"}}), "sft.epochs"),
    ] {
        let found = check_error(app.post("/v1/runs", body.clone()).await, 400, "invalid_request");
        assert_eq!(found.as_deref(), Some(param), "{body}");
    }
    let (_, body) = app.post("/v1/runs", json!({"stage": "none"})).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`sft`") && message.contains("`improve`"), "{message}");
    assert_eq!(app.get("/v1/runs").await.1["data"], json!([]));
}

#[tokio::test]
async fn operators_start_and_cancel_curators_read_employees_see_nothing() {
    let app = Setup::default()
        .config(|config| config.training.worker = WorkerMode::Manual)
        .people(&[("ada", &[], Role::Employee), ("cleo", &[], Role::Curator), ("olga", &[], Role::Operator)])
        .start()
        .await;
    let post = async |person: usize, path: &str| {
        answer(app.by(person, Method::POST, path).json(&json!({"stage": "sft"}))).await
    };
    check_error(post(0, "/v1/runs").await, 403, "forbidden");
    check_error(post(1, "/v1/runs").await, 403, "forbidden");
    let (_, run) = post(2, "/v1/runs").await;
    assert_eq!(run["requested_by"], "olga");
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    for path in ["/v1/runs", &path] {
        check_error(answer(app.by(0, Method::GET, path)).await, 403, "forbidden");
        assert_eq!(answer(app.by(1, Method::GET, path)).await.0, StatusCode::OK);
    }
    check_error(post(1, &format!("{path}/cancel")).await, 403, "forbidden");
    assert_eq!(post(2, &format!("{path}/cancel")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn runs_are_listed_page_by_page_newest_first() {
    let app = start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(app.post("/v1/runs", json!({"stage": "sft"})).await.1["id"].clone());
    }
    ids.reverse();
    let (mut listed, mut before) = (Vec::new(), String::new());
    loop {
        let (_, page) = app.get(&format!("/v1/runs?limit=2{before}")).await;
        listed.extend(page["data"].as_array().unwrap().iter().map(|run| run["id"].clone()));
        match &page["next"] {
            Value::String(next) => before = format!("&before={next}"),
            _ => break,
        }
    }
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn runs_are_counted_for_operators() {
    let app = start().await;
    app.post("/v1/runs", json!({"stage": "sft"})).await;
    app.eventually("the run is counted", async || {
        let text = app.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        text.contains("attune_runs{stage=\"sft\",state=\"queued\"} 1")
    })
    .await;
}
