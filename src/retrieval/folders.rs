//! How does the index follow the folders of documents?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use globset::{Glob, GlobMatcher};
use serde::Serialize;

use super::library::{Library, Origin, fingerprint};
use super::parse::group_names;
use super::schema::Record;
use super::store::Change;
use super::{Document, Format, RetrievalError};
use crate::config::DocsConfig;
use crate::domain::{DocumentId, Groups};

/// Largest file that is read. Larger ones are data, not pages.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Documents per commit: a commit waits for the disk, and a crash loses at most this much work.
const BATCH_DOCUMENTS: usize = 64;

/// What the source of a folder's documents begins with.
const SOURCE: &str = "folder:";

/// Bytes of source per commit, so that a batch of large files does not fill the memory.
const BATCH_BYTES: usize = 16 << 20;

/// How far a walk over the folders is.
#[derive(Debug, Clone, Copy)]
pub struct SyncProgress<'a> {
    /// Files that are dealt with.
    pub done: usize,
    /// Files to deal with.
    pub total: usize,
    /// The file that comes next.
    pub path: &'a Path,
}

/// What a walk over the folders changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// Documents that are new.
    pub added: usize,
    /// Documents whose text, groups or way of splitting changed.
    pub updated: usize,
    /// Documents that were left alone.
    pub unchanged: usize,
    /// Documents whose file is gone or can not be read as a document anymore.
    pub removed: usize,
    /// Files that are not in the index, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// How many files of other kinds the folders hold, which are no documents here, by extension.
    pub others: BTreeMap<String, usize>,
}

/// A configured folder, or a single file.
struct Root {
    /// Its name in document ids.
    name: String,
    /// What paths are relative to.
    base: PathBuf,
    /// The files, sorted.
    files: Vec<PathBuf>,
    /// Whether files that are gone are removed: not when one file was named.
    whole: bool,
}

/// One walk over the folders.
struct Walk<'a> {
    library: &'a Library,
    docs: &'a DocsConfig,
    rules: GroupRules,
    /// What the index held when the walk began.
    known: HashMap<DocumentId, Record>,
    report: SyncReport,
    /// Changes that wait for a commit, and the bytes of their sources.
    changes: Vec<Change>,
    bytes: usize,
}

impl Library {
    /// Brings the index in step with the configured folders and files: new and changed files are put, documents whose
    /// file is gone are removed. Documents that came through the HTTP interface are left alone, as are those of a
    /// folder that can not be read or is not configured anymore. A file that can not be read as a document is removed
    /// and reported: what it says about its groups is not known.
    ///
    /// # Errors
    /// When a glob of `docs.folder_groups` is malformed, the disk is full or the index fails. What was committed
    /// before stays.
    pub fn sync_folders(
        &self,
        docs: &DocsConfig,
        progress: &mut dyn FnMut(SyncProgress<'_>),
    ) -> Result<SyncReport, RetrievalError> {
        let _walking = self.walking.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.records()?.into_iter();
        let mut walk = Walk {
            library: self,
            docs,
            rules: GroupRules::new(docs)?,
            known: records.map(|record| (record.document.id.clone(), record)).collect(),
            report: SyncReport::default(),
            changes: Vec::new(),
            bytes: 0,
        };
        let roots = roots(docs, &mut walk.report);
        let total = roots.iter().map(|root| root.files.len()).sum();
        let mut done = 0;
        for root in &roots {
            walk.root(root, &mut |path| {
                progress(SyncProgress { done, total, path });
                done += 1;
            })?;
        }
        walk.commit()?;
        Ok(walk.report)
    }
}

impl Walk<'_> {
    fn root(&mut self, root: &Root, progress: &mut dyn FnMut(&Path)) -> Result<(), RetrievalError> {
        let source = format!("{SOURCE}{}", root.name);
        let mut gone: HashSet<DocumentId> = HashSet::new();
        if root.whole {
            let documents = self.known.values().map(|record| &record.document);
            gone.extend(
                documents.filter(|document| document.source == source).map(|document| document.id.clone()),
            );
        }
        for path in &root.files {
            progress(path);
            let relative = relative(path, &root.base);
            let id = DocumentId::from_path(&root.name, &relative);
            if self.file(&File { id: &id, path, relative: &relative, source: &source })? {
                gone.remove(&id);
            } else if self.known.contains_key(&id) {
                gone.insert(id);
            }
            if self.changes.len() >= BATCH_DOCUMENTS || self.bytes >= BATCH_BYTES {
                self.commit()?;
            }
        }
        self.report.removed += gone.len();
        self.changes.extend(gone.into_iter().map(Change::Remove));
        Ok(())
    }

