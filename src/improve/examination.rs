//! How good are a model's answers beside the human ones? It answers held-out questions as it would when served.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::candidate::{Candidate, method_of, training_metrics};
use super::judging::Rewarding;
use super::material::{Material, Question};
use super::verdict::{Compared, Contender, Verdict};
use super::{ImproveError, Work, Workshop, write_whole};
use crate::chat::Shown;
use crate::domain::{ActiveRole, GenerationId, GenerationKind};
use crate::evaluation::gate::{Method, Thresholds};
use crate::evaluation::{Comparing, Comparison, HumanNll, Sample, metrics};
use crate::generation::LogitBias;
use crate::jobs::Reporter;
use crate::nn::{Completion, Decoder, SampleRequest, Sampler, Sampling};
use crate::registry::{About, ParitySample};
use crate::sft;

/// Answers drawn together: the matrix products reach most of their rate, the memory stays small.
const TOGETHER: usize = 32;
/// In a run's folder, the policy that its candidate is compared with.
pub(super) const COMPARED: &str = "compared";
/// Answers whose probabilities the server compares before it serves the generation.
const PARITY_ANSWERS: usize = 8;

/// A model's answers to questions.
#[derive(Debug)]
pub struct Answers {
    /// The answers beside the human ones, in the order of the questions.
    pub samples: Vec<Sample>,
    /// Probabilities of some of them.
    pub parity: Vec<ParitySample>,
    /// 1 where every mark in an answer names a passage of its prompt, else 0, by question.
    pub valid: Vec<f64>,
}

impl Answers {
    /// The answers as they are shown.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|sample| sample.answer.as_str())
    }
}

/// With what, and to whose knowledge, models are examined.
#[derive(Debug, Clone, Copy)]
pub struct Examining<'a> {
    /// Settings, prompts, tokens.
    pub workshop: &'a Workshop,
    /// Hears how far it is.
    pub report: &'a Reporter,
    /// Whether it is the base model as it came: it is served with `generation.copy_bias`.
    pub is_base: bool,
}

impl Examining<'_> {
    /// How answers are drawn: greedily, as long as they may be served.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        let config = &self.workshop.config.generation;
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            repetition_penalty: config.repetition_penalty,
            dry_multiplier: config.dry_multiplier,
            max_tokens: config.max_tokens as usize,
        }
    }
}

/// What an examination found.
#[derive(Debug)]
pub struct Examined {
    /// Answers before and after, beside the human ones; `None` without questions.
    pub comparison: Option<Comparison>,
    /// What the gate says.
    pub verdict: Verdict,
    /// The policy it was compared with.
    pub compared: Option<GenerationId>,
    /// What an operator should know about it.
    pub remarks: Vec<String>,
    /// Probabilities of the new model's own answers.
    pub parity: Vec<ParitySample>,
    /// Figures of the training.
    training: Value,
}

impl Examined {
    /// Figures by name, each `{before, after, difference, interval}`, those of the gate, and the training's.
    #[must_use]
    pub fn metrics(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        if let Some(comparison) = &self.comparison {
            for (name, change) in comparison.metrics.iter() {
                metrics.insert(name.to_owned(), serde_json::to_value(change).unwrap_or_default());
            }
            metrics.insert("questions".into(), comparison.n.into());
        }
        metrics.extend(self.verdict.figures.clone());
        let gate = if self.verdict.judgement.promotes() { "promote" } else { "hold" };
        metrics.insert("gate".into(), gate.into());
        metrics.insert("training".into(), self.training.clone());
        metrics
    }

    /// The report for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let remarks: String = self.remarks.iter().map(|remark| format!("- {remark}\n")).collect();
        let gate = self.verdict.judgement.markdown("The gate");
        let title = "Answers of the served policy and of the candidate, beside the human ones";
        match &self.comparison {
            Some(comparison) => format!("{gate}\n{}\n{remarks}", comparison.markdown(title)),
            None => format!("{gate}\n# {title}\n\n{remarks}"),
        }
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> String {
        let report = serde_json::json!({ "comparison": self.comparison, "gate": self.verdict.judgement });
        serde_json::to_string_pretty(&report).unwrap_or_default()
    }
}

