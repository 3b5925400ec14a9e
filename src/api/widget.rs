//! How does a site that embeds the widget get a token for the person who looks at it?

use actix_web::web;
use serde::Deserialize;

use crate::access::{WidgetGrant, WidgetToken};
use crate::domain::Groups;
use crate::error::Error;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Json, Operator};

/// Whom a token is for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WidgetTokenRequest {
    /// The person who looks at the page, as the site knows them.
    user: String,
    /// The person's groups.
    #[serde(default)]
    groups: Groups,
    /// The site: one of `access.widget.origins`.
    origin: String,
}

/// Makes a short-lived token for the widget. Called by the embedding site's server, which knows who looks at its page;
/// the token serves that person in the role employee, on that site's pages only.
#[utoipa::path(post, path = "/v1/widget/token", tag = "people", request_body = WidgetTokenRequest,
    responses((status = 200, body = WidgetToken), (status = "4XX", body = ErrorBody)))]
pub(super) async fn token(
    operator: Operator,
    context: web::Data<Context>,
    Json(request): Json<WidgetTokenRequest>,
) -> Result<web::Json<WidgetToken>, Error> {
    let WidgetTokenRequest { user, groups, origin } = request;
    let token = context.access.widget_token(WidgetGrant { user, groups, origin })?;
    tracing::info!(by = operator.0.user, "widget token made");
    Ok(web::Json(token))
}
