//! How does training go on after a crash, to the same result? Adapter, moments, step and the caller's own state in one
//! file, replaced whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;

use super::adapter::Adapter;
use super::optimizer::{AdamW, AdamWSettings};
use super::tensors::with_values;
use super::{NnError, Result};

/// A place to go on from.
#[derive(Debug)]
pub struct Checkpoint {
    /// The adapter as it was.
    pub adapter: Adapter,
    /// The optimizer as it was.
    pub optimizer: AdamW,
    /// What the caller saved (its place in the data, best score so far and the like), as JSON.
    pub state: String,
}

impl Checkpoint {
    /// Writes a checkpoint; the one there before stays until the new one is whole and on the disk.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn save(path: &Path, (adapter, optimizer): (&Adapter, &AdamW), state: &str) -> Result<()> {
        let mut tensors = BTreeMap::new();
        let moments = adapter.named_in_order().into_iter().zip(&optimizer.moments);
        for ((name, tensor), (mean, square)) in moments {
            let moment = |values: &[f32]| Tensor::from_slice(values, tensor.shape(), &Device::Cpu);
            tensors.insert(format!("mean.{name}"), moment(mean)?);
            tensors.insert(format!("square.{name}"), moment(square)?);
            tensors.insert(format!("value.{name}"), tensor);
        }
        let shape = serde_json::to_string(&adapter.shape()).unwrap_or_default();
        let metadata = HashMap::from([
            ("shape".to_owned(), shape),
            ("steps".to_owned(), optimizer.steps.to_string()),
            ("state".to_owned(), state.to_owned()),
        ]);
        write(path, &tensors, metadata)
    }

    /// Reads a checkpoint; `None` when there is none.
    ///
    /// # Errors
    /// When it is damaged or of another model or adapter.
    pub fn load(path: &Path, adapter: Adapter, settings: AdamWSettings) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        let problem = |problem: &str| NnError::Checkpoint {
            path: path.display().to_string(),
            problem: problem.to_owned(),
        };
        let (mut tensors, metadata) = read(path)?;
        let shape = serde_json::to_string(&adapter.shape()).unwrap_or_default();
        if metadata.get("shape") != Some(&shape) {
            return Err(problem("its adapter has another shape"));
        }
        let mut optimizer = AdamW::new(&adapter.variables(), settings);
        let steps = metadata.get("steps").and_then(|steps| steps.parse().ok());
        optimizer.steps = steps.ok_or_else(|| problem("it names no step"))?;
        let names = adapter.named_in_order().into_iter().map(|(name, _)| name);
        for ((name, var), moments) in names.zip(adapter.variables()).zip(&mut optimizer.moments) {
            let mut take = |kind: &str| {
                let found = tensors.remove(&format!("{kind}.{name}"));
                found
                    .filter(|tensor| tensor.shape() == var.shape())
                    .ok_or_else(|| problem(&format!("{kind}.{name} is missing")))
            };
            var.set(&take("value")?.to_device(var.device())?)?;
            moments.0 = take("mean")?.flatten_all()?.to_vec1()?;
            moments.1 = take("square")?.flatten_all()?.to_vec1()?;
        }
        Ok(Some(Self { adapter, optimizer, state: metadata.get("state").cloned().unwrap_or_default() }))
    }
}

/// Writes f32 tensors as safetensors under a temporary name, brings them to the disk, and renames.
pub(super) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let io = |source| NnError::Io { path: path.display().to_string(), source };
    let mut bytes: Vec<(&String, Vec<usize>, Vec<u8>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let raw = with_values([&tensor.to_device(&Device::Cpu)?], |[values]| {
            Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })?;
        bytes.push((name, tensor.dims().to_vec(), raw));
    }
    let mut views = Vec::with_capacity(bytes.len());
    for (name, dims, raw) in &bytes {
        let view =
            TensorView::new(safetensors::Dtype::F32, dims.clone(), raw).map_err(candle_core::Error::from)?;
        views.push((name.as_str(), view));
    }
    let file = safetensors::serialize(views, Some(metadata)).map_err(candle_core::Error::from)?;
    let partial = path.with_extension("partial");
    let mut target = BufWriter::new(File::create(&partial).map_err(io)?);
    target.write_all(&file).map_err(io)?;
    target.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)?;
    fs::rename(&partial, path).map_err(io)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Tensors by name, and the metadata of the file.
pub(super) type Contents = (BTreeMap<String, Tensor>, HashMap<String, String>);

/// Reads what [`write`] wrote.
pub(super) fn read(path: &Path) -> Result<Contents> {
    let data = fs::read(path).map_err(|source| NnError::Io { path: path.display().to_string(), source })?;
    let damaged = |error: safetensors::SafeTensorError| NnError::Checkpoint {
        path: path.display().to_string(),
        problem: format!("it is damaged: {error}"),
    };
    let (_, header) = safetensors::SafeTensors::read_metadata(&data).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let tensors = candle_core::safetensors::load_buffer(&data, &Device::Cpu)?;
    Ok((tensors.into_iter().collect(), metadata))
}
