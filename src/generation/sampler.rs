//! Which token comes next? Drawn from the logits with the answer's own random stream, so that a seed repeats it.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::repetition::repeating;
use crate::domain::Sampling;

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draw {
    /// Id in the vocabulary.
    pub(crate) token: u32,
    /// Natural logarithm of its probability before bias, penalty, temperature and nucleus.
    pub(crate) logprob: f32,
    /// The likeliest tokens before bias, penalty, temperature and nucleus, likeliest first.
    pub(crate) top: Vec<(u32, f32)>,
}

/// Tokens that are made likelier than the model finds them, and by how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogitBias {
    /// The tokens; one that is named twice counts once.
    pub tokens: Arc<[u32]>,
    /// Added to their logits.
    pub nats: f32,
}

/// Draws the tokens of one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    repetition_penalty: f32,
    dry_multiplier: f32,
    top_logprobs: usize,
    random: ChaCha8Rng,
    drawn: Vec<u32>,
    bias: LogitBias,
}

impl Sampler {
    /// A sampler at the start of its random stream.
    pub(crate) fn new(sampling: &Sampling, top_logprobs: u8) -> Self {
        Self {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            repetition_penalty: sampling.repetition_penalty,
            dry_multiplier: sampling.dry_multiplier,
            top_logprobs: usize::from(top_logprobs),
            random: ChaCha8Rng::seed_from_u64(sampling.seed),
            drawn: Vec::new(),
            bias: LogitBias::default(),
        }
    }

    /// The same with a bias. The tokens that end an answer get it too, so that answers become no longer by it.
    pub(crate) fn biased(mut self, bias: &LogitBias, ends: &[u32]) -> Self {
        if bias.nats != 0.0 && !bias.tokens.is_empty() {
            let mut tokens = [&bias.tokens, ends].concat();
            tokens.sort_unstable();
            tokens.dedup();
            self.bias = LogitBias { tokens: tokens.into(), nats: bias.nats };
        }
        self
    }

    /// Draws the next token from `logits` `(vocab)`; `None` when none of them is a number.
    pub(crate) fn draw(&mut self, mut logits: Vec<f32>) -> Option<Draw> {
        let log_total = log_sum_exp(&logits)?;
        let top = likeliest(&logits, self.top_logprobs);
        let top = top.into_iter().map(|token| (token, logits[token as usize] - log_total)).collect();
        let mut before = self.penalise(&mut logits);
        for (token, cost) in repeating(&self.drawn, self.dry_multiplier) {
            if let Some(logit) = logits.get_mut(token as usize) {
                before.push((token, *logit));
                *logit -= cost;
            }
        }
        for &token in &*self.bias.tokens {
            if let Some(logit) = logits.get_mut(token as usize) {
                before.push((token, *logit));
                *logit += self.bias.nats;
            }
        }
        let token = if self.temperature <= f32::EPSILON { argmax(&logits)? } else { self.pick(&logits)? };
        // A token that was penalised and then biased is there more than once; the first is what the model said.
        let raw =
            before.iter().find(|(t, _)| *t == token).map_or(logits[token as usize], |(_, logit)| *logit);
        self.drawn.push(token);
        Some(Draw { token, logprob: raw - log_total, top })
    }

    /// The probability of a token that is given; `None` when it has none.
    pub(super) fn take(&mut self, logits: &[f32], token: u32) -> Option<Draw> {
        let logprob = *logits.get(token as usize)? - log_sum_exp(logits)?;
        self.drawn.push(token);
        (!logprob.is_nan()).then_some(Draw { token, logprob, top: Vec::new() })
    }

