//! How good are a model's answers beside the human ones? It answers held-out questions as it would when served.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::candidate::{Candidate, training_metrics};
use super::material::{Material, Question};
use super::{ImproveError, Work, Workshop};
use crate::evaluation::{Comparing, Comparison, HumanNll, Sample, metrics};
use crate::jobs::Reporter;
use crate::models::Codec;
use crate::nn::{Completion, Decoder, SampleRequest, Sampler, Sampling};
use crate::registry::ParitySample;
use crate::sft;

/// Longest answer of an examination, in tokens; answers of the sample handbook's people have 8 to 60.
const MOST_TOKENS: usize = 96;
/// Answers drawn together: the matrix products reach most of their rate, the memory stays small.
const TOGETHER: usize = 32;
/// Answers whose probabilities the server compares before it serves the generation.
const PARITY_ANSWERS: usize = 8;

/// What an examination found.
#[derive(Debug)]
pub struct Examined {
    /// Answers before and after, beside the human ones; `None` without questions.
    pub comparison: Option<Comparison>,
    /// What an operator should know about it.
    pub remarks: Vec<String>,
    /// Probabilities of the new model's own answers.
    pub parity: Vec<ParitySample>,
    /// Figures of the training.
    training: Value,
}

impl Examined {
    /// Figures by name, each `{before, after, difference, interval}`, and the training's.
    #[must_use]
    pub fn metrics(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        if let Some(comparison) = &self.comparison {
            for (name, change) in comparison.metrics.iter() {
                metrics.insert(name.to_owned(), serde_json::to_value(change).unwrap_or_default());
            }
            metrics.insert("questions".into(), comparison.n.into());
        }
        metrics.insert("training".into(), self.training.clone());
        metrics
    }

    /// The report for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let remarks: String = self.remarks.iter().map(|remark| format!("- {remark}\n")).collect();
        let title = "Answers before and after fine-tuning, beside the human ones";
        match &self.comparison {
            Some(comparison) => format!("{}\n{remarks}", comparison.markdown(title)),
            None => format!("# {title}\n\n{remarks}"),
        }
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.comparison).unwrap_or_default()
    }
}

impl Work<'_> {
    /// Has the base model and the candidate answer the held-out questions, and compares.
    pub(super) async fn evaluate(
        &self,
        material: &Arc<Material>,
        candidate: &Candidate,
    ) -> Result<Examined, ImproveError> {
        let (material, after) = (Arc::clone(material), Arc::clone(&candidate.decoder));
        let (workshop, report) = (self.workshop.clone(), self.report.clone());
        let training = training_metrics(&candidate.trained);
        let examined = tokio::task::spawn_blocking(move || {
            let mut remarks = Vec::new();
            let questions = &material.questions;
            if questions.len() < 30 {
                remarks.push(format!(
                    "{} held-out questions: the intervals are wide; more demonstrations narrow them",
                    questions.len()
                ));
            }
            let asked =
                |decoder: &Decoder, phase: &str| examine(&workshop, (decoder, questions), (&report, phase));
            let (before, _) = asked(&material.decoder, "answers before")?;
            let (after, parity) = asked(&after, "answers after")?;
            let comparing = Comparing::default();
            let some = !questions.is_empty();
            let comparison = some.then(|| Comparison::of(&before, &after, &comparing)).transpose()?;
            Ok::<_, ImproveError>(Examined { comparison, remarks, parity, training })
        });
        examined.await?
    }
}

/// Has a model answer questions, greedily, from the prompts that chat would use. Gives the answers beside the human
/// ones, and the probabilities of some of them. Blocks.
///
/// # Errors
/// When the model fails, or the worker is told to stop.
pub fn examine(
    workshop: &Workshop,
    (decoder, questions): (&Decoder, &[Question]),
    (report, phase): (&Reporter, &str),
) -> Result<(Vec<Sample>, Vec<ParitySample>), ImproveError> {
    let requests: Vec<SampleRequest> = questions
        .iter()
        .map(|question| SampleRequest { prompt: question.tokens.prompt.clone(), completions: 1, seed: 0 })
        .collect();
    let config = &workshop.config.generation;
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        repetition_penalty: config.repetition_penalty,
        max_tokens: MOST_TOKENS.min(config.max_tokens as usize),
    };
    let total = questions.len() as u64;
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
    let tokens: Vec<sft::Example> = questions.iter().map(|question| question.tokens.clone()).collect();
    let likelihoods = sft::log_likelihoods(decoder, None, &tokens)?;
    let answers: Vec<Completion> = answers.into_iter().flatten().collect();
    let parity = questions.iter().zip(&answers).take(PARITY_ANSWERS).map(|(question, answer)| ParitySample {
        prompt: question.tokens.prompt.clone(),
        completion: answer.tokens.clone(),
        logprobs: answer.log_probabilities.clone(),
    });
    let parity = parity.collect();
    let judged = questions.iter().zip(&answers).zip(likelihoods);
    let samples = judged.map(|((question, answer), nats)| sample(workshop, (question, answer), nats));
    Ok((samples.collect::<Result<_, _>>()?, parity))
}

fn sample(
    workshop: &Workshop,
    (question, answer): (&Question, &Completion),
    log_likelihood: f64,
) -> Result<Sample, ImproveError> {
    let said = match (answer.ended, answer.tokens.split_last()) {
        (true, Some((_, said))) => said,
        _ => &answer.tokens,
    };
    let text = workshop.codec.detokenize(said).trim().to_owned();
    let asked = question.example.messages.last().map(|message| message.content.clone());
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
    Ok(Sample {
        id: question.example.id.clone(),
        question: asked.unwrap_or_default(),
        ideal: question.example.response.clone(),
        ended: answer.ended,
        answer_tokens: answer.tokens.len() as u64,
        nll: Some(HumanNll { nats: -log_likelihood, tokens: question.tokens.completion.len() as u64 }),
        cited: None,
        cosine,
        answer: text,
    })
}
