//! How well does a passage speak to each word of a question?
//!
//! Late interaction (Khattab and Zaharia 2020, `ColBERT`, section 3.3): every token of the question looks for the token
//! of the passage whose state is closest to its own, and the passage is as good as these are close on average. One
//! vector for a whole passage says what it is about; this says whether it has the thing that is asked for.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::f16;
use lru::LruCache;

use super::RetrievalError;
use super::encoder::{Reading, SentenceEncoder};
use super::schema::DIMENSIONS;
use super::vectors::dot;
use crate::domain::Passage;

/// How many of the best passages are read again together with the question. Reading them is most of the time a search
/// takes; the right page is rarely further down (`benches/RESULTS.md`).
pub(super) const PASSAGES: usize = 8;

/// More tokens of a question say no more about how long it is: the evidence was fitted on questions of up to 30.
const LONGEST: usize = 32;

/// How close a question and a passage are, token by token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    /// Mean over the question's tokens of the highest cosine with a token of the passage, -1 to 1.
    pub closeness: f32,
    /// The same, weighted by how rare the tokens' words are among the passages: names count, stop words do not.
    pub rare_closeness: f32,
}

/// A question as it is compared with passages.
pub(super) struct Asked<'a> {
    /// As the sentence model reads it.
    pub reading: &'a Reading,
    /// One weight per token of the reading.
    pub rarity: Vec<f32>,
}

impl Asked<'_> {
    /// The logarithm of the number of tokens: the more there are, the less close they are on average.
    pub(super) fn length(&self) -> f32 {
        let tokens = self.reading.tokens.iter().filter(|token| !token.is_special).count();
        (tokens.clamp(1, LONGEST) as f32).ln()
    }

    /// Compares the question with a passage's token vectors, `(tokens, DIMENSIONS)`; 0 when one of them has none.
    fn with(&self, passage: &[f32]) -> Interaction {
        let (mut sum, mut count, mut weighted, mut weight) = (0.0, 0.0, 0.0, 0.0);
        let words = self.reading.tokens.iter().zip(&self.rarity).filter(|(token, _)| !token.is_special);
        for (token, rarity) in words {
            let cosines = passage.chunks_exact(DIMENSIONS).map(|other| dot(&token.vector, other));
            let Some(closest) = cosines.reduce(f32::max) else { continue };
            sum += closest;
            count += 1.0;
            weighted += rarity * closest;
            weight += rarity;
        }
        let closeness = if count > 0.0 { sum / count } else { 0.0 };
        Interaction { closeness, rare_closeness: if weight > 0.0 { weighted / weight } else { closeness } }
    }

    /// Compares the question with passages, given as the texts that the sentence model reads of them.
    ///
    /// # Errors
    /// When the sentence model fails.
    pub(super) fn interactions(
        &self,
        passages: &[String],
        (encoder, memory): (&SentenceEncoder, &Memory),
    ) -> Result<Vec<Interaction>, RetrievalError> {
        let interaction = |text: &String| {
            let vectors = memory.vectors(encoder, text)?;
            Ok(self.with(&vectors.iter().map(|value| value.to_f32()).collect::<Vec<_>>()))
        };
        passages.iter().map(interaction).collect()
    }
}

/// How many passages are remembered: at most 256 tokens each, so at most 100 MB, and some 40 MB of usual ones.
const REMEMBERED: usize = 512;

/// Token vectors of the passages that were read last, in half precision. Some pages are asked for all the time.
pub(super) struct Memory(Mutex<LruCache<String, Arc<[f16]>>>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::MIN.saturating_add(REMEMBERED - 1))))
    }

    /// The token vectors of a text, read unless they are remembered, and by itself: their last bits must not depend on what
    /// else somebody who may see more was shown.
    fn vectors(&self, encoder: &SentenceEncoder, text: &str) -> Result<Arc<[f16]>, RetrievalError> {
        if let Some(known) = self.known().get(text) {
            return Ok(Arc::clone(known));
        }
        let read: Arc<[f16]> = encoder.token_vectors(text)?.into_iter().map(f16::from_f32).collect();
        self.known().put(text.to_owned(), Arc::clone(&read));
        Ok(read)
    }

    fn known(&self) -> MutexGuard<'_, LruCache<String, Arc<[f16]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the passages that have been compared in a new order: `weight` times the closeness, as a share of the closest
