//! Who are the employees, what does each ask, and whose votes are not what they think?

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// How many employees there are.
pub(super) const PEOPLE: usize = 24;
/// Who asks what is examined: the server learns nothing from it.
pub(super) const EXAMINER: &str = "examiner";
/// Votes in a block, of which exactly [`FLIPPED`] are turned round: 15%.
const BLOCK: usize = 20;
/// Votes of a block that are turned round: people click wrongly, disagree and change their minds.
const FLIPPED: usize = 3;
/// Keeps the random streams of questions and votes apart.
const VOTES_STREAM: u64 = 1;

/// The name of the employee who does the n-th thing, from 0.
#[must_use]
pub fn employee(n: usize) -> String {
    format!("employee-{:02}", n % PEOPLE + 1)
}

/// Whether the n-th vote, from 0, says the opposite of what its employee thinks. The same seed turns the same votes, in
/// every block of 20 three.
#[must_use]
pub fn is_flipped(seed: u64, n: usize) -> bool {
    let mut random = stream(seed, VOTES_STREAM, (n / BLOCK) as u64);
    let mut places: Vec<usize> = (0..BLOCK).collect();
    places.shuffle(&mut random);
    places[..FLIPPED].contains(&(n % BLOCK))
}

/// Which of `questions` is asked n-th, from 0: all of them in an order of the seed's, then all again in another.
#[must_use]
pub fn question(seed: u64, questions: usize, n: usize) -> usize {
    let mut order: Vec<usize> = (0..questions).collect();
    order.shuffle(&mut stream(seed, 0, (n / questions) as u64));
    order[n % questions]
}

/// Random numbers for the `part`-th part of one of the simulation's streams.
fn stream(seed: u64, stream: u64, part: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    random.set_stream(stream);
    random
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn three_of_twenty_votes_are_turned_round_whenever_one_looks() {
        for seed in [0, 1, 99] {
            let flips: Vec<bool> = (0..400).map(|n| is_flipped(seed, n)).collect();
            assert!(flips.chunks(20).all(|block| block.iter().filter(|flip| **flip).count() == 3));
            // Not the same places in each block, nor by another seed.
            let blocks: BTreeSet<&[bool]> = flips.chunks(20).collect();
            assert!(blocks.len() > 15, "{}", blocks.len());
            assert_eq!(flips, (0..400).map(|n| is_flipped(seed, n)).collect::<Vec<_>>());
            assert_ne!(flips, (0..400).map(|n| is_flipped(seed + 1, n)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_question_is_asked_before_one_is_asked_again() {
        let round = |from: usize| (from..from + 7).map(|n| question(5, 7, n)).collect::<Vec<_>>();
        for from in [0, 7, 14] {
            assert_eq!(round(from).into_iter().collect::<BTreeSet<_>>().len(), 7);
        }
        assert_ne!(round(0), round(7));
    }

    #[test]
    fn everybody_votes_as_often() {
        let names: Vec<String> = (0..PEOPLE * 5).map(employee).collect();
        let different: BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), PEOPLE);
        assert!(different.iter().all(|name| names.iter().filter(|other| *other == *name).count() == 5));
        const { assert!(PEOPLE >= 20) };
    }
}
