//! Thumbs, corrections and choices between two answers.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use attune::domain::Role;
use attune::generation::ScriptedGenerator;

use crate::harness::{Setup, TestApp, answer, asking, check_error, events};

#[tokio::test]
async fn feedback_is_one_row_a_person_and_can_be_taken_back() {
    let app = TestApp::start().await;
    let id = app.ask("Where?").await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/feedback/{id}");
    check_error(app.get(&path).await, 404, "not_found");
    for _ in 0..2 {
        let (status, said) =
            app.put(&path, json!({"rating": "up", "reasons": ["clear"], "comment": "Thanks"})).await;
        assert_eq!(
            (status, &said["rating"], &said["comment"]),
            (StatusCode::OK, &json!("up"), &json!("Thanks"))
        );
    }
    app.put(&path, json!({"rating": "down", "reasons": ["outdated"]})).await;
    assert_eq!(app.get(&path).await.1["rating"], "down");
    let (_, log) = app.get(&format!("/v1/answers/{id}")).await;
    assert_eq!(log["feedback"].as_array().unwrap().len(), 1, "{log}");
    assert_eq!(app.get("/v1/answers?rating=down").await.1["data"][0]["id"], json!(id));
    assert_eq!(app.get("/v1/answers?rating=up").await.1["data"], json!([]));
    assert_eq!(app.get("/v1/feedback").await.1["data"][0]["about"]["id"], json!(id));
    app.put(&path, json!({"rating": null, "comment": null})).await;
    check_error(app.get(&path).await, 404, "not_found");
    for (operation, writes) in [("answer", 1), ("feedback", 4)] {
        let observed = app.metrics.ledger_write_seconds.with_label_values(&[operation]).get_sample_count();
        assert_eq!(observed, writes, "{operation}");
    }
}

