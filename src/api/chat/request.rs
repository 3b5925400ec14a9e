//! What may a chat request say? OpenAI's fields that we honour; others are accepted and have no effect, as with OpenAI.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::api::wire::{Extension, WireMessage, conversation};
use crate::chat::Question;
use crate::config::GenerationConfig;
use crate::domain::GenerationId;
use crate::error::{Error, ErrorCode};

/// The name of whichever generation is active.
pub(in crate::api) const ACTIVE_MODEL: &str = "attune";
/// Most answers to one question: as many as a person may have in progress by default.
const MAX_CHOICES: u8 = 4;

/// A chat request.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(in crate::api) struct ChatRequest {
    /// The conversation, the question last (role `user`).
    messages: Vec<WireMessage>,
    /// `attune` (the active generation, the default) or a generation's id.
    model: Option<String>,
    /// Whether to send the answer as server-sent events.
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<StreamOptions>,
    /// Softmax temperature; 0 takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    /// Nucleus mass, above 0.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// How many answers. Default 1.
    #[schema(minimum = 1, maximum = 4)]
    n: Option<u8>,
    /// A text, or up to 4, that end the answer.
    #[schema(value_type = Option<StopSchema>)]
    stop: Option<Stop>,
    /// Most tokens of the answer.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u32>,
    /// The same under its older name.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// Equal seeds give equal answers, as far as the machine allows.
    seed: Option<i64>,
    /// Whether to report each token's probability.
    logprobs: Option<bool>,
    /// How many likely alternatives to report per token; only with `logprobs`.
    #[schema(maximum = 20)]
    top_logprobs: Option<u8>,
    /// Attune's own part.
    attune: Option<Extension>,
}

/// How to stream.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
pub(in crate::api) struct StreamOptions {
    /// Whether to send token counts in a last chunk of their own.
    include_usage: Option<bool>,
}

impl StreamOptions {
    pub(super) fn includes_usage(self) -> bool {
        self.include_usage.unwrap_or(false)
    }
}

/// What a chat request comes to.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) question: Question,
    pub(super) n: u8,
    /// How to stream; `None` sends the answer whole.
    pub(super) stream: Option<StreamOptions>,
}

impl ChatRequest {
    pub(super) fn into_turn(self, limits: &GenerationConfig, served: &[GenerationId]) -> Result<Turn, Error> {
        let extension = self.attune.unwrap_or_default();
        let generation = resolve_generation(self.model.as_deref(), extension.generation, served)?;
        let n = self.n.unwrap_or(1);
        check((1..=MAX_CHOICES).contains(&n), "n", || format!("n must be 1 to {MAX_CHOICES}"))?;
        // `chat` checks the other ranges; only this one has two names.
        let limit = limits.max_tokens_limit;
        check(
            self.max_completion_tokens.is_none_or(|max| (1..=limit).contains(&max)),
            "max_completion_tokens",
            || format!("max_completion_tokens must be 1 to {limit}"),
        )?;
        let stop = self.stop.map(|stop| stop.0).unwrap_or_default();
        check(stop.iter().all(|text| !text.is_empty()), "stop", || "a stop text is empty".into())?;
        let stream = self.stream.unwrap_or(false);
        check(stream || self.stream_options.is_none(), "stream_options", || {
            "stream_options needs stream to be true".into()
        })?;
        let question = Question {
            messages: conversation(self.messages)?,
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            // A seed is any 64 bits.
            seed: self.seed.map(i64::cast_unsigned),
            stop,
            top_logprobs: top_logprobs(self.logprobs.unwrap_or(false), self.top_logprobs)?,
            retrieve: extension.retrieve,
            k: extension.k,
            groups: extension.groups,
            generation,
        };
        Ok(Turn { question, n, stream: stream.then(|| self.stream_options.unwrap_or_default()) })
    }
}

