//! What does the HTTP interface cost, apart from the model?
//!
//! `cargo bench --bench http -- [--connections N] [--seconds N] [--rounds N]`
//!
//! The whole server runs with a model that answers at once from a script. Beside it, in the same process and with as
//! many workers, runs a bare actix route that returns a small JSON: what the framework, the client and this machine's
//! cores allow. Each call is measured in every round, and given as a share of the bare route.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use attune::app::Application;
use attune::config::Config;
use attune::generation::ScriptedGenerator;
use clap::Parser;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Workers of either server.
const WORKERS: usize = 2;
/// Not counted at the beginning of each measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// What a passage-grounded answer of the default model is like.
const ANSWER: &str =
    "The HR department in Boston is on the third floor of the Harbor Building, in room 310 [1].";

#[derive(Parser)]
struct Options {
    /// Connections that ask at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds each call is measured in each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds; the median one is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().unwrap();
    println!(
        "{:.0} appends of 4 KiB a second can be synced to this disk, one after the other",
        syncs(folder.path())
    );
    let (product, bare, stop) = (serve(folder.path()), serve_bare(), CancellationToken::new());
    let running = std::thread::spawn({
        let stop = stop.clone();
        move || runtime(WORKERS).block_on(product.0.run(stop)).unwrap()
    });
    // One thread asks: it sends prepared bytes and looks for the end of each response.
    runtime(1).block_on(measure(&options, product.1, bare));
    stop.cancel();
    running.join().unwrap();
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

/// How often a second an append can be made durable.
fn syncs(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("syncs")).unwrap();
    let (began, mut count) = (Instant::now(), 0.0);
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1.0;
    }
    count / began.elapsed().as_secs_f64()
}

/// The product with the sample handbook and nothing that limits a person.
fn serve(folder: &Path) -> (Application, SocketAddr) {
    let mut config = Config { data_dir: folder.join("data"), ..Config::default() };
    config.server.listen = "127.0.0.1:0".into();
    config.server.workers = WORKERS;
    config.docs.paths = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/handbook").into()];
    config.docs.watch = false;
    config.models.sentence = String::new();
    config.retrieval.answerable_threshold = 0.0;
    config.admission.max_in_flight = 1000;
    config.admission.per_user_in_flight = 1000;
    config.admission.per_user_per_minute = 0;
    let generator = ScriptedGenerator::new("gen-scripted", |_, _| ANSWER.into());
    let app = Application::build(config).unwrap().with_generator(Arc::new(generator));
    let address = SocketAddr::from(([127, 0, 0, 1], app.port()));
    (app, address)
}

fn serve_bare() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let app = || {
        let alive = || async { HttpResponse::Ok().json(json!({"status": "alive"})) };
        App::new().route("/", web::get().to(alive))
    };
    std::thread::spawn(move || {
        let server = HttpServer::new(app).workers(WORKERS).disable_signals().listen(listener).unwrap();
        runtime(1).block_on(server.run()).unwrap();
    });
    address
}

/// A call to measure: the bytes that each connection sends again and again.
struct Call {
    name: &'static str,
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
}

impl Call {
    fn new(name: &'static str, address: SocketAddr, requests: Vec<Vec<u8>>) -> Self {
        Self { name, address, requests }
    }
}

/// What a call did in one round.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

