//! What does a folder with safetensors, tokenizer.json and config.json say about its model?

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{Described, ModelsError, SUPPORTED, file};

/// Whether a file of a repository belongs to a model that is served from safetensors.
pub(super) fn is_needed(name: &str) -> bool {
    const SETTINGS: [&str; 5] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ];
    let is_weights = name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/');
    is_weights || name == "model.safetensors.index.json" || SETTINGS.contains(&name)
}

/// Checks the folder's files and reads what the program needs to know.
pub(super) fn describe(folder: &Path) -> Result<Described, ModelsError> {
    let config = required(folder, "config.json")?;
    let tokenizer_config = optional(folder, "tokenizer_config.json")?;
    let generation_config = optional(folder, "generation_config.json")?;
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if !SUPPORTED.contains(&family) {
        let problem = format!("model_type {family:?} is none of {}", SUPPORTED.join(", "));
        return Err(ModelsError::unsupported(folder, problem));
    }
    let path = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).map_err(|error| ModelsError::damaged(&path, error))?;
    let chat_template = chat_template(folder, &tokenizer_config)?;
    let eos_ids: Vec<u32> =
        [&generation_config, &config].into_iter().flat_map(|map| ids(map, "eos_token_id")).collect();
    let bos_id = ids(&config, "bos_token_id").into_iter().next();
    let token = |key: &str, id: Option<u32>| {
        let text = match tokenizer_config.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        text.or_else(|| tokenizer.id_to_token(id?))
    };
    let context = config.get("max_position_embeddings").and_then(Value::as_u64);
    Ok(Described {
        bos_token: token("bos_token", bos_id),
        eos_token: token("eos_token", eos_ids.first().copied()),
        eos_ids,
        context_tokens: context.and_then(|tokens| usize::try_from(tokens).ok()),
        licence: None,
        chat_template,
        tokenizer,
    })
}

/// SHA-256 over the names and digests of all files that make up the model; every weight file is checked for being
/// whole.
pub(super) fn sha256(folder: &Path) -> Result<[u8; 32], ModelsError> {
    let mut hasher = Sha256::new();
    let names = names(folder)?;
    if !names.iter().any(|name| name.ends_with(".safetensors")) {
        return Err(ModelsError::unsupported(folder, "it has no model*.safetensors file"));
    }
    for name in names {
        let path = folder.join(&name);
        if name.ends_with(".safetensors") {
            header(&path)?;
        }
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update(file::sha256(&path)?);
    }
    Ok(hasher.finalize().into())
}

fn names(folder: &Path) -> Result<Vec<String>, ModelsError> {
    let files = fs::read_dir(folder).map_err(ModelsError::io("read", folder))?;
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_needed(name)).collect();
    names.sort();
    Ok(names)
}

/// Number of weights.
pub(super) fn parameters(folder: &Path) -> Result<usize, ModelsError> {
    let mut parameters = 0;
    for name in names(folder)?.into_iter().filter(|name| name.ends_with(".safetensors")) {
        for tensor in header(&folder.join(name))?.values() {
            let shape = tensor.get("shape").and_then(Value::as_array);
            let dimensions =
                shape.map(|shape| shape.iter().filter_map(|n| usize::try_from(n.as_u64()?).ok()));
            parameters += dimensions.map_or(0, |dimensions| dimensions.fold(1, usize::saturating_mul));
        }
    }
    Ok(parameters)
}

/// The header of a file that is whole: it says where the last tensor ends, and a file that was cut short ends before.
fn header(path: &Path) -> Result<Map<String, Value>, ModelsError> {
    let damaged = |problem: &str| ModelsError::damaged(path, format!("{problem}; fetch it again"));
    let io = || ModelsError::io("read", path);
    let mut weights = fs::File::open(path).map_err(io())?;
    let size = weights.metadata().map_err(io())?.len();
    let mut length = [0; 8];
    weights.read_exact(&mut length).map_err(|_| damaged("it is too short for a safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) {
        return Err(damaged("it ends inside its header, or is no safetensors file"));
    }
    let mut text = Vec::new();
    weights.take(length).read_to_end(&mut text).map_err(io())?;
    let mut header: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|_| damaged("its header is not JSON, it is no safetensors file"))?;
    header.remove("__metadata__");
    let ends = header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let end = ends.max().unwrap_or(0).saturating_add(8 + length);
    if end == size {
        Ok(header)
    } else {
        Err(damaged(&format!("it has {size} bytes, its header says {end}")))
    }
}

fn chat_template(
    folder: &Path,
    tokenizer_config: &Map<String, Value>,
) -> Result<Option<String>, ModelsError> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return fs::read_to_string(&path).map(Some).map_err(ModelsError::io("read", path));
    }
    Ok(match tokenizer_config.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        // Several by name: the one for plain conversations.
        Some(Value::Array(templates)) => templates
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|template| template.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    })
}

fn ids(map: &Map<String, Value>, key: &str) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match map.get(key) {
        Some(Value::Array(values)) => values.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn required(folder: &Path, name: &str) -> Result<Map<String, Value>, ModelsError> {
    read(&folder.join(name))
}

fn optional(folder: &Path, name: &str) -> Result<Map<String, Value>, ModelsError> {
    let path: PathBuf = folder.join(name);
    if path.is_file() { read(&path) } else { Ok(Map::new()) }
}

fn read(path: &Path) -> Result<Map<String, Value>, ModelsError> {
    let text = fs::read(path).map_err(ModelsError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| ModelsError::damaged(path, error))
}
