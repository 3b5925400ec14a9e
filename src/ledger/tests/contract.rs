//! What does every ledger promise?

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

pub(super) use super::generations::{
    generations_come_back_as_written_and_filtered, of_many_moves_with_one_expectation_one_succeeds,
    the_pointer_moves_only_from_where_it_is_expected, what_a_pointer_names_is_not_pruned,
};
use super::{
    super::{AnswerFilter, ImportItem, ImportedRow, ImportedSignal, LedgerError, Page, Paging, TokenRow},
    Harness,
    fixtures::*,
};
use crate::domain::*;

fn paging(limit: usize) -> Paging {
    Paging { before: None, limit }
}

fn all() -> Paging {
    paging(1000)
}

/// Follows the cursors to the end; `between` runs after each page.
async fn walk<T, P, F>(limit: usize, page: P) -> Vec<T>
where
    P: Fn(Paging) -> F,
    F: Future<Output = Page<T>>,
{
    let mut rows = Vec::new();
    let mut before = None;
    loop {
        let found = page(Paging { before, limit }).await;
        assert!(found.data.len() <= limit);
        rows.extend(found.data);
        before = found.next;
        if before.is_none() {
            return rows;
        }
    }
}

fn imported(n: usize) -> ImportItem {
    ImportItem::Row(ImportedRow {
        id: format!("row-{n}"),
        signal: ImportedSignal::Preference {
            prompt: vec![Message::user("Which?")],
            chosen: format!("Good {n}."),
            rejected: "Bad.".into(),
            margin: Some(1.0 / 3.0),
        },
        user: Some("ida".into()),
        passages: Some(vec!["A passage.".into()]),
        access: AccessLabel::of([&groups(&["hr"])]),
        lineage: Lineage { file_sha256: "ab".into(), line: n as u64, importer: "cora".into() },
        created: Millis(5),
    })
}

pub(super) async fn answers_come_back_as_written(h: Harness) {
    let mut answer = answer("ada", 7, 1);
    answer.access = AccessLabel::of([&groups(&["hr", "legal"]), &groups(&["finance"])]);
    answer.citations = vec![Citation {
        n: 1,
        document_id: answer.passages[0].document_id.clone(),
        passage_id: answer.passages[0].passage_id.clone(),
        title: "Boston office".into(),
        url: Some("https://wiki.example/boston".into()),
        passage: "The People team is in room 310.".into(),
        by: CitedBy::Overlap,
    }];
    h.ledger.record_answer(&answer).await.unwrap();
    assert_eq!(h.ledger.answer(&answer.id).await.unwrap(), Some(answer));
    assert_eq!(h.ledger.answer(&AnswerId::from_wire("chatcmpl-none")).await.unwrap(), None);
}

pub(super) async fn restricted_answers_are_found_by_what_they_say(h: Harness) {
    let hidden = AnswerRecord {
        access: AccessLabel::of([&groups(&["hr"])]),
        answer: "  Seven\0 weeks [1].\n".into(),
        ..answer("ada", 7, 1)
    };
    let public =
        AnswerRecord { access: AccessLabel::default(), id: AnswerId::from_wire("public"), ..hidden.clone() };
    for answer in [&hidden, &public] {
        h.ledger.record_answer(answer).await.unwrap();
    }
    assert_eq!(h.ledger.restricted("ada", "Seven\0 weeks [1].").await.unwrap(), [hidden]);
    assert_eq!(h.ledger.restricted("bob", "Seven\0 weeks [1].").await.unwrap(), []);
    assert_eq!(h.ledger.restricted("ada", "seven weeks").await.unwrap(), []);
}

pub(super) async fn an_answer_is_recorded_once(h: Harness) {
    let first = answer("ada", 7, 1);
    h.ledger.record_answer(&first).await.unwrap();
    let second = AnswerRecord { answer: "Another.".into(), ..first.clone() };
    let error = h.ledger.record_answer(&second).await.unwrap_err();
    assert!(matches!(error, LedgerError::Conflict(_)), "{error}");
    assert_eq!(h.ledger.answer(&first.id).await.unwrap(), Some(first));
}

