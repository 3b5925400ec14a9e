//! How do employees and the operator talk to the server? Over HTTP, as everybody does.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::SimulateError;
use super::answers::Answer;
use super::questions::Question;
use super::server::{GROUPS_HEADER, OPERATORS, USER_HEADER};

/// The operator's name.
const OPERATOR: &str = "operator";
/// Longest wait for an answer: training runs beside chat.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a call is tried again that the server was too busy for, or that broke off.
const TRIES: u32 = 5;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(3);
/// Answers scored in one call: with their passages well below the largest body.
const SCORED: usize = 50;

/// Talks to one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

/// Two answers to one question, to choose from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    /// The comparison.
    pub(super) id: String,
    /// The left answer's id, text and number of citations.
    pub(super) left: Side,
    /// The right one's.
    pub(super) right: Side,
}

/// One of two answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Side {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) citations: usize,
}

/// A call: who, how and what.
struct Call<'a> {
    user: &'a str,
    method: Method,
    path: &'a str,
    body: Body<'a>,
}

/// What is sent with a call.
enum Body<'a> {
    Nothing,
    Json(&'a Value),
    Lines(&'a str),
}

impl Client {
    pub(super) fn new(base: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned() }
    }

    /// Imports demonstrations as JSON Lines; gives how many there are and how many are new.
    pub(super) async fn import(&self, lines: &str) -> Result<(u64, u64), SimulateError> {
        let path = "/v1/import?format=sft";
        let call = Call { user: OPERATOR, method: Method::POST, path, body: Body::Lines(lines) };
        let report = self.done(&call).await?;
        Ok((number(&report["rows"]), number(&report["new"])))
    }

    /// Asks a question as an employee, of the generation that is active.
    pub(super) async fn ask(&self, user: &str, question: &Question) -> Result<Answer, SimulateError> {
        let body = json!({"messages": question.messages()});
        let path = "/v1/chat/completions";
        let answered = self.done(&Call { user, method: Method::POST, path, body: Body::Json(&body) }).await?;
        Ok(Answer::from_wire(&question.id, &answered))
    }

    /// Asks for two answers. `None` with the server's words where there is nothing to choose: a refusal, or twice the
    /// same.
    pub(super) async fn compare(
        &self,
        user: &str,
        question: &Question,
    ) -> Result<Result<Pair, String>, SimulateError> {
        let body = json!({"messages": question.messages()});
        let path = "/v1/comparisons";
        let call = Call { user, method: Method::POST, path, body: Body::Json(&body) };
        let (status, answered) = self.send(&call).await?;
        if status == StatusCode::CONFLICT {
            return Ok(Err(text(&answered["error"]["message"])));
        }
        let answered = call.checked(status, answered)?;
        let side = |name: &str| Side {
            id: text(&answered[name]["id"]),
            text: text(&answered[name]["content"]),
            citations: answered[name]["citations"].as_array().map_or(0, Vec::len),
        };
        Ok(Ok(Pair { id: text(&answered["id"]), left: side("left"), right: side("right") }))
    }

    /// Votes: `left`, `right` or `tie`.
    pub(super) async fn vote(
        &self,
        user: &str,
        comparison: &str,
        choice: &Value,
    ) -> Result<(), SimulateError> {
        let (path, body) = (format!("/v1/comparisons/{comparison}/vote"), json!({"choice": choice}));
        self.done(&Call { user, method: Method::POST, path: &path, body: Body::Json(&body) }).await?;
        Ok(())
    }

    /// Gives feedback on an answer.
    pub(super) async fn feedback(
        &self,
        user: &str,
        answer: &str,
        feedback: &Value,
    ) -> Result<(), SimulateError> {
        let path = format!("/v1/feedback/{answer}");
        self.done(&Call { user, method: Method::PUT, path: &path, body: Body::Json(feedback) }).await?;
        Ok(())
    }

    /// Approves every correction that waits for it; gives how many.
    pub(super) async fn approve_corrections(&self) -> Result<usize, SimulateError> {
        let listed = self.get("/v1/demonstrations?status=draft&limit=1000").await?;
        let drafts = listed["data"].as_array().cloned().unwrap_or_default();
        for draft in &drafts {
            let path = format!("/v1/demonstrations/{}", text(&draft["id"]));
            let body =
                json!({"messages": draft["messages"], "response": draft["response"], "status": "approved"});
            let call = Call { user: OPERATOR, method: Method::PUT, path: &path, body: Body::Json(&body) };
            self.done(&call).await?;
        }
        Ok(drafts.len())
    }

    /// Asks for a run that is promoted if the gate lets it; gives its id.
    pub(super) async fn begin_run(&self, stage: &str) -> Result<String, SimulateError> {
        let body = json!({"stage": stage, "promote": true});
        let call = Call { user: OPERATOR, method: Method::POST, path: "/v1/runs", body: Body::Json(&body) };
        // Once: the call that breaks off may have been heard, and two runs take twice the time.
        let (status, begun) =
            self.once(&call).await.map_err(|source| SimulateError::Http { call: call.name(), source })?;
        Ok(text(&call.checked(status, begun)?["id"]))
    }

    /// What is known of a run.
    pub(super) async fn run(&self, id: &str) -> Result<Value, SimulateError> {
        self.get(&format!("/v1/runs/{id}")).await
    }

    /// Whether the server answers with a generation.
    pub(super) async fn serves(&self, generation: &str) -> Result<bool, SimulateError> {
        Ok(self.get(&format!("/v1/generations/{generation}")).await?["served"] == json!(true))
    }

    /// The mean reward of answers by the reward model that is active; `None` when there is none.
    pub(super) async fn mean_reward(
        &self,
        asked: &[(&Question, &Answer)],
    ) -> Result<Option<f64>, SimulateError> {
        let scorable: Vec<_> = asked.iter().filter(|(_, answer)| !answer.text.trim().is_empty()).collect();
        let mut scores = Vec::with_capacity(scorable.len());
        for some in scorable.chunks(SCORED) {
            let questions: Vec<&str> = some.iter().map(|(question, _)| question.question.as_str()).collect();
            let answers: Vec<&str> = some.iter().map(|(_, answer)| answer.text.as_str()).collect();
            let passages: Vec<&Vec<String>> = some.iter().map(|(_, answer)| &answer.passages).collect();
            let body = json!({"text_1": questions, "text_2": answers, "passages": passages});
            let call =
                Call { user: OPERATOR, method: Method::POST, path: "/v1/score", body: Body::Json(&body) };
            let (status, scored) = self.send(&call).await?;
            if status.is_client_error() {
                tracing::warn!(%status, "there is no reward model to score the answers with");
                return Ok(None);
            }
            let scored = call.checked(status, scored)?;
            let rows = scored["data"].as_array().cloned().unwrap_or_default();
            scores.extend(rows.iter().filter_map(|row| row["score"].as_f64()));
        }
        Ok(crate::evaluation::statistics::mean(&scores))
    }

    async fn get(&self, path: &str) -> Result<Value, SimulateError> {
        self.done(&Call { user: OPERATOR, method: Method::GET, path, body: Body::Nothing }).await
    }

    /// The body of a call that must succeed.
    async fn done(&self, call: &Call<'_>) -> Result<Value, SimulateError> {
        let (status, body) = self.send(call).await?;
        call.checked(status, body)
    }

    /// Sends a call, several times while the server is busy or the connection breaks off. Calls sent here may be
    /// made twice: at worst there is an answer nobody votes on.
    async fn send(&self, call: &Call<'_>) -> Result<(StatusCode, Value), SimulateError> {
        let mut tries = 1;
        loop {
            match self.once(call).await {
                Ok((status, _)) if is_busy(status) && tries < TRIES => {
                    tracing::debug!(%status, call.path, "busy; once more");
                }
                Err(error) if tries < TRIES => {
                    tracing::debug!(%error, call.path, "broke off; once more");
                }
                Ok(answered) => return Ok(answered),
                Err(source) => return Err(SimulateError::Http { call: call.name(), source }),
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self, call: &Call<'_>) -> reqwest::Result<(StatusCode, Value)> {
        let groups = if call.user == OPERATOR { OPERATORS } else { "" };
        let request = self.http.request(call.method.clone(), format!("{}{}", self.base, call.path));
        let request = request.timeout(PATIENCE).header(USER_HEADER, call.user).header(GROUPS_HEADER, groups);
        let request = match call.body {
            Body::Nothing => request,
            Body::Json(body) => request.json(body),
            Body::Lines(lines) => {
                request.header("content-type", "application/x-ndjson").body(lines.to_owned())
            }
        };
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }
}

impl Call<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The body, or the server's reason against it.
    fn checked(&self, status: StatusCode, body: Value) -> Result<Value, SimulateError> {
        if status.is_success() {
            return Ok(body);
        }
        Err(SimulateError::Refused {
            call: self.name(),
            status: status.as_u16(),
            message: text(&body["error"]["message"]),
        })
    }
}

/// Statuses that pass: too many requests, not ready, a deadline that passed.
fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// A text of a response; empty when there is none.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A count of a response; 0 when there is none.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
