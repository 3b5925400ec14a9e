//! May a candidate replace the policy that is served? Only if every check passes; every check says why.
//!
//! [`decide`] is a pure function of what was measured. The checks are those that catch a policy which pleases its
//! reward and nobody else (longer and longer answers, one phrase for every question, a lost end of turn), one that forgot what
//! the human answers taught, and one that repeats what not everybody may read.
//!
//! | missing measurement | a fine-tuned candidate | an optimised one |
//! |---|---|---|
//! | token F1, ROUGE-L, ended and cut answers, length, repetition, one answer for all, distinct-3 | held | held |
//! | reward model, KL, entropy, win rate over the current policy, win rate over the random control | remark | held |
//! | citation hits, refusals, valid citations, retrieval, trainer-to-server parity | remark | remark |
//! | share of best-of-4's gain | remark | remark |
//!
//! So the first cycle, which has no reward model yet, can pass; questions without an answer or without known pages may
//! not be there at all; and the server compares probabilities itself before it serves.

mod checks;
mod markdown;
mod scores;
#[cfg(test)]
mod tests;
mod thresholds;

use serde::{Deserialize, Serialize};

use super::statistics::Bootstrap;
use checks::Examiner;
pub use scores::{Duel, Gains, HalvesScores, Method, RewardModelScores, Scores};
pub use thresholds::Thresholds;

/// What is to become of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may be served.
    Promote,
    /// It is kept back, for these reasons: at least one.
    Hold(Vec<Reason>),
}

/// Why a candidate is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The check's name.
    pub check: String,
    /// One sentence with the numbers and the threshold.
    pub sentence: String,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The value is within the threshold.
    Passed,
    /// The value is outside it, or no number.
    Failed,
    /// There is no value, and without it the candidate is held.
    Missing,
    /// There is no value; that is only remarked.
    NotMeasured,
    /// The value is shown and has no threshold.
    Reported,
}

impl Outcome {
    /// Whether the candidate is held for it.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Self::Failed | Self::Missing)
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Missing => "not measured, but needed",
            Self::NotMeasured => "not measured",
            Self::Reported => "reported",
        }
    }
}

/// Which values pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This and above.
    AtLeast(f64),
    /// Only what is above.
    Above(f64),
    /// This and below.
    AtMost(f64),
    /// Every value: it is only reported.
    Any,
}

impl Bound {
    /// Whether a value passes; what is no number never does.
    #[must_use]
    pub fn admits(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::Above(least) => value > least,
            Self::AtMost(most) => value <= most,
            Self::Any => true,
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, such as `kl`.
    pub name: String,
    /// What was measured; `null` in JSON also for what is no number.
    pub value: Option<f64>,
    /// What may be.
    pub threshold: Bound,
    /// How it went.
    pub outcome: Outcome,
    /// One sentence with the numbers and the threshold.
    pub sentence: String,
}

/// What came of all checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What is to become of the candidate.
    pub decision: Decision,
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
}

impl Judgement {
    /// Whether the candidate may be served.
    #[must_use]
    pub fn promotes(&self) -> bool {
        self.decision == Decision::Promote
    }

    /// The check with this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Sentences of why the candidate is held; empty when it is not.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        match &self.decision {
            Decision::Promote => Vec::new(),
            Decision::Hold(reasons) => reasons.iter().map(|reason| reason.sentence.clone()).collect(),
        }
    }

    /// What an operator should know although the candidate is not held for it: what was not measured.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let unmeasured = self.checks.iter().filter(|check| check.outcome == Outcome::NotMeasured);
        unmeasured.map(|check| check.sentence.clone()).collect()
    }
}

/// Why nothing that is optimised by these reward models will pass, in sentences; none where they do. That is known before
/// the optimisation, which takes most of a cycle's time.
#[must_use]
pub fn refusals(reward_model: RewardModelScores, thresholds: &Thresholds) -> Vec<String> {
    let candidate = Scores { reward_model: Some(reward_model), ..Scores::default() };
    let examiner = Examiner {
        current: &Scores::default(),
        candidate: &candidate,
        thresholds,
        bootstrap: Bootstrap::default(),
    };
    let failed = examiner.reward_model().into_iter().filter(|check| check.outcome.holds());
    failed.map(|check| check.sentence).collect()
}

/// Compares a candidate with the policy that is served. The same arguments give the same judgement.
///
/// Lists by question must be of the same questions in the same order on both sides.
#[must_use]
pub fn decide(current: &Scores, candidate: &Scores, thresholds: &Thresholds) -> Judgement {
    let checks = Examiner { current, candidate, thresholds, bootstrap: Bootstrap::default() }.all();
    let reasons: Vec<Reason> = checks
        .iter()
        .filter(|check| check.outcome.holds())
        .map(|check| Reason { check: check.name.clone(), sentence: check.sentence.clone() })
        .collect();
    let decision = if reasons.is_empty() { Decision::Promote } else { Decision::Hold(reasons) };
    Judgement { decision, checks }
}
