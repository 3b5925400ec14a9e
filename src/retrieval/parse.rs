//! What does a document say, as plain text under headings?

mod front_matter;
mod html;
mod markdown;
mod outline;
mod table;

use std::collections::BTreeMap;

use super::{Document, Format, RetrievalError};
use crate::domain::Groups;

pub(super) use front_matter::group_names;
pub(super) use outline::Section;

/// A document's text without its markup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parsed {
    /// Its title.
    pub title: String,
    /// Who may see it, where the document itself says so.
    pub groups: Option<Groups>,
    /// What else its front matter says.
    pub metadata: BTreeMap<String, String>,
    /// Its text, in order.
    pub sections: Vec<Section>,
}

/// Reads a document's source.
///
/// # Errors
/// When its front matter can not be read: then nobody knows who may see the document.
pub(super) fn parse(document: &Document) -> Result<Parsed, RetrievalError> {
    let malformed =
        |problem: String| RetrievalError::Malformed { document: document.id.to_string(), problem };
    let text = document.text.strip_prefix('\u{feff}').unwrap_or(&document.text);
    let (front, outline) = match document.format {
        Format::Markdown => {
            let (front, body) = front_matter::split(text).map_err(malformed)?;
            (front, markdown::outline(body))
        }
        Format::Html => {
            let (mut front, body) = front_matter::split(text).map_err(malformed)?;
            let page = html::page(body);
            if let Some(groups) = page.groups {
                front.groups = Some(group_names(&groups).map_err(malformed)?);
            }
            front.title = front.title.or(page.title);
            (front, page.outline)
        }
        Format::Text => {
            let (front, body) = front_matter::split(text).map_err(malformed)?;
            (front, text_outline(body))
        }
    };
    let title = document
        .title
        .clone()
        .or(front.title)
        .or_else(|| outline.first_heading().map(str::to_owned))
        .filter(|title| !title.trim().is_empty())
        .unwrap_or_else(|| name_of(document.id.as_str()));
    let title = outline::one_line(&title);
    let sections = outline.into_sections(&title);
    Ok(Parsed { title, groups: front.groups, metadata: front.metadata, sections })
}

/// Paragraphs are separated by empty lines; the lines of one are kept, as they may be a list.
fn text_outline(text: &str) -> outline::Outline {
    let mut outline = outline::Outline::default();
    let mut paragraph = String::new();
    for line in text.lines().map(str::trim).chain(std::iter::once("")) {
        if line.is_empty() {
            outline.block(std::mem::take(&mut paragraph));
        } else {
            paragraph.push_str(line);
            paragraph.push('\n');
        }
    }
    outline
}

