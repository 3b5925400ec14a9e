//! Do runs go from hand to hand as the trait says, on both databases?

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{Claim, Held, Ledger, LedgerError, Paging, Renewal, RunEnd, RunReport},
    Harness, on_postgres, on_sqlite,
};
use crate::domain::*;

const LEASE: i64 = 100;
const MAX_ATTEMPTS: u32 = 3;
const PAGE: Paging = Paging { before: None, limit: 100 };

fn claim(owner: &str, at: i64) -> Claim<'_> {
    Claim { owner, at: Millis(at), until: Millis(at + LEASE), only: None, max_attempts: MAX_ATTEMPTS }
}

fn held<'a>(id: &'a RunId, owner: &'a str, at: i64) -> Held<'a> {
    Held { id, owner, at: Millis(at) }
}

async fn put(ledger: &dyn Ledger, created: i64) -> RunId {
    let run = Run::queued(RunRequest::new(Stage::Sft), "ada", Millis(created));
    ledger.put_run(&run).await.unwrap();
    run.id
}

async fn state(ledger: &dyn Ledger, id: &RunId) -> RunState {
    ledger.run(id).await.unwrap().unwrap().state
}

fn report(done: u64) -> RunReport {
    let mut report = RunReport {
        progress: Some(Progress { phase: "train".into(), done, total: 10, eta_seconds: Some(7) }),
        ..RunReport::default()
    };
    report.series.push("loss", done, 0.5);
    report
}

async fn runs_come_back_as_written(harness: Harness) {
    let ledger = &*harness.ledger;
    let mut request = RunRequest::new(Stage::Improve);
    request.promote = true;
    request.sft.learning_rate = Some(5e-4);
    let run = Run::queued(request, "ada", Millis(5));
    ledger.put_run(&run).await.unwrap();
    assert_eq!(ledger.run(&run.id).await.unwrap(), Some(run.clone()));
    assert!(matches!(ledger.put_run(&run).await, Err(LedgerError::Conflict(_))));
    assert_eq!(ledger.run(&RunId::from_wire("run-none")).await.unwrap(), None);

    let claimed = ledger.claim_run(claim("w", 10)).await.unwrap().unwrap();
    let mut expected = Run {
        state: RunState::Running,
        attempts: 1,
        started: Some(Millis(10)),
        heartbeat: Some(Millis(10)),
        ..run
    };
    assert_eq!(claimed, expected);
    let mut report = report(3);
    report.phases.push(PhaseTime { phase: "train".into(), seconds: 1.5 });
    let renewal = ledger.renew_run(held(&expected.id, "w", 20), Millis(120), &report).await.unwrap();
    assert_eq!(renewal, Renewal::Renewed);
    report.metrics = json!({"f1": {"before": 0.25, "after": 0.5, "interval": [0.125, 0.375]}})
        .as_object()
        .unwrap()
        .clone();
    report.generation = Some(GenerationId::from_wire("gen-1"));
    report.reasons = vec!["too long".into()];
    let end = RunEnd { state: RunState::Held, error: None };
    assert!(ledger.finish_run(held(&expected.id, "w", 30), &report, &end).await.unwrap());
    let RunReport { progress, phases, metrics, generation, reasons, series } = report;
    expected = Run {
        state: RunState::Held,
        heartbeat: Some(Millis(20)),
        finished: Some(Millis(30)),
        progress,
        phases,
        metrics,
        generation,
        reasons,
        series,
        ..expected
    };
    let reopened = harness.reopen().await;
    assert_eq!(reopened.run(&expected.id).await.unwrap().as_ref(), Some(&expected));
    // Lists leave the curves out.
    expected.series = Series::default();
    assert_eq!(reopened.runs(&PAGE).await.unwrap().data, [expected]);
}

