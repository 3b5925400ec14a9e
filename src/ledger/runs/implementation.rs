//! How do runs talk to their database? Written once, stamped for SQLite and for PostgreSQL.

use async_trait::async_trait;

use super::{Claim, Held, Renewal, RunEnd, RunReport, Runs, RunsOverview, statements as sql};
use crate::domain::{Millis, Run, RunId, RunState, Stage};
use crate::ledger::{
    LedgerError, Page, Paging, Result,
    postgres::PostgresLedger,
    rows::{self, failed},
    sqlite::SqliteLedger,
};

/// A row of `runs`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Stored {
    id: String,
    created: i64,
    stage: String,
    requested_by: String,
    request: String,
    state: String,
    report: String,
    series: String,
    error: Option<String>,
    attempts: i64,
    started: Option<i64>,
    heartbeat: Option<i64>,
    finished: Option<i64>,
    cancel_requested: bool,
}

fn stage(name: &str) -> Result<Stage> {
    rows::decode("runs.stage", &format!("\"{name}\""))
}

fn state(name: &str) -> Result<RunState> {
    rows::decode("runs.state", &format!("\"{name}\""))
}

fn run(row: Stored) -> Result<Run> {
    let RunReport { progress, phases, metrics, generation, reasons, .. } =
        rows::decode("runs.report", &row.report)?;
    Ok(Run {
        stage: stage(&row.stage)?,
        state: state(&row.state)?,
        request: rows::decode("runs.request", &row.request)?,
        requested_by: row.requested_by,
        progress,
        phases,
        metrics,
        series: rows::decode("runs.series", &row.series)?,
        generation,
        reasons,
        error: row.error,
        attempts: u32::try_from(row.attempts).unwrap_or_default(),
        cancel_requested: row.cancel_requested,
        created: Millis(row.created),
        started: row.started.map(Millis),
        heartbeat: row.heartbeat.map(Millis),
        finished: row.finished.map(Millis),
        id: RunId::from_wire(row.id),
    })
}

/// The JSON of a report and of its curves.
fn encoded(report: &RunReport) -> Result<(String, String)> {
    Ok((rows::encode("runs.report", report)?, rows::encode("runs.series", &report.series)?))
}

