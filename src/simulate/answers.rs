//! What did a generation answer, and how good is that?

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{number, text};
use super::judge::Shown;
use super::questions::Question;
use crate::evaluation::metrics::{token_f1, without_marks, word_count};

/// An answer to one of the questions that are kept for the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The question's name.
    pub(super) question: String,
    /// The generation that answered.
    pub(super) generation: String,
    /// The text.
    pub(super) text: String,
    /// Pages named under it.
    pub(super) citations: usize,
    /// Whether each of them is a passage that was given to the model, and each mark in the text one of them.
    pub(super) valid: bool,
    /// Whether it is the plain "I don't know", which no model wrote.
    pub(super) refused: bool,
    /// Whether it ended by itself.
    pub(super) ended: bool,
    /// Its tokens.
    pub(super) tokens: u64,
    /// The texts the model was given.
    pub(super) passages: Vec<String>,
}

impl Answer {
    /// Reads a response to `POST /v1/chat/completions`.
    pub(super) fn from_wire(question: &str, response: &Value) -> Self {
        let message = &response["choices"][0]["message"];
        let info = &message["attune"];
        let list = |name: &str| info[name].as_array().cloned().unwrap_or_default();
        let (citations, sources) = (list("citations"), list("sources"));
        let answer = text(&message["content"]);
        let given =
            |citation: &Value| sources.iter().any(|source| source["passage_id"] == citation["passage_id"]);
        let cited = |mark: u64| citations.iter().any(|citation| number(&citation["n"]) == mark);
        Self {
            question: question.to_owned(),
            generation: text(&response["model"]),
            citations: citations.len(),
            valid: citations.iter().all(given) && marks(&answer).into_iter().all(cited),
            refused: info["refused"] == Value::Bool(true),
            ended: response["choices"][0]["finish_reason"] == "stop",
            tokens: number(&response["usage"]["completion_tokens"]),
            passages: sources.iter().map(|source| text(&source["passage"])).collect(),
            text: answer,
        }
    }

    /// As a person sees it.
    pub(super) fn shown<'a>(&'a self, question: &'a Question) -> Shown<'a> {
        Shown {
            question: &question.question,
            ideal: &question.answer,
            answer: &self.text,
            citations: self.citations,
        }
    }

    /// Token F1 against the human answer, without marks.
    pub(super) fn f1(&self, question: &Question) -> f64 {
        token_f1(&without_marks(&self.text), &without_marks(&question.answer))
    }

    /// How many words it has, without marks.
    pub(super) fn words(&self) -> f64 {
        word_count(&without_marks(&self.text)) as f64
    }
}

/// The numbers of the marks (`[2]`) in a text.
fn marks(text: &str) -> Vec<u64> {
    text.split('[').skip(1).filter_map(|after| after.split_once(']')?.0.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response(content: &str, cited: &[(u64, &str)]) -> Value {
        let citations: Vec<Value> =
            cited.iter().map(|(n, passage)| json!({"n": n, "passage_id": passage})).collect();
        json!({
            "model": "gen-1", "usage": {"completion_tokens": 9},
            "choices": [{"finish_reason": "stop", "message": {"content": content, "attune": {
                "citations": citations, "refused": false,
                "sources": [{"passage_id": "p-1", "passage": "One."}, {"passage_id": "p-2", "passage": "Two."}],
            }}}],
        })
    }

    #[test]
    fn a_response_is_read_as_the_api_writes_it() {
        let answer = Answer::from_wire("q-1", &response("Room 310 [1].", &[(1, "p-1")]));
        let expected = Answer {
            question: "q-1".into(),
            generation: "gen-1".into(),
            text: "Room 310 [1].".into(),
            citations: 1,
            valid: true,
            refused: false,
            ended: true,
            tokens: 9,
            passages: vec!["One.".into(), "Two.".into()],
        };
        assert_eq!(answer, expected);
        assert!((answer.words() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn citations_are_valid_only_when_they_were_given_and_named() {
        let valid =
            |content: &str, cited: &[(u64, &str)]| Answer::from_wire("q", &response(content, cited)).valid;
        assert!(valid("Nothing cited.", &[]));
        assert!(valid("Attached.", &[(2, "p-2")]));
        assert!(!valid("Foreign [1].", &[(1, "p-9")]));
        assert!(!valid("Unknown [3].", &[(1, "p-1")]));
        assert!(valid("An array a[i] is no mark [2].", &[(2, "p-2")]));
    }
}
