//! Does what was acknowledged survive a killed process and a full disk?

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::{
    super::{AnswerFilter, Ledger, LedgerError, Paging, open, sqlite::SqliteLedger},
    fixtures::*,
};
use crate::domain::*;

/// Set for the child process: the data directory to write to.
const CHILD: &str = "ATTUNE_TEST_KILLED_CHILD";
/// Acknowledgements to wait for before the kill.
const ENOUGH: usize = 40;

/// What the child process runs: four tasks that write and then print what was acknowledged, until killed.
#[tokio::test]
async fn killed_child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let ledger = open(None, dir.as_ref()).await.unwrap();
    let writers = (0..4).map(|writer| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for n in 0..100_000 {
                let answer = answer("ada", 1, n * 4 + writer);
                ledger.record_answer(&answer).await.unwrap();
                println!("answer {}", answer.id);
                ledger.put_feedback(&thumb(&answer.id, "ada", Rating::Up, 2)).await.unwrap();
                println!("feedback {}", answer.id);
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger::tests::durability::killed_child", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The test harness prints "test ... " in front of the first line.
    let mut note = |line: String| {
        let known = line.find("answer ").or_else(|| line.find("feedback "));
        acknowledged.extend(known.filter(|_| line.contains("chatcmpl-")).map(|at| line[at..].to_owned()));
        acknowledged.len()
    };
    while note(lines.next().expect("the child writes until it is killed")) < ENOUGH {}
    child.kill().unwrap();
    lines.for_each(|line| {
        note(line);
    });
    child.wait().unwrap();

    let ledger = open(None, dir.path()).await.unwrap();
    for line in acknowledged {
        let (what, id) = line.split_once(' ').unwrap();
        let id = AnswerId::from_wire(id);
        match what {
            "answer" => assert!(ledger.answer(&id).await.unwrap().is_some(), "{line}"),
            _ => assert_eq!(ledger.feedback_on(&id).await.unwrap().len(), 1, "{line}"),
        }
    }
    ledger.record_answer(&answer("ada", 3, 999_999)).await.unwrap();
}

#[tokio::test]
async fn commits_reach_the_disk_before_they_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
    let pragma = |sql: &'static str| sqlx::query_scalar::<_, String>(sql).fetch_one(ledger.writer());
    assert_eq!(pragma("PRAGMA journal_mode").await.unwrap(), "wal");
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(ledger.writer()).await.unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
    let limit = |pages: i64| format!("PRAGMA max_page_count = {pages}");
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(ledger.writer()).await.unwrap();
    sqlx::query(&limit(pages + 20)).execute(ledger.writer()).await.unwrap();
    let mut recorded = 0;
    let error = loop {
        match ledger.record_answer(&answer("ada", 1, recorded)).await {
            Ok(()) => recorded += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LedgerError::Full(_)), "{error:?}");
    assert_eq!(crate::error::Error::from(error).code, crate::error::ErrorCode::StorageFull);
    let paging = Paging { before: None, limit: 1000 };
    assert_eq!(ledger.answers(&AnswerFilter::default(), &paging).await.unwrap().data.len(), recorded);
    // With room again it goes on.
    sqlx::query(&limit(1_000_000)).execute(ledger.writer()).await.unwrap();
    ledger.record_answer(&answer("ada", 1, recorded)).await.unwrap();
    Ledger::close(&ledger).await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(None, dir.path()).await.unwrap();
    ledger.record_answer(&answer("ada", 1, 1)).await.unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
}
