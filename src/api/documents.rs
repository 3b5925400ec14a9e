//! How do documents get into the knowledge base, and out of it?

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::domain::{AccessLabel, DocumentId, Groups, Identity};
use crate::error::{Error, ErrorCode};
use crate::retrieval::{Document, Format, PutOutcome, StoredDocument, is_watched};

use super::Context;
use super::blocking::blocking;
use super::error::ErrorBody;
use super::extract::{Curator, LargeJson, Query};
use super::render::to_html;
use super::wire::{List, PageQuery, paging};

/// Longest title in characters: titles are shown in lists and repeated in prompts.
const MAX_TITLE_CHARS: usize = 500;

/// A document to put.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentBody {
    /// Its title; without one, front matter, the first heading or the id serve.
    title: Option<String>,
    /// Its source text.
    text: String,
    /// How the text is written. Default `markdown`.
    #[serde(default)]
    format: Format,
    /// Where people read it (http or https).
    url: Option<String>,
    /// Who may see it: members of any of these. Without it front matter decides, and without that everybody may.
    groups: Option<Groups>,
    /// Anything else worth keeping.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// How to put a document.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PutQuery {
    /// Whether to say what happened. Default true. Either way the document is durable and can be found when the answer
    /// comes, and what is wrong with it is told.
    refresh: Option<bool>,
}

/// What putting a document did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PutResult {
    /// The document.
    id: DocumentId,
    /// What happened; absent with `refresh=false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<PutOutcome>,
}

/// A document, with its text as people see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DocumentView {
    /// The document.
    #[serde(flatten)]
    document: StoredDocument,
    /// Its text as sanitised HTML.
    html: String,
    /// Whether it is kept in step with a folder that this server watches: it is changed and deleted there.
    watched: bool,
}

/// What deleting did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Deleted {
    /// What was deleted.
    pub(super) id: String,
    /// Always true.
    pub(super) deleted: bool,
}

/// Lists documents by id, without their texts.
#[utoipa::path(get, path = "/v1/documents", tag = "knowledge", params(PageQuery),
    responses((status = 200, body = List<StoredDocument>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    curator: Curator,
    context: web::Data<Context>,
    Query(PageQuery { before, limit }): Query<PageQuery>,
) -> Result<web::Json<List<StoredDocument>>, Error> {
    let paging = paging(before, limit)?;
    let page =
        move || context.library.documents(curator.0.visible_groups(), paging.before.as_deref(), paging.limit);
    let (data, next) = blocking(page).await?;
    Ok(web::Json(List { data, next }))
}

/// One document with its text.
#[utoipa::path(get, path = "/v1/documents/{id}", tag = "knowledge", params(("id" = String, Path)),
    responses((status = 200, body = DocumentView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<DocumentView>, Error> {
    let id = DocumentId::parse(&id)?;
    let library = Arc::clone(&context.library);
    let found = blocking(move || library.document(&id, curator.0.visible_groups())).await?;
    let document = found.ok_or_else(|| Error::not_found("the document"))?;
    let html = to_html(document.text.as_deref().unwrap_or_default(), document.format);
    let watched = is_watched(&context.config.docs, &document.source);
    Ok(web::Json(DocumentView { document, html, watched }))
}

/// Adds or replaces a document; it can be found when this returns.
#[utoipa::path(put, path = "/v1/documents/{id}", tag = "knowledge", params(("id" = String, Path), PutQuery),
    request_body = DocumentBody,
    responses((status = 200, description = "Replaced, or unchanged", body = PutResult),
        (status = 201, description = "New", body = PutResult),
        (status = 202, description = "With `refresh=false`", body = PutResult),
        (status = "4XX", body = ErrorBody)))]
pub(super) async fn put(
    curator: Curator,
    context: web::Data<Context>,
    target: (web::Path<String>, Query<PutQuery>),
    LargeJson(body): LargeJson<DocumentBody>,
) -> Result<HttpResponse, Error> {
    let (id, Query(PutQuery { refresh })) = target;
    let document = body.into_document(DocumentId::parse(&id)?)?;
    let id = document.id.clone();
    let outcome = blocking(move || put_if_allowed(&context, &curator.0, &document)).await?;
    if refresh == Some(false) {
        return Ok(HttpResponse::Accepted().json(PutResult { id, outcome: None }));
    }
    let status = if outcome == PutOutcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(HttpResponse::build(status).json(PutResult { id, outcome: Some(outcome) }))
}

/// Deletes a document; no answer uses it any more when this returns.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "knowledge", params(("id" = String, Path)),
    responses((status = 200, body = Deleted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn delete(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<Deleted>, Error> {
    let id = DocumentId::parse(&id)?;
    let deleted = Deleted { id: id.to_string(), deleted: true };
    blocking(move || {
        let document = context.library.document(&id, curator.0.visible_groups())?;
        let document = document.ok_or_else(|| Error::not_found("the document"))?;
        check_owner(&context, &document)?;
        context.library.remove(&id).map_err(Error::from)
    })
    .await?;
    Ok(web::Json(deleted))
}

/// A document that the curator may not see may not be replaced either: that would lift its restriction.
fn put_if_allowed(context: &Context, who: &Identity, document: &Document) -> Result<PutOutcome, Error> {
    let library = &context.library;
    if let Some(old) = library.document(&document.id, None)? {
        if !AccessLabel::of([&old.groups]).permits(who.visible_groups()) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "a document with this id belongs to groups you are not in",
            ));
        }
        check_owner(context, &old)?;
    }
    Ok(library.put(document)?)
}

/// A page of a folder that this server watches is changed in the folder: a change made here would part it from its file,
/// whose later restriction or deletion would then be ignored.
fn check_owner(context: &Context, document: &StoredDocument) -> Result<(), Error> {
    if !is_watched(&context.config.docs, &document.source) {
        return Ok(());
    }
    let problem =
        format!("this page is kept in step with {}; change or delete its file there", document.source);
    Err(Error::new(ErrorCode::Conflict, problem))
}

impl DocumentBody {
    fn into_document(self, id: DocumentId) -> Result<Document, Error> {
        let Self { title, text, format, url, groups, metadata } = self;
        if title
            .as_ref()
            .is_some_and(|title| title.trim().is_empty() || title.chars().count() > MAX_TITLE_CHARS)
        {
            return Err(Error::invalid(
                "title",
                format!("title must have 1 to {MAX_TITLE_CHARS} characters"),
            ));
        }
        if text.trim().is_empty() {
            return Err(Error::invalid("text", "text is empty"));
        }
        let is_web =
            |url: &String| url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !url.as_ref().is_none_or(is_web) {
            return Err(Error::invalid("url", "url must be an http or https address"));
        }
        if groups.iter().flatten().any(|group| group.trim().is_empty()) {
            return Err(Error::invalid("groups", "a group's name is empty"));
        }
        Ok(Document { id, title, text, format, url, groups, metadata })
    }
}
