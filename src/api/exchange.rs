//! How do rows to learn from leave, and come in?

use actix_web::{HttpResponse, web};
use futures::TryStreamExt;
use serde::Deserialize;
use tokio_util::io::StreamReader;

use crate::dataset::{self, Format, Import, ImportReport};
use crate::domain::now;
use crate::error::Error;

use super::Context;
use super::error::{ErrorBody, log};
use super::extract::{Curator, Query};

/// Which rows.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExchangeQuery {
    /// The kind of rows.
    format: Format,
}

/// Exports what people said as JSON Lines in TRL's columns, each row with where it came from; only rows the asker may
/// see. A failure part-way breaks the response off: a whole file ends with the connection closed properly.
#[utoipa::path(get, path = "/v1/export", tag = "learning", params(ExchangeQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = String), (status = "4XX", body = ErrorBody)))]
pub(super) async fn export(
    curator: Curator,
    context: web::Data<Context>,
    Query(ExchangeQuery { format }): Query<ExchangeQuery>,
) -> HttpResponse {
    let groups = curator.0.visible_groups().cloned();
    let rows = dataset::export(context.ledger.clone(), format, groups).inspect_err(log);
    HttpResponse::Ok().content_type("application/x-ndjson").streaming(Box::pin(rows))
}

/// Imports JSON Lines: all of them, or none and the line number of the first error. Of any size; what was imported
/// before adds nothing.
#[utoipa::path(post, path = "/v1/import", tag = "learning", params(ExchangeQuery),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = ImportReport), (status = "4XX", body = ErrorBody)))]
pub(super) async fn import(
    curator: Curator,
    context: web::Data<Context>,
    Query(ExchangeQuery { format }): Query<ExchangeQuery>,
    body: web::Payload,
) -> Result<web::Json<ImportReport>, Error> {
    let reader = StreamReader::new(body.map_err(std::io::Error::other));
    let folder = context.config.data_dir.as_path();
    let import = Import { format, importer: &curator.0.user, folder, now: now() };
    let report = dataset::import(context.ledger.as_ref(), std::pin::pin!(reader), import).await?;
    Ok(web::Json(report))
}
