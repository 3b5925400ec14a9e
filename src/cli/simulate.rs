//! How is the whole loop tried out on a company in small, from the shell?

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::worker::watcher;
use super::{CommandResult, note, say};
use crate::config::Config;
use crate::shutdown;
use crate::simulate::{self, DRAWING, Plan, Preference, ServerCommand, Watch};

/// Votes by default; with 400 the policy learns more reliably (`benches/RESULTS.md`).
const VOTES: usize = 120;
/// Votes with `--full`.
const FULL_VOTES: usize = 400;

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// What the employees secretly like.
    #[arg(long, value_enum, default_value_t = Style::Short)]
    preference: Style,
    /// Decides which questions are asked by whom, which are kept for the end, and which votes are turned round.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Votes; by default 120, with --full 400.
    #[arg(long)]
    votes: Option<usize>,
    /// Longer answers from more passages, and more votes: hours on two processors.
    #[arg(long)]
    full: bool,
    /// Most questions that are kept for the end.
    #[arg(long, default_value_t = 100)]
    questions: usize,
    /// The documents.
    #[arg(long, value_name = "PATH", default_value = "handbook")]
    docs: PathBuf,
    /// JSON Lines of questions with human answers (`id`, `question`, `answer`; optional `split`, `kind`, `history`).
    #[arg(long, value_name = "FILE", default_value = "handbook/questions.jsonl")]
    questions_file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Style {
    /// Few words, and a page is cited.
    Short,
    /// Several short steps, in order.
    Steps,
    /// Speaks to the reader, kindly.
    Friendly,
}

impl From<Style> for Preference {
    fn from(style: Style) -> Self {
        match style {
            Style::Short => Self::Short,
            Style::Steps => Self::Steps,
            Style::Friendly => Self::Friendly,
        }
    }
}

pub(super) async fn run(
    config: Config,
    (args, file): (Simulate, Option<PathBuf>),
    json: bool,
) -> CommandResult {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    let plan = Plan {
        preference: args.preference.into(),
        seed: args.seed,
        votes: args.votes.unwrap_or(if args.full { FULL_VOTES } else { VOTES }),
        questions: args.questions,
        full: args.full,
        docs: std::path::absolute(args.docs)?,
        questions_file: std::path::absolute(args.questions_file)?,
    };
    let command = ServerCommand {
        program: std::env::current_exe()?,
        config: file,
        data_dir: std::path::absolute(config.data_dir)?,
        docs: plan.docs.clone(),
    };
    let folder = simulate::folder(&command.data_dir);
    note(format!(
        "the simulation is kept in {}; Ctrl-C stops, and the same command goes on",
        folder.display()
    ));
    let progress = watcher();
    let report = simulate::simulate(&command, &plan, &Watch { progress: &progress, stop: &stop }).await?;
    if json {
        // Scripts read the last line.
        note(report.markdown());
        say(report.line());
    } else {
        say(report.markdown());
        say(format!("drawn in {}", folder.join(DRAWING).display()));
    }
    Ok(())
}
