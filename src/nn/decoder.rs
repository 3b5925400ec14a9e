//! How does a decoder read a batch? Embedding, layers of attention and gated map with or without an adapter, norm, and
//! log-probabilities of the batch's targets.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor, Var};
use sha2::{Digest, Sha256};

use super::adapter::{Adapter, Pair};
use super::architecture::Architecture;
use super::attention::Attention;
use super::batch::Batch;
use super::logprob::{Found, LogProbabilities};
use super::ops::{Dropout, Linear, LoraLinear, RmsNorm, SwiGlu};
use super::rope::{Rope, Rotation};
use super::{NnError, Result};

/// One layer's frozen weights.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) attention_norm: RmsNorm,
    pub(crate) inner_norm: RmsNorm,
    /// On each head, in families that have it.
    pub(crate) query_norm: Option<RmsNorm>,
    pub(crate) key_norm: Option<RmsNorm>,
    /// In the order of [`super::LINEARS`].
    pub(crate) linears: [Linear; 7],
}

/// A frozen language model.
#[derive(Debug, Clone)]
pub struct Decoder {
    architecture: Architecture,
    rope: Rope,
    /// Vocabulary × width.
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: RmsNorm,
    /// To the vocabulary; the embedding itself where they are tied.
    pub(crate) head: Linear,
}

/// How a batch is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Beside the frozen weights.
    pub adapter: Option<&'a Adapter>,
    /// Seed of this step's dropout; `None` drops nothing.
    pub dropout_seed: Option<u64>,
    /// No gradients will be asked for.
    pub frozen: bool,
}

/// What is known about a batch's targets.
#[derive(Debug)]
pub struct Scores {
    /// Natural logarithm of each target's probability; one value a target (nats), differentiable with respect to the
    /// adapter.
    pub log_probabilities: Tensor,
    /// Normalised hidden states that predict the targets: targets × width, differentiable as above.
    pub states: Tensor,
    found: Arc<Mutex<Found>>,
}

impl Scores {
    /// Entropy of the distribution at each target (nats).
    #[must_use]
    pub fn entropy(&self) -> Vec<f32> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).entropy.clone()
    }
}

/// A layer's input, where it was cut off for recomputation.
struct Cut {
    input: Var,
    output: Tensor,
}

impl Decoder {
    pub(super) fn assemble(
        architecture: Architecture,
        rope: Rope,
        (embedding, layers, norm, head): (Tensor, Vec<Layer>, RmsNorm, Linear),
    ) -> Result<Self> {
        let decoder = Self { architecture, rope, embedding, layers, norm, head };
        decoder.check().map_err(|problem| NnError::Weights { path: "weights".into(), problem })?;
        Ok(decoder)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let Architecture { width, inner, heads, .. } = &self.architecture;
        let (query, key) = (heads.query * heads.width, heads.key * heads.width);
        let dims = [
            (query, *width),
            (key, *width),
            (key, *width),
            (*width, query),
            (*inner, *width),
            (*inner, *width),
            (*width, *inner),
        ];
        for (l, layer) in self.layers.iter().enumerate() {
            for ((linear, dims), name) in layer.linears.iter().zip(dims).zip(super::LINEARS) {
                let found = linear.dims().map_err(|error| error.to_string())?;
                if found != dims {
                    return Err(format!("layer {l}'s {name} is {found:?}, its sizes say {dims:?}"));
                }
            }
        }
        Ok(())
    }

