//! Where does the server listen, keep its ledger, read documents, and write its logs?

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// Where and how to listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port. Default `127.0.0.1:8080`; port 0 takes a free one. Anything but loopback needs
    /// `access.mode` other than `open`.
    pub listen: String,
    /// HTTP worker threads. Default 2: handlers only wait, the engine has its own threads.
    pub workers: usize,
    /// Seconds a shutdown waits for streams in flight. Default 30.
    pub drain_seconds: u64,
    /// Seconds between readiness turning 503 and the listener closing, so that load balancers notice. Default 0.
    pub drain_delay_seconds: u64,
    /// Seconds between SSE keep-alive comments. Default 15: below the 60 s idle limit of common load balancers.
    pub keep_alive_seconds: u64,
    /// Largest request body in bytes. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Largest document body in bytes. Default 32 MiB.
    pub max_document_bytes: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            workers: 2,
            drain_seconds: 30,
            drain_delay_seconds: 0,
            keep_alive_seconds: 15,
            max_body_bytes: 1 << 20,
            max_document_bytes: 32 << 20,
        }
    }
}

impl ServerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.address()?;
        check(self.workers >= 1, "server.workers", || "must be at least 1".into())?;
        check(self.keep_alive_seconds >= 1, "server.keep_alive_seconds", || "must be at least 1".into())?;
        check(self.max_body_bytes >= 1024, "server.max_body_bytes", || "must be at least 1024".into())
    }

    /// The address to bind.
    ///
    /// # Errors
    /// When `server.listen` is no `address:port`.
    pub fn address(&self) -> Result<SocketAddr, ConfigError> {
        self.listen.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(|| {
            ConfigError::Invalid {
                key: "server.listen",
                problem: format!("{:?} is not ADDRESS:PORT, such as 127.0.0.1:8080", self.listen),
            }
        })
    }
}

/// Which database holds the ledger.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `sqlite:PATH` or `postgres://user:password@host/database`. Default: SQLite, `ledger.db` in the data directory.
    pub url: Option<String>,
}

/// Which folders are knowledge.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocsConfig {
    /// Folders of Markdown, HTML and text to index and keep in step. Default none.
    pub paths: Vec<PathBuf>,
    /// Whether changes in the folders are picked up while serving. Default true.
    pub watch: bool,
    /// Groups by folder: a glob on the path inside a document folder (`people/private/**`) and the groups that may
    /// see what matches. A page's own `groups:` wins. Default none.
    pub folder_groups: BTreeMap<String, Vec<String>>,
    /// Where people read the documents: the path inside the folder is appended to form each link. Default none: links
    /// open the passage in the chat page.
    pub base_url: Option<String>,
}

impl Default for DocsConfig {
    fn default() -> Self {
        Self { paths: Vec::new(), watch: true, folder_groups: BTreeMap::new(), base_url: None }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and metrics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    /// Filter as in `RUST_LOG`, which wins. Default `info`. Prompts and answers are never logged at `info`.
    pub log_filter: String,
    /// A second address that serves `/metrics` and probes only, so that scrapers need no credentials. Default none;
    /// `/metrics` on the main address needs the role operator unless the access mode is `open`.
    pub metrics_listen: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_filter: "info".into(), metrics_listen: None }
    }
}
