//! Do people like the candidate better or less, however often one looks? Confidence sequences, which hold always.
//!
//! An ordinary interval is right for one look at a number of observations fixed before. Here somebody looks after every
//! vote and stops when it suits, so every interval of the sequence must hold the truth at once, with the promised
//! probability (Ville's inequality: a fair game's capital reaches 1/α with a probability of at most α).
//!
//! * Win rate, a tie as half a win: the hedged capital of Waudby-Smith and Ramdas (arXiv:2010.09686, section 4), with
//!   constant bets averaged over a grid. It assumes no more than that each vote's mean given the votes before is the
//!   same. Averaged constant bets depend on counts alone, so no order of votes need be kept.
//! * Difference of two thumb rates: the product of two beta mixtures (Robbins 1970; Howard et al., arXiv:1810.08240,
//!   section 3), one a policy, projected on the difference.

use serde::{Deserialize, Serialize};

use super::statistics::Interval;

/// Shares of the capital that are bet: from almost all to what suits a difference of a percentage point. More of them
/// cost the logarithm of their number, once.
const BETS: [f64; 14] =
    [0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625, 0.045, 0.031, 0.022, 0.0156, 0.011, 0.0078];
/// Halvings of an interval of length 1 or 2: what is left is a rounding error.
const HALVINGS: u32 = 40;

/// What people said while both policies were served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Live {
    /// Comparisons in which the candidate's answer was chosen.
    pub wins: u64,
    /// Comparisons in which the current policy's answer was chosen.
    pub losses: u64,
    /// Comparisons without a preference.
    pub ties: u64,
    /// Thumbs up for the current policy.
    pub up_current: u64,
    /// Thumbs down for the current policy.
    pub down_current: u64,
    /// Thumbs up for the candidate.
    pub up_candidate: u64,
    /// Thumbs down for the candidate.
    pub down_candidate: u64,
}

/// What can be said so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Interval of the share of comparisons that the candidate wins, a tie as half; 0.5 is no difference.
    pub win_rate: Interval,
    /// Interval of the share of thumbs up, the candidate's less the current policy's; 0 is no difference.
    pub thumbs: Interval,
}

/// Whether people like the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum LiveVerdict {
    /// Neither can be said yet.
    NotEnoughData {
        /// What there is.
        have: Live,
        /// What it tells.
        seen: Seen,
    },
    /// More, beyond doubt by one measure, and not less by the other.
    Better {
        /// The intervals that say so.
        seen: Seen,
    },
    /// Less, beyond doubt by one measure at least.
    Worse {
        /// The intervals that say so.
        seen: Seen,
    },
}

impl Live {
    /// The intervals now. Both hold the truth at every moment with a probability of at least `1 − error` together, each
    /// with half of the error. An error outside (0, 1) gives intervals that say nothing.
    #[must_use]
    pub fn seen(&self, error: f64) -> Seen {
        let current = (self.up_current, self.down_current);
        let candidate = (self.up_candidate, self.down_candidate);
        Seen {
            win_rate: win_rate((self.wins, self.losses, self.ties), error / 2.0),
            thumbs: rate_difference(current, candidate, error / 2.0),
        }
    }

    /// The verdict now: wrong with a probability of at most `error`, however often it is asked for.
    #[must_use]
    pub fn verdict(&self, error: f64) -> LiveVerdict {
        let seen = self.seen(error);
        if seen.win_rate.1 < 0.5 || seen.thumbs.1 < 0.0 {
            LiveVerdict::Worse { seen }
        } else if seen.win_rate.0 > 0.5 || seen.thumbs.0 > 0.0 {
            LiveVerdict::Better { seen }
        } else {
            LiveVerdict::NotEnoughData { have: *self, seen }
        }
    }
}

impl std::fmt::Display for LiveVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::NotEnoughData { seen, .. } | Self::Better { seen } | Self::Worse { seen }) = self;
        match self {
            Self::NotEnoughData { have, .. } => {
                let votes = have.wins + have.losses + have.ties;
                let thumbs = have.up_current + have.down_current + have.up_candidate + have.down_candidate;
                write!(f, "not enough data yet: {votes} comparisons and {thumbs} thumbs")?;
            }
            Self::Better { .. } => f.write_str("people like the candidate better")?,
            Self::Worse { .. } => f.write_str("people like the candidate less")?,
        }
        let Seen { win_rate, thumbs } = seen;
        write!(
            f,
            "; its win rate is between {:.3} and {:.3}, its share of thumbs up {:+.3} to {:+.3} against the current \
             policy's",
            win_rate.0, win_rate.1, thumbs.0, thumbs.1
        )
    }
}

