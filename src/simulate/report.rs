//! What came of the simulation: do people like the answers better, are they still right, and where did the time go?

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::Plan;
use super::answers::Answer;
use super::judge::{Choice, Preference};
use super::questions::Question;
use crate::evaluation::statistics::{Bootstrap, mean, paired_bootstrap};
use crate::evaluation::{Interval, report::Measured};

/// Answers of one generation to the questions that were kept for the end, in their order.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// `base`, `fine-tuned` or `final`.
    pub(super) name: &'static str,
    /// The answers.
    pub(super) answers: Vec<Answer>,
    /// Mean reward of them by the newest reward model.
    pub(super) reward: Option<f64>,
    /// KL divergence from its reference policy, nats per answer.
    pub(super) kl: Option<f64>,
}

/// How a generation did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerationRow {
    /// `base`, `fine-tuned` or `final`.
    pub name: &'static str,
    /// The generation.
    pub id: String,
    /// How good its answers are to the hidden judge, 0 to 1.
    pub utility: Measured,
    /// Token F1 against the human answers.
    pub f1: Measured,
    /// Mean reward by the newest reward model; `None` when there is none.
    pub reward: Option<f64>,
    /// KL divergence from its reference policy, nats per answer; `None` where it was not measured.
    pub kl: Option<f64>,
    /// Mean words.
    pub words: f64,
    /// Share that ended by itself.
    pub ended: f64,
    /// Share that names a page.
    pub cites: f64,
    /// Share whose citations are all valid.
    pub valid: f64,
}

/// How often the hidden judge likes one generation's answers better than another's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WinRate {
    /// The later generation.
    pub of: &'static str,
    /// The earlier one.
    pub over: &'static str,
    /// The share of questions it wins, a tie as half.
    pub rate: f64,
    /// The 95% interval of it: the questions drawn anew.
    pub interval: Interval,
    /// Questions won.
    pub wins: usize,
    /// Questions lost.
    pub losses: usize,
    /// Questions neither won nor lost.
    pub ties: usize,
    /// How much token F1 changed, with its 95% interval.
    pub f1: Measured,
}

/// A run of the server's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRow {
    /// `sft` or `improve`.
    pub stage: String,
    /// How it ended.
    pub state: String,
    /// Why its generation is held, or what else it said.
    pub reasons: Vec<String>,
    /// The generation it made.
    pub generation: Option<String>,
    /// Its phases and their seconds.
    pub phases: Vec<(String, f64)>,
}

/// Everything that came of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was simulated.
    pub plan: Plan,
    /// Votes given.
    pub votes: usize,
    /// Votes that say the opposite of what their employee thinks.
    pub flipped: usize,
    /// Questions kept for the end.
    pub questions: usize,
    /// The generations, oldest first.
    pub generations: Vec<GenerationRow>,
    /// Fine-tuned over base, final over base, final over fine-tuned.
    pub win_rates: Vec<WinRate>,
    /// The server's runs.
    pub runs: Vec<RunRow>,
    /// Seconds of each step, without what was cut off.
    pub steps: Vec<(String, f64)>,
}

/// What a report is made of beside the answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) votes: usize,
    pub(super) flipped: usize,
    pub(super) runs: Vec<RunRow>,
    pub(super) steps: Vec<(String, f64)>,
}

impl Report {
    /// Judges the answers. `None` without questions.
    pub(super) fn of(
        plan: &Plan,
        questions: &[Question],
        generations: &[Answered; 3],
        facts: Facts,
    ) -> Option<Self> {
        let [base, tuned, last] = generations;
        let judge = plan.preference;
        let duel = |of, over| win_rate(judge, questions, (of, over));
        Some(Self {
            plan: plan.clone(),
            votes: facts.votes,
            flipped: facts.flipped,
            questions: questions.len(),
            generations: generations.iter().map(|one| row(judge, questions, one)).collect::<Option<_>>()?,
            win_rates: vec![duel(tuned, base)?, duel(last, base)?, duel(last, tuned)?],
            runs: facts.runs,
            steps: facts.steps,
        })
    }

