//! How often does a reward model choose as people did, on prompts it never saw?
//!
//! `cargo bench --bench preferences -- --encoder FOLDER [--model FILE] [--pairs N]... [--minutes M] [--folds N]
//! [--sources A,B] [--cache FOLDER] [--thumbs]`
//!
//! Reads `ATTUNE_EVAL_DATA` (default `../shared/data`). Prompts are dealt to five folds by their hash; of each fold
//! measured, models learn from pairs of the other four only. `--thumbs` measures ratings of answers instead: how often
//! two answers to one question are ranked as people rated them.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attune::config::ModelsConfig;
use attune::domain::Message;
use attune::nn::Decoder;
use attune::retrieval::SentenceEncoder;
use attune::reward::{
    Accuracy, Backbone, Extractor, Item, Outcome, Pair, Preferences, Report, RewardModel, Settings, Thumb,
    train,
};
use clap::Parser;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Parts that prompts are dealt to.
const FOLDS: u8 = 5;

#[derive(Parser)]
struct Options {
    /// Folder of the sentence model.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// Weights of the language model for the rungs that read answers with one.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Pairs to learn from; several may be given. Default: 100, 300, 1000 and all.
    #[arg(long)]
    pairs: Vec<usize>,
    /// Folds to measure, up to five.
    #[arg(long, default_value_t = FOLDS)]
    folds: u8,
    /// Minutes a model may take.
    #[arg(long)]
    minutes: Option<f64>,
    /// Only pairs of these sources.
    #[arg(long, value_delimiter = ',')]
    sources: Vec<String>,
    /// Where features are kept between calls; a temporary folder by default.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Measure ratings instead of pairs.
    #[arg(long)]
    thumbs: bool,
    /// Print the last report.
    #[arg(long)]
    report: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn data() -> PathBuf {
    std::env::var("ATTUNE_EVAL_DATA").map_or_else(|_| PathBuf::from("../shared/data"), PathBuf::from)
}

/// Where a prompt stands in an order that depends on nothing but its text.
fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn fold(cluster: &str) -> u8 {
    hash(cluster)[0] % FOLDS
}

/// Turns are lines that begin with who speaks, in prompts of conversations.
fn conversation(prompt: &str) -> Vec<Message> {
    if !prompt.starts_with("user: ") {
        return vec![Message::user(prompt)];
    }
    let mut messages: Vec<Message> = Vec::new();
    for line in prompt.lines() {
        if let Some(said) = line.strip_prefix("user: ") {
            messages.push(Message::user(said));
        } else if let Some(said) = line.strip_prefix("agent: ") {
            messages.push(Message::assistant(said));
        } else if let Some(last) = messages.last_mut() {
            last.content.push('\n');
            last.content.push_str(line);
        }
    }
    messages
}

/// A context is numbered passages, or one text.
fn passages(context: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in context.lines() {
        let mark = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        match mark.filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit())) {
            Some((_, text)) => found.push(text.to_owned()),
            None => found.last_mut().unwrap().extend(["\n", line]),
        }
    }
    found.retain(|passage| !passage.trim().is_empty());
    found
}

