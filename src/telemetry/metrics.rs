//! What is measured? One declared struct; each field's doc comment is the metric's HELP text.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Why a metric could not be declared or written.
#[derive(Debug, thiserror::Error)]
#[error("metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// From a cached prefix on a fast device (1 ms) to a long prompt on a busy laptop (2 minutes).
const FIRST_TOKEN_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 120.0,
];
/// Around the 20 to 30 ms a token takes on 2 cores, with room for accelerators and overload.
const PER_TOKEN_SECONDS: &[f64] =
    &[0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];
/// Whole requests, streams included: up to the default deadline of 300 s.
const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
    300.0,
];
/// Searches take well under a millisecond to tens of milliseconds.
const SEARCH_SECONDS: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5];

/// Declares the struct, registers every field under its name, and takes HELP from the doc comment.
macro_rules! metrics {
    ($( #[doc = $help:literal] $field:ident : $kind:ident ( $name:literal $(, [$($label:literal),*])? $(; $buckets:expr)? ) ),* $(,)?) => {
        /// Every metric of the program. Labels are bounded: route patterns, closed sets of outcomes, generation ids
        /// that are loaded; never a path, a person or a text.
        #[derive(Debug, Clone)]
        pub struct Metrics {
            registry: Registry,
            $( #[doc = $help] pub $field: $kind, )*
        }

        impl Metrics {
            /// Every metric of the program with its labels, for what names them elsewhere: alert rules, dashboards.
            pub const DECLARED: &[(&str, &[&str])] = &[ $( ($name, &[$($($label),*)?]) ),* ];

            /// Declares every metric in a registry of its own, so that several servers can live in one process.
            ///
            /// # Errors
            /// When two metrics have one name.
            pub fn new() -> Result<Self, MetricsError> {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@new $kind, $name, $help.trim() $(, [$($label),*])? $(; $buckets)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $( $field, )* })
            }
        }
    };
    (@new IntCounter, $name:literal, $help:expr) => { IntCounter::new($name, $help) };
    (@new IntGauge, $name:literal, $help:expr) => { IntGauge::new($name, $help) };
    (@new Gauge, $name:literal, $help:expr) => { Gauge::new($name, $help) };
    (@new GaugeVec, $name:literal, $help:expr, [$($label:literal),*]) => {
        GaugeVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@new IntCounterVec, $name:literal, $help:expr, [$($label:literal),*]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@new IntGaugeVec, $name:literal, $help:expr, [$($label:literal),*]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@new Histogram, $name:literal, $help:expr; $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))
    };
    (@new HistogramVec, $name:literal, $help:expr, [$($label:literal),*]; $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])
    };
}

