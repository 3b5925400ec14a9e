//! Who may see what a conversation quotes of earlier answers?

use std::collections::BTreeSet;

use crate::domain::{AccessLabel, Author, Groups, Message};
use crate::error::Error;
use crate::ledger::Ledger;

/// The label of those of a person's earlier answers that are said in a conversation: what is answered next may say it
/// again, and whoever reads that answer's record reads them. What a person types is the person's own.
pub(super) async fn access(
    ledger: &dyn Ledger,
    user: &str,
    messages: &[Message],
) -> Result<AccessLabel, Error> {
    let said = |message: &&Message| message.role == Author::Assistant && !message.content.trim().is_empty();
    let texts: BTreeSet<&str> = messages.iter().filter(said).map(|message| message.content.trim()).collect();
    let mut clauses: Vec<Groups> = Vec::new();
    for text in texts {
        let quoted = ledger.restricted(user, text).await?;
        clauses.extend(quoted.iter().flat_map(|answer| answer.access.clauses()).cloned());
    }
    Ok(AccessLabel::of(&clauses))
}
