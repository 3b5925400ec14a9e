//! How do the answers before and after training compare with the human ones, and where did they fail?

mod markdown;
mod measures;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{
    metrics::{most_common_share, token_f1, without_marks},
    statistics::{Bootstrap, Interval, quantile},
};
use crate::error::Error;
pub(crate) use markdown::cell;
use measures::{MEASURES, Table};

/// Why answers could not be compared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvaluationError {
    /// There is nothing to compare.
    #[error(
        "there are no answers to evaluate: no ideal answers are held out yet; import or approve some, or name a file"
    )]
    Empty,
    /// One list has an answer the other lacks.
    #[error("answer {position}: before training it is to {before:?}, after it to {after:?}")]
    Unpaired {
        /// Place in the lists, from 1.
        position: usize,
        /// The question's id in the first list; empty past its end.
        before: String,
        /// The question's id in the second list; empty past its end.
        after: String,
    },
}

impl From<EvaluationError> for Error {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Empty => Self::invalid("set", error.to_string()),
            // Both lists are made from one set.
            EvaluationError::Unpaired { .. } => Self::internal(error),
        }
    }
}

/// How likely a model finds the human answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HumanNll {
    /// Negative log-likelihood of all its tokens, the one that ends the turn included, in nats.
    pub nats: f64,
    /// How many tokens that are.
    pub tokens: u64,
}

/// A question with the human answer and a model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Names the question in both lists.
    pub id: String,
    /// The question.
    pub question: String,
    /// What a person answered.
    pub ideal: String,
    /// What the model answered.
    pub answer: String,
    /// Whether the model ended its answer by itself, within the limit of tokens.
    pub ended: bool,
    /// Tokens of the model's answer.
    pub answer_tokens: u64,
    /// How likely the model finds the human answer, when that was computed.
    pub nll: Option<HumanNll>,
    /// Whether the answer cites a page that holds the answer, when it is known which ones do.
    pub cited: Option<bool>,
    /// Cosine of the answers' sentence vectors, when there is a sentence model.
    pub cosine: Option<f64>,
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparing {
    /// How the intervals are found.
    pub bootstrap: Bootstrap,
    /// How many of the worst answers are shown.
    pub worst: usize,
}

impl Default for Comparing {
    /// As many worst answers as a person reads.
    fn default() -> Self {
        Self { bootstrap: Bootstrap::default(), worst: 10 }
    }
}

/// Named values in the order they are shown in; a map in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics<T>(Vec<(String, T)>);

impl<T> Metrics<T> {
    /// The value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All values with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<T: Serialize> Serialize for Metrics<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Metrics<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Metrics<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Metrics(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A metric before and after.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its value before.
    pub before: f64,
    /// Its value after.
    pub after: f64,
    /// `after − before`.
    pub difference: f64,
    /// The 95% interval of the difference: the same questions answered twice, drawn anew.
    pub interval: Interval,
}

/// A question with three answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideBySide {
    /// Names the question.
    pub id: String,
    /// The question.
    pub question: String,
    /// The human answer.
    pub ideal: String,
    /// The answer before.
    pub before: String,
    /// The answer after.
    pub after: String,
    /// Token F1 of the answer before.
    pub f1_before: f64,
    /// Token F1 of the answer after.
    pub f1_after: f64,
}

/// The share of answers that are the most common one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SameAnswer {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

/// Answers before and after, compared with the human ones.
///
/// | metric | over all questions | better |
/// |---|---|---|
/// | `f1`, `exact_match`, `rouge_1`, `rouge_2`, `rouge_l` | mean | higher |
/// | `bleu`, `chrf` | of the corpus, 0 to 100 | higher |
/// | `cosine` | mean | higher |
/// | `nll` | nats per token of the human answers | lower |
/// | `cited`, `ended` | share | higher |
/// | `length_ratio` | words of the answers for each word of the human ones | near 1 |
/// | `tokens` | mean | |
/// | `distinct_1`, `distinct_2`, `distinct_3` | different runs among all, within answers | higher |
/// | `repetition` | repeated runs of 4 words among all, within answers | lower |
///
/// A metric that no question has (no sentence model, say) is not there; one that some have is over those that have it
/// before and after. Texts are compared without citation marks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Questions.
    pub n: usize,
    /// The metrics by name.
    pub metrics: Metrics<Change>,
    /// How often the most common answer was given.
    pub same_answer: SameAnswer,
    /// The answers that lost most token F1, and then those with least of it.
    pub worst: Vec<SideBySide>,
}

impl Comparison {
    /// Compares answers to the same questions, in the same order.
    ///
    /// # Errors
    /// When there are none, or the lists do not name the same questions.
    pub fn of(before: &[Sample], after: &[Sample], comparing: &Comparing) -> Result<Self, EvaluationError> {
        paired(before, after)?;
        let changes = changes(before, after, &comparing.bootstrap);
        let same = |samples: &[Sample]| {
            most_common_share(samples.iter().map(|sample| sample.answer.as_str())).unwrap_or_default()
        };
        let mut worst: Vec<SideBySide> = before.iter().zip(after).map(side_by_side).collect();
        let order = |a: &SideBySide, b: &SideBySide| {
            let gained = |row: &SideBySide| row.f1_after - row.f1_before;
            gained(a).total_cmp(&gained(b)).then(a.f1_after.total_cmp(&b.f1_after))
        };
        worst.sort_by(order);
        worst.truncate(comparing.worst);
        Ok(Self {
            n: before.len(),
            metrics: Metrics(changes),
            same_answer: SameAnswer { before: same(before), after: same(after) },
            worst,
        })
    }
}

