//! How does a policy learn from its own answers? It draws them, the reward judges them, an algorithm says what each
//! teaches, and one update (or a few) follows (RLOO, GRPO, PPO, best-of-n).

use super::advantage::{are_equal, centred, generalised, leave_one_out, whiten};
use super::figures::{Tally, of_experience};
use super::judge::Judged;
use super::loss::{self, Clipping, Loss, Token};
use super::measure::best_of;
use super::order::{Purpose, places, seed, stream};
use super::rollouts::{Drawing, draw};
use super::training::{Training, Update};
use super::value::{States, explained};
use super::{Algorithm, Metrics, PolicyError, Reward, Rollout};
use crate::nn::{self, Gradients, Packed, Pass, Text, log_probability, pack};

/// By how much the price of KL may change in one step: a fifth, as far as the KL is off (Ziegler et al.,
/// arXiv:1909.08593, section 2.2, with their gain of 0.1 for runs of tens of thousands of updates raised to 1).
const PRICE_STEP: f64 = 0.2;

/// The answers of one step, `completions` to each prompt, and what is known of each.
#[derive(Debug)]
pub(super) struct Experience {
    pub(super) rollouts: Vec<Rollout>,
    /// Log-probability of each token under the reference (nats).
    pub(super) reference: Vec<Vec<f32>>,
    /// log π − log π₀ of the answer (nats).
    pub(super) kl: Vec<f64>,
    pub(super) judged: Judged,
    /// Answers to each prompt.
    pub(super) each: usize,
}

/// What the answers teach.
#[derive(Debug)]
enum Lesson {
    /// The log-probability of each answer's tokens rises by this weight.
    Weighted(Vec<f64>),
    /// The clipped ratio of each token, by its advantage.
    Clipped { advantages: Vec<Vec<f64>>, clipping: Clipping },
}

/// What PPO's value head makes of the answers.
struct Valued {
    states: Vec<States>,
    values: Vec<Vec<f64>>,
    returns: Vec<Vec<f64>>,
}

impl Lesson {
    fn teaches(&self, answer: usize) -> bool {
        match self {
            Self::Weighted(weights) => weights[answer] != 0.0,
            Self::Clipped { advantages, .. } => advantages[answer].iter().any(|value| *value != 0.0),
        }
    }
}

