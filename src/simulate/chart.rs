//! How does the simulation's result look at a glance? A drawing (SVG) of win rates and figures with their intervals.

use std::fmt::Write;

use super::report::Report;
use crate::evaluation::Interval;

/// Width of the drawing in pixels, and of its labels.
const WIDTH: f64 = 720.0;
const LABELS: f64 = 210.0;
/// Room to the right of the bars for the numbers.
const NUMBERS: f64 = 150.0;
/// Height of a bar with the space below it.
const ROW: f64 = 30.0;
/// Height of a heading.
const HEADING: f64 = 44.0;
/// Colours that differ in brightness too.
const BAR: &str = "#4a7ab5";
const AXIS: &str = "#8a8a8a";
const INK: &str = "#222222";

impl Report {
    /// The result as an SVG image: each bar from 0 to 1 with its 95% interval, and a line at one half for win rates.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut drawing = Drawing { body: String::new(), y: 8.0 };
        drawing.heading(&format!(
            "{} votes by people who like {} (seed {})",
            self.votes,
            self.plan.preference.words(),
            self.plan.seed
        ));
        drawing.heading("How often the judge likes it better");
        let top = drawing.y;
        for duel in &self.win_rates {
            drawing.bar(&format!("{} over {}", duel.of, duel.over), duel.rate, duel.interval);
        }
        drawing.upright(0.5, (top, drawing.y));
        drawing.heading("How good the answers are to the judge");
        for row in &self.generations {
            drawing.bar(row.name, row.utility.value, row.utility.interval);
        }
        drawing.heading("Token F1 against the human answers");
        for row in &self.generations {
            drawing.bar(row.name, row.f1.value, row.f1.interval);
        }
        drawing.finish()
    }
}

/// A drawing that grows downwards.
struct Drawing {
    body: String,
    y: f64,
}

/// Where a value from 0 to 1 lies from left to right; others lie at the nearer end.
fn across(value: f64) -> f64 {
    let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    LABELS + value * (WIDTH - LABELS - NUMBERS)
}

impl Drawing {
    fn heading(&mut self, text: &str) {
        self.text((12.0, self.y + 24.0), "start", text);
        self.y += HEADING;
    }

    fn bar(&mut self, label: &str, value: f64, interval: Interval) {
        let (start, end, middle) = (across(0.0), across(value), self.y + ROW / 2.0 - 3.0);
        self.text((LABELS - 10.0, middle + 5.0), "end", label);
        let (y, width, height) = (self.y, end - start, ROW - 10.0);
        _ = writeln!(
            self.body,
            r#"<rect x="{start:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{BAR}"/>"#
        );
        let (low, high) = (across(interval.0), across(interval.1));
        self.line((low, middle), (high, middle), INK);
        for x in [low, high] {
            self.line((x, middle - 5.0), (x, middle + 5.0), INK);
        }
        let numbers = format!("{value:.3} ({:.3} to {:.3})", interval.0, interval.1);
        self.text((WIDTH - 8.0, middle + 5.0), "end", &numbers);
        self.y += ROW;
    }

    /// A line from top to bottom.
    fn upright(&mut self, value: f64, (top, bottom): (f64, f64)) {
        let x = across(value);
        self.line((x, top - 6.0), (x, bottom), AXIS);
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.5"/>"#
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{INK}">{text}</text>"#
        );
    }

    fn finish(self) -> String {
        let (body, height) = (self.body, self.y + 12.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
             height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" \
             height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// A text as XML reads it back.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_figure_is_drawn_where_it_belongs() {
        let report = report();
        let svg = report.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        // The background, and three bars of each of three kinds.
        assert_eq!(svg.matches("<rect ").count(), 10);
        // One line an interval, two for its ends, and one at a half.
        assert_eq!(svg.matches("<line ").count(), 9 * 3 + 1);
        let width = 0.875 * (WIDTH - LABELS - NUMBERS);
        assert!(
            svg.contains(&format!("x=\"{LABELS:.1}\"")) && svg.contains(&format!("width=\"{width:.1}\"")),
            "{svg}"
        );
        assert!(svg.contains("final over fine-tuned") && svg.contains("0.875 (0.625 to 1.000)"), "{svg}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }

    #[test]
    fn values_outside_and_texts_with_markup_do_no_harm() {
        assert!((across(2.0) - across(1.0)).abs() < 1e-12 && (across(f64::NAN) - LABELS).abs() < 1e-12);
        let mut drawing = Drawing { body: String::new(), y: 0.0 };
        drawing.bar("<script>\"&", f64::NAN, Interval(f64::NAN, 1.0));
        let svg = drawing.finish();
        assert!(svg.contains("&lt;script&gt;&quot;&amp;") && !svg.contains("<script>"), "{svg}");
    }
}
