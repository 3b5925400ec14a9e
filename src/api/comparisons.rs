//! How are two answers to one question offered, shown and judged?

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::chat::{Chat, ComparisonEvent, ComparisonStream, Question, compare};
use crate::domain::{
    AnswerId, AnswerRecord, Choice, Citation, Comparison, ComparisonId, ComparisonSide, Identity, Message,
    Millis, Role, Vote,
};
use crate::error::{Error, ErrorCode};
use crate::feedback::{self, VoteInput};

use super::chat::resolve_generation;
use super::error::ErrorBody;
use super::extract::{Asker, Curator, Json, Query};
use super::wire::{Extension, List, Source, WireMessage, conversation, paging, sources};
use super::{Context, sse};

/// A question to be answered twice.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ComparisonRequest {
    /// The conversation, the question last (role `user`).
    messages: Vec<WireMessage>,
    /// `attune` (the active generation, the default) or a generation's id.
    model: Option<String>,
    /// Whether to send both answers as server-sent events.
    stream: Option<bool>,
    /// Attune's own part.
    attune: Option<Extension>,
}

/// Two answers to one question.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ComparisonView {
    /// The comparison: the vote names it.
    id: ComparisonId,
    /// When it was made.
    created: Millis,
    /// The conversation, the question last.
    messages: Vec<Message>,
    /// The answer on the left.
    left: SideView,
    /// The answer on the right.
    right: SideView,
    /// The asker's own vote, if any.
    vote: Option<Vote>,
}

/// One of two answers. What could give away how it was made is left out.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SideView {
    /// The answer: it also takes feedback.
    id: AnswerId,
    /// The text.
    content: String,
    /// What it cites.
    citations: Vec<Citation>,
    /// Every passage that was given to the model.
    sources: Vec<Source>,
}

/// An event of a streamed comparison. The event's name is repeated in `type`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ComparisonChunk {
    /// Comes first.
    Started {
        /// The comparison.
        id: ComparisonId,
        /// The answer on the left.
        left: AnswerId,
        /// The answer on the right.
        right: AnswerId,
    },
    /// Text to append to one side.
    Delta {
        /// Which side.
        side: ComparisonSide,
        /// The text.
        text: String,
    },
    /// Both texts were the same, so one side begins again: what it showed is to be forgotten.
    Restarted {
        /// Which side.
        side: ComparisonSide,
    },
    /// Comes last.
    Finished(Box<ComparisonView>),
}

/// Which comparisons to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ComparisonsQuery {
    /// Only those the asker has not voted on: the judging queue.
    unvoted: Option<bool>,
    /// Only comparisons older than the one with this cursor.
    before: Option<String>,
    /// Most comparisons, 1 to 1000. Default 50.
    limit: Option<usize>,
}

