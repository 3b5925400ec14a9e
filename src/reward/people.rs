//! How much does each person's vote count? No one has more than a share of all weight, and who chooses against what the
//! others like counts less.

use std::collections::BTreeMap;

use super::logistic::{Fit, Observation, Penalty, fit};
use super::report::{Outlier, point};
use crate::evaluation::statistics::sign_test;

/// People whose votes are checked against a model of the others' votes: each costs a fit.
const MOST_CHECKED: usize = 100;
/// Votes below which agreement says too little to act on.
const LEAST_VOTES: usize = 8;
/// Share of choices in which people usually agree with each other: 63 to 77% in published comparisons, more where the
/// difference is plain.
const USUAL: f64 = 0.75;
/// Votes' worth of belief that a person is as usual.
const PRIOR: f64 = 10.0;
/// Times that everybody is judged; the second time nobody is judged by a model that learnt from hostile votes.
const ROUNDS: usize = 2;
/// Where most people's votes are worth less than this, the model of the others knows nothing.
const LEAST_USUAL: f64 = 0.2;
/// As strong as what cross-validation chooses for some hundred votes.
const RIDGE: f64 = 10.0;
/// Agreement this unlikely by chance names an outlier.
const UNLIKELY: f64 = 0.05;

/// Who voted, in the order of observations; none: exempt.
pub(super) type Voters = [Option<usize>];

/// Numbers people in alphabetical order.
pub(super) fn numbered<'a>(
    users: impl Iterator<Item = Option<&'a str>> + Clone,
) -> (Vec<Option<usize>>, Vec<String>) {
    let mut names: Vec<&str> = users.clone().flatten().collect();
    names.sort_unstable();
    names.dedup();
    let number = |user: Option<&str>| user.and_then(|user| names.binary_search(&user).ok());
    (users.map(number).collect(), names.iter().map(|name| (*name).to_owned()).collect())
}

/// Scales weights so that no one has more than `share` of the whole. With few people the share is larger: two thirds of
/// three, and of two or one there is no telling who is right.
pub(super) fn capped(weights: &mut [f64], voters: &Voters, share: f64) {
    let mut totals: BTreeMap<usize, f64> = BTreeMap::new();
    let mut exempt = 0.0;
    for (weight, voter) in weights.iter().zip(voters) {
        match voter {
            Some(voter) => *totals.entry(*voter).or_insert(0.0) += weight,
            None => exempt += weight,
        }
    }
    let people = totals.len();
    let share = share.max(2.0 / people.max(1) as f64);
    if share >= 1.0 {
        return;
    }
    let limit = cap(totals.values().copied().collect(), exempt, share);
    for (weight, voter) in weights.iter_mut().zip(voters) {
        let total = voter.and_then(|voter| totals.get(&voter)).copied().unwrap_or(0.0);
        if total > limit {
            *weight *= limit / total;
        }
    }
}

/// The largest total that is at most `share` of what remains when all larger ones are cut to it.
fn cap(mut totals: Vec<f64>, exempt: f64, share: f64) -> f64 {
    totals.sort_by(f64::total_cmp);
    let mut below: f64 = exempt + totals.iter().sum::<f64>();
    // With the k largest cut to c: c = share · (rest + k · c).
    for k in 1..=totals.len() {
        let largest = totals[totals.len() - k];
        if largest <= share * (below + (k - 1) as f64 * largest) {
            return largest;
        }
        below -= largest;
        let room = 1.0 - share * k as f64;
        if room <= 0.0 {
            continue;
        }
        let limit = share * below / room;
        let next = totals.len().checked_sub(k + 1).map_or(0.0, |i| totals[i]);
        if limit >= next {
            return limit;
        }
    }
    totals.first().copied().unwrap_or(0.0)
}

/// Scales weights by how far each person agrees with a model of the others' votes, and names those who choose against
/// it. A vote of someone who agrees in a share a of cases is worth 2a − 1 of one who always does. People are judged one
/// after the other, those with most votes first, and each judgement counts for the next: so a hostile voter with many
/// votes is gone before others are judged by a model that learnt from them. Where nobody agrees with anybody, or there
/// are fewer than three people, nothing changes.
pub(super) fn agreeing(
    (observations, weights): (&[Observation], &mut [f64]),
    (voters, names): (&Voters, &[String]),
) -> Vec<Outlier> {
    let order = most_active(observations, voters);
    if order.len() < 3 {
        return Vec::new();
    }
    let before = weights.to_vec();
    let mut records: BTreeMap<usize, Record> = BTreeMap::new();
    let mut start = None;
    for _ in 0..ROUNDS {
        for (person, votes) in &order {
            let record = judge((observations, weights), (voters, *person), votes, &mut start);
            scale(weights, (&before, voters), (*person, record.trust()));
            records.insert(*person, record);
        }
    }
    let mut trusts: Vec<f64> = records.values().map(Record::trust).collect();
    trusts.sort_by(f64::total_cmp);
    let usual = trusts[trusts.len() / 2];
    if usual < LEAST_USUAL {
        weights.copy_from_slice(&before);
        return Vec::new();
    }
    // Most people's votes count in full.
    let relative = |record: &Record| (record.trust() / usual).min(1.0);
    for (person, record) in &records {
        scale(weights, (&before, voters), (*person, relative(record)));
    }
    let against = |record: &Record| {
        let wrong = record.votes - record.right;
        wrong > record.right && sign_test(record.right as u64, wrong as u64) < UNLIKELY
    };
    let outliers = records.iter().filter(|(_, record)| against(record));
    outliers
        .map(|(person, record)| Outlier {
            user: names.get(*person).cloned().unwrap_or_default(),
            votes: record.votes as u64,
            agreement: record.right / record.votes,
            weight: relative(record),
        })
        .collect()
}

