//! How is a document's text shown to people? As HTML that can do nothing but look like text.

use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use pulldown_cmark::{Options, Parser, html};

use crate::retrieval::Format;

/// No scripts, styles, forms or frames (the default); no images either, which would tell another server who reads what;
/// no relative links, which would lead into this server.
static SAFE: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::default();
    builder
        .rm_tags(["img"])
        .url_relative(UrlRelative::Deny)
        .url_schemes(["http", "https", "mailto"].into())
        .link_rel(Some("noopener noreferrer"));
    builder
});

/// Sanitised HTML of a text.
pub(super) fn to_html(text: &str, format: Format) -> String {
    match format {
        Format::Markdown => {
            let options = Options::ENABLE_TABLES
                | Options::ENABLE_STRIKETHROUGH
                | Options::ENABLE_TASKLISTS
                | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
            let mut raw = String::with_capacity(text.len() * 2);
            html::push_html(&mut raw, Parser::new_ext(text, options));
            SAFE.clean(&raw).to_string()
        }
        Format::Html => SAFE.clean(text).to_string(),
        Format::Text => paragraphs(text),
    }
}

fn paragraphs(text: &str) -> String {
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let lines: Vec<_> =
                block.lines().map(|line| ammonia::clean_text(line).replace("&#32;", " ")).collect();
            format!("<p>{}</p>\n", lines.join("<br>"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_looks_like_itself() {
        let html = to_html(
            "---\ntitle: x\n---\n# Boston\n\n| a | b |\n|---|---|\n| 1 | **2** |\n",
            Format::Markdown,
        );
        assert!(html.contains("<h1>Boston</h1>") && html.contains("<strong>2</strong>"), "{html}");
        assert!(!html.contains("title"), "{html}");
    }

    #[test]
    fn nothing_in_a_document_can_act() {
        let attack = "<script>alert(1)</script><img src=x onerror=alert(1)><a href=\"javascript:alert(1)\">a</a>\
                      <iframe src=//x></iframe><form action=//x><input></form><p style=\"x\" onclick=\"x\">b</p>";
        for format in [Format::Markdown, Format::Html] {
            let html = to_html(attack, format);
            for bad in [
                "<script",
                "<img",
                "javascript:",
                "<iframe",
                "<form",
                "<input",
                "onclick",
                "onerror",
                "style",
            ] {
                assert!(!html.contains(bad), "{format:?}: {bad} in {html}");
            }
        }
        assert!(!to_html(attack, Format::Text).contains("<script"));
        assert!(
            !to_html("[a](javascript:alert(1)) ![i](https://x.example/i.png)", Format::Markdown)
                .contains("script")
        );
    }

    #[test]
    fn plain_text_keeps_its_lines() {
        assert_eq!(to_html("a b\nc\n\n<d>", Format::Text), "<p>a b<br>c</p>\n<p>&lt;d&gt;</p>\n");
    }
}
