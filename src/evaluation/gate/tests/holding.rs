//! What holds a candidate?

use super::*;

#[test]
fn a_candidate_that_passes_every_check_is_promoted() {
    let judgement = judge(&candidate());
    assert!(judgement.promotes(), "{}", judgement.markdown("test"));
    assert!(judgement.reasons().is_empty() && judgement.remarks().is_empty());
    assert_eq!(judgement.check("best_of_4").unwrap().value, Some(0.75));
    assert_eq!(judgement.check("best_of_4").unwrap().outcome, Outcome::Reported);
}

/// 12 against 8 is chance by the sign test, not when the 12 are won by much.
#[test]
fn by_how_much_answers_are_better_counts() {
    let judged = |signed_rank| {
        let against_current = Some(Duel { wins: 12, losses: 8, ties: 0, signed_rank });
        decide(&current(), &Scores { against_current, ..candidate() }, &Thresholds::default())
    };
    let sentence = |judgement: &Judgement| {
        judgement.checks.iter().find(|check| check.name == "win_rate_p").unwrap().sentence.clone()
    };
    let (measured, counted) = (judged(Some(0.01)), judged(None));
    assert!(
        measured.promotes() && sentence(&measured).contains("signed-rank test"),
        "{}",
        sentence(&measured)
    );
    assert!(!counted.promotes() && sentence(&counted).contains("The sign test"), "{}", sentence(&counted));
}

#[test]
fn each_fault_holds_by_its_own_name() {
    let shifted = |list: &[f64], by: f64| list.iter().map(|value| value + by).collect::<Vec<_>>();
    let model = candidate().reward_model.unwrap();
    let halves = |pairs, right, longer_chosen| {
        let halves = Some(HalvesScores { pairs, right, longer_chosen });
        RewardModelScores { halves, ..model }
    };
    let with = |change: &dyn Fn(&mut Scores)| {
        let mut scores = candidate();
        change(&mut scores);
        scores
    };
    let cases: Vec<(Scores, &[&str])> = vec![
        // 70 of 100: the interval begins at 0.604.
        (
            with(&|s| s.reward_model = Some(RewardModelScores { longer_chosen: 61, ..model })),
            &["reward_accuracy"],
        ),
        (
            with(&|s| s.reward_model = Some(RewardModelScores { right: 58, longer_chosen: 0, ..model })),
            &["reward_accuracy"],
        ),
        // Right beyond doubt, but no more often than the longer answer is chosen: 0.55.
        (with(&|s| s.reward_model = Some(halves(1000, 550, 550))), &["reward_halves_over_longer"]),
        // 58 of 100: the interval begins at 0.482.
        (with(&|s| s.reward_model = Some(halves(100, 58, 55))), &["reward_halves"]),
        (
            with(&|s| s.reward_model = Some(halves(100, 50, 55))),
            &["reward_halves", "reward_halves_over_longer"],
        ),
        (
            with(&|s| s.reward_model = Some(RewardModelScores { calibration_error: 0.2, ..model })),
            &["reward_calibration"],
        ),
        (with(&|s| s.kl = Some(10.1)), &["kl"]),
        (with(&|s| s.entropy = Some(0.04)), &["entropy"]),
        (with(&|s| s.ended = Some(0.94)), &["ended"]),
        (with(&|s| s.clipped = Some(0.31)), &["clipped"]),
        (with(&|s| s.repetition = Some(0.11)), &["repetition"]),
        (with(&|s| s.same_answer = Some(0.06)), &["same_answer"]),
        (with(&|s| s.distinct_3 = Some(0.85)), &["distinct_3"]),
        (with(&|s| s.words.iter_mut().for_each(|words| *words *= 1.6)), &["longer"]),
        (
            with(&|s| s.against_current = Some(Duel { wins: 400, losses: 350, ties: 50, ..Duel::default() })),
            &["win_rate", "win_rate_p"],
        ),
        (
            with(&|s| s.against_current = Some(Duel { wins: 12, losses: 8, ties: 0, ..Duel::default() })),
            &["win_rate_p"],
        ),
        // Won often, but by little, and lost by much.
        (
            with(&|s| {
                s.against_current = s.against_current.map(|duel| Duel { signed_rank: Some(0.2), ..duel });
            }),
            &["win_rate_p"],
        ),
        (
            with(&|s| {
                s.against_current = Some(Duel { wins: 35, losses: 60, ties: 5, signed_rank: Some(0.001) });
            }),
            &["win_rate", "win_rate_p"],
        ),
        (
            with(&|s| s.against_random = Some(Duel { wins: 5, losses: 90, ties: 5, ..Duel::default() })),
            &["over_random", "over_random_p"],
        ),
        (with(&|s| s.f1 = shifted(&s.f1, -0.03)), &["f1"]),
        (with(&|s| s.rouge_l = shifted(&s.rouge_l, -0.03)), &["rouge_l"]),
        (with(&|s| s.cited = vec![0.0; QUESTIONS]), &["cited"]),
        (with(&|s| s.refused = vec![0.0; QUESTIONS]), &["refused"]),
        (with(&|s| s.valid_citations = vec![0.5; QUESTIONS]), &["valid_citations"]),
        (with(&|s| s.retrieved = vec![0.0; QUESTIONS]), &["retrieved"]),
        (with(&|s| s.parity = Some(0.02)), &["parity"]),
        (with(&|s| s.access = AccessLabel::of([&groups(&["hr", "legal"])])), &["access"]),
    ];
    for (scores, expected) in cases {
        held_by(&scores, expected);
    }
}

