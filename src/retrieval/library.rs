//! What can be done with the company's documents? Put, remove and list, and search in `grounding`; every call blocks.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tantivy::{DocAddress, TantivyDocument, Term};

use super::analysis::{Analyser, language_of};
use super::encoder::SentenceEncoder;
use super::interaction::Memory;
use super::parse::{Parsed, parse};
use super::schema::{DOCUMENT, PASSAGE, Record, StoredPassage, access_terms};
use super::store::{Change, Entries, Snapshot, Store, visible};
use super::{Document, PutOutcome, RetrievalError, StoredDocument, split, vectors};
use crate::config::RetrievalConfig;
use crate::domain::{DocumentId, Groups, Passage, now};

/// `source` of a document that came through the HTTP interface.
const API: &str = "api";

/// The documents and their index. Calls may come from any number of threads: readers never wait, writers take turns.
pub struct Library {
    pub(super) store: Store,
    pub(super) config: RetrievalConfig,
    encoder: Option<Arc<SentenceEncoder>>,
    /// What was read of passages.
    pub(super) memory: Memory,
    /// One walk over the folders at a time.
    pub(super) walking: Mutex<()>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("index_version", &self.index_version()).finish_non_exhaustive()
    }
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Documents.
    pub documents: u64,
    /// Passages.
    pub passages: u64,
    /// Passages that have a sentence vector.
    pub encoded: u64,
}

/// Where a document comes from, and what holds unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// See [`StoredDocument::source`].
    pub source: &'a str,
    /// Groups of a document that names none itself.
    pub groups: Option<&'a Groups>,
}

impl Library {
    /// Opens the index in `dir`, or makes an empty one. With an encoder, passages get a sentence vector when they are
    /// put; without, search is BM25 alone.
    ///
    /// # Errors
    /// When the folder can not be made or read, or its files are damaged or of another version.
    pub fn open(
        dir: &Path,
        config: &RetrievalConfig,
        encoder: Option<Arc<SentenceEncoder>>,
    ) -> Result<Self, RetrievalError> {
        Ok(Self {
            store: Store::open(dir)?,
            config: config.clone(),
            encoder,
            memory: Memory::new(),
            walking: Mutex::new(()),
        })
    }

    /// The sentence model that gives passages their vectors, when there is one.
    #[must_use]
    pub fn encoder(&self) -> Option<Arc<SentenceEncoder>> {
        self.encoder.clone()
    }

    /// The sentence model, when it is searched with.
    pub(super) fn meaning(&self) -> Option<&SentenceEncoder> {
        self.encoder.as_deref().filter(|_| self.config.semantic_weight > 0.0)
    }

    /// Puts a document in place of the one with its id. When it returns, the document is durable and can be found.
    ///
    /// # Errors
    /// When its front matter can not be read, the disk is full, or the index fails; then nothing has changed.
    pub fn put(&self, document: &Document) -> Result<PutOutcome, RetrievalError> {
        let origin = Origin { source: API, groups: None };
        let fingerprint = fingerprint(document, origin);
        let old = self.record(&document.id)?;
        if old.as_ref().is_some_and(|old| self.is_current(old, &fingerprint, API)) {
            return Ok(PutOutcome::Unchanged);
        }
        let entries = self.prepare(document, origin)?;
        self.write(vec![Change::Put(Box::new(entries))])?;
        Ok(if old.is_some() { PutOutcome::Updated } else { PutOutcome::Created })
    }

    /// Puts those documents that are new or changed, in one commit: all of them or none.
    ///
    /// # Errors
    /// As [`Library::put`], for any of them.
    pub fn put_all(&self, documents: &[Document]) -> Result<(), RetrievalError> {
        let origin = Origin { source: API, groups: None };
        let mut changes = Vec::new();
        for document in documents {
            let old = self.record(&document.id)?;
            if old.is_none_or(|old| !self.is_current(&old, &fingerprint(document, origin), API)) {
                changes.push(Change::Put(Box::new(self.prepare(document, origin)?)));
            }
        }
        self.write(changes)
    }