async fn measure(options: &Options, product: SocketAddr, bare: SocketAddr) {
    wait_until_ready(product).await;
    let connections = options.connections;
    let every = |request: Vec<u8>| vec![request; connections];
    let chat = |stream| json!({"messages": [{"role": "user", "content": "Where is HR in Boston?"}], "stream": stream});
    let mut feedback = Vec::new();
    for _ in 0..connections {
        let id = ask(product, &request("POST", "/v1/chat/completions", Some(&chat(false)))).await;
        let path = format!("/v1/feedback/{}", id["id"].as_str().unwrap());
        feedback.push(request("PUT", &path, Some(&json!({"rating": "up", "comment": "This helped."}))));
    }
    let calls = [
        Call::new("bare actix route", bare, every(request("GET", "/", None))),
        Call::new("GET /livez", product, every(request("GET", "/livez", None))),
        Call::new(
            "GET /v1/search",
            product,
            every(request("GET", "/v1/search?q=where+is+hr+in+boston", None)),
        ),
        Call::new(
            "POST /v1/chat/completions",
            product,
            every(request("POST", "/v1/chat/completions", Some(&chat(false)))),
        ),
        Call::new(
            "the same, streamed",
            product,
            every(request("POST", "/v1/chat/completions", Some(&chat(true)))),
        ),
        Call::new("PUT /v1/feedback/{id}", product, feedback),
    ];
    let mut rounds = vec![Vec::new(); calls.len()];
    for _ in 0..options.rounds {
        for (call, figures) in calls.iter().zip(&mut rounds) {
            figures.push(one_round(call, Duration::from_secs(options.seconds)).await);
        }
    }
    let median = |figures: &mut Vec<Figures>| {
        figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        figures[figures.len() / 2]
    };
    let shown: Vec<_> = rounds.iter_mut().map(median).collect();
    println!(
        "\n| call | requests/s | p50 ms | p99 ms | share of the bare route |\n|---|---:|---:|---:|---:|"
    );
    for (call, figures) in calls.iter().zip(&shown) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let share = figures.per_second / shown[0].per_second;
        let (name, rate, p50, p99) = (call.name, figures.per_second, ms(figures.p50), ms(figures.p99));
        println!("| {name} | {rate:.0} | {p50:.2} | {p99:.2} | {share:.4} |");
    }
}

fn request(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn wait_until_ready(address: SocketAddr) {
    let ready = request("GET", "/readyz", None);
    for _ in 0..600 {
        if let Ok(stream) = TcpStream::connect(address).await
            && Connection::new(stream).exchange(&ready).await == Some(200)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server does not become ready");
}

/// Asks once and returns the JSON.
async fn ask(address: SocketAddr, request: &[u8]) -> Value {
    let mut connection = Connection::new(TcpStream::connect(address).await.unwrap());
    assert_eq!(connection.exchange(request).await, Some(200));
    let head = connection.received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    serde_json::from_slice(&connection.received[head..]).unwrap()
}

async fn one_round(call: &Call, time: Duration) -> Figures {
    let asking = call.requests.iter().map(|request| {
        let (address, request) = (call.address, request.clone());
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut connection, began) = (Connection::new(stream), Instant::now());
            let mut latencies = Vec::new();
            loop {
                let sent = Instant::now();
                let status = connection.exchange(&request).await;
                assert_eq!(status, Some(200), "{}", String::from_utf8_lossy(&connection.received));
                if began.elapsed() > WARM_UP + time {
                    return latencies;
                }
                if sent.duration_since(began) > WARM_UP {
                    latencies.push(sent.elapsed());
                }
            }
        })
    });
    let mut latencies: Vec<_> =
        futures::future::join_all(asking).await.into_iter().flat_map(Result::unwrap).collect();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Figures { per_second: latencies.len() as f64 / time.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// A connection that is kept, and the bytes of its last response.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, received: Vec::with_capacity(1 << 16) }
    }

    /// Sends a request and reads its whole response; its status, or `None` when the connection broke off.
    async fn exchange(&mut self, request: &[u8]) -> Option<u16> {
        self.received.clear();
        self.stream.write_all(request).await.ok()?;
        let mut body = None;
        loop {
            if self.stream.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
            body = body.or_else(|| Body::of(&self.received));
            if body.as_ref().is_some_and(|body| body.is_whole(&self.received)) {
                return std::str::from_utf8(self.received.get(9..12)?).ok()?.parse().ok();
            }
        }
    }
}

/// How the end of a response is told.
enum Body {
    Length(usize),
    Chunked,
}

impl Body {
    /// `None` while the headers are incomplete.
    fn of(received: &[u8]) -> Option<Self> {
        let head = received.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let headers = std::str::from_utf8(&received[..head]).unwrap();
        let length = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        Some(length.map_or(Self::Chunked, |length| Self::Length(head + length)))
    }

    fn is_whole(&self, received: &[u8]) -> bool {
        match self {
            Self::Length(length) => received.len() >= *length,
            Self::Chunked => received.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}
