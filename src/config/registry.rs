//! Which generations are kept, and which may be served?

use serde::{Deserialize, Serialize};

/// Which generations are kept and may be served.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// How many generations of each kind keep their files besides the active one, the one before it and those still
    /// answering. Default 5.
    pub keep: usize,
    /// Whether a generation that was trained on restricted documents may answer everybody. Default false.
    pub serve_restricted: bool,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { keep: 5, serve_restricted: false }
    }
}