    /// Deals with one file; returns whether its document stays in the index.
    fn file(&mut self, file: &File<'_>) -> Result<bool, RetrievalError> {
        let old = self.known.get(file.id);
        if old.is_some_and(|old| old.document.source != file.source) {
            return Ok(self.failed(file, "its document id is taken by a document from elsewhere", true));
        }
        let document = match read(file, self.docs) {
            Ok(document) => document,
            Err(Unread { reason, keep }) => return Ok(self.failed(file, &reason, keep)),
        };
        let groups = self.rules.of(file.relative);
        let origin = Origin { source: file.source, groups: groups.as_ref() };
        if old.is_some_and(|old| self.library.is_current(old, &fingerprint(&document, origin), file.source)) {
            self.report.unchanged += 1;
            return Ok(true);
        }
        match self.library.prepare(&document, origin) {
            Ok(entries) => {
                self.bytes += document.text.len();
                self.changes.push(Change::Put(Box::new(entries)));
                *if old.is_some() { &mut self.report.updated } else { &mut self.report.added } += 1;
                Ok(true)
            }
            Err(RetrievalError::Malformed { problem, .. }) => Ok(self.failed(file, &problem, false)),
            Err(other) => Err(other),
        }
    }

    fn failed(&mut self, file: &File<'_>, reason: &str, keep: bool) -> bool {
        self.report.failed.push((file.path.to_owned(), reason.to_owned()));
        keep
    }

    fn commit(&mut self) -> Result<(), RetrievalError> {
        self.bytes = 0;
        self.library.write(std::mem::take(&mut self.changes))
    }
}

/// One file of a folder.
struct File<'a> {
    id: &'a DocumentId,
    path: &'a Path,
    relative: &'a str,
    source: &'a str,
}

/// Why a file is no document.
struct Unread {
    reason: String,
    /// Whether the document it was before stays: reading failed for a reason outside the file.
    keep: bool,
}

