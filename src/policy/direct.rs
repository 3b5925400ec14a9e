//! How does a policy learn from what people preferred, without drawing answers? Pairs (DPO) and answers judged one by
//! one (KTO), against what the reference makes of them.

use super::loss::{self, Loss, prospect, spread};
use super::order::{Purpose, places, stream};
use super::training::Training;
use super::{Algorithm, Control, Metrics, PolicyError, TokenJudged, TokenPair};
use crate::evaluation::statistics::mean_or_zero;
use crate::nn::{self, Gradients, NnError, Packed, Pass, Text, log_probability, pack};
use rand::Rng;

/// What a step found for each answer.
#[derive(Debug, Default)]
struct Found {
    loss: f64,
    tokens: usize,
    entropy: f64,
    /// log π of each answer (nats), in the order of the texts.
    policy: Vec<f64>,
}

impl Training<'_> {
    /// The answers whose reference log-probabilities are kept, in a fixed order: chosen before rejected.
    pub(super) fn score_reference(&self) -> Result<Vec<f32>, PolicyError> {
        let texts: Vec<Text<'_>> = match self.settings.algorithm {
            Algorithm::Dpo => self.material.pairs.iter().flat_map(sides).collect(),
            _ => self.material.judged.iter().map(text).collect(),
        };
        let texts = (texts.as_slice(), self.settings.pass_tokens);
        Ok(nn::read((self.material.reference, None), texts, |read| Ok(read.sum() as f32))?)
    }

    /// One step of DPO.
    pub(super) fn learn_pairs(&mut self) -> Result<Metrics, PolicyError> {
        let (settings, pairs, step) = (self.settings, self.material.pairs, self.state.done);
        let each = settings.direct.batch.min(pairs.len());
        let chosen = places(pairs.len(), (step, each), (settings.seed, Purpose::Material));
        let mut random = stream(settings.seed, Purpose::Control, step);
        // The control takes either side for the better one.
        let swapped: Vec<bool> =
            chosen.iter().map(|_| settings.control == Control::Random && random.random()).collect();
        let texts: Vec<Text<'_>> = chosen
            .iter()
            .zip(&swapped)
            .flat_map(|(&i, &swapped)| {
                let [better, worse] = sides(&pairs[i]);
                if swapped { [worse, better] } else { [better, worse] }
            })
            .collect();
        let reference: Vec<f64> = chosen
            .iter()
            .zip(&swapped)
            .flat_map(|(&i, &swapped)| {
                let [better, worse] = [0, 1].map(|side| f64::from(self.reference[2 * i + side]));
                if swapped { [worse, better] } else { [better, worse] }
            })
            .collect();
        let direct = settings.direct;
        let share = (each as f64).recip();
        let loss = |places: std::ops::Range<usize>, policy: &[f64]| {
            let mut slopes = Vec::with_capacity(policy.len());
            let mut value = 0.0;
            for (policy, reference) in policy.chunks_exact(2).zip(reference[places].chunks_exact(2)) {
                let margin = (policy[0] - reference[0]) - (policy[1] - reference[1]);
                let (loss, slope) = loss::preference(margin, (direct.beta, direct.label_smoothing));
                value += loss * share;
                slopes.extend([slope * share, -slope * share]);
            }
            (value, slopes)
        };
        let (mut metrics, found) = self.learn_directly(&texts, loss)?;
        let rewards: Vec<f64> =
            found.policy.iter().zip(&reference).map(|(now, base)| direct.beta * (now - base)).collect();
        let (better, worse) = (every_other(&rewards, 0), every_other(&rewards, 1));
        let right = better.iter().zip(&worse).filter(|(better, worse)| better > worse).count();
        metrics.insert("rewards/accuracies", right as f64 * share);
        metrics.insert("logps/chosen", mean_or_zero(&every_other(&found.policy, 0)));
        metrics.insert("logps/rejected", mean_or_zero(&every_other(&found.policy, 1)));
        tell_rewards(&mut metrics, &better, &worse);
        Ok(metrics)
    }

    /// One step of KTO.
    pub(super) fn learn_judged(&mut self) -> Result<Metrics, PolicyError> {
        let (settings, judged, step) = (self.settings, self.material.judged, self.state.done);
        let each = settings.direct.batch.min(judged.len());
        let chosen = places(judged.len(), (step, each), (settings.seed, Purpose::Material));
        let texts: Vec<Text<'_>> = chosen.iter().map(|&i| text(&judged[i])).collect();
        let reference: Vec<f64> = chosen.iter().map(|&i| f64::from(self.reference[i])).collect();
        let mut random = stream(settings.seed, Purpose::Control, step);
        let labels: Vec<bool> = match settings.control {
            Control::Reward => chosen.iter().map(|&i| judged[i].label).collect(),
            Control::Random => chosen.iter().map(|_| random.random()).collect(),
        };
        let kl = self.shifted_kl(&texts)?;
        let direct = settings.direct;
        let share = (each as f64).recip();
        let loss = |places: std::ops::Range<usize>, policy: &[f64]| {
            let mut slopes = Vec::with_capacity(policy.len());
            let mut value = 0.0;
            for (policy, place) in policy.iter().zip(places) {
                let liked = labels[place];
                let weight = if liked { direct.desirable_weight } else { direct.undesirable_weight };
                let ratio = policy - reference[place];
                let (loss, slope) = prospect(ratio, (kl, direct.beta), (liked, weight * share));
                value += loss;
                slopes.push(slope);
            }
            (value, slopes)
        };
        let (mut metrics, found) = self.learn_directly(&texts, loss)?;
        let of = |label: bool, values: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..labels.len()).filter(|&i| labels[i] == label).map(values).collect()
        };
        let reward = |i: usize| direct.beta * (found.policy[i] - reference[i]);
        metrics.insert("logps/chosen", mean_or_zero(&of(true, &|i| found.policy[i])));
        metrics.insert("logps/rejected", mean_or_zero(&of(false, &|i| found.policy[i])));
        tell_rewards(&mut metrics, &of(true, &reward), &of(false, &reward));
        metrics.insert("kl", kl);
        Ok(metrics)
    }

    /// KTO's estimate of the KL (nats an answer): the mean of log π − log π₀ of each prompt with the next one's answer,
    /// which is no answer to it (arXiv:2402.01306, section 4.1); never below 0.
    fn shifted_kl(&self, texts: &[Text<'_>]) -> Result<f64, PolicyError> {
        let next = texts.iter().cycle().skip(1);
        let shifted: Vec<Text<'_>> =
            texts.iter().zip(next).map(|(one, next)| Text { completion: next.completion, ..*one }).collect();
        let sums = |adapter| -> Result<f64, PolicyError> {
            let texts = (shifted.as_slice(), self.settings.pass_tokens);
            Ok(nn::read((self.material.reference, adapter), texts, |read| Ok(read.sum()))?.iter().sum())
        };
        let total = sums(Some(&self.at.adapter))? - sums(None)?;
        Ok((total / texts.len().max(1) as f64).max(0.0))
    }

    /// One update. `loss` gives, for texts at these places and their log-probabilities under the policy (nats an
    /// answer), their share of the loss and the slope with respect to each answer's log-probability.
    fn learn_directly(
        &mut self,
        texts: &[Text<'_>],
        loss: impl Fn(std::ops::Range<usize>, &[f64]) -> (f64, Vec<f64>),
    ) -> Result<(Metrics, Found), PolicyError> {
        let mut gradients = Gradients::none(&self.at.adapter, self.settings.recompute);
        let mut found = Found::default();
        let mut rows = 0;
        for Packed { batch, places } in pack(texts, self.settings.pass_tokens) {
            rows += batch.rows_len() as u64;
            let read = (self.material.reference, &batch);
            gradients.add(read, (&self.at.adapter, Pass::default()), |scores| {
                let now = scores.log_probabilities.to_vec1::<f32>()?;
                let sums: Vec<f64> =
                    batch.completions().iter().map(|range| log_probability(&now[range.clone()])).collect();
                let (value, slopes) = loss(places, &sums);
                found.loss += value;
                found.tokens += now.len();
                found.entropy += scores.entropy().iter().map(|value| f64::from(*value)).sum::<f64>();
                found.policy.extend(sums);
                let loss = Loss { value, slopes: spread(&slopes, batch.completions()) };
                Ok::<_, NnError>(loss.through(&scores.log_probabilities)?)
            })?;
        }
        self.state.tokens += rows;
        let mut metrics =
            Metrics::from([("loss", found.loss), ("entropy", found.entropy / found.tokens.max(1) as f64)]);
        self.update(gradients)?.tell(&mut metrics);
        Ok((metrics, found))
    }
}

fn sides(pair: &TokenPair) -> [Text<'_>; 2] {
    [&pair.chosen, &pair.rejected].map(|completion| Text { prompt: &pair.prompt, completion })
}

fn text(judged: &TokenJudged) -> Text<'_> {
    Text { prompt: &judged.prompt, completion: &judged.completion }
}

fn every_other(values: &[f64], first: usize) -> Vec<f64> {
    values.iter().copied().skip(first).step_by(2).collect()
}

/// Implicit rewards β (log π − log π₀) of liked and disliked answers, where there are any.
fn tell_rewards(metrics: &mut Metrics, better: &[f64], worse: &[f64]) {
    if !better.is_empty() {
        metrics.insert("rewards/chosen", mean_or_zero(better));
    }
    if !worse.is_empty() {
        metrics.insert("rewards/rejected", mean_or_zero(worse));
    }
    if !better.is_empty() && !worse.is_empty() {
        metrics.insert("rewards/margins", mean_or_zero(better) - mean_or_zero(worse));
    }
}
