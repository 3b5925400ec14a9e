//! Tiny random models, and the same forward pass in plain tensor operations.

use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::nn::attention::Heads;
use crate::nn::decoder::Layer;
use crate::nn::ops::{Linear, RmsNorm};
use crate::nn::weights::GGUF_LINEARS;
use crate::nn::{Adapter, AdapterShape, Architecture, Decoder, Family, Pairing, Rope};

pub(crate) const VOCABULARY: usize = 60;

pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| random.random_range(-1.0f32..1.0)).collect()
}

pub(crate) fn tensor(seed: u64, dims: &[usize], scale: f64) -> Tensor {
    let values = random(seed, dims.iter().product());
    (Tensor::from_vec(values, dims, &Device::Cpu).unwrap() * scale).unwrap()
}

pub(crate) fn words(seed: u64, len: usize) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| random.random_range(0..VOCABULARY as u32)).collect()
}

pub(crate) fn tiny(family: Family) -> Decoder {
    model(family, 24, VOCABULARY)
}

pub(crate) fn wider() -> Decoder {
    model(Family::Llama, 32, VOCABULARY)
}

/// For a tokenizer with this many tokens.
pub(crate) fn with_vocabulary(vocabulary: usize) -> Decoder {
    model(Family::Llama, 24, vocabulary)
}

fn model(family: Family, width: usize, vocabulary: usize) -> Decoder {
    let heads = Heads { query: 4, key: 2, width: 6 };
    let architecture = Architecture {
        family,
        width,
        inner: 40,
        layers: 2,
        heads,
        eps: 1e-5,
        theta: 10_000.0,
        rope_factors: vec![],
        pairing: if family == Family::Llama { Pairing::Neighbours } else { Pairing::Halves },
    };
    let mut seed = 1000;
    let mut next = |dims: &[usize], scale: f64| {
        seed += 1;
        tensor(seed, dims, scale)
    };
    let norm = |values: Tensor| RmsNorm { weight: (values + 1.0).unwrap(), eps: 1e-5 };
    let mut layers = Vec::new();
    for _ in 0..2 {
        let (query, key) = (heads.query * heads.width, heads.key * heads.width);
        let dims = [
            (query, width),
            (key, width),
            (key, width),
            (width, query),
            (40, width),
            (40, width),
            (width, 40),
        ];
        let linears = dims.map(|(outputs, inputs)| {
            let biased = family == Family::Qwen2 && inputs == width && outputs <= query && outputs != 40;
            let bias = biased.then(|| next(&[outputs], 0.3));
            Linear::new(next(&[outputs, inputs], 0.4), bias).unwrap()
        });
        let with_head_norms = family == Family::Qwen3;
        layers.push(Layer {
            attention_norm: norm(next(&[width], 0.2)),
            inner_norm: norm(next(&[width], 0.2)),
            query_norm: with_head_norms.then(|| norm(next(&[heads.width], 0.2))),
            key_norm: with_head_norms.then(|| norm(next(&[heads.width], 0.2))),
            linears,
        });
    }
    let embedding = next(&[vocabulary, width], 1.0);
    let rope = Rope {
        theta: architecture.theta,
        width: heads.width,
        factors: vec![],
        pairing: architecture.pairing,
    };
    let head = Linear::new(embedding.clone(), None).unwrap();
    Decoder::assemble(architecture, rope, (embedding, layers, norm(next(&[width], 0.2)), head)).unwrap()
}

/// An adapter that changes something, with dropout.
pub(crate) fn adapter(decoder: &Decoder) -> Adapter {
    filled(decoder, 0.1)
}

pub(crate) fn without_dropout(decoder: &Decoder) -> Adapter {
    filled(decoder, 0.0)
}

/// Of another rank and scale.
pub(crate) fn other_adapter(decoder: &Decoder) -> Adapter {
    fill(Adapter::new(decoder, AdapterShape { rank: 2, alpha: 3.0, dropout: 0.0 }, 6).unwrap(), 500)
}

