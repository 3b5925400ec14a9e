//! What does a GGUF file hold, and how does it become the format that is served?

mod header;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
};

use candle_core::{
    Device,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, TensorInfo, Value},
    },
};

use super::ModelsError;
use crate::config::WeightFormat;

/// A GGUF file whose header was read and found sound.
#[derive(Debug)]
pub(super) struct Gguf {
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

impl Gguf {
    /// Reads the header and checks that every tensor lies inside the file.
    pub(super) fn open(path: &Path) -> Result<Self, ModelsError> {
        header::check(path)?;
        let file = File::open(path).map_err(ModelsError::io("read", path))?;
        let size = file.metadata().map_err(ModelsError::io("read", path))?.len();
        let content =
            Content::read(&mut BufReader::new(file)).map_err(|error| ModelsError::damaged(path, error))?;
        let end =
            content.tensor_infos.values().map(|tensor| tensor.offset.saturating_add(size_bytes(tensor)));
        let need = content.tensor_data_offset.saturating_add(end.max().unwrap_or(0));
        if need > size {
            let problem =
                format!("it has {size} bytes, its tensors need {need}; it was cut short, fetch it again");
            return Err(ModelsError::damaged(path, problem));
        }
        Ok(Self { path: path.to_owned(), content })
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self, key: &str) -> Option<u32> {
        match self.value(key)? {
            Value::U32(number) => Some(*number),
            value => value.to_u64().ok().or_else(|| value.to_i64().ok()?.try_into().ok())?.try_into().ok(),
        }
    }

    pub(super) fn array(&self, key: &str) -> Option<&[Value]> {
        self.value(key)?.to_vec().ok().map(Vec::as_slice)
    }

    /// Fails naming the key.
    pub(super) fn missing(&self, key: &str) -> ModelsError {
        ModelsError::damaged(&self.path, format!("it has no {key}"))
    }

    /// Number of weights.
    pub(super) fn parameters(&self) -> usize {
        self.content.tensor_infos.values().map(|tensor| tensor.shape.elem_count()).sum()
    }

    /// Whether a conversion to `format` would change nothing.
    pub(super) fn is_in(&self, format: WeightFormat) -> bool {
        self.content
            .tensor_infos
            .values()
            .all(|tensor| tensor.ggml_dtype == dtype(format, tensor.shape.dims()))
    }

    /// Writes the same model in another format under its partial name; all metadata stay, and the same source gives
    /// the same bytes. Needs the memory of the result.
    pub(super) fn convert(
        &self,
        format: WeightFormat,
        partial: &Path,
        at: impl Fn(u64),
    ) -> Result<(), ModelsError> {
        let damaged = |error: candle_core::Error| ModelsError::damaged(&self.path, error);
        let mut source = BufReader::new(File::open(&self.path).map_err(ModelsError::io("read", &self.path))?);
        let mut infos: Vec<(&String, &TensorInfo)> = self.content.tensor_infos.iter().collect();
        infos.sort_by_key(|(name, tensor)| (tensor.offset, *name));
        let (mut tensors, mut done) = (Vec::with_capacity(infos.len()), 0);
        for (name, info) in infos {
            let tensor = self.content.tensor(&mut source, name, &Device::Cpu).map_err(damaged)?;
            let dense = tensor.dequantize(&Device::Cpu).map_err(damaged)?;
            tensors.push((
                name.as_str(),
                QTensor::quantize(&dense, dtype(format, info.shape.dims())).map_err(damaged)?,
            ));
            done += size_bytes(info);
            at(done);
        }
        let mut metadata: BTreeMap<&str, &Value> =
            self.content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let file_type = Value::U32(file_type(format));
        // The writer aligns to 32 bytes, whatever the source did.
        let alignment = Value::U32(32);
        metadata.insert("general.file_type", &file_type);
        if metadata.contains_key("general.alignment") {
            metadata.insert("general.alignment", &alignment);
        }
        let metadata: Vec<(&str, &Value)> = metadata.into_iter().collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let target = File::create(partial).map_err(ModelsError::io("write", partial))?;
        let mut target = BufWriter::new(target);
        gguf_file::write(&mut target, &metadata, &tensors).map_err(|error| write_error(error, partial))?;
        target.into_inner().map_err(|error| ModelsError::io("write", partial)(error.into_error()))?;
        Ok(())
    }
}

/// Sizes above which `auto` no longer chooses 16-bit floats: at 2 bytes a weight this many take 4 GB and are read
/// once per token, so that memory and bandwidth matter more than the speed of the prompt.
const AUTO_F16_PARAMETERS: usize = 2_000_000_000;

/// What `auto` means for a model of this size: 16-bit floats, whose matrix product is blocked and reads a prompt
/// nearly three times as fast as 8-bit blocks do on a CPU (190 tokens in 0.8 s instead of 2.2 s, 2 cores).
pub(super) fn resolve(format: WeightFormat, parameters: usize) -> WeightFormat {
    match format {
        WeightFormat::Auto if parameters <= AUTO_F16_PARAMETERS => WeightFormat::F16,
        WeightFormat::Auto => WeightFormat::Q8_0,
        format => format,
    }
}

/// The format of one tensor. Vectors (norms, biases) are small and their precision matters; rows that are no whole
/// number of blocks can not be 8-bit.
pub(super) fn dtype(format: WeightFormat, dims: &[usize]) -> GgmlDType {
    let row = dims.last().copied().unwrap_or(0);
    match format {
        _ if dims.len() < 2 => GgmlDType::F32,
        WeightFormat::F32 => GgmlDType::F32,
        WeightFormat::Q8_0 if row % GgmlDType::Q8_0.block_size() == 0 => GgmlDType::Q8_0,
        WeightFormat::Q8_0 | WeightFormat::F16 | WeightFormat::Auto => GgmlDType::F16,
    }
}

/// The number GGUF has for "mostly this format".
pub(super) fn file_type(format: WeightFormat) -> u32 {
    match format {
        WeightFormat::F32 => 0,
        WeightFormat::F16 | WeightFormat::Auto => 1,
        WeightFormat::Q8_0 => 7,
    }
}

fn size_bytes(tensor: &TensorInfo) -> u64 {
    (tensor.shape.elem_count().div_ceil(tensor.ggml_dtype.block_size()) * tensor.ggml_dtype.type_size())
        as u64
}

fn write_error(error: candle_core::Error, path: &Path) -> ModelsError {
    match error {
        candle_core::Error::Io(source) => ModelsError::io("write", path)(source),
        candle_core::Error::WithBacktrace { inner, .. } => write_error(*inner, path),
        error => ModelsError::damaged(path, error),
    }
}
