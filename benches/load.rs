//! What do people notice of a server that learns? Asks, thumbs and votes against a running one, while it trains and
//! while it does not.
//!
//! `cargo bench --bench load -- --server http://127.0.0.1:8080 [--people N] [--pause SECONDS] [--vote-every SECONDS]
//! [--minutes N] [--until-run-ends]`
//!
//! Each person asks a train question of the sample handbook, streams the answer, and asks again after a pause; every
//! other answer gets a thumb, and now and then somebody votes between two. At the end every answer that was
//! acknowledged is looked up in the log. The server must know people by the header `x-forwarded-user` (mode proxy), or
//! be open.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attune::evaluation::statistics::quantile;
use clap::Parser;
use serde_json::{Value, json};

/// Between two looks at the runs.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Parser)]
struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Who ask at once.
    #[arg(long, default_value_t = 2)]
    people: usize,
    /// Seconds between an answer and the person's next question.
    #[arg(long, default_value_t = 2.0)]
    pause: f64,
    /// Seconds between two votes.
    #[arg(long, default_value_t = 20.0)]
    vote_every: f64,
    /// How long at most.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// End half a minute after a run that was seen has ended.
    #[arg(long)]
    until_run_ends: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds of one streamed answer.
struct Answered {
    first: f64,
    whole: f64,
    training: bool,
}

/// What happened.
#[derive(Default)]
struct Seen {
    answers: Vec<Answered>,
    ids: Vec<String>,
    generations: BTreeSet<String>,
    thumbs: usize,
    votes: usize,
    /// Calls the server was too busy for, by status: told so, and tried again.
    busy: BTreeMap<u16, usize>,
    failures: Vec<String>,
    phases: Vec<String>,
}

/// Who asks, of whom, and what is known.
struct World {
    http: reqwest::Client,
    server: String,
    questions: Vec<String>,
    seen: Mutex<Seen>,
    training: AtomicBool,
    over: AtomicBool,
}

