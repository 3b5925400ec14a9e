//! How do weights get from a file into memory? GGUF of any quantisation, dequantised once, or safetensors.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};

use super::architecture::{Architecture, Family};
use super::decoder::{Decoder, Layer};
use super::ops::{Linear, RmsNorm};
use super::rope::Rope;
use super::{NnError, Result};

/// Tensors by the names GGUF gives them.
struct Named {
    path: String,
    tensors: BTreeMap<String, Tensor>,
}

impl Named {
    fn take(&mut self, name: &str) -> Result<Tensor> {
        self.optional(name).ok_or_else(|| self.problem(format!("it has no tensor {name}")))
    }

    fn optional(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name)
    }

    fn problem(&self, problem: impl ToString) -> NnError {
        NnError::Weights { path: self.path.clone(), problem: problem.to_string() }
    }
}

impl Decoder {
    /// Reads a model into the memory of the processor that trains: see [`Decoder::load`].
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::load(path, &Device::Cpu)
    }

    /// Reads a model: a GGUF file, or a folder with `config.json` and `*.safetensors`.
    ///
    /// # Errors
    /// When files are missing or damaged, or the family is not known.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        if path.is_dir() { from_folder(path, device) } else { from_gguf(path, device) }
    }
}

fn from_gguf(path: &Path, device: &Device) -> Result<Decoder> {
    let named = |problem: String| NnError::Weights { path: path.display().to_string(), problem };
    let io = |source| NnError::Io { path: path.display().to_string(), source };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let content = Content::read(&mut file).map_err(|error| named(error.to_string()))?;
    let mut architecture = Architecture::from_gguf(&content).map_err(named)?;
    let mut tensors = BTreeMap::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        tensors.insert(name.clone(), tensor.to_device(device)?);
    }
    let mut tensors = Named { path: path.display().to_string(), tensors };
    if let Some(factors) = tensors.optional("rope_freqs.weight") {
        architecture.rope_factors = factors.to_vec1()?;
    }
    assemble(architecture, tensors)
}

fn from_folder(folder: &Path, device: &Device) -> Result<Decoder> {
    let named = |problem: String| NnError::Weights { path: folder.display().to_string(), problem };
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| NnError::Io { path, source }
    };
    let config = folder.join("config.json");
    let text = fs::read_to_string(&config).map_err(io(&config))?;
    let architecture = Architecture::from_json(&text).map_err(named)?;
    let mut tensors = BTreeMap::new();
    let mut paths: Vec<_> =
        fs::read_dir(folder).map_err(io(folder))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "safetensors")) {
        for (name, tensor) in candle_core::safetensors::load(path, device)? {
            if let Some(name) = gguf_name(&name) {
                tensors.insert(name, tensor.to_dtype(DType::F32)?.contiguous()?);
            }
        }
    }
    assemble(architecture, Named { path: folder.display().to_string(), tensors })
}

/// The name that GGUF has for a tensor of a safetensors file.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// GGUF's names of a layer's linear maps, in the order of [`super::LINEARS`].
pub(super) const GGUF_LINEARS: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

fn assemble(architecture: Architecture, mut tensors: Named) -> Result<Decoder> {
    let eps = architecture.eps;
    let embedding = tensors.take("token_embd.weight")?;
    let head = tensors.optional("output.weight").unwrap_or_else(|| embedding.clone());
    let head = Linear::new(head, None)?;
    let norm = RmsNorm { weight: tensors.take("output_norm.weight")?, eps };
    let mut layers = Vec::with_capacity(architecture.layers);
    for layer in 0..architecture.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let mut linears = Vec::with_capacity(GGUF_LINEARS.len());
        for part in GGUF_LINEARS {
            let weight = tensors.take(&name(&format!("{part}.weight")))?;
            linears.push(Linear::new(weight, tensors.optional(&name(&format!("{part}.bias"))))?);
        }
        let linears: [Linear; 7] =
            linears.try_into().map_err(|_| tensors.problem("a layer has seven linear maps"))?;
        let head_norm = |tensors: &mut Named, part: &str| match architecture.family {
            Family::Qwen3 => Ok::<_, NnError>(Some(RmsNorm { weight: tensors.take(&name(part))?, eps })),
            _ => Ok(None),
        };
        layers.push(Layer {
            attention_norm: RmsNorm { weight: tensors.take(&name("attn_norm.weight"))?, eps },
            inner_norm: RmsNorm { weight: tensors.take(&name("ffn_norm.weight"))?, eps },
            query_norm: head_norm(&mut tensors, "attn_q_norm.weight")?,
            key_norm: head_norm(&mut tensors, "attn_k_norm.weight")?,
            linears,
        });
    }
    let rope = Rope {
        theta: architecture.theta,
        width: architecture.heads.width,
        factors: architecture.rope_factors.clone(),
        pairing: architecture.pairing,
    };
    Decoder::assemble(architecture, rope, (embedding, layers, norm, head))
}
