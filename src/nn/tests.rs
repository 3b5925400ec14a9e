//! Do the fused operations have the right values and gradients, and do packing, sharing, recomputing, sampling and
//! resuming change nothing?

mod gradients;
pub(crate) mod models;

use candle_core::{Device, Tensor};

use super::*;
use crate::generation::LogitBias;
use models::{adapter, tiny, words};

fn scores(decoder: &Decoder, batch: &Batch, pass: Pass<'_>) -> Vec<f32> {
    decoder.scores(batch, pass).unwrap().log_probabilities.to_vec1().unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "value {i}: {a} and {b}");
    }
}

#[test]
fn log_probabilities_agree_with_plain_tensor_operations() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        let decoder = tiny(family);
        let text = words(1, 21);
        let mut batch = Batch::default();
        batch.push_text(&text);
        let expected = models::reference(&decoder, &text);
        close(&scores(&decoder, &batch, Pass::default()), &expected, 2e-5);
    }
}

#[test]
fn packed_and_shared_sequences_score_as_alone() {
    let decoder = tiny(Family::Llama);
    let adapter = adapter(&decoder);
    let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
    let (prompt, other) = (words(2, 90), words(3, 5));
    let completions = [words(4, 70), words(5, 1), words(6, 9)];
    let mut together = Batch::default();
    together.push_text(&other);
    let all: Vec<&[u32]> = completions.iter().map(Vec::as_slice).collect();
    together.push(Sequence { prompt: &prompt, completions: &all });
    let mut alone = Vec::new();
    let mut batch = Batch::default();
    batch.push_text(&other);
    alone.extend(scores(&decoder, &batch, pass));
    for completion in &all {
        let mut batch = Batch::default();
        batch.push(Sequence { prompt: &prompt, completions: &[*completion] });
        alone.extend(scores(&decoder, &batch, pass));
    }
    close(&scores(&decoder, &together, pass), &alone, 2e-5);
    assert!(together.rows_len() < 2 * prompt.len(), "the prompt lies in the batch once");
    assert_eq!(together.completions()[1].len(), 70);
}

/// Prompts that begin with 60 words of one another, one of them no more than that, with completions of several lengths.
fn alike() -> Vec<(Vec<u32>, Vec<u32>)> {
    let common = words(2, 60);
    let prompt = |own: usize| [common.clone(), words(9, own)].concat();
    let text = |own: usize, length: usize| (prompt(own), words(length as u64, length));
    vec![text(30, 70), text(30, 9), text(4, 5), text(0, 12), text(0, 1), text(17, 1)]
}

#[test]
fn prompts_that_begin_alike_score_as_alone() {
    let decoder = tiny(Family::Llama);
    let adapter = adapter(&decoder);
    let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
    let alike = alike();
    let texts: Vec<Text<'_>> = alike.iter().map(|(prompt, completion)| Text { prompt, completion }).collect();
    let alone: Vec<f32> =
        texts.iter().flat_map(|text| scores(&decoder, &pack(&[*text], 1)[0].batch, pass)).collect();
    for (tokens, passes) in [(1000, 1), (200, 2)] {
        let packed = pack(&texts, tokens);
        assert_eq!(packed.len(), passes);
        let found: Vec<f32> =
            packed.iter().flat_map(|packed| scores(&decoder, &packed.batch, pass)).collect();
        close(&found, &alone, 2e-5);
    }
    let rows: usize = texts.iter().map(|text| text.prompt.len() + text.completion.len() - 1).sum();
    assert_eq!(
        pack(&texts, 1000)[0].batch.rows_len(),
        rows - 5 * 60 - 30,
        "what they have in common lies there once"
    );
}

#[test]
fn gradients_of_prompts_that_begin_alike_are_the_sum_of_those_apart() {
    let decoder = tiny(Family::Llama);
    let adapter = models::without_dropout(&decoder);
    let alike = alike();
    let texts: Vec<Text<'_>> = alike.iter().map(|(prompt, completion)| Text { prompt, completion }).collect();
    let together = pack(&texts, 1000).remove(0).batch;
    let mut apart = Batch::default();
    for Text { prompt, completion } in &texts {
        apart.push(Sequence { prompt, completions: &[*completion] });
    }
    close(&gradients_of(&decoder, &adapter, &together), &gradients_of(&decoder, &adapter, &apart), 2e-3);
}

