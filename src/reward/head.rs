//! How does a reward model lie on disk? One safetensors file: numbers as f64, so that a head that is read again scores
//! exactly as before, and everything else as JSON in its metadata.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::backbone::Projection;
use super::model::{About, BLOCKS, Normaliser, Reading};
use super::tuned::Tuning;
use super::{RewardError, RewardModel, Rung};

/// What is wrong with a head whose numbers do not fit each other.
const SIZES: &str = "its lists are of different sizes";

/// Begins the names of an adapter's tensors.
const ADAPTER: &str = "adapter.";

/// A named list of numbers and its axes.
type Named = (String, Vec<usize>, Vec<f64>);

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
        let lists: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .numbers()
            .into_iter()
            .map(|(name, axes, values)| (name, axes, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let mut views = Vec::with_capacity(lists.len());
        for (name, axes, bytes) in &lists {
            let view = TensorView::new(Dtype::F64, axes.clone(), bytes);
            views.push((name.as_str(), view.map_err(|error| problem(error.to_string()))?));
        }
        let metadata = HashMap::from([("about".to_owned(), about)]);
        let bytes = safetensors::serialize(views, Some(metadata));
        let bytes = bytes.map_err(|error| problem(error.to_string()))?;
        crate::durable::replace(path, &bytes).map_err(io)
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
        // Before the sizes, which are others then.
        if !about.is_of_this_version() {
            return Err(RewardError::OtherVersion);
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let lists = Lists { tensors, path };
        let reading = lists.reading(&about)?;
        let (mean, deviation, centres) = (lists.get("mean")?, lists.get("deviation")?, lists.get("centres")?);
        let (weights, scale) = (lists.get("members")?, lists.get("scale")?);
        let features = about.names.len();
        let columns = weights.len() / centres.len().max(1);
        let sizes = mean.len() == 2 * features
            && deviation.len() == features
            && columns >= BLOCKS * features.max(1)
            && weights.len() == columns * centres.len();
        let ([unit, slope], true) = (scale.as_slice(), sizes) else {
            return Err(problem(SIZES.into()));
        };
        let members = weights.chunks(columns).map(<[f64]>::to_vec).collect();
        let (normaliser, reference) = (Normaliser { mean, deviation }, lists.get("reference")?);
        let (unit, slope) = (*unit, *slope);
        Ok(Self { about, normaliser, reading, members, centres, unit, slope, reference })
    }

    fn numbers(&self) -> Vec<Named> {
        let Normaliser { mean, deviation } = &self.normaliser;
        let features = deviation.len();
        let columns = self.members.first().map_or(0, Vec::len);
        let lists = [
            ("mean", vec![2, features], mean.clone()),
            ("deviation", vec![features], deviation.clone()),
            ("members", vec![self.members.len(), columns], self.members.concat()),
            ("centres", vec![self.centres.len()], self.centres.clone()),
            ("scale", vec![2], vec![self.unit, self.slope]),
            ("reference", vec![self.reference.len()], self.reference.clone()),
        ];
        let named = |(name, axes, values): (&str, _, _)| (name.to_owned(), axes, values);
        let mut numbers: Vec<Named> = lists.into_iter().map(named).collect();
        match &self.reading {
            Some(Reading::Frozen(Projection { mean, directions, deviation })) => {
                let axes = vec![directions.len(), directions.first().map_or(0, Vec::len)];
                let lists = [
                    ("states.mean", vec![mean.len()], mean.clone()),
                    ("states.directions", axes, directions.concat()),
                    ("states.deviation", vec![deviation.len()], deviation.clone()),
                ];
                numbers.extend(lists.into_iter().map(named));
            }
            Some(Reading::Tuned(tuning)) => {
                let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect();
                let lists = tuning.tensors.iter();
                numbers.extend(
                    lists.map(|(name, (axes, values))| {
                        (format!("{ADAPTER}{name}"), axes.clone(), wide(values))
                    }),
                );
            }
            None => {}
        }
        numbers
    }
}

/// The numbers of a file by name.
struct Lists<'a> {
    tensors: SafeTensors<'a>,
    path: &'a Path,
}

impl Lists<'_> {
    fn problem(&self, problem: impl Into<String>) -> RewardError {
        RewardError::Head { path: self.path.display().to_string(), problem: problem.into() }
    }

    fn get(&self, name: &str) -> Result<Vec<f64>, RewardError> {
        let tensor =
            self.tensors.tensor(name).map_err(|error| self.problem(format!("it is damaged: {error}")))?;
        if tensor.dtype() != Dtype::F64 {
            return Err(self.problem(format!("{name} is not of 64-bit numbers")));
        }
        // Chunks of 8 bytes always fill the array.
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
        Ok(tensor.data().chunks_exact(8).map(number).collect())
    }

    /// Only rungs that read answers with a language model have one.
    fn reading(&self, about: &About) -> Result<Option<Reading>, RewardError> {
        match (about.rung, about.adapter) {
            (Rung::Features, _) => Ok(None),
            (Rung::Backbone, _) => {
                let [mean, directions, deviation] =
                    ["states.mean", "states.directions", "states.deviation"].map(|name| self.get(name));
                let projection = Projection::of_numbers(mean?, &directions?, deviation?);
                projection.map(|found| Some(Reading::Frozen(found))).ok_or_else(|| self.problem(SIZES))
            }
            (Rung::Adapter, None) => Err(self.problem("it does not say what its adapter is")),
            (Rung::Adapter, Some(shape)) => {
                let mut tensors = BTreeMap::new();
                for name in self.tensors.names() {
                    if let Some(short) = name.strip_prefix(ADAPTER) {
                        let axes = self.tensors.tensor(name).map(|tensor| tensor.shape().to_vec());
                        let axes = axes.map_err(|error| self.problem(error.to_string()))?;
                        // They were 32-bit numbers.
                        let values = self.get(name)?.into_iter().map(|value| value as f32).collect();
                        tensors.insert(short.to_owned(), (axes, values));
                    }
                }
                Ok(Some(Reading::Tuned(Tuning { shape, tensors })))
            }
        }
    }
}