fn read(file: &File<'_>, docs: &DocsConfig) -> Result<Document, Unread> {
    let broken = |reason: &str| Unread { reason: reason.to_owned(), keep: false };
    let unreadable = |error: std::io::Error| Unread {
        keep: error.kind() != std::io::ErrorKind::NotFound,
        reason: error.to_string(),
    };
    let size = std::fs::metadata(file.path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(broken(&format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
    }
    let bytes = std::fs::read(file.path).map_err(unreadable)?;
    if bytes.contains(&0) {
        return Err(broken("it is binary"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        broken(&format!("it is not valid UTF-8 at byte {}", error.utf8_error().valid_up_to()))
    })?;
    let url = docs.base_url.as_ref().map(|base| link(base, file.relative));
    Ok(Document {
        id: file.id.clone(),
        title: None,
        text,
        format: format_of(file.path).unwrap_or_default(),
        url,
        groups: None,
        metadata: BTreeMap::new(),
    })
}

/// The base with the path appended, each part of it percent-encoded.
fn link(base: &str, relative: &str) -> String {
    let mut link = base.trim_end_matches('/').to_owned();
    for part in relative.split('/') {
        link.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                link.push(char::from(byte));
            } else {
                link.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    link
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "md" | "markdown" => Some(Format::Markdown),
        "html" | "htm" | "xhtml" => Some(Format::Html),
        "txt" | "text" => Some(Format::Text),
        _ => None,
    }
}

/// A file's extension in lower case.
fn kind(path: &Path) -> String {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.unwrap_or_else(|| "no extension".to_owned())
}

fn relative(path: &Path, base: &Path) -> String {
    let path = path.strip_prefix(base).unwrap_or(path);
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Looks at what is configured; what can not be read is reported and left as it is in the index.
fn roots(docs: &DocsConfig, report: &mut SyncReport) -> Vec<Root> {
    let mut roots: Vec<Root> = Vec::new();
    for path in &docs.paths {
        match root(path, report) {
            Ok(root)
                if root.whole
                    && roots.iter().any(|other| other.name == root.name && other.base != root.base) =>
            {
                let reason = format!("another folder is also named {}; rename one of them", root.name);
                report.failed.push((path.clone(), reason));
            }
            Ok(root) => roots.push(root),
            Err(reason) => report.failed.push((path.clone(), reason)),
        }
    }
    roots
}

/// Whether documents of this source are kept in step with one of the configured folders and files.
#[must_use]
pub fn is_watched(docs: &DocsConfig, source: &str) -> bool {
    // One that is away now comes back: it is taken for a folder.
    let named = |path: &PathBuf| path.canonicalize().map_or_else(|_| last_name(path), |path| place(&path).1);
    source.strip_prefix(SOURCE).is_some_and(|wanted| docs.paths.iter().any(|path| named(path) == wanted))
}

/// What paths below are relative to (a folder itself, the folder of a single file), and its name.
fn place(path: &Path) -> (&Path, String) {
    let base = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    (base, last_name(base))
}

fn last_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn root(path: &Path, report: &mut SyncReport) -> Result<Root, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let whole = path.is_dir();
    let (base, name) = place(&path);
    let base = base.to_owned();
    if !whole {
        format_of(&path).ok_or("its extension is none of md, markdown, html, htm, xhtml, txt, text")?;
        return Ok(Root { name, base, files: vec![path], whole });
    }
    let mut files = Vec::new();
    let mut complete = true;
    // Links are not followed: they could lead out of the folder, or around in circles.
    let entries = walkdir::WalkDir::new(&path).sort_by_file_name().into_iter();
    let hidden =
        |entry: &walkdir::DirEntry| entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.');
    for entry in entries.filter_entry(|entry| !hidden(entry)) {
        match entry {
            Ok(entry) if !entry.file_type().is_file() => {}
            Ok(entry) if format_of(entry.path()).is_some() => files.push(entry.into_path()),
            Ok(entry) => *report.others.entry(kind(entry.path())).or_default() += 1,
            Err(error) => {
                complete = false;
                let at = error.path().unwrap_or(&path).to_owned();
                report.failed.push((at, error.to_string()));
            }
        }
    }
    // Nothing is removed on the word of a walk that did not see everything.
    Ok(Root { name, base, files, whole: complete })
}

/// Which groups a folder's pages belong to.
struct GroupRules(Vec<(GlobMatcher, Groups)>);

impl GroupRules {
    fn new(docs: &DocsConfig) -> Result<Self, RetrievalError> {
        let rule = |(glob, names): (&String, &Vec<String>)| {
            let malformed = |problem: String| RetrievalError::Malformed {
                document: format!("docs.folder_groups {glob:?}"),
                problem,
            };
            let matcher = Glob::new(glob).map_err(|error| malformed(error.to_string()))?.compile_matcher();
            let groups = group_names(&names.join(",")).map_err(malformed)?;
            Ok((matcher, groups))
        };
        docs.folder_groups.iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// The groups of every rule that matches, `None` when none does.
    fn of(&self, relative: &str) -> Option<Groups> {
        let mut matching =
            self.0.iter().filter(|(glob, _)| glob.is_match(relative)).map(|(_, groups)| groups);
        let first = matching.next()?.clone();
        // A page under two rules is for those whom both name; nobody at all would be an unreachable page, so then the
        // last rule in the order of the configuration, the most specific by name, holds.
        Some(matching.fold(first, |all, groups| {
            let both: Groups = all.intersection(groups).cloned().collect();
            if both.is_empty() { groups.clone() } else { both }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RetrievalConfig;
    use crate::retrieval::SearchQuery;

    struct Setting {
        folder: tempfile::TempDir,
        _index: tempfile::TempDir,
        library: Library,
        docs: DocsConfig,
    }

    fn setting(files: &[(&str, &str)]) -> Setting {
        let folder = tempfile::tempdir().unwrap();
        let index = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(folder.path(), path, text);
        }
        let library = Library::open(index.path(), &RetrievalConfig::default(), None).unwrap();
        let docs = DocsConfig { paths: vec![folder.path().to_owned()], ..DocsConfig::default() };
        Setting { folder, _index: index, library, docs }
    }

    fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    impl Setting {
        fn sync(&self) -> SyncReport {
            self.library.sync_folders(&self.docs, &mut |_| {}).unwrap()
        }

        fn found(&self, text: &str, groups: Option<&Groups>) -> Vec<String> {
            let found = self.library.search(&SearchQuery { text, groups, k: 10 }).unwrap();
            found.passages.into_iter().map(|passage| passage.text).collect()
        }
    }

    #[test]
    fn files_of_other_kinds_are_counted() {
        let set = setting(&[
            ("a.md", "# A"),
            ("b/Plan.PDF", "%PDF"),
            ("c.pdf", "%PDF"),
            ("LICENSE", "MIT"),
            (".x", ""),
        ]);
        let others = BTreeMap::from([("pdf".to_owned(), 2), ("no extension".to_owned(), 1)]);
        assert_eq!(set.sync(), SyncReport { added: 1, others, ..SyncReport::default() });
    }

    #[test]
    fn only_the_changed_file_is_touched() {
        let set =
            setting(&[("a.md", "# A\n\napples"), ("b/c.html", "<p>bananas</p>"), ("d.txt", "cherries")]);
        assert_eq!(set.sync(), SyncReport { added: 3, ..SyncReport::default() });
        let version = set.library.index_version();
        let record = |library: &Library| {
            let records = library.records().unwrap();
            records
                .into_iter()
                .map(|r| (r.document.id.to_string(), r.document.updated))
                .collect::<HashMap<_, _>>()
        };
        let before = record(&set.library);
        assert_eq!(set.sync(), SyncReport { unchanged: 3, ..SyncReport::default() });
        assert_eq!(set.library.index_version(), version);
        std::thread::sleep(std::time::Duration::from_millis(5));
        write(set.folder.path(), "a.md", "# A\n\napricots");
        assert_eq!(set.sync(), SyncReport { updated: 1, unchanged: 2, ..SyncReport::default() });
        assert_ne!(set.library.index_version(), version);
        let after = record(&set.library);
        assert_eq!(before.iter().filter(|(id, updated)| after[*id] != **updated).count(), 1);
        assert_eq!(set.found("apricots", None), ["apricots"]);
        assert!(set.found("apples", None).is_empty());
    }

    #[test]
    fn a_deleted_file_is_gone_and_documents_from_elsewhere_stay() {
        let set = setting(&[("a.md", "apples"), ("b.md", "bananas")]);
        set.sync();
        let own = Document {
            id: DocumentId::parse("own").unwrap(),
            title: None,
            text: "cherries".into(),
            format: Format::Text,
            url: None,
            groups: None,
            metadata: std::collections::BTreeMap::new(),
        };
        set.library.put(&own).unwrap();
        std::fs::remove_file(set.folder.path().join("a.md")).unwrap();
        assert_eq!(set.sync(), SyncReport { removed: 1, unchanged: 1, ..SyncReport::default() });
        assert!(set.found("apples", None).is_empty());
        assert_eq!(set.found("cherries", None), ["cherries"]);
        // A folder that is not there at this moment keeps its documents.
        let away = DocsConfig { paths: vec![set.folder.path().join("missing")], ..DocsConfig::default() };
        let report = set.library.sync_folders(&away, &mut |_| {}).unwrap();
        assert_eq!((report.removed, report.failed.len()), (0, 1));
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_not_found() {
        let set = setting(&[("a.md", "apples"), ("b.md", "---\ngroups: 3\n---\nbananas")]);
        write(set.folder.path(), "c.md", b"cherries \xff");
        write(set.folder.path(), "d.txt", b"dates \0");
        write(set.folder.path(), ".git/e.md", "eggs");
        write(set.folder.path(), "f.pdf", "figs");
        let report = set.sync();
        assert_eq!((report.added, report.failed.len()), (1, 3));
        assert!(report.failed[0].1.contains("groups"), "{report:?}");
        assert!(report.failed[1].1.contains("UTF-8"), "{report:?}");
        assert!(report.failed[2].1.contains("binary"), "{report:?}");
        assert!(set.found("bananas cherries dates eggs figs", None).is_empty());
        // A public page that becomes unreadable is withdrawn.
        write(set.folder.path(), "a.md", "---\ngroups: [\n---\napples");
        assert_eq!(set.sync().removed, 1);
        assert!(set.found("apples", None).is_empty());
    }

    #[test]
    fn folder_rules_hold_unless_the_page_says_otherwise() {
        let mut set = setting(&[
            ("people/private/pay.md", "salaries"),
            ("people/private/own.md", "---\ngroups: legal\n---\nlawsuits"),
            ("people/open.md", "holidays"),
        ]);
        set.docs.folder_groups.insert("people/private/**".into(), vec!["hr".into()]);
        set.docs.base_url = Some("https://intranet.example/docs/".into());
        set.sync();
        let groups = |name: &str| Groups::from([name.to_owned()]);
        assert_eq!(set.found("salaries lawsuits holidays", Some(&groups("hr"))).len(), 2);
        assert_eq!(set.found("salaries lawsuits", Some(&groups("legal"))), ["lawsuits"]);
        assert_eq!(set.found("salaries lawsuits holidays", Some(&Groups::new())), ["holidays"]);
        // A change of the rules is a change of the documents.
        set.docs.folder_groups.clear();
        assert_eq!(set.sync().updated, 2);
        assert_eq!(set.found("salaries", Some(&Groups::new())), ["salaries"]);
        let (documents, _) = set.library.documents(None, None, 10).unwrap();
        let open = documents.iter().find(|document| document.id.as_str().ends_with("open.md")).unwrap();
        assert_eq!(open.url.as_deref(), Some("https://intranet.example/docs/people/open.md"));
    }

    #[test]
    fn a_single_file_can_be_indexed_without_touching_its_neighbours() {
        let mut set = setting(&[("a.md", "apples"), ("b.md", "bananas")]);
        set.sync();
        write(set.folder.path(), "a.md", "apricots");
        set.docs.paths = vec![set.folder.path().join("a.md")];
        assert_eq!(set.sync(), SyncReport { updated: 1, ..SyncReport::default() });
        assert_eq!(set.found("bananas", None), ["bananas"]);
    }
}
