//! How is a language model trained here? A decoder with a low-rank adapter on candle: fused operations with their own
//! gradients, packed batches, an optimizer and checkpoints that resume exactly, and a sampler.
//!
//! Numbers are f32. A [`Decoder`] is frozen; an [`Adapter`] is what is trained; a [`Batch`] packs sequences without
//! padding, what several of them begin with once.

mod adapter;
mod architecture;
mod attention;
mod batch;
mod checkpoint;
mod decoder;
mod gradients;
mod kernel;
mod logprob;
mod merge;
mod ops;
mod optimizer;
mod packing;
mod reading;
mod rope;
mod sampler;
mod tensors;
mod weights;
#[cfg(test)]
pub(crate) mod tests;

pub use adapter::{Adapter, AdapterShape};
pub use architecture::{Architecture, Family};
pub use attention::Heads;
pub use batch::{Batch, Sequence, Target};
pub use checkpoint::Checkpoint;
pub use decoder::{Decoder, Pass, Scores};
pub use gradients::Gradients;
pub(crate) use gradients::accumulate;
pub use merge::{Merged, merge_folder, merge_gguf};
pub use optimizer::{AdamW, AdamWSettings, Schedule, clip};
pub use packing::{PASS_TOKENS, Packed, Text, pack};
pub(crate) use reading::log_probability;
pub use reading::{Reading, read};
pub use rope::{Pairing, Rope};
pub use sampler::{Completion, SampleRequest, Sampler, Sampling};

/// Why a model could not be trained or run.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The weights can not be read or are not of a family that is known.
    #[error("{path}: {problem}")]
    Weights {
        /// The file or folder.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation")]
    Tensor(#[from] candle_core::Error),
    /// A file can not be read or written.
    #[error("{path}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint does not belong to this model or run.
    #[error("checkpoint {path}: {problem}")]
    Checkpoint {
        /// Which file.
        path: String,
        /// What does not fit.
        problem: String,
    },
}

/// A result of this module.
pub type Result<T, E = NnError> = std::result::Result<T, E>;

/// The linear maps of a layer, in the order in which adapters hold them.
pub const LINEARS: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];
