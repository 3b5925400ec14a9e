//! Under which headings does each block of text stand?

/// Text between two headings.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::retrieval) struct Section {
    /// The headings above, outermost first, without the document's title.
    pub path: Vec<String>,
    /// Paragraphs, lists, tables and code, each as plain text; a list or table has one line per item or row.
    pub blocks: Vec<String>,
}

/// Collects headings and blocks in reading order.
#[derive(Debug, Default)]
pub(super) struct Outline {
    open: Vec<(u8, String)>,
    sections: Vec<Section>,
    first: Option<String>,
}

impl Outline {
    /// A heading of a level, 1 to 6.
    pub(super) fn heading(&mut self, level: u8, text: &str) {
        let text = one_line(text);
        if text.is_empty() {
            return;
        }
        self.first.get_or_insert_with(|| text.clone());
        self.open.retain(|(open, _)| *open < level);
        self.open.push((level, text));
        self.begin();
    }

    /// A block of text under the last heading.
    pub(super) fn block(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref().trim_end().trim_start_matches('\n');
        if text.trim().is_empty() {
            return;
        }
        if self.sections.is_empty() {
            self.begin();
        }
        if let Some(section) = self.sections.last_mut() {
            section.blocks.push(text.to_owned());
        }
    }

    /// The first heading, which serves as title when there is no other.
    pub(super) fn first_heading(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// The sections that have text; a heading that only repeats the title is left out.
    pub(super) fn into_sections(self, title: &str) -> Vec<Section> {
        let mut sections = self.sections;
        sections.retain(|section| !section.blocks.is_empty());
        for section in &mut sections {
            if section.path.first().is_some_and(|first| first.eq_ignore_ascii_case(title)) {
                section.path.remove(0);
            }
        }
        sections
    }

    fn begin(&mut self) {
        let path = self.open.iter().map(|(_, text)| text.clone()).collect();
        self.sections.push(Section { path, blocks: Vec::new() });
    }
}

/// The text with every run of white space as one space.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
