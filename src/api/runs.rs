//! How are training runs asked for, watched and cancelled?

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use crate::domain::{Run, RunId, RunRequest, RunState, now};
use crate::error::Error;
use crate::jobs;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Curator, Json, Operator, Query};
use super::wire::{List, PageQuery, paging};

/// What became of a run that was to be cancelled.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct Cancelling {
    /// The run.
    id: RunId,
    /// `cancelled`, or `running` while its worker has yet to end it.
    state: RunState,
}

/// Queues a run; a worker takes it up when those before it are over.
#[utoipa::path(post, path = "/v1/runs", tag = "learning", request_body = RunRequest,
    responses((status = 201, body = Run), (status = "4XX", body = ErrorBody)))]
pub(super) async fn create(
    operator: Operator,
    context: web::Data<Context>,
    Json(request): Json<RunRequest>,
) -> Result<HttpResponse, Error> {
    let run = jobs::enqueue(&*context.ledger, &context.config, request, &operator.0.user).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(run))
}

/// Lists runs, newest first, without their curves.
#[utoipa::path(get, path = "/v1/runs", tag = "learning", params(PageQuery),
    responses((status = 200, body = List<Run>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    _curator: Curator,
    context: web::Data<Context>,
    Query(query): Query<PageQuery>,
) -> Result<web::Json<List<Run>>, Error> {
    let page = context.ledger.runs(&paging(query.before, query.limit)?).await?;
    Ok(web::Json(List { data: page.data, next: page.next }))
}

/// One run: how far it is, its curves, and what came of it.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "learning", params(("id" = String, Path)),
    responses((status = 200, body = Run), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    _curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Run>, Error> {
    let run = context.ledger.run(&RunId::from_wire(id.as_str())).await?;
    Ok(web::Json(run.ok_or_else(|| Error::not_found("the run"))?))
}

/// Cancels a run: at once while it waits, at its next step while a worker has it. 409 when it is over.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "learning", params(("id" = String, Path)),
    responses((status = 200, body = Cancelling), (status = "4XX", body = ErrorBody)))]
pub(super) async fn cancel(
    operator: Operator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Cancelling>, Error> {
    let id = RunId::from_wire(id.as_str());
    let state = context.ledger.cancel_run(&id, now()).await?;
    tracing::info!(run = %id, by = %operator.0.user, %state, "a run was cancelled");
    Ok(web::Json(Cancelling { id, state }))
}
