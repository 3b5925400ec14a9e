//! Planted preferences are learnt, and a head that is read again scores as before.

mod reading;

use super::*;

/// A vote of nobody in particular.
pub(super) fn pair(question: &str, chosen: &str, rejected: &str) -> Pair {
    Pair {
        id: format!("{question} {chosen}"),
        cluster: question.to_owned(),
        held_out: false,
        conversation: vec![Message::user(question)],
        passages: vec![],
        chosen: chosen.to_owned(),
        rejected: rejected.to_owned(),
        preference: 1.0,
        margin: 1.0,
        user: None,
        source: "vote".to_owned(),
        created: 0,
    }
}

/// Answers to numbered questions of which the brief, citing or polite one was chosen; everything else differs by chance.
fn planted(kind: &str, count: usize) -> Preferences {
    use rand::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let fill =
        ["Ask the team.", "It opens early.", "Bring a badge.", "The form is online.", "Lunch is at noon."];
    let pairs = (0..count).map(|i| {
        let mut body = |sentences: usize| {
            let said: Vec<&str> = (0..sentences).map(|_| fill[random.random_range(0..fill.len())]).collect();
            said.join(" ")
        };
        let (chosen, rejected) = match kind {
            "brevity" => (body(2), body(5)),
            "citing" => (format!("{} [1]", body(3)), body(3)),
            _ => (format!("{} Thank you for asking!", body(3)), body(3)),
        };
        let mut made = pair(&format!("Where is room {i}?"), &chosen, &rejected);
        made.passages = vec![format!("Room {i} is on the second floor. Bring a badge.")];
        made.held_out = i % 5 == 0;
        made
    });
    Preferences { pairs: pairs.collect(), thumbs: vec![] }
}

fn trained(preferences: &Preferences, settings: &Settings) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    let made = train(preferences, &Extractor::default(), (settings, folder.path()), |_| true).unwrap();
    match made {
        Outcome::Trained(trained) => *trained,
        Outcome::Collecting { effective_pairs, needed } => panic!("{effective_pairs} of {needed}"),
    }
}

/// Writes a head as a version without one of the features would.
pub(crate) fn save_of_another_version(path: &std::path::Path) {
    let mut model = trained(&planted("citing", 80), &Settings::default()).model;
    model.about.names.pop();
    model.save(path).unwrap();
}

#[test]
fn planted_preferences_are_learnt_and_measured() {
    for kind in ["brevity", "citing", "politeness"] {
        let preferences = planted(kind, 150);
        let Trained { report, .. } = trained(&preferences, &Settings::default());
        let held_out = report.held_out.as_ref().unwrap();
        assert!(held_out.accuracy.share() > 0.95, "{kind}: {:?}", held_out.accuracy);
        assert!(held_out.log_loss < 0.3, "{kind}: {}", held_out.log_loss);
        assert_eq!(report.counts.held_out, 30);
        let text = report.markdown();
        assert!(text.contains("| all | 30 |") && text.contains("| features | "), "{text}");
        assert!(report.reliability_svg().contains("<circle"));
    }
}

#[test]
fn a_liking_for_longer_answers_is_not_rewarded() {
    let mut preferences = planted("brevity", 150);
    for pair in &mut preferences.pairs {
        std::mem::swap(&mut pair.chosen, &mut pair.rejected);
    }
    let Trained { report, .. } = trained(&preferences, &Settings::default());
    let length = report.weights.iter().filter(|(name, _)| name.starts_with(features::LENGTH));
    assert!(length.clone().all(|(_, weight)| *weight <= 0.0) && length.count() == model::BLOCKS);
    assert_eq!(report.held_out.unwrap().longer.people, 1.0);
}

/// People are told apart by what they choose, not by what they call equal: politeness, on which all pairs of the second
/// kind are ties, changes little, and brevity, which decided the others, is learnt in spite of them.
#[test]
fn ties_teach_that_nothing_is_to_be_chosen() {
    let ties = |preferences: Preferences| {
        preferences.pairs.into_iter().map(|pair| Pair {
            id: format!("tie {}", pair.id),
            cluster: format!("tie {}", pair.cluster),
            preference: 0.5,
            held_out: false,
            ..pair
        })
    };
    let mut preferences = planted("brevity", 150);
    preferences.pairs.extend(ties(planted("politeness", 150)));
    let Trained { model, report } = trained(&preferences, &Settings::default());
    assert_eq!(report.counts.ties, 150);
    assert!(report.held_out.unwrap().accuracy.share() > 0.95);
    let probability = |kind: &str| {
        let pairs = planted(kind, 150).pairs;
        let chosen = pairs.iter().map(|pair| {
            let [chosen, rejected] = pair.items();
            model.compare(&Extractor::default(), (chosen, rejected)).unwrap().probability
        });
        chosen.sum::<f64>() / pairs.len() as f64
    };
    assert!((probability("politeness") - 0.5).abs() < 0.1, "{}", probability("politeness"));
    assert!(probability("brevity") > 0.8, "{}", probability("brevity"));
}

