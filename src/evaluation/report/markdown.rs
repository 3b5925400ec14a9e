//! How does a person read the comparison? As a page of Markdown that no text in it can break.

use std::fmt::Write;

use super::{Comparison, Interval, Summary};

/// Longest text in a cell, in characters: side by side, more can not be taken in.
const CELL: usize = 600;

impl Comparison {
    /// The report as Markdown, under a heading `title`. Differences whose interval does not hold zero are bold.
    #[must_use]
    pub fn markdown(&self, title: &str) -> String {
        let mut page = heading(title, self.n);
        page.push_str("| metric | before | after | difference | 95% interval |\n|---|---:|---:|---:|---:|\n");
        for (name, change) in self.metrics.iter() {
            let real = !change.interval.contains(0.0);
            let difference = signed(change.difference);
            let difference = if real { format!("**{difference}**") } else { difference };
            let (before, after) = (number(change.before), number(change.after));
            line(&mut page, &[&cell(name), &before, &after, &difference, &interval(change.interval)]);
        }
        let same = &self.same_answer;
        let share = |value: f64| format!("{:.1}%", 100.0 * value);
        let (before, after) = (share(same.before), share(same.after));
        page.push_str("\nThe most common answer was given to ");
        _ = writeln!(page, "{before} of the questions before and {after} after.");
        if !self.worst.is_empty() {
            page.push_str("\n## Where it answers worse, or worst\n\n");
            page.push_str(
                "| question | human answer | before | F1 | after | F1 |\n|---|---|---|---:|---|---:|\n",
            );
        }
        for row in &self.worst {
            let texts = [&row.question, &row.ideal, &row.before, &row.after].map(|text| cell(text));
            let [question, ideal, before, after] = &texts;
            let (first, second) = (number(row.f1_before), number(row.f1_after));
            line(&mut page, &[question, ideal, before, &first, after, &second]);
        }
        page
    }
}

impl Summary {
    /// The report as Markdown, under a heading `title`.
    #[must_use]
    pub fn markdown(&self, title: &str) -> String {
        let mut page = heading(title, self.n);
        page.push_str("| metric | value | 95% interval |\n|---|---:|---:|\n");
        for (name, measured) in self.metrics.iter() {
            line(&mut page, &[&cell(name), &number(measured.value), &interval(measured.interval)]);
        }
        let share = 100.0 * self.same_answer;
        _ = writeln!(page, "\nThe most common answer was given to {share:.1}% of the questions.");
        if !self.worst.is_empty() {
            page.push_str("\n## Where it answers worst\n\n");
            page.push_str("| question | human answer | answer | F1 |\n|---|---|---|---:|\n");
        }
        for row in &self.worst {
            let [question, ideal, answer] = [&row.question, &row.ideal, &row.answer].map(|text| cell(text));
            line(&mut page, &[&question, &ideal, &answer, &number(row.f1)]);
        }
        page
    }
}

fn heading(title: &str, n: usize) -> String {
    format!("# {}\n\n{n} questions, compared with the human answers.\n\n", cell(title))
}

fn line(page: &mut String, cells: &[&str]) {
    _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}

fn signed(value: f64) -> String {
    format!("{value:+.3}")
}

fn interval(interval: Interval) -> String {
    format!("{} to {}", signed(interval.0), signed(interval.1))
}

/// A text as one line that Markdown, and HTML in it, read as nothing but text.
pub(crate) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    let mut characters = text.split_whitespace().flat_map(|word| word.chars().chain([' ']));
    for c in characters.by_ref().take(CELL) {
        match c {
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '&' => cell.push_str("&amp;"),
            // Also ':', '.' and '@', of which links are made.
            c if c.is_ascii_punctuation() && !matches!(c, ',' | ';' | '?' | '\'' | '"' | '(' | ')' | '%') => {
                cell.extend(['\\', c]);
            }
            c if c.is_control() => cell.push('\u{FFFD}'),
            c => cell.push(c),
        }
    }
    let end = cell.trim_end().len();
    cell.truncate(end);
    if characters.next().is_some() {
        cell.push_str(" …");
    }
    cell
}
