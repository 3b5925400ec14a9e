//! How does the policy improve from what people said? One cycle: dataset → reward → fine-tune → policy → evaluate →
//! publish → promote.
//!
//! Every run starts from the base model with all there is to learn from (the fine-tuning, if so asked, from the adapter
//! of an earlier one). It is resumable at each step: what a step
//! made lies in the run's folder, and a step that finds it goes on from there.

mod candidate;
mod examination;
mod judging;
mod material;
mod optimisation;
mod rewarding;
mod tidying;
mod tuning;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, PolicyConfig};
use crate::dataset::snapshot::{self, Grounding, Snapshot};
use crate::domain::{GenerationId, Outcome, Run, Stage};
use crate::error::Error;
use crate::evaluation::EvaluationError;
use crate::generation::{GenerationError, base_id};
use crate::jobs::{Reporter, Verdict as Ending, policy_settings, run_folder, sft_settings};
use crate::ledger::{Ledger, LedgerError};
use crate::models::{BaseModel, Codec, ModelCodec, ModelsError};
use crate::nn::NnError;
use crate::policy::PolicyError;
use crate::prompt::PromptBuilder;
use crate::registry::{BaseRef, Manifest, Registry, RegistryError, TemplateRef};
use crate::retrieval::{Library, RetrievalError, SentenceEncoder};
use crate::reward::RewardError;
use crate::sft::{self, SftError};
use rewarding::Learnt;

pub use examination::{Answers, Examined, Examining, drawn, examine};
pub use material::{Question, questions};
pub use verdict::Verdict;

/// Fewest demonstrations to fine-tune on: with less, an adapter repeats them and nothing else.
pub const FEWEST_DEMONSTRATIONS: usize = 20;

