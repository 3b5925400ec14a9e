//! Does a cycle whose process is killed in every phase, twice in each, end as one that nobody disturbs?

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use attune::domain::{Progress, RunId, Stage};
use attune::improve::improve;
use attune::jobs::Reporter;

use crate::cycle::{Company, lenient, workshop};

/// Set for the processes that work: the folder with data and model.
const FOLDER: &str = "ATTUNE_TEST_FOLDER";
/// Set for the processes that work: the run.
const RUN: &str = "ATTUNE_TEST_RUN";
/// In the folder, the places where a process was killed, one a line; only where there is such a file one is.
const KILLED: &str = "killed";
/// In the folder, the generation that came of it.
const MADE: &str = "made";
/// More starts than there are places.
const STARTS: usize = 200;

/// What the processes do.
#[test]
#[ignore = "the test below runs it, in processes of its own"]
fn work() {
    let (Some(folder), Ok(run)) = (std::env::var_os(FOLDER).map(PathBuf::from), std::env::var(RUN)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let workshop = workshop(&folder, lenient()).await;
        let run = workshop.ledger.run(&RunId::from_wire(&run)).await.unwrap().unwrap();
        let killed = folder.join(KILLED);
        let reporter = Reporter::watched_by(move |progress| be_killed_once(&killed, progress));
        let outcome = improve(&workshop, &run, &reporter).await.unwrap();
        std::fs::write(folder.join(MADE), outcome.generation.unwrap().as_str()).unwrap();
        workshop.ledger.close().await;
    });
}

/// The first time that a phase begins, and the first time that something of it is done, is this process's end.
fn be_killed_once(killed: &Path, progress: &Progress) {
    let Ok(before) = std::fs::read_to_string(killed) else { return };
    let place = format!("{}, {}", progress.phase, if progress.done == 0 { "begun" } else { "going on" });
    if before.lines().all(|line| line != place) {
        std::fs::write(killed, format!("{before}{place}\n")).unwrap();
        let kill = format!("kill -9 {}", std::process::id());
        Command::new("sh").args(["-c", &kill]).status().unwrap();
    }
}

/// Starts the work until it is done; gives the generation's folder, and how often it was killed.
fn worked(folder: &Path, run: &RunId) -> (PathBuf, usize) {
    let start = |kills| {
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "interrupted::work", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(RUN, run.as_str())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() || done.status.signal() == Some(9), "{said}");
        done.status.success().then_some(kills)
    };
    let kills = (0..STARTS).find_map(start).unwrap();
    let made = std::fs::read_to_string(folder.join(MADE)).unwrap();
    (folder.join("data/generations").join(made), kills)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-R").args([from, to]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_that_is_killed_in_every_phase_makes_what_an_undisturbed_one_makes() {
    // As few choices as do: the processes learn from them again and again.
    let company = Company::new(60).await;
    let run = company.run(Stage::Improve).await;
    let original = company.closed().await;
    let folder = tempfile::tempdir().unwrap();
    let (left_alone, disturbed) = (folder.path().join("left alone"), folder.path().join("disturbed"));
    copy(original.path(), &left_alone);
    copy(original.path(), &disturbed);
    std::fs::write(disturbed.join(KILLED), "").unwrap();

    let (one, kills) = worked(&left_alone, &run.id);
    assert_eq!(kills, 0);
    let (other, kills) = worked(&disturbed, &run.id);
    let places = std::fs::read_to_string(disturbed.join(KILLED)).unwrap();
    assert_eq!(kills, places.lines().count(), "{places}");
    for phase in [
        "dataset",
        "fine-tune",
        "policy",
        "control",
        "merge",
        "answers before",
        "answers after",
        "best of 4",
        "publish",
    ] {
        assert!(places.lines().any(|place| place == format!("{phase}, going on")), "{phase} in {places}");
    }
    // The report for programs has figures to the last digit, which text does not always give back.
    for file in ["adapter.safetensors", "report.md"] {
        let [one, other] = [&one, &other].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(one == other, "{file}");
    }
    // What was begun and not ended lies nowhere.
    let made = |folder: &Path| std::fs::read_dir(folder.join("data/generations")).unwrap().count();
    assert_eq!(made(&left_alone), made(&disturbed));
}
