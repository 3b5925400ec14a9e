//! What do pages need to know of the person and the company?

use actix_web::web;
use serde::Serialize;

use crate::domain::{Groups, Role};

use super::Context;
use super::extract::Asker;

/// The person who asks, and what pages need to know.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Me {
    /// The person's name.
    user: String,
    /// What the person may do.
    role: Role,
    /// The person's groups.
    groups: Groups,
    /// The company's name.
    company: String,
    /// Whom to ask when the knowledge base has no answer.
    whom_to_ask: String,
    /// When two answers are offered.
    comparisons: ComparisonsInfo,
    /// What may be said about answers.
    feedback: FeedbackInfo,
}

/// When two answers are offered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ComparisonsInfo {
    /// The share of questions, 0 to 1.
    share: f32,
}

/// What may be said about answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct FeedbackInfo {
    /// Longest comment in characters.
    max_comment_chars: usize,
    /// Longest ideal answer in characters.
    max_ideal_answer_chars: usize,
}

/// Says who asks.
#[utoipa::path(get, path = "/v1/me", tag = "people", responses((status = 200, body = Me)))]
pub(super) async fn me(asker: Asker, context: web::Data<Context>) -> web::Json<Me> {
    let config = &context.config;
    web::Json(Me {
        user: asker.0.user,
        role: asker.0.role,
        groups: asker.0.groups,
        company: config.prompt.company.clone(),
        whom_to_ask: config.prompt.whom_to_ask.clone(),
        comparisons: ComparisonsInfo { share: config.comparisons.share },
        feedback: FeedbackInfo {
            max_comment_chars: config.feedback.max_comment_chars,
            max_ideal_answer_chars: config.feedback.max_ideal_answer_chars,
        },
    })
}