/// The interval, at this moment of the sequence, of the share of `(wins, losses, ties)` that is won, a tie as half.
///
/// All intervals of the sequence hold the truth at once with a probability of at least `1 − error`.
#[must_use]
pub fn win_rate(votes: (u64, u64, u64), error: f64) -> Interval {
    let (wins, losses, ties) = votes;
    let Some(goal) = goal(error) else {
        return Interval(0.0, 1.0);
    };
    // Both directions start with half of the capital.
    let goal = goal + std::f64::consts::LN_2;
    // The capital of bets on a higher share than `mean` falls as that rises, so the excluded means are those below one.
    let low = boundary(0.0, 1.0, |mean| capital(votes, mean) >= goal);
    let high = boundary(0.0, 1.0, |mean| capital((losses, wins, ties), mean) >= goal);
    Interval(low, 1.0 - high)
}

/// The interval, at this moment of the sequence, of the difference of two shares of `(up, down)`: the second less the
/// first. In whatever order the thumbs come, all intervals hold the truth at once with a probability of at least
/// `1 − error`.
#[must_use]
pub fn rate_difference(first: (u64, u64), second: (u64, u64), error: f64) -> Interval {
    let Some(goal) = goal(error) else {
        return Interval(-1.0, 1.0);
    };
    let excluded =
        |one: Mixture, other: Mixture| move |difference: f64| least(one, other, difference) >= goal;
    let (one, other) = (Mixture::of(first), Mixture::of(second));
    // From the observed difference outwards the capital only grows: it is convex, and at most 1 there.
    let observed = other.rate() - one.rate();
    let low = boundary(-1.0, observed, excluded(one, other));
    let high = boundary(-1.0, -observed, excluded(other, one));
    Interval(low, -high)
}

/// The logarithm of the capital at which a hypothesis is given up.
fn goal(error: f64) -> Option<f64> {
    (error > 0.0 && error < 1.0).then(|| -error.ln())
}

/// Where `excluded` turns from true to false between `low` and `high`; `low` when it is never true.
fn boundary(mut low: f64, mut high: f64, excluded: impl Fn(f64) -> bool) -> f64 {
    if !excluded(low) {
        return low;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if excluded(middle) { low = middle } else { high = middle }
    }
    low
}

/// The logarithm of the mean capital of all bets that the share of `(wins, losses, ties)` is above `mean`: a bet of `c`
/// multiplies the capital by `1 + c (x / mean − 1)` for a vote of x = 1, 0 or ½. It falls as `mean` rises.
fn capital((wins, losses, ties): (u64, u64, u64), mean: f64) -> f64 {
    // The smallest mean above 0 stands for 0: a quotient, not a limit, is wanted.
    let mean = mean.max(f64::MIN_POSITIVE);
    let logs = BETS.map(|bet| {
        let grown = |count: u64, x: f64| {
            if count == 0 { 0.0 } else { count as f64 * (bet * (x / mean - 1.0)).ln_1p() }
        };
        grown(wins, 1.0) + grown(losses, 0.0) + grown(ties, 0.5)
    });
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    most + (sum / BETS.len() as f64).ln()
}

/// Thumbs and their probability under a mixture of all shares, drawn from a beta distribution with both parameters ½
/// (Jeffreys): it loses least against the best single share.
#[derive(Clone, Copy)]
struct Mixture {
    up: f64,
    down: f64,
    log_probability: f64,
}

impl Mixture {
    fn of((up, down): (u64, u64)) -> Self {
        // Thumb by thumb: the probability of the next one is that of Jeffreys' estimate.
        let ups = (0..up).map(|n| ((n as f64 + 0.5) / (n as f64 + 1.0)).ln());
        let downs = (0..down).map(|n| ((n as f64 + 0.5) / ((up + n) as f64 + 1.0)).ln());
        Self { up: up as f64, down: down as f64, log_probability: ups.chain(downs).sum() }
    }

    /// The share of thumbs up; ½ of nothing.
    fn rate(&self) -> f64 {
        if self.up + self.down > 0.0 { self.up / (self.up + self.down) } else { 0.5 }
    }

    /// The logarithm of the capital against a share of `rate`: convex in it.
    fn capital(&self, rate: f64) -> f64 {
        let said = |count: f64, probability: f64| if count == 0.0 { 0.0 } else { count * probability.ln() };
        self.log_probability - said(self.up, rate) - said(self.down, 1.0 - rate)
    }

    /// How fast it grows with `rate`.
    fn slope(&self, rate: f64) -> f64 {
        let said = |count: f64, probability: f64| if count == 0.0 { 0.0 } else { count / probability };
        said(self.down, 1.0 - rate) - said(self.up, rate)
    }
}

/// The least capital against two shares that differ by `difference`: the second is the first plus it.
fn least(first: Mixture, second: Mixture, difference: f64) -> f64 {
    let at = |rate: f64| (rate + difference).clamp(0.0, 1.0);
    let (mut low, mut high) = ((-difference).max(0.0), (1.0 - difference).min(1.0));
    // The sum of convex functions is one: its slope changes sign once.
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if first.slope(middle) + second.slope(at(middle)) < 0.0 { low = middle } else { high = middle }
    }
    let rate = f64::midpoint(low, high);
    first.capital(rate) + second.capital(at(rate))
}

#[cfg(test)]
mod tests;
