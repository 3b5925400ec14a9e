//! Whoever is outside a group never sees what the group's documents say: not in search, answers, citations, the answer
//! log, feedback, comparisons, ideal answers or exports.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::json;

use attune::config::AccessMode;
use attune::generation::ScriptedGenerator;

use crate::harness::{Setup, TestApp, answer, asking};

const GROUPS: [&str; 3] = ["finance", "hr", "legal"];

/// Which groups each document is for (none: everybody) and each person is in.
#[derive(Debug, Clone)]
struct Company {
    documents: Vec<BTreeSet<&'static str>>,
    people: Vec<BTreeSet<&'static str>>,
}

fn company() -> impl Strategy<Value = Company> {
    let groups =
        || prop::sample::subsequence(GROUPS.to_vec(), 0..=GROUPS.len()).prop_map(BTreeSet::from_iter);
    (prop::collection::vec(groups(), 1..5), prop::collection::vec(groups(), 1..4))
        .prop_map(|(documents, people)| Company { documents, people })
}

#[test]
fn nobody_outside_a_group_sees_its_documents_anywhere() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    // A model that repeats everything it was told leaks whatever can leak.
    // Marks and ends of lines would end the answer.
    let parrot = ScriptedGenerator::new("gen-test", |prompt, seed| {
        format!("{seed} {}", prompt.replace(['[', '\n'], " "))
    });
    let setup = Setup::default().generator(parrot).config(|config| {
        config.access.mode = AccessMode::Proxy;
        config.access.proxy.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        // Everybody is a curator: the role opens every list, the groups alone close it.
        config.access.proxy.curator_groups = vec!["staff".into()];
        config.generation.max_tokens = 1000;
        config.feedback.max_comment_chars = 100_000;
        config.feedback.max_ideal_answer_chars = 100_000;
    });
    let app = runtime.block_on(setup.start());
    let cases = AtomicU32::new(0);
    let mut runner = TestRunner::new(Cases { cases: 12, failure_persistence: None, ..Cases::default() });
    // Shrinking reruns the case under a new number, so that documents of earlier cases do not matter.
    let checked = runner.run(&company(), |company| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        runtime.block_on(check(&app, &company, case)).map_err(TestCaseError::fail)
    });
    checked.unwrap();
}

