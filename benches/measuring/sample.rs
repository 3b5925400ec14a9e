//! Which questions does the sample handbook have for benches, and how does a hidden judge see their answers?

use attune::chat::Shown;
use attune::dataset::snapshot;
use attune::improve::{Question, Workshop, questions};
use attune::simulate;
use serde_json::{Value, json};

/// The questions of a split that everybody may ask and that have an answer, as prompts that chat would use.
pub(crate) fn load(workshop: &Workshop, split: &str) -> Vec<Question> {
    let text = std::fs::read_to_string("handbook/questions.jsonl").unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted =
        |row: &Value| row["split"] == split && (row["kind"] == "answerable" || row["kind"] == "follow_up");
    let path = workshop.config.data_dir.join(format!("{split}.jsonl"));
    let lines: String = rows.filter(wanted).map(|row| format!("{}\n", example(&row))).collect();
    std::fs::write(&path, lines).unwrap();
    questions(workshop, snapshot::from_file(&path, &workshop.grounding()).unwrap().rows()).unwrap()
}

fn example(row: &Value) -> Value {
    let mut messages = row["history"].as_array().cloned().unwrap_or_default();
    messages.push(json!({ "role": "user", "content": row["question"] }));
    json!({ "prompt": messages, "response": row["answer"] })
}

/// An answer as a person of `attune simulate` sees it.
pub(crate) fn seen<'a>(question: &'a Question, shown: &'a Shown) -> simulate::Shown<'a> {
    simulate::Shown {
        question: question.example.messages.last().map_or("", |asked| asked.content.as_str()),
        ideal: &question.example.response,
        answer: &shown.text,
        citations: shown.citations.len(),
    }
}