async fn one_run_at_a_time_the_oldest_first(harness: Harness) {
    let ledger = &*harness.ledger;
    let (first, second) = (put(ledger, 1).await, put(ledger, 2).await);
    assert_eq!(ledger.claim_run(claim("a", 10)).await.unwrap().unwrap().id, first);
    assert!(ledger.claim_run(claim("b", 10)).await.unwrap().is_none());
    let only = Claim { only: Some(&second), ..claim("b", 11) };
    assert!(ledger.claim_run(only).await.unwrap().is_none());
    let end = RunEnd { state: RunState::Succeeded, error: None };
    assert!(ledger.finish_run(held(&first, "a", 20), &report(10), &end).await.unwrap());
    assert_eq!(ledger.claim_run(claim("b", 20)).await.unwrap().unwrap().id, second);
}

async fn of_many_workers_one_gets_the_run(harness: Harness) {
    let ledger = &*harness.ledger;
    for round in 0..5 {
        for created in 0..3 {
            put(ledger, created).await;
        }
        let owners: Vec<String> = (0..12).map(|n| format!("w{n}")).collect();
        let at = 1_000 * (round + 1);
        let claims = owners.iter().map(|owner| ledger.claim_run(claim(owner, at)));
        let got = futures::future::join_all(claims).await;
        let got: Vec<_> =
            got.into_iter().enumerate().filter_map(|(n, run)| Some((n, run.unwrap()?))).collect();
        assert_eq!(got.len(), 1, "{got:?}");
        let (n, run) = &got[0];
        let end = RunEnd { state: RunState::Succeeded, error: None };
        assert!(ledger.finish_run(held(&run.id, &owners[*n], at), &report(1), &end).await.unwrap());
    }
}

async fn a_silent_worker_loses_its_run_to_the_next(harness: Harness) {
    let ledger = &*harness.ledger;
    let id = put(ledger, 1).await;
    ledger.claim_run(claim("a", 10)).await.unwrap().unwrap();
    ledger.renew_run(held(&id, "a", 50), Millis(50 + LEASE), &report(4)).await.unwrap();
    assert!(ledger.claim_run(claim("b", 50 + LEASE)).await.unwrap().is_none());
    let taken = ledger.claim_run(claim("b", 51 + LEASE)).await.unwrap().unwrap();
    assert_eq!((taken.attempts, taken.progress, taken.started), (2, report(4).progress, Some(Millis(10))));
    assert_eq!(taken.series.last("loss"), Some(0.5));
    // The old worker wakes up: nothing it says counts.
    let late = held(&id, "a", 200);
    assert_eq!(ledger.renew_run(late, Millis(300), &report(9)).await.unwrap(), Renewal::Lost);
    let end = RunEnd { state: RunState::Succeeded, error: None };
    assert!(!ledger.finish_run(late, &report(9), &end).await.unwrap());
    assert!(!ledger.release_run(late, &report(9)).await.unwrap());
    let run = ledger.run(&id).await.unwrap().unwrap();
    assert_eq!((run.state, run.progress), (RunState::Running, report(4).progress));
}

async fn a_run_that_kills_its_workers_fails_with_the_reason(harness: Harness) {
    let ledger = &*harness.ledger;
    let (id, next) = (put(ledger, 1).await, put(ledger, 2).await);
    for attempt in 1..=MAX_ATTEMPTS {
        let run = ledger.claim_run(claim("a", 10)).await.unwrap().unwrap();
        assert_eq!((&run.id, run.attempts), (&id, attempt));
        assert!(ledger.abandon_run("a", "signal 9").await.unwrap());
        assert!(!ledger.abandon_run("b", "other").await.unwrap());
    }
    assert_eq!(ledger.claim_run(claim("a", 11)).await.unwrap().unwrap().id, next);
    let run = ledger.run(&id).await.unwrap().unwrap();
    assert_eq!((run.state, run.finished), (RunState::Failed, Some(Millis(11))));
    let error = run.error.unwrap();
    assert!(error.contains("signal 9") && error.contains("3 attempts"), "{error}");
}