    /// Its shape.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Where it lives.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.embedding.dims().first().copied().unwrap_or(0)
    }

    /// Names the weights: SHA-256 in hex over every norm and over the first row of every linear map, which training
    /// changes all.
    ///
    /// # Errors
    /// When a weight can not be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut add = |tensor: &Tensor| -> Result<()> {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            values.iter().for_each(|value| hash.update(value.to_le_bytes()));
            Ok(())
        };
        add(&self.norm.weight)?;
        for layer in &self.layers {
            add(&layer.attention_norm.weight)?;
            add(&layer.inner_norm.weight)?;
            layer.linears.iter().try_for_each(|linear| add(&linear.weight.narrow(0, 0, 1)?))?;
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Floating point operations of one training step per row, with an adapter: two for each weight going forward,
    /// two for the gradient of each map's input. The low-rank parts and attention are not counted.
    #[must_use]
    pub fn training_flops_per_token(&self) -> f64 {
        let linears = self.layers.iter().flat_map(|layer| &layer.linears);
        let maps: usize = linears.map(|linear| linear.weight.elem_count()).sum();
        4.0 * (maps + self.head.weight.elem_count()) as f64
    }

    /// Hidden states after the last layer, before the last norm: rows × width.
    ///
    /// # Errors
    /// When a token is outside the vocabulary or an operation fails.
    pub fn hidden(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let attention = self.attention(batch);
        let mut x = self.embed(batch)?;
        for l in 0..self.layers.len() {
            x = self.layer((l, &x), &attention, pass)?;
            if pass.frozen {
                // Forgets how it was made, so that each layer's inner values are freed at once.
                x = x.detach();
            }
        }
        Ok(x)
    }

    /// Log-probabilities of a batch's targets.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn scores(&self, batch: &Batch, pass: Pass<'_>) -> Result<Scores> {
        let hidden = self.hidden(batch, pass)?;
        self.scores_of(&hidden, batch, pass.adapter.is_some() && !pass.frozen)
    }

    /// [`Decoder::hidden`] after the last norm, and [`Decoder::scores`], in one pass.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn hidden_and_scores(&self, batch: &Batch, pass: Pass<'_>) -> Result<(Tensor, Scores)> {
        let hidden = self.hidden(batch, pass)?;
        let scores = self.scores_of(&hidden, batch, pass.adapter.is_some() && !pass.frozen)?;
        Ok((self.norm.apply(&hidden)?, scores))
    }

    /// The same model at a softmax temperature (above 0): what it draws at 1, and the log-probabilities and gradients it
    /// gives, are those of the distribution that this one draws from at `temperature`. Only the last norm is another one,
    /// by which states are scaled as well.
    ///
    /// # Errors
    /// When a tensor can not be made.
    pub fn at_temperature(&self, temperature: f32) -> Result<Self> {
        // Logits are a linear map of the norm's output, so dividing its weight divides them.
        let weight = (&self.norm.weight / f64::from(temperature))?;
        Ok(Self { norm: RmsNorm { weight, ..self.norm.clone() }, ..self.clone() })
    }

    fn scores_of(&self, hidden: &Tensor, batch: &Batch, differentiable: bool) -> Result<Scores> {
        let rows: Vec<u32> = batch.targets.iter().map(|target| target.row as u32).collect();
        let rows = Tensor::from_vec(rows, batch.targets.len(), self.device())?;
        let states = self.norm.apply(&hidden.index_select(&rows, 0)?)?;
        let found = Arc::default();
        let log_probabilities = states.apply_op1(LogProbabilities {
            head: self.head.clone(),
            tokens: Arc::new(batch.targets.iter().map(|target| target.token).collect()),
            differentiable,
            found: Arc::clone(&found),
        })?;
        Ok(Scores { log_probabilities, states, found })
    }

    /// Scores a batch and works out the gradients of `loss(scores)` while keeping only one layer's inner values at a
    /// time: about a third more arithmetic for a small part of the memory. Gives the loss and the gradients in the
    /// order of [`Adapter::variables`].
    ///
    /// # Errors
    /// As [`Decoder::hidden`], and when `loss` fails.
    pub fn checkpointed_backward(
        &self,
        batch: &Batch,
        (adapter, pass): (&Adapter, Pass<'_>),
        loss: impl FnOnce(&Scores) -> Result<Tensor>,
    ) -> Result<(f32, Vec<Option<Tensor>>)> {
        let attention = self.attention(batch);
        let pass = Pass { adapter: Some(adapter), ..pass };
        let mut inputs = vec![self.embed(batch)?];
        for l in 0..self.layers.len() {
            let input = inputs.last().cloned().ok_or_else(|| candle_core::Error::Msg("no input".into()))?;
            inputs.push(self.layer((l, &input), &attention, pass)?.detach());
        }
        let last = Var::from_tensor(&inputs.pop().unwrap_or_else(|| self.embedding.clone()))?;
        let value = loss(&self.scores_of(last.as_tensor(), batch, true)?)?;
        let mut gradients = value.backward()?;
        let mut upstream = gradients.remove(&last);
        let mut found = vec![None; adapter.variables().len()];
        for l in (0..self.layers.len()).rev() {
            let (Some(grad), Some(input)) = (upstream.take(), inputs.pop()) else { break };
            let input = Var::from_tensor(&input)?;
            let cut = Cut { output: self.layer((l, input.as_tensor()), &attention, pass)?, input };
            let mut gradients = (&cut.output * &grad)?.sum_all()?.backward()?;
            upstream = gradients.remove(&cut.input);
            for (i, pair) in adapter.layers[l].iter().enumerate() {
                found[(l * 7 + i) * 2] = gradients.remove(&pair.a);
                found[(l * 7 + i) * 2 + 1] = gradients.remove(&pair.b);
            }
        }
        Ok((value.to_scalar()?, found))
    }

    fn attention(&self, batch: &Batch) -> Attention {
        Attention {
            heads: self.architecture.heads,
            groups: Arc::new(batch.groups.clone()),
            rotation: Arc::new(self.rope.at(&batch.positions)),
        }
    }

    pub(crate) fn rotation(&self, positions: &[u32]) -> Rotation {
        self.rope.at(positions)
    }

    pub(crate) fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let tokens = Tensor::from_slice(&batch.tokens, batch.tokens.len(), self.device())?;
        Ok(self.embedding.index_select(&tokens, 0)?)
    }

    fn layer(&self, (l, x): (usize, &Tensor), attention: &Attention, pass: Pass<'_>) -> Result<Tensor> {
        let layer = &self.layers[l];
        let linear = |i: usize, x: &Tensor| self.linear((l, i), x, pass);
        let normed = layer.attention_norm.apply(x)?;
        let q = per_head(linear(0, &normed)?, layer.query_norm.as_ref())?;
        let k = per_head(linear(1, &normed)?, layer.key_norm.as_ref())?;
        let attended = q.apply_op3(&k, &linear(2, &normed)?, attention.clone())?;
        let x = (x + linear(3, &attended)?)?;
        let normed = layer.inner_norm.apply(&x)?;
        let gated = linear(4, &normed)?.apply_op2(&linear(5, &normed)?, SwiGlu)?;
        Ok((&x + linear(6, &gated)?)?)
    }

    fn linear(&self, (l, i): (usize, usize), x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let base = self.layers[l].linears[i].clone();
        let Some(adapter) = pass.adapter else {
            return Ok(x.apply_op1(base)?);
        };
        let Pair { a, b } = &adapter.layers[l][i];
        let share = adapter.shape().dropout;
        let place = (l * 7 + i) as u64;
        let dropout = pass.dropout_seed.filter(|_| share > 0.0).map(|seed| Dropout {
            share,
            // Each layer of each step drops other values.
            seed: seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(place << 32),
        });
        let op = LoraLinear { base, scale: adapter.shape().scale(), dropout };
        Ok(x.apply_op3(a, b, op)?)
    }
}

/// Normalises each head of rows × (heads · width), where the family does.
fn per_head(x: Tensor, norm: Option<&RmsNorm>) -> Result<Tensor> {
    let Some(norm) = norm else { return Ok(x) };
    let (rows, columns) = x.dims2()?;
    let width = norm.weight.elem_count();
    Ok(norm.apply(&x.reshape((rows * columns / width, width))?)?.reshape((rows, columns))?)
}
