//! Has a stop string come? It may be spread over several tokens, so text that could become one is held back.

/// Watches an answer for its stop strings.
#[derive(Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What came of adding text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that is certainly part of the answer.
    pub text: String,
    /// A stop string came: the answer ends here.
    pub stopped: bool,
}

impl StopFilter {
    /// A filter for these strings; empty ones are ignored.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text; returns what can be shown now.
    pub fn push(&mut self, text: &str) -> Released {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Released { text, stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let text = self.held.drain(..self.held.len() - keep).collect();
        Released { text, stopped: false }
    }

    /// The answer ended without a stop string: what was held back belongs to it.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the text ends when it is watched letter by letter: at the first stop string to be complete, from its
    /// start (of several complete at once, the one that starts first).
    fn end(text: &str, stops: &[String]) -> Option<usize> {
        (0..=text.len()).find_map(|to| stops.iter().filter_map(|s| text[..to].find(s.as_str())).min())
    }

    proptest! {
        /// Letter by letter, the result is the text before the first stop string.
        #[test]
        fn the_answer_ends_before_the_first_stop_string(text in "[abc]{0,40}") {
            let stops = vec!["abc".to_owned(), "cc".to_owned()];
            let (mut filter, mut shown, mut stopped) = (StopFilter::new(&stops), String::new(), false);
            for letter in text.chars() {
                let released = filter.push(&letter.to_string());
                shown.push_str(&released.text);
                stopped = released.stopped;
                if stopped {
                    break;
                }
            }
            if !stopped {
                shown.push_str(&filter.finish());
            }
            let expected = end(&text, &stops);
            prop_assert_eq!(stopped, expected.is_some());
            prop_assert_eq!(&shown, &text[..expected.unwrap_or(text.len())]);
        }
    }
}
