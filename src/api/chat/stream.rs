//! How are an answer's events sent as they come?

use std::future::Future;
use std::time::Duration;

use actix_web::HttpResponse;
use bytes::Bytes;
use futures::stream::{StreamExt, select_all};
use futures::{FutureExt, Stream};

use crate::api::sse;
use crate::chat::AnswerEvent;
use crate::error::Error;

use super::request::StreamOptions;
use super::response::{Chunks, Usage};
use super::{Choice, broke_off};

/// Answers with events. What goes wrong within the first `keep_alive` is an HTTP error; a question that has to wait
/// longer for its place gets its response at once, comments while it waits, and an error as an event.
pub(super) async fn respond(
    starting: impl Future<Output = Result<Vec<Choice>, Error>> + 'static,
    options: StreamOptions,
    keep_alive: Duration,
) -> Result<HttpResponse, Error> {
    let mut starting = starting.boxed_local();
    let choices = match tokio::time::timeout(keep_alive, &mut starting).await {
        Ok(choices) => futures::future::ready(Ok(choices?)).boxed_local(),
        Err(_) => starting,
    };
    Ok(sse::respond(events(choices, options), keep_alive))
}

fn events(
    starting: impl Future<Output = Result<Vec<Choice>, Error>>,
    options: StreamOptions,
) -> impl Stream<Item = Bytes> {
    async_stream::stream! {
        let choices = match starting.await {
            Ok(choices) => choices,
            Err(error) => {
                yield sse::failure(&error);
                return;
            }
        };
        let Some(started) = choices.first().map(|choice| choice.started.clone()) else {
            yield sse::failure(&broke_off());
            return;
        };
        let chunks = Chunks { started, includes_usage: options.includes_usage() };
        for choice in &choices {
            yield sse::data(&chunks.role(choice.index));
        }
        let (mut usage, mut unfinished) = (Usage::default(), choices.len());
        let mut all = select_all(choices.into_iter().map(|choice| {
            let index = choice.index;
            choice.events.map(move |event| (index, event))
        }));
        while let Some((index, event)) = all.next().await {
            match event {
                Ok(AnswerEvent::Started(_)) => {}
                Ok(AnswerEvent::Delta { text, tokens }) => yield sse::data(&chunks.text(index, text, &tokens)),
                Ok(AnswerEvent::Finished(record)) => {
                    usage.add(record.usage);
                    unfinished -= 1;
                    yield sse::data(&chunks.end(index, &record));
                }
                Err(error) => {
                    yield sse::failure(&error);
                    return;
                }
            }
        }
        if unfinished > 0 {
            yield sse::failure(&broke_off());
            return;
        }
        if chunks.includes_usage {
            yield sse::data(&chunks.usage(usage));
        }
        yield sse::DONE;
    }
}
