//! Do signals become the right rows, and do rows survive leaving and coming back?

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;
use serde_json::{Value, json};

use super::*;
use crate::{
    domain::*,
    error::{Error, ErrorCode, Result},
    ledger::{
        Ledger,
        tests::{Harness, fixtures},
    },
};

const FORMATS: [Format; 4] = [Format::Sft, Format::Preference, Format::Unpaired, Format::Prompts];

async fn exported_for(ledger: &Arc<dyn Ledger>, format: Format, groups: Option<&Groups>) -> String {
    let chunks: Vec<bytes::Bytes> =
        export(ledger.clone(), format, groups.cloned()).try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap()
}

async fn exported(h: &Harness, format: Format) -> Vec<Value> {
    let text = exported_for(&h.ledger, format, None).await;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn imported(h: &Harness, format: Format, text: impl AsRef<[u8]>) -> Result<ImportReport> {
    let options = Import { format, importer: "cora", folder: h.folder(), now: Millis(77) };
    import(&*h.ledger, text.as_ref(), options).await
}

/// The rows without where they came from.
fn content(rows: &[Value]) -> BTreeSet<String> {
    rows.iter()
        .map(|row| {
            let mut row = row.as_object().unwrap().clone();
            for column in ["ids", "source", "generation", "created", "file_sha256", "line", "importer"] {
                row.shift_remove(column);
            }
            Value::from(row).to_string()
        })
        .collect()
}

async fn put_vote(h: &Harness, n: usize, choice: Choice, strength: Option<u8>) {
    let (comparison, left, right) = fixtures::comparison("ada", n as i64, n);
    h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
    let vote = Vote { strength, ..fixtures::vote(&comparison, "ada", choice, n as i64) };
    h.ledger.put_vote(&vote).await.unwrap();
}

/// An answer to `question` with a thumb.
async fn put_thumb(h: &Harness, n: usize, question: &str, (user, rating): (&str, Rating)) {
    let answer =
        AnswerRecord { messages: vec![Message::user(question)], ..fixtures::answer("ada", n as i64, n) };
    h.ledger.record_answer(&answer).await.unwrap();
    h.ledger.put_feedback(&fixtures::thumb(&answer.id, user, rating, 500 + n as i64)).await.unwrap();
}

/// One of every signal, some of it restricted.
async fn everything() -> Harness {
    let h = Harness::sqlite().await;
    for (n, strength) in [(10, None), (20, Some(1)), (30, Some(2)), (40, Some(3))] {
        put_vote(&h, n, Choice::Right, strength).await;
    }
    put_vote(&h, 50, Choice::Tie, None).await;
    put_vote(&h, 60, Choice::BothBad, None).await;
    put_thumb(&h, 100, "Where is HR?", ("ada", Rating::Up)).await;
    put_thumb(&h, 101, "where is  hr?", ("bob", Rating::Down)).await;
    put_thumb(&h, 102, "Where is HR?", ("ada", Rating::Down)).await;
    let secret = AccessLabel::of([&fixtures::groups(&["hr"]), &fixtures::groups(&["finance", "legal"])]);
    let answer = AnswerRecord { access: secret.clone(), ..fixtures::answer("ada", 9, 110) };
    h.ledger.record_answer(&answer).await.unwrap();
    let correction = Demonstration {
        corrects: Some(answer.id.clone()),
        access: secret,
        messages: answer.messages.clone(),
        source: DemonstrationSource::Correction,
        passages: Some(vec!["A passage.".into()]),
        ..fixtures::demonstration(1, 900)
    };
    h.ledger.put_demonstration(&correction).await.unwrap();
    let of_hr = Demonstration { groups: fixtures::groups(&["hr"]), ..fixtures::demonstration(2, 901) };
    h.ledger.put_demonstration(&of_hr).await.unwrap();
    let draft = Demonstration { status: DemonstrationStatus::Draft, ..fixtures::demonstration(3, 902) };
    h.ledger.put_demonstration(&draft).await.unwrap();
    h
}

#[tokio::test]
async fn votes_and_corrections_and_opposite_thumbs_are_pairs() {
    let h = everything().await;
    let rows = exported(&h, Format::Preference).await;
    let third = f64::from(1.0_f32 / 3.0);
    let margins: Vec<_> = rows.iter().map(|row| row.get("margin").and_then(Value::as_f64)).collect();
    let close = |found: Option<f64>, wanted: Option<f64>| match (found, wanted) {
        (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-6,
        (found, wanted) => found == wanted,
    };
    let wanted = [Some(third), Some(third), Some(2.0 * third), Some(1.0), None, None];
    assert_eq!(margins.len(), wanted.len(), "{rows:#?}");
    assert!(margins.iter().zip(wanted).all(|(found, wanted)| close(*found, wanted)), "{margins:?}");
    assert_eq!(
        rows[3],
        json!({
            "prompt": [{"role": "user", "content": "Which?"}],
            "chosen": [{"role": "assistant", "content": "Answer 41 [1]."}],
            "rejected": [{"role": "assistant", "content": "Answer 40 [1]."}],
            "margin": 1.0,
            "user": "ada",
            "passages": ["The People team is in room 310."],
            "ids": ["cmp-000040", "chatcmpl-000041", "chatcmpl-000040"],
            "source": "vote",
            "generation": "gen-0123456789abcdef",
            "created": 40,
        })
    );
    assert_eq!(rows[4]["source"], "correction");
    assert_eq!(rows[4]["chosen"][0]["content"], "Response 1.");
    assert_eq!(rows[4]["rejected"][0]["content"], "Answer 110 [1].");
    assert_eq!(rows[4]["groups"], json!([["finance", "legal"], ["hr"]]));
    assert_eq!(rows[5]["source"], "thumbs");
    assert_eq!(rows[5]["ids"], json!(["chatcmpl-000100", "chatcmpl-000101"]));
    assert_eq!(rows[5].get("user"), None, "two people made this pair");
}

#[tokio::test]
async fn what_is_no_pair_is_unpaired() {
    let h = everything().await;
    let rows = exported(&h, Format::Unpaired).await;
    let found: Vec<_> = rows.iter().map(|row| (row["ids"].clone(), row["label"].clone())).collect();
    let expected = [
        (json!(["chatcmpl-000102"]), json!(false)),
        (json!(["cmp-000060", "chatcmpl-000060"]), json!(false)),
        (json!(["cmp-000060", "chatcmpl-000061"]), json!(false)),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn only_approved_demonstrations_are_rows() {
    let h = everything().await;
    let rows = exported(&h, Format::Sft).await;
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert_eq!(
        rows[0],
        json!({
            "messages": [
                {"role": "user", "content": "Prompt 2?"},
                {"role": "assistant", "content": "Response 2."},
            ],
            "user": "cora",
            "groups": ["hr"],
            "ids": ["dem-000002"],
            "source": "written",
            "created": 901,
        })
    );
}

#[tokio::test]
async fn rows_that_teach_nothing_are_left_out() {
    let h = Harness::sqlite().await;
    let mut n = 0;
    for (left_text, right_text) in [("Same.", "Same."), (" ", "Good.")] {
        let (comparison, left, right) = fixtures::comparison("ada", n as i64, n);
        n += 2;
        let left = AnswerRecord { answer: left_text.into(), ..left };
        let right = AnswerRecord { answer: right_text.into(), ..right };
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        h.ledger.put_vote(&fixtures::vote(&comparison, "ada", Choice::Right, 1)).await.unwrap();
        h.ledger.put_feedback(&fixtures::thumb(&left.id, "ada", Rating::Down, 1)).await.unwrap();
    }
    assert_eq!(exported(&h, Format::Preference).await, [] as [Value; 0]);
    assert_eq!(exported(&h, Format::Unpaired).await.len(), 1, "the blank answer is left out");
    // The same question with the same passages is one prompt.
    assert_eq!(exported(&h, Format::Prompts).await.len(), 1);
}

#[tokio::test]
async fn export_leaves_out_what_the_asker_may_not_see() {
    let h = everything().await;
    let sees = |groups: &'static [&'static str]| {
        let ledger = h.ledger.clone();
        async move {
            let groups = fixtures::groups(groups);
            let mut all = String::new();
            for format in FORMATS {
                all += &exported_for(&ledger, format, Some(&groups)).await;
            }
            (all.contains("Response 2."), all.contains("Answer 110 [1]."), all.contains("Question 110?"))
        }
    };
    assert_eq!(sees(&[]).await, (false, false, false));
    assert_eq!(sees(&["hr"]).await, (true, false, false));
    assert_eq!(sees(&["legal"]).await, (false, false, false));
    assert_eq!(sees(&["hr", "legal"]).await, (true, true, true));
}

#[tokio::test]
async fn nothing_is_lost_between_export_and_import() {
    let h = everything().await;
    let other = Harness::sqlite().await;
    for format in FORMATS {
        let text = exported_for(&h.ledger, format, None).await;
        let rows = exported(&h, format).await;
        assert!(!rows.is_empty());
        let report = imported(&other, format, &text).await.unwrap();
        assert_eq!((report.rows, report.new, report.skipped), (rows.len() as u64, rows.len() as u64, 0));
        let again = exported(&other, format).await;
        assert!(content(&again).is_superset(&content(&rows)), "{format:?}");
        assert!(again.iter().all(|row| {
            row["source"] == "import" && row["file_sha256"].is_string() && row["line"].is_u64()
        }));
        // Where the rows came from they change nothing: what is said already is not said twice.
        imported(&h, format, &text).await.unwrap();
    }
    let before = everything().await;
    for format in [Format::Sft, Format::Preference, Format::Unpaired] {
        assert_eq!(exported(&h, format).await.len(), exported(&before, format).await.len(), "{format:?}");
    }
}

#[tokio::test]
async fn importing_a_file_again_adds_nothing() {
    let h = Harness::sqlite().await;
    let file = "\u{feff}{\"prompt\": \"A?\", \"response\": \"B.\", \"unknown\": [1]}\r\n\n  \n\
                {\"prompt\": [{\"role\": \"user\", \"content\": \"C?\"}], \"completion\": \"D.\"}\n\
                {\"prompt\": \"A?\", \"response\": \"B.\"}";
    assert_eq!(imported(&h, Format::Sft, file).await.unwrap(), ImportReport { rows: 3, new: 2, skipped: 0 });
    assert_eq!(imported(&h, Format::Sft, file).await.unwrap().new, 0);
    let rows = exported(&h, Format::Sft).await;
    let lines: BTreeSet<_> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, BTreeSet::from([1, 4]));
    assert!(rows.iter().all(|row| row["importer"] == "cora"));
}

#[tokio::test]
async fn strings_and_lists_and_shared_beginnings_say_the_same() {
    let h = Harness::sqlite().await;
    let user = json!({"role": "user", "content": "A?"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let forms = [
        json!({"prompt": "A?", "chosen": "B.", "rejected": "C."}),
        json!({"prompt": [user], "chosen": [says("B.")], "rejected": [says("C.")]}),
        json!({"chosen": [user, says("B.")], "rejected": [user, says("C.")]}),
        json!({"prompt": "A?", "chosen": [user, says("B.")], "rejected": [user, says("C.")], "margin": null}),
    ];
    for (n, form) in forms.iter().enumerate() {
        let report = imported(&h, Format::Preference, form.to_string()).await.unwrap();
        assert_eq!((report.rows, report.new), (1, u64::from(n == 0)), "{form}");
    }
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_is_imported() {
    let h = Harness::sqlite().await;
    let fine = r#"{"prompt": "A?", "chosen": "B.", "rejected": "C.", "completion": "B.", "label": true}"#;
    let cases: [(Format, &[u8], &str, &str); 16] = [
        (Format::Preference, b"{", "row", "not JSON"),
        (Format::Preference, b"[]", "row", "JSON object"),
        (Format::Preference, b"{\"prompt\": \"\xff\"}", "row", "UTF-8"),
        (Format::Preference, br#"{"chosen": "B.", "rejected": "C."}"#, "prompt", "missing"),
        (Format::Preference, br#"{"prompt": "A?", "chosen": "B."}"#, "rejected", "missing"),
        (Format::Preference, br#"{"prompt": "A?", "chosen": "B.", "rejected": "B."}"#, "rejected", "same"),
        (Format::Preference, br#"{"prompt": "A?", "chosen": " ", "rejected": "B."}"#, "chosen", "empty"),
        (Format::Preference, br#"{"prompt": [], "chosen": "A", "rejected": "B."}"#, "prompt", "role user"),
        (
            Format::Preference,
            br#"{"prompt": "A?", "chosen": "A", "rejected": "B.", "margin": 1e300}"#,
            "margin",
            "number",
        ),
        (
            Format::Preference,
            br#"{"chosen": [{"role": "user", "content": "A"}], "rejected": [{"role": "user", "content": "A"}]}"#,
            "chosen",
            "role user",
        ),
        (Format::Preference, br#"{"prompt": [{"role": "tool", "content": ""}]}"#, "prompt", "message 1"),
        (Format::Unpaired, br#"{"prompt": "A?", "completion": "B.", "label": 1}"#, "label", "true or false"),
        (Format::Sft, br#"{"text": "A?"}"#, "messages", "missing"),
        (Format::Sft, br#"{"messages": [{"role": "user", "content": "A?"}]}"#, "messages", "assistant"),
        (Format::Prompts, br#"{"prompt": "A?", "groups": "hr"}"#, "groups", "list"),
        (Format::Prompts, br#"{"prompt": "A?", "passages": [1]}"#, "passages", "texts"),
    ];
    for (format, bad, column, problem) in cases {
        let good = if format == Format::Sft { r#"{"prompt": "A?", "response": "B."}"# } else { fine };
        let file = [good.as_bytes(), b"\n\n", bad, b"\n", good.as_bytes()].concat();
        let error = imported(&h, format, file).await.unwrap_err();
        assert_eq!(
            (error.code, error.param.as_deref()),
            (ErrorCode::InvalidRequest, Some(column)),
            "{error}"
        );
        assert!(error.message.starts_with("line 3: ") && error.message.contains(problem), "{error}");
    }
    assert_eq!(h.ledger.counts().await.unwrap(), crate::ledger::Counts::default());
}

#[tokio::test]
async fn an_upload_that_breaks_off_imports_nothing() {
    use tokio::io::AsyncReadExt;
    let h = Harness::sqlite().await;
    let begun = b"{\"prompt\": \"A?\"}\n".as_slice();
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([Err::<bytes::Bytes, _>(
        std::io::Error::other("the client went away"),
    )]));
    let options = Import { format: Format::Prompts, importer: "cora", folder: h.folder(), now: Millis(1) };
    let error: Error = import(&*h.ledger, begun.chain(broken), options).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert_eq!(h.ledger.counts().await.unwrap().imported, 0);
}

#[tokio::test]
async fn of_the_sample_questions_the_train_split_with_an_answer_is_learnt() {
    let h = Harness::sqlite().await;
    let file =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/handbook/questions.jsonl")).unwrap();
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let learnt = |line: &&Value| line["split"] == "train" && line["kind"] != "unanswerable";
    let expected = lines.iter().filter(learnt).count() as u64;
    let report = imported(&h, Format::Sft, &file).await.unwrap();
    assert_eq!((report.rows, report.rows + report.skipped), (expected, lines.len() as u64));
    let rows = exported(&h, Format::Sft).await;
    assert_eq!(rows.len() as u64, report.new);
    let follow_up = lines.iter().filter(learnt).find(|line| line["kind"] == "follow_up").unwrap();
    let asked = follow_up["history"].as_array().unwrap().len() + 2;
    assert!(rows.iter().any(|row| {
        let messages = row["messages"].as_array().unwrap();
        messages.len() == asked && messages[asked - 2]["content"] == follow_up["question"]
    }));
    let restricted = lines.iter().filter(learnt).filter(|line| line.get("groups").is_some()).count();
    assert!(restricted > 0);
    let everybody = exported_for(&h.ledger, Format::Sft, Some(&Groups::new())).await;
    assert_eq!(everybody.lines().count(), rows.len() - restricted);
}

#[tokio::test]
async fn large_files_pass_through_in_batches() {
    let h = Harness::sqlite().await;
    let file: String = (0..3_000).map(|n| format!("{{\"prompt\": \"Question {n}?\"}}\n")).collect();
    assert_eq!(imported(&h, Format::Prompts, &file).await.unwrap().new, 3_000);
    assert_eq!(exported(&h, Format::Prompts).await.len(), 3_000);
}
