//! How much better is an answer than was to be expected? Baselines from its neighbours, or from a value head.

use crate::evaluation::statistics::{deviation, mean_or_zero};

/// Deviation below which the rewards of a group count as equal: rounding of sums of a few f32.
const EQUAL: f64 = 1e-6;

/// Each reward minus the mean of the others of its group (RLOO, arXiv:2402.14740, equation 8).
pub(super) fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let (sum, others) = (rewards.iter().sum::<f64>(), (rewards.len().max(2) - 1) as f64);
    rewards.iter().map(|reward| reward - (sum - reward) / others).collect()
}

/// Each reward minus the mean of its group (Dr. GRPO, arXiv:2503.20783: not divided by the deviation, which would favour
/// prompts whose answers differ little).
pub(super) fn centred(rewards: &[f64]) -> Vec<f64> {
    let mean = mean_or_zero(rewards);
    rewards.iter().map(|reward| reward - mean).collect()
}

/// Generalised advantages of an answer's tokens (arXiv:1506.02438, equation 16, without discount): after the last token
/// nothing is to come. `rewards` and `values` are of each token.
pub(super) fn generalised(rewards: &[f64], values: &[f64], lambda: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next) = (0.0, 0.0);
    for (at, (reward, value)) in rewards.iter().zip(values).enumerate().rev() {
        next = reward + next_value - value + lambda * next;
        next_value = *value;
        advantages[at] = next;
    }
    advantages
}

/// Shifts and scales values to mean 0 and deviation 1; equal ones become 0.
pub(super) fn whiten(values: &mut [Vec<f64>]) {
    let all: Vec<f64> = values.iter().flatten().copied().collect();
    let (mean, deviation) = (mean_or_zero(&all), deviation(&all));
    let scale = if deviation < EQUAL { 0.0 } else { deviation.recip() };
    values.iter_mut().flatten().for_each(|value| *value = (*value - mean) * scale);
}

/// Whether rewards teach nothing because they are all the same.
pub(super) fn are_equal(rewards: &[f64]) -> bool {
    deviation(rewards) < EQUAL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: &[f64], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close && found.len() == expected.len(), "{found:?}, not {expected:?}");
    }

    /// By hand: the others' means are (2+6)/2, (1+6)/2 and (1+2)/2.
    #[test]
    fn leave_one_out_takes_the_mean_of_the_others() {
        near(&leave_one_out(&[1.0, 2.0, 6.0]), &[-3.0, -1.5, 4.5]);
    }

    #[test]
    fn centred_rewards_have_mean_zero_and_keep_their_scale() {
        near(&centred(&[1.0, 2.0, 6.0]), &[-2.0, -1.0, 3.0]);
    }

    /// By hand, lambda 0.5, from the end: δ₃ = 1 − 0.5 = 0.5; δ₂ = −0.1 + 0.5 − 0.2 = 0.2, plus 0.25;
    /// δ₁ = 0 + 0.2 − 0.4 = −0.2, plus 0.225.
    #[test]
    fn generalised_advantages_agree_with_a_hand_computed_example() {
        near(&generalised(&[0.0, -0.1, 1.0], &[0.4, 0.2, 0.5], 0.5), &[0.025, 0.45, 0.5]);
        // With lambda 1 it is what is still to come minus the value.
        near(&generalised(&[0.0, -0.1, 1.0], &[0.4, 0.2, 0.5], 1.0), &[0.5, 0.7, 0.5]);
    }

    /// By hand: mean 2, deviation √((1+0+1)/3).
    #[test]
    fn whitened_values_have_mean_zero_and_deviation_one() {
        let mut values = vec![vec![1.0, 2.0], vec![3.0]];
        whiten(&mut values);
        near(&values.concat(), &[-1.5f64.sqrt(), 0.0, 1.5f64.sqrt()]);
        let mut same = vec![vec![4.0, 4.0]];
        whiten(&mut same);
        near(&same[0], &[0.0, 0.0]);
    }

    #[test]
    fn equal_rewards_are_told() {
        assert!(are_equal(&[0.1 + 0.2, 0.3]) && are_equal(&[]));
        assert!(!are_equal(&[0.0, 0.01]));
    }
}
