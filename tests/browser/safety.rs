//! Is what documents and models write ever run? It is shown as text, on every page.

use serde_json::json;

use crate::driver::{Page, browse};
use crate::server::{Server, Setup};

const WIDE: (u32, u32) = (1200, 850);
const EVIL: &str = "# HR <img src=x onerror=\"window.broken=1\">\n\n<script>window.broken=1</script>\n\n\
                    <svg onload=\"window.broken=1\"></svg> HR markup [a](javascript:window.broken=1) \
                    <a href=\"data:text/html,x\">b</a> <iframe src=\"https://evil.example\"></iframe> room 310.";

/// Nothing ran, and there is nothing that could.
async fn assert_harmless(page: &Page) {
    assert_eq!(page.get("window.broken ?? null").await, json!(null));
    let armed = "$$('img, iframe, object, embed, svg:not(.icon), script:not([src])').length";
    assert_eq!(page.get(armed).await, 0);
    assert_eq!(page.get("$$('a').filter((a) => !['http:', 'https:'].includes(a.protocol)).length").await, 0);
    assert_eq!(
        page.get("$$('*').filter((e) => [...e.attributes].some((a) => a.name.startsWith('on'))).length")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_questions_answers_and_documents_stays_text() {
    let server = Server::start(Setup::default()).await;
    server.put_document("evil", "HR <img src=x onerror=\"window.broken=1\">", EVIL).await;
    browse("markup", async |page| {
        page.open(&server.url, WIDE).await;
        page.ask("Show HR markup <img src=x onerror=\"window.broken=1\">").await;
        assert!(page.text(".prose").await.contains("<script>window.broken=1</script>"));
        assert!(page.text(".question").await.contains("<img"));
        assert_eq!(page.get("$('.prose strong').innerText").await, "bold");
        assert_harmless(page).await;
        let sources = page.get("$$('.source').length").await.as_u64().unwrap();
        assert!(sources >= 2, "both documents are sources, not {sources}");
        for n in 0..sources {
            page.run(&format!("$$('.source')[{n}].click();")).await;
            page.until("$('dialog').open && $('.passage-text').innerText.includes('310')").await;
            assert_harmless(page).await;
            page.click("dialog [aria-label='Close passage']").await;
        }
        page.open(&format!("{}/console#documents", server.url), WIDE).await;
        page.until("$$('.row-button').length === 2").await;
        page.run("$$('.row-button').find((row) => row.innerText.includes('<img')).click();").await;
        page.until("$('.document')?.innerText.includes('310')").await;
        assert_harmless(page).await;
        page.open(&format!("{}/console#answers", server.url), WIDE).await;
        page.click(".row-button").await;
        page.until("$('.detail').innerText.includes('gen-scripted')").await;
        assert_harmless(page).await;
        page.look("answer").await;
    })
    .await;
    server.stop().await;
}
