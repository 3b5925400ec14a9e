//! How is the server put together, started and stopped? The only place that names every concrete part.

mod data_dir;
mod http;
mod loading;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, AccessError};
use crate::admission::Admission;
use crate::api::{Context, Readiness};
use crate::chat::Chat;
use crate::config::{Config, ConfigError};
use crate::domain::now;
use crate::generation::{GenerationError, Generator, Slot};
use crate::jobs::{Automation, Supervisor, WorkerProgram};
use crate::ledger::{Ledger, LedgerError};
use crate::lineage::Lineage;
use crate::live::{LiveCheck, Watch};
use crate::models::ModelsError;
use crate::prompt::PromptBuilder;
use crate::registry::{Registry, RegistryError};
use crate::retrieval::{Library, RetrievalError};
use crate::scoring::Scorer;
use crate::shutdown;
use crate::swap::{Given, Loader, MistralLoader, SwapError, Swapper};
use crate::telemetry::{Metrics, MetricsError};

pub use data_dir::{DataDir, DataDirError};
pub use loading::{load_base, open_library};

/// How often rate limits that have recovered are forgotten, and index gauges refreshed.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How often the folders are walked although nothing was heard of them: some file systems (network shares, overlays)
/// do not tell of changes. A walk over unchanged files only reads and hashes them.
const RESYNC: Duration = Duration::from_secs(600);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory can not be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address is taken or not ours.
    #[error("{address} can not be listened on; choose another with --listen or server.listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP server failed.
    #[error("HTTP server")]
    Http(#[source] std::io::Error),
    /// The ledger can not be opened.
    #[error("opening the ledger")]
    Ledger(#[from] LedgerError),
    /// The index can not be opened.
    #[error("opening the index")]
    Retrieval(#[from] RetrievalError),
    /// A model can not be had.
    #[error("preparing the model")]
    Models(#[from] ModelsError),
    /// The model can not be served.
    #[error("loading the model")]
    Generation(#[from] GenerationError),
    /// The generations can not be opened.
    #[error("opening the registry")]
    Registry(#[from] RegistryError),
    /// Neither the active generation nor the base model can be served.
    #[error("loading the model")]
    Swap(#[from] SwapError),
    /// Keys or secrets can not be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Metrics could not be declared.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A thread of ours panicked.
    #[error("a background task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// A server that is listening. Nothing is answered before [`Application::run`].
#[derive(Debug)]
pub struct Application {
    config: Arc<Config>,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    metrics: Metrics,
    data_dir: DataDir,
    /// Works on runs instead of this program; tests set it.
    worker: Option<WorkerProgram>,
    /// Loads generations instead of the embedded engine; tests set it.
    loader: Option<Arc<dyn Loader>>,
}

impl Application {
    /// Takes the data directory and the port.
    ///
    /// # Errors
    /// When the data directory is in use or can not be written, or the address is taken.
    pub fn build(config: Config) -> Result<Self, AppError> {
        let data_dir = DataDir::lock(&config.data_dir)?;
        let listener = http::bind(&config.server.address()?.to_string())?;
        let metrics_listener = config.telemetry.metrics_listen.as_deref().map(http::bind).transpose()?;
        let metrics = Metrics::new()?;
        let worker = WorkerProgram::this_one().ok();
        let config = Arc::new(config);
        Ok(Self { config, listener, metrics_listener, metrics, data_dir, loader: None, worker })
    }

    /// Serves this generator instead of loading the configured model.
    #[must_use]
    pub fn with_generator(self, generator: Arc<dyn Generator>) -> Self {
        self.with_loader(Arc::new(Given(generator)))
    }

    /// Loads generations with this loader instead of the embedded engine.
    #[must_use]
    pub fn with_loader(mut self, loader: Arc<dyn Loader>) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Starts this program, instead of `attune worker`, when a run waits.
    #[must_use]
    pub fn with_worker(mut self, program: WorkerProgram) -> Self {
        self.worker = Some(program);
        self
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    /// The metrics the server will report.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves until `stop` is cancelled, then stops in the order of [`crate::shutdown`].
    ///
    /// # Errors
    /// When a part can not be opened or the model can not be had; everything is closed again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { config, listener, metrics_listener, metrics, data_dir, loader, worker } = self;
        let (readiness, ready) = watch::channel(Readiness::Loading("the sentence model".into()));
        let probes = http::probes_while_starting(&listener)?;
        let opened = Parts::open(&config, (&data_dir, loader), &metrics).await;
        probes.stop().await;
        let parts = opened?;

        let context = Arc::new(parts.context(&config, &metrics, ready));
        let server = http::start(&config, listener, metrics_listener, &context)?;
        tracing::info!("listening on http://{}", server.address);
        let _watcher = loading::follow_folders(&config, &parts.library, &metrics).await?;
        let housekeeping = tokio::spawn(housekeeping(Arc::clone(&context)));
        let ending = stop.child_token();
        let supervising = tokio::spawn(parts.supervisor(&config, &data_dir, worker).run(ending.clone()));
        let automation = Automation {
            ledger: Arc::clone(&parts.ledger),
            swapper: Arc::clone(&parts.swapper),
            scorer: Arc::clone(&parts.chat.scorer),
            config: Arc::clone(&config),
            started: context.started,
            metrics: metrics.clone(),
        };
        let automating = tokio::spawn(automation.run(ending.clone()));
        let live = LiveCheck {
            ledger: Arc::clone(&parts.ledger),
            registry: parts.registry.clone(),
            swapper: Arc::clone(&parts.swapper),
            watch: Arc::clone(&parts.chat.watch),
            config: Arc::clone(&config),
            metrics: metrics.clone(),
        };
        let watching = tokio::spawn(live.run(ending.clone()));
        let resyncing = tokio::spawn(loading::resync(Arc::clone(&config), Arc::clone(&context), RESYNC));

        let loaded = tokio::select! {
            loaded = loading::load_model(&parts.swapper, &readiness) => loaded,
            () = stop.cancelled() => Ok(()),
        };
        let following = tokio::spawn(Arc::clone(&parts.swapper).follow());
        if loaded.is_ok() {
            if !stop.is_cancelled() {
                readiness.send_replace(Readiness::Ready);
                metrics.ready.set(1);
                tracing::info!("ready: http://{}", server.address);
            }
            server.until(&stop).await;
        }

        following.abort();
        metrics.ready.set(0);
        readiness.send_replace(Readiness::Draining);
        tokio::time::sleep(Duration::from_secs(config.server.drain_delay_seconds)).await;
        parts.chat.admission.drain();
        server.stop().await;
        parts.chat.tasks.close();
        let patience = Duration::from_secs(config.server.drain_seconds.max(1));
        if !shutdown::within(patience, parts.chat.tasks.wait()).await {
            tracing::warn!(
                answers = parts.chat.tasks.len(),
                "stopping with answers in progress: their time is up"
            );
        }
        // Nobody has asked for the end when the model could not be loaded.
        ending.cancel();
        supervising.await?;
        automating.await?;
        watching.await?;
        housekeeping.abort();
        resyncing.abort();
        parts.ledger.close().await;
        tracing::info!("stopped");
        loaded
    }
}

/// The opened parts.
struct Parts {
    ledger: Arc<dyn Ledger>,
    library: Arc<Library>,
    access: Arc<Access>,
    chat: Arc<Chat>,
    registry: Registry,
    swapper: Arc<Swapper>,
}

impl Parts {
    async fn open(
        config: &Arc<Config>,
        (data_dir, loader): (&DataDir, Option<Arc<dyn Loader>>),
        metrics: &Metrics,
    ) -> Result<Self, AppError> {
        let ledger = crate::ledger::open(config.database.url.as_deref(), data_dir.path()).await?;
        let ledger = crate::ledger::measured(ledger, metrics);
        let access = Arc::new(Access::open(&config.access, Arc::clone(&ledger)).await?);
        let library = Arc::new(loading::open_library(config, data_dir).await?);
        let registry = Registry::open(data_dir.path(), Arc::clone(&ledger)).await?;
        let chat = Arc::new(Chat {
            config: Arc::clone(config),
            ledger: Arc::clone(&ledger),
            library: Arc::clone(&library),
            slot: Arc::new(Slot::empty(metrics.clone())),
            watch: Arc::new(Watch::open(ledger.as_ref()).await?),
            scorer: Arc::new(Scorer::new(registry.clone(), config, library.encoder(), metrics.clone())),
            admission: Arc::new(Admission::new(&config.admission, metrics.clone())),
            prompts: PromptBuilder::new(&config.prompt),
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let loader = loader.unwrap_or_else(|| Arc::new(MistralLoader::new(config, &chat.prompts)));
        let swapper = Swapper::new(Arc::clone(&chat.slot), registry.clone(), loader, &config.registry);
        Ok(Self { ledger, library, access, chat, registry, swapper: Arc::new(swapper) })
    }

    fn supervisor(
        &self,
        config: &Arc<Config>,
        data_dir: &DataDir,
        program: Option<WorkerProgram>,
    ) -> Supervisor {
        Supervisor {
            ledger: Arc::clone(&self.ledger),
            config: Arc::clone(config),
            data_dir: data_dir.path().to_owned(),
            metrics: self.chat.metrics.clone(),
            program,
        }
    }

    fn context(
        &self,
        config: &Arc<Config>,
        metrics: &Metrics,
        readiness: watch::Receiver<Readiness>,
    ) -> Context {
        Context {
            config: Arc::clone(config),
            ledger: Arc::clone(&self.ledger),
            library: Arc::clone(&self.library),
            chat: Arc::clone(&self.chat),
            access: Arc::clone(&self.access),
            registry: self.registry.clone(),
            swapper: Arc::clone(&self.swapper),
            lineage: Lineage::new(self.registry.clone(), config.data_dir.clone()),
            metrics: metrics.clone(),
            readiness,
            started: now(),
        }
    }
}

async fn housekeeping(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        context.chat.admission.sweep();
        context.chat.scorer.refresh().await;
        loading::report_index(&context.library, &context.metrics);
    }
}
