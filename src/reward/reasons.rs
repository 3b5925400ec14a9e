//! Why does a reward model like some answers better than others? Its score is a sum, so each feature has a share in it.

use serde::Serialize;

use super::{Read, RewardModel};

/// What all that a language model reads is called: its states have no names.
const READ: &str = "what the language model reads";
/// Reasons that are said in words, of either sign.
const SAID: usize = 4;
/// Below this share of a standard deviation of reward a reason is none.
const SMALLEST: f64 = 0.005;

/// What one feature does to a score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reason {
    /// Its name.
    pub feature: String,
    /// By how much it raises the score, in the unit of [`super::Score`].
    pub points: f64,
}

impl RewardModel {
    /// Why it likes the first answers better or worse than the second: what each feature adds to the difference of their
    /// scores, mean over the pairs, the largest first. The reasons' sum is the mean difference.
    #[must_use]
    pub fn reasons(&self, pairs: &[[&Read; 2]]) -> Vec<Reason> {
        let names = &self.about.names;
        let named = self.about.blocks.len() * names.len();
        // One more for what is read, in which all that lies behind the features comes together.
        let mut points = vec![0.0; names.len() + 1];
        for (i, weight) in self.mean_weights().into_iter().enumerate() {
            let place = if i < named { i % names.len() } else { names.len() };
            let apart: f64 = pairs.iter().map(|[one, other]| one.0[i] - other.0[i]).sum();
            points[place] += weight * apart / (self.unit * pairs.len().max(1) as f64);
        }
        let names = names.iter().map(String::as_str).chain([READ]);
        let reason = |(feature, points): (&str, f64)| Reason { feature: feature.to_owned(), points };
        let mut reasons: Vec<Reason> =
            names.zip(points).filter(|(_, points)| *points != 0.0).map(reason).collect();
        reasons.sort_by(|a, b| {
            b.points.abs().total_cmp(&a.points.abs()).then_with(|| a.feature.cmp(&b.feature))
        });
        reasons
    }
}

/// The largest reasons for and against in words: `gained by tone +0.30; lost by length -0.20`.
#[must_use]
pub fn words(reasons: &[Reason]) -> String {
    let of = |sign: f64| {
        let some = reasons.iter().filter(move |reason| reason.points * sign >= SMALLEST).take(SAID);
        some.map(|reason| format!("{} {:+.2}", reason.feature, reason.points)).collect::<Vec<_>>().join(", ")
    };
    match (of(1.0), of(-1.0)) {
        (gained, lost) if gained.is_empty() && lost.is_empty() => "gained and lost nothing".to_owned(),
        (gained, lost) if lost.is_empty() => format!("gained by {gained}"),
        (gained, lost) if gained.is_empty() => format!("lost by {lost}"),
        (gained, lost) => format!("gained by {gained}; lost by {lost}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(feature: &str, points: f64) -> Reason {
        Reason { feature: feature.to_owned(), points }
    }

    #[test]
    fn the_largest_reasons_are_said() {
        let reasons =
            [reason("tone", 0.3), reason("length", -0.2), reason("marks", 0.01), reason("form", 0.001)];
        assert_eq!(words(&reasons), "gained by tone +0.30, marks +0.01; lost by length -0.20");
        assert_eq!(words(&reasons[..1]), "gained by tone +0.30");
        assert_eq!(words(&reasons[1..2]), "lost by length -0.20");
        assert_eq!(words(&reasons[3..]), "gained and lost nothing");
    }
}
