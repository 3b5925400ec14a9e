//! How close in meaning are answer, question and passages? Cosines of a sentence model's vectors.

use std::collections::HashMap;

use super::{Reading, RewardError};
use crate::evaluation::statistics::mean_or_zero;
use crate::retrieval::SentenceEncoder;

pub(super) const NAMES: [&str; 14] = [
    "cosine with question",
    "cosine with best passage",
    "cosine with mean passage",
    "claim cosine, least",
    "claim cosine, mean",
    "sentence cosine with question, best",
    "sentence cosine with question, least",
    "sentence cosine with question, mean",
    "first sentence cosine with question",
    "cosine with question's sentences",
    "claims' evidence about the question, mean",
    "claims' evidence about the question, best",
    "claim cosine minus question cosine",
    "cosine with question's best sentence",
];

/// Passage sentences that are about the question: their vectors are averaged.
const FOCUS: usize = 3;

type Vector = Vec<f32>;

/// Vectors of all texts of some items.
pub(super) struct Vectors {
    of: HashMap<String, Vector>,
}

impl Vectors {
    pub(super) fn of(encoder: &SentenceEncoder, readings: &[Reading<'_>]) -> Result<Self, RewardError> {
        let mut texts: Vec<&str> = Vec::new();
        for reading in readings {
            texts.push(reading.question);
            texts.push(&reading.answer);
            texts.extend(&reading.passages);
            texts.extend(&reading.passage_sentences);
            texts.extend(reading.answer_sentences());
        }
        texts.sort_unstable();
        texts.dedup();
        let vectors = encoder.encode(&texts)?;
        let of = texts.into_iter().map(str::to_owned).zip(vectors.iter().map(|v| v.to_vec())).collect();
        Ok(Self { of })
    }

    fn get(&self, text: &str) -> &[f32] {
        self.of.get(text).map_or(&[], Vec::as_slice)
    }

    pub(super) fn features(&self, reading: &Reading<'_>) -> [f64; NAMES.len()] {
        let question = self.get(reading.question);
        let answer = self.get(&reading.answer);
        let passages: Vec<&[f32]> = reading.passages.iter().map(|text| self.get(text)).collect();
        let with_passages: Vec<f64> = passages.iter().map(|passage| dot(answer, passage)).collect();
        let evidence: Vec<&[f32]> = reading.passage_sentences.iter().map(|text| self.get(text)).collect();
        let relevance: Vec<f64> = evidence.iter().map(|sentence| dot(sentence, question)).collect();
        let claims: Vec<&[f32]> = reading.answer_sentences().iter().map(|text| self.get(text)).collect();
        let about: Vec<f64> = claims.iter().map(|claim| dot(claim, question)).collect();
        let mut support = Vec::new();
        let mut sources = Vec::new();
        for claim in &claims {
            let cosines = evidence.iter().map(|sentence| dot(claim, sentence));
            let best = cosines.zip(&relevance).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, &0.0));
            support.push(best.0);
            sources.push(*best.1);
        }
        let mut order: Vec<usize> = (0..evidence.len()).collect();
        order.sort_by(|a, b| relevance[*b].total_cmp(&relevance[*a]).then(a.cmp(b)));
        let focus: Vec<f64> = order.iter().take(FOCUS).map(|i| dot(answer, evidence[*i])).collect();
        [
            dot(answer, question),
            most(&with_passages),
            mean_or_zero(&with_passages),
            least(&support),
            mean_or_zero(&support),
            most(&about),
            least(&about),
            mean_or_zero(&about),
            about.first().copied().unwrap_or(0.0),
            mean_or_zero(&focus),
            mean_or_zero(&sources),
            most(&sources),
            mean_or_zero(&support) - mean_or_zero(&about),
            focus.first().copied().unwrap_or(0.0),
        ]
    }
}

/// Of vectors of length 1: their cosine.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::max).unwrap_or(0.0)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or(0.0)
}
