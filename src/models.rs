//! Which model is used, is it on disk whole, and what does the program need to know about it?

mod catalog;
pub(crate) mod codec;
mod error;
mod fetch;
pub(crate) mod file;
mod gguf;
mod hub;
mod named;
mod progress;
mod python;
mod safetensors;
mod serving;
pub mod template;
mod tokenizer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use tokenizers::Tokenizer;

pub use catalog::{Catalog, Entry, File, Kind, Source, catalog};
pub use codec::{Codec, ModelCodec};
pub use error::{Attempt, ModelsError};
pub use progress::{Bar, LogLines, Progress, for_this_process};
pub use template::ChatTemplate;

use crate::config::{ModelsConfig, WeightFormat};
use fetch::Shelf;
use file::FolderLock;
use gguf::Gguf;
use hub::Hub;
use named::Named;

/// Families of networks that the engine serves and the trainer trains, by their names in GGUF and in `config.json`.
const SUPPORTED: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Control tokens that end a turn in the families above, whether or not a model's settings name them: a model that
/// writes one has nothing more to say.
const ENDS: [&str; 5] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"];

/// How weights of a GGUF file are written in a format: the number that GGUF has for the file as a whole, and the type
/// of a tensor with given dimensions.
pub(crate) fn conversion(
    format: WeightFormat,
) -> (u32, impl Fn(&[usize]) -> candle_core::quantized::GgmlDType) {
    (gguf::file_type(format), move |dims: &[usize]| gguf::dtype(format, dims))
}

/// Weights on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// One GGUF file.
    Gguf(PathBuf),
    /// A folder with `*.safetensors`, `config.json` and `tokenizer.json`.
    Safetensors(PathBuf),
}

impl Weights {
    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(path) | Self::Safetensors(path) => path,
        }
    }
}

/// A base model that is on disk, whole, in the format it is served in.
#[derive(Debug, Clone)]
pub struct BaseModel {
    /// Name of the catalogue, hub id, or name of the file or folder.
    pub name: String,
    /// What the engine loads.
    pub weights: Weights,
    /// The weights as they were published; the same as `weights` where nothing is converted.
    pub source: Weights,
    /// SHA-256 of the model as it was published (for a folder: over the names and digests of its files).
    pub source_sha256: [u8; 32],
    /// SHA-256 of what the engine loads.
    pub serving_sha256: [u8; 32],
    /// The format the weights are served in, never `auto`. Safetensors stay as they are on disk: the engine brings
    /// them into this format while it loads.
    pub serving_format: WeightFormat,
    /// The model's tokenizer. Encode without adding special tokens: the chat template writes them.
    pub tokenizer: Arc<Tokenizer>,
    /// Source of the chat template; [`BaseModel::template`] compiles it.
    pub chat_template: String,
    /// The token a text begins with, if the model has one.
    pub bos_token: Option<String>,
    /// The token that ends a turn.
    pub eos_token: String,
    /// Ids of every token that ends an answer.
    pub eos_ids: Vec<u32>,
    /// Longest prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// SPDX licence expression of the weights, or `unknown`.
    pub licence: String,
}

impl BaseModel {
    /// The same model with other weights: a generation that was trained from it.
    #[must_use]
    pub fn with_weights(&self, weights: Weights, sha256: [u8; 32], format: WeightFormat) -> Self {
        Self { weights, serving_sha256: sha256, serving_format: format, ..self.clone() }
    }

    /// The file or folder of the weights to train: what is served where that is exact, else the model as published, so
    /// that low-rank parts are added before weights are quantised.
    #[must_use]
    pub fn trained_weights(&self) -> &Path {
        match self.serving_format {
            WeightFormat::F16 | WeightFormat::F32 => self.weights.path(),
            WeightFormat::Q8_0 | WeightFormat::Auto => self.source.path(),
        }
    }

    /// The chat template with this model's tokens.
    ///
    /// # Errors
    /// When the template is not valid.
    pub fn template(&self) -> Result<ChatTemplate, ModelsError> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let control = added.into_values().filter(|token| token.special).map(|token| token.content);
        ChatTemplate::new(&self.chat_template, self.bos_token.as_deref(), &self.eos_token, control)
            .map_err(|source| ModelsError::Template { name: self.name.clone(), source })
    }
}

/// What a model says about itself.
struct Described {
    tokenizer: Tokenizer,
    chat_template: Option<String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    eos_ids: Vec<u32>,
    context_tokens: Option<usize>,
    licence: Option<String>,
}

/// Files of a model, checked.
struct OnDisk {
    name: String,
    weights: Weights,
    source: Weights,
    source_sha256: [u8; 32],
    serving_sha256: [u8; 32],
    serving_format: WeightFormat,
}

