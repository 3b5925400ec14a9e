use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

/// Of `streams` with a probability of `error` each to go wrong, at most so many do: four standard errors more.
fn allowed(streams: u32, error: f64) -> u32 {
    let expected = f64::from(streams) * error;
    (expected + 4.0 * (expected * (1.0 - error)).sqrt()) as u32
}

/// A vote: won, lost or neither.
fn vote(random: &mut ChaCha8Rng, (win, tie): (f64, f64), votes: &mut (u64, u64, u64)) {
    let drawn = random.random::<f64>();
    if drawn < win {
        votes.0 += 1;
    } else if drawn < win + tie {
        votes.2 += 1;
    } else {
        votes.1 += 1;
    }
}

/// By hand. After one win the capital against a share m is 1 + b (1/m − 1), b the mean bet, so that the interval begins
/// where that is 2/α. After one thumb down for the first and one up for the second policy, the capital against shares
/// p and q is ½/(1−p) · ½/q; at a difference of −1 + e the least of it is (½ · 2/e)², and 1/α at e = √α.
#[test]
fn intervals_of_one_observation_are_those_found_by_hand() {
    let bet = BETS.iter().sum::<f64>() / BETS.len() as f64;
    let Interval(low, high) = win_rate((1, 0, 0), 0.05);
    near(low, 1.0 / (1.0 + 39.0 / bet));
    near(high, 1.0);
    let Interval(low, high) = rate_difference((0, 1), (1, 0), 0.04);
    // The search for the least is flat there.
    assert!((low + 0.8).abs() < 1e-6, "{low}");
    near(high, 1.0);
}

#[test]
fn nothing_seen_says_nothing() {
    assert_eq!(win_rate((0, 0, 0), 0.05), Interval(0.0, 1.0));
    assert_eq!(rate_difference((0, 0), (0, 0), 0.05), Interval(-1.0, 1.0));
    // Thumbs for one policy only leave the other's share open.
    let one = rate_difference((40, 0), (0, 0), 0.05);
    assert!(one.0 < -0.99 && one.1 < 0.2, "{one:?}");
    for error in [0.0, 1.0, f64::NAN] {
        assert_eq!(win_rate((90, 10, 0), error), Interval(0.0, 1.0));
        assert_eq!(rate_difference((9, 90), (90, 9), error), Interval(-1.0, 1.0));
    }
    let none = Live::default();
    let LiveVerdict::NotEnoughData { have, .. } = none.verdict(0.05) else {
        unreachable!("no votes are no evidence")
    };
    assert_eq!(have, none);
    assert!(none.verdict(0.05).to_string().starts_with("not enough data yet: 0 comparisons and 0 thumbs"));
}

#[test]
fn verdicts_follow_clear_votes_and_thumbs() {
    let liked = Live { wins: 70, losses: 25, ties: 5, ..Live::default() };
    assert!(matches!(liked.verdict(0.05), LiveVerdict::Better { .. }));
    let disliked = Live { wins: 25, losses: 70, ties: 5, ..Live::default() };
    assert!(matches!(disliked.verdict(0.05), LiveVerdict::Worse { .. }));
    let thumbs =
        Live { up_current: 80, down_current: 20, up_candidate: 10, down_candidate: 30, ..Live::default() };
    assert!(matches!(thumbs.verdict(0.05), LiveVerdict::Worse { .. }));
    // What some measure finds worse is not promoted because another finds it better.
    let mixed = Live { wins: 70, losses: 25, ties: 5, ..thumbs };
    assert!(matches!(mixed.verdict(0.05), LiveVerdict::Worse { .. }));
    let even = Live { wins: 500, losses: 500, ..Live::default() };
    assert!(matches!(even.verdict(0.05), LiveVerdict::NotEnoughData { .. }));
    // Ties are no preference.
    let tied = Live { wins: 8, losses: 2, ties: 1000, ..Live::default() };
    assert!(matches!(tied.verdict(0.05), LiveVerdict::NotEnoughData { .. }));
}

