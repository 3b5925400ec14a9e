//! How are ideal answers written, approved, changed and deleted?

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use crate::domain::{
    AccessLabel, AnswerId, Demonstration, DemonstrationId, DemonstrationSource, DemonstrationStatus, Groups,
    Identity, Message, now,
};
use crate::error::Error;

use super::Context;
use super::documents::Deleted;
use super::error::ErrorBody;
use super::extract::{Curator, Json, Query};
use super::wire::{List, WireMessage, conversation, paging};

/// A prompt and its ideal response.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DemonstrationBody {
    /// The question. Needed unless `messages` ends in it.
    prompt: Option<String>,
    /// The ideal response.
    response: String,
    /// The conversation: what came before `prompt`, or without `prompt` the whole of it, the question last.
    messages: Option<Vec<WireMessage>>,
    /// Who may see it: members of any of these. Empty means everybody.
    #[serde(default)]
    groups: Groups,
    /// Texts of the passages it is grounded in; without them they are retrieved when learning.
    passages: Option<Vec<String>>,
    /// Whether it may be learnt from. Default `approved`.
    status: Option<DemonstrationStatus>,
    /// The answer it is better than, when one is written anew: who may see that answer may see it, it is grounded in the
    /// same passages unless `passages` says otherwise, and the two are a preference pair.
    corrects: Option<String>,
}

/// Which demonstrations to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DemonstrationsQuery {
    /// Only those with this status.
    status: Option<DemonstrationStatus>,
    /// Only demonstrations older than the one with this cursor.
    before: Option<String>,
    /// Most demonstrations, 1 to 1000. Default 50.
    limit: Option<usize>,
}

/// Writes an ideal response to a prompt.
#[utoipa::path(post, path = "/v1/demonstrations", tag = "learning", request_body = DemonstrationBody,
    responses((status = 201, body = Demonstration), (status = "4XX", body = ErrorBody)))]
pub(super) async fn create(
    curator: Curator,
    context: web::Data<Context>,
    Json(body): Json<DemonstrationBody>,
) -> Result<HttpResponse, Error> {
    let corrected = match &body.corrects {
        Some(id) => {
            let answer = context.ledger.answer(&AnswerId::from_wire(id)).await?;
            let visible = answer.filter(|answer| super::answers::may_see(&curator.0, answer));
            Some(visible.ok_or_else(|| Error::not_found("the answer that `corrects` names"))?)
        }
        None => None,
    };
    let demonstration = body.into_demonstration(None, &curator.0)?;
    let demonstration = match corrected {
        Some(answer) => demonstration.correcting(&answer),
        None => demonstration,
    };
    context.ledger.put_demonstration(&demonstration).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(demonstration))
}

/// Lists demonstrations, newest first.
#[utoipa::path(get, path = "/v1/demonstrations", tag = "learning", params(DemonstrationsQuery),
    responses((status = 200, body = List<Demonstration>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    curator: Curator,
    context: web::Data<Context>,
    Query(query): Query<DemonstrationsQuery>,
) -> Result<web::Json<List<Demonstration>>, Error> {
    let paging = paging(query.before, query.limit)?;
    let mut page = context.ledger.demonstrations(query.status, &paging).await?;
    page.data.retain(|demonstration| may_see(&curator.0, demonstration));
    Ok(web::Json(List { data: page.data, next: page.next }))
}

/// One demonstration.
#[utoipa::path(get, path = "/v1/demonstrations/{id}", tag = "learning", params(("id" = String, Path)),
    responses((status = 200, body = Demonstration), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Demonstration>, Error> {
    Ok(web::Json(find(&context, &curator.0, &id).await?))
}

/// Replaces a demonstration's text, groups or status; an employee's correction is approved this way.
#[utoipa::path(put, path = "/v1/demonstrations/{id}", tag = "learning", params(("id" = String, Path)),
    request_body = DemonstrationBody,
    responses((status = 200, body = Demonstration), (status = "4XX", body = ErrorBody)))]