/// Brings the configured base model to disk, whole and in the format it is served in: fetches what is missing,
/// checks it, converts it once. Blocks, the first time for as long as the download takes.
///
/// # Errors
/// When the name is unknown, nothing may be fetched and something is missing, every source failed, a file is damaged
/// or of a kind that can not be served, or the cache can not be written.
pub fn prepare(config: &ModelsConfig, progress: &dyn Progress) -> Result<BaseModel, ModelsError> {
    let cache = config.cache_dir();
    let hub = Hub::new(&cache);
    match Named::parse(&config.base, Kind::Policy)? {
        Named::Catalog(entry) => {
            let folder = cache.join(&entry.name);
            let _lock = FolderLock::take(&folder)?;
            fetch::ensure(
                entry,
                &Shelf { cache: &cache, folder: &folder, offline: config.offline },
                progress,
            )?;
            let path = entry.files.iter().find(|file| file.name.ends_with(".gguf"));
            let path = path.map_or_else(|| folder.clone(), |file| folder.join(&file.name));
            let mut base = from_gguf(&entry.name, &path, (config.weight_format, &folder), progress)?;
            base.licence.clone_from(&entry.licence);
            base.context_tokens = base.context_tokens.min(entry.context_tokens);
            Ok(base)
        }
        Named::File(path) => from_file(config, &named::stem(&path), &path, progress),
        Named::Folder(path) => from_folder(config, &named::stem(&path), &path),
        Named::HubFile { repo, file } => {
            let path = hub_file(config, &hub, (repo, file), progress)?;
            from_file(config, &config.base, &path, progress)
        }
        Named::HubFolder { repo } => {
            let folder = hub_folder(config, &hub, (repo, safetensors::is_needed), progress)?;
            from_folder(config, &config.base, &folder)
        }
    }
}

/// Files of a sentence model.
const SENTENCE_FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Brings the configured sentence model to disk; gives the folder of its `config.json`, `tokenizer.json` and
/// `model.safetensors`, or nothing when none is configured. Blocks.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_sentence(
    config: &ModelsConfig,
    progress: &dyn Progress,
) -> Result<Option<PathBuf>, ModelsError> {
    if config.sentence.is_empty() {
        return Ok(None);
    }
    let cache = config.cache_dir();
    let folder = match Named::parse(&config.sentence, Kind::Sentence)? {
        Named::Catalog(entry) => {
            let folder = cache.join(&entry.name);
            let _lock = FolderLock::take(&folder)?;
            fetch::ensure(
                entry,
                &Shelf { cache: &cache, folder: &folder, offline: config.offline },
                progress,
            )?;
            folder
        }
        Named::Folder(path) => path,
        Named::HubFolder { repo } => {
            let needed = |name: &str| SENTENCE_FILES.contains(&name);
            hub_folder(config, &Hub::new(&cache), (repo, needed), progress)?
        }
        Named::File(path) | Named::HubFile { file: path, .. } => {
            let problem =
                "a sentence model is a folder with config.json, tokenizer.json and model.safetensors";
            return Err(ModelsError::unsupported(path, problem));
        }
    };
    if let Some(missing) = SENTENCE_FILES.into_iter().find(|name| !folder.join(name).is_file()) {
        return Err(ModelsError::unsupported(folder, format!("it has no {missing}")));
    }
    Ok(Some(folder))
}

/// A model of the catalogue, for `attune models list`.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// The name people use.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// One sentence.
    pub description: &'static str,
    /// SPDX licence expression.
    pub licence: &'static str,
    /// Size of its files in bytes, before conversion.
    pub size_bytes: u64,
    /// Longest text in tokens.
    pub context_tokens: usize,
    /// Whether its files are in the cache.
    pub cached: bool,
    /// Whether the configuration names it.
    pub configured: bool,
}

/// The catalogue, with what of it is in the cache.
#[must_use]
pub fn list(config: &ModelsConfig) -> Vec<Listed> {
    let cache = config.cache_dir();
    let cached = |entry: &Entry, file: &File| {
        let path = cache.join(&entry.name).join(&file.name);
        std::fs::metadata(path).is_ok_and(|found| found.len() == file.size_bytes)
    };
    let listed = |entry: &'static Entry| Listed {
        name: &entry.name,
        kind: entry.kind,
        description: &entry.description,
        licence: &entry.licence,
        size_bytes: entry.size_bytes(),
        context_tokens: entry.context_tokens,
        cached: entry.files.iter().all(|file| cached(entry, file)),
        configured: entry.name == config.base || entry.name == config.sentence,
    };
    catalog().models.iter().map(listed).collect()
}

/// Fetches a model by any of the forms of `models.base` and makes it ready to serve. Blocks.
///
/// # Errors
/// As [`prepare`].
pub fn pull(config: &ModelsConfig, name: &str, progress: &dyn Progress) -> Result<(), ModelsError> {
    let mut config = config.clone();
    if catalog().find(name).is_some_and(|entry| entry.kind == Kind::Sentence) || name == config.sentence {
        name.clone_into(&mut config.sentence);
        prepare_sentence(&config, progress).map(drop)
    } else {
        name.clone_into(&mut config.base);
        prepare(&config, progress).map(drop)
    }
}