impl Work<'_> {
    /// Has the served policy and the candidate answer the held-out questions, compares, and asks the gate.
    pub(super) async fn evaluate(
        &self,
        material: &Arc<Material>,
        candidate: &Arc<Candidate>,
        rewarding: Option<&Arc<Rewarding>>,
    ) -> Result<Examined, ImproveError> {
        let rival = self.rival().await?;
        let served = match &rival {
            Some(id) => self.weights(id).await?,
            None => None,
        };
        let examination = Examination {
            workshop: self.workshop.clone(),
            report: self.report.clone(),
            material: Arc::clone(material),
            candidate: Arc::clone(candidate),
            rewarding: rewarding.map(Arc::clone),
            rival,
            served,
            temperature: self.policy.temperature as f32,
        };
        tokio::task::spawn_blocking(move || examination.carry_out()).await?
    }

    /// The policy that the candidate is compared with: the one that was active when this began, also after an
    /// interruption.
    pub(super) async fn rival(&self) -> Result<Option<GenerationId>, ImproveError> {
        let rival = self.served().await?;
        if let Some(id) = &rival {
            write_whole(&self.folder.join(COMPARED), id.as_str().as_bytes())?;
        }
        Ok(rival)
    }

    /// That policy, or the active one while there is no candidate to compare.
    pub(super) async fn served(&self) -> Result<Option<GenerationId>, ImproveError> {
        if let Ok(id) = std::fs::read_to_string(self.folder.join(COMPARED)) {
            return Ok(Some(GenerationId::from_wire(id.trim())));
        }
        let pointer = self.workshop.registry.pointer(ActiveRole::Policy).await?;
        Ok(pointer.map(|pointer| pointer.generation))
    }

    /// The weights of a policy, and what is known of it; `None` where that is the base model, or can not be compared with
    /// it.
    pub(super) async fn weights(&self, id: &GenerationId) -> Result<Option<(PathBuf, About)>, ImproveError> {
        let registry = &self.workshop.registry;
        let manifest = registry.get(id).await?.manifest;
        if manifest.about.kind == GenerationKind::Base {
            return Ok(None);
        }
        match registry.servable(&self.workshop.base, &manifest) {
            Ok(served) => Ok(Some((served.weights.path().to_owned(), manifest.about))),
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "compared with the base model instead");
                Ok(None)
            }
        }
    }
}

/// What an examination needs, away from the run.
struct Examination {
    workshop: Workshop,
    report: Reporter,
    material: Arc<Material>,
    candidate: Arc<Candidate>,
    /// Where the candidate was optimised, by what.
    rewarding: Option<Arc<Rewarding>>,
    /// The policy that it is compared with.
    rival: Option<GenerationId>,
    /// Its weights, and what is known of it; `None` where the base model stands in its place.
    served: Option<(PathBuf, About)>,
    /// Softmax temperature at which answers of best-of-n are drawn.
    temperature: f32,
}

