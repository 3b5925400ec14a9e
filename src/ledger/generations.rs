//! Which generations are known, and which one is active? The rows behind the registry.

mod implementation;
mod statements;

use async_trait::async_trait;

use super::{Page, Paging, Result};
use crate::domain::{ActiveRole, GenerationId, GenerationKind, GenerationState, Millis};

/// A generation as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRow {
    /// Its content hash.
    pub id: GenerationId,
    /// What it is.
    pub kind: GenerationKind,
    /// What became of it.
    pub state: GenerationState,
    /// What it was made from.
    pub parent: Option<GenerationId>,
    /// When it was made.
    pub created: Millis,
    /// Why it is held.
    pub reasons: Vec<String>,
    /// When its files were deleted, if they were.
    pub pruned: Option<Millis>,
    /// The manifest, as JSON.
    pub manifest: String,
}

/// Which generations to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct GenerationFilter {
    /// Only those of this kind.
    pub kind: Option<GenerationKind>,
    /// Only those in this state.
    pub state: Option<GenerationState>,
}

/// Which generation is active in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The active one.
    pub generation: GenerationId,
    /// The one before it.
    pub previous: Option<GenerationId>,
    /// When it changed last.
    pub changed: Millis,
}

/// What the pointer must be for a move to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    /// Anything.
    Any,
    /// Not set yet.
    Unset,
    /// This generation.
    Active(&'a GenerationId),
}

/// What came of moving the pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// It names the wanted generation now (or did before).
    To(Pointer),
    /// It is not what was expected, and stays.
    Unexpected(Option<Pointer>),
    /// The wanted generation is not known, of another kind, or its files were deleted; the pointer stays.
    Unusable,
}

/// The record of generations. As for the ledger: what returned `Ok` is durable, on `Err` nothing was written, and a
/// dropped future leaves all of a write or nothing.
#[async_trait]
pub trait Generations {
    /// Writes a new generation; `false` when its id is there. One whose files were deleted has them back and becomes
    /// a candidate again.
    async fn put_generation(&self, row: &GenerationRow) -> Result<bool>;
    /// One generation.
    async fn generation(&self, id: &GenerationId) -> Result<Option<GenerationRow>>;
    /// Generations, newest first.
    async fn generations(&self, filter: GenerationFilter, paging: &Paging) -> Result<Page<GenerationRow>>;
    /// Holds a candidate (or a held one, for other reasons); `false` when there is none of this id.
    async fn hold_generation(&self, id: &GenerationId, reasons: &[String]) -> Result<bool>;
    /// The active generation of a role; `None` until the first was promoted.
    async fn pointer(&self, role: ActiveRole) -> Result<Option<Pointer>>;
    /// Makes a generation the active one of its role, if the pointer is as expected; the one before is retired. Of
    /// several calls with the same expectation at most one moves the pointer. Moving it to where it is changes
    /// nothing.
    async fn move_pointer(
        &self,
        to: (ActiveRole, &GenerationId),
        expected: Expected<'_>,
        at: Millis,
    ) -> Result<Moved>;
    /// Notes that a generation's files go; `false`, and nothing is noted, when it is not known, gone already, or any
    /// pointer names it as active or as the one before.
    async fn prune_generation(&self, id: &GenerationId, at: Millis) -> Result<bool>;
}