fn filled(decoder: &Decoder, dropout: f32) -> Adapter {
    fill(Adapter::new(decoder, AdapterShape { rank: 3, alpha: 6.0, dropout }, 5).unwrap(), 0)
}

fn fill(adapter: Adapter, first: u64) -> Adapter {
    for (seed, pair) in (first..).zip(adapter.layers.iter().flatten()) {
        pair.b.set(&tensor(seed, pair.b.dims(), 0.3)).unwrap();
    }
    adapter
}

/// Log-probabilities of every token after the first, one whole text, by plain tensor operations.
pub(crate) fn reference(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
    let rows = tokens.len();
    let ids = Tensor::new(tokens, &Device::Cpu).unwrap();
    let mut x = decoder.embedding.index_select(&ids, 0).unwrap();
    for layer in &decoder.layers {
        let normed = norm(&x, &layer.attention_norm);
        let [q, k, v, o, gate, up, down] = &layer.linears;
        let (q, k) = (linear(&normed, q), linear(&normed, k));
        let attended = attention(decoder, layer, (&q, &k, &linear(&normed, v)));
        x = (x + linear(&attended, o)).unwrap();
        let normed = norm(&x, &layer.inner_norm);
        let gates = linear(&normed, gate);
        let silu = (&gates / ((gates.neg().unwrap().exp().unwrap()) + 1.0).unwrap()).unwrap();
        x = (x + linear(&(silu * linear(&normed, up)).unwrap(), down)).unwrap();
    }
    let logits = linear(&norm(&x, &decoder.norm), &decoder.head);
    let log_sum = logits.log_sum_exp(D::Minus1).unwrap().to_vec1::<f32>().unwrap();
    let logits = logits.to_vec2::<f32>().unwrap();
    (1..rows).map(|i| logits[i - 1][tokens[i] as usize] - log_sum[i - 1]).collect()
}

fn linear(x: &Tensor, map: &Linear) -> Tensor {
    let y = x.matmul(&map.weight.t().unwrap()).unwrap();
    map.bias.as_ref().map_or(y.clone(), |bias| y.broadcast_add(bias).unwrap())
}

fn norm(x: &Tensor, norm: &RmsNorm) -> Tensor {
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let root = (mean + f64::from(norm.eps)).unwrap().sqrt().unwrap();
    x.broadcast_div(&root).unwrap().broadcast_mul(&norm.weight).unwrap()
}

