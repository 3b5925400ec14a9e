//! Does the library keep its promises: durable when acknowledged, invisible to those outside, never in panic?

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::retrieval::{Format, SearchQuery};

/// Where the child of the kill test keeps its index.
const CHILD_INDEX: &str = "ATTUNE_TEST_CHILD_INDEX";

fn library(dir: &Path) -> Library {
    Library::open(dir, &RetrievalConfig::default(), None).unwrap()
}

pub(in crate::retrieval) fn document(id: &str, text: &str) -> Document {
    Document {
        id: DocumentId::parse(id).unwrap(),
        title: None,
        text: text.to_owned(),
        format: Format::Markdown,
        url: None,
        groups: None,
        metadata: BTreeMap::new(),
    }
}

fn names(groups: &[&str]) -> Groups {
    groups.iter().map(|name| (*name).to_owned()).collect()
}

fn found(library: &Library, text: &str, groups: Option<&Groups>) -> Vec<Passage> {
    library.search(&SearchQuery { text, groups, k: 50 }).unwrap().passages
}

#[test]
fn a_put_document_is_found_changed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let empty = library.index_version();
    assert_eq!(library.put(&document("a", "# Leave\n\n25 days")).unwrap(), PutOutcome::Created);
    let version = library.index_version();
    assert_ne!(version, empty);
    assert_eq!(library.put(&document("a", "# Leave\n\n25 days")).unwrap(), PutOutcome::Unchanged);
    assert_eq!(library.index_version(), version);
    let passage = found(&library, "leave", None).remove(0);
    assert_eq!((passage.title.as_str(), passage.text.as_str()), ("Leave", "25 days"));
    assert_eq!(library.passage(&passage.passage_id, None).unwrap().unwrap().text, "25 days");
    assert_eq!(library.put(&document("a", "# Leave\n\n30 days")).unwrap(), PutOutcome::Updated);
    assert_eq!(library.passage(&passage.passage_id, None).unwrap(), None);
    assert_eq!(
        library.document(&DocumentId::parse("a").unwrap(), None).unwrap().unwrap().text.unwrap(),
        "# Leave\n\n30 days"
    );
    assert!(library.remove(&DocumentId::parse("a").unwrap()).unwrap());
    assert!(!library.remove(&DocumentId::parse("a").unwrap()).unwrap());
    assert!(found(&library, "leave days", None).is_empty());
    // Equal content gives an equal version.
    assert_eq!(library.index_version(), empty);
    let stats = library.stats().unwrap();
    assert_eq!((stats.documents, stats.passages), (0, 0));
}

#[test]
fn an_index_opens_again_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let version = {
        let library = library(dir.path());
        library.put(&document("a", "apples")).unwrap();
        library.index_version()
    };
    let library = library(dir.path());
    assert_eq!(library.index_version(), version);
    assert_eq!(found(&library, "apple", None).len(), 1);
}

#[test]
fn a_damaged_index_is_named() {
    let dir = tempfile::tempdir().unwrap();
    library(dir.path()).put(&document("a", "apples")).unwrap();
    std::fs::write(dir.path().join("meta.json"), "{").unwrap();
    let error = Library::open(dir.path(), &RetrievalConfig::default(), None).unwrap_err();
    assert!(matches!(error, RetrievalError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn pages_of_documents_meet_every_document_once() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let documents: Vec<Document> = (0..10).map(|i| document(&format!("d{i}"), "text")).collect();
    library.put_all(&documents[..7]).unwrap();
    library.put_all(&documents[7..]).unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = library.documents(None, after.as_deref(), 3).unwrap();
        seen.extend(page.into_iter().map(|document| document.id.to_string()));
        if next.is_none() {
            break;
        }
        after = next;
    }
    assert_eq!(seen.len(), 10);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 10);
    assert!(matches!(library.documents(None, Some("x"), 3), Err(RetrievalError::Cursor)));
}

#[test]
fn a_word_of_another_language_is_found_by_its_stem() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let german = "Alle Angestellten haben Anspruch auf dreißig Urlaubstage im Jahr. Der Antrag wird im Portal gestellt und \
                  von der Führungskraft genehmigt. Nicht genommene Tage verfallen am 31. März des folgenden Jahres, außer \
                  wenn dringende betriebliche Gründe vorliegen.";
    library.put(&document("de", german)).unwrap();
    library.put(&document("en", "Employees have vacation days.")).unwrap();
    assert_eq!(found(&library, "Urlaubstag", None)[0].document_id.as_str(), "de");
    assert_eq!(found(&library, "employee", None)[0].document_id.as_str(), "en");
}

#[test]
fn a_restricted_document_does_not_even_change_scores() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    library.put(&document("a", "apples and pears")).unwrap();
    library.put(&document("b", "pears and plums")).unwrap();
    let nobody = Groups::new();
    let before = found(&library, "apples pears", Some(&nobody));
    library.put(&document("c", "---\ngroups: hr\n---\napples apples apples and a lot more")).unwrap();
    assert_eq!(found(&library, "apples pears", Some(&nobody)), before);
    assert_eq!(found(&library, "apples pears", Some(&names(&["hr"]))).len(), 3);
}

