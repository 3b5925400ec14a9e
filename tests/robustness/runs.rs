//! Training beside chat: the worker process is killed, stopped and cancelled; the server too. Counting in a file stands
//! for training: it is slow, has a checkpoint at each step, and what it has done can be read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune::domain::{GenerationId, Run};
use attune::jobs::{Outcome, Reporter, Verdict, Worker, WorkerLock, WorkerProgram, handed_over, run_folder};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::child::{Home, Server, asking};
use crate::harness::PATIENCE;

/// Set for worker processes: what they do apart from counting.
pub(crate) const HABIT: &str = "ROBUSTNESS_HABIT";
/// Steps of a run.
const TOTAL: u64 = 600;
const STEP: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// What the servers of these tests start as a worker: this binary, as [`work`].
pub(crate) fn worker_program() -> WorkerProgram {
    let arguments = ["--exact", "runs::work", "--ignored", "--nocapture"].map(Into::into);
    WorkerProgram { program: std::env::current_exe().unwrap(), arguments: arguments.into() }
}

fn checkpoint(folder: &Path) -> u64 {
    std::fs::read_to_string(folder.join("checkpoint")).map_or(0, |text| text.parse().unwrap())
}

/// Counts on from the checkpoint. Every step that is done is one line, so that doing one twice shows.
fn count(folder: &Path, habit: &str, reporter: &Reporter) -> Result<Outcome, Interrupted> {
    use std::io::Write;
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("pid"), std::process::id().to_string()).unwrap();
    let mut log = std::fs::File::options().append(true).create(true).open(folder.join("steps")).unwrap();
    for step in checkpoint(folder) + 1..=TOTAL {
        if reporter.cancelled() {
            return Err(Interrupted);
        }
        if habit == "crash" && step == 5 {
            std::process::abort();
        }
        std::thread::sleep(STEP);
        writeln!(log, "{step}").unwrap();
        let unfinished = folder.join("checkpoint.new");
        std::fs::write(&unfinished, step.to_string()).unwrap();
        std::fs::rename(unfinished, folder.join("checkpoint")).unwrap();
        reporter.progress("count", step, TOTAL);
        reporter.point(step, &[("loss", 1.0 / step as f64)]);
    }
    Ok(Outcome {
        generation: Some(GenerationId::from_wire("gen-counted")),
        state: Verdict::Succeeded,
        reasons: Vec::new(),
        metrics: json!({"steps": TOTAL}).as_object().unwrap().clone(),
    })
}

/// The worker process.
#[test]
#[ignore = "servers of the other tests run it, in a process of its own"]
fn work() {
    let stop = CancellationToken::new();
    let Some((name, config)) = handed_over(&stop).unwrap() else { return };
    let habit = std::env::var(HABIT).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _lock = WorkerLock::take(&config.data_dir).unwrap();
        let ledger = attune::ledger::open(None, &config.data_dir).await.unwrap();
        let work = async |run: &Run, reporter: &Reporter| {
            let (folder, habit) = (run_folder(&config.data_dir, &run.id), habit.clone());
            let reporter = reporter.clone();
            tokio::task::spawn_blocking(move || count(&folder, &habit, &reporter)).await.unwrap()
        };
        Worker::new(Arc::clone(&ledger), name, stop).work_once(None, &work).await.unwrap();
        ledger.close().await;
    });
}

async fn started(server: &Server) -> String {
    let (status, run) = server.post("/v1/runs", json!({"stage": "sft"})).await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

async fn get(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/runs/{id}")).await.unwrap().1
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < 2 * PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn folder(home: &Home, id: &str) -> PathBuf {
    home.data.join("runs").join(id)
}

/// Waits until the work has passed a step.
async fn passed(home: &Home, id: &str, step: u64) {
    until("the work is under way", async || checkpoint(&folder(home, id)) >= step).await;
}

fn kill_9(home: &Home, id: &str) {
    let pid = std::fs::read_to_string(folder(home, id).join("pid")).unwrap();
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status().unwrap().success());
}

/// The worker runs at the configured priority, the threads that work included.
fn check_gives_way(home: &Home, id: &str) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let pid = std::fs::read_to_string(folder(home, id).join("pid")).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nice: Vec<i32> = threads.map(|thread| niceness(&thread.unwrap().path())).collect();
    // Relative to whoever started the server: the tests may run at a priority of their own.
    let expected = niceness(Path::new("/proc/self")) + 5;
    assert!(nice.len() > 1 && nice.iter().all(|nice| *nice == expected), "{nice:?}");
}

