//! What is drawn in which step? Seeded orders and seeds that depend on the step alone, so that an interrupted run draws
//! what it would have drawn.

use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a random stream is for; each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Which prompts, pairs or judged answers come in a step.
    Material,
    /// Which demonstrations come in a step.
    Anchors,
    /// Tokens of answers.
    Answers,
    /// Scores of the control.
    Control,
}

/// A generator for this purpose and step (or pass over the material).
pub(super) fn stream(seed: u64, purpose: Purpose, at: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Four purposes interleaved; streams of one key never overlap.
    random.set_stream(at * 4 + purpose as u64);
    random
}

/// A seed for this purpose and step.
pub(super) fn seed(seed: u64, purpose: Purpose, step: u64) -> u64 {
    stream(seed, purpose, step).next_u64()
}

/// Places of the material of step `step`, from 0: `each` a step of `count` in all, in a new order in each pass over
/// them. Nothing without material.
pub(super) fn places(count: usize, (step, each): (u64, usize), (key, purpose): (u64, Purpose)) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let first = step * each as u64;
    let mut order: Option<(u64, Vec<usize>)> = None;
    let mut place = |at: u64| {
        let pass = at / count as u64;
        if order.as_ref().is_none_or(|(of, _)| *of != pass) {
            let mut places: Vec<usize> = (0..count).collect();
            places.shuffle(&mut stream(key, purpose, pass));
            order = Some((pass, places));
        }
        order.as_ref().and_then(|(_, places)| places.get((at % count as u64) as usize).copied())
    };
    (first..first + each as u64).filter_map(&mut place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_each_place_once_in_an_order_of_its_own() {
        let at = |step| places(5, (step, 2), (7, Purpose::Material));
        let all: Vec<usize> = (0..5).flat_map(at).collect();
        let (first, second) = all.split_at(5);
        let sorted = |part: &[usize]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part
        };
        assert_eq!(sorted(first), [0, 1, 2, 3, 4]);
        assert_eq!(sorted(second), [0, 1, 2, 3, 4]);
        assert_ne!(first, second);
        assert_eq!(at(3), all[6..8]);
        assert!(places(0, (3, 2), (7, Purpose::Material)).is_empty());
    }

    #[test]
    fn purposes_and_steps_have_seeds_of_their_own() {
        let seeds = [
            seed(1, Purpose::Answers, 0),
            seed(1, Purpose::Answers, 1),
            seed(1, Purpose::Control, 0),
            seed(2, Purpose::Answers, 0),
        ];
        let different: std::collections::HashSet<_> = seeds.iter().collect();
        assert_eq!(different.len(), seeds.len());
    }
}
