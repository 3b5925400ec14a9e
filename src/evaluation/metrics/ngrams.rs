//! Which runs of n things occur how often, and how many do two texts share?

use std::{collections::HashMap, hash::Hash};

/// How often each run of `n` items occurs.
pub(super) fn counts<T: Hash + Eq>(items: &[T], n: usize) -> HashMap<&[T], u32> {
    let mut counts = HashMap::new();
    for gram in items.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// How many runs of `n` items two sequences have in common, each as often as the one that has it less often.
pub(super) fn shared<T: Hash + Eq>(a: &[T], b: &[T], n: usize) -> u32 {
    let theirs = counts(b, n);
    counts(a, n).iter().map(|(gram, &count)| count.min(theirs.get(gram).copied().unwrap_or(0))).sum()
}

/// How many runs of `n` items there are among `length` items.
pub(super) const fn available(length: usize, n: usize) -> usize {
    (length + 1).saturating_sub(n)
}
