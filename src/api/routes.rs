//! Which address is answered by which handler, and who may call it? The first argument of each handler says who.

use actix_cors::Cors;
use actix_web::http::{Method, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig, delete, get, post, put};

use crate::config::WidgetConfig;

use super::observe::observe;
use super::{
    Context, answers, chat, comparisons, demonstrations, documents, exchange, feedback, generations, health,
    models, openapi, passages, person, runs, scores, search, widget,
};

/// How long a browser may remember that another site is allowed.
const CORS_SECONDS: usize = 3600;

/// Every route, for `App::configure`.
pub fn configure(context: web::Data<Context>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        let scope = web::scope("")
            .wrap(cors(&context.config.access.widget))
            .wrap(from_fn(observe))
            .configure(questions)
            .configure(judgements)
            .configure(knowledge)
            .configure(learning)
            .configure(operations)
            .configure(crate::web::configure);
        app.app_data(context).service(scope);
    }
}

/// Probes and metrics only, for the listener that `telemetry.metrics_listen` names.
pub fn configure_scrapes(context: web::Data<Context>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        let scope = web::scope("")
            .wrap(from_fn(observe))
            .service(web::resource("/livez").route(get().to(health::livez)))
            .service(web::resource("/readyz").route(get().to(health::readyz)))
            .service(web::resource("/metrics").route(get().to(health::metrics_unasked)));
        app.app_data(context).service(scope);
    }
}

fn questions(app: &mut ServiceConfig) {
    app.service(web::resource("/v1/chat/completions").route(post().to(chat::complete)))
        .service(web::resource("/v1/models").route(get().to(models::list)))
        .service(web::resource("/v1/models/{id}").route(get().to(models::get)))
        .service(web::resource("/v1/answers").route(get().to(answers::list)))
        .service(web::resource("/v1/answers/{id}").route(get().to(answers::get)))
        .service(web::resource("/v1/me").route(get().to(person::me)))
        .service(web::resource("/v1/widget/token").route(post().to(widget::token)));
}

fn judgements(app: &mut ServiceConfig) {
    app.service(
        web::resource("/v1/comparisons")
            .route(post().to(comparisons::create))
            .route(get().to(comparisons::list)),
    )
    .service(web::resource("/v1/comparisons/{id}").route(get().to(comparisons::get)))
    .service(web::resource("/v1/comparisons/{id}/vote").route(post().to(comparisons::vote)))
    .service(web::resource("/v1/feedback").route(get().to(feedback::list)))
    .service(
        web::resource("/v1/feedback/{answer_id}")
            .route(put().to(feedback::put))
            .route(get().to(feedback::get)),
    )
    .service(
        web::resource("/v1/demonstrations")
            .route(post().to(demonstrations::create))
            .route(get().to(demonstrations::list)),
    )
    .service(
        web::resource("/v1/demonstrations/{id}")
            .route(get().to(demonstrations::get))
            .route(put().to(demonstrations::put))
            .route(delete().to(demonstrations::delete)),
    )
    .service(web::resource("/v1/demonstrations/{id}/restore").route(post().to(demonstrations::restore)))
    .service(web::resource("/v1/export").route(get().to(exchange::export)))
    .service(web::resource("/v1/import").route(post().to(exchange::import)));
}

fn knowledge(app: &mut ServiceConfig) {
    app.service(web::resource("/v1/search").route(get().to(search::search)))
        .service(web::resource("/v1/passages/{id}").route(get().to(passages::get)))
        .service(web::resource("/v1/documents").route(get().to(documents::list)))
        .service(
            web::resource("/v1/documents/{id}")
                .route(get().to(documents::get))
                .route(put().to(documents::put))
                .route(delete().to(documents::delete)),
        );
}

fn learning(app: &mut ServiceConfig) {
    app.service(web::resource("/v1/score").route(post().to(scores::score)))
        .service(web::resource("/v1/rerank").route(post().to(scores::rerank)))
        .service(web::resource("/v1/runs").route(post().to(runs::create)).route(get().to(runs::list)))
        .service(web::resource("/v1/runs/{id}").route(get().to(runs::get)))
        .service(web::resource("/v1/runs/{id}/cancel").route(post().to(runs::cancel)))
        .service(web::resource("/v1/generations").route(get().to(generations::list)))
        .service(web::resource("/v1/generations/{id}").route(get().to(generations::get)))
        .service(web::resource("/v1/generations/{id}/promote").route(post().to(generations::promote)))
        .service(web::resource("/v1/rollback").route(post().to(generations::rollback)));
}

fn operations(app: &mut ServiceConfig) {
    app.service(web::resource("/livez").route(get().to(health::livez)))
        .service(web::resource("/readyz").route(get().to(health::readyz)))
        .service(web::resource("/health").route(get().to(health::readyz)))
        .service(web::resource("/metrics").route(get().to(health::metrics)))
        .service(web::resource("/openapi.json").route(get().to(openapi::get)));
}

/// Pages of the widget's sites may read responses; nobody else's may.
fn cors(widget: &WidgetConfig) -> Cors {
    let mut cors = Cors::default();
    for origin in &widget.origins {
        cors = cors.allowed_origin(origin);
    }
    cors.allowed_methods([Method::GET, Method::POST, Method::PUT])
        .allowed_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::HeaderName::from_static("x-request-id"),
        ])
        .expose_headers(["x-request-id", "retry-after"])
        .max_age(CORS_SECONDS)
        // Who is not allowed gets no headers; what a request may do is for the handlers to say.
        .block_on_origin_mismatch(false)
}