async fn a_worker_that_stops_in_good_order_costs_no_attempt(harness: Harness) {
    let ledger = &*harness.ledger;
    let id = put(ledger, 1).await;
    for _ in 0..5 {
        assert_eq!(ledger.claim_run(claim("a", 10)).await.unwrap().unwrap().attempts, 1);
        assert!(ledger.release_run(held(&id, "a", 20), &report(5)).await.unwrap());
        let run = ledger.run(&id).await.unwrap().unwrap();
        assert_eq!((run.state, run.attempts, run.progress), (RunState::Queued, 0, report(5).progress));
    }
}

async fn cancelling_ends_a_run_at_once_or_tells_its_worker(harness: Harness) {
    let ledger = &*harness.ledger;
    let waiting = put(ledger, 1).await;
    assert_eq!(ledger.cancel_run(&waiting, Millis(5)).await.unwrap(), RunState::Cancelled);
    assert_eq!(ledger.run(&waiting).await.unwrap().unwrap().finished, Some(Millis(5)));
    assert!(matches!(ledger.cancel_run(&waiting, Millis(6)).await, Err(LedgerError::Conflict(_))));
    let nowhere = RunId::from_wire("run-none");
    assert!(matches!(ledger.cancel_run(&nowhere, Millis(6)).await, Err(LedgerError::NotFound(_))));

    // Worked on: the worker is told and ends it.
    let id = put(ledger, 2).await;
    ledger.claim_run(claim("a", 10)).await.unwrap().unwrap();
    assert_eq!(ledger.cancel_run(&id, Millis(11)).await.unwrap(), RunState::Running);
    let renewal = ledger.renew_run(held(&id, "a", 20), Millis(120), &report(1)).await.unwrap();
    assert_eq!(renewal, Renewal::Cancelled);
    assert!(ledger.release_run(held(&id, "a", 30), &report(1)).await.unwrap());
    assert_eq!(state(ledger, &id).await, RunState::Cancelled);

    // Its worker was told and died: nobody takes it up again.
    let id = put(ledger, 3).await;
    ledger.claim_run(claim("a", 1_000)).await.unwrap().unwrap();
    ledger.cancel_run(&id, Millis(1_001)).await.unwrap();
    assert!(ledger.claim_run(claim("b", 2_000)).await.unwrap().is_none());
    assert_eq!(state(ledger, &id).await, RunState::Cancelled);

    // Its worker is dead already.
    let id = put(ledger, 4).await;
    ledger.claim_run(claim("a", 3_000)).await.unwrap().unwrap();
    assert_eq!(ledger.cancel_run(&id, Millis(4_000)).await.unwrap(), RunState::Cancelled);
}

async fn the_overview_counts_and_says_what_is_to_be_done(harness: Harness) {
    let ledger = &*harness.ledger;
    assert!(!ledger.runs_overview(Millis(1)).await.unwrap().claimable);
    let id = put(ledger, 1).await;
    put(ledger, 2).await;
    assert!(ledger.runs_overview(Millis(1)).await.unwrap().claimable);
    ledger.claim_run(claim("a", 10)).await.unwrap().unwrap();
    let overview = ledger.runs_overview(Millis(11)).await.unwrap();
    assert!(!overview.claimable);
    assert_eq!(overview.running.unwrap().id, id);
    let counts = [(Stage::Sft, RunState::Queued, 1), (Stage::Sft, RunState::Running, 1)];
    assert_eq!(overview.counts, counts);
    assert!(ledger.runs_overview(Millis(11 + LEASE)).await.unwrap().claimable);
    let end = RunEnd { state: RunState::Succeeded, error: None };
    assert!(ledger.finish_run(held(&id, "a", 40), &report(1), &end).await.unwrap());
    let overview = ledger.runs_overview(Millis(50)).await.unwrap();
    assert_eq!(overview.last_success, [(Stage::Sft, Millis(40), 30)]);
    assert_eq!(overview.running, None);
}

async fn forgetting_a_person_keeps_the_run_without_the_name(harness: Harness) {
    let id = put(&*harness.ledger, 1).await;
    harness.ledger.forget_user("ada").await.unwrap();
    assert_eq!(harness.ledger.run(&id).await.unwrap().unwrap().requested_by, "forgotten");
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(
            #[tokio::test]
            async fn $name() { super::on_sqlite(super::$name).await; }
        )* }
        mod postgres { $(
            #[tokio::test]
            async fn $name() { super::on_postgres(super::$name).await; }
        )* }
    };
}

