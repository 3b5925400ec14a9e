//! What do the words of this product mean? Types without I/O, shared by every other module.

mod access;
mod answer;
mod feedback;
mod generation;
mod ids;
mod message;
mod passage;
mod run;
mod time;

pub use access::{AccessLabel, Groups, Identity, Role};
pub use answer::{
    AnswerRecord, Citation, CitedBy, Comparison, ComparisonSide, FinishReason, Sampling, Timing, TokenUsage,
    Vote,
};
pub use feedback::{
    Choice, Demonstration, DemonstrationSource, DemonstrationStatus, Feedback, Lineage, Rating, Reason,
};
pub use generation::{ActiveRole, GenerationKind, GenerationState};
pub use ids::{AnswerId, ComparisonId, DemonstrationId, DocumentId, GenerationId, InvalidId, RunId};
pub use message::{Author, Message};
pub use passage::{Passage, PassageRef};
pub use run::{
    Outcome, PhaseTime, PolicyOptions, Progress, Run, RunRequest, RunState, Series, SftOptions, Stage,
    Verdict,
};
pub use time::{Millis, now};
