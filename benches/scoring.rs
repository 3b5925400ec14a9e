//! How fast are answers scored, as a share of what this machine's own matrix product does?
//!
//! `cargo bench --bench scoring -- [--pairs N] [--rounds N]`
//!
//! Two reward models are trained on planted choices, one that sees interpretable features and one that also reads the
//! answers with the frozen base model; each then scores pairs of answers of 64 tokens that share a prompt of 400.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

#[path = "measuring/machine.rs"]
mod machine;

use std::sync::Arc;
use std::time::Instant;

use attune::config::ModelsConfig;
use attune::domain::Message;
use attune::models::{Codec, ModelCodec, for_this_process, prepare, prepare_sentence};
use attune::nn::Decoder;
use attune::retrieval::SentenceEncoder;
use attune::reward::{Backbone, Extractor, Item, Outcome, Pair, Preferences, RewardModel, Settings, train};
use clap::Parser;
use machine::{Machine, median};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokens of a prompt, and of an answer.
const PROMPT: usize = 400;
const ANSWER: usize = 64;
/// Choices to learn from: enough for every rung.
const LEARNT: usize = 120;

#[derive(Parser)]
struct Options {
    /// Pairs scored in one call.
    #[arg(long, default_value_t = 16)]
    pairs: usize,
    /// Calls measured; the median is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Sentences of the sample handbook.
fn sentences() -> Vec<String> {
    let questions = std::fs::read_to_string("handbook/questions.jsonl").unwrap();
    let rows = questions.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["answer"].as_str().unwrap().to_owned()).filter(|answer| !answer.is_empty()).collect()
}

/// Sentences drawn until they have `tokens` tokens.
fn text(random: &mut ChaCha8Rng, (from, codec): (&[String], &ModelCodec), tokens: usize) -> String {
    let mut said = String::new();
    while codec.tokenize(&said).len() < tokens {
        said.push_str(&from[random.random_range(0..from.len())]);
        said.push(' ');
    }
    let mut kept = codec.tokenize(&said);
    kept.truncate(tokens);
    codec.detokenize(&kept)
}

/// Choices of the shorter answer, or (`fluent`) of the one whose words are in order: features of words see no difference.
fn planted(fluent: bool, from: &[String]) -> Preferences {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let pairs = (0..LEARNT).map(|i| {
        let (first, second) = (&from[i % from.len()], &from[(i + 1) % from.len()]);
        let both = format!("{first} {second}").to_lowercase();
        // Without what would tell that the order is another one.
        let mut words: Vec<&str> =
            both.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let chosen = if fluent { words.join(" ") } else { first.clone() };
        if fluent {
            words.shuffle(&mut random);
        }
        let question = format!("What is said about {i}?");
        Pair {
            id: i.to_string(),
            cluster: question.clone(),
            held_out: false,
            conversation: vec![Message::user(question)],
            passages: vec!["Nothing is written here.".to_owned()],
            chosen,
            rejected: words.join(" "),
            preference: 1.0,
            margin: 1.0,
            user: None,
            source: "planted".to_owned(),
            created: 0,
        }
    });
    Preferences { pairs: pairs.collect(), thumbs: vec![] }
}

fn learn(extractor: &Extractor, preferences: &Preferences) -> RewardModel {
    let folder = tempfile::tempdir().unwrap();
    // No time for the adapter: it reads answers as the frozen model does.
    let settings = Settings { budget_minutes: 6.0, ..Settings::default() };
    match train(preferences, extractor, (&settings, folder.path()), |_| true).unwrap() {
        Outcome::Trained(trained) => trained.model,
        Outcome::Collecting { effective_pairs, .. } => panic!("only {effective_pairs} pairs"),
    }
}

fn main() {
    let options = Options::parse();
    let config = ModelsConfig::default();
    let base = prepare(&config, for_this_process().as_ref()).unwrap();
    let folder = prepare_sentence(&config, for_this_process().as_ref()).unwrap();
    let encoder = folder.map(|folder| Arc::new(SentenceEncoder::load(&folder).unwrap()));
    let decoder = Decoder::open(base.trained_weights()).unwrap();
    // Forward only: half of what training with frozen weights takes.
    let flops_per_token = decoder.training_flops_per_token() / 2.0;
    let backbone = Backbone { decoder, codec: base.codec().unwrap() };
    let sentences = sentences();
    let from = (sentences.as_slice(), &backbone.codec);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let question = [Message::user("What does the handbook say about this?")];
    let mut drawn = |tokens| text(&mut random, from, tokens);
    let prompts: Vec<[String; 1]> = (0..options.pairs).map(|_| [drawn(PROMPT)]).collect();
    let answers: Vec<String> = (0..2 * options.pairs).map(|_| drawn(ANSWER)).collect();
    let item = |(i, answer)| Item { conversation: &question, passages: &prompts[i / 2] as &[String], answer };
    let items: Vec<Item<'_>> = answers.iter().map(String::as_str).enumerate().map(item).collect();
    let tokens = options.pairs * (PROMPT + 2 * ANSWER);

    let bare = Extractor { encoder, backbone: None };
    let whole = Extractor { backbone: Some(Arc::new(backbone)), ..bare.clone() };
    let machine = Machine::new().unwrap();
    println!("{} pairs a call; the frozen model reads the last 256 tokens of a prompt\n", options.pairs);
    println!(
        "| rung | tokens/s | answers/s | matmul GFLOP/s | share of it, were all tokens read by the base model |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (extractor, fluent) in [(&bare, false), (&whole, true)] {
        let model = learn(extractor, &planted(fluent, &sentences));
        model.score(extractor, &items).unwrap();
        let (mut seconds, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds.max(1) {
            rates.push(machine.rate().unwrap());
            let started = Instant::now();
            model.score(extractor, &items).unwrap();
            seconds.push(started.elapsed().as_secs_f64());
        }
        let (seconds, rate) = (median(seconds), median(rates));
        let speed = tokens as f64 / seconds;
        println!(
            "| {:?} | {speed:.0} | {:.1} | {:.0} | {:.3} |",
            model.rung(),
            items.len() as f64 / seconds,
            rate / 1e9,
            speed * flops_per_token / rate
        );
    }
}
