//! What does a Markdown page say?

use std::sync::LazyLock;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::html;
use super::outline::Outline;
use super::table::Table;

/// The headings and the plain text of a page without front matter.
pub(super) fn outline(text: &str) -> Outline {
    let text = without_template_tags(text);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_DEFINITION_LIST;
    let mut reader = Reader::default();
    for event in Parser::new_ext(&text, options) {
        reader.event(event);
    }
    reader.flush();
    reader.outline
}

/// Removes Liquid tags and attribute lists (`{% … %}`, `{{ … }}`, `{: … }`) outside fenced code: site generators
/// replace them, readers never see them.
fn without_template_tags(text: &str) -> String {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?s)\{%.*?%\}|\{\{.*?\}\}|\{:[^}\n]*\}").ok());
    let Some(tag) = &*TAG else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut prose = String::new();
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let marker = ["```", "~~~"].into_iter().find(|marker| line.trim_start().starts_with(marker));
        match (fence, marker) {
            (None, Some(marker)) => {
                out.push_str(&tag.replace_all(&std::mem::take(&mut prose), ""));
                out.push_str(line);
                fence = Some(marker);
            }
            (None, None) => prose.push_str(line),
            (Some(open), marker) => {
                out.push_str(line);
                if marker == Some(open) {
                    fence = None;
                }
            }
        }
    }
    out.push_str(&tag.replace_all(&prose, ""));
    out
}

#[derive(Default)]
struct Reader {
    outline: Outline,
    /// The block being read.
    text: String,
    /// Open lists, with the next number of the ordered ones.
    lists: Vec<Option<u64>>,
    /// Open block quotes, footnotes and definitions: their paragraphs are one block.
    containers: usize,
    table: Option<Table>,
    html: Option<String>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.text.push_str(&text);
            }
            Event::Html(text) => match &mut self.html {
                Some(html) => html.push_str(&text),
                None => self.text.push_str(&html::inline_text(&text)),
            },
            // The tag alone; its content comes as text.
            Event::InlineHtml(tag) if tag.starts_with("<br") => self.text.push('\n'),
            Event::SoftBreak => self.text.push(' '),
            Event::HardBreak => self.text.push('\n'),
            Event::Rule => self.flush(),
            Event::InlineHtml(_) | Event::FootnoteReference(_) | Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { .. } | Tag::CodeBlock(_) if self.top_level() => self.flush(),
            Tag::List(first) => {
                if self.top_level() {
                    self.flush();
                }
                self.lists.push(*first);
            }
            Tag::Item => self.item(),
            Tag::BlockQuote(_) | Tag::FootnoteDefinition(_) | Tag::DefinitionListDefinition => {
                self.new_line();
                self.containers += 1;
            }
            Tag::Table(_) => {
                self.flush();
                self.table = Some(Table::default());
            }
            Tag::HtmlBlock => self.html = Some(String::new()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = std::mem::take(&mut self.text);
                self.outline.heading(level as u8, &text);
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.end_block();
            }
            TagEnd::BlockQuote(_) | TagEnd::FootnoteDefinition | TagEnd::DefinitionListDefinition => {
                self.containers = self.containers.saturating_sub(1);
                self.end_block();
            }
            TagEnd::Paragraph | TagEnd::CodeBlock | TagEnd::DefinitionListTitle | TagEnd::Item => {
                self.end_block();
            }
            TagEnd::TableCell => {
                let text = std::mem::take(&mut self.text);
                if let Some(table) = &mut self.table {
                    table.cell(&text);
                }
            }
            TagEnd::TableHead => {
                if let Some(table) = &mut self.table {
                    table.end_header();
                }
            }
            TagEnd::TableRow => {
                if let Some(table) = &mut self.table {
                    table.end_row();
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.outline.block(table.finish());
                }
            }
            TagEnd::HtmlBlock => {
                if let Some(html) = self.html.take() {
                    self.text.push_str(&html::inline_text(&html));
                    self.end_block();
                }
            }
            _ => {}
        }
    }

    fn top_level(&self) -> bool {
        self.lists.is_empty() && self.containers == 0
    }

    fn item(&mut self) {
        self.new_line();
        let depth = self.lists.len().saturating_sub(1);
        self.text.push_str(&"  ".repeat(depth.min(8)));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.text.push_str(&format!("{number}. "));
                *number += 1;
            }
            _ => self.text.push_str("- "),
        }
    }

    /// Ends a block, or a line of the list or quotation around it.
    fn end_block(&mut self) {
        if self.top_level() {
            self.flush();
        } else {
            self.new_line();
        }
    }

    fn new_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn flush(&mut self) {
        self.outline.block(std::mem::take(&mut self.text));
    }
}