    /// Removes a document; `false` when there was none. When it returns, the document is found no more.
    ///
    /// # Errors
    /// When the disk is full or the index fails.
    pub fn remove(&self, id: &DocumentId) -> Result<bool, RetrievalError> {
        if self.record(id)?.is_none() {
            return Ok(false);
        }
        self.write(vec![Change::Remove(id.clone())])?;
        Ok(true)
    }

    /// A document with its text, when a member of `groups` may see it (`None` sees every document).
    ///
    /// # Errors
    /// When the index fails.
    pub fn document(
        &self,
        id: &DocumentId,
        groups: Option<&Groups>,
    ) -> Result<Option<StoredDocument>, RetrievalError> {
        let (snapshot, fields) = (self.store.snapshot(), &self.store.fields);
        let Some((address, record)) = snapshot.record(fields, id, groups)? else {
            return Ok(None);
        };
        let entry: TantivyDocument = snapshot.searcher.doc(address)?;
        Ok(Some(StoredDocument {
            text: Some(fields.text(&entry, fields.source).to_owned()),
            ..record.document
        }))
    }

    /// Visible documents without their text, the last changed first, and where the next page begins. `after` is what
    /// an earlier call returned as that.
    ///
    /// # Errors
    /// When the index fails, or `after` is not from an earlier call.
    pub fn documents(
        &self,
        groups: Option<&Groups>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<StoredDocument>, Option<String>), RetrievalError> {
        let after = after.map(Cursor::parse).transpose()?;
        let (snapshot, fields) = (self.store.snapshot(), &self.store.fields);
        let mut places = Vec::new();
        for address in snapshot.all(fields, DOCUMENT, groups)? {
            let segment = snapshot.searcher.segment_reader(address.segment_ord);
            let updated = segment.fast_fields().i64("updated")?.first(address.doc_id).unwrap_or_default();
            // Only pages from the cursor's time on can be on this page.
            if after.as_ref().is_none_or(|after| updated <= after.updated) {
                places.push((std::cmp::Reverse(updated), address));
            }
        }
        places.sort_unstable();
        let mut page: Vec<StoredDocument> = Vec::new();
        // Documents of one batch have one time; they are ordered by id, so all of a time are read before it is cut.
        for same_time in places.chunk_by(|a, b| a.0 == b.0) {
            let mut documents = Vec::with_capacity(same_time.len());
            for (_, address) in same_time {
                documents.push(self.read_record(&snapshot, *address)?.document);
            }
            documents.sort_unstable_by(|a, b| a.id.cmp(&b.id));
            page.extend(
                documents
                    .into_iter()
                    .filter(|document| after.as_ref().is_none_or(|after| after.precedes(document))),
            );
            if page.len() > limit {
                break;
            }
        }
        let next = (page.len() > limit && limit > 0).then(|| Cursor::of(&page[limit - 1]).to_string());
        page.truncate(limit);
        Ok((page, next))
    }

    /// A passage by its id, when a member of `groups` may see it.
    ///
    /// # Errors
    /// When the index fails.
    pub fn passage(
        &self,
        passage_id: &str,
        groups: Option<&Groups>,
    ) -> Result<Option<Passage>, RetrievalError> {
        let (snapshot, fields) = (self.store.snapshot(), &self.store.fields);
        let id = Term::from_field_text(fields.passage_id, passage_id);
        match snapshot.one(&visible(fields, PASSAGE, groups, Some(id)))? {
            Some(address) => self.read_passage(&snapshot, address, 0.0).map(Some),
            None => Ok(None),
        }
    }

    /// The version of the index: equal documents, split and encoded equally, give an equal version.
    #[must_use]
    pub fn index_version(&self) -> String {
        self.store.snapshot().version()
    }

    /// How much there is.
    ///
    /// # Errors
    /// When the index fails.
    pub fn stats(&self) -> Result<Stats, RetrievalError> {
        let (snapshot, fields) = (self.store.snapshot(), &self.store.fields);
        let passages = snapshot.all(fields, PASSAGE, None)?;
        let has_vector =
            |place: &&DocAddress| snapshot.vectors[place.segment_ord as usize].get(place.doc_id).is_some();
        Ok(Stats {
            documents: snapshot.all(fields, DOCUMENT, None)?.len() as u64,
            encoded: passages.iter().filter(has_vector).count() as u64,
            passages: passages.len() as u64,
        })
    }

