//! Which models are used, and where are they kept?

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The format weights are served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// What was measured to serve best on this kind of device (`benches/RESULTS.md`).
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit blocks.
    Q8_0,
}

/// Which models, and where they are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// The base model: a name of `models/catalog.toml`, a path to a GGUF file or to a folder with safetensors, or a
    /// hub id (`owner/name` or `owner/name/file.gguf`). Default `smollm2-135m-instruct`.
    pub base: String,
    /// The sentence model for hybrid retrieval, same forms; empty means BM25 alone. Default `all-minilm-l6-v2`.
    pub sentence: String,
    /// Where base models and their conversions are cached, shared by data directories. Default: `attune/models` in
    /// the user's cache folder.
    pub cache: Option<PathBuf>,
    /// The format weights are served in: `auto`, `f32`, `f16` or `q8_0`. Default `auto`.
    pub weight_format: WeightFormat,
    /// Never fetch: what is missing is an error. Default false.
    pub offline: bool,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            base: "smollm2-135m-instruct".into(),
            sentence: "all-minilm-l6-v2".into(),
            cache: None,
            weight_format: WeightFormat::Auto,
            offline: false,
        }
    }
}

impl ModelsConfig {
    /// The folder of cached models.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        if let Some(dir) = &self.cache {
            return dir.clone();
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("attune").join("models")
    }
}