/// A GGUF file outside the catalogue: conversions go to a folder of its name in the cache.
fn from_file(
    config: &ModelsConfig,
    name: &str,
    path: &Path,
    progress: &dyn Progress,
) -> Result<BaseModel, ModelsError> {
    let folder = config.cache_dir().join(named::folder_name(name));
    let _lock = FolderLock::take(&folder)?;
    from_gguf(name, path, (config.weight_format, &folder), progress)
}

fn from_gguf(
    name: &str,
    path: &Path,
    target: (WeightFormat, &Path),
    progress: &dyn Progress,
) -> Result<BaseModel, ModelsError> {
    let source = Gguf::open(path)?;
    // Before the conversion, so that a model that can not be served fails without the wait.
    let described = serving::describe(&source)?;
    let source_sha256 = file::sha256(path)?;
    let serving = serving::prepare(&source, source_sha256, target, progress)?;
    let files = OnDisk {
        name: name.to_owned(),
        weights: Weights::Gguf(serving.gguf.path),
        source: Weights::Gguf(path.to_owned()),
        source_sha256,
        serving_sha256: serving.sha256,
        serving_format: serving.format,
    };
    assemble(files, described, path)
}

fn from_folder(config: &ModelsConfig, name: &str, folder: &Path) -> Result<BaseModel, ModelsError> {
    let described = safetensors::describe(folder)?;
    let sha256 = safetensors::sha256(folder)?;
    let files = OnDisk {
        name: name.to_owned(),
        weights: Weights::Safetensors(folder.to_owned()),
        source: Weights::Safetensors(folder.to_owned()),
        source_sha256: sha256,
        serving_sha256: sha256,
        serving_format: gguf::resolve(config.weight_format, safetensors::parameters(folder)?),
    };
    assemble(files, described, folder)
}

fn assemble(files: OnDisk, described: Described, source: &Path) -> Result<BaseModel, ModelsError> {
    let missing = |what: &str| ModelsError::unsupported(source, format!("it has no {what}"));
    let no_template = "chat template: take the model's instruction-tuned version";
    let mut eos_ids = described.eos_ids;
    let eos_token = described.eos_token.ok_or_else(|| missing("end-of-turn token"))?;
    for end in ENDS.into_iter().chain([eos_token.as_str()]) {
        eos_ids.extend(described.tokenizer.token_to_id(end));
    }
    eos_ids.sort_unstable();
    eos_ids.dedup();
    let base = BaseModel {
        name: files.name,
        weights: files.weights,
        source: files.source,
        source_sha256: files.source_sha256,
        serving_sha256: files.serving_sha256,
        serving_format: files.serving_format,
        tokenizer: Arc::new(described.tokenizer),
        chat_template: described.chat_template.ok_or_else(|| missing(no_template))?,
        bos_token: described.bos_token,
        eos_token,
        eos_ids,
        context_tokens: described.context_tokens.ok_or_else(|| missing("context length"))?,
        licence: described.licence.unwrap_or_else(|| "unknown".to_owned()),
    };
    base.template()?;
    Ok(base)
}

fn hub_file(
    config: &ModelsConfig,
    hub: &Hub,
    (repo, file): (String, PathBuf),
    progress: &dyn Progress,
) -> Result<PathBuf, ModelsError> {
    let name = file.to_string_lossy();
    match hub.cached(&repo, &name) {
        Some(path) => Ok(path),
        None if config.offline => Err(offline(config, &repo)),
        None => hub.fetch(&repo, &name, progress).map_err(|problem| unfetched(&repo, problem)),
    }
}

/// The folder of a repository's files. What was fetched once is not asked for again: the model stays the same until the cache is emptied.
fn hub_folder(
    config: &ModelsConfig,
    hub: &Hub,
    (repo, needed): (String, impl Fn(&str) -> bool),
    progress: &dyn Progress,
) -> Result<PathBuf, ModelsError> {
    match hub.cached_folder(&repo) {
        Some(folder) => Ok(folder),
        None if config.offline => Err(offline(config, &repo)),
        None => hub.fetch_folder(&repo, needed, progress).map_err(|problem| unfetched(&repo, problem)),
    }
}

fn offline(config: &ModelsConfig, name: &str) -> ModelsError {
    ModelsError::Offline { name: name.to_owned(), cache: config.cache_dir() }
}

fn unfetched(repo: &str, problem: String) -> ModelsError {
    let attempts = vec![Attempt { source: format!("model hub {repo}"), problem }];
    ModelsError::Fetch { name: repo.to_owned(), attempts }
}

#[cfg(test)]
mod tests;