    /// Every document's record.
    pub(super) fn records(&self) -> Result<Vec<Record>, RetrievalError> {
        let snapshot = self.store.snapshot();
        let mut places = snapshot.all(&self.store.fields, DOCUMENT, None)?;
        places.sort_unstable();
        places.into_iter().map(|address| self.read_record(&snapshot, address)).collect()
    }

    /// Whether a document is in the index just as it would be written now.
    pub(super) fn is_current(&self, old: &Record, fingerprint: &str, source: &str) -> bool {
        old.fingerprint == fingerprint
            && old.document.source == source
            && old.splitter == self.splitter()
            && self.encoder.as_ref().is_none_or(|encoder| old.encoder.as_deref() == Some(encoder.id()))
    }

    /// Splits, analyses and encodes a document.
    pub(super) fn prepare(&self, document: &Document, origin: Origin<'_>) -> Result<Entries, RetrievalError> {
        let parsed = parse(document)?;
        let groups = document
            .groups
            .as_ref()
            .or(parsed.groups.as_ref())
            .or(origin.groups)
            .cloned()
            .unwrap_or_default();
        let pieces = split::split(&parsed.sections, self.config.passage_tokens);
        let stored: Vec<StoredPassage> = pieces
            .into_iter()
            .map(|piece| StoredPassage {
                title: parsed.title.clone(),
                heading_path: piece.path,
                url: document.url.clone(),
                text: piece.text,
                groups: groups.clone(),
            })
            .collect();
        let record = Record {
            document: StoredDocument {
                id: document.id.clone(),
                title: parsed.title.clone(),
                text: None,
                format: document.format,
                url: document.url.clone(),
                groups,
                metadata: metadata(document, &parsed),
                updated: now(),
                passages: stored.len() as u64,
                source: origin.source.to_owned(),
            },
            fingerprint: fingerprint(document, origin),
            splitter: self.splitter(),
            encoder: self.encoder.as_ref().map(|encoder| encoder.id().to_owned()),
        };
        let vectors = match &self.encoder {
            Some(encoder) => {
                let texts: Vec<String> = stored
                    .iter()
                    .map(|piece| text_to_encode(&piece.title, &piece.heading_path, &piece.text))
                    .collect();
                encoder.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>())?
            }
            None => Vec::new(),
        };
        let language =
            language_of(&stored.iter().map(|passage| passage.text.as_str()).collect::<Vec<_>>().join("\n"));
        let mut entries = vec![self.document_entry(&record, &document.text)?];
        let mut analyser = Analyser::new(language);
        for (position, passage) in stored.iter().enumerate() {
            let mut entry = self.passage_entry((&record, position), passage, (&mut analyser, language))?;
            if let Some(vector) = vectors.get(position) {
                entry.add_bytes(self.store.fields.vector, &vectors::encode(vector));
            }
            entries.push(entry);
        }
        Ok(Entries { record, entries })
    }

    /// Writes prepared changes in one commit.
    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), RetrievalError> {
        if changes.is_empty() { Ok(()) } else { self.store.write(changes) }
    }

    fn document_entry(&self, record: &Record, source: &str) -> Result<TantivyDocument, RetrievalError> {
        let fields = &self.store.fields;
        let mut entry = TantivyDocument::default();
        entry.add_text(fields.kind, DOCUMENT);
        entry.add_text(fields.document_id, record.document.id.as_str());
        for term in access_terms(&record.document.groups) {
            entry.add_text(fields.access, term);
        }
        entry.add_text(fields.stored, to_json(record)?);
        entry.add_text(fields.source, source);
        entry.add_i64(fields.updated, record.document.updated.0);
        Ok(entry)
    }

    fn passage_entry(
        &self,
        (record, position): (&Record, usize),
        passage: &StoredPassage,
        (analyser, language): (&mut Analyser, &str),
    ) -> Result<TantivyDocument, RetrievalError> {
        let fields = &self.store.fields;
        let digest = hex::encode(&Sha256::digest(&passage.text)[..4]);
        let mut entry = TantivyDocument::default();
        entry.add_text(fields.kind, PASSAGE);
        entry.add_text(fields.document_id, record.document.id.as_str());
        entry.add_text(fields.passage_id, format!("{}#{position}-{digest}", record.document.id));
        for term in access_terms(&passage.groups) {
            entry.add_text(fields.access, term);
        }
        entry.add_text(fields.language, language);
        let title = format!("{}\n{}", passage.title, passage.heading_path.join("\n"));
        entry.add_pre_tokenized_text(fields.title, analyser.tokenized(&title));
        entry.add_pre_tokenized_text(fields.body, analyser.tokenized(&passage.text));
        entry.add_text(fields.stored, to_json(passage)?);
        Ok(entry)
    }

    fn record(&self, id: &DocumentId) -> Result<Option<Record>, RetrievalError> {
        let record = self.store.snapshot().record(&self.store.fields, id, None)?;
        Ok(record.map(|(_, record)| record))
    }

    fn read_record(&self, snapshot: &Snapshot, address: DocAddress) -> Result<Record, RetrievalError> {
        self.store.fields.stored(&snapshot.searcher.doc::<TantivyDocument>(address)?)
    }

    pub(super) fn read_passage(
        &self,
        snapshot: &Snapshot,
        address: DocAddress,
        score: f32,
    ) -> Result<Passage, RetrievalError> {
        let fields = &self.store.fields;
        let entry: TantivyDocument = snapshot.searcher.doc(address)?;
        let StoredPassage { title, heading_path, url, text, groups } = fields.stored(&entry)?;
        let document_id = DocumentId::parse(fields.text(&entry, fields.document_id)).map_err(|error| {
            RetrievalError::Malformed { document: error.value.clone(), problem: error.to_string() }
        })?;
        let passage_id = fields.text(&entry, fields.passage_id).to_owned();
        Ok(Passage { document_id, passage_id, title, heading_path, url, text, score, groups })
    }

    fn splitter(&self) -> String {
        format!("{}:{}", split::VERSION, self.config.passage_tokens)
    }
}

