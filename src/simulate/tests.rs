//! The whole simulation against a server that answers by rule: what is asked of it, and what becomes of a second start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::report::tests::plan;
use super::*;

/// What the server was asked and what it does.
#[derive(Default)]
struct Scripted {
    /// The generation that answers; by default `base`.
    active: Option<&'static str>,
    /// Stages of the runs, by their order.
    runs: Vec<String>,
    /// Whether runs of stage `improve` make a reward model and no policy.
    only_reward: bool,
    /// How runs end; by default they succeed.
    ends: BTreeMap<&'static str, &'static str>,
    /// Calls by method and path without ids, and who made them.
    calls: Vec<(String, String, String)>,
    /// Votes by their comparison.
    votes: BTreeMap<String, String>,
    /// Comparisons asked for.
    comparisons: usize,
    /// From this vote on, the server is broken.
    breaks_at: Option<usize>,
    /// No comparison ever gives a choice.
    refuses: bool,
}

const PLAIN: &str = "Lunch costs 6 dollars.";
const LONG: &str =
    "There is much to say about the canteen and about what one may eat there on any day of the year.";

impl Scripted {
    fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|(found, ..)| found == call).count()
    }

    fn answer(&mut self, method: &str, path: &str, (user, groups, body): (&str, &str, &str)) -> (u16, Value) {
        let path = path.split('?').next().unwrap_or(path);
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let kind = match parts.as_slice() {
            ["comparisons", _, "vote"] => format!("{method} vote"),
            [first, ..] => format!("{method} {first}"),
            [] => String::new(),
        };
        self.calls.push((kind.clone(), user.to_owned(), groups.to_owned()));
        let sent: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        match kind.as_str() {
            "POST import" => {
                (200, json!({"rows": body.lines().count(), "new": body.lines().count(), "skipped": 0}))
            }
            "POST chat" => (200, self.chat()),
            "POST comparisons" => self.compare(),
            "POST vote" if self.breaks_at.is_some_and(|at| self.votes.len() >= at) => {
                (500, json!({"error": {"message": "broken"}}))
            }
            "POST vote" => {
                self.votes.insert(parts[1].to_owned(), sent["choice"].as_str().unwrap().to_owned());
                (200, json!({"choice": sent["choice"]}))
            }
            "PUT feedback" | "PUT demonstrations" => (200, json!({})),
            "GET demonstrations" => (
                200,
                json!({"data": [{"id": "d-1", "messages": [{"role": "user", "content": "?"}], "response": "!"}]}),
            ),
            "POST runs" => {
                self.runs.push(sent["stage"].as_str().unwrap().to_owned());
                assert_eq!(sent["promote"], json!(true));
                (201, json!({"id": format!("run-{}", self.runs.len())}))
            }
            "GET runs" => (200, self.run(parts[1])),
            "GET generations" => (200, json!({"id": parts[1], "served": self.active == Some(parts[1])})),
            "POST score" => {
                let texts = sent["text_2"].as_array().unwrap();
                let score = |text: &Value| json!({"score": -(text.as_str().unwrap().len() as f64)});
                (200, json!({"data": texts.iter().map(score).collect::<Vec<_>>()}))
            }
            other => (404, json!({"error": {"message": format!("no {other}")}})),
        }
    }

    fn chat(&self) -> Value {
        let generation = self.active.unwrap_or("base");
        let text = if generation == "base" { LONG } else { PLAIN };
        let cited = if generation == "final" { json!([{"n": 1, "passage_id": "p"}]) } else { json!([]) };
        let info =
            json!({"citations": cited, "sources": [{"passage_id": "p", "passage": "P."}], "refused": false});
        json!({"model": generation, "usage": {"completion_tokens": 5},
               "choices": [{"finish_reason": "stop", "message": {"content": text, "attune": info}}]})
    }

    /// Every fourth question is refused.
    fn compare(&mut self) -> (u16, Value) {
        self.comparisons += 1;
        if self.refuses || self.comparisons.is_multiple_of(4) {
            return (409, json!({"error": {"message": "the answer is a refusal"}}));
        }
        let n = self.comparisons;
        let side =
            |name: &str, text: &str| json!({"id": format!("{name}-{n}"), "content": text, "citations": []});
        let id = format!("c-{}", self.comparisons);
        (200, json!({"id": id, "left": side("l", PLAIN), "right": side("r", LONG)}))
    }

    fn run(&mut self, id: &str) -> Value {
        let number: usize = id.trim_start_matches("run-").parse().unwrap();
        let stage = self.runs[number - 1].clone();
        let state = self.ends.get(stage.as_str()).copied().unwrap_or("succeeded");
        let generation = match stage.as_str() {
            "sft" => "tuned",
            _ if self.only_reward => "reward",
            _ => "final",
        };
        let judged = (generation != "reward").then_some("promote");
        if state == "succeeded" && judged.is_some() {
            self.active = Some(generation);
        }
        json!({"id": id, "state": state, "generation": generation, "error": "out of memory",
               "progress": {"phase": "policy", "done": 1, "total": 2, "eta_seconds": 3},
               "phases": [{"phase": "policy", "seconds": 9.5}], "series": {"loss": [[1.0, 2.0]]},
               "reasons": ["a reason"], "metrics": {"policy": {"objective/kl": 3.5}, "gate": judged}})
    }
}

