//! What is asked for? What makes an answer good depends on it: a yes is short, a way to do something is not, a letter that
//! is to be written is no answer, and in the middle of a conversation much need not be said again.

use super::text::sentences;
use crate::domain::{Author, Message};

/// What is asked for, as far as a question's first words and its place in the conversation tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Yes or no.
    Whether,
    /// A person, a place, a time, a number, a name.
    Fact,
    /// A way or a reason.
    How,
    /// Any other question.
    Other,
    /// No question: a task, or words to search for.
    Task,
    /// Whatever is asked when it is not the first thing in its conversation.
    Following,
}

/// What each kind is called, in order.
pub(super) const KINDS: [&str; 6] = [
    "asks whether",
    "asks for a fact",
    "asks how or why",
    "asks otherwise",
    "is no question",
    "goes on with a conversation",
];

const WHETHER: &[&str] = &[
    "is", "are", "am", "was", "were", "do", "does", "did", "can", "could", "may", "might", "must", "will",
    "would", "shall", "should", "has", "have", "had",
];
const FACT: &[&str] = &["who", "whom", "whose", "when", "where", "which", "what"];
/// With these, "how" asks for a number.
const MEASURES: &[&str] = &["many", "much", "long", "old", "often", "far", "big", "large", "high", "tall"];
const HOW: &[&str] = &["how", "why"];
/// Words before a question's first one.
const POLITE: &[&str] = &["and", "but", "so", "also", "please", "hi", "hello", "then", "ok", "okay"];

/// What a feature counts in the columns of all questions, when a task is set or a conversation goes on: enough that
/// people's choices about questions say something of these too, where there are few, and little enough that they do not
/// decide it. 0.1 to 0.4 are as good as each other, and up to 1,000 choices better than 1 (`benches/RESULTS.md`).
const SHARED: f64 = 0.2;
/// What a feature of a question counts in the columns of its kind, beside the columns of all: kinds of questions differ
/// less from each other than from nothing, so the ridge holds their own coefficients 4 times as strongly.
const CROSSED: f64 = 0.5;

impl Kind {
    /// All, in order.
    pub(super) const ALL: [Self; KINDS.len()] =
        [Self::Whether, Self::Fact, Self::How, Self::Other, Self::Task, Self::Following];

    /// What a feature counts in the columns of all kinds, and in those of this one.
    pub(super) const fn weights(self) -> (f64, f64) {
        match self {
            Self::Whether | Self::Fact | Self::How | Self::Other => (1.0, CROSSED),
            Self::Task | Self::Following => (SHARED, 1.0),
        }
    }

    /// Of a conversation's last message, where it is the first that a person says: of its last sentence that ends with a
    /// question mark, else of its first one.
    pub(super) fn of(conversation: &[Message]) -> Self {
        if conversation.iter().filter(|message| message.role == Author::User).count() > 1 {
            return Self::Following;
        }
        let asked = conversation.last().map_or("", |message| message.content.as_str());
        let all = sentences(asked);
        let question = all.iter().rfind(|sentence| sentence.ends_with('?'));
        let words = super::text::words(question.or(all.first()).copied().unwrap_or_default());
        let mut words = words.iter().map(String::as_str).skip_while(|word| POLITE.contains(word));
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if WHETHER.contains(&first) {
            Self::Whether
        } else if FACT.contains(&first) || (first == "how" && MEASURES.contains(&second)) {
            Self::Fact
        } else if HOW.contains(&first) {
            Self::How
        } else if question.is_some() {
            Self::Other
        } else {
            Self::Task
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_tell() {
        let kind = |asked: &str| Kind::of(&[Message::user(asked)]);
        assert_eq!(kind("Is lunch free?"), Kind::Whether);
        assert_eq!(kind("I am new here. And where is HR?"), Kind::Fact);
        assert_eq!(kind("How many days of leave do I have?"), Kind::Fact);
        assert_eq!(kind("How do I book a desk"), Kind::How);
        assert_eq!(kind("Any idea where to park?"), Kind::Other);
        assert_eq!(kind("Write a letter to the landlord."), Kind::Task);
        assert_eq!(kind("vacation days"), Kind::Task);
        assert_eq!(kind(""), Kind::Task);
        assert_eq!(Kind::of(&[]), Kind::Task);
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| *kind as usize == place));
        assert_eq!(KINDS[Kind::Other as usize], "asks otherwise");
    }

    #[test]
    fn a_second_question_goes_on_with_a_conversation() {
        let first = [Message::system("Be brief."), Message::user("Is lunch free?")];
        assert_eq!(Kind::of(&first), Kind::Whether);
        let second = [Message::assistant("No."), Message::user("What does it cost?")];
        assert_eq!(Kind::of(&[first.as_slice(), &second].concat()), Kind::Following);
    }
}
