//! What of the simulation was done before it was cut off? Lines of JSON that are on the disk before the next step.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SimulateError;

/// A file of JSON lines that is only added to.
#[derive(Debug)]
pub(super) struct Journal<T> {
    path: PathBuf,
    file: File,
    rows: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens a journal, or begins one. A last line that was cut off is forgotten: what it would have said is done
    /// again.
    ///
    /// # Errors
    /// When the file can not be read or written, or a whole line of it is not one of ours.
    pub(super) fn open(path: &Path) -> Result<Self, SimulateError> {
        let io = |source| SimulateError::Io { path: path.to_owned(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut rows = Vec::new();
        for (line, number) in text[..whole].lines().zip(1..) {
            let row = serde_json::from_str(line).map_err(|error| SimulateError::Journal {
                path: path.to_owned(),
                line: number,
                problem: error.to_string(),
            })?;
            rows.push(row);
        }
        file.set_len(whole as u64).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, rows })
    }

    /// Adds a row; it is on the disk when this returns.
    ///
    /// # Errors
    /// When the file can not be written.
    pub(super) fn add(&mut self, row: T) -> Result<(), SimulateError> {
        let io = |source| SimulateError::Io { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&row).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(io)?;
        self.rows.push(row);
        Ok(())
    }

    /// All rows, oldest first.
    pub(super) fn rows(&self) -> &[T] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_again_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        let mut journal = Journal::<(u32, String)>::open(&path).unwrap();
        journal.add((1, "one\nline".into())).unwrap();
        journal.add((2, "two".into())).unwrap();
        drop(journal);
        // As a crash in the middle of a write leaves it.
        File::options().append(true).open(&path).unwrap().write_all(b"[3,\"thr").unwrap();
        let mut again = Journal::<(u32, String)>::open(&path).unwrap();
        assert_eq!(again.rows(), [(1, "one\nline".to_owned()), (2, "two".to_owned())]);
        again.add((4, "four".into())).unwrap();
        let numbers: Vec<u32> =
            Journal::<(u32, String)>::open(&path).unwrap().rows().iter().map(|row| row.0).collect();
        assert_eq!(numbers, [1, 2, 4]);
    }

    #[test]
    fn a_whole_line_that_is_not_ours_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        std::fs::write(&path, "[1,\"one\"]\nnothing\n").unwrap();
        let error = Journal::<(u32, String)>::open(&path).unwrap_err();
        assert!(matches!(error, SimulateError::Journal { line: 2, .. }), "{error}");
        assert!(Journal::<u32>::open(&folder.path().join("no/such/folder")).is_err());
    }
}