impl Examination {
    /// Asks the served policy, the candidate and the random control, compares, and asks the gate. Blocks.
    fn carry_out(self) -> Result<Examined, ImproveError> {
        let (material, candidate) = (&self.material, &self.candidate);
        let (current, method) = match &self.served {
            Some((path, about)) => (Decoder::open(path)?, method_of(about)),
            None => (material.decoder.clone(), Method::FineTuned),
        };
        let before = self.contender(self.of_current(), (&current, "answers before"))?;
        let of_tuned = Examining { is_base: false, ..self.of_current() };
        let after = self.contender(of_tuned, (&candidate.decoder, "answers after"))?;
        let control = candidate.made.control.as_ref().filter(|_| self.rewarding.is_some());
        let control = control.map(|adapter| {
            let decoder = material.decoder.merged(adapter)?;
            self.contender(of_tuned, (&decoder, "answers of the random control"))
        });
        let control = control.transpose()?;

        let held_out = material.held_out;
        let (old, new) = (&before.answers.samples[..held_out], &after.answers.samples[..held_out]);
        let comparison =
            (held_out > 0).then(|| Comparison::of(old, new, &Comparing::default())).transpose()?;
        let compared = Compared {
            questions: self.questions(),
            current: (&current, &before),
            method,
            candidate: &after,
            control: control.as_ref(),
            temperature: self.temperature,
        };
        let verdict = self.verdict(&compared)?;
        let mut remarks = remarks(held_out, candidate);
        if let Some(words) = &verdict.why {
            let on = "on average over the questions to which both say something, in deviations of reward";
            remarks.push(format!("by the gate's judge, {on}, the candidate has {words}"));
        }
        Ok(Examined {
            comparison,
            remarks,
            verdict,
            compared: self.rival.clone(),
            parity: after.answers.parity,
            training: training_metrics(&candidate.made.tuned),
        })
    }

    /// Those with a human answer, and further ones: an optimised candidate is asked more.
    fn questions(&self) -> (&[Question], &[Question]) {
        let Material { questions, further, held_out, .. } = self.material.as_ref();
        if self.rewarding.is_some() { (questions, further) } else { (&questions[..*held_out], &[]) }
    }

    /// How the served policy is examined.
    fn of_current(&self) -> Examining<'_> {
        Examining { workshop: &self.workshop, report: &self.report, is_base: self.served.is_none() }
    }

    /// What a model says to all questions.
    fn contender(
        &self,
        examining: Examining<'_>,
        (decoder, phase): (&Decoder, &str),
    ) -> Result<Contender, ImproveError> {
        let (questions, further) = self.questions();
        let answers = examine(examining, (decoder, questions), phase)?;
        let further = shown(examining, (decoder, further), &format!("further {phase}"))?;
        Ok(Contender { answers, further })
    }

    fn verdict(&self, compared: &Compared<'_>) -> Result<Verdict, ImproveError> {
        let config = &self.workshop.config;
        let serve_restricted = config.registry.serve_restricted;
        let thresholds = Thresholds { serve_restricted, ..config.gate.clone() };
        let rewarding = self.rewarding.as_deref();
        let access = self.material.access(rewarding);
        compared.verdict(self.of_current(), (&self.candidate.made, rewarding), (&access, &thresholds))
    }
}

fn remarks(questions: usize, candidate: &Candidate) -> Vec<String> {
    let mut remarks = Vec::new();
    if questions < 30 {
        remarks.push(format!(
            "{questions} held-out questions: the intervals are wide; more demonstrations narrow them"
        ));
    }
    if let Some(optimised) = &candidate.made.optimised {
        remarks
            .extend(optimised.stopped_early.iter().map(|why| format!("the optimisation ended early: {why}")));
        remarks.extend(optimised.alarms.iter().cloned());
    }
    remarks
}

/// Has a model answer questions, greedily, from the prompts that chat would use. Gives the answers beside the human
/// ones, and the probabilities of some of them. Blocks.
///
/// # Errors
/// When the model fails, or the worker is told to stop.
pub fn examine(
    examining: Examining<'_>,
    (decoder, questions): (&Decoder, &[Question]),
    phase: &str,
) -> Result<Answers, ImproveError> {
    let workshop = examining.workshop;
    let answers = greedy(examining, (decoder, questions), phase)?;
    let tokens: Vec<sft::Example> = questions.iter().map(|question| question.tokens.clone()).collect();
    let likelihoods = sft::log_likelihoods(decoder, None, &tokens)?;
    let parity = questions.iter().zip(&answers).take(PARITY_ANSWERS).map(|(question, answer)| ParitySample {
        prompt: question.tokens.prompt.clone(),
        completion: answer.tokens.clone(),
        logprobs: answer.log_probabilities.clone(),
    });
    let parity = parity.collect();
    let judged = questions.iter().zip(&answers).zip(likelihoods);
    let samples = judged.map(|((question, answer), nats)| sample(workshop, (question, answer), nats));
    let (samples, valid) = samples.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok(Answers { samples, parity, valid })
}

