//! How is a table read aloud? Each row names its columns, so that a row makes sense alone.

/// A table while it is read.
#[derive(Debug, Default)]
pub(super) struct Table {
    header: Vec<String>,
    row: Vec<String>,
    lines: Vec<String>,
}

impl Table {
    /// The next cell of the row.
    pub(super) fn cell(&mut self, text: &str) {
        self.row.push(super::outline::one_line(text));
    }

    /// The row so far names the columns.
    pub(super) fn end_header(&mut self) {
        self.header = std::mem::take(&mut self.row);
    }

    /// The row is complete.
    pub(super) fn end_row(&mut self) {
        let row = std::mem::take(&mut self.row);
        let cells: Vec<String> = row
            .into_iter()
            .enumerate()
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(column, cell)| match self.header.get(column) {
                Some(name) if !name.is_empty() => format!("{name}: {cell}"),
                _ => cell,
            })
            .collect();
        if !cells.is_empty() {
            self.lines.push(cells.join("; "));
        }
    }

    /// One line per row. A table of nothing but a header gives the header.
    pub(super) fn finish(self) -> String {
        if self.lines.is_empty() { self.header.join("; ") } else { self.lines.join("\n") }
    }
}
