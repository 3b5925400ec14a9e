//! How do rows to learn from get in and out?

use std::path::PathBuf;

use clap::Args;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::{CommandResult, say};
use crate::config::Config;
use crate::dataset::{self, Format};
use crate::domain::now;

/// Who imports from the command line: whoever can write the data directory.
const IMPORTER: &str = "command-line";

#[derive(Debug, Args)]
pub(super) struct Export {
    /// `sft`, `preference`, `unpaired` or `prompts`.
    #[arg(long)]
    format: Format,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// `sft`, `preference`, `unpaired` or `prompts`.
    #[arg(long, default_value = "sft")]
    format: Format,
    /// JSON Lines; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn export(config: Config, export: Export) -> CommandResult {
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let mut output: Box<dyn tokio::io::AsyncWrite + Unpin + Send> = match &export.output {
        Some(path) => {
            let file = tokio::fs::File::create(path).await;
            Box::new(file.map_err(|error| format!("{}: {error}", path.display()))?)
        }
        None => Box::new(tokio::io::stdout()),
    };
    // The command line sees everything: it reads the data directory.
    let rows = dataset::export(ledger, export.format, None);
    let mut rows = std::pin::pin!(rows);
    while let Some(chunk) = rows.next().await {
        output.write_all(&chunk?).await?;
    }
    output.flush().await?;
    Ok(())
}

pub(super) async fn import(config: Config, import: Import, json: bool) -> CommandResult {
    std::fs::create_dir_all(&config.data_dir)?;
    let reader: Box<dyn AsyncRead + Unpin + Send> = if import.file.as_os_str() == "-" {
        Box::new(tokio::io::stdin())
    } else {
        let file = tokio::fs::File::open(&import.file).await;
        Box::new(file.map_err(|error| format!("{}: {error}", import.file.display()))?)
    };
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    let what =
        dataset::Import { format: import.format, importer: IMPORTER, folder: &config.data_dir, now: now() };
    let report = dataset::import(ledger.as_ref(), reader, what).await?;
    ledger.close().await;
    if json {
        say(serde_json::to_string(&report)?);
    } else {
        say(format!("{} rows, {} of them new; {} left out", report.rows, report.new, report.skipped));
    }
    Ok(())
}
