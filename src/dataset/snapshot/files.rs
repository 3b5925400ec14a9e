//! How is a snapshot kept and read, and how does a file of questions become one?

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    Example, GroundedBy, Grounding, LeftOut, Snapshot, SnapshotError, Summary, grounding::Wanted, line,
};
use super::{Split, split_response};
use crate::{
    dataset::{
        import::{MAX_LINE_BYTES, at_line, text_of},
        parse::{self, Examined},
        rows::Source,
    },
    domain::Lineage,
    error::{Error, Result},
};

/// The folder of snapshots in the data directory.
const FOLDER: &str = "datasets";

impl Snapshot {
    /// Writes the rows to `datasets/<hash>.jsonl` in the data directory, and the summary beside them; both are durable
    /// when it returns. Gives the path of the rows. Blocks.
    ///
    /// # Errors
    /// When the folder can not be written, or the disk is full.
    pub fn write(&self, data_dir: &Path) -> Result<PathBuf> {
        write_rows((data_dir, &self.hash), &self.rows, &self.summary)
    }
}

/// Writes rows under their hash, and a summary beside them; durable when it returns. Blocks.
pub(in crate::dataset) fn write_rows<T: Serialize>(
    (data_dir, hash): (&Path, &str),
    rows: &[T],
    summary: &impl Serialize,
) -> Result<PathBuf> {
    let folder = data_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|source| io("make", &folder, source))?;
    let path = rows_path(data_dir, hash);
    durably(&path, |file| rows.iter().try_for_each(|row| Ok(file.write_all(&line(row)?)?)))?;
    let summary = serde_json::to_vec_pretty(summary).map_err(Error::internal)?;
    durably(&path.with_extension("json"), |file| Ok(file.write_all(&summary)?))?;
    // The names are durable when the folder is.
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|e| io("write", &folder, e))?;
    Ok(path)
}

/// Reads a snapshot by its hash. Blocks.
///
/// # Errors
/// When there is none of this name, or its rows are not those it is named after.
pub fn load(data_dir: &Path, hash: &str) -> Result<Snapshot> {
    let (path, rows) = read_rows(data_dir, hash)?;
    // Only what can not be counted anew comes from the summary.
    let summary: Option<Summary> =
        fs::read(path.with_extension("json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let snapshot = Snapshot::of(rows, summary.unwrap_or_default().left_out)?;
    if snapshot.hash != hash {
        let damaged = |problem: String| SnapshotError::Damaged { path: path.clone(), problem };
        return Err(damaged("its rows are written otherwise than this version writes them".into()).into());
    }
    Ok(snapshot)
}

/// Reads rows by their hash, with the path they were read from. Blocks.
///
/// # Errors
/// When there are none of this name, or they are not those it is named after.
pub(in crate::dataset) fn read_rows<T: DeserializeOwned>(
    data_dir: &Path,
    hash: &str,
) -> Result<(PathBuf, Vec<T>)> {
    let path = rows_path(data_dir, hash);
    // The name comes from outside: it must not lead anywhere else.
    if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) || !path.is_file() {
        return Err(SnapshotError::Unknown(hash.to_owned()).into());
    }
    let text = fs::read(&path).map_err(|source| io("read", &path, source))?;
    let damaged = |problem: String| SnapshotError::Damaged { path: path.clone(), problem };
    let found = hex::encode(Sha256::digest(&text));
    if found != hash {
        return Err(damaged(format!("the SHA-256 of its rows is {found}")).into());
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows = lines
        .map(|line| serde_json::from_slice(line).map_err(|error| damaged(error.to_string()).into()))
        .collect::<Result<Vec<T>>>()?;
    Ok((path, rows))
}

/// Reads a set to examine a model on: JSON Lines with `messages`, `prompt` and `response`, or `question` and `answer`,
/// and optionally `passages` (else they are retrieved), `groups`, `id`, `page` (a document that holds the answer) or
/// `pages`, and `split`. Rows without a split are held out; all others are on the side the file says. Questions of kind
/// `unanswerable` are left out: there is no human answer to compare with. Blocks.
///
/// # Errors
/// When the file can not be read, a line is not valid (the error names the first one's number and column), or the index
/// or the sentence model fails.
pub fn from_file(path: &Path, grounding: &Grounding) -> Result<Snapshot> {
    let unreadable = |error: std::io::Error| {
        Error::invalid("set", format!("{} can not be read: {error}", path.display())).caused_by(error)
    };
    let mut left_out = LeftOut::default();
    let mut wanted = Vec::new();
    let mut hash = Sha256::new();
    let mut lines = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut read = Vec::new();
    for number in 1.. {
        read.clear();
        if lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut read).map_err(unreadable)? == 0 {
            break;
        }
        hash.update(&read);
        let text = text_of(&read, number)?;
        if text.is_empty() {
            continue;
        }
        match parse::examined(text).map_err(|error| at_line(number, error.column, &error.to_string()))? {
            None => left_out.unanswerable += 1,
            Some(row) => wanted.push((number, row)),
        }
    }
    let file_sha256 = hex::encode(hash.finalize());
    let wanted = wanted.into_iter().map(|(line, row)| wish(row, line, &file_sha256)).collect();
    Snapshot::of(grounding.ground(wanted)?, left_out)
}

fn wish(row: Examined, line: u64, file_sha256: &str) -> Wanted {
    let (response, messages) = split_response(&row.body.messages);
    let example = Example {
        id: row.id.unwrap_or_else(|| format!("line-{line}")),
        split: row.split.unwrap_or(Split::HeldOut),
        messages: messages.to_vec(),
        response: response.to_owned(),
        passages: Vec::new(),
        grounded_by: GroundedBy::Nothing,
        access: row.context.access,
        pages: row.pages,
        user: row.context.user.clone(),
        source: Source::Import,
        generation: None,
        created: None,
        lineage: Some(Lineage {
            file_sha256: file_sha256.to_owned(),
            line,
            importer: row.context.user.unwrap_or_default(),
        }),
    };
    Wanted { example, stored: row.context.passages, answered: None }
}

fn rows_path(data_dir: &Path, hash: &str) -> PathBuf {
    data_dir.join(FOLDER).join(format!("{hash}.jsonl"))
}

/// Writes a file under another name, and gives it its own when it is whole and on disk.
fn durably(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<()> {
    let failed = |source| io("write", path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut buffered = std::io::BufWriter::new(file.as_file_mut());
    write(&mut buffered).map_err(|failure| match failure {
        Failure::Io(source) => failed(source),
        Failure::Other(error) => error,
    })?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Why a file was not written.
enum Failure {
    Io(std::io::Error),
    Other(Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    SnapshotError::Io { operation, path: path.to_owned(), source }.into()
}
