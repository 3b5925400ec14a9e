//! How does PostgreSQL keep the ledger? One pool; the server orders the writers.

use std::{str::FromStr, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Result, rows::failed};
use crate::domain::AnswerRecord;

/// Connections of one server process: a few servers fit into PostgreSQL's default of 100.
const CONNECTIONS: u32 = 10;
/// How long one is waited for: a database that can not be reached is told of before people give up.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Names the lock that imports take. Any number does that nothing else in this database uses.
const IMPORT_LOCK: i64 = 0x6174_7475_6e65;

/// The ledger in a PostgreSQL database.
#[derive(Debug)]
pub(super) struct PostgresLedger {
    pool: PgPool,
}

impl PostgresLedger {
    pub(super) async fn open(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url).map_err(failed("reading database.url"))?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECTION_WAIT)
            .connect_with(options)
            .await
            .map_err(failed("connecting to the database"))?;
        sqlx::migrate!("src/ledger/migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }

    pub(super) fn writer(&self) -> &PgPool {
        &self.pool
    }

    pub(super) fn readers(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        self.pool.begin().await.map_err(failed("starting to write"))
    }

    pub(super) async fn record(&self, answer: &AnswerRecord) -> Result<()> {
        let mut write = self.begin().await?;
        Self::insert_answer(&mut write, answer).await?;
        write.commit().await.map_err(failed("recording an answer"))
    }

    /// Imports exclude each other: two with the same rows in different order would deadlock.
    pub(super) async fn begin_import(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        let mut write = self.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(IMPORT_LOCK)
            .execute(&mut *write)
            .await
            .map_err(failed("waiting for another import"))?;
        Ok(write)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