impl Training<'_> {
    /// One step of an algorithm that draws answers.
    pub(super) fn learn_rollouts(&mut self, reward: &mut Reward<'_>) -> Result<Metrics, PolicyError> {
        let experience = self.collect(reward)?;
        let beta = self.state.beta;
        let mut metrics = of_experience(&experience, beta);
        let valued = self.value(&experience)?;
        let lesson = self.lesson(&experience, valued.as_ref());
        // Another update from the same answers needs the ratio that only the clipped losses have.
        let updates = if matches!(lesson, Lesson::Clipped { .. }) { self.settings.updates } else { 1 };
        let mut tally = Tally::default();
        for _ in 0..updates {
            let update = self.learn(&experience, &lesson, &mut tally)?;
            if let (Some(head), Some(valued)) = (&mut self.head, &valued) {
                let before = (valued.values.as_slice(), valued.returns.as_slice());
                let loss = head.learn(&valued.states, before, &self.settings.value)?;
                metrics.insert("loss/value_avg", loss);
            }
            update.tell(&mut metrics);
            tally.updated();
        }
        if let Some(valued) = &valued {
            metrics.insert("critic/vf_explained_var", explained(&valued.values, &valued.returns));
        }
        tally.tell(&mut metrics);
        metrics.insert("beta", beta);
        self.adapt_price(metrics.get("kl").copied().unwrap_or_default());
        Ok(metrics)
    }

    /// Draws answers to this step's prompts and judges them.
    fn collect(&mut self, reward: &mut Reward<'_>) -> Result<Experience, PolicyError> {
        let (settings, material, step) = (self.settings, self.material, self.state.done);
        let each = (step, settings.prompts_per_step);
        let chosen = places(material.prompts.len(), each, (settings.seed, Purpose::Material));
        let mut random = stream(settings.seed, Purpose::Answers, step);
        let rollouts = {
            let policy = self.reference_drawn.merged(&self.at.adapter)?;
            let prompts = (material.prompts, chosen.as_slice());
            draw((&policy, material.ends), prompts, Drawing::from(settings), &mut random)?
        };
        self.state.tokens += rollouts.iter().map(|rollout| rollout.tokens.len() as u64).sum::<u64>();
        let control = seed(settings.seed, Purpose::Control, step);
        let judged = Judged::of(&rollouts, (settings, control), reward)?;
        let (reference, kl) = self.under_reference(&rollouts)?;
        Ok(Experience { rollouts, reference, kl, judged, each: settings.completions })
    }

    /// Log-probability of each answer's tokens under the reference (nats), and log π − log π₀ of each answer (nats), with
    /// log π as the policy found it that drew the answer.
    pub(super) fn under_reference(
        &self,
        rollouts: &[Rollout],
    ) -> Result<(Vec<Vec<f32>>, Vec<f64>), PolicyError> {
        let read = (&self.texts(rollouts)[..], self.settings.pass_tokens);
        let reference =
            nn::read((&self.reference_drawn, None), read, |read| Ok(read.log_probabilities.to_vec()))?;
        let of_answer = |(rollout, reference): (&Rollout, &Vec<f32>)| {
            log_probability(&rollout.log_probabilities) - log_probability(reference)
        };
        let kl = rollouts.iter().zip(&reference).map(of_answer).collect();
        Ok((reference, kl))
    }

    fn texts<'t>(&'t self, rollouts: &'t [Rollout]) -> Vec<Text<'t>> {
        let prompt = |rollout: &Rollout| self.material.prompts[rollout.prompt].tokens.as_slice();
        rollouts.iter().map(|one| Text { prompt: prompt(one), completion: &one.tokens }).collect()
    }

    /// What each answer teaches, by the algorithm. Groups whose rewards are all the same teach nothing.
    fn lesson(&self, experience: &Experience, valued: Option<&Valued>) -> Lesson {
        let Experience { rollouts, kl, judged, each, .. } = experience;
        let (settings, beta) = (self.settings, self.state.beta);
        let count = rollouts.len().max(1) as f64;
        let lengths = || rollouts.iter().map(|rollout| rollout.tokens.len());
        let of_tokens = |values: Vec<f64>| -> Vec<Vec<f64>> {
            values.into_iter().zip(lengths()).map(|(value, length)| vec![value; length]).collect()
        };
        let clipping =
            |beta, tokens: f64| Clipping { range: settings.ratio_clip, beta, weight: tokens.recip() };
        match settings.algorithm {
            Algorithm::Grpo => {
                let advantages = by_group((&judged.rewards, &judged.rewards), *each, centred);
                // A constant, whatever the answers' lengths: long answers are not favoured (Dr. GRPO).
                let clipping = clipping(beta, count * settings.max_tokens as f64);
                Lesson::Clipped { advantages: of_tokens(advantages), clipping }
            }
            Algorithm::Ppo => {
                let returns = valued.map(|valued| {
                    let parts = valued.returns.iter().zip(&valued.values);
                    parts.map(|(r, v)| r.iter().zip(v).map(|(r, v)| r - v).collect()).collect()
                });
                let mut advantages: Vec<Vec<f64>> = returns.unwrap_or_default();
                whiten(&mut advantages);
                Lesson::Clipped {
                    advantages,
                    clipping: clipping(0.0, lengths().sum::<usize>().max(1) as f64),
                }
            }
            Algorithm::BestOfN => {
                let best = best_of(&judged.rewards, *each);
                let best = best.into_iter().filter(|place| {
                    let group = place / each * each;
                    !are_equal(&judged.rewards[group..group + each])
                });
                let mut weights = vec![0.0; rollouts.len()];
                best.for_each(|place| weights[place] = 1.0);
                let tokens: usize =
                    lengths().zip(&weights).filter(|(_, w)| **w > 0.0).map(|(length, _)| length).sum();
                weights.iter_mut().for_each(|weight| *weight /= tokens.max(1) as f64);
                Lesson::Weighted(weights)
            }
            _ => {
                let priced: Vec<f64> =
                    judged.rewards.iter().zip(kl).map(|(reward, kl)| reward - beta * kl).collect();
                let advantages = by_group((&judged.rewards, &priced), *each, leave_one_out);
                Lesson::Weighted(advantages.into_iter().map(|advantage| advantage / count).collect())
            }
        }
    }

    /// States, values and returns of each token, for PPO: each nat of KL is paid where it arises, the reward comes with
    /// the last token.
    fn value(&self, experience: &Experience) -> Result<Option<Valued>, PolicyError> {
        let Some(head) = &self.head else { return Ok(None) };
        let texts = self.texts(&experience.rollouts);
        let read = (&self.reference_drawn, Some(&self.at.adapter));
        let states: Vec<States> = nn::read(read, (&texts, self.settings.pass_tokens), |read| {
            Ok(read.states()?.flatten_all()?.to_vec1()?)
        })?;
        let values = head.values(&states)?;
        let mut returns = Vec::with_capacity(values.len());
        for (i, (rollout, values)) in experience.rollouts.iter().zip(&values).enumerate() {
            let tokens = rollout.log_probabilities.iter().zip(&experience.reference[i]);
            let mut rewards: Vec<f64> =
                tokens.map(|(now, reference)| -self.state.beta * f64::from(now - reference)).collect();
            if let Some(last) = rewards.last_mut() {
                *last += experience.judged.rewards[i];
            }
            let advantages = generalised(&rewards, values, self.settings.value.lambda);
            returns.push(advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect());
        }
        Ok(Some(Valued { states, values, returns }))
    }

    /// One update from a step's answers.
    fn learn(
        &mut self,
        experience: &Experience,
        lesson: &Lesson,
        tally: &mut Tally,
    ) -> Result<Update, PolicyError> {
        let taught: Vec<usize> = (0..experience.rollouts.len()).filter(|&i| lesson.teaches(i)).collect();
        let mut gradients = Gradients::none(&self.at.adapter, self.settings.recompute);
        let all = self.texts(&experience.rollouts);
        let texts: Vec<Text<'_>> = taught.iter().map(|&i| all[i]).collect();
        let mut rows = 0;
        for Packed { batch, places } in pack(&texts, self.settings.pass_tokens) {
            rows += batch.rows_len() as u64;
            let read = (&self.reference_drawn, &batch);
            gradients.add(read, (&self.at.adapter, Pass::default()), |scores| {
                let now = scores.log_probabilities.to_vec1::<f32>()?;
                let loss = teach((experience, lesson), &taught[places], &now, tally);
                tally.read((&now, &scores.entropy()), &loss);
                Ok(loss.through(&scores.log_probabilities)?)
            })?;
        }
        self.state.tokens += rows;
        self.update(gradients)
    }

    /// Raises the price of KL above its target and lowers it below, down to where it began: a run of tens of steps ends
    /// before a price that fell has been paid for.
    fn adapt_price(&mut self, kl: f64) {
        let price = self.settings.kl;
        let error = (kl / price.target - 1.0).clamp(-PRICE_STEP, PRICE_STEP);
        self.state.beta = (self.state.beta * (1.0 + error)).max(price.beta);
    }
}

