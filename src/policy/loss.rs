//! How does what was judged change the policy? Each loss gives its value and its slope with respect to the
//! log-probability of every token, worked out as written in its paper.
//!
//! The slopes go back through the model as one sum of log-probabilities ([`Loss::through`]). So all losses share one
//! way into the model, and their kinks (clipping, a margin of 0) are exactly where the formulas have them.

use std::ops::Range;

use candle_core::{Result, Tensor};

/// Largest logarithm of a probability ratio whose exponential is taken: e^20 is far beyond every clip.
const LARGEST_LOG_RATIO: f64 = 20.0;

/// A loss over the targets of a pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Loss {
    /// This pass's share of the step's loss.
    pub(super) value: f64,
    /// Its derivative with respect to each target's log-probability.
    pub(super) slopes: Vec<f32>,
}

/// A token as the clipped losses see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    /// Log-probability now (nats).
    pub(super) now: f32,
    /// Log-probability when it was drawn (nats).
    pub(super) drawn: f32,
    /// Log-probability under the reference (nats).
    pub(super) reference: f32,
    /// How much better than expected.
    pub(super) advantage: f64,
}

/// What a clipped loss depends on besides its tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clipping {
    /// By which share the ratio may leave 1.
    pub(super) range: f64,
    /// Weight of the KL estimate in the loss.
    pub(super) beta: f64,
    /// Factor of every token's loss.
    pub(super) weight: f64,
}

/// How often the clip ended a gradient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clips {
    /// Tokens whose ratio was too low.
    pub(super) low: usize,
    /// Tokens whose ratio was too high.
    pub(super) high: usize,
}

impl Loss {
    /// A scalar whose gradient is that of the loss: Σ slope · log π. Its value is not the loss.
    ///
    /// # Errors
    /// When there are not as many slopes as log-probabilities.
    pub(super) fn through(&self, log_probabilities: &Tensor) -> Result<Tensor> {
        let slopes = Tensor::from_slice(&self.slopes, log_probabilities.shape(), log_probabilities.device())?;
        (log_probabilities * slopes)?.sum_all()
    }
}

/// −Σ wᵢ log πᵢ: REINFORCE with advantages as weights, supervised learning with positive constants.
pub(super) fn weighted(log_probabilities: &[f32], weights: &[f64]) -> Loss {
    let terms = log_probabilities.iter().zip(weights);
    Loss {
        value: -terms.map(|(log_p, weight)| f64::from(*log_p) * weight).sum::<f64>(),
        slopes: weights.iter().map(|weight| -weight as f32).collect(),
    }
}

/// −w Σ min(r A, clip(r, 1 ± ε) A) + w β Σ (ρ − ln ρ − 1), with r the ratio to the drawing policy (arXiv:1707.06347,
/// equation 7) and ρ that of the reference to the policy (arXiv:2402.03300, equation 4).
pub(super) fn clipped(tokens: &[Token], clipping: Clipping) -> (Loss, Clips) {
    let Clipping { range, beta, weight } = clipping;
    let (mut loss, mut clips) = (Loss::default(), Clips::default());
    for token in tokens {
        let ratio = exp(f64::from(token.now) - f64::from(token.drawn));
        let (low, high) =
            (token.advantage < 0.0 && ratio < 1.0 - range, token.advantage > 0.0 && ratio > 1.0 + range);
        clips.low += usize::from(low);
        clips.high += usize::from(high);
        let kept = ratio.clamp(1.0 - range, 1.0 + range);
        let gain = (ratio * token.advantage).min(kept * token.advantage);
        let slope = if low || high { 0.0 } else { ratio * token.advantage };
        let back = f64::from(token.reference) - f64::from(token.now);
        let estimate = exp(back) - back - 1.0;
        loss.value += weight * (beta * estimate - gain);
        loss.slopes.push((weight * (beta * (1.0 - exp(back)) - slope)) as f32);
    }
    (loss, clips)
}

/// Loss of a pair and its slope with respect to the margin (DPO, arXiv:2305.18290, equation 7, with smoothed labels): how
/// much more the policy prefers the chosen answer than the reference does (nats).
pub(super) fn preference(margin: f64, (beta, smoothing): (f64, f64)) -> (f64, f64) {
    let scaled = beta * margin;
    let value = -(1.0 - smoothing) * log_sigmoid(scaled) - smoothing * log_sigmoid(-scaled);
    let slope = -beta * ((1.0 - smoothing) * sigmoid(-scaled) - smoothing * sigmoid(scaled));
    (value, slope)
}

/// Loss of a judged answer and its slope with respect to `log_ratio`, the answer's log π − log π₀ (KTO,
/// arXiv:2402.01306, equation 8). `kl` is the policy's KL to the reference (nats an answer), without gradient.
pub(super) fn prospect(log_ratio: f64, (kl, beta): (f64, f64), (liked, weight): (bool, f64)) -> (f64, f64) {
    let sign = if liked { 1.0 } else { -1.0 };
    let value = sigmoid(sign * beta * (log_ratio - kl));
    (weight * (1.0 - value), -sign * weight * beta * value * (1.0 - value))
}

/// The same slope for every token of an answer, since an answer's log-probability is the sum of its tokens'.
pub(super) fn spread(slopes: &[f64], completions: &[Range<usize>]) -> Vec<f32> {
    slopes.iter().zip(completions).flat_map(|(slope, range)| vec![*slope as f32; range.len()]).collect()
}