type Shared = Arc<Mutex<Scripted>>;

/// Serves until the test ends; gives the address.
async fn serve(scripted: &Shared) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let scripted = Arc::clone(scripted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, Arc::clone(&scripted)));
        }
    });
    base
}

async fn connection(mut stream: TcpStream, scripted: Shared) {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let mut some = [0; 4096];
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => return,
                Ok(n) => read.extend_from_slice(&some[..n]),
            }
        };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let header = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().to_owned()
        };
        let length: usize = header("content-length").parse().unwrap_or(0);
        while read.len() < head + length {
            let mut some = [0; 4096];
            let n = stream.read(&mut some).await.unwrap();
            read.extend_from_slice(&some[..n]);
        }
        let body = String::from_utf8_lossy(&read[head..head + length]).into_owned();
        let mut request = text.lines().next().unwrap().split(' ').map(str::to_owned);
        let (method, path) = (request.next().unwrap().to_uppercase(), request.next().unwrap());
        let who = (header("x-forwarded-user"), header("x-forwarded-groups"));
        let (status, answer) = scripted.lock().unwrap().answer(&method, &path, (&who.0, &who.1, &body));
        let answer = answer.to_string();
        let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(response.as_bytes()).await.unwrap();
        read.drain(..head + length);
    }
}

fn questions(folder: &Path, plan: &Plan) -> Questions {
    let row = |n: usize| {
        let split = if n < 6 { "train" } else { "held-out" };
        json!({"id": format!("q-{n:02}"), "question": "What does lunch cost?", "answer": PLAIN, "split": split})
    };
    let path = folder.join("questions.jsonl");
    std::fs::write(&path, (0..11).map(|n| format!("{}\n", row(n))).collect::<String>()).unwrap();
    Questions::read(&path, plan.questions, plan.seed).unwrap()
}

/// Simulates in a folder against the scripted server.
async fn simulated(folder: &Path, scripted: &Shared) -> Result<Report, SimulateError> {
    let (plan, stop) = (plan(), CancellationToken::new());
    let base = serve(scripted).await;
    let progress = |_: &Progress| {};
    let watch = Watch { progress: &progress, stop: &stop };
    let mut company = Company::open((&plan, questions(folder, &plan)), folder, &base, &watch)?;
    company.learn().await
}

#[tokio::test]
async fn employees_vote_the_server_learns_and_the_judge_compares() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    let report = simulated(folder.path(), &scripted).await.unwrap();
    let seen = scripted.lock().unwrap();
    assert_eq!(seen.runs, ["sft", "improve"]);
    // 40 votes; every fourth question gave no choice. Employees vote, only the operator is in the operators' group.
    assert_eq!((seen.votes.len(), seen.count("POST vote"), seen.count("POST chat")), (40, 40, 13));
    let by =
        |name: &str| seen.calls.iter().filter(|(call, user, _)| call == "POST chat" && user == name).count();
    assert_eq!(
        (by("examiner"), by("employee-01")),
        (12, 1),
        "nothing that is examined is asked by an employee"
    );
    let mut voters: Vec<&str> = seen
        .calls
        .iter()
        .filter(|(call, ..)| call == "POST vote")
        .map(|(_, user, _)| user.as_str())
        .collect();
    voters.sort_unstable();
    voters.dedup();
    // Of the 24, those whose turn always came with the fourth question got no choice.
    assert!(voters.len() >= 18 && voters.iter().all(|user| user.starts_with("employee-")), "{voters:?}");
    assert!(seen.calls.iter().all(|(_, user, groups)| (user == "operator") == (groups == "operators")));
    // The plain answer is on the left; 15% of the votes say the opposite.
    let rights = seen.votes.values().filter(|choice| *choice == "right").count();
    assert_eq!((rights, report.votes, report.flipped), (6, 40, 6));
    assert_eq!((seen.count("PUT feedback"), seen.count("PUT demonstrations")), (2 * 14 + 2, 1));

    let rates: Vec<f64> = report.win_rates.iter().map(|duel| duel.rate).collect();
    // Fine-tuned answers are better than the base model's, and the final ones cite besides.
    assert_eq!(rates, [1.0, 1.0, 1.0]);
    let rewards: Vec<f64> = report.generations.iter().map(|row| row.reward.unwrap()).collect();
    assert_eq!(rewards, [-(LONG.len() as f64), -(PLAIN.len() as f64), -(PLAIN.len() as f64)]);
    assert_eq!(report.generations[2].kl, Some(3.5));
    assert_eq!(report.runs[1].phases, [("policy".to_owned(), 9.5)]);
    let steps: Vec<&str> = report.steps.iter().map(|(step, _)| step.as_str()).collect();
    let all = [
        "import",
        "base answers",
        "run sft",
        "fine-tuned answers",
        "other answers",
        "votes",
        "run improve",
        "final answers",
        "rewards",
    ];
    assert_eq!(steps, all);
}

