//! Does a freshly loaded generation change anything, and is it what the trainer made?

use futures::StreamExt;

use crate::config::WeightFormat;
use crate::domain::{Message, Sampling};
use crate::generation::{Event, GenerateRequest, GenerationError, Generator};
use crate::registry::Manifest;

/// What both are asked; any other question would do.
const QUESTION: &str = "Where can I find the handbook?";
/// Tokens that are compared.
const TOKENS: u32 = 8;
/// Difference of log-probabilities (nats) that counts as one: equal weights differ by less than 1e-5 when the engine
/// batches them with other answers, and a fine-tuning that learns anything by more than 1e-3.
const CHANGED: f32 = 1e-4;

/// Whether two generations answer a question differently, be it only in their probabilities.
pub(super) async fn differ(before: &dyn Generator, after: &dyn Generator) -> Result<bool, GenerationError> {
    let (before, after) = (greedy(before).await?, greedy(after).await?);
    let same = |(one, other): (&(String, f32), &(String, f32))| {
        one.0 == other.0 && (one.1 - other.1).abs() < CHANGED
    };
    Ok(before.len() != after.len() || !before.iter().zip(&after).all(same))
}

async fn greedy(generator: &dyn Generator) -> Result<Vec<(String, f32)>, GenerationError> {
    let prompt = generator.render(&[Message::user(QUESTION)])?;
    let sampling = Sampling::at(0.0, TOKENS);
    let mut events = generator
        .generate(GenerateRequest { prompt: prompt.into(), sampling, top_logprobs: 0, evidence: [].into() })
        .await?;
    let mut tokens = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Token(token) => tokens.push((token.text, token.logprob)),
            Event::End(_) => break,
        }
    }
    Ok(tokens)
}

/// Compares the probabilities the trainer gave with those of the served model; the text says what is wrong.
pub(super) async fn parity(
    generator: &dyn Generator,
    manifest: &Manifest,
) -> Result<Result<(), String>, GenerationError> {
    let (mut served, mut trained) = (Vec::new(), Vec::new());
    for sample in &manifest.about.parity {
        let scores = generator.score(&sample.prompt, &sample.completion).await?;
        if scores.len() != sample.logprobs.len() {
            return Ok(Err("its parity samples can not be scored to their end".into()));
        }
        served.extend(scores);
        trained.extend_from_slice(&sample.logprobs);
    }
    let (difference, tolerance) =
        (mean_difference(&served, &trained), tolerance(manifest.about.serving_format));
    tracing::debug!(generation = %manifest.id, difference, tolerance, tokens = served.len(), "parity");
    if served.is_empty() || difference <= tolerance {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "its probabilities are not those it was trained to: they differ by {difference:.4} on average, more than \
         {tolerance}; was it trained with another chat template or other settings?"
    )))
}

/// Mean absolute difference of the probabilities behind two lists of log-probabilities (nats) of the same tokens; NaN
/// where one of them is no number, 0 for none.
#[must_use]
pub fn mean_difference(served: &[f32], trained: &[f32]) -> f32 {
    let differences =
        served.iter().zip(trained).map(|(one, other)| f64::from((one.exp() - other.exp()).abs()));
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 tokens")]
    let count = served.len().min(trained.len()).max(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a mean of probabilities is at most 1")]
    let mean = (differences.sum::<f64>() / count) as f32;
    mean
}

/// The largest mean difference that rounding the weights explains.
#[must_use]
pub const fn tolerance(format: WeightFormat) -> f32 {
    match format {
        WeightFormat::Q8_0 => 0.015,
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Auto => 0.005,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_probabilities_not_of_their_logarithms() {
        let logs = |p: [f32; 2]| p.map(f32::ln);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(mean_difference(&logs([0.5, 0.25]), &logs([0.4, 0.35])), 0.1));
        // Impossible against nearly impossible is no difference worth speaking of.
        assert!(near(mean_difference(&[f32::NEG_INFINITY], &[-50.0]), 0.0));
        assert!(near(mean_difference(&[], &[]), 0.0));
        let damaged = mean_difference(&[f32::NAN, 0.0], &[0.0, 0.0]);
        assert!(damaged.is_nan(), "what is no number never passes");
    }
}
