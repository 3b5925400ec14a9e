//! What can be seen of an answer without knowing what people like? Interpretable numbers: closeness to question and
//! passages, support of its claims, citations, length and form.

mod form;
mod lexical;
mod meaning;

use super::kind::Kind;
use super::text::{names, numbers, sentences, term_set, terms, without_marks};
use super::{Extractor, Item, RewardError};
use crate::domain::Message;
use lexical::Lexical;
use meaning::Vectors;

pub(super) use form::LENGTH;
pub(super) use lexical::GROUNDED;

/// What is seen of one item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// In the order of [`feature_names`].
    pub(super) features: Vec<f64>,
    /// Whether there were passages.
    pub(super) grounded: bool,
    /// What was asked for.
    pub(super) kind: Kind,
}

impl Row {
    pub(super) fn of(features: Vec<f64>, item: &Item<'_>) -> Self {
        Self { features, grounded: !item.passages.is_empty(), kind: Kind::of(item.conversation) }
    }
}

/// An item's texts, cut up once.
pub(super) struct Reading<'a> {
    question: &'a str,
    /// All that was said before the answer, the question among it.
    said: Vec<&'a str>,
    /// Whether they are more than the question itself.
    grounded: bool,
    passages: Vec<&'a str>,
    passage_sentences: Vec<&'a str>,
    /// The answer without marks.
    answer: String,
    /// The passages it names, from 1.
    marks: Vec<usize>,
}

/// Sentences of one item's passages that are compared: five passages of a page each have fewer.
const MOST_SENTENCES: usize = 120;

impl<'a> Reading<'a> {
    fn of(item: &Item<'a>, index: usize) -> Result<Self, RewardError> {
        let question = item.conversation.last().map(|message: &Message| message.content.as_str());
        let question = question.ok_or(RewardError::EmptyConversation { index })?;
        if item.answer.trim().is_empty() {
            return Err(RewardError::EmptyAnswer { index });
        }
        let grounded = !item.passages.is_empty();
        let passages =
            if grounded { item.passages.iter().map(String::as_str).collect() } else { vec![question] };
        let passage_sentences =
            passages.iter().flat_map(|passage| sentences(passage)).take(MOST_SENTENCES).collect();
        let (answer, marks) = without_marks(item.answer);
        let said = item.conversation.iter().map(|message| message.content.as_str()).collect();
        Ok(Self { question, said, grounded, passages, passage_sentences, answer, marks })
    }

    /// Marks that name a passage.
    fn valid_marks(&self) -> usize {
        self.marks.iter().filter(|mark| (1..=self.passages.len()).contains(*mark)).count()
    }

    fn answer_sentences(&self) -> Vec<&str> {
        sentences(&self.answer)
    }
}

/// What each feature is called, in order.
pub(super) fn feature_names() -> Vec<&'static str> {
    [lexical::NAMES.as_slice(), &meaning::NAMES, &form::NAMES].concat()
}

impl Extractor {
    /// What is seen of each item. Without a sentence model the cosines are 0.
    ///
    /// # Errors
    /// When an answer or conversation is empty, or the sentence model fails.
    pub(super) fn features(&self, items: &[Item<'_>]) -> Result<Vec<Row>, RewardError> {
        let read = |(index, item)| Reading::of(item, index);
        let readings = items.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let vectors = match &self.encoder {
            Some(encoder) => Some(Vectors::of(encoder, &readings)?),
            None => None,
        };
        let features = readings.iter().map(|reading| numbers_of(reading, vectors.as_ref()));
        Ok(features.zip(items).map(|(features, item)| Row::of(features, item)).collect())
    }
}

fn numbers_of(reading: &Reading<'_>, vectors: Option<&Vectors>) -> Vec<f64> {
    let lexical = Lexical::of(reading);
    let cosines = vectors.map_or([0.0; meaning::NAMES.len()], |vectors| vectors.features(reading));
    lexical.features().chain(cosines).chain(form::features(reading)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tone_and_order_are_counted_in_words() {
        let conversation = [Message::user("How do I get a badge?")];
        let count = |name: &str, answer: &str| {
            let item = Item { conversation: &conversation, passages: &[], answer };
            let row = Extractor::default().features(&[item]).unwrap().remove(0);
            row.features[feature_names().iter().position(|feature| *feature == name).unwrap()].exp() - 1.0
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        near(count("speaks to the reader", "Bring your passport and you get it. Yours!"), 3.0);
        near(count("speaks for the company", "We print it; let's meet at our desk."), 3.0);
        near(count("order of steps", "First call, then come. Finally sign."), 3.0);
        near(count("order of steps", "The clock is in the thirsty room."), 0.0);
    }

    #[test]
    fn what_stands_in_no_passage_and_was_not_said_before_is_unsupported() {
        let passages = ["The People team sits in room 310.".to_owned(), "Lunch is free.".to_owned()];
        let conversation = [
            Message::user("I am new in Boston. Where is HR?"),
            Message::assistant("On the third floor."),
            Message::user("And the room?"),
        ];
        let seen = |name: &str, answer: &str, passages: &[String]| {
            let item = Item { conversation: &conversation, passages, answer };
            let row = Extractor::default().features(&[item]).unwrap().remove(0);
            row.features[feature_names().iter().position(|feature| *feature == name).unwrap()]
        };
        let count = |what: &str, answer: &str, passages: &[String]| {
            (seen(&format!("unsupported {what}"), answer, passages).exp() - 1.0).round()
        };
        // Not one word of the passages: what was said in the conversation is known all the same.
        assert_eq!(count("words", "HR in Boston is on the third floor.", &passages), 0.0);
        assert_eq!(count("words", "Bananas grow on the third floor of Ecuador.", &passages), 3.0);
        assert_eq!(count("pairs of words", "The People team sits upstairs.", &passages), 1.0);
        assert_eq!(count("claims", "The team sits in room 310. Bananas grow there.", &passages), 1.0);
        for what in ["words", "pairs of words", "claims"] {
            assert_eq!(
                count(what, "Bananas grow in Ecuador.", &[]),
                0.0,
                "{what}: there is nothing to rest on"
            );
        }
        let first = |answer: &str| seen("answer words in first passage", answer, &passages);
        assert!(first("The team is in room 310.") > 0.9);
        assert_eq!(first("Lunch is free."), 0.0);
    }

    #[test]
    fn a_source_is_shown_when_it_is_named_or_has_the_answers_words() {
        let (conversation, passages) =
            ([Message::user("Where is HR?")], ["The People team sits in room 310.".to_owned()]);
        let shows = |answer: &str, passages: &[String]| {
            let item = Item { conversation: &conversation, passages, answer };
            let row = Extractor::default().features(&[item]).unwrap().remove(0);
            let place = feature_names().iter().position(|name| *name == "shows a source").unwrap();
            row.features[place]
        };
        assert_eq!(shows("The People team is in room 310.", &passages), 1.0);
        assert_eq!(shows("Ask around [1].", &passages), 1.0);
        assert_eq!(shows("Ask around [2].", &passages), 0.0);
        assert_eq!(shows("Bananas grow in Ecuador.", &passages), 0.0);
        assert_eq!(shows("HR is somewhere [1].", &[]), 0.0, "there is no source to show");
    }
}
