//! What is learnt from, as numbers? Rows of features for every answer, kept in the folder so that an interrupted run
//! does not read the same answers twice.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::backbone::State;
use super::features::{Row, feature_names};
use super::{Backbone, Extractor, Item, Pair, Preferences, RewardError, Step, Thumb};

/// Items read between two reports of progress: about a second's work.
const TOGETHER: usize = 32;

/// Rows to learn from and to be measured on.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    pub(super) pairs: Vec<&'a Pair>,
    pub(super) thumbs: Vec<&'a Thumb>,
    /// Never learnt from.
    pub(super) held_out: Vec<&'a Pair>,
}

impl<'a> Sample<'a> {
    pub(super) fn of(preferences: &'a Preferences) -> Self {
        let (held_out, pairs) = preferences.pairs.iter().partition(|pair| pair.held_out);
        let thumbs = preferences.thumbs.iter().filter(|thumb| !thumb.held_out).collect();
        Self { pairs, thumbs, held_out }
    }

    /// Every answer: two a pair, chosen first, then thumbs, then what is held out, two a pair.
    pub(super) fn items(&self) -> Vec<Item<'a>> {
        let pairs = self.pairs.iter().flat_map(|pair| pair.items());
        let thumbs = self.thumbs.iter().map(|thumb| thumb.item());
        pairs.chain(thumbs).chain(self.held_out.iter().flat_map(|pair| pair.items())).collect()
    }

    /// How many of [`Sample::items`] are learnt from.
    pub(super) fn training_items(&self) -> usize {
        2 * self.pairs.len() + self.thumbs.len()
    }

    /// The cluster of each pair and then of each thumb.
    pub(super) fn clusters(&self) -> Vec<&'a str> {
        let pairs = self.pairs.iter().map(|pair| pair.cluster.as_str());
        pairs.chain(self.thumbs.iter().map(|thumb| thumb.cluster.as_str())).collect()
    }

    /// Who said it, of each pair and then of each thumb.
    pub(super) fn users(&self) -> Vec<Option<&'a str>> {
        let pairs = self.pairs.iter().map(|pair| pair.user.as_deref());
        pairs.chain(self.thumbs.iter().map(|thumb| thumb.user.as_deref())).collect()
    }
}

/// Features of items, from the folder where they were read before.
pub(super) fn features(
    extractor: &Extractor,
    items: &[Item<'_>],
    folder: &Path,
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Vec<Row>, RewardError> {
    let encoder = extractor.encoder.as_ref().map_or("none", |encoder| encoder.id());
    let version = format!("{encoder}\n{}", feature_names().join("\n"));
    let mut kept = Kept::open(&folder.join("features.bin"), &version, feature_names().len())?;
    let mut rows = Vec::with_capacity(items.len());
    for chunk in items.chunks(TOGETHER) {
        let read = |items: &[Item<'_>]| {
            let rows = extractor.features(items)?;
            Ok(rows.into_iter().map(|row| row.features).collect())
        };
        let found = kept.look_up(chunk, read)?.into_iter().zip(chunk);
        rows.extend(found.map(|(features, item)| Row::of(features, item)));
        let (phase, done, total) = ("reading answers", rows.len() as u64, items.len() as u64);
        if !observe(Step { phase, done, total }) {
            return Err(RewardError::Stopped { phase });
        }
    }
    Ok(rows)
}

/// States of items; or, when reading them would take longer than there is time, the seconds it would take.
pub(super) fn states(
    backbone: &Backbone,
    items: &[Item<'_>],
    (folder, seconds): (&Path, f64),
    observe: &mut impl FnMut(Step) -> bool,
) -> Result<Result<Vec<State>, f64>, RewardError> {
    let mut kept = Kept::open(&folder.join("states.bin"), &backbone.version()?, backbone.state_len())?;
    let mut states: Vec<State> = Vec::with_capacity(items.len());
    let unknown = |kept: &Kept, items: &[Item<'_>]| {
        items.iter().filter(|item| !kept.rows.contains_key(&kept.key(item))).count()
    };
    let (started, mut read, mut left) = (Instant::now(), 0, unknown(&kept, items));
    for chunk in items.chunks(TOGETHER) {
        let new = unknown(&kept, chunk);
        states.extend(kept.look_up(chunk, |items| backbone.states(items))?);
        (read, left) = (read + new, left.saturating_sub(new));
        let spent = started.elapsed().as_secs_f64();
        let needed = spent + spent / read.max(1) as f64 * left as f64;
        if needed > seconds {
            return Ok(Err(needed));
        }
        let (phase, done, total) = ("reading answers with the language model", states.len(), items.len());
        if !observe(Step { phase, done: done as u64, total: total as u64 }) {
            return Err(RewardError::Stopped { phase });
        }
    }
    Ok(Ok(states))
}

/// Rows of earlier calls: records of a key and its numbers, appended; a cut last record is read again.
struct Kept {
    rows: HashMap<[u8; 32], Vec<f64>>,
    file: File,
    path: String,
    /// Names what makes the numbers: another maker has other keys.
    version: [u8; 32],
}

impl Kept {
    fn open(path: &Path, version: &str, numbers: usize) -> Result<Self, RewardError> {
        let name = path.display().to_string();
        let io = |source| RewardError::Io { path: name.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
        let size = 32 + 8 * numbers;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        let whole = bytes.len() / size * size;
        let mut rows = HashMap::new();
        for record in bytes[..whole].chunks_exact(size) {
            let (key, numbers) = record.split_at(32);
            let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
            rows.insert(key.try_into().unwrap_or_default(), numbers.chunks_exact(8).map(number).collect());
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        // Appending goes on behind the last whole record.
        file.set_len(whole as u64).map_err(io)?;
        let version = Sha256::digest(version.as_bytes()).into();
        Ok(Self { rows, file, path: name, version })
    }

    /// Of each item its numbers, read where they are not known.
    fn look_up(
        &mut self,
        items: &[Item<'_>],
        read: impl FnOnce(&[Item<'_>]) -> Result<Vec<Vec<f64>>, RewardError>,
    ) -> Result<Vec<Vec<f64>>, RewardError> {
        let keys: Vec<[u8; 32]> = items.iter().map(|item| self.key(item)).collect();
        let is_known = |key: &[u8; 32]| self.rows.contains_key(key);
        let (new, unknown): (Vec<[u8; 32]>, Vec<Item<'_>>) =
            keys.iter().zip(items).filter(|(key, _)| !is_known(key)).map(|(key, item)| (*key, *item)).unzip();
        for (key, numbers) in new.into_iter().zip(read(&unknown)?) {
            self.add(key, numbers)?;
        }
        Ok(keys.iter().map(|key| self.rows.get(key).cloned().unwrap_or_default()).collect())
    }

    fn key(&self, item: &Item<'_>) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(self.version);
        let said = item.conversation.iter().map(|message| message.content.as_str());
        let texts = said.chain(["passages"]).chain(item.passages.iter().map(String::as_str));
        for text in texts.chain(["answer", item.answer]) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }

    fn add(&mut self, key: [u8; 32], numbers: Vec<f64>) -> Result<(), RewardError> {
        let bytes: Vec<u8> =
            key.into_iter().chain(numbers.iter().flat_map(|value| value.to_le_bytes())).collect();
        let written = self.file.write_all(&bytes);
        written.map_err(|source| RewardError::Io { path: self.path.clone(), source })?;
        self.rows.insert(key, numbers);
        Ok(())
    }
}