#[tokio::test]
async fn a_correction_waits_for_a_curator_and_then_is_learnt_from() {
    let app = TestApp::start().await;
    let id = app.ask("Where is HR?").await["id"].as_str().unwrap().to_owned();
    app.put(&format!("/v1/feedback/{id}"), json!({"ideal_answer": "In room 310."})).await;
    let (_, drafts) = app.get("/v1/demonstrations?status=draft").await;
    let draft = &drafts["data"][0];
    assert_eq!((&draft["response"], &draft["corrects"]), (&json!("In room 310."), &json!(id)));
    let export = async || {
        app.request(Method::GET, "/v1/export?format=sft").send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(export().await, "");
    let path = format!("/v1/demonstrations/{}", draft["id"].as_str().unwrap());
    let approved =
        json!({"prompt": "Where is HR?", "response": "In room 310, third floor.", "status": "approved"});
    let (status, body) = app.put(&path, approved).await;
    assert_eq!(
        (status, &body["source"], &body["author"]),
        (StatusCode::OK, &json!("correction"), &json!("local"))
    );
    assert!(export().await.contains("In room 310, third floor."));
}

#[tokio::test]
async fn feedback_on_what_was_never_answered_is_not_found() {
    let app = TestApp::start().await;
    check_error(app.put("/v1/feedback/chatcmpl-nothing", json!({"rating": "up"})).await, 404, "not_found");
    check_error(
        app.post("/v1/comparisons/cmp-nothing/vote", json!({"choice": "tie"})).await,
        404,
        "not_found",
    );
}

#[tokio::test]
async fn a_comparison_is_offered_voted_on_and_leaves_the_queue() {
    let app = TestApp::start().await;
    let (status, pair) = app.post("/v1/comparisons", asking_twice()).await;
    assert_eq!(status, StatusCode::OK, "{pair}");
    assert_ne!(pair["left"]["content"], pair["right"]["content"]);
    let shown = pair.to_string();
    assert!(
        !shown.contains("gen-test") && !shown.contains("seed"),
        "a side gives away how it was made: {shown}"
    );
    let queue = async || app.get("/v1/comparisons?unvoted=true").await.1["data"].as_array().unwrap().len();
    assert_eq!(queue().await, 1);
    let path = format!("/v1/comparisons/{}", pair["id"].as_str().unwrap());
    for (choice, strength) in [("left", Some(3)), ("both_bad", None), ("right", Some(1))] {
        let (status, vote) =
            app.post(&format!("{path}/vote"), json!({"choice": choice, "strength": strength})).await;
        assert_eq!((status, &vote["choice"]), (StatusCode::OK, &json!(choice)), "{vote}");
    }
    assert_eq!(queue().await, 0);
    assert_eq!(app.get(&path).await.1["vote"]["choice"], "right");
    let export =
        app.request(Method::GET, "/v1/export?format=preference").send().await.unwrap().text().await.unwrap();
    let row: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert_eq!(row["chosen"][0]["content"], pair["right"]["content"]);
    let (_, feedback) = app
        .put(&format!("/v1/feedback/{}", pair["left"]["id"].as_str().unwrap()), json!({"rating": "up"}))
        .await;
    assert_eq!(feedback["rating"], "up");
}

#[tokio::test]
async fn a_streamed_comparison_names_its_events() {
    let app = TestApp::start().await;
    let mut body = asking_twice();
    body["stream"] = json!(true);
    let response = app.request(Method::POST, "/v1/comparisons").json(&body).send().await.unwrap();
    let text = response.text().await.unwrap();
    assert!(text.contains("event: started\n") && text.contains("event: finished\n"), "{text}");
    let mut frames = events(&text);
    assert_eq!(frames.pop().unwrap(), "[DONE]");
    let finished = frames.pop().unwrap();
    assert_eq!((&frames[0]["type"], &finished["type"]), (&json!("started"), &json!("finished")));
    for side in ["left", "right"] {
        let deltas =
            frames.iter().filter(|frame| frame["side"] == side).filter_map(|frame| frame["text"].as_str());
        assert_eq!(deltas.collect::<String>(), finished[side]["content"].as_str().unwrap());
        assert_eq!(frames[0][side], finished[side]["id"]);
    }
}

#[tokio::test]
async fn two_equal_answers_are_no_choice() {
    let setup =
        Setup::default().generator(ScriptedGenerator::new("gen-test", |_, _| "Always the same.".into()));
    let app = setup.start().await;
    check_error(app.post("/v1/comparisons", asking_twice()).await, 409, "conflict");
    assert_eq!(app.get("/v1/comparisons").await.1["data"], json!([]));
}

#[tokio::test]
async fn people_judge_their_own_and_curators_judge_all() {
    let people: [(&str, &[&str], Role); 3] =
        [("ada", &[], Role::Employee), ("bob", &[], Role::Employee), ("cleo", &[], Role::Curator)];
    let app = Setup::default().people(&people).start().await;
    let (_, pair) = answer(app.by(0, Method::POST, "/v1/comparisons").json(&asking_twice())).await;
    let path = format!("/v1/comparisons/{}/vote", pair["id"].as_str().unwrap());
    let vote =
        async |person| answer(app.by(person, Method::POST, &path).json(&json!({"choice": "tie"}))).await;
    assert_eq!(vote(0).await.0, StatusCode::OK);
    check_error(vote(1).await, 404, "not_found");
    assert_eq!(vote(2).await.0, StatusCode::OK);
    let feedback = format!("/v1/feedback/{}", pair["left"]["id"].as_str().unwrap());
    let thumb =
        async |person| answer(app.by(person, Method::PUT, &feedback).json(&json!({"rating": "up"}))).await;
    assert_eq!(thumb(0).await.0, StatusCode::OK);
    check_error(thumb(1).await, 404, "not_found");
    assert_eq!(thumb(2).await.0, StatusCode::OK);
}

fn asking_twice() -> Value {
    let mut body = asking("Where is the HR department?");
    body.as_object_mut().unwrap().remove("seed");
    body
}
