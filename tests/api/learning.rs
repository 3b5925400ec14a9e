//! Ideal answers, export and import.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use attune::domain::Role;

use crate::harness::{Setup, TestApp, answer, asking, check_error};

#[tokio::test]
async fn an_ideal_answer_is_written_changed_deleted_and_restored() {
    let app = TestApp::start().await;
    let body = json!({"prompt": "And in Dublin?", "response": "On the 2nd floor.",
        "messages": [{"role": "user", "content": "Where is HR in Boston?"}, {"role": "assistant", "content": "Room 310."}]});
    let (status, made) = app.post("/v1/demonstrations", body).await;
    assert_eq!(
        (status, &made["status"], &made["source"]),
        (StatusCode::CREATED, &json!("approved"), &json!("written"))
    );
    assert_eq!(made["messages"][2], json!({"role": "user", "content": "And in Dublin?"}));
    let path = format!("/v1/demonstrations/{}", made["id"].as_str().unwrap());
    let (_, changed) = app
        .put(&path, json!({"prompt": "Where is HR in Dublin?", "response": "2nd floor.", "status": "draft"}))
        .await;
    assert_eq!((&changed["created"], &changed["status"]), (&made["created"], &json!("draft")));
    assert_eq!(answer(app.request(Method::DELETE, &path)).await.0, StatusCode::OK);
    check_error(app.get(&path).await, 404, "not_found");
    assert_eq!(app.get("/v1/demonstrations").await.1["data"], json!([]));
    assert_eq!(app.post(&format!("{path}/restore"), json!({})).await.1["response"], "2nd floor.");
    assert_eq!(app.get(&path).await.0, StatusCode::OK);
}

/// Who writes a better answer to a restricted question does not make it public.
#[tokio::test]
async fn what_corrects_an_answer_is_seen_by_those_who_see_the_answer() {
    let people: [(&str, &[&str], Role); 2] = [("hana", &["hr"], Role::Curator), ("fred", &[], Role::Curator)];
    let app = Setup::default().people(&people).start().await;
    let page = json!({"text": "HR sits in room 310 on the third floor.", "groups": ["hr"]});
    answer(app.by(0, Method::PUT, "/v1/documents/floor").json(&page)).await;
    let chat = app.by(0, Method::POST, "/v1/chat/completions").json(&asking("Where does HR sit?"));
    let (_, said) = answer(chat).await;
    let body = json!({"prompt": "Where does HR sit?", "response": "In 310.", "corrects": said["id"]});
    let (status, made) = answer(app.by(0, Method::POST, "/v1/demonstrations").json(&body)).await;
    assert_eq!((status, &made["source"]), (StatusCode::CREATED, &json!("correction")), "{made}");
    assert_eq!(made["passages"], json!(["HR sits in room 310 on the third floor."]));
    let path = format!("/v1/demonstrations/{}", made["id"].as_str().unwrap());
    assert_eq!(answer(app.by(0, Method::GET, &path)).await.0, StatusCode::OK);
    check_error(answer(app.by(1, Method::GET, &path)).await, 404, "not_found");
    // Nor can somebody else name the answer, and what was corrected stays what it was.
    check_error(answer(app.by(1, Method::POST, "/v1/demonstrations").json(&body)).await, 404, "not_found");
    let other = json!({"prompt": "Where does HR sit?", "response": "In 310.", "corrects": "another"});
    check_error(answer(app.by(0, Method::PUT, &path).json(&other)).await, 400, "invalid_request");
    let (_, pairs) = answer(app.by(0, Method::GET, "/v1/demonstrations")).await;
    assert_eq!(pairs["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_exported_can_be_imported_elsewhere_and_comes_out_the_same() {
    let (one, other) = (TestApp::start().await, TestApp::start().await);
    let rows = [
        (
            "sft",
            r#"{"messages":[{"role":"user","content":"Where?"},{"role":"assistant","content":"Here."}]}"#,
        ),
        (
            "preference",
            r#"{"prompt":"Where?","chosen":"Here.","rejected":"There.","margin":0.5,"user":"ada"}"#,
        ),
        ("unpaired", r#"{"prompt":"When?","completion":"Now.","label":true}"#),
        ("prompts", r#"{"prompt":"Who?"}"#),
    ];
    for (format, row) in rows {
        let (status, report) = import(&one, format, row.to_owned()).await;
        assert_eq!(
            (status, &report["rows"], &report["new"]),
            (StatusCode::OK, &json!(1), &json!(1)),
            "{format}: {report}"
        );
        assert_eq!(import(&one, format, row.to_owned()).await.1["new"], 0, "{format}");
        let exported = export(&one, format).await;
        assert!(exported.contains("file_sha256"), "{format}: no lineage in {exported}");
        assert_eq!(import(&other, format, exported.clone()).await.0, StatusCode::OK, "{format}");
        assert_eq!(content(&export(&other, format).await), content(&exported), "{format}");
    }
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_names_the_first_bad_line() {
    let app = TestApp::start().await;
    let good = r#"{"prompt":"Where?","response":"Here."}"#;
    let (status, body) = import(&app, "sft", format!("{good}\n{good}\n{{\"prompt\":7}}\n{good}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("line 3"), "{body}");
    assert_eq!(app.get("/v1/demonstrations").await.1["data"], json!([]));
    check_error(import(&app, "nonsense", good.into()).await, 400, "invalid_request");
}

#[tokio::test]
async fn an_import_may_be_larger_than_any_other_body() {
    let app = TestApp::start().await;
    let filler = "x".repeat(1000);
    let lines: String = (0..3000).map(|n| format!("{{\"prompt\":\"{n} {filler}\"}}\n")).collect();
    assert!(lines.len() > 2 << 20);
    let (status, report) = import(&app, "prompts", lines).await;
    assert_eq!((status, &report["new"]), (StatusCode::OK, &json!(3000)), "{report}");
}

async fn import(app: &TestApp, format: &str, lines: String) -> (StatusCode, Value) {
    answer(app.request(Method::POST, &format!("/v1/import?format={format}")).body(lines)).await
}

async fn export(app: &TestApp, format: &str) -> String {
    let response = app.request(Method::GET, &format!("/v1/export?format={format}")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    response.text().await.unwrap()
}

/// What is learnt from, without where it came from.
fn content(lines: &str) -> Vec<Value> {
    let keep =
        ["messages", "prompt", "chosen", "rejected", "completion", "label", "margin", "user", "passages"];
    let row = |line: &str| {
        let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        Value::from(
            row.into_iter()
                .filter(|(key, _)| keep.contains(&key.as_str()))
                .collect::<serde_json::Map<_, _>>(),
        )
    };
    lines.lines().map(row).collect()
}
