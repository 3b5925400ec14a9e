//! Does the console let operators compare, promote and roll back generations, and curators only look?

use std::sync::Arc;

use attune::config::AccessMode;
use attune::domain::{ActiveRole, Millis, Role};
use attune::registry::{About, POLICY_FILE};
use serde_json::json;

use crate::driver::browse;
use crate::loader::{BASE, Scripts, about, publish};
use crate::server::{Server, Setup};

const WIDE: (u32, u32) = (1280, 850);
const PHONE: (u32, u32) = (375, 760);

fn setup() -> Setup {
    Setup { loader: Some(Arc::new(Scripts::default())), ..Setup::default() }
}

async fn active(server: &Server) -> String {
    let pointer = server.ledger.pointer(ActiveRole::Policy).await.unwrap().unwrap();
    pointer.generation.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_compares_promotes_undoes_and_rolls_back() {
    let server = Server::start(setup()).await;
    let first = publish(server.folder(), "first [1].", about()).await.to_string();
    let better = About {
        created: Millis(about().created.0 + 1),
        metrics: json!({"f1": {"before": 0.36, "after": 0.512, "interval": [0.1, 0.2]}}),
        training: json!({"rank": 32, "alpha": 32, "rate": 5e-4}),
        ..about()
    };
    let second = publish(server.folder(), "second [1].", better).await.to_string();
    browse("console generations", async |page| {
        page.open(&format!("{}/console#generations", server.url), WIDE).await;
        page.until("$$('.row-button').length === 3").await;
        page.click(&format!("[data-id='{second}']")).await;
        page.until("$('.detail .numbers')").await;
        let detail = page.text(".detail").await;
        for part in ["Token F1", "0.360", "0.512", "0.100 to 0.200", "tiny", BASE] {
            assert!(detail.contains(part), "{part} is not in {detail}");
        }
        page.fill(".detail select", &first).await;
        page.until("$$('.detail .numbers').length === 2").await;
        let compared = page.text(".detail [aria-live] .numbers").await;
        for part in ["0.512", "0.451", "rank", "32", "16"] {
            assert!(compared.contains(part), "{part} is not in {compared}");
        }
        assert!(!compared.contains("alpha"), "what is the same is left out: {compared}");
        page.look("compared").await;

        page.press("Promote…").await;
        page.until("$('dialog')").await;
        page.look("asked").await;
        page.press("Cancel").await;
        assert_eq!(active(&server).await, BASE);
        page.press("Promote…").await;
        page.press("Promote").await;
        page.until("$('.detail')?.innerText.includes('This server answers with it')").await;
        assert_eq!(active(&server).await, second);
        page.look("promoted").await;
        page.press("Undo").await;
        page.until(&format!("$('.detail h2')?.innerText === '{BASE}'")).await;
        assert_eq!(active(&server).await, BASE);
        page.press("Roll back…").await;
        page.press("Roll back").await;
        page.until(&format!("$('.detail h2')?.innerText === '{second}'")).await;
        assert_eq!(active(&server).await, second);

        // What can not be served says why, and changes nothing.
        let weights = server.folder().join("generations").join(&first).join(POLICY_FILE);
        std::fs::write(weights, "cut").unwrap();
        page.click(&format!("[data-id='{first}']")).await;
        page.press("Promote…").await;
        page.press("Promote").await;
        page.until("$('.detail .problem')?.innerText.includes('damaged')").await;
        assert_eq!(active(&server).await, second);
        page.open(&format!("{}/console#generations", server.url), PHONE).await;
        page.until("$$('.row-button').length === 3").await;
        page.click(&format!("[data-id='{first}']")).await;
        page.until("$('.detail .problem')?.innerText.includes('not served')").await;
        assert!(!page.is_too_wide().await);
        page.look("phone").await;
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curator_looks_and_is_offered_no_change() {
    let server = Server::start(Setup { mode: Some(AccessMode::Tokens), ..setup() }).await;
    let curator = server.token("cleo", Role::Curator).await;
    let id = publish(server.folder(), "tuned [1].", about()).await;
    browse("console generations curator", async |page| {
        page.open(&format!("{}/console#generations", server.url), WIDE).await;
        page.fill(".sign-in input", &curator).await;
        page.press("Sign in").await;
        page.click(&format!("[data-id='{id}']")).await;
        page.until("$('.detail .numbers')").await;
        let offered = page.get("$$('button').map((b) => b.innerText).join(' ')").await.to_string();
        assert!(!offered.contains("Promote") && !offered.contains("Roll back"), "{offered}");
        page.look("curator").await;
    })
    .await;
    server.stop().await;
}
