//! How is the embedded engine started on a model's weights?

use std::path::Path;

use anyhow::Result;
use mistralrs::core::{
    AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig,
    MistralRsBuilder, ModelDType, SchedulerConfig, TokenSource,
};
use mistralrs::{Model, TextModelBuilder, best_device};

use crate::config::GenerationConfig;
use crate::models::Weights;

/// Reads the weights and starts an engine of its own for them.
///
/// # Errors
/// When they can not be read, or are of an architecture the engine does not know.
pub(super) async fn start(weights: &Weights, config: &GenerationConfig) -> Result<Model> {
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
