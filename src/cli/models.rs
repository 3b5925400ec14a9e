//! Which base models are there, and how are they fetched?

use clap::Subcommand;

use super::{CommandResult, say};
use crate::config::Config;
use crate::models;

#[derive(Debug, Subcommand)]
pub(super) enum Models {
    /// Fetch a model of the catalogue; without a name, everything this configuration needs.
    Pull {
        /// Name as in `attune models list`.
        name: Option<String>,
    },
    /// List the models of the catalogue.
    List,
}

pub(super) async fn run(config: Config, command: Models, json: bool) -> CommandResult {
    tokio::task::spawn_blocking(move || match command {
        Models::Pull { name } => pull(&config, name),
        Models::List => list(&config, json),
    })
    .await?
}

fn pull(config: &Config, name: Option<String>) -> CommandResult {
    let progress = models::for_this_process();
    if let Some(name) = name {
        models::pull(&config.models, &name, progress.as_ref())?;
        say(format!("{name} is in {}", config.models.cache_dir().display()));
        return Ok(());
    }
    let base = models::prepare(&config.models, progress.as_ref())?;
    say(format!("{} is ready: {}", base.name, base.weights.path().display()));
    if let Some(folder) = models::prepare_sentence(&config.models, progress.as_ref())? {
        say(format!("{} is ready: {}", config.models.sentence, folder.display()));
    }
    Ok(())
}

fn list(config: &Config, json: bool) -> CommandResult {
    let all = models::list(&config.models);
    if json {
        say(serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for model in all {
        let here = if model.cached { "here" } else { "not fetched" };
        // Sizes in catalogues are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "a size in MB with one decimal")]
        let megabytes = model.size_bytes as f64 / 1e6;
        say(format!(
            "{:<28} {:<9} {megabytes:>8.1} MB  {:<12} {here}",
            model.name,
            model.kind.as_str(),
            model.licence
        ));
    }
    Ok(())
}
