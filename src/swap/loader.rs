//! How does a generation get into memory?

use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::SwapError;
use crate::config::{Config, WeightFormat};
use crate::domain::{GenerationId, GenerationKind};
use crate::error::chain;
use crate::generation::{self, GenerationError, Generator, MistralGenerator};
use crate::models::{self, BaseModel};
use crate::prompt::PromptBuilder;
use crate::registry::{BaseRef, Manifest, Registry, RegistryError, TemplateRef};

/// Brings generations into memory. Loading may take long and must not block async threads; dropping the future of a
/// load may leave it running.
#[async_trait]
pub trait Loader: Send + Sync + std::fmt::Debug {
    /// What the configured base model is, as a generation. Brings it to disk, not into memory.
    ///
    /// # Errors
    /// When it can not be had.
    async fn base(&self) -> Result<Manifest, SwapError>;

    /// Loads a verified generation, the base model included.
    ///
    /// # Errors
    /// When it belongs to another base model or can not be loaded.
    async fn load(&self, registry: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError>;
}

/// Loads into the embedded engine.
#[derive(Debug)]
pub struct MistralLoader {
    config: Arc<Config>,
    prompts: PromptBuilder,
    base: OnceCell<BaseModel>,
}

impl MistralLoader {
    /// A loader for the configured base model and what was trained from it.
    #[must_use]
    pub fn new(config: &Arc<Config>, prompts: &PromptBuilder) -> Self {
        Self { config: Arc::clone(config), prompts: prompts.clone(), base: OnceCell::new() }
    }

    async fn model(&self) -> Result<&BaseModel, SwapError> {
        let prepare = || async {
            let config = Arc::clone(&self.config);
            tokio::task::spawn_blocking(move || {
                models::prepare(&config.models, models::for_this_process().as_ref())
            })
            .await?
            .map_err(SwapError::from)
        };
        self.base.get_or_try_init(prepare).await
    }

    /// The base model's weights, or those of a generation trained from it.
    fn weights(
        &self,
        (base, id): (&BaseModel, &GenerationId),
        registry: &Registry,
        manifest: &Manifest,
    ) -> Result<BaseModel, SwapError> {
        let about = &manifest.about;
        if about.kind == GenerationKind::Base {
            if manifest.id == *id {
                return Ok(base.clone());
            }
            let (trained_from, configured) = (about.base.name.clone(), format!("{} as {id}", base.name));
            return Err(RegistryError::OtherBase { id: manifest.id.clone(), trained_from, configured }.into());
        }
        let template = base.template()?;
        if about.template.chat != template.hash() {
            let problem = "it was trained with another chat template than this server renders".into();
            return Err(SwapError::Refused { id: manifest.id.clone(), problem });
        }
        if about.template.prompt != self.prompts.template_hash() {
            tracing::warn!(generation = %manifest.id, trained = about.template.prompt,
                serving = self.prompts.template_hash(), "it was trained with other instructions or another budget");
        }
        Ok(registry.servable(base, manifest)?)
    }
}

#[async_trait]
impl Loader for MistralLoader {
    async fn base(&self) -> Result<Manifest, SwapError> {
        let base = self.model().await?;
        let id = generation::base_id(base, &self.config.generation);
        let chat = base.template()?.hash().to_owned();
        let template = TemplateRef { prompt: self.prompts.template_hash().to_owned(), chat };
        Ok(Manifest::of_base(id, BaseRef::of(base), template, base.serving_format))
    }

    async fn load(&self, registry: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError> {
        let base = self.model().await?;
        let id = generation::base_id(base, &self.config.generation);
        let model = self.weights((base, &id), registry, manifest)?;
        let generator = load(manifest.id.clone(), model, (&self.config, &self.prompts)).await;
        let failed = |source| SwapError::Generation { id: manifest.id.clone(), source };
        Ok(Arc::new(generator.map_err(failed)?))
    }
}

/// Loads weights into the engine and has it remember the prompts' beginning.
///
/// # Errors
/// When they can not be read or served.
pub async fn load(
    id: GenerationId,
    model: BaseModel,
    (config, prompts): (&Config, &PromptBuilder),
) -> Result<MistralGenerator, GenerationError> {
    tracing::info!(model = %model.name, generation = %id, format = ?model.serving_format, "loading the model");
    let mut settings = config.generation.clone();
    // What was fine-tuned has learnt how to use its passages, and in which words.
    if id != generation::base_id(&model, &config.generation) {
        settings.copy_bias = 0.0;
    }
    // The engine reads and converts weights in the first poll of its future: not on an async thread.
    let loading = tokio::task::spawn_blocking(move || {
        Handle::current().block_on(MistralGenerator::load(id, model, &settings))
    });
    let generator = loading.await.map_err(|error| GenerationError::Engine(chain(&error)))??;
    let prefix = prompts.stable_prefix(&generator)?;
    generator.remember_prefix(&prefix).await?;
    Ok(generator)
}

/// Serves what it was given, as the base generation, and can load nothing else: for tests, where the model's words do
/// not matter.
#[derive(Debug)]
pub struct Given(pub Arc<dyn Generator>);

#[async_trait]
impl Loader for Given {
    async fn base(&self) -> Result<Manifest, SwapError> {
        let base =
            BaseRef { name: "given".into(), source_sha256: String::new(), serving_sha256: String::new() };
        let template = TemplateRef { prompt: String::new(), chat: String::new() };
        Ok(Manifest::of_base(self.0.id().clone(), base, template, WeightFormat::F32))
    }

    async fn load(&self, _: &Registry, manifest: &Manifest) -> Result<Arc<dyn Generator>, SwapError> {
        if manifest.id == *self.0.id() {
            return Ok(Arc::clone(&self.0));
        }
        let problem = "this server was given its generator and can load no other".into();
        Err(SwapError::Refused { id: manifest.id.clone(), problem })
    }
}
