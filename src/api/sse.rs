//! How is an answer streamed? Server-sent events, with comments while there is nothing to say.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::error::Error;

use super::error::{ErrorBody, log};

/// Ends every stream that ended well, as OpenAI's do.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// A comment: parsers skip it, proxies see a connection in use.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// One event without a name.
pub(super) fn data(value: &impl Serialize) -> Bytes {
    // Wire types always become JSON: their keys are strings and their numbers finite.
    Bytes::from(format!("data: {}\n\n", serde_json::to_string(value).unwrap_or_default()))
}

/// One event with a name.
pub(super) fn event(name: &str, value: &impl Serialize) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {}\n\n", serde_json::to_string(value).unwrap_or_default()))
}

/// The event that ends a stream which failed part-way; the cause is logged.
pub(super) fn failure(error: &Error) -> Bytes {
    log(error);
    data(&ErrorBody::from(error))
}

/// A response that sends events as they come, and a comment whenever none came for `keep_alive`. Dropping the response
/// (the client has gone) drops the events.
pub(super) fn respond(events: impl Stream<Item = Bytes> + 'static, keep_alive: Duration) -> HttpResponse {
    let body = async_stream::stream! {
        let mut events = std::pin::pin!(events);
        loop {
            match tokio::time::timeout(keep_alive, events.next()).await {
                Ok(Some(event)) => yield Ok::<_, Infallible>(event),
                Ok(None) => break,
                Err(_) => yield Ok(KEEP_ALIVE),
            }
        }
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        // Tells nginx not to collect the response before passing it on.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn comments_fill_the_silence() {
        let events = async_stream::stream! {
            yield data(&1);
            tokio::time::sleep(Duration::from_millis(80)).await;
            yield DONE;
        };
        let body = to_bytes(respond(events, Duration::from_millis(20)).into_body()).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.starts_with("data: 1\n\n: keep-alive\n\n"), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}
