//! How much would people like these answers? Scores and rankings by the reward model.

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::domain::{Author, GenerationId, Message, now};
use crate::error::Error;
use crate::reward::Score;
use crate::scoring::Answered;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Employee, Json};
use super::wire::WireMessage;

/// Most answers of one call: a second or two of work on two processors.
const MAX_ANSWERS: usize = 256;

/// One text, or several.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Passages for all answers, or for each its own.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Passages {
    /// The same for every answer.
    Shared(Vec<String>),
    /// One list for each answer.
    Each(Vec<Vec<String>>),
}

/// Answers to be scored: `text_1` and `text_2`, or `messages`, or `conversations`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScoreRequest {
    /// The reward model's generation; the active one when left out.
    model: Option<String>,
    /// The question, or one for each answer.
    text_1: Option<Texts>,
    /// The answer, or the answers.
    text_2: Option<Texts>,
    /// A conversation that ends in the answer (role `assistant`).
    messages: Option<Vec<WireMessage>>,
    /// Several of them.
    conversations: Option<Vec<Vec<WireMessage>>>,
    /// Texts the answers were to be grounded in: one list for all, or a list of lists, one for each answer. Without,
    /// the question serves as both, in training as here.
    passages: Option<Passages>,
}

/// Scores, in the order of the answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ScoreList {
    /// This call.
    id: String,
    /// Always `list`.
    object: &'static str,
    /// When, in seconds since 1970.
    created: i64,
    /// The reward model's generation.
    model: GenerationId,
    /// One for each answer.
    data: Vec<ScoreView>,
}

/// How much people would like an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ScoreView {
    /// Which answer, from 0.
    index: usize,
    /// Always `score`.
    object: &'static str,
    /// Higher is better: the mean of the reward models, in standard deviations from the mean of what they were trained
    /// on.
    score: f64,
    /// Share of the answers they were trained on that score lower, 0 to 100.
    percentile: f64,
    /// How much the reward models disagree, in the score's unit.
    spread: f64,
}

/// Answers to be ranked.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RerankRequest {
    /// The reward model's generation; the active one when left out.
    model: Option<String>,
    /// The question.
    query: String,
    /// The answers.
    documents: Vec<RankedText>,
    /// How many of the best to return; all when left out.
    top_n: Option<usize>,
    /// Texts the answers were to be grounded in.
    passages: Option<Passages>,
}

/// A text, or an object with one.
#[derive(Debug, Clone, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum RankedText {
    /// The text.
    Text(String),
    /// The text.
    Object {
        /// The text.
        text: String,
    },
}

impl RankedText {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// Answers, the best first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ranking {
    /// This call.
    id: String,
    /// The reward model's generation.
    model: GenerationId,
    /// The answers, the best first.
    results: Vec<Ranked>,
}

/// An answer in a ranking.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Ranked {
    /// Its place among the request's documents, from 0.
    index: usize,
    /// The answer.
    document: RankedDocument,
    /// Its score.
    relevance_score: f64,
}

/// An answer's text.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RankedDocument {
    /// The text.
    text: String,
}

/// Scores answers by the reward model; higher is better.
#[utoipa::path(post, path = "/v1/score", tag = "learning", request_body = ScoreRequest,
    responses((status = 200, body = ScoreList), (status = "4XX", body = ErrorBody)))]
pub(super) async fn score(
    _employee: Employee,
    context: web::Data<Context>,
    Json(request): Json<ScoreRequest>,
) -> Result<web::Json<ScoreList>, Error> {
    let model = request.model.clone();
    let answers = answers(request)?;
    let scored = context.chat.scorer.score(model.as_deref(), answers).await?;
    let view = |(index, Score { value, spread, percentile }): (usize, &Score)| ScoreView {
        index,
        object: "score",
        score: *value,
        percentile: *percentile,
        spread: *spread,
    };
    Ok(web::Json(ScoreList {
        id: call_id("score"),
        object: "list",
        created: now().seconds(),
        model: scored.generation,
        data: scored.scores.iter().enumerate().map(view).collect(),
    }))
}

