//! What does the interface look like to programs? An OpenAPI document, made from the handlers themselves.

use actix_web::HttpResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    answers, chat, comparisons, demonstrations, documents, exchange, feedback, generations, health, models,
    passages, person, runs, scores, search, widget,
};

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Attune",
        description = "Chat for a company's internal knowledge that learns from the people who use it. Chat follows \
                       OpenAI's schema; every error is OpenAI's error object; lists are newest first.",
    ),
    paths(
        chat::complete, models::list, models::get,
        comparisons::create, comparisons::list, comparisons::get, comparisons::vote,
        feedback::put, feedback::get, feedback::list,
        answers::list, answers::get,
        demonstrations::create, demonstrations::list, demonstrations::get, demonstrations::put,
        demonstrations::delete, demonstrations::restore,
        exchange::export, exchange::import,
        runs::create, runs::list, runs::get, runs::cancel,
        scores::score, scores::rerank,
        search::search, passages::get,
        documents::list, documents::get, documents::put, documents::delete,
        generations::list, generations::get, generations::promote, generations::rollback,
        person::me, widget::token,
        health::livez, health::readyz, health::metrics,
    ),
    components(schemas(super::wire::ContentSchema, chat::StopSchema)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "A token of `attune tokens create`, a signed JSON Web Token or a widget token, by the server's access \
             mode; none in mode `open`",
        ));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    }
}

/// The OpenAPI document.
pub(super) async fn get() -> HttpResponse {
    HttpResponse::Ok().json(document())
}
