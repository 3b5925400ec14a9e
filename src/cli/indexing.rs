//! How are files and folders indexed once?

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandResult, say};
use crate::app::{DataDir, open_library};
use crate::config::Config;
use crate::retrieval::{SyncProgress, SyncReport};

#[derive(Debug, Args)]
pub(super) struct Index {
    /// Folders of Markdown, HTML and text.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) async fn run(mut config: Config, index: Index, json: bool) -> CommandResult {
    config.docs.paths = index.paths;
    let data_dir = DataDir::lock(&config.data_dir)?;
    let config = std::sync::Arc::new(config);
    let library = open_library(&config, &data_dir).await?;
    let began = std::time::Instant::now();
    let docs = config.docs.clone();
    let (report, stats) = tokio::task::spawn_blocking(move || {
        let bar = progress_bar();
        let report = library.sync_folders(&docs, &mut |progress: SyncProgress<'_>| {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
        })?;
        bar.finish_and_clear();
        Ok::<_, crate::retrieval::RetrievalError>((report, library.stats()?))
    })
    .await??;
    if json {
        say(serde_json::json!({"report": report, "stats": stats, "seconds": began.elapsed().as_secs_f64()}));
    } else {
        print_report(&report);
        say(format!(
            "{} documents, {} passages in the index; {:.1} s",
            stats.documents,
            stats.passages,
            began.elapsed().as_secs_f64()
        ));
    }
    // A page that can not be read is told; what was named and could not be read at all is a failure.
    let asked = &config.docs.paths;
    let refused = asked.iter().filter(|path| report.failed.iter().any(|(failed, _)| failed == *path)).count();
    if refused > 0 {
        Err(format!("{refused} of {} paths could not be indexed", asked.len()).into())
    } else {
        Ok(())
    }
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("indexing {bar:40} {pos}/{len} {eta}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print_report(report: &SyncReport) {
    say(format!(
        "{} added, {} updated, {} unchanged, {} removed, {} failed",
        report.added,
        report.updated,
        report.unchanged,
        report.removed,
        report.failed.len()
    ));
    for (path, reason) in &report.failed {
        say(format!("not indexed: {}: {reason}", path.display()));
    }
    if !report.others.is_empty() {
        let kinds: Vec<String> =
            report.others.iter().map(|(kind, files)| format!("{kind} ({files})")).collect();
        say(format!("left alone, only Markdown, HTML and text are read: {}", kinds.join(", ")));
    }
}
