//! What did people say, as rows to learn from? One conversion, used by export and by training alike.
//!
//! | what people do | row |
//! |---|---|
//! | an approved demonstration (written, imported, or a correction a curator approved) | [`demonstrations`] |
//! | a vote for a side | [`preferences`], margin by strength: 3 → 1, 2 → 2/3, 1 or none said → 1/3 |
//! | an approved correction of an answer | [`preferences`]: the correction over the answer |
//! | a thumb up and a thumb down on answers to one prompt | [`preferences`]: each thumb in at most one pair |
//! | any other thumb | [`unpaired`] |
//! | a vote "both are bad" | [`unpaired`]: two thumbs down |
//! | a tie | none |
//! | a question, answered by the model or demonstrated | [`prompts`] |
//!
//! Imported rows come back as what they were. Rows that say the same (in every column that [`Row`] calls content)
//! come once; blank answers, and pairs of equal texts, never. Every row carries where it came from and who may see
//! it. Only 16 bytes a row are held in memory, and one prompt's thumbs. What one run learns from is a [`snapshot`].

mod export;
mod import;
pub mod judgements;
mod parse;
mod rows;
mod signals;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use export::export;
pub use import::{Import, ImportReport, import};
pub use rows::{
    Context, Format, Origin, Preference, PreferenceRow, Prompt, PromptRow, Row, Sft, SftRow, Source,
    Unpaired, UnpairedRow,
};
pub use signals::{Rows, demonstrations, preferences, prompts, unpaired};
