//! How does a record become a row and come back? Shared by both databases.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{AnswerFilter, ImportedRow, LedgerError, Page, Paging, Result, Thumb, TokenRow};
use crate::domain::{
    AnswerId, AnswerRecord, Comparison, ComparisonId, Demonstration, Feedback, Millis, Rating, Vote,
};

/// Most rows of a page, as [`Paging::limit`] says.
const MAX_PAGE: usize = 1000;
/// Most characters of a text filter: far below SQLite's limit of 50,000 bytes for a pattern.
const MAX_FILTER_CHARS: usize = 1000;

/// `(id, created, record)`; `created` is the first writing's and wins over the record's.
pub(super) type Recorded = (String, i64, String);
/// `(id, created, author, record)`; the record holds no author, so that it can be forgotten.
pub(super) type DemonstrationRow = (String, i64, String, String);
/// `(id, created, feedback, answer)`.
pub(super) type FeedbackRow = (String, i64, String, String);
/// `(prompt key, id, created, feedback, answer)`.
pub(super) type ThumbRow = (String, String, i64, String, String);
/// `(id, created, vote, comparison, left answer, right answer)`.
pub(super) type VotedPairRow = (String, i64, String, String, String, String);
/// `(id, user, groups, role, created, expires, revoked)`.
pub(super) type StoredToken = (String, String, String, String, i64, Option<i64>, Option<i64>);

/// Maps a database's error to the ledger's.
pub(super) fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> LedgerError {
    move |source| {
        let code =
            source.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        match code.as_deref() {
            // SQLITE_FULL; SQLITE_IOERR_SHMSIZE, when the write-ahead log's index can not grow; PostgreSQL disk_full.
            Some("13" | "4874" | "53100") => LedgerError::Full(source),
            // PostgreSQL keeps no NUL in text, so nothing is called this.
            Some("22021") => LedgerError::NotFound("what is named with a NUL character".to_owned()),
            _ => LedgerError::Database { operation, source },
        }
    }
}

/// The key of a row there is one of per (thing, person).
pub(super) fn key(thing: &str, user: &str) -> String {
    format!("{thing}/{user}")
}

/// JSON of a record.
pub(super) fn encode<T: Serialize>(column: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| LedgerError::Corrupt { column, source })
}

/// A record out of its JSON.
pub(super) fn decode<T: DeserializeOwned>(column: &'static str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|source| LedgerError::Corrupt { column, source })
}

/// A name of an enum as serde writes it, without quotes.
pub(super) fn name<T: Serialize>(value: &T) -> Result<String> {
    Ok(encode("name", value)?.trim_matches('"').to_owned())
}

/// Hash of what the model was asked: the conversation in lower case with single spaces, and the passages.
pub(super) fn prompt_key(answer: &AnswerRecord) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for message in &answer.messages {
        part(&format!("{:?}", message.role));
        part(&message.content.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
    }
    for passage in &answer.passages {
        part(&passage.passage_id);
    }
    hex::encode(&hash.finalize()[..16])
}

/// Hash of what a restricted answer says; none of a refusal, which says the same to everybody.
pub(super) fn quotable(answer: &AnswerRecord) -> Option<String> {
    (!answer.refused && !answer.access.is_public()).then(|| said(&answer.answer))
}

/// Hash of what an answer says, white space at its ends aside.
pub(super) fn said(answer: &str) -> String {
    hex::encode(&Sha256::digest(answer.trim())[..16])
}

/// What the text filter looks through: the question and the answer in lower case. PostgreSQL keeps no NUL in text.
pub(super) fn search_text(answer: &AnswerRecord) -> String {
    let question = answer.messages.last().map_or("", |message| message.content.as_str());
    format!("{question}\n{}", answer.answer).to_lowercase().replace('\0', "")
}

/// The LIKE pattern (escape character `!`) of a filter's text.
pub(super) fn pattern(filter: &AnswerFilter) -> Option<String> {
    let text = filter.text.as_deref()?;
    let text: String = text.chars().take(MAX_FILTER_CHARS).collect();
    let escaped =
        text.to_lowercase().replace('\0', "").replace('!', "!!").replace('%', "!%").replace('_', "!_");
    Some(format!("%{escaped}%"))
}

/// A rating as its column has it.
pub(super) fn rating(rating: Option<Rating>) -> Option<&'static str> {
    rating.map(|rating| match rating {
        Rating::Up => "up",
        Rating::Down => "down",
    })
}

