//! How does a BERT encoder read many texts at once on the CPU?
//!
//! The texts of a batch lie one after the other in one matrix, without padding: the linear layers, where nearly all
//! the work is, run as one large product, and attention runs text by text. What stands between the products is written
//! out over slices, because tensor operations for it are neither fused nor vectorised: the same weights through
//! tensor operations alone took several times as long.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::super::vectors::dot;

/// What is needed of the model's `config.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    vocab_size: usize,
}

/// The model's weights.
pub(super) struct Bert {
    config: Config,
    words: Vec<f32>,
    positions: Vec<f32>,
    /// The first row: a text is one segment.
    segment: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value in one product.
    attention: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

struct Linear {
    /// `(in, out)`, a transposed view of how it is stored.
    weight: Tensor,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Bert {
    /// Takes the tensors of a checkpoint by their usual names.
    ///
    /// # Errors
    /// When one is missing or has another shape than the configuration says.
    pub(super) fn new(config: Config, tensors: &HashMap<String, Tensor>) -> Result<Self, candle_core::Error> {
        let load = Loader { tensors, epsilon: config.layer_norm_eps };
        let width = config.hidden_size;
        let embedding =
            |name: &str, rows: usize| load.values(&format!("embeddings.{name}.weight"), rows * width);
        let layer = |i: usize| {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            Ok::<_, candle_core::Error>(Layer {
                attention: load
                    .linear(&["query", "key", "value"].map(|p| name(&format!("attention.self.{p}"))))?,
                attention_output: load.linear(&[name("attention.output.dense")])?,
                attention_norm: load.norm(&name("attention.output.LayerNorm"), width)?,
                intermediate: load.linear(&[name("intermediate.dense")])?,
                output: load.linear(&[name("output.dense")])?,
                output_norm: load.norm(&name("output.LayerNorm"), width)?,
            })
        };
        if config.num_attention_heads == 0 || !width.is_multiple_of(config.num_attention_heads) {
            candle_core::bail!("{width} dimensions do not divide into {} heads", config.num_attention_heads);
        }
        let mut segment = embedding("token_type_embeddings", 2)?;
        segment.truncate(width);
        Ok(Self {
            words: embedding("word_embeddings", config.vocab_size)?,
            positions: embedding("position_embeddings", config.max_position_embeddings)?,
            segment,
            norm: load.norm("embeddings.LayerNorm", width)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            config,
        })
    }

    /// The states of each text's tokens, `(tokens, hidden_size)` row by row. No text may be empty or longer than the
    /// model's positions.
    ///
    /// # Errors
    /// When a token is not in the vocabulary, or a product fails.
    pub(super) fn states(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        let width = self.config.hidden_size;
        let mut ranges = Vec::with_capacity(texts.len());
        let mut states = Vec::new();
        for text in texts {
            let start = states.len() / width;
            for (position, token) in text.iter().enumerate() {
                self.embed(*token as usize, position, &mut states)?;
            }
            ranges.push(start..states.len() / width);
        }
        self.norm.apply(&mut states);
        for layer in &self.layers {
            self.layer(layer, &mut states, &ranges)?;
        }
        Ok(ranges.iter().map(|range| states[range.start * width..range.end * width].to_vec()).collect())
    }

    fn embed(&self, token: usize, position: usize, states: &mut Vec<f32>) -> Result<(), candle_core::Error> {
        let width = self.config.hidden_size;
        let rows = (
            self.words.get(token * width..(token + 1) * width),
            self.positions.get(position * width..(position + 1) * width),
        );
        let (Some(word), Some(position)) = rows else {
            candle_core::bail!("token {token} at position {position} is outside the model");
        };
        let sums = word
            .iter()
            .zip(position)
            .zip(&self.segment)
            .map(|((word, position), segment)| word + position + segment);
        states.extend(sums);
        Ok(())
    }

    fn layer(
        &self,
        layer: &Layer,
        states: &mut Vec<f32>,
        texts: &[Range<usize>],
    ) -> Result<(), candle_core::Error> {
        let mixed = self.attend(&layer.attention.apply(states)?, texts);
        let mut attended = layer.attention_output.apply(&mixed)?;
        attended.par_iter_mut().zip(states.par_iter()).with_min_len(MIN_PARALLEL).for_each(|(a, s)| *a += s);
        layer.attention_norm.apply(&mut attended);
        let mut inner = layer.intermediate.apply(&attended)?;
        inner
            .par_chunks_mut(MIN_PARALLEL)
            .for_each(|chunk| chunk.iter_mut().for_each(|value| *value = gelu(*value)));
        let mut output = layer.output.apply(&inner)?;
        output.par_iter_mut().zip(attended.par_iter()).with_min_len(MIN_PARALLEL).for_each(|(o, a)| *o += a);
        layer.output_norm.apply(&mut output);
        *states = output;
        Ok(())
    }

    /// Multi-head attention within each text; `projected` has query, key and value side by side in each row.
    fn attend(&self, projected: &[f32], texts: &[Range<usize>]) -> Vec<f32> {
        let width = self.config.hidden_size;
        let mut mixed = vec![0.0; projected.len() / 3];
        let mut rest = mixed.as_mut_slice();
        let mut parts = Vec::with_capacity(texts.len());
        for text in texts {
            let (part, after) = rest.split_at_mut(text.len() * width);
            parts.push((part, &projected[text.start * width * 3..text.end * width * 3]));
            rest = after;
        }
        parts.into_par_iter().for_each(|(mixed, projected)| {
            for head in 0..self.config.num_attention_heads {
                self.attend_head(head, projected, mixed);
            }
        });
        mixed
    }

    fn attend_head(&self, head: usize, projected: &[f32], mixed: &mut [f32]) {
        let width = self.config.hidden_size;
        let size = width / self.config.num_attention_heads;
        let length = mixed.len() / width;
        let part = |kind: usize, row: usize| {
            let start = row * 3 * width + kind * width + head * size;
            &projected[start..start + size]
        };
        let scale = (size as f32).sqrt().recip();
        // Keys transposed, so that the scores of one query are a sum of rows.
        let mut keys = vec![0.0; size * length];
        for row in 0..length {
            for (dimension, value) in part(1, row).iter().enumerate() {
                keys[dimension * length + row] = value * scale;
            }
        }
        let mut scores = vec![0.0_f32; length];
        for row in 0..length {
            scores.fill(0.0);
            for (query, keys) in part(0, row).iter().zip(keys.chunks_exact(length)) {
                scores.iter_mut().zip(keys).for_each(|(score, key)| *score += query * key);
            }
            softmax(&mut scores);
            let out = &mut mixed[row * width + head * size..row * width + (head + 1) * size];
            for (other, weight) in scores.iter().enumerate() {
                out.iter_mut().zip(part(2, other)).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
}

/// Values per piece of parallel work: fewer would cost more to hand out than to compute.
const MIN_PARALLEL: usize = 16 * 1024;

struct Loader<'a> {
    tensors: &'a HashMap<String, Tensor>,
    epsilon: f32,
}

impl Loader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, candle_core::Error> {
        match self.tensors.get(name) {
            Some(tensor) => tensor.to_dtype(candle_core::DType::F32),
            None => candle_core::bail!("the checkpoint has no tensor {name}"),
        }
    }

    fn values(&self, name: &str, length: usize) -> Result<Vec<f32>, candle_core::Error> {
        let values = self.tensor(name)?.flatten_all()?.to_vec1()?;
        if values.len() != length {
            candle_core::bail!("tensor {name} has {} values, not {length}", values.len());
        }
        Ok(values)
    }

    fn linear(&self, names: &[String]) -> Result<Linear, candle_core::Error> {
        let weights = names.iter().map(|name| self.tensor(&format!("{name}.weight")));
        let weight = Tensor::cat(&weights.collect::<Result<Vec<_>, _>>()?, 0)?;
        let mut bias = Vec::new();
        for name in names {
            bias.extend(self.tensor(&format!("{name}.bias"))?.to_vec1::<f32>()?);
        }
        if weight.dims() != [bias.len(), weight.dim(1)?] {
            candle_core::bail!("the bias of {} does not fit its weight", names.join(", "));
        }
        Ok(Linear { weight: weight.t()?, bias })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, candle_core::Error> {
        let values = |part: &str| self.values(&format!("{name}.{part}"), width);
        Ok(Norm { weight: values("weight")?, bias: values("bias")?, epsilon: self.epsilon })
    }
}

impl Linear {
    fn apply(&self, rows: &[f32]) -> Result<Vec<f32>, candle_core::Error> {
        let width = self.weight.dim(0)?;
        let rows = Tensor::from_slice(rows, (rows.len() / width, width), &Device::Cpu)?;
        let mut out = rows.matmul(&self.weight)?.flatten_all()?.to_vec1::<f32>()?;
        let width = self.bias.len();
        out.par_chunks_mut(width).with_min_len(MIN_PARALLEL / width + 1).for_each(|row| add(row, &self.bias));
        Ok(out)
    }
}

impl Norm {
    fn apply(&self, rows: &mut [f32]) {
        let width = self.weight.len();
        rows.par_chunks_exact_mut(width).with_min_len(MIN_PARALLEL / width + 1).for_each(|row| {
            let count = width as f32;
            let mean = sum(row) / count;
            row.iter_mut().for_each(|value| *value -= mean);
            let scale = (dot(row, row) / count + self.epsilon).sqrt().recip();
            for ((value, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
                *value = *value * scale * weight + bias;
            }
        });
    }
}

fn add(into: &mut [f32], values: &[f32]) {
    into.iter_mut().zip(values).for_each(|(into, value)| *into += value);
}

/// In eight lanes, so that it vectorises.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let chunks = values.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter().sum::<f32>() + rest
}

fn softmax(scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    scores.iter_mut().for_each(|score| *score = exp(*score - highest));
    let scale = sum(scores).recip();
    scores.iter_mut().for_each(|score| *score *= scale);
}

/// The exact GELU, x times the normal distribution function, with the error function after Abramowitz and Stegun
/// 7.1.26 (off by at most 1.5e-7).
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let erf = 1.0 - series * exp(-z * z);
    0.5 * x * (1.0 + erf.copysign(x))
}

/// e to the power of x for x <= 0, off by less than 3e-7 of it: 2^n times the Taylor series of the rest. The standard
/// one is exact to the last bit, but a call per value, which can not be vectorised.
fn exp(x: f32) -> f32 {
    // Below, the result would be no normal number.
    let x = x.max(-87.0);
    let whole = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, so that the difference keeps its digits.
    let rest = whole.mul_add(-0.693_145_75, x);
    let rest = whole.mul_add(-1.428_606_8e-6, rest);
    let series = 1.0 / 720.0;
    let series = rest.mul_add(series, 1.0 / 120.0);
    let series = rest.mul_add(series, 1.0 / 24.0);
    let series = rest.mul_add(series, 1.0 / 6.0);
    let series = rest.mul_add(series, 0.5);
    let series = rest.mul_add(series, 1.0);
    let series = rest.mul_add(series, 1.0);
    // 12582912 = 1.5 * 2^23 moves the whole number into the low bits of the mantissa.
    let bits = (whole + 12_582_912.0).to_bits();
    series * f32::from_bits((bits.wrapping_add(127)) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_functions_agree_with_the_exact_ones() {
        for i in 0..=8700 {
            let x = -(i as f32) / 100.0;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((fast - exact).abs() <= 3e-7 * exact, "exp({x}): {fast} and {exact}");
        }
        // From tables of the normal distribution function.
        for (x, expected) in
            [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (2.0, 1.954_499_7), (-3.0, -0.004_049_7)]
        {
            assert!((gelu(x) - expected).abs() < 1e-6, "gelu({x}) = {}", gelu(x));
        }
    }
}
