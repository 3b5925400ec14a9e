//! Which of several engines takes a request? The one that has the fewest.
//!
//! On a CPU an engine decodes with one thread, one sequence after the other: as many answers grow at once as there are
//! engines.

use std::sync::{Arc, Mutex, PoisonError};

use mistralrs::best_device;

use crate::models::Weights;

/// Weights up to this size, 512 MiB, are read twice without being asked to. Three generations may be in memory at once (the
/// served one, one beside it that is tried on people, one that is being loaded), and a trainer beside them.
const SMALL_BYTES: u64 = 512 << 20;
/// Engines of small weights on a CPU, where nothing else is asked for: a third would take the time of retrieval, and of
/// the trainer, on two cores.
const ENGINES: usize = 2;

/// How many engines to start on these weights; `asked` says so unless it is 0.
pub(super) fn count(asked: usize, weights: &Weights) -> usize {
    if asked > 0 {
        return asked;
    }
    let on_cpu = best_device(false).is_ok_and(|device| device.is_cpu());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if on_cpu && bytes(weights).is_ok_and(|bytes| bytes <= SMALL_BYTES) { ENGINES.min(cores) } else { 1 }
}

/// The size of the weights that an engine reads.
fn bytes(weights: &Weights) -> std::io::Result<u64> {
    match weights {
        Weights::Gguf(file) => Ok(std::fs::metadata(file)?.len()),
        Weights::Safetensors(folder) => {
            let sizes = std::fs::read_dir(folder)?.map(|entry| {
                let path = entry?.path();
                let is_read = path.extension().is_some_and(|extension| extension == "safetensors");
                // In a cache of downloads the files are links.
                if is_read { Ok(std::fs::metadata(path)?.len()) } else { Ok(0) }
            });
            sizes.sum()
        }
    }
}

/// How many requests each engine has.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    /// By engine.
    requests: Vec<usize>,
    /// The engine that took the last one.
    last: usize,
}

/// A request's place at an engine, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Which engine, from 0.
    pub(super) engine: usize,
    places: Places,
}

impl Places {
    /// For so many engines; at least one.
    pub(super) fn new(engines: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { requests: vec![0; engines.max(1)], last: 0 })))
    }

    /// A place at the engine with the fewest requests; of equal ones they take turns, so that not every question goes to one
    /// that fails at once.
    pub(super) fn take(&self) -> Place {
        let mut taken = self.lock();
        let engines = taken.requests.len();
        let in_turn = (1..=engines).map(|step| (taken.last + step) % engines);
        let engine = in_turn.min_by_key(|engine| taken.requests[*engine]).unwrap_or(0);
        taken.requests[engine] += 1;
        taken.last = engine;
        Place { engine, places: self.clone() }
    }

    /// Requests of each engine.
    #[cfg(test)]
    pub(super) fn requests(&self) -> Vec<usize> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().requests[self.engine] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is begun and ended in whatever order.
        #[test]
        fn the_engine_with_the_fewest_requests_takes_the_next(
            engines in 1usize..5, steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60),
        ) {
            let places = Places::new(engines);
            let mut held: Vec<Place> = Vec::new();
            for (begins, which) in steps {
                if begins {
                    let before = places.requests();
                    let place = places.take();
                    prop_assert_eq!(Some(&before[place.engine]), before.iter().min());
                    held.push(place);
                } else if !held.is_empty() {
                    held.swap_remove(which.index(held.len()));
                }
                let counted = (0..engines).map(|n| held.iter().filter(|place| place.engine == n).count());
                prop_assert_eq!(places.requests(), counted.collect::<Vec<_>>());
            }
            held.clear();
            prop_assert!(places.requests().iter().all(|requests| *requests == 0));
            // Those that have nothing to do take turns.
            let turns: std::collections::BTreeSet<usize> = (0..engines).map(|_| places.take().engine).collect();
            prop_assert_eq!(turns.len(), engines);
        }
    }

    #[test]
    fn small_weights_are_served_by_two_engines_and_others_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        std::fs::File::create(&file).unwrap().set_len(SMALL_BYTES).unwrap();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(count(0, &Weights::Gguf(file.clone())), ENGINES.min(cores));
        assert_eq!(count(3, &Weights::Gguf(file.clone())), 3);
        let large = std::fs::File::options().write(true).open(&file).unwrap();
        large.set_len(SMALL_BYTES + 1).unwrap();
        assert_eq!(count(0, &Weights::Gguf(file.clone())), 1);
        // Of a folder the weights count, also where they are links to files elsewhere.
        let cached = tempfile::tempdir().unwrap();
        let of_folder = || count(0, &Weights::Safetensors(cached.path().to_owned()));
        std::fs::hard_link(&file, cached.path().join("optimizer.bin")).unwrap();
        assert_eq!(of_folder(), ENGINES.min(cores));
        std::os::unix::fs::symlink(&file, cached.path().join("model.safetensors")).unwrap();
        assert_eq!(of_folder(), 1);
    }
}
