//! How does an error look to a caller? Always OpenAI's error object, whoever raised it.

use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::error::{Error, ErrorCode, chain};

/// The body of every error response.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong.
    error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ErrorObject {
    /// What happened and what to do, for people.
    message: String,
    /// The kind, as OpenAI names it.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field at fault, if one is.
    param: Option<String>,
    /// The kind, for programs.
    code: &'static str,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        let (code, kind, _) = error.code.row();
        Self { error: ErrorObject { message: error.message.clone(), kind, param: error.param.clone(), code } }
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.row().2).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: sooner than asked for would only be turned away again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.code == ErrorCode::InvalidCredentials {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(ErrorBody::from(self))
    }
}

/// Logs the causes of an error that is our fault, once, at the boundary.
pub(super) fn log(error: &Error) {
    match error.code {
        ErrorCode::Internal => tracing::error!(error = %chain(error), "request failed"),
        ErrorCode::StorageFull => tracing::error!(error = %chain(error), "the disk is full"),
        _ => tracing::debug!(error = %chain(error), "request refused"),
    }
}

/// Gives errors that the web framework raised by itself the body all others have; their status and headers stay.
pub(super) fn uniform(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_error || is_json {
        return response;
    }
    let body = serde_json::to_string(&ErrorBody::from(&framework_error(status))).unwrap_or_default();
    let mut response = response.map_body(|_, _| BoxBody::new(body));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn framework_error(status: StatusCode) -> Error {
    match status {
        StatusCode::NOT_FOUND => {
            Error::new(ErrorCode::NotFound, "there is no such address; see /openapi.json")
        }
        StatusCode::METHOD_NOT_ALLOWED => Error::new(
            ErrorCode::MethodNotAllowed,
            "this address does not take this method; see /openapi.json",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Error::new(ErrorCode::TooLarge, "the body is larger than this server takes")
        }
        status if status.is_client_error() => {
            Error::new(ErrorCode::InvalidRequest, "the request can not be understood")
        }
        _ => Error::new(ErrorCode::Internal, "something went wrong on the server"),
    }
}
