//! What is checked of a candidate, one function a check or a family of them?

use crate::evaluation::statistics::{Bootstrap, Interval, mean, paired_bootstrap, wilson};

use super::{Bound, Check, Duel, Method, Outcome, Scores, Thresholds};

/// A loss of this many tolerances holds a candidate even when chance explains it: with few questions chance explains
/// everything.
const BEYOND_CHANCE: f64 = 3.0;

/// What is compared.
pub(super) struct Examiner<'a> {
    pub(super) current: &'a Scores,
    pub(super) candidate: &'a Scores,
    pub(super) thresholds: &'a Thresholds,
    pub(super) bootstrap: Bootstrap,
}

/// A value that is held against a bound.
struct Gauge<'a> {
    name: &'a str,
    /// What the value is, as the subject of a sentence.
    what: &'a str,
    value: Option<f64>,
    threshold: Bound,
    /// Whether the candidate is held when there is no value.
    needed: bool,
}

impl Gauge<'_> {
    fn check(self) -> Check {
        let Self { name, what, value, threshold, needed } = self;
        let outcome = match value {
            None if needed => Outcome::Missing,
            None => Outcome::NotMeasured,
            Some(_) if threshold == Bound::Any => Outcome::Reported,
            Some(value) if threshold.admits(value) => Outcome::Passed,
            Some(_) => Outcome::Failed,
        };
        let bound = requirement(threshold);
        let sentence = match (outcome, value) {
            (Outcome::Failed, Some(value)) => format!("{what} is {}, but {bound}.", number(value)),
            (Outcome::Missing, _) => {
                format!("{what} was not measured, and without it nothing is served; {bound}.")
            }
            (_, None) => format!("{what} was not measured; {bound}."),
            (_, Some(value)) => format!("{what} is {}; {bound}.", number(value)),
        };
        Check { name: name.to_owned(), value, threshold, outcome, sentence }
    }
}

/// A metric by question that may not fall.
struct Kept<'a> {
    name: &'a str,
    what: &'a str,
    current: &'a [f64],
    candidate: &'a [f64],
    needed: bool,
}

