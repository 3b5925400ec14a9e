//! What happened? Every answer, click, vote, demonstration and token, durable before anybody is told.

mod generations;
mod implementation;
mod inserts;
mod measured;
mod postgres;
mod recorder;
mod rows;
mod runs;
mod sqlite;
mod statements;
#[cfg(test)]
pub(crate) mod tests;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::domain::{
    AccessLabel, AnswerId, AnswerRecord, Comparison, ComparisonId, Demonstration, DemonstrationId,
    DemonstrationStatus, Feedback, Groups, Lineage, Message, Millis, Rating, Role, Vote,
};
use crate::error::{Error, ErrorCode};
use crate::telemetry::Metrics;

pub use generations::{Expected, GenerationFilter, GenerationRow, Generations, Moved, Pointer};
pub use runs::{Claim, Held, Renewal, RunEnd, RunReport, Runs, RunsOverview};

/// Why the ledger could not do it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The thing named does not exist.
    #[error("{0} was not found")]
    NotFound(String),
    /// The state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The disk (or the database's quota) is full; nothing was written.
    #[error("the ledger's disk is full")]
    Full(#[source] sqlx::Error),
    /// The database failed.
    #[error("ledger: {operation}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("ledger: migrating the database")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A stored value can not be read: the database was changed by something else.
    #[error("ledger: {column} of a stored row can not be read")]
    Corrupt {
        /// Which column.
        column: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A list was asked for with a cursor that no page gave.
    #[error("{0:?} is no cursor of this list")]
    Cursor(String),
    /// Rows could not be read while they were being imported; none was written.
    #[error("ledger: reading rows to import")]
    Import(#[source] std::io::Error),
    /// `database.url` names no database we know. Holds the part before the first colon: the rest may be a password.
    #[error("database.url begins with {0:?}; it must be sqlite:PATH or postgres://…")]
    Url(String),
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NotFound(what) => Self::not_found(what),
            LedgerError::Conflict(problem) => Self::new(ErrorCode::Conflict, problem),
            full @ LedgerError::Full(_) => {
                Self::new(ErrorCode::StorageFull, "the server's disk is full; nothing was recorded")
                    .caused_by(full)
            }
            cursor @ LedgerError::Cursor(_) => Self::invalid("before", cursor.to_string()),
            other => Self::internal(other),
        }
    }
}

/// Opens the ledger at `url` (`sqlite:PATH`, relative to the working directory, or `postgres://…`), or `ledger.db` in
/// `data_dir`, makes it if it is not there, and migrates it to this version.
///
/// # Errors
/// When `url` is of neither form, the database can not be reached or made, or a migration fails.
pub async fn open(url: Option<&str>, data_dir: &Path) -> Result<Arc<dyn Ledger>> {
    let Some(url) = url else {
        return Ok(Arc::new(sqlite::SqliteLedger::open(&data_dir.join("ledger.db")).await?));
    };
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(postgres::PostgresLedger::open(url).await?)),
        // In-memory databases are refused: nothing would survive.
        Some(("sqlite", path)) if !path.is_empty() && path != ":memory:" => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(Arc::new(sqlite::SqliteLedger::open(Path::new(path)).await?))
        }
        _ => Err(LedgerError::Url(url.split(':').next().unwrap_or_default().to_owned())),
    }
}

/// The same ledger, its writes observed in the metrics.
#[must_use]
pub fn measured(ledger: Arc<dyn Ledger>, metrics: &Metrics) -> Arc<dyn Ledger> {
    Arc::new(measured::Measured { inner: ledger, metrics: metrics.clone() })
}

/// A result of the ledger.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Pass as `before` to get the next page; `None` at the end.
    pub next: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default)]
pub struct Paging {
    /// Only rows older than the one with this cursor (`Page::next`).
    pub before: Option<String>,
    /// Most rows, 1 to 1000.
    pub limit: usize,
}

impl Paging {
    /// The cursor of lists that are oldest first from which on all rows are no older than a moment.
    #[must_use]
    pub fn after(at: Millis) -> String {
        // No id sorts before the empty one.
        rows::cursor(at.0, "")
    }
}

/// Which answers to list.
#[derive(Debug, Clone, Default)]
pub struct AnswerFilter {
    /// Only those asked by this person.
    pub user: Option<String>,
    /// Only those with a thumb (by anybody) of this kind.
    pub rating: Option<Rating>,
    /// Only refusals, or only others.
    pub refused: Option<bool>,
    /// Only those whose question or answer contains this text (its first 1,000 characters), ignoring case.
    pub text: Option<String>,
}

