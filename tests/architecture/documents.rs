//! Do the documents tell the truth about the files they name?

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::files::{root, text, texts};

fn markdown() -> Vec<(PathBuf, String)> {
    texts("")
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// `a/b/../c` without its detours.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
        normal
    })
}

/// The anchors of a page's headings, as code hosts make them: lower case, spaces to dashes, punctuation dropped.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(markdown, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
                let title = heading.take().unwrap_or_default().to_lowercase();
                anchors.insert(title.chars().filter(kept).collect::<String>().replace(' ', "-"));
            }
            _ => {}
        }
    }
    anchors
}

fn links(markdown: &str) -> Vec<String> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.into_string())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for (path, source) in markdown() {
        for link in links(&source) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { normal(&path.with_file_name(file)) };
            let there = root().join(&target).exists();
            let anchored =
                anchor.is_empty() || (there && anchors(&text(&target.to_string_lossy())).contains(anchor));
            if !there || !anchored {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn sources_that_documents_name_exist() {
    let named = Regex::new(r"`((?:src|tests|benches|deploy|models|index|handbook)/[\w./-]*)`").unwrap();
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    let mut gone = Vec::new();
    for document in documents {
        for found in named.captures_iter(&text(document)) {
            if !root().join(&found[1]).exists() {
                gone.push(format!("{document}: {}", &found[1]));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
}

#[test]
fn invariants_name_the_tests_that_hold_them() {
    let tests: String =
        ["src", "tests"].iter().flat_map(|folder| texts(folder)).map(|(_, text)| text).collect();
    let named = Regex::new(r"held by ((?:`\w+`(?:, | and )?)+)").unwrap();
    let name = Regex::new(r"`(\w+)`").unwrap();
    let mut count = 0;
    for held in named.captures_iter(&text("ARCHITECTURE.md")) {
        for test in name.captures_iter(&held[1]) {
            count += 1;
            assert!(
                tests.contains(&format!("fn {}(", &test[1])),
                "ARCHITECTURE.md names {}, no such test",
                &test[1]
            );
        }
    }
    assert!(count > 0, "ARCHITECTURE.md names no test");
}

#[test]
fn no_package_registry_is_named() {
    // In two parts, so that this file passes its own test.
    let hosts = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted"),
        concat!("npmjs", "."),
        concat!("ghcr", ".io"),
        concat!("quay", ".io"),
        concat!("docker", ".io"),
    ];
    for (path, text) in texts("") {
        // Cargo writes where each dependency came from.
        if path == Path::new("Cargo.lock") {
            continue;
        }
        for host in hosts {
            assert!(!text.contains(host), "{} names {host}", path.display());
        }
    }
}

#[test]
fn anchors_are_made_as_code_hosts_make_them() {
    let made = anchors("# First five minutes\n\n## `make run`, then?\n");
    assert_eq!(made, BTreeSet::from(["first-five-minutes".to_owned(), "make-run-then".to_owned()]));
}
