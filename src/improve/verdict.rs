//! May the candidate take the served policy's place? What was measured of both, put before the gate.

use serde_json::{Map, Value, json};

use super::examination::{Answers, Examining, drawn};
use super::judging::{Rewarding, scores};
use super::optimisation::Made;
use super::{ImproveError, Question};
use crate::evaluation::gate::{Duel, Gains, Judgement, Method, Scores, Thresholds, decide};
use crate::evaluation::statistics::mean;
use crate::nn::{Completion, Decoder, Sampling};
use crate::policy::best_of;
use crate::reward::{self, Read, Reason, Score};

/// Answers of which the best is the control that needs no training: beyond 4 little is gained (arXiv:2210.10760).
const BEST_OF: usize = 4;
/// Questions on which that is measured: it costs as much as [`BEST_OF`] examinations of them.
const BEST_OF_QUESTIONS: usize = 40;

/// Reasons of the judge that are kept with the generation.
const REASONS: usize = 12;

/// The gate's judgement, and what it was given.
#[derive(Debug)]
pub struct Verdict {
    /// What is to become of the candidate, and every check.
    pub judgement: Judgement,
    /// Figures for the run and the manifest.
    pub figures: Map<String, Value>,
    /// Why the judge likes the candidate's answers better or worse than the current policy's, in words; `None` without a
    /// judge, or where one of the two says nothing to every question.
    pub why: Option<String>,
}

/// What a policy says.
pub(super) struct Contender {
    /// To the questions with a human answer.
    pub(super) answers: Answers,
    /// To the further ones, as it would be shown.
    pub(super) further: Vec<String>,
}

impl Contender {
    /// All it says, to the questions with a human answer and then to the further ones.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.answers.texts().chain(self.further.iter().map(String::as_str))
    }
}

/// Policies that are compared, on questions with a human answer and further ones.
pub(super) struct Compared<'a> {
    pub(super) questions: (&'a [Question], &'a [Question]),
    pub(super) current: (&'a Decoder, &'a Contender),
    /// How the current one was made.
    pub(super) method: Method,
    pub(super) candidate: &'a Contender,
    pub(super) control: Option<&'a Contender>,
    /// Softmax temperature at which the answers of best-of-n are drawn: that of the optimisation.
    pub(super) temperature: f32,
}

impl Compared<'_> {
    /// Measures what only the reward models can say, and asks the gate.
    pub(super) fn verdict(
        &self,
        examining: Examining<'_>,
        (made, rewarding): (&Made, Option<&Rewarding>),
        (access, thresholds): (&crate::domain::AccessLabel, &Thresholds),
    ) -> Result<Verdict, ImproveError> {
        let (before, after) = (&self.current.1.answers, &self.candidate.answers);
        let current = Scores {
            valid_citations: before.valid.clone(),
            method: self.method,
            ..Scores::of(&before.samples)
        };
        let mut candidate = Scores {
            valid_citations: after.valid.clone(),
            access: access.clone(),
            method: if made.optimised.is_some() { Method::Optimised } else { Method::FineTuned },
            ..Scores::of(&after.samples)
        };
        if let Some(optimised) = &made.optimised {
            candidate.kl = optimised.measured.map(|measured| measured.kl);
            candidate.entropy = optimised.measured.map(|measured| measured.entropy);
        }
        let mut reasons = None;
        if let Some(rewarding) = rewarding {
            candidate.reward_model = Some(rewarding.scores);
            reasons = self.duel(&mut candidate, (examining, rewarding))?;
        }
        let judgement = decide(&current, &candidate, thresholds);
        let mut figures = figures(&candidate, made);
        if let Some(reasons) = &reasons {
            figures.insert("judge_reasons".into(), json!(reasons.iter().take(REASONS).collect::<Vec<_>>()));
        }
        Ok(Verdict { judgement, figures, why: reasons.as_deref().map(reward::words) })
    }

    /// Has the judge compare; gives why it likes the candidate's answers better or worse than the current policy's, on
    /// questions to which both say something; `None` where there is none.
    fn duel(
        &self,
        candidate: &mut Scores,
        (examining, rewarding): (Examining<'_>, &Rewarding),
    ) -> Result<Option<Vec<Reason>>, ImproveError> {
        let judge = &rewarding.judge;
        let read = |of: &Contender| {
            let answers: Vec<(&Question, &str)> = self.questions().zip(of.texts()).collect();
            rewarding.read(judge, &answers)
        };
        let (after, before) = (read(self.candidate)?, read(self.current.1)?);
        let both =
            after.iter().zip(&before).filter_map(|(after, before)| Some([after.as_ref()?, before.as_ref()?]));
        let said: Vec<[&Read; 2]> = both.collect();
        let reasons = (!said.is_empty()).then(|| judge.reasons(&said));

        let control = self.control.map(read).transpose()?.map(|read| scores(judge, &read));
        let (after, before) = (scores(judge, &after), scores(judge, &before));
        let few = before.len().min(BEST_OF_QUESTIONS);
        let best = self.best_of(rewarding, examining, few)?;
        // One floor for all, so that two answers that say nothing are a tie.
        let nothing = nothing(after.iter().chain(&before).chain(control.iter().flatten()).chain(&best));
        let [after, before, best] = [after, before, best].map(|scores| valued(&scores, nothing));
        candidate.against_current = Some(duel(&after, &before));
        candidate.against_random = control.map(|control| duel(&after, &valued(&control, nothing)));
        let gain = |of: &[f64]| Some(mean(&of[..few])? - mean(&before[..few])?);
        candidate.gains =
            gain(&after).zip(gain(&best)).map(|(candidate, best_of_4)| Gains { candidate, best_of_4 });
        Ok(reasons)
    }

    /// All questions, those with a human answer first.
    fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.0.iter().chain(self.questions.1)
    }

    /// What the judge says of the best of several answers of the current policy, chosen by the model that the candidate
    /// was optimised by.
    fn best_of(
        &self,
        rewarding: &Rewarding,
        examining: Examining<'_>,
        questions: usize,
    ) -> Result<Vec<Option<Score>>, ImproveError> {
        let sampling = Sampling { temperature: self.temperature, top_p: 1.0, ..examining.sampling() };
        let asked = (self.current.0, self.questions().take(questions));
        let drawn = drawn(examining, asked, (sampling, BEST_OF), "best of 4")?;
        let shown = |(question, completion): (&Question, &Completion)| {
            question.answered(examining.workshop, (&completion.tokens, completion.ended)).text
        };
        let each = self.questions().zip(&drawn).flat_map(|(question, completions)| {
            completions.iter().map(move |completion| (question, completion))
        });
        let texts: Vec<(&Question, String)> = each.map(|one| (one.0, shown(one))).collect();
        let answers: Vec<(&Question, &str)> =
            texts.iter().map(|(question, text)| (*question, text.as_str())).collect();
        let scores = rewarding.score(&rewarding.model, &answers)?;
        let values = valued(&scores, nothing(&scores));
        let best = best_of(&values, BEST_OF).into_iter().map(|place| answers[place]);
        rewarding.score(&rewarding.judge, &best.collect::<Vec<_>>())
    }
}

