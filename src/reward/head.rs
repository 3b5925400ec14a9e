//! How does a reward model lie on disk? One safetensors file: numbers as f64, so that a head that is read again scores
//! exactly as before, and everything else as JSON in its metadata.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::backbone::Projection;
use super::model::{About, Normaliser};
use super::{RewardError, RewardModel};

/// What is wrong with a head whose numbers do not fit each other.
const SIZES: &str = "its lists are of different sizes";

/// A named list of numbers and its axes.
type Named = (&'static str, Vec<usize>, Vec<f64>);

impl RewardModel {
    /// Writes it to a file (`head.safetensors` by custom), under a temporary name first. The same model gives the same
    /// bytes.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn save(&self, path: &Path) -> Result<(), RewardError> {
        let problem = |problem: String| RewardError::Head { path: path.display().to_string(), problem };
        let io = |source| RewardError::Io { path: path.display().to_string(), source };
        let about = serde_json::to_string(&self.about).map_err(|error| problem(error.to_string()))?;
        let lists: Vec<(&str, Vec<usize>, Vec<u8>)> = self
            .numbers()
            .into_iter()
            .map(|(name, axes, values)| (name, axes, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let mut views = Vec::with_capacity(lists.len());
        for (name, axes, bytes) in &lists {
            let view = TensorView::new(Dtype::F64, axes.clone(), bytes);
            views.push((*name, view.map_err(|error| problem(error.to_string()))?));
        }
        let metadata = HashMap::from([("about".to_owned(), about)]);
        let bytes = safetensors::serialize(views, Some(metadata));
        let bytes = bytes.map_err(|error| problem(error.to_string()))?;
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial).map_err(io)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
        fs::rename(&partial, path).map_err(io)
    }

    /// Reads what [`RewardModel::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, damaged, or of a version with other features.
    pub fn load(path: &Path) -> Result<Self, RewardError> {
        let problem = |problem: String| RewardError::Head { path: path.display().to_string(), problem };
        let bytes =
            fs::read(path).map_err(|source| RewardError::Io { path: path.display().to_string(), source })?;
        let damaged = |error: safetensors::SafeTensorError| problem(format!("it is damaged: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let about = header.metadata().as_ref().and_then(|metadata| metadata.get("about"));
        let about = about.ok_or_else(|| problem("it does not say what it is".into()))?;
        let about: About = serde_json::from_str(about).map_err(|error| problem(error.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let list = |name: &str| {
            let tensor = tensors.tensor(name).map_err(damaged)?;
            if tensor.dtype() != Dtype::F64 {
                return Err(problem(format!("{name} is not of 64-bit numbers")));
            }
            // Chunks of 8 bytes always fill the array.
            let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
            Ok(tensor.data().chunks_exact(8).map(number).collect::<Vec<f64>>())
        };
        let projection = if tensors.names().iter().any(|name| *name == "states.mean") {
            let mean = list("states.mean")?;
            let (directions, deviation) = (list("states.directions")?, list("states.deviation")?);
            Some(Projection::of_numbers(mean, &directions, deviation).ok_or_else(|| problem(SIZES.into()))?)
        } else {
            None
        };
        let (mean, deviation, centres) = (list("mean")?, list("deviation")?, list("centres")?);
        let (weights, scale, reference) = (list("members")?, list("scale")?, list("reference")?);
        let features = about.names.len();
        let columns = 2 * features + projection.as_ref().map_or(0, Projection::len);
        let sizes = mean.len() == 2 * features && deviation.len() == features;
        let ([unit, slope], true) = (scale.as_slice(), sizes && features > 0) else {
            return Err(problem(SIZES.into()));
        };
        if weights.len() != columns * centres.len() {
            return Err(problem(SIZES.into()));
        }
        let members = weights.chunks(columns).map(<[f64]>::to_vec).collect();
        let normaliser = Normaliser { mean, deviation };
        let (unit, slope) = (*unit, *slope);
        let model = Self { about, normaliser, projection, members, centres, unit, slope, reference };
        model.check_names().map_err(problem)?;
        Ok(model)
    }

    fn numbers(&self) -> Vec<Named> {
        let Normaliser { mean, deviation } = &self.normaliser;
        let features = deviation.len();
        let columns = self.members.first().map_or(0, Vec::len);
        let mut numbers = vec![
            ("mean", vec![2, features], mean.clone()),
            ("deviation", vec![features], deviation.clone()),
            ("members", vec![self.members.len(), columns], self.members.concat()),
            ("centres", vec![self.centres.len()], self.centres.clone()),
            ("scale", vec![2], vec![self.unit, self.slope]),
            ("reference", vec![self.reference.len()], self.reference.clone()),
        ];
        if let Some(Projection { mean, directions, deviation }) = &self.projection {
            let axes = vec![directions.len(), directions.first().map_or(0, Vec::len)];
            numbers.extend([
                ("states.mean", vec![mean.len()], mean.clone()),
                ("states.directions", axes, directions.concat()),
                ("states.deviation", vec![deviation.len()], deviation.clone()),
            ]);
        }
        numbers
    }
}
