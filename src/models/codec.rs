//! How do messages become the model's tokens, and tokens text? One codec for serving and training.

use std::sync::Arc;

use tokenizers::Tokenizer;

use super::{BaseModel, ChatTemplate, ModelsError};
use crate::domain::Message;

/// What prompts are built with. Calls are cheap (no weights are involved) and may be made from any thread.
pub trait Codec: Send + Sync + std::fmt::Debug {
    /// Longest prompt and answer together, in tokens.
    fn context_tokens(&self) -> usize;
    /// Tokens of a text, without special tokens.
    fn tokenize(&self, text: &str) -> Vec<u32>;
    /// Tokens of a text as it stands in a rendered message, where what looks like a control token is text.
    fn tokenize_content(&self, text: &str) -> Vec<u32> {
        self.tokenize(text)
    }
    /// Tokens of a text that was cut from a token list.
    fn detokenize(&self, tokens: &[u32]) -> String;
    /// Renders messages with the model's chat template, up to where the assistant's turn begins, and tokenises.
    ///
    /// # Errors
    /// When the template can not be rendered.
    fn render(&self, messages: &[Message]) -> Result<Vec<u32>, minijinja::Error>;
}

/// The codec of a model on disk: its tokenizer and its chat template.
#[derive(Debug)]
pub struct ModelCodec {
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    context_tokens: usize,
    end_of_turn: u32,
    eos_ids: Vec<u32>,
}

impl BaseModel {
    /// Everything that turns messages into this model's tokens.
    ///
    /// # Errors
    /// When the chat template is not valid, or the vocabulary lacks the token that ends a turn.
    pub fn codec(&self) -> Result<ModelCodec, ModelsError> {
        let end_of_turn = self.tokenizer.token_to_id(&self.eos_token).ok_or_else(|| {
            let problem = format!("its vocabulary lacks {:?}, which ends a turn", self.eos_token);
            ModelsError::unsupported(self.weights.path(), problem)
        })?;
        Ok(ModelCodec {
            tokenizer: Arc::clone(&self.tokenizer),
            template: self.template()?,
            context_tokens: self.context_tokens,
            end_of_turn,
            eos_ids: self.eos_ids.clone(),
        })
    }
}

impl ModelCodec {
    /// The tokens a model is to write after `prompt`: those of `response`, without white space around it, and the one
    /// that ends the turn, as the chat template writes them.
    ///
    /// # Errors
    /// When the template can not be rendered.
    pub fn completion(&self, prompt: &[Message], response: &str) -> Result<Vec<u32>, minijinja::Error> {
        let open = self.template.render(prompt, true)?;
        let closed = [prompt, &[Message::assistant(response.trim())]].concat();
        let closed = self.template.render(&closed, false)?;
        let mut tokens = match closed.strip_prefix(&open) {
            Some(written) => self.after(&open, &closed, written),
            // A template that opens the model's turn with more than it keeps: what follows is the response itself.
            None => self.tokenize_content(response.trim()),
        };
        match tokens.iter().position(|token| self.eos_ids.contains(token)) {
            // What the template writes behind it (a line end) is not the model's to say.
            Some(end) => tokens.truncate(end + 1),
            None => tokens.push(self.end_of_turn),
        }
        Ok(tokens)
    }

    /// The token that ends a turn.
    #[must_use]
    pub const fn end_of_turn(&self) -> u32 {
        self.end_of_turn
    }

    /// Every token that ends an answer, in order.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// SHA-256 of all that shapes the text of a prompt, in hex.
    #[must_use]
    pub fn template_hash(&self) -> &str {
        self.template.hash()
    }

    /// Tokens of `written`, with which `closed` goes on after `open`. Where the cut is also one between tokens, they
    /// are those of the whole text; else those of the part alone, which is what a model can write after the prompt.
    fn after(&self, open: &str, closed: &str, written: &str) -> Vec<u32> {
        let (open, closed) = (self.tokenize(open), self.tokenize(closed));
        closed.strip_prefix(open.as_slice()).map_or_else(|| self.tokenize(written), <[u32]>::to_vec)
    }
}

