//! What do people say about an answer?

use actix_web::web;
use serde::Serialize;

use crate::domain::{AnswerId, AnswerRecord, Feedback, GenerationId, Rating, Reason};
use crate::error::Error;
use crate::feedback::{self, FeedbackInput};

use super::Context;
use super::error::ErrorBody;
use super::extract::{Asker, Curator, Json, Query};
use super::wire::{List, PageQuery, paging};

/// Feedback with the answer it is about.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct FeedbackView {
    /// What was said.
    #[serde(flatten)]
    feedback: Feedback,
    /// The answer with its provenance.
    about: AnswerRecord,
}

/// A person's feedback on an answer as it stands now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct FeedbackState {
    /// The answer.
    answer: AnswerId,
    /// The thumb, if one is given.
    rating: Option<Rating>,
    /// Why.
    reasons: Vec<Reason>,
    /// Free text.
    comment: Option<String>,
    /// What the answer should have been.
    ideal_answer: Option<String>,
    /// The generations in use that have learnt from it.
    learnt_by: Vec<GenerationId>,
}

impl FeedbackState {
    fn new(answer: AnswerId, feedback: Option<Feedback>, learnt_by: Vec<GenerationId>) -> Self {
        match feedback {
            Some(Feedback { answer, rating, reasons, comment, ideal_answer, .. }) => {
                Self { answer, rating, reasons, comment, ideal_answer, learnt_by }
            }
            None => Self {
                answer,
                rating: None,
                reasons: Vec::new(),
                comment: None,
                ideal_answer: None,
                learnt_by,
            },
        }
    }
}

/// Says whether an answer helped, why, and what it should have been. Saying it again replaces it; `rating: null` takes
/// the thumb back, and so for the other fields; one that is absent stays.
#[utoipa::path(put, path = "/v1/feedback/{answer_id}", tag = "feedback", params(("answer_id" = String, Path)),
    request_body = FeedbackInput, responses((status = 200, body = FeedbackState), (status = "4XX", body = ErrorBody)))]
pub(super) async fn put(
    asker: Asker,
    context: web::Data<Context>,
    answer: web::Path<String>,
    Json(input): Json<FeedbackInput>,
) -> Result<web::Json<FeedbackState>, Error> {
    let answer = AnswerId::from_wire(answer.as_str());
    let kinds = kinds(&input);
    let input = input.checked(&context.config.feedback)?;
    let feedback = feedback::submit(context.ledger.as_ref(), &asker.0, &answer, input).await?;
    for kind in kinds {
        context.metrics.feedback.with_label_values(&[kind]).inc();
    }
    // What was said just now, nobody has learnt yet.
    Ok(web::Json(FeedbackState::new(answer, feedback, Vec::new())))
}

/// The asker's own feedback on an answer; 404 when there is none.
#[utoipa::path(get, path = "/v1/feedback/{answer_id}", tag = "feedback", params(("answer_id" = String, Path)),
    responses((status = 200, body = FeedbackState), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    asker: Asker,
    context: web::Data<Context>,
    answer: web::Path<String>,
) -> Result<web::Json<FeedbackState>, Error> {
    let answer = AnswerId::from_wire(answer.as_str());
    let all = context.ledger.feedback_on(&answer).await?;
    let own = all.into_iter().find(|feedback| feedback.user == asker.0.user);
    let own = own.ok_or_else(|| Error::not_found("your feedback on this answer"))?;
    let learnt_by = context.lineage.learnt_by(&[answer.as_str()]).await?;
    Ok(web::Json(FeedbackState::new(answer, Some(own), learnt_by)))
}

/// Lists everybody's feedback with the answers it is about, newest first.
#[utoipa::path(get, path = "/v1/feedback", tag = "feedback", params(PageQuery),
    responses((status = 200, body = List<FeedbackView>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    curator: Curator,
    context: web::Data<Context>,
    Query(PageQuery { before, limit }): Query<PageQuery>,
) -> Result<web::Json<List<FeedbackView>>, Error> {
    let mut page = context.ledger.feedback(&paging(before, limit)?).await?;
    page.data.retain(|(_, about)| about.access.permits(curator.0.visible_groups()));
    let data = page.data.into_iter().map(|(feedback, about)| FeedbackView { feedback, about }).collect();
    Ok(web::Json(List { data, next: page.next }))
}

/// What was said, for the metrics.
fn kinds(input: &FeedbackInput) -> Vec<&'static str> {
    let rating = input.rating.map(|rating| match rating {
        Some(Rating::Up) => "up",
        Some(Rating::Down) => "down",
        None => "withdrawn",
    });
    let comment = input.comment.iter().flatten().next().map(|_| "comment");
    let ideal_answer = input.ideal_answer.iter().flatten().next().map(|_| "ideal_answer");
    [rating, comment, ideal_answer].into_iter().flatten().collect()
}
