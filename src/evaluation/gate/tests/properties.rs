//! What is true of every candidate?

use proptest::prelude::*;

use super::*;

/// Every way to make a candidate worse, by `amount` (above 0) and at question `at`.
const FAULTS: &[fn(&mut Scores, f64, usize)] = &[
    |s, by, at| s.f1[at] -= by,
    |s, by, at| s.rouge_l[at] -= by,
    |s, by, at| s.coverage[at] -= by,
    |s, by, at| s.cited[at] -= by,
    |s, by, at| s.refused[at] -= by,
    |s, by, at| s.valid_citations[at] -= by,
    |s, by, at| s.retrieved[at] -= by,
    |s, by, _| s.ended = s.ended.map(|value| value - by),
    |s, by, _| s.clipped = s.clipped.map(|value| value + by),
    |s, by, _| s.repetition = s.repetition.map(|value| value + by),
    |s, by, _| s.same_answer = s.same_answer.map(|value| value + by),
    |s, by, _| s.distinct_3 = s.distinct_3.map(|value| value - by),
    |s, by, _| s.kl = s.kl.map(|value| value + 20.0 * by),
    |s, by, _| s.entropy = s.entropy.map(|value| value - by),
    |s, by, _| s.parity = s.parity.map(|value| value + by / 10.0),
    |s, by, _| {
        if let Some(model) = &mut s.reward_model {
            model.calibration_error += by;
        }
    },
    |s, by, _| {
        if let Some(model) = &mut s.reward_model {
            model.right = model.right.saturating_sub((40.0 * by) as u64);
        }
    },
    |s, by, _| {
        if let Some(halves) = s.reward_model.as_mut().and_then(|model| model.halves.as_mut()) {
            halves.right = halves.right.saturating_sub((40.0 * by) as u64);
        }
    },
    |s, by, _| s.against_current = s.against_current.map(|duel| lost(duel, by)),
    |s, by, _| s.against_random = s.against_random.map(|duel| lost(duel, by)),
    // Lengths only ever grow away from the current policy's here.
    |s, by, _| s.words.iter_mut().for_each(|words| *words *= 1.0 + by),
    |s, _, at| {
        s.access = AccessLabel::of(s.access.clauses().iter().chain([&groups(&[["a", "b", "c"][at % 3]])]));
    },
    |s, _, _| s.kl = None,
    |s, _, _| s.against_current = None,
    |s, _, _| s.ended = None,
    |s, _, _| s.f1 = Vec::new(),
];

/// Wins become ties, and ties losses.
fn lost(duel: Duel, by: f64) -> Duel {
    let moved = (20.0 * by) as u64;
    let (won, tied) = (moved.min(duel.wins), moved.min(duel.ties));
    Duel { wins: duel.wins - won, ties: duel.ties + won - tied, losses: duel.losses + tied, ..duel }
}

fn worsened(faults: &[(usize, f64, usize)]) -> Scores {
    let mut scores = candidate();
    for &(fault, by, at) in faults {
        // A value that is gone can not get worse.
        if !(scores.f1.is_empty() && fault == 0) {
            FAULTS[fault](&mut scores, by, at);
        }
    }
    scores
}

fn faults(most: usize) -> impl Strategy<Value = Vec<(usize, f64, usize)>> {
    proptest::collection::vec((0..FAULTS.len(), 0.001f64..0.4, 0..QUESTIONS), 0..most)
}

