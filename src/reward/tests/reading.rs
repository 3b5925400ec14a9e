//! The rungs that read answers with a language model, on a tiny random one.

use super::*;
use crate::evaluation::statistics::mean_or_zero;
use crate::models::codec::tests::codec;
use crate::models::template::tests::SMOLLM2;
use crate::nn::tests::models::{wider, with_vocabulary};
use crate::reward::model::Reading;
use crate::reward::tuned::{Lesson, tune};

/// Scores alone and in a batch differ by the order in which matrix products add.
const TOLERANCE: f64 = 1e-4;

/// A vocabulary of bytes and control tokens.
fn extractor() -> Extractor {
    let backbone = Backbone { decoder: with_vocabulary(300), codec: codec(SMOLLM2) };
    Extractor { encoder: None, backbone: Some(Arc::new(backbone)) }
}

/// The liked answer says `plum`, the other `pear`: nothing that the features look at.
fn fruit(count: usize) -> Vec<Pair> {
    let made = (0..count).map(|i| {
        let said = |fruit: &str| format!("Take the {fruit} from box {}.", i % 7);
        let mut made = pair(&format!("What is in room {i}?"), &said("plum"), &said("pear"));
        made.held_out = i % 5 == 0;
        made
    });
    made.collect()
}

fn learn(minutes: f64) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { budget_minutes: minutes, ..Settings::default() };
    let preferences = Preferences { pairs: fruit(100), thumbs: vec![] };
    match train(&preferences, &extractor(), (&settings, folder.path()), |_| true).unwrap() {
        Outcome::Trained(trained) => *trained,
        Outcome::Collecting { .. } => panic!("nothing was trained"),
    }
}

#[test]
fn what_features_can_not_see_is_learnt_from_the_language_model() {
    let Trained { model, report } = learn(15.0);
    assert!(model.needs_backbone() && report.rung > Rung::Features, "{:?}", report.ladder);
    assert_eq!(report.held_out.unwrap().accuracy.share(), 1.0);
    assert_eq!(report.ladder.iter().filter(|tried| tried.chosen).count(), 1);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    model.save(&path).unwrap();
    let again = RewardModel::load(&path).unwrap();
    assert_eq!(again, model);
    let pairs = fruit(6);
    let items: Vec<Item<'_>> = pairs.iter().flat_map(|pair| pair.items()).collect();
    let together = model.score(&extractor(), &items).unwrap();
    assert_eq!(again.score(&extractor(), &items).unwrap(), together);
    for (item, score) in items.iter().zip(together) {
        let alone = model.score(&extractor(), &[*item]).unwrap()[0];
        assert!((alone.value - score.value).abs() < TOLERANCE, "{alone:?} {score:?}");
    }
    reasons_add_up(&model, &items);
    assert!(matches!(model.score(&Extractor::default(), &items), Err(RewardError::NoBackbone)));
    let other = Backbone { decoder: wider(), codec: codec(SMOLLM2) };
    let other = Extractor { encoder: None, backbone: Some(Arc::new(other)) };
    assert!(matches!(model.score(&other, &items), Err(RewardError::OtherBackbone)));
}

/// What each feature adds, and what the language model reads, is all that tells two scores apart.
fn reasons_add_up(model: &RewardModel, items: &[Item<'_>]) {
    let read = model.read(&extractor(), items).unwrap();
    let pairs: Vec<[&Read; 2]> = read.chunks_exact(2).map(|pair| [&pair[0], &pair[1]]).collect();
    let scores = model.score(&extractor(), items).unwrap();
    let differences: Vec<f64> = scores.chunks_exact(2).map(|pair| pair[0].value - pair[1].value).collect();
    let reasons = model.reasons(&pairs);
    let sum: f64 = reasons.iter().map(|reason| reason.points).sum();
    assert!((sum - mean_or_zero(&differences)).abs() < TOLERANCE, "{sum} {reasons:?}");
    assert!(reasons[0].feature.contains("language model"), "{reasons:?}");
    assert_eq!(model.reasons(&[]), []);
}

#[test]
fn rungs_for_which_there_is_no_time_are_named() {
    let Trained { model, report } = learn(0.0);
    assert_eq!(model.rung(), Rung::Features);
    let skipped = |tried: &&Tried| tried.reason.as_ref().is_some_and(|reason| reason.starts_with("skipped"));
    assert_eq!(report.ladder.iter().filter(skipped).count(), 2, "{:?}", report.ladder);
}

#[test]
fn an_adapter_learns_what_is_left_and_is_kept_exactly() {
    let extractor = extractor();
    let backbone = extractor.backbone.clone().unwrap();
    let pairs = fruit(400);
    let lesson = |pair| Lesson { pair, logit: 0.0, target: 0.9, weight: 1.0 };
    let lessons: Vec<Lesson<'_>> = pairs.iter().map(lesson).collect();
    let learn = || tune(&backbone, &lessons, (3, 2, f64::INFINITY), &mut |_| true).unwrap().unwrap();
    let tuned = learn();
    let new = fruit(20);
    let items: Vec<Item<'_>> = new.iter().flat_map(|pair| pair.items()).collect();
    let ends = backbone.ends(&tuned.adapter, &items).unwrap();
    let reward = |end: &[f64]| -> f64 { tuned.heads[0].iter().zip(end).map(|(w, x)| w * x).sum() };
    let right = ends.chunks_exact(2).filter(|pair| reward(&pair[0]) > reward(&pair[1])).count();
    assert_eq!(right, new.len());
    let again = learn();
    assert_eq!((&again.adapter, &again.heads), (&tuned.adapter, &tuned.heads));
    // There and back through a head's file.
    let Trained { mut model, .. } = trained_on_features();
    let columns = model.members[0].len();
    model.about.rung = Rung::Adapter;
    model.about.backbone = Some(backbone.version().unwrap());
    model.about.adapter = Some(tuned.adapter.shape);
    for (i, member) in model.members.iter_mut().enumerate() {
        member.truncate(columns);
        member.extend(&tuned.heads[i % 2]);
    }
    model.reading = Some(Reading::Tuned(tuned.adapter));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    model.save(&path).unwrap();
    let again = RewardModel::load(&path).unwrap();
    assert_eq!(again, model);
    assert_eq!(again.score(&extractor, &items).unwrap(), model.score(&extractor, &items).unwrap());
}

fn trained_on_features() -> Trained {
    trained(&planted("citing", 100), &Settings::default())
}
