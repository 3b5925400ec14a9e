//! Where do log lines go, and how do they look?

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{LogFormat, TelemetryConfig};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can not be parsed.
    #[error("telemetry.log_filter {0:?} is not a filter such as info,attune=debug")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
}

/// Starts logging to standard error; a second call in one process changes nothing. `RUST_LOG` wins over the
/// configured filter.
///
/// # Errors
/// When the filter can not be parsed.
pub fn init(config: &TelemetryConfig) -> Result<(), LogError> {
    let text = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log_filter.clone());
    // The engine logs every load at info, several lines each; its warnings stay.
    let text = format!("mistralrs_core=warn,mistralrs_quant=warn,mistralrs=warn,tantivy=warn,{text}");
    let filter = EnvFilter::try_new(&text).map_err(|error| LogError::Filter(text, error))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.log_format {
        LogFormat::Text => {
            let lines = fmt::layer().with_writer(std::io::stderr);
            // Colour codes in a file are in the way of whoever searches it.
            let lines = if std::io::stderr().is_terminal() { lines } else { lines.with_ansi(false) };
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    // Tests start several servers in one process; the first one's subscriber serves all.
    drop(started);
    Ok(())
}
