//! What was measured of a policy before it may be served?

use serde::{Deserialize, Serialize};

use crate::domain::AccessLabel;
use crate::evaluation::metrics::{
    DistinctGrams, most_common_share, rate, repetition_grams, rouge_l, token_f1, token_recall, without_marks,
    word_count,
};
use crate::evaluation::report::Sample;
use crate::evaluation::statistics::{sign_test, signed_ranks};

/// How a policy was made: it decides which measurements a candidate can not do without, and which policy's place it may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Fine-tuned on demonstrations: there may be no reward model yet.
    FineTuned,
    /// Optimised against a reward model: everything about it must be known.
    #[default]
    Optimised,
}

/// How a reward model did on preference pairs it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardModelScores {
    /// Pairs.
    pub pairs: u64,
    /// Pairs in which it scored the answer higher that people chose.
    pub right: u64,
    /// Pairs in which people chose the longer answer: what a model that only counts words would get right.
    pub longer_chosen: u64,
    /// Expected calibration error of its probabilities, 0 to 1.
    pub calibration_error: f64,
    /// Of the two models that the candidate was optimised and is judged by, each learnt from half of the questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halves: Option<HalvesScores>,
}

/// How two reward models that share no question did on the preference pairs on each other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalvesScores {
    /// Pairs, of both.
    pub pairs: u64,
    /// Pairs in which the answer that people chose was scored higher.
    pub right: u64,
    /// Pairs in which people chose the longer answer.
    pub longer_chosen: u64,
}

/// Two answers to each of several prompts, judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Duel {
    /// Prompts whose answer by the candidate is better.
    pub wins: u64,
    /// Prompts whose answer by the candidate is worse.
    pub losses: u64,
    /// Prompts whose answers are equally good.
    pub ties: u64,
    /// Where it is known by how much answers are better: p of Wilcoxon's signed-rank test, 1 unless it favours the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_rank: Option<f64>,
}

impl Duel {
    /// Of the candidate's value minus the other's, prompt by prompt.
    #[must_use]
    pub fn of(differences: &[f64]) -> Self {
        let count =
            |wanted: fn(f64) -> bool| differences.iter().filter(|value| wanted(**value)).count() as u64;
        let (wins, losses) = (count(|value| value > 0.0), count(|value| value < 0.0));
        let ranks = signed_ranks(differences);
        let signed_rank = Some(if ranks.sum > 0.0 { ranks.p } else { 1.0 });
        Self { wins, losses, ties: differences.len() as u64 - wins - losses, signed_rank }
    }

    /// The test whose p [`Duel::p`] is: `signed-rank`, or `sign` where it is only known who won.
    #[must_use]
    pub fn test(&self) -> &'static str {
        if self.signed_rank.is_some() { "signed-rank" } else { "sign" }
    }

    /// Two-sided p of what the candidate wins by [`Duel::test`], 1 where it does not win.
    #[must_use]
    pub fn p(&self) -> f64 {
        let sign_test = self.sign_test();
        if self.wins > self.losses { self.signed_rank.unwrap_or(sign_test) } else { 1.0 }
    }

    /// Two-sided p of the sign test, 1 where the candidate does not win.
    #[must_use]
    pub fn sign_test(&self) -> f64 {
        if self.wins > self.losses { sign_test(self.wins, self.losses) } else { 1.0 }
    }

    /// The share of prompts won, a tie as half of one; not a number without prompts.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let prompts = (self.wins + self.losses + self.ties) as f64;
        (self.wins as f64 + 0.5 * self.ties as f64) / prompts
    }
}

/// Mean reward over the current policy's, by the independent reward model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gains {
    /// Of the candidate's answers.
    pub candidate: f64,
    /// Of the best of 4 answers of the current policy.
    pub best_of_4: f64,
}

