//! The sample handbook's questions: is the right page found, and is it known when none has the answer?

use attune::config::{DocsConfig, RetrievalConfig};
use attune::domain::{DocumentId, Groups, Message};
use attune::retrieval::{Features, Library, SearchQuery, contextual_query};
use serde::Deserialize;

use super::beir::{describe, grid};
use super::{Outcome, Setting};

/// One row of `handbook/questions.jsonl`.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) question: String,
    /// The page that has the answer.
    pub(crate) page: Option<String>,
    pub(crate) split: String,
    pub(crate) kind: String,
    #[serde(default)]
    groups: Groups,
    #[serde(default)]
    history: Vec<Message>,
}

/// What came of asking a question.
pub(crate) struct Asked<'a> {
    pub(crate) question: &'a Question,
    /// Whether somebody in the groups it needs asks; else a restricted question has no answer.
    pub(crate) answerable: bool,
    /// Place of the first passage of the right page, from 1.
    pub(crate) place: Option<usize>,
    pub(crate) evidence: f32,
    pub(crate) features: Option<Features>,
}

pub(crate) fn figures(setting: &Setting) -> Outcome<()> {
    let questions = read()?;
    let config = RetrievalConfig::default();
    for semantic_weight in [0.0, config.semantic_weight] {
        if semantic_weight > 0.0 && setting.encoder.is_none() {
            continue;
        }
        let library = handbook(setting, &RetrievalConfig { semantic_weight, ..config.clone() })?;
        let asked = ask(&library, &questions)?;
        for split in ["train", "held-out"] {
            let asked: Vec<&Asked> = asked.iter().filter(|asked| asked.question.split == split).collect();
            let name = if semantic_weight > 0.0 { "hybrid" } else { "BM25" };
            println!("questions {split} {name}: {}", summary(&asked, config.answerable_threshold));
        }
        if std::env::var_os("ATTUNE_BENCH_MISSES").is_some() {
            misses(&asked, config.answerable_threshold);
        }
    }
    Ok(())
}

/// The train split over the same grid as scifact.
pub(crate) fn tune(setting: &Setting) -> Outcome<()> {
    let questions: Vec<Question> = read()?.into_iter().filter(|question| question.split == "train").collect();
    for config in grid(setting, &RetrievalConfig::default()) {
        let library = handbook(setting, &config)?;
        let asked = ask(&library, &questions)?;
        println!("questions {}: {}", describe(&config), summary(&asked.iter().collect::<Vec<_>>(), 0.5));
    }
    Ok(())
}

/// The sample handbook's index.
pub(crate) fn handbook(setting: &Setting, config: &RetrievalConfig) -> Outcome<Library> {
    let library = setting.library("sample", config)?;
    let docs = DocsConfig { paths: vec!["handbook".into()], ..DocsConfig::default() };
    library.sync_folders(&docs, &mut |_| {})?;
    Ok(library)
}

pub(crate) fn read() -> Outcome<Vec<Question>> {
    let text = std::fs::read_to_string("handbook/questions.jsonl")?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Asks every question; restricted ones twice, by a member and by somebody else.
pub(crate) fn ask<'a>(library: &Library, questions: &'a [Question]) -> Outcome<Vec<Asked<'a>>> {
    let mut asked = Vec::new();
    for question in questions {
        asked.push(ask_as(library, question, &question.groups, question.kind != "unanswerable")?);
        if question.kind == "restricted" {
            asked.push(ask_as(library, question, &Groups::new(), false)?);
        }
    }
    Ok(asked)
}

/// Asks a question as a member of the groups it needs.
pub(crate) fn ask_one<'a>(library: &Library, question: &'a Question) -> Outcome<Asked<'a>> {
    ask_as(library, question, &question.groups, question.kind != "unanswerable")
}

fn ask_as<'a>(
    library: &Library,
    question: &'a Question,
    groups: &Groups,
    answerable: bool,
) -> Outcome<Asked<'a>> {
    let mut messages = question.history.clone();
    messages.push(Message::user(&question.question));
    let text = contextual_query(&messages);
    let (found, features) =
        library.search_with_features(&SearchQuery { text: &text, groups: Some(groups), k: 10 })?;
    let page = question.page.as_ref().map(|page| DocumentId::from_path("handbook", page));
    let place =
        found.passages.iter().position(|passage| Some(&passage.document_id) == page.as_ref()).map(|i| i + 1);
    Ok(Asked { question, answerable, place, evidence: found.evidence, features })
}

/// Shares of right pages and of refusals.
pub(crate) fn summary(asked: &[&Asked<'_>], threshold: f32) -> String {
    let share = |of: &dyn Fn(&Asked<'_>) -> bool, what: &dyn Fn(&Asked<'_>) -> bool| {
        let all: Vec<_> = asked.iter().filter(|asked| of(asked)).collect();
        let hits = all.iter().filter(|asked| what(asked)).count();
        format!("{:.3} ({hits}/{})", hits as f64 / all.len().max(1) as f64, all.len())
    };
    let answerable = |asked: &Asked<'_>| asked.answerable;
    let refused = |asked: &Asked<'_>| asked.evidence < threshold;
    format!(
        "right page in top 1 {}, 3 {}, 4 {}; follow-ups in top 4 {}; unanswerable refused {}, restricted for others \
         refused {}, answerable refused {}",
        share(&answerable, &|asked| asked.place == Some(1)),
        share(&answerable, &|asked| asked.place.is_some_and(|place| place <= 3)),
        share(&answerable, &|asked| asked.place.is_some_and(|place| place <= 4)),
        share(&|asked| asked.question.kind == "follow_up", &|asked| asked
            .place
            .is_some_and(|place| place <= 4)),
        share(&|asked| asked.question.kind == "unanswerable", &refused),
        share(&|asked| asked.question.kind == "restricted" && !asked.answerable, &refused),
        share(&answerable, &refused),
    )
}

fn misses(asked: &[Asked<'_>], threshold: f32) {
    for asked in asked.iter().filter(|asked| asked.question.split == "train") {
        let missed = asked.answerable && asked.place.is_none_or(|place| place > 4);
        if missed || (asked.evidence < threshold) == asked.answerable {
            let Question { id, question, page, .. } = asked.question;
            println!(
                "  {id} {question:?} {page:?}: place {:?}, evidence {:.2}, {:?}",
                asked.place, asked.evidence, asked.features
            );
        }
    }
}
