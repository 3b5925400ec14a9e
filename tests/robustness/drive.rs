//! People at work, who write down whatever the server acknowledged, and check later that it is still so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::child::{Server, answer, asking};
use crate::harness::PATIENCE;

/// The connection broke off: what was asked last may or may not have happened.
#[derive(Debug)]
pub(crate) struct Gone;

impl From<reqwest::Error> for Gone {
    fn from(_: reqwest::Error) -> Self {
        Self
    }
}

/// What the server has acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Text by answer.
    answers: BTreeMap<String, String>,
    /// Number of the last acknowledged click by answer.
    clicks: BTreeMap<String, u32>,
    /// Choice by comparison.
    votes: BTreeMap<String, String>,
    /// Response by demonstration.
    demonstrations: BTreeMap<String, String>,
    /// A word that only this document has.
    documents: BTreeMap<String, String>,
}

/// Everybody who works with one server.
pub(crate) struct People {
    acknowledged: Mutex<Acknowledged>,
    /// Numbers tags, words and documents.
    next: AtomicUsize,
}

impl People {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { acknowledged: Mutex::default(), next: AtomicUsize::new(0) })
    }

    fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&self, what: impl FnOnce(&mut Acknowledged)) {
        what(&mut self.acknowledged.lock().unwrap());
    }

    /// Everybody works until the server is gone.
    pub(crate) fn work(self: &Arc<Self>, server: &Server) -> impl Future<Output = ()> + use<> {
        let (base, client) = (server.base.clone(), server.client.clone());
        let desk = Desk { people: Arc::clone(self), base, client };
        async move {
            tokio::join!(
                async { while desk.streams().await.is_ok() {} },
                async { while desk.streams().await.is_ok() {} },
                async { while desk.streams().await.is_ok() {} },
                async { while desk.asks_and_clicks().await.is_ok() {} },
                async { while desk.asks_and_clicks().await.is_ok() {} },
                async { while desk.compares_and_votes().await.is_ok() {} },
                async { while desk.demonstrates().await.is_ok() {} },
                async { while desk.documents().await.is_ok() {} },
            );
        }
    }

    /// Returns when so many more of each kind have been acknowledged.
    pub(crate) async fn have_done(&self, pieces: usize) {
        let (began, before) = (Instant::now(), self.counts());
        while self.counts().iter().zip(before).any(|(now, before)| *now < before + pieces) {
            assert!(began.elapsed() < PATIENCE, "nothing is acknowledged any more: {:?}", self.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How much was acknowledged: answers, clicks, votes, demonstrations, documents.
    pub(crate) fn counts(&self) -> [usize; 5] {
        let known = self.acknowledged.lock().unwrap();
        let judged = [known.clicks.len(), known.votes.len(), known.demonstrations.len()];
        [known.answers.len(), judged[0], judged[1], judged[2], known.documents.len()]
    }

    /// Writes down an acknowledged answer.
    pub(crate) fn keep(&self, id: String, text: String) {
        self.note(|known| _ = known.answers.insert(id, text));
    }

    /// Checks, through the server's own calls, that everything acknowledged is there as it was acknowledged.
    pub(crate) async fn check(&self, server: &Server) {
        let answers = by_id(server.all("/v1/answers").await);
        let comparisons = by_id(server.all("/v1/comparisons").await);
        let demonstrations = by_id(server.all("/v1/demonstrations").await);
        let documents: BTreeSet<_> = by_id(server.all("/v1/documents").await).into_keys().collect();
        let words = {
            let known = self.acknowledged.lock().unwrap();
            for (id, text) in &known.answers {
                assert_eq!(answers.get(id).map(|found| &found["answer"]), Some(&json!(text)), "answer {id}");
            }
            for (id, click) in &known.clicks {
                let feedback = &answers[id]["feedback"][0];
                let found: u32 = feedback["comment"].as_str().unwrap_or("0").parse().unwrap();
                // One more may have been under way.
                assert!((*click..=click + 1).contains(&found), "click {click} on {id}: {feedback}");
                assert_eq!(feedback["rating"], rating(found), "click {click} on {id}");
            }
            for (id, choice) in &known.votes {
                assert_eq!(
                    comparisons.get(id).map(|found| &found["vote"]["choice"]),
                    Some(&json!(choice)),
                    "{id}"
                );
            }
            for (id, response) in &known.demonstrations {
                let found = demonstrations.get(id).map(|found| &found["response"]);
                assert_eq!(found, Some(&json!(response)), "demonstration {id}");
            }
            for id in known.documents.keys() {
                assert!(documents.contains(id), "document {id}");
            }
            known.documents.clone()
        };
        for (id, word) in words {
            let (_, found) = server.get(&format!("/v1/search?q={word}&k=1")).await.unwrap();
            assert_eq!(found["results"][0]["document_id"], json!(id), "{word}: {found}");
        }
    }
}

fn by_id(rows: Vec<Value>) -> BTreeMap<String, Value> {
    rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect()
}

fn rating(click: u32) -> &'static str {
    if click % 2 == 1 { "up" } else { "down" }
}

/// Where people work: one server.
struct Desk {
    people: Arc<People>,
    base: String,
    client: reqwest::Client,
}

impl Desk {
    /// Asks the server something, which it must grant.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Gone> {
        let request = self.client.request(method, format!("{}{path}", self.base)).json(&body);
        let (status, said) = answer(request).await?;
        assert!(status.is_success(), "{path}: {status}: {said}");
        Ok(said)
    }

    async fn chat(&self) -> Result<String, Gone> {
        let tag = format!("tag-{}", self.people.number());
        let said = self.ask(Method::POST, "/v1/chat/completions", asking(&tag)).await?;
        let text = said["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        assert!(text.starts_with(&format!("{tag}: ")), "{said}");
        let id = said["id"].as_str().unwrap().to_owned();
        self.people.keep(id.clone(), text);
        Ok(id)
    }

    async fn streams(&self) -> Result<(), Gone> {
        let mut body = asking(&format!("tag-{}", self.people.number()));
        body["stream"] = json!(true);
        let url = format!("{}/v1/chat/completions", self.base);
        let response = self.client.post(url).json(&body).send().await?;
        assert_eq!(response.status(), StatusCode::OK);
        let (read, text) = read_stream(response).await;
        // The last event with content is sent when the answer is durable; `[DONE]` may be cut off.
        if let Some(id) = read {
            self.people.keep(id, text);
        }
        Ok(())
    }

    async fn asks_and_clicks(&self) -> Result<(), Gone> {
        let id = self.chat().await?;
        for click in 1..=3 {
            let body = json!({"rating": rating(click), "comment": click.to_string()});
            self.ask(Method::PUT, &format!("/v1/feedback/{id}"), body).await?;
            self.people.note(|known| _ = known.clicks.insert(id.clone(), click));
        }
        Ok(())
    }

    async fn compares_and_votes(&self) -> Result<(), Gone> {
        let number = self.people.number();
        let pair = self.ask(Method::POST, "/v1/comparisons", asking(&format!("tag-{number}"))).await?;
        for side in ["left", "right"] {
            let (id, text) = (pair[side]["id"].as_str().unwrap(), pair[side]["content"].as_str().unwrap());
            self.people.keep(id.to_owned(), text.to_owned());
        }
        let (id, choice) = (pair["id"].as_str().unwrap(), ["left", "right", "tie", "both_bad"][number % 4]);
        self.ask(Method::POST, &format!("/v1/comparisons/{id}/vote"), json!({"choice": choice})).await?;
        self.people.note(|known| _ = known.votes.insert(id.to_owned(), choice.to_owned()));
        Ok(())
    }

    async fn demonstrates(&self) -> Result<(), Gone> {
        let number = self.people.number();
        let response = format!("Room {number}.");
        let body = json!({"prompt": format!("Where is desk {number}?"), "response": response});
        let said = self.ask(Method::POST, "/v1/demonstrations", body).await?;
        let id = said["id"].as_str().unwrap().to_owned();
        self.people.note(|known| _ = known.demonstrations.insert(id, response));
        Ok(())
    }

    async fn documents(&self) -> Result<(), Gone> {
        let number = self.people.number();
        let (id, word) = (format!("page-{number}"), format!("quoin{number}"));
        let body =
            json!({"title": format!("Page {number}"), "text": format!("# Page\n\nThe word is {word}.")});
        self.ask(Method::PUT, &format!("/v1/documents/{id}"), body).await?;
        self.people.note(|known| _ = known.documents.insert(id, word));
        Ok(())
    }
}

/// Reads a streamed answer as far as it goes: its id, when its end was told, and its text.
pub(crate) async fn read_stream(response: reqwest::Response) -> (Option<String>, String) {
    let (mut bytes, mut received) = (response.bytes_stream(), Vec::new());
    while let Some(Ok(chunk)) = bytes.next().await {
        received.extend_from_slice(&chunk);
    }
    let received = String::from_utf8_lossy(&received);
    // What comes after the last empty line is an event cut in two.
    let whole = received.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let (mut id, mut text) = (None, String::new());
    for frame in whole.split("\n\n").filter_map(|frame| frame.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{frame}")).unwrap();
        assert!(chunk["error"].is_null(), "{chunk}");
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if choice["finish_reason"].is_string() {
            id = chunk["id"].as_str().map(str::to_owned);
        }
    }
    (id, text)
}
