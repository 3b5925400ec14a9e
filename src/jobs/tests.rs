//! Does a worker keep its run, end it as it should, and leave it to the next when it can not?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::Millis;
use crate::ledger::tests::Harness;
use crate::ledger::{Claim, Held, RunEnd, RunReport};

/// Heard of often, so that the tests need not wait; the lease is long, so that a busy machine changes nothing.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(60),
    beat: Duration::from_millis(20),
    poll: Duration::from_millis(20),
};

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("the work was interrupted")]
    Interrupted,
    #[error("the dataset is empty")]
    Empty,
}

fn worker(harness: &Harness, stop: &CancellationToken) -> Worker {
    Worker::new(Arc::clone(&harness.ledger), worker_name(), stop.clone()).with_timing(TIMING)
}

async fn queued(harness: &Harness) -> RunId {
    let request = RunRequest::new(Stage::Sft);
    enqueue(&*harness.ledger, &Config::default(), request, "ada").await.unwrap().id
}

async fn find(harness: &Harness, id: &RunId) -> Run {
    harness.ledger.run(id).await.unwrap().unwrap()
}

/// Counts to `total` in a file, a step at a time, and goes on where the file says.
async fn count(file: &Path, total: u64, reporter: &Reporter) -> Result<Outcome, WorkError> {
    let (file, reporter) = (file.to_owned(), reporter.clone());
    let counting = tokio::task::spawn_blocking(move || {
        let mut done = std::fs::read_to_string(&file).map_or(0, |text| text.parse().unwrap());
        while done < total {
            if reporter.cancelled() {
                return Err(WorkError::Interrupted);
            }
            done += 1;
            std::fs::write(&file, done.to_string()).unwrap();
            reporter.progress("count", done, total);
            reporter.point(done, &[("loss", 1.0 / done as f64)]);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Outcome {
            generation: Some(crate::domain::GenerationId::from_wire("gen-1")),
            state: Verdict::Held,
            reasons: vec!["a reason".into()],
            metrics: json!({"counted": done}).as_object().unwrap().clone(),
        })
    });
    counting.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_work_says_is_in_the_run() {
    let harness = Harness::sqlite().await;
    let id = queued(&harness).await;
    let file = harness.folder().join("count");
    let worked = worker(&harness, &CancellationToken::new())
        .work_once(None, &async |_: &Run, reporter: &Reporter| count(&file, 30, reporter).await)
        .await
        .unwrap();
    assert_eq!(worked, Some(Worked { run: id.clone(), ended: Ended::Over(RunState::Held) }));
    let run = find(&harness, &id).await;
    assert_eq!((run.state, run.reasons), (RunState::Held, vec!["a reason".to_owned()]));
    assert_eq!(run.metrics["counted"], 30);
    assert_eq!(run.generation.unwrap().as_str(), "gen-1");
    assert_eq!((run.progress.unwrap().done, run.series.curve("loss").len()), (30, 30));
    assert_eq!(run.phases[0].phase, "count");
    // Everything the request left out was decided when it was queued.
    assert_eq!(run.request.sft.rank, Some(16));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_in_the_run_while_the_work_goes_on() {
    let harness = Harness::sqlite().await;
    let id = queued(&harness).await;
    let seen = async |_: &Run, reporter: &Reporter| {
        reporter.progress("train", 3, 10);
        reporter.point(3, &[("loss", 2.5)]);
        while find(&harness, &id).await.series.last("loss").is_none() {
            tokio::time::sleep(TIMING.beat).await;
        }
        Err(WorkError::Empty)
    };
    worker(&harness, &CancellationToken::new()).work_once(None, &seen).await.unwrap();
    assert_eq!(find(&harness, &id).await.progress.unwrap().done, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_or_a_panic_of_the_work_fails_the_run_and_not_the_worker() {
    let harness = Harness::sqlite().await;
    let (first, second) = (queued(&harness).await, queued(&harness).await);
    let worker = worker(&harness, &CancellationToken::new());
    worker.work_once(None, &async |_: &Run, _: &Reporter| Err(WorkError::Empty)).await.unwrap();
    let panicking = async |run: &Run, _: &Reporter| match run.attempts {
        1 => panic!("index out of range"),
        _ => Err(WorkError::Empty),
    };
    worker.work_once(None, &panicking).await.unwrap();
    let errors = [find(&harness, &first).await, find(&harness, &second).await].map(|run| {
        assert_eq!(run.state, RunState::Failed);
        run.error.unwrap()
    });
    assert_eq!(errors[0], "the dataset is empty");
    assert!(errors[1].contains("index out of range"), "{}", errors[1]);
    assert_eq!(worker.work_once(None, &panicking).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_at_its_next_step() {
    let harness = Harness::sqlite().await;
    let id = queued(&harness).await;
    let file = harness.folder().join("count");
    let work = async |_: &Run, reporter: &Reporter| {
        harness.ledger.cancel_run(&id, now()).await.unwrap();
        count(&file, u64::MAX, reporter).await
    };
    let worked = worker(&harness, &CancellationToken::new()).work_once(None, &work).await.unwrap();
    assert_eq!(worked.unwrap().ended, Ended::Over(RunState::Cancelled));
    let run = find(&harness, &id).await;
    assert_eq!((run.state, run.error), (RunState::Cancelled, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_gives_its_run_back_and_the_next_goes_on_from_the_checkpoint() {
    let harness = Harness::sqlite().await;
    let id = queued(&harness).await;
    let file = harness.folder().join("count");
    let stop = CancellationToken::new();
    let work = async |_: &Run, reporter: &Reporter| {
        let stopping = async {
            while reporter.report().series.curve("loss").len() < 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
        };
        tokio::join!(count(&file, u64::MAX, reporter), stopping).0
    };
    let worked = worker(&harness, &stop).work_once(None, &work).await.unwrap();
    assert_eq!(worked.unwrap().ended, Ended::Released);
    let run = find(&harness, &id).await;
    assert_eq!((run.state, run.attempts), (RunState::Queued, 0));
    let checkpoint: u64 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(run.progress.unwrap().done, checkpoint);

    let finish = async |_: &Run, reporter: &Reporter| count(&file, checkpoint + 5, reporter).await;
    let worked = worker(&harness, &CancellationToken::new()).work_once(None, &finish).await.unwrap();
    assert_eq!(worked.unwrap().ended, Ended::Over(RunState::Held));
    let steps: Vec<u64> =
        find(&harness, &id).await.series.curve("loss").iter().map(|(step, _)| *step).collect();
    assert_eq!((steps[0], steps[steps.len() - 1]), (1, checkpoint + 5));
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_run_was_taken_stops_and_writes_nothing_more() {
    let harness = Harness::sqlite().await;
    let id = queued(&harness).await;
    let file = harness.folder().join("count");
    let name = worker_name();
    let first =
        Worker::new(Arc::clone(&harness.ledger), name.clone(), CancellationToken::new()).with_timing(TIMING);
    let taken = async |_: &Run, reporter: &Reporter| {
        // Between the two the worker may have been heard of again.
        let other = loop {
            harness.ledger.abandon_run(&name, "believed dead").await.unwrap();
            let at = now();
            let until = Millis(at.0 + 60_000);
            let claim = Claim { owner: "other", at, until, only: None, max_attempts: 3 };
            if let Some(run) = harness.ledger.claim_run(claim).await.unwrap() {
                break run;
            }
        };
        assert_eq!(other.id, id);
        // Ends only because the reporter says so.
        count(&file, u64::MAX, reporter).await
    };
    let worked = first.work_once(None, &taken).await.unwrap();
    assert_eq!(worked.unwrap().ended, Ended::Lost);
    let run = find(&harness, &id).await;
    assert_eq!((run.state, run.attempts), (RunState::Running, 2));
    let end = RunEnd { state: RunState::Succeeded, error: None };
    let held = Held { id: &id, owner: "other", at: now() };
    assert!(harness.ledger.finish_run(held, &RunReport::default(), &end).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_runs_as_they_come_until_it_is_stopped() {
    let harness = Harness::sqlite().await;
    let stop = CancellationToken::new();
    let worker = worker(&harness, &stop);
    let work = async |_: &Run, _: &Reporter| Err::<Outcome, _>(WorkError::Empty);
    let asking = async {
        for _ in 0..3 {
            let id = queued(&harness).await;
            while !find(&harness, &id).await.state.is_over() {
                tokio::time::sleep(TIMING.poll).await;
            }
        }
        stop.cancel();
    };
    let (working, ()) = tokio::join!(worker.work(&work), asking);
    working.unwrap();
}
