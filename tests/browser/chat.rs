//! Can an employee ask, read, judge and correct, with the mouse and without?

use std::time::Duration;

use attune::domain::{Choice, DemonstrationStatus, FinishReason, Rating, Reason};
use attune::ledger::{AnswerFilter, Paging};
use fantoccini::key::Key;

use crate::driver::browse;
use crate::server::{HR_ANSWER, Server, Setup};

const WIDE: (u32, u32) = (1200, 850);
const PHONE: (u32, u32) = (375, 760);
const PAGE: Paging = Paging { before: None, limit: 100 };
const QUESTION: &str = "Where is the HR department in Boston?";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_asked_read_judged_and_corrected() {
    let server = Server::start(Setup::default()).await;
    browse("chat", async |page| {
        page.open(&server.url, WIDE).await;
        page.until("visible('.composer textarea') && $('h1').innerText === 'Ask about Larkfield'").await;
        assert!(page.text(".notice").await.contains("recorded"));
        page.look("empty").await;

        page.ask(QUESTION).await;
        assert!(page.text(".prose").await.contains("third floor in room 310"));
        assert_eq!(page.get("$('.prose strong').innerText").await, "HR department");
        assert_eq!(page.get("$$('.prose li').length").await, 2);
        // One announcement, with the whole answer; the log itself does not announce.
        assert!(page.get("$('[role=status]').textContent").await.as_str().unwrap().contains("room 310"));
        assert_eq!(page.get("$('[role=log]').getAttribute('aria-live')").await, "off");

        page.click(".prose .cite").await;
        page.until("$('dialog').open && $('.passage-text').innerText.includes('People team')").await;
        assert_eq!(page.get("$('.passage-link a').href").await, "https://intranet.example/boston");
        assert_eq!(page.get("$('.passage-link a').rel").await, "noopener noreferrer");
        page.look("passage").await;
        page.click("dialog [aria-label='Close passage']").await;
        assert!(page.text(".sources").await.contains("Boston office"));

        page.click("[data-rating=down]").await;
        page.click("[data-reason=incomplete]").await;
        page.fill(".panel textarea", "Which desk?").await;
        page.look("feedback").await;
        page.press("Send").await;
        page.until("$('.thanks')").await;
        assert_eq!(page.get("$('[data-rating=down]').ariaPressed").await, "true");

        page.press("Suggest a better answer").await;
        assert_eq!(page.get("$('.panel textarea').value").await, HR_ANSWER);
        page.fill(".panel textarea", "Room 310, third floor; ask for Ines.").await;
        page.press("Save answer").await;
        page.until("$('.thanks')?.innerText.includes('curator')").await;
    })
    .await;

    let answers = server.ledger.answers(&AnswerFilter::default(), &PAGE).await.unwrap().data;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].answer, HR_ANSWER);
    let feedback = &server.ledger.feedback_on(&answers[0].id).await.unwrap()[0];
    assert_eq!(
        (feedback.rating, feedback.reasons.as_slice()),
        (Some(Rating::Down), [Reason::Incomplete].as_slice())
    );
    assert_eq!(feedback.comment.as_deref(), Some("Which desk?"));
    assert_eq!(feedback.ideal_answer.as_deref(), Some("Room 310, third floor; ask for Ines."));
    let drafts = server.ledger.demonstrations(Some(DemonstrationStatus::Draft), &PAGE).await.unwrap().data;
    assert_eq!(drafts.len(), 1);
    assert_eq!(drafts[0].corrects.as_ref(), Some(&answers[0].id));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thumb_can_be_changed_and_taken_back() {
    let server = Server::start(Setup::default()).await;
    browse("thumbs", async |page| {
        page.open(&server.url, WIDE).await;
        page.ask(QUESTION).await;
        page.click("[data-rating=up]").await;
        page.until("$('[data-reason=clear]')").await;
        page.click("[data-rating=down]").await;
        page.until("$('[data-reason=inaccurate]')").await;
        page.until(
            "$('[data-rating=down]').ariaPressed === 'true' && $('[data-rating=up]').ariaPressed === 'false'",
        )
        .await;
        page.click("[data-rating=down]").await;
        page.until("$('[role=status]').textContent.includes('taken back')").await;
    })
    .await;
    assert!(server.ledger.feedback(&PAGE).await.unwrap().data.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_answers_is_chosen() {
    let server = Server::start(Setup { share: 1.0, ..Setup::default() }).await;
    browse("comparison", async |page| {
        page.open(&server.url, WIDE).await;
        page.until("$('h1').innerText.includes('Larkfield')").await;
        page.ask("Let me choose: where is HR?").await;
        assert_eq!(page.get("$$('.side').length").await, 2);
        assert_ne!(page.get("$('[data-side=left] .prose').innerText").await, page.get("$('[data-side=right] .prose').innerText").await);
        let side_by_side = "$('[data-side=right]').getBoundingClientRect().left > $('[data-side=left]').getBoundingClientRect().right";
        assert_eq!(page.get(side_by_side).await, true);
        // Nothing is chosen for the person, and nothing can be sent before a choice.
        assert_eq!(page.get("$$('.vote input:checked').length").await, 0);
        assert_eq!(page.get("$('.vote .primary').disabled").await, true);
        page.click(".vote input[value=right]").await;
        page.click(".vote input[value='2']").await;
        page.look("choice").await;
        page.press("Send choice").await;
        page.until("$('.side.chosen')?.dataset.side === 'right'").await;
        page.look("chosen").await;
        // The choice can be changed.
        page.press("Change").await;
        page.click(".vote input[value=tie]").await;
        page.press("Send choice").await;
        page.until("$('.thanks')?.innerText.includes('Equally good')").await;
        page.open(&server.url, PHONE).await;
        page.until("$$('.side').length === 2").await;
        assert_eq!(page.get(side_by_side).await, false);
        assert!(!page.is_too_wide().await);
    })
    .await;
    let pairs = server.ledger.voted_pairs(&PAGE).await.unwrap().data;
    assert_eq!(pairs.len(), 1);
    assert_eq!((pairs[0].0.choice, pairs[0].0.strength), (Choice::Tie, None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_answers_would_be_equal_the_single_one_is_shown() {
    let server = Server::start(Setup { share: 1.0, ..Setup::default() }).await;
    browse("equal answers", async |page| {
        page.open(&server.url, WIDE).await;
        page.until("$('h1').innerText.includes('Larkfield')").await;
        page.ask(QUESTION).await;
        assert_eq!(page.get("$$('.side').length").await, 0);
        assert!(page.text(".prose").await.contains("room 310"));
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_from_the_keyboard() {
    let server = Server::start(Setup { share: 1.0, ..Setup::default() }).await;
    browse("keyboard", async |page| {
        page.open(&server.url, WIDE).await;
        page.until("$('h1').innerText.includes('Larkfield')").await;
        page.tab_to("active.matches('.composer textarea')").await;
        page.keys(QUESTION).await;
        page.key(Key::Enter).await;
        page.until("$('.actions')").await;

        page.run("$('.log').focus();").await;
        page.tab_to("active.matches('.prose .cite')").await;
        page.key(Key::Enter).await;
        page.until("$('dialog').open").await;
        page.key(Key::Escape).await;
        page.until("!$('dialog').open && root.activeElement.matches('.cite')").await;

        page.tab_to("active.matches('[data-rating=up]')").await;
        page.keys(" ").await;
        page.until("root.activeElement?.matches('.chip')").await;
        page.tab_to("active.matches('[data-reason=clear]')").await;
        page.keys(" ").await;
        page.tab_to("active.matches('.panel [type=submit]')").await;
        page.key(Key::Enter).await;
        page.until("$('.thanks') && root.activeElement.matches('[data-rating=up]')").await;

        page.tab_to("active.matches('.composer textarea')").await;
        page.keys("Let me choose: where is HR?").await;
        page.key(Key::Enter).await;
        page.until("$('.vote')").await;
        page.run("$('.log').focus();").await;
        page.tab_to("active.matches('.vote input')").await;
        page.keys(" ").await;
        page.until("$('.vote input[value=left]').checked").await;
        page.key(Key::Right).await;
        page.until("$('.vote input[value=right]').checked").await;
        page.tab_to("active.matches('.vote [type=submit]')").await;
        page.key(Key::Enter).await;
        page.until("$('.side.chosen')?.dataset.side === 'right'").await;
    })
    .await;
    let feedback = server.ledger.feedback(&PAGE).await.unwrap().data;
    assert_eq!(feedback[0].0.reasons, [Reason::Clear]);
    assert_eq!(server.ledger.voted_pairs(&PAGE).await.unwrap().data[0].0.choice, Choice::Right);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_stopped_and_asked_for_again() {
    let server = Server::start(Setup { pause: Duration::from_millis(100), ..Setup::default() }).await;
    browse("stop", async |page| {
        page.open(&server.url, WIDE).await;
        page.fill(".composer textarea", "Tell me something long").await;
        page.click(".send").await;
        page.until("$('.prose')?.innerText.includes('word word')").await;
        assert_eq!(page.get("$('.log').ariaBusy").await, "true");
        page.click(".stop").await;
        page.until("$('.stopped') && $('.log').ariaBusy === 'false'").await;
        assert!(page.text(".prose").await.contains("word"));
        page.fill(".composer textarea", QUESTION).await;
        page.press("Try again").await;
        page.until("$('.prose')?.innerText.includes('word word')").await;
        page.click(".stop").await;
        page.until("$('.stopped')").await;
    })
    .await;
    // The server notices at the next word, and records what there was.
    let cancelled = async || {
        let answers = server.ledger.answers(&AnswerFilter::default(), &PAGE).await.unwrap().data;
        answers.iter().filter(|answer| answer.finish_reason == FinishReason::Cancelled).count()
    };
    for _ in 0..200 {
        if cancelled().await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cancelled().await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_survives_a_reload_and_a_lost_server_is_explained() {
    let server = Server::start(Setup::default()).await;
    browse("reload", async |page| {
        page.open(&server.url, PHONE).await;
        page.ask(QUESTION).await;
        page.click("[data-rating=up]").await;
        page.until("$('[data-reason=clear]')").await;
        page.look("phone").await;
        assert!(!page.is_too_wide().await);
        page.open(&server.url, PHONE).await;
        page.until("$('.prose')?.innerText.includes('room 310')").await;
        assert_eq!(page.get("$('[data-rating=up]').ariaPressed").await, "true");
        // The same page with its server gone, as far as the page can tell.
        page.run("window.fetch = () => Promise.reject(new TypeError('network'));").await;
        page.fill(".composer textarea", "Are you there?").await;
        page.click(".send").await;
        page.until("$('.trouble')?.innerText.includes('connection')").await;
        page.look("lost").await;
        page.click("[aria-label='New conversation'], .fresh").await;
        page.until("$('.welcome')").await;
    })
    .await;
    server.stop().await;
}
