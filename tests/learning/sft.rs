//! Supervised fine-tuning: a planted answer is learnt, with its end, and the model then says it.

use attune::nn::{AdapterShape, SampleRequest, Sampler, Sampling};
use attune::sft::{Example, Settings, loss, train};

use crate::tiny::{VOCABULARY, model};

const END: u32 = 1;

/// A question is a word between two marks; the planted answer is the word twice, and the end of the turn.
fn examples() -> Vec<Example> {
    let words = 10..VOCABULARY as u32;
    words.map(|word| Example { prompt: vec![4, 5, 6, word, 7], completion: vec![word, word, END] }).collect()
}

fn settings() -> Settings {
    Settings {
        adapter: AdapterShape { rank: 16, alpha: 32.0, dropout: 0.0 },
        learning_rate: 1e-2,
        warmup: 0.1,
        epochs: 30,
        batch: 8,
        max_sequence_tokens: 64,
        pass_tokens: 1024,
        recompute: false,
        seed: 3,
    }
}

#[test]
fn a_planted_answer_is_learnt_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = model(folder.path());
    let examples = examples();
    let before = loss(&decoder, None, &examples).unwrap().unwrap();
    let trained = train(&decoder, (&examples, &[]), (&settings(), folder.path()), |_| true).unwrap();
    let after = loss(&decoder, Some(&trained.adapter), &examples).unwrap().unwrap();
    assert!(after < 0.2 && before > 1.0, "{before} nats a token before, {after} after");

    let merged = decoder.merged(&trained.adapter).unwrap();
    let ask = |example: &Example| SampleRequest {
        prompt: example.prompt.clone(),
        completions: 1,
        ..SampleRequest::default()
    };
    let requests: Vec<SampleRequest> = examples.iter().map(ask).collect();
    let greedy = Sampling::at(0.0, 8);
    let said = Sampler::new(&merged, &[END], 16).sample(&requests, greedy, |_| true).unwrap();
    let right =
        said.iter().zip(&examples).filter(|(said, example)| said[0].tokens == example.completion).count();
    assert!(right * 10 >= examples.len() * 9, "{right} of {} answers are the planted ones", examples.len());
}

#[test]
fn an_answer_that_follows_a_rule_is_given_to_questions_never_seen() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = model(folder.path());
    // Whatever is asked, the answer is short and polite: 8, 9, end. A preference, not a fact.
    let polite = |word: u32| Example { prompt: vec![4, 5, word, 7], completion: vec![8, 9, END] };
    let (seen, unseen): (Vec<Example>, Vec<Example>) =
        ((10..60).map(polite).collect(), (60..VOCABULARY as u32).map(polite).collect());
    let settings = Settings { epochs: 8, ..settings() };
    let trained = train(&decoder, (&seen, &unseen), (&settings, folder.path()), |_| true).unwrap();
    let after = loss(&decoder, Some(&trained.adapter), &unseen).unwrap().unwrap();
    assert_eq!(trained.validation_best, Some(after));
    assert!(after < 0.1 && trained.validation_before.unwrap() > 1.0, "{after} nats a token");
}
