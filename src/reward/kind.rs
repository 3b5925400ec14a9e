//! What does a question ask for? What makes an answer good depends on it: a yes is short, a way to do something is not.

use super::text::sentences;
use crate::domain::{Author, Message};

/// What is asked for, as far as a question's first words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Yes or no.
    Whether,
    /// A person, a place, a time, a number, a name.
    Fact,
    /// A way or a reason.
    How,
    /// Anything else, orders among them.
    Other,
}

/// What each kind is called, in order.
pub(super) const KINDS: [&str; 4] = ["asks whether", "asks for a fact", "asks how or why", "asks otherwise"];
/// What a question of any kind is called that is not the first of its conversation.
pub(super) const FOLLOWING: &str = "goes on with a conversation";

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

/// Whether a conversation's last question is not its first one: much has been said then, and need not be said again.
pub(super) fn goes_on(conversation: &[Message]) -> bool {
    conversation.iter().filter(|message| message.role == Author::User).count() > 1
}

impl Kind {
    /// Of a conversation's last message: of its last sentence that ends with a question mark, else of its first one.
    pub(super) fn of(conversation: &[Message]) -> Self {
        let asked = conversation.last().map_or("", |message| message.content.as_str());
        let all = sentences(asked);
        let question = all.iter().rfind(|sentence| sentence.ends_with('?')).or(all.first()).copied();
        let words = super::text::words(question.unwrap_or_default());
        let mut words = words.iter().map(String::as_str).skip_while(|word| POLITE.contains(word));
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if WHETHER.contains(&first) {
            Self::Whether
        } else if FACT.contains(&first) || (first == "how" && MEASURES.contains(&second)) {
            Self::Fact
        } else if HOW.contains(&first) {
            Self::How
        } else {
            Self::Other
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
        assert_eq!(kind("Write a letter to the landlord."), Kind::Other);
        assert_eq!(kind(""), Kind::Other);
        assert_eq!(Kind::of(&[]), Kind::Other);
        assert_eq!(KINDS[Kind::Other as usize], "asks otherwise");
    }

    #[test]
    fn a_second_question_goes_on_with_a_conversation() {
        let first = [Message::system("Be brief."), Message::user("Is lunch free?")];
        assert!(!goes_on(&first) && !goes_on(&[]));
        let second = [Message::assistant("No."), Message::user("What does it cost?")];
        assert!(goes_on(&[first.as_slice(), &second].concat()));
    }
}