/// Answers a question twice, sides drawn at random. 409 when no two different answers come about.
#[utoipa::path(post, path = "/v1/comparisons", tag = "feedback", request_body = ComparisonRequest,
    responses((status = 200, description = "Both answers; with `stream` as server-sent events",
        content((ComparisonView = "application/json"), (ComparisonChunk = "text/event-stream"))),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn create(
    asker: Asker,
    context: web::Data<Context>,
    Json(request): Json<ComparisonRequest>,
) -> Result<HttpResponse, Error> {
    let streams = request.stream.unwrap_or(false);
    let question = request.into_question(&context)?;
    let chat = context.chat.clone();
    let starting = begin(chat, asker.0, question).boxed();
    if streams {
        return stream(starting, Duration::from_secs(context.config.server.keep_alive_seconds)).await;
    }
    Ok(HttpResponse::Ok().json(collect(starting.await?).await?))
}

/// Lists comparisons, newest first, for people to judge.
#[utoipa::path(get, path = "/v1/comparisons", tag = "feedback", params(ComparisonsQuery),
    responses((status = 200, body = List<ComparisonView>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    curator: Curator,
    context: web::Data<Context>,
    Query(query): Query<ComparisonsQuery>,
) -> Result<web::Json<List<ComparisonView>>, Error> {
    let unvoted_by = query.unvoted.unwrap_or(false).then_some(curator.0.user.as_str());
    let page = context.ledger.comparisons(unvoted_by, &paging(query.before, query.limit)?).await?;
    let mut data = Vec::with_capacity(page.data.len());
    for comparison in page.data.into_iter().filter(|comparison| may_see(&curator.0, comparison)) {
        data.push(view(&context, &curator.0, comparison).await?);
    }
    Ok(web::Json(List { data, next: page.next }))
}

/// One comparison.
#[utoipa::path(get, path = "/v1/comparisons/{id}", tag = "feedback", params(("id" = String, Path)),
    responses((status = 200, body = ComparisonView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    asker: Asker,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<ComparisonView>, Error> {
    let found = context.ledger.comparison(&ComparisonId::from_wire(id.as_str())).await?;
    let found =
        found.filter(|found| may_see(&asker.0, found)).ok_or_else(|| Error::not_found("the comparison"))?;
    Ok(web::Json(view(&context, &asker.0, found).await?))
}

/// Says which answer is better. One vote a person; it can be changed until it has been learnt from.
#[utoipa::path(post, path = "/v1/comparisons/{id}/vote", tag = "feedback", params(("id" = String, Path)),
    request_body = VoteInput, responses((status = 200, body = Vote), (status = "4XX", body = ErrorBody)))]
pub(super) async fn vote(
    asker: Asker,
    context: web::Data<Context>,
    id: web::Path<String>,
    Json(input): Json<VoteInput>,
) -> Result<web::Json<Vote>, Error> {
    let id = ComparisonId::from_wire(id.as_str());
    let input = input.checked(&context.config.feedback)?;
    let vote = feedback::vote(context.ledger.as_ref(), &asker.0, &id, input).await?;
    context.metrics.comparisons.with_label_values(&[label(vote.choice)]).inc();
    Ok(web::Json(vote))
}

impl ComparisonRequest {
    fn into_question(self, context: &Context) -> Result<Question, Error> {
        let extension = self.attune.unwrap_or_default();
        let generation =
            resolve_generation(self.model.as_deref(), extension.generation, &context.chat.generations())?;
        Ok(Question {
            messages: conversation(self.messages)?,
            retrieve: extension.retrieve,
            k: extension.k,
            groups: extension.groups,
            generation,
            ..Question::default()
        })
    }
}

/// Starts a comparison, up to its first event.
async fn begin(chat: Arc<Chat>, who: Identity, question: Question) -> Result<ComparisonStream, Error> {
    let mut events = compare(&chat, &who, question).await?;
    let first = events.next().await.ok_or_else(broke_off)??;
    Ok(futures::stream::once(async { Ok(first) }).chain(events).boxed())
}

/// As for chat: an HTTP error within the first `keep_alive`, else a response at once and comments while it waits.
async fn stream(
    mut starting: BoxFuture<'static, Result<ComparisonStream, Error>>,
    keep_alive: Duration,
) -> Result<HttpResponse, Error> {
    let started = match tokio::time::timeout(keep_alive, &mut starting).await {
        Ok(started) => futures::future::ready(Ok(started?)).boxed(),
        Err(_) => starting,
    };
    Ok(sse::respond(events(started), keep_alive))
}

fn events(starting: BoxFuture<'static, Result<ComparisonStream, Error>>) -> impl Stream<Item = Bytes> {
    async_stream::stream! {
        let mut events = match starting.await {
            Ok(events) => events,
            Err(error) => {
                yield sse::failure(&error);
                return;
            }
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(ComparisonEvent::Started { id, left, right }) => {
                    yield sse::event("started", &ComparisonChunk::Started { id, left, right });
                }
                Ok(ComparisonEvent::Delta { side, text }) => {
                    yield sse::event("delta", &ComparisonChunk::Delta { side, text });
                }
                Ok(ComparisonEvent::Restarted { side }) => {
                    yield sse::event("restarted", &ComparisonChunk::Restarted { side });
                }
                Ok(ComparisonEvent::Finished(finished)) => {
                    let view = ComparisonView::from(*finished);
                    yield sse::event("finished", &ComparisonChunk::Finished(Box::new(view)));
                    yield sse::DONE;
                    return;
                }
                Err(error) => {
                    yield sse::failure(&error);
                    return;
                }
            }
        }
        yield sse::failure(&broke_off());
    }
}

async fn collect(mut events: ComparisonStream) -> Result<ComparisonView, Error> {
    while let Some(event) = events.next().await {
        if let ComparisonEvent::Finished(finished) = event? {
            return Ok(ComparisonView::from(*finished));
        }
    }
    Err(broke_off())
}

fn label(choice: Choice) -> &'static str {
    match choice {
        Choice::Left => "left",
        Choice::Right => "right",
        Choice::Tie => "tie",
        Choice::BothBad => "both_bad",
    }
}

fn broke_off() -> Error {
    Error::internal("a comparison's events ended before the comparison did")
}

/// One's own comparisons, or with the role curator anybody's; and only what one's groups may see.
fn may_see(who: &Identity, comparison: &Comparison) -> bool {
    (who.role >= Role::Curator || comparison.user == who.user)
        && comparison.access.permits(who.visible_groups())
}

async fn view(context: &Context, who: &Identity, comparison: Comparison) -> Result<ComparisonView, Error> {
    let answer = async |id: &AnswerId| -> Result<AnswerRecord, Error> {
        let gone = || Error::new(ErrorCode::Internal, "an answer of this comparison is missing");
        context.ledger.answer(id).await?.ok_or_else(gone)
    };
    let (left, right) = (answer(&comparison.left).await?, answer(&comparison.right).await?);
    let votes = context.ledger.votes(&comparison.id).await?;
    let vote = votes.into_iter().find(|vote| vote.user == who.user);
    Ok(ComparisonView { vote, ..ComparisonView::from((comparison, left, right)) })
}

impl From<(Comparison, AnswerRecord, AnswerRecord)> for ComparisonView {
    fn from((comparison, left, right): (Comparison, AnswerRecord, AnswerRecord)) -> Self {
        let Comparison { id, created, messages, .. } = comparison;
        Self { id, created, messages, left: left.into(), right: right.into(), vote: None }
    }
}

impl From<AnswerRecord> for SideView {
    fn from(answer: AnswerRecord) -> Self {
        let sources = sources(&answer);
        Self { id: answer.id, content: answer.answer, citations: answer.citations, sources }
    }
}
