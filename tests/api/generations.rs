//! Generations over HTTP: listed, promoted and rolled back while people ask.

use std::sync::Arc;

use attune::domain::{Groups, Role};
use attune::registry::{About, POLICY_FILE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, answer, asking, check_error};
use crate::loader::{BASE, BASE_SAYS, Scripts, about, publish};

async fn start() -> TestApp {
    let setup = Setup { loader: Some(Arc::new(Scripts::default())), ..Setup::default() };
    let app = setup.start().await;
    app.knows_boston().await;
    app
}

async fn promote(app: &TestApp, id: &str, body: Value) -> (StatusCode, Value) {
    app.post(&format!("/v1/generations/{id}/promote"), body).await
}

/// What is answered now, and by whom.
async fn ask(app: &TestApp) -> (String, String) {
    let body = app.ask("Where is HR?").await;
    let message = &body["choices"][0]["message"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&message["attune"]["generation"]), text(&message["content"]))
}

#[tokio::test]
async fn a_published_generation_is_listed_promoted_and_rolled_back() {
    let app = start().await;
    let id = publish(app.folder(), "tuned [1].", about()).await.to_string();
    let (status, list) = app.get("/v1/generations?kind=policy&state=candidate").await;
    assert_eq!((status, list["data"].as_array().unwrap().len()), (StatusCode::OK, 1), "{list}");
    assert_eq!(list["data"][0]["id"], json!(id));
    assert_eq!(ask(&app).await, (BASE.into(), BASE_SAYS.into()));

    let (status, promoted) = promote(&app, &id, json!({"expected": BASE})).await;
    assert_eq!(status, StatusCode::OK, "{promoted}");
    assert_eq!([&promoted["state"], &promoted["served"]], [&json!("active"), &json!(true)]);
    assert_eq!(ask(&app).await, (id.clone(), "tuned [1].".into()), "at once");
    let (_, models) = app.get("/v1/models").await;
    assert_eq!(models["data"][1]["id"], json!(id));
    let (_, one) = app.get(&format!("/v1/generations/{id}")).await;
    assert_eq!(one["metrics"]["f1"]["after"], json!(0.451));
    assert_eq!([&one["parent"], &one["lineage"]["training"]["rank"]], [&json!(BASE), &json!(16)]);
    assert!(one["report"].as_str().unwrap().contains("went **up**") && one["failure"].is_null(), "{one}");

    let (status, back) = answer(app.request(Method::POST, "/v1/rollback")).await;
    assert_eq!((status, &back["id"]), (StatusCode::OK, &json!(BASE)), "{back}");
    assert_eq!(ask(&app).await.0, BASE);
    let (_, forth) = app.post("/v1/rollback", json!({"kind": "policy"})).await;
    assert_eq!((&forth["id"], ask(&app).await.0), (&json!(id), id.clone()));
}

#[tokio::test]
async fn a_promotion_that_can_not_be_is_refused_and_nothing_changes() {
    let app = start().await;
    let missing = "gen-0000000000000000";
    check_error(promote(&app, missing, json!({})).await, 404, "not_found");
    check_error(app.get(&format!("/v1/generations/{missing}")).await, 404, "not_found");
    check_error(app.post("/v1/rollback", json!({})).await, 409, "conflict");
    check_error(app.post("/v1/rollback", json!({"kind": "reward"})).await, 409, "conflict");
    let id = publish(app.folder(), "tuned [1].", about()).await.to_string();
    let param = check_error(promote(&app, &id, json!({"expected": id})).await, 409, "conflict");
    assert_eq!(param.as_deref(), Some("expected"));
    let param = check_error(promote(&app, &id, json!({"expect": BASE})).await, 400, "invalid_request");
    assert_eq!(param.as_deref(), Some("expect"));
    check_error(app.get("/v1/generations?state=lost").await, 400, "invalid_request");

    let weights = app.folder().join("generations").join(&id).join(POLICY_FILE);
    std::fs::write(weights, "tuner [1].").unwrap();
    let (status, body) = promote(&app, &id, json!({})).await;
    assert!(body["error"]["message"].as_str().unwrap().contains("SHA-256 of policy.gguf"), "{status} {body}");
    check_error((status, body), 409, "conflict");
    assert_eq!(ask(&app).await.0, BASE);
    let (_, one) = app.get(&format!("/v1/generations/{id}")).await;
    assert_eq!(one["state"], json!("candidate"));
    assert!(one["failure"]["reason"].as_str().unwrap().contains("damaged"), "{one}");
    assert_eq!(app.metrics.verification_failures.get(), 1);
}

#[tokio::test]
async fn a_pointer_moved_by_another_process_is_followed() {
    let app = start().await;
    let id = publish(app.folder(), "tuned [1].", about()).await;
    let ledger = attune::ledger::open(None, app.folder()).await.unwrap();
    let registry = attune::registry::Registry::open(app.folder(), Arc::clone(&ledger)).await.unwrap();
    registry.promote(&id, None).await.unwrap();
    app.eventually("it is served", async || ask(&app).await.0 == id.as_str()).await;
    ledger.close().await;
}

#[tokio::test]
async fn a_loaded_generation_can_be_pinned_and_an_unloaded_one_can_not() {
    let app = start().await;
    let id = publish(app.folder(), "tuned [1].", about()).await.to_string();
    let pinned = |id: &str| {
        let mut body = asking("Where is HR?");
        body["attune"] = json!({"generation": id});
        body
    };
    check_error(app.post("/v1/chat/completions", pinned(&id)).await, 404, "model_not_found");
    promote(&app, &id, json!({})).await;
    let (status, body) = app.post("/v1/chat/completions", pinned(&id)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let gone = async || {
        let (status, _) = app.post("/v1/chat/completions", pinned(BASE)).await;
        status == StatusCode::NOT_FOUND
    };
    app.eventually("the old one has left the memory", gone).await;
}

#[tokio::test]
async fn curators_read_operators_change_and_employees_do_neither() {
    let people: &[(&str, &[&str], Role)] =
        &[("ed", &[], Role::Employee), ("cora", &[], Role::Curator), ("olga", &[], Role::Operator)];
    let setup = Setup { loader: Some(Arc::new(Scripts::default())), ..Setup::default() };
    let app = setup.people(people).start().await;
    let restricted = attune::domain::AccessLabel::of([&Groups::from(["hr".to_owned()])]);
    let id = publish(app.folder(), "tuned [1].", About { access: restricted, ..about() }).await;
    let one = format!("/v1/generations/{id}");
    let promote = format!("{one}/promote");
    for (person, read, change) in [(0, 403, 403), (1, 200, 403), (2, 200, 409)] {
        for (method, path, expected) in [
            (Method::GET, "/v1/generations", read),
            (Method::GET, &one, read),
            (Method::POST, &promote, change),
            (Method::POST, "/v1/rollback", change),
        ] {
            let (status, body) = answer(app.by(person, method.clone(), path)).await;
            assert_eq!(status.as_u16(), expected, "{person} {method} {path}: {body}");
            // Who is not in the group reads no quotations of what it was trained on.
            assert!(body["report"].is_null(), "{body}");
        }
    }
}
