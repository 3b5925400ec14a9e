//! How do handlers get who asks, the body and the query, each checked before the handler runs?

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;

use crate::access::{Caller, Credentials, Scope};
use crate::domain::{Identity, Role};
use crate::error::{Error, ErrorCode};

use super::Context;

macro_rules! person {
    ($(#[$doc:meta])* $name:ident, $role:expr, $scope:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(pub(super) Identity);

        impl FromRequest for $name {
            type Error = Error;
            type Future = LocalBoxFuture<'static, Result<Self, Error>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                async move { Ok(Self(authorise(&request, $role, $scope).await?)) }.boxed_local()
            }
        }
    };
}

person!(
    /// Anybody recognised, also through the widget: chat, compare, give feedback, open a citation.
    Asker,
    Role::Employee,
    Scope::Widget
);
person!(
    /// Anybody recognised, but not through the widget.
    Employee,
    Role::Employee,
    Scope::Full
);
person!(
    /// Who looks after knowledge and judgements.
    Curator,
    Role::Curator,
    Scope::Full
);
person!(
    /// Who runs the server.
    Operator,
    Role::Operator,
    Scope::Full
);

async fn authorise(request: &HttpRequest, role: Role, scope: Scope) -> Result<Identity, Error> {
    let context = context(request)?;
    let proxy = &context.config.access.proxy;
    let sent = |name: &str| request.headers().get(name);
    let text = |name: &str| sent(name).and_then(|value| value.to_str().ok());
    let bytes = |name: &str| sent(name).map(HeaderValue::as_bytes);
    let credentials = Credentials {
        authorization: text("authorization"),
        proxy_user: bytes(&proxy.user_header),
        proxy_groups: bytes(&proxy.groups_header),
        forwarded_host: text("x-forwarded-host"),
        host: text("host"),
        // An origin that is no text is no origin we know.
        origin: request.headers().get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null")),
        peer: request.peer_addr().map(|address| address.ip()),
        changes_state: !request.method().is_safe(),
    };
    let Caller { identity, scope: granted } = context.access.authenticate(&credentials).await?;
    if granted == Scope::Widget && scope == Scope::Full {
        return Err(Error::new(ErrorCode::Forbidden, "the widget may not do this"));
    }
    if identity.role < role {
        return Err(Error::new(
            ErrorCode::Forbidden,
            format!("this needs the role {role}; yours is {}", identity.role),
        ));
    }
    Ok(identity)
}

fn context(request: &HttpRequest) -> Result<&web::Data<Context>, Error> {
    request.app_data().ok_or_else(|| Error::internal("the context is missing from the application"))
}

/// A JSON body up to `server.max_body_bytes`; the error names the field at fault.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest for Json<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        async move {
            let limit = context(&request)?.config.server.max_body_bytes;
            read_json(request.headers(), payload, limit).await.map(Self)
        }
        .boxed_local()
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub(super) struct OptionalJson<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest for OptionalJson<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        async move {
            let limit = context(&request)?.config.server.max_body_bytes;
            let body = read_body(request.headers(), payload, limit).await?;
            if body.is_empty() {
                return Ok(Self(T::default()));
            }
            check_headers(request.headers())?;
            parse_json(&body).map(Self)
        }
        .boxed_local()
    }
}

/// A JSON body up to `server.max_document_bytes`.
#[derive(Debug)]
pub(super) struct LargeJson<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest for LargeJson<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        async move {
            let limit = context(&request)?.config.server.max_document_bytes;
            read_json(request.headers(), payload, limit).await.map(Self)
        }
        .boxed_local()
    }
}

async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    payload: Payload,
    limit: usize,
) -> Result<T, Error> {
    check_headers(headers)?;
    parse_json(&read_body(headers, payload, limit).await?)
}

