//! Which generations are there, and which one answers? Beside a running server too: it follows within a second or two.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};

use super::{CommandResult, say};
use crate::config::Config;
use crate::domain::{ActiveRole, GenerationId};
use crate::error::chain;
use crate::ledger::{GenerationFilter, Ledger, Paging, Pointer};
use crate::registry::{Generation, Registry};

/// Most generations of one list.
const MOST: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct Generations {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one generation with everything known of it.
    Show {
        /// Id as in `attune generations`.
        id: String,
    },
    /// Delete the files of old generations; which are kept, `registry.keep` says.
    Prune,
    /// Compare the files of a generation, or of all, with what was published.
    Verify {
        /// Id as in `attune generations`; without it, all.
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// Id as in `attune generations`.
    id: String,
    /// Only if this generation is active now.
    #[arg(long, value_name = "ID")]
    expected: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// What to roll back.
    #[arg(long, value_enum, default_value_t = RoleArg::Policy)]
    kind: RoleArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    Policy,
    Reward,
}

pub(super) async fn run(config: Config, generations: Generations, json: bool) -> CommandResult {
    let opened = Opened::open(&config).await?;
    let done = match generations.command {
        None => list(&opened.registry, json).await,
        Some(What::Show { id }) => show(&opened.registry, id).await,
        Some(What::Prune) => prune(&opened.registry, &config, json).await,
        Some(What::Verify { id }) => verify(&opened.registry, id).await,
    };
    opened.close(done).await
}

/// Verifies the files, then moves the pointer.
pub(super) async fn promote(config: Config, promote: Promote, json: bool) -> CommandResult {
    let opened = Opened::open(&config).await?;
    let id = GenerationId::from_wire(promote.id);
    let expected = promote.expected.map(GenerationId::from_wire);
    let promoting = async {
        opened.registry.verify(&id).await?;
        let pointer = opened.registry.promote(&id, expected.as_ref()).await?;
        tell(&pointer, json);
        Ok(())
    };
    let done = promoting.await;
    opened.close(done).await
}

/// Moves the pointer back.
pub(super) async fn rollback(config: Config, rollback: Rollback, json: bool) -> CommandResult {
    let opened = Opened::open(&config).await?;
    let role = match rollback.kind {
        RoleArg::Policy => ActiveRole::Policy,
        RoleArg::Reward => ActiveRole::Reward,
    };
    let going_back = async {
        let (previous, active) = opened.registry.before(role).await?;
        opened.registry.verify(&previous).await?;
        tell(&opened.registry.promote(&previous, Some(&active)).await?, json);
        Ok(())
    };
    let done = going_back.await;
    opened.close(done).await
}

/// The registry beside a server that may run: without the data directory's lock.
struct Opened {
    ledger: Arc<dyn Ledger>,
    registry: Registry,
}

impl Opened {
    async fn open(config: &Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        std::fs::create_dir_all(&config.data_dir)?;
        let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
        let registry = Registry::open(&config.data_dir, Arc::clone(&ledger)).await?;
        Ok(Self { ledger, registry })
    }

    async fn close(self, done: CommandResult) -> CommandResult {
        self.ledger.close().await;
        done
    }
}

fn tell(pointer: &Pointer, json: bool) {
    if json {
        let previous = pointer.previous.as_ref();
        say(
            serde_json::json!({"active": pointer.generation, "previous": previous, "changed": pointer.changed}),
        );
        return;
    }
    say(format!("{} is active; a running server follows within seconds", pointer.generation));
    if let Some(previous) = &pointer.previous {
        say(format!("`attune rollback` goes back to {previous}"));
    }
}

async fn all(registry: &Registry) -> Result<Vec<Generation>, crate::registry::RegistryError> {
    let paging = Paging { before: None, limit: MOST };
    Ok(registry.list(GenerationFilter::default(), &paging).await?.data)
}

async fn list(registry: &Registry, json: bool) -> CommandResult {
    for generation in all(registry).await? {
        if json {
            say(serde_json::to_string(&described(&generation))?);
            continue;
        }
        let about = &generation.manifest.about;
        let created =
            jiff::Timestamp::from_millisecond(about.created.0).map(|at| at.strftime("%F %R").to_string());
        say(format!(
            "{:<20} {:<6} {:<9} {}  {}",
            generation.manifest.id.as_str(),
            about.kind.to_string(),
            generation.state.to_string(),
            created.unwrap_or_default(),
            note(&generation)
        ));
    }
    Ok(())
}

fn note(generation: &Generation) -> String {
    if generation.pruned.is_some() {
        return "files deleted".into();
    }
    if !generation.reasons.is_empty() {
        return generation.reasons.join("; ");
    }
    let parent = generation.manifest.about.parent.as_ref();
    parent.map_or_else(|| generation.manifest.about.base.name.clone(), |parent| format!("from {parent}"))
}

/// The manifest with what became of it.
fn described(generation: &Generation) -> serde_json::Value {
    let mut value = serde_json::to_value(&generation.manifest).unwrap_or_default();
    value["state"] = serde_json::json!(generation.state);
    value["reasons"] = serde_json::json!(generation.reasons);
    value["pruned"] = serde_json::json!(generation.pruned);
    value
}

async fn show(registry: &Registry, id: String) -> CommandResult {
    let generation = registry.get(&GenerationId::from_wire(id)).await?;
    say(serde_json::to_string_pretty(&described(&generation))?);
    Ok(())
}

async fn prune(registry: &Registry, config: &Config, json: bool) -> CommandResult {
    // What a server still answers with is in its memory; it does not need the files.
    let gone = registry.prune(config.registry.keep, &[]).await?;
    if json {
        say(serde_json::json!({"pruned": gone}));
        return Ok(());
    }
    for id in &gone {
        say(format!("{id}: files deleted"));
    }
    say(format!("{} pruned", gone.len()));
    Ok(())
}

async fn verify(registry: &Registry, id: Option<String>) -> CommandResult {
    let ids = match id {
        Some(id) => vec![GenerationId::from_wire(id)],
        None => {
            let there = all(registry).await?.into_iter().filter(|generation| generation.pruned.is_none());
            there.map(|generation| generation.manifest.id).collect()
        }
    };
    let mut damaged = 0;
    for id in &ids {
        match registry.verify(id).await {
            Ok(manifest) => say(format!("ok    {id}: {} files", manifest.files.len())),
            Err(error) => {
                damaged += 1;
                say(format!("FAIL  {id}: {}", chain(&error)));
            }
        }
    }
    if damaged > 0 {
        Err(format!("{damaged} of {} generations can not be used", ids.len()).into())
    } else {
        Ok(())
    }
}
