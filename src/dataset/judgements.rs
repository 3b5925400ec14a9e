//! What exactly does a reward model learn from? Choices and thumbs with the passages they were made on, under one hash.
//!
//! As a [`super::snapshot`], it never changes: its name is the SHA-256 of its rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::{Context, Origin, PreferenceRow, Source, UnpairedRow};
use super::signals;
use super::snapshot::files::{read_rows, write_rows};
use super::snapshot::splits::{self, Asked};
use super::snapshot::{Options, Split, SplitBy, line};
use crate::domain::{AccessLabel, GenerationId, Lineage, Message, Millis};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::reward::{Pair, Preferences, Thumb};

/// What a person said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Signal {
    /// A choice between two answers.
    Pair(Pair),
    /// A thumb on one answer.
    Thumb(Thumb),
}

/// A signal with where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What was said.
    pub signal: Signal,
    /// The comparison, demonstration, answers or imported row behind it.
    pub ids: Vec<String>,
    /// What made it.
    pub source: Source,
    /// Who may see it.
    #[serde(default, skip_serializing_if = "AccessLabel::is_public")]
    pub access: AccessLabel,
    /// The generation of its answers, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// File, line and importer of an imported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// What is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Pairs.
    pub pairs: usize,
    /// Single thumbs.
    pub thumbs: usize,
    /// Signals never learnt from.
    pub held_out: usize,
    /// Signals by what made them.
    pub by_source: BTreeMap<Source, usize>,
    /// What one must be a member of to see all of it.
    pub access: AccessLabel,
    /// Signals left out because not everybody may see them. Zero after loading.
    pub restricted: usize,
    /// When the newest was given.
    pub newest: Option<Millis>,
}

/// Signals under one hash, all in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgements {
    hash: String,
    rows: Vec<Judgement>,
    summary: Summary,
}

impl Judgements {
    /// The rows' SHA-256 in hex: the name.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What is in it.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// All signals, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[Judgement] {
        &self.rows
    }

    /// The signals without where they came from, as a reward model learns from them.
    #[must_use]
    pub fn preferences(&self) -> Preferences {
        let mut preferences = Preferences::default();
        for row in &self.rows {
            match row.signal.clone() {
                Signal::Pair(pair) => preferences.pairs.push(pair),
                Signal::Thumb(thumb) => preferences.thumbs.push(thumb),
            }
        }
        preferences
    }

    /// Writes the rows to `datasets/<hash>.jsonl` in the data directory, and the summary beside them; both are durable
    /// when it returns. Blocks.
    ///
    /// # Errors
    /// When the folder can not be written, or the disk is full.
    pub fn write(&self, data_dir: &Path) -> Result<PathBuf> {
        write_rows((data_dir, &self.hash), &self.rows, &self.summary)
    }

    fn of(rows: Vec<Judgement>, restricted: usize) -> Result<Self> {
        let mut summary = Summary { restricted, ..Summary::default() };
        let mut hash = Sha256::new();
        for row in &rows {
            let (count, held_out) = match &row.signal {
                Signal::Pair(pair) => (&mut summary.pairs, pair.held_out),
                Signal::Thumb(thumb) => (&mut summary.thumbs, thumb.held_out),
            };
            *count += 1;
            summary.held_out += usize::from(held_out);
            *summary.by_source.entry(row.source).or_default() += 1;
            summary.newest = summary.newest.max(Some(Millis(created(row))));
            hash.update(line(row)?);
        }
        summary.access = AccessLabel::of(rows.iter().flat_map(|row| row.access.clauses()));
        Ok(Self { hash: hex::encode(hash.finalize()), rows, summary })
    }
}

