//! Which file does the engine load? The source itself, or its conversion, made once and kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Described, ModelsError, Progress, SUPPORTED, file,
    gguf::{self, Gguf},
    tokenizer,
};
use crate::config::WeightFormat;

/// A GGUF file in the format that is served.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) gguf: Gguf,
    pub(super) sha256: [u8; 32],
    pub(super) format: WeightFormat,
}

/// Takes the source as it is, or converts it into `folder` (whose lock is held) unless that was done before.
pub(super) fn prepare(
    source: &Gguf,
    source_sha256: [u8; 32],
    (wanted, folder): (WeightFormat, &Path),
    progress: &dyn Progress,
) -> Result<Serving, ModelsError> {
    let format = gguf::resolve(wanted, source.parameters());
    if source.is_in(format) {
        return Ok(Serving { gguf: Gguf::open(&source.path)?, sha256: source_sha256, format });
    }
    let name = format!("{}-{}.gguf", &hex::encode(source_sha256)[..12], format_name(format));
    let path = folder.join(name);
    if let Some(sha256) = valid(&path)? {
        return Ok(Serving { gguf: Gguf::open(&path)?, sha256, format });
    }
    let partial = file::partial(&path);
    let total_bytes = fs::metadata(&source.path).map_err(ModelsError::io("read", &source.path))?.len();
    progress.start(&format!("converting the weights to {}", format_name(format)), total_bytes);
    let converted = source.convert(format, &partial, |done| progress.at(done));
    progress.finish();
    if let Err(error) = converted {
        // On a full disk the space is worth more than the beginning of a file; the error tells what happened.
        drop(fs::remove_file(&partial));
        return Err(error);
    }
    let sha256 = file::sha256(&partial)?;
    record(&path, &sha256)?;
    file::publish(&partial, &path)?;
    Ok(Serving { gguf: Gguf::open(&path)?, sha256, format })
}

const fn format_name(format: WeightFormat) -> &'static str {
    match format {
        WeightFormat::Auto => "auto",
        WeightFormat::F32 => "f32",
        WeightFormat::F16 => "f16",
        WeightFormat::Q8_0 => "q8_0",
    }
}

/// The digest of a conversion that is whole.
fn valid(path: &Path) -> Result<Option<[u8; 32]>, ModelsError> {
    if !path.is_file() {
        return Ok(None);
    }
    let found = file::sha256(path)?;
    let recorded = fs::read_to_string(record_path(path)).unwrap_or_default();
    if recorded.starts_with(&hex::encode(found)) {
        return Ok(Some(found));
    }
    tracing::warn!("{} is damaged and will be made again", path.display());
    Ok(None)
}

fn record_path(path: &Path) -> PathBuf {
    path.with_extension("gguf.sha256")
}

/// Notes the digest beside the file, in the form that `sha256sum -c` reads.
fn record(path: &Path, sha256: &[u8; 32]) -> Result<(), ModelsError> {
    let record = record_path(path);
    let partial = file::partial(&record);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    fs::write(&partial, format!("{}  {name}\n", hex::encode(sha256)))
        .map_err(ModelsError::io("write", &partial))?;
    file::publish(&partial, &record)
}

/// Reads what the program needs to know about a model from its GGUF.
pub(super) fn describe(gguf: &Gguf) -> Result<Described, ModelsError> {
    let family = gguf.text("general.architecture").unwrap_or_default();
    if !SUPPORTED.contains(&family) {
        let problem = format!("architecture {family:?} is none of {}", SUPPORTED.join(", "));
        return Err(ModelsError::unsupported(&gguf.path, problem));
    }
    if gguf.integer("split.count").is_some_and(|parts| parts > 1) {
        return Err(ModelsError::unsupported(
            &gguf.path,
            "it is one part of a split file; merge the parts first",
        ));
    }
    let tokenizer = tokenizer::from_gguf(gguf)?;
    let id = |key: &str| gguf.integer(&format!("tokenizer.ggml.{key}_token_id"));
    let token = |key: &str| tokenizer.id_to_token(id(key)?);
    Ok(Described {
        bos_token: token("bos"),
        eos_token: token("eos"),
        eos_ids: ["eos", "eot", "eom"].into_iter().filter_map(id).collect(),
        context_tokens: gguf.integer(&format!("{family}.context_length")).map(|tokens| tokens as usize),
        licence: gguf.text("general.license").map(str::to_owned),
        chat_template: gguf.text("tokenizer.chat_template").map(str::to_owned),
        tokenizer,
    })
}
