//! What exactly is a model trained and examined on? Demonstrations with their passages, on fixed sides, under one hash.
//!
//! A snapshot never changes: its name is the SHA-256 of its rows. [`take`] makes one from what people said, [`load`]
//! reads it back (in another process, say), [`from_file`] makes one of a file to examine a model with.

mod asked;
pub(super) mod files;
mod grounding;
pub(super) mod splits;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use asked::asked;
pub use files::{from_file, load};
pub(crate) use grounding::untitled;
pub use grounding::{GroundedBy, Grounding};
pub use splits::{Shares, Split, SplitBy, cluster};

use super::{rows::SftRow, rows::Source, signals};
use crate::{
    domain::{AccessLabel, GenerationId, Lineage, Message, Millis, PassageRef},
    error::{Error, ErrorCode, Result},
    ledger::Ledger,
};
use grounding::Wanted;
use splits::Asked;

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file could not be read or written.
    #[error("can not {operation} {}", path.display())]
    Io {
        /// "read", "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A stored snapshot is not what its name says.
    #[error("dataset {} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No snapshot has this name.
    #[error("dataset {0}")]
    Unknown(String),
}

impl From<SnapshotError> for Error {
    fn from(error: SnapshotError) -> Self {
        match &error {
            SnapshotError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Self::new(ErrorCode::StorageFull, "the server's disk is full; no dataset was written")
                    .caused_by(error)
            }
            SnapshotError::Unknown(_) => Self::not_found(error),
            _ => Self::internal(error),
        }
    }
}

/// One demonstration, as it is learnt from or examined on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The demonstration, or the row of the file.
    pub id: String,
    /// Which side it is on.
    pub split: Split,
    /// The conversation, the question last.
    pub messages: Vec<Message>,
    /// The ideal response.
    pub response: String,
    /// The passages to answer from, best first.
    pub passages: Vec<PassageRef>,
    /// Where those came from.
    pub grounded_by: GroundedBy,
    /// Who may see it: the row's label, and that of passages that were retrieved.
    #[serde(default, skip_serializing_if = "AccessLabel::is_public")]
    pub access: AccessLabel,
    /// Documents that hold the answer, when the file says so; any of them is right to cite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<String>,
    /// Who wrote it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What made it.
    pub source: Source,
    /// The generation whose answer it corrects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// When it was made, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Millis>,
    /// File, line and importer of an imported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// Rows that are not in a snapshot, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Not everybody may see them, or the answers of a model that learnt from them.
    pub restricted: usize,
    /// The same question and response as another row.
    pub duplicates: usize,
    /// Nearly the question of a row that the model is examined on.
    pub like_examined: usize,
    /// Questions of a file that the knowledge base does not answer.
    pub unanswerable: usize,
}

/// What is in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows.
    pub rows: usize,
    /// Rows on each side.
    pub by_split: BTreeMap<Split, usize>,
    /// Rows by what made them.
    pub by_source: BTreeMap<Source, usize>,
    /// Rows by where their passages came from.
    pub by_grounding: BTreeMap<GroundedBy, usize>,
    /// What one must be a member of to see all of it.
    pub access: AccessLabel,
    /// Rows that are not in it. Zero after loading a snapshot whose summary is gone.
    pub left_out: LeftOut,
}

/// What to take.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether rows that not everybody may see are taken too.
    pub include_restricted: bool,
    /// How much is kept for validation and examination.
    pub shares: Shares,
    /// What stays on one side.
    pub split_by: SplitBy,
    /// People whose questions, votes and thumbs are left out.
    pub except_users: Vec<String>,
}

impl Options {
    /// Whether what this person asked or said is left out.
    pub(super) fn leaves_out(&self, user: Option<&str>) -> bool {
        user.is_some_and(|user| self.except_users.iter().any(|except| except == user))
    }
}

/// Rows under one hash. All rows are in memory; nothing else is.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    hash: String,
    rows: Vec<Example>,
    summary: Summary,
}

impl Snapshot {
    /// The rows' SHA-256 in hex: the snapshot's name.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[Example] {
        &self.rows
    }

    /// The rows on one side.
    pub fn side(&self, split: Split) -> impl Iterator<Item = &Example> {
        self.rows.iter().filter(move |row| row.split == split)
    }

    /// What is in it.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn of(rows: Vec<Example>, left_out: LeftOut) -> Result<Self> {
        let mut summary = Summary { rows: rows.len(), left_out, ..Summary::default() };
        for row in &rows {
            *summary.by_split.entry(row.split).or_default() += 1;
            *summary.by_source.entry(row.source).or_default() += 1;
            *summary.by_grounding.entry(row.grounded_by).or_default() += 1;
        }
        summary.access = AccessLabel::of(rows.iter().flat_map(|row| row.access.clauses()));
        let mut hash = Sha256::new();
        for row in &rows {
            hash.update(line(row)?);
        }
        Ok(Self { hash: hex::encode(hash.finalize()), rows, summary })
    }
}