on_both!(
    runs_come_back_as_written,
    one_run_at_a_time_the_oldest_first,
    of_many_workers_one_gets_the_run,
    a_silent_worker_loses_its_run_to_the_next,
    a_run_that_kills_its_workers_fails_with_the_reason,
    a_worker_that_stops_in_good_order_costs_no_attempt,
    cancelling_ends_a_run_at_once_or_tells_its_worker,
    the_overview_counts_and_says_what_is_to_be_done,
    forgetting_a_person_keeps_the_run_without_the_name,
);

#[derive(Debug, Clone)]
enum Operation {
    Put,
    Claim { worker: usize },
    Renew { worker: usize },
    Release { worker: usize },
    Finish { worker: usize },
    Die { worker: usize },
    Cancel { run: usize },
    Wait { millis: i64 },
}

const WORKERS: [&str; 3] = ["a", "b", "c"];

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let worker = 0..WORKERS.len();
    let one = prop_oneof![
        4 => Just(Operation::Put),
        6 => worker.clone().prop_map(|worker| Operation::Claim { worker }),
        6 => worker.clone().prop_map(|worker| Operation::Renew { worker }),
        2 => worker.clone().prop_map(|worker| Operation::Release { worker }),
        2 => worker.clone().prop_map(|worker| Operation::Finish { worker }),
        3 => worker.prop_map(|worker| Operation::Die { worker }),
        3 => (0..6_usize).prop_map(|run| Operation::Cancel { run }),
        5 => (1..2 * LEASE).prop_map(|millis| Operation::Wait { millis }),
    ];
    proptest::collection::vec(one, 1..60)
}

/// What is known of a run: its state, attempts, who has it until when, and whether its end is wanted.
#[derive(Debug)]
struct Known {
    id: RunId,
    state: RunState,
    attempts: u32,
    lease: Option<(usize, i64)>,
    cancel: bool,
}

/// The rules, as short as they can be said.
#[derive(Debug, Default)]
struct Oracle {
    runs: Vec<Known>,
    now: i64,
    /// The run each worker believes to have.
    hands: [Option<usize>; 3],
}

impl Oracle {
    fn claim(&mut self, worker: usize) -> Option<usize> {
        let now = self.now;
        let left = |run: &Known| run.lease.is_some_and(|(_, until)| until < now);
        for run in self.runs.iter_mut().filter(|run| left(run)) {
            if run.cancel {
                (run.state, run.lease) = (RunState::Cancelled, None);
            } else if run.attempts >= MAX_ATTEMPTS {
                (run.state, run.lease) = (RunState::Failed, None);
            }
        }
        let running = self.runs.iter().position(|run| run.state == RunState::Running);
        let next = match running {
            Some(running) => Some(running).filter(|running| left(&self.runs[*running])),
            None => self.runs.iter().position(|run| run.state == RunState::Queued),
        }?;
        let run = &mut self.runs[next];
        run.state = RunState::Running;
        run.attempts += 1;
        run.lease = Some((worker, now + LEASE));
        self.hands[worker] = Some(next);
        Some(next)
    }

    /// The run in a worker's hands, if it is still there.
    fn held(&mut self, worker: usize) -> Option<&mut Known> {
        let run = &mut self.runs[self.hands[worker]?];
        Some(run).filter(|run| run.lease.is_some_and(|(owner, _)| owner == worker))
    }
}

async fn follows_the_oracle(ledger: &dyn Ledger, operations: Vec<Operation>) {
    let mut oracle = Oracle { now: 1_000, ..Oracle::default() };
    for operation in operations {
        step(ledger, &mut oracle, &operation).await;
        let stored = ledger.runs(&PAGE).await.unwrap().data;
        let stored: BTreeSet<_> =
            stored.into_iter().map(|run| (run.id, run.state, run.attempts, run.cancel_requested)).collect();
        let known = oracle.runs.iter().map(|run| (run.id.clone(), run.state, run.attempts, run.cancel));
        assert_eq!(stored, known.collect(), "after {operation:?} at {}", oracle.now);
        let running = oracle.runs.iter().filter(|run| run.state == RunState::Running).count();
        assert!(running <= 1);
    }
}

