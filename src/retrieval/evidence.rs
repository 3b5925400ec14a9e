//! How likely do the passages that were found answer the question?

use unicode_segmentation::UnicodeSegmentation;

use super::RetrievalError;
use super::encoder::SentenceEncoder;
use super::search::{Hit, Ranking};
use super::vectors::dot;
use crate::domain::Passage;

/// How many of the best passages are looked at.
pub(super) const PASSAGES: usize = 4;

/// Most sentences that are compared with the question. Encoding them is most of the time a search takes.
const SENTENCES: usize = 20;

/// What the estimate looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Highest cosine of the question and a single sentence of the best passages: one that answers says much the same
    /// as the question, while a whole passage says other things, too. `None` without a sentence model.
    pub sentence: Option<f32>,
    /// Highest share of the question's terms that one of the best passages has, weighted by rarity, 0 to 1.
    pub coverage: f32,
    /// BM25 of the best passage as a share of what a perfect passage would have, 0 to 1.
    pub lexical: f32,
}

impl Features {
    /// The features of a ranking and, with a sentence model and the question's vector, of its best passages.
    pub(super) fn of(
        ranking: &Ranking,
        passages: &[Passage],
        model: Option<(&SentenceEncoder, &[f32])>,
    ) -> Result<Option<Self>, RetrievalError> {
        let best = &ranking.hits[..ranking.hits.len().min(PASSAGES)];
        if best.is_empty() {
            return Ok(None);
        }
        let most = |value: fn(&Hit) -> f32| best.iter().map(value).fold(0.0, f32::max);
        let lexical = most(|hit| hit.lexical) / ranking.lexical_limit.max(f32::MIN_POSITIVE);
        let sentence =
            model.map(|(encoder, question)| closest_sentence(encoder, question, passages)).transpose()?;
        Ok(Some(Self { sentence, coverage: most(|hit| hit.coverage), lexical }))
    }

    /// As inputs of the logistic model: with a sentence model or without.
    #[must_use]
    pub fn inputs(&self) -> Vec<f32> {
        let mut inputs = vec![1.0, self.coverage, self.lexical];
        inputs.extend(self.sentence);
        inputs
    }

    /// The likelihood, 0 to 1.
    #[must_use]
    pub fn likelihood(&self) -> f32 {
        let inputs = self.inputs();
        let coefficients: &[f32] = if self.sentence.is_some() { &WITH_MODEL } else { &WITHOUT_MODEL };
        let logit: f32 =
            inputs.iter().zip(coefficients).map(|(input, coefficient)| input * coefficient).sum();
        1.0 / (1.0 + (-logit).exp())
    }
}

/// Coefficients of [`Features::inputs`], fitted on the train split of the sample handbook's questions by
/// `cargo bench --bench retrieval -- fit`.
const WITH_MODEL: [f32; 4] = [-6.035, 4.169, 2.147, 10.535];
const WITHOUT_MODEL: [f32; 3] = [-2.153, 3.419, 8.890];

fn closest_sentence(
    encoder: &SentenceEncoder,
    question: &[f32],
    passages: &[Passage],
) -> Result<f32, RetrievalError> {
    let sentences: Vec<&str> = passages
        .iter()
        .take(PASSAGES)
        .flat_map(|passage| passage.text.lines().flat_map(UnicodeSegmentation::unicode_sentences))
        .take(SENTENCES)
        .collect();
    let vectors = encoder.encode(&sentences)?;
    Ok(vectors.iter().map(|vector| dot(vector, question)).fold(0.0, f32::max))
}
