//! What may a person say about an answer, and what does it become?

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::{
    config::FeedbackConfig,
    domain::{
        AccessLabel, AnswerId, AnswerRecord, Choice, ComparisonId, Demonstration, DemonstrationId,
        DemonstrationSource, DemonstrationStatus, Feedback, Groups, Identity, Millis, Rating, Reason, Role,
        Vote, now,
    },
    error::{Error, Result},
    ledger::Ledger,
};

/// What to change about one's feedback on an answer: a field that is absent stays as it is, null (or a blank text, or
/// no reasons) takes it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeedbackInput {
    /// The thumb. Without one there are no reasons.
    #[serde(deserialize_with = "given")]
    pub rating: Option<Option<Rating>>,
    /// Why.
    #[serde(deserialize_with = "given")]
    pub reasons: Option<Option<Vec<Reason>>>,
    /// Free text.
    #[serde(deserialize_with = "given")]
    pub comment: Option<Option<String>>,
    /// What the answer should have been.
    #[serde(deserialize_with = "given")]
    pub ideal_answer: Option<Option<String>>,
}

/// A vote on a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VoteInput {
    /// What is chosen.
    pub choice: Choice,
    /// How much better, 1 to 3; only with a side chosen.
    #[serde(default)]
    pub strength: Option<u8>,
    /// Free text.
    #[serde(default)]
    pub comment: Option<String>,
}

/// Input that keeps to the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T>(T);

impl FeedbackInput {
    /// Checks lengths, and makes blank texts null.
    ///
    /// # Errors
    /// When the comment or the ideal answer is too long.
    pub fn checked(self, limits: &FeedbackConfig) -> Result<Checked<Self>> {
        let text = |field, text: Option<Option<String>>, most| {
            text.map(|text| checked_text(field, text, most)).transpose()
        };
        Ok(Checked(Self {
            comment: text("comment", self.comment, limits.max_comment_chars)?,
            ideal_answer: text("ideal_answer", self.ideal_answer, limits.max_ideal_answer_chars)?,
            ..self
        }))
    }
}

impl VoteInput {
    /// Checks the strength and lengths.
    ///
    /// # Errors
    /// When the strength is not 1 to 3 or given without a side, or the comment is too long.
    pub fn checked(self, limits: &FeedbackConfig) -> Result<Checked<Self>> {
        let side = matches!(self.choice, Choice::Left | Choice::Right);
        match self.strength {
            Some(_) if !side => {
                return Err(Error::invalid("strength", "strength needs the choice left or right"));
            }
            Some(strength) if !(1..=3).contains(&strength) => {
                return Err(Error::invalid("strength", "strength must be 1, 2 or 3"));
            }
            _ => {}
        }
        let comment = checked_text("comment", self.comment, limits.max_comment_chars)?;
        Ok(Checked(Self { comment, ..self }))
    }
}

/// Writes, changes or takes back a person's feedback on an answer: `None` when nothing is left of it. An ideal answer
/// becomes a draft demonstration for a curator to approve; it follows the feedback until then.
///
/// # Errors
/// Not found when the answer was never recorded or is not for this person to see; else when the ledger fails.
pub async fn submit(
    ledger: &dyn Ledger,
    who: &Identity,
    answer: &AnswerId,
    input: Checked<FeedbackInput>,
) -> Result<Option<Feedback>> {
    let not_found = || Error::not_found(format!("answer {answer}"));
    let record = ledger.answer(answer).await?.ok_or_else(not_found)?;
    if !may_see(who, &record.user, &record.access) {
        return Err(not_found());
    }
    let before = ledger.feedback_on(answer).await?.into_iter().find(|feedback| feedback.user == who.user);
    let old_ideal = before.as_ref().and_then(|feedback| feedback.ideal_answer.clone());
    let after = merged(before, input.0, (answer, who), now());
    // The draft goes first: a crash in between leaves a draft too many, never a correction nobody will see.
    if after.ideal_answer != old_ideal {
        draft_correction(ledger, &record, &after).await?;
    }
    let empty = after.rating.is_none() && after.comment.is_none() && after.ideal_answer.is_none();
    if empty {
        ledger.delete_feedback(answer, &who.user).await?;
        return Ok(None);
    }
    ledger.put_feedback(&after).await?;
    Ok(Some(after))
}

