//! What does a text mean, as a vector? all-MiniLM-L6-v2 on candle.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use sha2::{Digest, Sha256};
use tokenizers::{Tokenizer, TruncationParams};

use super::RetrievalError;
use super::schema::DIMENSIONS;
use super::search::beginning;

/// Longest text in tokens; the model was trained on 128 and its authors cut at 256.
const MAX_TOKENS: usize = 256;

/// Longest text that is tokenised at all: 256 tokens have rarely more than 2 KiB, and never usefully more than this.
const MAX_BYTES: usize = 16 * 1024;

/// Tokens that go through the model at once: enough to keep the cores busy, few enough to stay in their caches.
const BATCH_TOKENS: usize = 2048;

/// A sentence model. Calls may come from any number of threads.
pub struct SentenceEncoder {
    model: BertModel,
    tokenizer: Tokenizer,
    device: Device,
    id: String,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentenceEncoder")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SentenceEncoder {
    /// Loads `config.json`, `tokenizer.json` and `model.safetensors` from a folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the vectors do not have 384 dimensions.
    pub fn load(dir: &Path) -> Result<Self, RetrievalError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| RetrievalError::Unreadable { path, source })
        };
        let config: Config = serde_json::from_slice(&read("config.json")?)
            .map_err(|error| unusable(dir.join("config.json"), error))?;
        if config.hidden_size != DIMENSIONS {
            let problem = format!(
                "the model has {} dimensions, not {DIMENSIONS}",
                config.hidden_size
            );
            return Err(unusable(dir.join("config.json"), problem));
        }
        let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)
            .map_err(|error| unusable(dir.join("tokenizer.json"), error))?;
        let truncation = TruncationParams {
            max_length: MAX_TOKENS,
            ..TruncationParams::default()
        };
        tokenizer
            .with_padding(None)
            .with_truncation(Some(truncation))
            .map_err(|error| unusable(dir.join("tokenizer.json"), error))?;
        let weights = read("model.safetensors")?;
        let id = format!("minilm-{}", hex::encode(&Sha256::digest(&weights)[..8]));
        let device = Device::Cpu;
        let vars = VarBuilder::from_buffered_safetensors(weights, DType::F32, &device)
            .map_err(|error| unusable(dir.join("model.safetensors"), error))?;
        let model =
            BertModel::load(vars, &config).map_err(|error| unusable(dir.join("model.safetensors"), error))?;
        Ok(Self {
            model,
            tokenizer,
            device,
            id,
        })
    }

    /// Names the weights: vectors of different ids can not be compared.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A vector of length 1 for each text, in order; texts of more than 256 tokens are cut.
    ///
    /// # Errors
    /// When a text can not be tokenised or the model fails.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<[f32; DIMENSIONS]>, RetrievalError> {
        let texts: Vec<&str> = texts.iter().map(|text| beginning(text, MAX_BYTES)).collect();
        let tokens: Vec<Vec<u32>> = self
            .tokenizer
            .encode_batch(texts, true)
            .map_err(|error| unusable("tokenizer.json".into(), error))?
            .iter()
            .map(|encoding| encoding.get_ids().to_vec())
            .collect();
        // Texts of one length go together: padding would be computed like text.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| tokens[i].len());
        let mut vectors = vec![[0.0; DIMENSIONS]; tokens.len()];
        for same_length in order.chunk_by(|&a, &b| tokens[a].len() == tokens[b].len()) {
            let length = tokens[same_length[0]].len();
            for batch in same_length.chunks((BATCH_TOKENS / length.max(1)).max(1)) {
                let ids: Vec<u32> = batch.iter().flat_map(|&i| tokens[i].iter().copied()).collect();
                for (&i, vector) in batch.iter().zip(self.forward(ids, (batch.len(), length))?) {
                    vectors[i].copy_from_slice(&vector);
                }
            }
        }
        Ok(vectors)
    }

    /// Token ids `(texts, length)` to normalised means `(texts, DIMENSIONS)`.
    fn forward(&self, ids: Vec<u32>, shape: (usize, usize)) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let types = ids.zeros_like()?;
        let mean = self.model.forward(&ids, &types, None)?.mean(1)?;
        let length = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
        mean.broadcast_div(&length)?.to_vec2()
    }
}

fn unusable(path: PathBuf, problem: impl std::fmt::Display) -> RetrievalError {
    RetrievalError::Model {
        path,
        problem: problem.to_string(),
    }
}
