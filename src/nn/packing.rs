//! How are many texts read in passes that fit the memory? What all their prompts begin with is read once in a pass, and a
//! prompt that neighbours share once.

use std::ops::Range;

use super::batch::{Batch, Sequence};

/// Tokens from which on a beginning is read once for several prompts: a span of its own costs about as much as reading a
/// few tokens again.
const WORTH: usize = 8;

/// Rows of a pass that keep the training of the default model under 2.5 GB resident.
pub const PASS_TOKENS: usize = 1024;

/// A prompt and what follows it.
#[derive(Debug, Clone, Copy)]
pub struct Text<'t> {
    /// Tokens that are only read.
    pub prompt: &'t [u32],
    /// Tokens whose log-probabilities are asked for.
    pub completion: &'t [u32],
}

/// Texts that are read together.
#[derive(Debug)]
pub struct Packed {
    /// How they lie in memory; the batch's completions are in the texts' order.
    pub batch: Batch,
    /// Which of the texts they are.
    pub places: Range<usize>,
}

/// Neighbours with the same prompt.
type Alike<'a, 't> = &'a [Text<'t>];

/// Lays texts into passes of at most `tokens` rows, in order. Neighbours with the same prompt share it and stay together,
/// even where they have more rows.
#[must_use]
pub fn pack(texts: &[Text<'_>], tokens: usize) -> Vec<Packed> {
    let groups: Vec<Alike<'_, '_>> = texts.chunk_by(|a, b| a.prompt == b.prompt).collect();
    let shared = shared_beginning(&groups.iter().map(|group| group[0].prompt).collect::<Vec<_>>());
    let mut passes: Vec<(Vec<Alike<'_, '_>>, usize)> = Vec::new();
    for group in groups {
        let completions: usize = group.iter().map(|text| text.completion.len()).sum();
        let own = group[0].prompt.len() - shared + completions;
        match passes.last_mut() {
            Some((pass, rows)) if *rows + own <= tokens => {
                pass.push(group);
                *rows += own;
            }
            _ => passes.push((vec![group], shared + own)),
        }
    }
    let mut end = 0;
    let lay = |(groups, _): (Vec<Alike<'_, '_>>, usize)| {
        let count: usize = groups.iter().map(|group| group.len()).sum();
        let start = end;
        end += count;
        Packed { batch: laid(&groups, shared), places: start..end }
    };
    passes.into_iter().map(lay).collect()
}

fn laid(groups: &[Alike<'_, '_>], shared: usize) -> Batch {
    let completions: Vec<Vec<&[u32]>> =
        groups.iter().map(|group| group.iter().map(|text| text.completion).collect()).collect();
    let parts = groups.iter().zip(&completions);
    let sequences: Vec<Sequence<'_>> =
        parts.map(|(group, completions)| Sequence { prompt: group[0].prompt, completions }).collect();
    let mut batch = Batch::default();
    batch.push_sharing(&sequences, shared);
    batch
}

/// Tokens that all prompts begin with; none where there are not two, or that is not worth it.
pub(super) fn shared_beginning(prompts: &[&[u32]]) -> usize {
    let Some((first, rest)) = prompts.split_first().filter(|(_, rest)| !rest.is_empty()) else { return 0 };
    let shared = rest.iter().fold(first.len(), |shared, other| {
        shared.min(first.iter().zip(*other).take_while(|(a, b)| a == b).count())
    });
    if shared < WORTH { 0 } else { shared }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(packed: &[Packed]) -> Vec<usize> {
        packed.iter().map(|one| one.batch.rows_len()).collect()
    }

    fn places(packed: &[Packed]) -> Vec<Range<usize>> {
        packed.iter().map(|one| one.places.clone()).collect()
    }

    #[test]
    fn answers_to_one_prompt_share_it_and_passes_keep_the_order() {
        let (long, short) = ([1; 20], [2; 5]);
        let text = |prompt| Text { prompt, completion: &[7, 8, 9] };
        let texts = [text(&long[..]), text(&long), text(&short), text(&short), text(&long)];
        let packed = pack(&texts, 40);
        assert_eq!(places(&packed), [0..4, 4..5]);
        // Each prompt once, and of each answer all but the last token.
        assert_eq!(rows(&packed), [20 + 5 + 4 * 2, 20 + 2]);
        assert_eq!(packed[0].batch.completions().len(), 4);
        // A group that is too large stays whole.
        assert_eq!(pack(&texts, 1).len(), 3);
    }

    #[test]
    fn what_prompts_begin_with_is_read_once_in_a_pass() {
        let prompt = |end: u32| -> Vec<u32> { (0..30).chain([end; 4]).collect() };
        let prompts = [prompt(91), prompt(92), prompt(93)];
        let text = |i: usize| Text { prompt: &prompts[i], completion: &[7, 8, 9] };
        let texts = [text(0), text(0), text(1), text(2)];
        // 30 of all; 4 and two answers; 4 and one; 4 and one.
        assert_eq!(rows(&pack(&texts, 100)), [30 + (4 + 2 * 2) + (4 + 2) + (4 + 2)]);
        // Two passes have it each: an answer's last token counts for the limit though it has no row.
        let two = pack(&texts, 30 + (4 + 2 * 3) + (4 + 3));
        assert_eq!(
            (rows(&two), places(&two)),
            (vec![30 + (4 + 2 * 2) + (4 + 2), 30 + (4 + 2)], vec![0..3, 3..4])
        );
        assert_eq!(shared_beginning(&[&prompts[0], &prompts[1][..7]]), 0, "not worth it");
        assert_eq!(shared_beginning(&[&prompts[0]]), 0);
        assert_eq!(
            shared_beginning(&[&prompts[0], &prompts[0][..30]]),
            30,
            "a prompt may be no more than that"
        );
    }
}
