//! SIGTERM in the middle of answers: they are finished, new ones are turned away, the process ends well.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::child::{Home, Server, WORDS, asking};
use crate::drive::read_stream;
use crate::harness::PATIENCE;

/// Before each word: an answer takes as long as it must for something to happen in the middle of it.
const PAUSE: Duration = Duration::from_millis(100);

async fn stream(server: &Server, tag: &str) -> reqwest::Response {
    let mut body = asking(tag);
    body["stream"] = json!(true);
    let response = server.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_progress_are_finished_and_new_ones_turned_away() {
    let home = Home::new("[server]\ndrain_delay_seconds = 1").pausing(PAUSE);
    let server = home.start().await;
    let streams = join_all((0..4).map(|n| stream(&server, ["tag-a", "tag-b", "tag-c", "tag-d"][n]))).await;
    // A connection that is kept open, as those of load balancers and browsers are.
    let status = async |server: &Server| {
        server.get("/readyz").await.map(|(status, body)| (status, body["status"].clone()))
    };
    assert_eq!(status(&server).await.unwrap().0, StatusCode::OK);

    server.terminate();
    let began = Instant::now();
    while status(&server).await.unwrap() != (StatusCode::SERVICE_UNAVAILABLE, json!("draining")) {
        assert!(began.elapsed() < PATIENCE, "the server stays ready");
    }
    let turned_away = async {
        loop {
            match server.post("/v1/chat/completions", asking("tag-late")).await {
                // Taken until load balancers have noticed.
                Ok((StatusCode::OK, _)) => {}
                Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => {
                    return assert_eq!(body["error"]["code"], "not_ready");
                }
                Err(error) if error.is_connect() => return,
                other => panic!("{other:?}"),
            }
        }
    };
    let (finished, ()) = tokio::join!(join_all(streams.into_iter().map(read_stream)), turned_away);
    for (id, text) in &finished {
        assert!(id.is_some(), "cut off: {text}");
        assert_eq!(text.split(' ').count(), WORDS, "{text}");
    }
    assert!(server.ended().await.success());

    let server = home.start().await;
    for (id, text) in finished {
        let (_, answer) = server.get(&format!("/v1/answers/{}", id.unwrap())).await.unwrap();
        assert_eq!(answer["answer"], json!(text));
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_the_drain_is_cut_off_and_recorded() {
    let home = Home::new("[server]\ndrain_seconds = 1").pausing(PAUSE);
    let server = home.start().await;
    let response = stream(&server, "tag-long").await;
    server.terminate();
    let (id, _) = read_stream(response).await;
    assert_eq!(id, None, "{WORDS} words take longer than the server has");
    assert!(server.ended().await.success());

    let server = home.start().await;
    let answers = server.all("/v1/answers").await;
    assert_eq!((answers.len(), &answers[0]["finish_reason"]), (1, &json!("cancelled")));
}

#[tokio::test]
async fn an_answer_whose_reader_left_is_recorded_as_cancelled() {
    let home = Home::new("").pausing(PAUSE);
    let server = home.start().await;
    let mut response = stream(&server, "tag-left").await;
    while !String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()).contains("tag-left") {}
    drop(response);
    server.terminate();
    assert!(server.ended().await.success());

    let server = home.start().await;
    let answers = server.all("/v1/answers").await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["finish_reason"], "cancelled");
    let text = answers[0]["answer"].as_str().unwrap();
    assert!(text.starts_with("tag-left:") && text.split(' ').count() < WORDS, "{text}");
}

#[tokio::test]
async fn a_client_that_keeps_its_connection_does_not_hold_up_the_end() {
    let home = Home::new("[server]\ndrain_seconds = 60");
    let server = home.start().await;
    assert_eq!(server.get("/livez").await.unwrap().0, StatusCode::OK);
    server.terminate();
    let began = Instant::now();
    // Asks again and again on its connection, as a load balancer does; it is told to go.
    while server.get("/livez").await.is_ok() {
        assert!(began.elapsed() < PAUSE * 100, "still answered after {:?}", began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    assert!(server.ended().await.success());
}