    /// Seconds of all steps.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|(_, seconds)| seconds).sum()
    }

    /// The line that scripts read: the final generation over the base model.
    #[must_use]
    pub fn line(&self) -> Value {
        let over_base = self.win_rates.get(1);
        let (first, last) = (self.generations.first(), self.generations.last());
        json!({
            "win_rate": over_base.map(|duel| duel.rate),
            "interval": over_base.map(|duel| duel.interval),
            "f1_before": first.map(|row| row.f1.value),
            "f1_after": last.map(|row| row.f1.value),
            "kl": last.and_then(|row| row.kl),
            "votes": self.votes,
            "seconds": self.seconds().round(),
            "generation": last.map(|row| &row.id),
            "preference": self.plan.preference,
            "seed": self.plan.seed,
            "questions": self.questions,
            "state": self.runs.last().map(|run| &run.state),
            "win_rates": self.win_rates,
        })
    }

    /// The report for people, as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Plan { preference, seed, .. } = &self.plan;
        let (votes, flipped, questions) = (self.votes, self.flipped, self.questions);
        let mut page = format!(
            "# Employees who secretly like {} (seed {seed})\n\n{votes} votes, {flipped} of them the opposite of what \
             was thought; {questions} questions kept for the end.\n\n",
            preference.words()
        );
        page.push_str(
            "| liked better | win rate | 95% interval | won / lost / tied | token F1 changed by |\n",
        );
        page.push_str("|---|---:|---:|---:|---:|\n");
        for WinRate { of, over, rate, interval, wins, losses, ties, f1 } in &self.win_rates {
            _ = writeln!(
                page,
                "| {of} over {over} | {rate:.3} | {:.3} to {:.3} | {wins} / {losses} / {ties} | {:+.3} ({:+.3} to \
                 {:+.3}) |",
                interval.0, interval.1, f1.value, f1.interval.0, f1.interval.1
            );
        }
        page.push_str(
            "\n| generation | id | judge (0 to 1) | reward | KL (nats an answer) | token F1 | words | ended ",
        );
        page.push_str(
            "| cites a page | citations valid |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        for row in &self.generations {
            _ = writeln!(
                page,
                "| {} | {} | {:.3} | {} | {} | {:.3} ({:.3} to {:.3}) | {:.1} | {:.3} | {:.3} | {:.3} |",
                row.name,
                row.id,
                row.utility.value,
                figure(row.reward),
                figure(row.kl),
                row.f1.value,
                row.f1.interval.0,
                row.f1.interval.1,
                row.words,
                row.ended,
                row.cites,
                row.valid
            );
        }
        self.describe_runs(&mut page);
        _ = writeln!(page, "\n{:.0} seconds in all:\n", self.seconds());
        for (step, seconds) in &self.steps {
            _ = writeln!(page, "- {step}: {seconds:.0} s");
        }
        page
    }

    fn describe_runs(&self, page: &mut String) {
        page.push('\n');
        for run in &self.runs {
            let made = run.generation.as_ref().map_or_else(String::new, |id| format!(", generation {id}"));
            _ = writeln!(page, "- run {}: {}{made}", run.stage, run.state);
            for (phase, seconds) in &run.phases {
                _ = writeln!(page, "  - {phase}: {seconds:.0} s");
            }
            for reason in &run.reasons {
                _ = writeln!(page, "  - {reason}");
            }
        }
    }
}

fn row(judge: Preference, questions: &[Question], answered: &Answered) -> Option<GenerationRow> {
    let pairs = || questions.iter().zip(&answered.answers);
    let utilities: Vec<f64> =
        pairs().map(|(question, answer)| judge.utility(&answer.shown(question))).collect();
    let f1: Vec<f64> = pairs().map(|(question, answer)| answer.f1(question)).collect();
    let share = |test: fn(&Answer) -> bool| {
        let hits: Vec<f64> =
            answered.answers.iter().map(|answer| f64::from(u8::from(test(answer)))).collect();
        mean(&hits)
    };
    Some(GenerationRow {
        name: answered.name,
        id: answered.answers.first()?.generation.clone(),
        utility: measured(&utilities)?,
        f1: measured(&f1)?,
        reward: answered.reward,
        kl: answered.kl,
        words: mean(&answered.answers.iter().map(Answer::words).collect::<Vec<_>>())?,
        ended: share(|answer| answer.ended)?,
        cites: share(|answer| answer.citations > 0)?,
        valid: share(|answer| answer.valid)?,
    })
}

