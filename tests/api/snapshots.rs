//! What programs rely on: the OpenAPI document, error bodies, metric names.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{TestApp, answer, asking};

#[tokio::test]
async fn the_openapi_document() {
    let app = TestApp::start().await;
    let (status, mut document) = app.get("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    document["info"]["version"] = json!("[version]");
    insta::assert_json_snapshot!(document);
}

#[tokio::test]
async fn error_bodies() {
    let app = TestApp::start().await;
    let mut bodies = Vec::new();
    let mut note =
        |what: &str, (status, body): (StatusCode, Value)| bodies.push(json!([what, status.as_u16(), body]));
    note("unknown address", app.get("/v1/nowhere").await);
    note("wrong method", answer(app.request(Method::DELETE, "/v1/models")).await);
    note("no messages", app.post("/v1/chat/completions", json!({})).await);
    note(
        "unknown model",
        app.post("/v1/chat/completions", {
            let mut body = asking("Where?");
            body["model"] = json!("gpt-4o");
            body
        })
        .await,
    );
    note("no such answer", app.get("/v1/answers/none").await);
    note("other name", answer(app.request(Method::GET, "/v1/me").header("host", "rebound.example")).await);
    note("bad query", app.get("/v1/search?q=x&k=many").await);
    insta::assert_json_snapshot!(bodies);
}

#[tokio::test]
async fn metric_names_and_labels() {
    let app = TestApp::start().await;
    app.knows_boston().await;
    let id = app.ask("Where is HR?").await["id"].as_str().unwrap().to_owned();
    app.put(&format!("/v1/feedback/{id}"), json!({"rating": "up"})).await;
    app.get("/no/such/address").await;
    let response = app.request(Method::GET, "/metrics").send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    let ours =
        text.lines().filter(|line| line.starts_with("attune_http") || line.starts_with("# TYPE attune_"));
    let without_buckets = ours.filter(|line| !line.contains("_bucket{") && !line.contains("_sum{"));
    insta::assert_snapshot!(without_buckets.collect::<Vec<_>>().join("\n"));
    assert!(!text.contains("/no/such/address") && !text.contains("route=\"/readyz\""), "{text}");
    assert!(text.contains("attune_feedback_total{kind=\"up\"} 1"), "{text}");
}