/// What saying nothing is worth: less than anything that was said, and a number, so that a mean stays one.
fn nothing<'s>(said: impl IntoIterator<Item = &'s Option<Score>>) -> f64 {
    said.into_iter().flatten().map(|score| score.value).fold(0.0, f64::min) - 1.0
}

/// Scores as numbers.
fn valued(scores: &[Option<Score>], nothing: f64) -> Vec<f64> {
    scores.iter().map(|score| score.map_or(nothing, |score| score.value)).collect()
}

/// Which of two answers to each question is better, and by how much.
fn duel(candidate: &[f64], other: &[f64]) -> Duel {
    Duel::of(&candidate.iter().zip(other).map(|(candidate, other)| candidate - other).collect::<Vec<_>>())
}

fn figures(candidate: &Scores, made: &Made) -> Map<String, Value> {
    let mut figures = Map::new();
    let rate = |duel: Option<Duel>| {
        let figures = |duel: Duel| json!({ "rate": duel.rate(), "duel": duel, "p": duel.p(), "sign_test": duel.sign_test() });
        duel.map(figures)
    };
    if let Some(duel) = rate(candidate.against_current) {
        figures.insert("win_rate".into(), duel);
    }
    if let Some(duel) = rate(candidate.against_random) {
        figures.insert("win_rate_over_random".into(), duel);
    }
    if let Some(Gains { candidate, best_of_4 }) = candidate.gains {
        figures.insert("gain".into(), json!({ "candidate": candidate, "best_of_4": best_of_4 }));
    }
    if let Some(optimised) = &made.optimised {
        figures.insert("kl".into(), json!(candidate.kl));
        figures.insert("entropy".into(), json!(candidate.entropy));
        let policy = json!({
            "steps": optimised.steps,
            "tokens": optimised.tokens,
            "seconds": optimised.seconds,
            "last": optimised.last,
            "means": optimised.means,
            "stopped_early": optimised.stopped_early,
        });
        figures.insert("policy".into(), policy);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duel_counts_each_question_once() {
        let found = duel(&[1.0, 0.0, 2.0, 5.0], &[0.0, 0.0, 3.0, 4.0]);
        // By hand: 1, −1 and 1 share a rank, so that every choice of signs is at least as far from zero.
        assert_eq!(found, Duel { wins: 2, losses: 1, ties: 1, signed_rank: Some(1.0) });
        let (low, high) = ([0.0; 8], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        // 2 of the 256 choices of signs are all the same.
        let all = duel(&high, &low);
        assert_eq!(all, Duel { wins: 8, losses: 0, ties: 0, signed_rank: Some(2.0 / 256.0) });
        assert!((all.p() - all.sign_test()).abs() < 1e-12);
        assert_eq!(duel(&low, &high).p(), 1.0);
        // Three small wins do not outweigh two large losses.
        assert_eq!(duel(&[1.0, 2.0, 3.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 9.0, 9.0]).p(), 1.0);
    }

    /// Whatever else the policies said.
    #[test]
    fn two_answers_that_say_nothing_are_a_tie() {
        let score = |value| Some(Score { value, spread: 0.0, percentile: 50.0 });
        let (after, before) = (vec![None, score(-3.0)], vec![None, score(2.0)]);
        let floor = nothing(after.iter().chain(&before));
        assert!(floor < -3.0);
        let found = duel(&valued(&after, floor), &valued(&before, floor));
        assert_eq!((found.wins, found.losses, found.ties), (0, 1, 1));
        let said = duel(&valued(&[score(-3.0)], floor), &valued(&[None], floor));
        assert_eq!((said.wins, said.losses), (1, 0));
    }
}
