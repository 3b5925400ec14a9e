//! Do probabilities mean what they say? Predicted against observed, as a picture.

use std::fmt::{self, Write};

use super::{Calibration, Report};

/// Width and height of the picture, in pixels.
const SIZE: f64 = 320.0;
/// Room for the axes' words.
const BORDER: f64 = 40.0;

impl Report {
    /// The reliability plot as SVG: each circle is a range of predictions, its area the number of pairs; on the diagonal
    /// predictions are right. Of held-out pairs where there are some.
    #[must_use]
    pub fn reliability_svg(&self) -> String {
        let measures = self.held_out.as_ref().unwrap_or(&self.cross_validated);
        let mut text = String::new();
        // Writing into a String never fails.
        let _ = plot(&mut text, &measures.calibration);
        text
    }
}

/// Both axes go from 0.5 to 1: of two answers, the model always names the likelier.
fn plot(to: &mut String, calibration: &Calibration) -> fmt::Result {
    let inner = SIZE - 2.0 * BORDER;
    let x = |p: f64| BORDER + (p - 0.5) * 2.0 * inner;
    // Fewer than half right is drawn on the axis' lower end.
    let y = |p: f64| SIZE - BORDER - (p.max(0.5) - 0.5) * 2.0 * inner;
    let all: u64 = calibration.bins.iter().map(|bin| bin.pairs).sum();
    write!(to, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\">")?;
    write!(
        to,
        "<title>Predicted and observed agreement, calibration error {:.3}</title>",
        calibration.error
    )?;
    let (low, high) = (BORDER, SIZE - BORDER);
    write!(to, "<path d=\"M{low} {low}V{high}H{high}\" fill=\"none\" stroke=\"currentColor\"/>")?;
    write!(to, "<path d=\"M{low} {high}L{high} {low}\" stroke=\"currentColor\" stroke-dasharray=\"4 4\"/>")?;
    for tick in [0.5, 0.75, 1.0] {
        let (across, up) = (x(tick), y(tick) + 4.0);
        write!(
            to,
            "<text x=\"{across}\" y=\"{}\" font-size=\"11\" text-anchor=\"middle\" fill=\"currentColor\">{tick}</text>",
            high + 16.0
        )?;
        write!(
            to,
            "<text x=\"{}\" y=\"{up}\" font-size=\"11\" text-anchor=\"end\" fill=\"currentColor\">{tick}</text>",
            low - 6.0
        )?;
    }
    for bin in &calibration.bins {
        let radius = 3.0 + 15.0 * (bin.pairs as f64 / all.max(1) as f64).sqrt();
        let (across, up) = (x(bin.predicted), y(bin.observed));
        write!(
            to,
            "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"{radius:.1}\" fill=\"currentColor\" fill-opacity=\"0.5\">"
        )?;
        let (said, was) = (bin.predicted, bin.observed);
        write!(to, "<title>{} pairs: predicted {said:.2}, observed {was:.2}</title></circle>", bin.pairs)?;
    }
    let middle = SIZE / 2.0;
    write!(
        to,
        "<text x=\"{middle}\" y=\"{}\" font-size=\"12\" text-anchor=\"middle\" fill=\"currentColor\">predicted</text>",
        SIZE - 6.0
    )?;
    write!(
        to,
        "<text x=\"12\" y=\"{middle}\" font-size=\"12\" text-anchor=\"middle\" fill=\"currentColor\" transform=\"rotate(-90 12 {middle})\">observed</text></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Bin;
    use super::*;

    #[test]
    fn a_well_calibrated_range_lies_on_the_diagonal() {
        let bins = vec![Bin { predicted: 0.75, observed: 0.75, pairs: 40 }];
        let mut svg = String::new();
        plot(&mut svg, &Calibration { error: 0.0, bins }).unwrap();
        assert!(svg.contains("cx=\"160.0\" cy=\"160.0\""), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
