//! What has to be measured, by how the policies were made?

use super::*;

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
