//! Which text does the next token add? A character can be spread over several tokens.

use tokenizers::Tokenizer;

/// Tokens before the newest whose text is decoded again with it, so that joining rules see their neighbours; also the
/// most tokens a character can be spread over (UTF-8 has at most 4 bytes).
const CONTEXT: usize = 4;

/// Turns the tokens of one answer into text, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Detokenizer {
    tokens: Vec<u32>,
    /// Tokens from here are decoded.
    from: usize,
    /// Tokens up to here have been turned into text already.
    shown: usize,
}

impl Detokenizer {
    /// Adds a token; returns the text that is complete now.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.tokens.push(token);
        let decode = |tokens: &[u32]| tokenizer.decode(tokens, true).unwrap_or_default();
        let before = decode(&self.tokens[self.from..self.shown]);
        let now = decode(&self.tokens[self.from..]);
        // U+FFFD at the end: a character is incomplete, unless it has had its tokens.
        if now.ends_with('\u{FFFD}') && self.tokens.len() - self.shown < CONTEXT {
            return String::new();
        }
        let text = now.strip_prefix(before.as_str()).unwrap_or(&now).to_owned();
        self.shown = self.tokens.len();
        self.from = self.shown.saturating_sub(CONTEXT);
        text
    }
}