fn gradients_of(decoder: &Decoder, adapter: &Adapter, batch: &Batch) -> Vec<f32> {
    let pass = Pass { adapter: Some(adapter), dropout_seed: Some(7), ..Pass::default() };
    let scores = decoder.scores(batch, pass).unwrap();
    let gradients = scores.log_probabilities.sum_all().unwrap().backward().unwrap();
    let flat =
        |var: &candle_core::Var| gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    adapter.variables().into_iter().flat_map(flat).collect()
}

#[test]
fn gradients_of_a_shared_prompt_are_the_sum_of_those_apart() {
    let decoder = tiny(Family::Llama);
    let adapter = models::without_dropout(&decoder);
    let prompt = words(2, 40);
    let completions = [words(4, 70), words(6, 9)];
    let all: Vec<&[u32]> = completions.iter().map(Vec::as_slice).collect();
    let mut together = Batch::default();
    together.push(Sequence { prompt: &prompt, completions: &all });
    let mut apart = Batch::default();
    for completion in &all {
        apart.push(Sequence { prompt: &prompt, completions: &[*completion] });
    }
    let (a, b) = (gradients_of(&decoder, &adapter, &together), gradients_of(&decoder, &adapter, &apart));
    close(&a, &b, 2e-3);
}

#[test]
fn recomputing_gives_the_same_gradients() {
    let decoder = tiny(Family::Qwen3);
    let adapter = adapter(&decoder);
    let mut batch = Batch::default();
    batch.push_text(&words(8, 30));
    let pass = Pass { dropout_seed: Some(7), ..Pass::default() };
    let loss = |scores: &Scores| Ok(scores.log_probabilities.sum_all()?);
    let (value, found) = decoder.checkpointed_backward(&batch, (&adapter, pass), loss).unwrap();
    let pass = Pass { adapter: Some(&adapter), ..pass };
    assert!((value - scores(&decoder, &batch, pass).iter().sum::<f32>()).abs() < 1e-3);
    let flat = |gradient: Option<Tensor>| gradient.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let found: Vec<f32> = found.into_iter().flat_map(flat).collect();
    close(&found, &gradients_of(&decoder, &adapter, &batch), 1e-4);
}

#[test]
fn dropout_repeats_with_its_seed_and_keeps_the_mean() {
    let drop = ops::Dropout { share: 0.25, seed: 3 };
    let out = drop.run(&vec![1.0; 100_000]);
    assert_eq!(out, drop.run(&vec![1.0; 100_000]));
    assert_ne!(out, ops::Dropout { seed: 4, ..drop }.run(&vec![1.0; 100_000]));
    let mean = out.iter().sum::<f32>() / 100_000.0;
    // The mean's standard deviation is √(0.25/0.75/100,000) = 0.0018.
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    assert!(out.iter().all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
}

#[test]
fn sampled_probabilities_are_the_scored_ones_whatever_is_drawn_beside() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        let decoder = tiny(family);
        let request = |seed: u64, n: usize| SampleRequest {
            // They begin alike: what is drawn together reads that once.
            prompt: [words(9, 12), words(seed, 10 + n)].concat(),
            completions: n,
            seed: 100 * seed,
            // What is made likelier is not what the model finds likely.
            bias: LogitBias { tokens: words(seed, 5).into(), nats: n as f32 },
        };
        let requests = [request(1, 3), request(2, 1), request(3, 2)];
        let sampling = Sampling::at(1.0, 12);
        let ends = [3, 5, 8];
        let draw = |width| Sampler::new(&decoder, &ends, width).sample(&requests, sampling, |_| true);
        let (narrow, wide) = (draw(1).unwrap(), draw(16).unwrap());
        for ((request, narrow), wide) in requests.iter().zip(&narrow).zip(&wide) {
            assert_eq!(narrow.len(), request.completions);
            for (one, other) in narrow.iter().zip(wide) {
                assert_eq!(one.tokens, other.tokens);
                assert_eq!(one.ended, ends.contains(one.tokens.last().unwrap()));
                assert!(one.ended || one.tokens.len() == 12);
                let mut batch = Batch::default();
                batch.push(Sequence { prompt: &request.prompt, completions: &[&one.tokens] });
                close(&scores(&decoder, &batch, Pass::default()), &one.log_probabilities, 2e-5);
            }
        }
        let different =
            narrow.iter().flatten().map(|one| &one.tokens).collect::<std::collections::HashSet<_>>();
        assert!(different.len() > 3, "completions of one prompt have random streams of their own");
    }
}

