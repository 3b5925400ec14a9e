//! How likely do the passages that were found answer the question?

use super::interaction::Interaction;
use super::search::{Hit, Ranking};

/// How many of the best passages are looked at without a sentence model.
const PASSAGES: usize = 4;

/// What the estimate looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Features {
    /// With a sentence model.
    Meaning {
        /// Highest over the passages; see [`Interaction::closeness`].
        closeness: f32,
        /// Highest over the passages; see [`Interaction::rare_closeness`].
        rare_closeness: f32,
        /// Logarithm of the number of the question's tokens.
        length: f32,
    },
    /// Without.
    Words {
        /// Highest share of the question's terms that one of the best passages has, weighted by rarity, 0 to 1.
        coverage: f32,
        /// BM25 of the best passage as a share of what a perfect passage would have, 0 to 1.
        lexical: f32,
    },
}

impl Features {
    /// What a question's comparison with the best passages says; `length` as in [`Features::Meaning`]. `None` without
    /// passages.
    pub(super) fn of_meaning(interactions: &[Interaction], length: f32) -> Option<Self> {
        let most = |value: fn(&Interaction) -> f32| interactions.iter().map(value).reduce(f32::max);
        let (closeness, rare_closeness) = (most(|one| one.closeness)?, most(|one| one.rare_closeness)?);
        Some(Self::Meaning { closeness, rare_closeness, length })
    }

    /// What a ranking by words says; `None` when it is empty.
    pub(super) fn of_words(ranking: &Ranking) -> Option<Self> {
        let best = &ranking.hits[..ranking.hits.len().min(PASSAGES)];
        let most = |value: fn(&Hit) -> f32| best.iter().map(value).reduce(f32::max);
        let lexical = most(|hit| hit.lexical)? / ranking.lexical_limit.max(f32::MIN_POSITIVE);
        Some(Self::Words { coverage: most(|hit| hit.coverage)?, lexical })
    }

    /// As inputs of the logistic model.
    #[must_use]
    pub fn inputs(&self) -> Vec<f32> {
        match *self {
            Self::Meaning { closeness, rare_closeness, length } => {
                vec![1.0, closeness, rare_closeness, length]
            }
            Self::Words { coverage, lexical } => vec![1.0, coverage, lexical],
        }
    }

    /// The likelihood, 0 to 1.
    #[must_use]
    pub fn likelihood(&self) -> f32 {
        let coefficients: &[f32] = match self {
            Self::Meaning { .. } => &OF_MEANING,
            Self::Words { .. } => &OF_WORDS,
        };
        let inputs = self.inputs();
        let logit: f32 =
            inputs.iter().zip(coefficients).map(|(input, coefficient)| input * coefficient).sum();
        1.0 / (1.0 + (-logit).exp())
    }
}

/// Coefficients of [`Features::inputs`], fitted on the train split of the sample handbook's questions by
/// `cargo bench --bench retrieval -- fit`.
const OF_MEANING: [f32; 4] = [-11.440, 6.840, 8.215, 1.780];
const OF_WORDS: [f32; 3] = [-2.153, 3.419, 8.890];
