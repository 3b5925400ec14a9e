//! Real weights are swapped in the real engine while people stream: nothing fails or mixes, and the old ones go.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::Arc;

use attune::config::{Config, ModelsConfig};
use attune::domain::{GenerationId, GenerationKind};
use attune::models::{self, BaseModel};
use attune::prompt::PromptBuilder;
use attune::registry::{About, BaseRef, Manifest, POLICY_FILE, ParitySample, Registry, TemplateRef};
use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{self, Content};
use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Setup, TestApp, asking, events};

/// The tensor that "training" changed.
const TENSOR: &str = "blk.3.ffn_down.weight";
const SWAPS: usize = 6;

/// The default model, fetched the way users fetch it; `None` (said plainly) where it can not be had.
async fn default_model() -> Option<BaseModel> {
    let prepare = || models::prepare(&ModelsConfig::default(), models::for_this_process().as_ref());
    let prepared = tokio::task::spawn_blocking(prepare).await.unwrap();
    prepared
        .map_err(|error| {
            eprintln!("skipped: the default model can not be had: {}", attune::error::chain(&error));
        })
        .ok()
}

/// Writes the model again with one tensor scaled.
fn scale(base: &Path, factor: f64, to: &Path) {
    let mut source = BufReader::new(File::open(base).unwrap());
    let content = Content::read(&mut source).unwrap();
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let tensors: Vec<(&str, QTensor)> = names
        .into_iter()
        .map(|name| {
            let tensor = content.tensor(&mut source, name, &Device::Cpu).unwrap();
            if name != TENSOR {
                return (name.as_str(), tensor);
            }
            let scaled = (tensor.dequantize(&Device::Cpu).unwrap() * factor).unwrap();
            (name.as_str(), QTensor::quantize(&scaled, tensor.dtype()).unwrap())
        })
        .collect();
    let metadata: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut BufWriter::new(File::create(to).unwrap()), &metadata, &tensors).unwrap();
}

fn about(base: &BaseModel, config: &Config) -> About {
    let template = TemplateRef {
        prompt: PromptBuilder::new(&config.prompt).template_hash().to_owned(),
        chat: base.template().unwrap().hash().to_owned(),
    };
    let id = attune::generation::base_id(base, &config.generation);
    let manifest = Manifest::of_base(id.clone(), BaseRef::of(base), template, base.serving_format);
    About { kind: GenerationKind::Policy, parent: Some(id), merged_tensors: 1, ..manifest.about }
}

async fn publish(app: &TestApp, base: &BaseModel, factor: f64, about: About) -> GenerationId {
    let ledger = attune::ledger::open(None, app.folder()).await.unwrap();
    let registry = Registry::open(app.folder(), Arc::clone(&ledger)).await.unwrap();
    let draft = registry.draft().await.unwrap();
    let (from, to) = (base.weights.path().to_owned(), draft.path().join(POLICY_FILE));
    tokio::task::spawn_blocking(move || scale(&from, factor, &to)).await.unwrap();
    let id = registry.publish(draft, about).await.unwrap().id;
    ledger.close().await;
    id
}

/// Streams one answer to its end and returns who gave it.
async fn stream(app: &TestApp) -> String {
    let mut body = asking("Name three colours.");
    (body["stream"], body["max_tokens"], body["attune"]) =
        (json!(true), json!(24), json!({"retrieve": false}));
    let response = app.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    let events = events(&text);
    assert_eq!(events.last(), Some(&json!("[DONE]")), "{text}");
    assert!(events.iter().all(|event| event["error"].is_null()), "{text}");
    let by = events.iter().find_map(|event| event["choices"][0]["delta"]["attune"]["generation"].as_str());
    by.or_else(|| events.iter().find_map(|event| event["attune"]["generation"].as_str())).unwrap().to_owned()
}

/// Bytes of memory that are this process's own: mapped files, the weights on disk, are not counted.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_weights_are_swapped_under_load_and_memory_comes_back() {
    let Some(base) = default_model().await else { return };
    let setup =
        Setup { generator: None, ..Setup::default() }.config(|config| config.admission.max_in_flight = 2);
    let config = setup.config.clone();
    let app = setup.start().await;
    let mut about = about(&base, &config);
    let first = publish(&app, &base, 1.5, about.clone()).await.to_string();
    let second = publish(&app, &base, 0.5, about.clone()).await.to_string();

    // A planted mistake of each kind is noticed.
    about.parity =
        vec![ParitySample { prompt: vec![1, 4093], completion: vec![198, 2], logprobs: vec![-0.1, -0.1] }];
    let off = publish(&app, &base, 1.1, about.clone()).await;
    about.parity.clear();
    about.template.chat = "another".into();
    let templated = publish(&app, &base, 1.1, about).await;
    for (id, reason) in [(off, "not those it was trained to"), (templated, "another chat template")] {
        // On a slow machine the caller is told 202 before it is known.
        let (status, body) = app.post(&format!("/v1/generations/{id}/promote"), json!({})).await;
        assert!([StatusCode::CONFLICT, StatusCode::ACCEPTED].contains(&status), "{body}");
        let said =
            async || app.get(&format!("/v1/generations/{id}")).await.1["failure"]["reason"].to_string();
        app.eventually(reason, async || said().await.contains(reason)).await;
    }

    let mut first_round = 0;
    for n in 0..SWAPS {
        let id = if n % 2 == 0 { &first } else { &second };
        let streams =
            futures::stream::iter(0..4).map(|_| stream(&app)).buffer_unordered(3).collect::<Vec<_>>();
        let path = format!("/v1/generations/{id}/promote");
        let (by, (status, body)) = tokio::join!(streams, app.post(&path, json!({})));
        assert!(status.is_success() && by.len() == 4, "{by:?} {body}");
        app.eventually("it is served", async || stream(&app).await == *id).await;
        let loaded = async || app.get("/v1/models").await.1["data"].as_array().unwrap().len();
        app.eventually("the old one has left the memory", async || loaded().await == 2).await;
        // By then two generations are loaded, as ever after.
        if n == 1 {
            first_round = resident();
        }
    }
    let within = first_round + first_round / 10;
    app.eventually("memory is back where it was", async || resident() <= within).await;
}