/// Everything that was given, as one hash.
pub(super) fn fingerprint(document: &Document, origin: Origin<'_>) -> String {
    let mut hash = Sha256::new();
    let given = serde_json::to_vec(&(document, origin.groups)).unwrap_or_default();
    hash.update(given);
    hex::encode(hash.finalize())
}

/// What the sentence model reads: a passage out of its page says little.
pub(super) fn text_to_encode(title: &str, heading_path: &[String], text: &str) -> String {
    let mut whole = title.to_owned();
    for heading in heading_path {
        whole.push_str(" > ");
        whole.push_str(heading);
    }
    whole.push('\n');
    whole.push_str(text);
    whole
}

/// What was given wins over what the front matter says.
fn metadata(document: &Document, parsed: &Parsed) -> std::collections::BTreeMap<String, String> {
    let mut metadata = parsed.metadata.clone();
    metadata.extend(document.metadata.clone());
    metadata
}

fn to_json(value: &impl serde::Serialize) -> Result<String, RetrievalError> {
    serde_json::to_string(value).map_err(|error| tantivy::TantivyError::from(error).into())
}

/// Where a page of documents ended.
#[derive(Debug)]
struct Cursor {
    updated: i64,
    id: String,
}

impl Cursor {
    fn of(document: &StoredDocument) -> Self {
        Self { updated: document.updated.0, id: document.id.to_string() }
    }

    fn parse(text: &str) -> Result<Self, RetrievalError> {
        text.split_once('.')
            .and_then(|(updated, id)| Some(Self { updated: updated.parse().ok()?, id: id.to_owned() }))
            .ok_or_else(|| RetrievalError::Cursor)
    }

    /// Whether a document comes after this place.
    fn precedes(&self, document: &StoredDocument) -> bool {
        document.updated.0 < self.updated
            || (document.updated.0 == self.updated && document.id.as_str() > self.id.as_str())
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.updated, self.id)
    }
}

#[cfg(test)]
pub(super) mod tests;
