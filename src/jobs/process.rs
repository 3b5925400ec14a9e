//! How is a worker process started, told its configuration, and told to stop?
//!
//! The server writes the configuration as one line of JSON to the child's standard input and keeps that open: its end
//! tells the child to stop in good order, also when the server was killed. So no secret is in a file or in arguments.

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Names the worker of a process that a server started; without it a worker names itself.
const NAME_VARIABLE: &str = "ATTUNE_WORKER_NAME";
/// Set in processes whose priority was lowered already.
const LOWERED_VARIABLE: &str = "ATTUNE_WORKER_LOWERED";

/// What to start as a worker.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl WorkerProgram {
    /// This program, as `attune worker --once`.
    ///
    /// # Errors
    /// When the operating system does not say which program this is.
    pub fn this_one() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["worker".into(), "--once".into()] })
    }

    /// Starts it under this name, at lower priority, with this configuration. Its log goes where this process's goes.
    pub(super) async fn start(&self, name: &str, config: &Config) -> std::io::Result<WorkerProcess> {
        let line = serde_json::to_string(config)? + "\n";
        let mut child = match self.command(config).env(NAME_VARIABLE, name).spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && config.training.nice > 0 => {
                tracing::warn!("there is no `nice` on this machine: training runs at full priority");
                let mut plain = config.clone();
                plain.training.nice = 0;
                self.command(&plain).env(NAME_VARIABLE, name).spawn()?
            }
            started => started?,
        };
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all(line.as_bytes()).await?;
            stdin.flush().await?;
        }
        Ok(WorkerProcess { child, stdin, name: name.to_owned() })
    }

    fn command(&self, config: &Config) -> Command {
        let mut command = Command::from(lowered(self, config));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// A worker process of this server.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    child: Child,
    /// Its end tells the child to stop.
    stdin: Option<ChildStdin>,
    pub(super) name: String,
}

impl WorkerProcess {
    /// Waits until it has ended; says how, or why it failed.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        match self.child.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(match out_of_memory(status) {
                true => format!("its process was killed ({status}); perhaps the machine ran out of memory"),
                false => format!("its process ended with {status}"),
            }),
            Err(error) => Err(format!("its process is gone: {error}")),
        }
    }

    /// Asks it to stop in good order.
    pub(super) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Kills it.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "killing the worker process");
        }
    }
}

#[cfg(unix)]
fn out_of_memory(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    /// SIGKILL: what the kernel sends when memory runs out.
    const KILLED: i32 = 9;
    status.signal() == Some(KILLED)
}

#[cfg(not(unix))]
fn out_of_memory(_: std::process::ExitStatus) -> bool {
    false
}

/// The program at the configured priority and with the configured threads. Priority is set before it starts, because
/// on Linux it belongs to a thread, and new threads take it over.
fn lowered(program: &WorkerProgram, config: &Config) -> std::process::Command {
    let training = &config.training;
    let mut command = if training.nice > 0 && cfg!(unix) {
        let mut nice = std::process::Command::new("nice");
        nice.arg("-n").arg(training.nice.to_string()).arg(&program.program);
        nice
    } else {
        std::process::Command::new(&program.program)
    };
    command.args(&program.arguments).env(LOWERED_VARIABLE, "1");
    if training.threads > 0 {
        // Read when the thread pool of the matrix products starts.
        command.env("RAYON_NUM_THREADS", training.threads.to_string());
    }
    command
}

/// Becomes the same command at lower priority, unless it is so already. Returns only when that did not work; work
/// then goes on at full priority.
pub fn lower_priority(config: &Config) {
    if std::env::var_os(LOWERED_VARIABLE).is_some() {
        return;
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        arguments.next();
        let Ok(program) = std::env::current_exe() else { return };
        let program = WorkerProgram { program, arguments: arguments.collect() };
        let error = lowered(&program, config).exec();
        tracing::warn!(%error, "training runs at full priority");
    }
    #[cfg(not(unix))]
    let _ = config;
}

/// What the server that started this process handed over: the worker's name and the configuration. `None` in a
/// process that no server started. `stop` is cancelled when the server wants the worker to stop, or has gone.
///
/// # Errors
/// When standard input holds no configuration.
pub fn handed_over(stop: &CancellationToken) -> std::io::Result<Option<(String, Config)>> {
    let Ok(name) = std::env::var(NAME_VARIABLE) else {
        return Ok(None);
    };
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let config = serde_json::from_str(&line)?;
    let stop = stop.clone();
    std::thread::spawn(move || {
        // Nothing more is sent; this returns at the end, whatever ends it.
        let mut rest = Vec::new();
        drop(std::io::stdin().lock().read_to_end(&mut rest));
        stop.cancel();
    });
    Ok(Some((name, config)))
}
