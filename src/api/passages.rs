//! How is a citation opened?

use actix_web::web;
use serde::Serialize;

use crate::domain::Passage;
use crate::error::Error;
use crate::retrieval::Format;

use super::Context;
use super::blocking::blocking;
use super::error::ErrorBody;
use super::extract::Asker;
use super::render::to_html;

/// A passage as it stands in the index now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PassageView {
    /// The passage.
    #[serde(flatten)]
    passage: Passage,
    /// Its text as sanitised HTML.
    html: String,
}

/// One passage. An id changes with the passage's text: 404 means that the document has changed since, or is gone.
#[utoipa::path(get, path = "/v1/passages/{id}", tag = "knowledge",
    params(("id" = String, Path, description = "Percent-encoded: it contains `#`")),
    responses((status = 200, body = PassageView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    asker: Asker,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<PassageView>, Error> {
    let found = blocking(move || context.library.passage(&id, asker.0.visible_groups())).await?;
    let passage = found.ok_or_else(|| Error::not_found("the passage"))?;
    Ok(web::Json(PassageView { html: to_html(&passage.text, Format::Text), passage }))
}