#[test]
fn fewer_words_hold_only_when_what_they_say_fell_too() {
    let mut shorter = candidate();
    shorter.words.iter_mut().for_each(|words| *words *= 0.4);
    held_by(&shorter, &[]);
    // Within the tolerance, but on every question: more than chance.
    let mut thinner = shorter.clone();
    thinner.coverage.iter_mut().for_each(|value| *value -= 0.01);
    held_by(&thinner, &["shorter"]);
    let mut vaguer = shorter;
    vaguer.f1.iter_mut().for_each(|value| *value -= 0.01);
    held_by(&vaguer, &["shorter"]);
}

#[test]
fn a_loss_that_chance_explains_passes_up_to_three_tolerances() {
    let mut unlucky = candidate();
    // One question of 12 lost 0.6: a mean of -0.05, and an interval that holds zero.
    unlucky.f1[1] = 0.0;
    held_by(&unlucky, &[]);
    let sentence = &judge(&unlucky).check("f1").unwrap().sentence.clone();
    assert!(sentence.contains("chance explains it"), "{sentence}");
    unlucky.f1[2] = 0.0;
    held_by(&unlucky, &["f1"]);
}

#[test]
fn a_threshold_gives_way_to_what_the_current_policy_does() {
    let now = Scores { ended: Some(0.8), clipped: Some(0.5), repetition: Some(0.3), ..current() };
    let better = Scores { ended: Some(0.9), clipped: Some(0.4), repetition: Some(0.2), ..candidate() };
    assert!(decide(&now, &better, &Thresholds::default()).promotes());
    let worse = Scores { ended: Some(0.75), ..better };
    assert_eq!(holding(&decide(&now, &worse, &Thresholds::default())), ["ended".to_owned()].into());
}

#[test]
fn lists_of_different_questions_are_not_compared() {
    let mut other = candidate();
    other.cited.pop();
    held_by(&other, &["cited"]);
    assert!(judge(&other).reasons()[0].contains("12 questions before and 11 after"));
}

#[test]
fn access_is_a_matter_of_who_is_served() {
    let labelled =
        Scores { access: AccessLabel::of([&groups(&["hr", "staff"]), &groups(&["lab"])]), ..candidate() };
    held_by(&labelled, &["access"]);
    let judged = |audience: &[&str], serve_restricted| {
        let thresholds = Thresholds { audience: groups(audience), serve_restricted, ..Thresholds::default() };
        decide(&current(), &labelled, &thresholds)
    };
    let held = judged(&["staff"], false);
    assert!(held.reasons()[0].contains("members of lab may see"), "{:?}", held.reasons());
    assert!(judged(&["staff", "lab"], false).promotes());
    assert!(judged(&[], true).promotes());
}
