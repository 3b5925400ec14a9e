//! What does a line of a file say? Checks and reads one row of any format.

use serde_json::{Map, Value};

use super::rows::{Context, Format, Preference, Prompt, Sft, Unpaired, said};
use super::snapshot::Split;
use crate::domain::{AccessLabel, Author, Groups, Message};

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {problem}")]
pub(super) struct RowError {
    /// The column at fault.
    pub(super) column: &'static str,
    /// What is wrong with it.
    pub(super) problem: String,
}

type Result<T> = std::result::Result<T, RowError>;

/// A row of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Sft(Sft),
    Preference(Preference),
    Unpaired(Unpaired),
    Prompt(Prompt),
}

/// `kind` of a question that the knowledge base does not answer.
const UNANSWERABLE: &str = "unanswerable";

type Columns = Map<String, Value>;

/// Reads one line; `None` when the row is one to leave out (a question kept for evaluation, or without an answer).
pub(super) fn row(format: Format, line: &str) -> Result<Option<(Body, Context)>> {
    let columns = columns(line)?;
    let body = match format {
        Format::Sft => {
            if !wanted(&columns) {
                return Ok(None);
            }
            Body::Sft(sft(&columns)?)
        }
        Format::Preference => Body::Preference(preference(&columns)?),
        Format::Unpaired => Body::Unpaired(unpaired(&columns)?),
        Format::Prompts => Body::Prompt(Prompt { prompt: prompt(&columns)? }),
    };
    Ok(Some((body, context(&columns)?)))
}

/// A row to examine a model with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Examined {
    pub(super) id: Option<String>,
    pub(super) body: Sft,
    pub(super) context: Context,
    pub(super) split: Option<Split>,
    /// Documents that hold the answer.
    pub(super) pages: Vec<String>,
}

/// Reads one line of a set to examine a model with, of whatever split; `None` when it has no answer to compare with.
pub(super) fn examined(line: &str) -> Result<Option<Examined>> {
    let columns = columns(line)?;
    if present(&columns, "kind").and_then(Value::as_str) == Some(UNANSWERABLE) {
        return Ok(None);
    }
    let id = match present(&columns, "id") {
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => text_if(&columns, "id")?,
    };
    let unknown = || wrong("split", "must be train, validation or held_out");
    let split = match text_if(&columns, "split")? {
        Some(name) => Some(Split::named(&name).ok_or_else(unknown)?),
        None => None,
    };
    let pages = match text_if(&columns, "page")? {
        Some(page) => vec![page],
        None => texts_if(&columns, "pages")?.unwrap_or_default(),
    };
    Ok(Some(Examined { id, body: sft(&columns)?, context: context(&columns)?, split, pages }))
}

fn columns(line: &str) -> Result<Columns> {
    match serde_json::from_str(line) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(_) => Err(wrong("row", "each line must be a JSON object")),
        Err(error) => Err(wrong("row", &format!("this is not JSON: {}", reason(&error)))),
    }
}

fn context(columns: &Columns) -> Result<Context> {
    Ok(Context {
        user: text_if(columns, "user")?,
        passages: texts_if(columns, "passages")?,
        access: access(columns)?,
    })
}

/// Whether a line of a question file is to be learnt from. Other rows always are.
fn wanted(columns: &Columns) -> bool {
    let text = |column| columns.get(column).and_then(Value::as_str);
    let learnt = text("split").is_none_or(|split| split == "train");
    text("question").is_none() || (learnt && text("kind") != Some(UNANSWERABLE))
}

fn sft(columns: &Columns) -> Result<Sft> {
    let messages = if let Some(value) = present(columns, "messages") {
        messages("messages", value)?
    } else if present(columns, "question").is_some() {
        let mut all = match present(columns, "history") {
            Some(history) => messages("history", history)?,
            None => Vec::new(),
        };
        all.push(Message::user(text(columns, "question")?));
        all.push(Message::assistant(text(columns, "answer")?));
        all
    } else if present(columns, "prompt").is_some() {
        let column = if present(columns, "response").is_some() { "response" } else { "completion" };
        let mut all = prompt(columns)?;
        let response = completion(columns, column, &all)?;
        all.push(Message::assistant(response));
        all
    } else {
        return Err(wrong("messages", "is missing (or prompt and response, or question and answer)"));
    };
    let Some((response, asked)) = messages.split_last() else {
        return Err(wrong("messages", "must not be empty"));
    };
    if response.role != Author::Assistant {
        return Err(wrong("messages", "the last message must be the ideal response, with role assistant"));
    }
    not_blank("messages", &response.content)?;
    ends_with_question("messages", asked)?;
    Ok(Sft { messages })
}

fn preference(columns: &Columns) -> Result<Preference> {
    let prompt = match present(columns, "prompt") {
        Some(_) => prompt(columns)?,
        None => shared_beginning(columns)?,
    };
    let chosen = completion(columns, "chosen", &prompt)?;
    let rejected = completion(columns, "rejected", &prompt)?;
    if chosen == rejected {
        return Err(wrong("rejected", "is the same text as chosen"));
    }
    let margin = match present(columns, "margin") {
        None => None,
        Some(value) => Some(finite(value).ok_or_else(|| wrong("margin", "must be a number"))?),
    };
    Ok(Preference { prompt, chosen: said(chosen), rejected: said(rejected), margin })
}

fn unpaired(columns: &Columns) -> Result<Unpaired> {
    let prompt = prompt(columns)?;
    let completion = completion(columns, "completion", &prompt)?;
    let label = match present(columns, "label") {
        Some(Value::Bool(label)) => *label,
        Some(_) => return Err(wrong("label", "must be true or false")),
        None => return Err(wrong("label", "is missing")),
    };
    Ok(Unpaired { prompt, completion: said(completion), label })
}

