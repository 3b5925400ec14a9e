//! When did it happen?

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC. Stored as BIGINT in both databases.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// Whole seconds since the epoch (OpenAI's `created`).
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// The wall clock. Layers that make records call it once and pass the value on; storage writes what it is given.
#[must_use]
pub fn now() -> Millis {
    Millis(jiff::Timestamp::now().as_millisecond())
}