    /// Lowers the logits of tokens drawn before (CTRL, arXiv:1909.05858, section 4.1); returns what they were.
    fn penalise(&self, logits: &mut [f32]) -> Vec<(u32, f32)> {
        let mut before: Vec<(u32, f32)> = Vec::new();
        if self.repetition_penalty <= 1.0 {
            return before;
        }
        let mut seen = self.drawn.clone();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                before.push((token, *logit));
                *logit = if *logit > 0.0 {
                    *logit / self.repetition_penalty
                } else {
                    *logit * self.repetition_penalty
                };
            }
        }
        before
    }

    /// Draws from the nucleus: the smallest set of likeliest tokens whose mass reaches `top_p`
    /// (Holtzman et al., arXiv:1904.09751, section 3.1).
    fn pick(&mut self, logits: &[f32]) -> Option<u32> {
        let greatest = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = logits.iter().map(|l| ((l - greatest) / self.temperature).exp()).collect();
        let total: f32 = weights.iter().filter(|w| w.is_finite()).sum();
        if self.top_p >= 1.0 {
            return draw(
                weights.into_iter().enumerate().map(|(token, w)| (token as u32, w)),
                total,
                &mut self.random,
            );
        }
        // Tokens below this weight together weigh less than 1 - top_p, so none of them is in the nucleus.
        #[expect(clippy::cast_precision_loss, reason = "vocabularies are far below 2^24")]
        let floor = (1.0 - self.top_p) / weights.len() as f32 * total;
        let mut nucleus: Vec<(u32, f32)> =
            (0u32..).zip(weights).filter(|(_, w)| w.is_finite() && *w > 0.0 && *w >= floor).collect();
        nucleus.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut mass = 0.0;
        let last = nucleus.iter().position(|(_, w)| {
            mass += w;
            mass >= self.top_p * total
        });
        nucleus.truncate(last.map_or(nucleus.len(), |last| last + 1));
        let mass = nucleus.iter().map(|(_, w)| w).sum();
        draw(nucleus.into_iter(), mass, &mut self.random)
    }
}

/// Draws a token with a probability proportional to its weight; `total` is the sum of the weights that are numbers.
fn draw(weights: impl Iterator<Item = (u32, f32)>, total: f32, random: &mut ChaCha8Rng) -> Option<u32> {
    let (mut at, mut last) = (random.random::<f32>() * total, None);
    for (token, weight) in weights.filter(|(_, w)| w.is_finite() && *w > 0.0) {
        at -= weight;
        last = Some(token);
        if at <= 0.0 {
            break;
        }
    }
    last
}

/// Natural logarithm of the sum of exponentials, `None` when no logit is a number.
fn log_sum_exp(logits: &[f32]) -> Option<f32> {
    let greatest = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().filter(|l| !l.is_nan()).map(|l| (l - greatest).exp()).sum();
    (greatest.is_finite() && sum.is_finite()).then(|| greatest + sum.ln())
}

/// The likeliest token; the first of equals.
fn argmax(logits: &[f32]) -> Option<u32> {
    let numbers = (0u32..).zip(logits).filter(|(_, l)| !l.is_nan());
    numbers.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map(|(token, _)| token)
}

