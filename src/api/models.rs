//! Which models can be asked? `attune`, which is whatever is active, and each loaded generation.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::error::{Error, ErrorCode};

use super::Context;
use super::chat::ACTIVE_MODEL;
use super::error::ErrorBody;
use super::extract::Asker;

/// A model that can be asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Model {
    /// The name to put in `model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Seconds since the epoch: when this server started to serve it.
    created: i64,
    /// Always `attune`.
    owned_by: &'static str,
}

/// The models that can be asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// `attune` first, then the generations, the active one first.
    data: Vec<Model>,
}

/// Lists the models that can be asked.
#[utoipa::path(get, path = "/v1/models", tag = "chat", responses((status = 200, body = ModelList)))]
pub(super) async fn list(_asker: Asker, context: web::Data<Context>) -> HttpResponse {
    HttpResponse::Ok().json(ModelList { object: "list", data: models(&context) })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "chat", params(("id" = String, Path)),
    responses((status = 200, body = Model), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    _asker: Asker,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<HttpResponse, Error> {
    let model = models(&context).into_iter().find(|model| model.id == *id).ok_or_else(|| {
        let message = "this model does not exist or is not loaded; GET /v1/models lists those that are";
        Error { param: Some("model".into()), ..Error::new(ErrorCode::ModelNotFound, message) }
    })?;
    Ok(HttpResponse::Ok().json(model))
}

fn models(context: &Context) -> Vec<Model> {
    let generations = context.chat.generations().into_iter().map(String::from);
    std::iter::once(ACTIVE_MODEL.to_owned())
        .chain(generations)
        .map(|id| Model { id, object: "model", created: context.started.seconds(), owned_by: "attune" })
        .collect()
}