/// Expected by the definition of a softmax temperature, from the log-probabilities of every token at 1.
#[test]
fn a_decoder_at_a_temperature_has_the_distribution_that_is_drawn_at_it() {
    let decoder = tiny(Family::Llama);
    let tempered = decoder.at_temperature(0.6).unwrap();
    let prompt = words(3, 9);
    let every: Vec<[u32; 1]> = (0..decoder.vocabulary() as u32).map(|token| [token]).collect();
    let completions: Vec<&[u32]> = every.iter().map(<[u32; 1]>::as_slice).collect();
    let mut batch = Batch::default();
    batch.push(Sequence { prompt: &prompt, completions: &completions });
    let scaled: Vec<f32> =
        scores(&decoder, &batch, Pass::default()).iter().map(|value| value / 0.6).collect();
    let total = scaled.iter().map(|value| value.exp()).sum::<f32>().ln();
    let expected: Vec<f32> = scaled.iter().map(|value| value - total).collect();
    close(&scores(&tempered, &batch, Pass::default()), &expected, 2e-5);
    let draw = |decoder: &Decoder, temperature| {
        let sampling = Sampling::at(temperature, 12);
        let request =
            SampleRequest { prompt: prompt.clone(), completions: 4, seed: 5, ..SampleRequest::default() };
        let drawn = Sampler::new(decoder, &[], 4).sample(&[request], sampling, |_| true).unwrap();
        drawn.concat().into_iter().map(|one| one.tokens).collect::<Vec<_>>()
    };
    assert_eq!(draw(&tempered, 1.0), draw(&decoder, 0.6));
}

#[test]
fn a_bias_decides_when_it_is_larger_than_every_difference() {
    let decoder = tiny(Family::Llama);
    let (prompt, favoured, ends) = (words(3, 9), words(7, 4), [2]);
    // Logits of the tiny model differ by a few nats.
    let bias = LogitBias { tokens: favoured.clone().into(), nats: 100.0 };
    let request = SampleRequest { prompt, completions: 4, seed: 5, bias };
    let sampling = Sampling::at(1.0, 12);
    let drawn = Sampler::new(&decoder, &ends, 4).sample(&[request], sampling, |_| true).unwrap().concat();
    let may = |token: &u32| favoured.contains(token) || ends.contains(token);
    assert!(drawn.iter().flat_map(|one| &one.tokens).all(may), "{drawn:?}");
}

#[test]
fn sampling_stops_when_told_to() {
    let decoder = tiny(Family::Llama);
    let request = SampleRequest { prompt: words(1, 4), completions: 1, ..SampleRequest::default() };
    let sampling = Sampling::at(0.0, 50);
    let mut heard = 0;
    let drawn = Sampler::new(&decoder, &[], 4).sample(&[request], sampling, |_| {
        heard += 1;
        heard < 3
    });
    assert!(drawn.unwrap()[0][0].tokens.is_empty());
    assert_eq!(heard, 3);
}

#[test]
fn two_adapters_as_one_score_as_one_merged_beneath_the_other() {
    let decoder = tiny(Family::Llama);
    let (one, two) = (adapter(&decoder), models::other_adapter(&decoder));
    let mut batch = Batch::default();
    batch.push_text(&words(7, 30));
    let beneath = decoder.merged(&one).unwrap();
    let stacked = scores(&beneath, &batch, Pass { adapter: Some(&two), ..Pass::default() });
    let together = one.beside(&two).unwrap();
    let joined = scores(&decoder, &batch, Pass { adapter: Some(&together), ..Pass::default() });
    close(&joined, &stacked, 1e-4);
    let alone = scores(&decoder, &batch, Pass { adapter: Some(&one), ..Pass::default() });
    assert!(alone.iter().zip(&joined).any(|(a, b)| (a - b).abs() > 1e-3), "the second one counts");
}

#[test]
fn a_merged_adapter_scores_as_beside_the_weights() {
    let decoder = tiny(Family::Llama);
    let adapter = adapter(&decoder);
    let mut batch = Batch::default();
    batch.push_text(&words(8, 30));
    let beside = scores(&decoder, &batch, Pass { adapter: Some(&adapter), ..Pass::default() });
    let merged = scores(&decoder.merged(&adapter).unwrap(), &batch, Pass::default());
    close(&merged, &beside, 1e-4);
    let without = scores(&decoder, &batch, Pass::default());
    assert!(beside.iter().zip(&without).any(|(a, b)| (a - b).abs() > 0.01), "the adapter changes something");
}

#[test]
fn a_saved_adapter_is_the_same_and_another_models_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let decoder = tiny(Family::Llama);
    let adapter = adapter(&decoder);
    adapter.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let loaded = Adapter::load(&decoder, &path).unwrap();
    assert_eq!(loaded.shape(), adapter.shape());
    loaded.save(&path).unwrap();
    assert_eq!(bytes, std::fs::read(&path).unwrap());
    let other = models::wider();
    assert!(matches!(Adapter::load(&other, &path), Err(NnError::Checkpoint { .. })));
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(Adapter::load(&decoder, &path).is_err());
}

