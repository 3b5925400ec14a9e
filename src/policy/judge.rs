//! What is an answer worth? The clipped score of the reward function, or of the control, minus what its tokens alone
//! say against it.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Control, PolicyError, Reward, Rollout, Rules, Settings};

/// Tokens of a sequence whose repetition counts.
const GRAM: usize = 3;
/// Share of `max_tokens` at its end over which an answer becomes overlong: DAPO's 4,096 of 20,480 tokens.
const OVERLONG: f64 = 0.2;

/// What answers are worth; one value each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Judged {
    /// Clipped scores.
    pub(super) scores: Vec<f64>,
    /// What each rule takes, at most 0.
    pub(super) repetition: Vec<f64>,
    pub(super) missing_end: Vec<f64>,
    pub(super) overlong: Vec<f64>,
    /// Scores and rules together.
    pub(super) rewards: Vec<f64>,
}

impl Judged {
    /// Judges answers; `seed` is of the control's numbers in this step.
    pub(super) fn of(
        rollouts: &[Rollout],
        (settings, seed): (&Settings, u64),
        reward: &mut Reward<'_>,
    ) -> Result<Self, PolicyError> {
        let scores = match settings.control {
            Control::Reward => reward(rollouts).map_err(PolicyError::Reward)?,
            Control::Random => random(rollouts.len(), seed),
        };
        let finite = scores.iter().filter(|score| score.is_finite()).count();
        if scores.len() != rollouts.len() || finite != scores.len() {
            return Err(PolicyError::RewardShape { rollouts: rollouts.len(), values: finite });
        }
        let clip = settings.reward_clip;
        let mut judged =
            Self { scores: scores.iter().map(|s| s.clamp(-clip, clip)).collect(), ..Self::default() };
        for (rollout, score) in rollouts.iter().zip(&judged.scores) {
            let [repetition, missing_end, overlong] =
                penalties(rollout, &settings.rules, settings.max_tokens);
            judged.rewards.push(score + repetition + missing_end + overlong);
            judged.repetition.push(repetition);
            judged.missing_end.push(missing_end);
            judged.overlong.push(overlong);
        }
        Ok(judged)
    }
}

/// Numbers of mean 0 and deviation 1, as a normalised reward has, that know nothing of the answers.
fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let bound = 3f64.sqrt();
    (0..count).map(|_| random.random_range(-bound..bound)).collect()
}

/// What the rules take from an answer: for repetition, a missing end and length.
fn penalties(rollout: &Rollout, rules: &Rules, max_tokens: usize) -> [f64; 3] {
    // Not −0.0, which would be printed so.
    let taken = |value: f64| 0.0 - value;
    [
        taken(rules.repetition * repeated(&rollout.tokens)),
        taken(if rollout.ended { 0.0 } else { rules.missing_end }),
        taken(rules.overlong * overlong(rollout.tokens.len(), max_tokens)),
    ]
}

/// Share of an answer's sequences of [`GRAM`] tokens that occurred before in it.
fn repeated(tokens: &[u32]) -> f64 {
    let all = tokens.windows(GRAM);
    let (count, distinct) = (all.len(), all.collect::<HashSet<_>>().len());
    (count - distinct) as f64 / count.max(1) as f64
}

/// 0 up to where the last part of `max_tokens` begins, 1 at its end, a line between.
fn overlong(length: usize, max_tokens: usize) -> f64 {
    let margin = OVERLONG * max_tokens as f64;
    ((length as f64 - (max_tokens as f64 - margin)) / margin).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::statistics::{deviation, mean_or_zero};

    fn rollout(tokens: &[u32], ended: bool) -> Rollout {
        Rollout { prompt: 0, tokens: tokens.to_vec(), log_probabilities: vec![-1.0; tokens.len()], ended }
    }

    /// By hand: 1 2 3 1 2 3 1 has the sequences 123 231 312 123 231, of which two occurred before.
    #[test]
    fn repetition_is_the_share_of_sequences_that_occurred_before() {
        assert_eq!(repeated(&[1, 2, 3, 1, 2, 3, 1]), 0.4);
        assert_eq!(repeated(&[1, 1]), 0.0);
        assert_eq!(repeated(&[4; 10]), 7.0 / 8.0);
    }

    #[test]
    fn length_costs_over_the_last_fifth() {
        assert_eq!([80, 90, 100, 40].map(|length| overlong(length, 100)), [0.0, 0.5, 1.0, 0.0]);
    }

    #[test]
    fn scores_are_clipped_and_rules_taken_from_them() {
        let settings = Settings { max_tokens: 10, reward_clip: 2.0, ..Settings::default() };
        let rollouts = [rollout(&[1, 2, 3], true), rollout(&[4; 10], false)];
        let judged = Judged::of(&rollouts, (&settings, 0), &mut |_| Ok(vec![9.0, 0.5])).unwrap();
        assert_eq!(judged.scores, [2.0, 0.5]);
        assert_eq!(judged.rewards, [2.0, 0.5 - 7.0 / 8.0 - 1.0 - 1.0]);
    }

    #[test]
    fn a_reward_of_the_wrong_shape_is_refused() {
        let settings = Settings::default();
        let judge = |values: Vec<f64>| {
            let rollouts = [rollout(&[1], true), rollout(&[2], true)];
            Judged::of(&rollouts, (&settings, 0), &mut |_| Ok(values.clone()))
        };
        assert!(matches!(judge(vec![1.0]), Err(PolicyError::RewardShape { rollouts: 2, values: 1 })));
        assert!(matches!(judge(vec![1.0, f64::NAN]), Err(PolicyError::RewardShape { values: 1, .. })));
    }

    #[test]
    fn the_control_never_asks_the_reward() {
        let settings = Settings { control: Control::Random, ..Settings::default() };
        let rollouts = vec![rollout(&[1], true); 1000];
        let judge =
            |seed| Judged::of(&rollouts, (&settings, seed), &mut |_| Err("asked".into())).unwrap().scores;
        let scores = judge(1);
        assert_eq!(scores, judge(1));
        assert_ne!(scores, judge(2));
        // The mean of 1,000 numbers of deviation 1 has a deviation of 0.03.
        assert!(mean_or_zero(&scores).abs() < 0.15);
        assert!((deviation(&scores) - 1.0).abs() < 0.1);
    }
}
