//! Which passages is an answer to a question given? Every call blocks.

use super::encoder::Token;
use super::evidence::Features;
use super::interaction::{self, Asked, reorder};
use super::library::{Library, text_to_encode};
use super::search::{Question, rank};
use super::{Found, RetrievalError, SearchQuery};
use crate::domain::Passage;

impl Library {
    /// The passages that an answer is given: of those that [`Library::search`] finds, the best one and what scores about
    /// as well, `retrieval.margin`. A small model is led astray by a passage that only speaks of something near.
    ///
    /// # Errors
    /// As [`Library::search`].
    pub fn ground(&self, query: &SearchQuery<'_>) -> Result<Found, RetrievalError> {
        let mut found = self.search(query)?;
        let best = found.passages.first().map_or(0.0, |passage| passage.score);
        // Scores of words alone do not tell how far behind a passage is: its words may be other ones.
        if self.meaning().is_some() && self.config.margin < 1.0 {
            found.passages.retain(|passage| passage.score >= best - self.config.margin);
        }
        Ok(found)
    }

    /// Finds the passages that speak about a question.
    ///
    /// # Errors
    /// When the index or the sentence model fails.
    pub fn search(&self, query: &SearchQuery<'_>) -> Result<Found, RetrievalError> {
        self.search_with_features(query).map(|(found, _)| found)
    }

    /// As [`Library::search`], with what the evidence was estimated from.
    ///
    /// # Errors
    /// As [`Library::search`].
    pub fn search_with_features(
        &self,
        query: &SearchQuery<'_>,
    ) -> Result<(Found, Option<Features>), RetrievalError> {
        let (snapshot, fields) = (self.store.snapshot(), &self.store.fields);
        let encoder = self.meaning().filter(|_| !query.text.trim().is_empty());
        let reading = encoder.map(|encoder| encoder.read(query.text)).transpose()?;
        let vector = reading.as_ref().map(|reading| reading.vector.as_slice());
        let question = Question::new(query.text, &snapshot.languages, vector);
        let asked = (query.groups, query.k.max(interaction::PASSAGES));
        let ranking = rank((&snapshot, fields), &question, asked, &self.config)?;
        let mut passages = ranking
            .hits
            .iter()
            .map(|hit| self.read_passage(&snapshot, hit.address, hit.score))
            .collect::<Result<Vec<_>, _>>()?;
        let features = match encoder.zip(reading.as_ref()) {
            Some((encoder, reading)) => {
                let rarity = |token: &Token| question.rarity_at(token.range.start, &ranking);
                let asked = Asked { reading, rarity: reading.tokens.iter().map(rarity).collect() };
                let text =
                    |passage: &Passage| text_to_encode(&passage.title, &passage.heading_path, &passage.text);
                let texts: Vec<String> = passages.iter().take(interaction::PASSAGES).map(text).collect();
                let interactions = asked.interactions(&texts, (encoder, &self.memory))?;
                reorder(&mut passages, &interactions, self.config.interaction_weight);
                Features::of_meaning(&interactions, asked.length())
            }
            None => Features::of_words(&ranking),
        };
        passages.truncate(query.k);
        let evidence = features.map_or(0.0, |features| features.likelihood());
        Ok((Found { passages, evidence, index_version: snapshot.version() }, features))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::encoder::SentenceEncoder;
    use super::super::encoder::tests::model;
    use super::super::library::tests::document;
    use super::*;
    use crate::config::RetrievalConfig;
    use crate::domain::Groups;

    /// Two offices that are alike, and a page about something else.
    const PAGES: [(&str, &str); 3] = [
        (
            "boston",
            "# Boston\n\n## Rooms\n\nThe quiet room is room 316.\n\n## Lunch\n\nLunch costs 6 dollars.",
        ),
        ("dublin", "# Dublin\n\n## Rooms\n\nThe quiet room is room 12.\n\n## Lunch\n\nLunch costs 8 euros."),
        ("laptops", "# Laptops\n\n## Loss\n\nTell the IT desk at once when your laptop was stolen or lost."),
    ];

    fn library(config: &RetrievalConfig, folder: &std::path::Path) -> Option<Library> {
        let encoder = Arc::new(SentenceEncoder::load(&model()?).unwrap());
        let library = Library::open(folder, config, Some(encoder)).unwrap();
        library.put_all(&PAGES.map(|(id, text)| document(id, text))).unwrap();
        Some(library)
    }

    fn pages(found: &Found) -> Vec<&str> {
        found.passages.iter().map(|passage| passage.document_id.as_str()).collect()
    }

    #[test]
    fn an_answer_is_given_what_is_about_as_good_as_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let config = RetrievalConfig { passage_tokens: 32, ..RetrievalConfig::default() };
        let Some(library) = library(&config, folder.path()) else { return };
        let query = |text| SearchQuery { text, groups: None, k: 2 };
        let stolen = library.ground(&query("Someone took my notebook computer, whom do I call?")).unwrap();
        assert_eq!(pages(&stolen), ["laptops"], "{:?}", stolen.passages);
        let all = library.search(&query("Someone took my notebook computer, whom do I call?")).unwrap();
        assert_eq!(all.passages.len(), 2);
        assert_eq!(all.passages[0], stolen.passages[0]);
        // Nothing says which office is meant.
        let rooms = library.ground(&query("Which one is the quiet room?")).unwrap();
        assert_eq!(rooms.passages.len(), 2, "{:?}", rooms.passages);
        assert!(all.passages.iter().chain(&rooms.passages).all(|passage| passage.score <= 1.0));
    }

    #[test]
    fn what_is_remembered_of_passages_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = library(&RetrievalConfig::default(), folder.path()) else { return };
        for text in ["What does lunch cost in Dublin?", "lunch", "", "a question about stock options"] {
            let ask = || library.search_with_features(&SearchQuery { text, groups: None, k: 4 }).unwrap();
            let ((first, features), (again, features_again)) = (ask(), ask());
            assert_eq!((first.passages, features), (again.passages, features_again), "{text:?}");
        }
    }

    #[test]
    fn what_others_may_not_see_changes_nothing_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = library(&RetrievalConfig::default(), folder.path()) else { return };
        let (outsiders, members) = (Groups::new(), Groups::from(["board".to_owned()]));
        let ask = |groups| {
            let query =
                SearchQuery { text: "Where is the quiet room in Boston?", groups: Some(groups), k: 4 };
            library.search_with_features(&query).unwrap()
        };
        let (before, features) = ask(&outsiders);
        let mut secret = document("secret", "# Boston\n\nThe board's quiet room in Boston is room 999.");
        secret.groups = Some(members.clone());
        library.put(&secret).unwrap();
        assert!(pages(&ask(&members).0).contains(&"secret"));
        let (after, features_after) = ask(&outsiders);
        assert_eq!((before.passages, features), (after.passages, features_after));
    }

    #[test]
    fn evidence_is_higher_for_what_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = library(&RetrievalConfig::default(), folder.path()) else { return };
        let evidence = |text| library.search(&SearchQuery { text, groups: None, k: 2 }).unwrap().evidence;
        let (asked, other) = ("How much is lunch in Boston?", "How many stock options do employees get?");
        assert!(evidence(asked) > evidence(other) + 0.2, "{} {}", evidence(asked), evidence(other));
    }
}