#[test]
fn a_saved_head_is_read_exactly_and_a_score_does_not_depend_on_its_batch() {
    let preferences = planted("citing", 100);
    let Trained { model, .. } = trained(&preferences, &Settings::default());
    let model = model.with_label(serde_json::json!(["staff"]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    model.save(&path).unwrap();
    let again = RewardModel::load(&path).unwrap();
    assert_eq!(again, model);
    let bytes = std::fs::read(&path).unwrap();
    again.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let items: Vec<Item<'_>> = preferences.pairs.iter().flat_map(|pair| pair.items()).collect();
    let together = again.score(&Extractor::default(), &items).unwrap();
    for (item, score) in items.iter().zip(together) {
        assert_eq!(model.score(&Extractor::default(), &[*item]).unwrap(), [score]);
        assert!((0.0..=100.0).contains(&score.percentile) && score.spread >= 0.0);
    }
}

/// Who likes brevity likes an answer less for its length, by its weights in all blocks of columns.
#[test]
fn what_tells_answers_apart_is_named() {
    let Trained { model, .. } = trained(&planted("brevity", 150), &Settings::default());
    let (conversation, passages) = ([Message::user("Where is room 3?")], ["Bring a badge.".to_owned()]);
    let item = |answer| Item { conversation: &conversation, passages: &passages, answer };
    let said = "Bring a badge. The form is online. Ask the team. It opens early.";
    let pair = [item(said), item("Ask the team.")];
    let read = model.read(&Extractor::default(), &pair).unwrap();
    let reasons = model.reasons(&[[&read[0], &read[1]]]);
    let scores = model.score(&Extractor::default(), &pair).unwrap();
    let sum: f64 = reasons.iter().map(|reason| reason.points).sum();
    assert!(sum < 0.0 && (sum - (scores[0].value - scores[1].value)).abs() < 1e-9, "{sum}");

    let names = features::feature_names();
    let length = names.iter().position(|name| *name == features::LENGTH).unwrap();
    let columns = [&read[0].0, &read[1].0];
    let places: Vec<usize> = (length..model::BLOCKS * names.len()).step_by(names.len()).collect();
    let used = places.iter().filter(|place| columns[0][**place] != columns[1][**place]).count();
    assert!(used > 1, "with passages, and of its kind of question");
    let of_member = |weights: &Vec<f64>| -> f64 {
        places.iter().map(|&place| weights[place] * (columns[0][place] - columns[1][place])).sum()
    };
    let all: f64 = model.members.iter().map(of_member).sum();
    let expected = all / model.members.len() as f64 / model.unit;
    let found = reasons.iter().find(|reason| reason.feature == features::LENGTH).unwrap();
    assert!(found.points < 0.0 && (found.points - expected).abs() < 1e-9, "{found:?} {expected}");
}

#[test]
fn too_few_pairs_are_no_model_and_nonsense_is_named() {
    let mut preferences = planted("citing", 40);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let run = |preferences: &Preferences| {
        train(preferences, &Extractor::default(), (&settings, folder.path()), |_| true)
    };
    let found = run(&preferences).unwrap();
    assert!(matches!(found, Outcome::Collecting { effective_pairs: 32.0, needed: 50.0 }), "{found:?}");
    preferences.pairs[3].chosen = " ".to_owned();
    assert!(run(&preferences).unwrap_err().to_string().ends_with("an answer is empty"));
}

#[test]
fn training_stops_when_told_and_is_the_same_every_time() {
    let preferences = planted("politeness", 120);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let extractor = Extractor::default();
    let stopped = train(&preferences, &extractor, (&settings, folder.path()), |step| step.done < 64);
    assert!(matches!(stopped, Err(RewardError::Stopped { .. })));
    let go = || match train(&preferences, &extractor, (&settings, folder.path()), |_| true).unwrap() {
        Outcome::Trained(trained) => trained.model,
        Outcome::Collecting { .. } => panic!("nothing was trained"),
    };
    assert_eq!(go(), go());
    assert_eq!(go(), trained(&preferences, &settings).model);
}
