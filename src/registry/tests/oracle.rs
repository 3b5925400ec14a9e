//! Does the registry behave like a map, a list and a pair of names, whatever the order of operations?

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Fixture, about, base_id};
use crate::domain::*;
use crate::ledger::{GenerationFilter, Paging};
use crate::registry::{Generation, RegistryError};

const CONTENTS: usize = 6;

#[derive(Debug, Clone)]
enum Operation {
    Publish(usize),
    Promote { n: usize, expected: Option<usize> },
    Rollback,
    Prune { keep: usize, leased: usize },
    Hold(usize),
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let n = 0..CONTENTS;
    let one = prop_oneof![
        6 => n.clone().prop_map(Operation::Publish),
        5 => (n.clone(), proptest::option::of(n.clone())).prop_map(|(n, expected)| Operation::Promote { n, expected }),
        3 => Just(Operation::Rollback),
        3 => (0..3_usize, n.clone()).prop_map(|(keep, leased)| Operation::Prune { keep, leased }),
        2 => n.prop_map(Operation::Hold),
        1 => Just(Operation::Reopen),
    ];
    proptest::collection::vec(one, 1..24)
}

/// What there should be. `None` stands for the base generation.
#[derive(Debug, Default)]
struct Oracle {
    /// Content → state and whether its files are there.
    known: BTreeMap<usize, (GenerationState, bool)>,
    active: Option<usize>,
    previous: Option<Option<usize>>,
}

impl Oracle {
    fn set(&mut self, n: Option<usize>, state: GenerationState) {
        if let Some(entry) = n.and_then(|n| self.known.get_mut(&n)) {
            entry.0 = state;
        }
    }

    fn go(&mut self, to: Option<usize>) -> bool {
        if to.is_some_and(|n| !self.known.get(&n).is_some_and(|known| known.1)) {
            return false;
        }
        if self.active != to {
            self.set(self.active, GenerationState::Retired);
            self.previous = Some(self.active);
            self.active = to;
            self.set(to, GenerationState::Active);
        }
        true
    }

    /// Whether the operation succeeds.
    fn apply(&mut self, operation: &Operation) -> bool {
        match *operation {
            Operation::Publish(n) => {
                let entry = self.known.entry(n).or_insert((GenerationState::Candidate, true));
                if !entry.1 {
                    *entry = (GenerationState::Candidate, true);
                }
                true
            }
            Operation::Promote { n, expected } => {
                expected.is_none_or(|expected| self.active == Some(expected)) && self.go(Some(n))
            }
            Operation::Rollback => self.previous.is_some_and(|previous| self.go(previous)),
            Operation::Prune { keep, leased } => {
                let protected: BTreeSet<_> =
                    [self.active, self.previous.flatten(), Some(leased)].into_iter().flatten().collect();
                // Contents are numbered by age.
                let there = self.known.iter_mut().rev().filter(|(_, known)| known.1).skip(keep);
                for (_, known) in there.filter(|(n, _)| !protected.contains(n)) {
                    *known = (GenerationState::Retired, false);
                }
                true
            }
            Operation::Hold(n) => {
                let undecided = [GenerationState::Candidate, GenerationState::Held];
                let known = self.known.get_mut(&n).filter(|known| undecided.contains(&known.0));
                known.map(|known| known.0 = GenerationState::Held).is_some()
            }
            Operation::Reopen => true,
        }
    }
}

async fn apply(fixture: &mut Fixture, ids: &BTreeMap<usize, GenerationId>, operation: &Operation) -> bool {
    let registry = &fixture.registry;
    let unexpected =
        |error: &RegistryError| matches!(error, RegistryError::Ledger(_) | RegistryError::Io { .. });
    let result = match *operation {
        Operation::Publish(n) => {
            assert_eq!(fixture.publish(&n.to_string(), about(n as i64)).await.id, ids[&n]);
            Ok(())
        }
        Operation::Promote { n, expected } => {
            registry.promote(&ids[&n], expected.map(|n| &ids[&n])).await.map(drop)
        }
        Operation::Rollback => registry.rollback(ActiveRole::Policy).await.map(drop),
        Operation::Prune { keep, leased } => registry.prune(keep, &[ids[&leased].clone()]).await.map(drop),
        Operation::Hold(n) => registry.hold(&ids[&n], &["because".into()]).await,
        Operation::Reopen => {
            fixture.registry = fixture.reopen().await;
            Ok(())
        }
    };
    assert!(result.as_ref().err().is_none_or(|error| !unexpected(error)), "{result:?}");
    result.is_ok()
}

async fn check(fixture: &Fixture, ids: &BTreeMap<usize, GenerationId>, oracle: &Oracle) {
    let name = |n: Option<usize>| n.map_or_else(base_id, |n| ids[&n].clone());
    let pointer = fixture.registry.pointer(ActiveRole::Policy).await.unwrap().unwrap();
    assert_eq!((pointer.generation, pointer.previous), (name(oracle.active), oracle.previous.map(name)));
    let filter = GenerationFilter { kind: Some(GenerationKind::Policy), state: None };
    let rows = fixture.registry.list(filter, &Paging { before: None, limit: 100 }).await.unwrap().data;
    let found: BTreeMap<GenerationId, (GenerationState, bool)> = rows
        .into_iter()
        .map(|Generation { manifest, state, pruned, .. }| (manifest.id, (state, pruned.is_none())))
        .collect();
    let wanted = oracle.known.iter().map(|(n, known)| (ids[n].clone(), *known)).collect();
    assert_eq!(found, wanted);
    let mut there: Vec<_> = found.iter().filter(|(_, known)| known.1).map(|(id, _)| id.to_string()).collect();
    there.sort();
    assert_eq!(fixture.entries(), there);
    for id in there {
        fixture.registry.verify(&GenerationId::from_wire(id)).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_operations_leaves_what_it_should(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let elsewhere = Fixture::new().await;
            let mut ids = BTreeMap::new();
            for n in 0..CONTENTS {
                ids.insert(n, elsewhere.publish(&n.to_string(), about(n as i64)).await.id);
            }
            let (mut fixture, mut oracle) = (Fixture::new().await, Oracle::default());
            for operation in &operations {
                assert_eq!(apply(&mut fixture, &ids, operation).await, oracle.apply(operation), "{operation:?}");
                check(&fixture, &ids, &oracle).await;
            }
        });
    }
}