/// The generation that `model` and `attune.generation` name; `None` is the active one.
pub(in crate::api) fn resolve_generation(
    model: Option<&str>,
    generation: Option<GenerationId>,
    served: &[GenerationId],
) -> Result<Option<GenerationId>, Error> {
    let named = model.filter(|model| *model != ACTIVE_MODEL).map(GenerationId::from_wire);
    let (wanted, param) = match (named, generation) {
        (Some(model), Some(generation)) if model != generation => {
            return Err(Error::invalid(
                "attune.generation",
                "attune.generation and model name different generations",
            ));
        }
        (Some(model), _) => (model, "model"),
        (None, Some(generation)) => (generation, "attune.generation"),
        (None, None) => return Ok(None),
    };
    if served.contains(&wanted) {
        return Ok(Some(wanted));
    }
    let message = "this model does not exist or is not loaded; GET /v1/models lists those that are";
    Err(Error { param: Some(param.into()), ..Error::new(ErrorCode::ModelNotFound, message) })
}

fn check(ok: bool, param: &str, problem: impl FnOnce() -> String) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::invalid(param, problem())) }
}

fn top_logprobs(wanted: bool, top: Option<u8>) -> Result<Option<u8>, Error> {
    check(wanted || top.is_none(), "top_logprobs", || "top_logprobs needs logprobs to be true".into())?;
    Ok(wanted.then(|| top.unwrap_or(0)))
}

/// A text, or a list of texts.
#[derive(utoipa::ToSchema)]
#[schema(as = StopTexts)]
#[expect(dead_code, reason = "describes `Stop`, whose own parser names the item at fault, to OpenAPI")]
#[serde(untagged)]
pub(in crate::api) enum StopSchema {
    /// One text.
    One(String),
    /// Up to 4.
    Several(Vec<String>),
}

/// A text, or a list of texts, parsed by hand so that an error names the item at fault.
#[derive(Debug)]
struct Stop(Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(vec![text.to_owned()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(texts)
            }
        }
        deserializer.deserialize_any(Texts).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn turn(mut body: Value) -> Result<Turn, Error> {
        if body.get("messages").is_none() {
            body["messages"] = json!([{"role": "user", "content": "Where is HR?"}]);
        }
        let served = [GenerationId::from_wire("gen-1")];
        serde_json::from_value::<ChatRequest>(body).unwrap().into_turn(&GenerationConfig::default(), &served)
    }

    fn param(body: Value) -> Option<String> {
        turn(body).unwrap_err().param
    }

    #[test]
    fn fields_map_to_the_question() {
        let turn = turn(json!({
            "model": "gen-1", "seed": -1, "stop": "END", "logprobs": true, "n": 2, "max_completion_tokens": 9,
            "max_tokens": 8, "stream": true, "stream_options": {"include_usage": true}, "user": "ignored",
            "attune": {"groups": ["hr"], "k": 3, "retrieve": true},
            "messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                         {"role": "user", "content": "Where is HR?", "name": "ada"}],
        }))
        .unwrap();
        let question = turn.question;
        assert_eq!(question.messages[0], crate::domain::Message::system("ab"));
        assert_eq!((question.seed, question.max_tokens, question.k), (Some(u64::MAX), Some(9), Some(3)));
        assert_eq!((question.stop, question.top_logprobs), (vec!["END".to_owned()], Some(0)));
        assert_eq!(question.generation, Some(GenerationId::from_wire("gen-1")));
        assert!(turn.n == 2 && turn.stream.unwrap().includes_usage());
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (body, expected) in [
            (json!({"n": 0}), "n"),
            (json!({"n": 5}), "n"),
            (json!({"max_completion_tokens": 1_000_000}), "max_completion_tokens"),
            (json!({"stop": ""}), "stop"),
            (json!({"top_logprobs": 1}), "top_logprobs"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"attune": {"generation": "gen-2"}}), "attune.generation"),
            (json!({"model": "gen-1", "attune": {"generation": "gen-2"}}), "attune.generation"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "assistant", "content": "Hi"}]}), "messages"),
            (json!({"messages": [{"role": "user", "content": " "}]}), "messages"),
        ] {
            assert_eq!(param(body.clone()).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn unknown_models_are_not_found() {
        let error = turn(json!({"model": "gpt-4o"})).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (ErrorCode::ModelNotFound, Some("model")));
        assert!(turn(json!({"model": "attune"})).unwrap().question.generation.is_none());
        assert!(turn(json!({"model": null})).unwrap().question.generation.is_none());
    }
}