/// One looks after every vote of 400, in 1,000 streams of each kind.
#[test]
fn peeking_at_every_vote_is_wrong_no_more_often_than_promised() {
    const STREAMS: u32 = 1_000;
    let error = 0.05;
    for (seed, (win, tie)) in
        [(0.5, 0.0), (0.3, 0.4), (0.65, 0.0), (0.05, 0.9), (0.9, 0.1)].into_iter().enumerate()
    {
        let truth = win + tie / 2.0;
        let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
        let goal = goal(error).unwrap() + std::f64::consts::LN_2;
        let wrong = (0..STREAMS).filter(|_| {
            let mut votes = (0, 0, 0);
            // Exactly the means that the interval's ends part from the others, see `an_interval_ends_where_…`.
            (0..400).any(|_| {
                vote(&mut random, (win, tie), &mut votes);
                let (wins, losses, ties) = votes;
                capital(votes, truth) >= goal || capital((losses, wins, ties), 1.0 - truth) >= goal
            })
        });
        let wrong = wrong.count() as u32;
        assert!(wrong <= allowed(STREAMS, error), "{wrong} of {STREAMS} streams with a share of {truth}");
        // The test is no test when nothing ever comes near.
        assert!(tie > 0.8 || wrong > 0, "no stream with a share of {truth} was wrong");
    }
}

/// A canary: one thumb in four is about the candidate.
#[test]
fn peeking_at_every_thumb_is_wrong_no_more_often_than_promised() {
    const STREAMS: u32 = 1_000;
    let error = 0.05;
    for (seed, (now, then)) in [(0.5, 0.5), (0.8, 0.8), (0.6, 0.75)].into_iter().enumerate() {
        let mut random = ChaCha8Rng::seed_from_u64(100 + seed as u64);
        let wrong = (0..STREAMS).filter(|_| {
            let (mut current, mut candidate) = ((0, 0), (0, 0));
            (0..400).any(|_| {
                let (thumbs, rate) =
                    if random.random_bool(0.25) { (&mut candidate, then) } else { (&mut current, now) };
                if random.random_bool(rate) {
                    thumbs.0 += 1;
                } else {
                    thumbs.1 += 1;
                }
                // The interval excludes the truth only where the capital against the true shares is at least as much.
                let capital = Mixture::of(current).capital(now) + Mixture::of(candidate).capital(then);
                capital >= -f64::ln(error)
            })
        });
        let wrong = wrong.count() as u32;
        assert!(
            wrong <= allowed(STREAMS, error),
            "{wrong} of {STREAMS} streams with shares of {now} and {then}"
        );
        assert!(wrong > 0, "no stream with shares of {now} and {then} was wrong");
    }
}

/// The verdict itself, asked for after every event while both policies are equally good.
#[test]
fn the_verdict_keeps_its_promise_too() {
    const STREAMS: u32 = 150;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let wrong = (0..STREAMS).filter(|_| {
        let mut live = Live::default();
        (0..100).any(|_| {
            let mut votes = (live.wins, live.losses, live.ties);
            vote(&mut random, (0.4, 0.2), &mut votes);
            (live.wins, live.losses, live.ties) = votes;
            match (random.random_bool(0.3), random.random_bool(0.7)) {
                (true, true) => live.up_candidate += 1,
                (true, false) => live.down_candidate += 1,
                (false, true) => live.up_current += 1,
                (false, false) => live.down_current += 1,
            }
            !matches!(live.verdict(0.1), LiveVerdict::NotEnoughData { .. })
        })
    });
    let wrong = wrong.count() as u32;
    assert!(wrong <= allowed(STREAMS, 0.1), "{wrong} of {STREAMS}");
}

