//! What is asked: which questions are learnt from, and which are kept for the end?

use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::SimulateError;
use crate::domain::{Groups, Message};

/// Of a file whose rows name no split, at least this share is learnt from.
const LEARNT: f64 = 0.3;

/// A question with the answer a person would give.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Question {
    /// Its name in the file.
    pub(super) id: String,
    /// The question.
    pub(super) question: String,
    /// The human answer.
    pub(super) answer: String,
    /// What was said before.
    #[serde(default)]
    pub(super) history: Vec<Message>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    split: Option<String>,
    #[serde(default)]
    groups: Groups,
}

impl Question {
    /// The conversation that ends in the question.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.history.iter().cloned().chain([Message::user(self.question.as_str())]).collect()
    }

    /// Whether everybody may be told an answer to it, and there is one.
    fn is_usable(&self) -> bool {
        self.groups.is_empty()
            && self.kind.as_deref() != Some("unanswerable")
            && !self.answer.trim().is_empty()
    }
}

/// The questions of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Questions {
    /// Imported as demonstrations, and asked by employees who vote.
    pub(super) train: Vec<Question>,
    /// Asked of every generation; never learnt from.
    pub(super) held_out: Vec<Question>,
    /// Asked by employees who say nothing of the answers.
    pub(super) others: Vec<Question>,
}

impl Questions {
    /// Reads a file of questions and keeps `held_out` of them for the end: those of the split `held-out`, or, in a file
    /// without splits, any. Which ones, the seed decides.
    ///
    /// # Errors
    /// When the file can not be read, a line is no question, or there are too few.
    pub(super) fn read(path: &Path, held_out: usize, seed: u64) -> Result<Self, SimulateError> {
        let io = |source| SimulateError::Io { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let problem = |problem: String| SimulateError::Questions { path: path.to_owned(), problem };
        let mut all = Vec::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let row: Question =
                serde_json::from_str(line).map_err(|error| problem(format!("line {number}: {error}")))?;
            all.push(row);
        }
        let questions = Self::split(all, held_out, seed);
        if questions.train.is_empty() || questions.held_out.is_empty() {
            let (train, kept) = (questions.train.len(), questions.held_out.len());
            return Err(problem(format!(
                "{train} questions to learn from and {kept} to keep for the end; both are needed"
            )));
        }
        Ok(questions)
    }

    fn split(all: Vec<Question>, held_out: usize, seed: u64) -> Self {
        let mut usable: Vec<Question> = all.into_iter().filter(Question::is_usable).collect();
        usable.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let is_kept = |row: &Question| matches!(row.split.as_deref(), Some("held-out" | "held_out" | "test"));
        let (mut kept, mut train): (Vec<Question>, Vec<Question>) = if usable.iter().any(is_kept) {
            usable
                .into_iter()
                .filter(|row| row.split.as_deref() == Some("train") || is_kept(row))
                .partition(is_kept)
        } else {
            let most = usable.len() - (usable.len() as f64 * LEARNT).ceil() as usize;
            let train = usable.split_off(held_out.min(most));
            (usable, train)
        };
        let others = kept.split_off(held_out.min(kept.len()));
        // The order of the file, so that it is imported alike whatever is kept.
        train.sort_by(|a, b| a.id.cmp(&b.id));
        Self { train, held_out: kept, others }
    }

    /// The demonstrations as JSON Lines, as `attune import` reads them.
    pub(super) fn demonstrations(&self) -> String {
        let row = |row: &Question| -> Value {
            let mut line =
                json!({"id": row.id, "question": row.question, "answer": row.answer, "split": "train"});
            if !row.history.is_empty() {
                line["history"] = json!(row.history);
            }
            line
        };
        self.train.iter().map(|question| format!("{}\n", row(question))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: &[Value]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn row(id: usize, split: &str) -> Value {
        json!({"id": format!("q-{id:03}"), "question": format!("What is {id}?"), "answer": format!("It is {id}."),
               "split": split, "page": "a.md"})
    }

    #[test]
    fn what_is_kept_for_the_end_is_not_learnt() {
        let mut rows: Vec<Value> =
            (0..40).map(|id| row(id, if id < 25 { "train" } else { "held-out" })).collect();
        rows.push(
            json!({"id": "u", "question": "?", "answer": "No.", "kind": "unanswerable", "split": "train"}),
        );
        rows.push(
            json!({"id": "r", "question": "?", "answer": "Yes.", "groups": ["hr"], "split": "held-out"}),
        );
        let (_folder, path) = file(&rows);
        let questions = Questions::read(&path, 10, 0).unwrap();
        assert_eq!((questions.train.len(), questions.held_out.len()), (25, 10));
        assert!(
            questions
                .held_out
                .iter()
                .all(|kept| !questions.train.contains(kept) && kept.id.as_str() >= "q-025")
        );
        assert_eq!(questions, Questions::read(&path, 10, 0).unwrap());
        assert_ne!(questions.held_out, Questions::read(&path, 10, 1).unwrap().held_out);
        let lines = questions.demonstrations();
        assert_eq!(lines.lines().count(), 25);
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!((&first["question"], &first["split"]), (&json!("What is 0?"), &json!("train")));
    }

    #[test]
    fn a_file_without_splits_is_split_by_the_seed() {
        let rows: Vec<Value> = (0..20)
            .map(|id| json!({"id": format!("f-{id}"), "question": "How?", "answer": "So.", "parents": []}))
            .collect();
        let (_folder, path) = file(&rows);
        let questions = Questions::read(&path, 12, 3).unwrap();
        assert_eq!((questions.train.len(), questions.held_out.len()), (8, 12));
        // However many are asked for, some are left to learn from.
        let greedy = Questions::read(&path, 100, 3).unwrap();
        assert_eq!((greedy.train.len(), greedy.held_out.len()), (6, 14));
    }

    #[test]
    fn files_that_can_not_be_used_say_why() {
        let (_folder, path) = file(&[json!({"id": "a", "question": "?"})]);
        let error = Questions::read(&path, 5, 0).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("answer"), "{error}");
        let (_folder, path) = file(&[row(1, "train")]);
        assert!(matches!(Questions::read(&path, 0, 0), Err(SimulateError::Questions { .. })));
        assert!(matches!(Questions::read(Path::new("no/such"), 5, 0), Err(SimulateError::Io { .. })));
    }

    #[test]
    fn what_was_said_before_is_asked_with_it() {
        let (_folder, path) = file(&[
            json!({"id": "a", "question": "And in Dublin?", "answer": "Two.", "split": "train",
                   "history": [{"role": "user", "content": "Boston?"}, {"role": "assistant", "content": "One."}]}),
            row(2, "held-out"),
        ]);
        let questions = Questions::read(&path, 5, 0).unwrap();
        let messages = questions.train[0].messages();
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[2], Message::user("And in Dublin?"));
    }
}