/// A token as listed: never the secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// Short public name of the token, for revoking it.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The person's groups.
    pub groups: Groups,
    /// The person's role.
    pub role: Role,
    /// When it was made.
    pub created: Millis,
    /// When it stops working, if ever.
    pub expires: Option<Millis>,
    /// When it was revoked, if it was.
    pub revoked: Option<Millis>,
}

/// A preference, thumb or question that came in a file, in the form it is learnt from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImportedRow {
    /// Content hash of the row; importing it again changes nothing.
    pub id: String,
    /// What it says.
    pub signal: ImportedSignal,
    /// Who judged, when known.
    pub user: Option<String>,
    /// Texts of the passages the answers were grounded in, when known.
    pub passages: Option<Vec<String>>,
    /// Who may see it.
    pub access: AccessLabel,
    /// Where it came from.
    pub lineage: Lineage,
    /// When it was imported.
    pub created: Millis,
}

/// What a row of a file can say, besides demonstrations (which become [`Demonstration`]s). A prompt is a
/// conversation, the question last.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImportedSignal {
    /// A pair.
    Preference {
        /// The conversation.
        prompt: Vec<Message>,
        /// The better answer.
        chosen: String,
        /// The worse answer.
        rejected: String,
        /// How much better, in the reward's units; `None` when the file does not say.
        margin: Option<f32>,
    },
    /// A thumb.
    Unpaired {
        /// The conversation.
        prompt: Vec<Message>,
        /// The answer.
        completion: String,
        /// Whether it is good.
        label: bool,
    },
    /// A question to learn on, without an answer.
    Prompt {
        /// The conversation.
        prompt: Vec<Message>,
    },
}

/// A row to import.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportItem {
    /// A prompt and its ideal response.
    Demonstration(Demonstration),
    /// Anything else.
    Row(ImportedRow),
}

/// A thumb with its answer. Two thumbs with equal `prompt_key` judge answers to one prompt: the same conversation
/// (apart from case and spacing) with the same passages.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumb {
    /// Hash of the normalised prompt.
    pub prompt_key: String,
    /// The thumb; its `rating` is set.
    pub feedback: Feedback,
    /// The answer.
    pub answer: AnswerRecord,
}

/// What was said in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// How many signals.
    pub count: u64,
    /// When the first was given.
    pub oldest: Option<Millis>,
    /// When the last was given.
    pub newest: Option<Millis>,
}

/// How many signals there are, for metrics and `attune doctor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Recorded answers.
    pub answers: i64,
    /// Feedback rows.
    pub feedback: i64,
    /// Comparisons.
    pub comparisons: i64,
    /// Votes.
    pub votes: i64,
    /// Demonstrations that are not deleted.
    pub demonstrations: i64,
    /// Imported preferences, thumbs and prompts.
    pub imported: i64,
}

/// The record of what happened. Every method that writes has written durably when it returns `Ok` (it survives
/// `kill -9`); on `Err` nothing was written. Methods may be called from any number of tasks at once. Cancelling a
/// write (dropping its future) leaves either all of it or nothing.
#[async_trait]
pub trait Ledger: Generations + Runs + Send + Sync + std::fmt::Debug {
    /// Writes an answer; writing the same id again is a conflict. Also remembers the person.
    async fn record_answer(&self, answer: &AnswerRecord) -> Result<()>;
    /// One answer.
    async fn answer(&self, id: &AnswerId) -> Result<Option<AnswerRecord>>;
    /// Answers, newest first.
    async fn answers(&self, filter: &AnswerFilter, paging: &Paging) -> Result<Page<AnswerRecord>>;
    /// A person's answers that not everybody may see and that say this, white space at the ends aside; no refusals.
    async fn restricted(&self, user: &str, said: &str) -> Result<Vec<AnswerRecord>>;

