//! Does a ledger behave like a few maps, whatever the order of operations?

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{AnswerFilter, Ledger, LedgerError, Paging},
    Harness, fixtures, on_postgres,
};
use crate::domain::*;

const USERS: [&str; 3] = ["ada", "bob", "cy"];

#[derive(Debug, Clone)]
enum Operation {
    Record { user: usize, n: usize },
    Feedback { user: usize, n: usize, rating: Rating },
    TakeBack { user: usize, n: usize },
    Compare { user: usize, n: usize },
    Vote { user: usize, n: usize, choice: Choice },
    Lock { user: usize, n: usize },
    Forget { user: usize },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let (user, n) = (0..USERS.len(), 0..6_usize);
    let rating = prop_oneof![Just(Rating::Up), Just(Rating::Down)];
    let choice = prop_oneof![Just(Choice::Left), Just(Choice::Tie)];
    let one = prop_oneof![
        6 => (user.clone(), n.clone()).prop_map(|(user, n)| Operation::Record { user, n }),
        6 => (user.clone(), n.clone(), rating)
            .prop_map(|(user, n, rating)| Operation::Feedback { user, n, rating }),
        2 => (user.clone(), n.clone()).prop_map(|(user, n)| Operation::TakeBack { user, n }),
        4 => (user.clone(), n.clone()).prop_map(|(user, n)| Operation::Compare { user, n }),
        6 => (user.clone(), n.clone(), choice).prop_map(|(user, n, choice)| Operation::Vote { user, n, choice }),
        2 => (user.clone(), n).prop_map(|(user, n)| Operation::Lock { user, n }),
        1 => user.prop_map(|user| Operation::Forget { user }),
    ];
    proptest::collection::vec(one, 1..40)
}

/// What a ledger should hold. Comparison `n` has the answers `100 + 2n` and `101 + 2n`.
#[derive(Debug, Default)]
struct Oracle {
    /// Number → who asked.
    answers: BTreeMap<usize, usize>,
    feedback: BTreeMap<(usize, usize), Rating>,
    comparisons: BTreeMap<usize, usize>,
    /// (comparison, user) → choice and whether it is locked.
    votes: BTreeMap<(usize, usize), (Choice, bool)>,
}

/// What an operation says: done, not found or conflict.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    NotFound,
    Conflict,
}

impl Oracle {
    fn apply(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Record { n, .. } if self.answers.contains_key(&n) => return Outcome::Conflict,
            Operation::Record { user, n } => drop(self.answers.insert(n, user)),
            Operation::Feedback { n, .. } if !self.answers.contains_key(&n) => return Outcome::NotFound,
            Operation::Feedback { user, n, rating } => drop(self.feedback.insert((n, user), rating)),
            Operation::TakeBack { user, n } => drop(self.feedback.remove(&(n, user))),
            Operation::Compare { n, .. } if self.comparisons.contains_key(&n) => return Outcome::Conflict,
            Operation::Compare { user, n } => {
                self.comparisons.insert(n, user);
                self.answers.extend([(100 + 2 * n, user), (101 + 2 * n, user)]);
            }
            Operation::Vote { n, .. } if !self.comparisons.contains_key(&n) => return Outcome::NotFound,
            Operation::Vote { user, n, choice } => {
                match self.votes.entry((n, user)).or_insert((choice, false)) {
                    (_, true) => return Outcome::Conflict,
                    vote => *vote = (choice, false),
                }
            }
            Operation::Lock { user, n } => {
                self.votes.entry((n, user)).and_modify(|vote| vote.1 = true);
            }
            Operation::Forget { user } => {
                self.comparisons.retain(|_, owner| *owner != user);
                self.answers.retain(|_, owner| *owner != user);
                self.votes.retain(|(n, by), _| *by != user && self.comparisons.contains_key(n));
                self.feedback.retain(|(n, by), _| *by != user && self.answers.contains_key(n));
            }
        }
        Outcome::Done
    }
}