impl World {
    fn request(&self, method: reqwest::Method, path: &str, user: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server)).timeout(PATIENCE);
        request.header("x-forwarded-user", user).header("x-forwarded-groups", "operators")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().unwrap());
    }

    fn failed(&self, name: &str, why: impl std::fmt::Display) {
        self.note(|seen| seen.failures.push(format!("{name}: {why}")));
    }

    /// Sends a call; `None` when it was refused or failed, which is noted.
    async fn send(&self, request: reqwest::RequestBuilder, name: &str) -> Option<reqwest::Response> {
        match request.send().await {
            Ok(response) if response.status().is_success() => return Some(response),
            Ok(response) => match response.status().as_u16() {
                // Two answers that are the same leave nothing to choose.
                409 if name == "compare" => {}
                busy @ (429 | 503) => self.note(|seen| *seen.busy.entry(busy).or_default() += 1),
                status => {
                    self.failed(name, format!("{status} {}", response.text().await.unwrap_or_default()));
                }
            },
            Err(error) => self.failed(name, error),
        }
        None
    }

    /// The body of a call; `None` when there is none, which is noted.
    async fn call(&self, request: reqwest::RequestBuilder, name: &str) -> Option<Value> {
        match self.send(request, name).await?.text().await {
            Ok(text) => Some(serde_json::from_str(&text).unwrap_or_default()),
            Err(error) => {
                self.failed(name, error);
                None
            }
        }
    }

    /// Streams an answer: its id.
    async fn ask(&self, user: &str, question: &str) -> Option<String> {
        let body = json!({"messages": [{"role": "user", "content": question}], "stream": true});
        let (began, trained) = (Instant::now(), self.training.load(Ordering::Relaxed));
        let request = self.request(reqwest::Method::POST, "/v1/chat/completions", user).json(&body);
        let mut response = self.send(request, "ask").await?;
        let (mut text, mut read, mut first) = (String::new(), 0, None);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    text.push_str(&String::from_utf8_lossy(&chunk));
                    if first.is_none() && events(&text[read..]).any(|event| says_something(&event)) {
                        first = Some(began.elapsed().as_secs_f64());
                    }
                    read = text.rfind('\n').map_or(0, |end| end + 1);
                }
                Ok(None) => break,
                Err(error) => {
                    self.failed("stream", error);
                    return None;
                }
            }
        }
        self.streamed(&text, (began, first, trained))
    }

    fn streamed(&self, text: &str, (began, first, trained): (Instant, Option<f64>, bool)) -> Option<String> {
        let chunks: Vec<Value> = events(text).collect();
        let generations: BTreeSet<String> =
            chunks.iter().filter_map(|chunk| chunk["model"].as_str().map(str::to_owned)).collect();
        let id = chunks.iter().find_map(|chunk| chunk["id"].as_str().map(str::to_owned));
        if !text.contains("[DONE]") || generations.len() != 1 || id.is_none() {
            self.failed("stream", format!("broken or mixed: {generations:?} {text}"));
            return None;
        }
        let whole = began.elapsed().as_secs_f64();
        let training = trained || self.training.load(Ordering::Relaxed);
        self.note(|seen| {
            seen.answers.push(Answered { first: first.unwrap_or(whole), whole, training });
            seen.generations.extend(generations);
            seen.ids.extend(id.clone());
        });
        id
    }

    async fn person(&self, n: usize, pause: Duration) {
        let user = format!("visitor-{n}");
        for turn in 0.. {
            if self.is_over() {
                return;
            }
            let question = &self.questions[(turn * 7 + n * 31) % self.questions.len()];
            if let Some(id) = self.ask(&user, question).await
                && turn % 2 == 0
            {
                let rating = if turn % 4 == 0 { "up" } else { "down" };
                let path = format!("/v1/feedback/{id}");
                let request =
                    self.request(reqwest::Method::PUT, &path, &user).json(&json!({"rating": rating}));
                if self.call(request, "thumb").await.is_some() {
                    self.note(|seen| seen.thumbs += 1);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn voter(&self, every: Duration) {
        for turn in 0.. {
            tokio::time::sleep(every).await;
            if self.is_over() {
                return;
            }
            let question = &self.questions[(turn * 13) % self.questions.len()];
            let body = json!({"messages": [{"role": "user", "content": question}]});
            let request = self.request(reqwest::Method::POST, "/v1/comparisons", "voter").json(&body);
            let Some(pair) = self.call(request, "compare").await else { continue };
            let path = format!("/v1/comparisons/{}/vote", pair["id"].as_str().unwrap_or_default());
            let choice = json!({"choice": if turn % 2 == 0 { "left" } else { "right" }});
            let request = self.request(reqwest::Method::POST, &path, "voter").json(&choice);
            if self.call(request, "vote").await.is_some() {
                self.note(|seen| seen.votes += 1);
            }
        }
    }

    /// Watches the newest run until the time is over.
    async fn watch(&self, until: Instant, until_run_ends: bool) {
        let mut ended: Option<(Instant, bool)> = None;
        while Instant::now() < until {
            let request = self.request(reqwest::Method::GET, "/v1/runs?limit=1", "watcher");
            if let Some(runs) = self.call(request, "runs").await {
                let run = &runs["data"][0];
                let training = run["state"] == "running";
                if self.training.swap(training, Ordering::Relaxed) && !training {
                    println!("run {} ended: {}", run["id"], run["state"]);
                    ended = Some((Instant::now(), run["state"] == "succeeded"));
                }
                if training {
                    let phase = run["progress"]["phase"].as_str().unwrap_or("starting").to_owned();
                    self.note(|seen| {
                        if seen.phases.last() != Some(&phase) {
                            println!("training: {phase}");
                            seen.phases.push(phase);
                        }
                    });
                }
            }
            if until_run_ends && ended.is_some_and(|(ended, well)| ended.elapsed() > self.patience(well)) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.over.store(true, Ordering::Relaxed);
    }

    /// How long answers are asked for after a run: until the swap, which takes a minute while the next run works, and a
    /// while after it.
    fn patience(&self, succeeded: bool) -> Duration {
        let swapped = self.seen.lock().unwrap().generations.len() > 1;
        Duration::from_secs(if succeeded && !swapped { 240 } else { 90 })
    }

    /// How many acknowledged answers the log lacks.
    async fn missing(&self) -> usize {
        let ids = self.seen.lock().unwrap().ids.clone();
        let mut missing = 0;
        for id in ids {
            let request = self.request(reqwest::Method::GET, &format!("/v1/answers/{id}"), "watcher");
            missing += usize::from(self.call(request, "look up").await.is_none());
        }
        missing
    }

    fn report(&self, missing: usize) {
        let seen = self.seen.lock().unwrap();
        println!(
            "\n| | answers | first token p50, s | p99 | whole answer p50, s | p99 |\n|---|---:|---:|---:|---:|---:|"
        );
        for (name, training) in [("training", true), ("idle", false)] {
            let of = |value: fn(&Answered) -> f64, share: f64| {
                let some = seen.answers.iter().filter(|answer| answer.training == training);
                quantile(&some.map(value).collect::<Vec<_>>(), share).unwrap_or(f64::NAN)
            };
            let count = seen.answers.iter().filter(|answer| answer.training == training).count();
            println!(
                "| {name} | {count} | {:.2} | {:.2} | {:.2} | {:.2} |",
                of(|answer| answer.first, 0.5),
                of(|answer| answer.first, 0.99),
                of(|answer| answer.whole, 0.5),
                of(|answer| answer.whole, 0.99)
            );
        }
        println!(
            "\n{} answers, {} thumbs, {} votes; {} failed, {missing} acknowledged answers missing; busy: {:?}; generations: {:?}",
            seen.answers.len(),
            seen.thumbs,
            seen.votes,
            seen.failures.len(),
            seen.busy,
            seen.generations
        );
        seen.failures.iter().take(10).for_each(|failure| println!("- {failure}"));
    }
}

/// The events of a stream, or of a part of one.
fn events(text: &str) -> impl Iterator<Item = Value> + '_ {
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
}

/// The first event names who speaks and says nothing yet.
fn says_something(event: &Value) -> bool {
    event["choices"][0]["delta"]["content"].as_str().is_some_and(|said| !said.is_empty())
}

fn questions() -> Vec<String> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/handbook/questions.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["split"] == "train" && row["kind"] == "answerable")
        .filter_map(|row| row["question"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let world = Arc::new(World {
        http: reqwest::Client::new(),
        server: options.server,
        questions: questions(),
        seen: Mutex::default(),
        training: AtomicBool::new(false),
        over: AtomicBool::new(false),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..options.people {
        let (world, pause) = (Arc::clone(&world), Duration::from_secs_f64(options.pause));
        tasks.spawn(async move { world.person(n, pause).await });
    }
    let (voting, every) = (Arc::clone(&world), Duration::from_secs_f64(options.vote_every));
    tasks.spawn(async move { voting.voter(every).await });
    let until = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    world.watch(until, options.until_run_ends).await;
    while tasks.join_next().await.is_some() {}
    world.report(world.missing().await);
}
