//! How fast does the embedded engine serve the default model: first token, decoding, several chats at once?
//!
//! `cargo bench --bench serving -- [--format f32|f16|q8_0]… [--engines N]… [--repeats N]`
//!
//! Everything is also given as a share of this machine's own f32 matmul rate, measured in the same run: a forward pass
//! of one token takes two floating-point operations per weight.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a measuring program: it prints, and stops at the first thing that is wrong"
)]

use std::sync::Arc;
use std::time::Instant;

use attune::config::{GenerationConfig, ModelsConfig, WeightFormat};
use attune::domain::Sampling;
use attune::generation::{Event, GenerateRequest, Generator, MistralGenerator, base_id};
use attune::models;
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use futures::StreamExt;
use tokio::sync::Semaphore;

/// Weights of the default model, for the share of the matmul rate.
const WEIGHTS: f64 = 134.5e6;
/// Tokens of the stable beginning of the product's prompts, about.
const PREFIX: usize = 80;
/// Tokens of each answer.
const ANSWER: u32 = 64;

#[derive(Parser)]
struct Options {
    /// Weight formats to measure.
    #[arg(long = "format", default_values = ["f32", "f16", "q8_0"])]
    formats: Vec<String>,
    /// Numbers of engines to measure several chats with.
    #[arg(long = "engines", default_values_t = [1, 2])]
    engines: Vec<usize>,
    /// How often each first token is measured; 0 leaves that out.
    #[arg(long, default_value_t = 7)]
    repeats: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let matmul = matmul_rate();
    println!("f32 matmul rate: {:.0} GFLOP/s", matmul / 1e9);
    for format in &options.formats {
        let format = match format.as_str() {
            "f32" => WeightFormat::F32,
            "f16" => WeightFormat::F16,
            "q8_0" => WeightFormat::Q8_0,
            other => panic!("unknown format {other}"),
        };
        measure((format, &options.engines), options.repeats, matmul).await;
    }
}

/// Floating-point operations a second of a square f32 matmul large enough to keep every core busy.
fn matmul_rate() -> f64 {
    let n = 1024;
    let a = Tensor::rand(0f32, 1.0, (n, n), &Device::Cpu).unwrap();
    let b = Tensor::rand(0f32, 1.0, (n, n), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    let rounds = 40;
    let best = (0..3).map(|_| {
        let began = Instant::now();
        for _ in 0..rounds {
            a.matmul(&b).unwrap();
        }
        2.0 * (n as f64).powi(3) * f64::from(rounds) / began.elapsed().as_secs_f64()
    });
    best.fold(0.0, f64::max)
}

async fn measure((format, engines): (WeightFormat, &[usize]), repeats: usize, matmul: f64) {
    let share = |tokens_per_second: f64| 100.0 * tokens_per_second * 2.0 * WEIGHTS / matmul;
    if repeats > 0 {
        let generator = load(format, &GenerationConfig { engines: 1, ..GenerationConfig::default() }).await;
        first_tokens(&generator, repeats, share).await;
    }
    for engines in engines {
        // An engine runs more than one at once only where there is but one.
        let max_running = if *engines == 1 { 8 } else { 1 };
        let config = GenerationConfig { engines: *engines, max_running, ..GenerationConfig::default() };
        let generator = load(format, &config).await;
        println!("  {engines} engines of {max_running}");
        println!("  chats  at once   total tokens/s   share of matmul (decoding {ANSWER} tokens after 300)");
        for chats in [1, 4, 8] {
            for at_once in [1, 2, 4, 8].into_iter().filter(|n| *n <= chats) {
                let rate = together(&generator, chats, at_once).await;
                println!("  {chats:>5} {at_once:>8} {rate:>16.1} {:>16.1}%", share(rate));
            }
        }
    }
}

async fn load(format: WeightFormat, config: &GenerationConfig) -> Arc<MistralGenerator> {
    let began = Instant::now();
    let base = tokio::task::spawn_blocking(move || {
        let config = ModelsConfig { weight_format: format, ..ModelsConfig::default() };
        models::prepare(&config, models::for_this_process().as_ref())
    });
    let base = base.await.unwrap().unwrap();
    let generator = MistralGenerator::load(base_id(&base, config), base, config).await.unwrap();
    println!("\n{format:?}: loaded in {:.1} s", began.elapsed().as_secs_f64());
    generator.remember_prefix(&words(PREFIX, 1)).await.unwrap();
    Arc::new(generator)
}

async fn first_tokens(generator: &Arc<MistralGenerator>, repeats: usize, share: impl Fn(f64) -> f64) {
    println!("  prompt  prefix    first token p50   p95      prefill tokens/s  share of matmul");
    for length in [200, 500, 1000] {
        for cached in [false, true] {
            let mut seconds = Vec::new();
            for repeat in 0..repeats {
                let mut prompt = if cached { words(PREFIX, 1) } else { Vec::new() };
                prompt.extend(words(
                    length - prompt.len(),
                    100 + (length * 20 + repeat * 2) as u32 + u32::from(cached),
                ));
                seconds.push(first_token(generator, prompt).await);
            }
            seconds.sort_by(f64::total_cmp);
            let (p50, p95) = (seconds[seconds.len() / 2], seconds[(seconds.len() * 95).div_ceil(100) - 1]);
            let run = if cached { length - PREFIX } else { length };
            let rate = run as f64 / p50;
            let kind = if cached { "cached" } else { "cold" };
            println!(
                "  {length:>6}  {kind:<8} {p50:>13.3} s {p95:>7.3} s {rate:>12.0} {:>17.0}%",
                share(rate)
            );
        }
    }
}

/// Tokens that differ from those of every other seed from the first on.
fn words(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|i| 300 + (seed.wrapping_mul(7919).wrapping_add(i.wrapping_mul(104_729))) % 40_000)
        .collect()
}

fn request(prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    let sampling = Sampling { seed: 1, ..Sampling::at(1.0, max_tokens) };
    GenerateRequest { prompt: prompt.into(), sampling, top_logprobs: 0, evidence: [].into() }
}

async fn first_token(generator: &Arc<MistralGenerator>, prompt: Vec<u32>) -> f64 {
    let began = Instant::now();
    let mut stream = generator.generate(request(prompt, 2)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    while stream.next().await.is_some() {}
    seconds
}

/// Prompt and answer tokens a second of `chats` chats, of which `at_once` run at the same time.
async fn together(generator: &Arc<MistralGenerator>, chats: usize, at_once: usize) -> f64 {
    let places = Arc::new(Semaphore::new(at_once));
    let began = Instant::now();
    let running = (0..chats).map(|chat| {
        let (generator, places) = (Arc::clone(generator), Arc::clone(&places));
        tokio::spawn(async move {
            let _place = places.acquire().await.unwrap();
            // Lengths differ, as people's questions do.
            let prompt = words(300 + 7 * chat, 5_000 + (chat * 10 + at_once) as u32);
            let mut stream = generator.generate(request(prompt, ANSWER)).await.unwrap();
            let mut tokens = 0usize;
            while let Some(event) = stream.next().await {
                tokens += usize::from(matches!(event.unwrap(), Event::Token(_)));
            }
            tokens
        })
    });
    let running: Vec<_> = running.collect();
    let mut tokens = 0;
    for chat in running {
        tokens += chat.await.unwrap();
    }
    tokens as f64 / began.elapsed().as_secs_f64()
}
