//! What does a row look like, in memory and in a file? Columns as TRL names them, and where the row came from.

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::{
    domain::{AccessLabel, GenerationId, Lineage, Message, Millis},
    ledger::{ImportedRow, ImportedSignal},
};

/// Which kind of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `messages`.
    Sft,
    /// `prompt`, `chosen`, `rejected`.
    Preference,
    /// `prompt`, `completion`, `label`.
    Unpaired,
    /// `prompt`.
    Prompts,
}

impl std::str::FromStr for Format {
    type Err = crate::error::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sft" => Ok(Self::Sft),
            "preference" => Ok(Self::Preference),
            "unpaired" => Ok(Self::Unpaired),
            "prompts" => Ok(Self::Prompts),
            _ => Err(crate::error::Error::invalid(
                "format",
                format!("format is {text:?}; it must be sft, preference, unpaired or prompts"),
            )),
        }
    }
}

/// A row: its content (`T` and [`Context`]) and its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row<T> {
    /// What it says.
    #[serde(flatten)]
    pub body: T,
    /// By whom, on what, for whom.
    #[serde(flatten)]
    pub context: Context,
    /// Where it came from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A demonstration.
pub type SftRow = Row<Sft>;
/// A pair.
pub type PreferenceRow = Row<Preference>;
/// A thumb.
pub type UnpairedRow = Row<Unpaired>;
/// A question.
pub type PromptRow = Row<Prompt>;

/// The conversation, its last message the ideal response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sft {
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preference {
    /// The conversation, the question last.
    pub prompt: Vec<Message>,
    /// The better answer: one message.
    pub chosen: Vec<Message>,
    /// The worse answer: one message.
    pub rejected: Vec<Message>,
    /// How much better, in the reward's units; absent when nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
}

/// One judged answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unpaired {
    /// The conversation, the question last.
    pub prompt: Vec<Message>,
    /// The answer: one message.
    pub completion: Vec<Message>,
    /// Whether it is good.
    pub label: bool,
}

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    /// The conversation, the question last.
    pub prompt: Vec<Message>,
}

/// The columns every format may have.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Context {
    /// Who judged or wrote it, when one person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Texts of the passages that were in the prompt, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passages: Option<Vec<String>>,
    /// Who may see it. In a file the column `groups`: names of which one is enough, or a list of such lists of which
    /// one each is needed.
    #[serde(
        rename = "groups",
        serialize_with = "groups_column",
        skip_serializing_if = "AccessLabel::is_public"
    )]
    pub access: AccessLabel,
}

/// What made a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A file.
    Import,
    /// A person who wrote a demonstration.
    Written,
    /// A person who corrected an answer.
    Correction,
    /// A vote in a comparison.
    Vote,
    /// One thumb.
    Thumb,
    /// Two thumbs on one prompt.
    Thumbs,
    /// A question somebody asked.
    Question,
}

/// Where a row came from: no row is without.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// The demonstration, comparison, answers or imported row behind it.
    pub ids: Vec<String>,
    /// What made it.
    pub source: Source,
    /// The generation of its answers, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// When the signal was first given.
    pub created: Millis,
    /// File, line and importer of an imported row.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// Hash of what a row says, without its origin: equal rows have it equal.
pub(super) fn content_digest<T: Serialize>(body: &T, context: &Context) -> [u8; 16] {
    let mut content = Sha256::new();
    for part in [serde_json::to_vec(body), serde_json::to_vec(context)] {
        // Rows hold nothing that JSON lacks: their keys are strings and their numbers finite.
        content.update(part.unwrap_or_default());
        content.update([0]);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&content.finalize()[..16]);
    half
}

/// The row an imported row is exported and learnt from as.
#[derive(Debug)]
pub(super) enum Imported {
    Preference(PreferenceRow),
    Unpaired(UnpairedRow),
    Prompt(PromptRow),
}

impl From<ImportedRow> for Imported {
    fn from(row: ImportedRow) -> Self {
        let context = Context { user: row.user, passages: row.passages, access: row.access };
        let origin = Origin {
            ids: vec![row.id],
            source: Source::Import,
            generation: None,
            created: row.created,
            lineage: Some(row.lineage),
        };
        match row.signal {
            ImportedSignal::Preference { prompt, chosen, rejected, margin } => Self::Preference(Row {
                body: Preference { prompt, chosen: said(chosen), rejected: said(rejected), margin },
                context,
                origin,
            }),
            ImportedSignal::Unpaired { prompt, completion, label } => Self::Unpaired(Row {
                body: Unpaired { prompt, completion: said(completion), label },
                context,
                origin,
            }),
            ImportedSignal::Prompt { prompt } => {
                Self::Prompt(Row { body: Prompt { prompt }, context, origin })
            }
        }
    }
}

/// An answer as a completion: one message.
pub(super) fn said(answer: impl Into<String>) -> Vec<Message> {
    vec![Message::assistant(answer)]
}

fn groups_column<S: Serializer>(access: &AccessLabel, serializer: S) -> Result<S::Ok, S::Error> {
    match access.clauses() {
        [any_of] => any_of.serialize(serializer),
        all_of => all_of.serialize(serializer),
    }
}
