//! What does a language model become when it learns to tell liked answers? An adapter (arXiv:2106.09685) with a scalar
//! head for each member of the ensemble (arXiv:2009.01325), trained on what the features leave unexplained.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backbone::Read;
use super::{Backbone, Pair, RewardError, Step};
use crate::nn::{
    AdamW, AdamWSettings, Adapter, AdapterShape, Batch, NnError, PASS_TOKENS, Pass, Schedule, Sequence,
    accumulate, clip,
};

/// Rank matters little for what data of this size can teach; alpha is twice the rank, as for fine-tuning.
const SHAPE: AdapterShape = AdapterShape { rank: 8, alpha: 16.0, dropout: 0.0 };
/// Ten times what full training takes, for runs of less than a hundred steps.
const RATE: f32 = 5e-4;
/// Share of the steps in which the rate rises.
const WARMUP: f64 = 0.1;
/// Pairs a step; one pass over the data: reward models overfit in a second one (`InstructGPT`, arXiv:2203.02155).
const BATCH: usize = 16;
/// Joint norm to which gradients are clipped.
const CLIP: f32 = 1.0;
/// Factor of the squared sum of a pair's rewards (arXiv:2312.09244).
const CENTRING: f64 = 0.01;

/// A pair to learn from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson<'a> {
    pub(super) pair: &'a Pair,
    /// Log-odds that the features give the chosen answer.
    pub(super) logit: f64,
    /// Probability to learn that it is the better one.
    pub(super) target: f64,
    pub(super) weight: f64,
}

/// What was learnt.
#[derive(Debug)]
pub(super) struct Tuned {
    pub(super) adapter: Tuning,
    /// Members × width: what each adds to the features' reward (nats), of hidden states after the last norm.
    pub(super) heads: Vec<Vec<f64>>,
}

/// An adapter as numbers, which need no model to be kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tuning {
    pub(super) shape: AdapterShape,
    /// By name: axes and values.
    pub(super) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Trains adapter and heads for one pass over the lessons; or gives the seconds it would take, when these are more than
