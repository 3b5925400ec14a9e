//! What do the pages talk to? The real server on a free port, its ledger in a temporary folder, its model a script.

use std::sync::Arc;
use std::time::Duration;

use attune::access::tokens::{self, NewToken};
use attune::app::Application;
use attune::config::{AccessMode, Config, WorkerMode};
use attune::domain::Role;
use attune::generation::ScriptedGenerator;
use attune::ledger::{self, Ledger};
use attune::swap::Loader;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The page that answers are grounded in.
pub(crate) const BOSTON: &str = "The People team, our HR department, sits on the third floor in room 310. It is open Monday to \
                          Friday from 9:00 to 17:00.";
/// What the script says when asked about HR.
pub(crate) const HR_ANSWER: &str = "The **HR department** in Boston is on the third floor in room 310 [1]. It is open:\n\n\
                             - Monday to Friday\n- from 9:00 to 17:00";

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) ledger: Arc<dyn Ledger>,
    http: reqwest::Client,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

/// How a test's server differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    /// Share of questions with two answers.
    pub(crate) share: f32,
    /// `open` unless said otherwise.
    pub(crate) mode: Option<AccessMode>,
    /// Sites that may embed the widget.
    pub(crate) origins: Vec<String>,
    /// Waits before each word.
    pub(crate) pause: Duration,
    /// Loads generations; without it there is the script alone.
    pub(crate) loader: Option<Arc<dyn Loader>>,
}

impl Server {
    /// Starts a server that knows one page and waits until it is ready.
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        config.server.listen = "127.0.0.1:0".into();
        config.server.drain_seconds = 1;
        config.models.sentence = String::new();
        config.prompt.company = "Larkfield".into();
        config.comparisons.share = setup.share;
        config.access.mode = setup.mode.unwrap_or(AccessMode::Open);
        config.access.widget.origins = setup.origins;
        // Without the sentence model evidence is weaker; these tests are about pages, not about refusing.
        config.retrieval.answerable_threshold = 0.0;
        // Runs are shown here, not worked on.
        config.training.worker = WorkerMode::Manual;
        let generator = ScriptedGenerator::new("gen-scripted", script).pausing(setup.pause);
        let application = Application::build(config).unwrap();
        let application = match setup.loader {
            Some(loader) => application.with_loader(loader),
            None => application.with_generator(Arc::new(generator)),
        };
        let url = format!("http://127.0.0.1:{}", application.port());
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { application.run(stop).await.unwrap() }
        });
        let http = reqwest::Client::new();
        while !http
            .get(format!("{url}/readyz"))
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
        {
            assert!(!running.is_finished(), "the server stopped");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ledger = ledger::open(None, folder.path()).await.unwrap();
        let server = Self { url, ledger, http, stop, running, folder };
        server.put_document("offices:boston", "Boston office", BOSTON).await;
        server
    }

    /// Where its data lives.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A secret for a person in this role.
    pub(crate) async fn token(&self, user: &str, role: Role) -> String {
        let new = NewToken { user: user.into(), groups: Default::default(), role, expires: None };
        tokens::create(self.ledger.as_ref(), new).await.unwrap().1
    }

    /// Puts a document, as an operator.
    pub(crate) async fn put_document(&self, id: &str, title: &str, text: &str) {
        let token = self.token("setup", Role::Operator).await;
        let body = json!({ "title": title, "text": text, "url": "https://intranet.example/boston" });
        let call = self.http.put(format!("{}/v1/documents/{id}", self.url)).bearer_auth(token).json(&body);
        let response = call.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }

    /// Posts JSON as the bearer of a token.
    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Value {
        let call = self.http.post(format!("{}{path}", self.url)).bearer_auth(token).json(&body);
        let response = call.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// Gives feedback as the bearer of a token.
    pub(crate) async fn put_feedback(&self, answer: &str, token: &str, body: Value) {
        let call = self.http.put(format!("{}/v1/feedback/{answer}", self.url)).bearer_auth(token).json(&body);
        let response = call.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }

    /// Stops the server and waits for it.
    pub(crate) async fn stop(self) {
        self.ledger.close().await;
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Answers by the last thing that was asked.
fn script(prompt: &str, seed: u64) -> String {
    let question = prompt.rsplit("user:").next().unwrap_or_default();
    if question.contains("markup") {
        "<img src=x onerror=\"window.broken=1\"> <script>window.broken=1</script> [click](javascript:window.broken=1) \
         <https://intranet.example/a> **bold** [1]"
            .into()
    } else if question.contains("long") {
        "word ".repeat(60)
    } else if question.contains("choose") {
        format!("Room 310 on the third floor, says drawing {seed} [1].")
    } else {
        HR_ANSWER.into()
    }
}
