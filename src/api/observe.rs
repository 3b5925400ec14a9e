//! What is done with every request? It gets an id and a span, is measured to its last byte, and is answered safely.

use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web;
use bytes::Bytes;
use tracing::Instrument;

use crate::error::Error;
use crate::telemetry::Metrics;

use super::{Context, error};

/// The header that names a request, in both directions.
const REQUEST_ID: &str = "x-request-id";
/// Longest id taken over from a caller: four UUIDs' worth; longer ones are replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The route label of requests that match none.
const UNMATCHED: &str = "<unmatched>";
/// Routes that machines ask every few seconds; measuring them would drown people's requests.
const UNMEASURED: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];
/// What responses other than pages may load: nothing.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The outermost middleware.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(context) = request.app_data::<web::Data<Context>>().cloned() else {
        return Err(Error::internal("the context is missing from the application").into());
    };
    let id = request_id(&request);
    let route = request.match_pattern().unwrap_or_else(|| UNMATCHED.into());
    let method = method_label(request.method());
    let span = tracing::info_span!("request", %id, method, %route);
    let mut measured =
        (!UNMEASURED.contains(&route.as_str())).then(|| Measured::start(&context.metrics, method, route));
    let response = next.call(request).instrument(span.clone()).await?;
    span.in_scope(|| {
        if let Some(error) = response.response().error().and_then(|e| e.as_error::<Error>()) {
            error::log(error);
        }
    });
    let mut response = error::uniform(response.map_into_boxed_body());
    add_headers(&mut response, &id, &context);
    if let Some(measured) = &mut measured {
        measured.status = Some(response.status().as_u16());
    }
    Ok(response.map_body(|_, body| BoxBody::new(Observed { body, span, _measured: measured })))
}

/// The caller's id when it is a plain one, else a new one.
fn request_id(request: &ServiceRequest) -> String {
    let sane = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID_BYTES
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(sane);
    given.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// Methods are free text on the wire; labels are a closed set.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

fn add_headers(response: &mut ServiceResponse<BoxBody>, id: &str, context: &Context) {
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy =
        if is_page { page_policy(&context.config.access.widget.origins) } else { DATA_POLICY.into() };
    let is_call = response.request().path().starts_with("/v1/");
    let headers = response.headers_mut();
    let mut set = |name: header::HeaderName, value: &str| {
        if let Ok(value) = header::HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::HeaderName::from_static(REQUEST_ID), id);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CONTENT_SECURITY_POLICY, &policy);
    if is_call && !headers.contains_key(header::CACHE_CONTROL) {
        // Answers depend on who asks.
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    }
}

/// Pages run their own scripts and styles only, nothing inline, and may be framed by the widget's sites only.
fn page_policy(widget_origins: &[String]) -> String {
    let mut policy = String::from(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    );
    for origin in widget_origins {
        policy.push(' ');
        policy.push_str(origin);
    }
    policy
}

/// Counts a request and its time when dropped: after the response's last byte, or when the client has gone.
struct Measured {
    metrics: Metrics,
    method: &'static str,
    route: String,
    status: Option<u16>,
    started: Instant,
}

impl Measured {
    fn start(metrics: &Metrics, method: &'static str, route: String) -> Self {
        metrics.http_in_flight.inc();
        Self { metrics: metrics.clone(), method, route, status: None, started: Instant::now() }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // 499 as nginx writes it: the client went away before there was a status.
        let status = self.status.unwrap_or(499).to_string();
        self.metrics.http_in_flight.dec();
        self.metrics.http_requests.with_label_values(&[self.method, &self.route, &status]).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.http_request_seconds.with_label_values(&[self.method, &self.route]).observe(seconds);
    }
}

/// A response body polled inside its request's span; when it goes, the request is over.
struct Observed {
    body: BoxBody,
    span: tracing::Span,
    _measured: Option<Measured>,
}

impl MessageBody for Observed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.body).poll_next(cx)
    }
}
