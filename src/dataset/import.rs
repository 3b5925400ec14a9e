//! How does a file of rows come in? All of it or nothing: copied and hashed, checked, then written in one transaction.

use std::{
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
};

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{
    parse::{self, Body},
    rows::{Context, Format, Preference, Prompt, Sft, Unpaired, content_digest},
};
use crate::{
    domain::{
        AccessLabel, Demonstration, DemonstrationId, DemonstrationSource, DemonstrationStatus, Groups,
        Lineage, Message, Millis,
    },
    error::{Error, ErrorCode, Result},
    ledger::{ImportItem, ImportedRow, ImportedSignal, Ledger},
};

/// Longest line: a conversation with its passages is far shorter, and a file without line ends must not fill memory.
pub(super) const MAX_LINE_BYTES: u64 = 16 << 20;
/// Bytes copied at once.
const COPY_BYTES: usize = 64 << 10;
/// Rows handed to the ledger at once.
const BATCH_ROWS: usize = 256;

/// What is imported, by whom, with which room to work in.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// What the lines are.
    pub format: Format,
    /// Who imports.
    pub importer: &'a str,
    /// A folder with room for a temporary copy of the file: the data directory.
    pub folder: &'a Path,
    /// When.
    pub now: Millis,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// Rows in the file that can be learnt from.
    pub rows: u64,
    /// Those of them that were not here before.
    pub new: u64,
    /// Rows left out: questions of another split than `train`, and those the handbook does not answer.
    pub skipped: u64,
}

/// Imports JSON Lines: `messages`, `prompt` and `response`, or `question` and `answer` (sft, at once approved:
/// whoever may import may approve); `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` alone as
/// conversations that share the prompt (preference); `prompt`, `completion` and `label` (unpaired); `prompt`
/// (prompts). Optional: `user`, `passages`, `groups`, `margin`. Unknown columns and empty lines are ignored. The same
/// rows again add nothing, nor bring back what was deleted here.
///
/// # Errors
/// When a line is not valid: the error names the first one's number and column. When the body can not be read, the
/// disk is full, or the ledger fails. Nothing was written then.
pub async fn import(
    ledger: &dyn Ledger,
    reader: impl AsyncRead + Unpin,
    import: Import<'_>,
) -> Result<ImportReport> {
    let (file, file_sha256) = spool(reader, import.folder).await?;
    let reading = Reading {
        file,
        format: import.format,
        lineage: Lineage { file_sha256, line: 0, importer: import.importer.to_owned() },
        now: import.now,
    };
    let (reading, counted) = blocking(move || {
        let mut reading = reading;
        let counted = reading.each(|_| true);
        Ok((reading, counted?))
    })
    .await?;
    let (sender, mut batches) = tokio::sync::mpsc::channel(4);
    let parsing = tokio::task::spawn_blocking(move || send_batches(reading, &sender));
    let new =
        ledger.import(futures::stream::poll_fn(move |context| batches.poll_recv(context)).boxed()).await;
    parsing.await.map_err(Error::internal)?;
    Ok(ImportReport { new: new?, ..counted })
}

/// Copies the body into a file that is gone when it is closed, and hashes it.
async fn spool(mut reader: impl AsyncRead + Unpin, folder: &Path) -> Result<(std::fs::File, String)> {
    let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(folder).map_err(storage)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let length = reader.read(&mut buffer).await.map_err(|error| {
            Error::new(ErrorCode::InvalidRequest, "the file could not be read to its end").caused_by(error)
        })?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        file.write_all(&buffer[..length]).await.map_err(storage)?;
    }
    file.flush().await.map_err(storage)?;
    Ok((file.into_std().await, hex::encode(hash.finalize())))
}

/// The second reading, a batch at a time. Stops early when the ledger gave up.
fn send_batches(mut reading: Reading, sender: &tokio::sync::mpsc::Sender<std::io::Result<Vec<ImportItem>>>) {
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    let result = reading.each(|item| {
        batch.push(item);
        batch.len() < BATCH_ROWS || sender.blocking_send(Ok(std::mem::take(&mut batch))).is_ok()
    });
    let last = match result {
        Ok(_) => Ok(batch),
        Err(error) => Err(std::io::Error::other(error)),
    };
    // When the ledger gave up it says why itself.
    drop(sender.blocking_send(last));
}

