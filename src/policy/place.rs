//! Where is a policy? Adapter, average and optimizer together, so that a run can go on from there, or back to it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::PolicyError;
use super::average::{decay, follow};
use crate::nn::{AdamW, AdamWSettings, Adapter, AdapterShape, Checkpoint, Decoder, Gradients, NnError};

/// What names of the average's tensors begin with in a file.
const AVERAGE: &str = "average.";

/// What a file holds besides a place: the caller's state and tensors.
pub(super) type Rest = (String, BTreeMap<String, Tensor>);

/// The policy after some number of steps.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) adapter: Adapter,
    /// The exponential average of the adapters so far.
    pub(super) average: Adapter,
    optimizer: AdamW,
}

impl Place {
    /// Where a run begins: at the reference.
    pub(super) fn first(decoder: &Decoder, shape: AdapterShape, seed: u64) -> Result<Self, PolicyError> {
        let new = || Adapter::new(decoder, shape, seed);
        let (adapter, average) = (new()?, new()?);
        let optimizer = AdamW::new(&adapter.variables(), moments());
        Ok(Self { adapter, average, optimizer })
    }

    /// The same place, which stays when this one moves on.
    pub(super) fn copied(&self) -> Result<Self, PolicyError> {
        let (adapter, average) = (self.adapter.copied()?, self.average.copied()?);
        Ok(Self { adapter, average, optimizer: self.optimizer.clone() })
    }

    /// Moves the adapter along the gradients, and the average after it; `ema` is the share of the average that stays in a long
    /// run.
    pub(super) fn step(&mut self, gradients: &Gradients, (rate, ema): (f32, f64)) -> Result<(), PolicyError> {
        self.optimizer.step(&self.adapter.variables(), gradients.as_slice(), rate)?;
        follow(&self.average, &self.adapter, decay(ema, self.optimizer.steps()))
    }

    /// Writes it with the caller's state and tensors; the file there before stays until the new one is whole.
    pub(super) fn save(&self, path: &Path, (state, mut others): Rest) -> Result<(), PolicyError> {
        let average = self.average.named().into_iter();
        others.extend(average.map(|(name, tensor)| (format!("{AVERAGE}{name}"), tensor)));
        Ok(Checkpoint::save_with(path, (&self.adapter, &self.optimizer), (&state, &others))?)
    }

    /// Reads what was saved into the tensors of `self`; `None`, and `self` as it was, when there is no file.
    pub(super) fn load(self, path: &Path) -> Result<(Self, Option<Rest>), PolicyError> {
        let Some(found) = Checkpoint::load(path, self.adapter.clone(), moments())? else {
            return Ok((self, None));
        };
        for (name, var) in self.average.named_in_order() {
            let tensor = found.others.get(&format!("{AVERAGE}{name}"));
            let tensor = tensor.filter(|tensor| tensor.shape() == var.shape());
            let missing = || NnError::Checkpoint {
                path: path.display().to_string(),
                problem: format!("it has no average of {name}"),
            };
            var.set(&tensor.ok_or_else(missing)?.to_device(var.device())?)?;
        }
        let place = Self { adapter: found.adapter, average: self.average, optimizer: found.optimizer };
        Ok((place, Some((found.state, found.others))))
    }
}

/// Also the default 1e-8 beside the root of the second moment: with PPO's 1e-5 most of an adapter's gradients, whose
/// joint norm is clipped to 1, were damped, and the policy hardly left the reference (`benches/RESULTS.md`).
fn moments() -> AdamWSettings {
    AdamWSettings::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tests::models::tiny;
    use crate::nn::{Family, Pass, Text, pack};

    fn values(adapter: &Adapter) -> Vec<f32> {
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        adapter.variables().into_iter().flat_map(|var| flat(var.as_tensor())).collect()
    }

    fn step(decoder: &Decoder, place: &mut Place) {
        let batch = &pack(&[Text { prompt: &[1, 2], completion: &[3, 4, 5] }], 64)[0].batch;
        let mut gradients = Gradients::none(&place.adapter, false);
        gradients
            .add((decoder, batch), (&place.adapter, Pass::default()), |scores| {
                Ok::<_, NnError>(scores.log_probabilities.sum_all()?.neg()?)
            })
            .unwrap();
        place.step(&gradients, (0.01, 0.9)).unwrap();
    }

    #[test]
    fn a_copy_stays_and_goes_on_as_the_original_and_so_does_what_was_saved() {
        let decoder = tiny(Family::Llama);
        let first = || Place::first(&decoder, AdapterShape { rank: 2, alpha: 2.0, dropout: 0.0 }, 1).unwrap();
        let mut place = first();
        step(&decoder, &mut place);
        let mut copy = place.copied().unwrap();
        let before = values(&copy.adapter);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("place.safetensors");
        place.save(&path, ("state".into(), BTreeMap::new())).unwrap();
        step(&decoder, &mut place);
        assert_eq!(values(&copy.adapter), before);
        assert_ne!(values(&place.adapter), before);
        let (mut loaded, rest) = first().load(&path).unwrap();
        assert_eq!(rest.unwrap().0, "state");
        for other in [&mut copy, &mut loaded] {
            step(&decoder, other);
            assert_eq!(values(&other.adapter), values(&place.adapter));
            assert_eq!(values(&other.average), values(&place.average));
        }
        let (kept, rest) = copy.load(&folder.path().join("none.safetensors")).unwrap();
        assert!(rest.is_none());
        assert_eq!(values(&kept.adapter), values(&place.adapter));
    }
}