/// The loss of some answers (`places`) whose tokens' log-probabilities are `now`.
fn teach(
    (experience, lesson): (&Experience, &Lesson),
    places: &[usize],
    now: &[f32],
    tally: &mut Tally,
) -> Loss {
    let rollout = |place: usize| &experience.rollouts[place];
    let drawn = places.iter().flat_map(|&place| &rollout(place).log_probabilities);
    tally.compare(now, drawn.clone());
    match lesson {
        Lesson::Weighted(weights) => {
            let of_tokens =
                places.iter().flat_map(|&place| vec![weights[place]; rollout(place).tokens.len()]);
            loss::weighted(now, &of_tokens.collect::<Vec<_>>())
        }
        Lesson::Clipped { advantages, clipping } => {
            let advantages = places.iter().flat_map(|&place| &advantages[place]);
            let reference = places.iter().flat_map(|&place| &experience.reference[place]);
            let tokens: Vec<Token> = now
                .iter()
                .zip(drawn)
                .zip(reference)
                .zip(advantages)
                .map(|(((now, drawn), reference), advantage)| Token {
                    now: *now,
                    drawn: *drawn,
                    reference: *reference,
                    advantage: *advantage,
                })
                .collect();
            let (loss, clips) = loss::clipped(&tokens, *clipping);
            tally.clipped(clips);
            loss
        }
    }
}

/// Applies a baseline to the second values, group by group; 0 for groups whose first values are all the same.
fn by_group(
    (rewards, values): (&[f64], &[f64]),
    each: usize,
    baseline: impl Fn(&[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let groups = rewards.chunks(each).zip(values.chunks(each));
    groups
        .flat_map(
            |(rewards, values)| {
                if are_equal(rewards) { vec![0.0; values.len()] } else { baseline(values) }
            },
        )
        .collect()
}
