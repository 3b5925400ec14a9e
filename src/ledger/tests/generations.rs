//! What does every ledger promise about generations?

use super::{
    super::{Expected, GenerationFilter, GenerationRow, Moved, Paging, Pointer},
    Harness,
};
use crate::domain::*;

fn id(n: usize) -> GenerationId {
    GenerationId::from_wire(format!("gen-{n:016x}"))
}

fn row(n: usize, kind: GenerationKind) -> GenerationRow {
    GenerationRow {
        id: id(n),
        kind,
        state: GenerationState::Candidate,
        parent: n.checked_sub(1).map(id),
        created: Millis(1000 + n as i64),
        reasons: vec![],
        pruned: None,
        manifest: format!("{{\"n\":{n}}}"),
    }
}

const POLICY: ActiveRole = ActiveRole::Policy;

async fn state(harness: &Harness, n: usize) -> GenerationState {
    harness.ledger.generation(&id(n)).await.unwrap().unwrap().state
}

pub(super) async fn generations_come_back_as_written_and_filtered(harness: Harness) {
    let ledger = &harness.ledger;
    for n in 0..7 {
        let kind = [GenerationKind::Base, GenerationKind::Policy, GenerationKind::Reward][n % 3];
        assert!(ledger.put_generation(&row(n, kind)).await.unwrap());
    }
    assert!(!ledger.put_generation(&row(3, GenerationKind::Policy)).await.unwrap());
    assert_eq!(ledger.generation(&id(4)).await.unwrap(), Some(row(4, GenerationKind::Policy)));
    assert_eq!(ledger.generation(&id(9)).await.unwrap(), None);
    let mut seen = Vec::new();
    let mut paging = Paging { before: None, limit: 2 };
    loop {
        let page = ledger.generations(GenerationFilter::default(), &paging).await.unwrap();
        seen.extend(page.data.into_iter().map(|row| row.id));
        paging.before = page.next;
        if paging.before.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..7).rev().map(id).collect::<Vec<_>>(), "newest first, each once");
    assert!(ledger.hold_generation(&id(4), &["too short".into()]).await.unwrap());
    assert!(!ledger.hold_generation(&id(9), &[]).await.unwrap());
    let held = GenerationFilter { kind: Some(GenerationKind::Policy), state: Some(GenerationState::Held) };
    let page = ledger.generations(held, &Paging { before: None, limit: 10 }).await.unwrap();
    assert_eq!(page.data.len(), 1);
    assert_eq!((&page.data[0].id, page.data[0].reasons.as_slice()), (&id(4), &["too short".to_owned()][..]));
}

pub(super) async fn the_pointer_moves_only_from_where_it_is_expected(harness: Harness) {
    let ledger = &harness.ledger;
    for n in 0..4 {
        ledger.put_generation(&row(n, GenerationKind::Policy)).await.unwrap();
    }
    ledger.put_generation(&row(5, GenerationKind::Reward)).await.unwrap();
    let (zero, one) = (id(0), id(1));
    assert_eq!(ledger.pointer(POLICY).await.unwrap(), None);
    let unset = ledger.move_pointer((POLICY, &zero), Expected::Active(&one), Millis(1)).await.unwrap();
    assert_eq!(unset, Moved::Unexpected(None));
    let first = Pointer { generation: id(0), previous: None, changed: Millis(1) };
    let moved = ledger.move_pointer((POLICY, &zero), Expected::Unset, Millis(1)).await.unwrap();
    assert_eq!(moved, Moved::To(first.clone()));
    let again = ledger.move_pointer((POLICY, &zero), Expected::Any, Millis(2)).await.unwrap();
    assert_eq!(again, Moved::To(first.clone()), "moving it to where it is changes nothing");
    for expected in [Expected::Unset, Expected::Active(&one)] {
        let stays = ledger.move_pointer((POLICY, &one), expected, Millis(2)).await.unwrap();
        assert_eq!(stays, Moved::Unexpected(Some(first.clone())));
    }
    let second = Pointer { generation: id(1), previous: Some(id(0)), changed: Millis(3) };
    let moved = ledger.move_pointer((POLICY, &one), Expected::Active(&zero), Millis(3)).await.unwrap();
    assert_eq!(moved, Moved::To(second.clone()));
    assert_eq!(ledger.pointer(POLICY).await.unwrap(), Some(second));
    assert_eq!(
        [state(&harness, 0).await, state(&harness, 1).await],
        [GenerationState::Retired, GenerationState::Active]
    );
    for unusable in [id(5), id(9)] {
        let moved = ledger.move_pointer((POLICY, &unusable), Expected::Any, Millis(4)).await.unwrap();
        assert_eq!(moved, Moved::Unusable, "another kind, or not known");
    }
    assert_eq!(state(&harness, 1).await, GenerationState::Active, "what failed changed nothing");
    assert_eq!(ledger.pointer(ActiveRole::Reward).await.unwrap(), None, "the roles are apart");
}

pub(super) async fn of_many_moves_with_one_expectation_one_succeeds(harness: Harness) {
    for n in 0..9 {
        harness.ledger.put_generation(&row(n, GenerationKind::Policy)).await.unwrap();
    }
    let zero = id(0);
    harness.ledger.move_pointer((POLICY, &zero), Expected::Unset, Millis(1)).await.unwrap();
    let moves = (1..9).map(|n| {
        let ledger = harness.ledger.clone();
        tokio::spawn(async move {
            ledger.move_pointer((POLICY, &id(n)), Expected::Active(&id(0)), Millis(2)).await.unwrap()
        })
    });
    let outcomes = futures::future::join_all(moves).await;
    let won: Vec<_> =
        outcomes.into_iter().map(Result::unwrap).filter(|moved| matches!(moved, Moved::To(_))).collect();
    assert_eq!(won.len(), 1);
    let pointer = harness.ledger.pointer(POLICY).await.unwrap().unwrap();
    assert_eq!(won[0], Moved::To(pointer));
    let active = GenerationFilter { kind: None, state: Some(GenerationState::Active) };
    let page = harness.ledger.generations(active, &Paging { before: None, limit: 10 }).await.unwrap();
    assert_eq!(page.data.len(), 1);
}

pub(super) async fn what_a_pointer_names_is_not_pruned(harness: Harness) {
    let ledger = &harness.ledger;
    for n in 0..3 {
        ledger.put_generation(&row(n, GenerationKind::Policy)).await.unwrap();
        ledger.move_pointer((POLICY, &id(n)), Expected::Any, Millis(n as i64)).await.unwrap();
    }
    for kept in [2, 1] {
        assert!(!ledger.prune_generation(&id(kept), Millis(9)).await.unwrap(), "{kept}");
    }
    assert!(ledger.prune_generation(&id(0), Millis(9)).await.unwrap());
    assert!(!ledger.prune_generation(&id(0), Millis(10)).await.unwrap(), "once");
    let gone = ledger.generation(&id(0)).await.unwrap().unwrap();
    assert_eq!((gone.pruned, gone.state), (Some(Millis(9)), GenerationState::Retired));
    let moved = ledger.move_pointer((POLICY, &id(0)), Expected::Any, Millis(11)).await.unwrap();
    assert_eq!(moved, Moved::Unusable);
    assert!(ledger.put_generation(&row(0, GenerationKind::Policy)).await.unwrap(), "published again");
    assert_eq!(ledger.generation(&id(0)).await.unwrap(), Some(row(0, GenerationKind::Policy)));
}