/// What was measured of a policy. Lists are by question, and the current policy's and the candidate's are of the same
/// questions in the same order; an empty list means "not measured". Of the current policy only how it was made, the lists
/// and the shares that it is compared by are looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scores {
    /// How it was made.
    pub method: Method,
    /// Who may see all that it was trained on.
    pub access: AccessLabel,
    /// Token F1 against the human answer, by question.
    pub f1: Vec<f64>,
    /// ROUGE-L against the human answer, by question.
    pub rouge_l: Vec<f64>,
    /// Share of the human answer's words that the answer has, by question.
    pub coverage: Vec<f64>,
    /// 1 where a page that holds the answer is cited, else 0; of questions whose pages are known.
    pub cited: Vec<f64>,
    /// 1 where a question that has no answer was refused, else 0; of such questions.
    pub refused: Vec<f64>,
    /// 1 where every mark in the answer names a passage of its prompt, else 0, by question.
    pub valid_citations: Vec<f64>,
    /// 1 where a page that holds the answer was retrieved, else 0; of questions whose pages are known.
    pub retrieved: Vec<f64>,
    /// Words of the answer, by question.
    pub words: Vec<f64>,
    /// Share of answers that ended by themselves.
    pub ended: Option<f64>,
    /// Share of answers, or of the last rollouts, that the limit of tokens cut.
    pub clipped: Option<f64>,
    /// Share of repeated runs of 4 words among all, within answers.
    pub repetition: Option<f64>,
    /// Share of questions, the first one left out, that got the most common answer.
    pub same_answer: Option<f64>,
    /// Share of different runs of 3 words among all, within answers.
    pub distinct_3: Option<f64>,
    /// Sequence KL divergence from the reference policy, nats per answer.
    pub kl: Option<f64>,
    /// Entropy of the next token, nats, mean over the tokens of answers.
    pub entropy: Option<f64>,
    /// The reward model of all that people said, and the two of its halves that the candidate met.
    pub reward_model: Option<RewardModelScores>,
    /// Against the current policy on held-out prompts, judged by a reward model of other folds and another seed.
    pub against_current: Option<Duel>,
    /// Against a policy that learnt from random rewards in as many steps, judged likewise.
    pub against_random: Option<Duel>,
    /// Its gain beside that of best-of-4.
    pub gains: Option<Gains>,
    /// Mean absolute difference of the probabilities that trainer and server give the same tokens.
    pub parity: Option<f64>,
}

impl Scores {
    /// What the answers to held-out questions tell by themselves: human-answer metrics, length and wording. Texts are
    /// compared without citation marks.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let texts: Vec<(String, String)> = samples
            .iter()
            .map(|sample| (without_marks(&sample.answer), without_marks(&sample.ideal)))
            .collect();
        let by_question = |measure: fn(&str, &str) -> f64| -> Vec<f64> {
            texts.iter().map(|(answer, ideal)| measure(answer, ideal)).collect()
        };
        let cited = samples.iter().filter_map(|sample| sample.cited);
        let ended = rate(samples.iter().map(|sample| sample.ended));
        let answers = || texts.iter().map(|(answer, _)| answer.as_str());
        let most_common = most_common_share(samples.iter().map(|sample| sample.answer.as_str()));
        Self {
            f1: by_question(token_f1),
            rouge_l: by_question(rouge_l),
            coverage: by_question(token_recall),
            cited: cited.map(|hit| f64::from(u8::from(hit))).collect(),
            words: answers().map(|answer| word_count(answer) as f64).collect(),
            ended,
            clipped: ended.map(|ended| 1.0 - ended),
            repetition: different(answers().map(repetition_grams)).map(|different| 1.0 - different),
            distinct_3: different(answers().map(|answer| DistinctGrams::of(answer, 3))),
            same_answer: most_common.map(|share| share - 1.0 / samples.len() as f64),
            ..Self::default()
        }
    }
}

/// The share of different runs among all, over all answers; 1 where every answer is too short for one; `None` without
/// answers.
fn different(grams: impl Iterator<Item = DistinctGrams>) -> Option<f64> {
    let (mut answers, mut different, mut all) = (0, 0, 0);
    for one in grams {
        answers += 1;
        different += one.different;
        all += one.all;
    }
    let share = if all == 0 { 1.0 } else { different as f64 / all as f64 };
    (answers > 0).then_some(share)
}