async fn check(app: &TestApp, company: &Company, case: u32) -> Result<(), String> {
    let everything: BTreeSet<&str> = GROUPS.into();
    for (n, groups) in company.documents.iter().enumerate() {
        let text = format!("The codeword of case{case} is {}.", secret(case, n));
        let body = json!({"title": format!("Codeword {n}"), "text": text, "groups": groups});
        let path = format!("/v1/documents/case-{case}-{n}");
        let (status, body) = answer(by(app, &everything, Method::PUT, &path).json(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let question = asking(&format!("What is the codeword of case{case}?"));
    let mut passages = Vec::new();
    for groups in company.people.iter().chain([&everything]) {
        let mut grounded = question.clone();
        grounded["attune"] = json!({"k": 10});
        let (status, said) =
            answer(by(app, groups, Method::POST, "/v1/chat/completions").json(&grounded)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        for source in said["choices"][0]["message"]["attune"]["sources"].as_array().unwrap() {
            passages.push(source["passage_id"].as_str().unwrap().to_owned());
        }
        let feedback = format!("/v1/feedback/{}", said["id"].as_str().unwrap());
        let text = said["choices"][0]["message"]["content"].as_str().unwrap();
        let words = json!({"rating": "up", "comment": text, "ideal_answer": text});
        let (status, body) = answer(by(app, groups, Method::PUT, &feedback).json(&words)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let pair = json!({"messages": question["messages"]});
        let (_, pair) = answer(by(app, groups, Method::POST, "/v1/comparisons").json(&pair)).await;
        if let Some(id) = pair["id"].as_str() {
            let vote = json!({"choice": "left"});
            answer(by(app, groups, Method::POST, &format!("/v1/comparisons/{id}/vote")).json(&vote)).await;
        }
        leak(company, groups, case, &said.to_string())?;
        leak(company, groups, case, &pair.to_string())?;
        // Later in the same conversation, about nothing of the kind: what was said before stays whose it was.
        let later = json!({"messages": [question["messages"][0], {"role": "assistant", "content": text},
            {"role": "user", "content": "And how is the weather?"}], "attune": {"retrieve": false}});
        let (status, later) =
            answer(by(app, groups, Method::POST, "/v1/chat/completions").json(&later)).await;
        assert_eq!(status, StatusCode::OK, "{later}");
        let ideal = json!({"prompt": "What is it?", "response": text, "corrects": later["id"]});
        let (status, ideal) = answer(by(app, groups, Method::POST, "/v1/demonstrations").json(&ideal)).await;
        assert_eq!(status, StatusCode::CREATED, "{ideal}");
    }
    // Whoever sees everything approves the corrections: now they are rows to learn from.
    let (_, drafts) =
        answer(by(app, &everything, Method::GET, "/v1/demonstrations?status=draft&limit=1000")).await;
    for draft in drafts["data"].as_array().unwrap() {
        let body =
            json!({"messages": draft["messages"], "response": draft["response"], "status": "approved"});
        let path = format!("/v1/demonstrations/{}", draft["id"].as_str().unwrap());
        assert_eq!(answer(by(app, &everything, Method::PUT, &path).json(&body)).await.0, StatusCode::OK);
    }
    for groups in &company.people {
        for path in lists(&passages, case) {
            let response = by(app, groups, Method::GET, &path).send().await.unwrap();
            leak(company, groups, case, &response.text().await.unwrap())
                .map_err(|leak| format!("{path}: {leak}"))?;
        }
    }
    // The check can fail: who is in every group does see everything.
    let mut seen = String::new();
    for path in lists(&passages, case) {
        seen += &by(app, &everything, Method::GET, &path).send().await.unwrap().text().await.unwrap();
    }
    let missing = (0..company.documents.len()).find(|n| !seen.contains(&secret(case, *n)));
    missing.map_or(Ok(()), |n| Err(format!("document {n} is shown to nobody")))
}

/// Everything that can be read.
fn lists(passages: &[String], case: u32) -> Vec<String> {
    let encoded = |id: &String| url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>();
    let mut paths: Vec<String> = passages.iter().map(|id| format!("/v1/passages/{}", encoded(id))).collect();
    paths.push(format!("/v1/search?q=codeword+case{case}&k=50"));
    paths.extend((0..5).map(|n| format!("/v1/documents/case-{case}-{n}")));
    let more = ["answers", "feedback", "comparisons", "demonstrations", "documents"];
    paths.extend(more.map(|list| format!("/v1/{list}?limit=1000")));
    paths.extend(
        ["sft", "preference", "unpaired", "prompts"].map(|format| format!("/v1/export?format={format}")),
    );
    paths
}

/// Whether a text says what somebody in these groups may not see.
fn leak(company: &Company, groups: &BTreeSet<&str>, case: u32, text: &str) -> Result<(), String> {
    for (n, needed) in company.documents.iter().enumerate() {
        if !needed.is_empty() && needed.is_disjoint(groups) && text.contains(&secret(case, n)) {
            return Err(format!("somebody in {groups:?} reads a document for {needed:?}: {text}"));
        }
    }
    Ok(())
}

fn secret(case: u32, document: usize) -> String {
    format!("zx{case}q{document}zx")
}

fn by(app: &TestApp, groups: &BTreeSet<&str>, method: Method, path: &str) -> reqwest::RequestBuilder {
    let mut names: Vec<&str> = groups.iter().copied().collect();
    names.push("staff");
    // One person a set of groups.
    let user = names.join("-");
    app.request(method, path).header("x-forwarded-user", user).header("x-forwarded-groups", names.join(","))
}
