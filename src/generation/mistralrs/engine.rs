//! How is the embedded engine started on a model's weights, and asked for tokens?

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use mistralrs::core::{
    AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig,
    MistralRsBuilder, ModelDType, NormalRequest, SchedulerConfig, TokenSource,
};
use mistralrs::{
    CustomLogitsProcessor, Model, Request, RequestMessage, Response, SamplingParams, TextModelBuilder,
    best_device,
};
use tokio::sync::mpsc;

use super::places;
use crate::config::GenerationConfig;
use crate::generation::GenerationError;
use crate::models::Weights;

/// Reads the weights and starts engines of their own for them: as many as are asked for, or as suit.
///
/// # Errors
/// When they can not be read, are of an architecture the engine does not know, or do not fit as often as was asked for.
pub(super) async fn start(weights: &Weights, config: &GenerationConfig) -> Result<Vec<Model>> {
    let mut engines = Vec::new();
    for n in 0..places::count(config.engines, weights) {
        match one(weights, config).await {
            Ok(engine) => engines.push(engine),
            // Nobody asked for more than one.
            Err(error) if n > 0 && config.engines == 0 => {
                tracing::warn!(error = format!("{error:#}"), "one engine serves alone: no second one starts");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(engines)
}

async fn one(weights: &Weights, config: &GenerationConfig) -> Result<Model> {
    match weights {
        Weights::Gguf(file) => gguf(file, config).await,
        Weights::Safetensors(folder) => {
            let builder = TextModelBuilder::new(folder.display()).with_max_num_seqs(config.max_running);
            builder.with_prefix_cache_n(Some(config.prefix_cache)).build().await
        }
    }
}

/// What `mistralrs::GgufModelBuilder` does, which takes no type of activations: it takes f16 wherever f16 can be
/// multiplied. On a CPU the engine's attention then converts each number when it needs it, every time: f32 is quicker
/// (`benches/RESULTS.md`), and nearer to the trainer.
async fn gguf(file: &Path, config: &GenerationConfig) -> Result<Model> {
    let device = best_device(false)?;
    let dtype = if device.is_cpu() { ModelDType::F32 } else { ModelDType::Auto };
    let folder = file.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let loader =
        GGUFLoaderBuilder::new(None, None, folder, vec![name], GGUFSpecificConfig::default(), false, None);
    let mapping = DeviceMapSetting::Auto(AutoDeviceMapParams::default_text());
    let pipeline = loader.build().load_model_from_hf(
        None,
        TokenSource::CacheToken,
        &dtype,
        &device,
        true,
        mapping,
        None,
        None,
    )?;
    let method = DefaultSchedulerMethod::Fixed(config.max_running.try_into()?);
    let builder = MistralRsBuilder::new(pipeline, SchedulerConfig::DefaultScheduler { method }, false, None)
        .with_no_prefix_cache(false)
        .with_prefix_cache_n(config.prefix_cache);
    Ok(Model::new(builder.build().await))
}

/// Sends a prompt's tokens to an engine, which then makes at most `max_tokens`; `processor` draws them.
///
/// # Errors
/// When the engine has stopped.
pub(super) async fn send(
    engine: &Model,
    (prompt, max_tokens): (&[u32], usize),
    processor: Arc<dyn CustomLogitsProcessor>,
) -> Result<mpsc::Receiver<Response>, GenerationError> {
    // The engine waits when this is full; nobody reads it as fast as tokens come, so it holds a whole answer.
    let (sender, receiver) = mpsc::channel(max_tokens + 8);
    let params = SamplingParams { max_len: Some(max_tokens), ..SamplingParams::deterministic() };
    let message = RequestMessage::CompletionTokens(prompt.to_vec());
    let id = engine.inner().next_request_id();
    let mut request = NormalRequest::new_simple(message, params, sender, id, None, None);
    request.is_streaming = true;
    request.logits_processors = Some(vec![processor]);
    let engine = engine.inner().get_sender(None).map_err(|e| GenerationError::Engine(e.to_string()))?;
    let sent = engine.send(Request::Normal(Box::new(request))).await;
    sent.map_err(|_| GenerationError::Engine("the engine has stopped".into()))?;
    Ok(receiver)
}
