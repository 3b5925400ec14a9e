//! How does an adapter become weights? Added into the frozen maps, in memory for rollouts, in a file for serving;
//! always before quantising.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use super::adapter::Adapter;
use super::decoder::Decoder;
use super::kernel::{Matrix, Store, product};
use super::ops::Linear;
use super::tensors::with_values;
use super::weights::{GGUF_LINEARS, gguf_name};
use super::{NnError, Result};

/// What was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Linear maps to which a low-rank part was added.
    pub tensors: usize,
    /// Those whose weights came out different.
    pub changed: usize,
}

impl Adapter {
    /// `scale · B A` added to a weight (outputs × inputs).
    fn add_to(&self, (layer, linear): (usize, usize), weight: &Tensor) -> Result<Tensor> {
        let pair = &self.layers[layer][linear];
        let inputs = weight.dims2()?.1;
        let merged = with_values([weight, pair.a.as_tensor(), pair.b.as_tensor()], |[weight, a, b]| {
            let mut merged = weight.to_vec();
            let factors = (Matrix::new(b, self.shape().rank), Matrix::new(a, inputs));
            product((&mut merged, Store::Sum), factors, self.shape().scale(), true)?;
            Ok(merged)
        })?;
        Ok(Tensor::from_vec(merged, weight.shape(), weight.device())?)
    }
}

impl Decoder {
    /// The same model with an adapter added into its weights; embedding, head and norms are shared, not copied.
    ///
    /// # Errors
    /// When a tensor can not be made.
    pub fn merged(&self, adapter: &Adapter) -> Result<Self> {
        let mut merged = self.clone();
        for (l, layer) in merged.layers.iter_mut().enumerate() {
            for (i, linear) in layer.linears.iter_mut().enumerate() {
                let weight = adapter.add_to((l, i), &linear.weight)?;
                *linear = Linear::new(weight, linear.bias.clone())?;
            }
        }
        Ok(merged)
    }
}

/// Writes the model of a GGUF file with an adapter added, its tensors in the type that `dtype` gives for their
/// dimensions, all metadata kept but the file's type. The same inputs give the same bytes. Needs the memory of the result and one matrix in f32.
///
/// # Errors
/// When the source can not be read, the target not written, or the adapter is of another model.
pub fn merge_gguf(
    (source, target): (&Path, &Path),
    adapter: &Adapter,
    (file_type, dtype): (u32, impl Fn(&[usize]) -> GgmlDType),
) -> Result<Merged> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| NnError::Io { path, source }
    };
    let mut file = BufReader::new(File::open(source).map_err(io(source))?);
    let content = Content::read(&mut file)?;
    let mut names: Vec<_> = content.tensor_infos.iter().map(|(name, info)| (info.offset, name)).collect();
    names.sort();
    let mut merged = Merged { tensors: 0, changed: 0 };
    let mut tensors = Vec::with_capacity(names.len());
    for (_, name) in names {
        let stored = content.tensor(&mut file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        let dtype = dtype(stored.dims());
        let quantised = match place(name).filter(|(layer, _)| *layer < adapter.layers.len()) {
            Some(place) => {
                let sum = QTensor::quantize(&adapter.add_to(place, &stored)?, dtype)?;
                merged.tensors += 1;
                let before = QTensor::quantize(&stored, dtype)?;
                merged.changed += usize::from(sum.data()? != before.data()?);
                sum
            }
            None => QTensor::quantize(&stored, dtype)?,
        };
        tensors.push((name.as_str(), quantised));
    }
    let mut metadata: BTreeMap<&str, &Value> =
        content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    // The writer aligns to 32 bytes, whatever the source did.
    let (file_type, alignment) = (Value::U32(file_type), Value::U32(32));
    metadata.insert("general.file_type", &file_type);
    if metadata.contains_key("general.alignment") {
        metadata.insert("general.alignment", &alignment);
    }
    let metadata: Vec<(&str, &Value)> = metadata.into_iter().collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut out = BufWriter::new(File::create(target).map_err(io(target))?);
    gguf_file::write(&mut out, &metadata, &tensors)?;
    let out = out.into_inner().map_err(|error| io(target)(error.into_error()))?;
    out.sync_all().map_err(io(target))?;
    Ok(merged)
}

/// Writes the model of a folder of safetensors with an adapter added: one file of weights in their own dtypes beside a
/// copy of every other small file (settings, tokenizer, template).
///
/// # Errors
/// As [`merge_gguf`].
pub fn merge_folder((source, target): (&Path, &Path), adapter: &Adapter) -> Result<Merged> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| NnError::Io { path, source }
    };
    fs::create_dir_all(target).map_err(io(target))?;
    let mut merged = Merged { tensors: 0, changed: 0 };
    let mut tensors = HashMap::new();
    for entry in fs::read_dir(source).map_err(io(source))? {
        let path = entry.map_err(io(source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|end| end == "safetensors") {
            for (name, stored) in candle_core::safetensors::load(&path, &Device::Cpu)? {
                let place = gguf_name(&name).and_then(|name| place(&name));
                let tensor = match place.filter(|(layer, _)| *layer < adapter.layers.len()) {
                    Some(place) => {
                        let dense = stored.to_dtype(DType::F32)?.contiguous()?;
                        let sum = adapter.add_to(place, &dense)?.to_dtype(stored.dtype())?;
                        merged.tensors += 1;
                        let moved =
                            (sum.to_dtype(DType::F32)? - dense)?.abs()?.max_all()?.to_scalar::<f32>()?;
                        merged.changed += usize::from(moved > 0.0);
                        sum
                    }
                    None => stored,
                };
                tensors.insert(name, tensor);
            }
        // An index of several weight files would name files that are not there.
        } else if path.is_file() && !name.ends_with(".safetensors.index.json") {
            fs::copy(&path, target.join(&name)).map_err(io(&path))?;
        }
    }
    candle_core::safetensors::save(&tensors, target.join("model.safetensors"))?;
    Ok(merged)
}

/// Layer and linear map of a tensor's name.
fn place(name: &str) -> Option<(usize, usize)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let linear = GGUF_LINEARS.iter().position(|part| rest.strip_suffix(".weight") == Some(part))?;
    Some((layer.parse().ok()?, linear))
}
