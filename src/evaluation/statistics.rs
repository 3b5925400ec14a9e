//! Is a difference more than chance?

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The normal distribution's quantile for two-sided 95%.
const Z_95: f64 = 1.959_963_984_540_054;

/// A 95% interval: lower and upper end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval(pub f64, pub f64);

impl Interval {
    /// Whether all of it is above zero.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.0 > 0.0
    }

    /// Whether it holds `value`, ends included.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        (self.0..=self.1).contains(&value)
    }
}

/// How to bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// How many samples are drawn.
    pub resamples: usize,
    /// The same seed gives the same interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 2,000 samples: each end of the interval then rests on the 50 most extreme ones.
    fn default() -> Self {
        Self { resamples: 2_000, seed: 20_240_229 }
    }
}

impl Bootstrap {
    /// The interval of a statistic of `n` things: `statistic` is given how often each thing was drawn, and says `None`
    /// for a sample it is not defined for. `None` when it never was, or of nothing.
    pub fn interval(&self, n: usize, mut statistic: impl FnMut(&[u32]) -> Option<f64>) -> Option<Interval> {
        let mut found = Vec::with_capacity(self.resamples);
        self.each(n, |drawn| found.extend(statistic(drawn).filter(|value| value.is_finite())));
        Some(Interval(quantile(&found, 0.025)?, quantile(&found, 0.975)?))
    }

    /// Calls `take` with how often each of `n` things was drawn, once for each sample.
    pub fn each(&self, n: usize, mut take: impl FnMut(&[u32])) {
        if n == 0 {
            return;
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn = vec![0; n];
        for _ in 0..self.resamples {
            drawn.fill(0);
            for _ in 0..n {
                drawn[random.random_range(0..n)] += 1;
            }
            take(&drawn);
        }
    }
}

/// The interval of the mean difference `after − before` of things measured twice, by drawing pairs anew; `None` when
/// the lists are empty or of different lengths.
#[must_use]
pub fn paired_bootstrap(before: &[f64], after: &[f64], bootstrap: &Bootstrap) -> Option<Interval> {
    if before.len() != after.len() {
        return None;
    }
    let differences: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let n = differences.len() as f64;
    bootstrap.interval(differences.len(), |drawn| {
        Some(differences.iter().zip(drawn).map(|(value, &times)| value * f64::from(times)).sum::<f64>() / n)
    })
}

/// Wilson's score interval of a share; `None` of no trials or of more successes than trials.
#[must_use]
pub fn wilson(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let n = trials as f64;
    let share = successes as f64 / n;
    let z2 = Z_95 * Z_95;
    let centre = share + z2 / (2.0 * n);
    let half = Z_95 * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // Rounding must not leave the share outside.
    Some(Interval(((centre - half) / scale).clamp(0.0, share), ((centre + half) / scale).clamp(share, 1.0)))
}

/// Two-sided exact sign test: how likely wins and losses at least this uneven are when both are equally likely; ties are
/// left out before. 1 of nothing.
#[must_use]
pub fn sign_test(wins: u64, losses: u64) -> f64 {
    let n = wins + losses;
    let fewer = wins.min(losses);
    // ln of C(n, k) / 2^n, from one k to the next.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// What the signed ranks of differences say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRanks {
    /// Sum of the ranks of differences above zero minus that of those below; ranks of equal sizes are shared.
    pub sum: f64,
    /// Two-sided: how likely a sum at least this far from zero is when each sign is as likely as the other. 1 of nothing.
    pub p: f64,
}

/// Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945), exact also with equal sizes; differences of zero are left out.
/// It needs fewer differences than the sign test where large ones say more than small ones. Time is cubic: a second for some
/// thousand.
#[must_use]
pub fn signed_ranks(differences: &[f64]) -> SignedRanks {
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|value| value.abs() > 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Ranks are doubled, so that shared ones are whole numbers: the places `first + 1..=first + n` share their mean.
    let (mut ranks, mut above) = (Vec::with_capacity(sorted.len()), 0);
    for equal in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let rank = 2 * ranks.len() + equal.len() + 1;
        above += rank * equal.iter().filter(|value| **value > 0.0).count();
        ranks.extend(std::iter::repeat_n(rank, equal.len()));
    }
    let total: usize = ranks.iter().sum();
    // Probability of each sum of the ranks above zero, rank by rank.
    let mut chances = vec![0.0; total + 1];
    chances[0] = 1.0;
    let mut reached = 0;
    for rank in ranks {
        reached += rank;
        for sum in (0..=reached).rev() {
            let without = if sum >= rank { chances[sum - rank] } else { 0.0 };
            chances[sum] = 0.5 * (chances[sum] + without);
        }
    }
    let tail: f64 = chances[..=above.min(total - above)].iter().sum();
    SignedRanks { sum: above as f64 - total as f64 / 2.0, p: (2.0 * tail).min(1.0) }
}

