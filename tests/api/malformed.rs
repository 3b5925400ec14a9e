//! Bad input of every kind: a clear error that names the field, and nothing lost.

use std::io::{Read, Write};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{TestApp, answer, asking, check_error};

#[tokio::test]
async fn a_wrong_chat_request_names_the_field() {
    let app = TestApp::start().await;
    let with = |key: &str, value: Value| {
        let mut body = asking("Where?");
        body[key] = value;
        body
    };
    let cases = [
        (json!({}), "messages"),
        (with("messages", json!("Where?")), "messages"),
        (with("messages", json!([])), "messages"),
        (with("messages", json!([{"content": "Where?"}])), "messages[0].role"),
        (with("messages", json!([{"role": "tool", "content": "x"}])), "messages[0].role"),
        (with("messages", json!([{"role": "user", "content": 7}])), "messages[0].content"),
        (
            with("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            "messages[0].content[0].type",
        ),
        (with("messages", json!([{"role": "assistant", "content": "x"}])), "messages"),
        (with("temperature", json!("hot")), "temperature"),
        (with("temperature", json!(2.5)), "temperature"),
        (with("top_p", json!(0)), "top_p"),
        (with("max_tokens", json!(-1)), "max_tokens"),
        (with("max_tokens", json!(0)), "max_tokens"),
        (with("max_completion_tokens", json!(1_000_000)), "max_completion_tokens"),
        (with("n", json!(9)), "n"),
        (with("stop", json!(["a", "b", "c", "d", "e"])), "stop"),
        (with("stop", json!(["a", 7])), "stop[1]"),
        (with("stream", json!("yes")), "stream"),
        (with("stream_options", json!({"include_usage": true})), "stream_options"),
        (with("top_logprobs", json!(1)), "top_logprobs"),
        (with("seed", json!("one")), "seed"),
        (with("model", json!(7)), "model"),
        (with("attune", json!({"kk": 1})), "attune.kk"),
        (with("attune", json!({"k": 0})), "attune.k"),
    ];
    for (body, param) in cases {
        let error = app.post("/v1/chat/completions", body.clone()).await;
        assert_eq!(check_error(error, 400, "invalid_request").as_deref(), Some(param), "{body}");
    }
    assert_eq!(app.get("/v1/answers").await.1["data"], json!([]), "nothing was answered");
    // OpenAI's fields that have no meaning here are accepted.
    assert_eq!(app.post("/v1/chat/completions", with("user", json!("ada"))).await.0, StatusCode::OK);
    assert_eq!(app.post("/v1/chat/completions", with("tools", json!([]))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn broken_json_and_broken_text_are_refused() {
    let app = TestApp::start().await;
    let send = async |body: Vec<u8>, kind: &str| {
        answer(app.request(Method::POST, "/v1/chat/completions").header("content-type", kind).body(body))
            .await
    };
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
        b"{} {}",
    ] {
        check_error(send(body.to_vec(), "application/json").await, 400, "invalid_request");
    }
    let deep = [b"{\"messages\":".to_vec(), b"[".repeat(100_000)].concat();
    check_error(send(deep, "application/json").await, 400, "invalid_request");
    check_error(send(b"{}".to_vec(), "text/plain").await, 415, "unsupported_media_type");
    assert_eq!(app.ask("Still there?").await["object"], "chat.completion");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let app = TestApp::start().await;
    // The server may close the connection before everything is sent; what it says first is what counts.
    let body = asking(&"x".repeat((1 << 20) + 1)).to_string();
    check_error(raw(&app, "POST", "/v1/chat/completions", &body), 413, "request_too_large");
    let document = json!({"text": "x".repeat((1 << 20) + 1)}).to_string();
    let (status, _) = answer(
        app.request(Method::PUT, "/v1/documents/large")
            .header("content-type", "application/json")
            .body(document),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "documents may be larger");
}

/// Sends the head and one piece of the body, and reads the response.
fn raw(app: &TestApp, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let address = app.base.strip_prefix("http://").unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&body.as_bytes()[..1000]).unwrap();
    let mut response = Vec::new();
    connection.read_to_end(&mut response).unwrap();
    let text = String::from_utf8(response).unwrap();
    let status = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap())
}

#[tokio::test]
async fn wrong_addresses_methods_and_ids_have_the_same_kind_of_error() {
    let app = TestApp::start().await;
    check_error(app.get("/nowhere").await, 404, "not_found");
    check_error(app.get("/v1/").await, 404, "not_found");
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/models", "GET"),
        (Method::POST, "/", "GET, HEAD"),
        (Method::PUT, "/console", "GET, HEAD"),
        (Method::DELETE, "/widget/v1.js", "GET, HEAD"),
    ] {
        let response = app.request(method, path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allowed, "{path}");
        let status = response.status();
        check_error((status, response.json().await.unwrap()), 405, "method_not_allowed");
    }
    check_error(app.put("/v1/documents/a%20b", json!({"text": "x"})).await, 400, "invalid_request");
    check_error(app.get("/v1/passages/nothing").await, 404, "not_found");
    check_error(app.get("/v1/answers/chatcmpl-nothing").await, 404, "not_found");
    for (path, param) in [
        ("/v1/search", "q"),
        ("/v1/search?q=", "q"),
        ("/v1/search?q=x&k=0", "k"),
        ("/v1/search?q=x&k=many", "k"),
        ("/v1/search?q=x&kk=1", "kk"),
        ("/v1/answers?limit=0", "limit"),
        ("/v1/answers?rating=sideways", "rating"),
        ("/v1/export", "format"),
        ("/v1/export?format=parquet", "format"),
    ] {
        assert_eq!(
            check_error(app.get(path).await, 400, "invalid_request").as_deref(),
            Some(param),
            "{path}"
        );
    }
}

