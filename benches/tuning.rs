//! How much does supervised fine-tuning help on held-out questions, and how long does it take?
//!
//! `cargo bench --bench tuning -- [--data dolly|18f] [--rows N] [--held-out N] [--rank R] [--alpha A] [--rate R]
//! [--epochs N] [--batch N] [--dropout P] [--max-context CHARACTERS] [--answer-tokens N] [--documents FOLDER]`
//!
//! Reads `ATTUNE_EVAL_DATA` (default `../shared/data`). Rows are taken by a fixed order; the held-out ones come first in
//! it, so that they are the same whatever else is varied.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attune::config::Config;
use attune::dataset::snapshot;
use attune::evaluation::{Comparing, Comparison};
use attune::improve::{Examining, Question, Workshop, examine, questions};
use attune::jobs::Reporter;
use attune::nn::Decoder;
use attune::sft;
use clap::Parser;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Parser)]
struct Options {
    /// `dolly` (closed questions with a context) or `18f` (questions of a real handbook, answered with retrieval).
    #[arg(long, default_value = "dolly")]
    data: String,
    /// Rows to learn from.
    #[arg(long, default_value_t = 320)]
    rows: usize,
    /// Questions to examine on.
    #[arg(long, default_value_t = 200)]
    held_out: usize,
    #[arg(long)]
    rank: Option<usize>,
    #[arg(long)]
    alpha: Option<f64>,
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long)]
    epochs: Option<usize>,
    #[arg(long)]
    batch: Option<usize>,
    #[arg(long)]
    dropout: Option<f64>,
    /// Longest context of a row of dolly, in characters.
    #[arg(long, default_value_t = 1000)]
    max_context: usize,
    /// Longest answer in tokens; by default as it is served.
    #[arg(long)]
    answer_tokens: Option<u32>,
    /// Write every answer beside the human one to this file.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn data() -> PathBuf {
    std::env::var("ATTUNE_EVAL_DATA").map_or_else(|_| PathBuf::from("../shared/data"), PathBuf::from)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().trim().to_owned()
}

/// Without citation marks of an encyclopaedia, `[12]`.
fn clean(text: &str) -> String {
    regex::Regex::new(r"\[\d+\]").unwrap().replace_all(text, "").trim().to_owned()
}

fn dolly(max_context: usize) -> Vec<Value> {
    let rows = lines(&data().join("dolly15k/dolly15k.jsonl"));
    let kept = rows.iter().filter(|row| {
        let context = text(row, "context");
        ["closed_qa", "information_extraction"].contains(&text(row, "category").as_str())
            && !context.is_empty()
            && context.chars().count() < max_context
            && !text(row, "response").is_empty()
    });
    kept.map(|row| {
        json!({
            "prompt": clean(&text(row, "instruction")), "response": clean(&text(row, "response")),
            "passages": [clean(&text(row, "context"))],
        })
    })
    .collect()
}

fn handbook() -> Vec<Value> {
    let rows = lines(&data().join("handbook-faq/18f/faq.jsonl"));
    rows.iter()
        .map(|row| json!({ "prompt": text(row, "question"), "response": text(row, "answer") }))
        .collect()
}

/// The rows in an order that depends on nothing but their text.
fn ordered(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(|row| hex::encode(Sha256::digest(row.to_string())));
    rows
}

fn write(path: &Path, rows: &[Value]) {
    let mut file = std::fs::File::create(path).unwrap();
    rows.iter().for_each(|row| writeln!(file, "{row}").unwrap());
}

fn load(workshop: &Workshop, path: &Path) -> Vec<Question> {
    let snapshot = snapshot::from_file(path, &workshop.grounding()).unwrap();
    questions(workshop, snapshot.rows()).unwrap()
}