fn attention(decoder: &Decoder, layer: &Layer, (q, k, v): (&Tensor, &Tensor, &Tensor)) -> Tensor {
    let Heads { query, key, width } = decoder.architecture().heads;
    let rows = q.dims()[0];
    let split = |x: &Tensor, heads: usize| x.reshape((rows, heads, width)).unwrap();
    let maybe = |x: Tensor, by: &Option<RmsNorm>| by.as_ref().map_or(x.clone(), |by| norm(&x, by));
    let q = rotate(decoder, &maybe(split(q, query), &layer.query_norm));
    let k = rotate(decoder, &maybe(split(k, key), &layer.key_norm));
    let v = split(v, key);
    let mask: Vec<f32> =
        (0..rows * rows).map(|i| if i % rows > i / rows { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (rows, rows), &Device::Cpu).unwrap();
    let heads: Vec<Tensor> = (0..query)
        .map(|h| {
            let at =
                |x: &Tensor, h: usize| x.narrow(1, h, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
            let shared = h / (query / key);
            let scores = at(&q, h).matmul(&at(&k, shared).t().unwrap()).unwrap();
            let scores = ((scores / (width as f64).sqrt()).unwrap() + &mask).unwrap();
            let top = scores.max_keepdim(D::Minus1).unwrap();
            let p = scores.broadcast_sub(&top).unwrap().exp().unwrap();
            let p = p.broadcast_div(&p.sum_keepdim(D::Minus1).unwrap()).unwrap();
            p.matmul(&at(&v, shared)).unwrap()
        })
        .collect();
    Tensor::cat(&heads, 1).unwrap()
}

/// Pairs turned by complex multiplication, written apart from the product's code.
fn rotate(decoder: &Decoder, x: &Tensor) -> Tensor {
    let Architecture { theta, pairing, .. } = decoder.architecture();
    let mut values = x.to_vec3::<f32>().unwrap();
    for (position, row) in values.iter_mut().enumerate() {
        for head in row {
            let old = head.clone();
            let half = old.len() / 2;
            for i in 0..half {
                let angle = f64::from(position as u32) * f64::from(*theta).powf(-(i as f64) / half as f64);
                let (a, b) = match pairing {
                    Pairing::Neighbours => (2 * i, 2 * i + 1),
                    Pairing::Halves => (i, i + half),
                };
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                (head[a], head[b]) = (old[a] * cos - old[b] * sin, old[a] * sin + old[b] * cos);
            }
        }
    }
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn named(decoder: &Decoder) -> Vec<(String, Tensor)> {
    let mut all = vec![
        ("token_embd.weight".to_owned(), decoder.embedding.clone()),
        ("output_norm.weight".to_owned(), decoder.norm.weight.clone()),
    ];
    for (l, layer) in decoder.layers.iter().enumerate() {
        all.push((format!("blk.{l}.attn_norm.weight"), layer.attention_norm.weight.clone()));
        all.push((format!("blk.{l}.ffn_norm.weight"), layer.inner_norm.weight.clone()));
        for (name, linear) in GGUF_LINEARS.iter().zip(&layer.linears) {
            all.push((format!("blk.{l}.{name}.weight"), linear.weight.clone()));
            if let Some(bias) = &linear.bias {
                all.push((format!("blk.{l}.{name}.bias"), bias.clone()));
            }
        }
    }
    all
}

pub(crate) fn write_gguf(decoder: &Decoder, path: &Path) {
    let a = decoder.architecture();
    let name = "qwen2";
    let number = |value: usize| Value::U32(value as u32);
    let metadata = [
        ("general.architecture".to_owned(), Value::String(name.into())),
        (format!("{name}.embedding_length"), number(a.width)),
        (format!("{name}.feed_forward_length"), number(a.inner)),
        (format!("{name}.block_count"), number(a.layers)),
        (format!("{name}.attention.head_count"), number(a.heads.query)),
        (format!("{name}.attention.head_count_kv"), number(a.heads.key)),
        (format!("{name}.attention.key_length"), number(a.heads.width)),
        (format!("{name}.attention.layer_norm_rms_epsilon"), Value::F32(a.eps)),
        (format!("{name}.rope.freq_base"), Value::F32(a.theta)),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(String, QTensor)> = named(decoder)
        .into_iter()
        .map(|(name, tensor)| (name, QTensor::quantize(&tensor, GgmlDType::F32).unwrap()))
        .collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

pub(crate) fn write_folder(decoder: &Decoder, folder: &Path) {
    let a = decoder.architecture();
    let config = serde_json::json!({
        "model_type": "qwen2", "hidden_size": a.width, "intermediate_size": a.inner,
        "num_hidden_layers": a.layers, "num_attention_heads": a.heads.query,
        "num_key_value_heads": a.heads.key, "head_dim": a.heads.width, "rms_norm_eps": a.eps,
        "rope_theta": a.theta,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let renamed = |name: String| {
        let pairs = [
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
            ("blk.", "model.layers."),
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_", "mlp."),
        ];
        let name = pairs.iter().fold(name, |name, (from, to)| name.replace(from, to));
        ["gate", "up", "down"]
            .iter()
            .fold(name, |name, part| name.replace(&format!("mlp.{part}."), &format!("mlp.{part}_proj.")))
    };
    let tensors = named(decoder).into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
