//! How is `POST /v1/chat/completions` answered? OpenAI's schema in and out, streaming and not.

mod request;
mod response;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use futures::future::try_join_all;
use futures::{FutureExt, StreamExt, TryFutureExt};

use crate::chat::{AnswerEvent, AnswerStream, Chat, Question, Started, answer};
use crate::domain::{AnswerRecord, Identity};
use crate::error::Error;
use crate::generation::Token;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Asker, Json};

pub(super) use request::{ACTIVE_MODEL, ChatRequest, StopSchema, resolve_generation};
use response::ChatCompletion;

/// Answers a conversation's last question from the knowledge base.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer; with `stream` as server-sent events, each a chunk, then `[DONE]`",
         content((ChatCompletion = "application/json"), (response::Chunk = "text/event-stream"))),
        (status = "4XX", description = "The request can not be answered", body = ErrorBody),
        (status = "5XX", description = "The server can not answer", body = ErrorBody),
    )
)]
pub(super) async fn complete(
    asker: Asker,
    context: web::Data<Context>,
    Json(request): Json<ChatRequest>,
) -> Result<HttpResponse, Error> {
    let turn = request.into_turn(&context.config.generation, &context.chat.generations())?;
    let starting = start(context.chat.clone(), asker.0, turn.question, turn.n);
    let keep_alive = Duration::from_secs(context.config.server.keep_alive_seconds);
    match turn.stream {
        Some(options) => stream::respond(starting, options, keep_alive).await,
        None => Ok(HttpResponse::Ok().json(collect(starting.await?).await?)),
    }
}

/// Starts `n` answers to one question; with a seed, each has its own.
async fn start(chat: Arc<Chat>, who: Identity, question: Question, n: u8) -> Result<Vec<Choice>, Error> {
    try_join_all((0..n).map(|index| {
        let mut question = question.clone();
        question.seed = question.seed.map(|seed| seed.wrapping_add(u64::from(index)));
        let (chat, who) = (&chat, &who);
        async move { Choice::begin(index, answer(chat, who, question).await?).await }.boxed()
    }))
    .await
}

/// One of the answers to a question, past its first event.
struct Choice {
    index: u8,
    started: Started,
    events: AnswerStream,
}

impl Choice {
    async fn begin(index: u8, mut events: AnswerStream) -> Result<Self, Error> {
        match events.next().await {
            Some(Ok(AnswerEvent::Started(started))) => Ok(Self { index, started, events }),
            Some(Err(error)) => Err(error),
            _ => Err(broke_off()),
        }
    }

    async fn finish(mut self) -> Result<Finished, Error> {
        let mut all_tokens = Vec::new();
        while let Some(event) = self.events.next().await {
            match event? {
                AnswerEvent::Started(_) => {}
                AnswerEvent::Delta { tokens, .. } => all_tokens.extend(tokens),
                AnswerEvent::Finished(record) => {
                    return Ok(Finished { index: self.index, tokens: all_tokens, record: *record });
                }
            }
        }
        Err(broke_off())
    }
}

/// One whole answer.
struct Finished {
    index: u8,
    tokens: Vec<Token>,
    record: AnswerRecord,
}

async fn collect(choices: Vec<Choice>) -> Result<ChatCompletion, Error> {
    let started = choices.first().map(|choice| choice.started.clone()).ok_or_else(broke_off)?;
    let finished = try_join_all(choices.into_iter().map(Choice::finish)).map_err(Error::from).await?;
    Ok(ChatCompletion::new(&started, &finished))
}

fn broke_off() -> Error {
    Error::internal("an answer's events ended before the answer did")
}