/// Ranks answers to one question by the reward model, the best first.
#[utoipa::path(post, path = "/v1/rerank", tag = "learning", request_body = RerankRequest,
    responses((status = 200, body = Ranking), (status = "4XX", body = ErrorBody)))]
pub(super) async fn rerank(
    _employee: Employee,
    context: web::Data<Context>,
    Json(request): Json<RerankRequest>,
) -> Result<web::Json<Ranking>, Error> {
    let RerankRequest { model, query, documents, top_n, passages } = request;
    if top_n == Some(0) {
        return Err(Error::invalid("top_n", "top_n must be at least 1"));
    }
    let texts: Vec<String> = documents.into_iter().map(RankedText::into_text).collect();
    let items = texts.iter().map(|text| (asked(&query), text.clone())).collect();
    let answers = checked(items, passages, "documents")?;
    let scored = context.chat.scorer.score(model.as_deref(), answers).await?;
    let mut ranked: Vec<(usize, f64)> = scored.scores.iter().map(|score| score.value).enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(top_n.unwrap_or(usize::MAX));
    let result = |(index, relevance_score): (usize, f64)| Ranked {
        index,
        document: RankedDocument { text: texts[index].clone() },
        relevance_score,
    };
    Ok(web::Json(Ranking {
        id: call_id("rerank"),
        model: scored.generation,
        results: ranked.into_iter().map(result).collect(),
    }))
}

fn call_id(kind: &str) -> String {
    format!("{kind}-{}", uuid::Uuid::now_v7().simple())
}

fn asked(question: &str) -> Vec<Message> {
    vec![Message::user(question)]
}

/// The answers of a request, whichever form it has.
fn answers(request: ScoreRequest) -> Result<Vec<Answered>, Error> {
    let ScoreRequest { text_1, text_2, messages, conversations, passages, .. } = request;
    match (text_1, text_2, messages, conversations) {
        (Some(questions), Some(answers), None, None) => {
            checked(paired(questions, answers)?, passages, "text_2")
        }
        (None, None, Some(messages), None) => {
            checked(vec![ended(messages, "messages")?], passages, "messages")
        }
        (None, None, None, Some(conversations)) => {
            let ended = |(at, messages)| ended(messages, &format!("conversations[{at}]"));
            let items = conversations.into_iter().enumerate().map(ended).collect::<Result<_, _>>()?;
            checked(items, passages, "conversations")
        }
        (Some(_), None, None, None) => Err(Error::invalid("text_2", "text_2, the answer, is missing")),
        (None, Some(_), None, None) => Err(Error::invalid("text_1", "text_1, the question, is missing")),
        (None, None, None, None) => Err(Error::invalid(
            "text_1",
            "nothing to score: give text_1 and text_2, messages, or conversations",
        )),
        _ => Err(Error::invalid(
            "text_1",
            "give one of: text_1 with text_2, messages, or conversations; not several",
        )),
    }
}

/// A question and an answer.
type Pair = (Vec<Message>, String);

fn paired(questions: Texts, answers: Texts) -> Result<Vec<Pair>, Error> {
    match (questions, answers) {
        (Texts::One(question), Texts::One(answer)) => Ok(vec![(asked(&question), answer)]),
        (Texts::One(question), Texts::Many(answers)) => {
            Ok(answers.into_iter().map(|answer| (asked(&question), answer)).collect())
        }
        (Texts::Many(questions), Texts::Many(answers)) if questions.len() == answers.len() => {
            Ok(questions.iter().map(|question| asked(question)).zip(answers).collect())
        }
        (Texts::Many(questions), Texts::One(answer)) if questions.len() == 1 => {
            Ok(vec![(asked(&questions[0]), answer)])
        }
        (Texts::Many(questions), answers) => {
            let found = match answers {
                Texts::One(_) => 1,
                Texts::Many(answers) => answers.len(),
            };
            let problem = format!(
                "text_1 has {} texts and text_2 {found}; give one question, or as many as answers",
                questions.len()
            );
            Err(Error::invalid("text_1", problem))
        }
    }
}