/// Of a process or thread, by its folder under `/proc`.
fn niceness(folder: &Path) -> i32 {
    let stat = std::fs::read_to_string(folder.join("stat")).unwrap();
    // After the name in parentheses: the state is field 3, the niceness field 19.
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// Every step was done once, in order.
fn check_steps(home: &Home, id: &str) {
    let steps = std::fs::read_to_string(folder(home, id).join("steps")).unwrap();
    let steps: Vec<u64> = steps.lines().map(|line| line.parse().unwrap()).collect();
    // Killed between the line and the checkpoint, one step is done again.
    let again = steps.windows(2).filter(|pair| pair[1] == pair[0]).count();
    assert!(
        again <= 2 && steps.windows(2).all(|pair| pair[1] <= pair[0] + 1 && pair[1] >= pair[0]),
        "{steps:?}"
    );
    assert_eq!((steps[0], steps[steps.len() - 1]), (1, TOTAL));
}

async fn check_succeeded(server: &Server, home: &Home, id: &str) -> Value {
    until("the run succeeds", async || {
        let run = get(server, id).await;
        assert!(run["state"] != "failed" && run["state"] != "cancelled", "{run}");
        run["state"] == "succeeded"
    })
    .await;
    check_steps(home, id);
    let run = get(server, id).await;
    assert_eq!((&run["generation"], &run["metrics"]["steps"]), (&json!("gen-counted"), &json!(TOTAL)));
    assert_eq!(run["error"], Value::Null);
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint_while_people_chat() {
    let home = Home::new("");
    let server = home.start().await;
    let id = started(&server).await;
    passed(&home, &id, 20).await;
    check_gives_way(&home, &id);
    // What the worker says is written every two seconds; a kill loses what was said since.
    until("the curve is written", async || get(&server, &id).await["series"]["loss"].is_array()).await;
    kill_9(&home, &id);
    // Chat does not notice.
    let (status, answer) = server.post("/v1/chat/completions", asking("tag-killed")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    let run = check_succeeded(&server, &home, &id).await;
    assert_eq!(run["attempts"], 2);
    let loss = run["series"]["loss"].as_array().unwrap();
    assert_eq!((&loss[0][0], &loss[loss.len() - 1][0]), (&json!(1), &json!(TOTAL)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_crashes_its_workers_fails_with_the_reason_and_the_next_is_worked_on() {
    let home = Home::new("").with_habit("crash");
    let server = home.start().await;
    let id = started(&server).await;
    until("the run is given up", async || get(&server, &id).await["state"] == "failed").await;
    let run = get(&server, &id).await;
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("3 attempts") && error.contains("signal"), "{error}");
    let (status, _) = server.post("/v1/chat/completions", asking("tag-crash")).await.unwrap();
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_ends_between_two_steps() {
    let home = Home::new("");
    let server = home.start().await;
    let (id, waiting) = (started(&server).await, started(&server).await);
    passed(&home, &id, 5).await;
    assert_eq!(get(&server, &waiting).await["state"], "queued");
    let (_, told) = server.post(&format!("/v1/runs/{waiting}/cancel"), json!({})).await.unwrap();
    assert_eq!(told["state"], "cancelled");
    let (_, told) = server.post(&format!("/v1/runs/{id}/cancel"), json!({})).await.unwrap();
    assert_eq!(told["state"], "running");
    until("the run is cancelled", async || get(&server, &id).await["state"] == "cancelled").await;
    assert!(checkpoint(&folder(&home, &id)) < TOTAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_takes_its_worker_along_and_the_next_one_goes_on() {
    let home = Home::new("");
    let server = home.start().await;
    let id = started(&server).await;
    passed(&home, &id, 20).await;
    server.terminate();
    assert!(server.ended().await.success());
    // The worker went with it, and gave its run back.
    drop(WorkerLock::take(&home.data).unwrap());
    let ledger = attune::ledger::open(None, &home.data).await.unwrap();
    let run = ledger.run(&attune::domain::RunId::from_wire(&id)).await.unwrap().unwrap();
    ledger.close().await;
    assert_eq!((run.state, run.attempts), (attune::domain::RunState::Queued, 0));
    let server = home.start().await;
    let run = check_succeeded(&server, &home, &id).await;
    assert_eq!(run["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_no_worker_behind() {
    let home = Home::new("");
    let server = home.start().await;
    let id = started(&server).await;
    passed(&home, &id, 20).await;
    server.kill();
    until("the worker has gone", async || WorkerLock::take(&home.data).is_ok()).await;
    assert!(checkpoint(&folder(&home, &id)) < TOTAL);
    let server = home.start().await;
    check_succeeded(&server, &home, &id).await;
}
