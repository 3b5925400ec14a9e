//! Is the end of the turn learnt, are prompts left alone, and does an interrupted run end as an uninterrupted one?

use super::*;
use crate::nn::Family;
use crate::nn::tests::models::{VOCABULARY, tiny};

/// The end-of-turn token; also used as padding by many models, which must not hide it from the loss.
const END: u32 = 2;

/// Each word is answered by itself and the next one.
fn examples() -> Vec<Example> {
    let all = (10..VOCABULARY as u32 - 2).map(|word| Example {
        prompt: vec![5, 6, 7, 8, 9, 5, 6, 7, 8, word, 3],
        completion: vec![word, word + 1, END],
    });
    all.collect()
}

fn settings() -> Settings {
    Settings {
        adapter: AdapterShape { rank: 16, alpha: 32.0, dropout: 0.0 },
        learning_rate: 8e-3,
        warmup: 0.1,
        epochs: 40,
        batch: 6,
        max_sequence_tokens: 64,
        pass_tokens: 40,
        recompute: false,
        seed: 1,
    }
}

fn bytes(adapter: &Adapter, folder: &Path) -> Vec<u8> {
    let path = folder.join("compared.safetensors");
    adapter.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_planted_answer_and_its_end_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = tiny(Family::Llama);
    let examples = examples();
    let before = loss(&decoder, None, &examples).unwrap().unwrap();
    let trained = train(&decoder, (&examples, &[]), (&settings(), folder.path()), |_| true).unwrap();
    let after = loss(&decoder, Some(&trained.adapter), &examples).unwrap().unwrap();
    assert!(after < before / 4.0, "{before} to {after} nats a token");
    let ends: Vec<Example> = examples
        .iter()
        .map(|one| Example {
            prompt: [one.prompt.as_slice(), &one.completion[..2]].concat(),
            completion: vec![END],
        })
        .collect();
    let end = loss(&decoder, Some(&trained.adapter), &ends).unwrap().unwrap();
    assert!(end < 0.2, "the end of the turn costs {end} nats");
}

/// With as many steps, a training that begins where another one ended is farther; interrupted it ends alike.
#[test]
fn a_warm_start_goes_on_from_what_was_made() {
    let [cold, warm, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let decoder = tiny(Family::Llama);
    let examples = examples();
    let settings = Settings { epochs: 3, ..settings() };
    let first = train(&decoder, (&examples, &[]), (&settings, cold.path()), |_| true).unwrap();
    for folder in [&warm, &other] {
        std::fs::copy(cold.path().join(MADE), folder.path().join(START)).unwrap();
    }
    let again = train(&decoder, (&examples, &[]), (&settings, warm.path()), |_| true).unwrap();
    let loss = |trained: &Trained| loss(&decoder, Some(&trained.adapter), &examples).unwrap().unwrap();
    assert!(loss(&again) < 0.9 * loss(&first), "{} to {} nats a token", loss(&first), loss(&again));
    let stopped = train(&decoder, (&examples, &[]), (&settings, other.path()), |step| step.done < 5);
    assert!(matches!(stopped, Err(SftError::Stopped { step: 5 })));
    let resumed = train(&decoder, (&examples, &[]), (&settings, other.path()), |_| true).unwrap();
    assert_eq!(bytes(&resumed.adapter, other.path()), bytes(&again.adapter, warm.path()));
    let wider = Settings { adapter: AdapterShape { rank: 4, ..settings.adapter }, ..settings };
    std::fs::remove_file(other.path().join("checkpoint.safetensors")).unwrap();
    let refused = train(&decoder, (&examples, &[]), (&wider, other.path()), |_| true);
    assert!(matches!(refused, Err(SftError::Nn(NnError::Checkpoint { .. }))));
}

#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let decoder = tiny(Family::Llama);
    let all = examples();
    let (train_on, validate_on) = all.split_at(30);
    let settings =
        Settings { epochs: 2, adapter: AdapterShape { dropout: 0.2, ..settings().adapter }, ..settings() };
    let whole = train(&decoder, (train_on, validate_on), (&settings, folder.path()), |_| true).unwrap();
    for stop_at in [1, 4, 9] {
        let stopped =
            train(&decoder, (train_on, validate_on), (&settings, other.path()), |step| step.done < stop_at);
        assert!(matches!(stopped, Err(SftError::Stopped { step }) if step == stop_at));
    }
    let resumed = train(&decoder, (train_on, validate_on), (&settings, other.path()), |_| true).unwrap();
    assert_eq!(bytes(&resumed.adapter, other.path()), bytes(&whole.adapter, folder.path()));
    assert_eq!((resumed.steps, resumed.tokens), (whole.steps, whole.tokens));
    assert_eq!(resumed.validation_best, whole.validation_best);
    let changed = Settings { seed: 2, ..settings };
    let refused = train(&decoder, (train_on, validate_on), (&changed, other.path()), |_| true);
    assert!(matches!(refused, Err(SftError::Nn(NnError::Checkpoint { .. }))));
}

#[test]
fn recomputing_learns_the_same() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let decoder = tiny(Family::Llama);
    let all = examples();
    let settings = Settings { epochs: 1, ..settings() };
    let mut losses = Vec::new();
    train(&decoder, (&all, &[]), (&settings, folder.path()), |step| {
        losses.push(step.loss);
        true
    })
    .unwrap();
    let settings = Settings { recompute: true, ..settings };
    let mut at = losses.iter();
    train(&decoder, (&all, &[]), (&settings, other.path()), |step| {
        let expected = at.next().unwrap();
        assert!((step.loss - expected).abs() < 1e-3, "{} and {expected}", step.loss);
        true
    })
    .unwrap();
}

#[test]
fn a_rising_validation_loss_ends_it_with_the_best_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = tiny(Family::Llama);
    let all = examples();
    // What is validated contradicts what is learnt.
    let contrary: Vec<Example> =
        all.iter().map(|one| Example { completion: vec![4, 4, 4], ..one.clone() }).collect();
    let settings = Settings { epochs: 60, ..settings() };
    let trained = train(&decoder, (&all, &contrary), (&settings, folder.path()), |_| true).unwrap();
    assert!(trained.stopped_early);
    let best = loss(&decoder, Some(&trained.adapter), &contrary).unwrap();
    assert_eq!(best, trained.validation_best);
}

#[test]
fn too_long_examples_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = tiny(Family::Llama);
    let mut all = examples();
    all[0].prompt = vec![7; 100];
    let settings = Settings { epochs: 1, ..settings() };
    let trained = train(&decoder, (&all, &[]), (&settings, folder.path()), |_| true).unwrap();
    assert_eq!(trained.left_out, 1);
    let none = train(&decoder, (&all[..1], &[]), (&settings, folder.path()), |_| true);
    assert!(matches!(none, Err(SftError::NoExamples { limit: 64 })));
}