proptest! {
    /// So worsening never turns a hold into a promotion, and improving (the same steps backwards) never adds a reason.
    #[test]
    fn worsening_only_adds_reasons(
        before in faults(5), fault in 0..FAULTS.len(), by in 0.001f64..0.4, at in 0..QUESTIONS,
    ) {
        let better = holding(&judge(&worsened(&before)));
        let mut after = before;
        after.push((fault, by, at));
        let worse = holding(&judge(&worsened(&after)));
        prop_assert!(better.is_subset(&worse), "{better:?} {worse:?}");
    }

    #[test]
    fn looser_thresholds_never_add_a_reason(steps in faults(6), loose in 0usize..15, by in 0.0f64..0.3) {
        let candidate = worsened(&steps);
        let mut thresholds = Thresholds::default();
        let tight = holding(&decide(&current(), &candidate, &thresholds));
        match loose {
            0 => thresholds.reward_accuracy -= by,
            1 => thresholds.calibration_error += by,
            2 => thresholds.kl += 10.0 * by,
            3 => thresholds.entropy -= by,
            4 => thresholds.ended -= by,
            5 => thresholds.clipped += by,
            6 => thresholds.longer += by,
            7 => thresholds.shorter -= by,
            8 => thresholds.repetition += by,
            9 => thresholds.same_answer += by,
            10 => thresholds.distinct_3 -= by,
            11 => thresholds.win_rate -= by,
            12 => thresholds.significance += by,
            13 => thresholds.tolerance += by,
            _ => thresholds.parity += by,
        }
        let loosened = holding(&decide(&current(), &candidate, &thresholds));
        prop_assert!(loosened.is_subset(&tight), "{loosened:?} {tight:?}");
    }

    #[test]
    fn what_is_no_number_never_passes(field in 0usize..18, at in 0..QUESTIONS) {
        let (mut broken, nan) = (candidate(), f64::NAN);
        let name = match field {
            0 => { broken.f1[at] = nan; "f1" }
            1 => { broken.rouge_l[at] = nan; "rouge_l" }
            2 => { broken.cited[at] = nan; "cited" }
            3 => { broken.refused[at] = nan; "refused" }
            4 => { broken.valid_citations[at] = nan; "valid_citations" }
            5 => { broken.retrieved[at] = nan; "retrieved" }
            6 => { broken.words[at] = nan; "longer" }
            7 => { broken.ended = Some(nan); "ended" }
            8 => { broken.clipped = Some(nan); "clipped" }
            9 => { broken.repetition = Some(nan); "repetition" }
            10 => { broken.same_answer = Some(nan); "same_answer" }
            11 => { broken.distinct_3 = Some(nan); "distinct_3" }
            12 => { broken.kl = Some(nan); "kl" }
            13 => { broken.entropy = Some(nan); "entropy" }
            14 => { broken.parity = Some(nan); "parity" }
            15 => { broken.against_current = Some(Duel::default()); "win_rate" }
            16 => {
                let halves = Some(HalvesScores { pairs: 0, right: 0, longer_chosen: 0 });
                broken.reward_model = broken.reward_model.map(|model| RewardModelScores { halves, ..model });
                "reward_halves"
            }
            _ => {
                let model = broken.reward_model.unwrap();
                broken.reward_model = Some(RewardModelScores { pairs: 0, right: 0, ..model });
                "reward_accuracy"
            }
        };
        prop_assert!(holding(&judge(&broken)).contains(name), "{name}");
        // Nor does a baseline that is none.
        let mut unknown = current();
        unknown.f1[at] = nan;
        unknown.words[at] = nan;
        unknown.distinct_3 = Some(nan);
        let held = holding(&decide(&unknown, &candidate(), &Thresholds::default()));
        prop_assert!(["f1", "longer", "distinct_3"].iter().all(|name| held.contains(*name)), "{held:?}");
    }

    #[test]
    fn the_judgement_is_a_function_of_its_arguments(steps in faults(6)) {
        let scores = worsened(&steps);
        let judged = judge(&scores);
        prop_assert_eq!(&judged, &judge(&scores));
        prop_assert_eq!(judged.promotes(), judged.checks.iter().all(|check| !check.outcome.holds()));
        let read: Scores = serde_json::from_str(&serde_json::to_string(&scores).unwrap()).unwrap();
        prop_assert_eq!(holding(&judge(&read)), holding(&judged));
    }
}
