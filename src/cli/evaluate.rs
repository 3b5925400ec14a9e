//! How good are a generation's answers beside the human ones, on demand?

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{CommandResult, say};
use crate::config::Config;
use crate::dataset::snapshot::{self, Options, Split};
use crate::domain::{ActiveRole, GenerationId, GenerationKind};
use crate::evaluation::{Comparing, Summary};
use crate::improve::{Examining, Workshop, examine, questions};
use crate::jobs::Reporter;
use crate::nn::Decoder;

#[derive(Debug, Args)]
pub(super) struct Evaluate {
    /// The generation; without it the active one.
    #[arg(long, value_name = "ID")]
    generation: Option<String>,
    /// JSON Lines of questions and human answers (`question` and `answer`, `prompt` and `response`, or `messages`;
    /// optional `passages`, `page`); without it the demonstrations that are held out.
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
}

pub(super) async fn run(config: Config, evaluate: Evaluate, json: bool) -> CommandResult {
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let workshop = Workshop::open(Arc::new(config), ledger).await?;
    let id = match evaluate.generation {
        Some(id) => GenerationId::from_wire(id),
        None => match workshop.registry.pointer(ActiveRole::Policy).await? {
            Some(pointer) => pointer.generation,
            None => return Err("no generation is active".into()),
        },
    };
    let manifest = workshop.registry.get(&id).await?.manifest;
    let is_base = manifest.about.kind == GenerationKind::Base;
    let weights = if is_base {
        workshop.base.trained_weights().to_owned()
    } else {
        workshop.registry.verify(&id).await?;
        workshop.registry.servable(&workshop.base, &manifest)?.weights.path().to_owned()
    };
    let rows = match evaluate.set {
        Some(path) => {
            let grounding = workshop.grounding();
            let read = tokio::task::spawn_blocking(move || snapshot::from_file(&path, &grounding));
            read.await??.rows().to_vec()
        }
        None => {
            let grounding = workshop.grounding();
            let taken = snapshot::take(workshop.ledger.as_ref(), &grounding, &Options::default()).await?;
            taken.side(Split::HeldOut).cloned().collect()
        }
    };
    let watched = Reporter::watched_by(super::worker::watcher());
    let summary = tokio::task::spawn_blocking(move || {
        let decoder = Decoder::open(&weights)?;
        let questions = questions(&workshop, &rows)?;
        let examining = Examining { workshop: &workshop, report: &watched, is_base };
        let answers = examine(examining, (&decoder, &questions), "answers")?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Summary::of(
            &answers.samples,
            &Comparing::default(),
        )?)
    })
    .await??;
    if json {
        say(serde_json::to_string(&summary)?);
    } else {
        say(summary.markdown(&format!("Answers of {id}, beside the human ones")));
    }
    Ok(())
}
