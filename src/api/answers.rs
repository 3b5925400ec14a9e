//! What was asked and answered? The answer log.

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::domain::{AnswerId, AnswerRecord, Feedback, Identity, Rating, Role};
use crate::error::{Error, ErrorCode};
use crate::ledger::AnswerFilter;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Employee, Query};
use super::wire::{List, paging};

/// Which answers to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AnswersQuery {
    /// Only those asked by this person. An employee sees their own anyway.
    user: Option<String>,
    /// Only those with a thumb of this kind.
    rating: Option<Rating>,
    /// Only refusals, or only others.
    refused: Option<bool>,
    /// Only those whose question or answer contains this text, ignoring case.
    q: Option<String>,
    /// Only answers older than the one with this cursor.
    before: Option<String>,
    /// Most answers, 1 to 1000. Default 50.
    limit: Option<usize>,
}

/// An answer with what was said about it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AnswerView {
    /// The answer with its provenance.
    #[serde(flatten)]
    answer: AnswerRecord,
    /// What was said about it; an employee sees their own words only.
    feedback: Vec<Feedback>,
}

/// Lists answers, newest first: to curators all they may see, to an employee their own.
#[utoipa::path(get, path = "/v1/answers", tag = "answers", params(AnswersQuery),
    responses((status = 200, body = List<AnswerView>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    employee: Employee,
    context: web::Data<Context>,
    Query(query): Query<AnswersQuery>,
) -> Result<web::Json<List<AnswerView>>, Error> {
    let AnswersQuery { user, rating, refused, q, before, limit } = query;
    let filter = AnswerFilter { user: whose(&employee.0, user)?, rating, refused, text: q };
    let page = context.ledger.answers(&filter, &paging(before, limit)?).await?;
    let mut data = Vec::with_capacity(page.data.len());
    for answer in page.data.into_iter().filter(|answer| may_see(&employee.0, answer)) {
        data.push(with_feedback(&context, &employee.0, answer).await?);
    }
    Ok(web::Json(List { data, next: page.next }))
}

/// One answer with its provenance and what was said about it.
#[utoipa::path(get, path = "/v1/answers/{id}", tag = "answers", params(("id" = String, Path)),
    responses((status = 200, body = AnswerView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    employee: Employee,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<AnswerView>, Error> {
    let answer = context.ledger.answer(&AnswerId::from_wire(id.as_str())).await?;
    let answer =
        answer.filter(|answer| may_see(&employee.0, answer)).ok_or_else(|| Error::not_found("the answer"))?;
    Ok(web::Json(with_feedback(&context, &employee.0, answer).await?))
}

/// One's own answers, or with the role curator anybody's; and only what one's groups may see.
pub(super) fn may_see(who: &Identity, answer: &AnswerRecord) -> bool {
    (who.role >= Role::Curator || answer.user == who.user) && answer.access.permits(who.visible_groups())
}

fn whose(who: &Identity, wanted: Option<String>) -> Result<Option<String>, Error> {
    if who.role >= Role::Curator {
        return Ok(wanted);
    }
    match wanted {
        Some(user) if user != who.user => {
            Err(Error::new(ErrorCode::Forbidden, "other people's answers need the role curator"))
        }
        _ => Ok(Some(who.user.clone())),
    }
}

async fn with_feedback(context: &Context, who: &Identity, answer: AnswerRecord) -> Result<AnswerView, Error> {
    let mut feedback = context.ledger.feedback_on(&answer.id).await?;
    feedback.retain(|feedback| who.role >= Role::Curator || feedback.user == who.user);
    Ok(AnswerView { answer, feedback })
}
