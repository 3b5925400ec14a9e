//! Which figures did a run have at which step? Bounded: long curves lose points, not their shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most points of one curve: about as many as a chart has pixels to show them.
const MAX_POINTS: usize = 400;
/// Most curves of a run: it is a list for people.
const MAX_CURVES: usize = 32;

/// Curves by name: points of (step, value), the steps ascending.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Series(BTreeMap<String, Vec<(u64, f64)>>);

impl Series {
    /// Adds a point. What the curve has at this step and after it is forgotten: the run went back to a checkpoint.
    /// A value that is no number is left out, as are curves beyond the first 32.
    pub fn push(&mut self, name: &str, step: u64, value: f64) {
        if !value.is_finite() || (self.0.len() >= MAX_CURVES && !self.0.contains_key(name)) {
            return;
        }
        let curve = self.0.entry(name.to_owned()).or_default();
        while curve.last().is_some_and(|(last, _)| *last >= step) {
            curve.pop();
        }
        curve.push((step, value));
        if curve.len() > MAX_POINTS {
            thin(curve);
        }
    }

    /// The points of one curve.
    #[must_use]
    pub fn curve(&self, name: &str) -> &[(u64, f64)] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value of one curve.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<f64> {
        self.curve(name).last().map(|(_, value)| *value)
    }

    /// Whether there is no curve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes out the point whose neighbours are closest; the ends stay.
fn thin(curve: &mut Vec<(u64, f64)>) {
    let gap = |index: &usize| curve[index + 1].0 - curve[index - 1].0;
    if let Some(closest) = (1..curve.len() - 1).min_by_key(gap) {
        curve.remove(closest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn going_back_to_a_checkpoint_forgets_what_came_after_it() {
        let mut series = Series::default();
        for step in 0..10 {
            series.push("loss", step, 1.0);
        }
        series.push("loss", 5, 2.0);
        assert_eq!(series.curve("loss").last(), Some(&(5, 2.0)));
        assert_eq!(series.curve("loss").len(), 6);
        series.push("loss", 6, f64::NAN);
        assert_eq!(series.last("loss"), Some(2.0));
    }

    proptest! {
        #[test]
        fn a_long_curve_keeps_its_ends_and_covers_what_is_between(steps in 2_u64..6_000) {
            let mut series = Series::default();
            for step in 0..steps {
                series.push("loss", step, 0.5);
            }
            let curve = series.curve("loss");
            prop_assert!(curve.len() <= MAX_POINTS);
            prop_assert_eq!((curve[0].0, curve[curve.len() - 1].0), (0, steps - 1));
            // No gap is wider than four times an even one's width.
            let widest = curve.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0);
            prop_assert!(widest <= 1 + 4 * steps / MAX_POINTS as u64, "{widest} of {steps}");
        }
    }
}