/// The last part of an id without its extension: `handbook:offices:boston.md` gives `boston`.
fn name_of(id: &str) -> String {
    let last = id.rsplit(':').next().unwrap_or(id);
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    if stem.is_empty() { last.to_owned() } else { stem.replace(['-', '_'], " ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DocumentId;

    pub(super) fn document(format: Format, text: &str) -> Document {
        Document {
            id: DocumentId::parse("docs:some-page.md").unwrap(),
            title: None,
            text: text.to_owned(),
            format,
            url: None,
            groups: None,
            metadata: BTreeMap::new(),
        }
    }

    fn read(format: Format, text: &str) -> Parsed {
        parse(&document(format, text)).unwrap()
    }

    fn lines(parsed: &Parsed) -> Vec<String> {
        parsed.sections.iter().map(|s| format!("{} | {}", s.path.join(" > "), s.blocks.join(" ¶ "))).collect()
    }

    #[test]
    fn a_text_may_name_its_groups_too() {
        let page = read(Format::Text, "---\ntitle: Pay\ngroups: [hr]\n---\nBands start at 7.\n\nAsk first.");
        assert_eq!((page.title.as_str(), page.groups), ("Pay", Some(Groups::from(["hr".to_owned()]))));
        assert_eq!(page.sections[0].blocks[0].trim(), "Bands start at 7.");
        // A line of dashes is a line of dashes.
        let dashes = read(Format::Text, "---\nOn one line.\n---\nOn another.");
        assert_eq!(dashes.groups, None);
        assert!(dashes.sections[0].blocks.concat().contains("On one line."));
    }

    #[test]
    fn markdown_becomes_plain_text_under_headings() {
        let page = read(
            Format::Markdown,
            "---\ntitle: Offices\nowner: Ada\ngroups: [hr, legal]\n---\n# Offices\n\nWe have *two*.\n\n## Boston\n\n\
             {% include map.html %}See [the map](../map.md) in `room 3`.<!-- secret -->\n\n\
             - one\n- two\n  1. inner\n\n### Shifts\n\n| Shift | Hours |\n|---|---|\n| Early | 6 to 14 |\n| Late | |\n\n\
             ```\nlet a = {{ 1 }};\n```\n",
        );
        assert_eq!(page.title, "Offices");
        assert_eq!(page.groups, Some(Groups::from(["hr".to_owned(), "legal".to_owned()])));
        assert_eq!(page.metadata.get("owner").map(String::as_str), Some("Ada"));
        assert_eq!(
            lines(&page),
            [
                " | We have two.",
                "Boston | See the map in room 3. ¶ - one\n- two\n  1. inner",
                "Boston > Shifts | Shift: Early; Hours: 6 to 14\nShift: Late ¶ let a = {{ 1 }};",
            ]
        );
    }

    #[test]
    fn html_leaves_out_what_is_not_content() {
        let page = read(
            Format::Html,
            "<html><head><title>Leave</title><style>p{}</style></head><body><nav>Menu</nav><h1>Leave</h1>\
             <p>Take\n 25 <b>days</b>.</p><script>alert(1)</script><h2>Sick &amp; tired</h2><ul><li>call</li>\
             <li>rest</li></ul><table><tr><th>Who</th><th>Days</th></tr><tr><td>All</td><td>25</td></tr></table>\
             <footer>Imprint</footer></body></html>",
        );
        assert_eq!(page.title, "Leave");
        assert_eq!(lines(&page), [" | Take 25 days.", "Sick & tired | - call\n- rest ¶ Who: All; Days: 25"]);
    }

    #[test]
    fn html_names_its_groups_in_a_meta_tag() {
        let page = read(Format::Html, "<meta name=groups content='hr, legal'><p>x</p>");
        assert_eq!(page.groups, Some(Groups::from(["hr".to_owned(), "legal".to_owned()])));
    }

    #[test]
    fn plain_text_is_split_at_empty_lines() {
        let page = read(Format::Text, "one\ntwo\n\n\nthree");
        assert_eq!(page.title, "some page");
        assert_eq!(lines(&page), [" | one\ntwo ¶ three"]);
    }

    #[test]
    fn groups_that_cannot_be_read_fail_by_name() {
        for front in [
            "groups: 3",
            "groups: []",
            "groups: [a, [b]]",
            "groups:",
            "groups: ''",
            "groups: [a, '']",
            "groups: {a: b}",
            "Groups: [x]\ngroups: [y]",
            "title: [unclosed\ngroups: hr",
            "a\ngroups: hr",
        ] {
            let error = parse(&document(Format::Markdown, &format!("---\n{front}\n---\ntext"))).unwrap_err();
            assert!(
                error.to_string().contains("groups") || error.to_string().contains("front matter"),
                "{front}: {error}"
            );
        }
        // The closing line is missing.
        let error = parse(&document(Format::Markdown, "---\ngroups: hr\n\ntext")).unwrap_err();
        assert!(error.to_string().contains("front matter"), "{error}");
    }

    #[test]
    fn groups_are_found_behind_blank_lines_and_in_any_case() {
        for text in [
            "\n\n---\ngroups: hr\n---\nx",
            "---\r\nGROUPS: hr\r\n---\r\nx",
            "\u{feff}---\ngroups:\n- hr\n...\nx",
        ] {
            let page = read(Format::Markdown, text);
            assert_eq!(page.groups, Some(Groups::from(["hr".to_owned()])), "{text:?}");
        }
    }

    #[test]
    fn a_thematic_break_is_no_front_matter() {
        let page = read(Format::Markdown, "---\n\nSome text.\n\n---\n\nMore.");
        assert_eq!(page.groups, None);
        assert!(lines(&page).concat().contains("Some text."));
    }

    #[test]
    fn deep_nesting_does_not_overflow() {
        let html = "<div>".repeat(20_000) + "deep";
        assert!(lines(&read(Format::Html, &html)).concat().contains("deep"));
        let markdown = "> ".repeat(5_000) + "deep";
        read(Format::Markdown, &markdown);
    }
}
