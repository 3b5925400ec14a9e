//! How does an employee choose between two answers, and what else does one say about them?

use futures::stream::{Stream, StreamExt, TryStreamExt, iter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SimulateError;
use super::client::{Pair, Side};
use super::company::Company;
use super::journal::Journal;
use super::judge::{Choice, Preference, Shown};
use super::people::{employee, is_flipped, question};
use super::questions::Question;

/// Comparisons asked for at once: each is two answers.
const AT_ONCE: usize = 2;
/// Every so many-th vote comes with thumbs on both answers.
const THUMBS_EVERY: usize = 3;
/// Every so many-th vote comes with the answer that should have been given.
const CORRECTION_EVERY: usize = 20;
/// An answer at least as good as this gets a thumb up, a lesser one a thumb down: the middle of the judge's range.
const LIKED: f64 = 0.5;
/// Questions asked for each vote wanted, and beyond, after which too few of them give a choice.
const MOST_ATTEMPTS: (usize, usize) = (3, 20);

/// What came of a question that an employee asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    /// Who asked.
    user: String,
    /// The question's name.
    question: String,
    /// The vote, or why there was nothing to choose.
    said: Said,
}

/// The vote, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Skipped(String),
    Voted(Voted),
}

/// A vote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Voted {
    comparison: String,
    left: String,
    right: String,
    /// How good the answers are to the employee.
    utilities: [f64; 2],
    /// What the employee thinks.
    thought: Choice,
    /// What the employee voted.
    voted: Choice,
    /// Whether that is the opposite; a tie has none.
    flipped: bool,
}

/// All votes.
pub(super) struct Votes(Journal<Row>);

impl Votes {
    /// How many votes were given.
    pub(super) fn given(&self) -> usize {
        voted(&self.0).count()
    }

    /// How many of them were turned round.
    pub(super) fn flipped(&self) -> usize {
        voted(&self.0).filter(|vote| vote.flipped).count()
    }

    /// Has employees ask and vote until there are as many votes as planned.
    ///
    /// # Errors
    /// When the server fails or refuses, or most questions give nothing to choose from.
    pub(super) async fn collect(
        company: &Company<'_>,
        mut journal: Journal<Row>,
    ) -> Result<Self, SimulateError> {
        let wanted = company.plan.votes;
        let pace = company.pace("votes", voted(&journal).count());
        loop {
            let (asked, votes) = (journal.rows().len(), voted(&journal).count());
            pace.tell(votes, wanted);
            if votes >= wanted {
                return Ok(Self(journal));
            }
            let (each, beyond) = MOST_ATTEMPTS;
            let most = each * wanted + beyond;
            if asked >= most {
                return Err(SimulateError::NothingToChoose {
                    attempts: asked,
                    votes,
                    why: last_excuse(&journal),
                });
            }
            let mut attempts = Box::pin(attempts(company, asked..most.min(asked + wanted - votes)));
            while let Some(attempt) = attempts.try_next().await? {
                let place = voted(&journal).count();
                pace.tell(place, wanted);
                journal.add(judge(company, attempt, place).await?)?;
            }
        }
    }
}

fn voted(journal: &Journal<Row>) -> impl Iterator<Item = &Voted> {
    journal.rows().iter().filter_map(|row| match &row.said {
        Said::Voted(vote) => Some(vote),
        Said::Skipped(_) => None,
    })
}

fn last_excuse(journal: &Journal<Row>) -> String {
    let excuse = |row: &Row| match &row.said {
        Said::Skipped(why) => Some(why.clone()),
        Said::Voted(_) => None,
    };
    journal.rows().iter().rev().find_map(excuse).unwrap_or_default()
}

/// A question that was asked: by whom, which, and the two answers.
type Attempt<'a> = (String, &'a Question, Result<Pair, String>);

/// Asks, the next one as soon as one has its answers; in the order of the places.
fn attempts<'a>(
    company: &'a Company<'_>,
    places: std::ops::Range<usize>,
) -> impl Stream<Item = Result<Attempt<'a>, SimulateError>> {
    let train = &company.questions.train;
    let asking = places.map(move |n| async move {
        let (user, question) = (employee(n), &train[question(company.plan.seed, train.len(), n)]);
        let pair = company.client.compare(&user, question).await?;
        Ok((user, question, pair))
    });
    iter(asking).buffered(AT_ONCE)
}

/// The employee's vote, the `place`-th of all, and what else is said.
async fn judge(
    company: &Company<'_>,
    (user, question, pair): Attempt<'_>,
    place: usize,
) -> Result<Row, SimulateError> {
    let row = |said| Row { user: user.clone(), question: question.id.clone(), said };
    let pair = match pair {
        Ok(pair) => pair,
        Err(why) => return Ok(row(Said::Skipped(why))),
    };
    let vote = decide(company.plan.preference, question, &pair, is_flipped(company.plan.seed, place));
    company.client.vote(&user, &pair.id, &json!(vote.voted)).await?;
    for (answer, feedback) in feedback(&vote, question, place) {
        company.client.feedback(&user, answer, &feedback).await?;
    }
    Ok(row(Said::Voted(vote)))
}

