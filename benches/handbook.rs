//! How well are the sample handbook's questions answered, end to end, by the real model?
//!
//! `cargo bench --bench handbook -- [--split held-out|train] [--limit N] [--kind KIND] [--show] [--no-model]`
//!
//! Every question goes through `chat::answer`: the shares below are what people would see.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use attune::admission::Admission;
use attune::app::{DataDir, load_base, open_library};
use attune::chat::{AnswerEvent, Answered, Chat, Question, answer, supporting};
use attune::config::Config;
use attune::domain::{AnswerRecord, CitedBy, DocumentId, FinishReason, Groups, Identity, Message, Role};
use attune::generation::{Generator, ScriptedGenerator, Slot};
use attune::live::Watch;
use attune::prompt::PromptBuilder;
use attune::registry::Registry;
use attune::scoring::Scorer;
use attune::telemetry::Metrics;
use clap::Parser;
use futures::StreamExt;
use serde::Deserialize;
use tokio_util::task::TaskTracker;

#[derive(Parser)]
struct Options {
    /// Which questions.
    #[arg(long, default_value = "held-out")]
    split: String,
    /// Only every so many-th question of each kind, for a quick look.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// At most so many of each kind.
    #[arg(long)]
    limit: Option<usize>,
    /// Only this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Print every answer.
    #[arg(long)]
    show: bool,
    /// Retrieval and refusals only: the scripted generator stands in for the model.
    #[arg(long)]
    no_model: bool,
    /// Write every record as a JSON line to this file.
    #[arg(long)]
    records: Option<std::path::PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Deserialize, Clone)]
struct Row {
    id: String,
    question: String,
    answer: String,
    facts: Vec<Vec<String>>,
    page: Option<String>,
    split: String,
    kind: String,
    #[serde(default)]
    groups: Groups,
    #[serde(default)]
    history: Vec<Message>,
}

/// What came of one question.
struct Outcome {
    record: AnswerRecord,
    cited_page: bool,
    cited_by_model: bool,
    cites: bool,
    first_citation_right: bool,
    in_prompt: bool,
    states_facts: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::load(None, &Default::default()).unwrap();
    config.data_dir = folder.path().to_owned();
    config.admission.per_user_per_minute = 0;
    config.docs.paths = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/handbook").into()];
    let chat = chat(Arc::new(config), options.no_model).await;
    let mut by_kind: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    let began = Instant::now();
    let mut records = options.records.as_ref().map(|path| std::fs::File::create(path).unwrap());
    for row in rows(&options) {
        let outcome = ask(&chat, &row, &row.groups).await;
        if let Some(file) = &mut records {
            let line = serde_json::json!({"id": row.id, "kind": row.kind, "page": row.page, "record": outcome.record});
            writeln!(file, "{line}").unwrap();
        }
        if options.show {
            show(&row, &outcome);
        }
        by_kind.entry(row.kind.clone()).or_default().push(outcome);
        if row.kind == "restricted" {
            let outsider = ask(&chat, &row, &Groups::new()).await;
            by_kind.entry("restricted, asked by an outsider".into()).or_default().push(outsider);
        }
    }
    report(&by_kind);
    ungrounded(&by_kind, &chat);
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
}

async fn chat(config: Arc<Config>, no_model: bool) -> Arc<Chat> {
    let data_dir = DataDir::lock(&config.data_dir).unwrap();
    let library = Arc::new(open_library(&config, &data_dir).await.unwrap());
    let (syncing, docs) = (Arc::clone(&library), config.docs.clone());
    tokio::task::spawn_blocking(move || syncing.sync_folders(&docs, &mut |_| {})).await.unwrap().unwrap();
    let metrics = Metrics::new().unwrap();
    let prompts = PromptBuilder::new(&config.prompt);
    let slot = Slot::empty(metrics.clone());
    let generator: Arc<dyn Generator> = if no_model {
        Arc::new(ScriptedGenerator::new("gen-none", |_, _| "no answer".into()))
    } else {
        Arc::new(load_base(&config, &prompts).await.unwrap())
    };
    let prepared = slot.prepare(generator).await.unwrap();
    slot.commit(prepared);
    let ledger = attune::ledger::open(None, data_dir.path()).await.unwrap();
    let registry = Registry::open(data_dir.path(), Arc::clone(&ledger)).await.unwrap();
    Arc::new(Chat {
        watch: Arc::new(Watch::new(b"key")),
        scorer: Arc::new(Scorer::new(registry, &config, library.encoder(), metrics.clone())),
        ledger,
        library,
        slot: Arc::new(slot),
        admission: Arc::new(Admission::new(&config.admission, metrics.clone())),
        prompts,
        metrics,
        tasks: TaskTracker::new(),
        runtime: tokio::runtime::Handle::current(),
        config,
    })
}

fn rows(options: &Options) -> Vec<Row> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/handbook/questions.jsonl")).unwrap();
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let rows = text.lines().map(|line| serde_json::from_str::<Row>(line).unwrap());
    rows.filter(|row| row.split == options.split)
        .filter(|row| options.kind.as_ref().is_none_or(|kind| *kind == row.kind))
        .filter(|row| {
            let count = taken.entry(row.kind.clone()).or_default();
            *count += 1;
            (*count - 1).is_multiple_of(options.every)
                && options.limit.is_none_or(|limit| *count <= limit * options.every)
        })
        .collect()
}