/// The mean; `None` of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The mean; 0 of nothing.
#[must_use]
pub fn mean_or_zero(values: &[f64]) -> f64 {
    mean(values).unwrap_or(0.0)
}

/// Standard deviation of these values themselves (divided by their number); 0 of nothing.
#[must_use]
pub fn deviation(values: &[f64]) -> f64 {
    let mean = mean_or_zero(values);
    let squares: Vec<f64> = values.iter().map(|value| (value - mean).powi(2)).collect();
    mean_or_zero(&squares).sqrt()
}

/// The quantile at `share` (0 to 1), between two values in proportion; `None` of nothing or for another share.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=1.0).contains(&share) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    /// statsmodels 0.15.0, `proportion_confint(method="wilson")`.
    #[test]
    fn wilson_intervals_are_the_published_ones() {
        for (successes, trials, low, high) in [
            (0, 10, 0.0, 0.277_532_799_9),
            (10, 10, 0.722_467_200_1, 1.0),
            (60, 97, 0.519_127_439_4, 0.708_953_354_7),
            (1, 2, 0.094_531_205_7, 0.905_468_794_3),
            (500, 1000, 0.469_069_600_4, 0.530_930_399_6),
        ] {
            let found = wilson(successes, trials).unwrap();
            assert!((found.0 - low).abs() < 1e-9 && (found.1 - high).abs() < 1e-9, "{found:?}");
        }
        assert_eq!((wilson(0, 0), wilson(2, 1)), (None, None));
    }

    /// scipy 1.17.1, `binomtest(wins, wins + losses).pvalue`.
    #[test]
    fn sign_tests_are_the_published_ones() {
        for (wins, losses, p) in [
            (14, 3, 0.012_725_830_078_1),
            (5, 5, 1.0),
            (1, 0, 1.0),
            (600, 500, 0.002_819_544_991_44),
            (0, 8, 0.007_812_5),
        ] {
            near(sign_test(wins, losses), p);
            near(sign_test(losses, wins), p);
        }
        near(sign_test(0, 0), 1.0);
    }

    /// All signs of some sizes, one by one.
    fn by_hand(differences: &[f64]) -> f64 {
        let sizes: Vec<f64> =
            differences.iter().map(|value| value.abs()).filter(|size| *size > 0.0).collect();
        let rank = |size: f64| {
            let below = sizes.iter().filter(|other| **other < size).count();
            let equal = sizes.iter().filter(|other| **other == size).count();
            below as f64 + (equal + 1) as f64 / 2.0
        };
        let signed = |positive: &dyn Fn(usize) -> bool| -> f64 {
            sizes
                .iter()
                .enumerate()
                .map(|(i, size)| if positive(i) { rank(*size) } else { -rank(*size) })
                .sum()
        };
        let kept: Vec<f64> = differences.iter().copied().filter(|value| value.abs() > 0.0).collect();
        let found = signed(&|i| kept[i] > 0.0).abs();
        let all = 1u32 << sizes.len();
        let far = (0..all).filter(|signs| signed(&|i| signs >> i & 1 == 1).abs() >= found - 1e-9).count();
        far as f64 / f64::from(all)
    }

    #[test]
    fn signed_ranks_tell_large_differences_from_small_ones() {
        // Five above and five below, but those above are the larger ones.
        let differences: Vec<f64> =
            (1..=10).map(|n| if n > 5 { f64::from(n) } else { -f64::from(n) }).collect();
        let found = signed_ranks(&differences);
        near(found.sum, 25.0);
        near(found.p, by_hand(&differences));
        assert!(found.p < sign_test(5, 5), "{found:?}");
        near(signed_ranks(&[0.0]).p, 1.0);
        assert_eq!(signed_ranks(&[]), SignedRanks { sum: 0.0, p: 1.0 });
        // All of 200 above zero: 2 of 2^200 choices of signs.
        near(signed_ranks(&vec![1.0; 200]).p.log2(), -199.0);
    }

    /// numpy 2.4.6, `quantile`.
    #[test]
    fn quantiles_are_the_published_ones() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        for (share, expected) in [(0.0, 1.0), (0.1, 1.0), (0.25, 1.75), (0.5, 3.5), (0.9, 6.9), (1.0, 9.0)] {
            near(quantile(&values, share).unwrap(), expected);
        }
        near(mean(&values).unwrap(), 3.875);
        assert_eq!((mean(&[]), quantile(&[], 0.5), quantile(&values, 1.5)), (None, None, None));
    }

    /// With many things, the bootstrap's interval is the normal one around the mean.
    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval() {
        let before: Vec<f64> = (0..400).map(|n| f64::from(n % 7)).collect();
        let after: Vec<f64> = (0..400).map(|n| f64::from(n % 7) + f64::from(n % 3) - 0.5).collect();
        let differences: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let centre = mean(&differences).unwrap();
        let squares: Vec<f64> = differences.iter().map(|d| (d - centre).powi(2)).collect();
        let error = (mean(&squares).unwrap() / 400.0).sqrt();
        let Interval(low, high) = paired_bootstrap(&before, &after, &Bootstrap::default()).unwrap();
        // An end is a quantile of 2,000 samples: its own error is about 0.06 of `error`.
        assert!((low - (centre - Z_95 * error)).abs() < 0.2 * error, "{low}");
        assert!((high - (centre + Z_95 * error)).abs() < 0.2 * error, "{high}");
    }

    #[test]
    fn what_differs_always_by_the_same_has_no_width() {
        let before = [1.0, 2.0, 3.0];
        let found = paired_bootstrap(&before, &before.map(|value| value + 0.5), &Bootstrap::default());
        assert_eq!(found, Some(Interval(0.5, 0.5)));
        assert_eq!(paired_bootstrap(&before, &before[..2], &Bootstrap::default()), None);
        assert_eq!(paired_bootstrap(&[], &[], &Bootstrap::default()), None);
    }

    proptest! {
        #[test]
        fn an_interval_is_ordered_seeded_and_turns_with_the_sign(
            pairs in proptest::collection::vec((-9.0f64..9.0, -9.0f64..9.0), 1..40),
            seed in any::<u64>(),
        ) {
            let (before, after): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let bootstrap = Bootstrap { resamples: 200, seed };
            let there = paired_bootstrap(&before, &after, &bootstrap).unwrap();
            let back = paired_bootstrap(&after, &before, &bootstrap).unwrap();
            prop_assert!(there.0 <= there.1);
            prop_assert!((there.0 + back.1).abs() < 1e-9 && (there.1 + back.0).abs() < 1e-9);
            prop_assert_eq!(Some(there), paired_bootstrap(&before, &after, &bootstrap));
            let differences: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            let least = differences.iter().copied().fold(f64::INFINITY, f64::min);
            let most = differences.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(there.0 >= least - 1e-9 && there.1 <= most + 1e-9);
        }

        #[test]
        fn a_share_lies_in_its_interval_and_more_trials_narrow_it(n in 1u64..500, k in 0u64..500) {
            let k = k.min(n);
            let one = wilson(k, n).unwrap();
            let ten = wilson(10 * k, 10 * n).unwrap();
            prop_assert!(one.contains(k as f64 / n as f64));
            prop_assert!(ten.1 - ten.0 < one.1 - one.0);
        }

        #[test]
        fn signed_ranks_are_those_found_by_trying_all_signs(
            differences in prop::collection::vec((-4i32..=4).prop_map(|n| f64::from(n) / 2.0), 0..9)
        ) {
            let found = signed_ranks(&differences);
            prop_assert!((found.p - by_hand(&differences)).abs() < 1e-9, "{found:?}");
            let turned: Vec<f64> = differences.iter().map(|value| -value).collect();
            prop_assert!((signed_ranks(&turned).sum + found.sum).abs() < 1e-9);
        }

        #[test]
        fn the_sign_test_is_a_probability_that_falls_as_sides_diverge(wins in 0u64..300, losses in 0u64..300) {
            let p = sign_test(wins, losses);
            prop_assert!(p > 0.0 && p <= 1.0);
            if wins >= losses {
                prop_assert!(sign_test(wins + 1, losses) <= p + 1e-12);
            }
        }
    }
}