/// Rows to fetch: one more than wanted tells whether there is another page.
pub(super) fn fetch_limit(paging: &Paging) -> i64 {
    // At most 1001.
    i64::try_from(wanted(paging) + 1).unwrap_or(i64::MAX)
}

/// Where a list newest first goes on.
pub(super) fn before(paging: &Paging) -> Result<(i64, String)> {
    time_cursor(paging, i64::MAX)
}

/// Where a list oldest first goes on.
pub(super) fn after(paging: &Paging) -> Result<(i64, String)> {
    time_cursor(paging, i64::MIN)
}

/// Where a list by prompt goes on.
pub(super) fn after_prompt(paging: &Paging) -> Result<(String, String)> {
    let Some(cursor) = &paging.before else {
        return Ok(Default::default());
    };
    let (key, id) = cursor.split_once('.').ok_or_else(|| LedgerError::Cursor(cursor.clone()))?;
    Ok((key.to_owned(), id.to_owned()))
}

/// A page of the rows fetched with [`fetch_limit`].
pub(super) fn page<R, T>(
    mut rows: Vec<R>,
    paging: &Paging,
    cursor: impl Fn(&R) -> String,
    decode: impl Fn(R) -> Result<T>,
) -> Result<Page<T>> {
    let wanted = wanted(paging);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    let next = rows.last().filter(|_| more).map(cursor);
    let data = rows.into_iter().map(decode).collect::<Result<_>>()?;
    Ok(Page { data, next })
}

/// The cursor of a row of a list by time.
pub(super) fn cursor(created: i64, id: &str) -> String {
    format!("{created}.{id}")
}

pub(super) fn answer(record: &str) -> Result<AnswerRecord> {
    decode("answers.record", record)
}

pub(super) fn comparison(record: &str) -> Result<Comparison> {
    decode("comparisons.record", record)
}

pub(super) fn vote(created: i64, record: &str) -> Result<Vote> {
    let vote: Vote = decode("votes.record", record)?;
    Ok(Vote { created: Millis(created), ..vote })
}

pub(super) fn feedback(created: i64, record: &str) -> Result<Feedback> {
    let feedback: Feedback = decode("feedback.record", record)?;
    Ok(Feedback { created: Millis(created), ..feedback })
}

pub(super) fn imported((_, _, record): Recorded) -> Result<ImportedRow> {
    decode("imported.record", &record)
}

pub(super) fn demonstration((_, created, author, record): DemonstrationRow) -> Result<Demonstration> {
    let demonstration: Demonstration = decode("demonstrations.record", &record)?;
    Ok(Demonstration { created: Millis(created), author, ..demonstration })
}

/// The JSON of a demonstration, without its author.
pub(super) fn demonstration_record(demonstration: &Demonstration) -> Result<String> {
    let record = Demonstration { author: String::new(), ..demonstration.clone() };
    encode("demonstrations.record", &record)
}

pub(super) fn voted_pair(row: VotedPairRow) -> Result<(Vote, Comparison, AnswerRecord, AnswerRecord)> {
    let (_, created, vote_record, comparison_record, left, right) = row;
    Ok((vote(created, &vote_record)?, comparison(&comparison_record)?, answer(&left)?, answer(&right)?))
}

pub(super) fn thumb((prompt_key, _, created, record, answer_record): ThumbRow) -> Result<Thumb> {
    Ok(Thumb { prompt_key, feedback: feedback(created, &record)?, answer: answer(&answer_record)? })
}

pub(super) fn token(row: StoredToken) -> Result<TokenRow> {
    let (id, user, groups, role, created, expires, revoked) = row;
    Ok(TokenRow {
        id,
        user,
        groups: decode("tokens.group_names", &groups)?,
        role: decode("tokens.role", &format!("\"{role}\""))?,
        created: Millis(created),
        expires: expires.map(Millis),
        revoked: revoked.map(Millis),
    })
}

pub(super) fn no_answer(id: &AnswerId) -> LedgerError {
    LedgerError::NotFound(format!("answer {id}"))
}

pub(super) fn no_comparison(id: &ComparisonId) -> LedgerError {
    LedgerError::NotFound(format!("comparison {id}"))
}

fn wanted(paging: &Paging) -> usize {
    paging.limit.clamp(1, MAX_PAGE)
}

fn time_cursor(paging: &Paging, start: i64) -> Result<(i64, String)> {
    let Some(cursor) = &paging.before else {
        return Ok((start, String::new()));
    };
    let parse = || {
        let (created, id) = cursor.split_once('.')?;
        Some((created.parse().ok()?, id.to_owned()))
    };
    parse().ok_or_else(|| LedgerError::Cursor(cursor.clone()))
}
