//! Does the widget work on sites that are allowed to have it, and only there?

use attune::config::AccessMode;
use attune::domain::Role;
use attune::ledger::{AnswerFilter, Paging};
use fantoccini::key::Key;
use serde_json::json;

use crate::driver::browse;
use crate::server::{Server, Setup};
use crate::site::Site;

const WIDE: (u32, u32) = (1200, 850);
const PAGE: Paging = Paging { before: None, limit: 100 };

#[tokio::test(flavor = "multi_thread")]
async fn the_widget_serves_allowed_sites_and_no_others() {
    let (allowed, other) = (Site::bind(), Site::bind());
    let origins = vec![allowed.origin()];
    let server = Server::start(Setup { mode: Some(AccessMode::Tokens), origins, ..Setup::default() }).await;
    let operator = server.token("host", Role::Operator).await;
    let grant = json!({ "user": "ada", "groups": [], "origin": allowed.origin() });
    let token = server.post("/v1/widget/token", &operator, grant).await["token"].as_str().unwrap().to_owned();
    let (allowed, other) = (allowed.serve(&server.url, &token), other.serve(&server.url, &token));

    browse("widget", async |page| {
        page.open(&allowed.origin, WIDE).await;
        page.until("$('.launcher')?.ariaExpanded === 'false' && !visible('.chat')").await;
        page.click(".launcher").await;
        page.until("visible('.chat') && root.activeElement?.matches('textarea')").await;
        assert_eq!(page.get("$('.launcher').ariaExpanded").await, "true");
        page.until("$('h1').innerText === 'Ask Larkfield'").await;
        page.ask("Where is the HR department in Boston?").await;
        page.click(".prose .cite").await;
        page.until("$('.passage-text').innerText.includes('People team') && !$('.hint').textContent").await;
        page.key(Key::Escape).await;
        // Escape closes what is on top: first the passage, then the widget.
        page.until("!$('dialog').open && visible('.chat')").await;
        page.click("[data-rating=up]").await;
        page.click("[data-reason=accurate]").await;
        page.press("Send").await;
        page.until("$('.thanks')").await;
        page.look("allowed").await;
        page.run("$('textarea').focus();").await;
        page.key(Key::Escape).await;
        page.until("!visible('.chat') && root.activeElement?.matches('.launcher')").await;

        page.open(&other.origin, WIDE).await;
        page.click(".launcher").await;
        page.until("$('.welcome .problem')?.innerText.includes('may not be allowed')").await;
        page.fill(".composer textarea", "Where is HR?").await;
        page.click(".send").await;
        page.until("$('.trouble')").await;
        page.look("refused").await;
    })
    .await;

    let answers = server.ledger.answers(&AnswerFilter::default(), &PAGE).await.unwrap().data;
    let users: Vec<_> = answers.iter().map(|answer| answer.user.as_str()).collect();
    assert_eq!(users, ["ada"], "the other site's question was not answered");
    assert_eq!(server.ledger.feedback_on(&answers[0].id).await.unwrap().len(), 1);
    allowed.stop().await;
    other.stop().await;
    server.stop().await;
}
