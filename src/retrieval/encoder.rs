//! What do a text and its words mean, as vectors? all-MiniLM-L6-v2 on candle.

mod bert;

use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use self::bert::{Bert, Config};
use super::RetrievalError;
use super::schema::DIMENSIONS;
use super::search::beginning;
use super::vectors::dot;

/// Longest text in tokens; the model was trained on 128 and its authors cut at 256.
const MAX_TOKENS: usize = 256;

/// Longest text that is tokenised at all: 256 tokens have rarely more than 2 KiB, and never usefully more than this.
const MAX_BYTES: usize = 16 * 1024;

/// Tokens that go through the model at once: enough to keep the cores busy, few enough to stay in their caches.
const BATCH_TOKENS: usize = 2048;

/// A text as the sentence model reads it.
pub(super) struct Reading {
    /// Its vector, of length 1.
    pub vector: [f32; DIMENSIONS],
    /// Its tokens, in order; those of a text of more than 256 are cut.
    pub tokens: Vec<Token>,
}

/// A token in its text.
pub(super) struct Token {
    /// Bytes of the text that it stands for.
    pub range: Range<usize>,
    /// Whether it only marks where the text begins or ends.
    pub is_special: bool,
    /// Its state in the last layer, scaled to length 1.
    pub vector: [f32; DIMENSIONS],
}

/// A sentence model. Calls may come from any number of threads.
pub struct SentenceEncoder {
    model: Bert,
    tokenizer: Tokenizer,
    id: String,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentenceEncoder").field("id", &self.id).finish_non_exhaustive()
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
            let problem = format!("the model has {} dimensions, not {DIMENSIONS}", config.hidden_size);
            return Err(unusable(dir.join("config.json"), problem));
        }
        let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)
            .map_err(|error| unusable(dir.join("tokenizer.json"), error))?;
        let truncation = TruncationParams { max_length: MAX_TOKENS, ..TruncationParams::default() };
        tokenizer
            .with_padding(None)
            .with_truncation(Some(truncation))
            .map_err(|error| unusable(dir.join("tokenizer.json"), error))?;
        let weights = read("model.safetensors")?;
        let id = format!("minilm-{}", hex::encode(&Sha256::digest(&weights)[..8]));
        let unusable_weights = |error| unusable(dir.join("model.safetensors"), error);
        let tensors = candle_core::safetensors::load_buffer(&weights, &candle_core::Device::Cpu)
            .map_err(unusable_weights)?;
        let model = Bert::new(config, &tensors).map_err(unusable_weights)?;
        Ok(Self { model, tokenizer, id })
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
        let encodings = self.tokenizer.encode_batch(texts, true).map_err(untokenised)?;
        let mut made = Vec::with_capacity(encodings.len());
        let mut rest = encodings.as_slice();
        while !rest.is_empty() {
            let mut total = 0;
            let fitting = rest.iter().take_while(|text| {
                total += text.len();
                total <= BATCH_TOKENS
            });
            let (batch, after) = rest.split_at(fitting.count().max(1));
            let tokens: Vec<&[u32]> = batch.iter().map(Encoding::get_ids).collect();
            made.extend(self.model.states(&tokens)?.iter().map(|states| mean(states)));
            rest = after;
        }
        Ok(made)
    }

    /// As [`SentenceEncoder::encode`] of one text, with a vector for each token, too.
    ///
    /// # Errors
    /// As [`SentenceEncoder::encode`].
    pub(super) fn read(&self, text: &str) -> Result<Reading, RetrievalError> {
        let (encoding, states) = self.states(text)?;
        let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        let token = |((&(start, end), &special), state): ((&(usize, usize), &u32), &[f32])| Token {
            range: start..end,
            is_special: special != 0,
            vector: normalised(state),
        };
        let tokens = places.zip(states.chunks_exact(DIMENSIONS)).map(token).collect();
        Ok(Reading { vector: mean(&states), tokens })
    }

    /// The vectors of a text's tokens, each of length 1, `(tokens, DIMENSIONS)`; those that mark its begin and end are among
    /// them, and those of a text of more than 256 tokens are cut.
    ///
    /// # Errors
    /// As [`SentenceEncoder::encode`].
    pub(super) fn token_vectors(&self, text: &str) -> Result<Vec<f32>, RetrievalError> {
        Ok(self.states(text)?.1.chunks_exact(DIMENSIONS).flat_map(normalised).collect())
    }

    /// A text's tokens and their states, `(tokens, DIMENSIONS)`.
    fn states(&self, text: &str) -> Result<(Encoding, Vec<f32>), RetrievalError> {
        let encoding = self.tokenizer.encode(beginning(text, MAX_BYTES), true).map_err(untokenised)?;
        let states = self.model.states(&[encoding.get_ids()])?.pop().unwrap_or_default();
        Ok((encoding, states))
    }
}