/// Takes every choice and thumb but those of people who are left out. Of rows that not everybody may see none are taken,
/// unless asked for. The side of a row
/// follows from its question as in [`super::snapshot::take`]; what validates there is learnt from here, for a reward
/// model is chosen by cross-validation.
///
/// # Errors
/// When the ledger fails.
pub async fn take(ledger: &dyn Ledger, options: &Options) -> Result<Judgements> {
    let except = &options.except_users;
    let pairs: Vec<PreferenceRow> = signals::preferences_but(ledger, except).try_collect().await?;
    let thumbs: Vec<UnpairedRow> = signals::unpaired_but(ledger, except).try_collect().await?;
    let all = pairs.into_iter().map(of_pair).chain(thumbs.into_iter().map(of_thumb));
    let mut rows: Vec<Judgement> = all.filter(|row| !options.leaves_out(user(row))).collect();
    // Oldest first, those for everybody before the others, so that no restricted row changes where another one goes.
    rows.sort_by_cached_key(|row| (!row.access.is_public(), created(row), row.ids.clone()));
    let asked: Vec<Asked> = rows.iter().map(|row| Asked::new(conversation(row), None)).collect();
    let sides = splits::sides(&asked, options.shares, SplitBy::Question);
    let mut restricted = 0;
    let mut taken = Vec::new();
    for ((mut row, asked), side) in rows.into_iter().zip(&asked).zip(sides) {
        if !options.include_restricted && !row.access.is_public() {
            restricted += 1;
            continue;
        }
        let (cluster, held_out) = match &mut row.signal {
            Signal::Pair(pair) => (&mut pair.cluster, &mut pair.held_out),
            Signal::Thumb(thumb) => (&mut thumb.cluster, &mut thumb.held_out),
        };
        (*cluster, *held_out) = (asked.key(SplitBy::Question), side == Split::HeldOut);
        taken.push(row);
    }
    Judgements::of(taken, restricted)
}

/// Reads judgements by their hash. Blocks.
///
/// # Errors
/// When there are none of this name, or they are not those it is named after.
pub fn load(data_dir: &Path, hash: &str) -> Result<Judgements> {
    let (path, rows) = read_rows(data_dir, hash)?;
    let found = Judgements::of(rows, 0)?;
    if found.hash != hash {
        return Err(Error::internal(super::snapshot::SnapshotError::Damaged {
            path,
            problem: "its rows are written otherwise than this version writes them".into(),
        }));
    }
    Ok(found)
}

fn of_pair(row: PreferenceRow) -> Judgement {
    let (body, context, origin) = (row.body, row.context, row.origin);
    judgement(context, origin, |common| {
        Signal::Pair(Pair {
            id: common.id,
            cluster: String::new(),
            held_out: false,
            conversation: body.prompt,
            passages: common.passages,
            chosen: text(&body.chosen),
            rejected: text(&body.rejected),
            preference: 1.0,
            // A file may say it in other units; nobody who said nothing meant more than the weakest vote.
            margin: body.margin.unwrap_or(0.0).clamp(0.0, 1.0),
            user: common.user,
            source: common.source,
            created: common.created,
        })
    })
}

fn of_thumb(row: UnpairedRow) -> Judgement {
    let (body, context, origin) = (row.body, row.context, row.origin);
    judgement(context, origin, |common| {
        Signal::Thumb(Thumb {
            id: common.id,
            cluster: String::new(),
            held_out: false,
            conversation: body.prompt,
            passages: common.passages,
            answer: text(&body.completion),
            good: body.label,
            user: common.user,
            source: common.source,
            created: common.created,
        })
    })
}

/// What pairs and thumbs have in common.
struct Common {
    id: String,
    passages: Vec<String>,
    user: Option<String>,
    source: String,
    created: i64,
}

fn judgement(context: Context, origin: Origin, signal: impl FnOnce(Common) -> Signal) -> Judgement {
    let source = serde_json::to_value(origin.source).ok();
    let common = Common {
        id: origin.ids.join("+"),
        passages: context.passages.unwrap_or_default(),
        user: context.user,
        source: source.and_then(|source| Some(source.as_str()?.to_owned())).unwrap_or_default(),
        created: origin.created.0,
    };
    Judgement {
        signal: signal(common),
        ids: origin.ids,
        source: origin.source,
        access: context.access,
        generation: origin.generation,
        lineage: origin.lineage,
    }
}