/// Writes or changes a person's vote on a comparison.
///
/// # Errors
/// Not found when there is no such comparison or it is not for this person to judge; a conflict when a training
/// dataset has used the vote; else when the ledger fails.
pub async fn vote(
    ledger: &dyn Ledger,
    who: &Identity,
    comparison: &ComparisonId,
    input: Checked<VoteInput>,
) -> Result<Vote> {
    let not_found = || Error::not_found(format!("comparison {comparison}"));
    let record = ledger.comparison(comparison).await?.ok_or_else(not_found)?;
    if !may_see(who, &record.user, &record.access) {
        return Err(not_found());
    }
    let VoteInput { choice, strength, comment } = input.0;
    let before = ledger.votes(comparison).await?.into_iter().find(|vote| vote.user == who.user);
    let updated = now();
    let created = before.map_or(updated, |vote| vote.created);
    let (comparison, user) = (comparison.clone(), who.user.clone());
    let vote = Vote { comparison, user, choice, strength, comment, created, updated };
    ledger.put_vote(&vote).await?;
    Ok(vote)
}

/// One's own, or, for those who judge, what they may read.
fn may_see(who: &Identity, owner: &str, access: &AccessLabel) -> bool {
    who.user == owner || (who.role >= Role::Curator && access.permits(who.visible_groups()))
}

fn merged(
    before: Option<Feedback>,
    input: FeedbackInput,
    (answer, who): (&AnswerId, &Identity),
    now: Millis,
) -> Feedback {
    let before = before.unwrap_or_else(|| Feedback {
        answer: answer.clone(),
        user: who.user.clone(),
        rating: None,
        reasons: Vec::new(),
        comment: None,
        ideal_answer: None,
        created: now,
        updated: now,
    });
    let rating = input.rating.unwrap_or(before.rating);
    let mut reasons = input.reasons.map_or(before.reasons, Option::unwrap_or_default);
    if rating.is_none() {
        reasons.clear();
    }
    reasons.sort_unstable();
    reasons.dedup();
    Feedback {
        rating,
        reasons,
        comment: input.comment.unwrap_or(before.comment),
        ideal_answer: input.ideal_answer.unwrap_or(before.ideal_answer),
        updated: now,
        ..before
    }
}

/// Keeps the draft in step with the feedback. What a curator has approved stays as it is: a later correction is a
/// draft of its own.
async fn draft_correction(ledger: &dyn Ledger, answer: &AnswerRecord, feedback: &Feedback) -> Result<()> {
    let mut revision = 0_u32;
    let (id, draft) = loop {
        let id = correction_id(feedback, revision);
        match ledger.demonstration(&id).await? {
            Some(found) if found.status == DemonstrationStatus::Approved => revision += 1,
            draft => break (id, draft),
        }
    };
    if let Some(ideal) = &feedback.ideal_answer {
        ledger.put_demonstration(&correction(id, answer, feedback, ideal)).await?;
    } else if draft.is_some() {
        ledger.set_demonstration_deleted(&id, true).await?;
    }
    Ok(())
}

/// The same for the same (answer, person), so that a repeated request finds its draft.
fn correction_id(feedback: &Feedback, revision: u32) -> DemonstrationId {
    let name = format!("{}/{}/{revision}", feedback.answer, feedback.user);
    DemonstrationId::from_wire(format!("dem-{}", hex::encode(&Sha256::digest(name)[..16])))
}

