//! How do operators see what happens? Metrics and logs.

mod logs;
mod metrics;

pub use logs::{LogError, init};
pub use metrics::{Metrics, MetricsError};
