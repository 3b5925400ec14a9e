//! What is a caller told when something goes wrong? One table from error code to HTTP.

use std::time::Duration;

/// Everything a caller can be told. Modules pick a code; only this table knows HTTP and OpenAI's error types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A field is missing, unknown or out of range.
    InvalidRequest,
    /// No credentials, or wrong ones.
    InvalidCredentials,
    /// The credentials do not allow this.
    Forbidden,
    /// No such thing, or not for this person.
    NotFound,
    /// `model` names no generation that is served.
    ModelNotFound,
    /// The address does not take this HTTP method.
    MethodNotAllowed,
    /// The state does not allow it (anymore).
    Conflict,
    /// The body is larger than allowed.
    TooLarge,
    /// The body's type is not one we read.
    UnsupportedMediaType,
    /// The person's own limit is used up.
    RateLimited,
    /// Every place and every place in the queue is taken.
    QueueFull,
    /// Still loading, or draining.
    NotReady,
    /// The deadline passed before an answer.
    DeadlineExceeded,
    /// The disk is full.
    StorageFull,
    /// Our fault; the log has the chain of causes under the request id.
    Internal,
}

impl ErrorCode {
    /// `(code, OpenAI's error type, HTTP status)`.
    #[must_use]
    pub const fn row(self) -> (&'static str, &'static str, u16) {
        match self {
            Self::InvalidRequest => ("invalid_request", "invalid_request_error", 400),
            Self::InvalidCredentials => ("invalid_api_key", "authentication_error", 401),
            Self::Forbidden => ("forbidden", "permission_error", 403),
            Self::NotFound => ("not_found", "invalid_request_error", 404),
            Self::ModelNotFound => ("model_not_found", "invalid_request_error", 404),
            Self::MethodNotAllowed => ("method_not_allowed", "invalid_request_error", 405),
            Self::Conflict => ("conflict", "invalid_request_error", 409),
            Self::TooLarge => ("request_too_large", "invalid_request_error", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", "invalid_request_error", 415),
            Self::RateLimited => ("rate_limit_exceeded", "rate_limit_error", 429),
            Self::QueueFull => ("queue_full", "rate_limit_error", 429),
            Self::NotReady => ("not_ready", "server_error", 503),
            Self::DeadlineExceeded => ("deadline_exceeded", "server_error", 504),
            Self::StorageFull => ("storage_full", "server_error", 507),
            Self::Internal => ("internal_error", "server_error", 500),
        }
    }
}

/// An error as it reaches a caller: the message is written for the caller, the source for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which row of the table.
    pub code: ErrorCode,
    /// What happened and what to do; never contains secrets or another person's text.
    pub message: String,
    /// The field at fault, if one is.
    pub param: Option<String>,
    /// When to try again, for 429 and 503.
    pub retry_after: Option<Duration>,
    /// The cause, for the log only.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose error can be shown to a caller.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message for the caller.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after: None, source: None }
    }

    /// A field at fault.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(ErrorCode::InvalidRequest, message) }
    }

    /// No such thing, or not for this person.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} was not found"))
    }

    /// Our fault: the caller gets a plain sentence, the log gets the cause.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(
                ErrorCode::Internal,
                "something went wrong on the server; the log has the details under this request's id",
            )
        }
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<crate::domain::InvalidId> for Error {
    fn from(error: crate::domain::InvalidId) -> Self {
        Self::invalid("id", error.to_string())
    }
}

/// The whole chain of causes on one line, for the log and the command line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
