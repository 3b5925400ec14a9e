//! The `attune` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    attune::cli::run().await
}
