//! How far is a policy from its reference, and what would choosing the best of several answers have given?

use super::{PolicyError, Prompt, Rollout};
use crate::nn::{self, Adapter, Decoder, Text};

/// Mean KL of an adapter's policy to the reference over whole answers (nats an answer): the mean of
/// log π(y) − log π₀(y), an unbiased estimate where the answers are the policy's own. 0 without answers.
///
/// # Errors
/// When a rollout names no prompt, or the model fails.
pub fn kl_to_reference(
    reference: &Decoder,
    adapter: &Adapter,
    (prompts, rollouts): (&[Prompt], &[Rollout]),
) -> Result<f64, PolicyError> {
    let texts: Vec<Text<'_>> = rollouts
        .iter()
        .map(|rollout| {
            let prompt =
                prompts.get(rollout.prompt).ok_or(PolicyError::NoPrompt { prompt: rollout.prompt })?;
            Ok(Text { prompt: &prompt.tokens, completion: &rollout.tokens })
        })
        .collect::<Result<_, PolicyError>>()?;
    let sums = |adapter: Option<&Adapter>| {
        nn::read((reference, adapter), (&texts, nn::PASS_TOKENS), |read| Ok(read.sum()))
    };
    let (policy, base) = (sums(Some(adapter))?, sums(None)?);
    let total: f64 = policy.iter().zip(&base).map(|(policy, base)| policy - base).sum();
    Ok(total / rollouts.len().max(1) as f64)
}

/// Of each `n` consecutive rewards, the place of the highest among all; the first of equals. A rest of fewer than `n`
/// counts as a group of its own.
#[must_use]
pub fn best_of(rewards: &[f64], n: usize) -> Vec<usize> {
    let n = n.max(1);
    let best = |(group, values): (usize, &[f64])| {
        let places = (0..values.len()).rev();
        let best = places.max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
        group * n + best
    };
    rewards.chunks(n).enumerate().map(best).collect()
}

/// KL to the policy that draws which choosing the best of `n` answers has at most (nats an answer; Beirami et al.,
/// arXiv:2401.01879).
#[must_use]
pub fn best_of_kl(n: usize) -> f64 {
    let n = n.max(1) as f64;
    n.ln() - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_group_is_chosen() {
        assert_eq!(best_of(&[1.0, 3.0, 2.0, 5.0, 5.0, 0.0, -1.0], 3), [1, 3, 6]);
        assert!(best_of(&[], 4).is_empty());
    }

    #[test]
    fn the_bound_of_best_of_four_is_0_64_nats() {
        assert!((best_of_kl(4) - 0.636_294).abs() < 1e-6);
        assert_eq!(best_of_kl(1), 0.0);
    }
}
