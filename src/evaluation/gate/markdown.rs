//! How does a person read a judgement? As a table of all checks, and the reasons above it.

use std::fmt::Write;

use super::checks::number;
use super::{Bound, Decision, Judgement};

impl Judgement {
    /// The judgement as Markdown, under a heading `title`.
    #[must_use]
    pub fn markdown(&self, title: &str) -> String {
        let mut page = format!("# {title}\n\n");
        match &self.decision {
            Decision::Promote => page.push_str("Every check passes: the candidate may be served.\n"),
            Decision::Hold(reasons) => {
                page.push_str("The candidate is held:\n\n");
                reasons.iter().for_each(|reason| _ = writeln!(page, "- {}", text(&reason.sentence)));
            }
        }
        page.push_str("\n| check | value | threshold | outcome |\n|---|---:|---|---|\n");
        for check in &self.checks {
            let value = check.value.map_or_else(|| "–".to_owned(), number);
            let words = check.outcome.words();
            let words = if check.outcome.holds() { format!("**{words}**") } else { words.to_owned() };
            let (name, bound) = (text(&check.name), bound(check.threshold));
            _ = writeln!(page, "| {name} | {value} | {bound} | {words} |");
        }
        let remarks = self.remarks();
        if !remarks.is_empty() {
            page.push('\n');
            remarks.iter().for_each(|remark| _ = writeln!(page, "- {}", text(remark)));
        }
        page
    }

    /// The judgement as JSON, for programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(least) => format!("at least {}", number(least)),
        Bound::Above(least) => format!("above {}", number(least)),
        Bound::AtMost(most) => format!("at most {}", number(most)),
        Bound::Any => "none".to_owned(),
    }
}

/// Group names come from documents: nothing in them may be read as Markdown or HTML.
fn text(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '*' | '_' | '[' | ']' | '`' | '\\' => safe.extend(['\\', c]),
            '\n' | '\r' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
