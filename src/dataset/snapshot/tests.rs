//! Does a snapshot hold what may be learnt, with what it answers from, and nothing else?

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::json;

use super::*;
use crate::{
    config::RetrievalConfig,
    dataset::{Format, Import, import},
    domain::*,
    error::ErrorCode,
    ledger::tests::{Harness, fixtures},
    retrieval::{Document, Library},
};

fn library(folder: &Path) -> Grounding {
    let config = RetrievalConfig { k: 1, answerable_threshold: 0.0, ..RetrievalConfig::default() };
    let library = Library::open(&folder.join("index"), &config, None).unwrap();
    for (id, text, groups) in [
        ("offices", "# Boston office\n\nThe People team sits in room 310.", None),
        (
            "salaries",
            "# Salary bands\n\nLevel L4 starts at 115,000 dollars.",
            Some(fixtures::groups(&["hr"])),
        ),
    ] {
        let document = Document {
            id: DocumentId::parse(id).unwrap(),
            title: None,
            text: text.to_owned(),
            format: crate::retrieval::Format::Markdown,
            url: None,
            groups,
            metadata: BTreeMap::new(),
        };
        library.put(&document).unwrap();
    }
    Grounding::new(Arc::new(library), &config)
}

async fn imported(h: &Harness, text: &str) {
    let options = Import { format: Format::Sft, importer: "cora", folder: h.folder(), now: Millis(77) };
    import(&*h.ledger, text.as_bytes(), options).await.unwrap();
}

async fn written(h: &Harness, n: usize, question: &str) -> Demonstration {
    let row = Demonstration {
        messages: vec![Message::user(question)],
        ..fixtures::demonstration(n, 1_000 + n as i64)
    };
    h.ledger.put_demonstration(&row).await.unwrap();
    row
}

async fn taken(h: &Harness, grounding: &Grounding) -> Snapshot {
    take(&*h.ledger, grounding, &Options::default()).await.unwrap()
}

fn row<'a>(snapshot: &'a Snapshot, question: &str) -> &'a Example {
    snapshot.rows().iter().find(|row| row.messages.last().unwrap().content == question).unwrap()
}

#[tokio::test]
async fn every_row_has_the_passages_that_chat_would_answer_from() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    imported(
        &h,
        r#"{"prompt": "Is there a canteen?", "response": "Yes.", "passages": ["A canteen is on floor 2."]}
           {"prompt": "Say hello.", "response": "Hello.", "passages": []}"#,
    )
    .await;
    written(&h, 1, "Where is the People team in Boston?").await;
    let answer = fixtures::answer("ada", 5, 7);
    h.ledger.record_answer(&answer).await.unwrap();
    let correction = Demonstration {
        corrects: Some(answer.id.clone()),
        source: DemonstrationSource::Correction,
        passages: Some(answer.passages.iter().map(|passage| passage.text.clone()).collect()),
        ..written(&h, 2, "Question 7?").await
    };
    h.ledger.put_demonstration(&correction).await.unwrap();

    let snapshot = taken(&h, &grounding).await;
    let found = |question: &str| {
        let row = row(&snapshot, question);
        (
            row.grounded_by,
            row.passages.iter().map(|p| (p.title.as_str(), p.text.as_str())).collect::<Vec<_>>(),
        )
    };
    assert_eq!(found("Is there a canteen?"), (GroundedBy::Row, vec![("", "A canteen is on floor 2.")]));
    assert_eq!(found("Say hello."), (GroundedBy::Nothing, vec![]));
    assert_eq!(
        found("Where is the People team in Boston?"),
        (GroundedBy::Retrieval, vec![("Boston office", "The People team sits in room 310.")])
    );
    // As it stood in the answer's prompt, title and all.
    assert_eq!(
        found("Question 7?"),
        (GroundedBy::Answer, vec![("Boston office", "The People team is in room 310.")])
    );
    assert_eq!(row(&snapshot, "Question 7?").passages, answer.passages);
    let imported = row(&snapshot, "Say hello.");
    assert_eq!((imported.source, imported.lineage.as_ref().unwrap().line), (Source::Import, 2));
    assert!(snapshot.rows().iter().all(|row| row.access.is_public() && !row.response.is_empty()));
}