#[tokio::test]
async fn unknown_fields_of_our_own_calls_are_refused_by_name() {
    let app = TestApp::start().await;
    let id = app.ask("Where?").await["id"].as_str().unwrap().to_owned();
    let cases = [
        // A typo here would make a restricted document public.
        (Method::PUT, "/v1/documents/x".to_owned(), json!({"text": "x", "group": ["hr"]}), "group"),
        (Method::PUT, format!("/v1/feedback/{id}"), json!({"ratng": "up"}), "ratng"),
        (Method::PUT, format!("/v1/feedback/{id}"), json!({"rating": "sideways"}), "rating"),
        (Method::PUT, format!("/v1/feedback/{id}"), json!({"comment": "x".repeat(2001)}), "comment"),
        (Method::POST, "/v1/demonstrations".to_owned(), json!({"prompt": "x"}), "response"),
        (Method::POST, "/v1/demonstrations".to_owned(), json!({"prompt": "x", "response": " "}), "response"),
        (Method::POST, "/v1/demonstrations".to_owned(), json!({"response": "x"}), "prompt"),
        (Method::POST, "/v1/comparisons".to_owned(), json!({"message": []}), "message"),
        (Method::POST, "/v1/comparisons/x/vote".to_owned(), json!({"choice": "up"}), "choice"),
        (
            Method::POST,
            "/v1/comparisons/x/vote".to_owned(),
            json!({"choice": "tie", "strength": 2}),
            "strength",
        ),
    ];
    for (method, path, body, param) in cases {
        let error = answer(app.request(method, &path).json(&body)).await;
        assert_eq!(check_error(error, 400, "invalid_request").as_deref(), Some(param), "{path} {body}");
    }
}

#[tokio::test]
async fn naughty_strings_are_just_text() {
    let file = std::env::var("ATTUNE_EVAL_DATA").unwrap_or_else(|_| "../shared/data".into());
    let Ok(text) = std::fs::read_to_string(format!("{file}/adversarial/blns/resources/blns.json")) else {
        println!("skipped: no {file}/adversarial/blns/resources/blns.json; set ATTUNE_EVAL_DATA");
        return;
    };
    let strings: Vec<String> = serde_json::from_str(&text).unwrap();
    let app = TestApp::start().await;
    app.knows_boston().await;
    for naughty in strings.iter().filter(|text| !text.trim().is_empty()) {
        let answer = app.ask(naughty).await;
        let (_, logged) = app.get(&format!("/v1/answers/{}", answer["id"].as_str().unwrap())).await;
        assert_eq!(logged["messages"][0]["content"], json!(naughty));
        let query: String = url::form_urlencoded::byte_serialize(naughty.as_bytes()).collect();
        assert_eq!(app.get(&format!("/v1/search?q={query}")).await.0, StatusCode::OK, "{naughty:?}");
        assert_eq!(app.get(&format!("/v1/answers?q={query}")).await.0, StatusCode::OK, "{naughty:?}");
    }
}
