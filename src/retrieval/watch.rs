//! When does a folder's change reach the index? Shortly after it came to rest.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify_debouncer_full::notify::RecursiveMode;
use notify_debouncer_full::{DebounceEventResult, new_debouncer};

use super::{Library, RetrievalError, SyncReport};
use crate::config::DocsConfig;

/// Editors and version control write a file in several steps; this is longer than they pause between them.
const REST: Duration = Duration::from_millis(500);

/// How often the folders are walked although nothing was reported: events get lost on network file systems, and when
/// the system's queue of them overflows.
const WALK_ANYWAY: Duration = Duration::from_secs(600);

/// Keeps the folders watched. Dropping it ends the watching after the walk that may be under way.
pub struct Watcher {
    /// Dropped first: its events then end the thread.
    debouncer: Option<Box<dyn std::any::Any + Send>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.debouncer = None;
        if let Some(thread) = self.thread.take() {
            // A panic on the thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Watches the configured folders and brings the index in step whenever one changes. `after` is called with what each
/// walk did, on the watcher's own thread.
///
/// # Errors
/// When the operating system can not watch a folder that exists.
pub fn watch(
    library: Arc<Library>,
    docs: DocsConfig,
    after: impl FnMut(Result<SyncReport, RetrievalError>) + Send + 'static,
) -> Result<Watcher, RetrievalError> {
    let (changed, changes) = channel();
    let mut debouncer = new_debouncer(REST, None, move |events| report(events, &changed))?;
    for path in docs.paths.iter().filter(|path| path.exists()) {
        debouncer.watch(path, RecursiveMode::Recursive)?;
    }
    let thread = std::thread::Builder::new()
        .name("docs-watch".into())
        .spawn(move || follow(&library, &docs, &changes, after))
        .map_err(|error| RetrievalError::Watch(error.into()))?;
    Ok(Watcher { debouncer: Some(Box::new(debouncer)), thread: Some(thread) })
}

/// Passes on that something changed. Errors of the watching itself are a reason to look, too.
fn report(events: DebounceEventResult, changed: &Sender<()>) {
    let is_change = |event: &notify_debouncer_full::DebouncedEvent| !event.kind.is_access();
    if events.map_or(true, |events| events.iter().any(is_change)) {
        // The receiver is gone only while everything ends.
        let _ = changed.send(());
    }
}

fn follow(
    library: &Library,
    docs: &DocsConfig,
    changes: &Receiver<()>,
    mut after: impl FnMut(Result<SyncReport, RetrievalError>),
) {
    loop {
        match changes.recv_timeout(WALK_ANYWAY) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
        // One walk sees everything that was reported until now.
        while changes.try_recv().is_ok() {}
        after(library.sync_folders(docs, &mut |_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RetrievalConfig;
    use crate::retrieval::SearchQuery;

    #[test]
    fn a_changed_file_reaches_the_index_and_a_deleted_one_leaves_it() {
        let (folder, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = folder.path().join("page.md");
        let library = Arc::new(Library::open(index.path(), &RetrievalConfig::default(), None).unwrap());
        let docs = DocsConfig { paths: vec![folder.path().to_owned()], ..DocsConfig::default() };
        let (walked, walks) = channel();
        let watcher = watch(Arc::clone(&library), docs, move |report| {
            walked.send(report.unwrap()).unwrap();
        })
        .unwrap();
        let found =
            || library.search(&SearchQuery { text: "apples", groups: None, k: 1 }).unwrap().passages.len();
        let wait_for = |wanted: fn(&SyncReport) -> bool| {
            while !wanted(&walks.recv_timeout(Duration::from_secs(60)).expect("the change is noticed")) {}
        };
        std::fs::write(&file, "apples").unwrap();
        wait_for(|report| report.added == 1);
        assert_eq!(found(), 1);
        std::fs::remove_file(&file).unwrap();
        wait_for(|report| report.removed == 1);
        assert_eq!(found(), 0);
        drop(watcher);
    }
}