pub(super) async fn filters_select_answers(h: Harness) {
    let mut answers: Vec<_> = (0..6).map(|n| answer(["ada", "bob"][n % 2], n as i64, n)).collect();
    answers[1].refused = true;
    answers[2].answer = "It costs 100% of ÜBER_fare!".into();
    for answer in &answers {
        h.ledger.record_answer(answer).await.unwrap();
    }
    h.ledger.put_feedback(&thumb(&answers[4].id, "bob", Rating::Down, 9)).await.unwrap();
    let base = AnswerFilter::default;
    let of = |user: &str| AnswerFilter { user: Some(user.into()), ..base() };
    let rated = |rating| AnswerFilter { rating: Some(rating), ..base() };
    let says = |text: &str| AnswerFilter { text: Some(text.into()), ..base() };
    let cases: [(AnswerFilter, &[usize]); 10] = [
        (of("ada"), &[4, 2, 0]),
        (AnswerFilter { refused: Some(true), ..base() }, &[1]),
        (AnswerFilter { refused: Some(false), ..of("bob") }, &[5, 3]),
        (rated(Rating::Down), &[4]),
        (rated(Rating::Up), &[]),
        (says("QUESTION 3"), &[3]),
        (says("100% of über_"), &[2]),
        (says("%"), &[2]),
        (says("fare!"), &[2]),
        (says("1__"), &[]),
    ];
    for (filter, expected) in cases {
        let found = h.ledger.answers(&filter, &all()).await.unwrap().data;
        let expected: Vec<_> = expected.iter().map(|n| answers[*n].clone()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub(super) async fn pages_cover_every_row_once_while_rows_are_added(h: Harness) {
    // Several rows share each time, so that the order within a time matters.
    for n in 0..25 {
        h.ledger.record_answer(&answer("ada", n as i64 / 4, n)).await.unwrap();
    }
    let ledger = &h.ledger;
    let added = std::sync::atomic::AtomicUsize::new(100);
    let added = &added;
    let rows = walk(4, |paging| async move {
        let page = ledger.answers(&AnswerFilter::default(), &paging).await.unwrap();
        let n = added.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ledger.record_answer(&answer("ada", 1_000, n)).await.unwrap();
        page
    })
    .await;
    assert_eq!(rows.len(), 25);
    assert!(rows.is_sorted_by(|a, b| (b.created, &b.id) < (a.created, &a.id)), "newest first");
}

pub(super) async fn a_cursor_of_nowhere_is_refused(h: Harness) {
    for cursor in ["", "abc", "x.y"] {
        let paging = Paging { before: Some(cursor.into()), limit: 10 };
        let error = h.ledger.answers(&AnswerFilter::default(), &paging).await.unwrap_err();
        assert!(matches!(error, LedgerError::Cursor(_)), "{error}");
        assert_eq!(crate::error::Error::from(error).param.as_deref(), Some("before"));
    }
}

pub(super) async fn comparisons_are_written_whole_or_not_at_all(h: Harness) {
    let (comparison, left, right) = comparison("ada", 1, 1);
    h.ledger.record_answer(&right).await.unwrap();
    // The right answer is there already, so the left one must not be written either.
    let error = h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap_err();
    assert!(matches!(error, LedgerError::Conflict(_)), "{error}");
    assert_eq!(h.ledger.answer(&left.id).await.unwrap(), None);
    assert_eq!(h.ledger.comparison(&comparison.id).await.unwrap(), None);

    let (comparison, left, right) = super::fixtures::comparison("ada", 1, 10);
    h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
    assert_eq!(h.ledger.comparison(&comparison.id).await.unwrap(), Some(comparison));
    assert_eq!(h.ledger.answer(&left.id).await.unwrap(), Some(left));
}

pub(super) async fn the_judging_queue_leaves_out_what_one_has_voted_on(h: Harness) {
    let mut comparisons = Vec::new();
    for n in 0..3 {
        let (comparison, left, right) = comparison("ada", n as i64, n * 2);
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        comparisons.push(comparison);
    }
    h.ledger.put_vote(&vote(&comparisons[1], "bob", Choice::Tie, 9)).await.unwrap();
    let queue = |user: Option<&'static str>| {
        let ledger = h.ledger.clone();
        async move { ledger.comparisons(user, &all()).await.unwrap().data }
    };
    assert_eq!(queue(Some("bob")).await, [comparisons[2].clone(), comparisons[0].clone()]);
    assert_eq!(queue(Some("ada")).await.len(), 3);
    assert_eq!(queue(None).await.len(), 3);
}

pub(super) async fn votes_are_upserts_until_a_snapshot_uses_them(h: Harness) {
    let (comparison, left, right) = comparison("ada", 1, 1);
    let first = vote(&comparison, "ada", Choice::Left, 10);
    let error = h.ledger.put_vote(&first).await.unwrap_err();
    assert!(matches!(error, LedgerError::NotFound(_)), "{error}");

    h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
    h.ledger.put_vote(&first).await.unwrap();
    h.ledger.put_vote(&first).await.unwrap();
    let changed = Vote { strength: Some(3), ..vote(&comparison, "ada", Choice::Right, 20) };
    h.ledger.put_vote(&changed).await.unwrap();
    let kept = Vote { created: Millis(10), ..changed };
    assert_eq!(h.ledger.votes(&comparison.id).await.unwrap(), std::slice::from_ref(&kept));

    let used = [(comparison.id.clone(), "ada".to_owned())];
    assert_eq!(h.ledger.lock_votes("snapshot-1", &used).await.unwrap(), 1);
    assert_eq!(h.ledger.lock_votes("snapshot-2", &used).await.unwrap(), 0);
    let error = h.ledger.put_vote(&first).await.unwrap_err();
    assert!(matches!(error, LedgerError::Conflict(_)), "{error}");
    h.ledger.put_vote(&vote(&comparison, "bob", Choice::Tie, 30)).await.unwrap();
    assert_eq!(h.ledger.votes(&comparison.id).await.unwrap()[0], kept);
}

pub(super) async fn voted_pairs_come_oldest_first_with_both_answers(h: Harness) {
    let mut expected = Vec::new();
    for n in 0..5 {
        let (comparison, left, right) = comparison("ada", 1, n * 2);
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        let vote = vote(&comparison, "ada", Choice::Left, 50 - n as i64 / 2);
        h.ledger.put_vote(&vote).await.unwrap();
        expected.push((vote, comparison, left, right));
    }
    expected.sort_by_key(|(vote, comparison, ..)| (vote.created, comparison.id.clone()));
    let ledger = &h.ledger;
    let rows = walk(2, |paging| async move { ledger.voted_pairs(&paging).await.unwrap() }).await;
    assert_eq!(rows, expected);
}

pub(super) async fn feedback_is_an_idempotent_upsert(h: Harness) {
    let answer = answer("ada", 1, 1);
    h.ledger.record_answer(&answer).await.unwrap();
    let first = thumb(&answer.id, "ada", Rating::Up, 10);
    h.ledger.put_feedback(&first).await.unwrap();
    h.ledger.put_feedback(&first).await.unwrap();
    let second = Feedback {
        comment: Some("Actually no".into()),
        reasons: vec![Reason::Outdated],
        ..thumb(&answer.id, "ada", Rating::Down, 20)
    };
    h.ledger.put_feedback(&second).await.unwrap();
    let kept = Feedback { created: Millis(10), ..second };
    assert_eq!(h.ledger.feedback_on(&answer.id).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(h.ledger.feedback(&all()).await.unwrap().data, [(kept, answer.clone())]);
    assert!(h.ledger.delete_feedback(&answer.id, "ada").await.unwrap());
    assert!(!h.ledger.delete_feedback(&answer.id, "ada").await.unwrap());
    assert_eq!(h.ledger.feedback_on(&answer.id).await.unwrap(), []);
}

pub(super) async fn feedback_needs_a_recorded_answer(h: Harness) {
    let nowhere = AnswerId::from_wire("chatcmpl-none");
    let error = h.ledger.put_feedback(&thumb(&nowhere, "ada", Rating::Up, 10)).await.unwrap_err();
    assert!(matches!(error, LedgerError::NotFound(_)), "{error}");
    assert_eq!(h.ledger.counts().await.unwrap().feedback, 0);
}

pub(super) async fn thumbs_on_one_prompt_come_together(h: Harness) {
    let question = |n: usize, text: &str| AnswerRecord {
        messages: vec![Message::user(text)],
        ..answer("ada", n as i64, n)
    };
    let mut answers = vec![
        question(0, "Where is HR?"),
        question(1, "What is for lunch?"),
        question(2, "  where is\nhr? "),
        question(3, "WHERE IS HR?"),
        question(4, "Where is HR?"),
    ];
    answers[3].passages.clear();
    for answer in &answers {
        h.ledger.record_answer(answer).await.unwrap();
        h.ledger.put_feedback(&thumb(&answer.id, "ada", Rating::Up, 9)).await.unwrap();
    }
    // A comment without a thumb is no thumb.
    let comment = Feedback { rating: None, ..thumb(&answers[0].id, "bob", Rating::Up, 9) };
    h.ledger.put_feedback(&comment).await.unwrap();
    let ledger = &h.ledger;
    let thumbs = walk(2, |paging| async move { ledger.thumbs(&paging).await.unwrap() }).await;
    assert_eq!(thumbs.len(), 5);
    let place = |n: usize| thumbs.iter().position(|thumb| thumb.answer == answers[n]).unwrap();
    assert_eq!([place(2), place(4)], [place(0) + 1, place(0) + 2], "one prompt, in the order of answers");
    // Another passage makes another prompt.
    assert_ne!(thumbs[place(3)].prompt_key, thumbs[place(0)].prompt_key);
}

pub(super) async fn demonstrations_are_edited_deleted_and_restored(h: Harness) {
    let first = demonstration(1, 10);
    let draft = Demonstration { status: DemonstrationStatus::Draft, ..demonstration(2, 20) };
    h.ledger.put_demonstration(&first).await.unwrap();
    h.ledger.put_demonstration(&draft).await.unwrap();
    let edited = Demonstration { response: "Better.".into(), author: "dan".into(), ..demonstration(1, 99) };
    h.ledger.put_demonstration(&edited).await.unwrap();
    let kept = Demonstration { created: Millis(10), ..edited };
    assert_eq!(h.ledger.demonstration(&first.id).await.unwrap(), Some(kept.clone()));
    let list = |status| {
        let ledger = h.ledger.clone();
        async move { ledger.demonstrations(status, &all()).await.unwrap().data }
    };
    assert_eq!(list(None).await, [draft.clone(), kept.clone()]);
    assert_eq!(list(Some(DemonstrationStatus::Draft)).await, std::slice::from_ref(&draft));
    assert!(h.ledger.set_demonstration_deleted(&draft.id, true).await.unwrap());
    assert_eq!(h.ledger.demonstration(&draft.id).await.unwrap(), None);
    assert_eq!(list(None).await, [kept]);
    assert!(h.ledger.set_demonstration_deleted(&draft.id, false).await.unwrap());
    assert_eq!(h.ledger.demonstration(&draft.id).await.unwrap(), Some(draft));
    let nowhere = DemonstrationId::from_wire("dem-none");
    assert!(!h.ledger.set_demonstration_deleted(&nowhere, true).await.unwrap());
}

pub(super) async fn imports_are_all_or_nothing(h: Harness) {
    let rows = || vec![imported(1), imported(2), ImportItem::Demonstration(demonstration(1, 10))];
    let torn = stream::iter([Ok(rows()), Err(std::io::Error::other("the file went away"))]).boxed();
    let error = h.ledger.import(torn).await.unwrap_err();
    assert!(matches!(error, LedgerError::Import(_)), "{error}");
    assert_eq!(h.ledger.counts().await.unwrap(), super::super::Counts::default());

    let whole = || stream::iter([Ok(rows()), Ok(vec![imported(3)])]).boxed();
    assert_eq!(h.ledger.import(whole()).await.unwrap(), 4);
    assert_eq!(h.ledger.import(whole()).await.unwrap(), 0);
    let mut found = h.ledger.imported(&all()).await.unwrap().data;
    found.reverse();
    assert_eq!(found.into_iter().map(ImportItem::Row).collect::<Vec<_>>(), [1, 2, 3].map(imported));

    // An import leaves alone what people have done to a row since.
    let edited = Demonstration { response: "Edited.".into(), ..demonstration(1, 10) };
    h.ledger.put_demonstration(&edited).await.unwrap();
    assert_eq!(h.ledger.import(whole()).await.unwrap(), 0);
    assert_eq!(h.ledger.demonstration(&edited.id).await.unwrap(), Some(edited));
}

pub(super) async fn tokens_are_found_by_hash_and_revoked(h: Harness) {
    let token = TokenRow {
        id: "tok-1".into(),
        user: "ada".into(),
        groups: groups(&["hr", "legal"]),
        role: Role::Curator,
        created: Millis(1),
        expires: Some(Millis(99)),
        revoked: None,
    };
    h.ledger.create_token(&token, "hash-1").await.unwrap();
    let again = h.ledger.create_token(&token, "hash-2").await.unwrap_err();
    assert!(matches!(again, LedgerError::Conflict(_)), "{again}");
    assert_eq!(h.ledger.token("hash-1").await.unwrap(), Some(token.clone()));
    assert_eq!(h.ledger.token("hash-2").await.unwrap(), None);
    assert!(h.ledger.revoke_token("tok-1", Millis(5)).await.unwrap());
    assert!(h.ledger.revoke_token("tok-1", Millis(6)).await.unwrap());
    assert!(!h.ledger.revoke_token("tok-none", Millis(6)).await.unwrap());
    assert_eq!(h.ledger.tokens().await.unwrap(), [TokenRow { revoked: Some(Millis(5)), ..token }]);
}

pub(super) async fn a_secret_is_made_once(h: Harness) {
    let secrets = futures::future::join_all((0..8).map(|_| {
        let ledger = h.ledger.clone();
        async move { ledger.secret("widget", || AnswerId::generate().to_string()).await.unwrap() }
    }))
    .await;
    assert_eq!(secrets.into_iter().collect::<BTreeSet<_>>().len(), 1);
    assert_ne!(
        h.ledger.secret("widget", String::new).await.unwrap(),
        h.ledger.secret("other", || "other".into()).await.unwrap()
    );
}

pub(super) async fn forgetting_a_person_deletes_what_they_said(h: Harness) {
    let (of_ada, of_bob) = (answer("ada", 1, 1), answer("bob", 2, 2));
    h.ledger.record_answer(&of_ada).await.unwrap();
    h.ledger.record_answer(&of_bob).await.unwrap();
    for (on, by) in [(&of_ada, "ada"), (&of_ada, "bob"), (&of_bob, "ada"), (&of_bob, "bob")] {
        h.ledger.put_feedback(&thumb(&on.id, by, Rating::Up, 3)).await.unwrap();
    }
    let (comparison, left, right) = comparison("ada", 4, 10);
    h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
    h.ledger.put_vote(&vote(&comparison, "bob", Choice::Tie, 5)).await.unwrap();
    let draft = Demonstration {
        status: DemonstrationStatus::Draft,
        author: "ada".into(),
        corrects: Some(of_ada.id.clone()),
        ..demonstration(1, 6)
    };
    let approved = Demonstration { author: "ada".into(), ..demonstration(2, 7) };
    h.ledger.put_demonstration(&draft).await.unwrap();
    h.ledger.put_demonstration(&approved).await.unwrap();

    // 3 answers, 3 feedback, 1 comparison, 1 vote, 1 draft, and that the person was seen.
    assert_eq!(h.ledger.forget_user("ada").await.unwrap(), 10);
    assert_eq!(h.ledger.forget_user("ada").await.unwrap(), 0);
    let rows = h.ledger.answers(&AnswerFilter::default(), &all()).await.unwrap().data;
    assert_eq!(rows, std::slice::from_ref(&of_bob));
    assert_eq!(h.ledger.feedback_on(&of_bob.id).await.unwrap(), [thumb(&of_bob.id, "bob", Rating::Up, 3)]);
    let kept = h.ledger.demonstrations(None, &all()).await.unwrap().data;
    assert_eq!(kept, [Demonstration { author: "forgotten".into(), ..approved }]);
}

pub(super) async fn in_a_crowd_each_answer_has_its_own_outcome(h: Harness) {
    // Twenty answers, each twice: whichever way they are grouped, one of either is a conflict and spoils no other.
    let writes = (0..40).map(|n| {
        let ledger = h.ledger.clone();
        tokio::spawn(async move { ledger.record_answer(&answer("ada", 1, n / 2)).await })
    });
    let outcomes = futures::future::join_all(writes.collect::<Vec<_>>()).await;
    for twice in outcomes.chunks(2) {
        let refused: Vec<_> =
            twice.iter().filter_map(|outcome| outcome.as_ref().unwrap().as_ref().err()).collect();
        assert!(matches!(refused[..], [LedgerError::Conflict(_)]), "{refused:?}");
    }
    assert_eq!(h.ledger.counts().await.unwrap().answers, 20);
}

pub(super) async fn fifty_writers_at_once_lose_nothing(h: Harness) {
    let writes = (0..50).map(|n| {
        let ledger = h.ledger.clone();
        tokio::spawn(async move {
            let (comparison, left, right) = comparison("ada", n as i64, n * 10);
            ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
            ledger.put_vote(&vote(&comparison, "ada", Choice::Left, 1)).await.unwrap();
            let single = answer("bob", n as i64, n * 10 + 5);
            ledger.record_answer(&single).await.unwrap();
            ledger.put_feedback(&thumb(&single.id, "bob", Rating::Up, 1)).await.unwrap();
            assert_eq!(ledger.answer(&single.id).await.unwrap(), Some(single), "one reads what one wrote");
        })
    });
    for task in writes.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let counts = h.ledger.counts().await.unwrap();
    assert_eq!((counts.answers, counts.comparisons, counts.votes, counts.feedback), (150, 50, 50, 50));
}

pub(super) async fn a_reopened_ledger_has_everything(h: Harness) {
    let answer = answer("ada", 1, 1);
    h.ledger.record_answer(&answer).await.unwrap();
    h.ledger.put_feedback(&thumb(&answer.id, "ada", Rating::Up, 10)).await.unwrap();
    h.ledger.put_demonstration(&demonstration(1, 10)).await.unwrap();
    h.ledger.import(stream::iter([Ok(vec![imported(1)])]).boxed()).await.unwrap();
    let counts = h.ledger.counts().await.unwrap();
    let again = h.reopen().await;
    assert_eq!(again.counts().await.unwrap(), counts);
    assert_eq!(again.answer(&answer.id).await.unwrap(), Some(answer));
    again.ping().await.unwrap();
    again.close().await;
}

pub(super) async fn text_of_any_kind_is_kept(h: Harness) {
    for (n, text) in
        ["\0", "a\0b", "'; DROP TABLE answers; --", "\u{202e}\u{1f468}", "ÄÖÜß", "\\"].iter().enumerate()
    {
        let answer = AnswerRecord { answer: (*text).to_owned(), ..answer("o'brien", 1, n) };
        h.ledger.record_answer(&answer).await.unwrap();
        let feedback =
            Feedback { comment: Some((*text).to_owned()), ..thumb(&answer.id, "o'brien", Rating::Up, 1) };
        h.ledger.put_feedback(&feedback).await.unwrap();
        assert_eq!(h.ledger.answer(&answer.id).await.unwrap(), Some(answer.clone()));
        assert_eq!(h.ledger.feedback_on(&answer.id).await.unwrap(), [feedback]);
        let filter = AnswerFilter { text: Some((*text).to_owned()), ..Default::default() };
        let found = h.ledger.answers(&filter, &all()).await.unwrap().data;
        assert!(found.contains(&answer), "{text:?}");
        // A name with a NUL is the name of nothing.
        match h.ledger.answer(&AnswerId::from_wire(*text)).await {
            Ok(None) | Err(LedgerError::NotFound(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
