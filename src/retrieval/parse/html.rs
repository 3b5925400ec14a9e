//! What does an HTML page say?

use scraper::node::Node;
use scraper::{ElementRef, Html, Selector};

use super::outline::Outline;
use super::table::Table;

/// A page's text and what its head says.
pub(super) struct Page {
    pub title: Option<String>,
    /// `<meta name="groups">`, as written.
    pub groups: Option<String>,
    pub outline: Outline,
}

/// Reads a page: its main element, or else its body without what surrounds the content.
pub(super) fn page(text: &str) -> Page {
    let html = Html::parse_document(text);
    let first =
        |selector: &str| Selector::parse(selector).ok().and_then(|selector| html.select(&selector).next());
    let title =
        first("title").map(|element| element.text().collect::<String>()).filter(|t| !t.trim().is_empty());
    let groups = first("meta[name=groups i]").and_then(|meta| meta.attr("content")).map(str::to_owned);
    let main = ["main", "[role=main]", "article"].into_iter().find_map(first);
    let mut reader = Reader { in_main: main.is_some(), ..Reader::default() };
    reader.read(main.unwrap_or_else(|| html.root_element()));
    Page { title, groups, outline: reader.outline }
}

/// The text of a piece of HTML inside Markdown, one line per block.
pub(super) fn inline_text(text: &str) -> String {
    let html = Html::parse_fragment(text);
    let mut reader = Reader { in_main: true, ..Reader::default() };
    reader.read(html.root_element());
    let blocks = reader.outline.into_sections("");
    blocks
        .iter()
        .flat_map(|section| section.path.last().into_iter().chain(&section.blocks))
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n")
}

#[derive(Default)]
struct Reader {
    outline: Outline,
    text: String,
    /// Inside `<main>` or `<article>` a header belongs to the content.
    in_main: bool,
    lists: usize,
    preformatted: usize,
    /// Open tables; only the outermost becomes rows, inner ones are text of their cell.
    tables: usize,
    table: Option<Table>,
    header_row: bool,
}

impl Reader {
    /// Walks without recursion: pages nest as deep as they like.
    fn read(&mut self, root: ElementRef<'_>) {
        use ego_tree::iter::Edge;
        let mut skipping = 0_usize;
        for edge in root.traverse() {
            match edge {
                Edge::Open(node) => match node.value() {
                    Node::Element(element) if skipping > 0 || self.is_skipped(element.name()) => {
                        skipping += 1;
                    }
                    Node::Element(element) => self.open(element.name()),
                    Node::Text(text) if skipping == 0 => self.add(text),
                    _ => {}
                },
                Edge::Close(node) => {
                    if let Node::Element(element) = node.value() {
                        if skipping > 0 {
                            skipping -= 1;
                        } else {
                            self.close(element.name());
                        }
                    }
                }
            }
        }
        self.flush();
    }

    fn is_skipped(&self, name: &str) -> bool {
        match name {
            "head" | "script" | "style" | "nav" | "aside" | "template" | "noscript" | "svg" | "iframe"
            | "object" | "select" | "button" => true,
            "header" | "footer" => !self.in_main,
            _ => false,
        }
    }

    fn open(&mut self, name: &str) {
        match name {
            "ul" | "ol" => {
                if self.lists == 0 {
                    self.end_block();
                }
                self.lists += 1;
            }
            "li" => {
                self.new_line();
                self.text.push_str(&"  ".repeat(self.lists.saturating_sub(1).min(8)));
                self.text.push_str("- ");
            }
            "table" => {
                if self.tables == 0 {
                    self.end_block();
                    self.table = Some(Table::default());
                }
                self.tables += 1;
            }
            "tr" if self.tables == 1 => self.header_row = true,
            "td" if self.tables == 1 => self.header_row = false,
            "pre" => {
                self.end_block();
                self.preformatted += 1;
            }
            "br" => self.text.push('\n'),
            name if is_block(name) => self.end_block(),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" if self.lists == 0 && self.table.is_none() => {
                let text = std::mem::take(&mut self.text);
                self.outline.heading(name.as_bytes()[1] - b'0', &text);
            }
            "ul" | "ol" => {
                self.lists = self.lists.saturating_sub(1);
                self.end_block();
            }
            "td" | "th" if self.tables == 1 => {
                let text = std::mem::take(&mut self.text);
                if let Some(table) = &mut self.table {
                    table.cell(&text);
                }
            }
            "tr" if self.tables == 1 => self.end_row(),
            "table" => {
                self.tables = self.tables.saturating_sub(1);
                if self.tables == 0 {
                    self.flush_table();
                }
            }
            "pre" => {
                self.preformatted = self.preformatted.saturating_sub(1);
                self.end_block();
            }
            name if is_block(name) => self.end_block(),
            _ => {}
        }
    }

    fn end_row(&mut self) {
        if let Some(table) = &mut self.table {
            if self.header_row {
                table.end_header();
            } else {
                table.end_row();
            }
        }
        self.header_row = false;
    }

    fn flush_table(&mut self) {
        // Text between the cells, such as a caption, comes before the rows.
        self.outline.block(std::mem::take(&mut self.text));
        if let Some(table) = self.table.take() {
            self.outline.block(table.finish());
        }
    }

    fn add(&mut self, text: &str) {
        if self.preformatted > 0 {
            self.text.push_str(text);
            return;
        }
        if text.starts_with(char::is_whitespace) {
            self.space();
        }
        for (i, word) in text.split_whitespace().enumerate() {
            if i > 0 {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
        if text.ends_with(char::is_whitespace) {
            self.space();
        }
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(char::is_whitespace) {
            self.text.push(' ');
        }
    }

    /// Ends a block, or a line of the list or cell around it.
    fn end_block(&mut self) {
        if self.lists > 0 || self.table.is_some() {
            self.new_line();
        } else {
            self.flush();
        }
    }

    fn new_line(&mut self) {
        let end = self.text.trim_end_matches(' ').len();
        // A list item's mark stays on the line of its first paragraph.
        if end > 0 && !self.text.ends_with('\n') && !self.text.ends_with("- ") {
            self.text.truncate(end);
            self.text.push('\n');
        }
    }

    fn flush(&mut self) {
        self.outline.block(std::mem::take(&mut self.text));
    }
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "p" | "div"
            | "section"
            | "article"
            | "main"
            | "blockquote"
            | "dl"
            | "dt"
            | "dd"
            | "figure"
            | "figcaption"
            | "details"
            | "summary"
            | "address"
            | "fieldset"
            | "form"
            | "header"
            | "footer"
            | "hr"
            | "caption"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "li"
            | "body"
    )
}