#[tokio::test]
async fn a_second_start_goes_on_where_the_first_one_stopped() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().breaks_at = Some(17);
    let error = simulated(folder.path(), &scripted).await.unwrap_err().to_string();
    assert!(error.contains("/vote: 500: broken"), "{error}");
    scripted.lock().unwrap().breaks_at = None;
    let report = simulated(folder.path(), &scripted).await.unwrap();
    {
        let seen = scripted.lock().unwrap();
        assert_eq!((seen.votes.len(), report.votes, report.flipped), (40, 40, 6));
        let calls = ["POST import", "POST chat", "POST runs"].map(|call| seen.count(call));
        assert_eq!(calls, [1, 13, 2], "nothing is done twice");
    }
    // And a third start asks nothing more than the scores.
    let before = scripted.lock().unwrap().calls.len();
    let again = simulated(folder.path(), &scripted).await.unwrap();
    assert_eq!(again, report);
    let seen = scripted.lock().unwrap();
    assert_eq!((seen.calls.len() - before, seen.count("POST score")), (3, 6));
}

#[tokio::test]
async fn a_held_candidate_leaves_everything_as_it_was() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().ends.insert("improve", "held");
    let report = simulated(folder.path(), &scripted).await.unwrap();
    let last = &report.win_rates[2];
    assert_eq!((last.rate, last.ties, report.generations[2].id.as_str()), (0.5, 4, "tuned"));
    assert_eq!(report.generations[2].kl, None, "it is not the held one's");
    assert_eq!(
        (report.runs[1].state.as_str(), report.runs[1].reasons.as_slice()),
        ("held", &["a reason".to_owned()][..])
    );
    assert_eq!(report.line()["state"], json!("held"));
}

/// As one does whose reward model the gate refuses, where the ideal answers are learnt already.
#[tokio::test]
async fn a_run_that_makes_no_policy_leaves_everything_as_it_was() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().only_reward = true;
    let report = simulated(folder.path(), &scripted).await.unwrap();
    let last = &report.win_rates[2];
    assert_eq!((last.rate, last.ties, report.generations[2].id.as_str()), (0.5, 4, "tuned"));
    assert_eq!((report.runs[1].generation.as_deref(), report.generations[2].kl), (Some("reward"), None));
    assert_eq!(scripted.lock().unwrap().count("POST chat"), 9, "nobody is asked again");
}

#[tokio::test]
async fn what_can_not_go_on_says_why() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().ends.insert("sft", "failed");
    let error = simulated(folder.path(), &scripted).await.unwrap_err();
    assert_eq!(error.to_string(), "the run of stage sft failed: out of memory");

    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().refuses = true;
    let error = simulated(folder.path(), &scripted).await.unwrap_err();
    assert!(
        matches!(&error, SimulateError::NothingToChoose { votes: 0, why, .. } if why.contains("refusal")),
        "{error}"
    );
}

#[tokio::test]
async fn answers_of_two_generations_are_not_mixed() {
    let (folder, scripted) = (tempfile::tempdir().unwrap(), Shared::default());
    scripted.lock().unwrap().active = Some("tuned");
    let row = super::answers::Answer::from_wire("q-06", &Scripted::default().chat());
    let line = format!("{}\n", serde_json::to_string(&row).unwrap());
    std::fs::write(folder.path().join("base.jsonl"), line).unwrap();
    let error = simulated(folder.path(), &scripted).await.unwrap_err();
    assert!(matches!(&error, SimulateError::Changed { found, .. } if found == "tuned"), "{error}");
}

#[test]
fn a_data_directory_belongs_to_one_plan() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let folder = claim(&data, &plan()).unwrap();
    assert_eq!(claim(&data, &plan()).unwrap(), folder);
    let other = Plan { seed: 4, ..plan() };
    let error = claim(&data, &other).unwrap_err().to_string();
    assert!(error.contains("other settings") && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("ledger.db"), "real").unwrap();
    assert!(matches!(claim(home.path(), &plan()), Err(SimulateError::Occupied { .. })));
    assert!(!folder(home.path()).exists());
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let stop = CancellationToken::new();
    stop.cancel();
    let never = std::future::pending::<Result<(), SimulateError>>();
    assert!(matches!(until(&stop, never).await, Err(SimulateError::Stopped)));
}

#[test]
fn the_default_size_keeps_to_its_limits_and_the_full_one_is_larger() {
    let (small, full) = (Size::of(&plan()), Size::of(&Plan { full: true, ..plan() }));
    assert!(small.answer_tokens <= 48 && small.passages * small.passage_tokens <= 160, "{small:?}");
    assert!(full.answer_tokens > small.answer_tokens && full.passages > small.passages, "{full:?}");
    assert!(small.policy_steps.is_some() && full.policy_steps.is_none(), "{full:?}");
}
