//! What must a candidate reach?

use serde::{Deserialize, Serialize};

use crate::domain::Groups;

/// What a candidate must reach. A value at its threshold passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// The share of preference pairs that a reward model must get right beyond doubt: the lower end of its Wilson
    /// interval is above this, and above the share in which people chose the longer answer. So is the lower end of the two
    /// models of its halves, which are also right more often than the longer answer is chosen. Default 0.5: chance.
    pub reward_accuracy: f64,
    /// Largest expected calibration error of the reward model. Default 0.15: the rewards' ensemble bound takes its
    /// probabilities at their word.
    pub calibration_error: f64,
    /// Largest KL divergence from the reference policy, nats per answer. Default 10: beyond it a reward model of a few
    /// hundred pairs is asked about answers unlike all it has seen (Gao et al., arXiv:2210.10760).
    pub kl: f64,
    /// Least entropy of the next token, nats. Default 0.05: below it a policy says one thing only.
    pub entropy: f64,
    /// Least share of answers that end by themselves. Default 0.95.
    pub ended: f64,
    /// Largest share of answers that the limit of tokens cuts. Default 0.3.
    pub clipped: f64,
    /// Most words for each word of the current policy's answers. Default 1.5: the commonest way to please a reward
    /// model is to write more (Singhal et al., arXiv:2310.03716).
    pub longer: f64,
    /// Least words for each word of the current policy's answers when F1 or coverage falls too. Default 0.67, the
    /// inverse of 1.5; fewer words that say the same are no fault.
    pub shorter: f64,
    /// Largest share of repeated runs of 4 words. Default 0.1: twice what the default model writes.
    pub repetition: f64,
    /// Largest share of questions that get the most common answer. Default 0.05.
    pub same_answer: f64,
    /// Least distinct-3 for each of the current policy's. Default 0.9.
    pub distinct_3: f64,
    /// Least win rate over the current policy. Default 0.55.
    pub win_rate: f64,
    /// Largest p of the win rates: of the signed-rank test, or of the sign test where only who won is known. Default 0.05.
    pub significance: f64,
    /// How much a share or a metric between 0 and 1 may fall. Default 0.02.
    pub tolerance: f64,
    /// Largest mean difference of the probabilities that trainer and server give. Default 0.015: what the coarsest
    /// format that is served rounds away.
    pub parity: f64,
    /// Groups that everybody who is served is a member of. Default none.
    pub audience: Groups,
    /// Whether a candidate trained on what not everybody may see may be served to everybody: `registry.serve_restricted`,
    /// by which servers go, too.
    #[serde(skip)]
    pub serve_restricted: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            reward_accuracy: 0.5,
            calibration_error: 0.15,
            kl: 10.0,
            entropy: 0.05,
            ended: 0.95,
            clipped: 0.3,
            longer: 1.5,
            shorter: 0.67,
            repetition: 0.1,
            same_answer: 0.05,
            distinct_3: 0.9,
            win_rate: 0.55,
            significance: 0.05,
            tolerance: 0.02,
            parity: 0.015,
            audience: Groups::new(),
            serve_restricted: false,
        }
    }
}

impl Thresholds {
    /// The first threshold that is out of range: its name, and the range.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let shares = [
            ("reward_accuracy", self.reward_accuracy),
            ("calibration_error", self.calibration_error),
            ("ended", self.ended),
            ("clipped", self.clipped),
            ("repetition", self.repetition),
            ("same_answer", self.same_answer),
            ("distinct_3", self.distinct_3),
            ("significance", self.significance),
            ("tolerance", self.tolerance),
            ("parity", self.parity),
            ("shorter", self.shorter),
        ];
        let checks = shares.map(|(name, value)| (share(value), name, "must be 0 to 1"));
        let others = [
            (self.kl > 0.0 && self.kl.is_finite(), "kl", "must be above 0"),
            (self.entropy >= 0.0 && self.entropy.is_finite(), "entropy", "must be at least 0"),
            (self.longer >= 1.0 && self.longer.is_finite(), "longer", "must be at least 1"),
            ((0.5..=1.0).contains(&self.win_rate), "win_rate", "must be 0.5 to 1"),
        ];
        checks.into_iter().chain(others).find(|(ok, ..)| !ok).map(|(_, name, problem)| (name, problem))
    }
}
