//! A server in a process of its own, so that it can be killed: this test binary, started again as [`serve`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune::app::Application;
use attune::config::{Config, Overrides};
use attune::generation::ScriptedGenerator;
use attune::shutdown;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::PATIENCE;

/// Names the folder of the server to run; without it [`serve`] has nothing to do.
const HOME: &str = "ROBUSTNESS_HOME";
/// Words of each scripted answer: enough to be killed or stopped in the middle of.
pub(crate) const WORDS: usize = 24;

/// Where one server lives, across its processes: its configuration, its port, its log and its data.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pause: Duration,
    habit: &'static str,
}

impl Home {
    /// A home with its data inside it; `settings` are added to the configuration.
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::with_data(folder, data, settings)
    }

    /// A home with its data elsewhere.
    pub(crate) fn with_data(folder: tempfile::TempDir, data: PathBuf, settings: &str) -> Self {
        let config = format!(
            "data_dir = {data:?}\n{settings}\n\
             [models]\nsentence = ''\noffline = true\n\
             [retrieval]\nanswerable_threshold = 0.0\n\
             [admission]\nmax_in_flight = 16\nper_user_in_flight = 100\nper_user_per_minute = 0\n"
        );
        std::fs::write(folder.path().join("attune.toml"), config).unwrap();
        let pause = Duration::from_millis(1);
        Self { folder, data, pause, habit: "" }
    }

    /// The model waits this long before each word.
    pub(crate) fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Workers do this apart from working.
    pub(crate) fn with_habit(self, habit: &'static str) -> Self {
        Self { habit, ..self }
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("attune.toml")
    }

    fn port_file(&self) -> PathBuf {
        self.folder.path().join("port")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts a server here and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        drop(std::fs::remove_file(self.port_file()));
        let log = File::options().append(true).create(true).open(self.folder.path().join("log")).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::serve", "--ignored", "--nocapture"])
            .env(HOME, self.folder.path())
            .env(crate::runs::HABIT, self.habit)
            .env("ROBUSTNESS_PAUSE", self.pause.as_micros().to_string())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Server { process, base: String::new(), client: reqwest::Client::new() };
        let began = Instant::now();
        loop {
            let ended = server.process.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "the server did not start:\n{}",
                self.log()
            );
            if let Ok(port) = std::fs::read_to_string(self.port_file()) {
                server.base = format!("http://127.0.0.1:{port}");
                if matches!(server.get("/readyz").await, Ok((StatusCode::OK, _))) {
                    return server;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A running server; dropping it kills it.
pub(crate) struct Server {
    process: std::process::Child,
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
}

impl Server {
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).timeout(PATIENCE)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Result<(StatusCode, Value)> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> reqwest::Result<(StatusCode, Value)> {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> reqwest::Result<(StatusCode, Value)> {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    /// Every row of a list, page after page.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut before) = (Vec::new(), String::new());
        loop {
            let (status, page) = self.get(&format!("{path}?limit=1000{before}")).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{path}: {page}");
            rows.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => return rows,
            }
        }
    }

    /// `kill -9`: the process does nothing more, not even for what it had begun.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to stop, as an init system does.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Status and JSON body (null when there is none); an error when the connection broke off.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, Value)> {
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// A chat request about `tag`, which the answer repeats.
pub(crate) fn asking(tag: &str) -> Value {
    json!({"messages": [{"role": "user", "content": format!("What about {tag} ?")}]})
}

/// What the script answers: the tag of the question, a word that depends on the seed, and filling.
fn script(prompt: &str, seed: u64) -> String {
    let tag = prompt.split_whitespace().rev().find(|word| word.starts_with("tag-")).unwrap_or("nothing");
    let mut words = vec![format!("{tag}:"), format!("draw{seed}")];
    words.resize(WORDS, "word".into());
    words.join(" ")
}

/// The process that the other tests start: a server with everything but the model. It ends with whoever started it.
#[test]
#[ignore = "the other tests run it, in a process of its own"]
fn serve() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    std::thread::spawn(|| {
        drop(std::io::stdin().read(&mut [0]));
        std::process::abort();
    });
    let pause = std::env::var("ROBUSTNESS_PAUSE").unwrap().parse().unwrap();
    let config = Config::load(Some(&Path::new(&home).join("attune.toml")), &Overrides::default()).unwrap();
    let config = Config {
        server: attune::config::ServerConfig { listen: "127.0.0.1:0".into(), ..config.server },
        ..config
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone());
        let generator = ScriptedGenerator::new("gen-scripted", script).pausing(Duration::from_micros(pause));
        let app = Application::build(config).unwrap().with_generator(Arc::new(generator));
        let app = app.with_worker(crate::runs::worker_program());
        let port = Path::new(&home).join("port");
        let unfinished = port.with_extension("new");
        std::fs::write(&unfinished, app.port().to_string()).unwrap();
        std::fs::rename(unfinished, port).unwrap();
        app.run(stop).await.unwrap();
    });
}
