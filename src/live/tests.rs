//! Is what people like less rolled back, what they like better kept, and who is answered by which while it is open?

use std::collections::BTreeSet;

use super::*;
use crate::domain::{AnswerRecord, Comparison, GenerationKind, RunRequest, Stage, Vote};
use crate::generation::Slot;
use crate::ledger::tests::{Harness, fixtures};
use crate::registry::About;
use crate::swap::tests::{Scripts, base};

struct Watched {
    h: Harness,
    check: LiveCheck,
    slot: Arc<Slot>,
    candidate: GenerationId,
    previous: GenerationId,
    voted: usize,
}

impl Watched {
    /// A base generation, and one that a run of `requester` made and promoted.
    async fn start(requester: &str) -> Self {
        let h = Harness::sqlite().await;
        let metrics = Metrics::new().unwrap();
        let mut config = Config { data_dir: h.folder().to_owned(), ..Config::default() };
        config.access.mode = AccessMode::Tokens;
        let registry = Registry::open(h.folder(), h.ledger.clone()).await.unwrap();
        let slot = Arc::new(Slot::empty(metrics.clone()));
        let swapper =
            Swapper::new(slot.clone(), registry.clone(), Arc::new(Scripts::default()), &config.registry);
        let swapper = Arc::new(swapper);
        swapper.start().await.unwrap();
        let request = RunRequest { promote: true, ..RunRequest::new(Stage::Improve) };
        let run = crate::jobs::Run::queued(request, requester, now());
        h.ledger.put_run(&run).await.unwrap();
        let draft = registry.draft().await.unwrap();
        std::fs::write(draft.path().join(crate::registry::POLICY_FILE), "new [1].").unwrap();
        let made = About {
            kind: GenerationKind::Policy,
            run: Some(run.id.to_string()),
            // After the base generation.
            created: Millis(now().0 + 1),
            parent: Some(base().id),
            merged_tensors: 1,
            ..base().about
        };
        let candidate = registry.publish(draft, made).await.unwrap().id;
        swapper.promote(&candidate, None).await.unwrap();
        let check = LiveCheck {
            ledger: h.ledger.clone(),
            registry,
            swapper,
            watch: Arc::new(Watch::new(b"key")),
            config: Arc::new(config),
            metrics,
        };
        Self { previous: base().id, h, check, slot, candidate, voted: 0 }
    }

    /// Comparisons of the two generations, in which the candidate wins or loses.
    async fn votes(&mut self, wins: usize, losses: usize) {
        for won in std::iter::repeat_n(true, wins).chain(std::iter::repeat_n(false, losses)) {
            self.voted += 1;
            let at = now().0 + 10;
            let (comparison, left, right): (Comparison, AnswerRecord, AnswerRecord) =
                fixtures::comparison("ada", at, 1000 + 2 * self.voted);
            let left = AnswerRecord { generation: self.candidate.clone(), ..left };
            let right = AnswerRecord { generation: self.previous.clone(), ..right };
            self.h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
            let choice = if won { Choice::Left } else { Choice::Right };
            let vote: Vote = fixtures::vote(&comparison, "ada", choice, at);
            self.h.ledger.put_vote(&vote).await.unwrap();
        }
    }

    async fn look(&self) -> Option<LiveVerdict> {
        self.check.look(now()).await.unwrap()
    }
}

#[tokio::test]
async fn what_people_like_less_is_rolled_back_by_itself() {
    let mut watched = Watched::start(REQUESTER).await;
    assert!(matches!(watched.look().await, Some(LiveVerdict::NotEnoughData { .. })));
    assert_eq!(watched.slot.beside(), Some(watched.previous.clone()));
    assert!(watched.check.watch.words(&watched.candidate).unwrap().contains("not enough data yet"));
    let people: BTreeSet<bool> =
        (0..100).map(|n| watched.check.watch.instead(&format!("person {n}")).is_some()).collect();
    assert_eq!(people.len(), 2, "some are answered by one, some by the other");

    watched.votes(3, 40).await;
    assert!(matches!(watched.look().await, Some(LiveVerdict::Worse { .. })));
    assert_eq!(watched.slot.current(), Some(watched.previous.clone()));
    let pointer = watched.check.registry.pointer(ActiveRole::Policy).await.unwrap().unwrap();
    assert_eq!(pointer.generation, watched.previous);
    assert_eq!(watched.check.metrics.live_rollbacks.get(), 1);
    // What was gone back to is not watched in its turn.
    assert_eq!(watched.look().await, None);
    assert_eq!((watched.slot.beside(), watched.check.watch.rival()), (None, None));
}

#[tokio::test]
async fn what_people_like_better_is_served_to_all() {
    let mut watched = Watched::start(REQUESTER).await;
    watched.look().await;
    watched.votes(40, 3).await;
    assert!(matches!(watched.look().await, Some(LiveVerdict::Better { .. })));
    assert_eq!(watched.slot.current(), Some(watched.candidate.clone()));
    assert!((0..100).all(|n| watched.check.watch.instead(&format!("person {n}")).is_none()));
}

#[tokio::test]
async fn what_a_person_promoted_or_stood_long_is_not_watched() {
    let watched = Watched::start("olga").await;
    assert_eq!(watched.look().await, None);
    let watched = Watched::start(REQUESTER).await;
    let weeks = Millis(now().0 + 15 * 86_400_000);
    assert_eq!(watched.check.look(weeks).await.unwrap(), None);
}
