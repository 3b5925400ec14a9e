use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::{AccessLabel, Groups};
use crate::evaluation::Sample;

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
fn a_fine_tuned_candidate_needs_no_reward_model_and_an_optimised_one_does() {
    let bare = |method| Scores {
        method,
        reward_model: None,
        kl: None,
        entropy: None,
        against_current: None,
        against_random: None,
        gains: None,
        parity: None,
        ..candidate()
    };
    let first = judge(&bare(Method::FineTuned));
    assert!(first.promotes(), "{}", first.markdown("test"));
    assert_eq!(first.remarks().len(), 12);
    let optimised = [
        "entropy",
        "kl",
        "over_random",
        "over_random_p",
        "reward_accuracy",
        "reward_calibration",
        "reward_halves",
        "reward_halves_over_longer",
        "win_rate",
        "win_rate_p",
    ];
    held_by(&bare(Method::Optimised), &optimised);
    let unmeasured = judge(&Scores { method: Method::FineTuned, ..Scores::default() });
    let needed =
        ["clipped", "distinct_3", "ended", "f1", "longer", "repetition", "rouge_l", "same_answer", "shorter"];
    assert_eq!(holding(&unmeasured), needed.map(str::to_owned).into());
}

/// By every other measure it is as good.
#[test]
fn what_choices_taught_is_not_given_up_for_ideal_answers_alone() {
    let optimised = Scores { method: Method::Optimised, ..current() };
    let tuned = Scores { method: Method::FineTuned, ..candidate() };
    let judgement = decide(&optimised, &tuned, &Thresholds::default());
    assert_eq!(holding(&judgement), ["choices_kept".to_owned()].into());
    assert!(
        judgement.reasons()[0].starts_with("The current policy was optimised"),
        "{:?}",
        judgement.reasons()
    );
    assert!(decide(&optimised, &candidate(), &Thresholds::default()).promotes());
    held_by(&tuned, &[]);
}

#[test]
fn reward_models_that_would_hold_every_candidate_are_known_before() {
    let model = candidate().reward_model.unwrap();
    assert!(refusals(model, &Thresholds::default()).is_empty());
    for halves in [None, Some(HalvesScores { pairs: 100, right: 58, longer_chosen: 55 })] {
        let refused = RewardModelScores { halves, ..model };
        let held = judge(&Scores { reward_model: Some(refused), ..candidate() }).reasons();
        assert!(!held.is_empty());
        assert_eq!(refusals(refused, &Thresholds::default()), held);
    }
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

#[test]
fn reasons_are_sentences_with_the_numbers_and_the_threshold() {
    let faulty = Scores { kl: Some(12.25), words: vec![50.0; QUESTIONS], ..candidate() };
    let expected = [
        "The KL divergence from the reference policy in nats per answer is 12.25, but at most 10 is allowed.",
        "The number of words for each word of the current policy's answers is 2.1429, but at most 1.5 is allowed.",
    ];
    assert_eq!(judge(&faulty).reasons(), expected);
    let lost = Scores { f1: current().f1.iter().map(|value| value - 0.1).collect(), ..candidate() };
    let sentence = "Token F1 against the human answers changed by -0.1 on 12 questions (from 0.5 to 0.4, 95% interval -0.1 to -0.1), \
                    but the most allowed is a loss of 0.02.";
    assert_eq!(judge(&lost).reasons(), [sentence]);
}

#[test]
fn the_table_has_every_check_once_and_nothing_in_it_is_markup() {
    let label = AccessLabel::of([&groups(&["<b>hr</b>|x"])]);
    let judgement = judge(&Scores { access: label, kl: None, ..candidate() });
    let page = judgement.markdown("Candidate");
    for check in &judgement.checks {
        let row = format!("\n| {} |", check.name.replace('_', "\\_"));
        assert_eq!(page.matches(&row).count(), 1, "{page}");
    }
    assert!(page.contains("| kl | – | at most 10 | **not measured, but needed** |"), "{page}");
    assert!(page.contains("&lt;b&gt;hr&lt;/b&gt;\\|x") && !page.contains("<b>"), "{page}");
    let read: Judgement = serde_json::from_str(&judgement.json()).unwrap();
    assert_eq!(read, judgement);
}

#[test]
fn scores_of_samples_are_those_of_their_texts() {
    let sample = |answer: &str, ideal: &str, ended, cited| Sample {
        id: "q".into(),
        question: "?".into(),
        ideal: ideal.into(),
        answer: answer.into(),
        ended,
        answer_tokens: 4,
        nll: None,
        cited,
        cosine: None,
    };
    let scores = Scores::of(&[
        sample("Room 310 is here [1].", "Room 310", true, Some(true)),
        sample("Room 310 is here.", "The first floor", false, None),
    ]);
    // Two of four words are shared with both of two: precision 1/2, recall 1.
    assert!((scores.f1[0] - 2.0 / 3.0).abs() < 1e-12 && scores.f1[1].abs() < 1e-12);
    assert_eq!((scores.coverage, scores.cited, scores.words), (vec![1.0, 0.0], vec![1.0], vec![4.0, 4.0]));
    assert_eq!((scores.ended, scores.clipped), (Some(0.5), Some(0.5)));
    // The marks differ, so the answers do.
    assert_eq!((scores.same_answer, scores.repetition, scores.distinct_3), (Some(0.0), Some(0.0), Some(1.0)));
    assert_eq!(Scores::of(&[]), Scores::default());
}

#[test]
fn the_defaults_are_in_range_and_others_are_named() {
    assert_eq!(Thresholds::default().problem(), None);
    let named = |thresholds: Thresholds| thresholds.problem().unwrap().0;
    assert_eq!(named(Thresholds { kl: f64::NAN, ..Thresholds::default() }), "kl");
    assert_eq!(named(Thresholds { win_rate: 0.4, ..Thresholds::default() }), "win_rate");
    assert_eq!(named(Thresholds { tolerance: -0.1, ..Thresholds::default() }), "tolerance");
}

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
