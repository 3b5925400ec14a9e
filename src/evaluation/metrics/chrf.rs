//! Which character n-grams does an answer share with the human's? Works without words, so in every script.

use super::ngrams;

/// Longest n-gram.
const ORDER: usize = 6;
/// How much heavier recall weighs than precision: β² with β = 2.
const RECALL: f64 = 4.0;

/// What chrF is computed from; the corpus's is the sum of its answers'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chrf {
    /// For each length: n-grams of the answer, of the ideal one, and of both.
    counts: [[u32; 3]; ORDER],
}

impl Chrf {
    /// Numbers of one answer's statistics.
    pub(in crate::evaluation) const COLUMNS: usize = 3 * ORDER;

    /// The statistics of one answer.
    #[must_use]
    pub fn of(answer: &str, ideal: &str) -> Self {
        let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
        let (answer, ideal) = (characters(answer), characters(ideal));
        let counts = |n| {
            let [ours, theirs] = [&answer, &ideal]
                .map(|text| u32::try_from(ngrams::available(text.len(), n)).unwrap_or(u32::MAX));
            // A length the ideal answer is too short for says nothing.
            [if theirs > 0 { ours } else { 0 }, theirs, ngrams::shared(&answer, &ideal, n)]
        };
        Self { counts: std::array::from_fn(|at| counts(at + 1)) }
    }

    /// chrF of one answer.
    #[must_use]
    pub fn sentence(&self) -> f64 {
        Self::of_sums(&self.columns())
    }

    /// chrF of a corpus; `None` of an empty one.
    pub fn corpus(answers: impl IntoIterator<Item = Self>) -> Option<f64> {
        let mut sums = None;
        for answer in answers {
            let sums = sums.get_or_insert([0.0; Self::COLUMNS]);
            sums.iter_mut().zip(answer.columns()).for_each(|(sum, column)| *sum += column);
        }
        sums.map(|sums| Self::of_sums(&sums))
    }

    pub(in crate::evaluation) fn columns(&self) -> [f64; Self::COLUMNS] {
        let flat = self.counts.as_flattened();
        std::array::from_fn(|at| f64::from(flat[at]))
    }

    /// chrF of a corpus from the sums of its answers' columns: precision and recall are means over the lengths that
    /// both have.
    pub(in crate::evaluation) fn of_sums(sums: &[f64]) -> f64 {
        let (mut precision, mut recall, mut lengths) = (0.0, 0.0, 0.0);
        for counts in sums.chunks_exact(3) {
            if counts[0] > 0.0 && counts[1] > 0.0 {
                precision += counts[2] / counts[0];
                recall += counts[2] / counts[1];
                lengths += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        // The means' common divisor goes once from two factors of the numerator, once from the denominator.
        100.0 * (1.0 + RECALL) * precision * recall / (RECALL * precision + recall) / lengths
    }
}
