//! Do people see how a run goes, and can operators start and cancel one?

use attune::config::AccessMode;
use attune::domain::{Millis, PhaseTime, Progress, Role, Run, RunId, RunRequest, RunState, Stage, now};
use attune::ledger::{Claim, Held, Paging, RunEnd, RunReport};
use serde_json::json;

use crate::driver::browse;
use crate::server::{Server, Setup};

const WIDE: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (375, 760);
const WORKER: &str = "worker of the test";

/// A run in the worker's hands.
async fn claimed(server: &Server) -> RunId {
    let at = now();
    let until = Millis(at.0 + 600_000);
    let claim = Claim { owner: WORKER, at, until, only: None, max_attempts: 3 };
    server.ledger.claim_run(claim).await.unwrap().unwrap().id
}

fn report(done: u64) -> RunReport {
    let mut report = RunReport {
        progress: Some(Progress { phase: "train".into(), done, total: 80, eta_seconds: Some(95) }),
        phases: vec![PhaseTime { phase: "dataset".into(), seconds: 3.0 }],
        ..RunReport::default()
    };
    for step in 1..=done {
        let at = step as f64;
        report.series.push("loss", step, 1.3 * (-at / 40.0).exp() + 0.05 * (at * 1.7).sin() + 0.6);
        report.series.push("learning_rate", step, 5e-4 * (1.0 - at / 80.0));
        report.series.push("tokens_per_second", step, 210.0 + (at * 0.9).cos());
        if step % 10 == 0 {
            report.series.push("validation_loss", step, 1.3 * (-at / 40.0).exp() + 0.75);
        }
    }
    report
}

/// A run that has ended, with figures and a reason.
async fn ended(server: &Server) {
    let mut run = Run::queued(RunRequest::new(Stage::Improve), "olga", Millis(now().0 - 3_600_000));
    run.request.sft.rank = Some(16);
    run.request.sft.learning_rate = Some(5e-4);
    server.ledger.put_run(&run).await.unwrap();
    let id = claimed(server).await;
    let mut report = report(80);
    report.metrics = json!({
        "f1": {"before": 0.3601, "after": 0.4512, "interval": [0.0402, 0.143]},
        "rouge_l": {"before": 0.331, "after": 0.42, "interval": [0.03, 0.12]},
        "nll": {"before": 1.278, "after": 0.991, "interval": [-0.31, -0.26]},
        "demonstrations": 320,
    })
    .as_object()
    .unwrap()
    .clone();
    report.reasons = vec!["the answers became longer than the gate allows".into()];
    report.generation = Some(attune::domain::GenerationId::from_wire("gen-0123456789abcdef"));
    let end = RunEnd { state: RunState::Held, error: None };
    let held = Held { id: &id, owner: WORKER, at: now() };
    assert!(server.ledger.finish_run(held, &report, &end).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_watched_and_cancelled() {
    let server = Server::start(Setup::default()).await;
    ended(&server).await;
    browse("console runs", async |page| {
        page.open(&format!("{}/console#runs", server.url), WIDE).await;
        page.until("$$('.row-button').length === 1").await;
        page.click(".row-button").await;
        page.until("$$('.chart').length === 3").await;
        let detail = page.text(".detail").await;
        for part in
            ["Held back", "longer than the gate allows", "rouge l", "0.451", "0.04 to 0.143", "gen-0123"]
        {
            assert!(detail.contains(part), "{part} is not in {detail}");
        }
        let said = page.get("$('.chart svg').ariaLabel ?? $('.chart svg').getAttribute('aria-label')").await;
        assert!(said.as_str().unwrap().contains("validation loss went from"), "{said}");
        page.look("held").await;

        page.press("Start a run").await;
        page.click("details summary").await;
        page.fill_labelled("Rank", "300").await;
        page.press("Start").await;
        page.until("$('.problem')?.innerText.includes('sft.rank')").await;
        page.look("refused").await;
        page.fill_labelled("Rank", "8").await;
        page.press("Start").await;
        page.until("$('.detail h2')?.innerText.includes('Waiting')").await;
        page.until("$$('.row-button').length === 2").await;

        // A worker takes it up: the page shows it without being asked.
        let id = claimed(&server).await;
        let held = Held { id: &id, owner: WORKER, at: now() };
        server.ledger.renew_run(held, Millis(now().0 + 600_000), &report(37)).await.unwrap();
        page.until("$('.detail')?.innerText.includes('train: 37 of 80, about 2 min left')").await;
        page.until("$('.row-button progress')").await;
        page.look("running").await;
        page.press("Cancel run").await;
        page.press("Cancel the run").await;
        page.until("$('.cancel')?.innerText === 'Cancelling…'").await;
        assert!(server.ledger.release_run(held, &report(38)).await.unwrap());
        page.until("$('.detail h2')?.innerText.includes('Cancelled')").await;

        page.open(&format!("{}/console#runs", server.url), PHONE).await;
        page.until("$$('.row-button').length === 2").await;
        page.look("phone list").await;
        page.run("$$('.row-button')[1].click();").await;
        page.until("$$('.chart').length === 3").await;
        assert!(!page.is_too_wide().await);
        page.look("phone").await;
    })
    .await;
    let runs = server.ledger.runs(&Paging { before: None, limit: 10 }).await.unwrap().data;
    assert_eq!(runs[0].request.sft.rank, Some(8));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curator_reads_runs_and_can_not_change_them() {
    let server = Server::start(Setup { mode: Some(AccessMode::Tokens), ..Setup::default() }).await;
    ended(&server).await;
    let run = Run::queued(RunRequest::new(Stage::Sft), "olga", now());
    server.ledger.put_run(&run).await.unwrap();
    let token = server.token("cleo", Role::Curator).await;
    browse("console runs curator", async |page| {
        page.open(&format!("{}/console", server.url), WIDE).await;
        page.fill(".sign-in input", &token).await;
        page.press("Sign in").await;
        page.click("nav [data-key=runs]").await;
        page.until("$$('.row-button').length === 2").await;
        page.click(".row-button").await;
        page.until("$('.detail h2')?.innerText.includes('Waiting')").await;
        assert_eq!(page.get("$$('.cancel, .bar .button').length").await, 0);
        page.look("queued").await;
    })
    .await;
    server.stop().await;
}