/// A margin that an `f32` holds.
fn finite(value: &Value) -> Option<f32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "margins are small numbers; an overflow is found below"
    )]
    let margin = value.as_f64()? as f32;
    margin.is_finite().then_some(margin)
}

/// The column `prompt`: a question, or a conversation that ends with one.
fn prompt(columns: &Columns) -> Result<Vec<Message>> {
    let prompt = match present(columns, "prompt") {
        None => return Err(wrong("prompt", "is missing")),
        Some(Value::String(question)) => vec![Message::user(question.as_str())],
        Some(value) => messages("prompt", value)?,
    };
    ends_with_question("prompt", &prompt)?;
    Ok(prompt)
}

/// The prompt of a row whose `chosen` and `rejected` are whole conversations: what both begin with.
fn shared_beginning(columns: &Columns) -> Result<Vec<Message>> {
    let conversation = |column| match present(columns, column) {
        Some(value @ Value::Array(_)) => messages(column, value),
        Some(_) => {
            Err(wrong("prompt", "is missing (or chosen and rejected must be lists that begin with it)"))
        }
        None => Err(wrong(column, "is missing")),
    };
    let (chosen, rejected) = (conversation("chosen")?, conversation("rejected")?);
    let shared = chosen.iter().zip(&rejected).take_while(|(one, other)| one == other).count();
    // Two equal conversations are found out by their equal answers.
    let shared = shared.min(chosen.len().saturating_sub(1));
    ends_with_question("chosen", &chosen[..shared])?;
    Ok(chosen[..shared].to_vec())
}

/// The text of an answer: a string, or a list of one message, which the prompt may precede.
fn completion(columns: &Columns, column: &'static str, prompt: &[Message]) -> Result<String> {
    let answer = match present(columns, column) {
        None => return Err(wrong(column, "is missing")),
        Some(Value::String(answer)) => answer.clone(),
        Some(value) => {
            let all = messages(column, value)?;
            match all.strip_prefix(prompt).unwrap_or(&all) {
                [Message { role: Author::Assistant, content }] => content.clone(),
                _ => {
                    return Err(wrong(column, "must be one message with role assistant (after the prompt)"));
                }
            }
        }
    };
    not_blank(column, &answer)?;
    Ok(answer)
}

fn messages(column: &'static str, value: &Value) -> Result<Vec<Message>> {
    let Value::Array(items) = value else {
        return Err(wrong(column, "must be a list of messages {\"role\": …, \"content\": …}"));
    };
    let message = |(at, item): (usize, &Value)| {
        let problem = |problem: &str| wrong(column, &format!("message {}: {problem}", at + 1));
        let role = match item.get("role").and_then(Value::as_str) {
            Some("system") => Author::System,
            Some("user") => Author::User,
            Some("assistant") => Author::Assistant,
            _ => return Err(problem("role must be system, user or assistant")),
        };
        let content =
            item.get("content").and_then(Value::as_str).ok_or_else(|| problem("content must be a text"))?;
        Ok(Message { role, content: content.to_owned() })
    };
    items.iter().enumerate().map(message).collect()
}

fn ends_with_question(column: &'static str, prompt: &[Message]) -> Result<()> {
    match prompt.last() {
        Some(Message { role: Author::User, content }) => not_blank(column, content),
        _ => Err(wrong(column, "what comes before the answer must end with a message of role user")),
    }
}

fn access(columns: &Columns) -> Result<AccessLabel> {
    let problem = || wrong("groups", "must be a list of group names, or a list of such lists");
    let names = |value: &Value| -> Result<Groups> {
        let names = value.as_array().ok_or_else(problem)?;
        names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(problem)).collect()
    };
    let Some(value) = present(columns, "groups") else {
        return Ok(AccessLabel::default());
    };
    let clauses = match value {
        Value::Array(items) if items.first().is_some_and(Value::is_array) => {
            items.iter().map(names).collect::<Result<Vec<_>>>()?
        }
        any_of => vec![names(any_of)?],
    };
    Ok(AccessLabel::of(&clauses))
}

fn text(columns: &Columns, column: &'static str) -> Result<String> {
    text_if(columns, column)?.ok_or_else(|| wrong(column, "is missing"))
}

fn text_if(columns: &Columns, column: &'static str) -> Result<Option<String>> {
    match present(columns, column) {
        None => Ok(None),
        Some(Value::String(text)) => {
            not_blank(column, text)?;
            Ok(Some(text.clone()))
        }
        Some(_) => Err(wrong(column, "must be a text")),
    }
}

fn texts_if(columns: &Columns, column: &'static str) -> Result<Option<Vec<String>>> {
    let problem = || wrong(column, "must be a list of texts");
    let Some(value) = present(columns, column) else {
        return Ok(None);
    };
    let items = value.as_array().ok_or_else(problem)?;
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(problem))
        .collect::<Result<_>>()
        .map(Some)
}

/// A column that is there and not null.
fn present<'a>(columns: &'a Columns, column: &str) -> Option<&'a Value> {
    columns.get(column).filter(|value| !value.is_null())
}

fn not_blank(column: &'static str, text: &str) -> Result<()> {
    if text.trim().is_empty() { Err(wrong(column, "must not be empty")) } else { Ok(()) }
}

fn wrong(column: &'static str, problem: &str) -> RowError {
    RowError { column, problem: problem.to_owned() }
}

/// The parser's reason; its line is always 1, the column is of use.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at character ")
}
