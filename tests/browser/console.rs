//! Does the console let curators curate, and nobody else?

use attune::config::AccessMode;
use attune::domain::{Choice, DemonstrationStatus, Role};
use attune::ledger::{AnswerFilter, Paging};
use serde_json::json;

use crate::driver::{Page, browse};
use crate::server::{Server, Setup};

const WIDE: (u32, u32) = (1280, 850);
const PAGE: Paging = Paging { before: None, limit: 100 };

fn with_tokens() -> Setup {
    Setup { mode: Some(AccessMode::Tokens), ..Setup::default() }
}

async fn sign_in(page: &Page, server: &Server, token: &str) {
    page.open(&format!("{}/console", server.url), WIDE).await;
    page.fill(".sign-in input", token).await;
    page.press("Sign in").await;
}

async fn go(page: &Page, key: &str) {
    page.click(&format!("nav [data-key={key}]")).await;
    page.until(&format!("$('nav [data-key={key}]').ariaCurrent === 'page' && $('.page')")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_employee_sees_nothing_of_the_console() {
    let server = Server::start(with_tokens()).await;
    let token = server.token("ada", Role::Employee).await;
    let question = json!({ "messages": [{ "role": "user", "content": "Where is HR?" }] });
    server.post("/v1/chat/completions", &token, question).await;
    browse("console employee", async |page| {
        sign_in(page, &server, "att-wrong").await;
        page.until("$('.sign-in .problem')").await;
        page.fill(".sign-in input", &token).await;
        page.press("Sign in").await;
        page.until("$('.notice')").await;
        assert!(page.text(".notice").await.contains("ada (employee)"));
        page.run("location.hash = '#documents';").await;
        page.until("location.hash === '#documents'").await;
        assert_eq!(page.get("$$('nav a, .row-button').length").await, 0);
        assert!(!page.text("body").await.contains("Where is HR?"));
        page.look("refused").await;
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curator_reads_the_log_and_edits_ideal_answers() {
    let server = Server::start(with_tokens()).await;
    let ada = server.token("ada", Role::Employee).await;
    let curator = server.token("cleo", Role::Curator).await;
    let question = json!({ "messages": [{ "role": "user", "content": "Where is HR?" }] });
    let answer = server.post("/v1/chat/completions", &ada, question).await["id"].as_str().unwrap().to_owned();
    let correction =
        json!({ "rating": "down", "reasons": ["incomplete"], "ideal_answer": "Room 310, third floor." });
    server.put_feedback(&answer, &ada, correction).await;

    browse("console curator", async |page| {
        sign_in(page, &server, &curator).await;
        page.until("$$('.row-button').length === 1").await;
        page.fill("input[type=search]", "no such words").await;
        page.until("$('.rows .empty')").await;
        page.fill("input[type=search]", "HR").await;
        page.until("$('.row-button')").await;
        page.click(".row-button").await;
        page.until("$('.detail').innerText.includes('gen-scripted')").await;
        let detail = page.text(".detail").await;
        for part in [
            "Where is HR?",
            "room 310",
            "Not helpful",
            "incomplete",
            "Room 310, third floor.",
            "Boston office",
        ] {
            assert!(detail.contains(part), "{part} is not in {detail}");
        }
        page.look("answer").await;

        go(page, "ideal").await;
        page.click(".row-button").await;
        page.until("$('.approve')").await;
        page.press("Edit").await;
        page.fill_labelled("Ideal answer", "Room 310 on the third floor.").await;
        page.press("Save ideal answer").await;
        page.click(".approve").await;
        page.until("$('.detail').innerText.includes('Back to waiting')").await;
        page.look("approved").await;

        page.press("Write ideal answer").await;
        page.fill_labelled("Question", "When is lunch?").await;
        page.fill_labelled("Ideal answer", "From 11:45 to 14:00.").await;
        page.press("Save ideal answer").await;
        page.until("$('.detail h2')?.innerText === 'When is lunch?'").await;
        page.press("Delete").await;
        page.press("Undo").await;
        page.until("$('.toast')?.innerText.includes('Undone')").await;
    })
    .await;

    let approved =
        server.ledger.demonstrations(Some(DemonstrationStatus::Approved), &PAGE).await.unwrap().data;
    let mut responses: Vec<_> = approved.iter().map(|d| (d.response.as_str(), d.author.as_str())).collect();
    responses.sort_unstable();
    assert_eq!(responses, [("From 11:45 to 14:00.", "cleo"), ("Room 310 on the third floor.", "ada")]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_curator_writes_beside_an_answer_corrects_it() {
    let server = Server::start(with_tokens()).await;
    let ada = server.token("ada", Role::Employee).await;
    let curator = server.token("cleo", Role::Curator).await;
    let question = json!({ "messages": [{ "role": "user", "content": "Where is HR?" }] });
    let answer = server.post("/v1/chat/completions", &ada, question).await["id"].as_str().unwrap().to_owned();
    browse("console correction", async |page| {
        sign_in(page, &server, &curator).await;
        page.until("$('.row-button')").await;
        page.click(".row-button").await;
        page.press("Write the ideal answer").await;
        page.fill_labelled("Ideal answer", "In room 310.").await;
        page.press("Save ideal answer").await;
        page.until("$('.detail')?.innerText.includes('It corrects')").await;
        page.look("written").await;
    })
    .await;
    let approved =
        server.ledger.demonstrations(Some(DemonstrationStatus::Approved), &PAGE).await.unwrap().data;
    let found: Vec<_> =
        approved.iter().map(|d| (d.response.as_str(), d.corrects.as_ref().map(|id| id.as_str()))).collect();
    assert_eq!(found, [("In room 310.", Some(answer.as_str()))]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curator_judges_a_pair_with_one_key() {
    let server = Server::start(with_tokens()).await;
    let ada = server.token("ada", Role::Employee).await;
    let curator = server.token("cleo", Role::Curator).await;
    let question = json!({ "messages": [{ "role": "user", "content": "Let me choose: where is HR?" }] });
    server.post("/v1/comparisons", &ada, question).await;
    browse("console judge", async |page| {
        sign_in(page, &server, &curator).await;
        go(page, "judge").await;
        page.until("$$('.side').length === 2").await;
        // Who made which answer stays hidden.
        assert!(!page.text(".stage").await.contains("gen-"));
        page.look("pair").await;
        page.keys("2").await;
        page.until("$('.stage').innerText.includes('All done')").await;
        page.press("Change").await;
        page.until("$$('.side').length === 2").await;
        page.keys("t").await;
        page.until("$('.stage').innerText.includes('All done')").await;
    })
    .await;
    let pairs = server.ledger.voted_pairs(&PAGE).await.unwrap().data;
    let votes: Vec<_> = pairs.iter().map(|(vote, ..)| (vote.user.as_str(), vote.choice)).collect();
    assert_eq!(votes, [("cleo", Choice::Tie)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_added_searched_changed_and_deleted_with_undo() {
    let server = Server::start(Setup::default()).await;
    browse("console documents", async |page| {
        page.open(&format!("{}/console#documents", server.url), WIDE).await;
        page.until("$$('.row-button').length === 1").await;
        page.press("Add document").await;
        page.fill_labelled("Title", "VPN").await;
        page.fill_labelled("Id", "it:vpn").await;
        page.fill_labelled("Text", "# VPN\n\nThe VPN is called **Larch**.").await;
        page.press("Save document").await;
        page.until("$('.document')?.innerText.includes('Larch')").await;
        assert_eq!(
            page.get("$('.document strong')?.innerText ?? $('.document b')?.innerText").await,
            "Larch"
        );
        page.fill("form[role=search] input", "What is the VPN called?").await;
        page.press("Search").await;
        page.until("$('.results')?.innerText.includes('Larch')").await;
        page.look("search").await;
        page.press("Delete").await;
        page.press("Delete document").await;
        page.until("$$('.row-button').length === 1").await;
        page.press("Undo").await;
        page.until("$$('.row-button').length === 2").await;
        page.open(&format!("{}/console#documents", server.url), (375, 760)).await;
        page.until("$$('.row-button').length === 2").await;
        assert!(!page.is_too_wide().await);
        page.look("phone").await;
    })
    .await;
    assert!(server.ledger.answers(&AnswerFilter::default(), &PAGE).await.unwrap().data.is_empty());
    server.stop().await;
}
