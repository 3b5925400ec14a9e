//! How far does each algorithm raise a planted reward, at which distance from the reference, and what does the best of n
//! answers give at that distance? On the tiny model of `tests/learning`, in under a minute.
//!
//! `cargo bench --bench policy` prints the table of `benches/RESULTS.md`.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a bench prints, and stops at the first thing that is wrong"
)]

#[path = "../tests/learning/planted.rs"]
mod planted;
#[path = "../tests/learning/tiny.rs"]
mod tiny;

use attune::policy::Settings;
use planted::{ALGORITHMS, World, settings};

/// Steps whose figures are printed.
const SHOWN: [u64; 6] = [1, 5, 10, 20, 30, 40];

fn main() {
    let world = World::new();
    let before = world.before();
    println!("reward of the reference on unseen questions: {before:.3}\n");
    let steps: String = SHOWN.iter().map(|step| format!(" {step} |")).collect();
    println!("| algorithm | |{steps} unseen | KL | best of n | share kept |");
    println!("|---|---|{}---:|---:|---:|---:|", "---:|".repeat(SHOWN.len()));
    for algorithm in ALGORITHMS {
        row(&world, before, &settings(algorithm));
    }
}

/// Two rows: what an algorithm's own figures say by step, and what it made.
fn row(world: &World, before: f64, settings: &Settings) {
    let mut curves = Vec::new();
    let optimised = world.optimise(settings, |step| {
        if SHOWN.contains(&step.done) {
            curves.push((step.done, step.metrics.clone()));
        }
    });
    let after = world.examine(&optimised);
    let (n, best) = world.best_at(after.kl);
    let curve = |names: &[&str]| -> String {
        let figure = |step: u64| {
            let (_, metrics) = curves.iter().find(|(done, _)| *done == step)?;
            names.iter().find_map(|name| metrics.get(*name))
        };
        SHOWN.iter().map(|step| figure(*step).map_or(" |".into(), |value| format!(" {value:.3} |"))).collect()
    };
    // Those that draw no answers have a margin between the sides instead of a reward.
    let name = format!("{:?}", settings.algorithm);
    let share = (after.reward - before) / (best - before);
    println!(
        "| {name} | reward |{} {:.3} | {:.2} | {best:.3} (n = {n}) | {share:.2} |",
        curve(&["reward", "rewards/margins"]),
        after.reward,
        after.kl
    );
    println!("| | KL |{} | | | |", curve(&["kl"]));
}