/// Groups of a document and where they are written.
fn restricted() -> impl Strategy<Value = (Vec<&'static str>, bool)> {
    let name = prop::sample::select(vec!["hr", "legal", "finance", "public", "group:hr"]);
    (prop::collection::vec(name, 0..3), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_person_outside_the_groups_never_sees_a_restricted_passage(
        documents in prop::collection::vec(restricted(), 1..8),
        asker in prop::collection::btree_set(prop::sample::select(vec!["hr", "legal", "finance", "public", "group:hr"]), 0..3),
        updates in prop::collection::vec((0_usize..8, restricted()), 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path());
        let asker: Groups = asker.into_iter().map(str::to_owned).collect();
        let mut now: BTreeMap<String, Groups> = BTreeMap::new();
        let changes = documents.into_iter().enumerate().chain(updates);
        for (i, (groups, in_front_matter)) in changes {
            let id = format!("d{i}");
            let list = groups.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let front = if in_front_matter && !groups.is_empty() { format!("---\ngroups: [{list}]\n---\n") } else { String::new() };
            let mut document = document(&id, &format!("{front}# Shared title\n\nshared words and own{i}"));
            document.groups = (!in_front_matter).then(|| names(&groups));
            library.put(&document).unwrap();
            now.insert(id, names(&groups));
        }
        let may = |id: &str| now[id].is_empty() || !now[id].is_disjoint(&asker);
        let visible: HashSet<&str> = now.keys().map(String::as_str).filter(|id| may(id)).collect();
        let passages = found(&library, "shared words title", Some(&asker));
        let seen: HashSet<&str> = passages.iter().map(|passage| passage.document_id.as_str()).collect();
        prop_assert_eq!(&seen, &visible);
        let (listed, _) = library.documents(Some(&asker), None, 100).unwrap();
        let listed: HashSet<&str> = listed.iter().map(|document| document.id.as_str()).collect();
        prop_assert_eq!(&listed, &visible);
        let every = found(&library, "shared words title", None);
        prop_assert_eq!(every.len(), now.len());
        for passage in every {
            let id = passage.document_id.as_str();
            prop_assert_eq!(library.passage(&passage.passage_id, Some(&asker)).unwrap().is_some(), may(id));
            prop_assert_eq!(library.document(&passage.document_id, Some(&asker)).unwrap().is_some(), may(id));
        }
    }
}

#[test]
#[ignore = "runs as a child of the next test, which kills it"]
fn puts_until_it_is_killed() {
    let dir = PathBuf::from(std::env::var_os(CHILD_INDEX).expect("run by the next test only"));
    let library = library(&dir);
    for i in 0.. {
        library.put(&document(&format!("d{}", i % 40), &format!("common word and number{i}"))).unwrap();
        // The parent takes this line as the acknowledgement.
        println!("put {} {i}", i % 40);
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "retrieval::library::tests::puts_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_INDEX, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in lines {
            let mut words = line.split_whitespace().skip_while(|word| *word != "put").skip(1);
            if let (Some(id), Some(number)) = (words.next(), words.next()) {
                acknowledged.insert(format!("d{id}"), number.to_owned());
            }
            if acknowledged.values().any(|number| number.parse::<u32>().unwrap() >= 30 * round) {
                // SIGKILL; lines that are in the pipe already count, too.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= 30, "{acknowledged:?}");
        let library = library(dir.path());
        for (id, number) in &acknowledged {
            let stored =
                library.document(&DocumentId::parse(id).unwrap(), None).unwrap().unwrap().text.unwrap();
            // The put after the last acknowledged one may have been committed as well.
            let kept: u32 = stored.rsplit("number").next().unwrap().parse().unwrap();
            assert!(kept >= number.parse().unwrap(), "{id}: {stored}, acknowledged {number}");
            assert!(
                found(&library, &format!("number{kept}"), None).iter().any(|p| p.document_id.as_str() == id)
            );
        }
    }
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let result = std::panic::catch_unwind(|| fill(dir.path()));
    let unmounted = Command::new("umount").arg("--lazy").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    result.unwrap();
}

fn fill(dir: &Path) {
    let library = library(&dir.join("index"));
    library.put(&document("small", "apples")).unwrap();
    // Random words do not compress.
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:x} ", state >> 20)
    };
    let mut kept = 0;
    let error = loop {
        let text: String = (0..20_000).map(|_| word()).collect();
        match library.put(&document(&format!("large{kept}"), &text)) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the disk has 3 MiB");
    };
    assert!(matches!(error, RetrievalError::Full), "{error:?}");
    assert_eq!(found(&library, "apples", None).len(), 1);
    assert_eq!(library.stats().unwrap().documents, kept + 1);
    drop(library);
    let library = self::library(&dir.join("index"));
    assert_eq!(library.stats().unwrap().documents, kept + 1);
}

#[test]
fn naughty_strings_are_text_like_any_other() {
    let data = std::env::var_os("ATTUNE_EVAL_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    let file = data.join("adversarial/blns/resources/blns.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: {} is not there", file.display());
        return;
    };
    let strings: Vec<String> = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let mut changes = Vec::new();
    for (i, text) in strings.iter().enumerate() {
        let mut document = document(&format!("d{i}"), text);
        document.format = [Format::Markdown, Format::Html, Format::Text][i % 3];
        document.title = Some(text.clone());
        document.groups = Some(names(&[text, "all"]));
        match library.prepare(&document, Origin { source: API, groups: None }) {
            Ok(entries) => changes.push(Change::Put(Box::new(entries))),
            Err(error) => assert!(matches!(error, RetrievalError::Malformed { .. }), "{text:?}: {error}"),
        }
    }
    library.write(changes).unwrap();
    assert!(!found(&library, "test", Some(&names(&["all"]))).is_empty());
    for text in &strings {
        library.search(&SearchQuery { text, groups: None, k: 4 }).unwrap();
        library.passage(text, None).unwrap();
        // Most are no cursors; none is a panic.
        let _ = library.documents(Some(&names(&[text])), Some(text), 2);
    }
}
