//! How does the policy learn from the reward model? It answers people's questions, and answers that the reward model
//! likes better than its others become likelier.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::judging::{Rewarding, optimises};
use super::material::{Material, Question, demonstrated, fitting};
use super::{ImproveError, Work, Workshop};
use crate::chat::Shown;
use crate::config::PolicyConfig;
use crate::dataset::judgements::Signal;
use crate::evaluation::metrics::{token_f1, without_marks};
use crate::evaluation::statistics::{deviation, mean_or_zero};
use crate::jobs::Reporter;
use crate::nn::{Adapter, AdapterShape, Decoder};
use crate::policy::{self, Algorithm, Control, KlPrice, Optimised, PolicyError, TokenJudged, TokenPair};
use crate::reward::Score;
use crate::sft::Trained;

/// Standard deviations of disagreement that an answer's reward loses for each one (the lower confidence bound of
/// arXiv:2310.02743): where the ensemble knows little, nothing is to be won.
const CAUTION: f64 = 1.0;
/// What an answer loses that rests on none of its passages, or for a mark that names no passage: as much as one
/// standard deviation of reward.
const UNGROUNDED: f64 = 1.0;
/// Figures that are kept by step, and the names of their curves: those of the fine-tuning have names of their own.
const CURVES: [(&str, &str); 7] = [
    ("reward", "policy reward"),
    ("reward_std", "policy reward deviation"),
    ("kl", "policy kl"),
    ("entropy", "policy entropy"),
    ("completions/mean_length", "policy tokens an answer"),
    ("beta", "policy price of a nat"),
    ("grad_norm", "policy grad norm"),
];
/// Names of the curves that say by how much the reward model, and by how much agreeing with the human answer, tells answers to
/// one question apart: the larger one leads.
const APART: [&str; 2] = ["policy reward model apart", "policy agreement apart"];
/// What the reward model says counts at most this much, either way. What an answer gains for agreeing with the human one is bounded
/// already and comes on top: clipped together with it, answers that agree would all be worth the same.
const LIKED: f64 = 5.0;
/// Marks without passage that count; more are no worse.
const MOST_MARKS: f64 = 2.0;

/// What training made.
pub(super) struct Made {
    /// What is published: both adapters, as one.
    pub(super) adapter: Adapter,
    /// Of the fine-tuning.
    pub(super) tuned: Trained,
    /// Of the optimisation, when there was one.
    pub(super) optimised: Option<Optimised>,
    /// What as many steps with random rewards made of the fine-tuned model.
    pub(super) control: Option<Adapter>,
}

impl Work<'_> {
    /// Optimises the fine-tuned policy against the reward model, and once more against random numbers, to compare with.
    /// Without a reward model the fine-tuned policy is the result.
    pub(super) async fn optimise(
        &self,
        material: &Arc<Material>,
        tuned: Trained,
        rewarding: Option<&Arc<Rewarding>>,
    ) -> Result<Made, ImproveError> {
        let Some(rewarding) = rewarding else {
            return Ok(Made { adapter: tuned.adapter.clone(), tuned, optimised: None, control: None });
        };
        let (material, rewarding) = (Arc::clone(material), Arc::clone(rewarding));
        let (workshop, report) = (self.workshop.clone(), self.report.clone());
        let (folder, config) = (self.folder.clone(), self.policy.clone());
        let optimising = tokio::task::spawn_blocking(move || {
            let practice = Practice::new(&workshop, &material, (&tuned, &rewarding), config.agreement)?;
            let settings =
                policy::Settings { recompute: workshop.config.training.recompute, ..settings(&config) };
            let learn = |name: &str, control: Control| {
                let settings = policy::Settings { control, ..settings };
                let folder = folder.join(name);
                std::fs::create_dir_all(&folder).map_err(super::io(&folder))?;
                practice.learn((&settings, &folder), |step| {
                    report.progress(name, step.done, step.total);
                    if control == Control::Reward {
                        tell(&report, step, practice.apart.get());
                    }
                    !report.cancelled()
                })
            };
            let optimised = learn("policy", Control::Reward)?;
            let control = config.control.then(|| learn("control", Control::Random)).transpose()?;
            let control = control.map(|control| tuned.adapter.beside(&control.adapter)).transpose()?;
            let adapter = tuned.adapter.beside(&optimised.adapter)?;
            Ok::<_, ImproveError>(Made { adapter, tuned, optimised: Some(optimised), control })
        });
        optimising.await?
    }
}

fn tell(report: &Reporter, step: &policy::Step, apart: [f64; 2]) {
    let of = |(figure, curve)| step.metrics.get(figure).map(|value| (curve, *value));
    let points: Vec<(&str, f64)> =
        CURVES.into_iter().filter_map(of).chain(APART.into_iter().zip(apart)).collect();
    report.point(step.done, &points);
}

