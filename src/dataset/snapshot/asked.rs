//! What did people ask that the policy may practise on?

use std::collections::HashSet;

use futures::TryStreamExt;

use super::splits::{self, Asked};
use super::{Example, GroundedBy, Options, Snapshot, Split, SplitBy};
use crate::{
    dataset::{rows::Source, signals},
    domain::AnswerRecord,
    error::Result,
    ledger::Ledger,
};

/// Questions that people asked and the model answered, each once, with the passages of its newest answer, newest first;
/// at most `most`. They have no ideal response. Left out are those that `snapshot` has among its rows to learn from,
/// those that resemble what it examines a model on, those that not everybody may see, unless asked for, and those of
/// people who are left out.
///
/// # Errors
/// When the ledger fails.
pub async fn asked(
    ledger: &dyn Ledger,
    (snapshot, options): (&Snapshot, &Options),
    most: usize,
) -> Result<Vec<Example>> {
    let learnt = snapshot.rows().iter().filter(|row| row.split == Split::Train);
    let mut seen: HashSet<_> =
        learnt.map(|row| Asked::new(&row.messages, None).key(SplitBy::Question)).collect();
    let mut found: Vec<(AnswerRecord, Asked)> = Vec::new();
    let mut answers = signals::answered(ledger);
    while let Some(answer) = answers.try_next().await? {
        let visible = options.include_restricted || answer.access.is_public();
        let wanted = visible && !options.leaves_out(Some(&answer.user));
        let asked = Asked::new(&answer.messages, None);
        if wanted && seen.insert(asked.key(SplitBy::Question)) {
            found.push((answer, asked));
        }
        if found.len() >= most {
            break;
        }
    }
    let examined = snapshot.rows().iter().filter(|row| row.split != Split::Train);
    let (mut all, mut sides): (Vec<Asked>, Vec<Split>) =
        examined.map(|row| (Asked::new(&row.messages, None), row.split)).unzip();
    let first = all.len();
    for (_, asked) in &found {
        all.push(asked.clone());
        sides.push(Split::Train);
    }
    let keep = vec![true; all.len()];
    let alike = splits::like_examined(&all, &sides, &keep);
    let kept = found.into_iter().enumerate().filter(|(at, _)| !alike.contains(&(first + at)));
    Ok(kept.map(|(_, (answer, _))| example(answer)).collect())
}

fn example(answer: AnswerRecord) -> Example {
    let grounded = !answer.passages.is_empty();
    Example {
        id: answer.id.to_string(),
        split: Split::Train,
        messages: answer.messages,
        response: String::new(),
        passages: answer.passages,
        grounded_by: if grounded { GroundedBy::Answer } else { GroundedBy::Nothing },
        access: answer.access,
        pages: Vec::new(),
        user: Some(answer.user),
        source: Source::Question,
        generation: Some(answer.generation),
        created: Some(answer.created),
        lineage: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Message;
    use crate::ledger::tests::{Harness, fixtures};

    #[tokio::test]
    async fn each_question_comes_once_and_none_that_the_dataset_has() {
        let h = Harness::sqlite().await;
        let questions = [
            "Where is HR in Boston?",
            "where is hr in boston",
            "How do I book a desk?",
            "Is HR in Boston, please?",
        ];
        for (n, question) in questions.iter().enumerate() {
            let messages = vec![Message::user(*question)];
            let answer = AnswerRecord { messages, ..fixtures::answer("ada", n as i64, n) };
            h.ledger.record_answer(&answer).await.unwrap();
        }
        let empty = Snapshot::of(Vec::new(), super::super::LeftOut::default()).unwrap();
        let options = Options::default();
        let all = asked(&*h.ledger, (&empty, &options), 10).await.unwrap();
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(asked(&*h.ledger, (&empty, &options), 1).await.unwrap().len(), 1);
        let except = Options { except_users: vec!["ada".into()], ..Options::default() };
        assert_eq!(asked(&*h.ledger, (&empty, &except), 10).await.unwrap(), []);

        for split in [Split::HeldOut, Split::Validation, Split::Train] {
            let row = Example { split, ..all[0].clone() };
            let taken = Snapshot::of(vec![row], super::super::LeftOut::default()).unwrap();
            let rest = asked(&*h.ledger, (&taken, &options), 10).await.unwrap();
            assert_eq!(rest.len(), 1, "{split:?}");
            assert_ne!(rest[0].messages, all[0].messages);
        }
    }
}
