//! How is a report read? As Markdown.

use std::fmt::{self, Write};

use super::{Accuracy, Drift, Group, Measures, Report, VoteQuality};
use crate::evaluation::report::cell;
use crate::reward::Rung;

/// Weights that are shown: those that matter.
const MOST_WEIGHTS: usize = 15;

impl Report {
    /// The whole report as Markdown, with tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing into a String never fails.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        let counts = self.counts;
        writeln!(to, "# Reward model\n")?;
        writeln!(
            to,
            "Learnt from {} pairs ({} ties; {:.0} effective) and {} thumbs of {} people; ridge {}; rung: {}.",
            counts.pairs,
            counts.ties,
            counts.effective_pairs,
            counts.thumbs,
            counts.people,
            self.ridge,
            self.rung.words()
        )?;
        if !self.with_encoder {
            writeln!(to, "There was no sentence model: closeness in meaning was not looked at.")?;
        }
        if let Some(held_out) = &self.held_out {
            writeln!(to, "\n## On held-out prompts\n")?;
            measures(to, held_out)?;
        }
        writeln!(to, "\n## Cross-validated\n")?;
        measures(to, &self.cross_validated)?;
        writeln!(to, "\n## Over the number of pairs (cross-validated)\n")?;
        table(
            to,
            "pairs",
            self.learning_curve.iter().map(|point| (point.pairs.to_string(), point.accuracy)),
        )?;
        self.ladder(to)?;
        if let Some(Drift { correlation, rank_correlation, agreement, shift, pairs }) = self.drift {
            writeln!(to, "\n## Beside the model before\n")?;
            writeln!(
                to,
                "On the newest {pairs} held-out choices both prefer the same answer in {:.0}%; scores correlate with \
                 {correlation:.2}, their ranks with {rank_correlation:.2}; the new ones are {shift:+.2} standard \
                 deviations off on average.",
                100.0 * agreement
            )?;
        }
        votes(to, &self.votes)?;
        writeln!(to, "\n## What counts\n\n| feature | weight |\n|---|---:|")?;
        for (name, weight) in self.weights.iter().take(MOST_WEIGHTS) {
            writeln!(to, "| {name} | {weight:+.3} |")?;
        }
        Ok(())
    }

    fn ladder(&self, to: &mut String) -> fmt::Result {
        writeln!(to, "\n## Ladder\n\n| rung | log-loss (nats) | rung below, same pairs | seconds | |")?;
        writeln!(to, "|---|---:|---:|---:|---|")?;
        for tried in &self.ladder {
            let number =
                |value: Option<f64>| value.map_or_else(|| "—".to_owned(), |value| format!("{value:.4}"));
            let note = tried.reason.as_deref().unwrap_or(if tried.chosen { "chosen" } else { "" });
            let (rung, seconds) = (tried.rung.words(), tried.seconds);
            let (loss, below) = (number(tried.log_loss), number(tried.below));
            writeln!(to, "| {rung} | {loss} | {below} | {seconds:.1} | {note} |")?;
        }
        Ok(())
    }
}

impl Rung {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Backbone => "features and a frozen language model",
            Self::Adapter => "a trained adapter and features",
        }
    }
}

fn measures(to: &mut String, found: &Measures) -> fmt::Result {
    let whole = std::iter::once(("all".to_owned(), found.accuracy));
    let named = |groups: &[Group]| -> Vec<(String, Accuracy)> {
        groups.iter().map(|group| (cell(&group.name), group.accuracy)).collect()
    };
    table(to, "accuracy", whole.chain(named(&found.baselines)))?;
    let (error, loss) = (found.calibration.error, found.log_loss);
    writeln!(to, "\nLog-loss {loss:.4} nats (chance 0.6931); calibration error {error:.3}.")?;
    let (model, people) = (100.0 * found.longer.model, 100.0 * found.longer.people);
    writeln!(to, "The model prefers the longer answer in {model:.0}% of pairs, people in {people:.0}%.\n")?;
    table(to, "source", named(&found.by_source).into_iter())?;
    writeln!(to)?;
    table(to, "strength of the choice", named(&found.by_margin).into_iter())?;
    writeln!(to)?;
    table(to, "length of the answers", named(&found.by_length_gap).into_iter())
}

fn table(to: &mut String, title: &str, rows: impl Iterator<Item = (String, Accuracy)>) -> fmt::Result {
    writeln!(to, "| {title} | pairs | as people chose | 95% interval |\n|---|---:|---:|---|")?;
    for (name, accuracy) in rows {
        let interval =
            accuracy.interval.map_or_else(String::new, |found| format!("{:.3} to {:.3}", found.0, found.1));
        writeln!(to, "| {name} | {} | {:.3} | {interval} |", accuracy.pairs, accuracy.share())?;
    }
    Ok(())
}

fn votes(to: &mut String, votes: &VoteQuality) -> fmt::Result {
    writeln!(to, "\n## Votes\n")?;
    let share =
        |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"));
    writeln!(
        to,
        "Same choice when asked again: {}. Agreement on {} comparisons several people made (Krippendorff's alpha): {}.",
        share(votes.repeat_consistency),
        votes.overlapping,
        share(votes.alpha)
    )?;
    for outlier in &votes.outliers {
        writeln!(
            to,
            "- {} chooses as the others would in {:.0}% of {} votes; these weigh {:.2}.",
            cell(&outlier.user),
            100.0 * outlier.agreement,
            outlier.votes,
            outlier.weight
        )?;
    }
    Ok(())
}
