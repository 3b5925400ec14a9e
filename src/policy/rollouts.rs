//! What does the policy answer? Several completions of each prompt, drawn at once.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use super::{PolicyError, Prompt, Rollout, Settings};
use crate::nn::{Decoder, SampleRequest, Sampler, Sampling};

/// How answers are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawing {
    /// Answers to each prompt.
    pub completions: usize,
    /// How their tokens are drawn.
    pub sampling: Sampling,
    /// Answers drawn at once.
    pub width: usize,
}

impl From<&Settings> for Drawing {
    /// Of a policy that is at the settings' temperature already ([`Decoder::at_temperature`]).
    fn from(settings: &Settings) -> Self {
        // Without penalties: with one, what is drawn would not be the policy's distribution.
        let sampling = Sampling { top_p: settings.top_p, ..Sampling::at(1.0, settings.max_tokens) };
        Self { completions: settings.completions, sampling, width: settings.width }
    }
}

/// Draws answers from a policy (merge its adapter first: [`Decoder::merged`]) to the prompts at these places; those to
/// one prompt follow each other. The same `random` draws the same answers.
///
/// # Errors
/// When a place has no prompt, a prompt is empty, or the model fails.
pub fn draw(
    (policy, ends): (&Decoder, &[u32]),
    (prompts, places): (&[Prompt], &[usize]),
    drawing: Drawing,
    random: &mut ChaCha8Rng,
) -> Result<Vec<Rollout>, PolicyError> {
    let request = |&prompt: &usize| {
        let found = prompts.get(prompt).ok_or(PolicyError::NoPrompt { prompt })?;
        let (prompt, completions) = (found.tokens.clone(), drawing.completions);
        Ok(SampleRequest { prompt, completions, seed: random.next_u64(), ..SampleRequest::default() })
    };
    let requests = places.iter().map(request).collect::<Result<Vec<_>, PolicyError>>()?;
    let drawn = Sampler::new(policy, ends, drawing.width).sample(&requests, drawing.sampling, |_| true)?;
    let rollouts = places.iter().zip(drawn).flat_map(|(&prompt, completions)| {
        completions.into_iter().map(move |one| Rollout {
            prompt,
            tokens: one.tokens,
            log_probabilities: one.log_probabilities,
            ended: one.ended,
        })
    });
    Ok(rollouts.collect())
}
