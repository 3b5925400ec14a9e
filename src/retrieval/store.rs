//! How are documents written, so that a crash loses nothing that was acknowledged and readers never see half a change?
//!
//! One commit of the index is the atom. After it a new [`Snapshot`] replaces the old one by a single pointer store; a
//! query works on the snapshot it took.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tantivy::directory::MmapDirectory;
use tantivy::query::{BooleanQuery, Query, TermQuery, TermSetQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{
    DocAddress, Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
};

use super::RetrievalError;
use super::schema::{DOCUMENT, Fields, Record};
use super::vectors::Vectors;
use crate::domain::{DocumentId, Groups};

/// Memory for documents that wait for a commit. Enough for a batch of documents; the least tantivy takes is 15 MB.
const WRITER_BYTES: usize = 64 << 20;

/// One state of the index, as a query sees it.
pub(super) struct Snapshot {
    pub searcher: Searcher,
    /// Exclusive or of a hash per document: equal content gives an equal version, whatever the order of changes.
    pub version: [u8; 32],
    /// Languages of the passages, as codes.
    pub languages: Vec<String>,
    /// Sentence vectors, one table per segment of the searcher, in its order.
    pub vectors: Vec<Arc<Vectors>>,
}

/// A change of one document.
pub(super) enum Change {
    /// Puts a document in place of what has its id.
    Put(Box<Entries>),
    /// Removes a document.
    Remove(DocumentId),
}

/// A document as it goes into the index.
pub(super) struct Entries {
    pub record: Record,
    pub entries: Vec<TantivyDocument>,
}

impl Change {
    fn id(&self) -> &DocumentId {
        match self {
            Self::Put(entries) => &entries.record.document.id,
            Self::Remove(id) => id,
        }
    }
}

pub(super) struct Store {
    path: PathBuf,
    pub fields: Fields,
    index: Index,
    reader: IndexReader,
    snapshot: ArcSwap<Snapshot>,
    /// `None` after a failed write, until the next one opens it again. Held while a snapshot is replaced.
    writer: Mutex<Option<IndexWriter>>,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, RetrievalError> {
        let unreadable = |source| RetrievalError::Unreadable { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(unreadable)?;
        let damaged = |error: TantivyError| match &error {
            TantivyError::IoError(_) => failure(path, error),
            _ => RetrievalError::Damaged { path: path.to_owned(), problem: error.to_string() },
        };
        let directory = MmapDirectory::open(path).map_err(|error| damaged(error.into()))?;
        let fields = Fields::new();
        let index = Index::open_or_create(directory, fields.schema.clone()).map_err(damaged)?;
        let reader =
            index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into().map_err(damaged)?;
        let snapshot = read_snapshot(&index, &reader, &fields, None)?;
        Ok(Self {
            path: path.to_owned(),
            fields,
            index,
            reader,
            snapshot: ArcSwap::from_pointee(snapshot),
            writer: Mutex::new(None),
        })
    }

    /// The index as it stands.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes changes durable and visible, all or none; the last one of a document counts.
    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), RetrievalError> {
        // A writer is only left behind in a good state: see below.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.commit(&mut writer, changes);
        if result.is_err() {
            // Whatever was not committed goes with the writer.
            *writer = None;
        }
        result.map_err(|error| match error {
            RetrievalError::Index(error) => failure(&self.path, error),
            other => other,
        })
    }

    fn commit(&self, slot: &mut Option<IndexWriter>, changes: Vec<Change>) -> Result<(), RetrievalError> {
        let before = self.snapshot();
        let mut version = before.version;
        let changes: HashMap<DocumentId, Change> =
            changes.into_iter().map(|change| (change.id().clone(), change)).collect();
        let writer = match slot {
            Some(writer) => writer,
            None => slot.insert(self.open_writer()?),
        };
        for (id, change) in changes {
            if let Some((_, old)) = before.record(&self.fields, &id, None)? {
                combine(&mut version, &old);
            }
            writer.delete_term(Term::from_field_text(self.fields.document_id, id.as_str()));
            if let Change::Put(put) = change {
                combine(&mut version, &put.record);
                for entry in put.entries {
                    writer.add_document(entry)?;
                }
            }
        }
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&hex::encode(version));
        prepared.commit()?;
        self.reader.reload()?;
        let snapshot = read_snapshot(&self.index, &self.reader, &self.fields, Some(&before))?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    fn open_writer(&self) -> Result<IndexWriter, TantivyError> {
        // One thread: a commit writes one segment, and analysing is not what takes time.
        self.index.writer_with_num_threads(1, WRITER_BYTES)
    }
}

impl Snapshot {
    /// A document's record and place, when it is visible.
    pub(super) fn record(
        &self,
        fields: &Fields,
        id: &DocumentId,
        groups: Option<&Groups>,
    ) -> Result<Option<(DocAddress, Record)>, RetrievalError> {
        let id = Term::from_field_text(fields.document_id, id.as_str());
        let Some(address) = self.one(&visible(fields, DOCUMENT, groups, Some(id)))? else {
            return Ok(None);
        };
        let entry: TantivyDocument = self.searcher.doc(address)?;
        Ok(Some((address, fields.stored(&entry)?)))
    }

    /// The first entry that matches.
    pub(super) fn one(&self, query: &dyn Query) -> Result<Option<DocAddress>, RetrievalError> {
        let found = self.searcher.search(query, &tantivy::collector::DocSetCollector)?;
        Ok(found.into_iter().next())
    }

    /// Every entry of a kind that is visible.
    pub(super) fn all(
        &self,
        fields: &Fields,
        kind: &str,
        groups: Option<&Groups>,
    ) -> Result<Vec<DocAddress>, RetrievalError> {
        let query = visible(fields, kind, groups, None);
        let found = self.searcher.search(&query, &tantivy::collector::DocSetCollector)?;
        Ok(found.into_iter().collect())
    }

    /// Lower-case hex of the first half of the version; 16 bytes do not collide.
    pub(super) fn version(&self) -> String {
        hex::encode(&self.version[..16])
    }
}

/// The entries of a kind that a member of `groups` may see, and of those the ones with a term.
pub(super) fn visible(
    fields: &Fields,
    kind: &str,
    groups: Option<&Groups>,
    term: Option<Term>,
) -> BooleanQuery {
    let exactly = |term| Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>;
    let mut must = vec![exactly(Term::from_field_text(fields.kind, kind))];
    must.extend(term.map(exactly));
    if let Some(groups) = groups {
        let terms = super::schema::visible_terms(groups);
        must.push(Box::new(TermSetQuery::new(
            terms.iter().map(|name| Term::from_field_text(fields.access, name)),
        )));
    }
    BooleanQuery::intersection(must)
}

fn read_snapshot(
    index: &Index,
    reader: &IndexReader,
    fields: &Fields,
    before: Option<&Snapshot>,
) -> Result<Snapshot, RetrievalError> {
    let searcher = reader.searcher();
    let mut version = [0; 32];
    if let Some(payload) = index.load_metas()?.payload {
        // Only this file writes payloads; another one would mean another program's index, which has another schema.
        let _ = hex::decode_to_slice(payload, &mut version);
    }
    let known: HashMap<_, _> = before
        .map(|before| {
            let segments = before.searcher.segment_readers().iter().map(tantivy::SegmentReader::segment_id);
            segments.zip(before.vectors.iter().cloned()).collect()
        })
        .unwrap_or_default();
    let vectors = searcher
        .segment_readers()
        .iter()
        .map(|segment| match known.get(&segment.segment_id()) {
            Some(vectors) => Ok(Arc::clone(vectors)),
            None => Vectors::read(segment).map(Arc::new),
        })
        .collect::<Result<_, RetrievalError>>()?;
    let languages = terms_of(&searcher, fields.language)?;
    Ok(Snapshot { searcher, version, languages, vectors })
}

fn terms_of(searcher: &Searcher, field: Field) -> Result<Vec<String>, TantivyError> {
    let mut terms = std::collections::BTreeSet::new();
    for segment in searcher.segment_readers() {
        let inverted = segment.inverted_index(field)?;
        let mut stream = inverted.terms().stream()?;
        while stream.advance() {
            terms.insert(String::from_utf8_lossy(stream.key()).into_owned());
        }
    }
    Ok(terms.into_iter().collect())
}

fn combine(version: &mut [u8; 32], record: &Record) {
    let mut hash = Sha256::new();
    let encoder = record.encoder.as_deref().unwrap_or_default();
    for part in [record.document.id.as_str(), &record.fingerprint, &record.splitter, encoder] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    for (byte, hashed) in version.iter_mut().zip(hash.finalize()) {
        *byte ^= hashed;
    }
}

/// A full disk reaches us as the text of some thread's error, so the disk is asked.
fn failure(path: &Path, error: TantivyError) -> RetrievalError {
    let full = tempfile::NamedTempFile::new_in(path).and_then(|mut file| {
        use std::io::Write;
        // More than the last scraps of a full file system.
        file.write_all(&[0; 256 * 1024])?;
        file.as_file().sync_all()
    });
    match full {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => RetrievalError::Full,
        _ => RetrievalError::Index(error),
    }
}
