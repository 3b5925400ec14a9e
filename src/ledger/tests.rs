//! Does every ledger keep the trait's promises? One contract, run on each database.

mod contract;
mod durability;
pub(crate) mod fixtures;
mod generations;
mod oracle;
mod runs;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{Ledger, LedgerError, measured, open};
use crate::telemetry::Metrics;

/// A ledger of a test's own.
#[derive(Clone)]
pub(crate) struct Harness {
    pub(crate) ledger: Arc<dyn Ledger>,
    url: Option<String>,
    dir: Arc<tempfile::TempDir>,
}

impl Harness {
    /// The same database, opened again after closing it.
    pub(crate) async fn reopen(&self) -> Arc<dyn Ledger> {
        self.ledger.close().await;
        open(self.url.as_deref(), self.dir.path()).await.unwrap()
    }

    /// A folder that is deleted with the ledger.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// As the server opens it, measured.
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = measured(open(None, dir.path()).await.unwrap(), &Metrics::new().unwrap());
        Self { ledger, url: None, dir: Arc::new(dir) }
    }
}

async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Harness) -> F) {
    test(Harness::sqlite().await).await;
}

/// Runs the test on a database of its own, which is dropped afterwards also when the test fails.
async fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Harness) -> F) {
    let server = std::env::var("ATTUNE_TEST_POSTGRES")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432".to_owned());
    let server = server.trim_end_matches('/');
    let options: PgConnectOptions = format!("{server}/postgres").parse().unwrap();
    let Ok(mut admin) = PgConnection::connect_with(&options).await else {
        eprintln!("SKIPPED: no PostgreSQL answers at {server} (set ATTUNE_TEST_POSTGRES)");
        return;
    };
    let name = format!("attune_test_{}", uuid::Uuid::now_v7().simple());
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut admin).await.unwrap();
    let url = format!("{server}/{name}");
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let outcome = AssertUnwindSafe(async {
        let ledger = open(Some(&url), dir.path()).await.unwrap();
        test(Harness { ledger, url: Some(url.clone()), dir }).await;
    })
    .catch_unwind()
    .await;
    sqlx::query(&format!("DROP DATABASE {name} WITH (FORCE)")).execute(&mut admin).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(
            #[tokio::test]
            async fn $name() { super::on_sqlite(super::contract::$name).await; }
        )* }
        mod postgres { $(
            #[tokio::test]
            async fn $name() { super::on_postgres(super::contract::$name).await; }
        )* }
    };
}

contract!(
    answers_come_back_as_written,
    restricted_answers_are_found_by_what_they_say,
    an_answer_is_recorded_once,
    filters_select_answers,
    pages_cover_every_row_once_while_rows_are_added,
    a_cursor_of_nowhere_is_refused,
    comparisons_are_written_whole_or_not_at_all,
    the_judging_queue_leaves_out_what_one_has_voted_on,
    votes_are_upserts_until_a_snapshot_uses_them,
    voted_pairs_come_oldest_first_with_both_answers,
    feedback_is_an_idempotent_upsert,
    feedback_needs_a_recorded_answer,
    thumbs_on_one_prompt_come_together,
    demonstrations_are_edited_deleted_and_restored,
    imports_are_all_or_nothing,
    tokens_are_found_by_hash_and_revoked,
    a_secret_is_made_once,
    forgetting_a_person_deletes_what_they_said,
    in_a_crowd_each_answer_has_its_own_outcome,
    fifty_writers_at_once_lose_nothing,
    a_reopened_ledger_has_everything,
    text_of_any_kind_is_kept,
    generations_come_back_as_written_and_filtered,
    the_pointer_moves_only_from_where_it_is_expected,
    of_many_moves_with_one_expectation_one_succeeds,
    what_a_pointer_names_is_not_pruned,
);

#[tokio::test]
async fn other_databases_are_refused_without_showing_the_password() {
    let dir = tempfile::tempdir().unwrap();
    for url in ["mysql://root:hunter2@host/db", "sqlite:", "sqlite::memory:", "hunter2"] {
        let error = open(Some(url), dir.path()).await.unwrap_err();
        assert!(matches!(error, LedgerError::Url(_)), "{url}: {error}");
        assert!(url == "hunter2" || !error.to_string().contains("hunter2"), "{error}");
    }
}
