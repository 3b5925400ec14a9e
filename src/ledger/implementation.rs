//! How does each ledger method talk to its database? Written once, stamped for SQLite and for PostgreSQL.

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};

use super::{
    AnswerFilter, Counts, ImportItem, ImportedRow, Ledger, LedgerError, Page, Paging, Result, Signals, Thumb,
    TokenRow,
    postgres::PostgresLedger,
    rows::{self, DemonstrationRow, FeedbackRow, Recorded, StoredToken, ThumbRow, VotedPairRow, failed, key},
    sqlite::SqliteLedger,
    statements as sql,
};
use crate::domain::{
    AnswerId, AnswerRecord, Comparison, ComparisonId, Demonstration, DemonstrationId, DemonstrationStatus,
    Feedback, Millis, Vote,
};

// The two `sqlx` databases share no object-safe trait, and generic code over both needs a screen of bounds for each
// function; a macro needs none.
macro_rules! implement_ledger {
    ($ledger:ty) => {
        #[async_trait]
        impl Ledger for $ledger {
            async fn record_answer(&self, answer: &AnswerRecord) -> Result<()> {
                self.record(answer).await
            }

            async fn answer(&self, id: &AnswerId) -> Result<Option<AnswerRecord>> {
                let record: Option<String> = sqlx::query_scalar(sql::ANSWER)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading an answer"))?;
                record.map(|record| rows::answer(&record)).transpose()
            }

            async fn answers(&self, filter: &AnswerFilter, paging: &Paging) -> Result<Page<AnswerRecord>> {
                let statement = if filter.user.is_some() { sql::ANSWERS_OF_USER } else { sql::ANSWERS };
                let (created, id) = rows::before(paging)?;
                let found: Vec<Recorded> = sqlx::query_as(statement)
                    .bind(created)
                    .bind(id)
                    .bind(filter.user.as_deref())
                    .bind(filter.refused)
                    .bind(rows::pattern(filter))
                    .bind(rows::rating(filter.rating))
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing answers"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), |row| rows::answer(&row.2))
            }

            async fn restricted(&self, user: &str, said: &str) -> Result<Vec<AnswerRecord>> {
                let found: Vec<String> = sqlx::query_scalar(sql::RESTRICTED)
                    .bind(user)
                    .bind(rows::said(said))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("looking for a quoted answer"))?;
                found.iter().map(|record| rows::answer(record)).collect()
            }

            async fn record_comparison(
                &self,
                comparison: &Comparison,
                answers: [&AnswerRecord; 2],
            ) -> Result<()> {
                let mut write = self.begin().await?;
                for answer in answers {
                    Self::insert_answer(&mut write, answer).await?;
                }
                let inserted = sqlx::query(sql::INSERT_COMPARISON)
                    .bind(comparison.id.as_str())
                    .bind(comparison.created.0)
                    .bind(&comparison.user)
                    .bind(comparison.left.as_str())
                    .bind(comparison.right.as_str())
                    .bind(rows::encode("comparisons.record", comparison)?)
                    .execute(&mut *write)
                    .await;
                match inserted {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        return Err(LedgerError::Conflict(format!("comparison {} exists", comparison.id)));
                    }
                    other => other.map_err(failed("recording a comparison"))?,
                };
                write.commit().await.map_err(failed("recording a comparison"))
            }

            async fn comparison(&self, id: &ComparisonId) -> Result<Option<Comparison>> {
                let record: Option<String> = sqlx::query_scalar(sql::COMPARISON)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a comparison"))?;
                record.map(|record| rows::comparison(&record)).transpose()
            }

            async fn comparisons(
                &self,
                unvoted_by: Option<&str>,
                paging: &Paging,
            ) -> Result<Page<Comparison>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<Recorded> = sqlx::query_as(sql::COMPARISONS)
                    .bind(created)
                    .bind(id)
                    .bind(unvoted_by)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing comparisons"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), |row| rows::comparison(&row.2))
            }

            async fn put_vote(&self, vote: &Vote) -> Result<()> {
                let written = sqlx::query(sql::PUT_VOTE)
                    .bind(key(vote.comparison.as_str(), &vote.user))
                    .bind(vote.comparison.as_str())
                    .bind(&vote.user)
                    .bind(vote.created.0)
                    .bind(rows::encode("votes.record", vote)?)
                    .execute(self.writer())
                    .await;
                match written {
                    Ok(done) if done.rows_affected() == 0 => Err(LedgerError::Conflict(
                        "the vote can not be changed anymore: a training dataset has used it".to_owned(),
                    )),
                    Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                        Err(rows::no_comparison(&vote.comparison))
                    }
                    other => other.map(drop).map_err(failed("writing a vote")),
                }
            }

            async fn lock_votes(&self, snapshot: &str, votes: &[(ComparisonId, String)]) -> Result<u64> {
                let mut write = self.begin().await?;
                let mut locked = 0;
                for (comparison, user) in votes {
                    locked += sqlx::query(sql::LOCK_VOTE)
                        .bind(snapshot)
                        .bind(key(comparison.as_str(), user))
                        .execute(&mut *write)
                        .await
                        .map_err(failed("locking votes"))?
                        .rows_affected();
                }
                write.commit().await.map_err(failed("locking votes"))?;
                Ok(locked)
            }

            async fn votes(&self, id: &ComparisonId) -> Result<Vec<Vote>> {
                let found: Vec<Recorded> = sqlx::query_as(sql::VOTES)
                    .bind(id.as_str())
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("reading votes"))?;
                found.into_iter().map(|(_, created, record)| rows::vote(created, &record)).collect()
            }

            async fn voted_pairs(
                &self,
                paging: &Paging,
            ) -> Result<Page<(Vote, Comparison, AnswerRecord, AnswerRecord)>> {
                let (created, id) = rows::after(paging)?;
                let found: Vec<VotedPairRow> = sqlx::query_as(sql::VOTED_PAIRS)
                    .bind(created)
                    .bind(id)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing votes"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), rows::voted_pair)
            }

            async fn put_feedback(&self, feedback: &Feedback) -> Result<()> {
                let written = sqlx::query(sql::PUT_FEEDBACK)
                    .bind(key(feedback.answer.as_str(), &feedback.user))
                    .bind(feedback.answer.as_str())
                    .bind(&feedback.user)
                    .bind(feedback.created.0)
                    .bind(rows::rating(feedback.rating))
                    .bind(rows::encode("feedback.record", feedback)?)
                    .execute(self.writer())
                    .await
                    .map_err(failed("writing feedback"))?;
                if written.rows_affected() == 0 {
                    return Err(rows::no_answer(&feedback.answer));
                }
                Ok(())
            }

            async fn delete_feedback(&self, answer: &AnswerId, user: &str) -> Result<bool> {
                let done = sqlx::query(sql::DELETE_FEEDBACK)
                    .bind(key(answer.as_str(), user))
                    .execute(self.writer())
                    .await
                    .map_err(failed("deleting feedback"))?;
                Ok(done.rows_affected() > 0)
            }

            async fn feedback_on(&self, answer: &AnswerId) -> Result<Vec<Feedback>> {
                let found: Vec<Recorded> = sqlx::query_as(sql::FEEDBACK_ON)
                    .bind(answer.as_str())
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("reading feedback"))?;
                found.into_iter().map(|(_, created, record)| rows::feedback(created, &record)).collect()
            }

            async fn feedback(&self, paging: &Paging) -> Result<Page<(Feedback, AnswerRecord)>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<FeedbackRow> = sqlx::query_as(sql::FEEDBACK)
                    .bind(created)
                    .bind(id)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing feedback"))?;
                rows::page(
                    found,
                    paging,
                    |row| rows::cursor(row.1, &row.0),
                    |row| Ok((rows::feedback(row.1, &row.2)?, rows::answer(&row.3)?)),
                )
            }

            async fn thumbs(&self, paging: &Paging) -> Result<Page<Thumb>> {
                let (prompt_key, id) = rows::after_prompt(paging)?;
                let found: Vec<ThumbRow> = sqlx::query_as(sql::THUMBS)
                    .bind(prompt_key)
                    .bind(id)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing thumbs"))?;
                rows::page(found, paging, |row| format!("{}.{}", row.0, row.1), rows::thumb)
            }

            async fn put_demonstration(&self, demonstration: &Demonstration) -> Result<()> {
                Self::write_demonstration(self.writer(), sql::PUT_DEMONSTRATION, demonstration).await?;
                Ok(())
            }

            async fn demonstration(&self, id: &DemonstrationId) -> Result<Option<Demonstration>> {
                let found: Option<DemonstrationRow> = sqlx::query_as(sql::DEMONSTRATION)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a demonstration"))?;
                found.map(rows::demonstration).transpose()
            }

            async fn demonstrations(
                &self,
                status: Option<DemonstrationStatus>,
                paging: &Paging,
            ) -> Result<Page<Demonstration>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<DemonstrationRow> = sqlx::query_as(sql::DEMONSTRATIONS)
                    .bind(created)
                    .bind(id)
                    .bind(status.as_ref().map(rows::name).transpose()?)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing demonstrations"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), rows::demonstration)
            }

            async fn set_demonstration_deleted(&self, id: &DemonstrationId, deleted: bool) -> Result<bool> {
                let done = sqlx::query(sql::SET_DEMONSTRATION_DELETED)
                    .bind(id.as_str())
                    .bind(deleted)
                    .execute(self.writer())
                    .await
                    .map_err(failed("deleting a demonstration"))?;
                Ok(done.rows_affected() > 0)
            }

            async fn import(
                &self,
                mut items: BoxStream<'_, std::io::Result<Vec<ImportItem>>>,
            ) -> Result<u64> {
                let mut write = self.begin_import().await?;
                let mut new = 0;
                while let Some(batch) = items.next().await {
                    for item in batch.map_err(LedgerError::Import)? {
                        new += match item {
                            ImportItem::Demonstration(demonstration) => {
                                let statement = sql::IMPORT_DEMONSTRATION;
                                Self::write_demonstration(&mut *write, statement, &demonstration).await?
                            }
                            ImportItem::Row(row) => sqlx::query(sql::IMPORT_ROW)
                                .bind(&row.id)
                                .bind(row.created.0)
                                .bind(row.user.as_deref())
                                .bind(rows::encode("imported.record", &row)?)
                                .execute(&mut *write)
                                .await
                                .map_err(failed("importing"))?
                                .rows_affected(),
                        };
                    }
                }
                write.commit().await.map_err(failed("importing"))?;
                Ok(new)
            }

            async fn imported(&self, paging: &Paging) -> Result<Page<ImportedRow>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<Recorded> = sqlx::query_as(sql::IMPORTED)
                    .bind(created)
                    .bind(id)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing imported rows"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), rows::imported)
            }

            async fn create_token(&self, token: &TokenRow, secret_sha256: &str) -> Result<()> {
                let written = sqlx::query(sql::CREATE_TOKEN)
                    .bind(&token.id)
                    .bind(secret_sha256)
                    .bind(&token.user)
                    .bind(rows::encode("tokens.group_names", &token.groups)?)
                    .bind(rows::name(&token.role)?)
                    .bind(token.created.0)
                    .bind(token.expires.map(|at| at.0))
                    .bind(token.revoked.map(|at| at.0))
                    .execute(self.writer())
                    .await;
                match written {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        Err(LedgerError::Conflict(format!("token {} exists", token.id)))
                    }
                    other => other.map(drop).map_err(failed("creating a token")),
                }
            }

            async fn token(&self, secret_sha256: &str) -> Result<Option<TokenRow>> {
                let found: Option<StoredToken> = sqlx::query_as(sql::TOKEN)
                    .bind(secret_sha256)
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a token"))?;
                found.map(rows::token).transpose()
            }

            async fn tokens(&self) -> Result<Vec<TokenRow>> {
                let found: Vec<StoredToken> = sqlx::query_as(sql::TOKENS)
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing tokens"))?;
                found.into_iter().map(rows::token).collect()
            }

            async fn revoke_token(&self, id: &str, at: Millis) -> Result<bool> {
                let done = sqlx::query(sql::REVOKE_TOKEN)
                    .bind(id)
                    .bind(at.0)
                    .execute(self.writer())
                    .await
                    .map_err(failed("revoking a token"))?;
                Ok(done.rows_affected() > 0)
            }

            async fn secret(&self, name: &str, generate: fn() -> String) -> Result<String> {
                let mut write = self.begin().await?;
                sqlx::query(sql::INSERT_SECRET)
                    .bind(name)
                    .bind(generate())
                    .execute(&mut *write)
                    .await
                    .map_err(failed("keeping a secret"))?;
                let secret = sqlx::query_scalar(sql::SECRET)
                    .bind(name)
                    .fetch_one(&mut *write)
                    .await
                    .map_err(failed("reading a secret"))?;
                write.commit().await.map_err(failed("keeping a secret"))?;
                Ok(secret)
            }

            async fn forget_user(&self, user: &str) -> Result<u64> {
                let mut write = self.begin().await?;
                let mut deleted = 0;
                for statement in sql::FORGET {
                    let done = sqlx::query(statement).bind(user).execute(&mut *write).await;
                    deleted += done.map_err(failed("forgetting a person"))?.rows_affected();
                }
                for statement in [sql::FORGET_AUTHOR, sql::FORGET_REQUESTER] {
                    let renamed = sqlx::query(statement).bind(user).execute(&mut *write).await;
                    renamed.map_err(failed("forgetting a person"))?;
                }
                write.commit().await.map_err(failed("forgetting a person"))?;
                Ok(deleted)
            }

            async fn counts(&self) -> Result<Counts> {
                let (answers, feedback, comparisons, votes, demonstrations, imported) =
                    sqlx::query_as(sql::COUNTS)
                        .fetch_one(self.readers())
                        .await
                        .map_err(failed("counting"))?;
                Ok(Counts { answers, feedback, comparisons, votes, demonstrations, imported })
            }

            async fn signals_since(&self, at: Millis) -> Result<Signals> {
                let (count, oldest, newest): (i64, Option<i64>, Option<i64>) =
                    sqlx::query_as(sql::SIGNALS_SINCE)
                        .bind(at.0)
                        .fetch_one(self.readers())
                        .await
                        .map_err(failed("counting new signals"))?;
                let count = u64::try_from(count).unwrap_or(0);
                Ok(Signals { count, oldest: oldest.map(Millis), newest: newest.map(Millis) })
            }

            async fn ping(&self) -> Result<()> {
                let done = sqlx::query("SELECT 1").execute(self.readers()).await;
                done.map(drop).map_err(failed("asking whether the database answers"))
            }

            async fn close(&self) {
                self.close().await;
            }
        }
    };
}

implement_ledger!(SqliteLedger);
implement_ledger!(PostgresLedger);
