//! How does training go on after a crash, to the same result? Adapter, moments, step and the caller's own state in one
//! file, replaced whole.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;

use super::adapter::Adapter;
use super::optimizer::{AdamW, AdamWSettings};
use super::tensors::with_values;
use super::{NnError, Result};

/// What names of other tensors begin with in the file.
const OTHER: &str = "other.";

/// A place to go on from.
#[derive(Debug)]
pub struct Checkpoint {
    /// The adapter as it was.
    pub adapter: Adapter,
    /// The optimizer as it was.
    pub optimizer: AdamW,
    /// What the caller saved (its place in the data, best score so far and the like), as JSON.
    pub state: String,
    /// Other tensors that the caller saved, by name.
    pub others: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Writes a checkpoint; the one there before stays until the new one is whole and on the disk.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn save(path: &Path, trained: (&Adapter, &AdamW), state: &str) -> Result<()> {
        Self::save_with(path, trained, (state, &BTreeMap::new()))
    }

    /// [`Checkpoint::save`] with other f32 tensors in the same file, so that they are never of another step.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn save_with(
        path: &Path,
        (adapter, optimizer): (&Adapter, &AdamW),
        (state, others): (&str, &BTreeMap<String, Tensor>),
    ) -> Result<()> {
        let other = |(name, tensor): (&String, &Tensor)| (format!("{OTHER}{name}"), tensor.clone());
        let mut tensors: BTreeMap<String, Tensor> = others.iter().map(other).collect();
        let moments = adapter.named_in_order().into_iter().zip(&optimizer.moments);
        for ((name, var), (mean, square)) in moments {
            let tensor = var.as_tensor();
            let moment = |values: &[f32]| Tensor::from_slice(values, tensor.shape(), &Device::Cpu);
            tensors.insert(format!("mean.{name}"), moment(mean)?);
            tensors.insert(format!("square.{name}"), moment(square)?);
            tensors.insert(format!("value.{name}"), tensor.clone());
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
        for ((name, var), moments) in adapter.named_in_order().into_iter().zip(&mut optimizer.moments) {
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
        let others = tensors
            .into_iter()
            .filter_map(|(name, tensor)| name.strip_prefix(OTHER).map(|name| (name.to_owned(), tensor)));
        let state = metadata.get("state").cloned().unwrap_or_default();
        Ok(Some(Self { adapter, optimizer, state, others: others.collect() }))
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
    crate::durable::replace(path, &file).map_err(io)
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
