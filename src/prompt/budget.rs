//! What is left out when not everything fits?

use super::question_text;
use crate::domain::{Message, PassageRef};
use crate::error::Error;
use crate::generation::GenerationError;
use crate::models::Codec;

/// A passage cut below this many tokens says nothing anymore and is left out.
const SMALLEST_PASSAGE: usize = 24;
/// Shows where a passage was cut.
const ELLIPSIS: &str = " …";

/// A prompt in the making.
pub(super) struct Draft<'a> {
    pub(super) codec: &'a dyn Codec,
    pub(super) system: Option<Message>,
    pub(super) examples: Vec<Message>,
    pub(super) history: Vec<Message>,
    pub(super) passages: Vec<PassageRef>,
    pub(super) question: &'a Message,
}

impl Draft<'_> {
    /// Cuts until the rendered prompt has at most `budget` tokens, or only instructions and question are left.
    pub(super) fn shrink(&mut self, budget: usize) -> Result<Vec<u32>, Error> {
        let mut tokens = self.render()?;
        while tokens.len() > budget {
            let over = tokens.len() - budget;
            if self.passages.len() > 1 {
                self.cut_last_passage(over);
            } else if !self.history.is_empty() {
                self.cut_oldest_turn();
            } else if !self.passages.is_empty() {
                self.cut_last_passage(over);
            } else {
                break;
            }
            tokens = self.render()?;
        }
        Ok(tokens)
    }

    /// The messages as they stand now.
    pub(super) fn messages(&self) -> Vec<Message> {
        let question = Message::user(question_text(&self.passages, &self.question.content));
        self.system
            .iter()
            .chain(&self.examples)
            .chain(&self.history)
            .cloned()
            .chain(std::iter::once(question))
            .collect()
    }

    fn render(&self) -> Result<Vec<u32>, GenerationError> {
        Ok(self.codec.render(&self.messages())?)
    }

    /// Shortens the last passage by about `over` tokens, or leaves it out when little would be left of it.
    fn cut_last_passage(&mut self, over: usize) {
        let Some(mut passage) = self.passages.pop() else { return };
        let text = passage.text.trim_end_matches(ELLIPSIS);
        let tokens = self.codec.tokenize(text);
        // One more than asked for, for the ellipsis; so each cut makes the text shorter.
        let keep = tokens.len().saturating_sub(over + 1);
        if keep < SMALLEST_PASSAGE {
            return;
        }
        let text = self.codec.detokenize(&tokens[..keep]);
        // Cut at a word, so that no half word is quoted; what was cut is visible.
        let text = text.trim_end_matches('\u{FFFD}');
        let end = text.rfind(char::is_whitespace).unwrap_or(0);
        if end > 0 {
            passage.text = format!("{}{ELLIPSIS}", text[..end].trim_end());
            self.passages.push(passage);
        }
    }

    /// Leaves out the oldest question with what was answered to it.
    fn cut_oldest_turn(&mut self) {
        let next = self.history.iter().skip(1).position(|m| m.role == crate::domain::Author::User);
        self.history.drain(..next.map_or(self.history.len(), |at| at + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{PromptBuilder, PromptParts};
    use super::*;
    use crate::config::PromptConfig;
    use crate::domain::DocumentId;
    use crate::generation::ScriptedGenerator;

    fn passage(n: usize, words: usize) -> PassageRef {
        PassageRef {
            document_id: DocumentId::parse("d").unwrap(),
            passage_id: format!("d#{n}"),
            title: format!("Title{n}"),
            url: None,
            text: (0..words).map(|i| format!("p{n}w{i}")).collect::<Vec<_>>().join(" "),
            score: 1.0,
        }
    }

    fn build(max_tokens: usize, messages: &[Message], passages: &[PassageRef]) -> (String, Vec<PassageRef>) {
        let builder = PromptBuilder::new(&PromptConfig { max_tokens, ..PromptConfig::default() });
        let generator = ScriptedGenerator::new("gen-test", |_, _| String::new());
        let prompt =
            builder.build(&generator, PromptParts { messages, passages, answer_tokens: 100 }).unwrap();
        (generator.detokenize(&prompt.tokens), prompt.passages)
    }

    #[test]
    fn passages_go_before_history_and_the_first_passage_last() {
        let history = [
            Message::user("old one two three"),
            Message::assistant("old answer"),
            Message::user("Where is it?"),
        ];
        let passages = [passage(1, 60), passage(2, 60)];
        let (all, kept) = build(400, &history, &passages);
        assert!(all.contains("p2w59") && all.contains("old answer"));
        assert_eq!(kept.len(), 2);
        let (fewer, kept) = build(150, &history, &passages);
        assert!(
            fewer.contains("old answer") && fewer.contains("p1w59") && !fewer.contains("p2w59"),
            "{fewer}"
        );
        assert!(kept[kept.len() - 1].text.ends_with('…') || kept.len() == 1);
        let (least, _) = build(128, &history, &[passage(1, 300)]);
        assert!(!least.contains("old answer") && least.contains("p1w0") && least.contains("Where is it?"));
    }

    proptest! {
        /// The question is always whole, and the budget holds whenever the question alone fits.
        #[test]
        fn the_budget_holds_and_the_question_stays(
            budget in 128usize..400,
            sizes in proptest::collection::vec(1usize..120, 0..6),
            turns in 0usize..6,
        ) {
            let mut messages = Vec::new();
            for turn in 0..turns {
                messages.push(Message::user(format!("question {turn} about this and that")));
                messages.push(Message::assistant(format!("answer {turn} with some words")));
            }
            messages.push(Message::user("Which floor is the People team on?"));
            let passages: Vec<PassageRef> = sizes.iter().enumerate().map(|(n, words)| passage(n, *words)).collect();
            let builder =
                PromptBuilder::new(&PromptConfig { max_tokens: budget, ..PromptConfig::default() });
            let generator = ScriptedGenerator::new("gen-test", |_, _| String::new());
            let parts = PromptParts { messages: &messages, passages: &passages, answer_tokens: 100 };
            let prompt = builder.build(&generator, parts).unwrap();
            let text = generator.detokenize(&prompt.tokens);
            prop_assert!(text.contains("Which floor is the People team on?"));
            prop_assert!(prompt.tokens.len() <= budget, "{} > {budget}", prompt.tokens.len());
            prop_assert!(prompt.passages.len() <= passages.len());
        }
    }
}
