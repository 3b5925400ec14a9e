//! How far can votes be trusted? Whether a person chooses the same again, and whether people choose the same.

use std::collections::BTreeMap;

use super::Pair;
use super::report::{Outlier, VoteQuality};

/// What a vote says of two answers in alphabetical order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    First,
    Second,
    Tie,
}

/// A question and two answers, in alphabetical order.
type Comparison<'a> = (&'a str, &'a str, &'a str);

pub(super) fn quality(pairs: &[&Pair], outliers: Vec<Outlier>) -> VoteQuality {
    let mut votes: BTreeMap<Comparison<'_>, Vec<(Option<&str>, Choice)>> = BTreeMap::new();
    for pair in pairs {
        let (comparison, choice) = vote(pair);
        votes.entry(comparison).or_default().push((pair.user.as_deref(), choice));
    }
    let (mut same, mut repeats) = (0u64, 0u64);
    let mut units = Vec::new();
    for votes in votes.values() {
        let mut by_person: BTreeMap<&str, Vec<Choice>> = BTreeMap::new();
        let mut unit: Vec<Choice> = Vec::new();
        for (user, choice) in votes {
            match user {
                Some(user) => by_person.entry(user).or_default().push(*choice),
                // Who is not named is somebody else each time.
                None => unit.push(*choice),
            }
        }
        for choices in by_person.values() {
            for (i, choice) in choices.iter().enumerate() {
                same += choices[i + 1..].iter().filter(|other| *other == choice).count() as u64;
                repeats += choices.len().saturating_sub(i + 1) as u64;
            }
            // The last word counts.
            unit.extend(choices.last());
        }
        units.push(unit);
    }
    units.retain(|unit| unit.len() > 1);
    VoteQuality {
        repeat_consistency: (repeats > 0).then(|| same as f64 / repeats as f64),
        alpha: alpha(&units),
        overlapping: units.len() as u64,
        outliers,
    }
}

fn vote(pair: &Pair) -> (Comparison<'_>, Choice) {
    let question = pair.conversation.last().map_or("", |message| message.content.as_str());
    let (chosen, rejected) = (pair.chosen.as_str(), pair.rejected.as_str());
    let (first, second) = if chosen <= rejected { (chosen, rejected) } else { (rejected, chosen) };
    let choice = match (pair.is_tie(), chosen <= rejected) {
        (true, _) => Choice::Tie,
        (false, true) => Choice::First,
        (false, false) => Choice::Second,
    };
    ((question, first, second), choice)
}

/// Krippendorff's alpha of nominal values (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"): 1 minus
/// observed over expected disagreement. None without units of two values, or when all values are the same.
fn alpha(units: &[Vec<Choice>]) -> Option<f64> {
    let mut totals: BTreeMap<Choice, f64> = BTreeMap::new();
    let (mut disagreement, mut values) = (0.0, 0.0);
    for unit in units {
        let n = unit.len() as f64;
        for (i, choice) in unit.iter().enumerate() {
            *totals.entry(*choice).or_default() += 1.0;
            let others = unit.iter().enumerate().filter(|(j, other)| *j != i && *other != choice).count();
            disagreement += others as f64 / (n - 1.0);
        }
        values += n;
    }
    let pairs: f64 = totals.values().map(|total| total * (values - total)).sum();
    let expected = pairs / (values - 1.0);
    (expected > 0.0).then(|| 1.0 - disagreement / expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::tests::pair;

    /// Worked out by hand: 4 comparisons by two people, one disagreement. Values 5 × First, 3 × Second; observed
    /// disagreement 2 of 8; expected 2·5·3/7 of 8: α = 1 − 2 / (30/7) = 0.5333.
    #[test]
    fn alpha_agrees_with_a_hand_computed_example() {
        use Choice::{First, Second};
        let units = [vec![First, First], vec![First, First], vec![First, Second], vec![Second, Second]];
        assert!((alpha(&units).unwrap() - (1.0 - 2.0 / (30.0 / 7.0))).abs() < 1e-12);
        assert_eq!(alpha(&[vec![First, First]]), None);
    }

    #[test]
    fn a_choice_is_the_same_whichever_side_it_was_on() {
        let by = |user: &str, chosen: &str, rejected: &str| {
            let mut made = pair("q", chosen, rejected);
            made.user = Some(user.to_owned());
            made
        };
        let made =
            [by("a", "x", "y"), by("a", "x", "y"), by("a", "y", "x"), by("b", "y", "x"), by("c", "u", "v")];
        let found = quality(&made.iter().collect::<Vec<_>>(), vec![]);
        // Of a's three choices two are the same: one of three pairs of them. The last one agrees with b's.
        assert_eq!(found.repeat_consistency, Some(1.0 / 3.0));
        assert_eq!((found.overlapping, found.alpha), (1, None));
    }
}