#[tokio::test]
async fn what_the_chat_would_refuse_has_no_passages() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    let config = RetrievalConfig { answerable_threshold: 1.0, ..RetrievalConfig::default() };
    let refusing =
        Grounding::new(Arc::new(Library::open(&h.folder().join("index"), &config, None).unwrap()), &config);
    written(&h, 1, "Where is the People team in Boston?").await;
    assert_eq!(taken(&h, &grounding).await.rows()[0].grounded_by, GroundedBy::Retrieval);
    let row = taken(&h, &refusing).await.rows()[0].clone();
    assert_eq!((row.grounded_by, row.passages), (GroundedBy::Nothing, vec![]));
}

#[tokio::test]
async fn restricted_rows_are_out_unless_asked_for_and_then_label_the_snapshot() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    written(&h, 1, "What does level L4 earn?").await;
    let hr = Demonstration {
        groups: fixtures::groups(&["hr"]),
        ..written(&h, 2, "Where does the salary band of level L4 start?").await
    };
    h.ledger.put_demonstration(&hr).await.unwrap();
    let snapshot = taken(&h, &grounding).await;
    assert_eq!((snapshot.rows().len(), snapshot.summary().left_out.restricted), (1, 1));
    assert!(snapshot.summary().access.is_public());
    // For somebody without groups there is only the other page.
    assert!(row(&snapshot, "What does level L4 earn?").passages.iter().all(|p| p.title == "Boston office"));

    let options = Options { include_restricted: true, ..Options::default() };
    let all = take(&*h.ledger, &grounding, &options).await.unwrap();
    let restricted = row(&all, "Where does the salary band of level L4 start?");
    assert_eq!(restricted.passages[0].title, "Salary bands");
    assert_eq!(restricted.access, AccessLabel::of([&fixtures::groups(&["hr"])]));
    assert_eq!(
        (all.summary().access.clone(), all.summary().left_out.restricted),
        (restricted.access.clone(), 0)
    );
    assert_ne!(all.hash(), snapshot.hash());
    // It moved nothing.
    assert_eq!(row(&all, "What does level L4 earn?"), &snapshot.rows()[0]);
}

#[tokio::test]
async fn what_says_the_same_comes_once_and_what_is_examined_is_not_learnt() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    for n in 0..40 {
        written(&h, n, &format!("Which floor is department number {n} on?")).await;
    }
    imported(&h, r#"{"prompt": "which floor is  department number 3 on?", "response": "response 3."}"#).await;
    let before = taken(&h, &grounding).await;
    assert_eq!((before.rows().len(), before.summary().left_out.duplicates), (40, 1));
    let held_out = before.side(Split::HeldOut).next().unwrap();
    let question = held_out.messages[0].content.replace("?", " please?");
    let alike = held_out.messages[0].content.replace("floor", "floor and wing");
    written(&h, 100, &question).await;
    written(&h, 101, &alike).await;
    let after = taken(&h, &grounding).await;
    assert_eq!(row(&after, &question).split, Split::HeldOut);
    let left = after.summary().left_out;
    let added =
        after.rows().iter().any(|row| row.messages[0].content == alike && row.split != Split::HeldOut);
    assert!(!added && left.like_examined <= 1);
    for row in before.rows() {
        assert!(after.rows().contains(row), "{row:?} stays as it was");
    }
}

#[tokio::test]
async fn twenty_rows_have_all_sides_and_the_summary_counts_them() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    for n in 0..20 {
        written(&h, n, &format!("What is rule {n} about?")).await;
    }
    let snapshot = taken(&h, &grounding).await;
    let summary = snapshot.summary();
    assert!(
        summary.by_split[&Split::Validation] >= 2 && summary.by_split[&Split::HeldOut] >= 2,
        "{summary:?}"
    );
    assert!(summary.by_split[&Split::Train] >= 10, "{summary:?}");
    assert_eq!((summary.rows, summary.by_source[&Source::Written]), (20, 20));
    assert_eq!(summary.by_split.values().sum::<usize>(), 20);
    assert_eq!(taken(&h, &grounding).await, snapshot, "nothing is random");
}