/// A row as a line of the file.
pub(super) fn line(row: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(row).map_err(Error::internal)?;
    line.push(b'\n');
    Ok(line)
}

/// Takes every approved demonstration: written, imported, or a correction.
///
/// Passages are those stored with the row; of a correction those of the corrected answer; else they are retrieved as
/// the chat does it, for somebody without groups (for a restricted row: with the groups of its label). A question the
/// chat would refuse has none.
///
/// # Errors
/// When the ledger, the index or the sentence model fails.
pub async fn take(ledger: &dyn Ledger, grounding: &Grounding, options: &Options) -> Result<Snapshot> {
    let mut left_out = LeftOut::default();
    let rows = distinct(signals::demonstrations(ledger).try_collect().await?, &mut left_out);
    let asked: Vec<Asked> = rows.iter().map(asked_in).collect();
    let sides = splits::sides(&asked, options.shares, options.split_by);
    let keep: Vec<bool> =
        rows.iter().map(|row| options.include_restricted || row.context.access.is_public()).collect();
    left_out.restricted = keep.iter().filter(|keep| !**keep).count();
    let examined_alike = splits::like_examined(&asked, &sides, &keep);
    left_out.like_examined = examined_alike.len();

    let mut wanted = Vec::new();
    for (at, (row, split)) in rows.into_iter().zip(sides).enumerate() {
        if keep[at] && !examined_alike.contains(&at) {
            let answered = corrected(ledger, &row).await?;
            wanted.push(Wanted {
                stored: row.context.passages.clone(),
                answered,
                example: example(row, split),
            });
        }
    }
    let grounding = grounding.clone();
    let grounded = tokio::task::spawn_blocking(move || grounding.ground(wanted));
    let mut rows = grounded.await.map_err(Error::internal)??;
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Snapshot::of(rows, left_out)
}

/// The rows in the order they came in, those for everybody first, so that no restricted row changes where another one
/// goes; of rows that say the same the first.
fn distinct(mut rows: Vec<SftRow>, left_out: &mut LeftOut) -> Vec<SftRow> {
    let key = |row: &SftRow| (!row.context.access.is_public(), row.origin.created, row.origin.ids.clone());
    rows.sort_by_cached_key(key);
    let before = rows.len();
    let mut seen = HashSet::new();
    rows.retain(|row| {
        let mut said = Sha256::new();
        for message in &row.body.messages {
            let words = message.content.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            said.update([message.role as u8]);
            said.update(words);
            said.update([0]);
        }
        seen.insert(said.finalize())
    });
    left_out.duplicates = before - rows.len();
    rows
}

fn asked_in(row: &SftRow) -> Asked {
    let (_, conversation) = split_response(&row.body.messages);
    // Who imported a file did not write each of its rows.
    let importer = row.origin.lineage.as_ref().map(|lineage| lineage.importer.as_str());
    let user = row.context.user.as_deref().filter(|user| Some(*user) != importer);
    Asked::new(conversation, user)
}

/// The response and what was said before it.
fn split_response(messages: &[Message]) -> (&str, &[Message]) {
    messages.split_last().map_or(("", &[]), |(response, asked)| (&response.content, asked))
}

fn example(row: SftRow, split: Split) -> Example {
    let (response, messages) = split_response(&row.body.messages);
    Example {
        id: row.origin.ids.first().cloned().unwrap_or_default(),
        split,
        messages: messages.to_vec(),
        response: response.to_owned(),
        passages: Vec::new(),
        grounded_by: GroundedBy::Nothing,
        access: row.context.access,
        pages: Vec::new(),
        user: row.context.user,
        source: row.origin.source,
        generation: row.origin.generation,
        created: Some(row.origin.created),
        lineage: row.origin.lineage,
    }
}

/// The passages of the answer a row corrects, as they stood in its prompt; `None` when it corrects none, or one that
/// was a refusal or is forgotten.
async fn corrected(ledger: &dyn Ledger, row: &SftRow) -> Result<Option<Vec<PassageRef>>> {
    let (Source::Correction, Some(stored), Some(id)) =
        (row.origin.source, &row.context.passages, row.origin.ids.first())
    else {
        return Ok(None);
    };
    let id = crate::domain::DemonstrationId::from_wire(id.as_str());
    let Some(answer) = ledger.demonstration(&id).await?.and_then(|demonstration| demonstration.corrects)
    else {
        return Ok(None);
    };
    let passages = ledger.answer(&answer).await?.map(|answer| answer.passages);
    // Whoever wrote it may have named others.
    Ok(passages.filter(|passages| passages.iter().map(|passage| &passage.text).eq(stored)))
}
