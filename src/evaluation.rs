//! How good are a model's answers, compared with what people would have said, and is a difference more than chance?
//!
//! Functions over data: who made the answers, and with what, is not known here.

pub mod canary;
pub mod gate;
pub mod metrics;
pub mod report;
pub mod sequential;
pub mod statistics;

pub use report::{Change, Comparing, Comparison, EvaluationError, HumanNll, Metrics, Sample, Summary};
pub use statistics::{Bootstrap, Interval};
