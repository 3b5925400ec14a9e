//! Documents, search and passages.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use attune::domain::Role;

use crate::harness::{Setup, TestApp, answer, check_error};

#[tokio::test]
async fn a_document_can_be_found_when_put_returns_and_not_after_delete() {
    let app = TestApp::start().await;
    app.knows_boston().await;
    let (_, found) = app.get("/v1/search?q=HR+department&k=3").await;
    assert_eq!(found["query"], "HR department");
    let result = &found["results"][0];
    assert_eq!((&result["document_id"], &result["title"]), (&json!("boston"), &json!("Boston office")));
    assert!(found["took_ms"].is_number() && result["score"].is_number() && result["text"].is_string());

    let (status, same) = app
        .put("/v1/documents/boston", json!({"title": "Boston office", "text": "# Boston office\n\nThe HR department is in room 310 on the third floor."}))
        .await;
    assert_eq!((status, &same["outcome"]), (StatusCode::OK, &json!("unchanged")));
    let (_, changed) =
        app.put("/v1/documents/boston", json!({"text": "The HR department moved to room 7."})).await;
    assert_eq!(changed["outcome"], "updated");
    let (_, found) = app.get("/v1/search?q=HR+department").await;
    assert!(found["results"][0]["text"].as_str().unwrap().contains("room 7"), "{found}");

    let (status, gone) = answer(app.request(Method::DELETE, "/v1/documents/boston")).await;
    assert_eq!((status, gone), (StatusCode::OK, json!({"id": "boston", "deleted": true})));
    assert_eq!(app.get("/v1/search?q=HR+department").await.1["results"], json!([]));
    check_error(app.get("/v1/documents/boston").await, 404, "not_found");
    check_error(answer(app.request(Method::DELETE, "/v1/documents/boston")).await, 404, "not_found");
}

#[tokio::test]
async fn not_waiting_is_accepted_and_done_soon() {
    let app = TestApp::start().await;
    let (status, _) = app
        .put("/v1/documents/later?refresh=false", json!({"text": "Bicycles are kept in the cellar."}))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    app.eventually("the document is found", async || {
        app.get("/v1/documents/later").await.0 == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn documents_are_listed_page_by_page() {
    let app = TestApp::start().await;
    for n in 0..5 {
        app.put(&format!("/v1/documents/page-{n}"), json!({"text": format!("Page number {n}.")})).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/documents?limit=2".to_owned());
    loop {
        let (_, page) = app.get(&path).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        path = format!("/v1/documents?limit=2&before={next}");
    }
    seen.sort();
    assert_eq!(seen, (0..5).map(|n| format!("page-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_document_contains_is_shown_but_never_acts() {
    let app = TestApp::start().await;
    let text = "# Page\n\n<script>alert(1)</script><img src=x onerror=alert(1)>\n\n[x](javascript:alert(1)) **bold**";
    app.put("/v1/documents/evil", json!({"text": text})).await;
    let (_, document) = app.get("/v1/documents/evil").await;
    let html = document["html"].as_str().unwrap();
    assert!(html.contains("<strong>bold</strong>"), "{html}");
    for bad in ["<script", "<img", "javascript:", "onerror"] {
        assert!(!html.contains(bad), "{html}");
    }
    assert_eq!(document["text"], json!(text));
    check_error(
        app.put("/v1/documents/evil", json!({"text": "x", "url": "javascript:alert(1)"})).await,
        400,
        "invalid_request",
    );
}

#[tokio::test]
async fn a_curator_can_neither_see_nor_replace_other_groups_documents() {
    let people: [(&str, &[&str], Role); 2] =
        [("hana", &["hr"], Role::Curator), ("fred", &["finance"], Role::Curator)];
    let app = Setup::default().people(&people).start().await;
    let put = async |person, groups: Value| {
        let body = json!({"text": "Salary bands start at 7.", "groups": groups});
        answer(app.by(person, Method::PUT, "/v1/documents/bands").json(&body)).await
    };
    assert_eq!(put(0, json!(["hr"])).await.0, StatusCode::CREATED);
    check_error(put(1, json!([])).await, 403, "forbidden");
    check_error(answer(app.by(1, Method::GET, "/v1/documents/bands")).await, 404, "not_found");
    check_error(answer(app.by(1, Method::DELETE, "/v1/documents/bands")).await, 404, "not_found");
    assert_eq!(answer(app.by(1, Method::GET, "/v1/search?q=salary+bands")).await.1["results"], json!([]));
    assert_eq!(
        answer(app.by(0, Method::GET, "/v1/search?q=salary+bands")).await.1["results"][0]["document_id"],
        "bands"
    );
}

#[tokio::test]
async fn a_page_of_a_watched_folder_is_changed_in_the_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("pay.md"), "# Pay\n\nSalary bands start at 7.").unwrap();
    let setup = Setup::default().config(|config| config.docs.paths = vec![pages.clone()]);
    let app = setup.start().await;
    let path = "/v1/documents/pages:pay.md";
    app.eventually("the page is indexed", async || app.get(path).await.0 == StatusCode::OK).await;
    assert_eq!(app.get(path).await.1["watched"], json!(true));
    let message = check_error(app.put(path, json!({"text": "Salaries are free."})).await, 409, "conflict");
    assert_eq!(message, None);
    let (status, body) = answer(app.request(Method::DELETE, path)).await;
    assert!(body["error"]["message"].as_str().unwrap().contains("folder:pages"), "{body}");
    check_error((status, body), 409, "conflict");
    assert!(app.get(path).await.1["text"].as_str().unwrap().contains("bands"));
    // What came over HTTP is the caller's.
    assert_eq!(app.put("/v1/documents/own", json!({"text": "Bikes."})).await.0, StatusCode::CREATED);
    assert_eq!(app.get("/v1/documents/own").await.1["watched"], json!(false));
}

#[tokio::test]
async fn not_waiting_hides_no_error() {
    let people: [(&str, &[&str], Role); 2] =
        [("hana", &["hr"], Role::Curator), ("fred", &["finance"], Role::Curator)];
    let app = Setup::default().people(&people).start().await;
    let put = async |person, text: &str| {
        let body = json!({"text": text, "groups": ["hr"]});
        answer(app.by(person, Method::PUT, "/v1/documents/bands?refresh=false").json(&body)).await
    };
    assert_eq!(put(0, "Salary bands start at 7.").await.0, StatusCode::ACCEPTED);
    assert_eq!(answer(app.by(0, Method::GET, "/v1/documents/bands")).await.0, StatusCode::OK);
    check_error(put(1, "Salary bands start at 1.").await, 403, "forbidden");
    check_error(put(0, "---\ngroups: [\n---\nx").await, 400, "invalid_request");
}