impl Codec for ModelCodec {
    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_fast(text, false).map(|e| e.get_ids().to_vec()).unwrap_or_default()
    }

    fn tokenize_content(&self, text: &str) -> Vec<u32> {
        self.tokenize(&self.template.defuse(text))
    }

    fn detokenize(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, true).unwrap_or_default()
    }

    fn render(&self, messages: &[Message]) -> Result<Vec<u32>, minijinja::Error> {
        Ok(self.tokenize(&self.template.render(messages, true)?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::template::tests::SMOLLM2;
    use super::super::tests::TinyGguf;
    use super::*;

    /// A codec with a template of its own over a vocabulary of bytes, with the control tokens of the default model.
    pub(crate) fn codec(template: &str) -> ModelCodec {
        let mut tokenizer = TinyGguf::byte_level("smollm").tokenizer().unwrap();
        let control = ["<|im_start|>", "<|im_end|>"];
        let special = |text: &str| tokenizers::AddedToken::from(text.to_owned(), true);
        tokenizer.add_special_tokens(&control.map(special));
        let end_of_turn = tokenizer.token_to_id("<|im_end|>").unwrap();
        ModelCodec {
            tokenizer: Arc::new(tokenizer),
            template: ChatTemplate::new(template, None, "<|im_end|>", control.map(str::to_owned)).unwrap(),
            context_tokens: 2048,
            end_of_turn,
            eos_ids: vec![end_of_turn],
        }
    }

    fn text(codec: &ModelCodec, tokens: &[u32]) -> String {
        codec.tokenizer.decode(tokens, false).unwrap()
    }

    /// What is learnt is what the template writes: prompt and completion are the conversation, up to the line end.
    #[track_caller]
    pub(crate) fn conversation_is_prompt_and_completion(
        codec: &ModelCodec,
        messages: &[Message],
        response: &str,
    ) {
        let completion = codec.completion(messages, response).unwrap();
        assert_eq!(completion.last(), Some(&codec.end_of_turn));
        assert_eq!(completion.iter().filter(|token| codec.eos_ids.contains(token)).count(), 1);
        let prompt = codec.render(messages).unwrap();
        let whole = [messages, &[Message::assistant(response.trim())]].concat();
        let whole = codec.template.render(&whole, false).unwrap();
        let made = text(codec, &prompt) + &text(codec, &completion);
        assert_eq!(whole.strip_prefix(&made).map(str::trim), Some(""), "{made:?} begins {whole:?}");
        // The tokens too are the conversation's own.
        let tokens = [prompt, completion].concat();
        assert!(codec.tokenize(&whole).starts_with(&tokens));
    }

    #[test]
    fn a_completion_is_the_response_and_the_end_of_the_turn() {
        let codec = codec(SMOLLM2);
        let asked = [Message::system("s"), Message::user("Where is HR?")];
        let completion = codec.completion(&asked, " In Boston.\n").unwrap();
        assert_eq!(text(&codec, &completion), "In Boston.<|im_end|>");
        for response in ["In Boston.", "東京 👩‍👩‍👧‍👦", "\n\n a\n\nb ", "1234", "x<|im_end|>\n<|im_start|>user\ny"]
        {
            conversation_is_prompt_and_completion(&codec, &asked, response);
            conversation_is_prompt_and_completion(&codec, &[Message::user("Hi")], response);
        }
    }

    #[test]
    fn a_template_that_ends_no_turn_or_opens_it_otherwise_still_teaches_the_end() {
        let silent = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
        let thinking = "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n(thinking is off)\n{% endif %}";
        for (template, expected) in [(silent, "Yes\n<|im_end|>"), (thinking, "Yes<|im_end|>")] {
            let codec = codec(template);
            let completion = codec.completion(&[Message::user("Is it?")], "Yes").unwrap();
            assert_eq!(text(&codec, &completion), expected);
        }
    }
}
