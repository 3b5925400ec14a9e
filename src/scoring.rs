//! Which reward model is served, and how do people like an answer by it?
//!
//! The active pointer says which: it is looked at with every call, so a reward model that was accepted is used at once,
//! on every server. Its head is small; it is read when the pointer has moved.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::domain::{ActiveRole, GenerationId, Message};
use crate::error::{Error, ErrorCode, chain};
use crate::models;
use crate::nn::Decoder;
use crate::registry::{REWARD_HEAD, Registry, RegistryError};
use crate::retrieval::SentenceEncoder;
use crate::reward::{Backbone, Extractor, Item, RewardError, RewardModel, Score};
use crate::telemetry::Metrics;

/// Calls scored at once: one fills every processor, and chat needs some too.
const AT_ONCE: usize = 1;

/// Why answers could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// No reward model is active yet.
    #[error(
        "no reward model is there yet: it is trained from choices and thumbs by `attune run reward`, or by itself when \
         there are enough"
    )]
    NoModel,
    /// The named one is not the active one.
    #[error("no reward model {0} is served; leave `model` out for the active one")]
    Unknown(String),
    /// It learnt from restricted documents.
    #[error("reward model {0} was trained on restricted documents; registry.serve_restricted permits it")]
    Restricted(GenerationId),
    /// Its files are missing or damaged, or the database failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It can not be read or used.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The language model that it reads with can not be had.
    #[error(transparent)]
    Models(#[from] models::ModelsError),
    /// A task of ours failed.
    #[error("a background task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<ScoringError> for Error {
    fn from(error: ScoringError) -> Self {
        match error {
            ScoringError::NoModel | ScoringError::Unknown(_) => {
                Self { param: Some("model".into()), ..Self::new(ErrorCode::ModelNotFound, error.to_string()) }
            }
            ScoringError::Restricted(_) => Self::new(ErrorCode::Conflict, error.to_string()),
            ScoringError::Registry(error) => error.into(),
            ScoringError::Models(error) => error.into(),
            ScoringError::Reward(
                error @ (RewardError::EmptyAnswer { .. }
                | RewardError::EmptyConversation { .. }
                | RewardError::LongAnswer { .. }),
            ) => Self::new(ErrorCode::InvalidRequest, error.to_string()),
            ScoringError::Reward(
                error @ (RewardError::OtherVersion
                | RewardError::OtherEncoder { .. }
                | RewardError::OtherBackbone
                | RewardError::NoBackbone),
            ) => Self::new(ErrorCode::Conflict, chain(&error)),
            ScoringError::Reward(_) | ScoringError::Task(_) => Self::internal(error),
        }
    }
}

/// An answer to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Oldest message first, the question last.
    pub conversation: Vec<Message>,
    /// Texts of the passages it was to be grounded in; empty: the question serves as both.
    pub passages: Vec<String>,
    /// The answer.
    pub answer: String,
}

/// Scores by one reward model, in the order of the answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Which one.
    pub generation: GenerationId,
    /// How much each answer is liked.
    pub scores: Vec<Score>,
}

/// A reward model in memory.
struct Served {
    generation: GenerationId,
    model: RewardModel,
    extractor: Extractor,
}

/// Scores answers with the active reward model.
pub struct Scorer {
    registry: Registry,
    config: Arc<Config>,
    encoder: Option<Arc<SentenceEncoder>>,
    metrics: Metrics,
    current: ArcSwapOption<Served>,
    /// One whose head is of another version, so that it is not read with every call.
    outdated: ArcSwapOption<GenerationId>,
    /// Held while a reward model is read.
    reading: tokio::sync::Mutex<()>,
    places: Semaphore,
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let generation = self.current.load().as_ref().map(|served| served.generation.clone());
        f.debug_struct("Scorer").field("generation", &generation).finish_non_exhaustive()
    }
}

impl Scorer {
    /// A scorer over these generations; `encoder` is the sentence model that retrieval uses.
    #[must_use]
    pub fn new(
        registry: Registry,
        config: &Arc<Config>,
        encoder: Option<Arc<SentenceEncoder>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            registry,
            config: Arc::clone(config),
            encoder,
            metrics,
            current: ArcSwapOption::empty(),
            outdated: ArcSwapOption::empty(),
            reading: tokio::sync::Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }

