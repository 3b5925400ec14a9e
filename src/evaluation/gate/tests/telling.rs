//! How is a judgement told, and where do its scores come from?

use super::*;
use crate::evaluation::Sample;

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