/// A conversation, cut before the answer it ends in.
fn ended(messages: Vec<WireMessage>, field: &str) -> Result<Pair, Error> {
    let mut messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
    match messages.pop() {
        Some(Message { role: Author::Assistant, content }) if !messages.is_empty() => Ok((messages, content)),
        Some(Message { role: Author::Assistant, .. }) => {
            Err(Error::invalid(field, format!("{field}: there is no question before the answer")))
        }
        _ => Err(Error::invalid(
            field,
            format!("{field}: the last message must be the answer, with the role assistant"),
        )),
    }
}

fn checked(items: Vec<Pair>, passages: Option<Passages>, field: &str) -> Result<Vec<Answered>, Error> {
    let count = items.len();
    if !(1..=MAX_ANSWERS).contains(&count) {
        let problem = format!("{field} has {count} answers; it must have 1 to {MAX_ANSWERS}");
        return Err(Error::invalid(field, problem));
    }
    let passages = match passages {
        None => vec![Vec::new(); count],
        // An empty list is both.
        Some(Passages::Shared(texts)) => vec![texts; count],
        Some(Passages::Each(lists)) if lists.len() == count => lists,
        Some(Passages::Each(lists)) => {
            let problem = format!("passages has {} lists for {count} answers", lists.len());
            return Err(Error::invalid("passages", problem));
        }
    };
    for (at, (conversation, answer)) in items.iter().enumerate() {
        if answer.trim().is_empty() {
            return Err(Error::invalid(field, format!("{field}: answer {at} is empty")));
        }
        if conversation.iter().all(|message| message.content.trim().is_empty()) {
            return Err(Error::invalid(field, format!("{field}: the question of answer {at} is empty")));
        }
    }
    let answered = |((conversation, answer), passages)| Answered { conversation, passages, answer };
    Ok(items.into_iter().zip(passages).map(answered).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<Vec<Answered>, String> {
        let request: ScoreRequest = serde_json::from_value(body).map_err(|error| error.to_string())?;
        answers(request).map_err(|error| format!("{}: {error}", error.param.clone().unwrap_or_default()))
    }

    #[test]
    fn one_question_serves_several_answers() {
        let read =
            read(json!({"text_1": "Where?", "text_2": ["Here.", "There."], "passages": ["Here it is."]}))
                .unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].answer.as_str(), read[1].passages.len()), ("There.", 1));
        assert_eq!(read[0].conversation, [Message::user("Where?")]);
    }

    #[test]
    fn conversations_end_in_the_answer() {
        let turn = json!([{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]);
        let found = read(json!({"conversations": [turn, turn], "passages": [["a"], []]})).unwrap();
        assert_eq!((found[0].passages.len(), found[1].passages.len()), (1, 0));
        assert_eq!(read(json!({"messages": turn})).unwrap()[0].answer, "Here.");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let turn = json!([{"role": "user", "content": "Where?"}]);
        let alone = json!([{"role": "assistant", "content": "Here."}]);
        for (body, field) in [
            (json!({}), "text_1"),
            (json!({"text_1": "Where?"}), "text_2"),
            (json!({"text_1": ["a", "b"], "text_2": ["c"]}), "text_1"),
            (json!({"text_1": "a", "text_2": []}), "text_2"),
            (json!({"text_1": "a", "text_2": ["b", " "]}), "text_2"),
            (json!({"text_1": "", "text_2": "b"}), "text_2"),
            (json!({"messages": turn}), "messages"),
            (json!({"messages": alone}), "messages"),
            (json!({"conversations": [turn]}), "conversations[0]"),
            (json!({"text_1": "a", "text_2": ["b", "c"], "passages": [["d"]]}), "passages"),
            (json!({"text_1": "a", "text_2": "b", "messages": turn}), "text_1"),
        ] {
            let problem = read(body.clone()).unwrap_err();
            assert!(problem.starts_with(&format!("{field}: ")), "{body}: {problem}");
        }
        assert!(read(json!({"text_1": "a", "text_3": "b"})).unwrap_err().contains("text_3"));
    }
}