    /// The active reward model, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active(&self) -> Result<Option<GenerationId>, ScoringError> {
        Ok(self.registry.pointer(ActiveRole::Reward).await?.map(|pointer| pointer.generation))
    }

    /// Scores answers. `wanted` names the reward model; without it the active one.
    ///
    /// # Errors
    /// When there is no reward model, another one is wanted, its files are damaged, or an answer can not be scored.
    pub async fn score(&self, wanted: Option<&str>, answers: Vec<Answered>) -> Result<Scored, ScoringError> {
        let served = self.served(wanted).await?;
        // Never closed.
        let _place = self.places.acquire().await.ok();
        let began = std::time::Instant::now();
        let generation = served.generation.clone();
        let scoring = tokio::task::spawn_blocking(move || {
            let items: Vec<Item<'_>> = answers.iter().map(item).collect();
            served.model.score(&served.extractor, &items)
        });
        let scores = scoring.await??;
        self.metrics.scores.inc_by(scores.len() as u64);
        self.metrics.score_seconds.observe(began.elapsed().as_secs_f64());
        Ok(Scored { generation, scores })
    }

    /// Which two of the answers, of different texts, the active reward model is least sure about: those whose difference
    /// its members disagree on most. `None` without two different ones.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub async fn least_sure(&self, answers: Vec<Answered>) -> Result<Option<(usize, usize)>, ScoringError> {
        let served = self.served(None).await?;
        let _place = self.places.acquire().await.ok();
        let comparing = tokio::task::spawn_blocking(move || {
            let items: Vec<Item<'_>> = answers.iter().map(item).collect();
            served.model.least_sure(&served.extractor, &items)
        });
        Ok(comparing.await??)
    }

    /// Reads the active reward model if it is another one than before, and reports how good it is.
    pub async fn refresh(&self) {
        match self.served(None).await {
            Ok(_) | Err(ScoringError::NoModel) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "the active reward model can not be used"),
        }
    }

    /// Whether the active reward model is of a version with other features, so that nothing is scored before another one
    /// is trained.
    pub async fn is_outdated(&self) -> bool {
        matches!(self.served(None).await, Err(ScoringError::Reward(RewardError::OtherVersion)))
    }

    async fn served(&self, wanted: Option<&str>) -> Result<Arc<Served>, ScoringError> {
        let active = self.active().await?.ok_or(ScoringError::NoModel)?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != active.as_str()) {
            return Err(ScoringError::Unknown(wanted.to_owned()));
        }
        if let Some(served) = self.current.load_full().filter(|served| served.generation == active) {
            return Ok(served);
        }
        let _reading = self.reading.lock().await;
        if let Some(served) = self.current.load_full().filter(|served| served.generation == active) {
            return Ok(served);
        }
        if self.outdated.load().as_deref() == Some(&active) {
            return Err(RewardError::OtherVersion.into());
        }
        let read = self.read(&active).await;
        if matches!(read, Err(ScoringError::Reward(RewardError::OtherVersion))) {
            self.outdated.store(Some(Arc::new(active)));
        }
        let served = Arc::new(read?);
        tracing::info!(generation = %served.generation, "scoring with");
        self.current.store(Some(Arc::clone(&served)));
        Ok(served)
    }

    async fn read(&self, generation: &GenerationId) -> Result<Served, ScoringError> {
        let manifest = self.registry.verify(generation).await?;
        if !manifest.about.access.is_public() && !self.config.registry.serve_restricted {
            return Err(ScoringError::Restricted(generation.clone()));
        }
        self.report(generation, &manifest.about.metrics);
        let head = self.registry.folder(generation)?.join(REWARD_HEAD);
        let (encoder, config) = (self.encoder.clone(), Arc::clone(&self.config));
        let generation = generation.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let model = RewardModel::load(&head)?;
            let backbone = if model.needs_backbone() { Some(Arc::new(backbone(&config)?)) } else { None };
            Ok::<_, ScoringError>(Served { generation, model, extractor: Extractor { encoder, backbone } })
        });
        reading.await?
    }
}

impl Scorer {
    /// Sets the gauges of the active reward model.
    fn report(&self, generation: &GenerationId, figures: &serde_json::Value) {
        let metrics = &self.metrics;
        metrics.reward_info.reset();
        metrics.reward_info.with_label_values(&[generation.as_str()]).set(1);
        let figure = |name: &str| figures[name].as_f64().unwrap_or(0.0);
        metrics.reward_accuracy.set(figure("accuracy"));
        metrics.reward_accuracy_lower.set(figures["accuracy_interval"][0].as_f64().unwrap_or(0.0));
        metrics.reward_calibration_error.set(figure("calibration_error"));
        metrics.reward_agreement.set(figures["drift"]["agreement"].as_f64().unwrap_or(1.0));
        let signals = figures["pairs"].as_i64().unwrap_or(0) + figures["thumbs"].as_i64().unwrap_or(0);
        metrics.reward_signals.set(signals);
    }
}

/// The language model that reward models read answers with: the base model's weights that they were trained with.
///
/// # Errors
/// When it can not be had or read.
pub fn backbone(config: &Config) -> Result<Backbone, ScoringError> {
    let base = models::prepare(&config.models, models::for_this_process().as_ref())?;
    let decoder = Decoder::open(base.trained_weights()).map_err(RewardError::from)?;
    Ok(Backbone { decoder, codec: base.codec()? })
}

fn item(answered: &Answered) -> Item<'_> {
    Item { conversation: &answered.conversation, passages: &answered.passages, answer: &answered.answer }
}
