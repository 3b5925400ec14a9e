//! What would a model have said? A generator for tests: it answers from a script, token by token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use super::{Candidate, Event, GenerateRequest, GenerationError, Generator, Token, TokenStream};
use crate::domain::{Author, FinishReason, GenerationId, Message};
use crate::models::Codec;

/// Chooses the answer to a rendered prompt; the number is the request's seed.
type Script = dyn Fn(&str, u64) -> String + Send + Sync;

/// Answers from a script. Its tokens are words (with the space after them), numbered as they are first seen.
pub struct ScriptedGenerator {
    id: GenerationId,
    script: Box<Script>,
    pause: Duration,
    words: Arc<Mutex<Words>>,
}

#[derive(Default)]
struct Words {
    by_number: Vec<String>,
    numbers: std::collections::HashMap<String, u32>,
}

impl std::fmt::Debug for ScriptedGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedGenerator").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ScriptedGenerator {
    /// A generator that answers each prompt as `script` says.
    pub fn new(id: &str, script: impl Fn(&str, u64) -> String + Send + Sync + 'static) -> Self {
        Self {
            id: GenerationId::from_wire(id),
            script: Box::new(script),
            pause: Duration::ZERO,
            words: Arc::default(),
        }
    }

    /// Waits this long before each token.
    #[must_use]
    pub fn pausing(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

impl Codec for ScriptedGenerator {
    fn context_tokens(&self) -> usize {
        8192
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |piece: &str| {
            if let Some(number) = words.numbers.get(piece) {
                return *number;
            }
            let number = u32::try_from(words.by_number.len()).unwrap_or(u32::MAX);
            words.by_number.push(piece.to_owned());
            words.numbers.insert(piece.to_owned(), number);
            number
        };
        text.split_inclusive(char::is_whitespace).map(number).collect()
    }

    fn detokenize(&self, tokens: &[u32]) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().filter_map(|t| words.by_number.get(*t as usize)).map(String::as_str).collect()
    }

    fn render(&self, messages: &[Message]) -> Result<Vec<u32>, minijinja::Error> {
        let line = |message: &Message| {
            let who = match message.role {
                Author::System => "system",
                Author::User => "user",
                Author::Assistant => "assistant",
            };
            format!("{who}: {}\n", message.content)
        };
        Ok(self.tokenize(&messages.iter().map(line).collect::<String>()))
    }
}

#[async_trait]
impl Generator for ScriptedGenerator {
    fn id(&self) -> &GenerationId {
        &self.id
    }

    async fn generate(&self, request: GenerateRequest) -> Result<TokenStream, GenerationError> {
        let answer = (self.script)(&self.detokenize(&request.prompt), request.sampling.seed);
        let tokens = self.tokenize(&answer);
        let limit = request.sampling.max_tokens as usize;
        let end = if tokens.len() > limit { FinishReason::Length } else { FinishReason::Stop };
        let texts = answer.split_inclusive(char::is_whitespace).map(str::to_owned);
        let pieces: Vec<(u32, String)> = tokens.into_iter().take(limit).zip(texts).collect();
        let pause = self.pause;
        let alternatives = usize::from(request.top_logprobs);
        let tokens = futures::stream::iter(pieces).then(move |(id, text)| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // The script is certain of every word: probability 1.
            let top = vec![Candidate { text: text.clone(), logprob: 0.0 }];
            let top = top.into_iter().take(alternatives).collect();
            Ok(Event::Token(Token { id, text, logprob: 0.0, top }))
        });
        Ok(tokens.chain(futures::stream::iter([Ok(Event::End(end))])).boxed())
    }

    /// As certain of these words as of all others.
    async fn score(&self, _: &[u32], completion: &[u32]) -> Result<Vec<f32>, GenerationError> {
        Ok(vec![0.0; completion.len()])
    }
}
