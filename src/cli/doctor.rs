//! Is everything this configuration needs there, and does it work?

use std::sync::Arc;

use serde::Serialize;

use super::{CommandResult, say};
use crate::app::{DataDir, DataDirError, load_base, open_library};
use crate::config::Config;
use crate::domain::ActiveRole;
use crate::error::chain;
use crate::generation::Slot;
use crate::prompt::PromptBuilder;
use crate::registry::Registry;
use crate::telemetry::Metrics;

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
}

/// Checks one part after the other. A part that fails does not keep the others from being checked, but for what is in a
/// ledger that can not be opened.
pub(super) async fn run(config: Config, json: bool) -> CommandResult {
    let config = Arc::new(config);
    let mut findings = vec![finding("configuration", Ok::<_, DataDirError>("valid".to_owned()))];
    let lock = DataDir::lock(&config.data_dir);
    findings.push(match &lock {
        // A running server is no fault: what can be looked at beside it still is.
        Err(DataDirError::Locked(path)) => Finding {
            check: "data directory",
            ok: true,
            detail: format!("{} is in use by a running server; the index was not looked at", path.display()),
        },
        Err(error) => Finding { check: "data directory", ok: false, detail: chain(error) },
        Ok(dir) => Finding { check: "data directory", ok: true, detail: dir.path().display().to_string() },
    });
    let ledger = finding("ledger", ledger(&config).await);
    let has_ledger = ledger.ok;
    findings.push(ledger);
    if let Ok(data_dir) = &lock {
        findings.push(finding("index and sentence model", index(&config, data_dir).await));
    }
    findings.push(finding("documents", documents(&config)));
    // What these look at is in the ledger: one that can not be reached is waited for once.
    if has_ledger {
        findings.push(finding("access", access(&config).await));
        findings.push(finding("generations", generations(&config).await));
    }
    findings.push(finding("base model", model(&config).await));
    for part in &findings {
        if json {
            say(serde_json::to_string(part)?);
        } else {
            say(format!("{:<5} {}: {}", if part.ok { "ok" } else { "FAIL" }, part.check, part.detail));
        }
    }
    let failed = findings.iter().filter(|part| !part.ok).count();
    if failed > 0 { Err(format!("{failed} of {} checks failed", findings.len()).into()) } else { Ok(()) }
}

fn finding<E: std::error::Error + 'static>(check: &'static str, result: Result<String, E>) -> Finding {
    match result {
        Ok(detail) => Finding { check, ok: true, detail },
        Err(error) => Finding { check, ok: false, detail: chain(&error) },
    }
}

async fn ledger(config: &Config) -> Result<String, crate::ledger::LedgerError> {
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let counts = ledger.counts().await?;
    ledger.close().await;
    Ok(format!(
        "{} answers, {} feedback, {} votes, {} demonstrations, {} imported rows",
        counts.answers, counts.feedback, counts.votes, counts.demonstrations, counts.imported
    ))
}

/// Whether the folders to index are there.
fn documents(config: &Config) -> Result<String, std::io::Error> {
    for path in &config.docs.paths {
        std::fs::metadata(path).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}; correct docs.paths", path.display()))
        })?;
    }
    Ok(format!("{} folders or files are indexed", config.docs.paths.len()))
}

/// Reads the secrets and keys that people are recognised by.
async fn access(config: &Config) -> Result<String, crate::error::Error> {
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    crate::access::Access::open(&config.access, Arc::clone(&ledger)).await?;
    ledger.close().await;
    Ok("people can be recognised".to_owned())
}

/// Verifies the files of what is active.
async fn generations(config: &Config) -> Result<String, crate::registry::RegistryError> {
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let registry = Registry::open(&config.data_dir, Arc::clone(&ledger)).await?;
    let mut active = Vec::new();
    for role in [ActiveRole::Policy, ActiveRole::Reward] {
        if let Some(pointer) = registry.pointer(role).await? {
            registry.verify(&pointer.generation).await?;
            active.push(format!("{} is the active {role}", pointer.generation));
        }
    }
    ledger.close().await;
    Ok(if active.is_empty() { "none is active yet".to_owned() } else { active.join(", ") })
}

async fn index(config: &Arc<Config>, data_dir: &DataDir) -> Result<String, crate::app::AppError> {
    let library = open_library(config, data_dir).await?;
    let stats = library.stats()?;
    Ok(format!("{} documents, {} passages", stats.documents, stats.passages))
}

/// Loads the model and has it answer.
async fn model(config: &Arc<Config>) -> Result<String, crate::app::AppError> {
    let prompts = PromptBuilder::new(&config.prompt);
    // A server may be running beside.
    let mut alone = Config::clone(config);
    alone.generation.engines = 1;
    let config = &Arc::new(alone);
    let began = std::time::Instant::now();
    let generator = Arc::new(load_base(config, &prompts).await?);
    let slot = Slot::empty(Metrics::new()?);
    let prepared = slot.prepare(generator).await?;
    slot.commit(prepared);
    let id = slot.generations().into_iter().next().map(String::from).unwrap_or_default();
    Ok(format!(
        "{} loaded and answering as {id} after {:.1} s",
        config.models.base,
        began.elapsed().as_secs_f64()
    ))
}