/// The `n` likeliest tokens, likeliest first.
fn likeliest(logits: &[f32], n: usize) -> Vec<u32> {
    if n == 0 {
        return Vec::new();
    }
    let mut order: Vec<u32> = (0u32..).zip(logits).filter(|(_, l)| !l.is_nan()).map(|(t, _)| t).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n < order.len() {
        order.select_nth_unstable_by(n - 1, by_logit);
        order.truncate(n);
    }
    order.sort_by(by_logit);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { top_p, seed, ..Sampling::at(temperature, 10) }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_reports_its_log_probability() {
        let draw = Sampler::new(&sampling(0.0, 1.0, 1), 2).draw(vec![0.0, 1.0, -1.0]).unwrap();
        // ln softmax([0, 1, -1])[1] = 1 - ln(e^0 + e^1 + e^-1)
        assert_eq!(draw.token, 1);
        assert!((draw.logprob - (1.0 - (1.0f32 + 1f32.exp() + (-1f32).exp()).ln())).abs() < 1e-6);
        assert_eq!(draw.top.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_bias_makes_its_tokens_and_the_end_likelier_and_changes_no_probability() {
        let logits = vec![2.0f32, 1.5, 0.0, -1.0, 1.2];
        let bias = |nats| LogitBias { tokens: [1, 1, 3].into(), nats };
        let draw = |nats| {
            let mut sampler = Sampler::new(&sampling(0.0, 1.0, 1), 0).biased(&bias(nats), &[4]);
            sampler.draw(logits.clone()).unwrap()
        };
        let total = logits.iter().map(|logit| logit.exp()).sum::<f32>().ln();
        // 1.5 + 1 is above 2; the end's 1.2 + 1 is above 2, too, but not above that.
        for (nats, token, raw) in [(0.0, 0, 2.0), (0.4, 0, 2.0), (1.0, 1, 1.5)] {
            let drawn = draw(nats);
            assert_eq!(drawn.token, token, "{nats}");
            assert!((drawn.logprob - (raw - total)).abs() < 1e-6, "{nats}");
        }
        let mut ending = Sampler::new(&sampling(0.0, 1.0, 1), 0)
            .biased(&LogitBias { tokens: [3].into(), nats: 1.0 }, &[4]);
        assert_eq!(ending.draw(logits.clone()).unwrap().token, 4);
        // A penalised token's probability is still the model's.
        let penalised = Sampling { repetition_penalty: 1.2, ..sampling(0.0, 1.0, 1) };
        let mut sampler = Sampler::new(&penalised, 0).biased(&bias(1.0), &[]);
        for _ in 0..2 {
            let drawn = sampler.draw(logits.clone()).unwrap();
            assert_eq!(drawn.token, 1);
            assert!((drawn.logprob - (1.5 - total)).abs() < 1e-6);
        }
        // Without tokens of a prompt the end is no likelier either.
        let none = LogitBias { tokens: [].into(), nats: 1.0 };
        let mut sampler = Sampler::new(&sampling(0.0, 1.0, 1), 0).biased(&none, &[4]);
        assert_eq!(sampler.draw(logits).unwrap().token, 0);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(&sampling(1.0, 1.0, 7), 0);
        let logits = [0.6f32, 0.3, 0.1].map(f32::ln);
        let mut counts = [0usize; 3];
        for _ in 0..6_000 {
            counts[sampler.draw(logits.to_vec()).unwrap().token as usize] += 1;
        }
        // Four standard deviations of a binomial with n = 6,000 are at most 155.
        for (count, expected) in counts.iter().zip([3_600usize, 1_800, 600]) {
            assert!(count.abs_diff(expected) < 155, "{counts:?}");
        }
    }

    #[test]
    fn the_nucleus_keeps_only_the_likeliest() {
        let mut sampler = Sampler::new(&sampling(1.0, 0.7, 3), 0);
        let logits = [0.6f32, 0.3, 0.1].map(f32::ln);
        for _ in 0..500 {
            assert_ne!(sampler.draw(logits.to_vec()).unwrap().token, 2);
        }
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let logits: Vec<f32> = (0..50u8).map(|i| f32::from(i % 7)).collect();
        let draws = |seed| {
            let mut sampler = Sampler::new(&sampling(1.0, 0.95, seed), 0);
            (0..20).map(|_| sampler.draw(logits.clone()).unwrap().token).collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
    }

    #[test]
    fn repetition_is_penalised_but_reported_probabilities_are_the_models() {
        let mut sampler = Sampler::new(&Sampling { repetition_penalty: 2.0, ..sampling(0.0, 1.0, 1) }, 0);
        assert_eq!(sampler.draw(vec![1.0, 0.8]).unwrap().token, 0);
        assert_eq!(sampler.draw(vec![1.0, 0.8]).unwrap().token, 1);
        let third = sampler.draw(vec![3.0, 0.8]).unwrap();
        assert_eq!(third.token, 0);
        assert!((third.logprob - (3.0 - (3f32.exp() + 0.8f32.exp()).ln())).abs() < 1e-6);
    }

    /// By hand: 1 nat ahead, the token that goes round again is taken until that costs more (0.8, then 1.4).
    #[test]
    fn a_loop_is_left_and_reported_probabilities_are_the_models() {
        let total = (2f32.exp() + 1f32.exp()).ln();
        for (multiplier, left) in [(0.0, None), (0.8, Some(18))] {
            let dry = Sampling { dry_multiplier: multiplier, ..sampling(0.0, 1.0, 1) };
            let mut sampler = Sampler::new(&dry, 0);
            let draws: Vec<Draw> = (0..20).map(|_| sampler.draw(vec![2.0, 1.0]).unwrap()).collect();
            assert_eq!(draws.iter().position(|draw| draw.token == 1), left);
            for draw in draws {
                let raw = [2.0, 1.0][draw.token as usize];
                assert!((draw.logprob - (raw - total)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_told() {
        assert_eq!(Sampler::new(&sampling(0.0, 1.0, 1), 0).draw(vec![f32::NAN, f32::NAN]), None);
    }
}