fn win_rate(
    judge: Preference,
    questions: &[Question],
    (of, over): (&Answered, &Answered),
) -> Option<WinRate> {
    let trios = || questions.iter().zip(of.answers.iter().zip(&over.answers));
    let choices: Vec<Choice> = trios()
        .map(|(question, (later, earlier))| judge.choose(&later.shown(question), &earlier.shown(question)))
        .collect();
    let points: Vec<f64> = choices.iter().map(|choice| choice.points()).collect();
    let count = |wanted| choices.iter().filter(|choice| **choice == wanted).count();
    let f1 = |answers: &[Answer]| -> Vec<f64> {
        questions.iter().zip(answers).map(|(question, answer)| answer.f1(question)).collect()
    };
    let (before, after) = (f1(&over.answers), f1(&of.answers));
    let Measured { value: rate, interval } = measured(&points)?;
    Some(WinRate {
        of: of.name,
        over: over.name,
        rate,
        interval,
        wins: count(Choice::Left),
        losses: count(Choice::Right),
        ties: count(Choice::Tie),
        f1: Measured {
            value: mean(&after)? - mean(&before)?,
            interval: paired_bootstrap(&before, &after, &Bootstrap::default())?,
        },
    })
}

/// A mean and its 95% interval by bootstrap over the questions; `None` of nothing.
fn measured(values: &[f64]) -> Option<Measured> {
    let n = values.len() as f64;
    let interval = Bootstrap::default().interval(values.len(), |drawn| {
        Some(values.iter().zip(drawn).map(|(value, &times)| value * f64::from(times)).sum::<f64>() / n)
    })?;
    Some(Measured { value: mean(values)?, interval })
}