    /// Writes both answers and the comparison in one transaction.
    async fn record_comparison(&self, comparison: &Comparison, answers: [&AnswerRecord; 2]) -> Result<()>;
    /// One comparison.
    async fn comparison(&self, id: &ComparisonId) -> Result<Option<Comparison>>;
    /// Comparisons, newest first; with `unvoted_by`, those this person has not voted on (the judging queue).
    async fn comparisons(&self, unvoted_by: Option<&str>, paging: &Paging) -> Result<Page<Comparison>>;
    /// Writes or replaces a person's vote (keeping `created` of the first). Not found when the comparison does not
    /// exist; a conflict when a dataset snapshot has used the vote.
    async fn put_vote(&self, vote: &Vote) -> Result<()>;
    /// Locks votes because a dataset snapshot uses them. Returns how many were not locked before; a vote locked by an
    /// earlier snapshot keeps that one's name.
    async fn lock_votes(&self, snapshot: &str, votes: &[(ComparisonId, String)]) -> Result<u64>;
    /// The votes on a comparison.
    async fn votes(&self, id: &ComparisonId) -> Result<Vec<Vote>>;
    /// Every vote with its comparison and both answers (left, right), oldest first, after the cursor `before`
    /// (exclusive), for datasets and export.
    async fn voted_pairs(
        &self,
        paging: &Paging,
    ) -> Result<Page<(Vote, Comparison, AnswerRecord, AnswerRecord)>>;

    /// Writes or replaces a person's feedback on an answer (keeping `created` of the first). Not found when the answer
    /// was never recorded.
    async fn put_feedback(&self, feedback: &Feedback) -> Result<()>;
    /// Takes a person's feedback back; `false` when there was none.
    async fn delete_feedback(&self, answer: &AnswerId, user: &str) -> Result<bool>;
    /// All feedback on one answer.
    async fn feedback_on(&self, answer: &AnswerId) -> Result<Vec<Feedback>>;
    /// Feedback with its answers, newest first.
    async fn feedback(&self, paging: &Paging) -> Result<Page<(Feedback, AnswerRecord)>>;

    /// Every thumb with its answer, those on one prompt together, oldest answer first, after the cursor `before`
    /// (exclusive), for datasets and export.
    async fn thumbs(&self, paging: &Paging) -> Result<Page<Thumb>>;

    /// Writes a new demonstration, or replaces the one with its id (keeping `created`); a deleted one is restored.
    async fn put_demonstration(&self, demonstration: &Demonstration) -> Result<()>;
    /// One demonstration that is not deleted.
    async fn demonstration(&self, id: &DemonstrationId) -> Result<Option<Demonstration>>;
    /// Demonstrations that are not deleted, newest first.
    async fn demonstrations(
        &self,
        status: Option<DemonstrationStatus>,
        paging: &Paging,
    ) -> Result<Page<Demonstration>>;
    /// Deletes (or, with `deleted: false`, restores) a demonstration; `false` when there is none.
    async fn set_demonstration_deleted(&self, id: &DemonstrationId, deleted: bool) -> Result<bool>;

    /// Writes rows of a file in one transaction: all or none; an error in the stream means none. Rows with an id that
    /// is there already (deleted ones too) are left as they are. Returns how many were new. Other writers wait.
    async fn import(&self, items: BoxStream<'_, std::io::Result<Vec<ImportItem>>>) -> Result<u64>;
    /// Imported rows, newest first.
    async fn imported(&self, paging: &Paging) -> Result<Page<ImportedRow>>;

    /// Remembers a token by the SHA-256 of its secret.
    async fn create_token(&self, token: &TokenRow, secret_sha256: &str) -> Result<()>;
    /// The token with this secret hash, revoked and expired ones included.
    async fn token(&self, secret_sha256: &str) -> Result<Option<TokenRow>>;
    /// All tokens, newest first.
    async fn tokens(&self) -> Result<Vec<TokenRow>>;
    /// Revokes a token; `false` when there is none.
    async fn revoke_token(&self, id: &str, at: Millis) -> Result<bool>;

    /// The secret with this name, made by `generate` and stored at the first call: the same for every server on this
    /// database.
    async fn secret(&self, name: &str, generate: fn() -> String) -> Result<String>;

    /// Deletes everything a person said or asked: answers, comparisons, feedback and votes (also those of others on
    /// them), drafts, imported judgements, tokens. A demonstration a curator approved stays, without its author's
    /// name. Returns how many rows were deleted.
    async fn forget_user(&self, user: &str) -> Result<u64>;

    /// What was said after a moment: choices, thumbs, approved demonstrations, imported rows.
    async fn signals_since(&self, at: Millis) -> Result<Signals>;
    /// How many there are of each.
    async fn counts(&self) -> Result<Counts>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;
    /// Finishes writing and closes the database.
    async fn close(&self);
}
