//! A real server on a free port in a folder of its own, and a client for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use attune::access::tokens::{self, NewToken};
use attune::app::Application;
use attune::config::{AccessMode, Config};
use attune::domain::Role;
use attune::generation::ScriptedGenerator;
use attune::swap::Loader;
use attune::telemetry::Metrics;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up on it: generous, the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it and checks that no request or answer was left over.
pub(crate) struct TestApp {
    pub(crate) base: String,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    /// Secrets of the tokens asked for, in their order.
    pub(crate) tokens: Vec<String>,
    client: reqwest::Client,
    thread: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

/// What to start.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// `None` loads the base model that the configuration names.
    pub(crate) generator: Option<ScriptedGenerator>,
    /// Loads generations, instead of both.
    pub(crate) loader: Option<Arc<dyn Loader>>,
    pub(crate) tokens: Vec<(&'static str, &'static [&'static str], Role)>,
}

impl Default for Setup {
    fn default() -> Self {
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".into();
        config.server.drain_seconds = 20;
        config.models.sentence = String::new();
        // Handfuls of words are no evidence; what is refused has tests of its own.
        config.retrieval.answerable_threshold = 0.0;
        config.admission.per_user_per_minute = 0;
        let generator = ScriptedGenerator::new("gen-test", |_, seed| {
            if seed % 2 == 0 {
                "Room 310 on the third floor [1].".into()
            } else {
                "The third floor, room 310 [1].".into()
            }
        });
        Self { config, generator: Some(generator), loader: None, tokens: Vec::new() }
    }
}

impl Setup {
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn generator(mut self, generator: ScriptedGenerator) -> Self {
        self.generator = Some(generator);
        self
    }

    /// A real model from this folder, loaded by the real engine.
    pub(crate) fn model(mut self, folder: &std::path::Path) -> Self {
        self.generator = None;
        self.config.models.base = folder.to_str().unwrap().to_owned();
        self
    }

    /// Mode `tokens`, with these people.
    pub(crate) fn people(mut self, people: &[(&'static str, &'static [&'static str], Role)]) -> Self {
        self.config.access.mode = AccessMode::Tokens;
        self.tokens = people.to_vec();
        self
    }

    pub(crate) async fn start(self) -> TestApp {
        let dir = tempfile::tempdir().unwrap();
        let Self { mut config, generator, loader, tokens: people } = self;
        config.data_dir = dir.path().to_owned();
        let mut secrets = Vec::new();
        if !people.is_empty() {
            let ledger = attune::ledger::open(config.database.url.as_deref(), dir.path()).await.unwrap();
            for (user, groups, role) in people {
                let groups = groups.iter().map(|group| (*group).to_owned()).collect();
                let new = NewToken { user: user.into(), groups, role, expires: None };
                secrets.push(tokens::create(ledger.as_ref(), new).await.unwrap().1);
            }
            ledger.close().await;
        }
        let app = Application::build(config).unwrap();
        let app = match (loader, generator) {
            (Some(loader), _) => app.with_loader(loader),
            (None, Some(generator)) => app.with_generator(Arc::new(generator)),
            (None, None) => app,
        };
        let base = format!("http://127.0.0.1:{}", app.port());
        let (metrics, stop) = (app.metrics().clone(), CancellationToken::new());
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(app.run(stopping)).unwrap();
        });
        let client = reqwest::Client::new();
        let app = TestApp { base, metrics, stop, tokens: secrets, client, thread: Some(thread), dir };
        app.eventually("the server is ready", async || app.status("/readyz").await == Some(StatusCode::OK))
            .await;
        app
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    /// Where its data lives.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).timeout(PATIENCE)
    }

    /// A request by the person whose token was asked for at this position.
    pub(crate) fn by(&self, person: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).bearer_auth(&self.tokens[person])
    }

    /// The status of a GET request, or `None` while the server, starting or stopping, closes connections.
    pub(crate) async fn status(&self, path: &str) -> Option<StatusCode> {
        Some(self.request(Method::GET, path).send().await.ok()?.status())
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    /// Puts the document that most tests ask about.
    pub(crate) async fn knows_boston(&self) {
        let body = json!({"title": "Boston office", "text": "# Boston office\n\nThe HR department is in room 310 on the third floor."});
        let (status, _) = self.put("/v1/documents/boston", body).await;
        assert_eq!(status, StatusCode::CREATED);
    }

    /// Asks a question and returns the response.
    pub(crate) async fn ask(&self, question: &str) -> Value {
        let (status, body) = self.post("/v1/chat/completions", asking(question)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Waits until something holds.
    pub(crate) async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if std::thread::panicking() {
            return;
        }
        assert!(matches!(ended, Some(Ok(()))), "the server failed");
        let metrics = &self.metrics;
        let left = [metrics.http_in_flight.get(), metrics.queue_running.get(), metrics.queue_waiting.get()];
        assert_eq!(left, [0, 0, 0], "requests, answers or questions were left over");
    }
}

/// The smallest chat request.
pub(crate) fn asking(question: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}], "seed": 0})
}

/// Status and JSON body (null when there is none).
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The data of each event of a stream, `[DONE]` as a string; comments are left out.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let frames =
        stream.split("\n\n").filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")));
    frames.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

/// Checks that a response is an error with this status and code, and returns its `param`.
#[track_caller]
pub(crate) fn check_error((status, body): (StatusCode, Value), expected: u16, code: &str) -> Option<String> {
    assert_eq!((status.as_u16(), body["error"]["code"].as_str()), (expected, Some(code)), "{body}");
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
    body["error"]["param"].as_str().map(str::to_owned)
}