async fn ask(chat: &Arc<Chat>, row: &Row, groups: &Groups) -> Outcome {
    let who = Identity {
        user: "bench".into(),
        groups: groups.clone(),
        role: Role::Employee,
        sees_everything: false,
    };
    let messages = row.history.iter().cloned().chain([Message::user(row.question.as_str())]).collect();
    let mut stream = answer(chat, &who, Question { messages, ..Question::default() }).await.unwrap();
    let mut record = None;
    while let Some(event) = stream.next().await {
        if let AnswerEvent::Finished(finished) = event.unwrap() {
            record = Some(*finished);
        }
    }
    let record = record.unwrap();
    let page = row.page.as_ref().map(|page| DocumentId::from_path("handbook", page));
    let right = |document: &DocumentId| Some(document) == page.as_ref();
    let lower = record.answer.to_lowercase();
    Outcome {
        cited_page: record.citations.iter().any(|c| right(&c.document_id)),
        cited_by_model: record.citations.iter().any(|c| c.by == CitedBy::Model),
        cites: !record.citations.is_empty(),
        first_citation_right: record.citations.first().is_some_and(|c| right(&c.document_id)),
        in_prompt: record.passages.iter().any(|p| right(&p.document_id)),
        states_facts: row.facts.iter().all(|ways| ways.iter().any(|way| lower.contains(&way.to_lowercase()))),
        record,
    }
}

fn show(row: &Row, outcome: &Outcome) {
    println!(
        "{} {} | {}\n  wanted: {}\n  got{}{}: {}\n",
        row.id,
        row.kind,
        row.question,
        row.answer,
        if outcome.states_facts { " [fact]" } else { "" },
        if outcome.cited_page { " [page]" } else { "" },
        outcome.record.answer.replace('\n', " / "),
    );
}

/// How often an answer gets a citation that has nothing to do with the passages: each is held against the questions and
/// passages of others, whose pages are not among its own.
fn ungrounded(by_kind: &BTreeMap<String, Vec<Outcome>>, chat: &Chat) {
    let answered: Vec<&AnswerRecord> =
        by_kind.values().flatten().map(|outcome| &outcome.record).filter(|record| !record.refused).collect();
    let threshold = chat.config.generation.citation_overlap;
    let (mut pairs, mut cited) = (0, 0);
    for (place, about) in answered.iter().enumerate() {
        // A few others, far apart: neighbours ask about the same page.
        for step in [17, 31, 53, 79] {
            let other = answered[(place + step) % answered.len()];
            let shares = |passage: &attune::domain::PassageRef| {
                about.passages.iter().any(|own| own.document_id == passage.document_id)
            };
            if other.passages.iter().any(shares) {
                continue;
            }
            let (answer, question, passages) = (&*other.answer, &*about.search_query, &*about.passages);
            pairs += 1;
            cited += usize::from(!supporting(Answered { answer, question, passages }, threshold).is_empty());
        }
    }
    println!("answers of other questions: {cited} of {pairs} would get a citation");
    let citations: usize = answered.iter().map(|record| record.citations.len()).sum();
    println!("citations an answer: {:.2}", citations as f64 / answered.len().max(1) as f64);
}

fn report(by_kind: &BTreeMap<String, Vec<Outcome>>) {
    println!(
        "{:<34}{:>5}{:>9}{:>10}{:>8}{:>8}{:>9}{:>9}{:>8}{:>8}{:>9}{:>9}",
        "kind",
        "n",
        "refused",
        "in prompt",
        "cites",
        "right",
        "1st cite",
        "by model",
        "fact",
        "ended",
        "tok p/a",
        "first s"
    );
    for (kind, outcomes) in by_kind {
        let share = |test: &dyn Fn(&Outcome) -> bool| {
            outcomes.iter().filter(|outcome| test(outcome)).count() as f64 / outcomes.len() as f64
        };
        let mean =
            |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / outcomes.len() as f64;
        println!(
            "{kind:<34}{:>5}{:>9.3}{:>10.3}{:>8.3}{:>8.3}{:>9.3}{:>9.3}{:>8.3}{:>8.3}{:>9}{:>9.2}",
            outcomes.len(),
            share(&|o| o.record.refused),
            share(&|o| o.in_prompt),
            share(&|o| o.cites),
            share(&|o| o.cited_page),
            share(&|o| o.first_citation_right),
            share(&|o| o.cited_by_model),
            share(&|o| o.states_facts && !o.record.refused),
            share(&|o| o.record.finish_reason == FinishReason::Stop),
            format!(
                "{:.0}/{:.0}",
                mean(&|o| f64::from(o.record.usage.prompt_tokens)),
                mean(&|o| f64::from(o.record.usage.completion_tokens))
            ),
            mean(&|o| o.record.timing.first_token_ms.unwrap_or(0.0) / 1e3),
        );
    }
    let longest = by_kind.values().flatten().map(|o| o.record.usage.prompt_tokens).max();
    println!("longest prompt: {} tokens", longest.unwrap_or(0));
}
