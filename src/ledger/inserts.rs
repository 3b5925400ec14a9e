//! How are answers and demonstrations inserted, alone or as part of something larger? Stamped for both databases.

use super::{
    LedgerError, Result,
    postgres::PostgresLedger,
    rows::{self, failed},
    sqlite::SqliteLedger,
    statements as sql,
};
use crate::domain::{AnswerId, AnswerRecord, Demonstration};

macro_rules! implement_inserts {
    ($ledger:ty, $database:ty) => {
        impl $ledger {
            pub(super) async fn insert_answer(
                write: &mut sqlx::Transaction<'_, $database>,
                answer: &AnswerRecord,
            ) -> Result<()> {
                sqlx::query(sql::SEE_USER)
                    .bind(&answer.user)
                    .bind(answer.created.0)
                    .execute(&mut **write)
                    .await
                    .map_err(failed("remembering a person"))?;
                let inserted = sqlx::query(sql::INSERT_ANSWER)
                    .bind(answer.id.as_str())
                    .bind(answer.created.0)
                    .bind(&answer.user)
                    .bind(rows::prompt_key(answer))
                    .bind(answer.refused)
                    .bind(rows::search_text(answer))
                    .bind(rows::quotable(answer))
                    .bind(rows::encode("answers.record", answer)?)
                    .execute(&mut **write)
                    .await;
                match inserted {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        Err(LedgerError::Conflict(format!("answer {} was recorded before", answer.id)))
                    }
                    other => other.map(drop).map_err(failed("recording an answer")),
                }
            }

            pub(super) async fn write_demonstration<'e>(
                to: impl sqlx::Executor<'e, Database = $database>,
                statement: &'static str,
                demonstration: &Demonstration,
            ) -> Result<u64> {
                let done = sqlx::query(statement)
                    .bind(demonstration.id.as_str())
                    .bind(demonstration.created.0)
                    .bind(&demonstration.author)
                    .bind(rows::name(&demonstration.status)?)
                    .bind(demonstration.corrects.as_ref().map(AnswerId::as_str))
                    .bind(rows::demonstration_record(demonstration)?)
                    .execute(to)
                    .await;
                Ok(done.map_err(failed("writing a demonstration"))?.rows_affected())
            }
        }
    };
}

implement_inserts!(SqliteLedger, sqlx::Sqlite);
implement_inserts!(PostgresLedger, sqlx::Postgres);
