//! How are many answers drawn at once from the model being trained? Continuous batches over a cache of keys and
//! values, in which completions of one prompt share the prompt's part.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::attention::{Attention, Heads};
use super::batch::{Batch, Sequence};
use super::decoder::Decoder;
use super::kernel::{self, dot, softmax};
use super::packing::shared_beginning;
use super::tensors::with_values;
use super::{NnError, Result};
use crate::domain;
use crate::generation::LogitBias;
use crate::generation::sampler::Sampler as Draws;

/// Prompt rows that are read together: some prompts with instructions in common, which are then read once; without gradients
/// that is little memory.
const PREFILL_ROWS: usize = 2560;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Softmax temperature; 0 takes the likeliest token.
    pub temperature: f32,
    /// Nucleus mass in (0, 1].
    pub top_p: f32,
    /// Divides the logits of tokens already in the completion (>= 1; 1 is off).
    pub repetition_penalty: f32,
    /// Weight of the cost of going on with a sequence that the completion says a second time (DRY; >= 0; 0 is off).
    pub dry_multiplier: f32,
    /// Most tokens of a completion.
    pub max_tokens: usize,
}

impl Sampling {
    /// Nothing but a softmax temperature: no nucleus, no penalties.
    #[must_use]
    pub fn at(temperature: f32, max_tokens: usize) -> Self {
        Self { temperature, top_p: 1.0, repetition_penalty: 1.0, dry_multiplier: 0.0, max_tokens }
    }
}

/// A prompt and how many completions of it are wanted.
#[derive(Debug, Clone, Default)]
pub struct SampleRequest {
    /// The rendered prompt, tokenised.
    pub prompt: Vec<u32>,
    /// How many completions.
    pub completions: usize,
    /// Completion `i` has a random stream of its own, from `seed + i`: what it becomes does not depend on what is
    /// drawn beside it, apart from rounding.
    pub seed: u64,
    /// Tokens that are drawn likelier than the decoder finds them.
    pub bias: LogitBias,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The tokens; the last is an end-of-turn token if `ended`.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each token's probability before bias, temperature, penalty and nucleus (nats).
    pub log_probabilities: Vec<f32>,
    /// Whether the model ended its turn; otherwise `max_tokens` cut it off.
    pub ended: bool,
}

/// Draws completions from a decoder (merge an adapter first: [`Decoder::merged`]).
#[derive(Debug)]
pub struct Sampler<'a> {
    decoder: &'a Decoder,
    ends: &'a [u32],
    /// Most completions drawn at once.
    width: usize,
}

/// Rotated keys and values of some positions: per layer, key heads × positions × head width.
#[derive(Debug)]
struct Cache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// Positions there is room for.
    room: usize,
    /// Positions filled.
    filled: usize,
}

/// A completion being drawn.
struct Live {
    request: usize,
    index: usize,
    prompt: Arc<Cache>,
    own: Cache,
    /// The last token, to be read next.
    token: u32,
    draws: Draws,
    completion: Completion,
}

impl Cache {
    fn new(layers: usize, heads: Heads, room: usize) -> Self {
        let empty = || vec![vec![0.0; heads.key * room * heads.width]; layers];
        Self { keys: empty(), values: empty(), room, filled: 0 }
    }

    /// Writes position `at` of one layer from a row of all key heads.
    fn write(&mut self, (layer, at): (usize, usize), (k, v): (&[f32], &[f32]), width: usize) {
        let parts = k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate();
        for (head, (k, v)) in parts {
            let start = (head * self.room + at) * width;
            self.keys[layer][start..start + width].copy_from_slice(k);
            self.values[layer][start..start + width].copy_from_slice(v);
        }
    }

    fn of<'a>(&self, store: &'a [Vec<f32>], (layer, head): (usize, usize), width: usize) -> &'a [f32] {
        let start = head * self.room * width;
        &store[layer][start..start + self.filled * width]
    }
}

impl<'a> Sampler<'a> {
    /// A sampler that stops at any of `ends` and draws up to `width` completions at once.
    #[must_use]
    pub fn new(decoder: &'a Decoder, ends: &'a [u32], width: usize) -> Self {
        Self { decoder, ends, width: width.max(1) }
    }

