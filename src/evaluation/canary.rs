//! Who is served the candidate while it is watched? A share of the people, the same ones for as long as it lasts.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::domain::GenerationId;

/// Assigns people to a candidate by a keyed hash (HMAC-SHA-256) of candidate and person. Nothing is stored, every
/// server with the same key decides alike, nobody can choose a name that is served one or the other, and each candidate
/// is watched by other people.
#[derive(Clone)]
pub struct Canary {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canary")
    }
}

impl Canary {
    /// With a secret key of any length.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::new_from_slice(key).expect("any key length");
        Self { mac }
    }

    /// Where a person stands for a candidate: a number in [0, 1), evenly spread over people.
    #[must_use]
    pub fn place(&self, candidate: &GenerationId, user: &str) -> f64 {
        // The length keeps apart what the two parts together would not.
        let name = candidate.as_str().as_bytes();
        let length = (name.len() as u64).to_be_bytes();
        let parts = self.mac.clone().chain_update(length).chain_update(name).chain_update(user);
        let digest = parts.finalize().into_bytes();
        let first = digest.iter().take(8).fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        // The upper 53 bits: as many as a float between ½ and 1 tells apart.
        (first >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether a person is served the candidate when a share (0 to 1) of people is. Who is at a share is so at every
    /// larger one.
    #[must_use]
    pub fn takes(&self, candidate: &GenerationId, user: &str, share: f64) -> bool {
        self.place(candidate, user) < share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str) -> GenerationId {
        GenerationId::from_wire(name)
    }

    /// Python 3.13: `int.from_bytes(hmac.digest(b"key", (5).to_bytes(8) + b"gen-a" + b"ada", "sha256")[:8]) >> 11`,
    /// divided by 2**53.
    #[test]
    fn places_are_those_of_another_implementation() {
        assert!((Canary::new(b"key").place(&candidate("gen-a"), "ada") - 0.4039007460478764).abs() < 1e-15);
    }

    #[test]
    fn the_share_of_people_is_the_share_asked_for() {
        const PEOPLE: u32 = 20_000;
        let canary = Canary::new(b"secret");
        for share in [0.01, 0.1, 0.5, 0.9] {
            let taken = (0..PEOPLE)
                .filter(|n| canary.takes(&candidate("gen-1"), &format!("user-{n}"), share))
                .count();
            let error = (share * (1.0 - share) / f64::from(PEOPLE)).sqrt();
            let found = taken as f64 / f64::from(PEOPLE);
            assert!((found - share).abs() < 4.0 * error, "{found} instead of {share}");
        }
        let everybody = (0..100).all(|n| canary.takes(&candidate("gen-1"), &n.to_string(), 1.0));
        let nobody = (0..100).all(|n| !canary.takes(&candidate("gen-1"), &n.to_string(), 0.0));
        assert!(everybody && nobody);
    }

    #[test]
    fn candidates_and_keys_choose_other_people() {
        let (canary, other) = (Canary::new(b"secret"), Canary::new(b"other"));
        let both = |one: &dyn Fn(&str) -> bool, two: &dyn Fn(&str) -> bool| {
            (0..4_000).map(|n| n.to_string()).filter(|user| one(user) && two(user)).count()
        };
        let first = |user: &str| canary.takes(&candidate("gen-1"), user, 0.5);
        let second = |user: &str| canary.takes(&candidate("gen-2"), user, 0.5);
        let rekeyed = |user: &str| other.takes(&candidate("gen-1"), user, 0.5);
        // Independent halves share a quarter: 1,000 with a standard error of 27.
        for shared in [both(&first, &second), both(&first, &rekeyed)] {
            assert!((shared as f64 - 1_000.0).abs() < 4.0 * 27.4, "{shared}");
        }
        assert_eq!(both(&first, &first), both(&first, &|_| true));
        // What one part ends with is not what the other begins with.
        assert!(canary.place(&candidate("a"), "bc") != canary.place(&candidate("ab"), "c"));
    }

    proptest! {
        #[test]
        fn a_person_stays_and_a_larger_share_loses_nobody(
            user in ".{0,20}", small in 0.0f64..1.0, more in 0.0f64..1.0,
        ) {
            let (canary, generation) = (Canary::new(b"secret"), candidate("gen-1"));
            let place = canary.place(&generation, &user);
            prop_assert!((0.0..1.0).contains(&place));
            prop_assert_eq!(place.to_bits(), Canary::new(b"secret").place(&generation, &user).to_bits());
            let large = small + more * (1.0 - small);
            prop_assert!(!canary.takes(&generation, &user, small) || canary.takes(&generation, &user, large));
        }
    }
}
