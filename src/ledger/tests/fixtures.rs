//! What do tests put into a ledger?

use crate::domain::*;

/// An answer of `user` at `created`; `n` makes ids, question and text its own.
pub(crate) fn answer(user: &str, created: i64, n: usize) -> AnswerRecord {
    AnswerRecord {
        id: AnswerId::from_wire(format!("chatcmpl-{n:06}")),
        created: Millis(created),
        user: user.to_owned(),
        messages: vec![Message::user(format!("Question {n}?"))],
        search_query: format!("question {n}"),
        answer: format!("Answer {n} [1]."),
        generation: GenerationId::from_wire("gen-0123456789abcdef"),
        template_hash: "7e".into(),
        index_version: "3".into(),
        passages: vec![PassageRef {
            document_id: DocumentId::from_path("handbook", "offices/boston.md"),
            passage_id: "handbook:offices:boston.md#1-00aa11bb".into(),
            title: "Boston office".into(),
            url: None,
            text: "The People team is in room 310.".into(),
            score: 1.25,
        }],
        citations: vec![],
        sampling: Sampling {
            temperature: 0.8,
            top_p: 0.95,
            repetition_penalty: 1.05,
            dry_multiplier: 0.8,
            max_tokens: 160,
            seed: u64::MAX - n as u64,
            stop: vec!["\n\n".into()],
        },
        access: AccessLabel::default(),
        grounded: true,
        refused: false,
        finish_reason: FinishReason::Stop,
        usage: TokenUsage { prompt_tokens: 321, completion_tokens: 12 },
        timing: Timing { queue_ms: 0.5, retrieval_ms: 1.25, first_token_ms: Some(310.0), total_ms: 900.0 },
        comparison: None,
    }
}

/// A comparison of two answers with the numbers `n` and `n + 1`.
pub(crate) fn comparison(user: &str, created: i64, n: usize) -> (Comparison, AnswerRecord, AnswerRecord) {
    let id = ComparisonId::from_wire(format!("cmp-{n:06}"));
    let side = |n| AnswerRecord {
        messages: vec![Message::user("Which?")],
        comparison: Some(id.clone()),
        ..answer(user, created, n)
    };
    let (left, right) = (side(n), side(n + 1));
    let comparison = Comparison {
        id: id.clone(),
        created: Millis(created),
        user: user.to_owned(),
        messages: left.messages.clone(),
        left: left.id.clone(),
        right: right.id.clone(),
        access: AccessLabel::default(),
    };
    (comparison, left, right)
}

pub(crate) fn vote(comparison: &Comparison, user: &str, choice: Choice, created: i64) -> Vote {
    Vote {
        comparison: comparison.id.clone(),
        user: user.to_owned(),
        choice,
        strength: None,
        comment: None,
        created: Millis(created),
        updated: Millis(created),
    }
}

pub(crate) fn thumb(answer: &AnswerId, user: &str, rating: Rating, created: i64) -> Feedback {
    Feedback {
        answer: answer.clone(),
        user: user.to_owned(),
        rating: Some(rating),
        reasons: vec![],
        comment: None,
        ideal_answer: None,
        created: Millis(created),
        updated: Millis(created),
    }
}

pub(crate) fn demonstration(n: usize, created: i64) -> Demonstration {
    Demonstration {
        id: DemonstrationId::from_wire(format!("dem-{n:06}")),
        messages: vec![Message::user(format!("Prompt {n}?"))],
        response: format!("Response {n}."),
        groups: Groups::new(),
        access: AccessLabel::default(),
        passages: None,
        source: DemonstrationSource::Written,
        author: "cora".into(),
        status: DemonstrationStatus::Approved,
        corrects: None,
        lineage: None,
        created: Millis(created),
        updated: Millis(created),
    }
}

pub(crate) fn groups(names: &[&str]) -> Groups {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Somebody who sees what everybody sees.
pub(crate) fn employee(user: &str) -> Identity {
    Identity { user: user.to_owned(), groups: Groups::new(), role: Role::Employee, sees_everything: false }
}
