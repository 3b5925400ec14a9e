//! How likely do the passages that were found answer the question?

use super::search::{Hit, Ranking};

/// What the estimate looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Highest cosine of question and passage; `None` without a sentence model.
    pub cosine: Option<f32>,
    /// Highest share of the question's terms that one of the best passages has, weighted by rarity, 0 to 1.
    pub coverage: f32,
    /// Coverage of the passage on top.
    pub top_coverage: f32,
    /// BM25 of the best passage as a share of what a perfect passage would have, 0 to 1.
    pub lexical: f32,
    /// How far the best fused score is above the fourth, 0 to 1.
    pub gap: f32,
}

impl Features {
    /// The features of a ranking of at least four passages, if there were as many.
    pub(super) fn of(ranking: &Ranking) -> Option<Self> {
        let top = ranking.hits.first()?;
        let best = &ranking.hits[..ranking.hits.len().min(4)];
        let most = |value: fn(&Hit) -> f32| best.iter().map(value).fold(0.0, f32::max);
        Some(Self {
            cosine: best.iter().filter_map(|hit| hit.cosine).reduce(f32::max),
            coverage: most(|hit| hit.coverage),
            top_coverage: top.coverage,
            lexical: if ranking.lexical_limit > 0.0 {
                most(|hit| hit.lexical) / ranking.lexical_limit
            } else {
                0.0
            },
            gap: if best.len() < 4 {
                0.0
            } else {
                top.score - best[3].score
            },
        })
    }

    /// As inputs of the logistic model: with a cosine or without.
    #[must_use]
    pub fn inputs(&self) -> Vec<f32> {
        let mut inputs = vec![1.0, self.coverage, self.top_coverage, self.lexical, self.gap];
        inputs.extend(self.cosine);
        inputs
    }

    /// The likelihood, 0 to 1.
    #[must_use]
    pub fn likelihood(&self) -> f32 {
        let inputs = self.inputs();
        let coefficients: &[f32] = if self.cosine.is_some() {
            &WITH_COSINE
        } else {
            &WITHOUT_COSINE
        };
        let logit: f32 = inputs
            .iter()
            .zip(coefficients)
            .map(|(input, coefficient)| input * coefficient)
            .sum();
        1.0 / (1.0 + (-logit).exp())
    }
}

/// Coefficients of [`Features::inputs`], fitted on the train split of the sample handbook's questions by
/// `cargo bench --bench retrieval -- fit`.
const WITH_COSINE: [f32; 6] = [-6.0, 3.0, 1.0, 2.0, 1.0, 8.0];
const WITHOUT_COSINE: [f32; 5] = [-3.0, 4.0, 1.0, 3.0, 1.0];
