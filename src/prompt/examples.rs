//! What does a good answer look like? Two invented turns that stand before the conversation: a small model learns from
//! them to answer in a sentence with a fact from a passage, and to name the passage.

use super::layout;
use crate::domain::Message;

/// The examples stand in a prompt when they take at most one part in so many of its budget: in a small one the room is
/// better used for passages.
pub(super) const SHARE: usize = 2;
/// How many there are.
pub(crate) const MOST: usize = EXAMPLES.len();

/// A question with its passages, best first, as title and text, and the answer to it.
struct Example {
    passages: [(&'static str, &'static str); 2],
    question: &'static str,
    answer: &'static str,
}

/// The answers say the passage's own sentence again: with answers that said it in other words the default model made
/// things up.
const EXAMPLES: [Example; 2] = [
    Example {
        passages: [
            (
                "Bicycles",
                "Bicycles are kept in the shed behind the garage, and the key hangs beside the door. Please lock your \
                 own bicycle.",
            ),
            ("Garage > Spaces", "The garage has 80 spaces. Visitors park on level 2."),
        ],
        question: "Where do I leave my bike?",
        answer: "Bicycles are kept in the shed behind the garage, and the key hangs beside the door [1].",
    },
    Example {
        passages: [
            (
                "Canteen > Prices",
                "A warm meal costs 5 euros and a salad 3 euros. You pay by card at the till.",
            ),
            ("Canteen > Opening hours", "The canteen is open from 11:30 to 14:00."),
        ],
        question: "how much is a salad?",
        answer: "A warm meal costs 5 euros and a salad 3 euros [1].",
    },
];

/// The first `count` examples as turns of a conversation.
pub(super) fn turns(count: usize) -> Vec<Message> {
    let turn = |example: &Example| {
        [
            Message::user(layout(example.passages.into_iter(), example.question)),
            Message::assistant(example.answer),
        ]
    };
    EXAMPLES.iter().take(count).flat_map(turn).collect()
}