/// How a person's votes compare with a model of the others'.
#[derive(Debug, Clone, Copy)]
struct Record {
    right: f64,
    votes: f64,
}

impl Record {
    /// What a vote is worth, 0 to 1.
    fn trust(&self) -> f64 {
        let agreement = (self.right + PRIOR * USUAL) / (self.votes + PRIOR);
        ((2.0 * agreement - 1.0) / (2.0 * USUAL - 1.0)).clamp(0.0, 1.0)
    }
}

fn scale(weights: &mut [f64], (before, voters): (&[f64], &Voters), (person, trust): (usize, f64)) {
    for ((weight, before), voter) in weights.iter_mut().zip(before).zip(voters) {
        if *voter == Some(person) {
            *weight = before * trust;
        }
    }
}

/// The people with most decided votes on pairs, and these votes. Thumbs have a bias of their own and do not tell.
fn most_active(observations: &[Observation], voters: &Voters) -> Vec<(usize, Vec<usize>)> {
    let mut votes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, (observation, voter)) in observations.iter().zip(voters).enumerate() {
        if let Some(voter) = voter
            && !observation.thumb
            && observation.outcome != 0.5
        {
            votes.entry(*voter).or_default().push(i);
        }
    }
    let mut order: Vec<_> = votes.into_iter().filter(|(_, votes)| votes.len() >= LEAST_VOTES).collect();
    order.sort_by_key(|(person, votes)| (std::cmp::Reverse(votes.len()), *person));
    order.truncate(MOST_CHECKED);
    order
}

/// Fits a model to everybody else's votes and asks it about these.
fn judge(
    (observations, weights): (&[Observation], &[f64]),
    (voters, person): (&Voters, usize),
    votes: &[usize],
    start: &mut Option<Fit>,
) -> Record {
    let others: Vec<f64> =
        weights.iter().zip(voters).map(|(w, voter)| if *voter == Some(person) { 0.0 } else { *w }).collect();
    let columns = observations.first().map_or(0, |observation| observation.x.len());
    let people = observations.iter().filter_map(|observation| observation.person).max();
    let penalty =
        Penalty { columns: vec![RIDGE; columns], person: 1.0, people: people.map_or(0, |most| most + 1) };
    let fitted = fit((observations, &others), &penalty, start.as_ref());
    let agrees = |i: &usize| point(fitted.logit(&observations[*i]) * (observations[*i].outcome - 0.5));
    let right = votes.iter().map(agrees).sum();
    *start = Some(fitted);
    Record { right, votes: votes.len() as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_has_more_than_a_share() {
        let voters: Vec<Option<usize>> =
            (0..200).map(|i| Some(if i < 100 { 0 } else { i % 10 + 1 })).collect();
        let mut weights = vec![1.0; 200];
        capped(&mut weights, &voters, 0.25);
        let of_first: f64 = weights[..100].iter().sum();
        assert!((of_first / weights.iter().sum::<f64>() - 0.25).abs() < 1e-9);
        assert!(weights[100..].iter().all(|weight| *weight == 1.0));
    }

    proptest! {
        #[test]
        fn caps_only_lower_and_hold(totals in proptest::collection::vec(1usize..60, 1..12), exempt in 0usize..40) {
            let named = totals.iter().enumerate().flat_map(|(i, n)| std::iter::repeat_n(Some(i), *n));
            let voters: Vec<Option<usize>> = named.chain(std::iter::repeat_n(None, exempt)).collect();
            let mut weights = vec![1.0; voters.len()];
            capped(&mut weights, &voters, 0.25);
            prop_assert!(weights.iter().all(|weight| *weight > 0.0 && *weight <= 1.0));
            let all: f64 = weights.iter().sum();
            let share = f64::max(0.25, 2.0 / totals.len() as f64);
            for person in 0..totals.len() {
                let theirs = weights.iter().zip(&voters).filter(|(_, voter)| **voter == Some(person));
                let total: f64 = theirs.map(|(weight, _)| weight).sum();
                prop_assert!(total <= share * all + 1e-6, "{} of {}", total, all);
            }
        }
    }
}
