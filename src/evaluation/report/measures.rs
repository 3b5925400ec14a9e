//! Which numbers of each answer is a metric of all of them computed from?
//!
//! Every metric is a function of sums over the answers, so that an answer which lacks it adds nothing, and a bootstrap
//! sample needs no text again.

use super::{
    super::metrics::{
        Bleu, Chrf, DistinctGrams, exact_match, repetition_grams, rouge_l, rouge_n, token_f1, without_marks,
        word_count,
    },
    Sample,
};

/// One metric.
pub(super) struct Measure {
    /// Its name.
    pub(super) name: &'static str,
    /// What an answer adds; empty when it lacks the metric.
    columns: fn(&Texts) -> Vec<f64>,
    /// The metric, given the sums; not finite when they do not define it.
    value: fn(&[f64]) -> f64,
}

/// A sample with what is compared: the texts without citation marks.
struct Texts<'a> {
    sample: &'a Sample,
    answer: String,
    ideal: String,
}

const fn mean(name: &'static str, columns: fn(&Texts) -> Vec<f64>) -> Measure {
    Measure { name, columns, value: ratio }
}

/// The metrics in the order they are shown in.
pub(super) const MEASURES: &[Measure] = &[
    mean("f1", |t| once(token_f1(&t.answer, &t.ideal))),
    mean("exact_match", |t| once(flag(exact_match(&t.answer, &t.ideal)))),
    mean("rouge_1", |t| once(rouge_n(&t.answer, &t.ideal, 1))),
    mean("rouge_2", |t| once(rouge_n(&t.answer, &t.ideal, 2))),
    mean("rouge_l", |t| once(rouge_l(&t.answer, &t.ideal))),
    Measure {
        name: "bleu",
        columns: |t| Bleu::of(&t.answer, &t.ideal).columns().to_vec(),
        value: Bleu::of_sums,
    },
    Measure {
        name: "chrf",
        columns: |t| Chrf::of(&t.answer, &t.ideal).columns().to_vec(),
        value: Chrf::of_sums,
    },
    mean("cosine", |t| t.sample.cosine.map_or_else(Vec::new, once)),
    mean("nll", |t| t.sample.nll.map_or_else(Vec::new, |nll| vec![nll.nats, nll.tokens as f64])),
    mean("cited", |t| t.sample.cited.map_or_else(Vec::new, |hit| once(flag(hit)))),
    mean("ended", |t| once(flag(t.sample.ended))),
    mean("length_ratio", |t| vec![word_count(&t.answer) as f64, word_count(&t.ideal) as f64]),
    mean("tokens", |t| once(t.sample.answer_tokens as f64)),
    mean("distinct_1", |t| different(DistinctGrams::of(&t.answer, 1))),
    mean("distinct_2", |t| different(DistinctGrams::of(&t.answer, 2))),
    mean("distinct_3", |t| different(DistinctGrams::of(&t.answer, 3))),
    mean("repetition", |t| {
        let grams = repetition_grams(&t.answer);
        vec![(grams.all - grams.different) as f64, grams.all as f64]
    }),
];

/// What every answer adds to every metric, by metric and then answer.
pub(super) struct Table {
    columns: Vec<Vec<Vec<f64>>>,
    samples: usize,
}

impl Table {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let texts: Vec<Texts> = samples
            .iter()
            .map(|sample| Texts {
                sample,
                answer: without_marks(&sample.answer),
                ideal: without_marks(&sample.ideal),
            })
            .collect();
        let columns = MEASURES.iter().map(|measure| texts.iter().map(measure.columns).collect()).collect();
        Self { columns, samples: samples.len() }
    }

    /// How many answers there are.
    pub(super) const fn samples(&self) -> usize {
        self.samples
    }

    /// Takes out what only one of two answers has, so that both sides are about the same questions.
    pub(super) fn keep_shared(&mut self, other: &mut Self) {
        let pairs = self.columns.iter_mut().flatten().zip(other.columns.iter_mut().flatten());
        for (ours, theirs) in pairs.filter(|(ours, theirs)| ours.is_empty() != theirs.is_empty()) {
            ours.clear();
            theirs.clear();
        }
    }

    /// Every metric that is defined when each answer counts as often as `weights` says.
    pub(super) fn values(&self, weights: &[u32]) -> impl Iterator<Item = (&'static Measure, f64)> {
        MEASURES.iter().zip(&self.columns).filter_map(move |(measure, rows)| {
            let value = (measure.value)(&weighted_sums(rows, weights)?);
            value.is_finite().then_some((measure, value))
        })
    }
}

/// The sums; `None` when no row with a weight has any columns.
fn weighted_sums(rows: &[Vec<f64>], weights: &[u32]) -> Option<Vec<f64>> {
    let mut sums: Option<Vec<f64>> = None;
    for (row, &weight) in rows.iter().zip(weights).filter(|(row, weight)| **weight > 0 && !row.is_empty()) {
        let sums = sums.get_or_insert_with(|| vec![0.0; row.len()]);
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * f64::from(weight));
    }
    sums
}

fn ratio(sums: &[f64]) -> f64 {
    sums[0] / sums[1]
}

fn once(value: f64) -> Vec<f64> {
    vec![value, 1.0]
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn different(grams: DistinctGrams) -> Vec<f64> {
    vec![grams.different as f64, grams.all as f64]
}
