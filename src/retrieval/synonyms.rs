//! Which other words may a passage use for what a question asks about?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::analysis::Analyser;

/// The data of the program: `index/synonyms.toml`.
const SOURCE: &str = include_str!("../../index/synonyms.toml");

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    weight: f32,
    groups: BTreeMap<String, Vec<Vec<String>>>,
}

/// One language's lists, stemmed.
#[derive(Debug)]
struct Groups {
    /// Each entry as its terms.
    lists: Vec<Vec<Vec<String>>>,
}

/// What a text is also searched for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expansion {
    /// Terms of which any one is as good as the others.
    pub terms: BTreeSet<String>,
    /// Weight against a word of the question.
    pub weight: f32,
}

static LISTS: LazyLock<(f32, BTreeMap<String, Groups>)> = LazyLock::new(|| {
    // That the file can be read is held by a test.
    let source: Source = toml::from_str(SOURCE).unwrap_or_default();
    let stemmed = |(language, lists): (String, Vec<Vec<String>>)| {
        let mut analyser = Analyser::new(&language);
        let mut list = |list: Vec<String>| list.iter().map(|entry| analyser.terms(entry)).collect();
        let lists = lists.into_iter().map(&mut list).collect();
        (language, Groups { lists })
    };
    (source.weight, source.groups.into_iter().map(stemmed).collect())
});

/// The synonyms of a text, given as its terms in one language. Terms that the text has are left out.
pub(super) fn expansions(language: &str, text: &[String]) -> Vec<Expansion> {
    let (weight, languages) = &*LISTS;
    let mut found = Vec::new();
    for list in languages.get(language).map(|groups| groups.lists.as_slice()).unwrap_or_default() {
        if !list.iter().any(|entry| contains(text, entry)) {
            continue;
        }
        let others = list.iter().filter(|entry| !contains(text, entry));
        let (words, phrases): (Vec<_>, Vec<_>) = others.partition(|entry| entry.len() == 1);
        let new = |term: &&String| !text.contains(term);
        let words: BTreeSet<String> = words.into_iter().flatten().filter(new).cloned().collect();
        // The words of a phrase say less than a word that stands for the whole.
        for phrase in phrases {
            #[expect(clippy::cast_precision_loss, reason = "phrases have a few words")]
            let weight = weight / phrase.len().max(1) as f32;
            let terms = phrase.iter().filter(|term| new(term) && !words.contains(*term));
            found.extend(terms.map(|term| Expansion { terms: BTreeSet::from([term.clone()]), weight }));
        }
        if !words.is_empty() {
            found.push(Expansion { terms: words, weight: *weight });
        }
    }
    found
}

/// Whether the text has the entry's terms next to each other.
fn contains(text: &[String], entry: &[String]) -> bool {
    !entry.is_empty() && text.windows(entry.len()).any(|window| window == entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Expansion> {
        expansions("eng", &Analyser::new("eng").terms(text))
    }

    #[test]
    fn the_file_can_be_read_and_every_entry_has_terms() {
        let source: Source = toml::from_str(SOURCE).unwrap();
        assert!((0.0..=1.0).contains(&source.weight));
        for (language, lists) in &source.groups {
            let mut analyser = Analyser::new(language);
            for entry in lists.iter().flatten() {
                assert!(!analyser.terms(entry).is_empty(), "{entry:?} is only stop words");
            }
            assert!(lists.iter().all(|list| list.len() > 1), "{language}");
        }
    }

    #[test]
    fn another_word_and_the_words_of_a_phrase_are_searched_with_less_weight() {
        let found = of("Where is the HR department?");
        let weight = |term: &str| {
            found.iter().find(|expansion| expansion.terms.contains(term)).map(|expansion| expansion.weight)
        };
        assert_eq!((weight("personnel"), weight("human"), weight("hr")), (Some(0.5), Some(0.25), None));
    }

    #[test]
    fn a_phrase_counts_only_as_a_whole() {
        let has_hr = |text: &str| of(text).iter().any(|expansion| expansion.terms.contains("hr"));
        assert!(has_hr("Do we have a human resources desk?"));
        assert!(!has_hr("Which resources does a human need?"));
    }
}