metrics! {
    /// HTTP requests by method, route pattern and status; probes and scrapes are left out.
    http_requests: IntCounterVec("attune_http_requests_total", ["method", "route", "status"]),
    /// Seconds from the first byte of a request to the last of its response, streams included.
    http_request_seconds: HistogramVec("attune_http_request_duration_seconds", ["method", "route"]; REQUEST_SECONDS),
    /// HTTP requests in progress.
    http_in_flight: IntGauge("attune_http_requests_in_flight"),
    /// Answers by outcome: answered, refused (nothing relevant in the knowledge base), cancelled, failed.
    answers: IntCounterVec("attune_answers_total", ["outcome"]),
    /// Seconds from a question's arrival to its answer's last token.
    answer_seconds: Histogram("attune_answer_duration_seconds"; REQUEST_SECONDS),
    /// Seconds from admission to the first token of an answer.
    first_token_seconds: HistogramVec("attune_time_to_first_token_seconds", ["generation"]; FIRST_TOKEN_SECONDS),
    /// Seconds between one token of an answer and the next.
    inter_token_seconds: HistogramVec("attune_inter_token_latency_seconds", ["generation"]; PER_TOKEN_SECONDS),
    /// Tokens by direction: prompt, completion.
    tokens: IntCounterVec("attune_tokens_total", ["direction"]),
    /// Questions waiting for a place.
    queue_waiting: IntGauge("attune_queue_waiting"),
    /// Questions being answered.
    queue_running: IntGauge("attune_queue_running"),
    /// Seconds a question waited for a place.
    queue_seconds: Histogram("attune_queue_wait_seconds"; REQUEST_SECONDS),
    /// Questions turned away by reason: `queue_full`, `user_in_flight`, `user_rate`, `queue_timeout`, `draining`.
    rejected: IntCounterVec("attune_rejected_total", ["reason"]),
    /// Seconds a search took.
    search_seconds: Histogram("attune_search_duration_seconds"; SEARCH_SECONDS),
    /// Searches by outcome: found, nothing.
    searches: IntCounterVec("attune_searches_total", ["outcome"]),
    /// Citations shown, by who chose them: model, overlap.
    citations: IntCounterVec("attune_citations_total", ["by"]),
    /// Citation marks that named no retrieved passage and were dropped.
    citations_invalid: IntCounter("attune_citations_invalid_total"),
    /// Feedback by kind: up, down, withdrawn, comment, `ideal_answer`.
    feedback: IntCounterVec("attune_feedback_total", ["kind"]),
    /// Comparisons by outcome: offered, left, right, tie, `both_bad`, identical (no pair could be made).
    comparisons: IntCounterVec("attune_comparisons_total", ["outcome"]),
    /// Documents in the index.
    index_documents: IntGauge("attune_index_documents"),
    /// Passages in the index.
    index_passages: IntGauge("attune_index_passages"),
    /// When the index last agreed with every configured folder, in seconds since the epoch; 0 is never.
    index_synced: IntGauge("attune_index_last_success_timestamp_seconds"),
    /// Files that could not be indexed when a folder was walked; the log names them.
    index_errors: IntCounter("attune_index_errors_total"),
    /// The generations that are loaded: 1 for the active one, 0 for others; old ones go when their last answer ends.
    generation_info: IntGaugeVec("attune_generation_info", ["generation"]),
    /// Answers in progress by generation.
    generation_in_flight: IntGaugeVec("attune_generation_in_flight", ["generation"]),
    /// Swaps of the served generation by outcome: committed, refused.
    swaps: IntCounterVec("attune_swaps_total", ["outcome"]),
    /// Seconds it took to verify, load and check a generation.
    swap_prepare_seconds: Histogram("attune_swap_prepare_duration_seconds"; REQUEST_SECONDS),
    /// Generations that were not used because a file of theirs is missing, cut short or changed.
    verification_failures: IntCounter("attune_generation_verification_failures_total"),
    /// When the active generation was promoted, in seconds since the epoch.
    generation_promoted: IntGauge("attune_generation_promoted_timestamp_seconds"),
    /// 1 while the active generation is not the one this server serves, else 0.
    generation_unserved: IntGauge("attune_generation_unserved"),
    /// Seconds a ledger write took, by operation.
    ledger_write_seconds: HistogramVec("attune_ledger_write_duration_seconds", ["operation"]; SEARCH_SECONDS),
    /// 1 while a generation that was promoted by itself is watched, else 0.
    live_watched: IntGauge("attune_live_watched"),
    /// Generations that people liked less and that were rolled back by themselves.
    live_rollbacks: IntCounter("attune_live_rollbacks_total"),
    /// Answers scored by the reward model.
    scores: IntCounter("attune_scores_total"),
    /// Seconds it took to score the answers of one call.
    score_seconds: Histogram("attune_score_duration_seconds"; REQUEST_SECONDS),
    /// The active reward model: always 1.
    reward_info: IntGaugeVec("attune_reward_info", ["generation"]),
    /// Share of held-out choices that the active reward model gets right; 0 before the first.
    reward_accuracy: Gauge("attune_reward_accuracy_ratio"),
    /// Lower end of that share's 95% interval.
    reward_accuracy_lower: Gauge("attune_reward_accuracy_lower_ratio"),
    /// How far the active reward model's probabilities are from what happened (expected calibration error).
    reward_calibration_error: Gauge("attune_reward_calibration_error_ratio"),
    /// Share of held-out choices in which the active reward model prefers what the one before did; 1 without one.
    reward_agreement: Gauge("attune_reward_agreement_ratio"),
    /// Choices and thumbs the active reward model learnt from.
    reward_signals: IntGauge("attune_reward_signals"),
    /// Signals (choices, thumbs, approved ideal answers, imported rows) since the last run that learnt from them.
    signals_unlearnt: IntGauge("attune_signals_unlearnt"),
    /// When the oldest of them was given, in seconds since the epoch; 0 when there is none.
    signals_unlearnt_since: IntGauge("attune_signals_unlearnt_since_timestamp_seconds"),
    /// Training runs by stage and state, of every server on the database.
    runs: IntGaugeVec("attune_runs", ["stage", "state"]),
    /// How much of its present phase the run being worked on has done, 0 to 1; absent when none is.
    run_progress: GaugeVec("attune_run_progress_ratio", ["stage"]),
    /// Seconds the last run that ended with a generation took, from the moment a worker took it up.
    run_duration_seconds: GaugeVec("attune_run_last_duration_seconds", ["stage"]),
    /// When a run last ended well, with or without enough to learn from, in seconds since the epoch; absent is never.
    run_last_success: IntGaugeVec("attune_run_last_success_timestamp_seconds", ["stage"]),
    /// When the worker of the run being worked on was last heard of, in seconds since the epoch; 0 when none is.
    run_heartbeat: IntGauge("attune_run_heartbeat_timestamp_seconds"),
    /// Tokens a second the run being worked on trains on; 0 when it does not say.
    training_tokens_per_second: Gauge("attune_training_tokens_per_second"),
    /// 1 while a worker process of this server is at work.
    worker_up: IntGauge("attune_worker_up"),
    /// Worker processes of this server that are gone, by how: ended, failed.
    worker_exits: IntCounterVec("attune_worker_exits_total", ["outcome"]),
    /// Always 1; the labels say which build runs.
    build_info: IntGaugeVec("attune_build_info", ["version"]),
    /// 1 when the server can answer, else 0.
    ready: IntGauge("attune_ready"),
}

impl Metrics {
    /// Adds what the operating system knows of this process (memory, CPU, files), where it does.
    ///
    /// # Errors
    /// When it was added before.
    pub fn with_process(self) -> Result<Self, MetricsError> {
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(self)
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn render(&self) -> Result<String, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_come_from_the_doc_comments() {
        let metrics = Metrics::new().unwrap();
        metrics.citations_invalid.inc();
        let text = metrics.render().unwrap();
        assert!(text.contains(
            "# HELP attune_citations_invalid_total Citation marks that named no retrieved passage and were dropped."
        ));
        assert!(text.contains("attune_citations_invalid_total 1"));
    }
}
