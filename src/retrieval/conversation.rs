//! What does the last question of a conversation ask for, read on its own?
//!
//! "And in Dublin?" can not be searched for. When a question leans on what was said before (it is a fragment, or it
//! points with a pronoun), the person's earlier question is searched together with it.

use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use crate::domain::{Author, Message};

/// Words that point at something said before, when the question does not name it itself.
const POINTING: &[&str] = &[
    "it", "its", "that", "this", "these", "those", "they", "them", "their", "theirs", "he", "she", "him",
    "her", "there", "then", "one", "ones", "same", "else", "other", "others", "instead", "either", "both",
];

/// Beginnings that continue a conversation.
const CONTINUING: &[&str] =
    &["and", "or", "but", "so", "also", "what about", "how about", "what if", "ok", "okay", "then"];

/// Words without meaning of their own, for counting what a question is about.
const EMPTY: &[&str] = &[
    "a", "an", "the", "of", "to", "in", "on", "at", "for", "by", "with", "from", "as", "is", "are", "was",
    "were", "be", "do", "does", "did", "can", "could", "may", "might", "will", "would", "shall", "should",
    "must", "have", "has", "had", "i", "i'm", "i've", "we", "you", "my", "our", "your", "me", "us", "what",
    "which", "who", "whom", "whose", "when", "where", "why", "how", "if", "not", "no", "yes", "please",
    "any", "some", "there's", "what's", "about", "much", "many", "long", "need", "get", "ok", "okay", "so",
    "and", "or", "but", "also",
];

/// Fewer words with a meaning than this, and a question is a fragment of the one before.
const FRAGMENT_WORDS: usize = 3;

/// The text to search for: the last question, after the one it leans on when it does.
#[must_use]
pub fn contextual_query(messages: &[Message]) -> String {
    let mut questions = messages.iter().rev().filter(|message| message.role == Author::User);
    let Some(last) = questions.next() else {
        return String::new();
    };
    let last = last.content.trim();
    let mut query = last.to_owned();
    // A fragment may follow a fragment: "How many vacation days in Dublin?" "And in Boston?" "By when?"
    for earlier in questions.take(3) {
        if !leans_on_context(&query) && query.len() > last.len() || !leans_on_context(last) {
            break;
        }
        query = format!("{} {query}", earlier.content.trim());
    }
    query
}

/// Whether a question needs what was said before it.
fn leans_on_context(question: &str) -> bool {
    let lower = question.to_lowercase();
    let words: Vec<&str> = lower.unicode_words().collect();
    let begins = |beginning: &&str| {
        let mut beginning = beginning.split(' ');
        let mut words = words.iter();
        beginning.all(|word| words.next() == Some(&word))
    };
    let meaning = words.iter().filter(|word| !has(word, &EMPTY_SET) && !has(word, &POINTING_SET)).count();
    let points = words.iter().any(|word| has(word, &POINTING_SET));
    meaning < FRAGMENT_WORDS || CONTINUING.iter().any(begins) || (points && meaning < 2 * FRAGMENT_WORDS)
}

static POINTING_SET: LazyLock<HashSet<&str>> = LazyLock::new(|| POINTING.iter().copied().collect());
static EMPTY_SET: LazyLock<HashSet<&str>> = LazyLock::new(|| EMPTY.iter().copied().collect());

fn has(word: &str, set: &HashSet<&str>) -> bool {
    set.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(turns: &[&str]) -> String {
        let messages: Vec<Message> = turns
            .iter()
            .enumerate()
            .map(|(i, text)| if i % 2 == 0 { Message::user(*text) } else { Message::assistant(*text) })
            .collect();
        contextual_query(&messages)
    }

    #[test]
    fn a_complete_question_stands_alone() {
        let question = "Where is the HR department in Boston?";
        assert_eq!(query(&[question]), question);
        assert_eq!(query(&["How many vacation days do I get?", "25.", question]), question);
    }

    #[test]
    fn a_fragment_brings_the_question_before() {
        assert_eq!(
            query(&["Where is the HR department in Boston?", "Room 310.", "And in Dublin?"]),
            "Where is the HR department in Boston? And in Dublin?"
        );
        assert_eq!(
            query(&["How many leave days can I keep?", "Five.", "by when do I have to use them?"]),
            "How many leave days can I keep? by when do I have to use them?"
        );
    }

    #[test]
    fn a_fragment_of_a_fragment_goes_back_to_the_question() {
        assert_eq!(
            query(&[
                "How many vacation days do people in Dublin get?",
                "25",
                "And Boston?",
                "20",
                "Singapore?"
            ]),
            "How many vacation days do people in Dublin get? And Boston? Singapore?"
        );
    }

    #[test]
    fn the_first_question_has_nothing_before_it() {
        assert_eq!(query(&["And in Dublin?"]), "And in Dublin?");
        assert_eq!(contextual_query(&[]), "");
    }
}