impl Examiner<'_> {
    /// Every check, in the order they are shown in.
    pub(super) fn all(&self) -> Vec<Check> {
        let mut checks = self.reward_model().to_vec();
        checks.extend(self.optimisation());
        checks.extend(self.wording());
        checks.extend(self.length());
        checks.extend(self.win_rates());
        checks.extend(self.kept());
        checks.push(self.choices_kept());
        checks.push(self.parity());
        checks.push(self.access());
        checks
    }

    /// Whether what only optimisation makes measurable must be there.
    fn is_optimised(&self) -> bool {
        self.candidate.method == Method::Optimised
    }

    /// The model of all that people said must be better than chance and than counting words, beyond doubt. The two that
    /// the candidate was optimised and is judged by learnt from half as much each, and are known less well: they must
    /// be better than chance beyond doubt, and right more often than the longer answer is chosen.
    pub(super) fn reward_model(&self) -> [Check; 4] {
        let scores = self.candidate.reward_model;
        let (halves, needed) = (scores.and_then(|s| s.halves), self.is_optimised());
        let lower = |right, pairs| wilson(right, pairs).map_or(f64::NAN, |interval| interval.0);
        let least = self.thresholds.reward_accuracy;
        let longer = scores.map_or(least, |s| least.max(s.longer_chosen as f64 / s.pairs as f64));
        [
            Gauge {
                name: "reward_accuracy",
                what: "The lower end of the reward model's accuracy on pairs it has not seen (chance, or what \
                       choosing the longer answer gets right, is the threshold)",
                value: scores.map(|s| lower(s.right, s.pairs)),
                threshold: Bound::Above(longer),
                needed,
            },
            Gauge {
                name: "reward_halves",
                what: "The lower end of the accuracy of the two reward models that the candidate was optimised and \
                       is judged by, on the pairs on each other's questions (chance is the threshold),",
                value: halves.map(|h| lower(h.right, h.pairs)),
                threshold: Bound::Above(least),
                needed,
            },
            Gauge {
                name: "reward_halves_over_longer",
                what: "The share of these pairs by which those two reward models of halves are right more often than \
                       the longer answer is chosen",
                value: halves.map(|h| (h.right as f64 - h.longer_chosen as f64) / h.pairs as f64),
                threshold: Bound::Above(0.0),
                needed,
            },
            Gauge {
                name: "reward_calibration",
                what: "The reward model's expected calibration error",
                value: scores.map(|s| s.calibration_error),
                threshold: Bound::AtMost(self.thresholds.calibration_error),
                needed,
            },
        ]
        .map(Gauge::check)
    }

    fn optimisation(&self) -> [Check; 2] {
        [
            Gauge {
                name: "kl",
                what: "The KL divergence from the reference policy in nats per answer",
                value: self.candidate.kl,
                threshold: Bound::AtMost(self.thresholds.kl),
                needed: self.is_optimised(),
            }
            .check(),
            Gauge {
                name: "entropy",
                what: "The entropy of the next token in nats",
                value: self.candidate.entropy,
                threshold: Bound::AtLeast(self.thresholds.entropy),
                needed: self.is_optimised(),
            }
            .check(),
        ]
    }

    /// Each threshold gives way to what the current policy does: a candidate that ends more of its answers than the
    /// policy it replaces is not held for those it does not end.
    fn wording(&self) -> [Check; 5] {
        let (current, candidate, limits) = (self.current, self.candidate, self.thresholds);
        let at_least = |least: f64, now: Option<f64>| {
            Bound::AtLeast(now.map_or(least, |now| least.min(now - limits.tolerance)))
        };
        let at_most = |most: f64, now: Option<f64>| {
            Bound::AtMost(now.map_or(most, |now| most.max(now + limits.tolerance)))
        };
        let needed = true;
        let ratio = candidate.distinct_3.zip(current.distinct_3).map(|(after, before)| after / before);
        [
            Gauge {
                name: "ended",
                what: "The share of answers that end by themselves",
                value: candidate.ended,
                threshold: at_least(limits.ended, current.ended),
                needed,
            },
            Gauge {
                name: "clipped",
                what: "The share of answers that the limit of tokens cuts",
                value: candidate.clipped,
                threshold: at_most(limits.clipped, current.clipped),
                needed,
            },
            Gauge {
                name: "repetition",
                what: "The share of repeated runs of 4 words",
                value: candidate.repetition,
                threshold: at_most(limits.repetition, current.repetition),
                needed,
            },
            Gauge {
                name: "same_answer",
                what: "The share of further questions that get the most common answer",
                value: candidate.same_answer,
                threshold: at_most(limits.same_answer, current.same_answer),
                needed,
            },
            Gauge {
                name: "distinct_3",
                what: "The share of different runs of 3 words, for each one of the current policy,",
                value: ratio,
                threshold: Bound::AtLeast(limits.distinct_3),
                needed,
            },
        ]
        .map(Gauge::check)
    }

    fn length(&self) -> [Check; 2] {
        let (before, after) = (&self.current.words, &self.candidate.words);
        let measured = !before.is_empty() && before.len() == after.len();
        let ratio = measured.then(|| after.iter().sum::<f64>() / before.iter().sum::<f64>());
        let what = "The number of words for each word of the current policy's answers";
        let least = Bound::AtLeast(self.thresholds.shorter);
        let gauge = |name, threshold| Gauge { name, what, value: ratio, threshold, needed: true };
        let longer = gauge("longer", Bound::AtMost(self.thresholds.longer)).check();
        let mut shorter = gauge("shorter", least).check();
        let (f1, coverage) = (self.fell(|scores| &scores.f1), self.fell(|scores| &scores.coverage));
        let excused = ratio.is_some_and(|ratio| !ratio.is_nan()) && !f1 && !coverage;
        if shorter.outcome == Outcome::Failed {
            let fell = match (f1, coverage) {
                (true, true) => "token F1 and coverage fell too",
                (true, false) => "token F1 fell too",
                (false, true) => "coverage fell too",
                (false, false) => "neither token F1 nor coverage fell",
            };
            let value = shorter.value.unwrap_or(f64::NAN);
            let bound = requirement(least);
            shorter.sentence = format!("{what} is {}, and {fell}; {bound} then.", number(value));
            shorter.outcome = if excused { Outcome::Passed } else { Outcome::Failed };
        }
        [longer, shorter]
    }

    /// Whether a metric by question fell by more than chance; one that can not be compared counts as fallen, unless
    /// neither side has it.
    fn fell(&self, list: fn(&Scores) -> &Vec<f64>) -> bool {
        let (before, after) = (list(self.current), list(self.candidate));
        if before.is_empty() && after.is_empty() {
            return false;
        }
        match self.change(before, after) {
            Some((difference, interval)) => difference.is_nan() || interval.1 < 0.0,
            None => true,
        }
    }

    fn win_rates(&self) -> Vec<Check> {
        let (candidate, limits) = (self.candidate, self.thresholds);
        let mut checks = Vec::with_capacity(5);
        checks.extend(self.duel(
            ("win_rate", "over the current policy on held-out prompts, by an independent reward model,"),
            candidate.against_current,
            Bound::AtLeast(limits.win_rate),
        ));
        checks.extend(self.duel(
            ("over_random", "over a policy that learnt from random rewards"),
            candidate.against_random,
            Bound::Above(0.5),
        ));
        let kept = candidate.gains.filter(|gains| gains.best_of_4 > 0.0);
        checks.push(
            Gauge {
                name: "best_of_4",
                what: "The share that the candidate keeps of the reward gained by the best of 4 answers of the \
                       current policy",
                value: kept.map(|gains| gains.candidate / gains.best_of_4),
                threshold: Bound::Any,
                needed: false,
            }
            .check(),
        );
        checks
    }

    /// The share won, and whether it is more than chance.
    fn duel(&self, (name, against): (&str, &str), duel: Option<Duel>, rate: Bound) -> [Check; 2] {
        let needed = self.is_optimised();
        let test = duel.map_or("sign", |duel| duel.test());
        [
            Gauge {
                name,
                what: &format!("The win rate {against}"),
                value: duel.map(|duel| duel.rate()),
                threshold: rate,
                needed,
            }
            .check(),
            Gauge {
                name: &format!("{name}_p"),
                what: &format!("The {test} test's p of the win rate {against}"),
                value: duel.map(|duel| duel.p()),
                threshold: Bound::AtMost(self.thresholds.significance),
                needed,
            }
            .check(),
        ]
    }

    /// What the candidate may not have lost.
    fn kept(&self) -> [Check; 6] {
        let (now, then) = (self.current, self.candidate);
        let kept = |name, what, (current, candidate), needed| {
            self.no_loss(&Kept { name, what, current, candidate, needed })
        };
        [
            kept("f1", "Token F1 against the human answers", (&now.f1, &then.f1), true),
            kept("rouge_l", "ROUGE-L against the human answers", (&now.rouge_l, &then.rouge_l), true),
            kept("cited", "The share of answers that cite a right page", (&now.cited, &then.cited), false),
            kept(
                "refused",
                "The share of unanswerable questions that are refused",
                (&now.refused, &then.refused),
                false,
            ),
            kept(
                "valid_citations",
                "The share of valid citations",
                (&now.valid_citations, &then.valid_citations),
                false,
            ),
            kept(
                "retrieved",
                "The share of questions for which a right page is retrieved",
                (&now.retrieved, &then.retrieved),
                false,
            ),
        ]
    }

    /// A loss within the tolerance passes. So does a larger one that chance explains, up to [`BEYOND_CHANCE`]
    /// tolerances.
    fn no_loss(&self, kept: &Kept<'_>) -> Check {
        let tolerance = self.thresholds.tolerance;
        let Kept { name, what, current, candidate, needed } = *kept;
        let threshold = Bound::AtLeast(-tolerance);
        let gauge =
            |value| Gauge { name, what: &format!("{what}: the change"), value, threshold, needed }.check();
        if current.is_empty() || candidate.is_empty() {
            return gauge(None);
        }
        let Some((difference, interval)) = self.change(current, candidate) else {
            let sentence = format!(
                "{what} was measured on {} questions before and {} after, and can not be compared.",
                current.len(),
                candidate.len()
            );
            return Check { sentence, outcome: Outcome::Failed, ..gauge(None) };
        };
        let within = difference >= -tolerance;
        let by_chance = difference >= -BEYOND_CHANCE * tolerance && interval.1 >= 0.0;
        let verdict = match (within, by_chance) {
            (true, _) => "within the allowed loss",
            (false, true) => "more than the allowed loss, but chance explains it; allowed is a loss",
            (false, false) => "but the most allowed is a loss",
        };
        let sentence = format!(
            "{what} changed by {} on {} questions (from {} to {}, 95% interval {} to {}), {verdict} of {}.",
            number(difference),
            current.len(),
            number(mean(current).unwrap_or(f64::NAN)),
            number(mean(candidate).unwrap_or(f64::NAN)),
            number(interval.0),
            number(interval.1),
            number(tolerance)
        );
        let outcome = if within || by_chance { Outcome::Passed } else { Outcome::Failed };
        Check { outcome, sentence, ..gauge(Some(difference)) }
    }

    /// The mean difference and its 95% interval; `None` when the lists are not of the same questions. Not a number when
    /// one of the values is none.
    fn change(&self, before: &[f64], after: &[f64]) -> Option<(f64, Interval)> {
        if before.len() != after.len() {
            return None;
        }
        let difference = mean(after)? - mean(before)?;
        let interval = paired_bootstrap(before, after, &self.bootstrap);
        Some((difference, interval.unwrap_or(Interval(f64::NAN, f64::NAN))))
    }

    /// A candidate that only ideal answers taught has unlearnt what people's choices taught the policy before it, and no
    /// metric against human answers shows that.
    fn choices_kept(&self) -> Check {
        let unlearnt = self.current.method == Method::Optimised && !self.is_optimised();
        let check = Gauge {
            name: "choices_kept",
            what: "Of a candidate that learnt from no choices, the number of policies before it that did",
            value: Some(f64::from(u8::from(unlearnt))),
            threshold: Bound::AtMost(0.0),
            needed: true,
        }
        .check();
        if !unlearnt {
            return check;
        }
        let sentence = "The current policy was optimised by what people like, and the candidate only learnt from ideal \
                        answers: it would lose what choices and thumbs have taught.";
        Check { sentence: sentence.to_owned(), ..check }
    }

    fn parity(&self) -> Check {
        Gauge {
            name: "parity",
            what: "The mean difference of the probabilities that trainer and server give",
            value: self.candidate.parity,
            threshold: Bound::AtMost(self.thresholds.parity),
            needed: false,
        }
        .check()
    }

    fn access(&self) -> Check {
        let audience = &self.thresholds.audience;
        let clauses = self.candidate.access.clauses();
        let closed: Vec<String> = clauses
            .iter()
            .filter(|clause| clause.is_disjoint(audience))
            .map(|clause| clause.iter().map(String::as_str).collect::<Vec<_>>().join(" or "))
            .collect();
        let threshold = if self.thresholds.serve_restricted { Bound::Any } else { Bound::AtMost(0.0) };
        let value = Some(closed.len() as f64);
        let gauge = Gauge {
            name: "access",
            what: "The number of groups whose pages it was trained on and whose members not all who are served are",
            value,
            threshold,
            needed: true,
        };
        let check = gauge.check();
        if check.outcome != Outcome::Failed {
            return check;
        }
        let sentence = format!(
            "The candidate was trained on pages that only members of {} may see, and would repeat them to everybody \
             who is served; 0 such restrictions are allowed, and {} were found.",
            closed.join(", and of "),
            closed.len()
        );
        Check { sentence, ..check }
    }
}

/// The bound as the second half of a sentence.
fn requirement(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(least) => format!("at least {} is needed", number(least)),
        Bound::Above(least) => format!("more than {} is needed", number(least)),
        Bound::AtMost(most) => format!("at most {} is allowed", number(most)),
        Bound::Any => "it is only reported".to_owned(),
    }
}

/// Four decimals at most: a value and a threshold that differ look different.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "no number".to_owned();
    }
    let text = format!("{value:.4}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}