    /// Draws every completion of every request; gives them per request. `progress` hears how many are done after each
    /// token and may stop the work by returning `false` (then what is done so far is given, the rest empty).
    ///
    /// # Errors
    /// When a prompt is empty or an operation fails.
    pub fn sample(
        &self,
        requests: &[SampleRequest],
        sampling: Sampling,
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Vec<Vec<Completion>>> {
        let mut waiting: VecDeque<usize> = (0..requests.len()).collect();
        let mut ready: VecDeque<Live> = VecDeque::new();
        let (mut live, mut done): (Vec<Live>, usize) = (Vec::new(), 0);
        let empty = Completion { tokens: Vec::new(), log_probabilities: Vec::new(), ended: false };
        let mut results: Vec<Vec<Completion>> =
            requests.iter().map(|request| vec![empty.clone(); request.completions]).collect();
        loop {
            while ready.len() + live.len() < self.width && !waiting.is_empty() {
                let chosen = take(&mut waiting, requests, self.width - ready.len() - live.len());
                ready.extend(self.prefill(requests, &chosen, sampling)?);
            }
            while live.len() < self.width {
                let Some(next) = ready.pop_front() else { break };
                live.push(next);
            }
            let (finished, going): (Vec<Live>, Vec<Live>) =
                live.into_iter().partition(|one| self.is_finished(one, sampling));
            live = going;
            for one in finished {
                results[one.request][one.index] = one.completion;
                done += 1;
            }
            if !progress(done) || (live.is_empty() && ready.is_empty() && waiting.is_empty()) {
                return Ok(results);
            }
            if !live.is_empty() {
                self.step(&mut live)?;
            }
        }
    }

    fn is_finished(&self, live: &Live, sampling: Sampling) -> bool {
        live.completion.ended || live.completion.tokens.len() >= sampling.max_tokens
    }

    /// Reads the prompts of some requests and draws each completion's first token.
    fn prefill(&self, requests: &[SampleRequest], chosen: &[usize], sampling: Sampling) -> Result<Vec<Live>> {
        let prompts: Vec<&[u32]> =
            chosen.iter().map(|&request| requests[request].prompt.as_slice()).collect();
        if prompts.iter().any(|prompt| prompt.is_empty()) {
            return Err(candle_core::Error::Msg("a prompt has at least one token".into()).into());
        }
        let shared = shared_beginning(&prompts);
        let sequences: Vec<Sequence<'_>> =
            prompts.iter().map(|prompt| Sequence { prompt, completions: &[] }).collect();
        let mut batch = Batch::default();
        let parts = batch.push_sharing(&sequences, shared);
        let rows: Vec<Vec<usize>> =
            parts.into_iter().map(|parts| parts.into_iter().flatten().collect()).collect();
        let heads = self.decoder.architecture().heads;
        let layers = self.decoder.layers.len();
        let mut caches: Vec<Cache> =
            prompts.iter().map(|prompt| Cache::new(layers, heads, prompt.len())).collect();
        let rotation = Arc::new(self.decoder.rotation(&batch.positions));
        let attention =
            Attention { heads, groups: Arc::new(batch.groups.clone()), rotation: Arc::clone(&rotation) };
        let mut x = plain(&self.decoder.embed(&batch)?)?;
        for l in 0..layers {
            self.layer(l, &mut x, |q, k, v| {
                let row = heads.key * heads.width;
                for (rows, cache) in rows.iter().zip(&mut caches) {
                    for (at, &r) in rows.iter().enumerate() {
                        let mut turned = k[r * row..(r + 1) * row].to_vec();
                        turned.chunks_exact_mut(heads.width).for_each(|head| rotation.forward(r, head));
                        cache.write((l, at), (&turned, &v[r * row..(r + 1) * row]), heads.width);
                    }
                }
                attention.run((&q, &k, &v))
            })?;
        }
        let width = self.decoder.architecture().width;
        let last = rows.iter().filter_map(|rows| rows.last());
        let last = last.flat_map(|row| x[row * width..(row + 1) * width].iter().copied());
        let logits = self.logits(&last.collect::<Vec<_>>())?;
        let vocabulary = self.decoder.vocabulary();
        let mut born = Vec::new();
        for ((&request, mut cache), logits) in chosen.iter().zip(caches).zip(logits.chunks_exact(vocabulary))
        {
            cache.filled = cache.room;
            let prompt = Arc::new(cache);
            for index in 0..requests[request].completions {
                let seed = requests[request].seed.wrapping_add(index as u64);
                let mut one = Live {
                    request,
                    index,
                    prompt: Arc::clone(&prompt),
                    own: Cache::new(layers, heads, sampling.max_tokens),
                    token: 0,
                    draws: Draws::new(&to_domain(sampling, seed), 0)
                        .biased(&requests[request].bias, self.ends),
                    completion: Completion { tokens: vec![], log_probabilities: vec![], ended: false },
                };
                self.draw(&mut one, logits)?;
                born.push(one);
            }
        }
        Ok(born)
    }

    /// Reads each completion's last token and draws its next.
    fn step(&self, live: &mut [Live]) -> Result<()> {
        let heads = self.decoder.architecture().heads;
        let positions: Vec<u32> =
            live.iter().map(|one| (one.prompt.filled + one.own.filled) as u32).collect();
        let rotation = self.decoder.rotation(&positions);
        let tokens: Vec<u32> = live.iter().map(|one| one.token).collect();
        let batch = Batch { tokens, positions, ..Batch::default() };
        let mut x = plain(&self.decoder.embed(&batch)?)?;
        live.iter_mut().for_each(|one| one.own.filled += 1);
        for l in 0..self.decoder.layers.len() {
            self.layer(l, &mut x, |mut q, mut k, v| {
                let (q_row, k_row) = (heads.query * heads.width, heads.key * heads.width);
                let scale = (heads.width as f32).sqrt().recip();
                let mut out = vec![0.0; q.len()];
                let rows = q.par_chunks_mut(q_row).zip(k.par_chunks_mut(k_row)).zip(v.par_chunks(k_row));
                let all = rows.zip(out.par_chunks_mut(q_row)).zip(live.par_iter_mut()).enumerate();
                all.for_each(|(row, ((((q, k), v), out), one))| {
                    q.iter_mut().for_each(|value| *value *= scale);
                    q.chunks_exact_mut(heads.width).for_each(|head| rotation.forward(row, head));
                    k.chunks_exact_mut(heads.width).for_each(|head| rotation.forward(row, head));
                    one.own.write((l, one.own.filled - 1), (k, v), heads.width);
                    attend(one, l, (heads, q), out);
                });
                Ok(out)
            })?;
        }
        let logits = self.logits(&x)?;
        let vocabulary = self.decoder.vocabulary();
        live.par_iter_mut()
            .zip(logits.par_chunks_exact(vocabulary))
            .try_for_each(|(one, logits)| self.draw(one, logits))
    }

    fn draw(&self, one: &mut Live, logits: &[f32]) -> Result<()> {
        let drawn = one.draws.draw(logits.to_vec());
        let drawn = drawn.ok_or_else(|| candle_core::Error::Msg("no probability is a number".into()))?;
        one.token = drawn.token;
        one.completion.tokens.push(drawn.token);
        one.completion.log_probabilities.push(drawn.logprob);
        one.completion.ended = self.ends.contains(&drawn.token);
        Ok(())
    }

    /// Runs one layer over rows × width in place; `attend` gets q, k and v before rotation.
    fn layer(
        &self,
        l: usize,
        x: &mut [f32],
        attend: impl FnOnce(Vec<f32>, Vec<f32>, Vec<f32>) -> candle_core::Result<Vec<f32>>,
    ) -> Result<()> {
        let layer = &self.decoder.layers[l];
        let normed = layer.attention_norm.run(x)?;
        let [q, k, v, o, gate, up, down] = &layer.linears;
        let mut queries = q.run(&normed)?;
        let mut keys = k.run(&normed)?;
        if let Some(norm) = &layer.query_norm {
            queries = norm.run(&queries)?;
        }
        if let Some(norm) = &layer.key_norm {
            keys = norm.run(&keys)?;
        }
        let attended = attend(queries, keys, v.run(&normed)?)?;
        add(x, &o.run(&attended)?);
        let normed = layer.inner_norm.run(x)?;
        let (gates, ups) = (gate.run(&normed)?, up.run(&normed)?);
        let mut gated = vec![0.0; gates.len()];
        kernel::swiglu(&gates, &ups, &mut gated);
        add(x, &down.run(&gated)?);
        Ok(())
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(self.decoder.head.run(&self.decoder.norm.run(x)?)?)
    }
}

/// One row's attention over its prompt and itself; `q` is rotated and scaled.
fn attend(one: &Live, l: usize, (heads, q): (Heads, &[f32]), out: &mut [f32]) {
    let width = heads.width;
    let mut scores = Vec::with_capacity(one.prompt.filled + one.own.filled);
    for (h, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let place = (l, h / heads.shared());
        let parts = [one.prompt.as_ref(), &one.own];
        scores.clear();
        for cache in parts {
            let keys = cache.of(&cache.keys, place, width);
            scores.extend(keys.chunks_exact(width).map(|key| dot(q, key)));
        }
        softmax(&mut scores);
        let mut p = scores.iter();
        for cache in parts {
            let values = cache.of(&cache.values, place, width).chunks_exact(width);
            for (value, p) in values.zip(p.by_ref()) {
                for (out, value) in out.iter_mut().zip(value) {
                    *out += p * value;
                }
            }
        }
    }
}

/// The next requests to read: at least one, as long as their prompts fit [`PREFILL_ROWS`] and their completions
/// `room`.
fn take(waiting: &mut VecDeque<usize>, requests: &[SampleRequest], room: usize) -> Vec<usize> {
    let (mut chosen, mut rows, mut completions) = (Vec::new(), 0, 0);
    while let Some(&next) = waiting.front() {
        rows += requests[next].prompt.len();
        completions += requests[next].completions;
        if !chosen.is_empty() && (rows > PREFILL_ROWS || completions > room) {
            break;
        }
        chosen.push(next);
        waiting.pop_front();
    }
    chosen
}

fn to_domain(sampling: Sampling, seed: u64) -> domain::Sampling {
    domain::Sampling {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        repetition_penalty: sampling.repetition_penalty,
        dry_multiplier: sampling.dry_multiplier,
        max_tokens: u32::try_from(sampling.max_tokens).unwrap_or(u32::MAX),
        seed,
        stop: Vec::new(),
    }
}

fn plain(tensor: &Tensor) -> Result<Vec<f32>> {
    with_values([tensor], |[values]| Ok(values.to_vec())).map_err(NnError::from)
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