pub(super) async fn put(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
    Json(body): Json<DemonstrationBody>,
) -> Result<web::Json<Demonstration>, Error> {
    let old = find(&context, &curator.0, &id).await?;
    if body.corrects.as_deref().is_some_and(|id| old.corrects.as_ref().map(AnswerId::as_str) != Some(id)) {
        return Err(Error::invalid("corrects", "corrects can not be changed; write another demonstration"));
    }
    let demonstration = body.into_demonstration(Some(old), &curator.0)?;
    context.ledger.put_demonstration(&demonstration).await?;
    Ok(web::Json(demonstration))
}

/// Deletes a demonstration; it is never learnt from again, unless it is restored.
#[utoipa::path(delete, path = "/v1/demonstrations/{id}", tag = "learning", params(("id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Deleted>, Error> {
    let demonstration = find(&context, &curator.0, &id).await?;
    context.ledger.set_demonstration_deleted(&demonstration.id, true).await?;
    Ok(web::Json(Deleted { id: demonstration.id.into(), deleted: true }))
}

/// Takes a deletion back.
#[utoipa::path(post, path = "/v1/demonstrations/{id}/restore", tag = "learning", params(("id" = String, Path)),
    responses((status = 200, body = Demonstration), (status = 404, body = ErrorBody)))]
pub(super) async fn restore(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Demonstration>, Error> {
    let known =
        context.ledger.set_demonstration_deleted(&DemonstrationId::from_wire(id.as_str()), false).await?;
    if !known {
        return Err(Error::not_found("the demonstration"));
    }
    Ok(web::Json(find(&context, &curator.0, &id).await?))
}

async fn find(context: &Context, who: &Identity, id: &str) -> Result<Demonstration, Error> {
    let found = context.ledger.demonstration(&DemonstrationId::from_wire(id)).await?;
    found.filter(|found| may_see(who, found)).ok_or_else(|| Error::not_found("the demonstration"))
}

fn may_see(who: &Identity, demonstration: &Demonstration) -> bool {
    let groups = who.visible_groups();
    AccessLabel::of([&demonstration.groups]).permits(groups) && demonstration.access.permits(groups)
}

impl DemonstrationBody {
    /// The demonstration this body asks for: a new one, or `old` with other content. Where it came from, who wrote it
    /// and what it was grounded in stay.
    fn into_demonstration(self, old: Option<Demonstration>, who: &Identity) -> Result<Demonstration, Error> {
        let Self { prompt, response, messages, groups, passages, status, corrects: _ } = self;
        let messages = whole_conversation(prompt, messages)?;
        if response.trim().is_empty() {
            return Err(Error::invalid("response", "response is empty"));
        }
        if groups.iter().any(|group| group.trim().is_empty()) {
            return Err(Error::invalid("groups", "a group's name is empty"));
        }
        let now = now();
        let old = old.unwrap_or_else(|| Demonstration {
            id: DemonstrationId::generate(),
            messages: Vec::new(),
            response: String::new(),
            groups: Groups::new(),
            access: AccessLabel::default(),
            passages: None,
            source: DemonstrationSource::Written,
            author: who.user.clone(),
            status: DemonstrationStatus::Approved,
            corrects: None,
            lineage: None,
            created: now,
            updated: now,
        });
        let status = status.unwrap_or(old.status);
        Ok(Demonstration { messages, response, groups, passages, status, updated: now, ..old })
    }
}

fn whole_conversation(
    prompt: Option<String>,
    messages: Option<Vec<WireMessage>>,
) -> Result<Vec<Message>, Error> {
    let Some(prompt) = prompt else {
        return match messages {
            Some(messages) => conversation(messages),
            None => {
                Err(Error::invalid("prompt", "prompt is missing; it is the question that `response` answers"))
            }
        };
    };
    if prompt.trim().is_empty() {
        return Err(Error::invalid("prompt", "prompt is empty"));
    }
    let mut messages: Vec<Message> = messages.unwrap_or_default().into_iter().map(Message::from).collect();
    let question = Message::user(prompt);
    if messages.last() != Some(&question) {
        messages.push(question);
    }
    Ok(messages)
}
