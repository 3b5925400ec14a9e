//! By what is the policy optimised, and by what judged? Two reward models that share no question.

use sha2::{Digest, Sha256};

use super::rewarding::Collecting;
use super::{ImproveError, Question, Work};
use crate::dataset::judgements::Judgements;
use crate::evaluation::gate::{HalvesScores, RewardModelScores};
use crate::reward::{self, Accuracy, Extractor, Item, Preferences, Read, RewardError, RewardModel, Score};

/// Of two halves of the questions, the policy is optimised by what one says and judged by what the other says.
const PARTS: u8 = 2;
/// Share of the choices that a reward model needs at all which each half must have: a little less than a half, since
/// questions fall by chance.
const PART_OF_ENOUGH: f64 = 0.4;
/// Minutes the judge may take: enough for the rung of features.
const JUDGE_MINUTES: f64 = 2.0;

/// What the policy is optimised by.
pub(super) struct Rewarding {
    /// What reads answers.
    pub(super) extractor: Extractor,
    /// What the policy is optimised by: learnt from half of the questions.
    pub(super) model: RewardModel,
    /// What says whether it became better: learnt from the other half, with another seed.
    pub(super) judge: RewardModel,
    /// How good the model on all questions is on choices it has not seen, and these two are: for the gate.
    pub(super) scores: RewardModelScores,
    /// How often these two are right about the choices on each other's questions.
    pub(super) halves: Accuracy,
    /// The judgements themselves.
    pub(super) judgements: Judgements,
}

impl Rewarding {
    /// What a reward model says of answers to questions; `None` of one that says nothing, which can not be scored.
    pub(super) fn score(
        &self,
        model: &RewardModel,
        answers: &[(&Question, &str)],
    ) -> Result<Vec<Option<Score>>, ImproveError> {
        Ok(scores(model, &self.read(model, answers)?))
    }

    /// Answers to questions as a reward model reads them; `None` of one that says nothing.
    pub(super) fn read(
        &self,
        model: &RewardModel,
        answers: &[(&Question, &str)],
    ) -> Result<Vec<Option<Read>>, ImproveError> {
        let says = |text: &str| !text.trim().is_empty();
        let passages: Vec<Vec<String>> =
            answers.iter().map(|(question, _)| question.passage_texts()).collect();
        let said = answers.iter().zip(&passages).filter(|((_, text), _)| says(text));
        let items: Vec<Item<'_>> = said
            .map(|((question, text), passages)| Item {
                conversation: &question.example.messages,
                passages,
                answer: text,
            })
            .collect();
        let mut read = model.read(&self.extractor, &items)?.into_iter();
        Ok(answers.iter().map(|(_, text)| if says(text) { read.next() } else { None }).collect())
    }
}

/// What a reward model says of answers it has read.
pub(super) fn scores(model: &RewardModel, read: &[Option<Read>]) -> Vec<Option<Score>> {
    read.iter().map(|read| read.as_ref().map(|read| model.score_of(read))).collect()
}

impl Work<'_> {
    /// The two models the policy is optimised and judged by, which share no question; `Err` says how far the collecting
    /// of the shorter half is.
    pub(super) async fn sides(
        &self,
        judgements: Judgements,
        (extractor, scores): (Extractor, RewardModelScores),
    ) -> Result<Result<Rewarding, Collecting>, ImproveError> {
        let all = judgements.preferences();
        let (optimising, judging) = (part(&all, optimises), part(&all, |cluster| !optimises(cluster)));
        let enough = self.workshop.config.reward.enough * PART_OF_ENOUGH;
        // The judge is the quicker one: what is short is known before the longer training.
        let judge = self
            .train("judge", (&judging, &extractor), |settings| {
                settings.enough = enough;
                settings.budget_minutes = settings.budget_minutes.min(JUDGE_MINUTES);
                settings.seed = settings.seed.wrapping_add(1);
            })
            .await?;
        let judge = match judge {
            Ok(trained) => trained.model,
            Err(collecting) => return Ok(Err(collecting)),
        };
        let model = self.train("optimise", (&optimising, &extractor), |settings| settings.enough = enough);
        let model = match model.await? {
            Ok(trained) => trained.model,
            Err(collecting) => return Ok(Err(collecting)),
        };
        let measuring = extractor.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let right = |model: &RewardModel, of: &Preferences| {
                reward::accuracy_of(model, &measuring, &of.pairs.iter().collect::<Vec<_>>())
            };
            let (one, other) = (right(&model, &judging)?, right(&judge, &optimising)?);
            let halves = Accuracy::of(one.right + other.right, one.pairs + other.pairs);
            Ok::<_, RewardError>((halves, model, judge))
        });
        let (halves, model, judge) = measured.await??;
        let counted = HalvesScores {
            pairs: halves.pairs,
            right: halves.right.floor() as u64,
            longer_chosen: reward::longer_wins(&all.pairs.iter().collect::<Vec<_>>()).right.floor() as u64,
        };
        let scores = RewardModelScores { halves: Some(counted), ..scores };
        Ok(Ok(Rewarding { extractor, model, judge, scores, halves, judgements }))
    }
}

/// Whether the policy may learn from what people said about a question; what they said about the others judges it. By a
/// hash of the question.
pub(super) fn optimises(cluster: &str) -> bool {
    Sha256::digest(format!("attune judge\0{cluster}"))[0] % PARTS != 0
}

/// The signals on some questions.
fn part(all: &Preferences, wanted: impl Fn(&str) -> bool) -> Preferences {
    Preferences {
        pairs: all.pairs.iter().filter(|pair| wanted(&pair.cluster)).cloned().collect(),
        thumbs: all.thumbs.iter().filter(|thumb| wanted(&thumb.cluster)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Message;
    use crate::reward::Pair;

    #[test]
    fn optimising_and_judging_share_no_question_and_miss_none() {
        let pair = |n: usize| Pair {
            id: n.to_string(),
            cluster: format!("question {}", n / 2),
            held_out: false,
            conversation: vec![Message::user("?")],
            passages: Vec::new(),
            chosen: "a".into(),
            rejected: "b".into(),
            preference: 1.0,
            margin: 0.0,
            user: None,
            source: "vote".into(),
            created: 0,
        };
        let all = Preferences { pairs: (0..600).map(pair).collect(), thumbs: Vec::new() };
        let (optimising, judging) = (part(&all, optimises), part(&all, |cluster| !optimises(cluster)));
        assert_eq!(optimising.pairs.len() + judging.pairs.len(), 600);
        // A half, within 4 standard errors of 300 questions.
        assert!((230..370).contains(&judging.pairs.len()), "{}", judging.pairs.len());
        let judged: std::collections::HashSet<&str> =
            judging.pairs.iter().map(|pair| pair.cluster.as_str()).collect();
        assert!(optimising.pairs.iter().all(|pair| !judged.contains(pair.cluster.as_str())));
    }
}
