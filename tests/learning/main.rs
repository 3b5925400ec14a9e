//! Does each stage of the learning loop learn what is planted? On tiny random models, on the CPU, in seconds.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests stop at the first thing that is wrong"
)]

mod planted;
mod policy;
mod reward;
mod sft;
mod tiny;
