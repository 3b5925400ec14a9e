//! Fixtures of the tests: a policy that is served, and a candidate that every check passes.

mod holding;
mod needed;
mod properties;
mod telling;

use std::collections::BTreeSet;

use super::*;
use crate::domain::{AccessLabel, Groups};

/// Questions of a list: few, so that single values matter.
const QUESTIONS: usize = 12;

fn groups(names: &[&str]) -> Groups {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A policy as it is served: good, not perfect.
fn current() -> Scores {
    let by_question = |high: f64, low: f64| -> Vec<f64> {
        (0..QUESTIONS).map(|n| if n % 3 == 0 { low } else { high }).collect()
    };
    Scores {
        method: Method::FineTuned,
        f1: by_question(0.6, 0.3),
        rouge_l: by_question(0.5, 0.25),
        coverage: by_question(0.7, 0.4),
        cited: by_question(1.0, 0.0),
        refused: by_question(1.0, 0.0),
        valid_citations: vec![1.0; QUESTIONS],
        retrieved: by_question(1.0, 0.0),
        words: by_question(20.0, 30.0),
        ended: Some(0.97),
        clipped: Some(0.03),
        repetition: Some(0.02),
        same_answer: Some(0.01),
        distinct_3: Some(0.95),
        ..Scores::default()
    }
}

/// A candidate that every check passes.
fn candidate() -> Scores {
    Scores {
        method: Method::Optimised,
        kl: Some(4.0),
        entropy: Some(0.4),
        reward_model: Some(RewardModelScores {
            pairs: 100,
            right: 70,
            longer_chosen: 55,
            calibration_error: 0.08,
            halves: Some(HalvesScores { pairs: 100, right: 65, longer_chosen: 55 }),
        }),
        against_current: Some(Duel { wins: 60, losses: 35, ties: 5, ..Duel::default() }),
        against_random: Some(Duel { wins: 58, losses: 37, ties: 5, ..Duel::default() }),
        gains: Some(Gains { candidate: 0.75, best_of_4: 1.0 }),
        parity: Some(0.001),
        ..current()
    }
}

fn judge(candidate: &Scores) -> Judgement {
    decide(&current(), candidate, &Thresholds::default())
}

fn holding(judgement: &Judgement) -> BTreeSet<String> {
    match &judgement.decision {
        Decision::Promote => BTreeSet::new(),
        Decision::Hold(reasons) => reasons.iter().map(|reason| reason.check.clone()).collect(),
    }
}

/// Asserts that exactly these checks hold the candidate.
fn held_by(candidate: &Scores, expected: &[&str]) {
    let judgement = judge(candidate);
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(holding(&judgement), expected, "{}", judgement.markdown("test"));
}