/// Why a cycle did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ImproveError {
    /// There is too little to learn from.
    #[error(
        "{found} demonstrations are there to learn from, at least {FEWEST_DEMONSTRATIONS} are needed; write ideal \
         answers in the console, approve corrections, or import some"
    )]
    TooFew {
        /// How many there are, duplicates and those on restricted pages left out.
        found: usize,
    },
    /// The worker was told to stop; the run goes on from here.
    #[error("interrupted")]
    Interrupted,
    /// The dataset can not be made.
    #[error("dataset")]
    Dataset(#[source] Error),
    /// A prompt can not be built.
    #[error("prompts")]
    Prompt(#[source] Error),
    /// The request's settings are not valid.
    #[error(transparent)]
    Settings(#[from] crate::jobs::JobsError),
    /// The base model can not be had.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The base model can not be served.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The index can not be opened.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// The reward model can not be trained.
    #[error("reward model")]
    Reward(#[source] RewardError),
    /// The policy can not be optimised.
    #[error("policy optimisation")]
    Policy(#[from] PolicyError),
    /// The candidate is still in use.
    #[error("the candidate is still in use")]
    Shared,
    /// Fine-tuning failed.
    #[error("fine-tuning")]
    Sft(#[source] SftError),
    /// The model failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The answers can not be compared.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The generation can not be published or promoted.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The database failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file of the run can not be read or written.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread of ours panicked.
    #[error("a task of the run failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<RewardError> for ImproveError {
    fn from(error: RewardError) -> Self {
        match error {
            RewardError::Stopped { .. } => Self::Interrupted,
            other => Self::Reward(other),
        }
    }
}

impl From<SftError> for ImproveError {
    fn from(error: SftError) -> Self {
        match error {
            SftError::Stopped { .. } => Self::Interrupted,
            other => Self::Sft(other),
        }
    }
}

/// What a cycle works with.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The configuration.
    pub config: Arc<Config>,
    /// Demonstrations, runs and pointers.
    pub ledger: Arc<dyn Ledger>,
    /// Generations.
    pub registry: Registry,
    /// Where passages are retrieved again for rows that have none.
    pub library: Arc<Library>,
    /// The sentence model, when one is configured.
    pub encoder: Option<Arc<SentenceEncoder>>,
    /// The base model on disk.
    pub base: Arc<BaseModel>,
    /// Its tokenizer and template.
    pub codec: Arc<ModelCodec>,
    /// The prompts that chat uses.
    pub prompts: PromptBuilder,
}

impl Workshop {
    /// Opens everything beside a server that may be running on the same data directory: nothing here takes its locks.
    /// Fetches the models when they are missing.
    ///
    /// # Errors
    /// When a model can not be had, or the index or the generations can not be opened.
    pub async fn open(config: Arc<Config>, ledger: Arc<dyn Ledger>) -> Result<Self, ImproveError> {
        let registry = Registry::open(&config.data_dir, Arc::clone(&ledger)).await?;
        let opening = Arc::clone(&config);
        let (base, library, encoder) = tokio::task::spawn_blocking(move || {
            let progress = crate::models::for_this_process();
            let base = crate::models::prepare(&opening.models, progress.as_ref())?;
            let folder = crate::models::prepare_sentence(&opening.models, progress.as_ref())?;
            let encoder = folder.map(|folder| SentenceEncoder::load(&folder)).transpose()?.map(Arc::new);
            let index = opening.data_dir.join("index");
            let library = Library::open(&index, &opening.retrieval, encoder.clone())?;
            Ok::<_, ImproveError>((base, library, encoder))
        })
        .await??;
        let workshop = Self {
            codec: Arc::new(base.codec()?),
            prompts: PromptBuilder::new(&config.prompt),
            base: Arc::new(base),
            library: Arc::new(library),
            config,
            ledger,
            registry,
            encoder,
        };
        workshop.registry.adopt(&workshop.base_manifest()).await?;
        Ok(workshop)
    }

    /// The base model as a generation.
    fn base_manifest(&self) -> Manifest {
        let id = base_id(&self.base, &self.config.generation);
        Manifest::of_base(id, BaseRef::of(&self.base), self.templates(), self.base.serving_format)
    }

    fn templates(&self) -> TemplateRef {
        TemplateRef {
            prompt: self.prompts.template_hash().to_owned(),
            chat: self.codec.template_hash().to_owned(),
        }
    }

    /// What a completion says, without the token that ended it.
    #[must_use]
    pub fn said(&self, completion: &[u32], ended: bool) -> String {
        let said = match (ended, completion.split_last()) {
            (true, Some((_, said))) => said,
            _ => completion,
        };
        self.codec.detokenize(said)
    }

    /// Finds passages for rows that have none.
    #[must_use]
    pub fn grounding(&self) -> Grounding {
        Grounding::new(Arc::clone(&self.library), &self.config.retrieval)
    }
}

/// Does one cycle. With at least [`FEWEST_DEMONSTRATIONS`] it ends with a generation: the active one with `promote` and
/// if the gate lets it, else a candidate, or held with the reasons. The stage `reward` ends with a reward model, or with
/// how many choices there are yet; so does `improve` with fewer demonstrations, and where its reward models are not good
/// enough to optimise by and fine-tuning alone would make nothing new, or nothing that may take the served policy's place.
///
/// # Errors
/// When there is too little to learn from, a part fails, or the worker is told to stop.
pub async fn improve(workshop: &Workshop, run: &Run, report: &Reporter) -> Result<Outcome, ImproveError> {
    let work = Work::open(workshop, run, report)?;
    work.tidy().await;
    if run.stage == Stage::Reward {
        return Ok(work.reward(None).await?.outcome());
    }
    let dataset = match work.dataset().await {
        // People's choices are not lost on a company that has few ideal answers yet.
        Err(ImproveError::TooFew { found }) if run.stage == Stage::Improve => {
            let mut learnt = work.reward(None).await?;
            learnt.reasons.push(format!("no policy was made: {}", ImproveError::TooFew { found }));
            return Ok(learnt.outcome());
        }
        other => other?,
    };
    let material = work.material(dataset).await?;
    let learnt = work.rewarding(&material).await?;
    if run.stage == Stage::Improve
        && learnt.rewarding.is_none()
        && let Some(why) = work.nothing_new(&material).await?
    {
        return Ok(learnt.because(why).outcome());
    }
    let tuned = work.fine_tune(&material).await?;
    let made = work.optimise(&material, tuned, learnt.rewarding.as_ref()).await?;
    let candidate = work.merge(made).await?;
    let examined = work.evaluate(&material, &candidate, learnt.rewarding.as_ref()).await?;
    let published = work.publish(&material, candidate, (&examined, &learnt)).await?;
    work.promote(published, examined, learnt).await
}

/// One run's work.
struct Work<'a> {
    workshop: &'a Workshop,
    run: &'a Run,
    report: &'a Reporter,
    folder: PathBuf,
    settings: sft::Settings,
    warm_start: bool,
    policy: PolicyConfig,
}

impl<'a> Work<'a> {
    fn open(workshop: &'a Workshop, run: &'a Run, report: &'a Reporter) -> Result<Self, ImproveError> {
        let folder = run_folder(&workshop.config.data_dir, &run.id);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let tuning = sft_settings(&run.request.sft, &workshop.config.sft)?;
        let warm_start = tuning.warm_start;
        let settings = sft::Settings { recompute: workshop.config.training.recompute, ..tuning.into() };
        let policy = policy_settings(&run.request.policy, &workshop.config.policy)?;
        Ok(Self { workshop, run, report, folder, settings, warm_start, policy })
    }

    /// What came of learning what the policy is optimised by; nothing to optimise by in the stage `sft`, with too few
    /// choices, and where the gate would hold whatever came of it.
    async fn rewarding(&self, material: &material::Material) -> Result<Learnt, ImproveError> {
        if self.run.stage == Stage::Sft {
            return Ok(Learnt::default());
        }
        let mut learnt = self.reward(Some(material.decoder.clone())).await?;
        // Who asks for an optimisation gets it, to try settings out; the gate holds what comes of it.
        if self.run.stage == Stage::Improve {
            learnt.refuse(&self.workshop.config.gate);
        }
        Ok(learnt)
    }

    /// What of the ledger it may learn from.
    fn options(&self) -> snapshot::Options {
        snapshot::Options {
            include_restricted: self.run.request.sft.include_restricted,
            except_users: self.workshop.config.training.except_users.clone(),
            ..snapshot::Options::default()
        }
    }

    /// The snapshot this run learns from: taken once, then kept, so that a resumed run learns from the same.
    async fn dataset(&self) -> Result<Snapshot, ImproveError> {
        let (name, data_dir) = (self.folder.join("dataset"), &self.workshop.config.data_dir);
        let snapshot = match std::fs::read_to_string(&name) {
            Ok(hash) => snapshot::load(data_dir, hash.trim()).map_err(ImproveError::Dataset)?,
            Err(_) => {
                self.report.progress("dataset", 0, 1);
                let options = self.options();
                let grounding = self.workshop.grounding();
                let taken = snapshot::take(self.workshop.ledger.as_ref(), &grounding, &options).await;
                let taken = taken.map_err(ImproveError::Dataset)?;
                taken.write(data_dir).map_err(ImproveError::Dataset)?;
                write_whole(&name, taken.hash().as_bytes())?;
                taken
            }
        };
        self.report.progress("dataset", 1, 1);
        let found = snapshot.rows().len();
        if found < FEWEST_DEMONSTRATIONS {
            return Err(ImproveError::TooFew { found });
        }
        Ok(snapshot)
    }

    /// Makes the generation the active one if that was asked for and the gate lets it. What was only fine-tuned on ideal
    /// answers is promoted whatever the gate says: people wrote them, and asked for it.
    async fn promote(
        &self,
        published: Manifest,
        examined: Examined,
        learnt: Learnt,
    ) -> Result<Outcome, ImproveError> {
        let judgement = &examined.verdict.judgement;
        let lets = self.run.stage == Stage::Sft || judgement.promotes();
        self.go_on()?;
        let changed = if self.run.request.promote && lets {
            // What people asked for is not compared with anything.
            let compared = examined.compared.as_ref().filter(|_| self.run.stage != Stage::Sft);
            self.activate(&published.id, compared).await?
        } else {
            None
        };
        let held = !self.held(&examined).is_empty() || changed.is_some();
        let state = if held { Ending::Held } else { Ending::Succeeded };
        let mut reasons = judgement.reasons();
        reasons.extend(changed);
        reasons.extend(examined.remarks.iter().cloned());
        let mut metrics = examined.metrics();
        reasons.extend(learnt.reasons);
        if !learnt.metrics.is_empty() {
            metrics.insert("reward_model".into(), learnt.metrics.into());
        }
        Ok(Outcome { generation: Some(published.id), state, reasons, metrics })
    }

    /// Makes a generation the active one in place of the one it was compared with; says why not when another one has
    /// taken that one's place meanwhile.
    async fn activate(
        &self,
        id: &GenerationId,
        compared: Option<&GenerationId>,
    ) -> Result<Option<String>, ImproveError> {
        match self.workshop.registry.promote(id, compared).await {
            // This run did it, and was interrupted before it said so.
            Err(RegistryError::NotActive { active, .. }) if active.as_ref() == Some(id) => Ok(None),
            Err(RegistryError::NotActive { expected, active }) => {
                let now = active.map_or_else(|| "none".to_owned(), |active| active.to_string());
                Ok(Some(format!(
                    "it was compared with {expected}, which is not served any more ({now} is): compare it again, or \
                     promote it by hand"
                )))
            }
            other => Ok(other.map(|_| None)?),
        }
    }

    /// Nothing that others see is done for a run that is cancelled, or that another worker has.
    fn go_on(&self) -> Result<(), ImproveError> {
        if self.report.cancelled() { Err(ImproveError::Interrupted) } else { Ok(()) }
    }
}

impl From<crate::config::SftConfig> for sft::Settings {
    fn from(config: crate::config::SftConfig) -> Self {
        Self {
            adapter: crate::nn::AdapterShape {
                rank: config.rank,
                alpha: config.alpha as f32,
                dropout: config.dropout as f32,
            },
            learning_rate: config.learning_rate as f32,
            warmup: config.warmup as f32,
            epochs: u32::try_from(config.epochs).unwrap_or(u32::MAX),
            batch: config.batch,
            max_sequence_tokens: config.max_sequence_tokens,
            pass_tokens: crate::nn::PASS_TOKENS,
            recompute: false,
            seed: config.seed,
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ImproveError {
    let path = path.to_owned();
    move |source| ImproveError::Io { path, source }
}

/// Writes a small file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ImproveError> {
    crate::durable::replace(path, bytes).map_err(io(path))
}
