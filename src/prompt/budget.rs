//! What is left out when not everything fits?

use super::question_text;
use crate::domain::{Author, Message, PassageRef};
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
    /// Cuts until the rendered prompt has at most `budget` tokens, or only instructions and question are left: the further
    /// passages, then the history, then the examples, and the best passage last.
    pub(super) fn shrink(&mut self, budget: usize) -> Result<Vec<u32>, Error> {
        self.forget_what_can_not_fit(budget);
        let mut tokens = self.render()?;
        while tokens.len() > budget {
            let over = tokens.len() - budget;
            if self.passages.len() > 1 {
                self.cut_last_passage(over);
            } else if !self.history.is_empty() {
                self.cut_oldest_turn();
            } else if !self.passages.is_empty() && !self.examples.is_empty() {
                self.examples.clear();
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
        // Cut at a word, so that no half word is quoted; what was cut is visible. A script without spaces is cut between
        // characters.
        let text = text.trim_end_matches('\u{FFFD}');
        let word = text.rfind(char::is_whitespace).filter(|end| end * 2 > text.len());
        let kept = text[..word.unwrap_or(text.len())].trim_end();
        if !kept.is_empty() {
            passage.text = format!("{kept}{ELLIPSIS}");
            self.passages.push(passage);
        }
    }

    /// Leaves out turns, the oldest first, whose words alone are too many. Rendering once for each turn left out would
    /// take a time that grows with the square of a conversation.
    fn forget_what_can_not_fit(&mut self, budget: usize) {
        let mut room = budget;
        let mut fits = |message: &Message| {
            let tokens = self.codec.tokenize(&message.content).len();
            let fits = tokens <= room;
            room = room.saturating_sub(tokens);
            fits
        };
        let kept = self.history.iter().rev().take_while(|message| fits(message)).count();
        let from = self.history.len() - kept;
        if from > 0 {
            // What is left begins with a question.
            let turn = self.history[from..].iter().position(|message| message.role == Author::User);
            self.history.drain(..turn.map_or(self.history.len(), |at| from + at));
        }
    }

    /// Leaves out the oldest question with what was answered to it.
    fn cut_oldest_turn(&mut self) {
        let next = self.history.iter().skip(1).position(|m| m.role == Author::User);
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

    #[test]
    fn the_best_passage_outlives_the_examples() {
        let long = (0..90).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
        let question = [Message::user(format!("{long} Where is it?"))];
        let (text, kept) = build(300, &question, &[passage(1, 60)]);
        assert_eq!(kept.len(), 1);
        assert!(text.contains("p1w59") && text.contains("Where is it?"), "{text}");
        // Without a passage to make room for, nothing is taken away for nothing.
        let (short, _) = build(400, &[Message::user("Where is it?")], &[passage(1, 60)]);
        assert!(short.len() > text.len() - long.len());
    }

    /// Every character is a token.
    #[derive(Debug)]
    struct Characters;

    impl Codec for Characters {
        fn context_tokens(&self) -> usize {
            8192
        }

        fn tokenize(&self, text: &str) -> Vec<u32> {
            text.chars().map(u32::from).collect()
        }

        fn detokenize(&self, tokens: &[u32]) -> String {
            tokens.iter().filter_map(|token| char::from_u32(*token)).collect()
        }

        fn render(&self, messages: &[Message]) -> Result<Vec<u32>, minijinja::Error> {
            Ok(messages.iter().flat_map(|message| self.tokenize(&message.content)).collect())
        }
    }

    #[test]
    fn a_script_without_spaces_is_cut_between_characters() {
        let text = "休暇は年に二十日あり".repeat(40);
        let passages = [PassageRef { text: text.clone(), ..passage(1, 1) }];
        let generator = Characters;
        let (system, question) = (Some(Message::system("Answer.")), Message::user("休暇は？"));
        let whole = generator.tokenize(&text).len();
        let mut draft = Draft {
            codec: &generator,
            system,
            examples: Vec::new(),
            history: Vec::new(),
            passages: passages.to_vec(),
            question: &question,
        };
        let all = draft.render().unwrap().len();
        draft.shrink(all - whole / 4).unwrap();
        let kept = &draft.passages[0].text;
        assert!(kept.ends_with(ELLIPSIS) && kept.len() > text.len() / 2, "{kept}");
        assert!(text.starts_with(kept.trim_end_matches(ELLIPSIS)));
    }

    /// Counts how often a prompt is rendered.
    #[derive(Debug)]
    struct Counting(ScriptedGenerator, std::sync::atomic::AtomicUsize);

    impl Codec for Counting {
        fn context_tokens(&self) -> usize {
            self.0.context_tokens()
        }

        fn tokenize(&self, text: &str) -> Vec<u32> {
            self.0.tokenize(text)
        }

        fn detokenize(&self, tokens: &[u32]) -> String {
            self.0.detokenize(tokens)
        }

        fn render(&self, messages: &[Message]) -> Result<Vec<u32>, minijinja::Error> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.render(messages)
        }
    }

    #[test]
    fn a_long_conversation_is_not_rendered_once_a_turn() {
        let generator = ScriptedGenerator::new("gen-test", |_, _| String::new());
        let codec = Counting(generator, 0.into());
        let mut messages: Vec<Message> = Vec::new();
        for turn in 0..1_000 {
            messages.push(Message::user(format!("question {turn}")));
            messages.push(Message::assistant(format!("answer {turn}")));
        }
        messages.push(Message::user("Which floor?"));
        let builder = PromptBuilder::new(&PromptConfig { max_tokens: 300, ..PromptConfig::default() });
        let passages = [passage(1, 20)];
        let parts = PromptParts { messages: &messages, passages: &passages, answer_tokens: 100 };
        let prompt = builder.build(&codec, parts).unwrap();
        let text = codec.detokenize(&prompt.tokens);
        assert!(prompt.tokens.len() <= 300 && text.contains("Which floor?"), "{text}");
        // What is left by its words alone is at most the budget: some tens of turns of the thousand.
        let rendered = codec.1.load(std::sync::atomic::Ordering::Relaxed);
        assert!(rendered < 200, "rendered {rendered} times");
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