/// The mean of a text's token states, scaled to length 1.
fn mean(states: &[f32]) -> [f32; DIMENSIONS] {
    let mut sum = [0.0; DIMENSIONS];
    for state in states.chunks_exact(DIMENSIONS) {
        sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += value);
    }
    normalised(&sum)
}

fn normalised(vector: &[f32]) -> [f32; DIMENSIONS] {
    let length = dot(vector, vector).sqrt().max(f32::MIN_POSITIVE);
    let mut scaled = [0.0; DIMENSIONS];
    scaled.iter_mut().zip(vector).for_each(|(to, from)| *to = from / length);
    scaled
}

fn untokenised(error: tokenizers::Error) -> RetrievalError {
    unusable("tokenizer.json".into(), error)
}

fn unusable(path: PathBuf, problem: impl std::fmt::Display) -> RetrievalError {
    RetrievalError::Model { path, problem: problem.to_string() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use candle_nn::VarBuilder;
    use candle_transformers::models::bert;

    /// The folder with the model when it was fetched before, or a plain word that the test did not run.
    pub(in crate::retrieval) fn model() -> Option<PathBuf> {
        let config = crate::config::ModelsConfig { offline: true, ..Default::default() };
        let progress = crate::models::for_this_process();
        let folder = crate::models::prepare_sentence(&config, progress.as_ref()).ok().flatten();
        if folder.is_none() {
            println!("skipped: the sentence model is not in the cache; `attune models pull` fetches it");
        }
        folder
    }

    #[test]
    fn vectors_agree_with_a_reference_implementation() {
        let Some(dir) = model() else { return };
        let encoder = SentenceEncoder::load(&dir).unwrap();
        let long = "How many days of annual leave do employees in Dublin get? ".repeat(40);
        let texts = ["Where is the HR department in Boston?", "", long.as_str(), "ok"];
        let vectors = encoder.encode(&texts).unwrap();
        let config = std::fs::read(dir.join("config.json")).unwrap();
        let weights = std::fs::read(dir.join("model.safetensors")).unwrap();
        let vars = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
        let reference = bert::BertModel::load(vars, &serde_json::from_slice(&config).unwrap()).unwrap();
        for (text, vector) in texts.iter().zip(vectors) {
            let ids = encoder.tokenizer.encode(*text, true).unwrap().get_ids().to_vec();
            let ids = Tensor::from_vec(ids.clone(), (1, ids.len()), &Device::Cpu).unwrap();
            let states = reference.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap();
            let reference: Vec<f32> = states.mean(1).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
            let cosine = dot(&normalised(&reference), &vector);
            assert!(cosine > 0.9999, "{text:?}: {cosine}");
        }
    }

    #[test]
    fn related_texts_are_closer_than_unrelated_ones() {
        let Some(dir) = model() else { return };
        let encoder = SentenceEncoder::load(&dir).unwrap();
        let [question, near, far] = encoder
            .encode(&[
                "How much holiday do I get?",
                "Employees have 25 days of annual leave.",
                "The printer is on floor 2.",
            ])
            .unwrap()
            .try_into()
            .unwrap();
        assert!(dot(&question, &near) > dot(&question, &far) + 0.2);
    }

    #[test]
    fn a_folder_without_the_model_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = SentenceEncoder::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