#[tokio::test]
async fn a_snapshot_is_read_back_as_it_was_written_and_not_when_it_was_changed() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    imported(&h, r#"{"prompt": "東京?", "response": "はい。", "passages": ["x\u2028y\nz"], "user": "ada"}"#)
        .await;
    written(&h, 1, "Where is the People team in Boston?").await;
    let snapshot = taken(&h, &grounding).await;
    let path = snapshot.write(h.folder()).unwrap();
    assert_eq!(path, h.folder().join("datasets").join(format!("{}.jsonl", snapshot.hash())));
    assert_eq!(load(h.folder(), snapshot.hash()).unwrap(), snapshot);
    snapshot.write(h.folder()).unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    std::fs::write(&path, text.replace("ada", "bob")).unwrap();
    let error = load(h.folder(), snapshot.hash()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(crate::error::chain(&error).contains("is damaged"), "{}", crate::error::chain(&error));
    for unknown in ["0".repeat(64).as_str(), "../ledger", ""] {
        assert_eq!(load(h.folder(), unknown).unwrap_err().code, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn a_file_of_questions_is_a_set_to_examine_with() {
    let h = Harness::sqlite().await;
    let grounding = library(h.folder());
    let file = h.folder().join("set.jsonl");
    let rows = [
        json!({"id": "q1", "question": "Where is the People team in Boston?", "answer": "In 310.", "page": "offices", "split": "train"}),
        json!({"id": 2, "prompt": "Is there a canteen?", "response": "Yes.", "passages": ["It is on floor 2."]}),
        json!({"messages": [{"role": "user", "content": "Who is in room 310?"}, {"role": "assistant", "content": "B."}], "pages": ["a", "b"], "split": "dev"}),
        json!({"question": "Tokyo?", "answer": "It does not say.", "kind": "unanswerable"}),
    ];
    std::fs::write(&file, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
    let set = from_file(&file, &grounding).unwrap();
    let found: Vec<_> = set.rows().iter().map(|row| (row.id.as_str(), row.split, row.grounded_by)).collect();
    assert_eq!(
        found,
        [
            ("q1", Split::Train, GroundedBy::Retrieval),
            ("2", Split::HeldOut, GroundedBy::Row),
            ("line-3", Split::Validation, GroundedBy::Retrieval),
        ]
    );
    assert_eq!(
        (set.rows()[0].pages.clone(), set.rows()[2].pages.clone()),
        (vec!["offices".into()], vec!["a".into(), "b".into()])
    );
    assert_eq!(set.summary().left_out, LeftOut { unanswerable: 1, ..LeftOut::default() });
    assert_eq!(from_file(&file, &grounding).unwrap(), set, "the hash is the file's");

    std::fs::write(&file, "{\"prompt\": \"A?\", \"response\": \"B.\"}\n{\"prompt\": \"A?\", \"response\": \"B.\", \"split\": \"x\"}").unwrap();
    let error = from_file(&file, &grounding).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), (ErrorCode::InvalidRequest, Some("split")));
    assert!(error.message.starts_with("line 2: "), "{error}");
    let missing = from_file(&h.folder().join("none"), &grounding).unwrap_err();
    assert_eq!((missing.code, missing.param.as_deref()), (ErrorCode::InvalidRequest, Some("set")));
}

#[tokio::test]
async fn the_sample_questions_are_such_a_set() {
    let h = Harness::sqlite().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("handbook/questions.jsonl");
    let set = from_file(&file, &library(h.folder())).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(set.summary().left_out.unanswerable, count(r#""kind": "unanswerable""#));
    assert_eq!(set.rows().len(), text.lines().count() - set.summary().left_out.unanswerable);
    assert!(set.side(Split::HeldOut).count() > 20 && set.side(Split::Train).count() > 20);
    assert!(set.rows().iter().all(|row| row.pages.len() == 1));
    assert!(!set.summary().access.is_public(), "some questions are for one group");
}
