//! Who may see what?

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Names of groups, sorted.
pub type Groups = BTreeSet<String>;

/// What a person may do. Ordered: each role may do what the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Chat, compare, give feedback, search.
    Employee,
    /// Also documents, demonstrations, import, export.
    Curator,
    /// Everything.
    Operator,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Employee => "employee",
            Self::Curator => "curator",
            Self::Operator => "operator",
        })
    }
}

/// Who asks, as established by the access mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The stable name of the person ("local" in mode `open`).
    pub user: String,
    /// The groups the person is in.
    pub groups: Groups,
    /// What the person may do.
    pub role: Role,
    /// May see every document whatever its groups: mode `open`, where there is one person, only.
    pub sees_everything: bool,
}

impl Identity {
    /// The groups to search with: `None` means every document.
    #[must_use]
    pub fn visible_groups(&self) -> Option<&Groups> {
        (!self.sees_everything).then_some(&self.groups)
    }

    /// The same person with fewer groups: those asked for which the person has. In mode `open` exactly those asked
    /// for, so that an operator can try what a group would see.
    #[must_use]
    pub fn narrowed(&self, wanted: &Groups) -> Self {
        let groups = if self.sees_everything {
            wanted.clone()
        } else {
            self.groups.intersection(wanted).cloned().collect()
        };
        Self { groups, sees_everything: false, ..self.clone() }
    }
}

/// What one must be a member of to see something grounded in several documents: for each document, at least one of
/// its groups. Empty means everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct AccessLabel(Vec<BTreeSet<String>>);

impl AccessLabel {
    /// The label of something grounded in documents with these groups; a document without groups adds nothing.
    pub fn of<'a>(documents: impl IntoIterator<Item = &'a Groups>) -> Self {
        let mut clauses: Vec<_> = documents.into_iter().filter(|g| !g.is_empty()).cloned().collect();
        clauses.sort();
        clauses.dedup();
        Self(clauses)
    }

    /// The sets of groups of which one must be in at least one each.
    #[must_use]
    pub fn clauses(&self) -> &[Groups] {
        &self.0
    }

    /// Whether everybody may see it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a member of `groups` may see it; `None` stands for somebody who sees every document.
    #[must_use]
    pub fn permits(&self, groups: Option<&Groups>) -> bool {
        groups.is_none_or(|groups| self.0.iter().all(|clause| !clause.is_disjoint(groups)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Groups {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_label_needs_one_group_of_every_document() {
        let label = AccessLabel::of([&groups(&["hr", "legal"]), &groups(&[]), &groups(&["finance"])]);
        assert!(!label.is_public());
        assert!(label.permits(Some(&groups(&["legal", "finance"]))));
        assert!(!label.permits(Some(&groups(&["hr", "legal"]))));
        assert!(!label.permits(Some(&groups(&[]))));
        assert!(label.permits(None));
        assert!(AccessLabel::of([&groups(&[])]).permits(Some(&groups(&[]))));
    }

    #[test]
    fn narrowing_never_adds_a_group() {
        let me = Identity {
            user: "ada".into(),
            groups: groups(&["hr"]),
            role: Role::Employee,
            sees_everything: false,
        };
        assert_eq!(me.narrowed(&groups(&["hr", "finance"])).groups, groups(&["hr"]));
        assert_eq!(me.narrowed(&groups(&["finance"])).groups, groups(&[]));
    }
}
