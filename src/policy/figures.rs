//! Which figures does a step give? By TRL's names, so that runs can be laid beside runs made with it.

use super::Metrics;
use super::advantage::are_equal;
use super::loss::{Clips, Loss};
use super::online::Experience;
use super::training::Update;
use crate::evaluation::statistics::{deviation, mean_or_zero};

/// Figures of what was drawn and judged; `beta` is what a nat of KL costs.
pub(super) fn of_experience(experience: &Experience, beta: f64) -> Metrics {
    let Experience { rollouts, kl, judged, each, .. } = experience;
    let groups = |values: &[f64]| -> (f64, f64) {
        let parts = values.chunks(*each);
        let deviations: Vec<f64> = parts.clone().map(deviation).collect();
        let equal = parts.clone().filter(|part| are_equal(part)).count();
        (mean_or_zero(&deviations), equal as f64 / parts.len().max(1) as f64)
    };
    let (reward_std, zero_std) = groups(&judged.rewards);
    let (score_std, score_zero_std) = groups(&judged.scores);
    let (reward, kl) = (mean_or_zero(&judged.rewards), mean_or_zero(kl));
    let mut metrics = Metrics::from([
        ("reward", reward),
        ("reward_std", reward_std),
        ("frac_reward_zero_std", zero_std),
        ("frac_score_zero_std", score_zero_std),
        ("rewards/score/mean", mean_or_zero(&judged.scores)),
        ("rewards/score/std", score_std),
        ("rewards/repetition/mean", mean_or_zero(&judged.repetition)),
        ("rewards/missing_end/mean", mean_or_zero(&judged.missing_end)),
        ("rewards/overlong/mean", mean_or_zero(&judged.overlong)),
        ("kl", kl),
        ("objective/non_score_reward", -beta * kl),
        ("objective/rlhf_reward", reward - beta * kl),
    ]);
    let lengths: Vec<f64> = rollouts.iter().map(|rollout| rollout.tokens.len() as f64).collect();
    let ended: Vec<f64> =
        rollouts.iter().filter(|one| one.ended).map(|one| one.tokens.len() as f64).collect();
    let cut = 1.0 - ended.len() as f64 / rollouts.len().max(1) as f64;
    metrics.insert("completions/clipped_ratio", cut);
    let names = ["completions/mean_length", "completions/min_length", "completions/max_length"];
    spread(&mut metrics, names, &lengths);
    let names = [
        "completions/mean_terminated_length",
        "completions/min_terminated_length",
        "completions/max_terminated_length",
    ];
    spread(&mut metrics, names, &ended);
    metrics
}

/// Mean, least and most; nothing without values.
fn spread(metrics: &mut Metrics, [middle, least, most]: [&'static str; 3], values: &[f64]) {
    if values.is_empty() {
        return;
    }
    metrics.insert(middle, mean_or_zero(values));
    metrics.insert(least, values.iter().copied().fold(f64::INFINITY, f64::min));
    metrics.insert(most, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
}

impl Update {
    pub(super) fn tell(&self, metrics: &mut Metrics) {
        metrics.insert("grad_norm", f64::from(self.gradient_norm));
        metrics.insert("learning_rate", f64::from(self.learning_rate));
        if let Some(anchor) = self.anchor {
            metrics.insert("loss/nll_anchor", anchor);
        }
    }
}

/// What gradient passes found, over all updates of a step.
#[derive(Debug, Default)]
pub(super) struct Tally {
    updates: usize,
    tokens: usize,
    loss: f64,
    entropy: f64,
    clips: Option<Clips>,
    /// In the first update: tokens, sum and greatest of |log π now − log π when drawn|, where only rounding may differ.
    difference: (usize, f64, f64),
    /// Sum of the halved squares of that difference, over all updates.
    moved: f64,
}

impl Tally {
    /// Takes in the tokens of one pass with their entropies (nats).
    pub(super) fn read(&mut self, (now, entropy): (&[f32], &[f32]), loss: &Loss) {
        self.tokens += now.len();
        self.loss += loss.value;
        self.entropy += entropy.iter().map(|value| f64::from(*value)).sum::<f64>();
    }

    /// Takes in how far log-probabilities are from those when drawn.
    pub(super) fn compare<'d>(&mut self, now: &[f32], drawn: impl Iterator<Item = &'d f32>) {
        for (now, drawn) in now.iter().zip(drawn) {
            let difference = f64::from(now - drawn).abs();
            self.moved += difference * difference / 2.0;
            if self.updates == 0 {
                let (tokens, sum, most) = &mut self.difference;
                (*tokens, *sum, *most) = (*tokens + 1, *sum + difference, most.max(difference));
            }
        }
    }

    /// An update is done.
    pub(super) fn updated(&mut self) {
        self.updates += 1;
    }

    pub(super) fn clipped(&mut self, clips: Clips) {
        let all = self.clips.get_or_insert_default();
        all.low += clips.low;
        all.high += clips.high;
    }

    /// Nothing when no answer taught anything.
    pub(super) fn tell(&self, metrics: &mut Metrics) {
        if self.tokens == 0 {
            return;
        }
        let share = |sum: f64| sum / self.tokens as f64;
        metrics.insert("loss", self.loss / self.updates.max(1) as f64);
        metrics.insert("entropy", share(self.entropy));
        let (tokens, sum, most) = self.difference;
        metrics.insert("sampling/sampling_logp_difference/mean", sum / tokens.max(1) as f64);
        metrics.insert("sampling/sampling_logp_difference/max", most);
        if let Some(clips) = self.clips {
            metrics.insert("clip_ratio/low_mean", share(clips.low as f64));
            metrics.insert("clip_ratio/high_mean", share(clips.high as f64));
            metrics.insert("clip_ratio/region_mean", share((clips.low + clips.high) as f64));
            metrics.insert("policy/approxkl_avg", share(self.moved));
        }
    }
}
