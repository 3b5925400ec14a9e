//! Where does the simulated company's server run? In a process of its own, as `attune serve`, on this machine only.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::people::EXAMINER;
use super::{SimulateError, Size};

/// Who is an operator, by the group that the simulation puts in its header.
pub(super) const OPERATORS: &str = "operators";
/// The headers that name who asks. Nobody but this machine is believed.
pub(super) const USER_HEADER: &str = "x-forwarded-user";
/// See [`USER_HEADER`].
pub(super) const GROUPS_HEADER: &str = "x-forwarded-groups";
/// How long a server may take until it can answer: models may have to be fetched, and documents indexed.
const STARTING: Duration = Duration::from_secs(30 * 60);
/// How long it may take to stop: streams in flight have 30 seconds, and the worker writes a checkpoint.
const STOPPING: Duration = Duration::from_secs(90);
/// Between a connection that a dying server drops and its end.
const DYING: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How much of the log is shown when the server ends by itself.
const LOG_LINES: usize = 12;

/// The variable that says how many steps the policy is optimised for.
const POLICY_STEPS: &str = "ATTUNE_POLICY__STEPS";

/// What to start.
#[derive(Debug, Clone)]
pub struct ServerCommand {
    /// The program: this one.
    pub program: PathBuf,
    /// Its configuration file, if one was named.
    pub config: Option<PathBuf>,
    /// Where it keeps its state.
    pub data_dir: PathBuf,
    /// The documents.
    pub docs: PathBuf,
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    /// `http://127.0.0.1:PORT`.
    pub(super) base: String,
}