/// Fails unless the body is plain JSON.
fn check_headers(headers: &HeaderMap) -> Result<(), Error> {
    let kind =
        headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default().to_ascii_lowercase());
    let is_json = |kind: &str| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence == "application/json" || essence.ends_with("+json")
    };
    if kind.is_some_and(|kind| !is_json(&kind)) {
        return Err(Error::new(
            ErrorCode::UnsupportedMediaType,
            "send JSON, with content-type: application/json",
        ));
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Error::new(ErrorCode::UnsupportedMediaType, "send the body without content-encoding"));
    }
    Ok(())
}

/// Reads a body of at most `limit` bytes.
async fn read_body(headers: &HeaderMap, mut payload: Payload, limit: usize) -> Result<Vec<u8>, Error> {
    let too_large = || {
        Error::new(ErrorCode::TooLarge, format!("the body is larger than the {limit} bytes this call takes"))
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.unwrap_or_default());
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            Error::new(ErrorCode::InvalidRequest, "the body broke off")
                .caused_by(std::io::Error::other(error))
        })?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Parses JSON; the error names the field at fault.
fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let (path, problem) = (error.path().to_string(), error.inner().to_string());
        match error.inner().classify() {
            serde_json::error::Category::Data => field_error(&path, &problem),
            _ => Error::new(ErrorCode::InvalidRequest, format!("the body is not valid JSON: {problem}")),
        }
    })?;
    parser.end().map_err(|error| {
        Error::new(ErrorCode::InvalidRequest, format!("the body is not valid JSON: {error}"))
    })?;
    Ok(value)
}

/// A query string; the error names the key at fault.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = url::form_urlencoded::parse(request.query_string().as_bytes());
        let parsed = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
        ready(
            parsed
                .map(Self)
                .map_err(|error| field_error(&error.path().to_string(), &error.inner().to_string())),
        )
    }
}

/// An error that names the field: where the parser stood, and for a missing or unknown field its name, which the
/// parser puts in backticks.
fn field_error(path: &str, problem: &str) -> Error {
    let named = problem
        .strip_prefix("missing field `")
        .or_else(|| problem.strip_prefix("unknown field `"))
        .or_else(|| problem.strip_prefix("duplicate field `"))
        .and_then(|rest| rest.split('`').next());
    let parent = Some(path).filter(|path| !path.is_empty() && *path != "." && *path != "?");
    let field = match (parent, named) {
        // The path of an unknown field already ends in it.
        (Some(path), Some(name)) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (Some(path), Some(name)) => format!("{path}.{name}"),
        (Some(path), None) => path.to_owned(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => return Error::new(ErrorCode::InvalidRequest, problem),
    };
    let message = format!("{field}: {problem}");
    Error::invalid(field, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "k")]
        _k: u8,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(rename = "name")]
        _name: String,
        #[serde(rename = "inner", default)]
        _inner: Vec<Inner>,
    }

    #[test]
    fn a_json_error_names_the_field() {
        for (body, param) in [
            (r#"{"inner":[]}"#, Some("name")),
            (r#"{"name":7}"#, Some("name")),
            (r#"{"name":"a","name":"b"}"#, Some("name")),
            (r#"{"name":"a","inner":[{"k":300}]}"#, Some("inner[0].k")),
            (r#"{"name":"a","inner":[{}]}"#, Some("inner[0].k")),
            (r#"{"name":"a","inner":[{"k":1,"l":1}]}"#, Some("inner[0].l")),
            ("[]", None),
            ("{", None),
            ("", None),
            (r#"{"name":"a"} x"#, None),
        ] {
            let error = parse_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (ErrorCode::InvalidRequest, param),
                "{body}: {error}"
            );
        }
        let error = parse_json::<Outer>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert!(error.message.contains("not valid JSON"), "{error}");
    }

    #[test]
    fn a_query_error_names_the_key() {
        let parse = |query: &str| {
            let request = actix_web::test::TestRequest::with_uri(&format!("/?{query}")).to_http_request();
            Query::<Inner>::from_request(&request, &mut Payload::None).into_inner()
        };
        assert_eq!(parse("k=7").unwrap().0._k, 7);
        for (query, param) in [("k=x", "k"), ("k=1&l=2", "l"), ("", "k")] {
            assert_eq!(parse(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