/// Four steps, or two, a checkpoint, another process's memory, and two more: the same adapter to the bit.
#[test]
fn training_resumes_to_the_identical_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let decoder = tiny(Family::Llama);
    let step = |adapter: &Adapter, optimizer: &mut AdamW| {
        let mut batch = Batch::default();
        batch.push_text(&words(optimizer.steps() + 1, 25));
        let pass = Pass { adapter: Some(adapter), dropout_seed: Some(optimizer.steps()), ..Pass::default() };
        let loss = decoder.scores(&batch, pass).unwrap().log_probabilities.mean_all().unwrap().neg().unwrap();
        let gradients = loss.backward().unwrap();
        let variables = adapter.variables();
        let mut found: Vec<_> = variables.iter().map(|var| gradients.get(var).cloned()).collect();
        clip(&mut found, 1.0).unwrap();
        optimizer.step(&variables, &found, 1e-2).unwrap();
    };
    let settings = AdamWSettings::default();
    let (whole, mut optimizer) = {
        let adapter = adapter(&decoder);
        let optimizer = AdamW::new(&adapter.variables(), settings);
        (adapter, optimizer)
    };
    for at in 0..4 {
        if at == 2 {
            Checkpoint::save(&path, (&whole, &optimizer), "{\"at\":2}").unwrap();
        }
        step(&whole, &mut optimizer);
    }
    let fresh = Adapter::new(&decoder, whole.shape(), 99).unwrap();
    let mut resumed = Checkpoint::load(&path, fresh, settings).unwrap().unwrap();
    assert_eq!(resumed.state, "{\"at\":2}");
    assert_eq!(resumed.optimizer.steps(), 2);
    for _ in 0..2 {
        step(&resumed.adapter, &mut resumed.optimizer);
    }
    let values = |adapter: &Adapter| {
        let flat = |var: &&candle_core::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        adapter.variables().iter().flat_map(flat).map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(values(&whole), values(&resumed.adapter));
}

#[test]
fn tokens_outside_the_vocabulary_are_an_error() {
    let decoder = tiny(Family::Llama);
    let mut batch = Batch::default();
    batch.push_text(&[1, 2, 1_000_000, 3]);
    assert!(decoder.scores(&batch, Pass::default()).is_err());
}

#[test]
fn files_of_both_kinds_load_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = tiny(Family::Qwen2);
    models::write_folder(&decoder, folder.path());
    let loaded = Decoder::load(folder.path(), &Device::Cpu).unwrap();
    let gguf = folder.path().join("model.gguf");
    models::write_gguf(&decoder, &gguf);
    let from_gguf = Decoder::load(&gguf, &Device::Cpu).unwrap();
    let mut batch = Batch::default();
    batch.push_text(&words(8, 30));
    let expected = scores(&decoder, &batch, Pass::default());
    close(&scores(&loaded, &batch, Pass::default()), &expected, 1e-6);
    close(&scores(&from_gguf, &batch, Pass::default()), &expected, 1e-6);
    let adapter = adapter(&decoder);
    let target = folder.path().join("merged.gguf");
    let merged =
        merge_gguf((&gguf, &target), &adapter, (0, |_: &[usize]| candle_core::quantized::GgmlDType::F32))
            .unwrap();
    assert_eq!(merged, Merged { tensors: 14, changed: 14 });
    let served = Decoder::load(&target, &Device::Cpu).unwrap();
    let beside = scores(&decoder, &batch, Pass { adapter: Some(&adapter), ..Pass::default() });
    close(&scores(&served, &batch, Pass::default()), &beside, 1e-4);
    let unchanged = Adapter::new(&decoder, adapter.shape(), 1).unwrap();
    let merged =
        merge_gguf((&gguf, &target), &unchanged, (0, |_: &[usize]| candle_core::quantized::GgmlDType::F32))
            .unwrap();
    assert_eq!(merged.changed, 0, "a new adapter changes nothing, and that is told");
    let folder_of_merged = folder.path().join("merged");
    let merged = merge_folder((folder.path(), &folder_of_merged), &adapter).unwrap();
    assert_eq!(merged, Merged { tensors: 14, changed: 14 });
    let served = Decoder::load(&folder_of_merged, &Device::Cpu).unwrap();
    close(&scores(&served, &batch, Pass::default()), &beside, 1e-4);
}