fn exp(x: f64) -> f64 {
    x.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Without overflow for large negative x.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    fn token(ratio: f64, advantage: f64) -> Token {
        Token { now: ratio.ln() as f32 - 1.0, drawn: -1.0, reference: -1.5, advantage }
    }

    /// By hand: −(0.5·(−2) + (−3)·(−1)) = −2.
    #[test]
    fn a_weighted_loss_agrees_with_a_hand_computed_example() {
        let loss = weighted(&[-2.0, -1.0], &[0.5, -3.0]);
        assert_eq!(loss, Loss { value: -2.0, slopes: vec![-0.5, 3.0] });
    }

    #[test]
    fn slopes_go_back_as_they_are() {
        let log_p = Var::from_vec(vec![-2f32, -1.0], 2, &Device::Cpu).unwrap();
        let loss = weighted(&[-2.0, -1.0], &[0.5, -3.0]);
        let gradients = loss.through(log_p.as_tensor()).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&log_p).unwrap().to_vec1::<f32>().unwrap(), [-0.5, 3.0]);
    }

    /// By hand with ε 0.2, β 0, w 0.5: ratios 1.5 and 0.5 with advantages 2 and −2 are clipped to 1.2 and 0.8
    /// (gains 2.4 and −1.6, no slope), 1.1 with 2 is not (gain and slope 2.2), nor is 1.5 with −2, which the minimum
    /// keeps (gain and slope −3).
    #[test]
    fn a_clipped_loss_agrees_with_a_hand_computed_example() {
        let clipping = Clipping { range: 0.2, beta: 0.0, weight: 0.5 };
        let tokens = [token(1.5, 2.0), token(0.5, -2.0), token(1.1, 2.0), token(1.5, -2.0)];
        let (loss, clips) = clipped(&tokens, clipping);
        near(loss.value, -0.5 * (2.4 - 1.6 + 2.2 - 3.0));
        for (slope, expected) in loss.slopes.iter().zip([0.0, 0.0, -1.1, 1.5]) {
            near(f64::from(*slope), expected);
        }
        assert_eq!(clips, Clips { low: 1, high: 1 });
    }

    /// By hand: ratio 1, reference half a nat lower: e^−0.5 + 0.5 − 1 = 0.106531, slope 1 − e^−0.5 = 0.393469.
    #[test]
    fn the_kl_estimate_agrees_with_a_hand_computed_example() {
        let clipping = Clipping { range: 0.2, beta: 0.1, weight: 2.0 };
        let (loss, _) = clipped(&[token(1.0, 3.0)], clipping);
        near(loss.value, 2.0 * (0.010_653_07 - 3.0));
        near(f64::from(loss.slopes[0]), 2.0 * (0.039_346_93 - 3.0));
    }

    /// By hand: β 0.5, margin 2, so σ(1) = 0.731059: −ln 0.731059 = 0.313262; slope −0.5·0.268941. With a tenth swapped
    /// 0.9·0.313262 + 0.1·1.313262.
    #[test]
    fn a_preference_loss_agrees_with_a_hand_computed_example() {
        let (value, slope) = preference(2.0, (0.5, 0.0));
        near(value, 0.313_261_7);
        near(slope, -0.134_470_7);
        let (value, slope) = preference(2.0, (0.5, 0.1));
        near(value, 0.413_261_7);
        near(slope, -0.5 * (0.9 * 0.268_941_4 - 0.1 * 0.731_058_6));
        near(preference(0.0, (0.1, 0.0)).0, std::f64::consts::LN_2);
        assert!(preference(-1e6, (1.0, 0.0)).0.is_finite());
    }

    /// By hand: β 0.5, log ratio 3, KL 1: σ(1) = 0.731059 when liked, σ(−1) = 0.268941 when not.
    #[test]
    fn a_prospect_loss_agrees_with_a_hand_computed_example() {
        let (value, slope) = prospect(3.0, (1.0, 0.5), (true, 1.0));
        near(value, 0.268_941_4);
        near(slope, -0.5 * 0.196_611_9);
        let (value, slope) = prospect(3.0, (1.0, 0.5), (false, 2.0));
        near(value, 2.0 * 0.731_058_6);
        near(slope, 2.0 * 0.5 * 0.196_611_9);
    }

    /// Each slope is what the value does when one input moves a little.
    #[test]
    fn slopes_are_derivatives() {
        let step = 1e-3;
        let derivative = |f: &dyn Fn(f64) -> f64, x: f64| (f(x + step) - f(x - step)) / (2.0 * step);
        let clipping = Clipping { range: 0.2, beta: 0.3, weight: 0.7 };
        for (ratio, advantage) in [(1.05, 2.0), (0.9, -1.0), (1.5, 1.0), (0.6, -2.0)] {
            let at = |now: f64| clipped(&[Token { now: now as f32, ..token(ratio, advantage) }], clipping).0;
            let now = f64::from(token(ratio, advantage).now);
            let found = derivative(&|x| at(x).value, now);
            assert!((found - f64::from(at(now).slopes[0])).abs() < 1e-3, "ratio {ratio}");
        }
        for x in [-3.0, 0.0, 0.4] {
            near(preference(x, (0.3, 0.1)).1, derivative(&|x| preference(x, (0.3, 0.1)).0, x));
            for judged in [(true, 1.3), (false, 0.7)] {
                near(
                    prospect(x, (0.5, 0.3), judged).1,
                    derivative(&|x| prospect(x, (0.5, 0.3), judged).0, x),
                );
            }
        }
    }

    #[test]
    fn an_answers_slope_is_that_of_each_of_its_tokens() {
        assert_eq!(spread(&[2.0, -1.0], &[0..2, 2..3]), [2.0, 2.0, -1.0]);
    }
}
