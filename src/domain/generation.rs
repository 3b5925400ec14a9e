//! What kinds of generations are there, and what became of each?

use serde::{Deserialize, Serialize};

/// What a generation is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum GenerationKind {
    /// The base model as it was published by others.
    Base,
    /// A fine-tuned model that answers.
    Policy,
    /// A model that judges answers.
    Reward,
}

impl GenerationKind {
    /// The role it can be active in.
    #[must_use]
    pub const fn role(self) -> ActiveRole {
        match self {
            Self::Base | Self::Policy => ActiveRole::Policy,
            Self::Reward => ActiveRole::Reward,
        }
    }
}

/// What there is one active generation of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ActiveRole {
    /// Answers questions: the base model or a fine-tuned one.
    Policy,
    /// Judges answers.
    Reward,
}

impl std::fmt::Display for GenerationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Policy => "policy",
            Self::Reward => "reward",
        })
    }
}

impl std::fmt::Display for ActiveRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Reward => "reward",
        })
    }
}

/// What became of a generation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// Published; not decided upon.
    Candidate,
    /// In use.
    Active,
    /// Kept back, with the reasons; a person may still promote it.
    Held,
    /// Was in use, or its files were deleted.
    Retired,
}

impl std::fmt::Display for GenerationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Held => "held",
            Self::Retired => "retired",
        })
    }
}
