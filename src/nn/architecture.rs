//! What shape does a model have? Read from a GGUF header or a `config.json`.

use candle_core::quantized::gguf_file::{Content, Value};
use serde::Deserialize;

use super::attention::Heads;
use super::rope::Pairing;

/// Families of decoders that are known; what tells them apart is in [`Architecture`]'s fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama, Mistral, `SmolLM2`.
    Llama,
    /// Biases on q, k and v.
    Qwen2,
    /// A norm on each head of q and k.
    Qwen3,
}

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Which family.
    pub family: Family,
    /// Width of the hidden state.
    pub width: usize,
    /// Width of the gated layer.
    pub inner: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Added to the mean square in norms.
    pub eps: f32,
    /// Base of the rotary frequencies.
    pub theta: f32,
    /// Divides each rotary frequency; empty for none.
    pub rope_factors: Vec<f32>,
    /// Layout of rotary pairs in the stored weights.
    pub pairing: Pairing,
}

impl Family {
    fn named(name: &str) -> Option<Self> {
        match name {
            "llama" | "mistral" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }
}

impl Architecture {
    /// From a GGUF header; `rope_factors` stay empty (they are a tensor of the file).
    pub(super) fn from_gguf(content: &Content) -> Result<Self, String> {
        let metadata = &content.metadata;
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_string().ok());
        let name = text("general.architecture").map(String::as_str).unwrap_or_default();
        let family =
            Family::named(name).ok_or_else(|| format!("architecture {name:?} can not be trained"))?;
        let find = |key: &str| metadata.get(&format!("{name}.{key}"));
        let count = |key: &str| {
            let value = find(key).and_then(as_count);
            value.ok_or_else(|| format!("it has no {name}.{key}"))
        };
        let real = |key: &str| find(key).and_then(|value| value.to_f32().ok());
        let (width, query) = (count("embedding_length")?, count("attention.head_count")?);
        let key = find("attention.head_count_kv").and_then(as_count).unwrap_or(query);
        let per_head = find("attention.key_length").and_then(as_count);
        let architecture = Self {
            family,
            width,
            inner: count("feed_forward_length")?,
            layers: count("block_count")?,
            heads: Heads { query, key, width: per_head.unwrap_or(width / query.max(1)) },
            eps: real("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            theta: real("rope.freq_base").unwrap_or(10_000.0),
            rope_factors: Vec::new(),
            // Converters reorder q and k of the Llama family so that pairs are neighbours.
            pairing: if family == Family::Llama { Pairing::Neighbours } else { Pairing::Halves },
        };
        architecture.checked()
    }

    /// From the text of a `config.json`.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let family = Family::named(&json.model_type)
            .ok_or_else(|| format!("model_type {:?} can not be trained", json.model_type))?;
        let query = json.num_attention_heads;
        let width = json.head_dim.unwrap_or(json.hidden_size / query.max(1));
        let rope_factors = match &json.rope_scaling {
            None => Vec::new(),
            Some(scaling) => scaling.factors(json.rope_theta, width)?,
        };
        let architecture = Self {
            family,
            width: json.hidden_size,
            inner: json.intermediate_size,
            layers: json.num_hidden_layers,
            heads: Heads { query, key: json.num_key_value_heads.unwrap_or(query), width },
            eps: json.rms_norm_eps,
            theta: json.rope_theta,
            rope_factors,
            pairing: Pairing::Halves,
        };
        architecture.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let Heads { query, key, width } = self.heads;
        let sizes = [self.width, self.inner, self.layers, query, key, width];
        if sizes.contains(&0) || query % key != 0 || width % 2 != 0 {
            return Err(format!("its sizes do not go together: {sizes:?}"));
        }
        Ok(self)
    }
}

fn as_count(value: &Value) -> Option<usize> {
    value.to_u64().ok().or_else(|| value.to_u32().ok().map(u64::from)).and_then(|n| n.try_into().ok())
}

#[derive(Deserialize)]
struct Json {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f32,
    #[serde(default = "default_theta")]
    rope_theta: f32,
    rope_scaling: Option<Scaling>,
}

fn default_theta() -> f32 {
    10_000.0
}

#[derive(Deserialize)]
struct Scaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

impl Scaling {
    /// The divisor of each frequency, for the scaling of Llama 3 (frequencies of long waves are divided by `factor`,
    /// those of short ones kept, those between interpolated) and for none.
    fn factors(&self, theta: f32, width: usize) -> Result<Vec<f32>, String> {
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(Vec::new()),
            Some("linear") => Ok(vec![self.factor.unwrap_or(1.0); width / 2]),
            Some("llama3") => {
                let factor = self.factor.unwrap_or(8.0);
                let (low, high) = (self.low_freq_factor.unwrap_or(1.0), self.high_freq_factor.unwrap_or(4.0));
                let context = self.original_max_position_embeddings.unwrap_or(8192.0);
                let divisor = |i: usize| {
                    let frequency = theta.powf(-2.0 * i as f32 / width as f32);
                    let turns = context * frequency / std::f32::consts::TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    1.0 / (kept + (1.0 - kept) / factor)
                };
                Ok((0..width / 2).map(divisor).collect())
            }
            Some(other) => Err(format!("rope_scaling {other:?} is not known")),
        }
    }
}
