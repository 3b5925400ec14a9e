//! Chat, streaming and not, in OpenAI's shapes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, asking, check_error, events};

#[tokio::test]
async fn an_answer_cites_what_was_retrieved() {
    let app = TestApp::start().await;
    app.knows_boston().await;
    let body = app.ask("Where is the HR department in Boston?").await;
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("gen-test")));
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "Room 310 on the third floor [1].");
    assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("stop")));
    let attune = &choice["message"]["attune"];
    assert_eq!(attune["answer_id"], body["id"]);
    assert_eq!(
        (&attune["grounded"], &attune["refused"], &attune["generation"]),
        (&json!(true), &json!(false), &json!("gen-test"))
    );
    let citation = &attune["citations"][0];
    assert_eq!(
        (&citation["n"], &citation["document_id"], &citation["by"]),
        (&json!(1), &json!("boston"), &json!("model"))
    );
    assert!(citation["passage"].as_str().unwrap().contains("room 310"));
    assert_eq!(attune["sources"][0]["passage_id"], citation["passage_id"]);
    let usage = &body["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );

    let opened = url::form_urlencoded::byte_serialize(citation["passage_id"].as_str().unwrap().as_bytes())
        .collect::<String>();
    let (status, passage) = app.get(&format!("/v1/passages/{opened}")).await;
    assert_eq!(status, StatusCode::OK, "{passage}");
    assert!(passage["html"].as_str().unwrap().contains("room 310"));
}

#[tokio::test]
async fn a_stream_is_role_text_end_usage_done() {
    let app = TestApp::start().await;
    app.knows_boston().await;
    let mut body = asking("Where is the HR department in Boston?");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/event-stream");
    assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-cache".into(), "no".into()));
    assert!(response.headers().get("content-encoding").is_none());
    let mut frames = events(&response.text().await.unwrap());

    assert_eq!(frames.pop().unwrap(), "[DONE]");
    let usage = frames.pop().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let end = frames.pop().unwrap();
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
    assert_eq!(end["attune"]["citations"][0]["document_id"], "boston");
    assert_eq!(frames[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = frames.iter().filter_map(|f| f["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Room 310 on the third floor [1].");
    assert!(frames.len() > 2, "the text came in one piece");
    for frame in frames.iter().chain([&end]) {
        assert_eq!((&frame["id"], &frame["created"]), (&usage["id"], &usage["created"]));
        assert_eq!(
            (&frame["object"], frame.get("usage")),
            (&json!("chat.completion.chunk"), Some(&Value::Null))
        );
    }
    assert_eq!(app.get(&format!("/v1/answers/{}", usage["id"].as_str().unwrap())).await.0, StatusCode::OK);
}

#[tokio::test]
async fn without_include_usage_no_chunk_speaks_of_it() {
    let app = TestApp::start().await;
    let mut body = asking("Hello?");
    body["stream"] = json!(true);
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    let frames = events(&response.text().await.unwrap());
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame.get("usage").is_none()), "{frames:?}");
}

#[tokio::test]
async fn logprobs_have_openais_shape_and_cover_the_answer() {
    let app = TestApp::start().await;
    let mut body = asking("Where?");
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(1);
    let (_, whole) = app.post("/v1/chat/completions", body.clone()).await;
    let entries = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let text: String = entries.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert!(text.starts_with("Room 310 on the third floor"), "{text}");
    let first = &entries[0];
    assert_eq!(
        (&first["token"], &first["bytes"], &first["logprob"]),
        (&json!("Room "), &json!(b"Room "), &json!(0.0))
    );
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 1);

    body["stream"] = json!(true);
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    let streamed: Vec<Value> = events(&response.text().await.unwrap())
        .iter()
        .filter_map(|frame| frame["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, entries);
}

#[tokio::test]
async fn stop_and_max_tokens_end_an_answer() {
    let app = TestApp::start().await;
    let mut body = asking("Where?");
    body["stop"] = json!([" third"]);
    let (_, stopped) = app.post("/v1/chat/completions", body).await;
    let choice = &stopped["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("Room 310 on the"), &json!("stop"))
    );
    let mut body = asking("Where?");
    body["max_completion_tokens"] = json!(2);
    let (_, cut) = app.post("/v1/chat/completions", body).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"]["content"].as_str().unwrap().trim(), "Room 310");
    assert_eq!(cut["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn n_answers_are_n_recorded_answers() {
    let app = TestApp::start().await;
    let mut body = asking("Where?");
    body["n"] = json!(2);
    let (_, both) = app.post("/v1/chat/completions", body.clone()).await;
    let choices = both["choices"].as_array().unwrap();
    assert_eq!((choices[0]["index"].as_u64(), choices[1]["index"].as_u64()), (Some(0), Some(1)));
    // Seeds 0 and 1 have different scripts.
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
    for choice in choices {
        let id = choice["message"]["attune"]["answer_id"].as_str().unwrap();
        assert_eq!(app.get(&format!("/v1/answers/{id}")).await.0, StatusCode::OK);
    }
    body["stream"] = json!(true);
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    let frames = events(&response.text().await.unwrap());
    for (index, choice) in choices.iter().enumerate() {
        let of = |frame: &&Value| frame["choices"][0]["index"] == index;
        let deltas =
            frames.iter().filter(of).filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str());
        assert_eq!(deltas.collect::<String>(), choice["message"]["content"].as_str().unwrap());
        let ends = frames.iter().filter(of).filter(|frame| frame.get("attune").is_some());
        assert_eq!(ends.count(), 1);
    }
    assert_eq!(frames.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn models_are_the_active_name_and_the_generations() {
    let app = TestApp::start().await;
    let (_, list) = app.get("/v1/models").await;
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec!["attune", "gen-test"]));
    assert_eq!(app.get("/v1/models/gen-test").await.1["object"], "model");
    check_error(app.get("/v1/models/gpt-4o").await, 404, "model_not_found");
    let mut body = asking("Where?");
    for (model, status) in [("attune", 200), ("gen-test", 200), ("gpt-4o", 404)] {
        body["model"] = json!(model);
        assert_eq!(app.post("/v1/chat/completions", body.clone()).await.0.as_u16(), status, "{model}");
    }
}

#[tokio::test]
async fn what_nothing_is_known_about_is_refused() {
    let app = Setup::default().config(|config| config.retrieval.answerable_threshold = 0.5).start().await;
    app.knows_boston().await;
    let body = app.ask("Who won the football match yesterday?").await;
    let message = &body["choices"][0]["message"];
    assert_eq!((&message["attune"]["refused"], &message["attune"]["citations"]), (&json!(true), &json!([])));
    assert!(message["content"].as_str().unwrap().contains("your manager"), "{message}");
    assert_eq!(message["refusal"], Value::Null);
    let (_, log) = app.get("/v1/answers?refused=true").await;
    assert_eq!(log["data"][0]["id"], body["id"]);
}

#[tokio::test]
async fn requests_have_ids_in_and_out() {
    let app = TestApp::start().await;
    let id = async |sent: Option<&str>| {
        let request = app.request(Method::GET, "/v1/models");
        let request = sent.into_iter().fold(request, |request, id| request.header("x-request-id", id));
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(Some("trace-7.A_b:c")).await, "trace-7.A_b:c");
    let long = "x".repeat(129);
    for strange in [None, Some("a b"), Some("<script>"), Some(long.as_str())] {
        let own = id(strange).await;
        assert!(uuid::Uuid::parse_str(&own).is_ok(), "{strange:?} came back as {own}");
    }
    let missing = app.request(Method::GET, "/nowhere").send().await.unwrap();
    assert!(missing.headers().contains_key("x-request-id"));
}