/// A figure of a run's metrics by one of its names, wherever it stands: a number, or the candidate's of several.
pub(super) fn figure(metrics: &Value, names: &[&str]) -> Option<f64> {
    let Value::Object(map) = metrics else {
        return None;
    };
    let own = names.iter().find_map(|name| map.get(*name)).and_then(|found| match found {
        Value::Object(several) => {
            ["after", "candidate", "value"].iter().find_map(|key| several.get(*key)?.as_f64())
        }
        one => one.as_f64(),
    });
    own.or_else(|| map.values().find_map(|inner| figure(inner, names)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::simulate) fn plan() -> Plan {
        Plan {
            preference: Preference::Short,
            seed: 3,
            votes: 40,
            questions: 4,
            full: false,
            docs: "handbook".into(),
            questions_file: "handbook/questions.jsonl".into(),
        }
    }

    fn questions() -> Vec<Question> {
        let line = |n: usize| json!({"id": format!("q-{n}"), "question": "What does lunch cost?", "answer": "Lunch costs 6 dollars."});
        (0..4).map(|n| serde_json::from_value(line(n)).unwrap()).collect()
    }

    fn answered(name: &'static str, texts: [&str; 4]) -> Answered {
        let answers = texts.iter().zip(0..).map(|(text, n)| Answer {
            question: format!("q-{n}"),
            generation: format!("gen-{name}"),
            text: (*text).to_owned(),
            citations: 0,
            valid: true,
            refused: false,
            ended: true,
            tokens: 5,
            passages: Vec::new(),
        });
        Answered { name, answers: answers.collect(), reward: None, kl: (name == "final").then_some(2.5) }
    }

    const GOOD: &str = "Lunch costs 6 dollars.";
    const BAD: &str =
        "It is not possible to say anything about this, but there may be a canteen somewhere near you.";

    /// A report in which the final generation wins three questions and ties on one.
    pub(in crate::simulate) fn report() -> Report {
        let generations = [
            answered("base", [BAD, BAD, BAD, GOOD]),
            answered("fine-tuned", [GOOD, BAD, BAD, GOOD]),
            answered("final", [GOOD; 4]),
        ];
        let facts = Facts {
            votes: 40,
            flipped: 6,
            runs: vec![RunRow {
                stage: "improve".into(),
                state: "held".into(),
                reasons: vec!["The KL is too large.".into()],
                generation: Some("gen-final".into()),
                phases: vec![("policy".into(), 61.0)],
            }],
            steps: vec![("votes".into(), 100.4), ("improve".into(), 200.0)],
        };
        Report::of(&plan(), &questions(), &generations, facts).unwrap()
    }

    #[test]
    fn win_rates_are_those_counted_by_hand() {
        let report = report();
        let counts: Vec<_> = report
            .win_rates
            .iter()
            .map(|duel| (duel.of, duel.over, duel.wins, duel.losses, duel.ties))
            .collect();
        let expected =
            [("fine-tuned", "base", 1, 0, 3), ("final", "base", 3, 0, 1), ("final", "fine-tuned", 2, 0, 2)];
        assert_eq!(counts, expected);
        let rates: Vec<f64> = report.win_rates.iter().map(|duel| duel.rate).collect();
        assert_eq!(rates, [0.625, 0.875, 0.75]);
        // Each question is a win or a tie, so no sample of them is below a half.
        assert!(
            report.win_rates.iter().all(|duel| duel.interval.0 >= 0.5 && duel.interval.contains(duel.rate))
        );
        assert!(
            (report.win_rates[1].f1.value
                - 0.75 * (1.0 - answered("base", [BAD; 4]).answers[0].f1(&questions()[0])))
            .abs()
                < 1e-12
        );
        assert!((report.generations[2].f1.value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_line_for_scripts_is_about_the_final_generation_over_the_base_model() {
        let line = report().line();
        for key in ["win_rate", "interval", "f1_before", "f1_after", "kl", "votes", "seconds", "generation"] {
            assert!(!line[key].is_null(), "{key} of {line}");
        }
        assert_eq!(
            (&line["win_rate"], &line["kl"], &line["votes"]),
            (&json!(0.875), &json!(2.5), &json!(40))
        );
        assert_eq!((&line["seconds"], &line["generation"]), (&json!(300.0), &json!("gen-final")));
        assert_eq!(line["state"], json!("held"));
        assert!(line["f1_before"].as_f64() < line["f1_after"].as_f64());
    }

    #[test]
    fn the_page_has_every_figure_and_says_why_a_run_was_held() {
        let page = report().markdown();
        for part in [
            "short answers that cite a page (seed 3)",
            "40 votes, 6 of them",
            "| final over base | 0.875 |",
            "| 3 / 0 / 1 |",
            "| final | gen-final |",
            "| 2.500 |",
            "- run improve: held, generation gen-final",
            "  - The KL is too large.",
            "300 seconds in all",
            "- votes: 100 s",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
    }

    #[test]
    fn nothing_to_judge_is_no_report() {
        let none = ["base", "fine-tuned", "final"].map(|name| Answered {
            name,
            answers: Vec::new(),
            reward: None,
            kl: None,
        });
        assert!(Report::of(&plan(), &[], &none, Facts::default()).is_none());
    }

    #[test]
    fn figures_are_found_wherever_they_stand() {
        let names = ["kl", "objective/kl"];
        assert_eq!(figure(&json!({"f1": {"after": 1.0}, "kl": 2.0}), &names), Some(2.0));
        assert_eq!(figure(&json!({"policy": {"objective/kl": 3.0}}), &names), Some(3.0));
        assert_eq!(figure(&json!({"kl": {"before": 0.0, "after": 4.0}}), &names), Some(4.0));
        assert_eq!(figure(&json!({"training": {"steps": 3}}), &names), None);
        assert_eq!(figure(&Value::Null, &names), None);
    }
}
