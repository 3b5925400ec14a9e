//! What does the server answer over HTTP? `routes` has every route on one page.

mod answers;
mod blocking;
mod chat;
mod comparisons;
mod demonstrations;
mod documents;
mod error;
mod exchange;
mod extract;
mod feedback;
mod generations;
mod health;
mod models;
mod observe;
mod openapi;
mod passages;
mod person;
mod render;
mod routes;
mod runs;
mod scores;
mod search;
mod sse;
mod widget;
mod wire;

use std::sync::Arc;

use tokio::sync::watch;

use crate::access::Access;
use crate::chat::Chat;
use crate::config::Config;
use crate::domain::Millis;
use crate::ledger::Ledger;
use crate::lineage::Lineage;
use crate::registry::Registry;
use crate::retrieval::Library;
use crate::swap::Swapper;
use crate::telemetry::Metrics;

pub use health::Readiness;
pub use openapi::document as openapi_document;
pub use routes::{configure, configure_scrapes};

/// What handlers work with; one for all worker threads.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// What happened.
    pub ledger: Arc<dyn Ledger>,
    /// What is known.
    pub library: Arc<Library>,
    /// Who answers.
    pub chat: Arc<Chat>,
    /// Who may ask.
    pub access: Arc<Access>,
    /// Which generations there are.
    pub registry: Registry,
    /// Which one is served.
    pub swapper: Arc<Swapper>,
    /// Who has learnt from what.
    pub lineage: Lineage,
    /// What is measured.
    pub metrics: Metrics,
    /// Whether questions can be answered now.
    pub readiness: watch::Receiver<Readiness>,
    /// When the server started.
    pub started: Millis,
}