fn text(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

fn conversation(row: &Judgement) -> &[Message] {
    match &row.signal {
        Signal::Pair(pair) => &pair.conversation,
        Signal::Thumb(thumb) => &thumb.conversation,
    }
}

fn user(row: &Judgement) -> Option<&str> {
    match &row.signal {
        Signal::Pair(pair) => pair.user.as_deref(),
        Signal::Thumb(thumb) => thumb.user.as_deref(),
    }
}

fn created(row: &Judgement) -> i64 {
    match &row.signal {
        Signal::Pair(pair) => pair.created,
        Signal::Thumb(thumb) => thumb.created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AnswerRecord, Choice, Comparison, Rating, Vote};
    use crate::ledger::tests::{Harness, fixtures};

    async fn voted(h: &Harness, n: usize, choice: Choice) {
        let (comparison, left, right) = fixtures::comparison("ada", n as i64, 2 * n);
        let messages = vec![Message::user(format!("What is rule {n}?"))];
        let comparison = Comparison { messages, ..comparison };
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        let vote = Vote { strength: Some(3), ..fixtures::vote(&comparison, "ada", choice, n as i64) };
        h.ledger.put_vote(&vote).await.unwrap();
    }

    #[tokio::test]
    async fn votes_and_thumbs_come_with_side_person_and_origin_and_are_read_back_as_they_were() {
        let h = Harness::sqlite().await;
        for n in 0..30 {
            voted(&h, n, Choice::Right).await;
        }
        let answer = AnswerRecord {
            messages: vec![Message::user("Where is parking?")],
            ..fixtures::answer("ada", 99, 999)
        };
        h.ledger.record_answer(&answer).await.unwrap();
        h.ledger.put_feedback(&fixtures::thumb(&answer.id, "bob", Rating::Down, 100)).await.unwrap();

        let taken = take(&*h.ledger, &Options::default()).await.unwrap();
        let Summary { pairs, thumbs, held_out, newest, .. } = taken.summary().clone();
        assert_eq!((pairs, thumbs, newest), (30, 1, Some(Millis(100))));
        // About a tenth, never none.
        assert!((1..8).contains(&held_out), "{held_out}");
        let said = taken.preferences();
        let pair = &said.pairs[0];
        assert_eq!((pair.user.as_deref(), pair.margin, pair.source.as_str()), (Some("ada"), 1.0, "vote"));
        assert_eq!((said.thumbs[0].good, said.thumbs[0].user.as_deref()), (false, Some("bob")));
        assert!(taken.rows().iter().all(|row| !row.ids.is_empty()));

        taken.write(h.folder()).unwrap();
        assert_eq!(load(h.folder(), taken.hash()).unwrap().rows(), taken.rows());
        assert!(load(h.folder(), &"0".repeat(64)).is_err());
        let again = take(&*h.ledger, &Options::default()).await.unwrap();
        assert_eq!(again.hash(), taken.hash());
        let except = Options { except_users: vec!["bob".into()], ..Options::default() };
        let without = take(&*h.ledger, &except).await.unwrap();
        assert_eq!((without.preferences().pairs.len(), without.preferences().thumbs.len()), (30, 0));
    }

    /// Neither as half of a pair, nor so that the other half is lost.
    #[tokio::test]
    async fn a_thumb_of_somebody_who_is_left_out_pairs_with_nobodys() {
        let h = Harness::sqlite().await;
        for (n, user, rating) in [(1, "ada", Rating::Up), (2, "bob", Rating::Down)] {
            let messages = vec![Message::user("Where is parking?")];
            let answer = AnswerRecord { messages, ..fixtures::answer(user, 1, n) };
            h.ledger.record_answer(&answer).await.unwrap();
            h.ledger.put_feedback(&fixtures::thumb(&answer.id, user, rating, 2)).await.unwrap();
        }
        let counts = async |except: &[&str]| {
            let except_users = except.iter().map(|user| (*user).to_owned()).collect();
            let options = Options { except_users, ..Options::default() };
            let said = take(&*h.ledger, &options).await.unwrap().preferences();
            (said.pairs.len(), said.thumbs.iter().map(|thumb| thumb.good).collect::<Vec<_>>())
        };
        assert_eq!(counts(&[]).await, (1, vec![]));
        assert_eq!(counts(&["bob"]).await, (0, vec![true]));
        assert_eq!(counts(&["ada"]).await, (0, vec![false]));
    }

    #[tokio::test]
    async fn what_not_everybody_may_see_is_left_out_and_counted() {
        let h = Harness::sqlite().await;
        voted(&h, 1, Choice::Left).await;
        let hidden = AnswerRecord {
            access: AccessLabel::of([&fixtures::groups(&["hr"])]),
            ..fixtures::answer("ada", 5, 5)
        };
        h.ledger.record_answer(&hidden).await.unwrap();
        h.ledger.put_feedback(&fixtures::thumb(&hidden.id, "ada", Rating::Up, 6)).await.unwrap();
        let taken = take(&*h.ledger, &Options::default()).await.unwrap();
        assert_eq!((taken.rows().len(), taken.summary().restricted), (1, 1));
        let all = Options { include_restricted: true, ..Options::default() };
        let taken = take(&*h.ledger, &all).await.unwrap();
        assert_eq!((taken.rows().len(), taken.summary().access.is_public()), (2, false));
    }
}
