//! What can be done from the command line?

mod doctor;
mod evaluate;
mod exchange;
mod generations;
mod indexing;
mod models;
mod run;
mod simulate;
mod tokens;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::app::Application;
use crate::config::{Config, Overrides};
use crate::error::chain;
use crate::{jobs, shutdown, telemetry};

/// What a command reports when it fails.
type CommandResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Answers questions from your company's documents, and learns from the people who ask.
#[derive(Debug, Parser)]
#[command(name = "attune", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file; without it `attune.toml` in the working directory, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where all state lives; wins over `data_dir` of the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Check the configuration, say what is wrong with it, and do nothing else.
    #[arg(long, global = true)]
    check_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve chat, widget and console.
    Serve(Serve),
    /// Index files and folders once.
    Index(indexing::Index),
    /// Fetch and list base models.
    #[command(subcommand)]
    Models(models::Models),
    /// Create, list and revoke access tokens.
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// Write what was collected as JSON Lines.
    Export(exchange::Export),
    /// Read JSON Lines of demonstrations, preferences, ratings or prompts.
    Import(exchange::Import),
    /// Train: ask for a run and work on it, list, show or cancel runs.
    #[command(subcommand)]
    Run(Box<run::Runs>),
    /// Work on runs that others asked for.
    Worker(worker::WorkerArgs),
    /// Compare a generation's answers with the human ones.
    Evaluate(evaluate::Evaluate),
    /// Try the whole loop on a company in small: employees with a secret preference vote, the server learns, and a
    /// judge compares.
    Simulate(simulate::Simulate),
    /// List generations, or show, verify and prune them.
    Generations(generations::Generations),
    /// Make a generation the active one.
    Promote(generations::Promote),
    /// Go back to the generation before the active one.
    Rollback(generations::Rollback),
    /// Check that everything this configuration needs is there and works.
    Doctor,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address and port; wins over `server.listen`.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// A folder of documents to index and keep in step; repeatable; wins over `docs.paths`.
    #[arg(long, value_name = "PATH")]
    docs: Vec<PathBuf>,
}

/// Runs the command of this process; errors are printed to standard error, with what to do.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    // Boxed: the futures of all commands together are large.
    match Box::pin(execute(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is the command line's edge")]
            {
                eprintln!("error: {}", chain(error.as_ref()));
            }
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> CommandResult {
    let mut overrides = Overrides { data_dir: cli.common.data_dir.clone(), ..Overrides::default() };
    if let Some(Command::Serve(serve)) = &cli.command {
        // Of a configured folder the server only warns: it may be mounted later. One that is typed is mistyped.
        if let Some(missing) = serve.docs.iter().find(|path| !path.exists()) {
            return Err(format!("--docs {}: there is no such folder or file", missing.display()).into());
        }
        overrides.listen.clone_from(&serve.listen);
        overrides.docs.clone_from(&serve.docs);
    }
    let stop = CancellationToken::new();
    let (worker_name, config) = match cli.command {
        Some(Command::Worker(_)) => jobs::handed_over(&stop)?.unzip(),
        _ => (None, None),
    };
    let config = match config {
        Some(config) => config,
        None => Config::load(cli.common.config.as_deref(), &overrides)?,
    };
    if cli.common.check_config {
        say("the configuration is valid");
        return Ok(());
    }
    telemetry::init(&config.telemetry)?;
    let json = cli.common.json;
    match cli.command {
        Some(Command::Serve(_)) => serve(config).await,
        Some(Command::Index(index)) => indexing::run(config, index, json).await,
        Some(Command::Models(models)) => models::run(config, models, json).await,
        Some(Command::Tokens(tokens)) => tokens::run(config, tokens, json).await,
        Some(Command::Export(export)) => exchange::export(config, export).await,
        Some(Command::Import(import)) => exchange::import(config, import, json).await,
        Some(Command::Run(runs)) => Box::pin(run::run(config, *runs, json)).await,
        Some(Command::Worker(args)) => {
            shutdown::on_signal(stop.clone());
            worker::run(config, worker_name, args, stop).await
        }
        Some(Command::Evaluate(evaluate)) => evaluate::run(config, evaluate, json).await,
        Some(Command::Simulate(args)) => simulate::run(config, (args, cli.common.config), json).await,
        Some(Command::Generations(generations)) => generations::run(config, generations, json).await,
        Some(Command::Promote(promote)) => generations::promote(config, promote, json).await,
        Some(Command::Rollback(rollback)) => generations::rollback(config, rollback, json).await,
        Some(Command::Doctor) => doctor::run(config, json).await,
        None => Err("no command; try `attune serve --docs FOLDER`, or `attune --help`".into()),
    }
}

async fn serve(config: Config) -> CommandResult {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    Ok(Application::build(config)?.run(stop).await?)
}

/// Prints a line of results.
#[expect(clippy::print_stdout, reason = "this is the command line's edge")]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Prints a line about what is being done, apart from the results.
#[expect(clippy::print_stderr, reason = "this is the command line's edge")]
fn note(line: impl std::fmt::Display) {
    eprintln!("{line}");
}