impl Server {
    /// Starts it and waits until it can answer.
    ///
    /// # Errors
    /// When it can not be started, ends by itself, or can not answer for half an hour.
    pub(super) async fn start(
        command: &ServerCommand,
        size: &Size,
        log: PathBuf,
    ) -> Result<Self, SimulateError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| SimulateError::Io { path, source }
        };
        let address = free_address().map_err(SimulateError::Port)?;
        let output = File::options().create(true).append(true).open(&log).map_err(io(&log))?;
        let errors = output.try_clone().map_err(io(&log))?;
        let mut process = Command::new(&command.program);
        if let Some(config) = &command.config {
            process.arg("--config").arg(config);
        }
        process.arg("--data-dir").arg(&command.data_dir);
        process.arg("serve").arg("--listen").arg(&address).arg("--docs").arg(&command.docs);
        process
            .envs(environment(command, size))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true);
        // Ctrl-C is for this process; it stops the server in good order.
        #[cfg(unix)]
        process.process_group(0);
        let child = process.spawn().map_err(io(&command.program))?;
        let mut server = Self { child, log, base: format!("http://{address}") };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<(), SimulateError> {
        let client = reqwest::Client::new();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(|source| self.io(source))? {
                return Err(self.gone(format!("ended with {status}")));
            }
            let probe =
                client.get(format!("{}/readyz", self.base)).timeout(Duration::from_secs(5)).send().await;
            if probe.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if began.elapsed() > STARTING {
                return Err(self.gone("can not answer after half an hour".to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops it in good order, or kills it when that takes too long.
    pub(super) async fn stop(mut self) {
        if let Some(id) = self.child.id() {
            // The signal that init systems send; the standard library has no call for it.
            let told = Command::new("kill").arg("-TERM").arg(id.to_string()).status().await;
            if told.is_ok_and(|status| status.success())
                && tokio::time::timeout(STOPPING, self.child.wait()).await.is_ok()
            {
                return;
            }
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "killing the server");
        }
    }

    /// How the server ended, where the work could not reach it and it has: the work saw only a refused connection. Otherwise
    /// stops the server and gives the work's own error back.
    pub(super) async fn blamed(mut self, error: SimulateError) -> SimulateError {
        if matches!(error, SimulateError::Http { .. })
            && let Ok(Ok(status)) = tokio::time::timeout(DYING, self.child.wait()).await
        {
            return self.gone(format!("ended with {status}"));
        }
        self.stop().await;
        error
    }

    /// An error with the end of its log.
    fn gone(&self, problem: String) -> SimulateError {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        SimulateError::Server { problem, path: self.log.clone(), log }
    }

    fn io(&self, source: std::io::Error) -> SimulateError {
        SimulateError::Io { path: self.log.clone(), source }
    }
}

/// An address of this machine that nobody listens on.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// How the server is set up for a simulation, as variables that win over its configuration file: everybody who asks is
/// named by a header, answers are as long as the time allows, nothing is trained but what is asked for, and no database
/// of a real company is written to.
fn environment(command: &ServerCommand, size: &Size) -> Vec<(&'static str, String)> {
    let tokens = size.answer_tokens.to_string();
    let ledger = command.data_dir.join("ledger.db");
    let mut variables = vec![
        ("ATTUNE_DATABASE__URL", format!("sqlite:{}", ledger.display())),
        ("ATTUNE_ACCESS__MODE", "proxy".into()),
        ("ATTUNE_ACCESS__PROXY__TRUSTED", "[\"127.0.0.1/32\"]".into()),
        ("ATTUNE_ACCESS__PROXY__USER_HEADER", USER_HEADER.into()),
        ("ATTUNE_ACCESS__PROXY__GROUPS_HEADER", GROUPS_HEADER.into()),
        ("ATTUNE_ACCESS__PROXY__OPERATOR_GROUPS", format!("[\"{OPERATORS}\"]")),
        ("ATTUNE_ADMISSION__PER_USER_PER_MINUTE", "0".into()),
        ("ATTUNE_DOCS__WATCH", "false".into()),
        // A reward model of some hundred answers is trained in less than this, the last rung included.
        ("ATTUNE_REWARD__BUDGET_MINUTES", "3".into()),
        ("ATTUNE_GENERATION__MAX_TOKENS", tokens.clone()),
        ("ATTUNE_POLICY__MAX_TOKENS", tokens),
        ("ATTUNE_RETRIEVAL__K", size.passages.to_string()),
        ("ATTUNE_RETRIEVAL__PASSAGE_TOKENS", size.passage_tokens.to_string()),
        ("ATTUNE_TRAINING__WORKER", "auto".into()),
        ("ATTUNE_TRAINING__EXCEPT_USERS", format!("[\"{EXAMINER}\"]")),
        ("ATTUNE_AUTOMATION__STAGE", "off".into()),
    ];
    // Who says how many is trying that out.
    if let Some(steps) = size.policy_steps.filter(|_| std::env::var_os(POLICY_STEPS).is_none()) {
        variables.push((POLICY_STEPS, steps.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that is no server: it notes its arguments and one variable, and ends.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_server_that_ends_is_reported_with_its_log() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/sh\necho \"$@\"\necho \"mode $ATTUNE_ACCESS__MODE\"\nexit 3\n")
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let command = ServerCommand {
            program,
            config: Some("a.toml".into()),
            data_dir: folder.path().to_owned(),
            docs: "handbook".into(),
        };
        let log = folder.path().join("server.log");
        let error = Server::start(&command, &Size::default(), log).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("mode proxy"), "{error}");
        assert!(
            error.contains("--config a.toml --data-dir") && error.contains("serve --listen 127.0.0.1:"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_server_is_told_to_stop_before_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let script =
            format!("trap 'echo yes > {}; exit 0' TERM; while :; do sleep 0.05; done", told.display());
        let child = Command::new("sh").args(["-c", &script]).kill_on_drop(true).spawn().unwrap();
        // The shell needs a moment to set its trap.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Server { child, log: folder.path().join("log"), base: String::new() }.stop().await;
        assert_eq!(std::fs::read_to_string(told).unwrap(), "yes\n");
    }

    /// A connection that is refused says less than how the server ended; of one that lives the work's own error stands.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_server_that_is_gone_is_blamed_for_what_failed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "out of memory\n").unwrap();
        let blamed = async |script: &str, error: SimulateError| {
            let child = Command::new("sh").args(["-c", script]).kill_on_drop(true).spawn().unwrap();
            Server { child, log: log.clone(), base: String::new() }.blamed(error).await.to_string()
        };
        // Nobody listens on port 1.
        let source = || async { reqwest::get("http://127.0.0.1:1/").await.unwrap_err() };
        let refused = async || SimulateError::Http { call: "POST /v1/chat".into(), source: source().await };
        let died = blamed("kill -9 $$", refused().await).await;
        assert!(died.contains("signal: 9") && died.contains("out of memory"), "{died}");
        assert_eq!(blamed("exec sleep 60", refused().await).await, "POST /v1/chat");
        assert_eq!(blamed("exit 0", SimulateError::Stopped).await, SimulateError::Stopped.to_string());
    }

    #[test]
    fn the_server_writes_to_its_own_ledger_and_answers_within_the_size() {
        let command = ServerCommand {
            program: "attune".into(),
            config: None,
            data_dir: "/tmp/company".into(),
            docs: "handbook".into(),
        };
        let variables = environment(&command, &Size { answer_tokens: 7, ..Size::default() });
        let value = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).unwrap().1.clone();
        assert_eq!(value("ATTUNE_DATABASE__URL"), "sqlite:/tmp/company/ledger.db");
        assert_eq!(
            (value("ATTUNE_GENERATION__MAX_TOKENS"), value("ATTUNE_POLICY__MAX_TOKENS")),
            ("7".into(), "7".into())
        );
    }
}
