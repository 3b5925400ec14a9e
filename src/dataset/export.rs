//! How do rows leave? As JSON Lines, only those the asker may see.

use std::sync::Arc;

use async_stream::try_stream;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;

use super::{
    rows::Format,
    signals::{self, Rows},
};
use crate::{
    domain::Groups,
    error::{Error, Result},
    ledger::Ledger,
};

/// Lines are sent in chunks of about this size: one per network write.
const CHUNK_BYTES: usize = 64 << 10;

/// Every row of `format` that a member of `groups` may see (`None`: somebody who sees every document,
/// [`crate::domain::Identity::visible_groups`]), as chunks of whole JSON lines. Reads the ledger page by page while it
/// is polled.
///
/// The stream fails when the ledger does, and then ends.
pub fn export(
    ledger: Arc<dyn Ledger>,
    format: Format,
    groups: Option<Groups>,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    try_stream! {
        let groups = groups.as_ref();
        let mut lines = match format {
            Format::Sft => lines(signals::demonstrations(&*ledger), groups),
            Format::Preference => lines(signals::preferences(&*ledger), groups),
            Format::Unpaired => lines(signals::unpaired(&*ledger), groups),
            Format::Prompts => lines(signals::prompts(&*ledger), groups),
        };
        let mut chunk = Vec::new();
        while let Some(line) = lines.next().await {
            chunk.extend(line?);
            chunk.push(b'\n');
            if chunk.len() >= CHUNK_BYTES {
                yield Bytes::from(std::mem::take(&mut chunk));
            }
        }
        if !chunk.is_empty() {
            yield Bytes::from(chunk);
        }
    }
}

fn lines<'a, T: Serialize + Send + 'a>(
    rows: Rows<'a, T>,
    groups: Option<&'a Groups>,
) -> futures::stream::BoxStream<'a, Result<Vec<u8>>> {
    rows.filter_map(move |row| async move {
        match row {
            Ok(row) if !row.context.access.permits(groups) => None,
            Ok(row) => Some(serde_json::to_vec(&row).map_err(Error::internal)),
            Err(error) => Some(Err(error.into())),
        }
    })
    .boxed()
}
