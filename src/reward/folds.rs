//! Which rows are learnt from, and which are the judge? Whole clusters go to one fold, or are drawn for a bootstrap.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Parts of a cross-validation: each model learns from four fifths.
pub(super) const FOLDS: usize = 5;

/// Rows of each cluster, in an order that depends on seed and names only.
fn clusters(names: &[&str], seed: u64) -> Vec<Vec<usize>> {
    let mut rows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, name) in names.iter().enumerate() {
        rows.entry(name).or_default().push(row);
    }
    let mut order: Vec<([u8; 32], Vec<usize>)> = rows
        .into_iter()
        .map(|(name, rows)| {
            let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
            (hash.into(), rows)
        })
        .collect();
    order.sort();
    order.into_iter().map(|(_, rows)| rows).collect()
}

/// The fold of each row, 0 to [`FOLDS`]: clusters in a seeded order, each to the fold with fewest rows.
pub(super) fn folds(names: &[&str], seed: u64) -> Vec<usize> {
    let mut sizes = [0; FOLDS];
    let mut found = vec![0; names.len()];
    for rows in clusters(names, seed) {
        let smallest = (0..FOLDS).min_by_key(|fold| (sizes[*fold], *fold)).unwrap_or(0);
        sizes[smallest] += rows.len();
        rows.into_iter().for_each(|row| found[row] = smallest);
    }
    found
}

/// How often each row was drawn when clusters are drawn with replacement, as many as there are.
pub(super) fn bootstrap(names: &[&str], seed: u64) -> Vec<f64> {
    let clusters = clusters(names, seed);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut found = vec![0.0; names.len()];
    for _ in 0..clusters.len() {
        let drawn = &clusters[random.random_range(0..clusters.len())];
        drawn.iter().for_each(|row| found[*row] += 1.0);
    }
    found
}

/// The first rows of a seeded order of clusters, about `most` of them, among those for which `take` is true.
pub(super) fn first(names: &[&str], (seed, most): (u64, usize), take: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut found = Vec::new();
    // Another order than that of the folds, which would take one fold's rows before another's.
    for rows in clusters(names, seed ^ 0x5eed) {
        if found.len() >= most {
            break;
        }
        found.extend(rows.into_iter().filter(|row| take(*row)));
    }
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn clusters_stay_together_and_folds_are_even(sizes in proptest::collection::vec(1usize..4, 25..60), seed in any::<u64>()) {
            let names: Vec<String> =
                sizes.iter().enumerate().flat_map(|(i, n)| std::iter::repeat_n(format!("c{i}"), *n)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let folds = folds(&names, seed);
            let drawn = bootstrap(&names, seed);
            for i in 1..names.len() {
                if names[i] == names[i - 1] {
                    prop_assert_eq!(folds[i], folds[i - 1]);
                    prop_assert_eq!(drawn[i], drawn[i - 1]);
                }
            }
            let count = |fold| folds.iter().filter(|found| **found == fold).count();
            let counts: Vec<usize> = (0..FOLDS).map(count).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 3, "{:?}", counts);
        }

        /// New rows do not move old ones to other clusters' places: the order is the names' own.
        #[test]
        fn the_order_of_rows_does_not_matter(seed in any::<u64>()) {
            let names: Vec<String> = (0..30).map(|i| format!("c{i}")).collect();
            let there: Vec<&str> = names.iter().map(String::as_str).collect();
            let back: Vec<&str> = there.iter().rev().copied().collect();
            let mut turned = folds(&back, seed);
            turned.reverse();
            prop_assert_eq!(folds(&there, seed), turned);
        }
    }
}
