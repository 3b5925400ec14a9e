//! The command line of the real binary, beside a server and without one.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use attune::jobs::WorkerLock;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::child::{Home, answer};
use crate::harness::PATIENCE;

/// Runs `attune` in a folder of its own and returns what came of it; fails when it does not end.
pub(crate) fn attune(arguments: &[&str]) -> Output {
    let nowhere = tempfile::tempdir().unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_attune"))
        .args(arguments)
        // Not in the checkout, where an attune.toml may lie.
        .current_dir(nowhere.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let read = |stream: &mut dyn Read| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    };
    let (stdout, stderr, status) = std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read(&mut stdout).unwrap());
        let stderr = scope.spawn(move || read(&mut stderr).unwrap());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break Some(status);
            }
            if began.elapsed() > PATIENCE {
                process.kill().unwrap();
                process.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (stdout.join().unwrap(), stderr.join().unwrap(), status)
    });
    let said = String::from_utf8_lossy(&stderr);
    let status = status.unwrap_or_else(|| panic!("attune {arguments:?} does not end: {said}"));
    Output { status, stdout, stderr }
}

/// Standard output of a command that must succeed.
#[track_caller]
pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let done = attune(arguments);
    assert!(done.status.success(), "attune {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// What a command says that must fail, in one paragraph that is meant for people.
#[track_caller]
pub(crate) fn fails(arguments: &[&str]) -> String {
    let done = attune(arguments);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success(), "attune {arguments:?} succeeded");
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// A configuration file without a sentence model, and its data directory.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(models: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config =
            format!("data_dir = {:?}\n[models]\nsentence = ''\n{models}\n", folder.path().join("data"));
        std::fs::write(folder.path().join("attune.toml"), config).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.folder.path().join(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn config(&self) -> String {
        self.path("attune.toml")
    }
}

fn handbook(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("handbook").join(path).to_str().unwrap().to_owned()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn a_configuration_is_checked_without_serving() {
    let files = Files::new("");
    let said = succeeds(&["serve", "--check-config", "--config", &files.config()]);
    assert!(said.contains("valid"), "{said}");
    assert!(!Path::new(&files.path("data")).exists(), "checking wrote something");
}

#[test]
fn folders_are_indexed_and_again_only_what_has_changed() {
    let files = Files::new("");
    let index = || json(&succeeds(&["index", &handbook(""), "--json", "--config", &files.config()]));
    let first = index();
    let added = first["report"]["added"].as_u64().unwrap();
    assert!(added >= 30 && first["stats"]["passages"].as_u64().unwrap() > added, "{first}");
    assert_eq!(first["report"]["failed"], serde_json::json!([]), "{first}");
    let again = index();
    assert_eq!(
        (&again["report"]["added"], &again["report"]["unchanged"]),
        (&0.into(), &added.into()),
        "{again}"
    );
    let plain = succeeds(&["index", &handbook(""), "--config", &files.config()]);
    assert!(plain.contains(&format!("{added} unchanged")), "{plain}");
}

#[test]
fn questions_are_imported_once_and_exported() {
    let files = Files::new("");
    let import =
        || json(&succeeds(&["import", &handbook("questions.jsonl"), "--json", "--config", &files.config()]));
    let first = import();
    let rows = first["rows"].as_u64().unwrap();
    assert!(rows >= 100 && first["new"] == first["rows"], "{first}");
    assert_eq!(import()["new"], 0);
    let exported = succeeds(&["export", "--format", "sft", "--config", &files.config()]);
    assert_eq!(exported.lines().count() as u64, rows);
    for line in exported.lines() {
        let row = json(line);
        let roles: Vec<_> =
            row["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
        assert_eq!(
            (roles.first(), roles.last()),
            (Some(&&"user".into()), Some(&&"assistant".into())),
            "{line}"
        );
    }
    let broken =
        files.write("broken.jsonl", b"{\"prompt\": \"Where?\", \"response\": \"Here.\"}\n{\"prompt\":\n");
    let said = fails(&["import", &broken, "--config", &files.config()]);
    assert!(said.contains("line 2"), "{said}");
}

#[tokio::test]
async fn tokens_are_managed_beside_a_running_server() {
    let home = Home::new("[access]\nmode = 'tokens'");
    let server = home.start().await;
    let config = home.config_file().to_str().unwrap().to_owned();
    let me =
        async |secret: &str| answer(server.request(Method::GET, "/v1/me").bearer_auth(secret)).await.unwrap();
    assert_eq!(me("made-up").await.0, StatusCode::UNAUTHORIZED);

    let arguments = ["tokens", "create", "--user", "ada", "--groups", "hr,legal", "--role", "curator"];
    let created = json(&succeeds(&[&arguments[..], &["--json", "--config", &config]].concat()));
    let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
    let (status, who) = me(secret).await;
    assert_eq!(
        (status, &who["user"], &who["role"]),
        (StatusCode::OK, &"ada".into(), &"curator".into()),
        "{who}"
    );
    let listed = succeeds(&["tokens", "list", "--config", &config]);
    assert!(listed.contains(id) && listed.contains("valid") && !listed.contains(secret), "{listed}");

    assert!(succeeds(&["tokens", "revoke", id, "--config", &config]).contains("revoked"));
    assert_eq!(me(secret).await.0, StatusCode::UNAUTHORIZED);
    assert!(succeeds(&["tokens", "list", "--config", &config]).contains("revoked"));
    let said = fails(&["tokens", "revoke", "nobody", "--config", &config]);
    assert!(said.contains("not found"), "{said}");
}

/// The arguments of `attune run` with this configuration.
fn run<'a>(config: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["run"], arguments, &["--config", config]].concat()
}

#[test]
fn runs_are_asked_for_watched_and_cancelled_from_the_shell() {
    let files = Files::new("");
    let config = files.config();
    assert!(fails(&run(&config, &["sft", "--rank", "0"])).contains("sft.rank must be 1 to 256"));
    assert_eq!(succeeds(&run(&config, &["list"])), "");
    assert!(succeeds(&["worker", "--once", "--config", &config]).contains("nothing to do"));

    // A worker is busy here, so that the run is only watched.
    let data = files.path("data");
    let lock = WorkerLock::take(Path::new(&data)).unwrap();
    assert!(fails(&["worker", "--once", "--config", &config]).contains("another worker"));
    let (watched, id) = std::thread::scope(|scope| {
        let watching =
            scope.spawn(|| attune(&run(&config, &["improve", "--promote", "--epochs", "3", "--json"])));
        let began = Instant::now();
        let id = loop {
            let listed = json(&succeeds(&run(&config, &["list", "--json"])));
            if let Some(id) = listed[0]["id"].as_str() {
                break id.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "the run was not queued");
        };
        assert!(succeeds(&run(&config, &["list"])).contains("queued"));
        assert!(succeeds(&run(&config, &["cancel", &id])).contains("cancelled"));
        (watching.join().unwrap(), id)
    });
    assert!(watched.status.success());
    assert!(String::from_utf8(watched.stderr).unwrap().contains("a worker is busy"));
    let shown = json(&String::from_utf8(watched.stdout).unwrap());
    assert_eq!((&shown["id"], &shown["state"]), (&id.as_str().into(), &"cancelled".into()), "{shown}");
    assert_eq!((&shown["request"]["promote"], &shown["request"]["sft"]["epochs"]), (&true.into(), &3.into()));
    assert!(succeeds(&run(&config, &["show", &id])).contains("improve cancelled"));
    assert!(fails(&run(&config, &["cancel", &id])).contains("the run is over"));
    drop(lock);
}

#[tokio::test]
async fn the_doctor_looks_at_what_it_can() {
    let files = Files::new("");
    let broken = files.write("model.gguf", b"no model at all");
    let files = Files::new(&format!("base = {broken:?}"));
    let done = attune(&["doctor", "--json", "--config", &files.config()]);
    assert!(!done.status.success());
    let stdout = String::from_utf8(done.stdout).unwrap();
    let findings: Vec<_> = stdout.lines().map(json).collect();
    let failed: Vec<_> = findings.iter().filter(|finding| finding["ok"] == false).collect();
    assert!(findings.len() >= 5 && failed.len() == 1, "{stdout}");
    assert_eq!(failed[0]["check"], "base model");
    assert!(failed[0]["detail"].as_str().unwrap().contains("model.gguf"), "{stdout}");

    // A server that runs on the data directory is no fault.
    let home = Home::new("");
    let _server = home.start().await;
    let data = home.data.to_str().unwrap();
    let done = attune(&["doctor", "--config", &files.config(), "--data-dir", data]);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("in use by a running server") && said.contains("ok    ledger"), "{said}");
    assert!(said.contains("FAIL  base model"), "{said}");
}

#[test]
fn the_doctor_finds_nothing_wrong_where_the_model_is() {
    let files = Files::new("offline = true");
    let listed = json(&succeeds(&["models", "list", "--json", "--config", &files.config()]));
    let base =
        listed.as_array().unwrap().iter().find(|model| model["name"] == "smollm2-135m-instruct").unwrap();
    if base["cached"] != true {
        eprintln!("skipped: the default model is not in the cache");
        return;
    }
    let findings = succeeds(&["doctor", "--json", "--config", &files.config()]);
    assert!(findings.lines().map(json).all(|finding| finding["ok"] == true), "{findings}");
    assert!(findings.contains("loaded and answering"), "{findings}");
}
