//! How do the models, the index and the watched folders come up?

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{AppError, DataDir};
use crate::api::{Context, Readiness};
use crate::config::Config;
use crate::domain::now;
use crate::generation::{self, MistralGenerator};
use crate::models;
use crate::prompt::PromptBuilder;
use crate::retrieval::{self, Library, SentenceEncoder, SyncReport, Watcher};
use crate::swap::{self, Swapper};
use crate::telemetry::Metrics;

/// Opens the index, with the sentence model when one is configured.
///
/// # Errors
/// When the sentence model can not be had or the index can not be opened.
pub async fn open_library(config: &Arc<Config>, data_dir: &DataDir) -> Result<Library, AppError> {
    let (config, index) = (Arc::clone(config), data_dir.index());
    tokio::task::spawn_blocking(move || {
        let progress = models::for_this_process();
        let folder = models::prepare_sentence(&config.models, progress.as_ref())?;
        let encoder = folder.map(|folder| SentenceEncoder::load(&folder)).transpose()?.map(Arc::new);
        Ok(Library::open(&index, &config.retrieval, encoder)?)
    })
    .await?
}

/// Brings the index in step with the configured folders, and keeps it so if `docs.watch` is set.
pub(super) async fn follow_folders(
    config: &Arc<Config>,
    library: &Arc<Library>,
    metrics: &Metrics,
) -> Result<Option<Watcher>, AppError> {
    report_index(library, metrics);
    if config.docs.paths.is_empty() {
        return Ok(None);
    }
    sync(config, library, metrics).await?;
    if !config.docs.watch {
        return Ok(None);
    }
    let (library_seen, metrics_seen) = (Arc::clone(library), metrics.clone());
    let watcher = retrieval::watch(Arc::clone(library), config.docs.clone(), move |walked| {
        match walked {
            Ok(report) => report_sync(&report, &metrics_seen),
            Err(error) => tracing::warn!(error = %crate::error::chain(&error), "documents are not in step"),
        }
        report_index(&library_seen, &metrics_seen);
    })?;
    Ok(Some(watcher))
}

/// Walks the folders every so often for as long as documents are followed.
pub(super) async fn resync(config: Arc<Config>, context: Arc<Context>, every: Duration) {
    if config.docs.paths.is_empty() || !config.docs.watch {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = sync(&config, &context.library, &context.metrics).await {
            tracing::warn!(error = %crate::error::chain(&error), "documents are not in step");
        }
    }
}

async fn sync(config: &Arc<Config>, library: &Arc<Library>, metrics: &Metrics) -> Result<(), AppError> {
    let (docs, syncing) = (config.docs.clone(), Arc::clone(library));
    let report = tokio::task::spawn_blocking(move || syncing.sync_folders(&docs, &mut |_| {})).await??;
    report_sync(&report, metrics);
    report_index(library, metrics);
    Ok(())
}

fn report_sync(report: &SyncReport, metrics: &Metrics) {
    tracing::info!(
        added = report.added,
        updated = report.updated,
        unchanged = report.unchanged,
        removed = report.removed,
        failed = report.failed.len(),
        of_other_kinds = report.others.values().sum::<usize>(),
        "documents are in step with their folders"
    );
    for (path, reason) in &report.failed {
        metrics.index_errors.inc();
        tracing::warn!(path = %path.display(), %reason, "not indexed");
    }
    metrics.index_synced.set(now().seconds());
}

/// Sets the gauges of the index.
pub(super) fn report_index(library: &Library, metrics: &Metrics) {
    match library.stats() {
        Ok(stats) => {
            metrics.index_documents.set(i64::try_from(stats.documents).unwrap_or(i64::MAX));
            metrics.index_passages.set(i64::try_from(stats.passages).unwrap_or(i64::MAX));
        }
        Err(error) => tracing::warn!(error = %crate::error::chain(&error), "index statistics"),
    }
}

/// Loads the active generation and makes it the served one.
pub(super) async fn load_model(
    swapper: &Swapper,
    readiness: &watch::Sender<Readiness>,
) -> Result<(), AppError> {
    readiness.send_replace(Readiness::Loading("the model".into()));
    Ok(swapper.start().await?)
}

/// Loads the configured base model.
///
/// # Errors
/// When it can not be had or served.
pub async fn load_base(config: &Arc<Config>, prompts: &PromptBuilder) -> Result<MistralGenerator, AppError> {
    let preparing = Arc::clone(config);
    let base = tokio::task::spawn_blocking(move || {
        models::prepare(&preparing.models, models::for_this_process().as_ref())
    });
    let base = base.await??;
    let id = generation::base_id(&base, &config.generation);
    Ok(swap::load(id, base, (config, prompts)).await?)
}