macro_rules! implement_runs {
    ($ledger:ty) => {
        #[async_trait]
        impl Runs for $ledger {
            async fn put_run(&self, run: &Run) -> Result<()> {
                let written = sqlx::query(sql::PUT)
                    .bind(run.id.as_str())
                    .bind(run.created.0)
                    .bind(run.stage.name())
                    .bind(&run.requested_by)
                    .bind(rows::encode("runs.request", &run.request)?)
                    .bind(rows::encode("runs.report", &RunReport::default())?)
                    .execute(self.writer())
                    .await;
                match written {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        Err(LedgerError::Conflict(format!("run {} exists", run.id)))
                    }
                    other => other.map(drop).map_err(failed("writing a run")),
                }
            }

            async fn run(&self, id: &RunId) -> Result<Option<Run>> {
                let found: Option<Stored> = sqlx::query_as(sql::GET)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a run"))?;
                found.map(run).transpose()
            }

            async fn runs(&self, paging: &Paging) -> Result<Page<Run>> {
                let (created, id) = rows::before(paging)?;
                let found: Vec<Stored> = sqlx::query_as(sql::LIST)
                    .bind(created)
                    .bind(id)
                    .bind(rows::fetch_limit(paging))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed("listing runs"))?;
                rows::page(found, paging, |row| rows::cursor(row.created, &row.id), run)
            }

            async fn claim_run(&self, claim: Claim<'_>) -> Result<Option<Run>> {
                let failed = || failed("claiming a run");
                let mut write = self.begin().await?;
                let ended = sqlx::query(sql::END_CANCELLED).bind(claim.at.0).execute(&mut *write).await;
                ended.map_err(failed())?;
                let ended = sqlx::query(sql::END_EXHAUSTED)
                    .bind(claim.at.0)
                    .bind(i64::from(claim.max_attempts))
                    .execute(&mut *write)
                    .await;
                ended.map_err(failed())?;
                let claimed: std::result::Result<Option<String>, _> = sqlx::query_scalar(sql::CLAIM)
                    .bind(claim.owner)
                    .bind(claim.until.0)
                    .bind(claim.at.0)
                    .bind(claim.only.map(RunId::as_str))
                    .fetch_optional(&mut *write)
                    .await;
                let claimed = match claimed {
                    // Another run became `running` meanwhile.
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(None),
                    other => other.map_err(failed())?,
                };
                write.commit().await.map_err(failed())?;
                match claimed {
                    Some(id) => self.run(&RunId::from_wire(id)).await,
                    None => Ok(None),
                }
            }

            async fn renew_run(&self, held: Held<'_>, until: Millis, report: &RunReport) -> Result<Renewal> {
                let (report, series) = encoded(report)?;
                let cancelled: Option<bool> = sqlx::query_scalar(sql::RENEW)
                    .bind(held.id.as_str())
                    .bind(held.owner)
                    .bind(until.0)
                    .bind(held.at.0)
                    .bind(report)
                    .bind(series)
                    .fetch_optional(self.writer())
                    .await
                    .map_err(failed("renewing a run's lease"))?;
                Ok(match cancelled {
                    None => Renewal::Lost,
                    Some(true) => Renewal::Cancelled,
                    Some(false) => Renewal::Renewed,
                })
            }

            async fn release_run(&self, held: Held<'_>, report: &RunReport) -> Result<bool> {
                let (report, series) = encoded(report)?;
                let done = sqlx::query(sql::RELEASE)
                    .bind(held.id.as_str())
                    .bind(held.owner)
                    .bind(held.at.0)
                    .bind(report)
                    .bind(series)
                    .execute(self.writer())
                    .await;
                Ok(done.map_err(failed("giving a run back"))?.rows_affected() > 0)
            }

            async fn finish_run(&self, held: Held<'_>, report: &RunReport, end: &RunEnd) -> Result<bool> {
                let (report, series) = encoded(report)?;
                let done = sqlx::query(sql::FINISH)
                    .bind(held.id.as_str())
                    .bind(held.owner)
                    .bind(held.at.0)
                    .bind(report)
                    .bind(series)
                    .bind(end.state.name())
                    .bind(end.error.as_deref())
                    .execute(self.writer())
                    .await;
                Ok(done.map_err(failed("ending a run"))?.rows_affected() > 0)
            }

            async fn cancel_run(&self, id: &RunId, at: Millis) -> Result<RunState> {
                let now: Option<String> = sqlx::query_scalar(sql::CANCEL)
                    .bind(id.as_str())
                    .bind(at.0)
                    .fetch_optional(self.writer())
                    .await
                    .map_err(failed("cancelling a run"))?;
                if let Some(now) = now {
                    return state(&now);
                }
                let over: Option<String> = sqlx::query_scalar(sql::STATE)
                    .bind(id.as_str())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(failed("reading a run"))?;
                Err(match over {
                    Some(over) => LedgerError::Conflict(format!("the run is over: it is {over}")),
                    None => LedgerError::NotFound("the run".to_owned()),
                })
            }

            async fn abandon_run(&self, owner: &str, reason: &str) -> Result<bool> {
                let done = sqlx::query(sql::ABANDON).bind(owner).bind(reason).execute(self.writer()).await;
                Ok(done.map_err(failed("noting that a worker died"))?.rows_affected() > 0)
            }

            async fn runs_overview(&self, at: Millis) -> Result<RunsOverview> {
                let failed = || failed("counting runs");
                let counts: Vec<(String, String, i64)> =
                    sqlx::query_as(sql::COUNTS).fetch_all(self.readers()).await.map_err(failed())?;
                let last: Vec<(String, i64, i64)> =
                    sqlx::query_as(sql::LAST_SUCCESS).fetch_all(self.readers()).await.map_err(failed())?;
                let running: Option<Stored> =
                    sqlx::query_as(sql::RUNNING).fetch_optional(self.readers()).await.map_err(failed())?;
                let claimable: i64 = sqlx::query_scalar(sql::CLAIMABLE)
                    .bind(at.0)
                    .fetch_one(self.readers())
                    .await
                    .map_err(failed())?;
                let count = |(name, is, n): (String, String, i64)| Ok((stage(&name)?, state(&is)?, n));
                let success =
                    |(name, when, took): (String, i64, i64)| Ok((stage(&name)?, Millis(when), took));
                Ok(RunsOverview {
                    counts: counts.into_iter().map(count).collect::<Result<_>>()?,
                    last_success: last.into_iter().map(success).collect::<Result<_>>()?,
                    running: running.map(run).transpose()?,
                    claimable: claimable > 0,
                })
            }
        }
    };
}

implement_runs!(SqliteLedger);
implement_runs!(PostgresLedger);