async fn apply(ledger: &dyn Ledger, operation: &Operation) -> Outcome {
    let answer_id = |n: usize| fixtures::answer("", 0, n).id;
    let comparison = |user: usize, n: usize| {
        let (comparison, left, right) = fixtures::comparison(USERS[user], n as i64, 100 + 2 * n);
        (comparison, left, right)
    };
    let result = match *operation {
        Operation::Record { user, n } => {
            ledger.record_answer(&fixtures::answer(USERS[user], n as i64 % 2, n)).await
        }
        Operation::Feedback { user, n, rating } => {
            ledger.put_feedback(&fixtures::thumb(&answer_id(n), USERS[user], rating, 1)).await
        }
        Operation::TakeBack { user, n } => ledger.delete_feedback(&answer_id(n), USERS[user]).await.map(drop),
        Operation::Compare { user, n } => {
            let (comparison, left, right) = comparison(user, n);
            ledger.record_comparison(&comparison, [&left, &right]).await
        }
        Operation::Vote { user, n, choice } => {
            ledger.put_vote(&fixtures::vote(&comparison(0, n).0, USERS[user], choice, 1)).await
        }
        Operation::Lock { user, n } => {
            let votes = [(comparison(0, n).0.id, USERS[user].to_owned())];
            ledger.lock_votes("snapshot", &votes).await.map(drop)
        }
        Operation::Forget { user } => ledger.forget_user(USERS[user]).await.map(drop),
    };
    match result {
        Ok(()) => Outcome::Done,
        Err(LedgerError::NotFound(_)) => Outcome::NotFound,
        Err(LedgerError::Conflict(_)) => Outcome::Conflict,
        Err(error) => panic!("{operation:?}: {error:?}"),
    }
}

async fn holds_the_same(ledger: &dyn Ledger, oracle: &Oracle) {
    let paging = Paging { before: None, limit: 1000 };
    let number = |id: &str| -> usize { id.rsplit('-').next().unwrap().parse().unwrap() };
    let person = |name: &str| USERS.iter().position(|user| *user == name).unwrap();
    let answers = ledger.answers(&AnswerFilter::default(), &paging).await.unwrap().data;
    let answers: BTreeMap<_, _> = answers.iter().map(|a| (number(a.id.as_str()), person(&a.user))).collect();
    assert_eq!(answers, oracle.answers);
    let feedback = ledger.feedback(&paging).await.unwrap().data;
    let feedback: BTreeMap<_, _> = feedback
        .iter()
        .map(|(f, _)| ((number(f.answer.as_str()), person(&f.user)), f.rating.unwrap()))
        .collect();
    assert_eq!(feedback, oracle.feedback);
    let votes = ledger.voted_pairs(&paging).await.unwrap().data;
    let votes: BTreeMap<_, _> = votes
        .iter()
        .map(|(v, ..)| (((number(v.comparison.as_str()) - 100) / 2, person(&v.user)), v.choice))
        .collect();
    assert_eq!(votes, oracle.votes.iter().map(|(key, (choice, _))| (*key, *choice)).collect());
    let counts = ledger.counts().await.unwrap();
    assert_eq!(counts.comparisons as usize, oracle.comparisons.len());
}

async fn agree(ledger: &dyn Ledger, operations: &[Operation]) {
    let mut oracle = Oracle::default();
    for operation in operations {
        assert_eq!(
            apply(ledger, operation).await,
            oracle.apply(operation),
            "{operation:?} of {operations:?}"
        );
    }
    holds_the_same(ledger, &oracle).await;
    // The next case starts empty.
    for user in USERS {
        ledger.forget_user(user).await.unwrap();
    }
    holds_the_same(ledger, &Oracle::default()).await;
}

fn check(harness: &Harness, cases: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let runtime = tokio::runtime::Handle::current();
    runner
        .run(&operations(), |operations| {
            runtime.block_on(agree(&*harness.ledger, &operations));
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_agrees_with_the_oracle() {
    let harness = Harness::sqlite().await;
    tokio::task::spawn_blocking(move || check(&harness, 60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_agrees_with_the_oracle() {
    on_postgres(|harness| async move {
        tokio::task::spawn_blocking(move || check(&harness, 60)).await.unwrap();
    })
    .await;
}
