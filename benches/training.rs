//! How fast is training, as a share of what this machine's own matrix product does? `cargo bench --bench training`
//! prints the tables of `benches/RESULTS.md`; `-- --rounds N` repeats each measurement.

#[path = "measuring/machine.rs"]
mod machine;

use std::time::Instant;

use attune::config::Config;
use attune::models;
use attune::nn::{
    AdamW, AdamWSettings, Adapter, AdapterShape, Batch, Decoder, Pass, SampleRequest, Sampler, Sampling,
    Sequence, Text, clip, pack,
};
use candle_core::Device;
use machine::{Machine, median};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Bench {
    decoder: Decoder,
    adapter: Adapter,
    machine: Machine,
    rounds: usize,
}

/// Medians over the rounds.
struct Measured {
    seconds: f64,
    /// f32 matrix products measured before and after each round, FLOP/s.
    rate: f64,
}

/// A text of made-up tokens.
fn text(seed: u32, tokens: u32) -> Vec<u32> {
    (0..tokens).map(|i| (seed.wrapping_mul(7919) + i * 131 + 17) % 40_000).collect()
}

impl Bench {
    fn measure(&self, mut work: impl FnMut() -> Outcome<()>) -> Outcome<Measured> {
        work()?;
        let (mut seconds, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            rates.push(self.machine.rate()?);
            let started = Instant::now();
            work()?;
            seconds.push(started.elapsed().as_secs_f64());
            rates.push(self.machine.rate()?);
        }
        Ok(Measured { seconds: median(seconds), rate: median(rates) })
    }

    fn step(&self, batch: &Batch) -> Outcome<()> {
        let pass = Pass { adapter: Some(&self.adapter), dropout_seed: Some(1), ..Pass::default() };
        let loss = self.decoder.scores(batch, pass)?.log_probabilities.mean_all()?.neg()?;
        let gradients = loss.backward()?;
        let variables = self.adapter.variables();
        let mut found: Vec<_> = variables.iter().map(|var| gradients.get(var).cloned()).collect();
        clip(&mut found, 1.0)?;
        AdamW::new(&variables, AdamWSettings::default()).step(&variables, &found, 1e-5)?;
        Ok(())
    }

    fn train(&self, name: &str, batch: &Batch) -> Outcome<f64> {
        let found = self.measure(|| self.step(batch))?;
        let speed = batch.rows_len() as f64 / found.seconds;
        let share = speed * self.decoder.training_flops_per_token() / found.rate;
        say(format!("| {name} | {} | {speed:.0} | {:.0} | {share:.3} |", batch.rows_len(), found.rate / 1e9));
        Ok(found.seconds)
    }

    fn training(&self) -> Outcome<()> {
        say("| step | rows | tokens/s | matmul GFLOP/s | share |\n|---|---:|---:|---:|---:|");
        let mut every = Batch::default();
        let mut completions = Batch::default();
        for i in 0..4 {
            every.push_text(&text(i, 129));
            let (prompt, completion) = (text(i, 97), text(i + 50, 32));
            completions.push(Sequence { prompt: &prompt, completions: &[&completion] });
        }
        self.train("4 × 128, loss on every position", &every)?;
        self.train("4 × 128, loss on the last 32", &completions)?;
        let (prompt, answers) = (text(1, 400), [text(2, 64), text(3, 64)]);
        let answers = answers.each_ref().map(Vec::as_slice);
        let (mut shared, mut apart) = (Batch::default(), Batch::default());
        shared.push(Sequence { prompt: &prompt, completions: &answers });
        for answer in answers {
            apart.push(Sequence { prompt: &prompt, completions: &[answer] });
        }
        let together = self.train("pair, 400-token prompt shared", &shared)?;
        let separate = self.train("the same pair as two sequences", &apart)?;
        say(format!("\nA shared pair costs {:.3} of two separate sequences.\n", together / separate));
        Ok(())
    }

    /// Half of a step of the policy as chat makes it, eight answers to each of two prompts, more than half of which are the
    /// same instructions and examples: the cost of reading these once, as a share of reading them twice.
    fn policy_step(&self) -> Outcome<()> {
        const INSTRUCTIONS: u32 = 270;
        let prompts = [1, 2].map(|i| [text(0, INSTRUCTIONS), text(i, 520 - INSTRUCTIONS)].concat());
        let answers: Vec<Vec<u32>> = (0..8).map(|i| text(10 + i, 20)).collect();
        let texts: Vec<Text<'_>> = prompts
            .iter()
            .flat_map(|prompt| answers.iter().map(move |completion| Text { prompt, completion }))
            .collect();
        let together = pack(&texts, 1280).remove(0).batch;
        let mut apart = Batch::default();
        for prompt in &prompts {
            let completions: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
            apart.push(Sequence { prompt, completions: &completions });
        }
        say("| step | rows | tokens/s | matmul GFLOP/s | share |\n|---|---:|---:|---:|---:|");
        let together = self.train("2 prompts × 8 answers, instructions once", &together)?;
        let share = together / self.train("the same, instructions in each", &apart)?;
        say(format!(
            "\nTwo prompts with their instructions in common cost {share:.3} of the two by themselves.\n"
        ));
        Ok(())
    }

    fn rollouts(&self) -> Outcome<()> {
        let merged = self.decoder.merged(&self.adapter)?;
        let sampler = Sampler::new(&merged, &[], 32);
        let sampling = Sampling::at(1.0, 64);
        say("| rollouts | tokens/s | matmul GFLOP/s | share |\n|---|---:|---:|---:|");
        for (name, prompts, each, length) in [
            ("32 × 64 tokens, prompts of 8", 32, 1, 8),
            ("8 prompts of 300 × 4 completions of 64", 8, 4, 300),
        ] {
            let request = |i| SampleRequest {
                prompt: text(i, length),
                completions: each,
                seed: u64::from(i),
                ..SampleRequest::default()
            };
            let requests: Vec<SampleRequest> = (0..prompts).map(request).collect();
            let found = self.measure(|| {
                sampler.sample(&requests, sampling, |_| true)?;
                Ok(())
            })?;
            let speed = f64::from(prompts) * each as f64 * 64.0 / found.seconds;
            // Two operations a weight and token; prompts are read once, their tokens counted as drawn ones are not.
            let share = speed * self.decoder.training_flops_per_token() / 2.0 / found.rate;
            say(format!("| {name} | {speed:.0} | {:.0} | {share:.3} |", found.rate / 1e9));
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints its table")]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Resident memory at its highest, bytes.
fn peak_memory() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse::<u64>()? * 1024)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(5);
    let base = models::prepare(&Config::default().models, models::for_this_process().as_ref())?;
    let decoder = Decoder::load(base.weights.path(), &Device::Cpu)?;
    let adapter = Adapter::new(&decoder, AdapterShape { rank: 8, alpha: 16.0, dropout: 0.0 }, 1)?;
    let bench = Bench { decoder, adapter, machine: Machine::new()?, rounds };
    say(format!(
        "{}, rank 8, {} threads, medians of {rounds} rounds\n",
        base.name,
        rayon::current_num_threads()
    ));
    bench.training()?;
    say(format!("Resident memory at its highest: {:.2} GB.\n", peak_memory()? as f64 / 1e9));
    // After the memory of the steps above was told: this one has more rows.
    bench.policy_step()?;
    bench.rollouts()
}
