//! In which order does the server stop?
//!
//! 1. A signal (SIGTERM or SIGINT) or a caller asks for it; a second signal ends the process at once.
//! 2. Readiness turns 503; requests are still taken for `server.drain_delay_seconds`, until load balancers know.
//! 3. New questions are turned away; the listener closes; streams in flight have `server.drain_seconds` to end.
//! 4. Answers whose readers have gone are recorded.
//! 5. The worker process writes a checkpoint and gives its run back; it has been told at the first step.
//! 6. Folder watching stops; the ledger finishes writing and closes; the data directory's lock is released.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The state a shell gives a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// Cancels the token at the first SIGTERM or SIGINT.
pub fn on_signal(stop: CancellationToken) {
    tokio::spawn(async move {
        if wait_for_signal().await.is_ok() {
            tracing::info!("stopping: finishing what is in progress; a second signal stops at once");
            stop.cancel();
        }
        if wait_for_signal().await.is_ok() {
            #[expect(clippy::disallowed_methods, reason = "asked for twice: nothing is to be finished")]
            std::process::exit(INTERRUPTED);
        }
    });
}

#[cfg(unix)]
async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Waits for `work`, at most `patience`; says whether it ended.
pub async fn within(patience: Duration, work: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(patience, work).await.is_ok()
}