/// A file being read.
struct Reading {
    file: std::fs::File,
    format: Format,
    /// Of the file; the line is filled in for each row.
    lineage: Lineage,
    now: Millis,
}

impl Reading {
    /// Calls `take` with each row from the beginning, until it returns `false`. `new` of the report stays 0.
    fn each(&mut self, mut take: impl FnMut(ImportItem) -> bool) -> Result<ImportReport> {
        self.file.rewind().map_err(storage)?;
        let mut lines = BufReader::new(&self.file);
        let mut report = ImportReport::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(storage)? == 0 {
                break;
            }
            let text = text_of(&line, number)?;
            if text.is_empty() {
                continue;
            }
            match parse::row(self.format, text)
                .map_err(|error| at_line(number, error.column, &error.to_string()))?
            {
                None => report.skipped += 1,
                Some(row) => {
                    report.rows += 1;
                    let lineage = Lineage { line: number, ..self.lineage.clone() };
                    if !take(item(row, lineage, self.now)) {
                        break;
                    }
                }
            }
        }
        Ok(report)
    }
}

/// The text of a line without its end and, on the first, the byte order mark.
pub(super) fn text_of(line: &[u8], number: u64) -> Result<&str> {
    if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
        let problem = format!("row: the line is longer than {} MiB", MAX_LINE_BYTES >> 20);
        return Err(at_line(number, "row", &problem));
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        at_line(number, "row", &format!("row: byte {} is not UTF-8", error.valid_up_to() + 1))
    })?;
    let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
    Ok(text.trim())
}

pub(super) fn at_line(number: u64, column: &str, problem: &str) -> Error {
    Error::invalid(column, format!("line {number}: {problem}"))
}

fn item((body, context): (Body, Context), lineage: Lineage, now: Millis) -> ImportItem {
    // The id is the content's, whoever imports it from wherever.
    let id = hex::encode(match &body {
        Body::Sft(body) => content_digest(body, &context),
        Body::Preference(body) => content_digest(body, &context),
        Body::Unpaired(body) => content_digest(body, &context),
        Body::Prompt(body) => content_digest(body, &context),
    });
    let signal = match body {
        Body::Sft(body) => {
            let id = DemonstrationId::from_wire(format!("dem-{id}"));
            return ImportItem::Demonstration(demonstration(id, body, context, (lineage, now)));
        }
        Body::Preference(Preference { prompt, chosen, rejected, margin }) => {
            ImportedSignal::Preference { prompt, chosen: only(chosen), rejected: only(rejected), margin }
        }
        Body::Unpaired(Unpaired { prompt, completion, label }) => {
            ImportedSignal::Unpaired { prompt, completion: only(completion), label }
        }
        Body::Prompt(Prompt { prompt }) => ImportedSignal::Prompt { prompt },
    };
    let Context { user, passages, access } = context;
    ImportItem::Row(ImportedRow {
        id: format!("row-{id}"),
        signal,
        user,
        passages,
        access,
        lineage,
        created: now,
    })
}

fn demonstration(
    id: DemonstrationId,
    body: Sft,
    context: Context,
    (lineage, now): (Lineage, Millis),
) -> Demonstration {
    let Context { user, passages, access } = context;
    let mut messages = body.messages;
    // The parser has seen that the last message is the response.
    let response = messages.pop().map(|message| message.content).unwrap_or_default();
    // One list of groups is what the pages show and edit; several can only come from another export.
    let (groups, access) = match access.clauses() {
        [any_of] => (any_of.clone(), AccessLabel::default()),
        _ => (Groups::new(), access),
    };
    Demonstration {
        id,
        messages,
        response,
        groups,
        access,
        passages,
        source: DemonstrationSource::Import,
        author: user.unwrap_or_else(|| lineage.importer.clone()),
        status: DemonstrationStatus::Approved,
        corrects: None,
        lineage: Some(lineage),
        created: now,
        updated: now,
    }
}

/// The text of a completion, which the parser made of one message.
fn only(completion: Vec<Message>) -> String {
    completion.into_iter().next().map(|message| message.content).unwrap_or_default()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn storage(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::StorageFull {
        Error::new(ErrorCode::StorageFull, "the server's disk is full; nothing was imported").caused_by(error)
    } else {
        Error::internal(error)
    }
}