async fn workshop(options: &Options, folder: &Path) -> Workshop {
    let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
    if options.data == "18f" {
        config.docs.paths = vec![data().join("handbook-18f/src")];
    }
    config.generation.max_tokens = options.answer_tokens.unwrap_or(config.generation.max_tokens);
    let ledger = attune::ledger::open(None, folder).await.unwrap();
    let workshop = Workshop::open(Arc::new(config), ledger).await.unwrap();
    if options.data == "18f" {
        let started = Instant::now();
        let (library, docs) = (Arc::clone(&workshop.library), workshop.config.docs.clone());
        let synced = tokio::task::spawn_blocking(move || library.sync_folders(&docs, &mut |_| {}));
        let report = synced.await.unwrap().unwrap();
        println!("indexed {} pages in {:.0} s", report.added, started.elapsed().as_secs_f64());
    }
    workshop
}

fn settings(workshop: &Workshop, options: &Options) -> sft::Settings {
    let mut config = workshop.config.sft.clone();
    config.rank = options.rank.unwrap_or(config.rank);
    config.alpha = options.alpha.unwrap_or(config.alpha);
    config.learning_rate = options.rate.unwrap_or(config.learning_rate);
    config.epochs = options.epochs.unwrap_or(config.epochs);
    config.batch = options.batch.unwrap_or(config.batch);
    config.dropout = options.dropout.unwrap_or(config.dropout);
    config.into()
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().unwrap();
    let workshop = workshop(&options, folder.path()).await;
    let all = match options.data.as_str() {
        "dolly" => dolly(options.max_context),
        "18f" => handbook(),
        other => panic!("unknown data {other}"),
    };
    let all = ordered(all);
    let (held_out, rest) = all.split_at(options.held_out.min(all.len()));
    let train = &rest[..options.rows.min(rest.len())];
    let (held_path, train_path) = (folder.path().join("held.jsonl"), folder.path().join("train.jsonl"));
    write(&held_path, held_out);
    write(&train_path, train);
    tokio::task::spawn_blocking(move || run(&workshop, &options, (&train_path, &held_path), folder.path()))
        .await
        .unwrap();
}

fn run(workshop: &Workshop, options: &Options, (train, held_out): (&Path, &Path), folder: &Path) {
    let settings = settings(workshop, options);
    println!("{settings:?}");
    let (train, held_out) = (load(workshop, train), load(workshop, held_out));
    let examples: Vec<sft::Example> = train.into_iter().map(|question| question.tokens).collect();
    println!("{} rows to learn from, {} held out", examples.len(), held_out.len());
    let decoder = Decoder::open(workshop.base.trained_weights()).unwrap();
    let report = Reporter::unattended();
    let trained = sft::train(&decoder, (&examples, &[]), (&settings, folder), |step| {
        if step.done % 10 == 0 {
            let (done, total, speed) = (step.done, step.total, step.tokens_per_second);
            println!("step {done} of {total}: loss {:.3}, {speed:.0} tokens/s", step.loss);
        }
        true
    });
    let trained = trained.unwrap();
    let (tokens, seconds) = (trained.tokens, trained.seconds);
    println!("{tokens} tokens in {seconds:.0} s ({:.0} tokens/s)", tokens as f64 / seconds);
    let merged = decoder.merged(&trained.adapter).unwrap();
    let started = Instant::now();
    let examining = Examining { workshop, report: &report, is_base: false };
    let before =
        examine(Examining { is_base: true, ..examining }, (&decoder, &held_out), "before").unwrap().samples;
    let after = examine(examining, (&merged, &held_out), "after").unwrap().samples;
    println!("examined in {:.0} s", started.elapsed().as_secs_f64());
    let comparison = Comparison::of(&before, &after, &Comparing::default()).unwrap();
    println!("| metric | before | after | 95% interval of the difference |\n|---|---:|---:|---|");
    for (name, change) in comparison.metrics.iter() {
        let [low, high] = [change.interval.0, change.interval.1];
        println!("| {name} | {:.3} | {:.3} | {low:.3} to {high:.3} |", change.before, change.after);
    }
    if let Some(path) = &options.report {
        let rows =
            before.iter().zip(&after).map(|(before, after)| json!({ "before": before, "after": after }));
        write(path, &rows.collect::<Vec<_>>());
    }
}