/// A model's greedy answers to questions, in their order.
fn greedy(
    examining: Examining<'_>,
    (decoder, questions): (&Decoder, &[Question]),
    phase: &str,
) -> Result<Vec<Completion>, ImproveError> {
    let answers = drawn(examining, (decoder, questions.iter()), (examining.sampling(), 1), phase)?;
    Ok(answers.into_iter().flatten().collect())
}

/// A model's answers to questions, `completions` to each, in their order; every answer has a random stream of its own.
/// Blocks.
///
/// # Errors
/// When the model fails, or the worker is told to stop.
pub fn drawn<'q>(
    Examining { workshop, report, is_base }: Examining<'_>,
    (decoder, questions): (&Decoder, impl Iterator<Item = &'q Question>),
    (sampling, completions): (Sampling, usize),
    phase: &str,
) -> Result<Vec<Vec<Completion>>, ImproveError> {
    let nats = if is_base { workshop.config.generation.copy_bias } else { 0.0 };
    let request = |(question, at): (&Question, u64)| SampleRequest {
        prompt: question.tokens.prompt.clone(),
        completions,
        seed: at * completions as u64,
        bias: LogitBias { tokens: Arc::clone(&question.evidence), nats },
    };
    let requests: Vec<SampleRequest> = questions.zip(0..).map(request).collect();
    let total = (requests.len() * completions) as u64;
    let sampler = Sampler::new(decoder, workshop.codec.eos_ids(), TOGETHER);
    report.progress(phase, 0, total);
    let mut known = 0;
    let answers = sampler.sample(&requests, sampling, |done| {
        if done > known {
            known = done;
            report.progress(phase, done as u64, total);
        }
        !report.cancelled()
    })?;
    if report.cancelled() {
        return Err(ImproveError::Interrupted);
    }
    Ok(answers)
}

/// A model's greedy answers to questions, as they would be shown.
fn shown(
    examining: Examining<'_>,
    (decoder, questions): (&Decoder, &[Question]),
    phase: &str,
) -> Result<Vec<String>, ImproveError> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let answers = greedy(examining, (decoder, questions), phase)?;
    let shown = questions
        .iter()
        .zip(&answers)
        .map(|(question, answer)| question.answered(examining.workshop, (&answer.tokens, answer.ended)).text);
    Ok(shown.collect())
}

fn sample(
    workshop: &Workshop,
    (question, answer): (&Question, &Completion),
    log_likelihood: f64,
) -> Result<(Sample, f64), ImproveError> {
    let Shown { text, citations, invalid_marks } =
        question.answered(workshop, (&answer.tokens, answer.ended));
    let asked = question.example.messages.last().map(|message| message.content.clone());
    let right = question.right_pages(&workshop.config);
    let cited: Vec<&str> = citations.iter().map(|citation| citation.document_id.as_str()).collect();
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    let cosine = match &workshop.encoder {
        Some(encoder) => {
            let vectors = encoder.encode(&[&text, &question.example.response])?;
            match vectors.as_slice() {
                [a, b] => metrics::cosine(a, b),
                _ => None,
            }
        }
        None => None,
    };
    let sample = Sample {
        id: question.example.id.clone(),
        question: asked.unwrap_or_default(),
        ideal: question.example.response.clone(),
        ended: answer.ended,
        answer_tokens: answer.tokens.len() as u64,
        nll: Some(HumanNll { nats: -log_likelihood, tokens: question.tokens.completion.len() as u64 }),
        cited: (!right.is_empty()).then(|| metrics::citation_hit(&cited, &right)),
        cosine,
        answer: text,
    };
    Ok((sample, f64::from(u8::from(invalid_marks == 0))))
}
