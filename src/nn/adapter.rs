//! What is trained? A low-rank part beside each linear map of each layer (arXiv:2106.09685).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::decoder::Decoder;
use super::{LINEARS, NnError, Result};

/// How large an adapter is and how it enters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdapterShape {
    /// Rank of each low-rank part.
    pub rank: usize,
    /// The low-rank part is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Share of inputs that the low-rank part does not see in a training step, in [0, 1).
    pub dropout: f32,
}

impl AdapterShape {
    /// Factor of the low-rank part.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// The low-rank part of one linear map.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Rank × inputs.
    pub(crate) a: Var,
    /// Outputs × rank; zero at first, so that a new adapter changes nothing.
    pub(crate) b: Var,
}

/// A low-rank part for every linear map of a decoder.
#[derive(Debug, Clone)]
pub struct Adapter {
    shape: AdapterShape,
    /// Per layer, in the order of [`LINEARS`].
    pub(crate) layers: Vec<[Pair; 7]>,
}

/// The parts of one layer.
fn whole(pairs: Vec<Pair>) -> Result<[Pair; 7]> {
    let pairs = pairs.try_into();
    pairs.map_err(|_| candle_core::Error::Msg("a layer has seven linear maps".into()).into())
}

impl Adapter {
    /// A new adapter: A uniform in ±1/√inputs (as the reference implementation draws it), B zero.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new(decoder: &Decoder, shape: AdapterShape, seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Self::build(decoder, shape, |_, (outputs, inputs)| {
            let bound = (inputs as f32).sqrt().recip();
            let a: Vec<f32> = (0..shape.rank * inputs).map(|_| random.random_range(-bound..bound)).collect();
            let a = Tensor::from_vec(a, (shape.rank, inputs), &Device::Cpu)?;
            let b = Tensor::from_vec(vec![0f32; outputs * shape.rank], (outputs, shape.rank), &Device::Cpu)?;
            Ok((a, b))
        })
    }

    fn build(
        decoder: &Decoder,
        shape: AdapterShape,
        mut make: impl FnMut(String, (usize, usize)) -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        let device = decoder.device();
        let mut layers = Vec::with_capacity(decoder.layers().len());
        for (l, layer) in decoder.layers().iter().enumerate() {
            let mut pairs = Vec::with_capacity(LINEARS.len());
            for (name, linear) in LINEARS.iter().zip(&layer.linears) {
                let (a, b) = make(format!("layers.{l}.{name}"), linear.dims()?)?;
                let var = |tensor: &Tensor| Ok::<_, NnError>(Var::from_tensor(&tensor.to_device(device)?)?);
                pairs.push(Pair { a: var(&a)?, b: var(&b)? });
            }
            layers.push(whole(pairs)?);
        }
        Ok(Self { shape, layers })
    }

    /// The adapter that changes a model as this one and another, added, do: its rank is the sum of theirs.
    ///
    /// # Errors
    /// When they are of different models.
    pub fn beside(&self, other: &Self) -> Result<Self> {
        let rank = self.shape.rank + other.shape.rank;
        // The scales are in B already.
        let shape = AdapterShape { rank, alpha: rank as f32, dropout: 0.0 };
        let join = |one: &Pair, two: &Pair| {
            let a = Tensor::cat(&[one.a.as_tensor(), two.a.as_tensor()], 0)?;
            let scaled = |adapter: &Self, b: &Var| b.as_tensor() * f64::from(adapter.shape.scale());
            let b = Tensor::cat(&[scaled(self, &one.b)?, scaled(other, &two.b)?], 1)?;
            Ok::<_, NnError>(Pair { a: Var::from_tensor(&a)?, b: Var::from_tensor(&b)? })
        };
        let mut layers = Vec::with_capacity(self.layers.len());
        for (one, two) in self.layers.iter().zip(&other.layers) {
            let pairs: Vec<Pair> =
                one.iter().zip(two).map(|(one, two)| join(one, two)).collect::<Result<_>>()?;
            layers.push(whole(pairs)?);
        }
        Ok(Self { shape, layers })
    }

    /// The same values in tensors of its own.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn copied(&self) -> Result<Self> {
        // Detached: a variable would be shared, not copied.
        let copy = |var: &Var| Var::from_tensor(&var.as_tensor().detach());
        let layer = |pairs: &[Pair; 7]| {
            let pairs = pairs.iter().map(|pair| Ok(Pair { a: copy(&pair.a)?, b: copy(&pair.b)? }));
            whole(pairs.collect::<Result<Vec<Pair>>>()?)
        };
        Ok(Self { shape: self.shape, layers: self.layers.iter().map(layer).collect::<Result<_>>()? })
    }

    /// The same values under another dropout.
    #[must_use]
    pub fn with_dropout(self, dropout: f32) -> Self {
        Self { shape: AdapterShape { dropout, ..self.shape }, ..self }
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> AdapterShape {
        self.shape
    }

    /// Everything that is trained, in an order that never changes: by layer, by linear map, A before B.
    #[must_use]
    pub fn variables(&self) -> Vec<&Var> {
        self.layers.iter().flatten().flat_map(|pair| [&pair.a, &pair.b]).collect()
    }

    /// The trained tensors by name (`layers.3.q.a`).
    #[must_use]
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        self.named_in_order().into_iter().map(|(name, var)| (name, var.as_tensor().clone())).collect()
    }

    /// [`Adapter::variables`] with their names.
    pub(crate) fn named_in_order(&self) -> Vec<(String, &Var)> {
        let names = |l: usize| {
            LINEARS.iter().flat_map(move |name| ["a", "b"].map(|end| format!("layers.{l}.{name}.{end}")))
        };
        (0..self.layers.len()).flat_map(names).zip(self.variables()).collect()
    }

    /// Writes it as safetensors, with its shape in the metadata. The same adapter gives the same bytes.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let shape = serde_json::to_string(&self.shape).unwrap_or_default();
        let metadata = HashMap::from([("shape".to_owned(), shape)]);
        super::checkpoint::write(path, &self.named(), metadata)
    }

    /// Reads what [`Adapter::save`] wrote.
    ///
    /// # Errors
    /// When the file is damaged or of another model.
    pub fn load(decoder: &Decoder, path: &Path) -> Result<Self> {
        let (tensors, metadata) = super::checkpoint::read(path)?;
        let problem = |problem: String| NnError::Checkpoint { path: path.display().to_string(), problem };
        let shape = metadata.get("shape").and_then(|text| serde_json::from_str(text).ok());
        let shape: AdapterShape = shape.ok_or_else(|| problem("it names no shape".into()))?;
        Self::from_named(decoder, (shape, tensors), problem)
    }

    /// Puts together what [`Adapter::named`] gave; `problem` makes the error when it is not of this model.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub(crate) fn from_named(
        decoder: &Decoder,
        (shape, mut tensors): (AdapterShape, BTreeMap<String, Tensor>),
        problem: impl Fn(String) -> NnError,
    ) -> Result<Self> {
        Self::build(decoder, shape, |name, (outputs, inputs)| {
            let mut take = |end: &str, dims: (usize, usize)| {
                let name = format!("{name}.{end}");
                let tensor = tensors.remove(&name).filter(|tensor| tensor.dims2().is_ok_and(|d| d == dims));
                tensor.ok_or_else(|| problem(format!("{name} is missing or of another model")))
            };
            Ok((take("a", (shape.rank, inputs))?, take("b", (outputs, shape.rank))?))
        })
    }
}