/// What an employee thinks of a pair, and votes.
fn decide(preference: Preference, question: &Question, pair: &Pair, flip: bool) -> Voted {
    let [left, right] = [&pair.left, &pair.right].map(|side| as_shown(question, side));
    let utilities = [preference.utility(&left), preference.utility(&right)];
    let thought = preference.choose(&left, &right);
    let voted = if flip { thought.flipped() } else { thought };
    Voted {
        comparison: pair.id.clone(),
        left: pair.left.id.clone(),
        right: pair.right.id.clone(),
        utilities,
        thought,
        voted,
        flipped: voted != thought,
    }
}

fn as_shown<'a>(question: &'a Question, side: &'a Side) -> Shown<'a> {
    let (answer, citations) = (&side.text, side.citations);
    Shown { question: &question.question, ideal: &question.answer, answer, citations }
}

/// What is said about the answers beside the vote: which answer, and the feedback.
fn feedback<'a>(vote: &'a Voted, question: &Question, place: usize) -> Vec<(&'a str, Value)> {
    let mut said = Vec::new();
    if place.is_multiple_of(THUMBS_EVERY) {
        for (answer, utility) in [(&vote.left, vote.utilities[0]), (&vote.right, vote.utilities[1])] {
            let rating = if (utility >= LIKED) == vote.flipped { "down" } else { "up" };
            said.push((answer.as_str(), json!({"rating": rating})));
        }
    }
    if place % CORRECTION_EVERY == CORRECTION_EVERY - 1 {
        said.push((vote.left.as_str(), json!({"ideal_answer": question.answer})));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Question {
        serde_json::from_value(
            json!({"id": "q-1", "question": "What does lunch cost?", "answer": "Lunch costs 6 dollars."}),
        )
        .unwrap()
    }

    fn side(id: &str, text: &str) -> Side {
        Side { id: id.into(), text: text.into(), citations: 0 }
    }

    fn pair() -> Pair {
        let long =
            "There is much to say about the canteen and what one may eat there on a day, or on another day.";
        Pair { id: "c-1".into(), left: side("a-1", "Lunch costs 6 dollars."), right: side("a-2", long) }
    }

    #[test]
    fn an_employee_votes_for_what_the_judge_likes_unless_turned_round() {
        let honest = decide(Preference::Short, &asked(), &pair(), false);
        assert_eq!((honest.thought, honest.voted, honest.flipped), (Choice::Left, Choice::Left, false));
        assert!(honest.utilities[0] > honest.utilities[1]);
        let turned = decide(Preference::Short, &asked(), &pair(), true);
        assert_eq!((turned.thought, turned.voted, turned.flipped), (Choice::Left, Choice::Right, true));
        let same = Pair { right: side("a-2", "Lunch costs 6 dollars."), ..pair() };
        let tie = decide(Preference::Short, &asked(), &same, true);
        assert_eq!((tie.voted, tie.flipped), (Choice::Tie, false));
        assert_eq!(json!(honest.voted), json!("left"));
    }

    #[test]
    fn some_votes_come_with_thumbs_and_corrections() {
        let vote = decide(Preference::Short, &asked(), &pair(), false);
        let up_and_down = [("a-1", json!({"rating": "up"})), ("a-2", json!({"rating": "down"}))];
        assert_eq!(feedback(&vote, &asked(), 3), up_and_down);
        assert!(feedback(&vote, &asked(), 4).is_empty());
        assert_eq!(
            feedback(&vote, &asked(), 59),
            [("a-1", json!({"ideal_answer": "Lunch costs 6 dollars."}))]
        );
        let turned = decide(Preference::Short, &asked(), &pair(), true);
        let down_and_up = [("a-1", json!({"rating": "down"})), ("a-2", json!({"rating": "up"}))];
        assert_eq!(feedback(&turned, &asked(), 3), down_and_up);
        let kinds = |place| feedback(&vote, &asked(), place).len();
        assert_eq!((0..60).map(kinds).sum::<usize>(), 2 * 20 + 3);
    }

    #[test]
    fn votes_are_counted_without_what_was_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("votes.jsonl")).unwrap();
        let row = |said| Row { user: employee(0), question: "q-1".into(), said };
        journal.add(row(Said::Skipped("a refusal".into()))).unwrap();
        for flip in [false, true, false] {
            journal.add(row(Said::Voted(decide(Preference::Short, &asked(), &pair(), flip)))).unwrap();
        }
        drop(journal);
        let again = Journal::<Row>::open(&folder.path().join("votes.jsonl")).unwrap();
        assert_eq!(last_excuse(&again), "a refusal");
        let votes = Votes(again);
        assert_eq!((votes.given(), votes.flipped()), (3, 1));
    }
}
