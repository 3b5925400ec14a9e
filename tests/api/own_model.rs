//! A model of one's own: a folder with safetensors, as it comes from a training run or a hub, served by the engine.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Setup, asking};

/// Size of the hidden state and of the vocabulary, of which 256 are bytes.
const HIDDEN: usize = 32;
const VOCABULARY: usize = 258;

/// Writes a Llama with random weights: what it says means nothing, but it says the same each time.
pub(crate) fn write_model(folder: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "vocab_size": VOCABULARY,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": true,
        "eos_token_id": 256, "bos_token_id": 256, "torch_dtype": "float32"
    });
    let template = "{% for message in messages %}<|start|>{{ message.role }}: {{ message.content }}<|end|>{% endfor %}\
                    {% if add_generation_prompt %}<|start|>assistant: {% endif %}";
    let settings = json!({"eos_token": "<|end|>", "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    candle_core::safetensors::save(&weights(), folder.join("model.safetensors")).unwrap();
}

/// One token a byte.
fn tokenizer() -> serde_json::Value {
    let mut letters: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let vocabulary: BTreeMap<String, usize> =
        letters.into_iter().enumerate().map(|(id, letter)| (letter.to_string(), id)).collect();
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(256, "<|end|>"), special(257, "<|start|>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
    })
}

fn weights() -> HashMap<String, Tensor> {
    // A stream of numbers in [-0.25, 0.25) that is the same everywhere.
    let mut state = 1_u32;
    let mut random = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from(u16::try_from(state >> 16).unwrap()) / 131_072.0 - 0.25
            })
            .collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    };
    let ones = || Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut weights = HashMap::from([
        ("model.embed_tokens.weight".to_owned(), random(VOCABULARY, HIDDEN)),
        ("model.norm.weight".to_owned(), ones()),
    ]);
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for (part, rows, columns) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HIDDEN / 2, HIDDEN),
            ("self_attn.v_proj", HIDDEN / 2, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", 2 * HIDDEN, HIDDEN),
            ("mlp.up_proj", 2 * HIDDEN, HIDDEN),
            ("mlp.down_proj", HIDDEN, 2 * HIDDEN),
        ] {
            weights.insert(name(part), random(rows, columns));
        }
        weights.insert(name("input_layernorm"), ones());
        weights.insert(name("post_attention_layernorm"), ones());
    }
    weights
}

#[tokio::test]
async fn a_folder_with_safetensors_is_served() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let app = Setup::default().model(folder.path()).start().await;
    let mut body = asking("Where?");
    (body["max_tokens"], body["seed"], body["temperature"]) = (json!(12), json!(3), json!(1.0));
    let (status, first) = app.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    let tokens = first["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((1..=12).contains(&tokens), "{first}");
    let (_, again) = app.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(first["choices"][0]["message"]["content"], again["choices"][0]["message"]["content"]);
    body["seed"] = json!(4);
    let (_, other) = app.post("/v1/chat/completions", body).await;
    assert_ne!(first["choices"][0]["message"]["content"], other["choices"][0]["message"]["content"]);
    let (_, models) = app.get("/v1/models").await;
    let served = models["data"].as_array().unwrap();
    assert!(served.iter().any(|model| model["id"] == first["model"]), "{models}");
}