/// passage's, is added to their score. Scores stay comparable and at most 1 where they were.
pub(super) fn reorder(passages: &mut [Passage], interactions: &[Interaction], weight: f32) {
    let closest = interactions.iter().map(|one| one.closeness).fold(f32::MIN_POSITIVE, f32::max);
    let compared = interactions.len().min(passages.len());
    for (place, passage) in passages.iter_mut().enumerate() {
        let share = interactions.get(place).map_or(0.0, |one| one.closeness.max(0.0) / closest);
        passage.score = (passage.score + weight * share) / (1.0 + weight);
    }
    passages[..compared].sort_by(|a, b| b.score.total_cmp(&a.score));
}

#[cfg(test)]
mod tests {
    use super::super::encoder::Token;
    use super::*;
    use crate::domain::{DocumentId, Groups};

    fn token(direction: usize, is_special: bool) -> Token {
        let mut vector = [0.0; DIMENSIONS];
        vector[direction] = 1.0;
        Token { range: 0..1, is_special, vector }
    }

    fn reading(directions: &[usize]) -> Reading {
        let tokens = directions.iter().map(|direction| token(*direction, false)).collect();
        Reading { vector: [0.0; DIMENSIONS], tokens }
    }

    fn vectors(directions: &[usize]) -> Vec<f32> {
        directions.iter().flat_map(|direction| token(*direction, false).vector).collect()
    }

    fn passage(name: &str, score: f32) -> Passage {
        Passage {
            document_id: DocumentId::parse(name).unwrap(),
            passage_id: name.to_owned(),
            title: String::new(),
            heading_path: Vec::new(),
            url: None,
            text: String::new(),
            score,
            groups: Groups::new(),
        }
    }

    #[test]
    fn every_token_of_the_question_looks_for_its_closest_one() {
        let mut question = reading(&[0, 1, 2]);
        question.tokens.push(token(3, true));
        let asked = Asked { reading: &question, rarity: vec![0.0, 3.0, 1.0, 9.0] };
        // Two of three tokens are there; of the weight of 4, that of the second one, 3.
        let half = asked.with(&vectors(&[0, 1, 7]));
        assert!((half.closeness - 2.0 / 3.0).abs() < 1e-6, "{half:?}");
        assert!((half.rare_closeness - 0.75).abs() < 1e-6, "{half:?}");
        assert!((asked.length() - 3.0_f32.ln()).abs() < 1e-6);
        let without_words = Asked { rarity: vec![0.0; 4], ..asked };
        let all = without_words.with(&vectors(&[2, 1, 0]));
        assert_eq!((all.closeness, all.rare_closeness), (1.0, 1.0));
        assert_eq!(without_words.with(&[]).closeness, 0.0);
    }

    #[test]
    fn closer_passages_come_first_and_what_was_not_compared_stays_behind() {
        let mut passages = vec![passage("a", 1.0), passage("b", 0.9), passage("c", 0.8)];
        let close = |closeness| Interaction { closeness, rare_closeness: 0.0 };
        reorder(&mut passages, &[close(0.3), close(0.6)], 1.0);
        let order: Vec<&str> = passages.iter().map(|passage| passage.passage_id.as_str()).collect();
        assert_eq!(order, ["b", "a", "c"]);
        assert!(passages.is_sorted_by(|a, b| a.score >= b.score));
        assert!((passages[0].score - 0.95).abs() < 1e-6, "{}", passages[0].score);
        let before = passages.clone();
        reorder(&mut passages, &[close(0.1), close(0.9)], 0.0);
        assert_eq!(passages, before);
    }
}
