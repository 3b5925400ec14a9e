//! How are many prompts and their answers read in passes that fit the memory? Answers to one prompt together, so that it
//! is read once.

use std::ops::Range;

use candle_core::Tensor;

use super::PolicyError;
use crate::nn::{Adapter, Batch, Branch, Decoder, Pass, Sequence};

/// A prompt and an answer to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'t> {
    pub(super) prompt: &'t [u32],
    pub(super) completion: &'t [u32],
}

/// Texts that are read together.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) batch: Batch,
    /// Which of the texts they are; the batch's completions are in this order.
    pub(super) places: Range<usize>,
}

/// Lays texts into passes of at most `tokens` rows, in order. Neighbours with the same prompt share it and stay together,
/// even where they have more rows.
pub(super) fn pack(texts: &[Text<'_>], tokens: usize) -> Vec<Packed> {
    let mut packed: Vec<Packed> = Vec::new();
    let mut start = 0;
    for group in texts.chunk_by(|a, b| a.prompt == b.prompt) {
        let completions = group.iter().map(|text| text.completion.len());
        let rows = group[0].prompt.len() + completions.sum::<usize>();
        let end = start + group.len();
        let branches: Vec<Branch<'_>> = group.iter().map(|text| Branch::of(text.completion)).collect();
        let sequence = Sequence { prompt: group[0].prompt, branches: &branches };
        match packed.last_mut().filter(|last| last.batch.rows_len() + rows <= tokens) {
            Some(last) => {
                last.batch.push(sequence);
                last.places.end = end;
            }
            None => {
                let mut batch = Batch::default();
                batch.push(sequence);
                packed.push(Packed { batch, places: start..end });
            }
        }
        start = end;
    }
    packed
}

/// What a pass without gradients says of an answer.
#[derive(Debug)]
pub(super) struct Reading {
    /// Of each token (nats).
    pub(super) log_probabilities: Vec<f32>,
    /// Normalised hidden states before each token: tokens × width.
    pub(super) states: Tensor,
}

/// Reads each answer, without gradients; without an adapter, as the reference does.
pub(super) fn read(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    (texts, tokens): (&[Text<'_>], usize),
) -> Result<Vec<Reading>, PolicyError> {
    let mut all = Vec::with_capacity(texts.len());
    for Packed { batch, .. } in pack(texts, tokens) {
        let scores = decoder.scores(&batch, Pass { adapter, frozen: true, ..Pass::default() })?;
        let values = scores.log_probabilities.to_vec1::<f32>()?;
        for range in batch.completions() {
            let states = scores.states.narrow(0, range.start, range.len())?;
            all.push(Reading { log_probabilities: values[range.clone()].to_vec(), states });
        }
    }
    Ok(all)
}

/// Log-probability of an answer (nats) from those of its tokens.
pub(super) fn sum(log_probabilities: &[f32]) -> f64 {
    log_probabilities.iter().map(|value| f64::from(*value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_one_prompt_share_it_and_passes_keep_the_order() {
        let (long, short) = (vec![1; 20], vec![2; 5]);
        let text = |prompt: &'static [u32]| Text { prompt, completion: &[7, 8, 9] };
        let (long, short): (&'static [u32], &'static [u32]) = (long.leak(), short.leak());
        let texts = [text(long), text(long), text(short), text(short), text(long)];
        let packed = pack(&texts, 40);
        let places: Vec<_> = packed.iter().map(|one| one.places.clone()).collect();
        assert_eq!(places, [0..4, 4..5]);
        // Each prompt once, and of each answer all but the last token.
        assert_eq!(packed[0].batch.rows_len(), 20 + 5 + 4 * 2);
        assert_eq!(packed[0].batch.completions().len(), 4);
        // A group that is too large stays whole.
        assert_eq!(pack(&texts, 1).len(), 3);
    }
}
