//! A tiny random model as people would bring one: a folder with `config.json` and safetensors.

use std::collections::HashMap;
use std::path::Path;

use attune::nn::Decoder;
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const VOCABULARY: usize = 96;
const WIDTH: usize = 32;
const INNER: usize = 64;
const LAYERS: usize = 2;

/// Writes the folder and loads it.
pub(crate) fn model(folder: &Path) -> Decoder {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut tensors = HashMap::new();
    let mut put = |name: String, dims: &[usize], scale: f32| {
        let values: Vec<f32> =
            (0..dims.iter().product()).map(|_| random.random_range(-scale..scale)).collect();
        tensors.insert(name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap());
    };
    put("model.embed_tokens.weight".into(), &[VOCABULARY, WIDTH], 1.0);
    for layer in 0..LAYERS {
        let at = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for (part, dims) in [
            ("self_attn.q_proj", [WIDTH, WIDTH]),
            ("self_attn.k_proj", [WIDTH / 2, WIDTH]),
            ("self_attn.v_proj", [WIDTH / 2, WIDTH]),
            ("self_attn.o_proj", [WIDTH, WIDTH]),
            ("mlp.gate_proj", [INNER, WIDTH]),
            ("mlp.up_proj", [INNER, WIDTH]),
            ("mlp.down_proj", [WIDTH, INNER]),
        ] {
            put(at(part), &dims, 0.3);
        }
    }
    let ones = Tensor::ones(WIDTH, candle_core::DType::F32, &Device::Cpu).unwrap();
    for layer in 0..LAYERS {
        for part in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(format!("model.layers.{layer}.{part}.weight"), ones.clone());
        }
    }
    tensors.insert("model.norm.weight".into(), ones);
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    Decoder::open(folder).unwrap()
}
