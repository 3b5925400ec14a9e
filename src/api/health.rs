//! Is the server alive, can it answer now, and what does it measure?

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde::Serialize;

use crate::error::{Error, ErrorCode};

use super::Context;
use super::error::{ErrorBody, log};
use super::extract::Operator;

/// Whether questions can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet; what is being done.
    Loading(String),
    /// Yes.
    Ready,
    /// Not any more: the server is going down.
    Draining,
}

/// How the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// `alive`, `ready`, `loading`, `draining` or `failing`.
    status: &'static str,
    /// With `?verbose`: each part.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Checks>,
    /// Why it can not answer.
    #[serde(flatten)]
    error: Option<ErrorBody>,
}

/// How each part of the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Checks {
    /// The model: `ok`, or what is being done.
    model: String,
    /// The ledger's database: `ok` or `failing`.
    ledger: &'static str,
    /// The generation that answers.
    generation: Option<String>,
    /// The server's version.
    version: &'static str,
}

/// Says that the process runs. Asks nothing else: a restart does not cure a slow database.
#[utoipa::path(get, path = "/livez", tag = "operations", security(()), responses((status = 200, body = Health)))]
pub(super) async fn livez() -> web::Json<Health> {
    web::Json(Health { status: "alive", checks: None, error: None })
}

/// Says whether questions can be answered now; `?verbose` says more. `/health` is the same.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    params(("verbose" = Option<String>, Query, description = "Present: each part is reported")),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn readyz(request: HttpRequest, context: web::Data<Context>) -> HttpResponse {
    let readiness = context.readiness.borrow().clone();
    let ping = context.ledger.ping().await;
    let checks = is_verbose(&request).then(|| Checks {
        model: match &readiness {
            Readiness::Loading(what) => what.clone(),
            Readiness::Ready | Readiness::Draining => "ok".into(),
        },
        ledger: if ping.is_ok() { "ok" } else { "failing" },
        generation: context.chat.generations().first().map(ToString::to_string),
        version: env!("CARGO_PKG_VERSION"),
    });
    let not_ready = |message: String| Error::new(ErrorCode::NotReady, message);
    let (status, error) = match (readiness, ping) {
        (Readiness::Loading(what), _) => {
            ("loading", Some(not_ready(format!("the server is not ready yet: {what}"))))
        }
        (Readiness::Draining, _) => ("draining", Some(not_ready("the server is going down".into()))),
        (Readiness::Ready, Err(cause)) => {
            ("failing", Some(not_ready("the ledger's database does not answer".into()).caused_by(cause)))
        }
        (Readiness::Ready, Ok(())) => ("ready", None),
    };
    let mut response =
        HttpResponse::build(error.as_ref().map_or(actix_web::http::StatusCode::OK, Error::status_code));
    error.iter().for_each(log);
    response.json(Health { status, checks, error: error.as_ref().map(ErrorBody::from) })
}

fn is_verbose(request: &HttpRequest) -> bool {
    url::form_urlencoded::parse(request.query_string().as_bytes()).any(|(key, _)| key == "verbose")
}

/// What the server measures, in Prometheus' text format. On the main address this needs the role operator; on
/// `telemetry.metrics_listen` nobody is asked.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, content_type = "text/plain", body = String), (status = "4XX", body = ErrorBody)))]
pub(super) async fn metrics(_operator: Operator, context: web::Data<Context>) -> Result<HttpResponse, Error> {
    render(&context)
}

/// [`metrics`] for the listener that only scrapers reach.
pub(super) async fn metrics_unasked(context: web::Data<Context>) -> Result<HttpResponse, Error> {
    render(&context)
}

fn render(context: &Context) -> Result<HttpResponse, Error> {
    let text = context.metrics.render().map_err(Error::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(text))
}
