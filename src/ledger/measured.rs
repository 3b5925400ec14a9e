//! How long do writes take? Every call goes on to the ledger inside; those that write are timed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::generations::{Expected, GenerationFilter, GenerationRow, Generations, Moved, Pointer};
use super::runs::{Claim, Held, Renewal, RunEnd, RunReport, Runs, RunsOverview};
use super::{
    AnswerFilter, Counts, ImportItem, ImportedRow, Ledger, Page, Paging, Result, Signals, Thumb, TokenRow,
};
use crate::domain::{
    ActiveRole, AnswerId, AnswerRecord, Comparison, ComparisonId, Demonstration, DemonstrationId,
    DemonstrationStatus, Feedback, GenerationId, Millis, Run, RunId, RunState, Vote,
};
use crate::telemetry::Metrics;

/// A ledger whose writes are observed as `attune_ledger_write_duration_seconds`, failed ones too.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) inner: Arc<dyn Ledger>,
    pub(super) metrics: Metrics,
}

impl Measured {
    async fn write<T>(&self, operation: &str, writing: impl Future<Output = T>) -> T {
        let timer = self.metrics.ledger_write_seconds.with_label_values(&[operation]).start_timer();
        let outcome = writing.await;
        timer.observe_duration();
        outcome
    }
}

/// A trait's writes with the name they are observed under, then its reads: each goes on to the ledger inside.
macro_rules! pass_on {
    (
        $trait:ident
        writes { $( $operation:literal: $write:ident($($w:ident: $w_type:ty),*) -> $written:ty; )* }
        reads { $( $read:ident($($r:ident: $r_type:ty),*) -> $found:ty; )* }
    ) => {
        #[async_trait]
        impl $trait for Measured {
            $( async fn $write(&self, $($w: $w_type),*) -> $written {
                self.write($operation, self.inner.$write($($w),*)).await
            } )*
            $( async fn $read(&self, $($r: $r_type),*) -> $found {
                self.inner.$read($($r),*).await
            } )*
        }
    };
}

pass_on! {
    Ledger
    writes {
        "answer": record_answer(answer: &AnswerRecord) -> Result<()>;
        "comparison": record_comparison(comparison: &Comparison, answers: [&AnswerRecord; 2]) -> Result<()>;
        "vote": put_vote(vote: &Vote) -> Result<()>;
        "lock_votes": lock_votes(snapshot: &str, votes: &[(ComparisonId, String)]) -> Result<u64>;
        "feedback": put_feedback(feedback: &Feedback) -> Result<()>;
        "feedback": delete_feedback(answer: &AnswerId, user: &str) -> Result<bool>;
        "demonstration": put_demonstration(demonstration: &Demonstration) -> Result<()>;
        "demonstration": set_demonstration_deleted(id: &DemonstrationId, deleted: bool) -> Result<bool>;
        "import": import(items: BoxStream<'_, std::io::Result<Vec<ImportItem>>>) -> Result<u64>;
        "token": create_token(token: &TokenRow, secret_sha256: &str) -> Result<()>;
        "token": revoke_token(id: &str, at: Millis) -> Result<bool>;
        "forget": forget_user(user: &str) -> Result<u64>;
    }
    reads {
        answer(id: &AnswerId) -> Result<Option<AnswerRecord>>;
        answers(filter: &AnswerFilter, paging: &Paging) -> Result<Page<AnswerRecord>>;
        restricted(user: &str, said: &str) -> Result<Vec<AnswerRecord>>;
        comparison(id: &ComparisonId) -> Result<Option<Comparison>>;
        comparisons(unvoted_by: Option<&str>, paging: &Paging) -> Result<Page<Comparison>>;
        votes(id: &ComparisonId) -> Result<Vec<Vote>>;
        voted_pairs(paging: &Paging) -> Result<Page<(Vote, Comparison, AnswerRecord, AnswerRecord)>>;
        feedback_on(answer: &AnswerId) -> Result<Vec<Feedback>>;
        feedback(paging: &Paging) -> Result<Page<(Feedback, AnswerRecord)>>;
        thumbs(paging: &Paging) -> Result<Page<Thumb>>;
        demonstration(id: &DemonstrationId) -> Result<Option<Demonstration>>;
        demonstrations(status: Option<DemonstrationStatus>, paging: &Paging) -> Result<Page<Demonstration>>;
        imported(paging: &Paging) -> Result<Page<ImportedRow>>;
        token(secret_sha256: &str) -> Result<Option<TokenRow>>;
        tokens() -> Result<Vec<TokenRow>>;
        secret(name: &str, generate: fn() -> String) -> Result<String>;
        counts() -> Result<Counts>;
        signals_since(at: Millis) -> Result<Signals>;
        ping() -> Result<()>;
        close() -> ();
    }
}

pass_on! {
    Runs
    writes {
        "run": put_run(run: &Run) -> Result<()>;
        "run": claim_run(claim: Claim<'_>) -> Result<Option<Run>>;
        "run": renew_run(held: Held<'_>, until: Millis, report: &RunReport) -> Result<Renewal>;
        "run": release_run(held: Held<'_>, report: &RunReport) -> Result<bool>;
        "run": finish_run(held: Held<'_>, report: &RunReport, end: &RunEnd) -> Result<bool>;
        "run": cancel_run(id: &RunId, at: Millis) -> Result<RunState>;
        "run": abandon_run(owner: &str, reason: &str) -> Result<bool>;
    }
    reads {
        run(id: &RunId) -> Result<Option<Run>>;
        runs(paging: &Paging) -> Result<Page<Run>>;
        runs_overview(at: Millis) -> Result<RunsOverview>;
    }
}

pass_on! {
    Generations
    writes {
        "generation": put_generation(row: &GenerationRow) -> Result<bool>;
        "generation": hold_generation(id: &GenerationId, reasons: &[String]) -> Result<bool>;
        "pointer": move_pointer(to: (ActiveRole, &GenerationId), expected: Expected<'_>, at: Millis) -> Result<Moved>;
        "generation": prune_generation(id: &GenerationId, at: Millis) -> Result<bool>;
    }
    reads {
        generation(id: &GenerationId) -> Result<Option<GenerationRow>>;
        generations(filter: GenerationFilter, paging: &Paging) -> Result<Page<GenerationRow>>;
        pointer(role: ActiveRole) -> Result<Option<Pointer>>;
    }
}
