//! What do many votes teach, without waiting for them to be given over HTTP?
//!
//! `cargo bench --bench votes -- draw --adapter FILE --out FOLDER [--votes N] [--seed N]` has a fine-tuned model answer the
//! sample handbook's train questions twice each, at once, and the three hidden judges of `attune simulate` vote, as its
//! employees do: in the same order, with the same votes turned round. `FOLDER/{short,steps,friendly}.jsonl` are for
//! `attune import --format preference`.
//!
//! `cargo bench --bench votes -- compare FILE FILE...` has adapters answer the held-out questions greedily, and the judges
//! compare each with the first. Prompts and lengths are those of the simulation's default size.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

#[path = "measuring/sample.rs"]
mod sample;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attune::chat::Shown;
use attune::config::Config;
use attune::evaluation::metrics::token_f1;
use attune::improve::{Examining, Question, Workshop, drawn};
use attune::jobs::Reporter;
use attune::nn::{Adapter, Completion, Decoder, Sampling};
use attune::simulate::{Choice, Preference, employee, is_flipped, question};
use clap::{Parser, Subcommand};
use serde_json::json;

/// Questions asked for every two votes wanted: answers that come out twice alike are no choice.
const ASKED: usize = 3;
const JUDGES: [(&str, Preference); 3] =
    [("short", Preference::Short), ("steps", Preference::Steps), ("friendly", Preference::Friendly)];

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Draw answers and votes.
    Draw {
        /// The fine-tuned adapter (`tuned/…/best.safetensors` of a data directory).
        #[arg(long)]
        adapter: PathBuf,
        /// Where the votes go.
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 400)]
        votes: usize,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Compare adapters.
    Compare {
        /// The first is what the others are compared with; `base` is no adapter.
        adapters: Vec<PathBuf>,
    },
}

fn is_base(adapter: &Path) -> bool {
    adapter == Path::new("base")
}

fn decoder(workshop: &Workshop, adapter: &Path) -> Decoder {
    let base = Decoder::open(workshop.base.trained_weights()).unwrap();
    if is_base(adapter) {
        return base;
    }
    base.merged(&Adapter::load(&base, adapter).unwrap()).unwrap()
}

/// A model's answers to questions, `completions` to each, as they would be shown.
fn answers(
    examining: Examining<'_>,
    (decoder, questions): (&Decoder, &[&Question]),
    asked: (Sampling, usize),
) -> Vec<Vec<Shown>> {
    let started = Instant::now();
    let answers = drawn(examining, (decoder, questions.iter().copied()), asked, "answers").unwrap();
    println!("{} answers in {:.0} s", questions.len() * asked.1, started.elapsed().as_secs_f64());
    let shown = |(question, answers): (&&Question, Vec<Completion>)| {
        let each = answers.iter();
        each.map(|one| question.answered(examining.workshop, (&one.tokens, one.ended))).collect()
    };
    questions.iter().zip(answers).map(shown).collect()
}

fn draw(examining: Examining<'_>, (adapter, out): (&Path, &Path), (votes, seed): (usize, u64)) {
    let examining = Examining { is_base: is_base(adapter), ..examining };
    let workshop = examining.workshop;
    let train = sample::load(workshop, "train");
    let asked = (0..ASKED * votes / 2).map(|n| &train[question(seed, train.len(), n)]);
    let asked: Vec<&Question> = asked.collect();
    let config = &workshop.config.generation;
    let sampling = Sampling {
        temperature: config.comparison_temperature,
        top_p: config.top_p,
        repetition_penalty: config.repetition_penalty,
        dry_multiplier: config.dry_multiplier,
        max_tokens: config.max_tokens as usize,
    };
    let drawn = answers(examining, (&decoder(workshop, adapter), &asked), (sampling, 2));
    std::fs::create_dir_all(out).unwrap();
    for (name, judge) in JUDGES {
        let (mut lines, mut given, mut ties, mut turned) = (String::new(), 0, 0, 0);
        for (n, (question, pair)) in asked.iter().zip(&drawn).enumerate() {
            let nothing = pair[0].text == pair[1].text || pair.iter().any(|one| one.text.trim().is_empty());
            if nothing || given == votes {
                continue;
            }
            let turn = is_flipped(seed, given);
            given += 1;
            let thought = judge.choose(&sample::seen(question, &pair[0]), &sample::seen(question, &pair[1]));
            let (chosen, rejected) = match if turn { thought.flipped() } else { thought } {
                Choice::Left => (0, 1),
                Choice::Right => (1, 0),
                Choice::Tie => {
                    ties += 1;
                    continue;
                }
            };
            turned += usize::from(turn);
            let row = json!({
                "prompt": question.example.messages,
                "chosen": pair[chosen].text,
                "rejected": pair[rejected].text,
                "passages": question.passage_texts(),
                "user": employee(n),
            });
            lines.push_str(&format!("{row}\n"));
        }
        println!("{name}: {given} votes, {ties} of them ties, {turned} turned round");
        std::fs::write(out.join(format!("{name}.jsonl")), lines).unwrap();
    }
}

fn compare(examining: Examining<'_>, adapters: &[PathBuf]) {
    let workshop = examining.workshop;
    let held_out = sample::load(workshop, "held-out");
    let asked: Vec<&Question> = held_out.iter().collect();
    let greedy = examining.sampling();
    let mut first: Option<Vec<Vec<Shown>>> = None;
    for adapter in adapters {
        let examining = Examining { is_base: is_base(adapter), ..examining };
        let shown = answers(examining, (&decoder(workshop, adapter), &asked), (greedy, 1));
        let mean = |of: &dyn Fn(&Question, &Shown) -> f64| {
            asked.iter().zip(&shown).map(|(question, one)| of(question, &one[0])).sum::<f64>()
                / asked.len() as f64
        };
        let f1 = mean(&|question, one| token_f1(&one.text, &question.example.response));
        let words = mean(&|_, one| one.text.split_whitespace().count() as f64);
        println!("{}: token F1 {f1:.3}, {words:.1} words", adapter.display());
        for (name, judge) in JUDGES {
            let utility = mean(&|question, one| judge.utility(&sample::seen(question, one)));
            let chosen = |choice: Choice| {
                let pairs = asked.iter().zip(&shown).zip(first.as_ref().unwrap_or(&shown));
                pairs
                    .filter(|((question, now), before)| {
                        let [now, before] = [now, before].map(|one| sample::seen(question, &one[0]));
                        judge.choose(&now, &before) == choice
                    })
                    .count()
            };
            let [won, lost, tied] = [Choice::Left, Choice::Right, Choice::Tie].map(chosen);
            let rate = (won as f64 + tied as f64 / 2.0) / asked.len() as f64;
            println!("  {name}: {rate:.3} ({won} / {lost} / {tied}), utility {utility:.3}");
        }
        first.get_or_insert(shown);
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
    config.docs.paths = vec!["handbook".into()];
    (config.retrieval.k, config.retrieval.passage_tokens, config.generation.max_tokens) = (1, 160, 48);
    let ledger = attune::ledger::open(None, folder.path()).await.unwrap();
    let workshop = Workshop::open(Arc::new(config), ledger).await.unwrap();
    tokio::task::spawn_blocking(move || {
        workshop.library.sync_folders(&workshop.config.docs, &mut |_| {}).unwrap();
        let examining = Examining { workshop: &workshop, report: &Reporter::unattended(), is_base: false };
        match &options.what {
            What::Draw { adapter, out, votes, seed } => draw(examining, (adapter, out), (*votes, *seed)),
            What::Compare { adapters } => compare(examining, adapters),
        }
    })
    .await
    .unwrap();
}