/// `seconds`. An interrupted training begins anew: it never lasts longer than the budget.
pub(super) fn tune(
    backbone: &Backbone,
    lessons: &[Lesson<'_>],
    (seed, members, seconds): (u64, usize, f64),
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Result<Tuned, f64>, RewardError> {
    let adapter = Adapter::new(&backbone.decoder, SHAPE, seed)?;
    let heads = heads(backbone.decoder.architecture().width, members, seed)?;
    let mut order: Vec<usize> = (0..lessons.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let steps = order.chunks(BATCH).len() as u64;
    let schedule = Schedule { peak: RATE, warmup: (steps as f64 * WARMUP).ceil() as u64, total: steps };
    let variables: Vec<&Var> = adapter.variables().into_iter().chain([&heads]).collect();
    let mut optimizer = AdamW::new(&variables, AdamWSettings::default());
    let started = Instant::now();
    for (done, batch) in order.chunks(BATCH).enumerate() {
        let lessons: Vec<&Lesson<'_>> = batch.iter().map(|i| &lessons[*i]).collect();
        let mut gradients = gradients(backbone, (&adapter, &heads), &lessons)?;
        let norm = clip(&mut gradients, CLIP)?;
        if !norm.is_finite() {
            return Err(RewardError::Diverged { step: done as u64 });
        }
        optimizer.step(&variables, &gradients, schedule.at(done as u64))?;
        let (phase, done) = ("training the adapter", done as u64 + 1);
        if !observe(Step { phase, done, total: steps }) {
            return Err(RewardError::Stopped { phase });
        }
        let needed = started.elapsed().as_secs_f64() / done as f64 * steps as f64;
        if needed > seconds {
            return Ok(Err(needed));
        }
    }
    let heads = heads.to_vec2::<f32>()?;
    let heads = heads.iter().map(|head| head.iter().map(|value| f64::from(*value)).collect()).collect();
    Ok(Ok(Tuned { adapter: Tuning::of(&adapter)?, heads }))
}

/// Heads with a standard deviation of 1/√(width + 1), so that rewards begin with one of about 1 (arXiv:2009.01325).
fn heads(width: usize, members: usize, seed: u64) -> Result<Var, RewardError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(1));
    // Uniform numbers of ±√3 have a standard deviation of 1.
    let bound = (3.0 / (width as f32 + 1.0)).sqrt();
    let values: Vec<f32> = (0..members * width).map(|_| random.random_range(-bound..bound)).collect();
    Ok(Var::from_vec(values, (members, width), &Device::Cpu)?)
}

/// Gradients of a step's mean loss, in the order of the adapter's variables, then the heads'.
fn gradients(
    backbone: &Backbone,
    (adapter, heads): (&Adapter, &Var),
    lessons: &[&Lesson<'_>],
) -> Result<Vec<Option<Tensor>>, RewardError> {
    let total: f64 = lessons.iter().map(|lesson| lesson.weight).sum();
    let reads = lessons
        .iter()
        .map(|lesson| {
            lesson.pair.items().iter().map(|item| backbone.read(item)).collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut sums: Vec<Option<Tensor>> = vec![None; adapter.variables().len() + 1];
    let mut rest: Vec<(&&Lesson<'_>, &Vec<Read>)> = lessons.iter().zip(&reads).collect();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|(_, reads)| {
            tokens += reads.iter().map(Read::tokens).sum::<usize>();
            tokens <= PASS_TOKENS
        });
        let pass: Vec<_> = rest.drain(..fitting.count().max(1)).collect();
        let loss = loss(backbone, (adapter, heads), &pass, total)?;
        let found = loss.backward()?;
        let variables = adapter.variables().into_iter().chain([heads]);
        accumulate(&mut sums, variables.map(|variable| found.get(variable).cloned()))?;
    }
    Ok(sums)
}

/// The part of the step's loss that these pairs have: Bradley and Terry's on top of the features' log-odds, a mean over
/// the heads.
fn loss(
    backbone: &Backbone,
    (adapter, heads): (&Adapter, &Var),
    pairs: &[(&&Lesson<'_>, &Vec<Read>)],
    total: f64,
) -> Result<Tensor, RewardError> {
    let mut batch = Batch::default();
    for (_, reads) in pairs {
        let completions: Vec<&[u32]> = reads.iter().map(|read| read.answer.as_slice()).collect();
        batch.push(Sequence { prompt: &reads[0].prompt, completions: &completions });
    }
    let ends = backbone.ends_of(&batch, Pass { adapter: Some(adapter), ..Pass::default() })?;
    let members = heads.dim(0)?;
    let rewards = ends.matmul(&heads.t()?)?.reshape((pairs.len(), 2, members))?;
    let (chosen, rejected) = (rewards.narrow(1, 0, 1)?.squeeze(1)?, rewards.narrow(1, 1, 1)?.squeeze(1)?);
    let column = |value: &dyn Fn(&Lesson<'_>) -> f64| {
        let values: Vec<f32> = pairs.iter().map(|(lesson, _)| value(lesson) as f32).collect();
        Tensor::from_vec(values, (pairs.len(), 1), &Device::Cpu)
    };
    let logits = (&chosen - &rejected)?.broadcast_add(&column(&|lesson| lesson.logit)?)?;
    let right = softplus(&logits.neg()?)?.broadcast_mul(&column(&|lesson| lesson.target)?)?;
    let wrong = softplus(&logits)?.broadcast_mul(&column(&|lesson| 1.0 - lesson.target)?)?;
    let centre = ((chosen + rejected)?.sqr()? * CENTRING)?;
    let each = ((right + wrong)? + centre)?;
    let weights = column(&|lesson| lesson.weight / (total * members as f64))?;
    Ok(each.broadcast_mul(&weights)?.sum_all()?)
}

/// ln(1 + eˣ), without overflow; candle has none.
fn softplus(x: &Tensor) -> candle_core::Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

impl Tuning {
    fn of(adapter: &Adapter) -> Result<Self, RewardError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in adapter.named() {
            tensors.insert(name, (tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?));
        }
        Ok(Self { shape: adapter.shape(), tensors })
    }

    /// The adapter beside this model.
    pub(super) fn adapter(&self, backbone: &Backbone) -> Result<Adapter, RewardError> {
        let mut tensors = BTreeMap::new();
        for (name, (axes, values)) in &self.tensors {
            tensors.insert(name.clone(), Tensor::from_slice(values, axes.as_slice(), &Device::Cpu)?);
        }
        let problem = |problem| NnError::Checkpoint { path: "head.safetensors".into(), problem };
        Ok(Adapter::from_named(&backbone.decoder, (self.shape, tensors), problem)?)
    }
}

impl Backbone {
    /// Hidden states at the answers' ends, after the last norm and beside an adapter: one row an item.
    pub(super) fn ends(
        &self,
        tuning: &Tuning,
        items: &[super::Item<'_>],
    ) -> Result<Vec<Vec<f64>>, RewardError> {
        let adapter = tuning.adapter(self)?;
        let reads = items.iter().map(|item| self.read(item)).collect::<Result<Vec<_>, _>>()?;
        let mut found = Vec::with_capacity(items.len());
        for group in reads.chunk_by(|a, b| a.prompt == b.prompt) {
            let completions: Vec<&[u32]> = group.iter().map(|read| read.answer.as_slice()).collect();
            let mut batch = Batch::default();
            batch.push(Sequence { prompt: &group[0].prompt, completions: &completions });
            let ends =
                self.ends_of(&batch, Pass { adapter: Some(&adapter), frozen: true, ..Pass::default() })?;
            let rows = ends.to_vec2::<f32>()?;
            found.extend(rows.iter().map(|row| row.iter().map(|value| f64::from(*value)).collect()));
        }
        Ok(found)
    }

    fn ends_of(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor, RewardError> {
        let hidden = self.decoder.hidden(batch, pass)?;
        // The last target of an answer is the token behind its end: the row that predicts it has read the end.
        let last = batch.completions().iter().map(|range| batch.targets_slice()[range.end - 1].row as u32);
        let rows: Vec<u32> = last.collect();
        let rows = Tensor::from_vec(rows, batch.completions().len(), &Device::Cpu)?;
        Ok(self.decoder.norm.apply(&hidden.index_select(&rows, 0)?)?)
    }
}