/// How many votes, or thumbs, until the verdict is right: the median of many streams.
#[test]
fn a_real_difference_is_found_within_a_few_hundred_votes() {
    let median = |mut counts: Vec<u64>| {
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut votes_until = |win: f64, better: bool| {
        let streams = (0..41).map(|_| {
            let mut votes = (0, 0, 0);
            (1..=3_000u64)
                .find(|_| {
                    vote(&mut random, (win, 0.1), &mut votes);
                    let Interval(low, high) = win_rate(votes, 0.025);
                    if better { low > 0.5 } else { high < 0.5 }
                })
                .unwrap_or(u64::MAX)
        });
        median(streams.collect())
    };
    let (good, bad, slight) = (votes_until(0.6, true), votes_until(0.25, false), votes_until(0.52, true));
    // A share of 0.65 against 0.5; a fixed number of votes for the same power and error is about 100.
    assert!(good < 250, "{good} votes");
    assert!(bad < 130, "{bad} votes");
    assert!(slight < 1_500, "{slight} votes for a share of 0.57");
    assert!(good < slight, "{good} and {slight}");
}

#[test]
fn long_streams_narrow_around_the_truth() {
    let Interval(low, high) = win_rate((60_000, 40_000, 0), 0.05);
    assert!(low > 0.59 && low < 0.6 && high > 0.6 && high < 0.61, "{low} {high}");
    let Interval(low, high) = rate_difference((70_000, 30_000), (75_000, 25_000), 0.05);
    assert!(low > 0.035 && low < 0.05 && high > 0.05 && high < 0.065, "{low} {high}");
}

proptest! {
    #[test]
    fn an_interval_ends_where_the_capital_reaches_its_goal(
        wins in 0u64..400, losses in 0u64..400, ties in 0u64..100, mean in 0.001f64..0.999, error in 0.001f64..0.5,
    ) {
        let interval = win_rate((wins, losses, ties), error);
        prop_assert!((0.0..=1.0).contains(&interval.0) && interval.0 <= interval.1 && interval.1 <= 1.0);
        let goal = goal(error).unwrap() + std::f64::consts::LN_2;
        let excluded = capital((wins, losses, ties), mean) >= goal || capital((losses, wins, ties), 1.0 - mean) >= goal;
        let edge = (mean - interval.0).abs().min((mean - interval.1).abs()) < 1e-9;
        prop_assert!(edge || excluded != interval.contains(mean), "{interval:?} {mean}");
        let votes = (wins + losses + ties) as f64;
        if votes > 0.0 {
            prop_assert!(interval.contains((wins as f64 + 0.5 * ties as f64) / votes));
        }
    }

    #[test]
    fn sides_can_be_swapped(
        wins in 0u64..200, losses in 0u64..200, ties in 0u64..50, up in 0u64..99, down in 0u64..99,
    ) {
        let (one, other) = (win_rate((wins, losses, ties), 0.05), win_rate((losses, wins, ties), 0.05));
        prop_assert!((one.0 + other.1 - 1.0).abs() < 1e-9 && (one.1 + other.0 - 1.0).abs() < 1e-9);
        let one = rate_difference((wins, losses), (up, down), 0.05);
        let other = rate_difference((up, down), (wins, losses), 0.05);
        prop_assert!((one.0 + other.1).abs() < 1e-6 && (one.1 + other.0).abs() < 1e-6);
    }

    #[test]
    fn a_win_more_never_lowers_the_interval(wins in 0u64..200, losses in 0u64..200, ties in 0u64..50) {
        let (before, after) = (win_rate((wins, losses, ties), 0.05), win_rate((wins + 1, losses, ties), 0.05));
        prop_assert!(after.0 >= before.0 - 1e-9 && after.1 >= before.1 - 1e-9);
        // And less error is more doubt.
        let surer = win_rate((wins, losses, ties), 0.01);
        prop_assert!(surer.0 <= before.0 + 1e-9 && surer.1 >= before.1 - 1e-9);
    }

    #[test]
    fn a_verdict_survives_json(wins in 0u64..100, losses in 0u64..100, up in 0u64..50, down in 0u64..50) {
        let live = Live { wins, losses, up_candidate: up, down_current: down, ..Live::default() };
        let text = serde_json::to_string(&live.verdict(0.05)).unwrap();
        let read: LiveVerdict = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&live.verdict(0.05)));
    }
}
