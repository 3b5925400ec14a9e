//! How do generations talk to their database? Written once, stamped for SQLite and for PostgreSQL.

use async_trait::async_trait;

use super::{Expected, GenerationFilter, GenerationRow, Generations, Moved, Pointer, statements as sql};
use crate::domain::{ActiveRole, GenerationId, Millis};
use crate::ledger::{
    Page, Paging, Result,
    postgres::PostgresLedger,
    rows::{self, failed},
    sqlite::SqliteLedger,
};

/// `(id, created, kind, state, parent, reasons, pruned, record)`.
type Stored = (String, i64, String, String, Option<String>, String, Option<i64>, String);
/// `(generation, previous, changed)`.
type StoredPointer = (String, Option<String>, i64);

fn row(stored: Stored) -> Result<GenerationRow> {
    let (id, created, kind, state, parent, reasons, pruned, manifest) = stored;
    Ok(GenerationRow {
        id: GenerationId::from_wire(id),
        kind: rows::decode("generations.kind", &format!("\"{kind}\""))?,
        state: rows::decode("generations.state", &format!("\"{state}\""))?,
        parent: parent.map(GenerationId::from_wire),
        created: Millis(created),
        reasons: rows::decode("generations.reasons", &reasons)?,
        pruned: pruned.map(Millis),
        manifest,
    })
}

fn pointer((generation, previous, changed): StoredPointer) -> Pointer {
    Pointer {
        generation: GenerationId::from_wire(generation),
        previous: previous.map(GenerationId::from_wire),
        changed: Millis(changed),
    }
}

/// The kinds that can be active in a role, as their column has them.
const fn kinds(role: ActiveRole) -> [&'static str; 2] {
    match role {
        ActiveRole::Policy => ["policy", "base"],
        ActiveRole::Reward => ["reward", "reward"],
    }
}

/// What to do about the pointer as it is.
enum Step {
    Stay(Moved),
    /// From nothing, or from this generation.
    Go(Option<String>),
}

fn step(found: Option<StoredPointer>, to: &GenerationId, expected: Expected<'_>) -> Step {
    let found = found.map(pointer);
    let as_expected = match (expected, &found) {
        (Expected::Any, _) | (Expected::Unset, None) => true,
        (Expected::Active(wanted), Some(found)) => found.generation == *wanted,
        _ => false,
    };
    match found {
        found if !as_expected => Step::Stay(Moved::Unexpected(found)),
        Some(found) if found.generation == *to => Step::Stay(Moved::To(found)),
        found => Step::Go(found.map(|found| found.generation.into())),
    }
}

macro_rules! implement_generations {
    ($ledger:ty) => {
        #[async_trait]
        impl Generations for $ledger {
            async fn put_generation(&self, row: &GenerationRow) -> Result<bool> {
                let done = sqlx::query(sql::PUT)
                    .bind(row.id.as_str())
                    .bind(row.created.0)
                    .bind(rows::name(&row.kind)?)
                    .bind(rows::name(&row.state)?)
                    .bind(row.parent.as_ref().map(GenerationId::as_str))
                    .bind(rows::encode("generations.reasons", &row.reasons)?)
                    .bind(&row.manifest)
                    .execute(self.writer())
                    .await
                    .map_err(failed("writing a generation"))?;
                Ok(done.rows_affected() > 0)
            }

            async fn generation(&self, id: &GenerationId) -> Result<Option<GenerationRow>> {
                let found: Option<Stored> = sqlx::query_as(sql::GET)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a generation"))?;
                found.map(row).transpose()
            }

            async fn generations(
                &self,
                filter: GenerationFilter,
                paging: &Paging,
            ) -> Result<Page<GenerationRow>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<Stored> = sqlx::query_as(sql::LIST)
                    .bind(created)
                    .bind(id)
                    .bind(filter.kind.map(|kind| rows::name(&kind)).transpose()?)
                    .bind(filter.state.map(|state| rows::name(&state)).transpose()?)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing generations"))?;
                rows::page(found, paging, |row| rows::cursor(row.1, &row.0), row)
            }

            async fn hold_generation(&self, id: &GenerationId, reasons: &[String]) -> Result<bool> {
                let done = sqlx::query(sql::HOLD)
                    .bind(id.as_str())
                    .bind(rows::encode("generations.reasons", &reasons)?)
                    .execute(self.writer())
                    .await
                    .map_err(failed("holding a generation"))?;
                Ok(done.rows_affected() > 0)
            }

            async fn pointer(&self, role: ActiveRole) -> Result<Option<Pointer>> {
                let found: Option<StoredPointer> = sqlx::query_as(sql::POINTER)
                    .bind(role.to_string())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading which generation is active"))?;
                Ok(found.map(pointer))
            }

            async fn move_pointer(
                &self,
                (role, to): (ActiveRole, &GenerationId),
                expected: Expected<'_>,
                at: Millis,
            ) -> Result<Moved> {
                const OPERATION: &str = "making a generation active";
                loop {
                    let mut write = self.begin().await?;
                    let found: Option<StoredPointer> = sqlx::query_as(sql::POINTER)
                        .bind(role.to_string())
                        .fetch_optional(&mut *write)
                        .await
                        .map_err(failed(OPERATION))?;
                    let from = match step(found, to, expected) {
                        Step::Stay(moved) => return Ok(moved),
                        Step::Go(from) => from,
                    };
                    let [one, other] = kinds(role);
                    let activated = sqlx::query(sql::ACTIVATE)
                        .bind(to.as_str())
                        .bind(one)
                        .bind(other)
                        .execute(&mut *write)
                        .await
                        .map_err(failed(OPERATION))?;
                    if activated.rows_affected() == 0 {
                        return Ok(Moved::Unusable);
                    }
                    let statement = if from.is_some() { sql::MOVE_POINTER } else { sql::FIRST_POINTER };
                    let mut moving =
                        sqlx::query(statement).bind(role.to_string()).bind(to.as_str()).bind(at.0);
                    if let Some(from) = &from {
                        moving = moving.bind(from);
                    }
                    let moved = moving.execute(&mut *write).await.map_err(failed(OPERATION))?;
                    if moved.rows_affected() == 0 {
                        // Another server was faster: look again.
                        write.rollback().await.map_err(failed(OPERATION))?;
                        continue;
                    }
                    if let Some(from) = &from {
                        let retired = sqlx::query(sql::RETIRE).bind(from).execute(&mut *write).await;
                        retired.map_err(failed(OPERATION))?;
                    }
                    write.commit().await.map_err(failed(OPERATION))?;
                    let previous = from.map(GenerationId::from_wire);
                    return Ok(Moved::To(Pointer { generation: to.clone(), previous, changed: at }));
                }
            }

            async fn prune_generation(&self, id: &GenerationId, at: Millis) -> Result<bool> {
                let done = sqlx::query(sql::PRUNE)
                    .bind(id.as_str())
                    .bind(at.0)
                    .execute(self.writer())
                    .await
                    .map_err(failed("pruning a generation"))?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

implement_generations!(SqliteLedger);
implement_generations!(PostgresLedger);