/// What an answer is worth, by its parts.
#[derive(Debug, Clone, Copy, Default)]
struct Worth {
    /// What the reward model says, cautiously.
    liked: f64,
    /// For saying what an expert has said.
    agrees: f64,
    /// What it loses for resting on nothing.
    taken: f64,
}

/// What the policy practises on.
struct Practice<'a> {
    workshop: &'a Workshop,
    rewarding: &'a Rewarding,
    /// What agreeing entirely with a human answer is worth.
    agreement: f64,
    questions: &'a [Question],
    anchors: &'a [crate::sft::Example],
    prompts: Vec<policy::Prompt>,
    reference: Decoder,
    pairs: Vec<TokenPair>,
    judged: Vec<TokenJudged>,
    /// Of the answers judged last, the deviations of [`APART`].
    apart: Cell<[f64; 2]>,
}

impl<'a> Practice<'a> {
    fn new(
        workshop: &'a Workshop,
        material: &'a Material,
        (tuned, rewarding): (&Trained, &'a Rewarding),
        agreement: f64,
    ) -> Result<Self, ImproveError> {
        let prompt = |question: &Question| policy::Prompt { tokens: question.tokens.prompt.clone() };
        let (pairs, judged) = preferences(workshop, (rewarding, &material.examined()))?;
        Ok(Self {
            workshop,
            rewarding,
            agreement,
            questions: &material.practice,
            anchors: &material.train,
            prompts: material.practice.iter().map(prompt).collect(),
            reference: material.decoder.merged(&tuned.adapter)?,
            pairs,
            judged,
            apart: Cell::default(),
        })
    }

    fn learn(
        &self,
        (settings, folder): (&policy::Settings, &Path),
        observe: impl FnMut(&policy::Step) -> bool,
    ) -> Result<Optimised, ImproveError> {
        let material = policy::Material {
            reference: &self.reference,
            ends: self.workshop.codec.eos_ids(),
            prompts: &self.prompts,
            anchors: self.anchors,
            pairs: &self.pairs,
            judged: &self.judged,
        };
        let mut reward =
            |rollouts: &[policy::Rollout]| self.reward(rollouts).map_err(|error| crate::error::chain(&error));
        match policy::optimise(&material, &mut reward, (settings, folder), observe) {
            Err(PolicyError::Stopped { .. }) => Err(ImproveError::Interrupted),
            other => Ok(other?),
        }
    }

    /// How much people would like each answer, cautiously, what it loses for resting on nothing, and what it gains for
    /// saying what an expert has said.
    fn reward(&self, rollouts: &[policy::Rollout]) -> Result<Vec<f64>, ImproveError> {
        let mut shown = Vec::with_capacity(rollouts.len());
        for rollout in rollouts {
            let question = &self.questions[rollout.prompt];
            shown.push((question, question.answered(self.workshop, (&rollout.tokens, rollout.ended))));
        }
        let answers: Vec<(&Question, &str)> =
            shown.iter().map(|(question, shown)| (*question, shown.text.as_str())).collect();
        let scores = self.rewarding.score(&self.rewarding.model, &answers)?;
        let judged = rollouts.iter().zip(&shown).zip(scores);
        let judged: Vec<(usize, Worth)> = judged
            .map(|((rollout, (question, shown)), score)| (rollout.prompt, self.worth(question, shown, score)))
            .collect();
        self.apart.set([apart(&judged, |worth| worth.liked), apart(&judged, |worth| worth.agrees)]);
        Ok(judged.iter().map(|(_, worth)| worth.liked + worth.agrees - worth.taken).collect())
    }

    fn worth(&self, question: &Question, shown: &Shown, score: Option<Score>) -> Worth {
        // An answer of which nothing is left to show is worth as little as any can be.
        let Some(score) = score else { return Worth { liked: -LIKED, ..Worth::default() } };
        let liked = (score.value - CAUTION * score.spread).clamp(-LIKED, LIKED);
        let human = &question.example.response;
        let agrees = if human.is_empty() {
            0.0
        } else {
            self.agreement * token_f1(&without_marks(&shown.text), &without_marks(human))
        };
        let unfounded = !question.passages.is_empty() && shown.citations.is_empty();
        let marks = (shown.invalid_marks as f64).min(MOST_MARKS);
        Worth { liked, agrees, taken: UNGROUNDED * (f64::from(u8::from(unfounded)) + marks) }
    }
}

/// By how much one part of the worth tells answers to one question apart: the standard deviation within questions, mean
/// over them, as `reward_std` is of the whole. Answers to one question follow each other.
fn apart(judged: &[(usize, Worth)], part: impl Fn(&Worth) -> f64) -> f64 {
    let within =
        |group: &[(usize, Worth)]| deviation(&group.iter().map(|(_, worth)| part(worth)).collect::<Vec<_>>());
    let groups: Vec<f64> = judged.chunk_by(|one, next| one.0 == next.0).map(within).collect();
    mean_or_zero(&groups)
}

/// Choices and thumbs as tokens, with the prompts that chat would use; only those on questions that the policy may learn
/// from and is not examined on.
fn preferences(
    workshop: &Workshop,
    (rewarding, examined): (&Rewarding, &HashSet<String>),
) -> Result<(Vec<TokenPair>, Vec<TokenJudged>), ImproveError> {
    let example = |messages: &[crate::domain::Message], passages: &[String], answer: &str| {
        let passages = crate::dataset::snapshot::untitled(passages.to_vec());
        let made = demonstrated(workshop, (messages, &passages), answer)?;
        Ok::<_, ImproveError>((made.prompt.tokens.to_vec(), made.completion))
    };
    let learns = |cluster: &str| optimises(cluster) && !examined.contains(cluster);
    let (mut pairs, mut judged) = (Vec::new(), Vec::new());
    for row in rewarding.judgements.rows() {
        match &row.signal {
            Signal::Pair(pair) if !pair.held_out && !pair.is_tie() && learns(&pair.cluster) => {
                let made =
                    |answer: &str| fitting(&pair.id, example(&pair.conversation, &pair.passages, answer));
                let (Some((prompt, chosen)), Some((_, rejected))) =
                    (made(&pair.chosen)?, made(&pair.rejected)?)
                else {
                    continue;
                };
                judged.push(TokenJudged { prompt: prompt.clone(), completion: chosen.clone(), label: true });
                judged.push(TokenJudged {
                    prompt: prompt.clone(),
                    completion: rejected.clone(),
                    label: false,
                });
                pairs.push(TokenPair { prompt, chosen, rejected });
            }
            Signal::Thumb(thumb) if !thumb.held_out && learns(&thumb.cluster) => {
                let made = example(&thumb.conversation, &thumb.passages, &thumb.answer);
                if let Some((prompt, completion)) = fitting(&thumb.id, made)? {
                    judged.push(TokenJudged { prompt, completion, label: thumb.good });
                }
            }
            Signal::Pair(_) | Signal::Thumb(_) => {}
        }
    }
    Ok((pairs, judged))
}

/// The settings of a run as the optimiser's.
fn settings(config: &PolicyConfig) -> policy::Settings {
    let algorithm = match config.algorithm.as_str() {
        "grpo" => Algorithm::Grpo,
        "ppo" => Algorithm::Ppo,
        "dpo" => Algorithm::Dpo,
        "kto" => Algorithm::Kto,
        "best_of_n" => Algorithm::BestOfN,
        // Validated with the configuration.
        _ => Algorithm::Rloo,
    };
    let default = policy::Settings::default();
    let kl =
        KlPrice { beta: config.beta, target: config.target_kl, cap: default.kl.cap.max(config.target_kl) };
    policy::Settings {
        algorithm,
        adapter: AdapterShape { dropout: 0.0, ..default.adapter },
        learning_rate: config.learning_rate as f32,
        steps: config.steps,
        prompts_per_step: config.prompts_per_step,
        completions: config.completions,
        max_tokens: config.max_tokens,
        temperature: config.temperature as f32,
        kl,
        reward_clip: LIKED + config.agreement,
        nll_anchor: config.anchor,
        seed: config.seed,
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the first question's answers have a deviation of 1, the second's of 3; how the questions differ from each
    /// other does not matter.
    #[test]
    fn parts_of_the_worth_are_told_apart_within_questions() {
        let worth = |liked| Worth { liked, ..Worth::default() };
        let judged = [(4, worth(1.0)), (4, worth(3.0)), (7, worth(10.0)), (7, worth(16.0))];
        assert!((apart(&judged, |worth| worth.liked) - 2.0).abs() < 1e-12);
        assert_eq!(apart(&judged, |worth| worth.agrees), 0.0);
        assert_eq!(apart(&[], |worth| worth.liked), 0.0);
    }

    /// An answer that says all that the human one says is still worth more when people like it more.
    #[test]
    fn agreeing_with_the_human_answer_leaves_room_for_what_is_liked() {
        for agreement in [0.0, 4.0, 20.0] {
            let config = PolicyConfig { agreement, ..PolicyConfig::default() };
            assert!(settings(&config).reward_clip >= LIKED + agreement);
        }
    }
}
