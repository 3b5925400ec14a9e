//! How far is a download? A bar on a terminal, log lines elsewhere.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Told about long work on models. Calls come from one thread at a time: `start`, any number of `at`, `finish`.
pub trait Progress: Send + Sync {
    /// Work begins; `total_bytes` is 0 when it is not known.
    fn start(&self, what: &str, total_bytes: u64);
    /// So many bytes are done, counted from the start.
    fn at(&self, done_bytes: u64);
    /// The work ended, well or not.
    fn finish(&self);
}

/// A bar when standard error is a terminal, log lines otherwise.
#[must_use]
pub fn for_this_process() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bar::new()) } else { Box::new(LogLines::default()) }
}

/// Draws a bar on standard error.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::hidden();
        bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
        Self { bar }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Progress for Bar {
    fn start(&self, what: &str, total_bytes: u64) {
        self.bar.reset();
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        if total_bytes == 0 {
            self.bar.set_style(style("{msg} {spinner} {bytes}"));
        } else {
            self.bar.set_length(total_bytes);
        }
        self.bar.set_message(what.to_owned());
    }

    fn at(&self, done_bytes: u64) {
        self.bar.set_position(done_bytes);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Logs a line when work begins, every few seconds, and when it ends.
#[derive(Debug, Default)]
pub struct LogLines {
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    what: String,
    total_bytes: u64,
    done_bytes: u64,
    started: Instant,
    last_line: Instant,
}

/// Seldom enough for a log, often enough to see that it moves.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress for LogLines {
    fn start(&self, what: &str, total_bytes: u64) {
        tracing::info!(total_bytes, "{what}");
        let now = Instant::now();
        let current =
            Current { what: what.to_owned(), total_bytes, done_bytes: 0, started: now, last_line: now };
        *self.lock() = Some(current);
    }

    fn at(&self, done_bytes: u64) {
        if let Some(current) = self.lock().as_mut() {
            current.done_bytes = done_bytes;
            if current.last_line.elapsed() >= LINE_EVERY {
                current.last_line = Instant::now();
                tracing::info!(done_bytes, total_bytes = current.total_bytes, "{}", current.what);
            }
        }
    }

    fn finish(&self) {
        if let Some(current) = self.lock().take() {
            let seconds = current.started.elapsed().as_secs_f32();
            tracing::info!(done_bytes = current.done_bytes, seconds, "{}: ended", current.what);
        }
    }
}

impl LogLines {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        // A panic between two plain stores leaves nothing half done.
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