fn correction(id: DemonstrationId, answer: &AnswerRecord, feedback: &Feedback, ideal: &str) -> Demonstration {
    let demonstration = Demonstration {
        id,
        messages: answer.messages.clone(),
        response: ideal.to_owned(),
        groups: Groups::new(),
        access: AccessLabel::default(),
        passages: None,
        source: DemonstrationSource::Correction,
        author: feedback.user.clone(),
        status: DemonstrationStatus::Draft,
        corrects: None,
        lineage: None,
        created: feedback.updated,
        updated: feedback.updated,
    };
    demonstration.correcting(answer)
}

fn checked_text(field: &'static str, text: Option<String>, most: usize) -> Result<Option<String>> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.chars().count() > most) {
        return Err(Error::invalid(field, format!("{field} must have at most {most} characters")));
    }
    Ok(text)
}

/// Tells null from absent.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorCode,
        ledger::{
            Paging,
            tests::{
                Harness,
                fixtures::{answer, comparison, employee, groups},
            },
        },
    };

    fn checked(json: &str) -> Checked<FeedbackInput> {
        serde_json::from_str::<FeedbackInput>(json).unwrap().checked(&FeedbackConfig::default()).unwrap()
    }

    async fn drafts(h: &Harness) -> Vec<Demonstration> {
        h.ledger.demonstrations(None, &Paging { before: None, limit: 10 }).await.unwrap().data
    }

    #[tokio::test]
    async fn fields_change_one_by_one_until_nothing_is_left() {
        let h = Harness::sqlite().await;
        let answer = answer("ada", 1, 1);
        h.ledger.record_answer(&answer).await.unwrap();
        let ada = employee("ada");
        let put = async |json: &str| submit(&*h.ledger, &ada, &answer.id, checked(json)).await.unwrap();
        let up = put(r#"{"rating": "up", "reasons": ["clear", "accurate", "clear"]}"#).await.unwrap();
        assert_eq!((up.rating, up.reasons), (Some(Rating::Up), vec![Reason::Accurate, Reason::Clear]));
        let commented = put(r#"{"comment": " fine "}"#).await.unwrap();
        assert_eq!((commented.rating, commented.comment.as_deref()), (Some(Rating::Up), Some("fine")));
        let without = put(r#"{"rating": null}"#).await.unwrap();
        assert_eq!((without.rating, without.reasons, without.comment), (None, vec![], Some("fine".into())));
        assert_eq!(put(r#"{"comment": ""}"#).await, None);
        assert_eq!(h.ledger.feedback_on(&answer.id).await.unwrap(), []);
    }

    #[tokio::test]
    async fn others_answers_are_not_found_except_by_those_who_judge_them() {
        let h = Harness::sqlite().await;
        let answer = AnswerRecord { access: AccessLabel::of([&groups(&["hr"])]), ..answer("ada", 1, 1) };
        h.ledger.record_answer(&answer).await.unwrap();
        let (comparison, left, right) = comparison("ada", 1, 10);
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        let curator = Identity { role: Role::Curator, ..employee("cora") };
        let of_hr = Identity { groups: groups(&["hr"]), ..curator.clone() };
        let rate = async |who: &Identity| {
            submit(&*h.ledger, who, &answer.id, checked(r#"{"rating": "down"}"#)).await
        };
        for stranger in
            [employee("bob"), Identity { groups: groups(&["hr"]), ..employee("bob") }, curator.clone()]
        {
            assert_eq!(rate(&stranger).await.unwrap_err().code, ErrorCode::NotFound);
        }
        rate(&of_hr).await.unwrap();
        rate(&employee("ada")).await.unwrap();
        assert_eq!(h.ledger.feedback_on(&answer.id).await.unwrap().len(), 2);

        let tie = VoteInput { choice: Choice::Tie, strength: None, comment: None };
        let tie = tie.checked(&FeedbackConfig::default()).unwrap();
        let judge = async |who: &Identity| vote(&*h.ledger, who, &comparison.id, tie.clone()).await;
        assert_eq!(judge(&employee("bob")).await.unwrap_err().code, ErrorCode::NotFound);
        judge(&curator).await.unwrap();
        judge(&employee("ada")).await.unwrap();
        assert_eq!(h.ledger.votes(&comparison.id).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_correction_is_one_draft_that_follows_the_feedback_until_it_is_approved() {
        let h = Harness::sqlite().await;
        let answer = answer("ada", 1, 1);
        h.ledger.record_answer(&answer).await.unwrap();
        let ada = employee("ada");
        let put = async |json: &str| drop(submit(&*h.ledger, &ada, &answer.id, checked(json)).await.unwrap());
        put(r#"{"ideal_answer": "Room 310."}"#).await;
        put(r#"{"ideal_answer": "Room 310, third floor."}"#).await;
        put(r#"{"rating": "down"}"#).await;
        let found = drafts(&h).await;
        let [draft] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(draft.response, "Room 310, third floor.");
        assert_eq!(
            (draft.status, draft.source),
            (DemonstrationStatus::Draft, DemonstrationSource::Correction)
        );
        assert_eq!((draft.corrects.as_ref(), &draft.messages), (Some(&answer.id), &answer.messages));
        put(r#"{"ideal_answer": null}"#).await;
        assert_eq!(drafts(&h).await, []);

        put(r#"{"ideal_answer": "Room 310."}"#).await;
        let draft = drafts(&h).await.remove(0);
        let approved = Demonstration { status: DemonstrationStatus::Approved, ..draft };
        h.ledger.put_demonstration(&approved).await.unwrap();
        put(r#"{"ideal_answer": "Room 311."}"#).await;
        put(r#"{"ideal_answer": "Room 312."}"#).await;
        let found = drafts(&h).await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&approved));
        put(r#"{"ideal_answer": null}"#).await;
        assert_eq!(drafts(&h).await, [approved]);
    }

    #[tokio::test]
    async fn a_draft_a_curator_deleted_stays_deleted_when_the_request_is_repeated() {
        let h = Harness::sqlite().await;
        let answer = answer("ada", 1, 1);
        h.ledger.record_answer(&answer).await.unwrap();
        let again = async || {
            let input = checked(r#"{"ideal_answer": "Room 310."}"#);
            submit(&*h.ledger, &employee("ada"), &answer.id, input).await.unwrap()
        };
        again().await;
        let draft = drafts(&h).await.remove(0);
        h.ledger.set_demonstration_deleted(&draft.id, true).await.unwrap();
        again().await;
        assert_eq!(drafts(&h).await, []);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let limits = FeedbackConfig { max_comment_chars: 3, max_ideal_answer_chars: 4 };
        let text = |length: usize| Some(Some("ü".repeat(length)));
        let long = |input: FeedbackInput| input.checked(&limits).map_err(|error| error.param.unwrap());
        assert!(
            long(FeedbackInput { comment: text(3), ideal_answer: text(4), ..Default::default() }).is_ok()
        );
        assert_eq!(long(FeedbackInput { comment: text(4), ..Default::default() }).unwrap_err(), "comment");
        assert_eq!(
            long(FeedbackInput { ideal_answer: text(5), ..Default::default() }).unwrap_err(),
            "ideal_answer"
        );
        for (choice, strength, good) in [
            (Choice::Left, Some(3), true),
            (Choice::Right, None, true),
            (Choice::Left, Some(0), false),
            (Choice::Left, Some(4), false),
            (Choice::Tie, Some(1), false),
            (Choice::BothBad, Some(1), false),
        ] {
            let input = VoteInput { choice, strength, comment: None };
            assert_eq!(input.checked(&limits).is_ok(), good, "{choice:?} {strength:?}");
        }
        assert!(serde_json::from_str::<FeedbackInput>(r#"{"ratings": "up"}"#).is_err());
    }
}