/// A metric of one list of answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Its value.
    pub value: f64,
    /// Its 95% interval: the questions drawn anew.
    pub interval: Interval,
}

/// A question with the human answer and the model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Names the question.
    pub id: String,
    /// The question.
    pub question: String,
    /// The human answer.
    pub ideal: String,
    /// The model's answer.
    pub answer: String,
    /// Token F1 of the answer.
    pub f1: f64,
}

/// One model's answers, compared with the human ones: the metrics of [`Comparison`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Questions.
    pub n: usize,
    /// The metrics by name.
    pub metrics: Metrics<Measured>,
    /// The share of answers that are the most common one.
    pub same_answer: f64,
    /// The answers with least token F1.
    pub worst: Vec<Example>,
}

impl Summary {
    /// Compares one model's answers with the human ones.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(samples: &[Sample], comparing: &Comparing) -> Result<Self, EvaluationError> {
        let answers = samples.iter().map(|sample| sample.answer.as_str());
        let same_answer = most_common_share(answers).ok_or(EvaluationError::Empty)?;
        let table = Table::of(samples);
        let mut drawn: HashMap<&str, Vec<f64>> = HashMap::new();
        comparing.bootstrap.each(samples.len(), |weights| {
            for (measure, value) in table.values(weights) {
                drawn.entry(measure.name).or_default().push(value);
            }
        });
        let once = vec![1; samples.len()];
        let measured = table.values(&once).filter_map(|(measure, value)| {
            let interval = interval(drawn.get(measure.name)?)?;
            Some((measure.name.to_owned(), Measured { value, interval }))
        });
        let mut worst: Vec<Example> = samples.iter().map(example).collect();
        worst.sort_by(|a, b| a.f1.total_cmp(&b.f1));
        worst.truncate(comparing.worst);
        Ok(Self { n: samples.len(), metrics: Metrics(measured.collect()), same_answer, worst })
    }
}

fn paired(before: &[Sample], after: &[Sample]) -> Result<(), EvaluationError> {
    if before.is_empty() && after.is_empty() {
        return Err(EvaluationError::Empty);
    }
    let id = |samples: &[Sample], at: usize| samples.get(at).map(|sample| sample.id.clone());
    let differs = |at: &usize| id(before, *at) != id(after, *at);
    match (0..before.len().max(after.len())).find(differs) {
        None => Ok(()),
        Some(at) => Err(EvaluationError::Unpaired {
            position: at + 1,
            before: id(before, at).unwrap_or_default(),
            after: id(after, at).unwrap_or_default(),
        }),
    }
}

/// Every metric that both lists have, in the order of [`MEASURES`].
fn changes(before: &[Sample], after: &[Sample], bootstrap: &Bootstrap) -> Vec<(String, Change)> {
    let (mut before, mut after) = (Table::of(before), Table::of(after));
    before.keep_shared(&mut after);
    let both = |weights: &[u32]| -> Vec<(&'static str, f64, f64)> {
        let later: HashMap<&str, f64> =
            after.values(weights).map(|(measure, value)| (measure.name, value)).collect();
        let values = before.values(weights);
        values.filter_map(|(m, value)| Some((m.name, value, *later.get(m.name)?))).collect()
    };
    let mut drawn: HashMap<&str, Vec<f64>> = HashMap::with_capacity(MEASURES.len());
    bootstrap.each(before.samples(), |weights| {
        for (name, before, after) in both(weights) {
            drawn.entry(name).or_default().push(after - before);
        }
    });
    let change = |(name, before, after): (&str, f64, f64)| {
        let interval = interval(drawn.get(name)?)?;
        Some((name.to_owned(), Change { before, after, difference: after - before, interval }))
    };
    both(&vec![1; before.samples()]).into_iter().filter_map(change).collect()
}

fn interval(drawn: &[f64]) -> Option<Interval> {
    Some(Interval(quantile(drawn, 0.025)?, quantile(drawn, 0.975)?))
}

fn f1(sample: &Sample) -> f64 {
    token_f1(&without_marks(&sample.answer), &without_marks(&sample.ideal))
}

fn side_by_side((before, after): (&Sample, &Sample)) -> SideBySide {
    SideBySide {
        id: before.id.clone(),
        question: before.question.clone(),
        ideal: before.ideal.clone(),
        before: before.answer.clone(),
        after: after.answer.clone(),
        f1_before: f1(before),
        f1_after: f1(after),
    }
}

fn example(sample: &Sample) -> Example {
    Example {
        id: sample.id.clone(),
        question: sample.question.clone(),
        ideal: sample.ideal.clone(),
        answer: sample.answer.clone(),
        f1: f1(sample),
    }
}