async fn step(ledger: &dyn Ledger, oracle: &mut Oracle, operation: &Operation) {
    let now = oracle.now;
    match *operation {
        Operation::Put => {
            // Times that rise: the oldest is the first of the list.
            let id = put(ledger, oracle.runs.len() as i64).await;
            oracle.runs.push(Known { id, state: RunState::Queued, attempts: 0, lease: None, cancel: false });
        }
        Operation::Claim { worker } => {
            let got = ledger.claim_run(claim(WORKERS[worker], now)).await.unwrap().map(|run| run.id);
            let expected = oracle.claim(worker).map(|run| oracle.runs[run].id.clone());
            assert_eq!(got, expected);
        }
        Operation::Renew { worker } => {
            let Some(run) = oracle.hands[worker] else { return };
            let id = oracle.runs[run].id.clone();
            let held = held(&id, WORKERS[worker], now);
            let got = ledger.renew_run(held, Millis(now + LEASE), &report(1)).await.unwrap();
            let expected = match oracle.held(worker) {
                None => Renewal::Lost,
                Some(run) => {
                    run.lease = Some((worker, now + LEASE));
                    if run.cancel { Renewal::Cancelled } else { Renewal::Renewed }
                }
            };
            assert_eq!(got, expected);
        }
        Operation::Release { worker } => {
            let Some(run) = oracle.hands[worker] else { return };
            let id = oracle.runs[run].id.clone();
            let got = ledger.release_run(held(&id, WORKERS[worker], now), &report(2)).await.unwrap();
            let expected = oracle.held(worker).map(|run| {
                run.state = if run.cancel { RunState::Cancelled } else { RunState::Queued };
                (run.lease, run.attempts) = (None, run.attempts - 1);
            });
            assert_eq!(got, expected.is_some());
        }
        Operation::Finish { worker } => {
            let Some(run) = oracle.hands[worker] else { return };
            let id = oracle.runs[run].id.clone();
            let end = RunEnd { state: RunState::Succeeded, error: None };
            let got = ledger.finish_run(held(&id, WORKERS[worker], now), &report(3), &end).await.unwrap();
            let expected = oracle.held(worker).map(|run| (run.state, run.lease) = (end.state, None));
            assert_eq!(got, expected.is_some());
        }
        Operation::Die { worker } => {
            let got = ledger.abandon_run(WORKERS[worker], "killed").await.unwrap();
            let expected = oracle.held(worker).map(|run| run.lease = Some((worker, 0)));
            assert_eq!(got, expected.is_some());
        }
        Operation::Cancel { run } => {
            let Some(known) = oracle.runs.get_mut(run) else { return };
            let got = ledger.cancel_run(&known.id, Millis(now)).await;
            if known.state.is_over() {
                assert!(matches!(got, Err(LedgerError::Conflict(_))), "{got:?}");
                return;
            }
            known.cancel = true;
            if known.lease.is_none_or(|(_, until)| until < now) {
                (known.state, known.lease) = (RunState::Cancelled, None);
            }
            assert_eq!(got.unwrap(), known.state);
        }
        Operation::Wait { millis } => oracle.now += millis,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_follows_the_rules_on_sqlite(operations in operations()) {
        runtime().block_on(on_sqlite(|harness| async move {
            // The whole of it, not only the ledger: the folder goes with it.
            let harness = harness;
            follows_the_oracle(&*harness.ledger, operations).await;
        }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_follows_the_rules_on_postgres(operations in operations()) {
        runtime().block_on(on_postgres(|harness| async move {
            // The whole of it, not only the ledger: the folder goes with it.
            let harness = harness;
            follows_the_oracle(&*harness.ledger, operations).await;
        }));
    }
}
