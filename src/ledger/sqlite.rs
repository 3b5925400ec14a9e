//! How does SQLite keep the ledger? One writer and several readers on one file with a write-ahead log.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Result, recorder::Recorder, rows::failed};
use crate::domain::AnswerRecord;

/// Connections that read. They wait for nothing, so a few are enough.
const READERS: u32 = 4;
/// How long to wait for another process (`attune tokens` beside a server) that writes.
const BUSY: Duration = Duration::from_secs(30);
/// How long a write may wait for those before it: a large import goes first for up to minutes.
const WRITER_WAIT: Duration = Duration::from_secs(300);

const BEGIN: &str = "BEGIN IMMEDIATE";

/// The ledger in a SQLite file.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    /// One connection: writers queue here, first come first served, instead of failing with `SQLITE_BUSY`.
    writer: SqlitePool,
    readers: SqlitePool,
    recorder: Recorder,
}

impl SqliteLedger {
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let opening = || failed("opening the database");
        make_private(path).map_err(|error| opening()(error.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Every commit is on the disk before it is acknowledged.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(WRITER_WAIT)
            .connect_with(options.clone())
            .await
            .map_err(opening())?;
        let migrator = sqlx::migrate!("src/ledger/migrations/sqlite");
        // Two processes may open a new file at once: the one that came second fails, and then finds the work done.
        if migrator.run(&writer).await.is_err() {
            migrator.run(&writer).await?;
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(opening())?;
        let recorder = Recorder::start(writer.clone());
        Ok(Self { writer, readers, recorder })
    }

    pub(super) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        begin(&self.writer).await
    }

    pub(super) async fn record(&self, answer: &AnswerRecord) -> Result<()> {
        self.recorder.record(answer).await
    }

    /// Imports exclude each other already: there is one writer.
    pub(super) async fn begin_import(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        self.begin().await
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Starts a transaction that has the write lock from the beginning, so that it never fails half-way for another
/// process's write.
pub(super) async fn begin(writer: &SqlitePool) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
    let started = match writer.begin_with(BEGIN).await {
        // On a full disk SQLite rolls back by itself, sqlx's own rollback then fails, and it believes the connection
        // to be in that transaction forever: only a new connection can write again.
        Err(sqlx::Error::InvalidSavePointStatement) => {
            let stuck = writer.acquire().await.map_err(failed("starting to write"))?;
            stuck.close().await.map_err(failed("starting to write"))?;
            writer.begin_with(BEGIN).await
        }
        started => started,
    };
    started.map_err(failed("starting to write"))
}

/// Makes a new file readable by its owner only: it holds what people asked. The log beside it takes the same mode. One
/// that exists is not even opened: closing it would drop the locks that this process's other connections have on it,
/// and another process could then take their write-ahead log away.
fn make_private(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened.map(drop),
    }
}
