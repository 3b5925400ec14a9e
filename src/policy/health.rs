//! Is a run well? Healthy ranges of its figures as alarms, and the collapses that end it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::Metrics;
use crate::evaluation::statistics::mean_or_zero;

/// Steps over which figures are averaged before they are compared with a range: one step's figures are of a few dozen
/// answers.
const WINDOW: usize = 5;
/// Steps in a row in which no group's scores differ, after which nothing more can be learnt.
const FLAT_STEPS: u32 = 3;
/// Nats a token below which the policy says one thing only; between this and the alarm's bound it is on its way.
const ENTROPY_COLLAPSE: f64 = 0.01;
/// Steps after which the mean reward should have risen.
const RISING_WITHIN: usize = 20;

/// A figure and the range in which a healthy run keeps its mean (axolotl's guide to training stability; `kl` has the
/// price's own target, since it is of whole answers here).
const RANGES: [(&str, f64, f64); 7] = [
    ("frac_reward_zero_std", 0.0, 0.8),
    ("grad_norm", 0.001, 10.0),
    ("entropy", 0.05, f64::INFINITY),
    ("sampling/sampling_logp_difference/mean", 0.0, 0.1),
    ("clip_ratio/region_mean", 0.0, 0.3),
    ("completions/clipped_ratio", 0.0, 0.3),
    ("rewards/accuracies", 0.5, 1.0),
];

/// What is remembered of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Health {
    /// The last [`WINDOW`] values of what is watched.
    recent: BTreeMap<String, VecDeque<f64>>,
    /// Mean reward of every step.
    rewards: Vec<f64>,
    flat: u32,
    /// What has been told already.
    told: BTreeSet<String>,
    pub(super) alarms: Vec<String>,
    /// Why the run must end.
    pub(super) stopped: Option<String>,
}

impl Health {
    /// Takes in the figures of step `step`, from 1.
    pub(super) fn observe(&mut self, step: u64, metrics: &Metrics, target_kl: f64) {
        for (name, least, most) in RANGES.into_iter().chain([("kl", f64::NEG_INFINITY, target_kl)]) {
            let Some(mean) = metrics.get(name).and_then(|value| self.recent_mean(name, *value)) else {
                continue;
            };
            if !(least..=most).contains(&mean) {
                self.alarm(
                    name,
                    format!("{name} is {mean:.3} at step {step}, healthy is {}", range(least, most)),
                );
            }
        }
        self.rewards.extend(metrics.get("reward"));
        self.watch_reward(step);
        self.stopped = self.collapse(step, metrics);
    }

    /// Mean of the last values, once there are [`WINDOW`].
    fn recent_mean(&mut self, name: &str, value: f64) -> Option<f64> {
        let recent = self.recent.entry(name.to_owned()).or_default();
        recent.push_back(value);
        if recent.len() > WINDOW {
            recent.pop_front();
        }
        (recent.len() == WINDOW).then(|| recent.iter().sum::<f64>() / WINDOW as f64)
    }

    fn watch_reward(&mut self, step: u64) {
        if self.rewards.len() != RISING_WITHIN {
            return;
        }
        let part = |range| mean_or_zero(&self.rewards[range]);
        let (first, last) = (part(0..WINDOW), part(RISING_WITHIN - WINDOW..RISING_WITHIN));
        if last <= first {
            self.alarm(
                "reward",
                format!("reward has not risen by step {step}: {first:.3} at first, {last:.3} now"),
            );
        }
    }

    /// Tells it, once under each name.
    pub(super) fn alarm(&mut self, name: &str, sentence: String) {
        if self.told.insert(name.to_owned()) {
            tracing::warn!(alarm = %sentence, "policy optimisation");
            self.alarms.push(sentence);
        }
    }

    fn collapse(&mut self, step: u64, metrics: &Metrics) -> Option<String> {
        let entropy = self.recent.get("entropy").filter(|recent| recent.len() == WINDOW);
        let entropy = entropy.map(|recent| recent.iter().copied().fold(0.0, f64::max));
        if let Some(entropy) = entropy.filter(|entropy| *entropy < ENTROPY_COLLAPSE) {
            return Some(format!(
                "entropy has been below {ENTROPY_COLLAPSE} nats a token for {WINDOW} steps, {entropy:.4} at most, at step {step}"
            ));
        }
        let flat = metrics.get("frac_score_zero_std").is_some_and(|share| *share >= 1.0);
        self.flat = if flat { self.flat + 1 } else { 0 };
        (self.flat >= FLAT_STEPS).then(|| {
            format!("the reward has told no answer from another for {FLAT_STEPS} steps, at step {step}")
        })
    }
}

fn range(least: f64, most: f64) -> String {
    match (least.is_finite(), most.is_finite()) {
        (true, true) => format!("{least} to {most}"),
        (true, false) => format!("{least} or more"),
        _ => format!("at most {most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: u64, figures: &[(&'static str, f64)]) -> Health {
        let mut health = Health::default();
        let metrics: Metrics = figures.iter().copied().collect();
        for step in 1..=steps {
            health.observe(step, &metrics, 6.0);
        }
        health
    }

    #[test]
    fn a_range_that_is_left_for_long_is_told_once() {
        let health = after(30, &[("completions/clipped_ratio", 0.5), ("kl", 7.0), ("entropy", 0.2)]);
        assert_eq!(
            health.alarms,
            [
                "completions/clipped_ratio is 0.500 at step 5, healthy is 0 to 0.3",
                "kl is 7.000 at step 5, healthy is at most 6"
            ]
        );
        assert_eq!(health.stopped, None);
        assert!(after(4, &[("completions/clipped_ratio", 0.5)]).alarms.is_empty());
    }

    #[test]
    fn a_reward_that_does_not_rise_is_told() {
        assert_eq!(
            after(30, &[("reward", 1.0)]).alarms,
            ["reward has not risen by step 20: 1.000 at first, 1.000 now"]
        );
    }

    #[test]
    fn collapses_end_a_run() {
        let reason = |steps, figures: &[_]| after(steps, figures).stopped.unwrap_or_default();
        assert!(reason(5, &[("entropy", 0.005)]).contains("entropy has been below 0.01"));
        assert_eq!(reason(4, &[("entropy", 0.005)]), "");
        assert!(reason(3, &[("frac_score_zero_std", 1.0)]).contains("told no answer from another"));
        assert_eq!(reason(2, &[("frac_score_zero_std", 1.0)]), "");
        assert_eq!(reason(9, &[("frac_score_zero_std", 0.9)]), "");
    }
}