fn pairs(options: &Options) -> Vec<Pair> {
    let text = std::fs::read_to_string(data().join("human-preferences/pairs.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| hash(row["prompt"].as_str().unwrap()));
    let of = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let kept =
        rows.iter().filter(|row| options.sources.is_empty() || options.sources.contains(&of(row, "source")));
    kept.map(|row| Pair {
        id: of(row, "id"),
        cluster: of(row, "prompt"),
        held_out: false,
        conversation: conversation(&of(row, "prompt")),
        passages: passages(&of(row, "context")),
        chosen: of(row, "chosen"),
        rejected: of(row, "rejected"),
        preference: 1.0,
        // Sources give strength on scales of their own.
        margin: 1.0,
        user: None,
        source: of(row, "source"),
        created: 0,
    })
    // An answer of white space can not be scored.
    .filter(|pair| !pair.chosen.trim().is_empty() && !pair.rejected.trim().is_empty())
    .collect()
}

fn extractor(options: &Options) -> Extractor {
    let encoder = options.encoder.as_deref().map(|folder| Arc::new(SentenceEncoder::load(folder).unwrap()));
    let backbone = options.model.as_deref().map(|path| Arc::new(backbone(path)));
    Extractor { encoder, backbone }
}

fn backbone(path: &Path) -> Backbone {
    let config = ModelsConfig { base: path.display().to_string(), offline: true, ..ModelsConfig::default() };
    let model = attune::models::prepare(&config, attune::models::for_this_process().as_ref()).unwrap();
    Backbone { decoder: Decoder::open(path).unwrap(), codec: model.codec().unwrap() }
}

fn learn(
    preferences: &Preferences,
    (options, extractor): (&Options, &Extractor),
    folder: &Path,
) -> Option<(RewardModel, Report)> {
    let mut settings = Settings::default();
    settings.budget_minutes = options.minutes.unwrap_or(settings.budget_minutes);
    match train(preferences, extractor, (&settings, folder), |_| true).unwrap() {
        Outcome::Trained(trained) => Some((trained.model, trained.report)),
        Outcome::Collecting { .. } => None,
    }
}

/// Sums of folds.
#[derive(Default)]
struct Tally(BTreeMap<String, (f64, u64)>);

impl Tally {
    fn add(&mut self, name: &str, found: Accuracy) {
        let sum = self.0.entry(name.to_owned()).or_default();
        *sum = (sum.0 + found.right, sum.1 + found.pairs);
    }

    fn print(&self) {
        println!("| | pairs | as people chose | 95% interval |\n|---|---:|---:|---|");
        for (name, (right, pairs)) in &self.0 {
            let found = Accuracy::of(*right, *pairs);
            let interval = found.interval.unwrap();
            println!("| {name} | {pairs} | {:.3} | {:.3} to {:.3} |", found.share(), interval.0, interval.1);
        }
    }
}

fn choices(options: &Options, extractor: &Extractor, folder: &Path) {
    let all = pairs(options);
    println!("{} pairs", all.len());
    let sizes =
        if options.pairs.is_empty() { vec![100, 300, 1_000, all.len()] } else { options.pairs.clone() };
    for size in sizes {
        let (mut tally, mut losses, mut seconds) = (Tally::default(), 0.0, 0.0);
        let mut last = None;
        for of in 0..options.folds.min(FOLDS) {
            let held_out = |pair: &&Pair| fold(&pair.cluster) == of;
            let learnt = all.iter().filter(|pair| !held_out(pair)).take(size);
            let judged = all.iter().filter(held_out).map(|pair| Pair { held_out: true, ..pair.clone() });
            let preferences = Preferences { pairs: learnt.cloned().chain(judged).collect(), thumbs: vec![] };
            let started = Instant::now();
            let Some((_, report)) = learn(&preferences, (options, extractor), folder) else { continue };
            seconds += started.elapsed().as_secs_f64();
            let held_out = report.held_out.as_ref().unwrap();
            losses += held_out.log_loss * held_out.accuracy.pairs as f64;
            tally.add(" all", held_out.accuracy);
            for group in held_out.by_source.iter().chain(&held_out.baselines) {
                tally.add(&group.name, group.accuracy);
            }
            last = Some(report);
        }
        let Some(report) = last else { continue };
        let pairs = tally.0[" all"].1;
        println!(
            "\n{size} pairs to learn from: rung {:?}, ridge {}, log-loss {:.4}",
            report.rung,
            report.ridge,
            losses / pairs as f64
        );
        println!("{:.1} s a model\n", seconds / f64::from(options.folds.min(FOLDS)));
        for tried in &report.ladder {
            println!("{tried:?}");
        }
        tally.print();
        if options.report {
            println!("{}", report.markdown());
        }
    }
}

/// Ratings of 0 (bad) to 3 (excellent), their mean, and what was rated.
struct Rated {
    question: String,
    answer: String,
    rating: f64,
}

fn ratings() -> Vec<Rated> {
    let mut found = Vec::new();
    let folder = data().join("feedbackqa/feedback");
    for file in [
        "Australia/feedback_valid",
        "CDC/feedback_valid",
        "WHO/feedback_valid",
        "WHO/feedback_train",
        "Australia/feedback_test",
        "CDC/feedback_test",
        "WHO/feedback_test",
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{file}.json"))).unwrap();
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        for row in rows {
            let value = |rating: &Value| match rating.as_str().unwrap() {
                "Excellent" => 3.0,
                "Acceptable" => 2.0,
                "Could be Improved" => 1.0,
                _ => 0.0,
            };
            let given: Vec<f64> = row["rating"].as_array().unwrap().iter().map(value).collect();
            let reference = &row["passage"]["reference"];
            let headers = reference["section_headers"].as_array().unwrap();
            let headers = headers.iter().filter_map(Value::as_str);
            let title =
                reference["page_title"].as_str().into_iter().chain(headers).collect::<Vec<_>>().join(" > ");
            let content = reference["section_content"].as_str().unwrap_or_default();
            found.push(Rated {
                question: row["question"].as_str().unwrap().to_owned(),
                answer: format!("{title}\n{content}"),
                rating: given.iter().sum::<f64>() / given.len() as f64,
            });
        }
    }
    found
}

fn thumbs(options: &Options, extractor: &Extractor, folder: &Path) {
    let all = ratings();
    let mut sum = (0.0, 0);
    for of in 0..options.folds.min(FOLDS) {
        let learnt = all.iter().enumerate().filter(|(_, rated)| fold(&rated.question) != of);
        let thumbs = learnt.map(|(i, rated)| Thumb {
            id: i.to_string(),
            cluster: rated.question.clone(),
            held_out: false,
            conversation: vec![Message::user(rated.question.as_str())],
            passages: vec![],
            answer: rated.answer.clone(),
            // Between acceptable and could be improved.
            good: rated.rating > 1.5,
            user: None,
            source: "feedbackqa".to_owned(),
            created: 0,
        });
        let preferences = Preferences { pairs: vec![], thumbs: thumbs.collect() };
        let Some((model, _)) = learn(&preferences, (options, extractor), folder) else { continue };
        let judged: Vec<&Rated> = all.iter().filter(|rated| fold(&rated.question) == of).collect();
        let conversations: Vec<[Message; 1]> =
            judged.iter().map(|rated| [Message::user(rated.question.as_str())]).collect();
        let items: Vec<Item<'_>> = judged
            .iter()
            .zip(&conversations)
            .map(|(rated, conversation)| Item { conversation, passages: &[], answer: &rated.answer })
            .collect();
        let scores: Vec<_> =
            items.chunks(32).flat_map(|items| model.score(extractor, items).unwrap()).collect();
        for (i, a) in judged.iter().enumerate() {
            for (j, b) in judged.iter().enumerate().skip(i + 1) {
                if a.question == b.question && a.rating != b.rating {
                    let right = (scores[i].value > scores[j].value) == (a.rating > b.rating);
                    sum = (sum.0 + f64::from(u8::from(right)), sum.1 + 1);
                }
            }
        }
    }
    let found = Accuracy::of(sum.0, sum.1);
    let interval = found.interval.unwrap();
    println!(
        "{} ratings; {} pairs of answers to one question, {:.3} ranked as people rated them ({:.3} to {:.3})",
        all.len(),
        sum.1,
        found.share(),
        interval.0,
        interval.1
    );
}

fn main() {
    let options = Options::parse();
    if !data().join("human-preferences").is_dir() {
        println!("skipped: {} has no human-preferences", data().display());
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = options.cache.clone().unwrap_or_else(|| temporary.path().to_owned());
    let extractor = extractor(&options);
    if options.thumbs {
        thumbs(&options, &extractor, &folder);
    } else {
        choices(&options, &extractor, &folder);
    }
}
