//! Who said what in a conversation?

use serde::{Deserialize, Serialize};

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Author {
    /// Instructions of the caller.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation, oldest first in every list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Message {
    /// Who wrote it.
    pub role: Author,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message by the person who asks.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Author::User, content: content.into() }
    }

    /// A message by the model.
    #[must_use]
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Author::Assistant, content: content.into() }
    }

    /// Instructions.
    #[must_use]
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Author::System, content: content.into() }
    }
}
